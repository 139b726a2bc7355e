//! The grant of an exchange, charged while its response passes and settled at its end.

use crate::{
    access::{Grant, SpendNotice},
    config::prices::{Price, TokenPrice},
    exchange::{
        Exchange, MeteringFailure, Termination, TerminationPhase, TerminationSource, Tokens, Usage,
    },
};

/// End of an exchange, as far as its cost depends on it.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct PaidEnd {
    /// The status that the client got.
    pub(in crate::proxy) status: Option<u16>,
    /// All of the request came: nothing works on less.
    pub(in crate::proxy) is_asked: bool,
    /// The upstream's response head came.
    pub(in crate::proxy) has_head: bool,
    pub(in crate::proxy) termination: Termination,
}

impl PaidEnd {
    pub(in crate::proxy) fn of(exchange: &Exchange, is_asked: bool) -> Self {
        Self {
            status: exchange.status,
            is_asked,
            has_head: exchange.timings.head.is_some(),
            termination: exchange.termination,
        }
    }

    /// True if there was no response, and an upstream may have worked on one until it was given up.
    pub(in crate::proxy) fn may_have_worked(&self, was_asked: bool, is_unanswered: bool) -> bool {
        let ended = &self.termination;
        let is_given_up =
            ended.source == TerminationSource::Client && ended.phase == TerminationPhase::Request;
        !self.has_head && self.is_asked && (is_given_up && was_asked || is_unanswered)
    }
}

/// The grant of an exchange.
pub(in crate::proxy) struct Settlement {
    grant: Grant,
    /// The price of the model's tokens, as it was at the admission.
    price: Option<TokenPrice>,
    /// Tokens that the grant was told last.
    told: Tokens,
}

impl Settlement {
    pub(super) fn new(grant: Grant, price: Option<&Price>) -> Self {
        Self {
            grant,
            price: price.map(Price::of_tokens),
            told: Tokens::default(),
        }
    }

    /// Reports whether the grant counts tokens or money.
    pub(in crate::proxy) fn counts_usage(&self) -> bool {
        self.grant.counts_usage()
    }

    /// State of the budget that is nearest to its end, which the client is told.
    pub(in crate::proxy) fn notice(&self) -> Option<SpendNotice> {
        self.grant.notice()
    }

    /// Charges what has come: the tokens that the upstream reported, and one for each delta, which is the
    /// least that it can have.
    pub(in crate::proxy) fn progress(&mut self, tokens: &Tokens, deltas: u64) {
        let tokens = Tokens {
            output: tokens.output.max(deltas),
            ..*tokens
        };
        let has_input = tokens.prompt() != self.told.prompt();
        // a step costs a few atomics on lines that other workers write to, too
        if !has_input && tokens.output < self.told.output + STEP {
            return;
        }
        self.told = tokens;
        let cost = self.price.as_ref().map(|price| price.of(&tokens));
        self.grant.progress(&tokens, cost);
    }

    /// Settles the grant by what is known at the end.
    pub(in crate::proxy) fn settle(&mut self, end: &PaidEnd, usage: Option<&Usage>) {
        // a path that does not generate
        let Some(usage) = usage else {
            return;
        };
        match Settled::of(end, usage) {
            Settled::Exactly(tokens, cost) => {
                if cost.is_none() {
                    // by the price of the model that was asked for
                    self.progress(&tokens, 0);
                }
                self.grant.settle(&tokens, cost);
            }
            Settled::AtEstimate => self.grant.settle_at_estimate(),
        }
    }
}

/// Cost of an exchange for its key.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    /// These tokens, at this cost.
    Exactly(Tokens, Option<u64>),
    /// The estimate of its admission, since what it used is not known.
    AtEstimate,
}

impl Settled {
    fn of(end: &PaidEnd, usage: &Usage) -> Self {
        let is_success = end
            .status
            .is_some_and(|status| (200..300).contains(&status));
        if !end.has_head {
            let ended = &end.termination;
            // the upstream works on it until it learns that its client has gone
            let is_given_up = ended.source == TerminationSource::Client
                && ended.phase == TerminationPhase::Request
                && usage.at_least;
            return match is_given_up {
                true => Self::AtEstimate,
                false => Self::Exactly(Tokens::default(), Some(0)),
            };
        }
        let is_unread = match usage.failure {
            None | Some(MeteringFailure::Truncated) => false,
            Some(
                MeteringFailure::Broken
                | MeteringFailure::Memory
                | MeteringFailure::Coding
                | MeteringFailure::Value
                | MeteringFailure::Missing,
            ) => is_success,
        };
        if is_unread {
            return Self::AtEstimate;
        }
        let mut tokens = usage.all_tokens();
        let is_cut = end.termination.source != TerminationSource::Complete;
        if is_success && is_cut && tokens == Tokens::default() {
            // before it told of its input
            return Self::AtEstimate;
        }
        let mut cost = usage.total_cost();
        if let Some(estimate) = usage.estimate {
            // of a stream that was cut off: what has passed
            tokens.output = tokens.output.max(estimate.output);
            cost = cost.max(estimate.cost);
        }
        Self::Exactly(tokens, cost)
    }
}

/// Tokens of output between two charges.
const STEP: u64 = 16;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::exchange::{Estimate, ExchangeStart, Route};

    fn exchange(status: Option<u16>, has_head: bool, source: TerminationSource) -> Exchange {
        let begun = ExchangeStart {
            seq: 0,
            id: "req_1".into(),
            started: SystemTime::UNIX_EPOCH,
            client: None,
            version: "1.1",
            method: "POST".into(),
            path: "/v1/messages".into(),
            route: Route::Messages,
            session: None,
            user_agent: None,
            agent: None,
            parent_agent: None,
            owner: None,
        };
        let phase = match has_head {
            true => TerminationPhase::Response,
            false => TerminationPhase::Request,
        };
        let ended = Termination {
            source,
            phase,
            label: None,
        };
        let mut exchange = Exchange::new(begun, ended);
        exchange.status = status;
        exchange.timings.head = has_head.then_some(Duration::ZERO);
        exchange
    }

    #[test]
    fn an_exchange_costs_what_passed_and_the_estimate_where_that_is_unknown() {
        use TerminationSource::{Client, Complete, Proxy, Upstream};
        let tokens = Tokens {
            input: 100,
            output: 10,
            ..Tokens::default()
        };
        let usage = |failure, estimate, at_least| Usage {
            tokens,
            cost: Some(7),
            failure,
            estimate,
            at_least,
            ..Usage::default()
        };
        let more = Estimate {
            output: 50,
            cost: Some(20),
        };
        let none = Usage {
            at_least: true,
            ..Usage::default()
        };
        let cut = Tokens {
            output: 50,
            ..tokens
        };
        let nothing = Settled::Exactly(Tokens::default(), Some(0));
        for (status, has_head, source, usage, expected) in [
            (
                Some(200),
                true,
                Complete,
                usage(None, None, false),
                Settled::Exactly(tokens, Some(7)),
            ),
            (
                Some(200),
                true,
                Client,
                usage(None, Some(more), true),
                Settled::Exactly(cut, Some(20)),
            ),
            (
                Some(200),
                true,
                Complete,
                usage(Some(MeteringFailure::Missing), None, true),
                Settled::AtEstimate,
            ),
            (
                Some(529),
                true,
                Complete,
                Usage::default(),
                Settled::Exactly(Tokens::default(), None),
            ),
            (None, false, Client, none.clone(), Settled::AtEstimate),
            // cut off after the head, before the first event and inside of it
            (
                Some(200),
                true,
                Client,
                Usage::default(),
                Settled::AtEstimate,
            ),
            (
                Some(200),
                true,
                Upstream,
                Usage {
                    failure: Some(MeteringFailure::Truncated),
                    ..Usage::default()
                },
                Settled::AtEstimate,
            ),
            (
                Some(529),
                true,
                Client,
                Usage::default(),
                Settled::Exactly(Tokens::default(), None),
            ),
            (Some(400), false, Client, Usage::default(), nothing),
            (
                Some(502),
                false,
                Upstream,
                none,
                Settled::Exactly(Tokens::default(), Some(0)),
            ),
            (
                Some(401),
                false,
                Proxy,
                Usage::default(),
                Settled::Exactly(Tokens::default(), Some(0)),
            ),
        ] {
            let exchange = exchange(status, has_head, source);
            let settled = Settled::of(&PaidEnd::of(&exchange, true), &usage);
            assert_eq!(settled, expected, "{status:?} {source:?}");
        }
    }

    #[test]
    fn what_was_not_asked_whole_costs_nothing() {
        let exchange = exchange(None, false, TerminationSource::Client);
        let worked = |is_asked| PaidEnd::of(&exchange, is_asked).may_have_worked(true, false);
        assert!(worked(true) && !worked(false));
    }
}
