//! HTTP/1.1 octets (RFC 9112), for both sides and without a peer: heads, bodies, and the queue of
//! octets that are to be written.
//!
//! Everything here takes values and returns values, or moves octets between a buffer and a socket.
//! It decides nothing about who may send what to whom: that is [`crate::proxy`]'s.

pub mod body;
pub mod cookie;
pub mod frames;
pub mod head;
pub mod host;
pub mod hpack;
pub mod idle;
pub mod origin;
pub mod outbox;
pub mod pace;
pub mod read;
pub mod refused;
pub mod upgrade;
pub mod window;

/// Largest message head that is taken, either way (docs/contract.md §2.4).
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields that are taken in one head, either way (docs/contract.md §2.4).
pub const MAX_FIELDS: usize = 256;
