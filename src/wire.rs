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
mod limits;
pub mod origin;
pub mod outbox;
pub mod pace;
pub mod read;
pub mod refused_request;
pub mod role;
pub mod upgrade;
pub mod window;

pub use self::limits::{MAX_FIELDS, MAX_HEAD};
