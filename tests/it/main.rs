//! The integration tests: the built binary as a black box between a raw client and a scripted
//! raw upstream.
//!
//! Each file holds one theme of docs/contract.md, each test name states a fact. Every test starts its
//! own process with an empty environment in its own directory, on ports that the kernel chose.
//! Nothing here imports the library, except `docs`, which holds the manuals against its tables, and
//! `differential`, which runs our exchange beside another one.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports a failure by panicking"
)]

mod access;
mod admin;
mod alerts;
mod bad_input;
mod cancel;
mod cli;
mod configuring;
mod counting;
mod dialing;
mod differential;
mod docs;
mod docs_papers;
mod doctor;
mod edit;
mod endings;
mod failover;
mod faults;
mod forwarding;
mod framing;
#[cfg(target_os = "linux")]
mod handover;
mod http2;
#[cfg(target_os = "linux")]
mod init;
mod keys;
mod layers;
mod lifecycle;
#[cfg(unix)]
mod listeners;
mod logs;
mod masking;
mod names;
mod observation;
mod origins;
mod proxies;
#[cfg(unix)]
mod reload;
mod roads;
mod running;
mod secrets;
mod sent_metrics;
mod sessions;
mod start;
mod state;
#[cfg(unix)]
mod statusline;
mod support;
mod timers;
mod tls;
#[cfg(unix)]
mod top;
mod traces;
mod tunnel;
mod upstream_http2;
mod verify;
mod words;
