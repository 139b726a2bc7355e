//! Settings that are one of a few words.

use serde::Serialize;

/// Effect of the edit on the system prompt block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditMode {
    /// Replace its text.
    Replace,
    /// Replace its text if it contains `Claude Code`, else insert a block before it
    /// (`SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST`).
    InsertIfAbsent,
}

/// Treatment of the fields that name earlier hops (`FORWARDED_HEADERS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFields {
    /// `append`: the client's address is appended, scheme and host are set if absent.
    Append,
    /// `off`: nothing is added; the client's travel on.
    Off,
    /// `drop`: nothing is added; the client's do not travel on.
    Drop,
}

/// Rule that selects the system prompt block (`SYSTEM_PROMPT_TARGET`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditTarget {
    /// `prompt`: the first block that is not Claude Code's attribution block.
    Prompt,
    /// `first`: `system[0]`, whatever it is.
    First,
}

/// Form of the posts to `ALERT_WEBHOOK` (`ALERT_WEBHOOK_FORM`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertForm {
    /// `json`: facts for programs, and a text.
    Json,
    /// `slack`: as Slack, Mattermost and Rocket.Chat take it.
    Slack,
}

/// Requests that need a key of the proxy (`ACCESS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessMode {
    /// Nothing was said: `required` as soon as there is a key, `off` before.
    #[default]
    Auto,
    /// `off`: keys of the proxy mean nothing.
    Off,
    /// `optional`: requests without a key pass without limits.
    Optional,
    /// `required`: every request needs a key.
    Required,
}

/// Rights in the dashboard and its API, the lesser ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything, and changes nothing.
    Viewer,
    /// Also ends requests, revokes keys and grants additions to budgets.
    Operator,
    /// Also creates and exports keys, and sets limits.
    Admin,
}

impl Role {
    /// All of them, the lesser ones first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.label().eq_ignore_ascii_case(name))
    }
}
