//! HTTP/2 from clients (RFC 9113), in clear: what holds for HTTP/1.1 holds here, and what only
//! HTTP/2 makes possible is bounded.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue};

use crate::support::{
    Proxy, ProxyBuilder, Upstream,
    h2::{Client, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, block, raw, request},
    noise,
    wire::assert_octets,
};

mod bounds;
mod heads;
mod streams;

/// Time in which the upstream exchange of a client that went away is closed (docs/contract.md §1.4).
const LIMIT: Duration = Duration::from_secs(1);

/// A proxy that takes HTTP/2 in clear, with one worker, so that what one connection does to others is
/// seen.
fn h2c(url: impl ToString) -> ProxyBuilder {
    Proxy::to(url).env("H2C", true).env("WORKERS", 1)
}

fn setup() -> (Upstream, Proxy) {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).start();
    (upstream, proxy)
}

#[test]
fn content_passes_both_ways_whatever_its_chunks_are() {
    let upstream = Upstream::answering(|head, body| {
        let content = body.content();
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        if head.target() == "/length" {
            answer.extend(format!("Content-Length: {}\r\n\r\n", content.len()).bytes());
            answer.extend(content);
            return answer;
        }
        answer.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in content.chunks(7001) {
            answer.extend(crate::support::wire::chunk(chunk));
        }
        answer.extend(b"0\r\n\r\n");
        answer
    });
    let proxy = h2c(upstream.url()).start();
    let mut client = Client::connect(&proxy);
    for length in [0, 1, 255, 16_384, 65_537, 3_000_000] {
        for (target, piece) in [("/length", 100_000), ("/chunks", 999)] {
            let content = noise(length);
            let mut request = request("POST", target);
            if target == "/length" {
                request
                    .headers_mut()
                    .insert("content-length", length.into());
            }
            let (response, mut stream) = client.send(request, false);
            for part in content.chunks(piece) {
                stream
                    .send_data(Bytes::copy_from_slice(part), false)
                    .unwrap();
            }
            stream.send_data(Bytes::new(), true).unwrap();
            let answer = client.answer(response);
            assert_octets(&answer.content, &content, format!("{target} {length}"));
            answer.end.as_ref().unwrap();
            let (head, body) = upstream.request();
            assert_octets(body.content(), &content, "the upload");
            assert_eq!(head.has("content-length"), target == "/length");
            if target == "/length" {
                assert_eq!(
                    answer.all("content-length"),
                    [length.to_string().as_bytes()]
                );
            }
        }
    }
}

#[test]
fn heads_pass_both_ways() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let mut asked = request("GET", "/a//b/%2f/../c?x=%20&&");
    let fields = asked.headers_mut();
    for (name, value) in [
        ("anthropic-beta", &b"one"[..]),
        ("cookie", b"a=1"),
        ("x-empty", b""),
        ("anthropic-beta", b"two, three"),
        ("x-text", b"\xfc\xff"),
        ("cookie", b"b=2"),
        ("te", b"trailers"),
    ] {
        fields.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let (response, _) = client.send(asked, true);
    let mut origin = upstream.accept();
    let (head, body) = origin.read_request();
    assert_eq!(head.line, "GET /a//b/%2f/../c?x=%20&& HTTP/1.1");
    assert_eq!(body.content(), b"");
    assert!(!head.has("content-length") && !head.has("transfer-encoding"));
    assert_eq!(head.all("anthropic-beta"), [&b"one"[..], b"two, three"]);
    assert_eq!(head.one("cookie"), Some("a=1; b=2"));
    assert_eq!(head.one("x-empty"), Some(""));
    assert_eq!(head.all("x-text"), [b"\xfc\xff"]);
    assert_eq!(head.one("x-forwarded-host"), Some("proxy.test"));
    assert_eq!(head.one("x-forwarded-proto"), Some("http"));
    assert_eq!(head.one("x-forwarded-for"), Some("127.0.0.1"));
    origin.send(
        "HTTP/1.1 299 Odd\r\nSet-Cookie: a\r\nX-Mixed-Case: Yes\r\nset-cookie: b\r\nConnection: x-gone\r\n\
         X-Gone: 1\r\nKeep-Alive: timeout=5\r\nx-empty:\r\nContent-Length: 2\r\n\r\nok",
    );
    let answer = client.answer(response);
    assert_eq!(answer.status(), 299);
    let names: Vec<_> = answer
        .head
        .headers
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["set-cookie", "x-mixed-case", "x-empty", "content-length"]
    );
    assert_eq!(answer.all("set-cookie"), [b"a", b"b"]);
    assert_eq!(answer.content, b"ok");
}

#[test]
fn answers_without_content_end_with_their_head() {
    let upstream = Upstream::answering(|head, _| match head.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n".to_vec(),
        "/0" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec(),
    });
    let proxy = h2c(upstream.url()).start();
    let mut client = Client::connect(&proxy);
    for (method, target, length) in [
        ("HEAD", "/", Some("1234")),
        ("GET", "/204", None),
        ("GET", "/304", Some("7")),
        ("GET", "/0", Some("0")),
    ] {
        let (response, _) = client.send(request(method, target), true);
        let head = client.head(response);
        assert!(head.body().is_end_stream(), "{target}");
        let found = head.headers().get("content-length");
        assert_eq!(
            found.map(|value| value.to_str().unwrap()),
            length,
            "{target}"
        );
    }
}

#[test]
fn trailers_pass_both_ways() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let (response, mut stream) = client.send(request("POST", "/"), false);
    stream
        .send_data(Bytes::from_static(b"hello"), false)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.append("x-sum", HeaderValue::from_static("1"));
    trailers.append("x-sum", HeaderValue::from_static("2"));
    stream.send_trailers(trailers).unwrap();
    let mut origin = upstream.accept();
    origin.read_request_head();
    assert_eq!(origin.read_chunks(5), b"hello");
    assert_eq!(origin.read_trailers(), "x-sum: 1\r\nx-sum: 2\r\n");
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\nX-End: yes\r\n\r\n");
    let answer = client.answer(response);
    assert_eq!(answer.content, b"world");
    assert_eq!(answer.end.unwrap()["x-end"], "yes");
}

#[test]
fn a_client_that_waits_is_told_to_continue_when_its_body_is_wanted() {
    let (upstream, proxy) = setup();
    let mut wire = raw(&proxy);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("expect", "100-continue"),
        ("content-length", "5"),
    ];
    wire.send_frame(HEADERS, END_HEADERS, 1, &block(&fields));
    let mut origin = upstream.accept();
    assert_eq!(
        origin.read_request_head().one("expect"),
        Some("100-continue")
    );
    origin.send("HTTP/1.1 100 Continue\r\n\r\n");
    let interim = wire.read_until(HEADERS);
    assert_eq!(interim.flags, END_HEADERS);
    wire.send_frame(DATA, END_STREAM, 1, b"hello");
    assert_eq!(origin.read_exact(5), b"hello");
    origin.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(wire.read_until(HEADERS).flags, END_HEADERS | END_STREAM);
    // one that does not wait is not waited for
    wire.send_frame(HEADERS, END_HEADERS, 3, &block(&fields));
    wire.send_frame(DATA, END_STREAM, 3, b"again");
    origin.read_request_head();
    assert_eq!(origin.read_exact(5), b"again");
    origin.send("HTTP/1.1 204 No Content\r\n\r\n");
    loop {
        let frame = wire.read_until(HEADERS);
        if frame.flags & END_STREAM != 0 {
            break;
        }
    }
}

#[test]
fn an_early_answer_ends_the_upload() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let (response, mut stream) = client.send(request("POST", "/v1/files"), false);
    stream.send_data(noise(10_000).into(), false).unwrap();
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.read_chunk();
    origin.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
    let answer = client.answer(response);
    assert_eq!((answer.status(), &answer.content[..]), (413, &b"big"[..]));
    answer.end.unwrap();
    let reason = client.wait(std::future::poll_fn(|cx| stream.poll_reset(cx)));
    assert_eq!(reason.unwrap(), Reason::NO_ERROR);
    origin.closed_within(LIMIT);
    // and the connection goes on
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.answer(response).status(), 204);
}

#[test]
fn a_whole_upload_whose_end_is_late_is_not_reset() {
    let (upstream, proxy) = setup();
    let mut wire = raw(&proxy);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("content-length", "5"),
    ];
    wire.send_frame(HEADERS, END_HEADERS, 1, &block(&fields));
    wire.send_frame(DATA, 0, 1, b"hello");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let frame = wire.read_until(DATA);
    assert_eq!((frame.flags, &frame.payload[..]), (END_STREAM, &b"ok"[..]));
    wire.send_frame(DATA, END_STREAM, 1, b"");
    wire.send_frame(PING, 0, 0, &[0; 8]);
    loop {
        let frame = wire.read_frame();
        assert_ne!(frame.kind, RST_STREAM, "{frame:?}");
        if frame.kind == PING {
            break;
        }
    }
}
