//! The API as OpenAPI describes it: `static/openapi.json`, embedded like the dashboard's files. A test makes it
//! anew from the handlers and the types themselves, and compares.

use actix_web::{HttpRequest, HttpResponse};

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    assets,
    problem::Problem,
    query::{NoParams, read},
};

#[cfg(test)]
mod document;

/// This document.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/openapi.json",
    operation_id = "openapi",
    tag = "documentation",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn answer(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    assets::answer(&request, assets::DESCRIPTION)
}
