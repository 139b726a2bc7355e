//! stub
use std::sync::Arc;

use actix_web::{HttpResponse, web};

use super::{Plane, problem::{Problem, Shape}};

macro_rules! stub { ($name:ident, $path:literal) => {
#[utoipa::path(get, path = $path, responses((status = 200, description = "x"), (status = 401, body = Shape)))]
pub(super) async fn $name() -> Result<HttpResponse, Problem> { Ok(HttpResponse::Ok().json(serde_json::json!({}))) }
}}
stub!(overview, "/admin/api/v1/overview");
stub!(requests, "/admin/api/v1/requests");
stub!(request, "/admin/api/v1/requests/{id}");
stub!(errors, "/admin/api/v1/errors");
stub!(usage, "/admin/api/v1/usage");
stub!(usage_csv, "/admin/api/v1/usage.csv");
stub!(usage_json, "/admin/api/v1/usage.json");
stub!(upstreams, "/admin/api/v1/upstreams");

/// The metrics.
pub(super) async fn metrics(plane: web::ThinData<Arc<Plane>>) -> Result<HttpResponse, Problem> {
    let exposition = plane.sources.exposition.as_ref();
    let exposition = exposition.ok_or(Problem::Unavailable("there are no metrics"))?;
    Ok(HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(exposition()))
}
