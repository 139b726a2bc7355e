//! State of limits, for people: amount, spent, held, left, reset.

use super::{
    admit::part,
    context::Context,
    limit::{Limit, Meter, Policy, Subject},
    pattern::Pattern,
    rate::{self, Rate},
    record::{LimitKind, SubjectId, Unreachable},
    share::SharedView,
};

/// State of a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitState {
    /// The subject.
    pub subject: SubjectId,
    /// The team whose default for each of its users it is.
    pub default_of: Option<String>,
    /// The quantity, with the zone in effect.
    pub kind: LimitKind,
    /// The models that it counts; none: all.
    pub models: Option<Pattern>,
    /// The upper bound, grants included.
    pub amount: u64,
    /// The part of it that grants add.
    pub granted: u64,
    /// Spent in the period, used of the last minute, or running.
    pub spent: u64,
    /// Held for exchanges that run.
    pub held: u64,
    /// Left for a new exchange.
    pub left: u64,
    /// Percent of the amount that is spent.
    pub percent: f64,
    /// Exchanges that wait for a slot.
    pub waiting: u64,
    /// The end of the period, or the time at which a rate is unused again, in Unix seconds.
    pub resets: Option<i64>,
    /// The ledger's name of the period of a budget.
    pub cell: Option<String>,
    /// The view of it, if replicas share it.
    pub shared: Option<SharedView>,
    /// Its effect while the store is lost, if an operator chose one.
    pub unreachable: Option<Unreachable>,
}

impl LimitState {
    /// Reports whether it refuses requests while the store that replicas share it in is lost.
    pub fn is_closed(&self) -> bool {
        Unreachable::is_closed(
            self.unreachable,
            matches!(self.kind, LimitKind::Spend { .. }),
        )
    }
}

/// The limits of a subject.
pub(super) fn explain(context: &Context, subject: &Subject, now: i64) -> Vec<LimitState> {
    let policy = subject.policy();
    let states = policy
        .limits()
        .iter()
        .map(|limit| state(context, subject, &policy, limit, now));
    states.collect()
}

/// The state of a limit of a subject.
pub(super) fn state(
    context: &Context,
    subject: &Subject,
    policy: &Policy,
    limit: &Limit,
    now: i64,
) -> LimitState {
    let state = LimitState {
        subject: subject.id().clone(),
        default_of: subject.default_of().map(str::to_owned),
        kind: LimitKind::AtOnce,
        models: limit.models.clone(),
        amount: limit.amount,
        granted: 0,
        spent: 0,
        held: 0,
        left: 0,
        percent: 0.0,
        waiting: 0,
        resets: None,
        cell: None,
        shared: None,
        unreachable: limit.unreachable,
    };
    let steady = context.clock.now();
    let of_rate = |kind: LimitKind, rate: &Rate| {
        let until_full = rate.until_full(steady);
        let resets = i64::try_from(until_full.div_ceil(1_000_000_000)).unwrap_or(i64::MAX);
        LimitState {
            kind,
            spent: rate::units(until_full, limit.amount),
            resets: (until_full > 0).then(|| now.saturating_add(resets)),
            shared: rate.share().map(|share| share.link.view(steady)),
            ..state.clone()
        }
    };
    let state = match &limit.meter {
        Meter::Requests(rate) => of_rate(LimitKind::RequestsPerMinute, rate),
        Meter::Input(rate) => of_rate(LimitKind::InputTokensPerMinute, rate),
        Meter::Output(rate) => of_rate(LimitKind::OutputTokensPerMinute, rate),
        Meter::AtOnce(slots) => LimitState {
            // of this replica: what others may run is no news of what they do
            spent: slots.running(),
            waiting: slots.waiting(),
            shared: slots.share().map(|share| share.link.view(steady)),
            ..state
        },
        Meter::Spend(budget) => {
            let (cell, granted) = (budget.cell(now), policy.granted(now));
            LimitState {
                kind: LimitKind::Spend {
                    period: budget.calendar().period(),
                    zone: Some(budget.calendar().zone().into()),
                },
                amount: limit.amount.saturating_add(granted),
                granted,
                spent: cell.spent(),
                held: cell.held(),
                resets: cell.end(),
                cell: Some(cell.name().to_owned()),
                shared: cell.share().map(|share| share.link.view(steady)),
                ..state
            }
        }
    };
    LimitState {
        left: state
            .amount
            .saturating_sub(state.spent)
            .saturating_sub(state.held),
        percent: 100.0 * part(state.spent, state.amount),
        ..state
    }
}
