//! Bounds and intervals that HTTP/1.1 and HTTP/2 towards the client have in common.

use std::time::Duration;

/// Octets of a response that may wait when more is asked for. With the largest read of 48 KiB that
/// makes 64 KiB that a slow reader can hold back (docs/contract.md §4.3).
pub(super) const WRITE_AHEAD: usize = 16 * 1024;
/// Interval of the checks of a client that the proxy does not read from.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Largest response that counts as delivered when the socket has taken it: it is on its way for a
/// round trip or two. The last octets of a larger one may wait in the kernel for minutes.
pub(super) const IN_FLIGHT: u64 = 64 * 1024;
/// Time to the first check of the arrival of a response; the interval doubles with each further
/// check, up to [`WATCH_INTERVAL`]. An acknowledgement may take 40 ms.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(5);
/// Limits on discarding the rest of an unfinished request after its response: time and octets.
/// Without it, the response may be lost to a reset (RFC 9112 §9.6).
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_OCTETS: usize = 4 * 1024 * 1024;
