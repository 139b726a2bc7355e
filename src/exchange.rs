//! What is known of one exchange: plain data, from where it is learned to where it is counted, listed,
//! logged and stored.
//!
//! Made once, when the exchange ends ([`Exchange`]), a small part of it when it begins ([`ExchangeStart`]), and
//! another when it is answered ([`ExchangeResponse`]). Nothing here is a secret: no content, no query, of fields
//! only those whose values are known to be none ([`ShownFields`]).

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

mod fields;
mod progress;
mod usage;

pub use self::{
    fields::ShownFields,
    progress::{Progress, Reading},
    usage::{Estimate, MeteringFailure, OtherModel, Terms, Tokens, Usage},
};
use crate::secret::Secrets;

/// An exchange that has begun.
#[derive(Debug, Clone)]
pub struct ExchangeStart {
    /// Its name: `req_` and 24 characters.
    pub id: Box<str>,
    /// When its head was complete.
    pub started: SystemTime,
    /// The client's address; none on a Unix socket.
    pub client: Option<IpAddr>,
    /// The version that the client speaks: `1.0`, `1.1`, `2`.
    pub version: &'static str,
    /// The method.
    pub method: Box<str>,
    /// The path of its target without the query, octets that are no printable ASCII escaped.
    pub path: Box<str>,
    /// What it asks for, as far as we tell requests apart.
    pub route: Route,
    /// Claude Code's session (`X-Claude-Code-Session-Id`), if it is printable ASCII of at most 128
    /// octets.
    pub session: Option<Box<str>>,
    /// `User-Agent`: printable, at most 256 octets.
    pub user_agent: Option<Box<str>>,
}

/// An exchange whose response head is here.
#[derive(Debug, Clone)]
pub struct ExchangeResponse {
    /// Its name.
    pub id: Box<str>,
    /// The status.
    pub status: u16,
    /// The upstream that answered.
    pub upstream: Option<Arc<str>>,
    /// The upstream's own name for it.
    pub upstream_request_id: Option<Box<str>>,
    /// The model that the request names, as far as it was looked at.
    pub model: Option<Box<str>>,
    /// Whether the request asks for a stream.
    pub is_stream: Option<bool>,
    /// What the request allows at most.
    pub max_tokens: Option<u64>,
    /// What is known of the timings.
    pub timings: Timings,
}

/// An exchange as it ended.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// How it began.
    pub begun: ExchangeStart,
    /// The status that the client was given; none if it left before.
    pub status: Option<u16>,
    /// The upstream that was asked last, or whose answer it is: its URL, or `URL #2` of several with the
    /// same.
    pub upstream: Option<Arc<str>>,
    /// The tries that did not bring the answer, in their order.
    pub tries: Vec<Try>,
    /// The upstream's own name for it (`request-id`), printable ASCII of at most 128 octets.
    pub upstream_request_id: Option<Box<str>>,
    /// Octets of the request's content.
    pub received: u64,
    /// Octets of the response's content.
    pub sent: u64,
    /// How long it took.
    pub timings: Timings,
    /// How it ended.
    pub termination: Termination,
    /// What became of the edit, if the request was one that may be edited: a label such as `replaced`,
    /// `inserted`, `unchanged`.
    pub edit: Option<&'static str>,
    /// What was metered, if it was.
    pub usage: Option<Usage>,
    /// What the upstream answered where its status is 400 or more: at most 50 KB, as it came, with its
    /// content coding.
    pub error: Option<ErrorContent>,
    /// The rate-limit fields of the answer (`anthropic-ratelimit-*-remaining`, `retry-after`): name
    /// without `anthropic-ratelimit-`, value.
    pub rate_limit: Vec<(Box<str>, Box<str>)>,
    /// The fields of the request, where they are to be shown.
    pub request_fields: ShownFields,
    /// The fields of the response.
    pub response_fields: ShownFields,
}

impl Exchange {
    /// One of which nothing else is known.
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
            rate_limit: Vec::new(),
            request_fields: ShownFields::default(),
            response_fields: ShownFields::default(),
        }
    }

    /// The one verdict on an exchange.
    ///
    /// It **failed** if its status is 400 or more, if its answer carried an error, or if the upstream or the
    /// proxy ended it early; it was **canceled** if its client left it before any of that; else it
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

    /// Whether the client did not get a whole answer: it left before there was one, or the answer was broken
    /// off.
    pub fn is_aborted(&self) -> bool {
        let is_cut = self.termination.source != TerminationSource::Complete
            && self.termination.phase == TerminationPhase::Response;
        is_cut || self.status.is_none()
    }

    /// Every text that a peer chose, but for the path, the fields and the content of an error.
    pub fn texts_mut(&mut self, change: &mut dyn FnMut(&mut Box<str>)) {
        let usage = self.usage.iter_mut().flat_map(|usage| {
            let terms = &mut usage.terms;
            [
                &mut usage.model,
                &mut usage.stop_reason,
                &mut usage.error_type,
                &mut terms.inference_geo,
                &mut terms.speed,
                &mut terms.service_tier,
            ]
            .into_iter()
            .flatten()
            .chain(usage.others.iter_mut().map(|other| &mut other.model))
        });
        [
            &mut self.begun.session,
            &mut self.begun.user_agent,
            &mut self.upstream_request_id,
        ]
        .into_iter()
        .flatten()
        .chain(usage)
        .chain(self.rate_limit.iter_mut().map(|(_, value)| value))
        .for_each(change);
    }

    /// Whether the answer was ours: there was one, and none of the upstream's.
    pub fn is_ours(&self) -> bool {
        self.timings.head.is_none() && self.status.is_some()
    }
}

/// Whether an exchange succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A whole answer without an error.
    Succeeded,
    /// An error, or an answer that the upstream or the proxy broke off.
    Failed,
    /// Left by its client.
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

/// A try to send a request that did not bring the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The upstream.
    pub upstream: Arc<str>,
    /// What came of it.
    pub outcome: Tried,
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It could not be sent: there was no connection.
    Unreachable,
    /// It was sent, and not answered.
    Unanswered,
    /// It was answered by this status, and another upstream was asked.
    Status(u16),
    /// It was answered by a stream that began with an `overloaded_error`, and another upstream was asked.
    Overloaded,
}

/// Moments of an exchange, counted from its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Until a connection to the upstream was had: from the pool or a new one.
    pub connected: Option<Duration>,
    /// Of that, what connecting took (names, TCP, TLS); none if a pooled connection was taken.
    pub connecting: Option<Duration>,
    /// Until the upstream's response head was complete.
    pub head: Option<Duration>,
    /// Until the first `content_block_delta`.
    pub first_token: Option<Duration>,
    /// Until the end.
    pub total: Duration,
    /// Our own time until the request's head was ready to be sent: without the wait for the client's
    /// body, for a connection, or for the upstream.
    pub overhead: Duration,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// `POST /v1/messages`.
    Messages,
    /// `POST /v1/messages/count_tokens`.
    CountTokens,
    /// `/v1/messages/batches` and below.
    Batches,
    /// `/v1/models` and below.
    Models,
    /// `/v1/files` and below.
    Files,
    /// An upgrade.
    Tunnel,
    /// Anything else.
    Other,
}

impl Route {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Messages,
        Self::CountTokens,
        Self::Batches,
        Self::Models,
        Self::Files,
        Self::Tunnel,
        Self::Other,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Batches => "batches",
            Self::Models => "models",
            Self::Files => "files",
            Self::Tunnel => "tunnel",
            Self::Other => "other",
        }
    }

    /// The route of a method and a path.
    pub fn of(method: &str, path: &[u8]) -> Self {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let is_below = |root: &[u8]| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        match path {
            b"/v1/messages" if method == "POST" => Self::Messages,
            b"/v1/messages/count_tokens" if method == "POST" => Self::CountTokens,
            _ if is_below(b"/v1/messages/batches") => Self::Batches,
            _ if is_below(b"/v1/models") => Self::Models,
            _ if is_below(b"/v1/files") => Self::Files,
            _ => Self::Other,
        }
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// By whom.
    pub source: TerminationSource,
    /// When.
    pub phase: TerminationPhase,
    /// Why, where it was not complete: the label of the error (`connection_terminated`, …).
    pub label: Option<&'static str>,
}

/// Who ended an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TerminationSource {
    /// Nobody: the response was complete.
    Complete,
    /// The client: it went away, stood still for too long, or its message was none.
    Client,
    /// The upstream: it could not be reached, did not answer, or failed inside of its response.
    Upstream,
    /// The proxy: it refused, or was ended itself.
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

/// How far an exchange came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TerminationPhase {
    /// Its request was being read or sent, or the response head awaited.
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

/// Content of an error, as it came.
#[derive(Clone)]
pub struct ErrorContent {
    /// Its beginning.
    pub octets: bytes::Bytes,
    /// Its `Content-Encoding`, if it has one.
    pub coding: Option<Box<str>>,
    /// Credentials that the request had, and ours: they are never shown of it.
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

    #[test]
    fn routes_are_told_by_method_and_path() {
        for (method, path, route) in [
            ("POST", "/v1/messages", Route::Messages),
            ("POST", "/v1/messages/", Route::Messages),
            ("GET", "/v1/messages", Route::Other),
            ("POST", "/v1/messages/count_tokens", Route::CountTokens),
            ("GET", "/v1/messages/batches/x/results", Route::Batches),
            ("GET", "/v1/models", Route::Models),
            ("GET", "/v1/modelsx", Route::Other),
            ("POST", "/v1/files", Route::Files),
            ("HEAD", "/", Route::Other),
        ] {
            assert_eq!(Route::of(method, path.as_bytes()), route, "{method} {path}");
        }
    }
}
