//! Authorization of each request to the admin plane, decided around all routes.
//!
//! Data needs the key, in a session or in `Authorization`. Pages hold no data: every client may load them, to
//! log in. What is none of the places named here counts as data.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpMessage as _, HttpRequest, ResponseError as _,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};

use super::{
    assets,
    author::operator,
    caller::Caller,
    identity::{AuthMethod, Identity, key_holder},
    paths::{Exposure, METRICS, PAGES, ROOT, is_unknown_page},
    problem::Problem,
    state::AdminState,
};
use crate::{audit::ActorKind, config::Role, secret::Secret};

/// Kind of the requested resource, as far as authorization depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResourceKind {
    /// A page, without data.
    Page,
    /// A file that pages are made of.
    Asset,
    /// Session status of the client.
    Status,
    /// Logging in and out.
    Login,
    /// The metrics.
    Metrics,
    /// `/`, which leads to the first page.
    Home,
    /// Everything else.
    Data,
}

impl ResourceKind {
    fn of(method: &Method, path: &str, fields: &HeaderMap) -> Self {
        let is_read = *method == Method::GET || *method == Method::HEAD;
        let Some(rest) = path.strip_prefix(ROOT) else {
            return match path {
                METRICS if is_read => Self::Metrics,
                "/" => Self::Home,
                _ => Self::Data,
            };
        };
        let name = rest.strip_prefix('/').unwrap_or_default();
        match rest {
            "/api/v1/session" if is_read => Self::Status,
            "/api/v1/session" if *method == Method::POST || *method == Method::DELETE => {
                Self::Login
            }
            _ if is_read && PAGES.contains(&rest) => Self::Page,
            _ if is_read && (name.starts_with("assets/") || assets::AT_ROOT.contains(&name)) => {
                Self::Asset
            }
            _ if is_unknown_page(method, path, fields) => Self::Page,
            _ => Self::Data,
        }
    }
}

/// The one way to all routes of the plane.
pub(super) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let plane = request
        .app_data::<web::ThinData<Arc<AdminState>>>()
        .cloned();
    let exposure = request.app_data::<web::ThinData<Exposure>>().cloned();
    let admitted = match (plane, exposure) {
        (Some(plane), Some(exposure)) => plane.authorize(request.request(), exposure.0),
        _ => Err(Problem::NotFound),
    };
    let mut response = match admitted {
        Ok(identity) => {
            if let Some(identity) = identity {
                request.extensions_mut().insert(identity);
            }
            next.call(request).await?.map_into_boxed_body()
        }
        Err(problem) => request.into_response(problem.error_response()),
    };
    secure(response.headers_mut());
    Ok(response)
}

impl AdminState {
    /// Identifies the client of what is not open to all.
    fn authorize(
        &self,
        request: &HttpRequest,
        exposure: Exposure,
    ) -> Result<Option<Identity>, Problem> {
        if exposure == Exposure::Socket {
            // no page of a browser gets there, and access to the socket is the authority
            return Ok(Some(Identity {
                method: AuthMethod::Socket,
                role: Role::Admin,
                user: Some(operator(request)),
            }));
        }
        let caller = Caller::of(request);
        let kind = ResourceKind::of(request.method(), request.path(), request.headers());
        match kind {
            // it says only where the dashboard is
            ResourceKind::Home => return Ok(None),
            ResourceKind::Metrics if self.sources.live.load().metrics_public => return Ok(None),
            ResourceKind::Metrics if exposure == Exposure::Alone && caller.knows_us() => {
                return Ok(None);
            }
            ResourceKind::Page if caller.navigates() => {}
            _ if caller.is_cross_site() => return Err(Problem::Forbidden(CROSS_SITE)),
            _ => {}
        }
        match kind {
            ResourceKind::Status
            | ResourceKind::Page
            | ResourceKind::Asset
            | ResourceKind::Home
            | ResourceKind::Login => Ok(None),
            ResourceKind::Data | ResourceKind::Metrics => self.identify(request, &caller).map(Some),
        }
    }

    /// Verifies a key, within the limit on attempts, and gives its role.
    pub(super) fn verify_key(
        &self,
        request: &HttpRequest,
        caller: &Caller<'_>,
        shown: &[u8],
        method: &'static str,
    ) -> Result<(Role, Secret), Problem> {
        let counted = self.attempts.count(caller.peer);
        let found = match counted {
            Ok(()) => self.matching_key(shown),
            Err(_) => None,
        };
        if let Some(found) = found {
            let actor = (ActorKind::Key, key_holder(found.0).to_owned());
            self.note_sign_in(request, caller, method, Ok(actor));
            return Ok(found);
        }
        let is_first = self.refused.note(caller.peer, Instant::now());
        match counted {
            Ok(()) => self.note_sign_in(request, caller, method, Err("a wrong key")),
            // further ones are counted in the log: they must not fill the disk
            Err(_) if is_first => {
                self.note_sign_in(request, caller, method, Err("too many keys were tried"));
            }
            Err(_) => {}
        }
        if is_first {
            let client = match caller.peer {
                Some(peer) => peer.to_string(),
                None => "a Unix socket".to_owned(),
            };
            log::warn!("[Admin] wrong key from {client}");
        }
        Err(match counted {
            Ok(()) => Problem::Unauthorized,
            // rounded up
            Err(wait) => Problem::TooManyAttempts(wait.as_secs() + 1),
        })
    }

    /// The key that a client shows. All are compared, so that the time tells neither which one it is nor
    /// whether it is one.
    fn matching_key(&self, shown: &[u8]) -> Option<(Role, Secret)> {
        let keys = self.keys();
        let matching = keys.into_iter().filter(|(_, key)| key.is(shown));
        matching.fold(None, |found, key| found.or(Some(key)))
    }
}

/// Adds the security fields to a response of the admin plane. Responses other than files are never stored.
pub(super) fn secure(fields: &mut HeaderMap) {
    for (name, value) in SECURITY {
        fields.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if !fields.contains_key(header::CACHE_CONTROL) {
        let never = HeaderValue::from_static("no-store");
        fields.insert(header::CACHE_CONTROL, never);
    }
}

const SECURITY: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

const CROSS_SITE: &str = "asked for by a page of another site (Origin, Sec-Fetch-Site)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_data() {
        for (method, path, expected) in [
            ("GET", "/admin", ResourceKind::Page),
            ("HEAD", "/admin/", ResourceKind::Page),
            ("GET", "/admin/docs", ResourceKind::Page),
            ("POST", "/admin", ResourceKind::Data),
            ("GET", "/admin/x", ResourceKind::Data),
            ("GET", "/adminx", ResourceKind::Data),
            ("GET", "/admin/assets/app.js", ResourceKind::Asset),
            ("GET", "/admin/assets", ResourceKind::Data),
            ("GET", "/admin/icon.svg", ResourceKind::Asset),
            ("GET", "/admin/grafana/x.json", ResourceKind::Data),
            ("GET", "/admin/prometheus/x.yaml", ResourceKind::Data),
            ("GET", "/admin//assets/app.js", ResourceKind::Data),
            ("GET", "/admin/api/v1/session", ResourceKind::Status),
            ("POST", "/admin/api/v1/session", ResourceKind::Login),
            ("DELETE", "/admin/api/v1/session", ResourceKind::Login),
            ("PUT", "/admin/api/v1/session", ResourceKind::Data),
            ("GET", "/admin/api/v1/session/", ResourceKind::Data),
            ("GET", "/admin/api/v1/config", ResourceKind::Data),
            ("GET", "/metrics", ResourceKind::Metrics),
            ("POST", "/metrics", ResourceKind::Data),
            ("GET", "/", ResourceKind::Home),
            ("GET", "/health", ResourceKind::Data),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(
                ResourceKind::of(&method, path, &HeaderMap::new()),
                expected,
                "{method} {path}"
            );
        }
    }
}
