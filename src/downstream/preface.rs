//! Connection preface of HTTP/2 (RFC 9113 §3.4), by which the version of a connection in clear is chosen.

/// Connection preface of a client (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Classification of the first octets of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    /// The complete preface.
    Whole,
    /// The beginning of the preface, or nothing yet.
    Begun,
    /// Anything else.
    Other,
}

/// Classifies the first octets of a connection.
pub(super) fn preface(octets: &[u8]) -> Preface {
    if octets.starts_with(PREFACE) {
        Preface::Whole
    } else if PREFACE.starts_with(octets) {
        Preface::Begun
    } else {
        Preface::Other
    }
}
