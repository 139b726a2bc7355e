//! anthropic-proxy: a transparent, streaming, multi-core reverse proxy for Anthropic-compatible APIs.

pub mod cli;
pub mod config;
pub mod downstream;
pub mod error;
pub mod framing;
pub mod gate;
pub mod logging;
pub mod messages;
pub mod proxy;
pub mod secret;
pub mod server;
pub mod upstream;
