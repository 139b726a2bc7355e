//! Facts of an exchange before its end: its beginning, and its response head.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// An exchange that has begun.
#[derive(Debug, Clone)]
pub struct ExchangeStart {
    /// Its number, in the order in which exchanges began; 0 without one.
    pub seq: u64,
    /// The request id: `req_` and 24 characters.
    pub id: Arc<str>,
    /// Time at which the request head was complete.
    pub started: SystemTime,
    /// The client's address; none on a Unix socket.
    pub client: Option<IpAddr>,
    /// The version that the client speaks: `1.0`, `1.1`, `2`.
    pub version: &'static str,
    /// The method.
    pub method: Arc<str>,
    /// The path of its target without the query, bytes that are not printable ASCII escaped.
    pub path: Arc<str>,
    /// The route: the class of API requests that it belongs to.
    pub route: Route,
    /// Claude Code's session (`X-Claude-Code-Session-Id`), if it is printable ASCII of at most 128
    /// bytes.
    pub session: Option<Arc<str>>,
    /// `User-Agent`: printable, at most 256 bytes.
    pub user_agent: Option<Arc<str>>,
    /// Claude Code's subagent (`x-claude-code-agent-id`), none for the session's main agent.
    pub agent: Option<Arc<str>>,
    /// The subagent that started it (`x-claude-code-parent-agent-id`), if another one did.
    pub parent_agent: Option<Arc<str>>,
    /// The owner of the proxy's key that the request showed.
    pub owner: Option<Arc<Owner>>,
}

/// Owner of a key of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The id of the key.
    pub key: Arc<str>,
    /// The name of the key.
    pub name: Box<str>,
    /// The user that owns it.
    pub user: Option<Box<str>>,
    /// The team of the user.
    pub team: Option<Box<str>>,
}

/// The response head of an exchange.
#[derive(Debug, Clone)]
pub struct ExchangeResponse {
    /// The status.
    pub status: u16,
    /// The upstream of the response.
    pub upstream: Option<Arc<str>>,
    /// The upstream's request id.
    pub upstream_request_id: Option<Arc<str>>,
    /// The model that the request names, if its content was inspected.
    pub model: Option<Arc<str>>,
    /// True if the request asks for a stream.
    pub is_stream: Option<bool>,
    /// Upper bound of output tokens in the request (`max_tokens`).
    pub max_tokens: Option<u64>,
    /// The timings so far.
    pub timings: Timings,
}

/// Moments of an exchange, counted from its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Time until a connection to the upstream was available: from the pool or a new one.
    pub connected: Option<Duration>,
    /// Part of it that connecting took (DNS, TCP, TLS); none if a pooled connection was used.
    pub connecting: Option<Duration>,
    /// Time until the upstream's response head was complete.
    pub head: Option<Duration>,
    /// Time until the first `content_block_delta`.
    pub first_token: Option<Duration>,
    /// Time until the end.
    pub total: Duration,
    /// The proxy's own time until the request head was ready to be sent: without the wait for the client's
    /// body, for a connection, or for the upstream.
    pub overhead: Duration,
}

/// Route of a request: its class in the API.
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
