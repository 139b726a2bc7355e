//! The author of a call: who shows the key, has a session, or may open the socket.

use std::sync::Arc;

use actix_web::{HttpMessage as _, HttpRequest, http::header};

use super::{
    caller::Caller,
    identity::{Identity, client_address},
    problem::Problem,
    session,
    state::AdminState,
};
use crate::{
    audit::{ActorKind, AuditActor, AuditEntry, AuditTarget},
    registry::{Author, Registry},
};

/// Field in which a program on the socket names its user: access to the socket is the authority.
const OPERATOR: &str = "x-proxy-operator";

/// Characters of a client's name that are kept.
const LONGEST: usize = 200;

impl AdminState {
    /// The keys and limits, where they are kept.
    pub(super) fn registry(&self) -> Result<Arc<Registry>, Problem> {
        let registry = self.sources.registry.clone();
        registry.ok_or(Problem::Unavailable(
            "keys and limits are off: set DATA_DIR, where they are kept, and not ACCESS=off",
        ))
    }

    /// The author of a request that was admitted.
    pub(super) fn author(&self, request: &HttpRequest) -> Result<Author, Problem> {
        let identity = request.extensions().get::<Identity>().cloned();
        let identity = identity.ok_or(Problem::Unauthorized)?;
        Ok(Author {
            actor: self.actor(request, &Caller::of(request), identity.actor()),
            role: identity.role,
            request_id: request_id(),
        })
    }

    /// Writes down a sign-in with its author, or the reason for which one was refused, beside the worker.
    pub(super) fn note_sign_in(
        &self,
        request: &HttpRequest,
        caller: &Caller<'_>,
        method: &'static str,
        outcome: Result<(ActorKind, String), &str>,
    ) {
        let Some(registry) = self.sources.registry.clone() else {
            return;
        };
        let result = match outcome {
            Err(why) => format!("refused: {why}"),
            Ok(_) => "done".to_owned(),
        };
        let name = outcome.unwrap_or((ActorKind::Anonymous, String::new()));
        let entry = AuditEntry {
            actor: self.actor(request, caller, name),
            action: "session.open".to_owned(),
            target: AuditTarget {
                kind: "session".to_owned(),
                id: method.to_owned(),
            },
            before: serde_json::Value::Null,
            after: serde_json::Value::Null,
            reason: None,
            request_id: request_id(),
        };
        // no request waits for it
        drop(actix_rt::task::spawn_blocking(move || {
            if let Err(error) = registry.audit().note(&entry, &result) {
                log::error!("[Audit] a sign-in is not written down: {error}");
            }
        }));
    }

    fn actor(
        &self,
        request: &HttpRequest,
        caller: &Caller<'_>,
        (kind, id): (ActorKind, String),
    ) -> AuditActor {
        let fields = request.headers();
        let agent = fields.get(header::USER_AGENT);
        let auth = &self.sources.live.load().forward_auth;
        let client = client_address(fields, caller.peer, auth);
        AuditActor {
            kind,
            id,
            ip: client.map(|client| client.to_string()),
            ua: agent.map(|agent| text(agent.as_bytes())),
        }
    }
}

/// The name that a program on the socket gives.
pub(super) fn operator(request: &HttpRequest) -> String {
    let name = request.headers().get(OPERATOR);
    let name = name.map(|name| text(name.as_bytes()));
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "local".to_owned())
}

fn text(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    let printable = text.chars().filter(|it| !it.is_control());
    printable.take(LONGEST).collect()
}

/// A name for a request, for the lines of the audit.
fn request_id() -> String {
    let id = session::random_id().unwrap_or_default();
    format!("adm_{}", id.get(..24).unwrap_or_default())
}
