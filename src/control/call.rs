//! Calls of operators on keys, limits and audit, as requests of the API.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};

use super::{problem::Problem, state::AdminState};
use crate::registry::{Call, RegistryError};

/// Makes a call off the worker, and answers with its result as JSON.
pub(super) async fn make(
    plane: &Arc<AdminState>,
    request: &HttpRequest,
    call: Call,
) -> Result<HttpResponse, Problem> {
    let registry = plane.registry()?;
    let author = plane.author(request)?;
    let made = plane.aside.run(move || {
        let reply = registry.answer(&author, &call)?;
        serde_json::to_vec(&reply).map_err(|error| RegistryError::Invalid(error.to_string()))
    });
    let content = made.await?.map_err(Problem::from)?;
    Ok(HttpResponse::Ok()
        .insert_header(("content-type", "application/json"))
        .body(content))
}
