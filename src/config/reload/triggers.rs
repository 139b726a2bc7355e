//! Reasons to read the files, and the thread's wait for them.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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
                return Some(ReloadTrigger::Asked);
            }
            drop(pending);
            if has_changed() {
                return Some(ReloadTrigger::Touched);
            }
        }
    }

    /// Waits for this long, or until the stop; says whether to go on.
    pub(super) fn pause(&self, span: Duration) -> bool {
        let (pending, _) = self
            .arrived
            .wait_timeout_while(self.lock(), span, |pending| !pending.stop)
            .unwrap_or_else(PoisonError::into_inner);
        !pending.stop
    }

    fn lock(&self) -> MutexGuard<'_, PendingTriggers> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time from one look at the files to the next. Five files take 10 looks a second, which is 0.04 % of a core
/// (docs/decisions/0021), and with the wait until a file stands still, a change is in effect within a second.
const POLL: Duration = Duration::from_millis(500);
