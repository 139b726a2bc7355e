//! The API as OpenAPI describes it: made from the handlers and the types themselves.

use std::sync::LazyLock;

use actix_web::{HttpRequest, HttpResponse, http::header};
use bytes::Bytes;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};

use super::{
    api, audit, configuration, end, events, keys, limits, login,
    problem::{Problem, ProblemDocument, ProblemResponses},
    query::{NoParams, read},
};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "anthropic-proxy admin API",
        description = "What the proxy has seen, and how it is set up. Times are Unix milliseconds, \
                       durations milliseconds, money US dollars.",
    ),
    paths(
        login::status,
        login::log_in,
        login::log_out,
        api::overview,
        api::requests,
        api::request,
        end::answer,
        api::errors,
        api::usage,
        api::usage_csv,
        api::usage_json,
        api::usage_series,
        api::sessions,
        api::session,
        api::upstreams,
        keys::list,
        keys::create,
        keys::show,
        keys::rotate,
        keys::revoke,
        keys::apply,
        keys::export,
        keys::import,
        limits::explain,
        limits::set,
        limits::grant,
        limits::verify,
        limits::spend,
        audit::search,
        audit::verify,
        configuration::answer,
        events::answer,
        api::metrics,
        answer,
    ),
    // no answer is one, but events are
    components(schemas(events::TickEvent)),
    security(("bearer" = []), ("session" = [])),
    modifiers(&Schemes),
)]
pub(super) struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = Http::new(HttpAuthScheme::Bearer);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let cookie = ApiKey::Cookie(ApiKeyValue::new("anthropic_proxy_session"));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// Written once.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| Document::openapi().to_json().unwrap_or_default().into());

/// This document.
#[utoipa::path(
    get,
    path = "/admin/api/v1/openapi.json",
    operation_id = "openapi",
    tag = "documentation",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
)]
pub(super) async fn answer(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(DOCUMENT.clone()))
}
