//! Reasons for which a call is refused or fails.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::author::Role;
use crate::{audit::AuditError, state::StateError};

/// Reason for which a call is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The author's role does not suffice.
    #[error("role {has} is not enough; nothing was changed; {needs} is needed", has = .has.label(), needs = .needs.label())]
    Forbidden {
        /// The author's role.
        has: Role,
        /// The least role that may.
        needs: Role,
    },
    /// No object has the name.
    #[error("{0}")]
    NotFound(String),
    /// The call asks for something impossible.
    #[error("{0}")]
    Invalid(String),
    /// It contradicts what there is.
    #[error("{0}")]
    Conflict(String),
    /// A file has faults: all of them.
    #[error("{}", listed(.0))]
    File(Vec<FileFault>),
    /// The change could not be written down.
    #[error("{0}")]
    Audit(#[from] AuditError),
    /// The store cannot be used.
    #[error("{0}")]
    State(#[from] StateError),
    /// The system gives no random bytes.
    #[error("the system gave no random bytes; no key was made; try again")]
    Random,
    /// The files of the audit cannot be read.
    #[error("the audit cannot be read: {0}; let this user read DATA_DIR")]
    Unreadable(#[from] std::io::Error),
}

/// A fault of a key file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct FileFault {
    /// The line.
    pub line: usize,
    /// The fault.
    pub fault: String,
    /// The remedy.
    pub fix: String,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}; {}", self.line, self.fault, self.fix)
    }
}

fn listed(faults: &[FileFault]) -> String {
    let count = faults.len();
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let s = if count == 1 { "" } else { "s" };
    format!(
        "the file has {count} fault{s}; nothing was applied:\n{}",
        faults.join("\n")
    )
}

impl RegistryError {
    /// Code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "role_forbidden",
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid",
            Self::Conflict(_) | Self::State(StateError::Conflict) => "conflict",
            Self::File(_) => "file_faults",
            Self::Audit(_) => "audit_unavailable",
            Self::State(_) | Self::Random | Self::Unreadable(_) => "store_unavailable",
        }
    }

    /// Status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Forbidden { .. } => 403,
            Self::NotFound(_) => 404,
            Self::Invalid(_) | Self::File(_) => 400,
            Self::Conflict(_) | Self::State(StateError::Conflict) => 409,
            Self::Audit(_) | Self::State(_) | Self::Random | Self::Unreadable(_) => 503,
        }
    }

    /// Faults of a file, if that is the reason.
    pub fn faults(&self) -> &[FileFault] {
        match self {
            Self::File(faults) => faults,
            _ => &[],
        }
    }
}
