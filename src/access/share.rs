//! Shares: what this replica has of a limit that several replicas share.
//!
//! Each meter that is shared has a [`Link`] to the thread that reports it. A request marks a meter that changed
//! and goes on; it never waits for the store. A meter is marked once between two reports.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::Sender,
    },
};

use crate::state::{MeterAnswer, MeterName, ReportedState};

/// Nanoseconds after which a view is stale: what it leaves is divided by all replicas.
pub(super) const STALE: u64 = 1_000_000_000;

/// Nanoseconds after which the store is lost.
pub(super) const LOST: u64 = 30_000_000_000;

/// Sharing of limits, as all meters see it.
pub(super) struct Sharing {
    /// Replicas that the operator runs (`REPLICAS`), at least 1.
    pub(super) replicas: u64,
    pub(super) status: Arc<SharingStatus>,
    /// True from a start without the store until it answers.
    is_absent: Arc<AtomicBool>,
    changed: Sender<Arc<dyn SharedMeter>>,
}

/// State of the sharing of limits, for metrics and people.
#[derive(Debug, Default)]
pub struct SharingStatus {
    /// Calls of the store that were answered.
    pub syncs: AtomicU64,
    /// Calls that were not.
    pub failures: AtomicU64,
    /// Reports in the calls that were answered.
    pub reports: AtomicU64,
    /// Steady time of the last call that was answered, in nanoseconds; 0 before the first one.
    pub answered_at: AtomicU64,
    /// Steady time of the first call that was not answered since then; 0 if the last one was.
    pub unanswered_since: AtomicU64,
    /// Meters whose view is stale.
    pub stale: AtomicU64,
    /// Meters for which the store is lost.
    pub lost: AtomicU64,
    /// True after a second without an answer.
    pub is_stale: AtomicBool,
}

/// Meter of a limit that replicas share.
pub(super) trait SharedMeter: Send + Sync {
    /// Its link; none for a meter of this process alone.
    fn link(&self) -> Option<&Link>;

    /// The report to the store, and whether the store then holds something that is to be kept up.
    fn report(&self, now: u64) -> (ReportedState, bool);

    /// Puts the answer to a report, sent at a time, into effect. True if the store had lost the meter.
    fn apply(&self, report: &ReportedState, answer: &MeterAnswer, sent: u64, now: u64) -> bool;

    /// Reports whether the next report gives something back that others lack.
    fn gives(&self) -> bool {
        false
    }

    /// A report was not answered.
    fn unanswered(&self, report: &ReportedState, now: u64);
}

impl Sharing {
    pub(super) fn new(
        replicas: u32,
        changed: Sender<Arc<dyn SharedMeter>>,
        is_absent: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            replicas: u64::from(replicas.max(1)),
            status: Arc::default(),
            is_absent: Arc::clone(is_absent),
            changed,
        }
    }

    /// A link for a meter.
    pub(super) fn link(self: &Arc<Self>, subject: &str, meter: String) -> Link {
        Link {
            name: MeterName {
                subject: subject.into(),
                meter: meter.into(),
            },
            sharing: Arc::clone(self),
            mark: AtomicU8::new(CLEAN),
            unanswered: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            replicas: AtomicU64::new(0),
        }
    }

    /// Reports whether the store has not answered for a second.
    pub(super) fn is_stale(&self) -> bool {
        self.status.is_stale.load(Relaxed)
    }
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sharing({} replicas)", self.replicas)
    }
}

/// Link of a meter to the thread that reports it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: MeterName,
    pub(super) sharing: Arc<Sharing>,
    mark: AtomicU8,
    /// Steady time of the first report that was not answered; 0 if the last one was.
    unanswered: AtomicU64,
    /// Steady time of the last report that was answered; 0 before the first one.
    answered: AtomicU64,
    /// Replicas that share the limit, as the last answer had it.
    replicas: AtomicU64,
}

/// Urgency of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Enough is left of the share for now.
    Lazy = 1,
    /// A request lacks something, or the next one will.
    Urgent = 2,
}

/// Mark of a meter that did not change.
const CLEAN: u8 = 0;

impl Link {
    /// Marks a meter as changed.
    pub(super) fn mark(&self, urgency: Urgency, meter: impl FnOnce() -> Arc<dyn SharedMeter>) {
        let mark = urgency as u8;
        if self.mark.load(SeqCst) >= mark || self.mark.fetch_max(mark, SeqCst) >= mark {
            return;
        }
        // without a thread that reports, nothing is shared any longer
        let _ = self.sharing.changed.send(meter());
    }

    /// The urgency of the report, if one is due.
    pub(super) fn marked(&self) -> Option<Urgency> {
        match self.mark.load(SeqCst) {
            CLEAN => None,
            1 => Some(Urgency::Lazy),
            _ => Some(Urgency::Urgent),
        }
    }

    /// Takes the mark away: what changes from now on is for another report.
    pub(super) fn clean(&self) {
        self.mark.store(CLEAN, SeqCst);
    }

    pub(super) fn sent(&self, at: u64) {
        let _ = self
            .unanswered
            .compare_exchange(0, at.max(1), SeqCst, SeqCst);
    }

    pub(super) fn answered(&self, sent: u64, replicas: u64) {
        self.unanswered.store(0, SeqCst);
        self.answered.store(sent.max(1), SeqCst);
        self.replicas.store(replicas, Relaxed);
    }

    /// Replicas that share the limit, as the last answer had it; as the operator says before it.
    pub(super) fn replicas(&self) -> u64 {
        match self.replicas.load(Relaxed) {
            0 => self.sharing.replicas,
            replicas => replicas,
        }
    }

    /// Nanoseconds for which a report has waited for its answer; 0 if none does.
    pub(super) fn waits_for(&self, now: u64) -> u64 {
        match self.unanswered.load(Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        }
    }

    /// Nanoseconds since the last report that was answered.
    pub(super) fn age(&self, now: u64) -> Option<u64> {
        match self.answered.load(Relaxed) {
            0 => None,
            at => Some(now.saturating_sub(at)),
        }
    }

    /// Reports whether the store is lost for this meter.
    pub(super) fn is_lost(&self, now: u64) -> bool {
        self.waits_for(now) >= LOST || self.is_absent()
    }

    /// Reports whether the store has not answered since the start of the process, and for this meter neither: this
    /// replica has no share that another one could not have, too.
    pub(super) fn is_absent(&self) -> bool {
        self.answered.load(Relaxed) == 0 && self.sharing.is_absent.load(Relaxed)
    }

    /// The state for people.
    pub(super) fn view(&self, now: u64) -> SharedView {
        let waits = self.waits_for(now);
        let age = self.age(now);
        let state = match (waits, age) {
            _ if self.is_lost(now) => SharedState::Lost,
            (STALE.., _) => SharedState::Stale,
            (_, None) => SharedState::Unasked,
            (_, Some(_)) => SharedState::Fresh,
        };
        SharedView {
            state,
            is_absent: self.is_absent(),
            age: age.map(|it| it / 1_000_000),
            replicas: self.replicas.load(Relaxed),
        }
    }
}

/// View of a shared limit, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedView {
    /// The state.
    pub state: SharedState,
    /// True if the store has not answered since the start of the process: what others have used is not known.
    pub is_absent: bool,
    /// Milliseconds since the last report that the store answered; none before the first one.
    pub age: Option<u64>,
    /// Replicas that shared the limit then.
    pub replicas: u64,
}

/// State of a shared limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedState {
    /// The store answers.
    Fresh,
    /// It has not answered for a second: the last share counts, divided by all replicas.
    Stale,
    /// It has not answered for 30 s: each replica has its part of the limit.
    Lost,
    /// No request has asked yet.
    Unasked,
}
