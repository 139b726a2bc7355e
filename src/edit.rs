//! Edit of the system prompt: selection of the requests that may be edited ([`is_messages`],
//! [`is_editable`]), and the buffer that scans and edits one body ([`BodyBuffer`]).
//!
//! Nothing here does I/O, waits, or logs.

use actix_web::http::Method;

use crate::json::is_json;

mod buffer;
mod outcome;
mod parts;
#[cfg(test)]
mod reference;
mod scanner;
mod system;
mod text;

pub use self::{
    buffer::BodyBuffer,
    outcome::{CacheControl, Outcome, Unchanged},
    parts::BodyParts,
    scanner::Scan,
};

/// Reports whether a request creates a message: `POST` and this path, the query cut off.
pub fn is_messages(method: &Method, path: &str) -> bool {
    method == Method::POST && matches!(path, "/v1/messages" | "/v1/messages/")
}

/// Reports whether content with these field values may be edited: JSON or no media type, and no
/// content coding.
pub fn is_editable(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> bool {
    let is_json = content_type.is_none_or(is_json);
    let is_identity = content_encoding.is_none_or(|codings| {
        codings
            .split(|&octet| octet == b',')
            .map(<[u8]>::trim_ascii)
            .all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
    });
    is_json && is_identity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_posts_to_one_path() {
        for path in ["/v1/messages", "/v1/messages/"] {
            assert!(is_messages(&Method::POST, path));
            assert!(!is_messages(&Method::GET, path));
        }
        for path in [
            "/",
            "/v1/messages//",
            "//v1/messages",
            "/v1/Messages",
            "/v1/messages/count_tokens",
            "/v1/messages/batches",
        ] {
            assert!(!is_messages(&Method::POST, path), "{path}");
        }
    }

    #[test]
    fn json_without_a_coding_may_be_edited() {
        for content_type in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json ;x",
            "",
            "application/vnd.api+json",
            "application/problem+JSON;a=b",
        ] {
            assert!(
                is_editable(Some(content_type.as_bytes()), None),
                "{content_type}"
            );
        }
        assert!(is_editable(None, None));
        for content_type in [
            "text/plain",
            "text/json",
            "application/jsonl",
            "application/",
            "json",
            "multipart/form-data; x=application/json",
        ] {
            assert!(
                !is_editable(Some(content_type.as_bytes()), None),
                "{content_type}"
            );
        }
        for coding in ["identity", "Identity", "", "identity, identity"] {
            assert!(is_editable(None, Some(coding.as_bytes())), "{coding}");
        }
        for coding in ["gzip", "br", "zstd", "identity, gzip", "x"] {
            assert!(!is_editable(None, Some(coding.as_bytes())), "{coding}");
        }
    }
}
