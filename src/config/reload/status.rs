//! The state of reloads as others read it: counters for the metrics, a snapshot for the dashboard.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64},
    time::SystemTime,
};

use crate::config::origin::Setting;

/// Counters of reloads, for the metrics.
#[derive(Debug)]
pub struct ReloadCounters {
    /// Configurations that were taken, or confirmed on request.
    pub succeeded: AtomicU64,
    /// Configurations that were refused.
    pub failed: AtomicU64,
    /// The files as they are now are in effect.
    pub last_succeeded: AtomicBool,
}

impl Default for ReloadCounters {
    fn default() -> Self {
        Self {
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_succeeded: AtomicBool::new(true),
        }
    }
}

/// Snapshot of settings and reloads, for the dashboard.
#[derive(Debug, Clone, Default)]
pub struct ConfigStatus {
    /// Every variable with its origin, as it is in effect; in the order of the table.
    pub settings: Vec<Setting>,
    /// The same as it will be after a restart.
    pub next: Vec<Setting>,
    /// Variables whose change waits for a restart.
    pub pending_restart: Vec<&'static str>,
    /// The last reloads that changed or refused something, oldest first.
    pub reloads: VecDeque<Reload>,
}

/// One reload.
#[derive(Debug, Clone)]
pub struct Reload {
    /// Time of the reload.
    pub at: SystemTime,
    /// Errors; empty if the configuration was accepted.
    pub faults: Vec<String>,
    /// Names of changed settings.
    pub changed: Vec<&'static str>,
}
