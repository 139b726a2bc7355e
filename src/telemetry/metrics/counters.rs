//! A dense array of counters: relaxed atomics that one worker writes, summed up on a scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A fixed number of counters.
#[derive(Debug)]
pub(super) struct Counters<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Counters<N> {
    /// Adds to a counter. Only one thread does, so that no atomic addition is needed.
    pub(super) fn add(&self, at: usize, amount: u64) {
        let counter = &self.0[at];
        let sum = counter.load(Relaxed).wrapping_add(amount);
        counter.store(sum, Relaxed);
    }

    pub(super) fn read(&self, at: usize) -> u64 {
        self.0[at].load(Relaxed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|counter| counter.load(Relaxed))
    }

    /// Adds the counts of another array.
    pub(super) fn absorb(&self, other: &Self) {
        for (at, amount) in other.iter().enumerate() {
            self.add(at, amount);
        }
    }
}
