//! Totals of a span of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exchange::{Exchange, Tokens, Usage, Verdict};

/// Sums of exchanges that ended in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ExchangeTotals {
    /// Succeeded, failed and canceled exchanges.
    pub(super) requests: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Microseconds that they took.
    pub(super) duration: u64,
    /// Those of which a first token was seen.
    pub(super) first_tokens: u64,
    /// Microseconds until it.
    pub(super) first_token: u64,
    pub(super) spent: UsageTotals,
}

/// Totals of usage and cost of generations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 10]", into = "[u64; 10]")]
pub(super) struct UsageTotals {
    /// Exchanges that were metered.
    pub(super) requests: u64,
    pub(super) tokens: Tokens,
    /// Billionths of a dollar.
    pub(super) cost: u64,
    /// Those with tokens and without a price.
    pub(super) unpriced: u64,
    /// Those of which tokens and cost are a floor.
    pub(super) at_least: u64,
    /// Billionths of a dollar that these may have cost besides, as far as it was estimated.
    pub(super) estimated: u64,
}

impl ExchangeTotals {
    pub(super) fn of(exchange: &Exchange) -> Self {
        let first_token = exchange.timings.first_token;
        Self {
            requests: 1,
            succeeded: u64::from(exchange.verdict() == Verdict::Succeeded),
            failed: u64::from(is_failure(exchange)),
            received: exchange.received,
            sent: exchange.sent,
            duration: micros(exchange.timings.total),
            first_tokens: u64::from(first_token.is_some()),
            first_token: first_token.map_or(0, micros),
            spent: exchange
                .usage
                .as_ref()
                .map(UsageTotals::of)
                .unwrap_or_default(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.requests, other.requests),
            (&mut self.succeeded, other.succeeded),
            (&mut self.failed, other.failed),
            (&mut self.received, other.received),
            (&mut self.sent, other.sent),
            (&mut self.duration, other.duration),
            (&mut self.first_tokens, other.first_tokens),
            (&mut self.first_token, other.first_token),
        ] {
            *sum = sum.saturating_add(part);
        }
        self.spent.add(&other.spent);
    }
}

impl UsageTotals {
    /// Usage of a generation, all models together.
    pub(super) fn of(usage: &Usage) -> Self {
        let mut all = Self::of_model(usage);
        for (_, other) in Self::of_others(usage) {
            all.add(&other);
        }
        // one exchange counts once, regardless of its models
        all.unpriced = all.unpriced.min(1);
        all
    }

    /// Usage of a generation by its own model.
    pub(super) fn of_model(usage: &Usage) -> Self {
        let is_unpriced = usage.cost.is_none() && usage.tokens.all() > 0;
        let cost = usage.cost.unwrap_or_default();
        let estimate = usage.estimate.and_then(|estimate| estimate.cost);
        let known = usage.total_cost().unwrap_or_default();
        Self {
            requests: 1,
            tokens: usage.tokens,
            cost,
            unpriced: u64::from(is_unpriced),
            at_least: u64::from(usage.at_least),
            estimated: estimate.unwrap_or_default().saturating_sub(known),
        }
    }

    /// Usage of a generation by other models, which does not count as an exchange of theirs.
    pub(super) fn of_others(usage: &Usage) -> impl Iterator<Item = (&str, Self)> {
        usage.others.iter().map(|other| {
            let is_unpriced = other.cost.is_none() && other.tokens.all() > 0;
            let spent = Self {
                tokens: other.tokens,
                cost: other.cost.unwrap_or_default(),
                unpriced: u64::from(is_unpriced),
                ..Self::default()
            };
            (other.model.as_ref(), spent)
        })
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.requests, other.requests),
            (&mut self.cost, other.cost),
            (&mut self.unpriced, other.unpriced),
            (&mut self.at_least, other.at_least),
            (&mut self.estimated, other.estimated),
        ] {
            *sum = sum.saturating_add(part);
        }
        self.tokens.add(&other.tokens);
    }
}

/// As it is stored: in the order of the columns of the usage tables.
impl From<UsageTotals> for [u64; 10] {
    fn from(totals: UsageTotals) -> Self {
        let tokens = &totals.tokens;
        [
            totals.requests,
            tokens.input,
            tokens.output,
            tokens.cache_read,
            tokens.cache_write_5m,
            tokens.cache_write_1h,
            totals.cost,
            totals.unpriced,
            totals.at_least,
            totals.estimated,
        ]
    }
}

impl From<[u64; 10]> for UsageTotals {
    fn from(stored: [u64; 10]) -> Self {
        let [
            requests,
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            rest @ ..,
        ] = stored;
        let [cost, unpriced, at_least, estimated] = rest;
        Self {
            requests,
            tokens: Tokens {
                input,
                output,
                cache_read,
                cache_write_5m,
                cache_write_1h,
            },
            cost,
            unpriced,
            at_least,
            estimated,
        }
    }
}

/// True if an exchange failed.
pub(super) fn is_failure(exchange: &Exchange) -> bool {
    exchange.verdict() == Verdict::Failed
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
