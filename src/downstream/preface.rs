//! Connection preface of HTTP/2 (RFC 9113 §3.4), by which the version of a connection in clear is chosen.

/// What a client begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first octets of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    /// The whole of HTTP/2's preface.
    Whole,
    /// Its beginning, or nothing yet.
    Begun,
    /// Anything else.
    Other,
}

/// Looks at the first octets of a connection.
pub(super) fn preface(octets: &[u8]) -> Preface {
    if octets.starts_with(PREFACE) {
        Preface::Whole
    } else if PREFACE.starts_with(octets) {
        Preface::Begun
    } else {
        Preface::Other
    }
}
