//! Answers to calls, as the API and the command line show it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{money, times};
use crate::{
    access::{KeyRecord, LimitKind, LimitRule, Pattern, Period, Unreachable},
    audit::{AuditLine, ChainReport},
};

/// Answer to a call.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Keys.
    Keys(KeyList),
    /// A key.
    Key(KeyRow),
    /// A key, with its secret if it has a new one.
    Created(CreatedKey),
    /// Changes that a file made or would make.
    Applied(Applied),
    /// All records.
    Exported(Exported),
    /// Limits of a subject.
    Limits(LimitsOf),
    /// Differences between what counts and what is stored.
    Checked(LimitsChecked),
    /// Budgets.
    Spend(SpendBars),
    /// Lines of the audit.
    Audit(AuditFound),
    /// Result of a check of the audit.
    Verified(AuditVerified),
}

/// Keys.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct KeyList {
    /// Rows in the order of their ids.
    pub items: Vec<KeyRow>,
    /// Number of keys that match.
    pub total: usize,
    /// `after` of the next page; null on the last one.
    pub next_after: Option<String>,
}

/// A key, without its secret.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct KeyRow {
    /// The public part of the key.
    #[cfg_attr(test, schema(example = "0aB3zZ9xY1"))]
    pub id: String,
    /// The name that people know it by.
    pub name: String,
    /// The user that owns it.
    pub user: Option<String>,
    /// The team of the user.
    pub team: Option<String>,
    /// `active`, `expired` or `revoked`.
    pub state: &'static str,
    /// The last four characters of each secret that is valid, the newest last.
    pub last4: Vec<String>,
    /// Its secrets, the newest last.
    pub secrets: Vec<SecretRow>,
    /// Its creation (RFC 3339).
    pub created_at: String,
    /// End of its validity.
    pub expires_at: Option<String>,
    /// Its last use since the proxy began.
    pub last_used_at: Option<String>,
    /// Time of its revocation.
    pub revoked_at: Option<String>,
    /// Reason of its revocation.
    pub revoked_reason: Option<String>,
    /// Patterns of the models that it may use; empty: all.
    pub models: Vec<String>,
    /// Patterns of further paths that it may use.
    pub paths: Vec<String>,
    /// Networks that it may come from; empty: all.
    pub sources: Vec<String>,
    /// Its own limits.
    pub limits: Vec<LimitShape>,
    /// The variable that holds its credential for the upstream.
    pub upstream_key_env: Option<String>,
}

/// A secret of a key.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SecretRow {
    /// The last four characters of the key.
    pub last4: String,
    /// Its creation (RFC 3339).
    pub created_at: String,
    /// End of its validity, after a rotation.
    pub expires_at: Option<String>,
    /// Its last use since the proxy began.
    pub last_used_at: Option<String>,
}

/// A key that was created or rotated.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct CreatedKey {
    /// The key.
    #[serde(flatten)]
    pub row: KeyRow,
    /// The whole key, shown this once; null if it existed before.
    pub key: Option<String>,
    /// Settings that are probably unintended.
    pub warnings: Vec<String>,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitShape {
    /// The quantity that it bounds.
    pub kind: LimitName,
    /// Its upper bound: requests, tokens, exchanges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    /// Its upper bound in US dollars, for `spend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_usd: Option<f64>,
    /// `day`, `week`, `month` or `total`, for `spend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "month"))]
    pub period: Option<String>,
    /// The IANA time zone of the period; UTC where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "Europe/Berlin"))]
    pub zone: Option<String>,
    /// Pattern of the models that it counts; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "claude-opus-*"))]
    pub models: Option<String>,
    /// `open` or `closed`: its effect while the shared state is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
}

/// Quantity that a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Requests a minute.
    RequestsPerMinute,
    /// Tokens of input a minute.
    InputTokensPerMinute,
    /// Tokens of output a minute.
    OutputTokensPerMinute,
    /// Exchanges at once.
    AtOnce,
    /// US dollars in a period.
    Spend,
}

impl LimitShape {
    /// The limit of a budget, as [`super::budget`] reads it.
    pub fn of_budget((kind, amount): (LimitKind, u64)) -> Self {
        Self::of(&LimitRule {
            kind,
            amount,
            models: None,
            unreachable: None,
        })
    }

    /// The limit of a rule.
    pub fn of(rule: &LimitRule) -> Self {
        let mut shape = Self {
            kind: LimitName::Spend,
            amount: Some(rule.amount),
            amount_usd: None,
            period: None,
            zone: None,
            models: rule.models.as_ref().map(ToString::to_string),
            unreachable: rule.unreachable.map(|it| {
                let name = match it {
                    Unreachable::Open => "open",
                    Unreachable::Closed => "closed",
                };
                name.to_owned()
            }),
        };
        shape.kind = match &rule.kind {
            LimitKind::RequestsPerMinute => LimitName::RequestsPerMinute,
            LimitKind::InputTokensPerMinute => LimitName::InputTokensPerMinute,
            LimitKind::OutputTokensPerMinute => LimitName::OutputTokensPerMinute,
            LimitKind::AtOnce => LimitName::AtOnce,
            LimitKind::Spend { period, zone } => {
                shape.amount = None;
                shape.amount_usd = Some(money::number(rule.amount));
                shape.period = Some(money::period_name(*period).to_owned());
                // all time has no days
                let zone = zone.as_ref().filter(|_| *period != Period::Total);
                shape.zone = zone.map(ToString::to_string);
                LimitName::Spend
            }
        };
        shape
    }

    /// The rule.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn rule(&self) -> Result<LimitRule, String> {
        let models = self.models.as_deref().map(|text| {
            let pattern: Result<Pattern, _> = text.parse();
            pattern.map_err(|error| format!("models: {error}"))
        });
        let unreachable = match self.unreachable.as_deref() {
            None => None,
            Some("open") => Some(Unreachable::Open),
            Some("closed") => Some(Unreachable::Closed),
            Some(other) => {
                return Err(format!("unreachable: `{other}` is not one of open, closed"));
            }
        };
        let (kind, amount) = match self.kind {
            LimitName::Spend => self.spend()?,
            other => (other.kind(), self.count()?),
        };
        let rule = LimitRule {
            kind,
            amount,
            models: models.transpose()?,
            unreachable,
        };
        match amount_fault(&rule) {
            Some((problem, remedy)) => Err(format!("{}: {problem}; {remedy}", self.text())),
            None => Ok(rule),
        }
    }

    fn spend(&self) -> Result<(LimitKind, u64), String> {
        if self.amount.is_some() {
            return Err("spend: amount is not used; give amount_usd".to_owned());
        }
        let amount = self.amount_usd.ok_or("spend: amount_usd is missing")?;
        let name = self
            .period
            .as_deref()
            .ok_or("spend: period is missing: day, week, month or total")?;
        let period = money::period(name)
            .ok_or_else(|| format!("`{name}` is no period: expected day, week, month or total"))?;
        if let Some(zone) = &self.zone {
            money::check_zone(zone)?;
            if period == Period::Total {
                return Err("a budget in total has no days: leave zone out".to_owned());
            }
        }
        let zone = self.zone.as_deref().map(Into::into);
        Ok((LimitKind::Spend { period, zone }, money::of_number(amount)?))
    }

    fn count(&self) -> Result<u64, String> {
        let name = self.kind.label();
        if self.amount_usd.is_some() || self.period.is_some() || self.zone.is_some() {
            return Err(format!("{name}: amount_usd, period and zone are for spend"));
        }
        self.amount
            .ok_or_else(|| format!("{name}: amount is missing"))
    }

    /// True for a limit of the same quantity, period and models; one that has neither an amount nor a period
    /// names those of all periods.
    pub(super) fn names(&self, other: &Self) -> bool {
        let is_any_period = self.has_no_amount() && self.period.is_none();
        self.kind == other.kind
            && self.models == other.models
            && (is_any_period || self.period == other.period)
    }

    /// True for one that removes a limit.
    pub(super) fn has_no_amount(&self) -> bool {
        self.amount.is_none() && self.amount_usd.is_none()
    }

    /// The limit as the command line writes it.
    pub fn text(&self) -> String {
        let amount = match (self.amount_usd, self.amount) {
            (Some(usd), _) => {
                money::of_number(usd).map_or_else(|_| usd.to_string(), money::show_usd)
            }
            (None, Some(amount)) => amount.to_string(),
            (None, None) => "none".to_owned(),
        };
        let unit = match self.kind {
            LimitName::RequestsPerMinute => " requests/min".to_owned(),
            LimitName::InputTokensPerMinute => " input tokens/min".to_owned(),
            LimitName::OutputTokensPerMinute => " output tokens/min".to_owned(),
            LimitName::AtOnce => " at once".to_owned(),
            LimitName::Spend => {
                let zone = self.zone.as_ref().map(|zone| format!("@{zone}"));
                format!(
                    "/{}{}",
                    self.period.as_deref().unwrap_or("?"),
                    zone.unwrap_or_default()
                )
            }
        };
        let models = self.models.as_ref().map(|it| format!(" of {it}"));
        let unreachable = self.unreachable.as_ref().map(|it| format!(" ({it})"));
        format!(
            "{amount}{unit}{}{}",
            models.unwrap_or_default(),
            unreachable.unwrap_or_default()
        )
    }
}

/// Problem and remedy of an amount that no limit may have, the same for flags, the API and files.
pub(super) fn amount_fault(rule: &LimitRule) -> Option<(String, String)> {
    let mut faults = rule.check().into_iter();
    let fault = faults.find(|fault| fault.place == "amount")?;
    Some((fault.problem, fault.remedy))
}

/// A limit that is there twice: of two, the strictest would win in silence.
pub(super) fn twice(rules: &[LimitRule]) -> Option<String> {
    let mut seen = BTreeSet::new();
    rules.iter().find_map(|rule| {
        let shape = LimitShape::of(rule);
        let text = shape.text();
        let is_new = seen.insert((shape.kind, shape.period, shape.models));
        (!is_new).then_some(text)
    })
}

impl LimitName {
    /// Its name in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::InputTokensPerMinute => "input_tokens_per_minute",
            Self::OutputTokensPerMinute => "output_tokens_per_minute",
            Self::AtOnce => "at_once",
            Self::Spend => "spend",
        }
    }

    fn kind(self) -> LimitKind {
        match self {
            Self::RequestsPerMinute => LimitKind::RequestsPerMinute,
            Self::InputTokensPerMinute => LimitKind::InputTokensPerMinute,
            Self::OutputTokensPerMinute => LimitKind::OutputTokensPerMinute,
            Self::AtOnce | Self::Spend => LimitKind::AtOnce,
        }
    }
}

impl KeyRow {
    /// The row of a record at a moment in Unix seconds. `uses` are the last uses of its secrets.
    pub(super) fn of(record: &KeyRecord, uses: &[Option<i64>], now: i64) -> Self {
        let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect();
        let secrets: Vec<SecretRow> = record
            .secrets
            .iter()
            .enumerate()
            .map(|(at, secret)| SecretRow {
                last4: secret.last4.clone(),
                created_at: times::show(secret.created),
                expires_at: secret.expires.map(times::show),
                last_used_at: uses.get(at).copied().flatten().map(times::show),
            })
            .collect();
        let is_valid = |at: &usize| {
            let expires = record.secrets[*at].expires;
            expires.is_none_or(|expires| expires > now)
        };
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            user: record.user.clone(),
            team: record.team.clone(),
            state: state(record, now),
            last4: (0..record.secrets.len())
                .filter(is_valid)
                .map(|at| record.secrets[at].last4.clone())
                .collect(),
            secrets,
            created_at: times::show(record.created),
            expires_at: record.expires.map(times::show),
            last_used_at: uses.iter().copied().flatten().max().map(times::show),
            revoked_at: record.revoked.as_ref().map(|it| times::show(it.at)),
            revoked_reason: record.revoked.as_ref().map(|it| it.reason.clone()),
            models: texts(&record.models),
            paths: texts(&record.paths),
            sources: record.sources.iter().map(ToString::to_string).collect(),
            limits: record.limits.iter().map(LimitShape::of).collect(),
            upstream_key_env: record.upstream_key_env.clone(),
        }
    }
}

/// The state of a key at a moment in Unix seconds.
pub(super) fn state(record: &KeyRecord, now: i64) -> &'static str {
    if record.revoked.is_some() {
        "revoked"
    } else if record.expires.is_some_and(|expires| expires <= now) {
        "expired"
    } else {
        "active"
    }
}

/// Changes that a file made or would make.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Applied {
    /// True if nothing was changed.
    pub dry_run: bool,
    /// The changes.
    pub changes: Vec<AppliedChange>,
    /// Number of keys and subjects that are as the file says.
    pub unchanged: usize,
    /// Settings that are probably unintended.
    pub warnings: Vec<String>,
}

/// A change that a file makes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct AppliedChange {
    /// `create`, `update`, `revoke` or `remove`.
    pub action: &'static str,
    /// The key or subject.
    #[cfg_attr(test, schema(example = "key:0aB3zZ9xY1"))]
    pub subject: String,
    /// The name of the key.
    pub name: Option<String>,
    /// The fields that change.
    pub fields: Vec<FieldChange>,
}

/// A field that changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct FieldChange {
    /// The field.
    pub field: &'static str,
    /// The value before; null if there was none.
    pub before: serde_json::Value,
    /// The value after; null if there is none.
    pub after: serde_json::Value,
}

/// All records, with digests of secrets.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Exported {
    /// The text for an import: JSON.
    pub text: String,
    /// Number of keys.
    pub keys: usize,
    /// Number of other subjects.
    pub subjects: usize,
}

/// Limits of a subject, and what is spent and left.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LimitsOf {
    /// The subject.
    #[cfg_attr(test, schema(example = "team:core"))]
    pub subject: String,
    /// Its limits, and those that each of its users has.
    pub limits: Vec<LimitRow>,
    /// Limits of the subjects above it that bind it as well: of a key its user, team and organisation.
    pub above: Vec<LimitAbove>,
    /// Limits of each user of a team.
    pub user_limits: Vec<LimitShape>,
    /// Additions to its budgets.
    pub grants: Vec<GrantRow>,
    /// The variable that holds a team's credential for the upstream.
    pub upstream_key_env: Option<String>,
    /// Settings that are probably unintended.
    pub warnings: Vec<String>,
}

/// A limit of a subject above another one.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LimitAbove {
    /// The subject that has it.
    #[cfg_attr(test, schema(example = "team:core"))]
    pub subject: String,
    /// The limit.
    #[serde(flatten)]
    pub limit: LimitRow,
}

/// A limit, and what is spent and left of it.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LimitRow {
    /// The limit.
    #[serde(flatten)]
    pub limit: LimitShape,
    /// Upper bound with additions: units, or US dollars for `spend`.
    pub bound: f64,
    /// Units, or US dollars, that are spent or in use.
    pub spent: f64,
    /// Units, or US dollars, that are held for exchanges that run.
    pub held: f64,
    /// Units, or US dollars, that are left.
    pub left: f64,
    /// Spent and held in percent of the bound.
    pub percent: f64,
    /// Time at which it begins anew (RFC 3339); null if it does not.
    pub resets_at: Option<String>,
    /// The team whose default for each of its users it is.
    pub default_of: Option<String>,
    /// Exchanges that wait for a place.
    pub waiting: u64,
    /// State of its sharing with other replicas; null for a limit of this process alone.
    pub shared: Option<SharedRow>,
}

/// State of a limit that replicas share.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SharedRow {
    /// `fresh`; `stale`: the store has not answered for a second; `lost`: for 30 s; `unasked`: no request has
    /// come yet.
    #[cfg_attr(test, schema(example = "fresh"))]
    pub state: &'static str,
    /// Seconds since the last report that the store answered.
    pub age_seconds: Option<f64>,
    /// Replicas that shared the limit then.
    pub replicas: u64,
    /// Replicas whose use `spent`, `held` and `left` tell: `all`; `own`: exchanges at once are those of this replica;
    /// `unknown`: the store has not answered since the start, so they are its own, too.
    #[cfg_attr(test, schema(example = "all"))]
    pub counts: &'static str,
    /// `closed` if requests are refused while the store is lost, else `open`.
    #[cfg_attr(test, schema(example = "closed"))]
    pub unreachable: &'static str,
}

/// An addition to budgets.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct GrantRow {
    /// US dollars.
    pub amount_usd: f64,
    /// Its end (RFC 3339).
    pub until: String,
    /// True if it counts now.
    pub is_active: bool,
    /// The reason.
    pub reason: String,
    /// Its creation (RFC 3339).
    pub created_at: String,
}

/// Budgets, the most used ones first.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SpendBars {
    /// Rows.
    pub items: Vec<SpendBar>,
}

/// A budget, and what is spent of it.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SpendBar {
    /// The subject.
    #[cfg_attr(test, schema(example = "team:core"))]
    pub subject: String,
    /// The name of a key.
    pub name: Option<String>,
    /// `day`, `week`, `month` or `total`.
    pub period: String,
    /// The time zone of the period.
    pub zone: Option<String>,
    /// Pattern of the models that count; null: all.
    pub models: Option<String>,
    /// The budget in US dollars, with additions.
    pub limit_usd: f64,
    /// US dollars that are spent.
    pub spent_usd: f64,
    /// US dollars that are held for exchanges that run.
    pub held_usd: f64,
    /// US dollars that are left.
    pub left_usd: f64,
    /// Spent and held in percent of the budget.
    pub percent: f64,
    /// End of the period (RFC 3339).
    pub resets_at: Option<String>,
    /// US dollars that would be spent at the end of the period, if it goes on as since its beginning.
    pub forecast_usd: Option<f64>,
}

/// Differences between what counts and what is stored.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LimitsChecked {
    /// Budgets that were compared.
    pub compared: usize,
    /// Those whose sums differ.
    pub differences: Vec<RegisterDifference>,
}

/// A budget whose sum in effect is not that of its registers.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct RegisterDifference {
    /// The subject.
    pub subject: String,
    /// Period, zone and models.
    pub cell: String,
    /// US dollars that count.
    pub in_effect_usd: f64,
    /// US dollars by the registers of the store.
    pub stored_usd: f64,
    /// In effect less stored.
    pub difference_usd: f64,
}

/// Lines of the audit.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct AuditFound {
    /// The lines, the newest last.
    pub items: Vec<AuditLine>,
}

/// Result of a check of the audit.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct AuditVerified {
    /// True if each chain is as it was written.
    pub ok: bool,
    /// A report for each chain.
    pub chains: Vec<ChainReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_rules_are_one_thing() {
        for text in [
            r#"{"kind":"requests_per_minute","amount":60}"#,
            r#"{"kind":"at_once","amount":1,"unreachable":"closed"}"#,
            r#"{"kind":"spend","amount_usd":0.25,"period":"month","zone":"Europe/Berlin","models":"claude-opus-*"}"#,
            r#"{"kind":"spend","amount_usd":500.0,"period":"total"}"#,
        ] {
            let shape: LimitShape = serde_json::from_str(text).unwrap();
            let rule = shape.rule().unwrap();
            assert_eq!(LimitShape::of(&rule), shape, "{text}");
            assert_eq!(serde_json::to_string(&shape).unwrap(), text);
        }
    }

    #[test]
    fn a_shape_that_is_no_limit_says_why() {
        for (text, expected) in [
            (
                r#"{"kind":"spend","amount":5,"period":"day"}"#,
                "amount_usd",
            ),
            (r#"{"kind":"spend","amount_usd":5}"#, "period is missing"),
            (
                r#"{"kind":"spend","amount_usd":-5,"period":"day"}"#,
                "must be 0 or more",
            ),
            (
                r#"{"kind":"spend","amount_usd":5,"period":"year"}"#,
                "is no period",
            ),
            (
                r#"{"kind":"spend","amount_usd":5,"period":"day","zone":"X/Y"}"#,
                "no time zone",
            ),
            (
                r#"{"kind":"spend","amount_usd":5,"period":"total","zone":"UTC"}"#,
                "zone",
            ),
            (r#"{"kind":"at_once","amount":0}"#, "revoke"),
            (r#"{"kind":"at_once"}"#, "amount is missing"),
            (
                r#"{"kind":"at_once","amount":1,"period":"day"}"#,
                "for spend",
            ),
            (r#"{"kind":"at_once","amount":1,"models":""}"#, "models: "),
            (
                r#"{"kind":"at_once","amount":1,"unreachable":"ajar"}"#,
                "open, closed",
            ),
        ] {
            let shape: LimitShape = serde_json::from_str(text).unwrap();
            let said = shape.rule().unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn a_limit_is_written_as_it_is_read() {
        let shape = |text: &str| serde_json::from_str::<LimitShape>(text).unwrap().text();
        assert_eq!(
            shape(r#"{"kind":"spend","amount_usd":0.25,"period":"month","zone":"Europe/Berlin"}"#),
            "$0.25/month@Europe/Berlin"
        );
        assert_eq!(
            shape(r#"{"kind":"requests_per_minute","amount":60,"models":"claude-opus-*"}"#),
            "60 requests/min of claude-opus-*"
        );
    }
}
