//! One variable of the configuration: name, default, description, and how it applies and is shown.

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its default as text; empty for none.
    pub default: &'static str,
    /// Description in one line.
    pub doc: &'static str,
    /// Section in lists.
    pub section: Section,
    /// Moment at which a change takes effect.
    pub applies: Applies,
    /// Form in which the value is shown.
    pub shown: Redaction,
    /// The form that is expected.
    pub expected: &'static str,
    /// A valid value.
    pub example: &'static str,
}

/// Moment at which a changed variable takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// On reload: when the file changes, or on SIGHUP.
    Live,
    /// On restart.
    Restart,
}

/// Form in which a value is shown: plain or redacted.
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
    /// Upstreams and requests to them.
    Upstream,
    /// The edit of the system prompt.
    SystemPrompt,
    /// Listeners, workers and shutdown.
    Server,
    /// Limits of connections, exchanges and memory.
    Limits,
    /// Timeouts.
    Timers,
    /// Logs.
    Logs,
    /// Metering, metrics and the dashboard.
    Observation,
    /// The outbound proxies.
    Proxies,
    /// Certificate authorities.
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
            Self::Observation => "Dashboard and metrics",
            Self::Proxies => "Outbound proxies",
            Self::Trust => "Trust",
        }
    }
}
