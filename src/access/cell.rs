//! Spend of a subject in one period: what is spent, and what is held for exchanges that run.
//!
//! One atomic, `committed`, is the sum of both, so that an admission is one compare-and-swap, and exchanges
//! that race cannot pass a limit together. `spent` is the part of it that is certain. The ledger stores
//! `upto`, a reserve beyond what is committed, so that a process that is killed has stored at least what
//! was spent.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};

/// Row of the ledger: a register of this process, absolute since its start. A row that is sent again changes
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendRow {
    /// The subject (`org`, `team:core`, …).
    pub subject: String,
    /// The period, and the models if it counts some alone: `2026-11@Europe/Berlin|claude-opus-*`.
    pub cell: String,
    /// Billionths of a US dollar that are spent.
    pub spent: u64,
    /// Billionths of a US dollar that count as spent if this process does not end cleanly.
    pub upto: u64,
}

/// Spend of other processes in one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OtherSpend {
    /// Billionths of a US dollar that are spent.
    pub(super) spent: u64,
    /// Billionths of a US dollar that are spent or may be before their next report.
    pub(super) upto: u64,
}

/// Spend of a subject in a period.
#[derive(Debug)]
pub(super) struct Cell {
    /// Its name in the ledger.
    name: Box<str>,
    start: i64,
    end: i64,
    /// Spend of other processes: of those that have ended, and of those that run on the same store.
    others_spent: AtomicU64,
    others_upto: AtomicU64,
    committed: AtomicU64,
    spent: AtomicU64,
    /// The reserve that the ledger was told last.
    reserve: AtomicU64,
    step: AtomicU64,
    is_dirty: AtomicBool,
}

/// Outcome of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// The amount is held. It is less than what was asked if only this was left.
    Taken(u64),
    /// The rest of the limit is held for exchanges that run: it may become free.
    Reserved,
    /// The limit is spent.
    Spent,
}

impl Cell {
    pub(super) fn new(name: Box<str>, start: i64, end: i64, others: OtherSpend) -> Self {
        Self {
            name,
            start,
            end,
            others_spent: AtomicU64::new(others.spent),
            others_upto: AtomicU64::new(others.upto),
            committed: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            reserve: AtomicU64::new(0),
            step: AtomicU64::new(1),
            is_dirty: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Reports whether a second is in the period.
    pub(super) fn covers(&self, now: i64) -> bool {
        (self.start..self.end).contains(&now)
    }

    /// The end of the period; none for all time.
    pub(super) fn end(&self) -> Option<i64> {
        (self.end != i64::MAX).then_some(self.end)
    }

    /// Takes what other processes have spent by now.
    pub(super) fn follow(&self, others: OtherSpend) {
        self.others_upto.store(others.upto, Release);
        self.others_spent.store(others.spent, Release);
    }

    /// Holds an amount if spent, held and it are within a limit; the rest of the limit if nothing else is
    /// held, so that an estimate above a whole limit does not lock it.
    pub(super) fn hold(&self, amount: u64, limit: u64) -> Hold {
        // a hundredth of the limit
        let step = (limit / 100).max(1);
        self.step.store(step, Relaxed);
        let others_spent = self.others_spent.load(Acquire);
        let others_upto = self.others_upto.load(Acquire);
        let to_spend = limit.saturating_sub(others_spent);
        let limit = limit.saturating_sub(others_upto);
        let mut committed = self.committed.load(Acquire);
        loop {
            let spent = self.spent.load(Acquire);
            if spent >= to_spend {
                return Hold::Spent;
            }
            let to = committed.saturating_add(amount);
            let is_idle = committed <= spent;
            let to = if to <= limit {
                to
            } else if is_idle && committed < limit {
                limit
            } else if is_idle && others_upto.saturating_sub(others_spent) <= step {
                // another process may have reserved it, and runs nothing that would give it back
                return Hold::Spent;
            } else {
                return Hold::Reserved;
            };
            let swapped = self
                .committed
                .compare_exchange_weak(committed, to, AcqRel, Acquire);
            match swapped {
                Ok(_) => return Hold::Taken(to - committed),
                Err(now) => committed = now,
            }
        }
    }

    /// Replaces what an exchange holds and has spent.
    ///
    /// `committed` changes before `spent` grows, and after it falls, so that it is never below it, and an
    /// admission meanwhile sees too much rather than too little.
    pub(super) fn update(&self, from: Share, to: Share) {
        let (before, after) = (from.committed, to.committed.max(to.spent));
        self.spent
            .fetch_sub(from.spent.saturating_sub(to.spent), AcqRel);
        if after >= before {
            self.committed.fetch_add(after - before, AcqRel);
        } else {
            self.committed.fetch_sub(before - after, AcqRel);
        }
        self.spent
            .fetch_add(to.spent.saturating_sub(from.spent), Release);
    }

    /// Billionths of a US dollar that are spent, by all processes.
    pub(super) fn spent(&self) -> u64 {
        let others = self.others_spent.load(Acquire);
        others.saturating_add(self.spent.load(Acquire))
    }

    /// Billionths of a US dollar that are held, by all processes.
    pub(super) fn held(&self) -> u64 {
        let others = self.others_upto.load(Acquire);
        let others = others.saturating_sub(self.others_spent.load(Acquire));
        let spent = self.spent.load(Acquire);
        let own = self.committed.load(Acquire).saturating_sub(spent);
        own.saturating_add(others)
    }

    /// Reports whether less than half a step is left of the reserve that the ledger knows.
    pub(super) fn is_short(&self) -> bool {
        let wanted = self
            .committed
            .load(Acquire)
            .saturating_add(self.step.load(Relaxed) / 2);
        wanted > self.reserve.load(Acquire)
    }

    /// Marks the cell as changed; true if it was not yet.
    pub(super) fn mark(&self) -> bool {
        !self.is_dirty.load(Acquire) && !self.is_dirty.swap(true, SeqCst)
    }

    /// The row of the ledger, with a new reserve; the cell is unchanged from now on.
    pub(super) fn report(&self, subject: &str) -> SpendRow {
        self.is_dirty.store(false, SeqCst);
        let spent = self.spent.load(SeqCst);
        let committed = self.committed.load(SeqCst);
        let upto = committed.saturating_add(self.step.load(Relaxed));
        self.reserve.store(upto, Release);
        self.row(subject, spent, upto)
    }

    /// The row of the ledger at the end of the process; none if the ledger has none.
    pub(super) fn close(&self, subject: &str) -> Option<SpendRow> {
        let is_known = self.reserve.load(Acquire) > 0 || self.is_dirty.load(Acquire);
        let spent = self.spent.load(Acquire);
        is_known.then(|| self.row(subject, spent, self.committed.load(Acquire)))
    }

    fn row(&self, subject: &str, spent: u64, upto: u64) -> SpendRow {
        SpendRow {
            subject: subject.to_owned(),
            cell: self.name.to_string(),
            spent,
            upto: upto.max(spent),
        }
    }
}

/// Part of one exchange in a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Billionths of a US dollar that are spent or held for it.
    pub(super) committed: u64,
    /// Billionths of a US dollar among them that are spent.
    pub(super) spent: u64,
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn cell(before: u64) -> Cell {
        let others = OtherSpend {
            spent: before,
            upto: before,
        };
        Cell::new("total".into(), i64::MIN, i64::MAX, others)
    }

    fn held(committed: u64) -> Share {
        Share {
            committed,
            spent: 0,
        }
    }

    fn settled(spent: u64) -> Share {
        Share {
            committed: spent,
            spent,
        }
    }

    #[test]
    fn an_amount_is_held_and_then_spent() {
        let cell = cell(30);
        assert_eq!(cell.hold(40, 100), Hold::Taken(40));
        assert_eq!(cell.hold(40, 100), Hold::Reserved);
        assert_eq!(cell.hold(30, 100), Hold::Taken(30));
        cell.update(held(40), settled(10));
        assert_eq!((cell.spent(), cell.held()), (40, 30));
        assert_eq!(cell.hold(31, 100), Hold::Reserved);
        cell.update(held(30), settled(35));
        assert_eq!((cell.spent(), cell.held()), (75, 0));
        // the estimate exceeds what is left, and nothing else runs: one more exchange has it
        assert_eq!(cell.hold(1000, 100), Hold::Taken(25));
        assert_eq!(cell.hold(0, 100), Hold::Taken(0));
        assert_eq!(cell.hold(1, 100), Hold::Reserved);
        cell.update(held(25), settled(26));
        assert_eq!(cell.hold(0, 100), Hold::Spent);
        assert_eq!(cell.hold(1, 110), Hold::Taken(1), "a raised limit");
    }

    #[test]
    fn a_charge_is_corrected_downwards() {
        let cell = cell(0);
        cell.hold(100, 1000);
        cell.update(held(100), settled(90));
        assert_eq!((cell.spent(), cell.held()), (90, 0));
        cell.update(settled(90), settled(60));
        assert_eq!((cell.spent(), cell.held()), (60, 0));
        assert_eq!(cell.hold(940, 1000), Hold::Taken(940));
    }

    #[test]
    fn what_other_processes_hold_is_reserved_and_not_spent() {
        let cell = cell(0);
        let others = |spent, upto| cell.follow(OtherSpend { spent, upto });
        others(40, 90);
        assert_eq!((cell.spent(), cell.held()), (40, 50));
        assert_eq!(cell.hold(11, 100), Hold::Taken(10), "the rest");
        assert_eq!(cell.hold(1, 100), Hold::Reserved);
        cell.update(held(10), settled(5));
        others(40, 100);
        assert_eq!(cell.hold(1, 100), Hold::Reserved, "nothing is left of it");
        others(94, 95);
        assert_eq!(cell.hold(1, 100), Hold::Spent, "a step is no hold");
        others(95, 95);
        assert_eq!(cell.hold(0, 100), Hold::Spent);
        others(60, 60);
        assert_eq!(cell.hold(35, 100), Hold::Taken(35));
    }

    #[test]
    fn a_reserve_is_ahead_of_what_is_committed() {
        let cell = cell(0);
        assert_eq!(cell.close("org"), None);
        cell.hold(500, 10_000);
        assert!(cell.is_short() && cell.mark() && !cell.mark());
        let row = cell.report("org");
        assert_eq!((row.spent, row.upto), (0, 600));
        assert!(!cell.is_short());
        cell.hold(50, 10_000);
        assert!(!cell.is_short(), "half a step is left");
        cell.hold(1, 10_000);
        assert!(cell.is_short());
        cell.update(held(551), settled(20));
        let row = cell.close("org").unwrap();
        assert_eq!((row.spent, row.upto), (20, 20));
    }

    #[test]
    fn threads_that_race_stay_within_the_limit_and_lose_nothing() {
        let cell = cell(0);
        let limit = 100_000;
        let spent: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut spent = 0;
                        for round in 0..5000 {
                            let Hold::Taken(hold) = cell.hold(40, limit) else {
                                continue;
                            };
                            assert!(cell.committed.load(Acquire) <= limit);
                            let cost = if round % 3 == 0 { 0 } else { hold };
                            cell.update(held(hold), settled(cost));
                            spent += cost;
                        }
                        spent
                    })
                })
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!((cell.spent(), cell.held()), (spent, 0));
        assert!(spent <= limit, "{spent}");
        assert_eq!(spent, limit, "all of it can be used");
    }
}
