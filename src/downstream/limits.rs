//! Bounds and intervals that HTTP/1.1 and HTTP/2 towards the client have in common.

use std::time::Duration;

/// Octets of a response that may wait when more is asked for. With the largest read of 48 KiB that
/// makes 64 KiB that a slow reader can hold back (docs/contract.md §4.3).
pub(super) const WRITE_AHEAD: usize = 16 * 1024;
/// How often a client is looked at that cannot be read from any more.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// A response of at most so many octets counts as delivered when the socket has taken it: they are on
/// their way for a round trip or two. Of a larger one the last octets may wait in the kernel for
/// minutes.
pub(super) const IN_FLIGHT: u64 = 64 * 1024;
/// When the arrival of a response is looked at first; each further look takes twice as long, up to
/// [`WATCH_INTERVAL`]. An acknowledgement may take 40 ms.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(5);
/// After an answer to an unfinished request: how long what still comes is thrown away, so that the
/// answer is not lost to a reset (RFC 9112 §9.6), and how much of it.
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_OCTETS: usize = 4 * 1024 * 1024;
