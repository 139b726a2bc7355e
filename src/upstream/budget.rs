//! How many requests may be sent a second time: a share of all requests, so that an upstream that
//! fails under load is not given more of it.
//!
//! One in five requests, and at least three a second. All workers share it: a request adds its
//! fifth by one atomic addition.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Thousandths of a second sending that a request earns: 20 %.
const SHARE: i64 = 200;
const WHOLE: i64 = 1000;
/// At least so many a second, and no more than a second's worth saved up from idle time.
const FLOOR: i64 = 3;
/// Saved up at most: 100 second sendings, which 500 requests earned.
const MOST: i64 = 100 * WHOLE;

/// The budget of the process.
#[derive(Debug)]
pub(super) struct Budget {
    /// Earned by requests.
    earned: AtomicI64,
    /// Earned by time, up to `counted_to`.
    floor: AtomicI64,
    counted_to: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            earned: AtomicI64::new(0),
            floor: AtomicI64::new(FLOOR * WHOLE),
            counted_to: AtomicU64::new(0),
        }
    }
}

impl Budget {
    /// A request came.
    pub(super) fn earn(&self) {
        if self.earned.load(Relaxed) < MOST {
            self.earned.fetch_add(SHARE, Relaxed);
        }
    }

    /// Whether a request may be sent once more. `now` is in milliseconds.
    pub(super) fn spend(&self, now: u64) -> bool {
        let before = self.counted_to.fetch_max(now, Relaxed);
        let elapsed = i64::try_from(now.saturating_sub(before)).unwrap_or(WHOLE);
        let gained = elapsed.min(WHOLE) * FLOOR; // thousandths a millisecond
        let _ = self.floor.fetch_update(Relaxed, Relaxed, |floor| {
            Some((floor + gained).min(FLOOR * WHOLE))
        });
        take(&self.floor) || take(&self.earned)
    }
}

fn take(from: &AtomicI64) -> bool {
    from.fetch_update(Relaxed, Relaxed, |saved| {
        (saved >= WHOLE).then_some(saved - WHOLE)
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &Budget, wanted: usize, now: u64) -> usize {
        (0..wanted).filter(|_| budget.spend(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_three_a_second() {
        let budget = Budget::default();
        assert_eq!(spent(&budget, 100, 0), 3);
        assert_eq!(spent(&budget, 100, 500), 1);
        assert_eq!(spent(&budget, 100, 1000), 2);
        // time in which nobody asked is worth one second
        assert_eq!(spent(&budget, 100, 60_000), 3);
        for _ in 0..100 {
            budget.earn();
        }
        assert_eq!(spent(&budget, 100, 60_000), 20);
        for _ in 0..10_000 {
            budget.earn();
        }
        assert_eq!(spent(&budget, 1000, 60_000), 100);
    }
}
