//! docs/contract.md §2.6: what is not one clear request is one clear refusal, and the
//! upstream sees nothing that looks like a request.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::support::{
    Proxy, Response, Upstream, Wire, assert_proxy_error, client::assert_anthropic_shape, contains,
    get, wire::show,
};

/// Sends octets that must be refused: the answer, after which the connection must end.
#[track_caller]
fn refused(proxy: &Proxy, octets: impl AsRef<[u8]>) -> Response {
    let mut client = proxy.connect();
    client.set_deadline(Duration::from_secs(3));
    // A refusal may come before all of it was sent.
    let _ = client.try_send(octets);
    let response = client.read_response("");
    let (more, _) = client.closed_within(Duration::from_secs(5));
    assert_eq!(show(&more), "", "more than one response");
    response
}

/// Each row is 400 with this label; the upstream is not even connected to.
#[track_caller]
fn rows_are_400(labels: &[&str], rows: &[&str]) {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    for row in rows {
        let response = refused(&proxy, row);
        assert_eq!(
            response.status(),
            400,
            "{row:?}: {}",
            show(&response.head.octets)
        );
        let label = response.head.one("x-proxy-error").unwrap_or_default();
        assert!(labels.contains(&label), "{row:?} is {label:?}");
        assert_anthropic_shape(&response, "invalid_request_error");
        assert_eq!(response.head.one("connection"), Some("close"), "{row:?}");
    }
    upstream.no_more();
    assert_eq!(
        proxy.send(get("/health")).status(),
        200,
        "the proxy lives on"
    );
}

const AMBIGUOUS: &[&str] = &["ambiguous_framing"];
const MALFORMED: &[&str] = &["malformed_head"];
const EITHER: &[&str] = &["ambiguous_framing", "malformed_head"];

#[test]
fn content_length_beside_transfer_encoding_is_400() {
    rows_are_400(
        AMBIGUOUS,
        &[
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        ],
    );
}

#[test]
fn two_content_lengths_are_400() {
    rows_are_400(
        AMBIGUOUS,
        &[
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5,6\r\n\r\nhello",
        ],
    );
}

#[test]
fn a_content_length_that_is_no_number_is_400() {
    rows_are_400(
        EITHER,
        &[
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        ],
    );
}

#[test]
fn a_transfer_coding_that_is_not_chunked_is_400() {
    rows_are_400(
        AMBIGUOUS,
        &[
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        ],
    );
}

#[test]
fn a_transfer_coding_in_http_1_0_is_400() {
    rows_are_400(
        AMBIGUOUS,
        &["POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    );
}

#[test]
fn a_host_that_is_not_one_is_400() {
    rows_are_400(
        MALFORMED,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Not-Host: a\r\n\r\n",
        ],
    );
}

#[test]
fn a_malformed_field_is_400() {
    rows_are_400(
        EITHER,
        &[
            "GET / HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n\tb\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Space : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX Inner: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n: nameless\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Nul: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Nul\0: ab\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Cr: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Bell: a\x07b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Ü: a\r\n\r\n",
        ],
    );
}

#[test]
fn a_malformed_request_line_is_400() {
    rows_are_400(
        &["malformed_head", "unsupported_version"],
        &[
            "GET /\r\n\r\n",
            "GET\r\n\r\n",
            "GET / x HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1x\r\nHost: x\r\n\r\n",
            "GET / HTTPS/1.1\r\nHost: x\r\n\r\n",
            "GET / http/1.1\r\nHost: x\r\n\r\n",
            "G\0T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "G:T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
            "complete nonsense that is no request at all\r\n\r\n",
            "{\"json\": true}\r\n\r\n",
        ],
    );
}

#[test]
fn garbage_is_refused_before_it_looks_like_the_end_of_a_head() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", "1s")
        .start();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0",
        b"\xff\xfe",
    ] {
        let response = refused(&proxy, garbage);
        assert!(
            [400, 408].contains(&response.status()),
            "{}",
            show(&response.head.octets)
        );
    }
    upstream.no_more();
}

#[test]
fn other_versions_of_http_are_refused() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    for octets in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    ] {
        let response = refused(&proxy, octets);
        assert!([400, 505].contains(&response.status()), "{octets:?}");
        assert_anthropic_shape(&response, "invalid_request_error");
    }
    upstream.no_more();
}

#[test]
fn a_refusal_ends_the_pipeline() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(
        get("/good")
            + "POST /bad HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            + "0\r\n\r\n"
            + &get("/smuggled"),
    );
    assert_eq!(client.read_response("GET").status(), 200);
    let response = client.read_response("POST");
    assert_proxy_error(&response, 400, "invalid_request_error", "ambiguous_framing");
    assert_eq!(client.closed_within(Duration::from_secs(5)).0, b"");
    assert_eq!(upstream.request().0.target(), "/good");
    upstream.no_more();
}

#[test]
fn octets_after_a_content_length_are_the_next_request_and_no_part_of_this() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcdefg\r\n\r\n");
    assert_eq!(client.read_response("POST").status(), 200);
    let response = client.read_response("POST");
    assert_eq!(response.status(), 400);
    assert_eq!(upstream.request().1.content(), b"abc");
    upstream.no_more();
}

#[test]
fn the_body_of_a_health_check_is_no_request() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let smuggled = get("/smuggled");
    let mut client = proxy.connect();
    client.send(format!(
        "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    ));
    assert_eq!(client.read_response("GET").status(), 200);
    // what comes next on the connection is the answer to what comes next, and nothing else
    client.send(get("/livez"));
    let response = client.read_response("GET");
    assert_eq!((response.status(), response.content()), (200, &b"ok\n"[..]));
    upstream.no_more();
}

#[test]
fn an_empty_line_before_a_request_is_skipped() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("\r\n".to_owned() + &get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
}

/// Rows of broken chunked coding, each after a good first chunk.
const BROKEN_CHUNKS: &[&str] = &[
    "\r\nabcde\r\n0\r\n\r\n",
    "0x5\r\nabcde\r\n0\r\n\r\n",
    "+5\r\nabcde\r\n0\r\n\r\n",
    "-5\r\nabcde\r\n0\r\n\r\n",
    "5 5\r\nabcde\r\n0\r\n\r\n",
    "g\r\nabcde\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
    "10000000000000005\r\nabcde\r\n0\r\n\r\n",
    "5\r\nabcdeX\r\n0\r\n\r\n",
    "5\r\nabcde0\r\n\r\n",
    "5\r\nabcde\n0\r\n\r\n",
    "5\nabcde\r\n0\r\n\r\n",
    "5\rabcde\r\n0\r\n\r\n",
    "5;ext\nabcde\r\n0\r\n\r\n",
    "5;ext\0\r\nabcde\r\n0\r\n\r\n",
    "0\r\nX\r\n\r\n",
    "0\r\nX-Trailer : a\r\n\r\n",
];

/// Holds every row to a fact, and names all rows for which it does not hold.
#[track_caller]
fn hold(fact: impl Fn(&str)) {
    let holds = |row: &&&str| catch_unwind(AssertUnwindSafe(|| fact(row))).is_err();
    let wrong: Vec<_> = BROKEN_CHUNKS.iter().filter(holds).collect();
    assert!(wrong.is_empty(), "not so for {wrong:#?}");
}

#[test]
fn broken_chunked_coding_is_400_and_no_complete_request() {
    for path in ["/v1/files", "/v1/messages"] {
        let upstream = Upstream::ok();
        let proxy = Proxy::to(upstream.url())
            .env("SYSTEM_PROMPT_REPLACEMENT", "x")
            .start();
        hold(|row| {
            let response = refused(
                &proxy,
                format!(
                    "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                     Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n{row}"
                ),
            );
            assert_proxy_error(&response, 400, "invalid_request_error", "malformed_body");
        });
        upstream.no_more();
    }
}

#[test]
fn broken_chunked_coding_after_a_forwarded_chunk_closes_the_upstream() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    hold(|row| {
        let mut client = proxy.connect();
        client.set_deadline(Duration::from_secs(2));
        client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send_chunk(b"good");
        let mut origin = upstream.accept();
        origin.read_request_head();
        assert_eq!(origin.read_chunks(4), b"good");
        let _ = client.try_send(row);
        let response = client.read_response("POST");
        assert_proxy_error(&response, 400, "invalid_request_error", "malformed_body");
        assert_eq!(client.closed_within(Duration::from_secs(5)).0, b"");
        assert_incomplete(origin, row);
    });
    upstream.no_more();
}

#[test]
fn broken_chunked_coding_during_the_answer_aborts_it() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_chunk(b"good");
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    origin.send_chunk(b"data");
    let head = client.read_response_head();
    assert_eq!(client.read_chunks(4), b"data");
    client.send("zz\r\n");
    let body = client.read_chunked();
    crate::support::assert_aborted(&head, &body, b"");
    origin.closed_within(Duration::from_secs(2));
}

#[test]
fn chunk_extensions_and_leading_zeros_are_not_broken() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let response = proxy.send(
        "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
         0005;a=b;c=\"d\"\r\nabcde\r\nA\r\n0123456789\r\n000\r\n\r\n",
    );
    assert_eq!(response.status(), 200);
    assert_eq!(upstream.request().1.content(), b"abcde0123456789");
}

#[test]
fn endless_chunk_extensions_and_trailers_are_bounded() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    for endless in ["5;", "0\r\nX: "] {
        let mut client = proxy.connect();
        client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut origin = upstream.accept();
        client.send(endless);
        let block = "a".repeat(64 * 1024);
        let taken = (0..1024)
            .take_while(|_| client.try_send(&block).is_ok())
            .count();
        assert!(taken < 1024, "64 MiB of {endless:?} were taken");
        let (octets, _) = origin.read_to_end();
        assert!(!octets.ends_with(b"0\r\n\r\n"), "{:?}", show(&octets));
    }
}

#[test]
fn a_host_that_is_none_is_refused() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("PRESERVE_HOST", "true")
        .start();
    for host in [
        "foo bar", "a@b", "[::1", "a:b:c", "a/../b", "<script>", "a#b",
    ] {
        let response = proxy.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_proxy_error(&response, 400, "invalid_request_error", "invalid_host");
        if !host.contains('/') {
            let response = proxy.send(format!("GET http://{host}/ HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(response.status(), 400, "{host}");
        }
    }
    upstream.no_more();
}

#[test]
fn a_target_and_host_that_differ_in_case_or_default_port_pass() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for target in ["http://A/x", "http://a:80/x", "HTTPS://a:443/x"] {
        proxy.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(upstream.request().0.target(), "/x", "{target}");
    }
    for target in ["http://b/x", "http://a:443/x", "https://a:80/x"] {
        let response = proxy.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_proxy_error(&response, 400, "invalid_request_error", "invalid_host");
    }
    upstream.no_more();
}

#[test]
fn connect_is_refused() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    let response = client.read_response("POST");
    assert!(
        (400..500).contains(&response.status()),
        "{}",
        show(&response.head.octets)
    );
    assert_anthropic_shape(&response, "invalid_request_error");
    upstream.no_more();
}

/// What reached the upstream ends without the end of a request.
#[track_caller]
fn assert_incomplete(mut origin: Wire, row: &str) {
    origin.closed_within(Duration::from_secs(2));
    let seen = origin.seen().to_ascii_lowercase();
    let complete = contains(&seen, b"\r\n0\r\n\r\n") || contains(&seen, b"\r\ncontent-length:");
    assert!(!complete, "{row:?} became {:?}", show(&seen));
}
