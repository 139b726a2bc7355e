//! Heartbeats of replicas, and the snapshot of those that were heard: plain values.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

/// Content of a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaBeat {
    /// Its name: that of its host, and its port.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Digest of its settings.
    pub config: String,
    /// Digests of those that are not the default, by variable. A replica of an earlier version says none.
    pub settings: BTreeMap<String, String>,
    /// Time of its start.
    pub started_at: u64,
    /// Exchanges in flight.
    pub in_flight: u64,
    /// True if it ends.
    pub draining: bool,
    /// Exchanges since its start.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Upstreams whose circuit is open there, and the number of the opening.
    pub open: Vec<(Box<str>, u32)>,
}

/// A replica as it was heard last.
#[derive(Debug, Clone)]
pub struct HeardReplica {
    /// Its boot.
    pub boot: String,
    /// Time of its heartbeat.
    pub at: SystemTime,
    /// Its content.
    pub beat: ReplicaBeat,
}

/// Snapshot of the replicas.
#[derive(Debug, Clone, Default)]
pub struct FleetSnapshot {
    /// Those that run, this one among them.
    pub replicas: Vec<HeardReplica>,
    /// Fault of the shared store, while it cannot be used.
    pub fault: Option<String>,
    /// Time of the last reading.
    pub read_at: Option<SystemTime>,
    /// True if there is a shared store (`STATE_URL`).
    pub is_shared: bool,
}
