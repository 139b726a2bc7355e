//! A line of the audit, and the change that it is about.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Author of a change, as far as the proxy knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct AuditActor {
    /// Method by which the author has authenticated.
    #[serde(rename = "type")]
    pub kind: ActorKind,
    /// The author's name: of a user, of an account of the host, or of the process.
    pub id: String,
    /// The client's address; none on this machine.
    pub ip: Option<String>,
    /// The client's name for itself (`User-Agent`).
    pub ua: Option<String>,
}

/// Method by which the author of a change has authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The dashboard's key, in `Authorization`.
    Key,
    /// A session of the dashboard.
    Session,
    /// A user that a trusted proxy has named.
    User,
    /// The socket in `DATA_DIR`: its mode is the authority.
    Socket,
    /// The command line, on the files.
    Cli,
    /// No one yet: a sign-in that was refused.
    Anonymous,
    /// The proxy itself.
    System,
}

/// Object of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct AuditTarget {
    /// Its kind: `key`, `subject`, `file`, `session`, `chain`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub id: String,
}

/// A change, without its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Its author.
    pub actor: AuditActor,
    /// The action, as `key.create`.
    pub action: String,
    /// Its object.
    pub target: AuditTarget,
    /// The object before it; null if there was none.
    pub before: Value,
    /// The object after it; null if there is none.
    pub after: Value,
    /// The reason that the author gave.
    pub reason: Option<String>,
    /// Name of the request, which intent and result share.
    pub request_id: String,
}

/// A line of the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct AuditLine {
    /// Its number, from 1 on.
    pub seq: u64,
    /// Its time (RFC 3339).
    #[cfg_attr(test, schema(example = "2026-11-28T21:00:00.000Z"))]
    pub at: String,
    /// The author of the change.
    pub actor: AuditActor,
    /// The action.
    #[cfg_attr(test, schema(example = "key.create"))]
    pub action: String,
    /// The object.
    pub target: AuditTarget,
    /// The object before the change.
    pub before: Value,
    /// The object after the change.
    pub after: Value,
    /// The reason that the author gave.
    pub reason: Option<String>,
    /// Name of the request, which intent and result share.
    pub request_id: String,
    /// `intent` before a change takes effect; then `done`, `refused: …` or `failed: …`.
    #[cfg_attr(test, schema(example = "done"))]
    pub result: String,
    /// The chain: one for each replica.
    pub replica: String,
    /// Hash of the line before.
    pub prev: String,
    /// Hash of `prev` and of this line without `hash`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

impl AuditActor {
    /// The proxy itself.
    pub fn system() -> Self {
        Self {
            kind: ActorKind::System,
            id: "proxy".to_owned(),
            ip: None,
            ua: None,
        }
    }
}

impl ActorKind {
    /// Its name in lines.
    pub fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Session => "session",
            Self::User => "user",
            Self::Socket => "socket",
            Self::Cli => "cli",
            Self::Anonymous => "anonymous",
            Self::System => "system",
        }
    }
}
