//! The service of one worker: everything that its requests share.

use std::{rc::Rc, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::{memory::EditMemory, observer::Observer};
use crate::{
    config::Live,
    limits::Limits,
    upstream::{Client, balance::Balance},
};

/// What the default service needs of its worker.
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
    /// Free memory for bodies that are kept for the next upstream, in KiB, of the process.
    pub replay_memory: Arc<Semaphore>,
    /// What all workers know of the upstreams.
    pub balance: Arc<Balance>,
    /// Who looks at the exchanges.
    pub observer: Rc<Observer>,
    /// Whether the ports that forward serve the dashboard, too.
    pub serves_dashboard: bool,
    /// Whether only this machine is listened to.
    pub is_loopback: bool,
}
