//! Requests that an HTTP/2 upstream did not process: sent again, or moved on, and never twice.

use http::Response;

use super::{
    CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, INTERNAL_ERROR, REFUSED_STREAM, RST_STREAM,
    Raw, Server, channel, http2, next,
};
use crate::support::{Upstream, assert_proxy_error, contains, get, post};

#[test]
fn a_goaway_loses_nothing_that_was_not_processed() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut first = proxy.connect();
    first.send(post("/1", "one"));
    let mut raw = Raw::accept(&upstream, &[]);
    let below = raw.request();
    let mut second = proxy.connect();
    second.send(post("/2", "two"));
    let above = raw.request();
    assert!(above > below);
    raw.go_away(below);
    // the one above goes to another connection, whole
    let mut other = Raw::accept(&upstream, &[]);
    let again = other.request();
    let mut content = Vec::new();
    loop {
        let data = other.expect(DATA);
        content.extend_from_slice(&data.payload);
        if data.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(content, b"two");
    other.ok(again, b"again");
    assert_eq!(second.read_response("POST").content(), b"again");
    // the one below runs on
    raw.ok(below, b"below");
    assert_eq!(first.read_response("POST").content(), b"below");
    // and the connection, which has nothing more to do, ends
    while raw.read().is_some() {}
    upstream.no_more();
}

#[test]
fn a_goaway_at_an_idle_connection_costs_nothing() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    for _ in 0..10 {
        let mut client = proxy.connect();
        client.send(post("/", "{}"));
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.ok(stream, b"ok");
        raw.go_away(stream);
        assert_eq!(client.read_response("POST").content(), b"ok");
    }
    upstream.no_more();
}

#[test]
fn a_request_that_a_goaway_names_is_not_sent_again() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(post("/", "{}"));
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.go_away(stream);
    drop(raw);
    let response = client.read_response("POST");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    upstream.no_more();
}

#[test]
fn a_refused_stream_is_sent_again_and_others_are_not() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(post("/", "{}"));
    for _ in 0..2 {
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.reset(stream, REFUSED_STREAM);
    }
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.ok(stream, b"ok");
    assert_eq!(client.read_response("POST").content(), b"ok");
    upstream.no_more();

    for reason in [CANCEL, INTERNAL_ERROR] {
        let mut client = proxy.connect();
        client.send(post("/", "{}"));
        let stream = raw.request();
        raw.reset(stream, reason);
        let response = client.read_response("POST");
        assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    }
    upstream.no_more();
}

#[test]
fn an_upstream_that_always_refuses_is_asked_three_times() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    for _ in 0..3 {
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.reset(stream, REFUSED_STREAM);
    }
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    upstream.no_more();
}

// ---- several upstreams ----

#[test]
fn a_body_moves_on_from_one_http_2_upstream_to_the_next() {
    let busy = |status: u16| {
        let (seen, contents) = channel();
        let server = Server::new(move |mut asked| {
            let seen = seen.clone();
            Box::pin(async move {
                let _ = seen.send(asked.content().await);
                asked.start(Response::builder().status(status), true);
            })
        });
        (server, contents)
    };
    let ((first, asked), (second, got)) = (busy(529), busy(200));
    let whole = |content: &[u8]| {
        format!(
            "POST /x HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
            content.len(),
            String::from_utf8_lossy(content)
        )
    };
    let large = "x".repeat(200_000);
    for request in [
        get("/").into_bytes(),
        post("/v1/messages", "{}"),
        post("/v1/messages", &large),
        whole(b"abc").into_bytes(),
        whole(large.as_bytes()).into_bytes(),
    ] {
        // each on its own: the circuit of the first stays closed, and the budget has its three
        let proxy = http2(first.url())
            .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
            .start();
        assert_eq!(proxy.send(&request).status(), 200);
        let (content, trailers) = next(&asked);
        assert_eq!(contains(&request, b"X-Sum"), trailers.is_some());
        assert_eq!(next(&got), (content, trailers));
    }
}

#[test]
fn an_upload_that_still_runs_moves_on_from_http_2() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = http2(first.url())
        .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
        .start();
    let mut client = proxy.connect();
    client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\none");
    let mut one = Raw::accept(&first, &[]);
    let stream = one.request();
    assert_eq!(one.expect(DATA).payload, b"one");
    let head = [&[0x08, 3][..], b"503"].concat();
    one.send(HEADERS, END_HEADERS | END_STREAM, stream, &head);
    let mut other = Raw::accept(&second, &[]);
    let stream = other.request();
    assert_eq!(other.expect(DATA).payload, b"one");
    client.send("twoend");
    let mut rest = Vec::new();
    while rest.len() < 6 {
        rest.extend(other.expect(DATA).payload);
    }
    assert_eq!(rest, b"twoend");
    other.ok(stream, b"ok");
    assert_eq!(client.read_response("POST").content(), b"ok");
    // what the first one has of it stays incomplete
    one.expect(RST_STREAM);
}

#[test]
fn an_upstream_that_always_refuses_is_left_for_the_next() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = http2(first.url())
        .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
        .start();
    let mut client = proxy.connect();
    client.send(post("/", "{}"));
    for _ in 0..3 {
        let mut raw = Raw::accept(&first, &[]);
        let stream = raw.request();
        raw.reset(stream, REFUSED_STREAM);
    }
    let mut raw = Raw::accept(&second, &[]);
    let stream = raw.request();
    assert_eq!(raw.expect(DATA).payload, b"{}");
    raw.ok(stream, b"ok");
    assert_eq!(client.read_response("POST").content(), b"ok");
    first.no_more();
}
