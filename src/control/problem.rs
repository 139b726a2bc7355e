//! Errors of the admin API: one document, one table of codes.

use std::{borrow::Cow, fmt};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;

use crate::{
    config::envdiff::DiffLine,
    registry::{FileFault, RegistryError},
    revision::RevisionError,
};

/// Reason for which a request gets no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// No session, no key, or a wrong one.
    Unauthorized,
    /// The client may not, with any key.
    Forbidden(&'static str),
    /// A trusted proxy names a user without a role.
    NoRole(String),
    /// The resource does not exist.
    NotFound,
    /// The exchange has ended already.
    TooLate,
    /// The method is not one of those.
    MethodNotAllowed(&'static str),
    /// `range` is none of those.
    BadRange(&'static str),
    /// An invalid filter.
    BadFilter(Cow<'static, str>),
    /// Anything else that cannot be read.
    BadRequest(Cow<'static, str>),
    /// Too many keys were tried; seconds until the next may be.
    TooManyAttempts(u64),
    /// The doctor runs, or ran a moment ago; seconds until it may run again.
    TooSoon(u64),
    /// Not now: seconds until it may be tried again.
    Unavailable(&'static str),
    /// The registry refused a call.
    Registry(Box<RegistryProblem>),
    /// A change of the file of settings names no version that it changes.
    NoVersion,
    /// A change of the file of settings was refused.
    Revision(Box<RevisionProblem>),
}

/// Refusal of a change of the file of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RevisionProblem {
    status: u16,
    code: &'static str,
    message: String,
    version: Option<String>,
    diff: Vec<DiffLine>,
    lines: Vec<String>,
}

impl From<RevisionError> for Problem {
    fn from(error: RevisionError) -> Self {
        let mut problem = RevisionProblem {
            status: error.status(),
            code: error.code(),
            message: error.to_string(),
            version: None,
            diff: Vec::new(),
            lines: Vec::new(),
        };
        match error {
            RevisionError::Stale { version, diff } => {
                problem.version = Some(version);
                problem.diff = diff.unwrap_or_default();
            }
            RevisionError::HandEdited { diff, .. } => problem.diff = diff,
            RevisionError::ReadOnly { fault, lines } => {
                problem.message = format!("{fault}; nothing was changed");
                problem.lines = lines;
            }
            _ => {}
        }
        Self::Revision(Box::new(problem))
    }
}

/// Refusal of a call by the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegistryProblem {
    status: u16,
    code: &'static str,
    message: String,
    faults: Vec<FileFault>,
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(RegistryProblem {
            status: error.status(),
            code: error.code(),
            message: error.to_string(),
            faults: error.faults().to_vec(),
        }))
    }
}

/// The shape of every answer that is not data.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Problem))]
pub(super) struct ProblemDocument {
    error: ProblemBody,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = ProblemDetails))]
struct ProblemBody {
    /// Code for programs.
    #[cfg_attr(test, schema(example = "unauthorized"))]
    code: &'static str,
    /// Message for people.
    message: String,
    /// Faults of a key file, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<FileFault>,
    /// The version that the file of settings has now, where a change was made meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// The lines that were changed meanwhile, with secrets masked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    diff: Vec<DiffLine>,
    /// Lines to write where the settings are kept, if their file cannot be changed here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<String>,
}

/// Errors that any route may respond with, as the API's description has them.
#[cfg(test)]
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "described, never made")]
pub(super) enum ProblemResponses {
    /// No key, or a wrong one.
    #[response(status = 401)]
    Unauthorized(ProblemDocument),
    /// Asked for by a page of another site, or by a client whose role does not suffice (`role_forbidden`).
    #[response(status = 403)]
    Forbidden(ProblemDocument),
    /// Another method; `Allow` names those that there are.
    #[response(status = 405)]
    MethodNotAllowed(ProblemDocument),
    /// Too many keys were tried.
    #[response(status = 429)]
    TooManyAttempts(ProblemDocument),
    /// Nothing is recorded, keys and limits are off, or there are too many event-stream clients.
    #[response(status = 503)]
    Unavailable(ProblemDocument),
}

impl Problem {
    /// The code.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NoRole(_) => "no_role",
            Self::NotFound => "not_found",
            Self::TooLate => "too_late",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::BadRange(_) => "bad_range",
            Self::BadFilter(_) => "bad_filter",
            Self::BadRequest(_) => "bad_request",
            Self::TooManyAttempts(_) => "too_many_attempts",
            Self::TooSoon(_) => "too_soon",
            Self::Unavailable(_) => "unavailable",
            Self::Registry(problem) => problem.code,
            Self::NoVersion => "version_required",
            Self::Revision(problem) => problem.code,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized => f.write_str(
                "the dashboard's key is needed: log in, or send Authorization: Bearer; while \
                 DASHBOARD_API_KEY is not set, the log of the proxy's start has a generated key",
            ),
            Self::Forbidden(why) | Self::Unavailable(why) => f.write_str(why),
            Self::NoRole(user) => write!(
                f,
                "{user:?} has no role here; nothing is shown; let ADMIN_ROLES give the user, or a group of it, one"
            ),
            Self::NotFound => f.write_str("not found: no resource has this path or id"),
            Self::TooLate => f.write_str("the request has ended, or its end was asked for before"),
            Self::MethodNotAllowed(allowed) => write!(f, "the method is not one of {allowed}"),
            Self::BadRange(ranges) => write!(f, "range is not one of {ranges}"),
            Self::BadFilter(why) | Self::BadRequest(why) => f.write_str(why),
            Self::TooManyAttempts(_) => f.write_str("too many keys were tried; wait a while"),
            Self::TooSoon(wait) => write!(
                f,
                "the doctor runs, or ran a moment ago; nothing was started; ask again in {wait} s"
            ),
            Self::Registry(problem) => f.write_str(&problem.message),
            Self::NoVersion => f.write_str(
                "If-Match is missing: send the ETag of GET /admin/api/v1/config, so that no other change is lost",
            ),
            Self::Revision(problem) => f.write_str(&problem.message),
        }
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::NoRole(_) => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLate => StatusCode::CONFLICT,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRange(_) | Self::BadFilter(_) | Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::TooManyAttempts(_) | Self::TooSoon(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoVersion => StatusCode::PRECONDITION_REQUIRED,
            Self::Revision(problem) => {
                StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Registry(problem) => {
                StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        match self {
            Self::Unauthorized => {
                // RFC 9110 §11.6.1: no 401 without it
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"admin\""));
            }
            Self::MethodNotAllowed(allowed) => {
                response.insert_header((header::ALLOW, *allowed));
            }
            Self::TooManyAttempts(seconds) | Self::TooSoon(seconds) => {
                response.insert_header((header::RETRY_AFTER, *seconds));
            }
            Self::Unavailable(_) => {
                response.insert_header((header::RETRY_AFTER, 5));
            }
            Self::Registry(problem) if problem.status == 503 => {
                response.insert_header((header::RETRY_AFTER, 5));
            }
            Self::Revision(problem) if problem.status == 503 => {
                response.insert_header((header::RETRY_AFTER, 5));
            }
            Self::Registry(_)
            | Self::Revision(_)
            | Self::NoVersion
            | Self::Forbidden(_)
            | Self::NoRole(_)
            | Self::NotFound
            | Self::TooLate
            | Self::BadRange(_)
            | Self::BadFilter(_)
            | Self::BadRequest(_) => {}
        }
        let (version, diff, lines) = match self {
            Self::Revision(problem) => (
                problem.version.clone(),
                problem.diff.clone(),
                problem.lines.clone(),
            ),
            _ => Default::default(),
        };
        response.json(ProblemDocument {
            error: ProblemBody {
                version,
                diff,
                lines,
                code: self.code(),
                message: self.to_string(),
                faults: match self {
                    Self::Registry(problem) => problem.faults.clone(),
                    _ => Vec::new(),
                },
            },
        })
    }
}
