//! The author of a call: who shows the key, has a session, or may open the socket.

use std::sync::Arc;

use actix_web::{HttpRequest, http::header, web};

use super::{
    admission::AuthMethod, caller::Caller, paths::Exposure, problem::Problem, session,
    state::AdminState,
};
use crate::{
    audit::{ActorKind, AuditActor, AuditEntry, AuditTarget},
    registry::{Author, Registry, Role},
};

/// Field in which a program on the socket names its user: access to the socket is the authority.
const OPERATOR: &str = "x-proxy-operator";

/// Characters of a client's name that are kept.
const LONGEST: usize = 200;

/// Name of the holder of the dashboard's key.
const DASHBOARD: &str = "dashboard";

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
        let exposure = request.app_data::<web::ThinData<Exposure>>();
        let caller = Caller::of(request);
        let (kind, id) = match exposure.map(|exposure| exposure.0) {
            Some(Exposure::Socket) => (ActorKind::Socket, operator(request)),
            Some(Exposure::Main | Exposure::Alone) | None => {
                let key = self.key().ok_or(Problem::Unauthorized)?;
                let kind = match self.authenticate(request, &caller, &key)? {
                    AuthMethod::Session(_) => ActorKind::Session,
                    AuthMethod::Bearer => ActorKind::Key,
                };
                (kind, DASHBOARD.to_owned())
            }
        };
        Ok(Author {
            actor: actor(request, &caller, kind, id),
            role: Role::Admin,
            request_id: request_id(),
        })
    }

    /// Writes down a sign-in, or one that was refused, beside the worker.
    pub(super) fn note_sign_in(
        &self,
        request: &HttpRequest,
        caller: &Caller<'_>,
        method: &'static str,
        refusal: Option<&str>,
    ) {
        let Some(registry) = self.sources.registry.clone() else {
            return;
        };
        let (kind, id) = match refusal {
            Some(_) => (ActorKind::Anonymous, String::new()),
            None => (ActorKind::Key, DASHBOARD.to_owned()),
        };
        let entry = AuditEntry {
            actor: actor(request, caller, kind, id),
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
        let result = match refusal {
            Some(why) => format!("refused: {why}"),
            None => "done".to_owned(),
        };
        // no request waits for it
        drop(actix_rt::task::spawn_blocking(move || {
            if let Err(error) = registry.audit().note(&entry, &result) {
                log::error!("[Audit] a sign-in is not written down: {error}");
            }
        }));
    }
}

fn actor(request: &HttpRequest, caller: &Caller<'_>, kind: ActorKind, id: String) -> AuditActor {
    let agent = request.headers().get(header::USER_AGENT);
    AuditActor {
        kind,
        id,
        ip: caller.peer.map(|peer| peer.to_string()),
        ua: agent.map(|agent| text(agent.as_bytes())),
    }
}

/// The name that a program on the socket gives.
fn operator(request: &HttpRequest) -> String {
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
