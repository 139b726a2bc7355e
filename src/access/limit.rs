//! Limits of one subject, and the meters that they read.
//!
//! A meter belongs to a kind and to the models it counts, and outlives changes of the amount: a changed limit
//! keeps what was spent, and what runs goes on.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};

use super::{
    budget::Budget,
    cell::{OtherSpend, SpendRow},
    others::OtherSpends,
    pattern::Pattern,
    period::Calendar,
    rate::Rate,
    record::{BudgetGrant, LimitKind, LimitRule, SubjectId, Unreachable},
    slots::Slots,
};
use crate::config::Credential;

/// A limit in effect.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) amount: u64,
    /// The models that it counts; none: all.
    pub(super) models: Option<Pattern>,
    /// The effect that it has while the store that replicas share it in is lost, if an operator chose one.
    pub(super) unreachable: Option<Unreachable>,
    pub(super) meter: Meter,
}

impl Limit {
    /// Reports whether it refuses requests while the store is lost.
    pub(super) fn is_closed(&self) -> bool {
        Unreachable::is_closed(self.unreachable, matches!(self.meter, Meter::Spend(_)))
    }
}

/// Counter of a limit.
#[derive(Debug, Clone)]
pub(super) enum Meter {
    /// Requests a minute.
    Requests(Arc<Rate>),
    /// Tokens of input a minute.
    Input(Arc<Rate>),
    /// Tokens of output a minute.
    Output(Arc<Rate>),
    /// Spend by period.
    Spend(Arc<Budget>),
    /// Exchanges at once.
    AtOnce(Arc<Slots>),
}

/// Rules of one subject that are in effect.
#[derive(Default)]
pub(super) struct Policy {
    pub(super) rules: Box<[LimitRule]>,
    /// The rules with their meters, made when they are first asked for: of a hundred thousand subjects, few
    /// are active. Slots last: what refuses at once comes before what waits.
    limits: OnceLock<Box<[Limit]>>,
    grants: Box<[BudgetGrant]>,
    /// The credential for the upstream, and the variable that holds it.
    pub(super) upstream: Option<UpstreamCredential>,
}

/// Credential for the upstream that an operator named by its variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UpstreamCredential {
    pub(super) variable: Box<str>,
    /// None if the variable is not set, or its value is no credential.
    pub(super) credential: Option<Arc<Credential>>,
}

impl Policy {
    /// The limits.
    pub(super) fn limits(&self) -> &[Limit] {
        self.limits.get().map_or(&[], |limits| limits)
    }

    /// Reports whether a limit depends on the model of a request.
    pub(super) fn depends_on_model(&self) -> bool {
        self.limits().iter().any(|limit| match limit.meter {
            Meter::Requests(_) | Meter::AtOnce(_) => limit.models.is_some(),
            Meter::Input(_) | Meter::Output(_) | Meter::Spend(_) => true,
        })
    }

    /// Additions to the budgets of the subject.
    pub(super) fn granted(&self, now: i64) -> u64 {
        let in_effect = |grant: &&BudgetGrant| (grant.created..grant.until).contains(&now);
        let amounts = self.grants.iter().filter(in_effect);
        amounts.fold(0, |sum, grant| sum.saturating_add(grant.amount))
    }
}

/// A subject with its limits.
pub(super) struct Subject {
    id: SubjectId,
    /// The team whose default for each of its users this is.
    default_of: Option<Box<str>>,
    /// The id as text, which the ledger knows it by.
    name: Arc<str>,
    policy: ArcSwap<Policy>,
    /// False while the policy is that of all subjects without rules, as those of most requests are.
    has_rules: AtomicBool,
    /// Every meter that the subject has had.
    meters: Mutex<Vec<KnownMeter>>,
    others: Arc<OtherSpends>,
}

struct KnownMeter {
    models: Option<Pattern>,
    meter: Meter,
}

impl KnownMeter {
    /// Reports whether it counts what a rule bounds, whatever the amount.
    fn counts(&self, rule: &LimitRule) -> bool {
        self.models == rule.models
            && match (&self.meter, &rule.kind) {
                (Meter::Requests(_), LimitKind::RequestsPerMinute)
                | (Meter::Input(_), LimitKind::InputTokensPerMinute)
                | (Meter::Output(_), LimitKind::OutputTokensPerMinute)
                | (Meter::AtOnce(_), LimitKind::AtOnce) => true,
                (Meter::Spend(budget), LimitKind::Spend { period, zone }) => {
                    budget.calendar().is(*period, zone.as_deref())
                }
                _ => false,
            }
    }
}

/// Input of a change of limits.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) rules: &'a [LimitRule],
    pub(super) grants: &'a [BudgetGrant],
}

impl Subject {
    pub(super) fn new(
        id: SubjectId,
        default_of: Option<&str>,
        others: &Arc<OtherSpends>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: id.to_string().into(),
            id,
            default_of: default_of.map(Box::from),
            policy: ArcSwap::new(Arc::clone(&NOTHING)),
            has_rules: AtomicBool::new(false),
            meters: Mutex::default(),
            others: Arc::clone(others),
        })
    }

    pub(super) fn id(&self) -> &SubjectId {
        &self.id
    }

    /// The team whose default for each of its users this is.
    pub(super) fn default_of(&self) -> Option<&str> {
        self.default_of.as_deref()
    }

    /// Reports whether there are rules that could be in effect.
    pub(super) fn has_rules(&self) -> bool {
        self.has_rules.load(Ordering::Acquire)
    }

    /// The rules in effect, with their meters.
    pub(super) fn policy(&self) -> Guard<Arc<Policy>> {
        let policy = self.policy.load();
        if policy.limits.get().is_none() {
            self.build(&policy);
        }
        policy
    }

    /// The rules in effect as they are at this moment, perhaps without their meters.
    pub(super) fn effective(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The rules in effect, perhaps without their meters.
    pub(super) fn rules(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// Reports whether it has a meter.
    #[cfg(test)]
    pub(super) fn has_meters(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Puts rules into effect, at once and for all workers.
    pub(super) fn apply(&self, change: Change<'_>, upstream: Option<UpstreamCredential>) {
        let mut meters = self.lock();
        let is_empty = change.rules.is_empty() && change.grants.is_empty() && upstream.is_none();
        let policy = match is_empty && meters.is_empty() {
            true => Arc::clone(&NOTHING),
            false => Arc::new(Policy {
                rules: change.rules.into(),
                limits: OnceLock::new(),
                grants: change.grants.into(),
                upstream,
            }),
        };
        // where there are meters, requests may wait for what changes
        if !meters.is_empty() {
            let limits = self.limits(&mut meters, &policy.rules);
            adjust_slots(&meters, &limits);
            let _ = policy.limits.set(limits);
        }
        let has_rules = !Arc::ptr_eq(&policy, &NOTHING);
        self.policy.store(policy);
        self.has_rules.store(has_rules, Ordering::Release);
    }

    /// Makes the meters of a policy.
    #[cold]
    fn build(&self, policy: &Arc<Policy>) {
        policy.limits.get_or_init(|| {
            let mut meters = self.lock();
            let limits = self.limits(&mut meters, &policy.rules);
            // rules that were replaced meanwhile change nothing for those that wait
            if Arc::ptr_eq(&self.policy.load(), policy) {
                adjust_slots(&meters, &limits);
            }
            limits
        });
    }

    /// The limits of rules; of each kind and pattern, the meter that there is already.
    fn limits(&self, meters: &mut Vec<KnownMeter>, rules: &[LimitRule]) -> Box<[Limit]> {
        let limits = rules.iter().map(|rule| Limit {
            amount: rule.amount,
            models: rule.models.clone(),
            unreachable: rule.unreachable,
            meter: self.meter(meters, rule),
        });
        let mut limits: Box<[Limit]> = limits.collect();
        limits.sort_by_key(|limit| matches!(limit.meter, Meter::AtOnce(_)));
        limits
    }

    /// Takes what other processes have spent in a cell.
    pub(super) fn follow(&self, cell: &str, spend: OtherSpend) {
        for known in self.lock().iter() {
            if let Meter::Spend(budget) = &known.meter {
                budget.follow(cell, spend);
            }
        }
    }

    fn meter(&self, meters: &mut Vec<KnownMeter>, rule: &LimitRule) -> Meter {
        if let Some(known) = meters.iter().find(|known| known.counts(rule)) {
            return known.meter.clone();
        }
        let suffix = self.suffix(rule.models.as_ref());
        let link = |name: &str| {
            let sharing = self.others.sharing()?;
            Some(sharing.link(&self.name, format!("{name}{suffix}")))
        };
        let rate =
            |name: &str| link(name).map_or_else(Arc::default, |it| Arc::new(Rate::shared(it)));
        let meter = match &rule.kind {
            LimitKind::RequestsPerMinute => Meter::Requests(rate("r:requests")),
            LimitKind::InputTokensPerMinute => Meter::Input(rate("r:input")),
            LimitKind::OutputTokensPerMinute => Meter::Output(rate("r:output")),
            LimitKind::AtOnce => Meter::AtOnce(Slots::new(rule.amount, link("s"))),
            LimitKind::Spend { period, zone } => {
                // a rule's check refuses an unknown zone; of a store that was changed by hand, UTC counts
                let calendar = Calendar::new(*period, zone.as_deref());
                let calendar = calendar.unwrap_or_else(|_| Calendar::utc(*period));
                let budget = Budget::new(
                    calendar,
                    Arc::clone(&self.name),
                    suffix.into(),
                    Arc::clone(&self.others),
                );
                Meter::Spend(Arc::new(budget))
            }
        };
        // most subjects have one or two, and there may be a hundred thousand of them
        meters.reserve_exact(1);
        meters.push(KnownMeter {
            models: rule.models.clone(),
            meter: meter.clone(),
        });
        meter
    }

    /// Behind the period in the names of cells: `|models`, and `|models|team:core` for a team's default.
    fn suffix(&self, models: Option<&Pattern>) -> String {
        let models = models.map(Pattern::as_str);
        match (&self.default_of, models) {
            (None, None) => String::new(),
            (None, Some(models)) => format!("|{models}"),
            (Some(team), models) => format!("|{}|team:{team}", models.unwrap_or_default()),
        }
    }

    /// Marks its meters of budgets for a report to the store.
    pub(super) fn resend(&self) {
        for known in self.lock().iter() {
            if let Meter::Spend(budget) = &known.meter {
                let cells = budget.recent();
                cells.iter().for_each(|cell| cell.note(false));
            }
        }
    }

    /// The last rows of the ledger.
    pub(super) fn close(&self, rows: &mut Vec<SpendRow>) {
        for known in self.lock().iter() {
            if let Meter::Spend(budget) = &known.meter {
                let cells = budget.recent();
                rows.extend(cells.iter().filter_map(|cell| cell.close()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<KnownMeter>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the amounts of slots into effect. Without a limit, nothing waits for them any longer.
fn adjust_slots(meters: &[KnownMeter], limits: &[Limit]) {
    for known in meters {
        if let Meter::AtOnce(slots) = &known.meter {
            let is_same = |limit: &&Limit| match &limit.meter {
                Meter::AtOnce(other) => Arc::ptr_eq(slots, other),
                _ => false,
            };
            let limit = limits.iter().find(is_same);
            slots.limit_to(limit.map_or(u64::MAX, |limit| limit.amount));
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.name)
    }
}

/// Policy of all subjects without rules.
static NOTHING: LazyLock<Arc<Policy>> = LazyLock::new(|| {
    Arc::new(Policy {
        limits: OnceLock::from(Box::default()),
        ..Policy::default()
    })
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::record::Period;
    fn rule(kind: LimitKind, amount: u64, models: Option<&str>) -> LimitRule {
        LimitRule {
            kind,
            amount,
            models: models.map(|it| it.parse().unwrap()),
            unreachable: None,
        }
    }

    fn apply(subject: &Subject, rules: &[LimitRule]) {
        let change = Change { rules, grants: &[] };
        subject.apply(change, None);
    }

    fn month() -> LimitKind {
        LimitKind::Spend {
            period: Period::Month,
            zone: None,
        }
    }

    fn spent(subject: &Subject, at: usize) -> (u64, String) {
        match &subject.policy().limits()[at].meter {
            Meter::Spend(budget) => {
                let cell = budget.cell(0);
                let _ = cell.hold(1, 100);
                (cell.held(), cell.name().to_owned())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn meters_outlive_changes_of_amount_and_removal() {
        let subject = Subject::new(SubjectId::Org, None, &Arc::default());
        let some = rule(month(), 5, Some("m-*"));
        apply(&subject, &[rule(month(), 5, None), some.clone()]);
        assert_eq!(spent(&subject, 0), (1, "1970-01@UTC".into()));
        assert_eq!(spent(&subject, 1), (1, "1970-01@UTC|m-*".into()));
        apply(&subject, &[]);
        assert!(subject.policy().limits().is_empty());
        apply(&subject, &[some, rule(month(), 9, None)]);
        assert_eq!(spent(&subject, 0), (2, "1970-01@UTC|m-*".into()));
        assert_eq!(spent(&subject, 1).0, 2);
        let utc = LimitKind::Spend {
            period: Period::Month,
            zone: Some("utc".into()),
        };
        apply(&subject, &[rule(utc, 9, None)]);
        assert_eq!(spent(&subject, 0).0, 3, "the same zone");
    }

    #[test]
    fn defaults_of_a_team_have_cells_of_their_own() {
        let user = SubjectId::User("ann".into());
        let subject = Subject::new(user, Some("core"), &Arc::default());
        apply(&subject, &[rule(month(), 5, None)]);
        assert_eq!(spent(&subject, 0).1, "1970-01@UTC||team:core");
    }

    #[test]
    fn slots_come_last_and_waiters_leave_with_their_limit() {
        let subject = Subject::new(SubjectId::Org, None, &Arc::default());
        let slots = rule(LimitKind::AtOnce, 1, None);
        let rate = rule(LimitKind::RequestsPerMinute, 1, None);
        apply(&subject, &[slots, rate.clone()]);
        let policy = subject.policy();
        let Meter::AtOnce(slots) = &policy.limits()[1].meter else {
            panic!("{:?}", policy.limits());
        };
        let (_permit, _waiter) = (slots.take().unwrap(), slots.wait(1).unwrap());
        assert_eq!(slots.waiting(), 1);
        apply(&subject, &[rate]);
        assert_eq!(slots.waiting(), 0);
    }

    #[test]
    fn grants_count_from_their_creation_to_their_end() {
        let grant = |amount, created, until| BudgetGrant {
            amount,
            until,
            reason: "test".into(),
            created,
        };
        let policy = Policy {
            grants: [grant(1, 0, 10), grant(20, 5, 15)].into(),
            ..Policy::default()
        };
        let granted = [-1, 0, 5, 9, 10, 15].map(|now| policy.granted(now));
        assert_eq!(granted, [0, 1, 21, 21, 20, 0]);
    }
}
