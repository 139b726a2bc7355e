//! The content of a request of the API.

use actix_web::{HttpRequest, http::header, web};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Octets of a request's content that are read.
const MAX_BODY: usize = 64 * 1024;

/// Reads a request's content of this shape.
pub(super) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
    shape: &str,
) -> Result<T, Problem> {
    json_up_to(MAX_BODY, request, payload, shape).await
}

/// Reads a request's content of this shape and of at most this length.
pub(super) async fn json_up_to<T: DeserializeOwned>(
    length: usize,
    request: &HttpRequest,
    payload: web::Payload,
    shape: &str,
) -> Result<T, Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = content_type
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    // no form of another page can send it
    if !media_type.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::BadRequest(
            "the content is not application/json".into(),
        ));
    }
    let content = match payload.to_bytes_limited(length).await {
        Ok(Ok(content)) => content,
        Ok(Err(_)) => return Err(Problem::BadRequest("the content did not come whole".into())),
        Err(_) => return Err(Problem::BadRequest("the content is too large".into())),
    };
    // serde takes an array for the members in their order
    if content.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::BadRequest(
            format!("the content is not {shape}").into(),
        ));
    }
    serde_json::from_slice(&content).map_err(|error| {
        let error = error.to_string();
        // other texts of serde's repeat values, which may be secrets
        let is_of_names = error.starts_with("unknown field") || error.starts_with("missing field");
        let why = if is_of_names {
            format!(": {error}")
        } else {
            String::new()
        };
        Problem::BadRequest(format!("the content is not {shape}{why}").into())
    })
}
