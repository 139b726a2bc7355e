//! Exhaustion of file descriptors while connecting: a failure of this process, in any step of a
//! dial, and never the upstream's.

use std::{error::Error, io};

use crate::error::UpstreamError;

/// The errors of a process and of a system that have no descriptor left. Unix has the same two numbers
/// everywhere; `std` has no kind for them.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// The failure as it is reported: exhausted descriptors, if they are the cause.
pub(super) fn told(error: UpstreamError) -> UpstreamError {
    match code(&error) {
        Some(code) => UpstreamError::DescriptorsExhausted(io::Error::from_raw_os_error(code)),
        None => error,
    }
}

/// The number of the error, if the error or one of its causes has it. An error inside of an
/// [`io::Error`] is no `source` of it.
fn code(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if let Some(code @ (EMFILE | ENFILE)) = io.raw_os_error() {
                return Some(code);
            }
            if let Some(inner) = io.get_ref()
                && let Some(code) = code(inner)
            {
                return Some(code);
            }
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ProxyFault;

    #[test]
    fn it_is_found_in_every_step() {
        let full = || io::Error::from_raw_os_error(EMFILE);
        for error in [
            UpstreamError::ConnectionFailed(full()),
            UpstreamError::ConnectionFailed(io::Error::from_raw_os_error(ENFILE)),
            UpstreamError::DnsError(Box::new(full())),
            UpstreamError::ProxyConnectionRefused(
                ProxyFault::Other,
                io::Error::other(io::Error::other(full())),
            ),
            UpstreamError::TlsCertificateError(io::Error::other(full())),
        ] {
            let told = told(error);
            assert!(
                matches!(told, UpstreamError::DescriptorsExhausted(_)),
                "{told:?}"
            );
        }
        for error in [
            UpstreamError::ConnectionRefused(io::ErrorKind::ConnectionRefused.into()),
            UpstreamError::ConnectionTimeout,
        ] {
            let told = told(error);
            assert!(
                !matches!(told, UpstreamError::DescriptorsExhausted(_)),
                "{told:?}"
            );
        }
    }
}
