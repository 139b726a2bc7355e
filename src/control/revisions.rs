//! Changes of the file of settings, and their history.
//!
//! A change names the version that it changes (`If-Match`), so that no other one is lost. Secrets go in and never
//! out.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    call,
    content::json_up_to,
    problem::Problem,
    query::{NoParams, read},
    state::AdminState,
};
#[cfg(test)]
use crate::revision::RevisionResult;
use crate::{
    config::envdiff::DiffLine,
    registry::Change,
    revision::{Assignment, HistoryEntry, RevisionAuthor, RevisionRequest, Wanted},
};

/// Octets of a change: a system prompt of a megabyte is far beyond any model's context.
const MAX_CHANGE: usize = 4 << 20;

/// Characters of a reason.
const LONGEST_REASON: usize = 200;

/// Variables with other values.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsChange {
    /// Values by the names of their variables. Null or an empty text takes a variable out of the file.
    #[cfg_attr(test, schema(example = json!({"UPSTREAM_TIMEOUT": "2m"})))]
    set: BTreeMap<String, Option<String>>,
    /// The reason, for the audit and the history.
    #[serde(default)]
    #[cfg_attr(test, schema(max_length = 200))]
    reason: Option<String>,
    /// Shows what would change, and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// A change that is to be undone.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsRollback {
    /// The change before which the file was as it is to be; the last one if it is not given.
    #[serde(default)]
    to: Option<u64>,
    /// The reason, for the audit and the history.
    #[serde(default)]
    #[cfg_attr(test, schema(max_length = 200))]
    reason: Option<String>,
    /// Shows what would change, and changes nothing.
    #[serde(default)]
    dry_run: bool,
    /// Takes back edits by hand that were made since, too. Without it, they are a reason to refuse, and `diff` has
    /// them.
    #[serde(default)]
    force: bool,
}

/// Changes that are kept.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct SettingsHistory {
    /// Newest first.
    items: Vec<HistoryEntry>,
}

/// A change of the past, and what differs since.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct SettingsSince {
    /// The change.
    entry: HistoryEntry,
    /// The lines that differ between the file before it and the file now, with secrets masked.
    diff: Vec<DiffLine>,
}

/// Changes variables of the file.
///
/// The change is judged as a start would, written as a whole, reloaded, and undone if the reload refuses it. With
/// `dry_run` it is only shown.
#[cfg_attr(test, utoipa::path(
    patch,
    path = "/admin/api/v1/config",
    operation_id = "change_config",
    tag = "configuration",
    params(("If-Match" = Option<String>, Header, description = "the `ETag` of the configuration that is changed")),
    request_body = SettingsChange,
    responses(
        (status = 200, body = RevisionResult),
        (status = 400, description = "content that cannot be read, or settings with faults", body = ProblemDocument),
        (status = 409, description = "the file cannot be changed here, or the reload refused it", body = ProblemDocument),
        (status = 412, description = "another change was made meanwhile; `diff` has it", body = ProblemDocument),
        (status = 428, description = "`If-Match` is missing", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn change(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    permit(&plane, &request, Change::SetConfig).await?;
    let shape = "{\"set\": {\"NAME\": \"value\"}}";
    let SettingsChange {
        set,
        reason,
        dry_run,
    } = json_up_to(MAX_CHANGE, &request, payload, shape).await?;
    let assignments = set
        .into_iter()
        .map(|(name, value)| Assignment { name, value });
    let asked = RevisionRequest {
        wanted: Wanted::Values(assignments.collect()),
        reason,
        expected: None,
        is_dry_run: dry_run,
        may_create: true,
        takes_hand_edits: false,
    };
    apply(&plane, &request, asked).await
}

/// Brings the file back to what it was before a change, which is a change of its own.
#[cfg_attr(test, utoipa::path(
    post,
    path = "/admin/api/v1/config/rollback",
    operation_id = "roll_back_config",
    tag = "configuration",
    params(("If-Match" = Option<String>, Header, description = "the `ETag` of the configuration that is changed")),
    request_body = SettingsRollback,
    responses(
        (status = 200, body = RevisionResult),
        (status = 400, description = "content that cannot be read, or settings with faults", body = ProblemDocument),
        (status = 404, description = "the history has no such change", body = ProblemDocument),
        (status = 409, description = "the file cannot be changed here, or the reload refused it", body = ProblemDocument),
        (status = 412, description = "another change was made meanwhile; `diff` has it", body = ProblemDocument),
        (status = 428, description = "`If-Match` is missing", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn roll_back(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let NoParams {} = read(&request)?;
    permit(&plane, &request, Change::RollBackConfig).await?;
    let shape = "{\"to\": 12}";
    let SettingsRollback {
        to,
        reason,
        dry_run,
        force,
    } = json_up_to(MAX_CHANGE, &request, payload, shape).await?;
    let asked = RevisionRequest {
        wanted: Wanted::Before(to),
        reason,
        expected: None,
        is_dry_run: dry_run,
        may_create: true,
        takes_hand_edits: force,
    };
    apply(&plane, &request, asked).await
}

/// The changes that are kept.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/config/history",
    operation_id = "config_history",
    tag = "configuration",
    responses(
        (status = 200, body = SettingsHistory),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn history(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<web::Json<SettingsHistory>, Problem> {
    let NoParams {} = read(&request)?;
    let looked = Arc::clone(&plane.0);
    let items = plane.aside.run(move || looked.sources.editor.history());
    Ok(web::Json(SettingsHistory {
        items: items.await??,
    }))
}

/// The difference between the file before a change and the file now.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/config/history/{id}",
    operation_id = "config_since",
    tag = "configuration",
    params(("id" = String, Path, description = "the number of the change, or `last`", example = "last")),
    responses(
        (status = 200, body = SettingsSince),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        (status = 404, description = "the history has no such change", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn since(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<web::Json<SettingsSince>, Problem> {
    let NoParams {} = read(&request)?;
    let id = match id.as_str() {
        "last" => None,
        id => Some(id.parse().map_err(|_| Problem::NotFound)?),
    };
    let looked = Arc::clone(&plane.0);
    let since = plane.aside.run(move || looked.sources.editor.since(id));
    let (entry, diff) = since.await??;
    Ok(web::Json(SettingsSince { entry, diff }))
}

/// Refuses a client that may not, before its content is read.
async fn permit(
    plane: &Arc<AdminState>,
    request: &HttpRequest,
    change: Change,
) -> Result<(), Problem> {
    let path = plane.sources.editor.path().display().to_string();
    call::permit(plane, request, change, &path).await.map(drop)
}

async fn apply(
    plane: &Arc<AdminState>,
    request: &HttpRequest,
    asked: RevisionRequest,
) -> Result<HttpResponse, Problem> {
    let expected = version(request)?;
    let reason = &asked.reason;
    if reason
        .as_ref()
        .is_some_and(|it| it.chars().count() > LONGEST_REASON)
    {
        return Err(Problem::BadRequest(
            "reason is longer than 200 characters".into(),
        ));
    }
    let author = plane.author(request)?;
    let asked = RevisionRequest {
        reason: asked.reason.filter(|it| !it.trim().is_empty()),
        expected: Some(expected),
        ..asked
    };
    let made = Arc::clone(plane);
    let made = plane.aside.run(move || {
        let sources = &made.sources;
        let author = RevisionAuthor {
            actor: &author.actor,
            request_id: &author.request_id,
            audit: sources.registry.as_ref().map(|registry| registry.audit()),
        };
        sources.editor.apply(&asked, author)
    });
    let result = made.await??;
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, format!("\"{}\"", result.version)))
        .json(result))
}

/// The version that a request changes (RFC 9110 §13.1.1).
fn version(request: &HttpRequest) -> Result<String, Problem> {
    let field = request.headers().get(header::IF_MATCH);
    let text = field
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let text = text.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    match text.trim_matches('"') {
        "" => Err(Problem::NoVersion),
        version => Ok(version.to_owned()),
    }
}
