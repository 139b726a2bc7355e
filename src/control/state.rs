//! The state of the control plane: handles of what it reads, and what it keeps itself.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    attempts::Attempts, blocking_pool::BlockingPool, broadcast::EventChannel, problem::Problem,
    rejected_keys::RejectedKeys, session::Sessions,
};
use crate::{
    config::{Live, reload::Standing},
    drain::DrainPhase,
    limits::Limits,
    telemetry::{activity::ActivityView, metrics::Format},
    upstream::balance::Balance,
};

/// What the admin plane reads: handles of what others keep.
pub struct AdminSources {
    /// The configuration in effect.
    pub live: Arc<ArcSwap<Live>>,
    /// How the configuration stands.
    pub standing: Arc<ArcSwap<Standing>>,
    /// Exchanges and connections that run.
    pub limits: Arc<Limits>,
    /// Circuits.
    pub balance: Arc<Balance>,
    /// How far the end of the process has come.
    pub phase: watch::Receiver<DrainPhase>,
    /// Names this run of the process.
    pub boot_id: String,
    /// When it started.
    pub started: SystemTime,
    /// Where the main ports are, as URLs begin.
    pub proxy_urls: Vec<String>,
    /// What was recorded of exchanges.
    pub view: Option<ActivityView>,
    /// Writes the metrics.
    pub exposition: Exposition,
}

/// Writes the metrics of this moment.
pub type Exposition = Box<dyn Fn(Format) -> String + Send + Sync>;

/// The admin plane of the process.
pub struct AdminState {
    pub(super) sources: AdminSources,
    pub(super) sessions: Sessions,
    /// Clients that have shown the key in `Authorization`, so that it is not an attempt each time.
    pub(super) bearers: Sessions,
    pub(super) attempts: Attempts,
    /// Keys beside a path that misses one of the plane's by little.
    pub(super) near_misses: Attempts,
    pub(super) refused: RejectedKeys,
    pub(super) aside: BlockingPool,
    pub(super) events: EventChannel,
}

impl AdminState {
    /// A plane without sessions.
    pub fn new(sources: AdminSources) -> Arc<Self> {
        Arc::new(Self {
            sources,
            sessions: Sessions::default(),
            bearers: Sessions::default(),
            attempts: Attempts::new(),
            near_misses: Attempts::new(),
            refused: RejectedKeys::default(),
            aside: BlockingPool::new(),
            events: EventChannel::new(),
        })
    }

    pub(super) fn view(&self) -> Result<&ActivityView, Problem> {
        let view = self.sources.view.as_ref();
        view.ok_or(Problem::Unavailable("nothing is recorded"))
    }
}
