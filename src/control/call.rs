//! Calls of operators on keys, limits and audit, as requests of the API.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};

use super::{problem::Problem, state::AdminState};
use crate::registry::{Author, Call, Change, RegistryError};

/// Refuses a change that the client's role does not allow, before its content is read; gives its author.
pub(super) async fn permit(
    plane: &Arc<AdminState>,
    request: &HttpRequest,
    change: Change,
    target: &str,
) -> Result<Author, Problem> {
    let author = plane.author(request)?;
    let (has, needs) = (author.role, change.needs());
    if has >= needs {
        return Ok(author);
    }
    // an ended request is in no registry, and refused all the same
    let Some(registry) = plane.sources.registry.clone() else {
        return Err(RegistryError::Forbidden { has, needs }.into());
    };
    let target = target.to_owned();
    let refused = plane
        .aside
        .run(move || registry.permit(&author, change, &target).map(|()| author));
    refused.await?.map_err(Problem::from)
}

/// Writes down a change that was made here, beside the worker.
pub(super) fn note(
    plane: &Arc<AdminState>,
    author: Author,
    (change, target): (Change, &str),
    reason: String,
) {
    let Some(registry) = plane.sources.registry.clone() else {
        return;
    };
    let target = target.to_owned();
    drop(actix_rt::task::spawn_blocking(move || {
        let reason = Some(&*reason).filter(|reason| !reason.is_empty());
        registry.note(&author, (change, &target), reason, "done");
    }));
}

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
