//! Paths that a key may use: those that are metered, and those that cannot spend.
//!
//! Everything else could spend without being counted. A path that an upstream may read as another one (dot
//! segments, encoded slashes) is none of them, whatever it looks like here.

use actix_web::http::Method;
use percent_encoding::percent_decode;

use crate::edit;

/// A path, as the rules on keys see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyedPath {
    /// `POST /v1/messages`.
    Metered,
    /// A path that cannot spend.
    Free,
    /// `GET /v1/models`.
    Models,
    /// `GET /v1/models/{id}`.
    Model(Box<str>),
    /// `GET /api/oauth/usage`, which the proxy answers.
    OwnUsage,
    /// `GET /api/proxy/session`, which the proxy answers.
    OwnSession,
    /// Any other path.
    Other(Box<str>),
    /// A path that may mean another one.
    Ambiguous,
}

impl KeyedPath {
    /// The kind of a request. A request for a tunnel is never a known path.
    pub(super) fn of(method: &Method, path: &[u8], is_tunnel: bool) -> Self {
        let Ok(text) = std::str::from_utf8(path) else {
            return Self::Ambiguous;
        };
        // nearly all requests
        if !is_tunnel && edit::is_messages(method, text) {
            return Self::Metered;
        }
        let Some(decoded) = decoded(path) else {
            return Self::Ambiguous;
        };
        if is_tunnel {
            return Self::Other(text.into());
        }
        let (is_get, is_head) = (*method == Method::GET, *method == Method::HEAD);
        let plain = text.strip_suffix('/').unwrap_or(text);
        let is_below = |root: &str| {
            let rest = plain.strip_prefix(root);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let model = decoded.strip_suffix('/').unwrap_or(&decoded);
        match model.strip_prefix("/v1/models") {
            Some("") if is_get => return Self::Models,
            Some(id) if is_get && id.starts_with('/') => return Self::Model(id[1..].into()),
            _ => {}
        }
        match plain {
            "/api/oauth/usage" if is_get => Self::OwnUsage,
            "/api/proxy/session" if is_get => Self::OwnSession,
            "/v1/messages/count_tokens" if *method == Method::POST => Self::Free,
            // how Claude Code finds out that there is a server
            "/api/hello" if is_get => Self::Free,
            _ if is_head || is_below("/v1/files") => Self::Free,
            _ => Self::Other(text.into()),
        }
    }
}

/// The path with its escapes decoded; none if an upstream may take it for another one.
fn decoded(path: &[u8]) -> Option<String> {
    let is_plain = |octet: &u8| octet.is_ascii_graphic() && !matches!(octet, b'\\' | b'%' | b';');
    let text = match path.iter().all(is_plain) {
        true => std::str::from_utf8(path).ok()?.to_owned(),
        false => {
            let slashes = |octets: &[u8]| octets.iter().filter(|octet| **octet == b'/').count();
            let decoded: Vec<u8> = percent_decode(path).collect();
            let is_odd = |octet: &u8| {
                octet.is_ascii_control() || matches!(octet, b'\\' | b'%' | b';' | b'?' | b'#')
            };
            if decoded.iter().any(is_odd) || slashes(&decoded) != slashes(path) {
                return None;
            }
            String::from_utf8(decoded).ok()?
        }
    };
    let rest = text.strip_prefix('/')?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let is_odd = |segment: &str| matches!(segment, "." | "..") || segment.is_empty();
    let is_root = rest.is_empty();
    (is_root || !rest.split('/').any(is_odd)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_spend_unseen_is_no_known_path() {
        use KeyedPath::{Ambiguous, Free, Metered, Models, OwnSession, OwnUsage};
        let (get, post, head) = (&Method::GET, &Method::POST, &Method::HEAD);
        for (method, path, expected) in [
            (post, "/v1/messages", Metered),
            (post, "/v1/messages/", Metered),
            (post, "/v1/messages/count_tokens", Free),
            (get, "/v1/models", Models),
            (get, "/v1/models/", Models),
            (get, "/v1/files", Free),
            (post, "/v1/files", Free),
            (&Method::DELETE, "/v1/files/file_1", Free),
            (get, "/api/hello", Free),
            (head, "/api/hello", Free),
            (head, "/", Free),
            (get, "/api/oauth/usage", OwnUsage),
            (get, "/api/proxy/session", OwnSession),
            (post, "/v1/files/../messages/batches", Ambiguous),
            (post, "/v1/files/%2e%2e/complete", Ambiguous),
            (post, "/v1/files/%2E./complete", Ambiguous),
            (post, "/v1/files/..%2fcomplete", Ambiguous),
            (post, "/v1/files/..\\complete", Ambiguous),
            (post, "/v1/files/%5c..%5ccomplete", Ambiguous),
            (post, "/v1/files/%252e%252e/complete", Ambiguous),
            (post, "/v1/files/..;/complete", Ambiguous),
            (post, "/v1/files//x", Ambiguous),
            (post, "//v1/messages", Ambiguous),
            (post, "/v1/./messages", Ambiguous),
            (head, "/a/../b", Ambiguous),
            (&Method::OPTIONS, "*", Ambiguous),
        ] {
            assert_eq!(
                KeyedPath::of(method, path.as_bytes(), false),
                expected,
                "{path}"
            );
        }
        for (method, path) in [
            (get, "/v1/messages"),
            (post, "/V1/messages"),
            (post, "/v1/%6dessages"),
            (post, "/v1/messages/batches"),
            (post, "/v1/complete"),
            (post, "/v1/chat/completions"),
            (post, "/v1/models"),
            (get, "/v1/modelsx"),
            (get, "/v1/messages/count_tokens"),
            (post, "/v1/filesx"),
            (get, "/"),
        ] {
            let expected = KeyedPath::Other(path.into());
            assert_eq!(
                KeyedPath::of(method, path.as_bytes(), false),
                expected,
                "{path}"
            );
        }
        let tunnel = KeyedPath::of(post, b"/v1/messages", true);
        assert_eq!(tunnel, KeyedPath::Other("/v1/messages".into()));
    }

    #[test]
    fn ids_of_models_are_read_as_the_upstream_reads_them() {
        for (path, id) in [
            ("/v1/models/claude-opus-4-5", "claude-opus-4-5"),
            ("/v1/models/claude-opus-4@2025/", "claude-opus-4@2025"),
            ("/v1/models/a%3Ab", "a:b"),
            ("/v1/models/%63laude", "claude"),
            ("/v1/models/a/b", "a/b"),
        ] {
            let found = KeyedPath::of(&Method::GET, path.as_bytes(), false);
            assert_eq!(found, KeyedPath::Model(id.into()), "{path}");
        }
    }
}
