//! The calls that operators make, as the API and the command line give them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{author::Role, shape::LimitShape};

/// A call.
#[derive(Debug, Clone)]
pub enum Call {
    /// Lists keys.
    Keys(KeyFilter),
    /// Shows a key, by id or name.
    Key(String),
    /// Creates a key.
    Create(NewKey),
    /// Gives a key another secret.
    Rotate(String, RotateKey),
    /// Ends the validity of a key.
    Revoke(String, RevokeKey),
    /// Brings keys and limits to what a file says.
    Apply(ApplyFile),
    /// Gives all records, with digests.
    Export,
    /// Takes records that another proxy gave.
    Import(ImportKeys),
    /// Shows a subject's limits, and what is spent and left.
    Limits(String),
    /// Sets limits of a subject.
    SetLimits(String, SetLimits),
    /// Adds to the budgets of a subject for a time.
    Grant(String, GrantBudget),
    /// Compares what counts with what is stored.
    VerifyLimits(Option<String>),
    /// Budgets and what is spent of them.
    Spend(SpendBy),
    /// Rates and exchanges at once, the most used ones first, up to a number of rows.
    UsedLimits(Option<usize>),
    /// Lines of the audit.
    Audit(crate::audit::AuditFilter),
    /// Checks the audit's chain.
    VerifyAudit,
}

/// Kind of a change, without what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Creates a key.
    CreateKey,
    /// Gives a key another secret.
    RotateKey,
    /// Ends the validity of a key.
    RevokeKey,
    /// Brings keys and limits to what a file says.
    ApplyKeys,
    /// Gives all records, with digests.
    ExportKeys,
    /// Takes records that another proxy gave.
    ImportKeys,
    /// Sets limits of a subject.
    SetLimits,
    /// Adds to the budgets of a subject for a time.
    GrantBudget,
    /// Ends a request in flight.
    EndRequest,
    /// Changes the file of settings.
    SetConfig,
    /// Brings the file of settings back to an earlier state.
    RollBackConfig,
    /// Checks upstreams and listeners.
    RunDoctor,
}

impl Change {
    /// The least role that may make it.
    pub fn needs(self) -> Role {
        match self {
            Self::RevokeKey | Self::GrantBudget | Self::EndRequest | Self::RunDoctor => {
                Role::Operator
            }
            Self::CreateKey
            | Self::RotateKey
            | Self::ApplyKeys
            | Self::ExportKeys
            | Self::ImportKeys
            | Self::SetLimits
            | Self::SetConfig
            | Self::RollBackConfig => Role::Admin,
        }
    }

    /// Its name and the kind of its object in the audit.
    pub(super) fn action(self) -> (&'static str, &'static str) {
        match self {
            Self::CreateKey => ("key.create", "key"),
            Self::RotateKey => ("key.rotate", "key"),
            Self::RevokeKey => ("key.revoke", "key"),
            Self::ApplyKeys => ("keys.apply", "file"),
            Self::ExportKeys => ("keys.export", "file"),
            Self::ImportKeys => ("keys.import", "file"),
            Self::SetLimits => ("limits.set", "subject"),
            Self::GrantBudget => ("limits.grant", "subject"),
            Self::EndRequest => ("request.end", "request"),
            Self::SetConfig => ("config.set", "file"),
            Self::RollBackConfig => ("config.rollback", "file"),
            Self::RunDoctor => ("doctor.run", "doctor"),
        }
    }
}

impl Call {
    /// The least role that may make it.
    pub fn needs(&self) -> Role {
        let change = self.change();
        change.map_or(Role::Viewer, |(change, _)| change.needs())
    }

    /// The change that it makes, and its object; none if it only reads.
    pub(super) fn change(&self) -> Option<(Change, &str)> {
        Some(match self {
            Self::Create(new) => (Change::CreateKey, new.id.as_ref().unwrap_or(&new.name)),
            Self::Rotate(key, _) => (Change::RotateKey, key),
            Self::Revoke(key, _) => (Change::RevokeKey, key),
            Self::Apply(_) => (Change::ApplyKeys, "keys.toml"),
            Self::Export => (Change::ExportKeys, "keys"),
            Self::Import(_) => (Change::ImportKeys, "keys"),
            Self::SetLimits(subject, _) => (Change::SetLimits, subject),
            Self::Grant(subject, _) => (Change::GrantBudget, subject),
            Self::Keys(_)
            | Self::Key(_)
            | Self::Limits(_)
            | Self::VerifyLimits(_)
            | Self::Spend(_)
            | Self::UsedLimits(_)
            | Self::Audit(_)
            | Self::VerifyAudit => return None,
        })
    }
}

/// Keys that are listed.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// A part of the id, name, user or team.
    pub q: Option<String>,
    /// The state: `active`, `expired`, `revoked`.
    pub state: Option<String>,
    /// Upper bound of rows.
    pub limit: Option<usize>,
    /// Id of the last row of the page before.
    pub after: Option<String>,
}

/// A new key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// The name that people know it by. Two keys that are not revoked have two names.
    #[cfg_attr(test, schema(min_length = 1, max_length = 128))]
    pub name: String,
    /// The id: 10 letters or digits. A key of this id with the same settings is given back as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Gives back the key of this name if there is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_absent: bool,
    /// The user that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(max_length = 128))]
    pub user: Option<String>,
    /// The team of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(max_length = 128))]
    pub team: Option<String>,
    /// Patterns of the models that it may use; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Patterns of further paths that it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Networks that it may come from; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schema(example = json!(["10.0.0.0/8"])))]
    pub sources: Vec<String>,
    /// Its limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitShape>,
    /// End of its validity: a moment (RFC 3339), a date, or a duration from now on (`90d`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The variable of the proxy's environment that holds its credential for the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_key_env: Option<String>,
}

/// Terms of a rotation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// Time for which the old secret stays valid; a day if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "24h"))]
    pub overlap: Option<String>,
    /// Ends the secret that is still valid from an earlier rotation at once; without it, such a rotation is
    /// refused unless the overlap is `0s`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Terms of a revocation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// The reason.
    #[cfg_attr(test, schema(min_length = 1, max_length = 200))]
    pub reason: String,
    /// Also ends its streams that run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A key file that is to be applied.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyFile {
    /// Its text.
    pub text: String,
    /// Its name for the audit: the last part of a path, of which 64 characters are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Revokes keys, and removes limits, that are not in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Lets a file without keys revoke all keys, and remove their limits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// Shows what would change, and changes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Whole keys by the name of the variable that the file refers to: they come from the caller's
    /// environment, and only their digests are kept.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub secrets: std::collections::BTreeMap<String, String>,
}

/// Longest name of a file, in characters.
const LONGEST_NAME: usize = 64;

impl ApplyFile {
    /// The file's name as the audit has it, in one line; `keys.toml` where none was said.
    pub(super) fn name(&self) -> String {
        let said = self.file.as_deref().unwrap_or_default();
        let base = said.rsplit(['/', '\\']).next().unwrap_or_default();
        let name: String = base
            .chars()
            .filter(|it| !it.is_control())
            .take(LONGEST_NAME)
            .collect();
        match name.trim() {
            "" => "keys.toml".to_owned(),
            name => name.to_owned(),
        }
    }
}

/// Whole keys are not shown.
impl fmt::Debug for ApplyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyFile")
            .field("file", &self.file)
            .field("prune", &self.prune)
            .field("allow_empty", &self.allow_empty)
            .field("dry_run", &self.dry_run)
            .field("secrets", &self.secrets.keys())
            .finish_non_exhaustive()
    }
}

/// Records that another proxy gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportKeys {
    /// The text of the export.
    pub text: String,
}

/// Limits of a subject, as they are to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// Its limits; absent: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Vec<LimitShape>>,
    /// Limits of each user of a team; absent: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_limits: Option<Vec<LimitShape>>,
    /// Keeps limits of other kinds, periods and models; one without an amount is removed, and one of `spend`
    /// without a period stands for all periods.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merge: bool,
    /// The pattern whose limits are replaced; those of other models stay. Absent: all of them are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(example = "claude-opus-*"))]
    pub models: Option<String>,
    /// The variable of the proxy's environment that holds a team's credential for the upstream; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_key_env: Option<String>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(max_length = 200))]
    pub reason: Option<String>,
}

/// An addition to the budgets of a subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GrantBudget {
    /// The amount, as `$50`.
    #[cfg_attr(test, schema(example = "$50"))]
    pub amount: String,
    /// Its end: a moment, a date, or a duration from now on.
    #[cfg_attr(test, schema(example = "24h"))]
    pub until: String,
    /// The reason.
    #[cfg_attr(test, schema(min_length = 1, max_length = 200))]
    pub reason: String,
}

/// Subjects whose budgets are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendBy {
    /// The organisation.
    Org,
    /// Teams.
    Team,
    /// Users.
    User,
    /// Keys.
    Key,
}

impl SpendBy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Org, Self::Team, Self::User, Self::Key];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Org => "org",
            Self::Team => "team",
            Self::User => "user",
            Self::Key => "key",
        }
    }

    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.label() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_the_last_part_of_its_path() {
        let name = |file: Option<&str>| {
            let apply = serde_json::json!({"text": "", "file": file});
            serde_json::from_value::<ApplyFile>(apply).unwrap().name()
        };
        assert_eq!(name(None), "keys.toml");
        assert_eq!(name(Some("keys47.toml")), "keys47.toml");
        assert_eq!(name(Some("/home/ops/keys47.toml")), "keys47.toml");
        assert_eq!(name(Some(r"C:\ops\keys.toml")), "keys.toml");
        assert_eq!(name(Some("a\nb\u{1b}[1m")), "ab[1m");
        assert_eq!(name(Some("/")), "keys.toml");
        assert_eq!(name(Some(&"x".repeat(999))).len(), LONGEST_NAME);
    }
}
