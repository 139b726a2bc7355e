//! Bounds of one HTTP/2 connection: streams, windows, header lists.

use crate::wire::MAX_HEAD;

/// Most concurrent streams; further ones are refused (RFC 9113 §5.1.2).
pub(super) const MAX_STREAMS: u32 = 100;
/// Octets that a client may send ahead on one stream: what one stream may hold back
/// (docs/contract.md §4.3). More only while it is consumed ([`crate::wire::window::WindowDriver`]).
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;
/// Octets that a client may send ahead on all streams. With less, streams with a slow upstream
/// could block the others; `MAX_IN_FLIGHT` bounds the memory, as for HTTP/1.1.
pub(super) const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// Size of a header list beyond which h2 answers 431 itself, without content. RFC 9113 §10.5.1 counts
/// 32 octets for each field, so twice the largest head leaves room for ours to be told apart.
pub(super) const MAX_HEADER_LIST: u32 = 2 * MAX_HEAD as u32;
