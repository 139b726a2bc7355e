//! Admission: one pass over the subjects of a key and their limits, in a fixed order.
//!
//! All limits agree, or nothing is taken: what earlier limits gave is given back exactly. Limits that
//! refuse at once come before slots, for which a request may wait; it waits with nothing taken, so that
//! waiters cannot block each other.

use std::{cell::OnceCell, sync::Arc};

use arc_swap::Guard;
use smallvec::SmallVec;

use super::{
    budget::Budget,
    cell::{Cell, Hold, Share},
    context::{Context, InEffect},
    estimate::{Estimate, Size, Tags},
    key::Key,
    limit::{Limit, Meter, Policy, Subject},
    notice::{SpendNotice, SpendVerdict},
    pattern::Pattern,
    rate::{self, Rate},
    record::{Period, SubjectId},
    refusal::{self, Refusal, RefusalKind, shortened},
    slots::{SlotPermit, Slots},
};
use crate::{
    config::prices::{Price, canonical},
    exchange::Tokens,
};

/// A request that asks to pass.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The model that its content names.
    pub model: Option<&'a str>,
    /// The octets of its content; 0 if the number is unknown.
    pub octets: u64,
    /// Its upper bound of output tokens.
    pub max_tokens: Option<u64>,
    /// Claude Code's session.
    pub session: Option<&'a [u8]>,
    /// True if it generates: it costs money and takes a slot. Others are counted as requests alone.
    pub is_generation: bool,
    /// The price of its model.
    pub price: Option<&'a Price>,
}

/// Facts of a request that its admission needs, without the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) is_generation: bool,
    pub(super) octets: u64,
    pub(super) estimate: Estimate,
    pub(super) tags: Tags,
}

impl Need {
    pub(super) fn new(context: &Context, key: &Key, asked: &Asked<'_>) -> Self {
        let tags = context.estimates.tags(key.id(), asked.session, asked.model);
        let size = Size {
            octets: asked.octets,
            max_tokens: asked.max_tokens,
            price: asked.price,
        };
        let estimate = if asked.is_generation {
            context.estimates.estimate(tags, size)
        } else {
            Estimate::default()
        };
        Self {
            is_generation: asked.is_generation,
            octets: asked.octets,
            estimate,
            tags,
        }
    }
}

/// Part of a limit that one exchange has taken.
#[derive(Debug)]
pub(super) enum Taking {
    /// Units of a rate.
    Rate {
        rate: Arc<Rate>,
        counted: Counted,
        taken: rate::Taken,
    },
    /// Money of a budget.
    Money {
        cell: Arc<Cell>,
        share: Share,
        /// The limit at admission.
        limit: u64,
        period: Period,
    },
    /// A slot, which its drop gives back.
    Slot { _permit: SlotPermit },
}

/// Units of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Requests.
    Requests,
    /// Tokens of input without those read from a cache.
    Input,
    /// Tokens of output.
    Output,
}

impl Counted {
    fn text(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Input => "tokens of input",
            Self::Output => "tokens of output",
        }
    }

    fn refusal(self) -> RefusalKind {
        match self {
            Self::Requests => RefusalKind::Requests,
            Self::Input => RefusalKind::InputTokens,
            Self::Output => RefusalKind::OutputTokens,
        }
    }

    /// The units of an exchange.
    pub(super) fn of(self, tokens: &Tokens) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Input => super::estimate::counted_input(tokens),
            Self::Output => tokens.output,
        }
    }
}

/// Parts of limits that one exchange has taken: four without an allocation.
pub(super) type Takings = SmallVec<[Taking; 4]>;

/// Reason for which a pass took nothing.
pub(super) enum Obstacle {
    /// A limit refuses.
    Refused(Refusal),
    /// No slot is free; the refusal is for the end of the wait.
    Full(Arc<Slots>, Box<Refusal>),
}

/// Pass of one request over the limits of its key.
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    pub(super) key: &'a Key,
    pub(super) need: &'a Need,
    pub(super) model: Option<&'a str>,
    /// Unix seconds.
    pub(super) now: i64,
}

impl Pass<'_> {
    /// Takes what the request needs of every limit, or nothing. `permit` is a slot that it has waited for.
    pub(super) fn run(&self, permit: Option<SlotPermit>) -> Result<Takings, Obstacle> {
        let mut takings = Takings::new();
        let outcome = self.take_all(&mut takings, permit);
        match outcome {
            Ok(()) => Ok(takings),
            Err(obstacle) => {
                self.undo(takings);
                Err(obstacle)
            }
        }
    }

    fn take_all(&self, takings: &mut Takings, permit: Option<SlotPermit>) -> Result<(), Obstacle> {
        let model = NamedModel::new(self.model);
        let policies: SmallVec<[InEffect<'_>; 5]> = self.context.policies(self.key).collect();
        let limits = || {
            let limits = policies.iter().flat_map(|(subject, policy)| {
                let limits = policy.limits().iter();
                limits.map(move |limit| (*subject, policy, limit))
            });
            limits.filter(|(_, _, limit)| model.counts(limit.models.as_ref()))
        };
        let steady = self.context.clock.now();
        let estimate = &self.need.estimate;
        for (subject, policy, limit) in limits() {
            self.check_store(subject, limit, steady)?;
            let taking = match &limit.meter {
                Meter::Requests(rate) => {
                    self.take_rate(subject, limit, rate, Counted::Requests, 1, steady)?
                }
                _ if !self.need.is_generation => continue,
                Meter::Input(rate) => {
                    self.take_rate(subject, limit, rate, Counted::Input, estimate.input, steady)?
                }
                Meter::Output(rate) => self.take_rate(
                    subject,
                    limit,
                    rate,
                    Counted::Output,
                    estimate.output,
                    steady,
                )?,
                Meter::Spend(budget) => self.take_money(subject, policy, limit, budget, steady)?,
                Meter::AtOnce(_) => continue,
            };
            takings.push(taking);
        }
        if !self.need.is_generation {
            return Ok(());
        }
        let mut permit = permit;
        for (subject, _, limit) in limits() {
            let Meter::AtOnce(slots) = &limit.meter else {
                continue;
            };
            let waited = permit.take_if(|permit| permit.is_of(slots));
            let Some(_permit) = waited.or_else(|| slots.take()) else {
                let refusal = self.refuse_slot(subject, limit, slots);
                return Err(Obstacle::Full(Arc::clone(slots), Box::new(refusal)));
            };
            takings.push(Taking::Slot { _permit });
        }
        Ok(())
    }

    fn take_rate(
        &self,
        subject: &Subject,
        limit: &Limit,
        rate: &Arc<Rate>,
        counted: Counted,
        units: u64,
        steady: u64,
    ) -> Result<Taking, Obstacle> {
        let per_minute = limit.amount;
        rate.take(units, per_minute, steady).map_err(|wait| {
            let seconds = wait.div_ceil(SECOND).max(1);
            let who = title(subject, self.key);
            let text = refusal::rate(
                &who,
                limit.amount,
                counted.text(),
                limit.models.as_ref(),
                seconds,
            );
            Obstacle::Refused(self.refuse(counted.refusal(), &text).until(seconds))
        })?;
        let taken = rate::Taken {
            units,
            per_minute,
            at: steady,
        };
        Ok(Taking::Rate {
            rate: Arc::clone(rate),
            counted,
            taken,
        })
    }

    fn take_money(
        &self,
        subject: &Subject,
        policy: &Policy,
        limit: &Limit,
        budget: &Arc<Budget>,
        steady: u64,
    ) -> Result<Taking, Obstacle> {
        let cell = budget.cell(self.now);
        let amount = limit.amount.saturating_add(policy.granted(self.now));
        let estimate = self.need.estimate.cost;
        let is_absent = cell.share().is_some_and(|share| share.link.is_absent());
        let hold = match is_absent && limit.is_closed() {
            // there is no share whose rest it could have
            true => Hold::Reserved,
            false => cell.hold(estimate, amount),
        };
        let lost = cell.share().filter(|share| share.link.is_lost(steady));
        let held = match hold {
            Hold::Taken(held) => held,
            Hold::Reserved if lost.is_some() && limit.is_closed() => {
                let text = self.unreachable(subject, limit);
                let refusal = self.refuse(RefusalKind::StateUnreachable, &text);
                return Err(Obstacle::Refused(refusal.with_notice(SpendNotice {
                    verdict: SpendVerdict::Unknown,
                    utilization: part(cell.spent(), amount),
                    resets: cell.end(),
                    period: budget.calendar().period(),
                })));
            }
            Hold::Reserved if lost.is_some() => {
                cell.hold_beyond(estimate);
                estimate
            }
            Hold::Reserved => {
                cell.note(true);
                return Err(Obstacle::Refused(
                    self.refuse_reserved(subject, limit, budget, amount),
                ));
            }
            Hold::Spent => {
                cell.look();
                return Err(Obstacle::Refused(
                    self.refuse_spent(subject, limit, budget, &cell, amount),
                ));
            }
        };
        if cell.share().is_some() || cell.is_short() {
            self.context.ledger.note(&cell);
        }
        Ok(Taking::Money {
            cell: Guard::into_inner(cell),
            share: Share {
                committed: held,
                spent: 0,
            },
            limit: amount,
            period: budget.calendar().period(),
        })
    }

    /// Refuses if the limit is closed while the store is lost. A budget has the rest of its share before.
    fn check_store(&self, subject: &Subject, limit: &Limit, steady: u64) -> Result<(), Obstacle> {
        let link = match &limit.meter {
            Meter::Requests(rate) | Meter::Input(rate) | Meter::Output(rate) => {
                rate.share().map(|share| &share.link)
            }
            Meter::AtOnce(slots) => slots.share().map(|share| &share.link),
            Meter::Spend(_) => None,
        };
        match link {
            Some(link) if limit.is_closed() && link.is_lost(steady) => {
                let text = self.unreachable(subject, limit);
                let refusal = self.refuse(RefusalKind::StateUnreachable, &text);
                Err(Obstacle::Refused(refusal))
            }
            _ => Ok(()),
        }
    }

    fn unreachable(&self, subject: &Subject, limit: &Limit) -> String {
        let what = match &limit.meter {
            Meter::Requests(_) => "request limit",
            Meter::Input(_) => "limit of input tokens",
            Meter::Output(_) => "limit of output tokens",
            Meter::Spend(_) => "spend limit",
            Meter::AtOnce(_) => "limit of requests at once",
        };
        refusal::unreachable(&title(subject, self.key), what, limit.models.as_ref())
    }

    /// Gives back what was taken, as if it had not been.
    fn undo(&self, takings: Takings) {
        for taking in takings {
            match taking {
                Taking::Rate { rate, taken, .. } => rate.settle(taken, 0, taken.at),
                Taking::Money { cell, share, .. } => cell.update(share, Share::default()),
                Taking::Slot { _permit } => {}
            }
        }
    }

    fn refuse_spent(
        &self,
        subject: &Subject,
        limit: &Limit,
        budget: &Budget,
        cell: &Cell,
        amount: u64,
    ) -> Refusal {
        let calendar = budget.calendar();
        let who = title(subject, self.key);
        let text = refusal::spent(&who, amount, calendar, cell.end(), limit.models.as_ref());
        let refusal = self
            .refuse(RefusalKind::Spend, &text)
            .with_notice(SpendNotice {
                verdict: SpendVerdict::Spent,
                utilization: part(cell.spent(), amount),
                resets: cell.end(),
                period: calendar.period(),
            });
        match cell.end() {
            Some(end) => refusal.until(u64::try_from(end.saturating_sub(self.now)).unwrap_or(1)),
            None => refusal,
        }
    }

    fn refuse_reserved(
        &self,
        subject: &Subject,
        limit: &Limit,
        budget: &Budget,
        amount: u64,
    ) -> Refusal {
        let period = budget.calendar().period();
        let who = title(subject, self.key);
        let text = refusal::reserved(&who, amount, period, limit.models.as_ref(), RESERVED_WAIT);
        self.refuse(RefusalKind::SpendReserved, &text)
            .until(RESERVED_WAIT)
    }

    fn refuse_slot(&self, subject: &Subject, limit: &Limit, slots: &Slots) -> Refusal {
        let who = title(subject, self.key);
        let text = refusal::at_once(&who, limit.amount, limit.models.as_ref());
        // 1 s with an empty queue, 5 s with a full one
        let queued = slots.waiting().saturating_mul(2) / limit.amount.max(1);
        self.refuse(RefusalKind::AtOnce, &text)
            .until(1 + queued.min(4))
    }

    fn refuse(&self, kind: RefusalKind, text: &str) -> Refusal {
        let contact = self.context.contact();
        Refusal::new(kind, text, contact.as_ref().map(|it| it.as_str()))
    }
}

/// The model of a request, as it is spelt and as Anthropic spells it.
struct NamedModel<'a> {
    spelt: Option<&'a str>,
    canonical: OnceCell<String>,
}

impl<'a> NamedModel<'a> {
    fn new(spelt: Option<&'a str>) -> Self {
        Self {
            spelt,
            canonical: OnceCell::new(),
        }
    }

    /// Reports whether a limit of these models counts the request. A request that names no model is counted
    /// by each, and a provider's spelling as Anthropic's, so that neither is a way around a limit.
    fn counts(&self, models: Option<&Pattern>) -> bool {
        let (Some(pattern), Some(spelt)) = (models, self.spelt) else {
            return true;
        };
        pattern.matches(spelt) || pattern.matches(self.canonical.get_or_init(|| canonical(spelt)))
    }
}

/// A subject as texts for people name it.
fn title(subject: &Subject, key: &Key) -> String {
    match subject.id() {
        SubjectId::Org => "the organisation".to_owned(),
        SubjectId::Team(name) => format!("team {}", shortened(name, 48)),
        SubjectId::User(name) => format!("user {}", shortened(name, 48)),
        SubjectId::Key(_) => key.title(),
    }
}

/// Part of a limit; all of it for a limit of nothing.
pub(super) fn part(of: u64, limit: u64) -> f64 {
    if limit == 0 {
        1.0
    } else {
        of as f64 / limit as f64
    }
}

/// Seconds after which a client may ask again for money that is held: exchanges take 5 to 60 s.
const RESERVED_WAIT: u64 = 5;

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;
