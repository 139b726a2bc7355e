//! A grant: what an exchange has taken of its limits, from its admission to its end.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use tokio::time::Sleep;

use super::{
    admit::{Counted, Need, Obstacle, Pass, Taking, Takings, part},
    cell::Share,
    context::LocalContext,
    key::Key,
    notice::{SpendNotice, SpendVerdict},
    refusal::Refusal,
    slots::SlotWaiter,
};
use crate::exchange::Tokens;

/// Outcome of an admission.
#[derive(Debug)]
pub enum Admitted {
    /// The request may pass.
    Granted(Grant),
    /// It may pass once a slot is free.
    Queued(SlotWait),
    /// It may not pass.
    Refused(Refusal),
}

/// Permission of one exchange. Its drop gives back what the exchange has not used: an exchange that was cut
/// off costs what was metered of it.
pub struct Grant {
    context: Arc<LocalContext>,
    takings: Takings,
    need: Need,
    tokens: Tokens,
    cost: u64,
    is_settled: bool,
}

impl Grant {
    fn new(context: &Arc<LocalContext>, need: Need, takings: Takings) -> Self {
        Self {
            context: Arc::clone(context),
            takings,
            need,
            tokens: Tokens::default(),
            cost: 0,
            is_settled: false,
        }
    }

    /// Reports whether a limit counts the tokens or the money of the exchange.
    pub fn counts_usage(&self) -> bool {
        self.takings.iter().any(|taking| match taking {
            Taking::Rate { counted, .. } => *counted != Counted::Requests,
            Taking::Money { .. } => true,
            Taking::Slot { .. } => false,
        })
    }

    /// Takes what was metered so far into account: tokens, and billionths of a US dollar. The estimate of
    /// what is to come shrinks as it comes.
    pub fn progress(&mut self, tokens: &Tokens, cost: Option<u64>) {
        if self.is_settled {
            return;
        }
        self.tokens = *tokens;
        self.cost = self.cost.max(cost.unwrap_or_default());
        if self.cost == 0 {
            return;
        }
        let to_come = self.need.estimate.output.saturating_sub(tokens.output);
        let to_come = to_come.saturating_mul(self.need.estimate.output_price);
        let share = Share {
            committed: self.cost.saturating_add(to_come),
            spent: self.cost,
        };
        self.charge(share);
    }

    /// Replaces all estimates by what the exchange used: also what was charged meanwhile, at the price of the
    /// model that was asked for. Another one may have answered, at a lower price.
    pub fn settle(&mut self, tokens: &Tokens, cost: Option<u64>) {
        if self.is_settled {
            return;
        }
        self.tokens = *tokens;
        self.cost = cost.unwrap_or(self.cost);
        self.finish();
        let Need {
            is_generation,
            octets,
            estimate,
            tags,
        } = self.need;
        // a response without tokens is an error, which teaches nothing
        if is_generation && octets > 0 && tokens.all() > 0 {
            let output_cost = tokens.output.saturating_mul(estimate.output_price);
            let input_cost = cost.map(|cost| cost.saturating_sub(output_cost));
            self.context
                .estimates
                .learn(tags, octets, tokens, input_cost);
        }
    }

    /// Replaces the estimates by themselves: what the exchange used is not known, and was not nothing.
    pub fn settle_at_estimate(&mut self) {
        if self.is_settled {
            return;
        }
        let estimate = &self.need.estimate;
        self.tokens.input = self.tokens.input.max(estimate.input);
        self.tokens.output = self.tokens.output.max(estimate.output);
        self.cost = self.cost.max(estimate.cost);
        self.finish();
    }

    /// The budget that is nearest to its end, for the fields of a response; none if no budget counts the
    /// request.
    pub fn notice(&self) -> Option<SpendNotice> {
        let notices = self.takings.iter().filter_map(|taking| match taking {
            Taking::Money {
                cell,
                limit,
                period,
                ..
            } => Some(SpendNotice {
                verdict: SpendVerdict::Allowed,
                utilization: part(cell.spent(), *limit),
                resets: cell.end(),
                period: *period,
            }),
            Taking::Rate { .. } | Taking::Slot { .. } => None,
        });
        notices.max_by(|one, other| one.utilization.total_cmp(&other.utilization))
    }

    /// Money that is held for the exchange, of its largest budget.
    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        let amounts = self.takings.iter().filter_map(|taking| match taking {
            Taking::Money { share, .. } => Some(share.committed),
            Taking::Rate { .. } | Taking::Slot { .. } => None,
        });
        amounts.max().unwrap_or_default()
    }

    fn charge(&mut self, to: Share) {
        for taking in &mut self.takings {
            if let Taking::Money { cell, share, .. } = taking
                && *share != to
            {
                cell.update(*share, to);
                *share = to;
                self.context.ledger.note(cell);
            }
        }
    }

    fn finish(&mut self) {
        self.is_settled = true;
        self.charge(Share {
            committed: self.cost,
            spent: self.cost,
        });
        let now = self.context.clock.now();
        for taking in &self.takings {
            if let Taking::Rate {
                rate,
                counted,
                taken,
            } = taking
            {
                let units = counted.of(&self.tokens);
                if units != taken.units {
                    rate.settle(*taken, units, now);
                }
            }
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.is_settled {
            self.finish();
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({:?})", self.takings)
    }
}

/// A request before its admission, which waits for a slot.
struct Candidate {
    context: Arc<LocalContext>,
    key: Arc<Key>,
    need: Need,
}

/// Admits a request, or lets it wait for a slot.
pub(super) fn admit(
    context: &Arc<LocalContext>,
    key: &Arc<Key>,
    need: Need,
    model: Option<&str>,
    now: i64,
) -> Admitted {
    let pass = Pass {
        context,
        key,
        need: &need,
        model,
        now,
    };
    let (slots, refusal) = match pass.run(None) {
        Ok(takings) => return Admitted::Granted(Grant::new(context, need, takings)),
        Err(Obstacle::Refused(refusal)) => return Admitted::Refused(refusal),
        Err(Obstacle::Full(slots, refusal)) => (slots, refusal),
    };
    let session = need.tags.session;
    let Some(waiter) = slots.wait(session) else {
        return Admitted::Refused(*refusal);
    };
    Admitted::Queued(SlotWait {
        model: model.map(Box::from),
        session,
        asked: (now, context.clock.now()),
        waiter,
        refusal,
        patience: None,
        candidate: Some(Candidate {
            context: Arc::clone(context),
            key: Arc::clone(key),
            need,
        }),
    })
}

/// A wait for a slot, of at most 10 s; its drop leaves the queue. It needs tokio's timer.
pub struct SlotWait {
    candidate: Option<Candidate>,
    model: Option<Box<str>>,
    session: u64,
    /// The time of the request: Unix seconds, and of the steady clock.
    asked: (i64, u64),
    waiter: SlotWaiter,
    refusal: Box<Refusal>,
    patience: Option<Pin<Box<Sleep>>>,
}

impl Future for SlotWait {
    type Output = Result<Grant, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let Some(candidate) = &this.candidate else {
                return Poll::Pending;
            };
            let Poll::Ready(permit) = Pin::new(&mut this.waiter).poll(cx) else {
                let patience = this
                    .patience
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
                return patience
                    .as_mut()
                    .poll(cx)
                    .map(|()| Err((*this.refusal).clone()));
            };
            let waited = candidate.context.clock.now().saturating_sub(this.asked.1);
            let waited = i64::try_from(waited / 1_000_000_000).unwrap_or_default();
            let pass = Pass {
                context: &candidate.context,
                key: &candidate.key,
                need: &candidate.need,
                model: this.model.as_deref(),
                now: this.asked.0.saturating_add(waited),
            };
            match pass.run(Some(permit)) {
                Ok(takings) => {
                    let grant = Grant::new(&candidate.context, candidate.need, takings);
                    this.candidate = None;
                    return Poll::Ready(Ok(grant));
                }
                Err(Obstacle::Refused(refusal)) => return Poll::Ready(Err(refusal)),
                // another limit is full by now: the slot went back, and the wait goes on there
                Err(Obstacle::Full(slots, refusal)) => {
                    let Some(waiter) = slots.wait(this.session) else {
                        return Poll::Ready(Err(*refusal));
                    };
                    (this.waiter, this.refusal) = (waiter, refusal);
                }
            }
        }
    }
}

impl fmt::Debug for SlotWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotWait({:?})", self.waiter)
    }
}

/// Longest wait for a slot.
const PATIENCE: Duration = Duration::from_secs(10);
