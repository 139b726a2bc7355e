//! Conversion of errors of h2 to errors of the upstream.

use std::io;

use crate::error::UpstreamError;

/// An error of h2 before there was a stream.
pub(super) fn unusable(cause: h2::Error) -> UpstreamError {
    if cause.is_io() {
        UpstreamError::ConnectionTerminated(cause.into_io())
    } else if cause.is_library() {
        UpstreamError::HttpProtocolError
    } else {
        UpstreamError::ConnectionTerminated(Some(terse(cause)))
    }
}

/// An error of h2 without the text that a peer may send with a GOAWAY: it could say anything.
pub(super) fn terse(cause: h2::Error) -> io::Error {
    match (cause.reason(), cause.is_go_away()) {
        (Some(reason), true) => io::Error::other(format!("HTTP/2 connection ended: {reason}")),
        (Some(reason), false) => io::Error::other(format!("HTTP/2 stream ended: {reason}")),
        (None, _) => cause
            .into_io()
            .unwrap_or_else(|| io::Error::other("HTTP/2")),
    }
}
