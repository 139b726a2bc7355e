//! The thread that posts spans: one request for what a worker has gathered.

use super::buffer::SpanBuffer;
use crate::{
    background::Consumer,
    config::TraceSettings,
    telemetry::otlp::{OtlpSender, PostPatience, SignalWords},
};

pub(super) struct Exporter(OtlpSender);

impl Exporter {
    pub(super) fn new(settings: &TraceSettings, instance: &str) -> Self {
        Self(OtlpSender::new(&TRACES, &settings.receiver, instance))
    }
}

impl Consumer<SpanBuffer> for Exporter {
    fn take(&mut self, spans: &mut SpanBuffer) -> u64 {
        match self.0.deliver(&spans.octets, PostPatience::Usual) {
            true => 0,
            false => spans.exchanges,
        }
    }
}

static TRACES: SignalWords = SignalWords {
    tag: "Traces",
    name: "traces",
    effect: "they are dropped and counted (anthropic_proxy_traces_dropped_total) until it does",
    variables: "OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS",
};
