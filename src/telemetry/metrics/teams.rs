//! Metrics of teams, whose keys requests show. Keys, users and sessions are no labels.

use std::fmt::Result;

use super::{
    counters::Counters,
    family::{Family, Unit},
    label_table::LabelTable,
    writer::FamilyWriter,
};
use crate::exchange::{Exchange, Tokens, Verdict};

/// Counted by one worker.
#[derive(Debug)]
pub(super) struct TeamMetrics {
    teams: [Team; TEAMS + 1],
}

#[derive(Debug, Default)]
struct Team {
    /// By verdict.
    requests: Counters<{ Verdict::ALL.len() }>,
    tokens: Counters<{ KINDS.len() }>,
    /// Billionths of a dollar.
    cost: Counters<1>,
}

/// Labels that are learned.
#[derive(Debug, Default)]
pub(super) struct TeamLabels(pub(super) LabelTable<TEAMS>);

impl Default for TeamMetrics {
    fn default() -> Self {
        Self {
            teams: std::array::from_fn(|_| Team::default()),
        }
    }
}

impl TeamMetrics {
    pub(super) fn count(&self, known: &TeamLabels, exchange: &Exchange) {
        let owner = exchange.begun.owner.as_deref();
        let Some(name) = owner.and_then(|owner| owner.team.as_deref()) else {
            return;
        };
        let team = &self.teams[known.0.intern_text(name)];
        team.requests.add(exchange.verdict() as usize, 1);
        let Some(usage) = &exchange.usage else { return };
        let tokens = usage.all_tokens();
        for (kind, count) in counts(&tokens).into_iter().enumerate() {
            team.tokens.add(kind, count);
        }
        team.cost.add(0, usage.total_cost().unwrap_or_default());
    }

    pub(super) fn absorb(&self, other: &Self) {
        for (ours, theirs) in self.teams.iter().zip(&other.teams) {
            ours.requests.absorb(&theirs.requests);
            ours.tokens.absorb(&theirs.tokens);
            ours.cost.absorb(&theirs.cost);
        }
    }

    pub(super) fn write(&self, known: &TeamLabels, out: &mut FamilyWriter<'_>) -> Result {
        let teams = || {
            let labels = known.0.labels();
            let labels = labels.map(|(at, name)| (&self.teams[at], ("team", name)));
            labels.filter(|(team, _)| team.requests.iter().any(|count| count > 0))
        };
        let requests = teams().flat_map(|(team, name)| {
            Verdict::ALL.map(|verdict| {
                let count = team.requests.read(verdict as usize);
                ([name, ("result", verdict.label())], count)
            })
        });
        out.counters(&REQUESTS, requests)?;
        let tokens = teams().flat_map(|(team, name)| {
            let kinds = KINDS.iter().enumerate();
            kinds.map(move |(at, kind)| {
                let labels = [name, ("gen_ai_token_type", *kind)];
                (labels, team.tokens.read(at))
            })
        });
        out.counters(&TOKENS, tokens)?;
        let cost = teams().map(|(team, name)| ([name], team.cost.read(0) as f64 / 1e9));
        out.counters(&COST, cost)
    }
}

/// In the order of [`KINDS`].
fn counts(tokens: &Tokens) -> [u64; KINDS.len()] {
    let Tokens {
        input,
        output,
        cache_read,
        cache_write_5m,
        cache_write_1h,
    } = *tokens;
    [input, output, cache_read, cache_write_5m, cache_write_1h]
}

const KINDS: [&str; 5] = [
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
];

/// Teams that have a label of their own; the rest is `other`.
pub(super) const TEAMS: usize = 50;

const REQUESTS: Family = Family {
    name: "anthropic_proxy_team_requests",
    unit: None,
    help: "Requests that showed a key of a team, by team and result.",
};

const TOKENS: Family = Family {
    name: "anthropic_proxy_team_tokens",
    unit: None,
    help: "Tokens that requests with a key of a team used, by team and type.",
};

const COST: Family = Family {
    name: "anthropic_proxy_team_cost",
    unit: Some(Unit::Usd),
    help: "US dollars that the tokens of a team cost by the table of prices, by team.",
};
