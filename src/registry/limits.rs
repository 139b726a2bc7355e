//! Limits of subjects: set, and added to for a time.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    author::Author,
    call::{GrantBudget, SetLimits},
    core::{PlannedChange, Registry},
    error::RegistryError,
    keys::{checked, reason, so, variable_name},
    money,
    shape::{LimitShape, twice},
    times,
    view::{GrantRow, Reply},
};
use crate::{
    access::{BudgetGrant, Key, LimitKind, LimitRule, Pattern, SubjectId, SubjectRecord},
    audit::AuditTarget,
};

/// Limits of one subject: enough for each kind, and for many models.
const MOST: usize = 64;

/// Limits that a change replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced<'a> {
    /// All.
    All,
    /// Those of a pattern of models.
    Of(&'a str),
    /// Those that bound what a limit of the change bounds.
    Named,
}

impl<'a> Replaced<'a> {
    fn by(change: &'a SetLimits) -> Result<Self, RegistryError> {
        let invalid = |fault: &str| Err(RegistryError::Invalid(fault.to_owned()));
        match (&change.models, change.merge) {
            (Some(_), true) => invalid("models: it is for a change without merge; leave one out"),
            (Some(models), false) => {
                let pattern: Result<Pattern, _> = models.parse();
                match pattern {
                    Ok(_) => Ok(Self::Of(models)),
                    Err(error) => invalid(&format!("models {models:?}: {error}")),
                }
            }
            (None, true) => Ok(Self::Named),
            (None, false) => Ok(Self::All),
        }
    }
}

/// Limits after a change, in the order in which they are shown.
fn merged(
    before: &[LimitRule],
    change: &[LimitShape],
    replaced: Replaced<'_>,
) -> Result<Vec<LimitRule>, String> {
    let is_replaced = |rule: &&LimitRule| {
        let shape = LimitShape::of(rule);
        match replaced {
            Replaced::All => true,
            Replaced::Of(models) => shape.models.as_deref() == Some(models),
            Replaced::Named => change.iter().any(|it| it.names(&shape)),
        }
    };
    let kept = before.iter().filter(|rule| !is_replaced(rule));
    let mut rules: Vec<_> = kept.cloned().collect();
    for shape in change {
        if let Replaced::Of(models) = replaced
            && shape.models.as_deref() != Some(models)
        {
            let text = shape.text();
            return Err(format!("{text} is no limit of the models {models:?}"));
        }
        let is_removal = replaced == Replaced::Named && shape.has_no_amount();
        if !is_removal {
            rules.push(shape.rule()?);
        }
    }
    if let Some(twice) = twice(&rules) {
        return Err(format!("{twice} is there twice"));
    }
    if rules.len() > MOST {
        return Err(format!("there are more than {MOST} limits"));
    }
    rules.sort_by_key(|rule| {
        let shape = LimitShape::of(rule);
        (shape.kind, shape.period, shape.models)
    });
    Ok(rules)
}

/// A subject in the audit.
pub(super) fn audited_subject(record: Option<&SubjectRecord>) -> Value {
    let Some(record) = record else {
        return Value::Null;
    };
    let shapes = |rules: &[LimitRule]| rules.iter().map(LimitShape::of).collect::<Vec<_>>();
    json!({
        "limits": shapes(&record.limits),
        "user_limits": shapes(&record.user_limits),
        "upstream_key_env": record.upstream_key_env,
        "grants": grants(record, 0),
    })
}

pub(super) fn grants(record: &SubjectRecord, now: i64) -> Vec<GrantRow> {
    let rows = record.grants.iter().map(|grant| GrantRow {
        amount_usd: money::number(grant.amount),
        until: times::show(grant.until),
        is_active: grant.until > now,
        reason: grant.reason.clone(),
        created_at: times::show(grant.created),
    });
    rows.collect()
}

fn subject_target(subject: &SubjectId) -> AuditTarget {
    AuditTarget {
        kind: "subject".to_owned(),
        id: subject.to_string(),
    }
}

fn is_budget(rule: &LimitRule) -> bool {
    matches!(rule.kind, LimitKind::Spend { .. })
}

impl Registry {
    /// Reads the name of a subject that exists: of a key, by its id or its name.
    pub(super) fn subject(&self, text: &str) -> Result<SubjectId, RegistryError> {
        if let Some(key) = text.strip_prefix("key:") {
            let key = self.found(key)?;
            return Ok(SubjectId::Key(key.id()));
        }
        let subject: SubjectId = text
            .parse()
            .map_err(|error| RegistryError::Invalid(format!("{error}")))?;
        let (what, name, known) = match &subject {
            SubjectId::Org | SubjectId::Key(_) => return Ok(subject),
            SubjectId::Team(name) => ("team", name, self.names(Key::team)),
            SubjectId::User(name) => ("user", name, self.names(Key::user)),
        };
        if known.contains(name) {
            return Ok(subject);
        }
        Err(RegistryError::NotFound(unknown(what, name, &known)))
    }

    /// Names that keys have.
    fn names(&self, of: impl Fn(&Key) -> Option<&str>) -> BTreeSet<String> {
        let keys = self.access.keys();
        let names = keys.iter().filter_map(|key| of(key).map(str::to_owned));
        names.collect()
    }

    pub(super) fn set_limits(
        &self,
        author: &Author,
        subject: &str,
        change: &SetLimits,
    ) -> Result<Reply, RegistryError> {
        let invalid =
            |fault: String| RegistryError::Invalid(format!("{fault}; nothing was changed"));
        let said = change.reason.as_deref().filter(|it| !it.trim().is_empty());
        let said = said.map(reason).transpose()?;
        if let Some(variable) = change
            .upstream_key_env
            .as_deref()
            .filter(|it| !it.is_empty())
        {
            variable_name(variable)
                .map_err(|fault| invalid(format!("upstream_key_env: {fault}")))?;
        }
        let id = self.change(author, "limits.set", said.as_deref(), || {
            let id = self.subject(subject)?;
            match id {
                SubjectId::Key(_) => self.planned_key(&id, change),
                _ => self.planned_subject(&id, change),
            }
            .map_err(|error| so(error, "nothing was changed"))
        })?;
        let mut limits = self.limits_of(&id);
        limits.warnings = self.warnings_of(&id);
        Ok(Reply::Limits(limits))
    }

    fn planned_key(
        &self,
        id: &SubjectId,
        change: &SetLimits,
    ) -> Result<PlannedChange<SubjectId>, RegistryError> {
        let now = times::now();
        let key = match id {
            SubjectId::Key(key) => self.access.key(*key),
            _ => None,
        };
        let key = key.ok_or_else(|| RegistryError::NotFound(format!("{id} is unknown")))?;
        if change.user_limits.is_some() {
            let fault = "limits of each user are for teams";
            return Err(RegistryError::Invalid(fault.to_owned()));
        }
        let before = key.record();
        let mut record = before.clone();
        if let Some(shapes) = &change.limits {
            let replaced = Replaced::by(change)?;
            record.limits =
                merged(&before.limits, shapes, replaced).map_err(RegistryError::Invalid)?;
        }
        if let Some(variable) = &change.upstream_key_env {
            record.upstream_key_env = Some(variable.clone()).filter(|it| !it.is_empty());
        }
        checked(&record.check())?;
        let is_new = record != before;
        Ok(PlannedChange {
            target: subject_target(id),
            before: super::keys::audited(Some(&before), now),
            after: super::keys::audited(Some(&record), now),
            keys: if is_new { vec![record] } else { Vec::new() },
            subjects: Vec::new(),
            answer: id.clone(),
        })
    }

    fn planned_subject(
        &self,
        id: &SubjectId,
        change: &SetLimits,
    ) -> Result<PlannedChange<SubjectId>, RegistryError> {
        let is_team = matches!(id, SubjectId::Team(_));
        if change.user_limits.is_some() && !is_team {
            let fault = "limits of each user are for teams";
            return Err(RegistryError::Invalid(fault.to_owned()));
        }
        if change.upstream_key_env.is_some() && !is_team {
            let fault = "upstream_key_env is for keys and teams";
            return Err(RegistryError::Invalid(fault.to_owned()));
        }
        let before = self.access.subject(id);
        let mut record = before.clone().unwrap_or_default();
        let replaced = Replaced::by(change)?;
        if let Some(shapes) = &change.limits {
            record.limits =
                merged(&record.limits, shapes, replaced).map_err(RegistryError::Invalid)?;
        }
        if let Some(shapes) = &change.user_limits {
            record.user_limits =
                merged(&record.user_limits, shapes, replaced).map_err(RegistryError::Invalid)?;
        }
        if let Some(variable) = &change.upstream_key_env {
            record.upstream_key_env = Some(variable.clone()).filter(|it| !it.is_empty());
        }
        checked(&record.check(id))?;
        let is_new = record != before.clone().unwrap_or_default();
        Ok(PlannedChange {
            target: subject_target(id),
            before: audited_subject(before.as_ref()),
            after: audited_subject(Some(&record)),
            keys: Vec::new(),
            subjects: if is_new {
                vec![(id.clone(), record)]
            } else {
                Vec::new()
            },
            answer: id.clone(),
        })
    }

    pub(super) fn grant(
        &self,
        author: &Author,
        subject: &str,
        grant: &GrantBudget,
    ) -> Result<Reply, RegistryError> {
        let invalid =
            |fault: String| RegistryError::Invalid(format!("{fault}; nothing was granted"));
        let now = times::now();
        let said = &*reason(&grant.reason)?;
        let amount = money::usd(&grant.amount).map_err(invalid)?;
        if amount == 0 {
            return Err(invalid("the amount is 0".to_owned()));
        }
        let until =
            times::moment(&grant.until, now).map_err(|fault| invalid(format!("until: {fault}")))?;
        if until <= now {
            return Err(invalid(format!("until: {} is over", times::show(until))));
        }
        let id = self.change(author, "limits.grant", Some(said), || {
            let id = self.subject(subject)?;
            if !self.has_budget(&id) {
                return Err(RegistryError::Invalid(format!(
                    "{id} has no budget; nothing was granted; set one with limits set {id} --budget"
                )));
            }
            let before = self.access.subject(&id);
            let mut record = before.clone().unwrap_or_default();
            record.grants.retain(|grant| grant.until > now);
            record.grants.push(BudgetGrant {
                amount,
                until,
                reason: said.to_owned(),
                created: now,
            });
            if record.grants.len() > MOST {
                return Err(RegistryError::Invalid(format!(
                    "{id} has {MOST} additions already; nothing was granted; raise its budget"
                )));
            }
            Ok(PlannedChange {
                target: subject_target(&id),
                before: audited_subject(before.as_ref()),
                after: audited_subject(Some(&record)),
                keys: Vec::new(),
                subjects: vec![(id.clone(), record)],
                answer: id,
            })
        })?;
        Ok(Reply::Limits(self.limits_of(&id)))
    }

    fn has_budget(&self, id: &SubjectId) -> bool {
        let of_subject = |id: &SubjectId| {
            let record = self.access.subject(id);
            record.is_some_and(|it| it.limits.iter().any(is_budget))
        };
        match id {
            SubjectId::Key(key) => {
                let key = self.access.key(*key);
                key.is_some_and(|key| key.record().limits.iter().any(is_budget))
            }
            SubjectId::User(name) => {
                // each user of a team may have one by default
                let keys = self.access.keys();
                let teams: BTreeSet<&str> = keys
                    .iter()
                    .filter(|key| key.user() == Some(name))
                    .filter_map(|key| key.team())
                    .collect();
                of_subject(id)
                    || teams.iter().any(|team| {
                        let team = self.access.subject(&SubjectId::Team((*team).to_owned()));
                        team.is_some_and(|it| it.user_limits.iter().any(is_budget))
                    })
            }
            SubjectId::Org | SubjectId::Team(_) => of_subject(id),
        }
    }

    fn warnings_of(&self, id: &SubjectId) -> Vec<String> {
        match id {
            SubjectId::Key(key) => self.access.key(*key).map_or_else(Vec::new, |key| {
                let record = key.record();
                self.unpriced(&record.models, &record.limits)
            }),
            _ => self.access.subject(id).map_or_else(Vec::new, |record| {
                let all = [record.limits, record.user_limits].concat();
                self.unpriced(&[], &all)
            }),
        }
    }

    /// Warnings for patterns that match no model with a price.
    pub(super) fn unpriced(&self, models: &[Pattern], limits: &[LimitRule]) -> Vec<String> {
        let prices = self.settings().prices;
        let of_limits = limits.iter().filter_map(|rule| rule.models.as_ref());
        let patterns: BTreeSet<&Pattern> = models.iter().chain(of_limits).collect();
        let unpriced = patterns.into_iter().filter(|pattern| {
            let mut names = prices.names();
            !names.any(|name| may_match(pattern.as_str(), name))
        });
        unpriced
            .map(|pattern| {
                format!(
                    "{pattern} matches no model that has a price: it may be mistyped, and what it costs is not \
                     known"
                )
            })
            .collect()
    }
}

/// Text for a subject that does not exist, with what is near.
pub(super) fn unknown(what: &str, name: &str, known: &BTreeSet<String>) -> String {
    let near = known
        .iter()
        .map(|it| (strsim::damerau_levenshtein(it, name), it))
        .filter(|(distance, it)| *distance <= 1 + it.chars().count() / 4)
        .min();
    let hint = match near {
        Some((_, near)) => format!("did you mean {what}:{near}?"),
        None => format!("create a key with --{what} {name:?} first"),
    };
    format!("{what}:{name} is unknown: no key has this {what}; nothing was changed; {hint}")
}

/// True if a pattern matches a name that begins with a prefix.
fn may_match(pattern: &str, prefix: &str) -> bool {
    let pattern = pattern.as_bytes();
    // the places in the pattern that the prefix may lead to
    let mut places: BTreeSet<usize> = [0].into();
    let widened = |places: &BTreeSet<usize>| {
        let mut wide = places.clone();
        for place in places {
            let stars = pattern[*place..]
                .iter()
                .take_while(|it| **it == b'*')
                .count();
            wide.extend((1..=stars).map(|more| place + more));
        }
        wide
    };
    for octet in prefix.bytes() {
        let mut next = BTreeSet::new();
        for place in widened(&places) {
            match pattern.get(place) {
                Some(b'*') => {
                    next.insert(place);
                }
                Some(it) if *it == octet => {
                    next.insert(place + 1);
                }
                _ => {}
            }
        }
        places = next;
    }
    !places.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_match_names_that_begin_with_a_prefix() {
        for (pattern, prefix, expected) in [
            ("claude-opus-*", "claude-opus-4", true),
            ("claude-opus-4-5-20251101", "claude-opus-4-5", true),
            ("claude-opus-4", "claude-opus-4", true),
            ("claude-opus", "claude-opus-4", false),
            ("*", "claude-opus-4", true),
            ("*opus*", "claude-opus-4", true),
            ("*-20251101", "claude-opus-4", true),
            ("claude-opsu-*", "claude-opus-4", false),
            ("Claude-opus-*", "claude-opus-4", false),
            ("gpt-*", "claude-opus-4", false),
            ("**claude**", "claude-opus-4", true),
        ] {
            assert_eq!(may_match(pattern, prefix), expected, "{pattern} {prefix}");
        }
    }

    #[test]
    fn a_merge_replaces_limits_of_one_kind_period_and_models() {
        let shape = |text: &str| serde_json::from_str::<LimitShape>(text).unwrap();
        let rule = |text: &str| shape(text).rule().unwrap();
        let before = [
            rule(r#"{"kind":"requests_per_minute","amount":60}"#),
            rule(r#"{"kind":"spend","amount_usd":5.0,"period":"day"}"#),
            rule(r#"{"kind":"spend","amount_usd":50.0,"period":"month"}"#),
        ];
        let change = [
            shape(r#"{"kind":"spend","amount_usd":9.0,"period":"day","zone":"UTC"}"#),
            shape(r#"{"kind":"requests_per_minute"}"#),
            shape(r#"{"kind":"spend","amount_usd":1.0,"period":"day","models":"claude-opus-*"}"#),
        ];
        let after = merged(&before, &change, Replaced::Named).unwrap();
        let texts: Vec<_> = after.iter().map(|it| LimitShape::of(it).text()).collect();
        assert_eq!(
            texts,
            ["$9/day@UTC", "$1/day of claude-opus-*", "$50/month"]
        );
        assert!(
            merged(&before, &change, Replaced::All).is_err(),
            "one has no amount"
        );
        assert_eq!(merged(&before, &[], Replaced::All), Ok(Vec::new()));
        let again = [
            change[0].clone(),
            shape(r#"{"kind":"spend","amount_usd":1.0,"period":"day"}"#),
        ];
        assert!(
            merged(&[], &again, Replaced::Named)
                .unwrap_err()
                .contains("twice")
        );
    }

    #[test]
    fn limits_of_one_pattern_are_removed_alone() {
        let shape = |text: &str| serde_json::from_str::<LimitShape>(text).unwrap();
        let rule = |text: &str| shape(text).rule().unwrap();
        let before = [
            rule(r#"{"kind":"spend","amount_usd":2000.0,"period":"month"}"#),
            rule(r#"{"kind":"spend","amount_usd":5.0,"period":"day"}"#),
            rule(r#"{"kind":"spend","amount_usd":7.0,"period":"day","models":"gpt-*"}"#),
            rule(r#"{"kind":"at_once","amount":3,"models":"gpt-*"}"#),
        ];
        let texts = |rules: &[LimitRule]| -> Vec<_> {
            rules.iter().map(|it| LimitShape::of(it).text()).collect()
        };
        let after = merged(&before, &[], Replaced::Of("gpt-*")).unwrap();
        assert_eq!(texts(&after), ["$5/day", "$2000/month"]);
        let one = shape(r#"{"kind":"at_once","amount":9,"models":"gpt-*"}"#);
        let after = merged(&before, &[one], Replaced::Of("gpt-*")).unwrap();
        assert_eq!(
            texts(&after),
            ["9 at once of gpt-*", "$5/day", "$2000/month"]
        );
        let other = shape(r#"{"kind":"at_once","amount":9}"#);
        assert!(merged(&before, &[other], Replaced::Of("gpt-*")).is_err());
        let no_budget = shape(r#"{"kind":"spend"}"#);
        let after = merged(&before, &[no_budget], Replaced::Named).unwrap();
        assert_eq!(texts(&after), ["3 at once of gpt-*", "$7/day of gpt-*"]);
    }

    #[test]
    fn an_unknown_subject_is_told_with_what_is_near() {
        let known = ["core", "web"].map(str::to_owned).into();
        assert!(unknown("team", "cor", &known).ends_with("did you mean team:core?"));
        assert!(
            unknown("team", "other", &known).ends_with("create a key with --team \"other\" first")
        );
    }
}
