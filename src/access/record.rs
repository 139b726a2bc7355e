//! Keys and subjects as they are stored and shown: plain data, without a secret.

use std::{collections::BTreeMap, fmt, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    id::{KeyId, id_of, without_keys},
    pattern::Pattern,
    zone::Zone,
};

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The public part of the key.
    pub id: KeyId,
    /// The name that people know it by: 1 to 128 printable characters.
    pub name: String,
    /// The user that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The team of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The secrets that are valid: one, or two while a rotation overlaps; the newest last.
    pub secrets: Vec<SecretRecord>,
    /// Models that it may use; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Pattern>,
    /// Paths that it may use beside those that are metered or free.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Pattern>,
    /// Networks that it may come from; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpNet>,
    /// The limits of the key itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitRule>,
    /// End of its validity, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// The variable of the environment that holds its credential for the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_key_env: Option<String>,
    /// Its creation, in Unix seconds.
    pub created: i64,
    /// Its revocation, if it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// A secret of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRecord {
    /// HMAC-SHA256 of the secret under the pepper, in hexadecimal digits.
    pub digest: String,
    /// The last four characters of the key, which people recognise it by.
    pub last4: String,
    /// Its creation, in Unix seconds.
    pub created: i64,
    /// End of its validity (of the older one, after a rotation), in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Its time, in Unix seconds.
    pub at: i64,
    /// The reason that the operator gave.
    pub reason: String,
    /// True if what runs with the key ends, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A subject other than a key, with its limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectRecord {
    /// The limits of the subject: all that is below it together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitRule>,
    /// Limits of each user of a team.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_limits: Vec<LimitRule>,
    /// The variable of the environment that holds a team's credential for the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_key_env: Option<String>,
    /// Additions to budgets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<BudgetGrant>,
}

/// An addition to the budgets of a subject, until a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetGrant {
    /// Billionths of a US dollar.
    pub amount: u64,
    /// Its end, in Unix seconds.
    pub until: i64,
    /// The reason that the operator gave.
    pub reason: String,
    /// Its creation, in Unix seconds.
    pub created: i64,
}

/// All keys and subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// The keys by their id.
    pub keys: BTreeMap<KeyId, KeyRecord>,
    /// The other subjects.
    pub subjects: BTreeMap<SubjectId, SubjectRecord>,
}

/// A subject of limits: organisation > team > user > key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SubjectId {
    /// The organisation: every key.
    Org,
    /// A team.
    Team(String),
    /// A user.
    User(String),
    /// A key.
    Key(KeyId),
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("org"),
            Self::Team(name) => write!(f, "team:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Key(id) => write!(f, "key:{id}"),
        }
    }
}

/// A text that is no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no subject: expected org, team:NAME, user:NAME or key:ID")]
pub struct InvalidSubject(String);

impl FromStr for SubjectId {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSubject(without_keys(text).into_owned());
        match text.split_once(':') {
            None if text == "org" => Ok(Self::Org),
            Some(("team", name)) if is_name(name) => Ok(Self::Team(name.to_owned())),
            Some(("user", name)) if is_name(name) => Ok(Self::User(name.to_owned())),
            Some(("key", id)) => id_of(id).map(Self::Key).ok_or_else(invalid),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for SubjectId {
    type Error = InvalidSubject;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SubjectId> for String {
    fn from(subject: SubjectId) -> Self {
        subject.to_string()
    }
}

/// True for a name of a key, user or team: 1 to 128 printable characters without blanks at its ends, and no
/// secret.
pub fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.chars().count())
        && text.trim() == text
        && !text.chars().any(is_hidden)
        && without_keys(text) == text
}

/// True for a character that is not seen, or that changes how others are: a name with one looks like another
/// (Unicode Standard Annex #9, and zero-width characters).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Characters of a name.
const LONGEST_NAME: usize = 128;

/// A limit of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRule {
    /// The quantity that it bounds.
    pub kind: LimitKind,
    /// Its upper bound: requests, tokens, exchanges, or billionths of a US dollar.
    pub amount: u64,
    /// The models that it counts; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Pattern>,
    /// Its effect while the shared state is unreachable; none: `closed` for budgets, else `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<Unreachable>,
}

impl LimitRule {
    /// Reports whether it bounds money.
    pub(super) fn is_budget(&self) -> bool {
        matches!(self.kind, LimitKind::Spend { .. })
    }

    /// Reports whether limits bound what it bounds, whatever the amount and the zone.
    pub(super) fn is_overridden_by(&self, limits: &[Self]) -> bool {
        let bounds_same = |other: &Self| match (&other.kind, &self.kind) {
            (
                LimitKind::Spend { period, .. },
                LimitKind::Spend {
                    period: of_rule, ..
                },
            ) => period == of_rule,
            (kind, of_rule) => kind == of_rule,
        };
        limits
            .iter()
            .any(|other| other.models == self.models && bounds_same(other))
    }
}

/// Effect of a limit while the shared state is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreachable {
    /// Requests pass.
    Open,
    /// Requests are refused.
    Closed,
}

impl Unreachable {
    /// Reports whether a limit with this setting refuses requests while the store is lost: budgets do, unless
    /// they are told not to.
    pub(super) fn is_closed(chosen: Option<Self>, is_budget: bool) -> bool {
        match chosen {
            Some(chosen) => chosen == Self::Closed,
            None => is_budget,
        }
    }
}

/// Quantity that a limit bounds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Requests a minute.
    RequestsPerMinute,
    /// Tokens of input a minute, without those read from a cache.
    InputTokensPerMinute,
    /// Tokens of output a minute.
    OutputTokensPerMinute,
    /// Exchanges at once.
    AtOnce,
    /// US dollars in a period.
    Spend {
        /// The period.
        period: Period,
        /// The IANA time zone of its days, weeks and months; `UTC` where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<Zone>,
    },
}

/// Period of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// A calendar day.
    Day,
    /// An ISO 8601 week, from Monday on.
    Week,
    /// A calendar month.
    Month,
    /// All time.
    Total,
}

/// Secrets of a key: one, or two while a rotation overlaps.
pub(super) const MOST_SECRETS: usize = 2;
