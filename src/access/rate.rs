//! A rate of requests or tokens a minute: the generic cell rate algorithm, with debt.
//!
//! The state is one number, the time at which the bucket is full again, so that all workers share it
//! without a lock. The bucket holds what a minute allows. An estimate is taken at admission; the difference
//! to the real count is charged later, into debt if need be, or given back as far as time has not given it
//! back already.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// State of a rate.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Nanoseconds of the steady clock.
    full_at: AtomicU64,
}

impl Rate {
    /// Takes units if they are available; else returns the nanoseconds until they are. More units than a
    /// minute allows need a full bucket.
    pub(super) fn take(&self, units: u64, per_minute: u64, now: u64) -> Result<(), u64> {
        let cost = cost(units, per_minute);
        let needed = cost.min(MINUTE);
        let taken = self.full_at.fetch_update(AcqRel, Acquire, |full_at| {
            let full_at = full_at.max(now);
            let is_available = full_at.saturating_add(needed) <= now.saturating_add(MINUTE);
            is_available.then(|| full_at.saturating_add(cost))
        });
        let short = |full_at: u64| full_at.saturating_add(needed) - now.saturating_add(MINUTE);
        taken.map(drop).map_err(|full_at| short(full_at.max(now)))
    }

    /// Replaces an estimate, taken at a time, by the real count.
    pub(super) fn settle(&self, taken: Taken, units: u64, now: u64) {
        let (estimated, actual) = (
            cost(taken.units, taken.per_minute),
            cost(units, taken.per_minute),
        );
        if actual > estimated {
            self.charge(actual - estimated, now);
        } else {
            // time has given back a part already if the bucket was full meanwhile
            let elapsed = now.saturating_sub(taken.at);
            self.give_back((estimated - actual).saturating_sub(elapsed));
        }
    }

    fn charge(&self, cost: u64, now: u64) {
        let charge = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
        let _ = self.full_at.fetch_update(AcqRel, Acquire, charge);
    }

    fn give_back(&self, cost: u64) {
        let give_back = |full_at: u64| Some(full_at.saturating_sub(cost));
        let _ = self.full_at.fetch_update(AcqRel, Acquire, give_back);
    }

    /// Nanoseconds until the bucket is full.
    pub(super) fn until_full(&self, now: u64) -> u64 {
        self.full_at.load(Acquire).saturating_sub(now)
    }
}

/// Units that were taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) units: u64,
    pub(super) per_minute: u64,
    /// The time at which they were taken.
    pub(super) at: u64,
}

/// Units that take this long to come back.
pub(super) fn units(nanoseconds: u64, per_minute: u64) -> u64 {
    let units = u128::from(nanoseconds) * u128::from(per_minute) / u128::from(MINUTE);
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// Nanoseconds that units take to come back, rounded down: all units of a minute fit into it, and a rate of a
/// million is exceeded by 17 of a million at most.
fn cost(units: u64, per_minute: u64) -> u64 {
    let product = u128::from(units) * u128::from(MINUTE);
    let cost = product / u128::from(per_minute.max(1));
    // a debt of at most 29 years
    u64::try_from(cost).unwrap_or(u64::MAX).min(u64::MAX / 20)
}

/// Nanoseconds of a minute.
pub(super) const MINUTE: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, thread};

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_minutes_units_are_available_and_come_back_evenly() {
        let rate = Rate::default();
        let start = 1000 * SECOND;
        for _ in 0..5 {
            rate.take(1, 5, start).unwrap();
        }
        assert_eq!(rate.take(1, 5, start), Err(12 * SECOND));
        assert_eq!(rate.take(1, 5, start + 5 * SECOND), Err(7 * SECOND));
        assert_eq!(rate.take(1, 5, start + 12 * SECOND), Ok(()));
        assert_eq!(rate.take(2, 5, start + 12 * SECOND), Err(24 * SECOND));
    }

    #[test]
    fn a_minutes_units_fit_into_it_whatever_their_number() {
        for per_minute in [1, 3, 7, 11, 13, 59, 61, 97, 997, 1009] {
            let rate = Rate::default();
            let taken = (0..2000)
                .filter(|_| rate.take(1, per_minute, 0).is_ok())
                .count();
            assert_eq!(taken as u64, per_minute);
        }
    }

    #[test]
    fn more_than_a_minutes_units_need_a_full_bucket_and_leave_a_debt() {
        let rate = Rate::default();
        rate.take(1, 100, 0).unwrap();
        assert_eq!(rate.take(250, 100, 0), Err(600_000_000));
        assert_eq!(rate.take(250, 100, SECOND), Ok(()));
        // 150 units of debt, and one unit
        assert_eq!(rate.take(1, 100, SECOND), Err(90 * SECOND + 600_000_000));
    }

    #[test]
    fn an_estimate_is_replaced_by_the_real_count() {
        let rate = Rate::default();
        let take = |units, now| {
            rate.take(units, 60, now).unwrap();
            let per_minute = 60;
            Taken {
                units,
                per_minute,
                at: now,
            }
        };
        let taken = take(50, 0);
        rate.settle(taken, 10, 0);
        assert_eq!(units(rate.until_full(0), 60), 10);
        rate.settle(take(10, 0), 100, 0);
        assert_eq!(units(rate.until_full(0), 60), 110, "debt");
        // what time has given back is not given back again
        let now = 200 * SECOND;
        let taken = take(60, now);
        let later = now + 60 * SECOND;
        let other = take(30, later);
        rate.settle(taken, 0, later);
        assert_eq!(units(rate.until_full(later), 60), 30);
        rate.settle(other, 30, later);
        assert_eq!(units(rate.until_full(later), 60), 30);
    }

    #[test]
    fn a_changed_amount_keeps_the_share_that_is_used() {
        let rate = Rate::default();
        rate.take(30, 60, 0).unwrap();
        assert_eq!(rate.take(61, 120, 0).unwrap_err(), SECOND / 2);
        assert_eq!(rate.take(60, 120, 0), Ok(()));
        assert_eq!(rate.take(1, 10, 0), Err(6 * SECOND));
    }

    #[test]
    fn threads_that_race_take_what_there_is_and_no_more() {
        let (rate, taken) = (Rate::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        if rate.take(1, 997, 7).is_ok() {
                            taken.fetch_add(1, AcqRel);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 997);
    }

    proptest! {
        /// Against a bucket that is computed step by step in units of 1/60e9.
        #[test]
        fn a_rate_agrees_with_a_bucket(
            per_minute in 1_u64..2000,
            steps in prop::collection::vec((0_u64..30 * SECOND, 0_u64..300), 1..60),
        ) {
            let rate = Rate::default();
            let full = i128::from(MINUTE) * i128::from(per_minute);
            let (mut level, mut now) = (full, 0);
            for (wait, units) in steps {
                now += wait;
                level = full.min(level + i128::from(wait) * i128::from(per_minute));
                let need = i128::from(cost(units, per_minute)) * i128::from(per_minute);
                let result = rate.take(units, per_minute, now);
                prop_assert_eq!(result.is_ok(), level >= need.min(full), "{} of {}", need, level);
                match result {
                    Ok(()) => level -= need,
                    Err(wait) => {
                        let gained = i128::from(wait) * i128::from(per_minute);
                        prop_assert!(level + gained >= need.min(full), "too early");
                        let before = gained - i128::from(per_minute);
                        prop_assert!(level + before < need.min(full), "too late");
                    }
                }
            }
        }
    }
}
