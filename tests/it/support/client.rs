//! What a client sends, and what it may conclude from an answer.

use super::{Body, Head, Response, wire::show};

/// A GET with nothing but a `Host`.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
}

/// A JSON POST with a `Content-Length`.
pub(crate) fn post(target: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut octets = format!(
        "POST {target} HTTP/1.1\r\nHost: proxy.test\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    octets.extend_from_slice(content);
    octets
}

/// Asserts that an answer is the proxy's own, in Anthropic's shape, for this cause.
#[track_caller]
pub(crate) fn assert_proxy_error(response: &Response, status: u16, kind: &str, label: &str) {
    let head = &response.head;
    let octets = show(&head.octets);
    assert_eq!(
        head.status(),
        status,
        "{octets}{:?}",
        show(response.body.content())
    );
    assert_eq!(head.one("x-proxy-error"), Some(label), "{octets}");
    assert_anthropic_shape(response, kind);
}

/// Asserts Anthropic's shape: type, error type, a message, and the id in body and field.
#[track_caller]
pub(crate) fn assert_anthropic_shape(response: &Response, kind: &str) {
    let head = &response.head;
    assert!(head.has("x-proxy-error"), "{}", show(&head.octets));
    assert_eq!(head.one("content-type"), Some("application/json"));
    let content: serde_json::Value =
        serde_json::from_slice(response.content()).expect("our errors are JSON");
    assert_eq!(content["type"], "error", "{content}");
    assert_eq!(content["error"]["type"], kind, "{content}");
    assert!(
        !content["error"]["message"].as_str().unwrap().is_empty(),
        "{content}"
    );
    let id = content["request_id"].as_str().unwrap();
    assert!(id.starts_with("req_"), "{id}");
    assert_eq!(head.one("request-id"), Some(id));
}

/// Asserts that a client sees that a body was cut, after it got this much of it.
#[track_caller]
pub(crate) fn assert_aborted(head: &Head, body: &Body, content: &[u8]) {
    assert!(
        matches!(body, Body::Cut(..)),
        "a clean end: {}{body:?}",
        show(&head.octets)
    );
    assert_eq!(
        show(body.content()),
        show(content),
        "what came before the cut"
    );
}
