//! Bounds of one HTTP/2 connection: streams, windows, header lists.

use crate::wire::MAX_HEAD;

/// Streams that run at the same time; what is beyond is refused (RFC 9113 §5.1.2).
pub(super) const MAX_STREAMS: u32 = 100;
/// Octets that a client may send ahead on one stream: what one stream may hold back
/// (docs/contract.md §4.3). More only while it is consumed ([`crate::wire::window::WindowDriver`]).
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;
/// ... and on all of them. With less, streams whose upstream stands still could hold back the others;
/// what they hold is bounded by `MAX_IN_FLIGHT`, as for HTTP/1.1.
pub(super) const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// Size of a header list beyond which h2 answers 431 itself, without content. RFC 9113 §10.5.1 counts
/// 32 octets for each field, so twice the largest head leaves room for ours to be told apart.
pub(super) const MAX_HEADER_LIST: u32 = 2 * MAX_HEAD as u32;
