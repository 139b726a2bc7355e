//! One variable of the configuration: name, default, description, and how it applies and is shown.

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its default as text; empty for none.
    pub default: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Where it stands in lists.
    pub section: Section,
    /// When a change takes effect.
    pub applies: Applies,
    /// How its value may be shown.
    pub shown: Redaction,
    /// The form that is expected.
    pub expected: &'static str,
    /// A valid value.
    pub example: &'static str,
}

/// When a changed variable takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// On reload: when the file changes, or on SIGHUP.
    Live,
    /// On restart.
    Restart,
}

/// How a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    /// As it is.
    Plainly,
    /// A URL, with stars for user, password and query.
    WithoutUserinfo,
    /// Several of those, separated by commas.
    Urls,
    /// As `(N octets)`.
    AsLength,
}

/// A group of variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Where requests go.
    Upstream,
    /// The edit of the system prompt.
    SystemPrompt,
    /// Where we listen.
    Server,
    /// How much is taken at a time.
    Limits,
    /// How long is waited.
    Timers,
    /// What is written about it.
    Logs,
    /// What is counted and shown.
    Observation,
    /// The outbound proxies.
    Proxies,
    /// Who is trusted.
    Trust,
}

impl Section {
    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Upstream => "Upstream",
            Self::SystemPrompt => "System prompt",
            Self::Server => "Server",
            Self::Limits => "Limits",
            Self::Timers => "Timers",
            Self::Logs => "Logs",
            Self::Observation => "Observation",
            Self::Proxies => "Outbound proxies",
            Self::Trust => "Trust",
        }
    }
}
