//! Warnings before a budget is used up: one post for each budget and threshold, once a period.
//!
//! The ledger's thread looks at the budgets whose spend changed. A budget that is seen first has been told of by
//! earlier processes as far as it was spent before this one, so that a restart repeats no warning. Of replicas that
//! share a budget, the one that claims a threshold in the store tells of it; a store that cannot be asked silences
//! none: two warnings are better than none.

use std::{
    collections::HashMap,
    iter,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::money::{number, period_name, show_usd};
use crate::{
    access::{Access, LimitKind, LimitState, SpendRow, SubjectId},
    webhook::{Post, Webhook},
};

/// Budgets, and the thresholds that were told.
pub(super) struct BudgetWarnings {
    webhook: Webhook,
    /// By subject and cell.
    told: HashMap<(String, String), Told>,
}

/// Highest threshold that was told of a budget.
struct Told {
    percent: u8,
    /// The end of the period, in Unix seconds.
    resets: Option<i64>,
}

/// Facts of a warning.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct BudgetFacts {
    subject: String,
    /// The name of a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The threshold that was reached, in percent.
    threshold: u8,
    percent: f64,
    spent_usd: f64,
    limit_usd: f64,
    period: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<String>,
    /// The end of the period (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<String>,
}

impl BudgetWarnings {
    /// Makes warnings that go to a webhook.
    pub(super) fn new(webhook: Webhook) -> Self {
        Self {
            webhook,
            told: HashMap::new(),
        }
    }

    /// Posts what the rows that changed give reason to, unless `claim` says that another replica does.
    pub(super) fn look(
        &mut self,
        access: &Access,
        rows: &[SpendRow],
        now: SystemTime,
        claim: impl Fn(&Claim) -> bool,
    ) {
        for row in rows {
            let Ok(subject) = row.subject.parse::<SubjectId>() else {
                continue;
            };
            let states = access.explain(&subject, now);
            let is_it = |state: &&LimitState| state.cell.as_deref() == Some(&row.cell);
            if let Some(state) = states.iter().find(is_it)
                && let Some(mut post) = due(&mut self.told, state, row)
                && claim(&Claim::of(&post.facts, state, row, now))
            {
                if let SubjectId::Key(id) = &subject
                    && let Some(key) = access.key(*id)
                {
                    post.of_key(key.name(), [key.user(), key.team()]);
                }
                self.webhook.send(&post);
            }
        }
        if self.told.len() > MOST {
            let now = super::times::unix(now);
            self.told
                .retain(|_, told| told.resets.is_some_and(|resets| resets > now));
        }
    }
}

/// Claim of a replica on the warning of a threshold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The threshold, and those below it, of which nothing is to be told any more.
    pub(super) names: Vec<String>,
    /// Time for which it is claimed: until the budget begins anew.
    pub(super) life: Duration,
}

impl Claim {
    fn of(facts: &BudgetFacts, state: &LimitState, row: &SpendRow, now: SystemTime) -> Self {
        let SpendRow { subject, cell, .. } = row;
        let limit = state.amount.saturating_add(state.granted);
        let name = |threshold: &u8| format!("{subject}:{cell}:{limit}:{threshold}");
        let reached = THRESHOLDS.iter().rev().filter(|it| **it <= facts.threshold);
        let now = super::times::unix(now);
        let left = state.resets.map(|resets| resets.saturating_sub(now).max(0));
        let left = left.map(|left| Duration::from_secs(left.unsigned_abs()));
        Self {
            names: reached.map(name).collect(),
            life: left.map_or(LONGEST_CLAIM, |left| left.saturating_add(AFTER_END)),
        }
    }
}

impl Post<BudgetFacts> {
    /// Tells whose key it is: an id alone says little.
    fn of_key(&mut self, name: &str, owners: [Option<&str>; 2]) {
        let names: Vec<&str> = iter::once(name)
            .chain(owners.into_iter().flatten())
            .collect();
        let subject = &self.facts.subject;
        let named = format!("{subject} ({})", names.join(", "));
        self.text = self.text.replacen(subject.as_str(), &named, 1);
        self.facts.name = Some(name.to_owned());
    }
}

/// The post that a budget gives reason to, if it has reached another threshold.
fn due(
    told: &mut HashMap<(String, String), Told>,
    state: &LimitState,
    row: &SpendRow,
) -> Option<Post<BudgetFacts>> {
    let LimitKind::Spend { period, zone } = &state.kind else {
        return None;
    };
    let reached = threshold(state.spent, state.amount);
    let told = told
        .entry((row.subject.clone(), row.cell.clone()))
        .or_insert_with(|| Told {
            percent: threshold(state.spent.saturating_sub(row.spent), state.amount),
            resets: state.resets,
        });
    // a raised limit has its thresholds before it again
    let before = std::mem::replace(&mut told.percent, reached);
    if reached <= before {
        return None;
    }
    let zone = zone.as_deref().unwrap_or("UTC");
    let of = match &state.models {
        Some(models) => format!(" for {models}"),
        None => String::new(),
    };
    let text = format!(
        "Budget of {} is {:.0}% used: {} of {} a {}{of} ({zone}).",
        row.subject,
        state.percent,
        show_usd(state.spent),
        show_usd(state.amount),
        period_name(*period),
    );
    let facts = BudgetFacts {
        subject: row.subject.clone(),
        name: None,
        threshold: reached,
        percent: state.percent,
        spent_usd: number(state.spent),
        limit_usd: number(state.amount),
        period: period_name(*period),
        models: state.models.as_ref().map(ToString::to_string),
        resets_at: state.resets.map(super::times::show),
    };
    Some(Post {
        text,
        event: "budget_threshold",
        facts,
    })
}

/// Highest threshold that a spend has reached; 0 below the first.
fn threshold(spent: u64, amount: u64) -> u8 {
    let reached =
        |threshold: &&u8| u128::from(spent) * 100 >= u128::from(**threshold) * u128::from(amount);
    THRESHOLDS.iter().rev().find(reached).copied().unwrap_or(0)
}

/// Percent of a budget at which operators are warned.
const THRESHOLDS: [u8; 4] = [50, 80, 95, 100];

/// Time after the end of a period for which a claim stays: clocks of replicas differ.
const AFTER_END: Duration = Duration::from_secs(3600);

/// Time for which a threshold of a budget without an end is claimed.
const LONGEST_CLAIM: Duration = Duration::from_secs(400 * 24 * 3600);

/// Budgets that are remembered before those of past periods are forgotten.
const MOST: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Period;

    const DOLLAR: u64 = 1_000_000_000;

    fn state(spent: u64, amount: u64) -> LimitState {
        LimitState {
            subject: SubjectId::Team("core".to_owned()),
            default_of: None,
            kind: LimitKind::Spend {
                period: Period::Month,
                zone: Some("Europe/Berlin".into()),
            },
            models: None,
            amount: amount * DOLLAR,
            granted: 0,
            spent: spent * DOLLAR,
            held: 0,
            left: 0,
            percent: 100.0 * spent as f64 / amount as f64,
            waiting: 0,
            resets: Some(1_796_079_600),
            cell: Some("2026-11@Europe/Berlin".to_owned()),
            shared: None,
            unreachable: None,
        }
    }

    fn row(spent: u64) -> SpendRow {
        SpendRow {
            subject: "team:core".to_owned(),
            cell: "2026-11@Europe/Berlin".to_owned(),
            spent: spent * DOLLAR,
            upto: spent * DOLLAR,
        }
    }

    #[test]
    fn each_threshold_is_told_once_and_again_after_the_limit_was_raised() {
        let mut told = HashMap::new();
        let mut look = |spent, amount| {
            let post = due(&mut told, &state(spent, amount), &row(spent));
            post.map(|post| post.facts.threshold)
        };
        assert_eq!(look(10, 100), None);
        assert_eq!(look(50, 100), Some(50));
        assert_eq!(look(79, 100), None);
        assert_eq!(look(96, 100), Some(95));
        assert_eq!(look(99, 100), None);
        assert_eq!(look(120, 100), Some(100));
        assert_eq!(look(130, 100), None);
        assert_eq!(look(130, 200), None);
        assert_eq!(look(160, 200), Some(80));
    }

    #[test]
    fn a_restart_repeats_no_warning() {
        // 85 of 100 dollars, 80 of them before this process
        assert!(due(&mut HashMap::new(), &state(85, 100), &row(5)).is_none());
        let crossed = due(&mut HashMap::new(), &state(85, 100), &row(6)).unwrap();
        assert_eq!(crossed.facts.threshold, 80);
    }

    #[test]
    fn a_claim_takes_the_thresholds_below_it_along_and_ends_after_the_period() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_079_000);
        let post = due(&mut HashMap::new(), &state(96, 100), &row(96)).unwrap();
        let claim = Claim::of(&post.facts, &state(96, 100), &row(96), now);
        let named = |threshold| format!("team:core:2026-11@Europe/Berlin:100000000000:{threshold}");
        assert_eq!(claim.names, [95, 80, 50].map(named));
        assert_eq!(claim.life, Duration::from_secs(600 + 3600));
        let endless = LimitState {
            resets: None,
            ..state(96, 100)
        };
        let claim = Claim::of(&post.facts, &endless, &row(96), now);
        assert_eq!(claim.life, LONGEST_CLAIM);
    }

    #[test]
    fn a_warning_says_whose_key_it_is() {
        let mut post = due(&mut HashMap::new(), &state(410, 500), &row(410)).unwrap();
        post.of_key("laptop", [Some("ada"), None]);
        assert!(
            post.text
                .starts_with("Budget of team:core (laptop, ada) is 82% used"),
            "{}",
            post.text
        );
        assert_eq!(post.facts.name.as_deref(), Some("laptop"));
    }

    #[test]
    fn a_warning_says_who_how_much_and_until_when() {
        let post = due(&mut HashMap::new(), &state(410, 500), &row(410)).unwrap();
        assert_eq!(
            serde_json::to_value(&post).unwrap(),
            serde_json::json!({
                "text": "Budget of team:core is 82% used: $410 of $500 a month (Europe/Berlin).",
                "event": "budget_threshold", "subject": "team:core", "threshold": 80,
                "percent": 82.0, "spent_usd": 410.0, "limit_usd": 500.0, "period": "month",
                "resets_at": "2026-11-30T23:00:00Z",
            })
        );
    }
}
