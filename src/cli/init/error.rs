//! Reasons for which nothing, or not all, was set up.

use std::process::ExitCode;

use crate::cli::{desk, output};

/// Reason for which nothing, or not all, was set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    /// Flags without a terminal that could answer.
    #[error(
        "there is no terminal to ask at, and these flags are missing:\n  {}\n--yes takes the defaults for those that have one",
        .0.join("\n  ")
    )]
    Missing(Vec<String>),
    /// A flag, or settings that do not go together.
    #[error("{0}")]
    Usage(String),
    /// Ctrl-C or Esc.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// A file is there.
    #[error("{0}")]
    Exists(String),
    /// A test, or the system.
    #[error("{0}")]
    Failed(String),
}

impl InitError {
    /// The exit code.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Missing(_) | Self::Usage(_) => output::EXIT_USAGE.into(),
            Self::Interrupted => EXIT_INTERRUPTED.into(),
            Self::Exists(_) => desk::EXIT_CONFLICT.into(),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

/// Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT.
pub(super) const EXIT_INTERRUPTED: u8 = 130;
