//! The limits and budgets of the API.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    call,
    content::json,
    problem::Problem,
    query::{NoParams, read, text},
    state::AdminState,
};
use crate::registry::{Call, Change, GrantBudget, SetLimits, SpendBy};
#[cfg(test)]
use crate::registry::{LimitsChecked, LimitsOf, SpendBars, UsedLimits};

/// The subject whose sums are compared.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct SubjectParams {
    /// `org`, `team:NAME`, `user:NAME` or `key:ID`; all if it is not given.
    #[cfg_attr(test, param(example = "team:core", max_length = 256))]
    subject: Option<String>,
}

/// Limits that are listed.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct UsedParams {
    /// Rows; 100 if it is not given.
    #[cfg_attr(test, param(minimum = 1, maximum = 1000))]
    limit: Option<usize>,
}

/// Subjects whose budgets are shown.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct SpendParams {
    #[cfg_attr(test, param(schema_with = super::query::schemas::budgets))]
    by: Option<String>,
}

/// Rates (requests, tokens a minute) and exchanges at once of all subjects, the most used ones first.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/limits",
    operation_id = "used_limits",
    tag = "limits",
    params(UsedParams),
    responses(
        (status = 200, body = UsedLimits),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn used(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let UsedParams { limit } = read(&request)?;
    call::make(&plane, &request, Call::UsedLimits(limit)).await
}

/// The limits of a subject, with what is spent, held and left of each.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/limits/{subject}",
    operation_id = "limits",
    tag = "limits",
    params(("subject" = String, Path, description = "`org`, `team:NAME`, `user:NAME` or `key:ID`",
            example = "team:core")),
    responses(
        (status = 200, body = LimitsOf),
        (status = 400, description = "no subject", body = ProblemDocument),
        (status = 404, description = "no key has it", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn explain(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    subject: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::make(&plane, &request, Call::Limits(subject.into_inner())).await
}

/// Sets the limits of a subject. What is spent stays spent.
#[cfg_attr(test, utoipa::path(
    put,
    path = "/admin/api/v1/limits/{subject}",
    operation_id = "set_limits",
    tag = "limits",
    params(("subject" = String, Path, description = "`org`, `team:NAME`, `user:NAME` or `key:ID`",
            example = "team:core")),
    request_body = SetLimits,
    responses(
        (status = 200, body = LimitsOf),
        (status = 400, description = "content that cannot be read, or is no limit", body = ProblemDocument),
        (status = 404, description = "no key has it", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn set(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    subject: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::permit(&plane, &request, Change::SetLimits, &subject).await?;
    let shape = "{\"limits\": [{\"kind\": \"spend\", \"amount_usd\": 500, \"period\": \"month\"}]}";
    let change: SetLimits = json(&request, payload, shape).await?;
    call::make(
        &plane,
        &request,
        Call::SetLimits(subject.into_inner(), change),
    )
    .await
}

/// Adds to the budgets of a subject until a time.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/limits/{subject}/grant",
    operation_id = "grant",
    tag = "limits",
    params(("subject" = String, Path, description = "`org`, `team:NAME`, `user:NAME` or `key:ID`",
            example = "team:core")),
    request_body = GrantBudget,
    responses(
        (status = 200, body = LimitsOf),
        (status = 400, description = "content that cannot be read, or no budget", body = ProblemDocument),
        (status = 404, description = "no key has it", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn grant(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    subject: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    call::permit(&plane, &request, Change::GrantBudget, &subject).await?;
    let shape = "{\"amount\": \"$50\", \"until\": \"24h\", \"reason\": \"…\"}";
    let grant: GrantBudget = json(&request, payload, shape).await?;
    call::make(&plane, &request, Call::Grant(subject.into_inner(), grant)).await
}

/// Compares what counts as spent with the registers of the store.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/limits/verify",
    operation_id = "verify_limits",
    tag = "limits",
    params(SubjectParams),
    responses(
        (status = 200, body = LimitsChecked),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        (status = 404, description = "no key has the subject", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn verify(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let SubjectParams { subject } = read(&request)?;
    let subject = text("subject", subject)?;
    call::make(&plane, &request, Call::VerifyLimits(subject)).await
}

/// Budgets and what is spent of them, the most used ones first.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/spend",
    operation_id = "spend",
    tag = "limits",
    params(SpendParams),
    responses(
        (status = 200, body = SpendBars),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn spend(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let SpendParams { by } = read(&request)?;
    let by = SpendBy::parse(by.as_deref().unwrap_or("team")).ok_or(Problem::BadFilter(
        "by is not one of org, team, user, key".into(),
    ))?;
    call::make(&plane, &request, Call::Spend(by)).await
}
