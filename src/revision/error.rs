//! Reasons for which the file stays as it is.

use std::path::PathBuf;

use super::file::FileWriteError;
use crate::{
    audit::AuditError,
    config::{ConfigErrors, envdiff::DiffLine},
};

/// Reason for which a change of the file did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// No variable has this name.
    #[error("{name} is no variable{}; docs/configuration.md has all of them", suggestion(.nearest))]
    Unknown {
        /// The name.
        name: String,
        /// The variable that is named nearly so.
        nearest: Option<&'static str>,
    },
    /// No line can hold the value.
    #[error("{0}: the value has a NUL character, which no line of the file can hold; leave it out")]
    Unwritable(String),
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}; nothing was changed")]
    Unreadable(String, #[source] std::io::Error),
    /// The configuration would have faults.
    #[error("{0}\nnothing was changed")]
    Invalid(ConfigErrors),
    /// A file that the configuration names would be at fault.
    #[error("{0}; nothing was changed")]
    Faulty(String),
    /// The file was changed since the author saw it.
    #[error(
        "the configuration was changed since you loaded it; look at the difference, and make your change again"
    )]
    Stale {
        /// The version that it has now.
        version: String,
        /// The difference to what the author saw, if that is still known.
        diff: Option<Vec<DiffLine>>,
    },
    /// There is no file, and none is known to have been.
    #[error(
        "{path} does not exist; nothing was changed; run this in the folder of the server, or find the server by its \
         DATA_DIR (--data-dir PATH) or the file by its path (--env-file PATH); to make a first file, run init, or add \
         --create", path = .0.display()
    )]
    NoFile(PathBuf),
    /// The file is gone, and the history has it.
    #[error(
        "{path} is gone, with the settings that it had after change {id}; nothing was changed; bring it back with \
         `config rollback`, then make this change", path = .path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// The last change of it.
        id: u64,
    },
    /// The file is gone, and only the running server knows its settings.
    #[error(
        "{path} is gone, and the running server still has {count} settings of it; nothing was changed, since a file of \
         this change alone would be all that the next start reads; restore the file, then make this change",
        path = .path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// The number of settings.
        count: usize,
    },
    /// The file was changed by hand, which a return would take back.
    #[error(
        "the file was changed by hand after change {id}, and this would take that back, too; nothing was changed; set \
         single variables back with `config set`, or take all of it back with --force"
    )]
    HandEdited {
        /// The change before the edit.
        id: u64,
        /// The lines that the hand changed.
        diff: Vec<DiffLine>,
    },
    /// The place takes no change.
    #[error("{fault}; nothing was changed; write these lines where your deployment keeps its settings:\n{}", .lines.join("\n"))]
    ReadOnly {
        /// The reason.
        fault: FileWriteError,
        /// Lines to write elsewhere; secrets are left out.
        lines: Vec<String>,
    },
    /// The system refuses it.
    #[error("{0}")]
    Write(#[from] FileWriteError),
    /// The change could not be written down.
    #[error("{0}")]
    Audit(#[from] AuditError),
    /// The running server did not take it.
    #[error(
        "the running server refused the file: {faults}{}",
        match .is_restored { true => "; the file is what it was before", false => "; the file could not be restored: use `config rollback`" }
    )]
    Refused {
        /// The reason.
        faults: String,
        /// The file is what it was.
        is_restored: bool,
    },
    /// There is no change to return to.
    #[error("there is no change in the history to undo")]
    NoHistory,
    /// No change has this number.
    #[error("the history has no change {0}; `config history` lists those that are kept")]
    NoSuchRevision(u64),
}

impl RevisionError {
    /// Status of the answer, as HTTP has it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unknown { .. } | Self::Unwritable(_) | Self::Invalid(_) | Self::Faulty(_) => 400,
            Self::NoHistory | Self::NoSuchRevision(_) => 404,
            Self::ReadOnly { .. }
            | Self::Refused { .. }
            | Self::NoFile(_)
            | Self::Gone { .. }
            | Self::Lost { .. }
            | Self::HandEdited { .. } => 409,
            Self::Stale { .. } => 412,
            Self::Unreadable(..) | Self::Write(_) | Self::Audit(_) => 503,
        }
    }

    /// Code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown_variable",
            Self::Unwritable(_) | Self::Invalid(_) | Self::Faulty(_) => "invalid_configuration",
            Self::NoHistory | Self::NoSuchRevision(_) => "not_found",
            Self::ReadOnly { .. } => "read_only",
            Self::Refused { .. } => "reload_refused",
            Self::Stale { .. } => "stale_version",
            Self::NoFile(_) | Self::Gone { .. } | Self::Lost { .. } => "file_missing",
            Self::HandEdited { .. } => "edited_by_hand",
            Self::Unreadable(..) | Self::Write(_) => "not_written",
            Self::Audit(_) => "not_audited",
        }
    }
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest
        .map(|nearest| format!("; did you mean {nearest}?"))
        .unwrap_or_default()
}
