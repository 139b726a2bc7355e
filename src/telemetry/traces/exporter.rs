//! The thread that posts spans: one request for what a worker has gathered.

use std::io;

use super::buffer::SpanBuffer;
use crate::{
    background::Consumer,
    config::TraceSettings,
    telemetry::otlp::{Delivery, OtlpSender, PostPatience, SignalWords},
};

pub(super) struct Exporter(OtlpSender);

impl Exporter {
    pub(super) fn new(settings: &TraceSettings, instance: &str) -> io::Result<Self> {
        OtlpSender::new(&TRACES, &settings.receiver, instance).map(Self)
    }
}

impl Consumer<SpanBuffer> for Exporter {
    fn take(&mut self, spans: &mut SpanBuffer) -> u64 {
        match self.0.deliver(&spans.octets, PostPatience::Usual) {
            Delivery::Taken => 0,
            // each may be of another exchange
            Delivery::Partly(rejected) => rejected.min(spans.exchanges),
            Delivery::Lost => spans.exchanges,
        }
    }
}

static TRACES: SignalWords = SignalWords {
    tag: "Traces",
    name: "traces",
    parts: "spans",
    effect: "they are dropped and counted (anthropic_proxy_traces_dropped_total) until it does",
    effect_on_parts: "their exchanges are counted (anthropic_proxy_traces_dropped_total)",
    variables: "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, and those of traces alone \
                (OTEL_EXPORTER_OTLP_TRACES_…)",
};
