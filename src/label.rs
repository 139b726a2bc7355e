//! Labels: the short names of faults, ends and edits, as they stand in metrics, in the logs, in the API and in
//! `x-proxy-error`.

use std::fmt;

macro_rules! labels {
    ($($name:ident = $text:literal,)*) => {
        /// A label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Label {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl Label {
            /// All of them, in their order.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// The text.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

labels! {
    // answers of the proxy, in the order of their table
    InternalError = "internal_error",
    MalformedHead = "malformed_head",
    InvalidHost = "invalid_host",
    AmbiguousFraming = "ambiguous_framing",
    MalformedBody = "malformed_body",
    HeadTooLarge = "head_too_large",
    UnsupportedVersion = "unsupported_version",
    RequestHeadTimeout = "request_head_timeout",
    RequestBodyTimeout = "request_body_timeout",
    ClientDisconnected = "client_disconnected",
    UnsupportedTarget = "unsupported_target",
    UnsupportedProtocol = "unsupported_protocol",
    DashboardOrigin = "dashboard_origin",
    ForeignOrigin = "foreign_origin",
    EndedByOperator = "ended_by_operator",
    LoopDetected = "loop_detected",
    DnsError = "dns_error",
    DnsTimeout = "dns_timeout",
    ConnectionRefused = "connection_refused",
    ConnectionFailed = "connection_failed",
    ConnectionTimeout = "connection_timeout",
    TlsCertificateError = "tls_certificate_error",
    TlsProtocolError = "tls_protocol_error",
    ProxyConnectionRefused = "proxy_connection_refused",
    ConnectionTerminated = "connection_terminated",
    HttpResponseTimeout = "http_response_timeout",
    HttpProtocolError = "http_protocol_error",
    HttpResponseHeaderSectionSize = "http_response_header_section_size",
    HttpUpgradeFailed = "http_upgrade_failed",
    HttpResponseTransferCoding = "http_response_transfer_coding",
    TooManyConnections = "too_many_connections",
    TooManyInFlight = "too_many_in_flight",
    EditMemoryExhausted = "edit_memory_exhausted",
    DescriptorsExhausted = "descriptors_exhausted",
    // refusals of access
    KeyMissing = "key_missing",
    KeyMistyped = "key_mistyped",
    KeysContradictory = "keys_contradictory",
    KeyUnknown = "key_unknown",
    KeyRevoked = "key_revoked",
    KeyExpired = "key_expired",
    SourceNotAllowed = "source_not_allowed",
    ModelNotAllowed = "model_not_allowed",
    PathNotAllowed = "path_not_allowed",
    UpstreamKeyMissing = "upstream_key_missing",
    SpendLimit = "spend_limit",
    SpendReserved = "spend_reserved",
    RequestLimit = "request_limit",
    InputTokenLimit = "input_token_limit",
    OutputTokenLimit = "output_token_limit",
    TooManyAtOnce = "too_many_at_once",
    LimitStateUnreachable = "limit_state_unreachable",
    ModelUnreadable = "model_unreadable",
    ModelContradictory = "model_contradictory",
    ModelsUnreadable = "models_unreadable",
    // other ends of an exchange
    WriteTimeout = "write_timeout",
    StreamIdleTimeout = "stream_idle_timeout",
    TunnelIdleTimeout = "tunnel_idle_timeout",
    Shutdown = "shutdown",
    // outcomes of an edit
    Replaced = "replaced",
    Inserted = "inserted",
    NotJson = "not_json",
    NoSystem = "no_system",
    SystemNotArray = "system_not_array",
    SystemEmpty = "system_empty",
    TargetMissing = "target_missing",
    TargetNotText = "target_not_text",
    ContentCoding = "content_coding",
    TooLarge = "too_large",
    // a label of another version of the program
    Other = "other",
}

impl Label {
    /// The number of labels.
    pub const COUNT: usize = Self::ALL.len();

    /// The label of this text.
    pub fn of(text: &str) -> Self {
        let known = Self::ALL.into_iter().find(|label| label.text() == text);
        known.unwrap_or(Self::Other)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_has_a_text_of_its_own_and_a_place() {
        for (at, label) in Label::ALL.into_iter().enumerate() {
            assert_eq!((label as usize, Label::of(label.text())), (at, label));
        }
        assert_eq!(Label::of("of another version"), Label::Other);
    }
}
