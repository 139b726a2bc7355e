//! Facts of one exchange, as plain data: learned by the data plane, then counted, listed, logged and
//! stored by telemetry.
//!
//! Handed over once, when the exchange ends ([`Exchange`]). While it runs, a reader finds its beginning
//! ([`ExchangeStart`]), and once it is here its response head ([`ExchangeResponse`]), in its [`Progress`].
//! Nothing here is a secret: no content, no query, and only those field values that are known to be no
//! secret ([`ShownFields`]).

use std::{fmt, sync::Arc};

mod begun;
mod fields;
mod progress;
mod prompt;
mod trace;
mod usage;
mod verified;

pub use self::{
    begun::{ExchangeResponse, ExchangeStart, Owner, Route, Timings},
    fields::ShownFields,
    progress::{Progress, Reading},
    prompt::PromptDigests,
    trace::TraceContext,
    usage::{Estimate, MeteringFailure, OtherModel, Terms, Tokens, Usage},
    verified::{ContentDigest, EditedSpan, Identity, VerifiedContent, VerifiedExchange},
};
use crate::{label::Label, secret::Secrets};

/// An exchange that has ended.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The beginning of the exchange.
    pub begun: ExchangeStart,
    /// The status sent to the client; none if the client left before.
    pub status: Option<u16>,
    /// The upstream of the response, else of the last attempt: its URL, or `URL #2` of several with the
    /// same.
    pub upstream: Option<Arc<str>>,
    /// The attempts that did not bring the response, in their order.
    pub tries: Vec<Try>,
    /// The upstream's request id (`request-id`), printable ASCII of at most 128 bytes.
    pub upstream_request_id: Option<Arc<str>>,
    /// Bytes of the request's content.
    pub received: u64,
    /// Bytes of the response's content.
    pub sent: u64,
    /// The timings.
    pub timings: Timings,
    /// The end of the exchange: its source, phase and label.
    pub termination: Termination,
    /// Outcome of the edit, for a request that may be edited: a label such as `replaced`, `inserted`,
    /// `unchanged`.
    pub edit: Option<Label>,
    /// The metered usage, if any.
    pub usage: Option<Usage>,
    /// Content of an upstream response with a status of 400 or more: at most 50 KB, as received, in its
    /// content coding.
    pub error: Option<ErrorContent>,
    /// The fields of the request, if the dashboard shows them.
    pub request_fields: ShownFields,
    /// The fields of the response.
    pub response_fields: ShownFields,
    /// Digests of the prompt, for a request of a session, if the dashboard reads them.
    pub prompt: Option<Arc<PromptDigests>>,
    /// Its place in a trace, if it is sampled.
    pub trace: Option<Box<TraceContext>>,
    /// Comparison of its content before and after the proxy's own code, if it was verified (`VERIFY`).
    pub verified: Option<Box<VerifiedExchange>>,
}

impl Exchange {
    /// Creates an exchange of which nothing else is known.
    pub fn new(begun: ExchangeStart, termination: Termination) -> Self {
        Self {
            begun,
            status: None,
            upstream: None,
            tries: Vec::new(),
            upstream_request_id: None,
            received: 0,
            sent: 0,
            timings: Timings::default(),
            termination,
            edit: None,
            usage: None,
            error: None,
            request_fields: ShownFields::default(),
            response_fields: ShownFields::default(),
            prompt: None,
            trace: None,
            verified: None,
        }
    }

    /// The one verdict on an exchange.
    ///
    /// It **failed** if its status is 400 or more, if its response carried an error, or if the upstream or
    /// the proxy ended it early; it was **canceled** if its client left it before any of that; else it
    /// **succeeded**.
    pub fn verdict(&self) -> Verdict {
        let error_type = self.usage.as_ref().and_then(|it| it.error_type.as_ref());
        let has_error = self.status.is_some_and(|status| status >= 400) || error_type.is_some();
        match self.termination.source {
            TerminationSource::Upstream | TerminationSource::Proxy => Verdict::Failed,
            TerminationSource::Client | TerminationSource::Complete if has_error => Verdict::Failed,
            TerminationSource::Complete if self.status.is_some() => Verdict::Succeeded,
            TerminationSource::Client | TerminationSource::Complete => Verdict::Canceled,
        }
    }

    /// True if the client did not get a complete response: it left before there was one, or the response was
    /// cut off.
    pub fn is_aborted(&self) -> bool {
        let is_cut = self.termination.source != TerminationSource::Complete
            && self.termination.phase == TerminationPhase::Response;
        is_cut || self.status.is_none()
    }

    /// True if the proxy itself sent the response, without one of the upstream.
    pub fn is_ours(&self) -> bool {
        self.timings.head.is_none() && self.status.is_some()
    }
}

/// Verdict on an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A complete response without an error.
    Succeeded,
    /// An error, or a response that the upstream or the proxy cut off.
    Failed,
    /// Canceled by its client.
    Canceled,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Canceled];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// A failed attempt to send a request to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The upstream.
    pub upstream: Arc<str>,
    /// Outcome of the attempt.
    pub outcome: Tried,
}

/// Outcome of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// The request could not be sent: there was no connection.
    Unreachable,
    /// The request was sent, and the upstream did not respond.
    Unanswered,
    /// The upstream responded with this status, and the proxy failed over to another one.
    Status(u16),
    /// The upstream responded with a stream that began with an `overloaded_error`, and the proxy failed over
    /// to another one.
    Overloaded,
}

/// End of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// The side that ended it.
    pub source: TerminationSource,
    /// The phase in which it ended.
    pub phase: TerminationPhase,
    /// The label of the error if it was not complete (`connection_terminated`, …).
    pub label: Option<Label>,
}

/// Side that ended an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TerminationSource {
    /// Neither side: the response was complete.
    Complete,
    /// The client: it disconnected, ran into a timeout, or sent an invalid message.
    Client,
    /// The upstream: it could not be reached, did not respond, or failed during its response.
    Upstream,
    /// The proxy: it refused the request, or was shutting down.
    Proxy,
}

impl TerminationSource {
    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Proxy => "proxy",
        }
    }
}

/// Phase of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TerminationPhase {
    /// The request was being read or sent, or the response head awaited.
    Request,
    /// The response head had been relayed.
    Response,
}

impl TerminationPhase {
    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Content of an error response, as received.
#[derive(Clone)]
pub struct ErrorContent {
    /// Its beginning.
    pub octets: bytes::Bytes,
    /// Its `Content-Encoding`, if it has one.
    pub coding: Option<Box<str>>,
    /// Credentials of the request and of the proxy, which are masked in it.
    pub secrets: Secrets,
}

impl fmt::Debug for ErrorContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorContent")
            .field("octets", &self.octets.len())
            .field("coding", &self.coding)
            .finish_non_exhaustive()
    }
}

/// The beginning of a text: whole characters, of at most `longest` bytes.
pub fn shortened(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev();
    let end = end.into_iter().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_content_nor_secrets_of_an_error() {
        let content = ErrorContent {
            octets: bytes::Bytes::from_static(b"canary"),
            coding: None,
            secrets: Secrets::default(),
        };
        assert!(!format!("{content:?}").contains("canary"));
    }
}
