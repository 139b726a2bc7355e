//! Reads copies of what passes: metrics, the activity that the dashboard shows, the access log,
//! traces, and what is sent of them.
//!
//! All of it is off by default and hangs on the end of an exchange; traffic is never modified, and no
//! exchange waits for it.

pub mod access_log;
pub mod activity;
pub mod alerts;
pub mod metrics;
mod otlp;
pub mod sent_metrics;
pub mod traces;
