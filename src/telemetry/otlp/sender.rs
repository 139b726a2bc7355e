//! Posts to a receiver of OTLP over HTTP, from a thread that may wait.
//!
//! A receiver that is busy or away is tried again for a few seconds; then the log tells once what becomes of
//! what it did not take. Its URL and fields may hold a secret: no log line shows more than its host.

use std::{thread, time::Duration};

use super::protobuf::{AttributeValue, attribute, message, octets};
use crate::config::OtlpReceiver;

/// Kind of telemetry, for the lines about a receiver.
#[derive(Debug)]
pub(in crate::telemetry) struct SignalWords {
    /// The part of the program.
    pub(in crate::telemetry) tag: &'static str,
    pub(in crate::telemetry) name: &'static str,
    /// Fate of requests that are not taken.
    pub(in crate::telemetry) effect: &'static str,
    /// Variables to look at.
    pub(in crate::telemetry) variables: &'static str,
}

/// Patience with a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum PostPatience {
    /// Several attempts, each as long as the operator lets it be.
    Usual,
    /// One short attempt: the process ends.
    Last,
}

pub(in crate::telemetry) struct OtlpSender {
    agent: ureq::Agent,
    signal: &'static SignalWords,
    url: String,
    host: String,
    fields: Vec<(String, String)>,
    timeout: Duration,
    /// Resource and scope, encoded, which every request begins with.
    resource: Vec<u8>,
    scope: Vec<u8>,
    is_failing: bool,
}

impl OtlpSender {
    /// A sender to the receiver of a signal. `instance` names this run of the process.
    pub(in crate::telemetry) fn new(
        signal: &'static SignalWords,
        settings: &OtlpReceiver,
        instance: &str,
    ) -> Self {
        let config = ureq::Agent::config_builder()
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
            signal,
            url: settings.endpoint.expose().to_owned(),
            host: settings.host.clone(),
            fields: settings
                .fields
                .iter()
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect(),
            timeout: settings.timeout,
            resource,
            scope,
            is_failing: false,
        }
    }

    /// Posts spans or metrics, which are fields of `ScopeSpans` or `ScopeMetrics`. False if they were not taken.
    pub(in crate::telemetry) fn deliver(&mut self, content: &[u8], patience: PostPatience) -> bool {
        let outcome = self.try_all(&self.request(content), patience);
        let (host, SignalWords { tag, name, .. }) = (&self.host, self.signal);
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    log::info!("[{tag}] {host} takes {name} again");
                }
                true
            }
            Err(cause) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let SignalWords {
                        effect, variables, ..
                    } = self.signal;
                    log::warn!(
                        "[{tag}] {host} did not take {name}: {cause}; {effect}; check {variables}"
                    );
                }
                false
            }
        }
    }

    /// The request with this content. `ExportTraceServiceRequest` and `ExportMetricsServiceRequest` have the
    /// same fields.
    fn request(&self, content: &[u8]) -> Vec<u8> {
        let room = self.resource.len() + self.scope.len() + content.len() + 32;
        let mut request = Vec::with_capacity(room);
        message(&mut request, 1, |out| {
            out.extend_from_slice(&self.resource);
            message(out, 2, |out| {
                out.extend_from_slice(&self.scope);
                out.extend_from_slice(content);
            });
        });
        request
    }

    /// Posts until the receiver takes it, or the attempts are used up.
    fn try_all(&self, request: &[u8], patience: PostPatience) -> Result<(), String> {
        let (pauses, timeout) = match patience {
            PostPatience::Usual => (&PAUSES[..], self.timeout),
            PostPatience::Last => (&PAUSES[..1], self.timeout.min(LAST)),
        };
        let mut outcome = Ok(());
        for pause in pauses {
            thread::sleep(*pause);
            outcome = match self.post(request, timeout) {
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

    fn post(&self, content: &[u8], timeout: Duration) -> Result<u16, String> {
        let mut request = self
            .agent
            .post(&*self.url)
            .content_type("application/x-protobuf");
        for (name, value) in &self.fields {
            request = request.header(&**name, &**value);
        }
        // from the name's resolution to the response
        let request = request.config().timeout_global(Some(timeout)).build();
        match request.send(content) {
            Ok(response) => Ok(response.status().as_u16()),
            // these name the URL
            Err(ureq::Error::BadUri(_)) => Err("invalid URL".to_owned()),
            Err(cause) => Err(cause.to_string()),
        }
    }
}

/// Pauses before the attempts.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// Longest request of a process that ends.
const LAST: Duration = Duration::from_secs(2);
