//! Our own paths: health, liveness, readiness. None of them asks the upstream.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::SystemTime,
};

use actix_web::{HttpResponse, http::header, web};
use tokio::sync::watch;

use crate::{control, drain::DrainPhase, logging};

/// Identity and start of this process, for `/health`.
pub(super) struct Status {
    pub(super) boot_id: String,
    pub(super) started: SystemTime,
}

impl Status {
    pub(super) fn new() -> Self {
        let random = || RandomState::new().hash_one(std::process::id());
        Self {
            boot_id: format!("{:016x}{:016x}", random(), random()),
            started: SystemTime::now(),
        }
    }
}

/// Reports that a path is one of the proxy's own.
pub(super) fn is_local(path: &[u8]) -> bool {
    matches!(path, b"/health" | b"/livez" | b"/readyz") || path == control::METRICS.as_bytes()
}

/// The same where there is a dashboard.
pub(super) fn is_local_or_dashboard(path: &[u8]) -> bool {
    is_local(path) || control::owns(path)
}

/// The service is up: the shape of the service that this one replaces, and more.
pub(super) async fn health(status: web::ThinData<Arc<Status>>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({
            "status": "healthy",
            "service": "anthropic-proxy",
            "boot_id": status.boot_id,
            "started_at": logging::timestamp(status.started),
            "version": env!("CARGO_PKG_VERSION"),
        }))
}

/// The process answers.
pub(super) async fn livez() -> HttpResponse {
    plain(HttpResponse::Ok(), "ok\n")
}

/// The process takes new work.
pub(super) async fn readyz(phase: web::ThinData<watch::Receiver<DrainPhase>>) -> HttpResponse {
    match *phase.borrow() {
        // the process that took over is ready
        DrainPhase::Running | DrainPhase::HandedOver => plain(HttpResponse::Ok(), "ready\n"),
        DrainPhase::Starting => plain(HttpResponse::ServiceUnavailable(), "starting\n"),
        DrainPhase::Leaving | DrainPhase::Draining | DrainPhase::Cut => {
            plain(HttpResponse::ServiceUnavailable(), "draining\n")
        }
    }
}

fn plain(mut response: actix_web::HttpResponseBuilder, content: &'static str) -> HttpResponse {
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body(content)
}
