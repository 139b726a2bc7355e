//! anthropic-proxy: a transparent, streaming, multi-core reverse proxy for Anthropic-compatible APIs.
//!
//! # The life of a request
//!
//! 1. actix-server accepts the connection and gives it to one of its workers, a thread with a runtime of
//!    its own.
//! 2. [`downstream`] reads the request head and calls the worker's actix-web `App`; everything but the few
//!    paths of the proxy ([`server`]) goes to the default service.
//! 3. [`proxy::forward`] takes one snapshot of the settings, counts the exchange ([`limits`]), and lets
//!    [`edit`] decide whether the body is held and edited or streams.
//! 4. It selects an upstream, writes the head for it, and sends the request through [`upstream`]; a request
//!    that an upstream did not process may go to the next one.
//! 5. It filters the response head and hands the body to [`downstream`], chunk by chunk, while
//!    [`metering`] reads a copy.
//! 6. The end of the body finishes the record of the exchange ([`exchange`]), which [`telemetry`] counts.
//!
//! When the client goes away, the future of its connection is dropped, and with it the upload, the upstream
//! connection and the record.
//!
//! `ARCHITECTURE.md` shows the rooms and their floors, and where a change belongs; `docs/decisions` says why
//! it is built this way; `docs/contract.md` says what must hold for every byte.

pub mod access;
pub mod audit;
pub mod background;
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod downstream;
pub mod drain;
pub mod edit;
pub mod error;
pub mod exchange;
pub mod json;
pub mod label;
pub mod limits;
pub mod logging;
pub mod memory;
pub mod metering;
pub mod poster;
pub mod proxy;
pub mod registry;
pub mod revision;
pub mod secret;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod upstream;
pub mod webhook;
pub mod wire;
