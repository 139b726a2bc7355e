//! What is known of one exchange: plain data, from where it is learned to where it is counted, listed,
//! logged and stored.
//!
//! Made once, when the exchange ends ([`Exchange`]), and a small part of it when it begins ([`Begun`]).
//! Nothing here is a secret: no field value, no content, no query.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

/// An exchange that has begun.
#[derive(Debug, Clone)]
pub struct Begun {
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
}

/// An exchange as it ended.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// How it began.
    pub begun: Begun,
    /// The status that the client was given; none if it left before.
    pub status: Option<u16>,
    /// The upstream that was asked last (`https://host[:port][/prefix]`).
    pub upstream: Option<Box<str>>,
    /// The upstream's own name for it (`request-id`), printable ASCII of at most 128 octets.
    pub upstream_request_id: Option<Box<str>>,
    /// Octets of the request's content.
    pub received: u64,
    /// Octets of the response's content.
    pub sent: u64,
    /// How long it took.
    pub timings: Timings,
    /// How it ended.
    pub ended: Ended,
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
    /// Our own time until the request's head could be sent: without the wait for the client's body, for
    /// a connection, or for the upstream.
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
pub struct Ended {
    /// By whom.
    pub by: By,
    /// When.
    pub phase: Phase,
    /// Why, where it was not complete: the label of the error (`connection_terminated`, …).
    pub label: Option<&'static str>,
}

/// Who ended an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// Nobody: the response was complete.
    Complete,
    /// The client went away, or was cut at the end of a drain.
    Client,
    /// The upstream failed inside of its response.
    Upstream,
    /// An answer of ours.
    Proxy,
}

impl By {
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
pub enum Phase {
    /// Its request was being read or sent, or the response head awaited.
    Request,
    /// The response head had been relayed.
    Response,
}

impl Phase {
    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// What a generation used, as the upstream's answer says; as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model: that of the answer, else of the request.
    pub model: Option<Box<str>>,
    /// Whether the answer was streamed.
    pub is_stream: bool,
    /// What the request allowed at most (`max_tokens`).
    pub max_tokens: Option<u64>,
    /// The tokens.
    pub tokens: Tokens,
    /// Requests that server tools made (web search and the like).
    pub server_tools: u64,
    /// Why the generation ended (`end_turn`, `tool_use`, …).
    pub stop_reason: Option<Box<str>>,
    /// The type of the error, of the answer or inside of the stream (`overloaded_error`, …).
    pub error_type: Option<Box<str>>,
    /// Whether the copy could not be read: then the rest is what was read before.
    pub is_broken: bool,
    /// Billionths of a US dollar that the tokens cost; none where the model has no price.
    pub cost: Option<u64>,
}

/// Tokens by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input that was neither read from nor written to a cache.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache for 5 minutes (also where the answer does not say for how long).
    pub cache_write_5m: u64,
    /// Input written to a cache for an hour.
    pub cache_write_1h: u64,
}

/// Content of an error, as it came.
#[derive(Debug, Clone)]
pub struct ErrorContent {
    /// Its beginning.
    pub octets: bytes::Bytes,
    /// Its `Content-Encoding`, if it has one.
    pub coding: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
