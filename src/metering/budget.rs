//! Memory budget of all decoders of the process.
//!
//! One relaxed counter: nothing is ordered by it. A decoder that would exceed the bound is refused
//! and takes nothing; a [`BudgetShare`] gives its memory back when it is dropped.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Memory of all decoders together: 256 MiB. That is about 5,400 streams in gzip (48 KiB each,
/// whatever their length), 1,400 in zstd or 2,300 in br that have come to 60 KB of events, and 250
/// in zstd or 60 in br of megabytes that fill windows of 512 KiB and 4 MiB.
pub(super) static DECODERS: Budget = Budget::new(256 << 20);

/// Budget of memory: its bound, and the part that is taken.
#[derive(Debug)]
pub(super) struct Budget {
    taken: AtomicUsize,
    most: usize,
}

/// Share of a budget, in bytes.
#[derive(Debug)]
pub(super) struct BudgetShare {
    budget: &'static Budget,
    octets: usize,
}

impl Budget {
    /// Makes an unused budget of `most` bytes.
    pub(super) const fn new(most: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            most,
        }
    }

    /// Makes an empty share.
    pub(super) fn share(&'static self) -> BudgetShare {
        BudgetShare {
            budget: self,
            octets: 0,
        }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

impl BudgetShare {
    /// Grows the share to `octets` bytes, if the budget has room. Returns true if the share is that
    /// large now.
    pub(super) fn grow_to(&mut self, octets: usize) -> bool {
        let more = octets.saturating_sub(self.octets);
        if more == 0 {
            return true;
        }
        let before = self.budget.taken.fetch_add(more, Relaxed);
        if before.saturating_add(more) > self.budget.most {
            self.budget.taken.fetch_sub(more, Relaxed);
            return false;
        }
        self.octets = octets;
        true
    }

    /// Grows the share to `octets` bytes, a small number, even beyond the budget.
    pub(super) fn force_to(&mut self, octets: usize) {
        let more = octets.saturating_sub(self.octets);
        self.budget.taken.fetch_add(more, Relaxed);
        self.octets += more;
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.octets, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_given_back() {
        static BUDGET: Budget = Budget::new(100);
        let (mut one, mut other) = (BUDGET.share(), BUDGET.share());
        assert!(one.grow_to(60) && one.grow_to(50) && other.grow_to(40));
        assert!(!other.grow_to(41) && BUDGET.taken() == 100);
        drop(one);
        assert!(other.grow_to(100));
        let mut forced = BUDGET.share();
        forced.force_to(5);
        assert_eq!(BUDGET.taken(), 105);
        drop((other, forced));
        assert_eq!(BUDGET.taken(), 0);
    }

    #[test]
    fn threads_never_hold_more_than_there_is() {
        static BUDGET: Budget = Budget::new(10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let mut share = BUDGET.share();
                        if share.grow_to(4) {
                            assert!(share.grow_to(4));
                        }
                    }
                });
            }
        });
        assert_eq!(BUDGET.taken(), 0);
    }
}
