//! Metrics of the upstreams: connects, requests sent again, circuits, idle connections.

use std::{collections::BTreeMap, fmt::Result, time::Duration};

use super::{
    counters::Counters,
    family::{Family, Unit},
    gauges::UpstreamGauges,
    histogram::{Histogram, SECONDS, SECONDS_BUCKETS, micros},
    writer::FamilyWriter,
};
use crate::label::Label;

/// Reason for which a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// No connection: retried on the next upstream.
    Unreachable,
    /// A response with a status of `FAILOVER_STATUS`: retried on the next upstream.
    Status,
    /// A stream that began with an `overloaded_error`: retried on the next upstream.
    Overloaded,
    /// The pooled connection had been closed: retried on a new one.
    Stale,
    /// Not processed, as the upstream reported (RFC 9113 §8.7): retried on a new connection.
    Unprocessed,
}

impl Moved {
    const ALL: [Self; 5] = [
        Self::Unreachable,
        Self::Status,
        Self::Overloaded,
        Self::Stale,
        Self::Unprocessed,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Status => "status",
            Self::Overloaded => "overloaded",
            Self::Stale => "stale",
            Self::Unprocessed => "unprocessed",
        }
    }
}

/// Counted by one worker.
#[derive(Debug, Default)]
pub(super) struct UpstreamMetrics {
    connects: Counters<{ Label::COUNT + 1 }>,
    connected: Histogram<SECONDS_BUCKETS>,
    failed: Histogram<SECONDS_BUCKETS>,
    moves: Counters<{ Moved::ALL.len() }>,
}

impl UpstreamMetrics {
    pub(super) fn connected(&self, failure: Option<Label>, took: Duration) {
        let (place, histogram) = match failure {
            None => (Label::COUNT, &self.connected),
            Some(label) => (label as usize, &self.failed),
        };
        self.connects.add(place, 1);
        histogram.observe(&SECONDS, micros(took));
    }

    pub(super) fn moved(&self, why: Moved) {
        self.moves.add(why as usize, 1);
    }

    /// Number of attempts to connect, and of those that failed.
    pub(super) fn connect_totals(&self) -> (u64, u64) {
        let all: u64 = self.connects.iter().sum();
        (all, all - self.connects.read(Label::COUNT))
    }

    pub(super) fn absorb(&self, other: &Self) {
        let Self {
            connects,
            connected,
            failed,
            moves,
        } = other;
        self.connects.absorb(connects);
        self.connected.absorb(connected);
        self.failed.absorb(failed);
        self.moves.absorb(moves);
    }

    pub(super) fn write(&self, upstreams: &[UpstreamGauges], out: &mut FamilyWriter<'_>) -> Result {
        let failures = Label::ALL.map(|label| (label.text(), self.connects.read(label as usize)));
        let all = [(OK, self.connects.read(Label::COUNT))]
            .into_iter()
            .chain(failures);
        let seen = all.filter(|(outcome, count)| *count > 0 || *outcome == Label::Other.text());
        let seen = seen.map(|(outcome, count)| ([("outcome", outcome)], count));
        out.counters(&CONNECTS, seen)?;
        let took = [
            ([("result", OK)], &self.connected),
            ([("result", "failed")], &self.failed),
        ];
        out.histograms(&CONNECTING, &SECONDS, took)?;
        let moves =
            Moved::ALL.map(|why| ([("reason", why.label())], self.moves.read(why as usize)));
        out.counters(&MOVES, moves)?;
        let now = by_url(upstreams);
        let circuits = now.iter().flat_map(|(url, now)| {
            let states = STATES.iter().zip(now.circuits);
            states.map(|(state, circuits)| ([("upstream", *url), ("state", *state)], circuits))
        });
        out.gauges(&CIRCUITS, circuits)?;
        let idle = now
            .iter()
            .map(|(url, now)| ([("upstream", *url)], now.idle));
        out.gauges(&IDLE, idle)
    }
}

/// One line of the configuration, or several: the same URL may be there twice, with another key.
#[derive(Default)]
struct UpstreamSum {
    circuits: [usize; STATES.len()],
    idle: usize,
}

fn by_url(upstreams: &[UpstreamGauges]) -> BTreeMap<&str, UpstreamSum> {
    let mut all: BTreeMap<&str, UpstreamSum> = BTreeMap::new();
    for upstream in upstreams {
        let now = all.entry(&upstream.url).or_default();
        now.idle += upstream.idle_connections;
        if let Some(state) = STATES.iter().position(|state| *state == upstream.circuit) {
            now.circuits[state] += 1;
        }
    }
    all
}

/// The outcome of a connect that succeeded.
const OK: &str = "ok";

const STATES: [&str; 5] = ["unknown", "closed", "failing", "half_open", "open"];

const CONNECTS: Family = Family {
    name: "anthropic_proxy_upstream_connects",
    unit: None,
    help: "Attempts to connect to upstreams, by outcome.",
};

const CONNECTING: Family = Family {
    name: "anthropic_proxy_upstream_connect_duration",
    unit: Some(Unit::Seconds),
    help: "Duration of connecting to upstreams: DNS, TCP, TLS, an outbound proxy.",
};

const MOVES: Family = Family {
    name: "anthropic_proxy_upstream_moves",
    unit: None,
    help: "Requests that were sent again, to another upstream (unreachable, status, overloaded) or on another connection (stale, unprocessed).",
};

const CIRCUITS: Family = Family {
    name: "anthropic_proxy_upstream_circuits",
    unit: None,
    help: "Circuits of an upstream by state, one a line of the configuration: open and half_open mean that it is skipped, failing that its last requests failed, unknown that it has had no request yet.",
};

const IDLE: Family = Family {
    name: "anthropic_proxy_upstream_idle_connections",
    unit: None,
    help: "Idle connections to an upstream in the pools.",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_in_the_order_of_their_labels() {
        for (at, why) in Moved::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
    }
}
