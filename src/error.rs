//! Failures of one exchange, and the one table of the answers that the client gets for them.
//!
//! [`ProxyError`] names the peer that failed; its leaves are named as in RFC 9209 §2.3. [`Answer`]
//! is the row of the table: status, Anthropic error type, label, message. The label is the value of
//! the metric's label, of the access log field and of the field `x-proxy-error`.

use std::{io, net::SocketAddr};

use actix_web::{error::PayloadError, http::StatusCode};
use bytes::Bytes;

use crate::label::Label;

/// A failed exchange, by the peer at fault.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The client, or the network towards it, broke the rules of HTTP or of docs/contract.md §2,
    /// §4.
    #[error("downstream: {0}")]
    Downstream(#[from] DownstreamError),
    /// Refusal by a limit or rule of the proxy, before a byte went to the upstream.
    #[error("denied: {0}")]
    Denied(#[from] DeniedError),
    /// The upstream, or the network towards it, failed before its response head was complete.
    #[error("upstream: {0}")]
    Upstream(#[source] UpstreamError),
    /// A defect of the proxy.
    #[error("internal: {0}")]
    Internal(#[from] InternalError),
    /// Refusal by a rule or limit on the request's key.
    #[error("refused: {}", .0.answer.label)]
    Refused(Box<Refused>),
}

/// Refusal of a request by a rule or limit on its key, with what its client is told.
#[derive(Debug)]
pub struct Refused {
    /// The row of the table, but for its message and `retry-after`.
    pub answer: Answer,
    /// True for a limit, and no rule that the client broke.
    pub is_limit: bool,
    /// `error.message`: one sentence of at most 200 characters.
    pub message: Box<str>,
    /// Seconds for `retry-after`.
    pub retry_after: Option<u64>,
    /// Says `x-should-retry: false`.
    pub is_final: bool,
    /// Further fields, in their order.
    pub fields: Vec<(&'static str, Box<str>)>,
}

/// Faults of the client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DownstreamError {
    /// The head is not HTTP/1.1 as RFC 9112 defines it.
    #[error("malformed request head")]
    MalformedHead,
    /// `Host`, `:authority` or the authority of the target is not a host with an optional port
    /// (RFC 9110 §7.2), or they name different ones.
    #[error("invalid host")]
    InvalidHost,
    /// The framing of the body is ambiguous (RFC 9112 §6.3).
    #[error("ambiguous request framing")]
    AmbiguousFraming,
    /// The chunked coding of the body is broken (RFC 9112 §7.1).
    #[error("malformed chunked request body")]
    MalformedBody,
    /// More than 64 KiB of head, or more than 256 fields.
    #[error("request head too large")]
    HeadTooLarge,
    /// `HTTP/2.0`, `HTTP/0.9`, …
    #[error("unsupported HTTP version")]
    UnsupportedVersion,
    /// The head was not complete in time.
    #[error("request head timed out")]
    HeadTimeout,
    /// No byte of the body arrived for the time of the timeout.
    #[error("request body timed out")]
    BodyTimeout,
    /// The client closed the connection.
    #[error("client disconnected")]
    Disconnected,
    /// A request target that is neither origin-form nor absolute-form (RFC 9112 §3.2).
    #[error("unsupported request target")]
    UnsupportedTarget,
    /// An extended CONNECT to a protocol that carries HTTP, or to none (RFC 8441, RFC 9220 §3).
    #[error("unsupported protocol")]
    UnsupportedProtocol,
    /// The key has rules on models, and the body does not tell its model.
    #[error("the model cannot be read")]
    UnreadableModel,
    /// The body names two models.
    #[error("two models in one request")]
    ContradictoryModel,
    /// A tool in the body names a model that the key may not use.
    #[error("the model of a tool is not allowed")]
    ToolModelDenied,
}

/// Refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeniedError {
    /// `MAX_CONNECTIONS` reached.
    #[error("too many connections")]
    TooManyConnections,
    /// `MAX_IN_FLIGHT` reached.
    #[error("too many exchanges in flight")]
    TooManyInFlight,
    /// `EDIT_MEMORY` was not free for 10 s.
    #[error("memory for buffered request bodies exhausted")]
    EditMemory,
    /// A browser would run the upstream's answer on the dashboard's origin.
    #[error("a browser would run the answer on the dashboard's origin")]
    DashboardOrigin,
    /// A web page of another site would use a credential of the operator.
    #[error("a web page of another site would use the operator's credential")]
    ForeignOrigin,
    /// An operator ended the exchange through the admin API.
    #[error("ended by an operator")]
    EndedByOperator,
    /// No file descriptor was left for a connection to the upstream.
    #[error("file descriptors exhausted")]
    DescriptorsExhausted,
    /// The upstream's address is one of the proxy's own listeners.
    #[error("the upstream is this proxy itself")]
    LoopDetected,
    /// The upstream's list of models cannot be read, and is to be filtered.
    #[error("the list of models cannot be filtered")]
    UnreadableModels,
}

/// Sorts out refusals of the proxy itself while it connected: they are no fault of the upstream.
impl From<UpstreamError> for ProxyError {
    fn from(cause: UpstreamError) -> Self {
        match cause {
            UpstreamError::DescriptorsExhausted(_) => DeniedError::DescriptorsExhausted.into(),
            UpstreamError::LoopDetected(_) => DeniedError::LoopDetected.into(),
            cause => Self::Upstream(cause),
        }
    }
}

/// Faults of the upstream, before its response head was complete.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The name does not resolve.
    #[error("could not resolve host")]
    DnsError(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The name was not resolved in time.
    #[error("DNS timed out")]
    DnsTimeout,
    /// The upstream's port takes no connections.
    #[error("connection refused")]
    ConnectionRefused(#[source] io::Error),
    /// Any other failure to connect.
    #[error("could not connect")]
    ConnectionFailed(#[source] io::Error),
    /// The process or the system has no file descriptor left (EMFILE, ENFILE).
    #[error("file descriptors exhausted")]
    DescriptorsExhausted(#[source] io::Error),
    /// The address is one of the proxy's own listeners: requests would return to the proxy for
    /// ever.
    #[error("{0} is a listener of this proxy")]
    LoopDetected(SocketAddr),
    /// The TCP or TLS handshake did not end in time.
    #[error("connection timed out")]
    ConnectionTimeout,
    /// The peer's certificate is not trusted.
    #[error("TLS certificate not trusted")]
    TlsCertificateError(#[source] io::Error),
    /// The TLS handshake failed for another reason.
    #[error("TLS handshake failed")]
    TlsProtocolError(#[source] io::Error),
    /// The outbound proxy refused or failed.
    #[error("outbound proxy refused the connection")]
    ProxyConnectionRefused(ProxyFault, #[source] io::Error),
    /// The connection ended before a response head.
    #[error("connection terminated before the response")]
    ConnectionTerminated(#[source] Option<io::Error>),
    /// No response head in time.
    #[error("no response head in time")]
    HttpResponseTimeout,
    /// The response head is not HTTP/1.1, or the connection not HTTP/2 where that is spoken.
    #[error("malformed response head")]
    HttpProtocolError,
    /// More than 64 KiB of head, or more than 256 fields.
    #[error("response head too large")]
    HttpResponseHeaderSectionSize,
    /// A 101 that was not asked for, or to another protocol; or a 2xx to CONNECT that opens no
    /// tunnel.
    #[error("unexpected upgrade")]
    HttpUpgradeFailed,
    /// A transfer coding that the proxy does not know, or contradictory lengths.
    #[error("invalid response framing")]
    HttpResponseTransferCoding,
}

/// The text of an error without the address of a library's manual, which the TLS library appends.
pub fn plain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(": https://docs.rs/") {
        text.truncate(at);
    }
    text
}

/// Kind of a refusal by an outbound proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyFault {
    /// It wants a user and password, or other ones.
    Login,
    /// It wants a scheme of authentication that this proxy does not speak: NTLM or Kerberos.
    Scheme,
    /// It does not permit the connection.
    Policy,
    /// Its answer is of another protocol, or it closes without one.
    Protocol,
    /// It could not be reached, or could not connect.
    Other,
}

/// Defects of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InternalError {
    /// A handler gave no response.
    #[error("handler failed")]
    Handler,
}

/// One row of the table: the answer for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// Anthropic's `error.type`.
    pub kind: &'static str,
    /// The label: value of `x-proxy-error`, of the metric label and of the access log field.
    pub label: Label,
    /// `error.message`: the failure and a remedy. Never a key, a prompt or an internal.
    pub message: &'static str,
    /// Seconds for `retry-after`, where waiting helps.
    pub retry_after: Option<u32>,
}

impl ProxyError {
    /// True if the same request would fail again until an operator acts: its client is told not to send it again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Upstream(cause) => cause.is_permanent(),
            Self::Denied(cause) => matches!(cause, DeniedError::LoopDetected),
            Self::Downstream(cause) => matches!(cause, DownstreamError::UnsupportedProtocol),
            Self::Internal(_) => false,
            Self::Refused(refused) => refused.is_final,
        }
    }

    /// The row of the table for this cause.
    pub fn answer(&self) -> Answer {
        match self {
            Self::Downstream(cause) => cause.answer(),
            Self::Denied(cause) => cause.answer(),
            Self::Upstream(cause) => cause.answer(),
            Self::Internal(InternalError::Handler) => row(
                500,
                "api_error",
                Label::InternalError,
                "anthropic-proxy failed to handle this request. This is a defect of the proxy: see its log.",
            ),
            Self::Refused(refused) => refused.answer,
        }
    }
}

impl DownstreamError {
    /// The fault that a request body carries: ours if it is one, else the client's absence.
    pub fn of(cause: &PayloadError) -> Self {
        match cause {
            PayloadError::Io(cause) => cause
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<Self>())
                .copied()
                .unwrap_or(Self::Disconnected),
            PayloadError::EncodingCorrupted => Self::MalformedBody,
            _ => Self::Disconnected,
        }
    }

    /// The row of the table for this cause.
    pub fn answer(self) -> Answer {
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::MalformedHead => row(
                400,
                INVALID,
                Label::MalformedHead,
                "The request head is not valid HTTP (RFC 9112; for HTTP/2, RFC 9113).",
            ),
            Self::InvalidHost => row(
                400,
                INVALID,
                Label::InvalidHost,
                "The request does not name one valid host: Host, :authority and the target must agree and be a host name or address with an optional port (RFC 9110 section 7.2).",
            ),
            Self::AmbiguousFraming => row(
                400,
                INVALID,
                Label::AmbiguousFraming,
                "The length of the request body is ambiguous: send exactly one Content-Length or `Transfer-Encoding: chunked` (RFC 9112 section 6.3).",
            ),
            Self::MalformedBody => row(
                400,
                INVALID,
                Label::MalformedBody,
                "The chunked request body is malformed (RFC 9112 section 7.1).",
            ),
            Self::HeadTooLarge => row(
                431,
                INVALID,
                Label::HeadTooLarge,
                "The request head is too large: at most 64 KiB and 256 fields are taken.",
            ),
            Self::UnsupportedVersion => row(
                400,
                INVALID,
                Label::UnsupportedVersion,
                "Only HTTP/1.1 and HTTP/1.0 are supported here; HTTP/2 without TLS needs H2C=true.",
            ),
            Self::HeadTimeout => row(
                408,
                "timeout_error",
                Label::RequestHeadTimeout,
                "The request head did not arrive in time (REQUEST_HEAD_TIMEOUT).",
            ),
            Self::BodyTimeout => row(
                408,
                "timeout_error",
                Label::RequestBodyTimeout,
                "No data of the request body arrived for too long (REQUEST_BODY_TIMEOUT). Send the body without pauses, or raise the timeout.",
            ),
            Self::Disconnected => row(
                400,
                INVALID,
                Label::ClientDisconnected,
                "The client closed the connection before its request was complete.",
            ),
            Self::UnsupportedTarget => row(
                400,
                INVALID,
                Label::UnsupportedTarget,
                "The request target must be a path without a fragment (`#`) or unescaped characters: this is a reverse proxy, CONNECT is not served.",
            ),
            Self::UnsupportedProtocol => row(
                501,
                INVALID,
                Label::UnsupportedProtocol,
                "The protocol in `:protocol` is not tunnelled: HTTP (h2c, HTTP/*) and TLS inside of a tunnel are refused. Send the request itself over this connection.",
            ),
            Self::UnreadableModel => row(
                400,
                INVALID,
                Label::ModelUnreadable,
                "The model of this request cannot be read, and its key has rules on models: send a JSON object with a `model`, without a content coding.",
            ),
            Self::ContradictoryModel => row(
                400,
                INVALID,
                Label::ModelContradictory,
                "The request names two different models: send one `model` at its top level.",
            ),
            Self::ToolModelDenied => row(
                400,
                INVALID,
                Label::ModelNotAllowed,
                "A tool of this request names a model that its key may not use.",
            ),
        }
    }
}

impl DeniedError {
    /// The row of the table for this cause.
    pub fn answer(self) -> Answer {
        const PERMISSION: &str = "permission_error";
        let (label, message) = match self {
            Self::DashboardOrigin => {
                return row(
                    403,
                    PERMISSION,
                    Label::DashboardOrigin,
                    "A browser asked for a page, script or worker on a port that serves the dashboard (ENABLE_DASHBOARD). The upstream's response would run on the dashboard's origin, so the request was not forwarded. Use an API client, or give the dashboard a port of its own (ADMIN_LISTEN).",
                );
            }
            Self::ForeignOrigin => {
                return row(
                    403,
                    PERMISSION,
                    Label::ForeignOrigin,
                    "A web page of another site made this request, and a key of the proxy's operator would be added to it (UPSTREAM_API_KEYS, HEADERS_FILE): it was not forwarded. To let that page use the key, name its origin in ALLOWED_ORIGINS.",
                );
            }
            Self::TooManyConnections => (
                Label::TooManyConnections,
                "The proxy has as many connections as MAX_CONNECTIONS or its file-descriptor limit allows. Try again shortly.",
            ),
            Self::TooManyInFlight => (
                Label::TooManyInFlight,
                "The proxy has as many requests in flight as MAX_IN_FLIGHT or its file-descriptor limit allows. Try again shortly.",
            ),
            Self::EditMemory => (
                Label::EditMemoryExhausted,
                "The proxy's memory for buffered request bodies (EDIT_MEMORY) is exhausted. Try again shortly.",
            ),
            Self::EndedByOperator => {
                return row(
                    403,
                    PERMISSION,
                    Label::EndedByOperator,
                    "An operator of this proxy ended the request. Ask the operator before you send it again.",
                );
            }
            Self::DescriptorsExhausted => (
                Label::DescriptorsExhausted,
                "The proxy has no file descriptor left for a connection to the upstream. Try again shortly; if it lasts, raise the limit (`ulimit -n`, LimitNOFILE=).",
            ),
            Self::UnreadableModels => {
                return row(
                    502,
                    "api_error",
                    Label::ModelsUnreadable,
                    "The upstream's list of models cannot be read, so it was not filtered for this key and is not shown.",
                );
            }
            Self::LoopDetected => {
                return row(
                    508,
                    "api_error",
                    Label::LoopDetected,
                    "The upstream's address is this proxy itself, so requests would loop: set API_BASE_URL to the upstream.",
                );
            }
        };
        Answer {
            retry_after: Some(1),
            ..row(503, "overloaded_error", label, message)
        }
    }
}

impl Refused {
    /// The content in Anthropic's shape.
    pub fn content(&self, request_id: &str) -> Bytes {
        content(self.answer.kind, &self.message, request_id)
    }
}

impl UpstreamError {
    /// True for a fault that lasts until an operator mends it: the certificate of the upstream, its address, the
    /// credential for the outbound proxy or its policy. To send the request again is in vain.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::TlsCertificateError(_) | Self::LoopDetected(_) => true,
            Self::ProxyConnectionRefused(fault, _) => match fault {
                ProxyFault::Login | ProxyFault::Scheme | ProxyFault::Policy => true,
                ProxyFault::Protocol | ProxyFault::Other => false,
            },
            Self::DnsError(_)
            | Self::DnsTimeout
            | Self::ConnectionRefused(_)
            | Self::ConnectionFailed(_)
            | Self::DescriptorsExhausted(_)
            | Self::ConnectionTimeout
            | Self::TlsProtocolError(_)
            | Self::ConnectionTerminated(_)
            | Self::HttpResponseTimeout
            | Self::HttpProtocolError
            | Self::HttpResponseHeaderSectionSize
            | Self::HttpUpgradeFailed
            | Self::HttpResponseTransferCoding => false,
        }
    }

    /// The row of the table for this cause.
    pub fn answer(&self) -> Answer {
        const API: &str = "api_error";
        const TIMEOUT: &str = "timeout_error";
        match self {
            Self::DnsError(_) => row(
                502,
                API,
                Label::DnsError,
                "Could not resolve the upstream's host name: check API_BASE_URL and the DNS of this machine; where a proxy leads outside, set HTTPS_PROXY.",
            ),
            Self::DnsTimeout => row(
                504,
                TIMEOUT,
                Label::DnsTimeout,
                "The upstream's host name was not resolved in time: check the DNS of this machine; where a proxy leads outside, set HTTPS_PROXY.",
            ),
            Self::ConnectionRefused(_) => row(
                502,
                API,
                Label::ConnectionRefused,
                "The upstream, or the outbound proxy before it, refused the connection: check host and port in API_BASE_URL, HTTPS_PROXY and NO_PROXY.",
            ),
            Self::ConnectionFailed(_) => row(
                502,
                API,
                Label::ConnectionFailed,
                "Could not connect to the upstream: check API_BASE_URL, the network, HTTPS_PROXY and NO_PROXY.",
            ),
            Self::DescriptorsExhausted(_) => DeniedError::DescriptorsExhausted.answer(),
            Self::LoopDetected(_) => DeniedError::LoopDetected.answer(),
            Self::ConnectionTimeout => row(
                504,
                TIMEOUT,
                Label::ConnectionTimeout,
                "Connecting to the upstream took too long (UPSTREAM_CONNECT_TIMEOUT): check the network, HTTPS_PROXY and NO_PROXY.",
            ),
            Self::TlsCertificateError(_) => row(
                502,
                API,
                Label::TlsCertificateError,
                "The upstream's TLS certificate is not trusted: check API_BASE_URL and the clock, or name a private CA in UPSTREAM_CA_FILE.",
            ),
            Self::TlsProtocolError(_) => row(
                502,
                API,
                Label::TlsProtocolError,
                "The TLS handshake with the upstream failed: check the scheme and port in API_BASE_URL, and UPSTREAM_HTTP_VERSION if it is set.",
            ),
            Self::ProxyConnectionRefused(fault, _) => {
                row(502, API, Label::ProxyConnectionRefused, fault.message())
            }
            Self::ConnectionTerminated(_) => row(
                502,
                API,
                Label::ConnectionTerminated,
                "The upstream closed the connection before it answered. The request may have been processed.",
            ),
            Self::HttpResponseTimeout => row(
                504,
                TIMEOUT,
                Label::HttpResponseTimeout,
                "The upstream sent no response head in time (UPSTREAM_TIMEOUT, GENERATION_TIMEOUT).",
            ),
            Self::HttpProtocolError => row(
                502,
                API,
                Label::HttpProtocolError,
                "The upstream's response is not valid in the HTTP version in use: check the scheme and port in API_BASE_URL, and UPSTREAM_HTTP_VERSION if it is set.",
            ),
            Self::HttpResponseHeaderSectionSize => row(
                502,
                API,
                Label::HttpResponseHeaderSectionSize,
                "The upstream's response head is too large: at most 64 KiB and 256 fields are taken.",
            ),
            Self::HttpUpgradeFailed => row(
                502,
                API,
                Label::HttpUpgradeFailed,
                "The upstream did not switch to the requested protocol, or switched without a request.",
            ),
            Self::HttpResponseTransferCoding => row(
                502,
                API,
                Label::HttpResponseTransferCoding,
                "The framing of the upstream's response is invalid.",
            ),
        }
    }
}

impl ProxyFault {
    fn message(self) -> &'static str {
        match self {
            Self::Login => {
                "The outbound proxy wants a user and password, or refuses those it got: put them into the URL in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY (scheme://user:password@host:port), or name the upstream's host in NO_PROXY."
            }
            Self::Scheme => {
                "The outbound proxy wants NTLM or Kerberos, which no user and password in its URL can give: run a local helper that speaks it (cntlm, px), and set HTTPS_PROXY or HTTP_PROXY to that; or name the upstream's host in NO_PROXY."
            }
            Self::Policy => {
                "The outbound proxy does not permit a connection to the upstream: have its operator permit it, or name the upstream's host in NO_PROXY."
            }
            Self::Protocol => {
                "The outbound proxy did not answer as one of its kind: check scheme (http:// or socks5h://) and port in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY."
            }
            Self::Other => {
                "The outbound proxy did not open a connection to the upstream: check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY."
            }
        }
    }
}

impl Answer {
    /// The content in Anthropic's shape:
    /// `{"type":"error","error":{"type":…,"message":…},"request_id":…}`.
    pub fn content(&self, request_id: &str) -> Bytes {
        content(self.kind, self.message, request_id)
    }
}

fn content(kind: &str, message: &str, request_id: &str) -> Bytes {
    let value = serde_json::json!({
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id,
    });
    Bytes::from(value.to_string())
}

fn row(status: u16, kind: &'static str, label: Label, message: &'static str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer {
        status,
        kind,
        label,
        message,
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_anthropics_shape() {
        let content = DeniedError::TooManyInFlight.answer().content("req_1");
        let value: serde_json::Value = serde_json::from_slice(&content).unwrap();
        assert_eq!(value["type"], "error");
        assert_eq!(value["error"]["type"], "overloaded_error");
        assert_eq!(value["request_id"], "req_1");
        assert!(
            value["error"]["message"]
                .as_str()
                .unwrap()
                .contains("MAX_IN_FLIGHT")
        );
    }

    #[test]
    fn what_an_operator_has_to_mend_is_permanent() {
        let refused = |fault| UpstreamError::ProxyConnectionRefused(fault, io::Error::other("x"));
        let certificate = UpstreamError::TlsCertificateError(io::Error::other("x"));
        for (cause, is_permanent) in [
            (ProxyError::from(certificate), true),
            (refused(ProxyFault::Login).into(), true),
            (refused(ProxyFault::Scheme).into(), true),
            (refused(ProxyFault::Policy).into(), true),
            (refused(ProxyFault::Protocol).into(), false),
            (refused(ProxyFault::Other).into(), false),
            (UpstreamError::ConnectionTimeout.into(), false),
            (DeniedError::LoopDetected.into(), true),
            (DeniedError::TooManyInFlight.into(), false),
            (DownstreamError::UnsupportedProtocol.into(), true),
            (InternalError::Handler.into(), false),
        ] {
            assert_eq!(cause.is_permanent(), is_permanent, "{cause}");
        }
        let message = |fault| refused(fault).answer().message;
        assert!(message(ProxyFault::Login).contains("user:password"));
        let helper = message(ProxyFault::Scheme);
        assert!(helper.contains("cntlm") && !helper.contains("user:password@"));
    }

    #[test]
    fn an_error_of_the_tls_library_is_a_plain_sentence() {
        const EOF: &str = "peer closed connection without sending TLS close_notify: \
                           https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        let error = io::Error::new(io::ErrorKind::UnexpectedEof, EOF);
        assert_eq!(
            plain_text(&error),
            "peer closed connection without sending TLS close_notify"
        );
        assert_eq!(plain_text(&io::Error::other("x: y")), "x: y");
    }

    #[test]
    fn refusals_say_when_to_come_back() {
        assert_eq!(DeniedError::EditMemory.answer().retry_after, Some(1));
        assert_eq!(UpstreamError::DnsTimeout.answer().retry_after, None);
    }
}
