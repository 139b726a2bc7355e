//! The author of a change: the person or program, and what it may do.

use serde::Serialize;

use crate::audit::AuditActor;

/// Rights of an author, the lesser ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads keys, limits, spend and audit.
    Viewer,
    /// Also revokes keys and grants additions to budgets.
    Operator,
    /// Also creates keys and sets limits.
    Admin,
}

/// The author of a change.
#[derive(Debug, Clone)]
pub struct Author {
    /// The author, as the audit names it.
    pub actor: AuditActor,
    /// The author's rights.
    pub role: Role,
    /// Name of the request.
    pub request_id: String,
}

impl Role {
    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}
