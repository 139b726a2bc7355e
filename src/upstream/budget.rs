//! Retry budget: the share of requests that may be sent a second time, so that an upstream that
//! fails under load is not given more of it.
//!
//! One in five requests, and at least three a second. All workers share it: a request adds its
//! fifth by one atomic addition.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Thousandths of a second sending that a request earns: 20 %.
const SHARE: i64 = 200;
const WHOLE: i64 = 1000;
/// Floor of retries a second, and no more than a second's worth saved up from idle time, nor owed.
const FLOOR: i64 = 3;
/// Saved up at most: 100 second sendings, which 500 requests earned.
const MOST: i64 = 100 * WHOLE;

/// The budget of the process.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// Earned by requests.
    earned: AtomicI64,
    /// Earned by time, up to `counted_to`, less what was spent; below 0 where more was.
    floor: AtomicI64,
    counted_to: AtomicU64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            earned: AtomicI64::new(0),
            floor: AtomicI64::new(FLOOR * WHOLE),
            counted_to: AtomicU64::new(0),
        }
    }
}

impl RetryBudget {
    /// Counts a request.
    pub(super) fn earn(&self) {
        if self.earned.load(Relaxed) < MOST {
            self.earned.fetch_add(SHARE, Relaxed);
        }
    }

    /// Spends one retry, if the budget has room for it. `now` is in milliseconds.
    pub(super) fn spend(&self, now: u64) -> bool {
        let before = self.counted_to.fetch_max(now, Relaxed);
        let elapsed = i64::try_from(now.saturating_sub(before)).unwrap_or(WHOLE);
        let gained = elapsed.min(WHOLE) * FLOOR; // thousandths a millisecond
        let _ = self.floor.fetch_update(Relaxed, Relaxed, |floor| {
            Some((floor + gained).min(FLOOR * WHOLE))
        });
        // what the share pays for counts towards the three a second: they are a floor, and not more
        // on top
        let has_share = take(&self.earned);
        if has_share {
            let _ = self.floor.fetch_update(Relaxed, Relaxed, |floor| {
                Some((floor - WHOLE).max(-FLOOR * WHOLE))
            });
        }
        has_share || take(&self.floor)
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

    fn spent(budget: &RetryBudget, wanted: usize, now: u64) -> usize {
        (0..wanted).filter(|_| budget.spend(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_three_a_second() {
        let budget = RetryBudget::default();
        assert_eq!(spent(&budget, 100, 0), 3);
        assert_eq!(spent(&budget, 100, 500), 1);
        assert_eq!(spent(&budget, 100, 1000), 2);
        // time without requests is worth one second
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

    #[test]
    fn the_three_a_second_are_not_on_top_of_the_fifth() {
        // requests a second, and what may be sent again of those that come within ten
        for (rate, most) in [(5, 30), (15, 30), (50, 100), (1000, 2000)] {
            let budget = RetryBudget::default();
            let again = (0..10 * rate)
                .filter(|nth| {
                    budget.earn();
                    budget.spend(nth * 1000 / rate)
                })
                .count();
            // and one second's worth at the start
            assert!((most - 3..=most + 3).contains(&again), "{rate}: {again}");
        }
    }
}
