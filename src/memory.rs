//! Budgets of memory of the process: each is a bound, and shares of it that are given back when they are
//! dropped.
//!
//! One relaxed counter: nothing is ordered by it. A share that would exceed the bound is refused and takes
//! nothing; none waits here.

use std::{
    ops::Deref,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Budget of memory: its bound, and the part that is taken.
#[derive(Debug)]
pub struct Budget {
    taken: AtomicUsize,
    most: usize,
}

impl Budget {
    /// Makes an unused budget of `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            most,
        }
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

/// Share of a budget, in bytes.
#[derive(Debug)]
pub struct BudgetShare<B: Deref<Target = Budget> = &'static Budget> {
    budget: B,
    octets: usize,
}

impl<B: Deref<Target = Budget>> BudgetShare<B> {
    /// Makes an empty share.
    pub const fn of(budget: B) -> Self {
        Self { budget, octets: 0 }
    }

    /// Bytes of the share.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Grows the share to `octets` bytes, if the budget has room. Returns true if the share is that
    /// large now.
    pub fn grow_to(&mut self, octets: usize) -> bool {
        let more = octets.saturating_sub(self.octets);
        let Budget { taken, most } = &*self.budget;
        let after = |taken: usize| taken.checked_add(more).filter(|sum| sum <= most);
        let has_room = more == 0 || taken.fetch_update(Relaxed, Relaxed, after).is_ok();
        if has_room {
            self.octets += more;
        }
        has_room
    }

    /// Grows the share to `octets` bytes, a small number, even beyond the budget.
    pub fn force_to(&mut self, octets: usize) {
        let more = octets.saturating_sub(self.octets);
        self.budget.taken.fetch_add(more, Relaxed);
        self.octets += more;
    }

    /// Gives all of it back.
    pub fn clear(&mut self) {
        self.budget.taken.fetch_sub(self.octets, Relaxed);
        self.octets = 0;
    }
}

impl<B: Deref<Target = Budget>> Drop for BudgetShare<B> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (BudgetShare::of(&budget), BudgetShare::of(&budget));
        assert!(one.grow_to(60) && one.grow_to(50) && other.grow_to(40));
        assert!(!other.grow_to(41) && !other.grow_to(usize::MAX) && budget.taken() == 100);
        one.clear();
        assert_eq!((one.octets(), budget.taken()), (0, 40));
        assert!(other.grow_to(100) && !one.grow_to(1));
        let mut forced = BudgetShare::of(&budget);
        forced.force_to(5);
        assert_eq!(budget.taken(), 105);
        drop((other, forced, one));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn threads_never_hold_more_than_there_is() {
        let budget = Budget::new(10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let mut share = BudgetShare::of(&budget);
                        if share.grow_to(4) {
                            assert!(budget.taken() <= 10);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.taken(), 0);
    }
}
