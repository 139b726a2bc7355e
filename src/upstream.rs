//! The per-worker client.

pub mod dial;
