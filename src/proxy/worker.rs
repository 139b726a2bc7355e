//! The service of one worker: everything that its requests share.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use arc_swap::ArcSwap;

use super::{
    edit_memory::EditMemory,
    keyed::{cutting::RunningKeys, own_session::OwnSessions},
    telemetry::Telemetry,
};
use crate::{
    access::local::LocalAccess,
    config::{AccessMode, Live, prices::recent::RecentPrices},
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
    /// Prices of the models that requests with a key named of late.
    pub recent_prices: RefCell<Rc<RecentPrices>>,
    /// The model that the last request with a key named.
    pub last_model: RefCell<Option<Rc<str>>>,
    /// Sessions that keys may read, their own each.
    pub sessions: OwnSessions,
    /// True if the main ports serve the dashboard, too.
    pub serves_dashboard: bool,
    /// True if all listeners are on loopback addresses or Unix sockets.
    pub is_loopback: bool,
}

impl Worker {
    /// The prices of a snapshot, as far as requests asked for them of late.
    pub(super) fn prices(&self, live: &Live) -> Rc<RecentPrices> {
        let mut recent = self.recent_prices.borrow_mut();
        if !recent.is_of(&live.prices) {
            *recent = Rc::new(RecentPrices::new(&live.prices));
        }
        Rc::clone(&recent)
    }

    /// The model that the next request is likely to name.
    pub(super) fn likely_model(&self) -> Option<Rc<str>> {
        self.last_model.borrow().clone()
    }

    /// A request named this model.
    pub(super) fn named(&self, model: &Rc<str>) {
        let mut last = self.last_model.borrow_mut();
        let is_it = |last: &Rc<str>| Rc::ptr_eq(last, model);
        // JSON spells a backslash as two, so that its spelling is not its text
        if !last.as_ref().is_some_and(is_it) && !model.contains('\\') {
            *last = Some(Rc::clone(model));
        }
    }
}
