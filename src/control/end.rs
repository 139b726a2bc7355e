//! Ending an exchange in flight: the one thing that an operator can do to what passes.
//!
//! It needs the role of an operator, also from this machine, and is logged with its author and reason.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    call,
    content::json,
    problem::Problem,
    query::{NoParams, read},
    state::AdminState,
};
use crate::{registry::Change, telemetry::activity::EndOutcome};

/// Characters of a reason.
const LONGEST_REASON: usize = 200;

/// Reason for ending an exchange.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Ending {
    /// The reason, for the log.
    #[cfg_attr(test, schema(max_length = 200))]
    reason: Option<String>,
}

/// The exchange whose worker was told to end it.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct EndAccepted {
    /// Its name.
    id: String,
    /// The label that its record will carry.
    #[cfg_attr(test, schema(example = "ended_by_operator"))]
    label: &'static str,
}

/// Ends an exchange in flight.
///
/// Its upstream connection is closed at once. A client that has the response head sees its stream aborted;
/// one that has not is answered 403 with `x-proxy-error: ended_by_operator`. The record says `proxy` and
/// `ended_by_operator`, and the log who asked for it and why.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/requests/{id}/end",
    operation_id = "end_request",
    tag = "activity",
    params(("id" = String, Path, description = "its name, as `request-id` had it",
            example = "req_000000000000000000000000")),
    request_body(content = Ending, description = "`{}` where there is no reason to tell"),
    responses(
        (status = 202, description = "its worker was told to end it", body = EndAccepted),
        (status = 400, description = "content that cannot be read", body = ProblemDocument),
        (status = 404, description = "not among those in flight, nor among the last ones", body = ProblemDocument),
        (status = 409, description = "it has ended, or its end was asked for before", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn answer(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    let id = request.match_info().query("id");
    let author = call::permit(&plane, &request, Change::EndRequest, id).await?;
    let Ending { reason } = json(&request, payload, "{\"reason\": \"…\"}").await?;
    let reason = reason.unwrap_or_default();
    if reason.chars().count() > LONGEST_REASON {
        return Err(Problem::BadRequest(
            "reason is longer than 200 characters".into(),
        ));
    }
    match plane.view()?.end(id) {
        EndOutcome::Unknown => Err(Problem::NotFound),
        EndOutcome::TooLate => Err(Problem::TooLate),
        EndOutcome::Asked => {
            log::warn!(
                "[Admin] request ended by an operator request_id={id} client={} by={} author={:?} reason={reason:?}",
                author.actor.ip.as_deref().unwrap_or("unix"),
                author.actor.kind.label(),
                author.actor.id,
            );
            call::note(&plane, author, (Change::EndRequest, id), reason);
            Ok(HttpResponse::Accepted().json(EndAccepted {
                id: id.to_owned(),
                label: LABEL,
            }))
        }
    }
}

const LABEL: &str = "ended_by_operator";
