//! Dimensions of usage besides the model: whose it is.

use super::usage_by_model::UsageByModel;
use crate::exchange::Exchange;

/// Dimension of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// The key that the request showed, by its id.
    Key,
    /// The user that owns it.
    User,
    /// The team of the user.
    Team,
    /// Claude Code's session.
    Session,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Key, Self::User, Self::Team, Self::Session];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Team => "team",
            Self::Session => "session",
        }
    }

    /// Upper bound of names with a row of their own in an hour or a day; the rest is `other`.
    fn names(self) -> usize {
        match self {
            Self::Key | Self::User => 256,
            Self::Team | Self::Session => 64,
        }
    }

    /// The name of an exchange; empty if it has none.
    pub(super) fn of(self, exchange: &Exchange) -> &str {
        let begun = &exchange.begun;
        let owner = begun.owner.as_deref();
        let name = match self {
            Self::Key => owner.map(|owner| &*owner.key),
            Self::User => owner.and_then(|owner| owner.user.as_deref()),
            Self::Team => owner.and_then(|owner| owner.team.as_deref()),
            Self::Session => begun.session.as_deref(),
        };
        name.unwrap_or_default()
    }
}

/// Usage by the names of a dimension.
pub(super) struct DimensionUsage {
    pub(super) hours: UsageByModel,
    pub(super) days: UsageByModel,
}

impl DimensionUsage {
    /// Creates it without usage; `hours` and `days` are `(seconds, spans that are kept)`.
    pub(super) fn new(dimension: Dimension, hours: (u64, u64), days: (u64, u64)) -> Self {
        let of = |(width, keep)| UsageByModel::bounded(width, keep, dimension.names());
        Self {
            hours: of(hours),
            days: of(days),
        }
    }
}
