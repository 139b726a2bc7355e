//! Logging in and out: the key for a session, which a cookie carries.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
    web,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::{
    Plane,
    caller::Caller,
    problem::{Problem, Shape},
    session::{self, LIFETIME, Name},
};
use crate::wire::cookie::{self, SESSION};

/// Octets of a request's content that are read.
const MAX_BODY: usize = 64 * 1024;

/// The key, to log in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// `DASHBOARD_API_KEY`.
    key: String,
}

/// How one stands with the dashboard.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionStatus {
    /// Whether data would be given.
    authenticated: bool,
    /// Whether there is a key to log in with.
    key_required: bool,
    /// Whether whoever asks is a program of this machine.
    loopback: bool,
}

/// Whether one is logged in.
#[utoipa::path(
    get,
    path = "/admin/api/v1/session",
    tag = "session",
    security(()),
    responses(
        (status = 200, body = SessionStatus),
        (status = 403, description = "asked for by another site", body = Shape),
        (status = 405, description = "another method", body = Shape),
    )
)]
pub(super) async fn status(
    plane: web::ThinData<Arc<Plane>>,
    request: HttpRequest,
) -> web::Json<SessionStatus> {
    let caller = Caller::of(&request);
    let live = plane.sources.live.load_full();
    let loopback = plane.is_here(&caller, request.peer_addr()).await;
    web::Json(SessionStatus {
        authenticated: match &live.dashboard_key {
            Some(key) => plane.knows(&request, &caller, key).is_ok(),
            None => loopback,
        },
        key_required: live.dashboard_key.is_some(),
        loopback,
    })
}

/// Logs in: the key for a session, whose cookie is set.
#[utoipa::path(
    post,
    path = "/admin/api/v1/session",
    tag = "session",
    security(()),
    request_body = Login,
    responses(
        (status = 204, description = "logged in; where there is no key, nothing was needed",
         headers(("set-cookie" = String, description = "the session"))),
        (status = 400, description = "not a login", body = Shape),
        (status = 401, description = "a wrong key", body = Shape),
        (status = 403, description = "asked for by another site, or there is no key", body = Shape),
        (status = 405, description = "another method", body = Shape),
        (status = 429, description = "too many keys were tried", body = Shape),
    )
)]
pub(super) async fn log_in(
    plane: web::ThinData<Arc<Plane>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let Login { key: shown } = json(&request, payload, "{\"key\": \"…\"}").await?;
    let caller = Caller::of(&request);
    let live = plane.sources.live.load();
    let Some(key) = &live.dashboard_key else {
        return Ok(HttpResponse::NoContent().finish());
    };
    plane.tries(&caller, key, shown.as_bytes())?;
    let id = session::random_id().ok_or(Problem::Unavailable("no random octets"))?;
    plane
        .sessions
        .open(Name::of(&[id.as_bytes()]), key, Instant::now());
    let cookie = set_cookie(&id, LIFETIME.as_secs(), caller.is_secure());
    Ok(HttpResponse::NoContent()
        .insert_header((header::SET_COOKIE, cookie))
        .finish())
}

/// Logs out.
#[utoipa::path(
    delete,
    path = "/admin/api/v1/session",
    tag = "session",
    security(()),
    responses(
        (status = 204, description = "logged out",
         headers(("set-cookie" = String, description = "nothing"))),
        (status = 403, description = "asked for by another site, or there is no key", body = Shape),
        (status = 405, description = "another method", body = Shape),
    )
)]
pub(super) async fn log_out(
    plane: web::ThinData<Arc<Plane>>,
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

/// The sessions that a request names: cookies of our name may be those of other ports and paths, and there
/// may be as many of them as a head holds.
pub(super) fn sessions(fields: &HeaderMap) -> impl Iterator<Item = Name> {
    fields
        .get_all(header::COOKIE)
        .flat_map(|cookies| cookie::sessions(cookies.as_bytes()))
        .filter(|id| session::is_id(id))
        .map(|id| Name::of(&[id]))
}

fn set_cookie(id: &str, seconds: u64, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{SESSION}={id}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Reads a request's content of this shape.
pub(super) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
    shape: &str,
) -> Result<T, Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = content_type
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    // no form of another page can send it
    if !media_type.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::BadRequest(
            "the content is not application/json".into(),
        ));
    }
    let content = match payload.to_bytes_limited(MAX_BODY).await {
        Ok(Ok(content)) => content,
        Ok(Err(_)) => return Err(Problem::BadRequest("the content did not come whole".into())),
        Err(_) => return Err(Problem::BadRequest("the content is too large".into())),
    };
    serde_json::from_slice(&content)
        .map_err(|_| Problem::BadRequest(format!("the content is not {shape}").into()))
}
