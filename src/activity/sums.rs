//! What is summed up for a span of time.

use std::time::Duration;

use crate::record::{By, Exchange, Tokens, Usage};

/// Sums of exchanges that ended in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Those that succeeded or failed, and those that their client alone ended.
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
    pub(super) spent: Spent,
}

/// What generations used and cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Exchanges that were metered.
    pub(super) requests: u64,
    pub(super) tokens: Tokens,
    /// Billionths of a dollar.
    pub(super) cost: u64,
    /// Those with tokens and without a price.
    pub(super) unpriced: u64,
}

impl Sums {
    pub(super) fn of(exchange: &Exchange) -> Self {
        let first_token = exchange.timings.first_token;
        Self {
            requests: 1,
            succeeded: u64::from(is_success(exchange)),
            failed: u64::from(is_failure(exchange)),
            received: exchange.received,
            sent: exchange.sent,
            duration: micros(exchange.timings.total),
            first_tokens: u64::from(first_token.is_some()),
            first_token: first_token.map_or(0, micros),
            spent: exchange.usage.as_ref().map(Spent::of).unwrap_or_default(),
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

impl Spent {
    pub(super) fn of(usage: &Usage) -> Self {
        let is_unpriced = usage.cost.is_none() && all(&usage.tokens) > 0;
        Self {
            requests: 1,
            tokens: usage.tokens,
            cost: usage.cost.unwrap_or_default(),
            unpriced: u64::from(is_unpriced),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let (tokens, others) = (&mut self.tokens, &other.tokens);
        for (sum, part) in [
            (&mut self.requests, other.requests),
            (&mut self.cost, other.cost),
            (&mut self.unpriced, other.unpriced),
            (&mut tokens.input, others.input),
            (&mut tokens.output, others.output),
            (&mut tokens.cache_read, others.cache_read),
            (&mut tokens.cache_write_5m, others.cache_write_5m),
            (&mut tokens.cache_write_1h, others.cache_write_1h),
        ] {
            *sum = sum.saturating_add(part);
        }
    }
}

/// Whether an exchange was complete, and its answer no error, neither by its status nor inside of its
/// stream.
pub(super) fn is_success(exchange: &Exchange) -> bool {
    exchange.ended.by == By::Complete && exchange.status.is_some() && !has_error(exchange)
}

/// Whether an exchange failed. One that its client left is neither a success nor a failure.
pub(super) fn is_failure(exchange: &Exchange) -> bool {
    match exchange.ended.by {
        By::Client | By::Complete => has_error(exchange),
        By::Upstream | By::Proxy => true,
    }
}

fn has_error(exchange: &Exchange) -> bool {
    let usage = exchange.usage.as_ref();
    exchange.status.is_some_and(|status| status >= 400)
        || usage.is_some_and(|usage| usage.error_type.is_some())
}

fn all(tokens: &Tokens) -> u64 {
    tokens.prompt().saturating_add(tokens.output)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
