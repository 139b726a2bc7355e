//! Logging in and out: the key for a session, which a cookie carries.

use std::{sync::Arc, time::Instant};

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, http::header, web};
use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::problem::ProblemDocument;
use super::{
    caller::Caller,
    content::json,
    identity::{AuthMethod, Identity},
    problem::Problem,
    session::{self, LIFETIME, SessionDigest, sessions},
    state::AdminState,
};
use crate::{config::Role, telemetry::activity::ActivityView, wire::cookie::SESSION};

/// The key, to log in with.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// `DASHBOARD_API_KEY`, or the generated key of the start line while that is not set;
    /// `DASHBOARD_OPERATOR_KEY` or `DASHBOARD_VIEWER_KEY`.
    key: String,
}

/// Session status of a client.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct SessionStatus {
    /// True if the client may read data.
    authenticated: bool,
    /// The client's role; null if it may not read data.
    role: Option<Role>,
    /// The user that a trusted proxy names.
    #[cfg_attr(test, schema(example = "ada"))]
    user: Option<String>,
    /// Method by which the client has authenticated.
    method: Option<SignInMethod>,
    /// The proxy's time zone (`TZ`).
    #[cfg_attr(test, schema(example = "Europe/Berlin"))]
    zone: Option<String>,
}

/// Method by which a client has authenticated.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
enum SignInMethod {
    /// A session, opened with a key of the dashboard.
    Session,
    /// A key in `Authorization`.
    Bearer,
    /// A proxy in front of the dashboard.
    Proxy,
    /// The socket in `DATA_DIR`.
    Socket,
}

impl SessionStatus {
    fn of(identity: Result<Identity, Problem>, zone: Option<String>) -> Self {
        match identity {
            Ok(Identity { method, role, user }) => Self {
                authenticated: true,
                role: Some(role),
                user,
                method: Some(match method {
                    AuthMethod::Session(_) => SignInMethod::Session,
                    AuthMethod::Bearer => SignInMethod::Bearer,
                    AuthMethod::Proxy => SignInMethod::Proxy,
                    AuthMethod::Socket => SignInMethod::Socket,
                }),
                zone,
            },
            Err(problem) => Self {
                authenticated: false,
                role: None,
                user: match problem {
                    Problem::NoRole(user) => Some(user),
                    _ => None,
                },
                method: None,
                zone: None,
            },
        }
    }
}

/// Session status of the client.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/session",
    tag = "session",
    security(()),
    responses(
        (status = 200, body = SessionStatus),
        (status = 403, description = "asked for by another site", body = ProblemDocument),
        (status = 405, description = "another method", body = ProblemDocument),
    )
))]
pub(super) async fn status(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> web::Json<SessionStatus> {
    let caller = Caller::of(&request);
    let known = request.extensions().get::<Identity>().cloned();
    let identity = known.map_or_else(|| plane.identify(&request, &caller), Ok);
    let zone = plane.view().ok().map(ActivityView::zone);
    web::Json(SessionStatus::of(identity, zone))
}

/// Logs in: the key for a session, whose cookie is set.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/session",
    tag = "session",
    security(()),
    request_body = Login,
    responses(
        (status = 204, description = "logged in",
         headers(("set-cookie" = String, description = "the session"))),
        (status = 400, description = "not a login", body = ProblemDocument),
        (status = 401, description = "a wrong key", body = ProblemDocument),
        (status = 403, description = "asked for by another site", body = ProblemDocument),
        (status = 405, description = "another method", body = ProblemDocument),
        (status = 429, description = "too many keys were tried", body = ProblemDocument),
    )
))]
pub(super) async fn log_in(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let Login { key: shown } = json(&request, payload, "{\"key\": \"…\"}").await?;
    let caller = Caller::of(&request);
    let (role, key) = plane.verify_key(&request, &caller, shown.as_bytes(), "session")?;
    let id = session::random_id().ok_or(Problem::Unavailable("no random octets"))?;
    plane
        .sessions
        .of(role)
        .open(SessionDigest::of(&[id.as_bytes()]), &key, Instant::now());
    let cookie = set_cookie(&id, LIFETIME.as_secs(), caller.is_secure());
    Ok(HttpResponse::NoContent()
        .insert_header((header::SET_COOKIE, cookie))
        .finish())
}

/// Logs out.
#[cfg_attr(test, utoipa::path(
    delete,
    path = "/admin/api/v1/session",
    tag = "session",
    security(()),
    responses(
        (status = 204, description = "logged out",
         headers(("set-cookie" = String, description = "nothing"))),
        (status = 403, description = "asked for by another site", body = ProblemDocument),
        (status = 405, description = "another method", body = ProblemDocument),
    )
))]
pub(super) async fn log_out(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> HttpResponse {
    for name in sessions(request.headers()) {
        plane.sessions.close(name);
    }
    let cookie = set_cookie("", 0, Caller::of(&request).is_secure());
    HttpResponse::NoContent()
        .insert_header((header::SET_COOKIE, cookie))
        .finish()
}

fn set_cookie(id: &str, seconds: u64, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{SESSION}={id}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}
