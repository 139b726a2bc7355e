//! The state of the store as metrics tell it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// State of the store.
pub(super) struct StoreHealth {
    is_used: AtomicBool,
    failures: AtomicU64,
}

impl StoreHealth {
    pub(super) fn new(is_used: bool) -> Self {
        Self {
            is_used: AtomicBool::new(is_used),
            failures: AtomicU64::new(0),
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
