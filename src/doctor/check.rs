//! One check and its outcome, and the report of all.

use std::{borrow::Cow, time::Duration};

use serde::Serialize;

/// A group of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckGroup {
    /// The settings and files.
    Configuration,
    /// An upstream, and the way there.
    Upstream,
    /// The store that replicas share.
    SharedState,
    /// The listeners of the proxy itself.
    Listener,
    /// The directory `DATA_DIR`.
    Data,
    /// The settings of a client on this machine.
    Client,
}

impl CheckGroup {
    /// Heading for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Upstream => "Upstream",
            Self::SharedState => "Shared state",
            Self::Listener => "Own listeners",
            Self::Data => "Data",
            Self::Client => "Client",
        }
    }
}

/// Outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Not tried.
    Skip,
    /// It works, and may soon not.
    Warn,
    /// It does not work.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Check {
    /// Its name, the same in each release.
    #[cfg_attr(test, schema(example = "tls"))]
    pub id: Cow<'static, str>,
    /// The group.
    pub group: CheckGroup,
    /// The upstream, of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    pub subject: Option<String>,
    /// Outcome.
    pub status: CheckStatus,
    /// Time that it took, in milliseconds.
    pub ms: u64,
    /// Finding.
    pub detail: String,
    /// Remedy, where there is something to mend.
    pub fix: Option<String>,
    /// Facts that the finding rests on.
    pub evidence: Vec<String>,
}

impl Check {
    fn new(
        group: CheckGroup,
        id: &'static str,
        status: CheckStatus,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            group,
            subject: None,
            status,
            ms: 0,
            detail: detail.into(),
            fix: None,
            evidence: Vec::new(),
        }
    }

    pub(super) fn ok(group: CheckGroup, id: &'static str, detail: impl Into<String>) -> Self {
        Self::new(group, id, CheckStatus::Ok, detail)
    }

    pub(super) fn skip(group: CheckGroup, id: &'static str, detail: impl Into<String>) -> Self {
        Self::new(group, id, CheckStatus::Skip, detail)
    }

    pub(super) fn warn(
        group: CheckGroup,
        id: &'static str,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(group, id, CheckStatus::Warn, detail).with_fix(fix)
    }

    pub(super) fn fail(
        group: CheckGroup,
        id: &'static str,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(group, id, CheckStatus::Fail, detail).with_fix(fix)
    }

    pub(super) fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub(super) fn with_evidence(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }

    pub(super) fn took(mut self, took: Duration) -> Self {
        self.ms = millis(took);
        self
    }
}

/// A number of things: `1 model`, `2 models`.
pub fn plural(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

pub(super) fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// Number of checks by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct CheckCounts {
    /// As they should be.
    pub ok: usize,
    /// With a warning.
    pub warn: usize,
    /// Failed.
    pub fail: usize,
    /// Not tried.
    pub skip: usize,
}

/// All checks of a run.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct DoctorReport {
    /// The version of the program that ran them.
    pub version: Cow<'static, str>,
    /// Time of the run, in Unix milliseconds.
    pub at: u64,
    /// Time that it took, in milliseconds.
    pub ms: u64,
    /// Their outcomes.
    pub counts: CheckCounts,
    /// The checks, by group.
    pub checks: Vec<Check>,
}

impl DoctorReport {
    /// Counts checks by their outcome.
    pub fn count(checks: &[Check]) -> CheckCounts {
        let mut counts = CheckCounts::default();
        for check in checks {
            *match check.status {
                CheckStatus::Ok => &mut counts.ok,
                CheckStatus::Warn => &mut counts.warn,
                CheckStatus::Fail => &mut counts.fail,
                CheckStatus::Skip => &mut counts.skip,
            } += 1;
        }
        counts
    }
}
