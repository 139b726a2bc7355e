//! The paths of the control plane, and the listeners that serve them.

use actix_web::http::{Method, header};

/// Tells whether a path belongs to the dashboard.
pub fn owns(path: &[u8]) -> bool {
    path.strip_prefix(ROOT.as_bytes())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

pub(super) const ROOT: &str = "/admin";

/// The API, below [`ROOT`].
pub(super) const API: &str = "/api/v1";

/// The path of the metrics.
pub const METRICS: &str = "/metrics";

/// Pages below [`ROOT`]; all of them are one file.
pub(super) const PAGES: [&str; 14] = [
    "",
    "/",
    "/requests",
    "/sessions",
    "/errors",
    "/usage",
    "/spend",
    "/keys",
    "/audit",
    "/upstreams",
    "/doctor",
    "/config",
    "/connect",
    "/docs",
];

/// Kind of listener that a request for the admin plane came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposure {
    /// On a port that forwards everything else.
    Main,
    /// On `ADMIN_LISTEN`.
    Alone,
    /// On the socket in `DATA_DIR`, whose mode is the authority.
    Socket,
}

/// Tells whether an `Accept` names HTML: browsers do so where they open a page, and programs do not.
pub(super) fn names_html(accept: &[u8]) -> bool {
    let mut types = accept.split(|&octet| octet == b',' || octet == b';');
    types.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/html"))
}

/// Tells whether a browser opens a page below [`ROOT`] that does not exist. Paths of the API and of files are
/// no pages.
pub(super) fn is_unknown_page(method: &Method, path: &str, fields: &header::HeaderMap) -> bool {
    let name = path.strip_prefix(ROOT).unwrap_or_default();
    let is_page = !["/api", "/assets", "/grafana", "/prometheus"]
        .iter()
        .any(|folder| {
            let rest = name.strip_prefix(folder);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    let accept = fields.get(header::ACCEPT);
    (*method == Method::GET || *method == Method::HEAD)
        && is_page
        && owns(path.as_bytes())
        && accept.is_some_and(|accept| names_html(accept.as_bytes()))
}
