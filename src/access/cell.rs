//! Spend of a subject in one period: what is spent, and what is held for exchanges that run.
//!
//! One atomic, `committed`, is the sum of both, so that an admission is one compare-and-swap, and exchanges
//! that race cannot pass a limit together. `spent` is the part of it that is certain. The ledger stores
//! `upto`, a reserve beyond what is committed, so that a process that is killed has stored at least what
//! was spent.
//!
//! Where replicas share the budget ([`CellShare`]), `committed` has a second bound beside the limit: what the
//! store gave this replica. It is held there before it is used here, so the replicas together stay within the
//! limit.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    },
};

use super::share::{Link, SharedMeter, Urgency};
use crate::state::{BudgetAnswer, BudgetReport, LEASE, MeterAnswer, ReportedState};

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
    /// The subject, and its own name, in the ledger.
    subject: Arc<str>,
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
    shared: Option<Box<CellShare>>,
}

/// Part of this replica in a budget.
#[derive(Debug)]
pub(super) struct CellShare {
    pub(super) link: Link,
    /// Upper bound of `committed`, as the store gave it; [`UNGIVEN`] where it gave none.
    bound: AtomicU64,
    /// Value of `committed` when the bound was given back.
    base: AtomicU64,
    /// The limit that the last request found.
    limit: AtomicU64,
    /// The largest amount that a request asked for since the last report.
    asks: AtomicU64,
    /// True if nothing is left beyond the bound, and no other replica holds anything.
    is_rest: AtomicBool,
    // what only the thread that reports reads and writes
    asked_at: AtomicU64,
    fair: AtomicU64,
    is_wanted: AtomicBool,
    /// Amount that a refused request lacked, as the last answer had it: it is asked for until it is given.
    lacked: AtomicU64,
    /// Amount that was given for a refused request, and the time until which it is kept for it.
    turn: AtomicU64,
    turn_until: AtomicU64,
    ended: Mutex<Arc<str>>,
    seen: AtomicU64,
}

/// Bound of a cell that the store gave none: before its first answer, and after what was kept went back.
const UNGIVEN: u64 = u64::MAX;

/// Nanoseconds after the last request in which a replica gives back what it kept.
const IDLE: u64 = 10_000_000_000;

/// Nanoseconds for which what a refused request lacked is asked for, so that the client finds it when it tries again.
const STANDING: u64 = 10_000_000_000;

/// Nanoseconds for which it is then kept, whatever others lack.
const TURN: u64 = 3_000_000_000;

/// Nanoseconds after an answer in which the store still holds what it gave.
const HELD: u64 = (LEASE - 1000) * 1_000_000;

impl CellShare {
    /// The bound of `committed` for a request, where other replicas leave `limit`.
    fn bound(&self, limit: u64, committed: u64, amount: u64) -> u64 {
        let bound = self.bound.load(SeqCst);
        if bound != UNGIVEN {
            return bound.min(limit);
        }
        let base = self.base.load(Relaxed);
        let part = limit.saturating_sub(base) / self.link.sharing.replicas;
        // one request at least: the store's answer to it is on its way when the next one comes
        let part = if committed <= base {
            part.max(amount)
        } else {
            part
        };
        base.saturating_add(part).min(limit)
    }

    fn asks(&self, amount: u64, limit: u64) {
        if self.limit.load(Relaxed) != limit {
            self.limit.store(limit, Relaxed);
        }
        let amount = amount.max(1);
        if self.asks.load(Relaxed) < amount {
            self.asks.fetch_max(amount, Relaxed);
        }
    }

    /// Spend of boots that ended, as the store had it: for the thread that reports alone.
    fn ended(&self) -> MutexGuard<'_, Arc<str>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lowers the bound, so that what is kept is at most an amount.
    fn lower(&self, committed: &AtomicU64, kept: u64) {
        let to = committed.load(SeqCst).saturating_add(kept);
        if self.bound.load(SeqCst) > to {
            self.bound.store(to, SeqCst);
        }
    }
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
    pub(super) fn new(
        subject: Arc<str>,
        name: Box<str>,
        (start, end): (i64, i64),
        others: OtherSpend,
        link: Option<Link>,
    ) -> Self {
        let shared = link.map(|link| {
            Box::new(CellShare {
                link,
                bound: AtomicU64::new(UNGIVEN),
                base: AtomicU64::new(0),
                limit: AtomicU64::new(0),
                asks: AtomicU64::new(0),
                is_rest: AtomicBool::new(false),
                asked_at: AtomicU64::new(0),
                fair: AtomicU64::new(0),
                is_wanted: AtomicBool::new(false),
                lacked: AtomicU64::new(0),
                turn: AtomicU64::new(0),
                turn_until: AtomicU64::new(0),
                ended: Mutex::default(),
                seen: AtomicU64::new(0),
            })
        });
        Self {
            subject,
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
            shared,
        }
    }

    /// The part of this replica, if replicas share the budget.
    pub(super) fn share(&self) -> Option<&CellShare> {
        self.shared.as_deref()
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
        if self.step.load(Relaxed) != step {
            self.step.store(step, Relaxed);
        }
        let others_spent = self.others_spent.load(Acquire);
        let others_upto = self.others_upto.load(Acquire);
        let to_spend = limit.saturating_sub(others_spent);
        let share = self.share();
        if let Some(share) = share {
            share.asks(amount, limit);
        }
        let limit = limit.saturating_sub(others_upto);
        let mut committed = self.committed.load(Acquire);
        loop {
            let spent = self.spent.load(Acquire);
            if spent >= to_spend {
                return Hold::Spent;
            }
            let bound = share.map_or(limit, |share| share.bound(limit, committed, amount));
            let to = committed.saturating_add(amount);
            let is_idle = committed <= spent;
            let is_rest = share.is_none_or(|share| bound == limit || share.is_rest.load(Relaxed));
            let to = if to <= bound {
                to
            } else if is_idle && is_rest && committed < bound {
                bound
            } else if is_idle && share.is_none() && others_upto.saturating_sub(others_spent) <= step
            {
                // another process may have reserved it, and runs nothing that would give it back
                return Hold::Spent;
            } else {
                return Hold::Reserved;
            };
            let swapped = self
                .committed
                .compare_exchange_weak(committed, to, SeqCst, Acquire);
            match swapped {
                Ok(_) if share.is_some_and(|share| share.bound.load(SeqCst) < to) => {
                    // the bound was lowered meanwhile: what is beyond it is another replica's
                    let before = self.committed.fetch_sub(to - committed, SeqCst);
                    committed = before.saturating_sub(to - committed);
                }
                Ok(_) => return Hold::Taken(to - committed),
                Err(now) => committed = now,
            }
        }
    }

    /// Holds an amount whatever the limit.
    pub(super) fn hold_beyond(&self, amount: u64) {
        self.committed.fetch_add(amount, AcqRel);
    }

    /// Marks the cell for a report to the store, if replicas share the budget: at once if the next request may
    /// find too little.
    pub(super) fn note(self: &Arc<Self>, lacks: bool) {
        let Some(share) = self.share() else { return };
        let bound = share.bound.load(Relaxed);
        let left = bound.saturating_sub(self.committed.load(Relaxed));
        let is_short =
            lacks || bound == UNGIVEN || left < share.asks.load(Relaxed).saturating_mul(2);
        let urgency = match is_short {
            true => Urgency::Urgent,
            false => Urgency::Lazy,
        };
        let meter = || Arc::<Self>::clone(self) as Arc<dyn SharedMeter>;
        share.link.mark(urgency, meter);
    }

    /// Marks the cell for a report, since the store may know better than a view by which the budget is spent.
    pub(super) fn look(self: &Arc<Self>) {
        if let Some(share) = self.share() {
            let meter = || Arc::<Self>::clone(self) as Arc<dyn SharedMeter>;
            share.link.mark(Urgency::Lazy, meter);
        }
    }

    /// The report to the store, what it has of `committed`, and whether a further one is due in a while.
    fn report_share(&self, share: &CellShare, now: u64) -> (BudgetReport, bool) {
        let mut asks = share.asks.swap(0, SeqCst);
        if asks > 0 {
            share.asked_at.store(now, Relaxed);
            // the request that asks now has its turn
            share.turn_until.store(0, Relaxed);
        } else if now.saturating_sub(share.asked_at.load(Relaxed)) < STANDING {
            asks = share.lacked.load(Relaxed);
        }
        let is_idle = now.saturating_sub(share.asked_at.load(Relaxed)) > IDLE;
        // a lease that lapsed is not claimed: it may be another replica's by now
        let is_held = share.link.age(now).is_some_and(|age| age < HELD);
        let is_given = share.bound.load(SeqCst) != UNGIVEN;
        if is_given && is_held {
            let fair = share.fair.load(Relaxed);
            if is_idle {
                share.lower(&self.committed, 0);
            } else if share.is_wanted.load(Relaxed) {
                let committed = self.committed.load(SeqCst);
                let kept = share.bound.load(SeqCst).saturating_sub(committed);
                // too little for a request here may be enough together with that of others
                let of_use = if kept < asks { 0 } else { asks };
                let turn = match now < share.turn_until.load(Relaxed) {
                    true => share.turn.load(Relaxed),
                    false => 0,
                };
                let of_use = of_use.max(turn);
                share.lower(&self.committed, of_use);
            } else {
                share.lower(&self.committed, fair.saturating_mul(2).max(asks));
            }
        }
        let spent = self.spent.load(SeqCst);
        let committed = self.committed.load(SeqCst).max(spent);
        let bound = share.bound.load(SeqCst);
        let kept = match is_given && is_held {
            true => bound.saturating_sub(committed),
            false => 0,
        };
        if is_given && is_idle && kept == 0 && committed == spent {
            share.base.store(committed, Relaxed);
            share.bound.store(UNGIVEN, SeqCst);
        }
        let report = BudgetReport {
            spent,
            held: committed - spent,
            kept,
            asks,
            limit: share.limit.load(Relaxed),
            is_known: share.link.age(now).is_some(),
            ended: share.ended().clone(),
            seen: (share.seen.load(Relaxed))
                .max(spent.saturating_add(self.others_spent.load(Relaxed))),
            keep: self.keep(),
        };
        // what others hold may lapse, and become spend
        let others = self.others_upto.load(Relaxed) > self.others_spent.load(Relaxed);
        let is_recent = now.saturating_sub(share.asked_at.load(Relaxed)) < 6 * IDLE;
        let is_kept = committed > spent || kept > 0 || asks > 0 || (others && is_recent);
        (report, is_kept)
    }

    /// Seconds for which the store keeps the cell: as long as 13 periods; for ever for all time.
    fn keep(&self) -> u64 {
        match self.end() {
            Some(end) => 13 * end.abs_diff(self.start),
            None => 0,
        }
    }

    /// Puts an answer to a report into effect.
    fn apply_share(
        &self,
        share: &CellShare,
        report: &BudgetReport,
        answer: &BudgetAnswer,
        now: u64,
    ) {
        if report.asks > 0 {
            let lacks = report.asks.saturating_sub(answer.given);
            let lacked = share
                .lacked
                .swap(if lacks > 0 { report.asks } else { 0 }, Relaxed);
            if lacked > 0 && lacks == 0 {
                share.turn.store(report.asks, Relaxed);
                share.turn_until.store(now + TURN, Relaxed);
            }
        }
        let spent = answer.spent.saturating_sub(report.spent);
        self.follow(OtherSpend {
            spent,
            upto: spent.saturating_add(answer.others),
        });
        share.fair.store(answer.fair, Relaxed);
        share.is_wanted.store(answer.is_wanted, Relaxed);
        share.is_rest.store(answer.is_rest, Relaxed);
        *share.ended() = Arc::clone(&answer.ended);
        share.seen.store(answer.spent, Relaxed);
        let is_asked = report.asks > 0 || share.bound.load(SeqCst) != UNGIVEN;
        if is_asked {
            let reported = report.spent.saturating_add(report.held);
            let bound = reported.saturating_add(answer.given).min(UNGIVEN - 1);
            share.bound.store(bound, SeqCst);
        }
    }

    /// Replaces what an exchange holds and has spent.
    ///
    /// `committed` changes before `spent` grows, and after it falls, so that it is never below it, and an
    /// admission meanwhile sees too much rather than too little.
    pub(super) fn update(&self, from: Share, to: Share) {
        let (before, after) = (from.committed, to.committed.max(to.spent));
        if to.spent < from.spent {
            self.spent.fetch_sub(from.spent - to.spent, AcqRel);
        }
        if after > before {
            self.committed.fetch_add(after - before, AcqRel);
        } else if after < before {
            self.committed.fetch_sub(before - after, AcqRel);
        }
        if to.spent > from.spent {
            self.spent.fetch_add(to.spent - from.spent, Release);
        }
    }

    /// Billionths of a US dollar that are spent, by all processes.
    pub(super) fn spent(&self) -> u64 {
        let others = self.others_spent.load(Acquire);
        others.saturating_add(self.spent.load(Acquire))
    }

    /// Billionths of a US dollar that this process has spent.
    #[cfg(test)]
    pub(super) fn own_spent(&self) -> u64 {
        self.spent.load(Acquire)
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
    pub(super) fn report(&self) -> SpendRow {
        self.is_dirty.store(false, SeqCst);
        let spent = self.spent.load(SeqCst);
        let committed = self.committed.load(SeqCst);
        let upto = committed.saturating_add(self.step.load(Relaxed));
        self.reserve.store(upto, Release);
        self.row(spent, upto)
    }

    /// The row of the ledger at the end of the process; none if the ledger has none.
    pub(super) fn close(&self) -> Option<SpendRow> {
        let is_known = self.reserve.load(Acquire) > 0 || self.is_dirty.load(Acquire);
        let spent = self.spent.load(Acquire);
        is_known.then(|| self.row(spent, self.committed.load(Acquire)))
    }

    fn row(&self, spent: u64, upto: u64) -> SpendRow {
        SpendRow {
            subject: self.subject.to_string(),
            cell: self.name.to_string(),
            spent,
            upto: upto.max(spent),
        }
    }
}

impl SharedMeter for Cell {
    fn link(&self) -> Option<&Link> {
        self.share().map(|share| &share.link)
    }

    fn report(&self, now: u64) -> (ReportedState, bool) {
        let report = self.share().map(|share| self.report_share(share, now));
        let (report, is_kept) = report.unwrap_or_default();
        (ReportedState::Budget(report), is_kept)
    }

    fn apply(&self, report: &ReportedState, answer: &MeterAnswer, sent: u64, now: u64) -> bool {
        let (Some(share), ReportedState::Budget(report), MeterAnswer::Budget(answer)) =
            (self.share(), report, answer)
        else {
            return false;
        };
        self.apply_share(share, report, answer, now);
        share.link.answered(sent, answer.replicas);
        answer.is_new && report.is_known
    }

    fn unanswered(&self, report: &ReportedState, _now: u64) {
        // the next one asks, too
        if let (Some(share), ReportedState::Budget(report)) = (self.share(), report) {
            share.asks.fetch_max(report.asks, Relaxed);
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
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::access::share::Sharing;

    fn cell(before: u64) -> Cell {
        let others = OtherSpend {
            spent: before,
            upto: before,
        };
        Cell::new(
            "org".into(),
            "total".into(),
            (i64::MIN, i64::MAX),
            others,
            None,
        )
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
    fn a_part_that_is_too_small_for_a_request_goes_back_while_other_replicas_lack_something() {
        let sharing = Arc::new(Sharing::new(3, mpsc::channel().0, &Arc::default()));
        let link = sharing.link("team:a", "b:x".to_owned());
        let cell = Cell::new(
            "org".into(),
            "x".into(),
            (0, 10),
            OtherSpend::default(),
            Some(link),
        );
        let share = cell.share().unwrap();
        share.link.answered(1, 3);
        let answered = |given, asks| {
            let report = BudgetReport {
                asks,
                ..BudgetReport::default()
            };
            let answer = BudgetAnswer {
                spent: 0,
                others: 0,
                given,
                is_rest: false,
                fair: given,
                is_wanted: true,
                ended: Arc::default(),
                replicas: 3,
                is_new: false,
            };
            cell.apply_share(share, &report, &answer, 2);
        };
        answered(5, 9);
        assert_eq!(cell.hold(9, 30), Hold::Reserved);
        let (report, _) = cell.report_share(share, 2);
        assert_eq!((report.kept, report.asks), (0, 9));
        answered(20, 4);
        assert_eq!(cell.hold(4, 30), Hold::Taken(4));
        let (report, _) = cell.report_share(share, 3);
        assert_eq!((report.kept, report.asks), (4, 4), "enough for one more");
    }

    #[test]
    fn what_a_refused_request_lacked_is_asked_for_and_kept_for_it() {
        const S: u64 = 1_000_000_000;
        let sharing = Arc::new(Sharing::new(2, mpsc::channel().0, &Arc::default()));
        let link = sharing.link("team:a", "b:x".to_owned());
        let others = OtherSpend::default();
        let cell = Cell::new("org".into(), "x".into(), (0, 10), others, Some(link));
        let share = cell.share().unwrap();
        let exchange = |now: u64, given: u64| {
            share.link.answered(now, 2);
            let (report, _) = cell.report_share(share, now);
            let answer = BudgetAnswer {
                given,
                fair: given,
                is_wanted: true,
                replicas: 2,
                ..BudgetAnswer::default()
            };
            cell.apply_share(share, &report, &answer, now);
            (report.kept, report.asks)
        };
        // another replica keeps all of it
        assert_eq!(cell.hold(1, 10), Hold::Taken(1));
        cell.update(held(1), Share::default());
        exchange(S, 0);
        assert_eq!(cell.hold(9, 10), Hold::Reserved);
        assert_eq!(exchange(S, 0), (0, 9));
        assert_eq!(exchange(2 * S, 0), (0, 9), "no request asked again");
        assert_eq!(exchange(3 * S, 9), (0, 9), "given");
        assert_eq!(
            exchange(4 * S, 9),
            (9, 0),
            "kept, although another one lacks it"
        );
        assert_eq!(cell.hold(9, 10), Hold::Taken(9), "the client tries again");
        cell.update(held(9), Share::default());
        assert_eq!(exchange(5 * S, 9), (9, 9));
        assert_eq!(exchange(6 * S, 0), (0, 0), "it had its turn");
        // and one that does not come back
        assert_eq!(cell.hold(9, 10), Hold::Reserved);
        assert_eq!(exchange(7 * S, 0), (0, 9));
        assert_eq!(exchange(16 * S, 0), (0, 9));
        assert_eq!(exchange(17 * S, 0), (0, 0));
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
        assert_eq!(cell.close(), None);
        cell.hold(500, 10_000);
        assert!(cell.is_short() && cell.mark() && !cell.mark());
        let row = cell.report();
        assert_eq!((row.spent, row.upto), (0, 600));
        assert!(!cell.is_short());
        cell.hold(50, 10_000);
        assert!(!cell.is_short(), "half a step is left");
        cell.hold(1, 10_000);
        assert!(cell.is_short());
        cell.update(held(551), settled(20));
        let row = cell.close().unwrap();
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
