//! The author of a change: the person or program, and what it may do.

pub use crate::config::Role;

use crate::audit::AuditActor;

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
