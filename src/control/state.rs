//! The state of the control plane: handles of what it reads, and what it keeps itself.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    attempts::KeyAttempts,
    blocking_pool::BlockingPool,
    broadcast::EventChannel,
    doctor_desk::{DoctorDesk, DoctorSources},
    heard::FleetSnapshot,
    problem::Problem,
    rejected_keys::RejectedKeys,
    session::{RoleSessions, Sessions},
};
use crate::{
    config::{Live, reload::ConfigStatus},
    drain::DrainPhase,
    limits::Limits,
    registry::Registry,
    revision::Editor,
    secret::Secret,
    telemetry::{activity::ActivityView, metrics::Format},
    upstream::balance::Balance,
};

/// Sources of the admin plane: handles of the process's other rooms.
pub struct AdminSources {
    /// The configuration in effect.
    pub live: Arc<ArcSwap<Live>>,
    /// State of the configuration: settings in effect, pending ones, reloads.
    pub standing: Arc<ArcSwap<ConfigStatus>>,
    /// Exchanges and connections that run.
    pub limits: Arc<Limits>,
    /// Circuits.
    pub balance: Arc<Balance>,
    /// Phase of the drain.
    pub phase: watch::Receiver<DrainPhase>,
    /// Names this run of the process.
    pub boot_id: String,
    /// Time of the start.
    pub started: SystemTime,
    /// URL of the dashboard for a client on this machine.
    pub url: String,
    /// Directory that keeps the generated key (`DATA_DIR`).
    pub data_dir: Option<PathBuf>,
    /// Keys and limits; none where there is no place to keep them.
    pub registry: Option<Arc<Registry>>,
    /// The file of settings, as operators change it.
    pub editor: Editor,
    /// Addresses of the main ports, as URLs begin.
    pub proxy_urls: Vec<String>,
    /// View of the recorded activity; none if nothing is recorded.
    pub view: Option<ActivityView>,
    /// Tells what is known of the replicas.
    pub replicas: ReplicaSource,
    /// Writes the metrics.
    pub exposition: Exposition,
    /// Places that the doctor looks at.
    pub doctor: DoctorSources,
}

/// Tells what is known of the replicas.
pub type ReplicaSource = Box<dyn Fn() -> Arc<FleetSnapshot> + Send + Sync>;

/// Writes the metrics of this moment.
pub type Exposition = Box<dyn Fn(Format) -> String + Send + Sync>;

/// The admin plane of the process.
pub struct AdminState {
    pub(super) sources: AdminSources,
    /// The key that is in effect while none is configured, once it is needed.
    pub(super) generated: OnceLock<Secret>,
    pub(super) sessions: RoleSessions,
    /// Clients that have shown the key in `Authorization`, so that it is not an attempt each time.
    pub(super) bearers: RoleSessions,
    /// Users that a trusted proxy has named, so that it is not a sign-in each time.
    pub(super) people: Sessions,
    pub(super) attempts: KeyAttempts,
    /// Keys beside a path that misses one of the plane's by little.
    pub(super) near_misses: KeyAttempts,
    pub(super) refused: RejectedKeys,
    pub(super) aside: BlockingPool,
    pub(super) events: EventChannel,
    pub(super) doctor: DoctorDesk,
}

impl AdminState {
    /// A plane without sessions.
    pub fn new(sources: AdminSources) -> Arc<Self> {
        Arc::new(Self {
            sources,
            generated: OnceLock::new(),
            sessions: RoleSessions::default(),
            bearers: RoleSessions::default(),
            people: Sessions::default(),
            attempts: KeyAttempts::new(),
            near_misses: KeyAttempts::new(),
            refused: RejectedKeys::default(),
            aside: BlockingPool::new(),
            events: EventChannel::new(),
            doctor: DoctorDesk::default(),
        })
    }

    pub(super) fn view(&self) -> Result<&ActivityView, Problem> {
        let view = self.sources.view.as_ref();
        view.ok_or(Problem::Unavailable("nothing is recorded"))
    }
}
