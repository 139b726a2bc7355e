//! Posts to a receiver of OTLP over HTTP, from a thread that may wait.
//!
//! A receiver that is busy or away is tried again for a few seconds ([`crate::poster`]); then the log tells once what
//! becomes of what it did not take. A receiver may take a request in part: the log tells that once a minute.

use std::{
    io,
    io::Write as _,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use super::{
    protobuf::{AttributeValue, attribute, message, octets},
    response::{PartialSuccess, partial_success},
};
use crate::{
    config::{OtlpCompression, OtlpReceiver},
    poster::{PostTerms, PostTurn, Poster},
};

/// Kind of telemetry, for the lines about a receiver.
#[derive(Debug)]
pub(in crate::telemetry) struct SignalWords {
    /// The part of the program.
    pub(in crate::telemetry) tag: &'static str,
    pub(in crate::telemetry) name: &'static str,
    /// Parts that a receiver may reject.
    pub(in crate::telemetry) parts: &'static str,
    /// Fate of requests that are not taken.
    pub(in crate::telemetry) effect: &'static str,
    /// Fate of parts that are rejected.
    pub(in crate::telemetry) effect_on_parts: &'static str,
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

/// Outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Delivery {
    /// The receiver took all of it.
    Taken,
    /// It took the request, and rejected this number of parts.
    Partly(u64),
    /// It did not take it.
    Lost,
}

pub(in crate::telemetry) struct OtlpSender {
    poster: Poster,
    signal: &'static SignalWords,
    timeout: Duration,
    compression: OtlpCompression,
    /// Resource and scope, encoded, which every request begins with.
    resource: Vec<u8>,
    scope: Vec<u8>,
    rejections: Rejections,
}

impl OtlpSender {
    /// A sender to the receiver of a signal. `instance` names this run of the process.
    ///
    /// # Errors
    /// If the URL is none of HTTP.
    pub(in crate::telemetry) fn new(
        signal: &'static SignalWords,
        settings: &OtlpReceiver,
        instance: &str,
    ) -> io::Result<Self> {
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
        let coding = match settings.compression {
            OtlpCompression::None => None,
            OtlpCompression::Gzip => Some(("content-encoding", "gzip")),
        };
        let own = [("content-type", "application/x-protobuf")];
        let own = own.into_iter().chain(coding);
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let theirs = settings.fields.iter();
        let theirs = theirs.map(|(name, value)| (name.clone(), value.expose().to_owned()));
        Ok(Self {
            poster: Poster::new(settings.endpoint.expose(), own.chain(theirs).collect())?,
            signal,
            timeout: settings.timeout,
            compression: settings.compression,
            resource,
            scope,
            rejections: Rejections::default(),
        })
    }

    /// Posts spans or metrics, which are fields of `ScopeSpans` or `ScopeMetrics`.
    pub(in crate::telemetry) fn deliver(
        &mut self,
        content: &[u8],
        patience: PostPatience,
    ) -> Delivery {
        let request = self.request(content);
        let outcome = self
            .poster
            .deliver(&request, &terms(patience, self.timeout));
        let turn = self.poster.turn(outcome.is_ok());
        let (host, SignalWords { tag, name, .. }) = (self.poster.host(), self.signal);
        if turn == Some(PostTurn::Recovers) {
            log::info!("[{tag}] {host} takes {name} again");
        }
        match outcome {
            Ok(answer) => match partial_success(&answer.content()) {
                None => Delivery::Taken,
                Some(partial) => self.rejected(&partial),
            },
            Err(cause) => {
                if turn == Some(PostTurn::Fails) {
                    let SignalWords {
                        effect, variables, ..
                    } = self.signal;
                    log::warn!(
                        "[{tag}] {host} did not take {name}: {cause}; {effect}; check {variables}"
                    );
                }
                Delivery::Lost
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
        match self.compression {
            OtlpCompression::None => request,
            OtlpCompression::Gzip => gzip(&request),
        }
    }

    /// Takes note of a partial success, and tells it once a minute.
    fn rejected(&mut self, partial: &PartialSuccess) -> Delivery {
        let PartialSuccess { rejected, message } = partial;
        if let Some(sum) = self.rejections.add(*rejected, Instant::now()) {
            let host = self.poster.host();
            let SignalWords {
                tag,
                name,
                parts,
                effect_on_parts,
                ..
            } = self.signal;
            let said = shown(message);
            match sum {
                0 => log::warn!("[{tag}] {host} took {name} with a warning: {said}"),
                sum => log::warn!(
                    "[{tag}] {host} rejected {sum} {parts}, and took the rest: {said}; {effect_on_parts}; look at its \
                     log and its limits"
                ),
            }
        }
        match rejected {
            0 => Delivery::Taken,
            rejected => Delivery::Partly(*rejected),
        }
    }
}

fn terms(patience: PostPatience, timeout: Duration) -> PostTerms {
    let (pauses, timeout) = match patience {
        PostPatience::Usual => (&PAUSES[..], timeout),
        PostPatience::Last => (&PAUSES[..1], timeout.min(LAST)),
    };
    PostTerms {
        pauses,
        timeout,
        // the others say that it will never take them
        may_pass: |status| matches!(status, 408 | 429 | 502 | 503 | 504),
    }
}

/// The fast level: it makes about a fifth of spans and metrics, whose texts are the same over and over.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // memory takes everything
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}

/// Rejected parts, of which the log tells once a minute.
#[derive(Debug, Default)]
struct Rejections {
    untold: u64,
    told: Option<Instant>,
}

impl Rejections {
    /// Adds a number, and gives the sum if it is to be told now.
    fn add(&mut self, count: u64, now: Instant) -> Option<u64> {
        self.untold = self.untold.saturating_add(count);
        let is_due = |told: Instant| now.saturating_duration_since(told) >= TOLD_INTERVAL;
        if !self.told.is_none_or(is_due) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// A message of a receiver, as the log shows it.
fn shown(message: &str) -> String {
    match message {
        "" => "it gives no reason".to_owned(),
        message => format!(
            "{:?}",
            message.chars().take(LONGEST_SHOWN).collect::<String>()
        ),
    }
}

/// Pauses before the attempts.
static PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// Longest request of a process that ends.
const LAST: Duration = Duration::from_secs(2);

/// Between two lines about rejected parts.
const TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// Characters of a receiver's message.
const LONGEST_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn rejections_are_told_once_a_minute_with_their_sum() {
        let mut rejections = Rejections::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rejections.add(3, start), Some(3));
        assert_eq!(rejections.add(4, after(30)), None);
        assert_eq!(rejections.add(0, after(59)), None);
        assert_eq!(rejections.add(5, after(60)), Some(9));
        assert_eq!(rejections.add(0, after(121)), Some(0));
    }

    #[test]
    fn a_message_of_a_receiver_is_one_short_line() {
        assert_eq!(shown("too old\n\u{1b}[2J"), "\"too old\\n\\u{1b}[2J\"");
        assert_eq!(shown(&"长".repeat(500)).chars().count(), LONGEST_SHOWN + 2);
        assert_eq!(shown(""), "it gives no reason");
    }

    #[test]
    fn what_is_compressed_is_the_same() {
        let content = b"anthropic_proxy.".repeat(1000);
        let compressed = gzip(&content);
        assert!(compressed.len() < content.len() / 10);
        let mut read = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&*compressed);
        decoder.read_to_end(&mut read).unwrap();
        assert_eq!(read, content);
    }
}
