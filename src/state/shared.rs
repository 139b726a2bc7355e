//! Limits that several replicas share: what a replica reports of its meters, and what the store answers.
//!
//! A report is absolute since the boot of the replica, and numbered, so that one that is sent again or arrives
//! late changes nothing. The store takes all reports of a call in one go and answers each for itself. The
//! decision on a request is none of its business: it gives shares, and the replica decides on its share.

use std::sync::Arc;

pub(super) mod memory;

/// Milliseconds for which the store keeps what a replica holds without a word of it.
pub const LEASE: u64 = 10_000;

/// Milliseconds for which a replica that asked has a share of what is left.
const QUIET: u64 = 10_000;

/// Milliseconds for which what a replica lacks is left to it.
const PATIENCE: u64 = 1_500;

/// Milliseconds without a call after which the store's time stands still: it was paused, its clock jumped, or
/// nothing ran. Leases do not lapse meanwhile.
const LONGEST_STEP: u64 = 2_000;

/// Milliseconds after the store lost its content, or another server took over, within which every replica has
/// reported what it holds.
pub(super) const RETURN: u64 = 2_000;

/// Milliseconds for which the store knows that a boot has sent its last report.
const TOMB: u64 = 3_600_000;

/// Boots that lapsed and are known by name; of more than these, the oldest are known by their sum alone. Those that
/// rest are among them, so this is above the number of replicas.
pub(super) const MOST_LAPSED: usize = 128;

/// Longest debt of a rate, in microseconds: a clock that jumped shuts nothing out for longer.
const LONGEST_DEBT: u64 = 100 * 60_000_000;

/// Meter of a limit: of a subject, and its name there (`r:requests`, `s`, `b:2026-11@Europe/Berlin`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterName {
    /// The subject (`org`, `team:core`, …).
    pub subject: Box<str>,
    /// The meter.
    pub meter: Box<str>,
}

/// Origin of the reports of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportOrigin {
    /// The boot of the replica: random, without a colon or a space.
    pub boot: Box<str>,
    /// Number of the call, which grows.
    pub sequence: u64,
    /// Replicas that the operator runs.
    pub replicas: u32,
}

/// Report on one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReport {
    /// The meter.
    pub name: MeterName,
    /// Its state in this replica.
    pub state: ReportedState,
    /// True for the last report of a boot: nothing runs any more.
    pub is_last: bool,
}

/// State of a meter in one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportedState {
    /// A rate.
    Rate(RateReport),
    /// A budget in one period.
    Budget(BudgetReport),
    /// Exchanges at once.
    Slots(SlotReport),
}

/// State of a rate in one replica. Units are told by the microseconds in which they come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateReport {
    /// Charged since the boot.
    pub charged: i64,
    /// Part of it that an answer has confirmed.
    pub confirmed: i64,
    /// The time at which the bucket is full again, as the last answer had it; 0 without one.
    pub full_at: u64,
    /// True if a request asked for units since the last report.
    pub asks: bool,
}

/// State of a budget in one replica, in billionths of a US dollar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BudgetReport {
    /// Spent since the boot.
    pub spent: u64,
    /// Held for exchanges that run.
    pub held: u64,
    /// Part of what the store gave that is neither spent nor held, and kept.
    pub kept: u64,
    /// Smallest amount that is of use; 0 if nothing is asked for.
    pub asks: u64,
    /// The limit.
    pub limit: u64,
    /// True if the store has answered this boot before.
    pub is_known: bool,
    /// Spent by boots that ended, as the last answer had it.
    pub ended: Arc<str>,
    /// Spent by all, as the last answer had it.
    pub seen: u64,
    /// Seconds for which the store keeps the cell after the report; 0 for ever.
    pub keep: u64,
}

/// State of exchanges at once in one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotReport {
    /// Slots that run or may be taken at any moment.
    pub claim: u64,
    /// Further slots that requests wait for.
    pub needs: u64,
    /// Further slots that would be welcome, those that requests wait for included.
    pub wishes: u64,
    /// The limit.
    pub limit: u64,
    /// True if the store has answered this boot before.
    pub is_known: bool,
}

/// Answer to a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeterAnswer {
    /// A rate.
    Rate(RateAnswer),
    /// A budget.
    Budget(BudgetAnswer),
    /// Exchanges at once.
    Slots(SlotAnswer),
}

impl MeterAnswer {
    /// Replicas that share the limit.
    pub fn replicas(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.replicas,
            Self::Budget(budget) => budget.replicas,
            Self::Slots(slots) => slots.replicas,
        }
    }
}

/// A rate, over all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateAnswer {
    /// The time at which the bucket is full again, in microseconds of the store's clock.
    pub full_at: u64,
    /// The store's clock.
    pub now: u64,
    /// Replicas that asked of late.
    pub replicas: u64,
    /// Place of this one among them, from 0; none if it is not among them.
    pub rank: Option<u64>,
}

/// A budget, over all replicas, in billionths of a US dollar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BudgetAnswer {
    /// Spent by all.
    pub spent: u64,
    /// Held by others for exchanges that run.
    pub others: u64,
    /// Amount that this replica may hold beyond what it reported as spent and held.
    pub given: u64,
    /// True if that is all there is: nothing is held or kept by others.
    pub is_rest: bool,
    /// Its fair part of what is left.
    pub fair: u64,
    /// True if another replica lacks something.
    pub is_wanted: bool,
    /// Spent by boots that ended, for the next reports: a store that lost it learns it from them. The sum of those
    /// that cannot come back, and each of the others by name, so that one that did nothing but rest takes its own
    /// with it (`70 boot-a:20 boot-b:5`); empty for none.
    pub ended: Arc<str>,
    /// Replicas that asked of late.
    pub replicas: u64,
    /// True if the store did not know the cell.
    pub is_new: bool,
}

/// Exchanges at once, over all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotAnswer {
    /// Slots of this replica.
    pub claim: u64,
    /// Slots beyond which it gives back to others what becomes free.
    pub fair: u64,
    /// Slots of others.
    pub others: u64,
    /// True if another replica lacks slots.
    pub is_wanted: bool,
    /// Replicas that have or want slots.
    pub replicas: u64,
    /// True if the store did not know the meter.
    pub is_new: bool,
}

/// A store of shared limits that gave no answers. What was reported may have arrived or not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

/// Limits that several replicas share.
pub trait SharedLimits: Send {
    /// Takes reports, and answers each at its place; none for one that was not answered.
    ///
    /// # Errors
    /// None was answered.
    fn exchange(
        &mut self,
        origin: &ReportOrigin,
        reports: &[MeterReport],
    ) -> Result<Vec<Option<MeterAnswer>>, Unanswered>;

    /// True once after the last answers came from another server than those before, or over a new connection: it may
    /// lack what was reported last.
    fn is_another(&mut self) -> bool {
        false
    }
}
