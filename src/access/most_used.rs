//! Rates and exchanges at once of all subjects: those that are used most.
//!
//! Made when an operator asks. Workers are not held up: their meters are atomics, which are read here. The first look
//! copies nothing, so that of a hundred thousand subjects only the rows that are shown are made.

use std::cmp::Ordering;

use super::{
    admit::part,
    context::Context,
    directory::Limited,
    explain::{LimitState, state},
    limit::{Limit, Meter, Policy, Subject},
    rate::{MINUTE, Rate},
    record::LimitRule,
};

/// The most used rates and exchanges at once.
#[derive(Debug, Default)]
pub struct MostUsed {
    /// Their states, the most used ones first. Those that no request has used since the start come last.
    pub states: Vec<LimitState>,
    /// Number of all such limits, without those of keys that were revoked.
    pub total: usize,
}

/// A limit of a subject, and the part of it that is used.
struct UsedPart<'a> {
    part: f64,
    subject: &'a Subject,
    policy: &'a Policy,
    limit: &'a Limit,
}

/// Limits of these subjects, up to a number of them.
pub(super) fn most_used(context: &Context, limited: &Limited, most: usize, now: i64) -> MostUsed {
    let steady = context.clock.now();
    let policies: Vec<_> = limited
        .subjects
        .iter()
        .map(|subject| (subject, subject.effective()))
        .collect();
    let (mut used, mut idle, mut total) = (Vec::new(), Vec::new(), 0);
    for (subject, policy) in &policies {
        let count = counted(&policy.rules);
        total += count;
        if policy.limits().is_empty() && count > 0 {
            idle.push(*subject);
        }
        let parts = policy.limits().iter().filter_map(|limit| {
            let part = used_part(limit, steady)?;
            Some(UsedPart {
                part,
                subject,
                policy,
                limit,
            })
        });
        used.extend(parts);
    }
    used.sort_unstable_by(|one, other| {
        let by_part = other.part.partial_cmp(&one.part);
        by_part
            .unwrap_or(Ordering::Equal)
            .then_with(|| one.subject.id().cmp(other.subject.id()))
    });
    used.truncate(most);
    let states = used
        .iter()
        .map(|it| state(context, it.subject, it.policy, it.limit, now));
    let mut states: Vec<_> = states.collect();

    let mut keys: Vec<_> = limited.keys.iter().collect();
    total += keys.iter().map(|key| counted(key.limits())).sum::<usize>();
    if states.len() < most {
        idle.sort_unstable_by(|one, other| one.id().cmp(other.id()));
        keys.sort_unstable_by_key(|key| key.id());
    }
    // these get their meters now, as `explain` gives them: no more of them than are shown
    let keys = keys.into_iter().filter_map(|key| key.own(&context.others));
    for subject in idle.into_iter().chain(keys) {
        if states.len() >= most {
            break;
        }
        let policy = subject.policy();
        let limits = policy.limits().iter();
        let limits = limits.filter(|limit| used_part(limit, steady).is_some());
        states.extend(limits.map(|limit| state(context, subject, &policy, limit, now)));
    }
    states.truncate(most);
    // of those that are not in use, those that have their meters do not come first: the next look has the same order
    states.sort_by(|one, other| match (one.spent, other.spent) {
        (0, 0) => one.subject.cmp(&other.subject),
        (one, other) => (one == 0).cmp(&(other == 0)),
    });
    MostUsed { states, total }
}

/// The part of a rate, or of the exchanges at once, that is used; none of a budget.
fn used_part(limit: &Limit, steady: u64) -> Option<f64> {
    let of_rate = |rate: &Rate| part(rate.until_full(steady), MINUTE);
    match &limit.meter {
        Meter::Requests(rate) | Meter::Input(rate) | Meter::Output(rate) => Some(of_rate(rate)),
        Meter::AtOnce(slots) => Some(part(slots.running(), limit.amount)),
        Meter::Spend(_) => None,
    }
}

/// The number of rules that bound a rate or the exchanges at once.
fn counted(rules: &[LimitRule]) -> usize {
    rules.iter().filter(|rule| !rule.is_budget()).count()
}
