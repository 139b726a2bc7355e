//! Answers to calls, as the API and the command line show it.

use serde::Serialize;

use super::{shape::LimitShape, times};
use crate::{
    access::{KeyRecord, Pattern},
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
    /// Rates and exchanges at once.
    Used(UsedLimits),
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

/// Rates and exchanges at once. Those that no request has used come last.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct UsedLimits {
    /// Rows.
    pub items: Vec<UsedLimit>,
    /// Number of all such limits.
    pub total: usize,
}

/// A rate or a number of exchanges at once, and what is used of it.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct UsedLimit {
    /// The subject.
    #[cfg_attr(test, schema(example = "team:core"))]
    pub subject: String,
    /// The name of a key.
    pub name: Option<String>,
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
    /// State of its sharing with other replicas, which says whose spend it tells; null for a budget of this process
    /// alone.
    pub shared: Option<SharedRow>,
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
    /// True if each chain is as it was written, as far as `unanchored` lets it be told.
    pub ok: bool,
    /// Reason for which the shared store did not tell its checkpoints, so that the files were compared with themselves
    /// alone: lines that were cut off the end, or files that were written anew, would not be seen; null otherwise.
    pub unanchored: Option<String>,
    /// A report for each chain.
    pub chains: Vec<ChainReport>,
}
