//! Metrics of keys: refusals by rule and team, and the wait for a free slot.
//!
//! Teams are labels, the first 50 of them; keys, users and sessions never are.

use std::{
    fmt::Result,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    counters::Counters,
    family::{Family, Unit},
    histogram::{Histogram, SECONDS, SECONDS_BUCKETS, micros},
    teams::{TEAMS, TeamLabels},
    writer::FamilyWriter,
};
use crate::label::Label;

/// Counted by one worker.
#[derive(Debug)]
pub struct AccessMetrics {
    refusals: Box<Counters<{ REASONS.len() * PLACES }>>,
    waiting: AtomicI64,
    waited: Histogram<SECONDS_BUCKETS>,
}

impl Default for AccessMetrics {
    fn default() -> Self {
        Self {
            refusals: Box::default(),
            waiting: AtomicI64::new(0),
            waited: Histogram::default(),
        }
    }
}

/// A request that waits for a free slot, until it is dropped.
pub struct Waiting<'a> {
    metrics: &'a AccessMetrics,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.waiting.fetch_sub(1, Relaxed);
        self.metrics.waited(self.since.elapsed());
    }
}

impl AccessMetrics {
    /// Counts a refusal. A key without a team, and a request without a key, have the team ``.
    pub(super) fn refused(&self, teams: &TeamLabels, reason: Label, team: Option<&str>) {
        let place = team.map_or(NO_TEAM, |team| teams.0.intern_text(team));
        self.refusals.add(reason_at(reason) * PLACES + place, 1);
    }

    /// Number of requests that were refused for a reason.
    pub(super) fn refusals(&self, reason: Label) -> u64 {
        let first = reason_at(reason) * PLACES;
        (first..first + PLACES)
            .map(|place| self.refusals.read(place))
            .sum()
    }

    /// Counts a request that waits.
    pub fn waits(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Waiting {
            metrics: self,
            since: Instant::now(),
        }
    }

    fn waited(&self, time: Duration) {
        self.waited.observe(&SECONDS, micros(time));
    }

    pub(super) fn absorb(&self, other: &Self) {
        let Self {
            refusals,
            waiting,
            waited,
        } = other;
        self.refusals.absorb(refusals);
        self.waiting.fetch_add(waiting.load(Relaxed), Relaxed);
        self.waited.absorb(waited);
    }

    pub(super) fn write(&self, teams: &TeamLabels, out: &mut FamilyWriter<'_>) -> Result {
        let seen = REASONS.into_iter().enumerate().flat_map(|(at, reason)| {
            let named = teams.0.labels().chain([(NO_TEAM, "")]);
            named.map(move |(place, team)| {
                let count = self.refusals.read(at * PLACES + place);
                ([("reason", reason.text()), ("team", team)], count)
            })
        });
        out.counters(&REFUSALS, seen.filter(|(_, count)| *count > 0))?;
        out.gauge(&WAITING, self.waiting.load(Relaxed))?;
        out.histograms(&WAITED, &SECONDS, [([], &self.waited)])
    }
}

/// The place of a reason; the last is for those that come later.
fn reason_at(reason: Label) -> usize {
    let at = REASONS.iter().position(|known| *known == reason);
    at.unwrap_or(REASONS.len() - 1)
}

/// Reasons of refusals by a rule or limit on keys.
const REASONS: [Label; 18] = [
    Label::KeyMissing,
    Label::KeyMistyped,
    Label::KeysContradictory,
    Label::KeyUnknown,
    Label::KeyRevoked,
    Label::KeyExpired,
    Label::SourceNotAllowed,
    Label::ModelNotAllowed,
    Label::PathNotAllowed,
    Label::UpstreamKeyMissing,
    Label::SpendLimit,
    Label::SpendReserved,
    Label::RequestLimit,
    Label::InputTokenLimit,
    Label::OutputTokenLimit,
    Label::TooManyAtOnce,
    Label::LimitStateUnreachable,
    Label::Other,
];
/// Those, `other`, and none.
const PLACES: usize = TEAMS + 2;
/// The place of none.
const NO_TEAM: usize = TEAMS + 1;

const REFUSALS: Family = Family {
    name: "anthropic_proxy_access_refusals",
    unit: None,
    help: "Requests that were refused by a rule or limit on keys, by reason and team (the first 50 teams; other beyond).",
};

const WAITING: Family = Family {
    name: "anthropic_proxy_access_waiting_requests",
    unit: None,
    help: "Requests that wait for a free slot of their key's limit of exchanges at once.",
};

const WAITED: Family = Family {
    name: "anthropic_proxy_access_wait",
    unit: Some(Unit::Seconds),
    help: "Time that requests waited for a free slot of their key's limit of exchanges at once; those that got one at once are not counted.",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teams_beyond_the_first_are_other() {
        let (teams, metrics) = (TeamLabels::default(), AccessMetrics::default());
        for number in 0..60 {
            let team = format!("Team {number}");
            metrics.refused(&teams, Label::SpendLimit, Some(&team));
        }
        metrics.refused(&teams, Label::SpendLimit, None);
        let at = reason_at(Label::SpendLimit) * PLACES;
        let counts: Vec<u64> = (at..at + PLACES)
            .map(|at| metrics.refusals.read(at))
            .collect();
        assert_eq!(counts, [vec![1; 50], vec![10, 1]].concat());
    }

    #[test]
    fn who_waits_is_counted_until_it_is_dropped() {
        let metrics = AccessMetrics::default();
        let (one, other) = (metrics.waits(), metrics.waits());
        assert_eq!(metrics.waiting.load(Relaxed), 2);
        drop((one, other));
        assert_eq!(metrics.waiting.load(Relaxed), 0);
        assert_eq!(metrics.waited.read(&SECONDS).count, 2);
    }
}
