//! Models: the one in a request decides before an upstream gets a complete request, and the list of models
//! shows those that a key may use.

use std::io::Write as _;

use serde_json::Value;

use super::site::{self, Site, keyed, message};
use crate::support::{
    Body, Proxy, Response, Upstream, assert_proxy_error, noise,
    wire::{assert_octets, chunk, show},
};

const HAIKU: &str = "claude-haiku-4-5";

/// A key for one family of models, and its proxy.
fn restricted(upstream: &impl site::Url, more: &[(&str, &str)]) -> (Site, String, Proxy) {
    let site = Site::new();
    let key = site.key(&["--name", "first", "--models", "claude-haiku-*"]);
    let begun = site.proxy(upstream);
    let begun = more
        .iter()
        .fold(begun, |begun, (name, value)| begun.env(name, value));
    let proxy = begun.start();
    (site, key, proxy)
}

fn post(key: &str, body: &[u8], fields: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nHost: c\r\nx-api-key: {key}\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Content of about this many octets, as a JSON string.
fn long(octets: usize) -> String {
    let text: String = noise(octets)
        .iter()
        .map(|it| char::from(b'a' + it % 26))
        .collect();
    format!("\"{text}\"")
}

#[test]
fn the_model_counts_wherever_it_stands_and_the_body_stays_as_it_is() {
    let upstream = Upstream::ok();
    let (_site, key, proxy) = restricted(&upstream, &[]);
    for body in [
        format!(r#"{{"model":"{HAIKU}","messages":[]}}"#),
        format!(r#"{{"messages":[{}], "model" : "{HAIKU}"}}"#, long(100)),
        format!(r#"{{"messages":[{}],"model":"{HAIKU}"}}"#, long(70 * 1024)),
        format!(
            r#"{{"messages":[{}],"model":"{HAIKU}","x":[{}]}}"#,
            long(500_000),
            long(500_000)
        ),
        format!(
            r#"{{"model":"{HAIKU}","messages":[{}],"mod\u0065l":"{HAIKU}"}}"#,
            long(200_000)
        ),
    ] {
        let answer = proxy.send(post(&key, body.as_bytes(), ""));
        assert_eq!(answer.status(), 200, "{}", show(answer.content()));
        let (head, received) = upstream.request();
        assert_octets(received.content(), &body, "body");
        assert_eq!(
            head.one("content-length"),
            Some(body.len().to_string().as_str())
        );
    }
    // in chunks, octet by octet at first
    let body = format!(r#"{{"messages":[{}],"model":"{HAIKU}"}}"#, long(3_000));
    let mut client = proxy.connect();
    client.send(format!(
        "POST /v1/messages HTTP/1.1\r\nHost: c\r\nx-api-key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    for octets in body.as_bytes().chunks(100) {
        client.send_chunk(octets);
    }
    client.send(chunk(b""));
    assert_eq!(client.read_response("POST").status(), 200);
    assert_octets(upstream.request().1.content(), &body, "chunked body");
}

#[test]
fn a_model_that_is_not_allowed_never_reaches_the_upstream() {
    let upstream = Upstream::bind();
    let (_site, key, proxy) = restricted(&upstream, &[]);
    for body in [
        r#"{"model":"claude-opus-4-8","messages":[]}"#.to_owned(),
        format!(
            r#"{{"messages":[{}],"model":"claude-opus-4-8"}}"#,
            long(300_000)
        ),
    ] {
        let answer = proxy.send(post(&key, body.as_bytes(), ""));
        assert_proxy_error(&answer, 400, "invalid_request_error", "model_not_allowed");
    }
    upstream.no_more();
}

#[test]
fn a_body_whose_model_cannot_be_read_is_refused() {
    let upstream = Upstream::bind();
    let (_site, key, proxy) = restricted(&upstream, &[("MAX_EDIT_BODY", "128KiB")]);
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder
        .write_all(format!(r#"{{"model":"{HAIKU}"}}"#).as_bytes())
        .unwrap();
    let gzip = coder.finish().unwrap();
    let too_far = format!(r#"{{"messages":[{}],"model":"{HAIKU}"}}"#, long(200_000));
    for (body, fields) in [
        (&b"{}"[..], ""),
        (b"not json", ""),
        (b"[]", ""),
        (br#"{"model":1}"#, ""),
        (br#"{"model":""}"#, ""),
        (br#"{"messages":[]}"#, ""),
        (br#"{"model":"#, ""),
        (&gzip, "Content-Encoding: gzip\r\n"),
        (too_far.as_bytes(), ""),
        (b"", ""),
    ] {
        let answer = proxy.send(post(&key, body, fields));
        assert_proxy_error(&answer, 400, "invalid_request_error", "model_unreadable");
    }
    upstream.no_more();
}

#[test]
fn a_second_model_cuts_the_request_before_its_end() {
    let upstream = Upstream::bind();
    let (_site, key, proxy) = restricted(&upstream, &[]);
    for (second, label) in [
        (r#""model":"claude-opus-4-8""#, "model_contradictory"),
        (r#""Model":"claude-opus-4-8""#, "model_contradictory"),
        (
            r#""tools":[{"type":"advisor","model":"claude-opus-4-8"}]"#,
            "model_not_allowed",
        ),
    ] {
        // far enough behind that the first part is with the upstream
        let begin = format!(r#"{{"model":"{HAIKU}","messages":[{}],"#, long(300_000));
        let end = format!("{second}}}");
        let mut client = proxy.connect();
        client.send(format!(
            "POST /v1/messages HTTP/1.1\r\nHost: c\r\nx-api-key: {key}\r\nContent-Length: {}\r\n\r\n{begin}",
            begin.len() + end.len()
        ));
        let mut origin = upstream.accept();
        let head = origin.read_request_head();
        let length = (begin.len() + end.len()).to_string();
        assert_eq!(head.one("content-length"), Some(length.as_str()));
        origin.read_exact(begin.len() - 200_000);
        client.send(end.as_bytes());
        let (rest, _) = origin.read_to_end();
        assert!(
            rest.len() < 200_000 + end.len(),
            "{second}: the request is complete"
        );
        let answer = client.read_response("POST");
        assert_proxy_error(&answer, 400, "invalid_request_error", label);
    }
    // where both are held, nothing leaves
    let body = format!(r#"{{"model":"{HAIKU}","messages":[],"model":"claude-opus-4-8"}}"#);
    let answer = proxy.send(post(&key, body.as_bytes(), ""));
    assert_proxy_error(&answer, 400, "invalid_request_error", "model_contradictory");
}

#[test]
fn an_edited_body_is_judged_as_well() {
    let upstream = Upstream::ok();
    let (_site, key, proxy) = restricted(&upstream, &[("SYSTEM_PROMPT_REPLACEMENT", "new")]);
    let system = r#""system":[{"type":"text","text":"old"}]"#;
    let body = format!(
        r#"{{{system},"messages":[{}],"model":"{HAIKU}"}}"#,
        long(80_000)
    );
    assert_eq!(proxy.send(post(&key, body.as_bytes(), "")).status(), 200);
    let (_, received) = upstream.request();
    assert_octets(
        received.content(),
        body.replace("\"old\"", "\"new\""),
        "edited",
    );
    for (body, label) in [
        (
            format!(r#"{{{system},"model":"claude-opus-4-8"}}"#),
            "model_not_allowed",
        ),
        (
            format!(r#"{{"model":"{HAIKU}",{system},"model":"claude-opus-4-8"}}"#),
            "model_contradictory",
        ),
        (format!("{{{system}}}"), "model_unreadable"),
    ] {
        let answer = proxy.send(post(&key, body.as_bytes(), ""));
        assert_proxy_error(&answer, 400, "invalid_request_error", label);
    }
    upstream.no_more();
}

#[test]
fn a_key_without_rules_on_models_streams_from_its_first_octet() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.proxy(&upstream).start();
    let mut client = proxy.connect();
    client.send(format!(
        "POST /v1/messages HTTP/1.1\r\nHost: c\r\nx-api-key: {key}\r\nContent-Length: 9\r\n\r\nnot"
    ));
    let mut origin = upstream.accept();
    origin.read_request_head();
    assert_eq!(origin.read_exact(3), b"not");
    client.send(" json!");
    assert_eq!(origin.read_exact(6), b" json!");
    origin.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_response("POST").status(), 400);
}

/// Entries with the spelling that an upstream may choose.
const LIST: &str = r#"{"data": [{"type":"model","id":"claude-opus-4-8","display_name":"Opus"}, {"type":"model","id":"claude-ha\u0069ku-4-5","created_at":"2025-10-01T00:00:00Z","x":[1.0e3]},
  {"id":"claude-sonnet-4-5"}],"has_more":false,"first_id":"claude-opus-4-8","last_id":"claude-sonnet-4-5"}"#;
const FILTERED: &str = r#"{"data": [{"type":"model","id":"claude-ha\u0069ku-4-5","created_at":"2025-10-01T00:00:00Z","x":[1.0e3]}],"has_more":false,"first_id":"claude-ha\u0069ku-4-5","last_id":"claude-ha\u0069ku-4-5"}"#;

fn list(content: &[u8], fields: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\nx-kept: 1\r\n\r\n",
        content.len()
    );
    [head.as_bytes(), content].concat()
}

#[test]
fn the_list_of_models_shows_those_that_the_key_may_use() {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(LIST.as_bytes()).unwrap();
    let gzip = coder.finish().unwrap();
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-kept: 1\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        String::from_utf8(chunk(LIST.as_bytes())).unwrap()
    );
    for answer in [
        list(LIST.as_bytes(), "ETag: \"1\"\r\n"),
        list(&gzip, "Content-Encoding: gzip\r\n"),
        chunked.into_bytes(),
    ] {
        let upstream = Upstream::always(answer);
        let (site, key, proxy) = restricted(&upstream, &[]);
        let free = site.key(&["--name", "free"]);
        let ask = |key: &str| {
            let fields = "Accept-Encoding: gzip, br\r\n";
            proxy.send(keyed(key, "GET", "/v1/models?limit=1000", fields, ""))
        };
        let answer = ask(&key);
        assert_octets(answer.content(), FILTERED, "list");
        assert!(matches!(answer.body, Body::Length(_)), "{:?}", answer.body);
        assert!(!answer.head.has("content-encoding") && !answer.head.has("etag"));
        assert_eq!(answer.head.one("x-kept"), Some("1"));
        let (head, _) = upstream.request();
        assert_eq!(head.all("accept-encoding"), [b"identity"]);
        assert_eq!(head.target(), "/v1/models?limit=1000");
        // a key for all models gets what came
        ask(&free);
        assert_eq!(
            upstream.request().0.one("accept-encoding"),
            Some("gzip, br")
        );
    }
}

#[test]
fn a_list_that_cannot_be_read_is_not_shown() {
    for answer in [
        list(b"models: claude-opus-4-8", ""),
        list(LIST.as_bytes(), "Content-Encoding: x-unknown\r\n"),
        list(br#"{"models":["claude-opus-4-8"]}"#, ""),
    ] {
        let upstream = Upstream::always(answer);
        let (_site, key, proxy) = restricted(&upstream, &[]);
        let answer = proxy.send(keyed(&key, "GET", "/v1/models", "", ""));
        assert_proxy_error(&answer, 502, "api_error", "models_unreadable");
    }
    // an error passes as it is
    let upstream = Upstream::always("HTTP/1.1 529 x\r\nContent-Length: 4\r\n\r\nbusy");
    let (_site, key, proxy) = restricted(&upstream, &[]);
    let answer = proxy.send(keyed(&key, "GET", "/v1/models", "", ""));
    assert_eq!(
        (answer.status(), show(answer.content()).as_str()),
        (529, "busy")
    );
}

#[test]
fn a_model_that_is_not_allowed_is_not_found() {
    let upstream = Upstream::ok();
    let (_site, key, proxy) = restricted(&upstream, &[]);
    let ask = |id: &str| -> Response {
        proxy.send(keyed(&key, "GET", &format!("/v1/models/{id}"), "", ""))
    };
    for id in ["claude-opus-4-8", "claude%2Dopus-4-8", "claude-opus-4-8/"] {
        let answer = ask(id);
        assert_proxy_error(&answer, 404, "not_found_error", "model_not_allowed");
        let content: Value = serde_json::from_slice(answer.content()).unwrap();
        assert_eq!(content["error"]["message"], "model: claude-opus-4-8");
    }
    upstream.no_more();
    assert_eq!(ask(HAIKU).status(), 200);
    assert_eq!(upstream.request().0.target(), format!("/v1/models/{HAIKU}"));
    assert_eq!(proxy.send(message(&key, HAIKU)).status(), 200);
}
