//! The state of the store, and of the copy of it, as metrics and pages tell it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// State of the store.
pub(super) struct StoreHealth {
    is_used: AtomicBool,
    failures: AtomicU64,
    pub(super) copy: CopyHealth,
}

/// State of the copy of a shared store.
#[derive(Default)]
pub(super) struct CopyHealth {
    /// Time at which it was last current, in Unix seconds; 0 without one.
    at: AtomicI64,
    is_used: AtomicBool,
}

impl StoreHealth {
    pub(super) fn new(is_used: bool) -> Self {
        Self {
            is_used: AtomicBool::new(is_used),
            failures: AtomicU64::new(0),
            copy: CopyHealth::default(),
        }
    }

    pub(super) fn note(&self, is_used: bool) {
        self.is_used.store(is_used, Relaxed);
        if !is_used {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    /// True if it could be used at the last try, and the number of tries at which it could not.
    pub(super) fn read(&self) -> (bool, u64) {
        (self.is_used.load(Relaxed), self.failures.load(Relaxed))
    }
}

impl CopyHealth {
    /// Notes the time at which the copy was current.
    pub(super) fn note(&self, at: i64) {
        self.at.store(at, Relaxed);
    }

    /// Notes whether keys and limits in effect are those of the copy.
    pub(super) fn set_used(&self, is_used: bool) {
        self.is_used.store(is_used, Relaxed);
    }

    /// The time at which the copy was last current, if there is one, and true if it is in use.
    pub(super) fn read(&self) -> Option<(i64, bool)> {
        match self.at.load(Relaxed) {
            0 => None,
            at => Some((at, self.is_used.load(Relaxed))),
        }
    }
}
