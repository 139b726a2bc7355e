//! The service of one worker: everything that its requests share.

use std::{rc::Rc, sync::Arc};

use arc_swap::ArcSwap;

use super::{
    edit_memory::EditMemory,
    keyed::{cutting::RunningKeys, own_session::OwnSessions},
    telemetry::Telemetry,
};
use crate::{
    access::LocalAccess,
    config::{AccessMode, Live},
    limits::Limits,
    memory::Budget,
    upstream::{Client, balance::Balance},
};

/// State of one worker that its exchanges share.
pub struct Worker {
    /// The door to the upstream.
    pub client: Client,
    /// The configuration.
    pub live: Arc<ArcSwap<Live>>,
    /// Counts of the process.
    pub limits: Arc<Limits>,
    /// Exchanges that the file descriptors allow, whatever `MAX_IN_FLIGHT` becomes.
    pub max_in_flight: usize,
    /// Memory for held bodies, of the process.
    pub edit_memory: EditMemory,
    /// Memory for bodies that are kept for the next upstream, of the process.
    pub replay_memory: Arc<Budget>,
    /// Health of the upstreams, shared by all workers.
    pub balance: Arc<Balance>,
    /// Receiver of telemetry.
    pub observer: Rc<Telemetry>,
    /// Keys of the proxy, where there may be any.
    pub access: Option<LocalAccess>,
    /// Requests that need one.
    pub access_mode: AccessMode,
    /// Requests with a key that run here.
    pub running_keys: Rc<RunningKeys>,
    /// Sessions that keys may read, their own each.
    pub sessions: OwnSessions,
    /// True if the main ports serve the dashboard, too.
    pub serves_dashboard: bool,
    /// True if all listeners are on loopback addresses or Unix sockets.
    pub is_loopback: bool,
}
