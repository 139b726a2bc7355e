//! A rate of requests or tokens a minute: the generic cell rate algorithm, with debt.
//!
//! The state is one number, the time at which the bucket is full again, so that all workers share it
//! without a lock. The bucket holds what a minute allows. An estimate is taken at admission; the difference
//! to the real count is charged later, into debt if need be, or given back as far as time has not given it
//! back already.
//!
//! Where replicas share the rate ([`RateShare`]), the bucket is the store's, and this replica takes its part of
//! what is left in it. A bucket of its own, with its part of the rate, counts beside it, for the time in which the
//! store does not answer.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicI64, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
    },
};

use arc_swap::ArcSwapOption;

use super::share::{LOST, Link, STALE, SharedMeter, Urgency};
use crate::state::{MeterAnswer, RateAnswer, RateReport, ReportedState};

/// State of a rate.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Nanoseconds of the steady clock.
    full_at: AtomicU64,
    shared: Option<Box<RateShare>>,
}

/// Part of this replica in a rate.
#[derive(Debug)]
pub(super) struct RateShare {
    pub(super) link: Link,
    /// Charged since the boot, in nanoseconds that it takes to come back.
    charged: AtomicI64,
    asks: AtomicBool,
    view: ArcSwapOption<RateView>,
}

/// The store's bucket, as an answer had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RateView {
    /// Charged by this replica, as far as it is in the bucket.
    charged: i64,
    /// The steady time at which the bucket is full.
    full_at: u64,
    /// The steady time at which the bucket was asked for.
    at: u64,
    /// The store's clock then, in milliseconds.
    clock: u64,
    replicas: u64,
    rank: Option<u64>,
}

impl RateView {
    /// Upper bound of what this replica has charged beyond what is in the bucket, for a request that needs an
    /// amount.
    fn share(&self, needed: u64, replicas: u64, now: u64) -> i64 {
        let age = now.saturating_sub(self.at);
        let left = signed(MINUTE) - signed(self.full_at.saturating_sub(now));
        let is_fresh = age <= STALE;
        let replicas = match (is_fresh, self.rank) {
            (true, Some(_)) => self.replicas.max(1),
            (true, None) => self.replicas + 1,
            (false, _) => replicas.max(self.replicas + 1),
        };
        let even = left / signed(replicas);
        let needed = signed(needed);
        if even >= needed || needed == 0 {
            return even;
        }
        // fewer requests than replicas: those whose turn it is have one each
        let (Some(rank), true) = (self.rank, is_fresh) else {
            return 0;
        };
        let clock = self.clock + age / MILLISECOND;
        let turns = left.max(0).unsigned_abs() / needed.unsigned_abs();
        // what the last ones took must be in the bucket, and what this one takes before the next ones look
        let is_seen = clock / TURN == self.clock / TURN && clock % TURN < LAST_OF_TURN;
        if is_seen && (rank + clock / TURN) % replicas < turns {
            needed
        } else {
            0
        }
    }
}

impl RateShare {
    fn take(&self, own: &AtomicU64, cost: u64, now: u64) -> Result<Urgency, u64> {
        if !self.asks.load(Relaxed) {
            self.asks.store(true, Relaxed);
        }
        let replicas = self.link.sharing.replicas;
        let needed = cost.min(MINUTE);
        let view = self.view.load();
        let view = view
            .as_ref()
            .filter(|view| now.saturating_sub(view.at) <= LOST);
        let Some(view) = view else {
            let part = cost.saturating_mul(replicas);
            take(own, part, now)?;
            self.charged.fetch_add(signed(cost), AcqRel);
            return Ok(Urgency::Urgent);
        };
        let share = view.share(needed, replicas, now);
        let taken = self.charged.fetch_update(AcqRel, Acquire, |charged| {
            let used = charged.saturating_sub(view.charged);
            (used.saturating_add(signed(needed)) <= share)
                .then(|| charged.saturating_add(signed(cost)))
        });
        match taken {
            Ok(before) => {
                self.count(own, cost, now);
                let left = share - (before - view.charged) - signed(cost);
                let is_enough = left > share / 2 && left > signed(needed);
                Ok(if is_enough {
                    Urgency::Lazy
                } else {
                    Urgency::Urgent
                })
            }
            Err(charged) => {
                let used = charged.saturating_sub(view.charged).max(0).unsigned_abs();
                let full_at = view.full_at.max(now).saturating_add(used);
                let wait = full_at.saturating_add(needed).saturating_sub(now);
                Err(wait.saturating_sub(MINUTE).max(1))
            }
        }
    }

    /// Counts what was taken of the store's bucket in the replica's own one, which that may empty.
    fn count(&self, own: &AtomicU64, cost: u64, now: u64) {
        let part = cost.saturating_mul(self.link.sharing.replicas);
        let _ = own.fetch_update(AcqRel, Acquire, |full_at| {
            let counted = full_at.max(now).saturating_add(part);
            Some(full_at.max(counted.min(now.saturating_add(MINUTE))))
        });
    }

    /// The report; what is charged from now on is for the next one.
    fn report(&self) -> RateReport {
        let asks = self.asks.swap(false, SeqCst);
        let view = self.view.load();
        let view = view.as_ref();
        RateReport {
            charged: self.charged.load(SeqCst).div_euclid(MICROSECOND),
            confirmed: view.map_or(0, |view| view.charged / MICROSECOND),
            full_at: view.map_or(0, |view| {
                // in the store's time, as far as it is known
                let ahead = view.full_at.saturating_sub(view.at);
                (view.clock * 1000).saturating_add(ahead / 1000)
            }),
            asks,
        }
    }

    /// Puts an answer to a report into effect.
    fn apply(&self, report: &RateReport, answer: &RateAnswer, sent: u64, now: u64) {
        let ahead = answer.full_at.saturating_sub(answer.now);
        self.view.store(Some(Arc::new(RateView {
            charged: report.charged.saturating_mul(MICROSECOND),
            full_at: now.saturating_add(ahead.saturating_mul(1000)),
            at: sent,
            clock: answer.now / 1000,
            replicas: answer.replicas,
            rank: answer.rank,
        })));
    }

    /// Nanoseconds until the bucket is full.
    fn until_full(&self, own: &AtomicU64, now: u64) -> u64 {
        let view = self.view.load();
        match view.as_ref() {
            Some(view) if now.saturating_sub(view.at) <= LOST => {
                let used = self.charged.load(Acquire).saturating_sub(view.charged);
                let full_at = view.full_at.max(now).saturating_add_signed(used);
                full_at.saturating_sub(now)
            }
            _ => own.load(Acquire).saturating_sub(now) / self.link.sharing.replicas,
        }
    }
}

impl SharedMeter for Rate {
    fn link(&self) -> Option<&Link> {
        self.share().map(|share| &share.link)
    }

    fn report(&self, _now: u64) -> (ReportedState, bool) {
        let report = self.share().map(RateShare::report);
        (ReportedState::Rate(report.unwrap_or_default()), false)
    }

    fn apply(&self, report: &ReportedState, answer: &MeterAnswer, sent: u64, now: u64) -> bool {
        if let (Some(share), ReportedState::Rate(report), MeterAnswer::Rate(answer)) =
            (self.share(), report, answer)
        {
            share.apply(report, answer, sent, now);
            share.link.answered(sent, answer.replicas);
        }
        false
    }

    fn unanswered(&self, report: &ReportedState, _now: u64) {
        // the next one asks, too
        if let (Some(share), ReportedState::Rate(report)) = (self.share(), report)
            && report.asks
        {
            share.asks.store(true, Relaxed);
        }
    }
}

impl Rate {
    /// A rate that replicas share.
    pub(super) fn shared(link: Link) -> Self {
        let share = RateShare {
            link,
            charged: AtomicI64::new(0),
            asks: AtomicBool::new(false),
            view: ArcSwapOption::empty(),
        };
        Self {
            full_at: AtomicU64::new(0),
            shared: Some(Box::new(share)),
        }
    }

    /// The part of this replica, if replicas share the rate.
    pub(super) fn share(&self) -> Option<&RateShare> {
        self.shared.as_deref()
    }

    /// Takes units if they are available; else returns the nanoseconds until they are. More units than a
    /// minute allows need a full bucket.
    pub(super) fn take(self: &Arc<Self>, units: u64, per_minute: u64, now: u64) -> Result<(), u64> {
        let cost = cost(units, per_minute);
        let Some(share) = &self.shared else {
            return take(&self.full_at, cost, now);
        };
        let taken = share.take(&self.full_at, cost, now);
        let urgency = *taken.as_ref().unwrap_or(&Urgency::Urgent);
        self.note(share, urgency);
        taken.map(drop)
    }

    fn note(self: &Arc<Self>, share: &RateShare, urgency: Urgency) {
        let meter = || Arc::<Self>::clone(self) as Arc<dyn SharedMeter>;
        share.link.mark(urgency, meter);
    }

    /// Replaces an estimate, taken at a time, by the real count.
    pub(super) fn settle(self: &Arc<Self>, taken: Taken, units: u64, now: u64) {
        let (estimated, actual) = (
            cost(taken.units, taken.per_minute),
            cost(units, taken.per_minute),
        );
        let mut part = 1;
        // time has given back a part already if the bucket was full meanwhile
        let elapsed = now.saturating_sub(taken.at);
        let (more, less) = (
            actual.saturating_sub(estimated),
            estimated.saturating_sub(actual).saturating_sub(elapsed),
        );
        if let Some(share) = &self.shared {
            share.charged.fetch_add(signed(more) - signed(less), AcqRel);
            part = share.link.sharing.replicas;
            self.note(share, Urgency::Lazy);
        }
        if more > 0 {
            self.charge(more.saturating_mul(part), now);
        } else {
            self.give_back(less.saturating_mul(part));
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
        match &self.shared {
            None => self.full_at.load(Acquire).saturating_sub(now),
            Some(share) => share.until_full(&self.full_at, now),
        }
    }
}

/// Takes of a bucket, or tells the nanoseconds until it can be.
fn take(bucket: &AtomicU64, cost: u64, now: u64) -> Result<(), u64> {
    let needed = cost.min(MINUTE);
    let taken = bucket.fetch_update(AcqRel, Acquire, |full_at| {
        let full_at = full_at.max(now);
        let is_available = full_at.saturating_add(needed) <= now.saturating_add(MINUTE);
        is_available.then(|| full_at.saturating_add(cost))
    });
    let short = |full_at: u64| full_at.saturating_add(needed) - now.saturating_add(MINUTE);
    taken.map(drop).map_err(|full_at| short(full_at.max(now)))
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

/// A number of nanoseconds, which is below 29 years.
fn signed(nanoseconds: u64) -> i64 {
    i64::try_from(nanoseconds).unwrap_or(i64::MAX)
}

/// Nanoseconds of a minute.
pub(super) const MINUTE: u64 = 60_000_000_000;

/// Nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// Nanoseconds.
const MICROSECOND: i64 = 1000;

/// Milliseconds of a turn, where there are fewer requests than replicas.
const TURN: u64 = 100;

/// Milliseconds of a turn after which nothing is taken: it would not be in the bucket when the next ones look.
const LAST_OF_TURN: u64 = 80;

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, thread};

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_minutes_units_are_available_and_come_back_evenly() {
        let rate = Arc::new(Rate::default());
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
            let rate = Arc::new(Rate::default());
            let taken = (0..2000)
                .filter(|_| rate.take(1, per_minute, 0).is_ok())
                .count();
            assert_eq!(taken as u64, per_minute);
        }
    }

    #[test]
    fn more_than_a_minutes_units_need_a_full_bucket_and_leave_a_debt() {
        let rate = Arc::new(Rate::default());
        rate.take(1, 100, 0).unwrap();
        assert_eq!(rate.take(250, 100, 0), Err(600_000_000));
        assert_eq!(rate.take(250, 100, SECOND), Ok(()));
        // 150 units of debt, and one unit
        assert_eq!(rate.take(1, 100, SECOND), Err(90 * SECOND + 600_000_000));
    }

    #[test]
    fn an_estimate_is_replaced_by_the_real_count() {
        let rate = Arc::new(Rate::default());
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
        let rate = Arc::new(Rate::default());
        rate.take(30, 60, 0).unwrap();
        assert_eq!(rate.take(61, 120, 0).unwrap_err(), SECOND / 2);
        assert_eq!(rate.take(60, 120, 0), Ok(()));
        assert_eq!(rate.take(1, 10, 0), Err(6 * SECOND));
    }

    #[test]
    fn threads_that_race_take_what_there_is_and_no_more() {
        let (rate, taken) = (Arc::new(Rate::default()), AtomicUsize::new(0));
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
            let rate = Arc::new(Rate::default());
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
