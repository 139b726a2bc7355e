//! One variable of the configuration: name, default, description, and how it applies and is shown.

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its default as text; empty for none.
    pub default: &'static str,
    /// Description in one line.
    pub doc: Text,
    /// Section in lists.
    pub section: Section,
    /// Moment at which a change takes effect.
    pub applies: Applies,
    /// Form in which the value is shown.
    pub shown: Redaction,
    /// The form that is expected.
    pub form: Text,
    /// A valid value.
    pub example: &'static str,
    /// Its value is the path of a file that is read again when it changes.
    pub is_watched: bool,
}

impl Variable {
    /// The shape of most: shown plainly, the default as the example.
    pub(super) const fn new(
        name: &'static str,
        default: &'static str,
        section: Section,
        applies: Applies,
        form: Text,
        doc: Text,
    ) -> Self {
        Self {
            name,
            default,
            doc,
            section,
            applies,
            shown: Redaction::Plainly,
            form,
            example: default,
            is_watched: false,
        }
    }
}

/// A text in both languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// In English.
    pub en: &'static str,
    /// In Chinese.
    pub zh: &'static str,
}

impl Text {
    pub(super) const fn new(en: &'static str, zh: &'static str) -> Self {
        Self { en, zh }
    }

    /// The text in one of them.
    pub fn in_language(self, language: Language) -> &'static str {
        match language {
            Language::English => self.en,
            Language::Chinese => self.zh,
        }
    }
}

/// Language of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Simplified Chinese.
    Chinese,
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
    /// Keys of the proxy, and their limits.
    Access,
    /// Timeouts.
    Timers,
    /// Logs.
    Logs,
    /// Metering, metrics and the dashboard.
    Observation,
    /// Traces and metrics that are sent by OTLP.
    Otlp,
    /// The outbound proxies.
    Proxies,
    /// Certificate authorities.
    Trust,
}

impl Section {
    /// The heading.
    pub fn title(self) -> Text {
        match self {
            Self::Upstream => Text::new("Upstream", "上游"),
            Self::SystemPrompt => Text::new("System prompt", "系统提示词"),
            Self::Server => Text::new("Server", "服务器"),
            Self::Limits => Text::new("Limits", "上限"),
            Self::Access => Text::new("Keys and budgets", "密钥与预算"),
            Self::Timers => Text::new("Timers", "超时"),
            Self::Logs => Text::new("Logs", "日志"),
            Self::Observation => Text::new("Dashboard and metrics", "仪表盘与指标"),
            Self::Otlp => Text::new("OpenTelemetry", "OpenTelemetry"),
            Self::Proxies => Text::new("Outbound proxies", "出站代理"),
            Self::Trust => Text::new("Trust", "证书信任"),
        }
    }
}
