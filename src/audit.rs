//! The audit: a chain of lines in files, one for each change of keys and limits, for each refused one, and for
//! each sign-in.
//!
//! Each line has the hash of the line before it, so that a line that was changed, cut, inserted, swapped or
//! duplicated is found. Checkpoints under the pepper go to the log and to the store: without an anchor
//! elsewhere, an owner of the disk could write all of the chain anew. Through [`AuditLog::change`] a change is
//! written down before it takes effect; if that fails, it is refused. No line has a secret.

mod chain;
mod entry;
mod log;
mod search;
mod segment;
mod verify;

pub use self::{
    entry::{ActorKind, AuditActor, AuditEntry, AuditLine, AuditTarget},
    log::{AuditError, AuditLog, ChangeError},
    search::{AuditFilter, search},
    verify::{ChainBreak, ChainReport, verify},
};

/// The folder in `DATA_DIR`.
pub const AUDIT_FOLDER: &str = "audit";
