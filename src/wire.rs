//! HTTP as octets, for both sides and without a peer: heads, bodies, frames, and the queue of
//! octets to be written (RFC 9112, RFC 9113).
//!
//! Everything here takes values and returns values, or moves octets between a buffer and a socket.
//! [`crate::proxy`] decides what is forwarded.

pub mod address;
pub mod body;
pub mod chunks;
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
pub mod page;
pub mod read;
pub mod refused_request;
pub mod role;
pub mod upgrade;
pub mod verification;
pub mod window;

pub use self::limits::{MAX_FIELDS, MAX_HEAD};
