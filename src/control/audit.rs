//! The audit of the API.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    call,
    problem::Problem,
    query::{NoParams, read, text},
    state::AdminState,
};
#[cfg(test)]
use crate::registry::{AuditFound, AuditVerified};
use crate::{
    audit::AuditFilter,
    registry::{Call, since},
};

/// Lines that are asked for.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct AuditParams {
    /// A part of the author's name, the author's method, or its address.
    #[cfg_attr(test, param(max_length = 256))]
    actor: Option<String>,
    /// The action, or its beginning up to a dot: `key`, `key.create`.
    #[cfg_attr(test, param(max_length = 256))]
    action: Option<String>,
    /// The object: its type and id (`key:0aB3zZ9xY1`, `team:core`), its id, or the name of a key.
    #[cfg_attr(test, param(max_length = 256))]
    target: Option<String>,
    /// A text that any field has, in any case.
    #[cfg_attr(test, param(max_length = 256))]
    q: Option<String>,
    /// Time of the oldest line: a moment (RFC 3339), a date, or a duration before now (`24h`).
    #[cfg_attr(test, param(example = "24h", max_length = 256))]
    since: Option<String>,
    /// Upper bound of lines, the newest ones; 100 if it is not given.
    #[cfg_attr(test, param(minimum = 1, maximum = 10000))]
    limit: Option<usize>,
}

/// Lines of the audit, the newest last.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/audit",
    operation_id = "audit",
    tag = "audit",
    params(AuditParams),
    responses(
        (status = 200, body = AuditFound),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn search(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let AuditParams {
        actor,
        action,
        target,
        q,
        since: from,
        limit,
    } = read(&request)?;
    let limit = limit.unwrap_or(100);
    if limit == 0 || limit > 10_000 {
        return Err(Problem::BadFilter(
            "limit is not between 1 and 10000".into(),
        ));
    }
    let from = text("since", from)?.map(|from| since(&from)).transpose();
    let filter = AuditFilter {
        actor: text("actor", actor)?,
        action: text("action", action)?,
        target: text("target", target)?,
        target_ids: Vec::new(),
        text: text("q", q)?,
        since: from.map_err(|fault| Problem::BadFilter(format!("since: {fault}").into()))?,
        limit,
    };
    call::make(&plane, &request, Call::Audit(filter)).await
}

/// Checks the chain of the audit against itself and against its checkpoints.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/audit/verify",
    operation_id = "verify_audit",
    tag = "audit",
    responses(
        (status = 200, body = AuditVerified),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn verify(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::make(&plane, &request, Call::VerifyAudit).await
}
