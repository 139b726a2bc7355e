//! The keys of the API.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    call,
    content::{json, json_up_to},
    problem::Problem,
    query::{NoParams, read, text},
    state::AdminState,
};
#[cfg(test)]
use crate::registry::{Applied, CreatedKey, Exported, KeyList, KeyRow};
use crate::registry::{
    ApplyFile, Call, Change, ImportKeys, KeyFilter, NewKey, RevokeKey, RotateKey,
};

/// Octets of a key file: a hundred thousand keys have their place in it.
const MAX_FILE: usize = 64 << 20;

/// Keys that are listed.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct KeyParams {
    /// A part of the id, name, user or team, in any case.
    #[cfg_attr(test, param(max_length = 256))]
    q: Option<String>,
    /// The state: `active`, `expired` or `revoked`.
    #[cfg_attr(test, param(pattern = "^(active|expired|revoked|)$"))]
    state: Option<String>,
    /// Rows of a page; 1,000 if it is not given.
    #[cfg_attr(test, param(minimum = 1, maximum = 10000))]
    limit: Option<usize>,
    /// `next_after` of the page before.
    #[cfg_attr(test, param(pattern = "^([0-9A-Za-z]{10}|)$"))]
    after: Option<String>,
}

/// The keys.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/keys",
    operation_id = "keys",
    tag = "keys",
    params(KeyParams),
    responses(
        (status = 200, body = KeyList),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn list(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let KeyParams {
        q,
        state,
        limit,
        after,
    } = read(&request)?;
    let filter = KeyFilter {
        q: text("q", q)?,
        state: text("state", state)?,
        limit,
        after: text("after", after)?,
    };
    call::make(&plane, &request, Call::Keys(filter)).await
}

/// Creates a key. The answer has the whole key, which is shown this once.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/keys",
    operation_id = "create_key",
    tag = "keys",
    request_body = NewKey,
    responses(
        (status = 200, description = "the key; with `key` if it is new", body = CreatedKey),
        (status = 400, description = "content that cannot be read", body = ProblemDocument),
        (status = 409, description = "another key has its name or id", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn create(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::permit(&plane, &request, Change::CreateKey, "").await?;
    let new: NewKey = json(&request, payload, "{\"name\": \"…\"}").await?;
    call::make(&plane, &request, Call::Create(new)).await
}

/// A key, by its id or by the name that it alone has.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/keys/{id}",
    operation_id = "key",
    tag = "keys",
    params(("id" = String, Path, description = "its id or name", example = "0aB3zZ9xY1")),
    responses(
        (status = 200, body = KeyRow),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        (status = 404, description = "no key has it", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn show(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::make(&plane, &request, Call::Key(id.into_inner())).await
}

/// Gives a key another secret. The old one stays valid for the overlap; the new one is shown this once.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/keys/{id}/rotate",
    operation_id = "rotate_key",
    tag = "keys",
    params(("id" = String, Path, description = "its id or name", example = "0aB3zZ9xY1")),
    request_body(content = RotateKey, description = "`{}` for an overlap of a day"),
    responses(
        (status = 200, body = CreatedKey),
        (status = 400, description = "content that cannot be read", body = ProblemDocument),
        (status = 404, description = "no key has it", body = ProblemDocument),
        (status = 409, description = "it was revoked, or an older secret overlaps still", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn rotate(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::permit(&plane, &request, Change::RotateKey, &id).await?;
    let terms: RotateKey = json(&request, payload, "{\"overlap\": \"24h\"}").await?;
    call::make(&plane, &request, Call::Rotate(id.into_inner(), terms)).await
}

/// Ends the validity of a key, within a second everywhere.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/keys/{id}/revoke",
    operation_id = "revoke_key",
    tag = "keys",
    params(("id" = String, Path, description = "its id or name", example = "0aB3zZ9xY1")),
    request_body = RevokeKey,
    responses(
        (status = 200, body = KeyRow),
        (status = 400, description = "content that cannot be read", body = ProblemDocument),
        (status = 404, description = "no key has it", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn revoke(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::permit(&plane, &request, Change::RevokeKey, &id).await?;
    let terms: RevokeKey = json(&request, payload, "{\"reason\": \"…\", \"cut\": false}").await?;
    call::make(&plane, &request, Call::Revoke(id.into_inner(), terms)).await
}

/// Applies a key file: all of it or nothing. Its faults are all in the answer, with line and remedy.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/keys/apply",
    operation_id = "apply_keys",
    tag = "keys",
    request_body = ApplyFile,
    responses(
        (status = 200, body = Applied),
        (status = 400, description = "content that cannot be read, or a file with faults", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn apply(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::permit(&plane, &request, Change::ApplyKeys, "keys.toml").await?;
    let file: ApplyFile = json_up_to(MAX_FILE, &request, payload, "{\"text\": \"…\"}").await?;
    call::make(&plane, &request, Call::Apply(file)).await
}

/// All keys and limits for another proxy, with digests of secrets.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/keys/export",
    operation_id = "export_keys",
    tag = "keys",
    responses(
        (status = 200, body = Exported),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn export(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::make(&plane, &request, Call::Export).await
}

/// Takes the keys and limits that another proxy exported: all of them or none.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/keys/import",
    operation_id = "import_keys",
    tag = "keys",
    request_body = ImportKeys,
    responses(
        (status = 200, body = Applied),
        (status = 400, description = "content that cannot be read, or another pepper", body = ProblemDocument),
        (status = 409, description = "a key exists with other settings", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn import(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::permit(&plane, &request, Change::ImportKeys, "keys").await?;
    let import: ImportKeys = json_up_to(MAX_FILE, &request, payload, "{\"text\": \"…\"}").await?;
    call::make(&plane, &request, Call::Import(import)).await
}
