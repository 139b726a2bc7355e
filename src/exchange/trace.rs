//! Place of an exchange in a trace.

/// Place of an exchange in a trace, which has a span for the client's request and one for the upstream's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace: the client's, or one of the proxy's.
    pub trace: [u8; 16],
    /// The client's span, if it names one (`traceparent`).
    pub parent: Option<[u8; 8]>,
    /// The client's `tracestate`.
    pub state: Option<Box<str>>,
    /// The span of the client's request.
    pub server: [u8; 8],
    /// The span of the request to the upstream.
    pub client: [u8; 8],
    /// The model that the request names, as far as it may be shown.
    pub asked_model: Option<Box<str>>,
}
