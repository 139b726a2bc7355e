//! Reasons to read the files, and the thread's wait for them.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::config::{error::ConfigErrors, origin::Setting};

/// Reason to read the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadTrigger {
    /// A file changed.
    Touched,
    /// Request by SIGHUP or by the dashboard.
    Asked,
}

/// Triggers that the thread waits for.
#[derive(Debug, Default)]
pub(super) struct ReloadSignals {
    pending: Mutex<PendingTriggers>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct PendingTriggers {
    pub(super) stop: bool,
    pub(super) asked: bool,
    /// The thread reads files.
    pub(super) is_running: bool,
    /// Settings of the environment file that was taken last.
    pub(super) settings_of_file: usize,
    /// Settings that are in effect.
    pub(super) in_effect: Vec<Setting>,
    /// Number of the last request that waits for an outcome.
    ticket: u64,
    /// The same of the last one that the thread began to serve.
    begun: u64,
    /// The same of the last one that has its outcome.
    served: u64,
    faults: Option<ConfigErrors>,
}

/// Reason for which a reload that was asked for did not take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadFault {
    /// The files have faults.
    #[error("{0}")]
    Refused(ConfigErrors),
    /// No thread reads them, or it is too slow.
    #[error("the reload gave no outcome within {} s; the log says more", PATIENCE.as_secs())]
    NoOutcome,
}

impl ReloadSignals {
    pub(super) fn set(&self, change: impl FnOnce(&mut PendingTriggers)) {
        change(&mut self.lock());
        self.arrived.notify_all();
    }

    /// The next reason to read the files, or none to stop. They are looked at every [`POLL`].
    pub(super) fn next(&self, has_changed: impl Fn() -> bool) -> Option<ReloadTrigger> {
        let idle = |pending: &mut PendingTriggers| !pending.stop && !pending.asked;
        loop {
            let waited = self.arrived.wait_timeout_while(self.lock(), POLL, idle);
            let (mut pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if pending.stop {
                return None;
            }
            if mem::take(&mut pending.asked) {
                pending.begun = pending.ticket;
                return Some(ReloadTrigger::Asked);
            }
            drop(pending);
            if has_changed() {
                return Some(ReloadTrigger::Touched);
            }
        }
    }

    /// Asks for a reload, and waits for the outcome of one that began after this.
    pub(super) fn ask(&self) -> Result<(), ReloadFault> {
        let mut pending = self.lock();
        if !pending.is_running || pending.stop {
            return Err(ReloadFault::NoOutcome);
        }
        pending.ticket += 1;
        pending.asked = true;
        let ticket = pending.ticket;
        self.arrived.notify_all();
        let waits = |pending: &mut PendingTriggers| pending.served < ticket && !pending.stop;
        let waited = self.arrived.wait_timeout_while(pending, PATIENCE, waits);
        let (pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (&pending.faults, pending.served >= ticket) {
            (_, false) => Err(ReloadFault::NoOutcome),
            (Some(faults), true) => Err(ReloadFault::Refused(faults.clone())),
            (None, true) => Ok(()),
        }
    }

    /// Notes the outcome of the reload that was begun last.
    pub(super) fn serve(&self, faults: Option<ConfigErrors>) {
        self.set(|pending| {
            pending.served = pending.begun;
            pending.faults = faults;
        });
    }

    /// Waits for this long, or until the stop; says whether to go on.
    pub(super) fn pause(&self, span: Duration) -> bool {
        let (pending, _) = self
            .arrived
            .wait_timeout_while(self.lock(), span, |pending| !pending.stop)
            .unwrap_or_else(PoisonError::into_inner);
        !pending.stop
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, PendingTriggers> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time for an outcome: longer than files that are written without a pause are waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Time from one look at the files to the next. Five files take 10 looks a second, which is 0.04 % of a core
/// (docs/decisions/0021), and with the wait until a file stands still, a change is in effect within a second.
const POLL: Duration = Duration::from_millis(500);
