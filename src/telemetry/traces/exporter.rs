//! The thread that posts spans to a receiver of OTLP over HTTP.
//!
//! One request for what a worker has gathered. A receiver that is busy or away is tried again for a few seconds;
//! then the spans are dropped and counted. The receiver's URL and fields may hold a secret: no log line shows more
//! than its host.

use std::{thread, time::Duration};

use super::{
    buffer::SpanBuffer,
    protobuf::{AttributeValue, attribute, message, octets},
};
use crate::{background::Consumer, config::TraceSettings};

pub(super) struct Exporter {
    agent: ureq::Agent,
    url: String,
    host: String,
    fields: Vec<(String, String)>,
    /// Resource and scope, encoded, which every request begins with.
    resource: Vec<u8>,
    scope: Vec<u8>,
    is_failing: bool,
}

impl Exporter {
    pub(super) fn new(settings: &TraceSettings, instance: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(LONGEST_POST))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("anthropic-proxy/", env!("CARGO_PKG_VERSION")))
            .build();
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        message(&mut resource, 1, |out| {
            let own = [
                ("service.version", env!("CARGO_PKG_VERSION")),
                ("service.instance.id", instance),
            ];
            let is_named = |name: &str| settings.resource.iter().any(|(key, _)| key == name);
            let own = own.into_iter().filter(|(name, _)| !is_named(name));
            let named = settings
                .resource
                .iter()
                .map(|(key, value)| (&**key, &**value));
            for (key, value) in named.chain(own) {
                attribute(out, 1, key, AttributeValue::Text(value));
            }
        });
        message(&mut scope, 1, |out| {
            octets(out, 1, env!("CARGO_PKG_NAME"));
            octets(out, 2, env!("CARGO_PKG_VERSION"));
        });
        Self {
            agent: config.into(),
            url: settings.endpoint.expose().to_owned(),
            host: settings.host.clone(),
            fields: settings
                .fields
                .iter()
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
            resource,
            scope,
            is_failing: false,
        }
    }

    /// The request with these spans (`ExportTraceServiceRequest`).
    fn request(&self, spans: &[u8]) -> Vec<u8> {
        let room = self.resource.len() + self.scope.len() + spans.len() + 32;
        let mut request = Vec::with_capacity(room);
        message(&mut request, 1, |out| {
            out.extend_from_slice(&self.resource);
            message(out, 2, |out| {
                out.extend_from_slice(&self.scope);
                out.extend_from_slice(spans);
            });
        });
        request
    }

    /// Posts until the receiver takes it, or the attempts are used up.
    fn deliver(&self, request: &[u8]) -> Result<(), String> {
        let mut outcome = Ok(());
        for pause in PAUSES {
            thread::sleep(pause);
            outcome = match self.post(request) {
                Ok(200..300) => return Ok(()),
                Ok(status) => {
                    let fault = format!("status {status}");
                    // the others say that it will never take them
                    if !matches!(status, 408 | 429 | 502 | 503 | 504) {
                        return Err(fault);
                    }
                    Err(fault)
                }
                Err(cause) => Err(cause),
            };
        }
        outcome
    }

    fn post(&self, content: &[u8]) -> Result<u16, String> {
        let mut request = self
            .agent
            .post(&*self.url)
            .content_type("application/x-protobuf");
        for (name, value) in &self.fields {
            request = request.header(&**name, &**value);
        }
        match request.send(content) {
            Ok(response) => Ok(response.status().as_u16()),
            // these name the URL
            Err(ureq::Error::BadUri(_)) => Err("invalid URL".to_owned()),
            Err(cause) => Err(cause.to_string()),
        }
    }
}

impl Consumer<SpanBuffer> for Exporter {
    fn take(&mut self, spans: &mut SpanBuffer) -> u64 {
        match self.deliver(&self.request(&spans.octets)) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    log::info!("[Traces] {} takes traces again", self.host);
                }
                0
            }
            Err(cause) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::warn!(
                        "[Traces] {} did not take traces: {cause}; they are dropped and counted \
                         (anthropic_proxy_traces_dropped_total) until it does; check OTEL_EXPORTER_OTLP_ENDPOINT and \
                         OTEL_EXPORTER_OTLP_HEADERS",
                        self.host
                    );
                }
                spans.exchanges
            }
        }
    }
}

/// Pauses before the attempts.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// Longest attempt, from the name's resolution to the response (the default of OTEL_EXPORTER_OTLP_TIMEOUT).
const LONGEST_POST: Duration = Duration::from_secs(10);
