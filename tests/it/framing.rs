//! docs/contract.md §1.1, §1.5, §2.5, §2.8, §2.10: where messages end, what happens when they end too
//! early, and which connection carries which exchange.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Body, DEADLINE, End, Proxy, Upstream, Wire, assert_aborted, assert_prompt, assert_proxy_error,
    get, noise, post,
    upstream::OK,
    wire::{assert_octets, chunk, show},
};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn upload(framing: &str) -> String {
    format!("POST /v1/files HTTP/1.1\r\nHost: proxy.test\r\n{framing}\r\n\r\n")
}

/// A proxy with one client and its upstream connection, the request already forwarded.
#[track_caller]
fn exchange(request: impl AsRef<[u8]>) -> (Proxy, Upstream, Wire, Wire) {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let mut client = proxy.connect();
    client.send(request);
    let mut origin = upstream.accept();
    origin.read_request();
    (proxy, upstream, client, origin)
}

#[test]
fn content_length_stays_content_length() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let response = proxy.send(post("/v1/files", "hello"));
    assert_eq!(response.body, Body::Length(b"ok".to_vec()));
    let (head, body) = upstream.request();
    assert_eq!(head.one("content-length"), Some("5"));
    assert!(!head.has("transfer-encoding"));
    assert_eq!(body, Body::Length(b"hello".to_vec()));
}

#[test]
fn chunked_stays_chunked() {
    let upstream = Upstream::always(format!(
        "{CHUNKED}3\r\nabc\r\n2;ext=\"v\"\r\nde\r\n0\r\n\r\n"
    ));
    let proxy = Proxy::to(upstream.url()).start();
    let request =
        upload("Transfer-Encoding: chunked") + "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let response = proxy.send(request);
    assert_eq!(response.body, Body::Chunked(b"abcde".to_vec()));
    assert!(!response.head.has("content-length"));
    let (head, body) = upstream.request();
    assert_eq!(head.one("transfer-encoding"), Some("chunked"));
    assert!(!head.has("content-length"));
    assert_eq!(body, Body::Chunked(b"hello world".to_vec()));
}

#[test]
fn an_empty_body_keeps_its_framing() {
    let upstream = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::to(upstream.url()).start();
    let response = proxy.send(upload("Content-Length: 0"));
    assert_eq!(response.body, Body::Length(Vec::new()));
    assert_eq!(upstream.request().0.one("content-length"), Some("0"));

    proxy.send(upload("Transfer-Encoding: chunked") + "0\r\n\r\n");
    let (head, body) = upstream.request();
    assert_eq!(head.one("transfer-encoding"), Some("chunked"));
    assert_eq!(body, Body::Chunked(Vec::new()));
}

#[test]
fn a_get_may_have_a_body() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    proxy.send("GET /x HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(upstream.request().1, Body::Length(b"abc".to_vec()));
}

#[test]
fn trailers_pass_both_ways() {
    let trailers = "X-Checksum: 1\r\nx-after: a, b\r\n";
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("TE: trailers\r\nTransfer-Encoding: chunked"));
    client.send(format!("2\r\nup\r\n0\r\n{trailers}\r\n"));
    let mut origin = upstream.accept();
    origin.read_request_head();
    assert_eq!(origin.read_chunk(), b"up");
    assert_eq!(origin.read_trailers(), trailers);
    origin.send(format!("{CHUNKED}4\r\ndown\r\n0\r\n{trailers}\r\n"));
    client.read_response_head();
    assert_eq!(client.read_chunk(), b"down");
    assert_eq!(client.read_trailers(), trailers);
}

#[test]
fn trailers_of_a_held_body_pass() {
    let trailers = "X-Checksum: 1\r\n";
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", "x")
        .start();
    let mut client = proxy.connect();
    client.send(upload("Transfer-Encoding: chunked").replace("/v1/files", "/v1/messages"));
    client.send(format!("2\r\n{{}}\r\n0\r\n{trailers}\r\n"));
    let mut origin = upstream.accept();
    origin.read_request_head();
    assert_eq!(origin.read_chunk(), b"{}");
    assert_eq!(origin.read_trailers(), trailers);
}

#[test]
fn the_largest_content_length_is_a_length() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload(&format!("Content-Length: {}", u64::MAX)));
    let mut origin = upstream.accept();
    origin.read_request_head();
    client.send("hello");
    assert_eq!(origin.read_exact(5), b"hello");
}

#[test]
fn a_body_that_a_final_answer_made_needless_is_not_waited_for() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_BODY_TIMEOUT", "300ms")
        .start();
    let mut client = proxy.connect();
    client.send(upload("Expect: 100-continue\r\nContent-Length: 5"));
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.send(format!("{CHUNKED}1\r\na\r\n"));
    client.read_response_head();
    assert_eq!(client.read_chunk(), b"a");
    // longer than the wait for 100 Continue, one second, and the idle timer after it
    thread::sleep(Duration::from_millis(1600));
    origin.send("1\r\nb\r\n0\r\n\r\n");
    assert_eq!(client.read_chunk(), b"b");
}

#[test]
fn framing_in_a_trailer_is_not_framing() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    let body = "2\r\nup\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\nHost: y\r\n\r\n";
    client.send(upload("Transfer-Encoding: chunked") + body + &get("/next"));
    for _ in 0..2 {
        assert_eq!(client.read_response("POST").content(), b"ok");
    }
    assert_eq!(upstream.request().1, Body::Chunked(b"up".to_vec()));
    assert_eq!(upstream.request().0.target(), "/next");
}

#[test]
fn bodiless_answers_keep_their_content_length_without_waiting() {
    for (method, status) in [("HEAD", 200), ("GET", 304), ("HEAD", 404)] {
        let upstream = Upstream::always(format!(
            "HTTP/1.1 {status} X\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n"
        ));
        let proxy = Proxy::to(upstream.url()).start();
        let mut client = proxy.connect();
        // The second answer shows that neither side waits for a body of the first.
        for _ in 0..2 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: proxy.test\r\n\r\n"));
            let response = client.read_response(method);
            assert_eq!(response.status(), status);
            assert_eq!(
                response.head.one("content-length"),
                Some("1234"),
                "{method} {status}"
            );
            assert_eq!(response.head.one("etag"), Some("\"x\""));
        }
    }
}

#[test]
fn a_204_ends_with_its_head() {
    let upstream = Upstream::always("HTTP/1.1 204 No Content\r\nX-End: 1\r\n\r\n");
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(get("/"));
        let response = client.read_response("GET");
        assert_eq!(response.status(), 204);
        assert_eq!(response.head.one("x-end"), Some("1"));
        assert!(!response.head.has("transfer-encoding"));
    }
}

#[test]
fn a_204_with_a_content_length_is_not_waited_for() {
    let upstream = Upstream::always("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    for method in ["GET", "HEAD"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = client.read_response(method);
        assert_eq!(response.status(), 204);
        assert!(!response.head.has("content-length"), "{method}");
    }
}

#[test]
fn a_length_that_is_said_twice_is_relayed_once() {
    for (fields, length) in [
        ("Content-Length: 5\r\ncontent-length: 5", Some("5")),
        ("Content-Length : 5\r\nX-A\t: 1", Some("5")),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", None),
    ] {
        let body = match length {
            Some(_) => "hello",
            None => "5\r\nhello\r\n0\r\n\r\n",
        };
        let upstream = Upstream::answering(move |head, _| {
            let body = if head.method() == "HEAD" { "" } else { body };
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}").into()
        });
        let proxy = Proxy::to(upstream.url()).start();
        for method in ["GET", "HEAD"] {
            let mut client = proxy.connect();
            client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
            let response = client.read_response(method);
            assert_eq!(
                response.head.one("content-length"),
                length,
                "{method} {fields}"
            );
            assert_eq!(response.head.has("x-a"), fields.contains("X-A"));
            if method == "GET" {
                assert_eq!(response.content(), b"hello", "{fields}");
            }
        }
    }
}

#[test]
fn a_bare_line_feed_in_a_trailer_section_is_malformed() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send(format!("{CHUNKED}1\r\na\r\n0\r\nx: y\nz: w\r\n\r\n"));
    let response = client.read_response("GET");
    assert!(
        matches!(response.body, Body::Cut(..)),
        "{:?}",
        response.body
    );
    // and in a request
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let response =
        proxy.send(upload("Transfer-Encoding: chunked") + "1\r\na\r\n0\r\nx: y\nz: w\r\n\r\n");
    assert_proxy_error(&response, 400, "invalid_request_error", "malformed_body");
    upstream.no_more();
}

#[test]
fn a_chunked_answer_of_http_1_0_is_the_last_of_its_connection() {
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nok\r\n0\r\n\r\n",
    );
    assert_eq!(client.read_response("GET").content(), b"ok");
    client.send(get("/2"));
    let mut fresh = upstream.accept();
    fresh.read_request();
    fresh.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn a_head_answer_of_a_chunked_resource_has_no_body() {
    let upstream = Upstream::always(CHUNKED);
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
        assert_eq!(client.read_response("HEAD").status(), 200);
    }
    client.quiet();
}

#[test]
fn a_close_delimited_answer_passes_whole() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    let content = noise(300_000);
    origin.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
    origin.send(&content);
    drop(origin);
    let response = client.read_response("GET");
    assert_octets(response.content(), &content, "the content");
    assert_eq!(response.head.one("content-type"), Some("text/plain"));
}

#[test]
fn an_http_1_0_answer_passes_whole() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send("HTTP/1.0 200 OK\r\n\r\nold but whole");
    drop(origin);
    assert_eq!(client.read_response("GET").content(), b"old but whole");
}

#[test]
fn an_http_1_0_client_gets_a_chunked_answer_unchunked_and_a_close() {
    let upstream = Upstream::always(format!("{CHUNKED}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.read_response("GET");
    assert_eq!(
        response.body,
        Body::Close(b"abcde".to_vec()),
        "{}",
        show(&response.head.octets)
    );
    assert!(!response.head.has("transfer-encoding"));
    assert!(upstream.request().0.line.ends_with(" HTTP/1.1"));
}

#[test]
fn an_http_1_0_client_gets_an_unchanged_answer_and_a_close() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nHost: proxy.test\r\n\r\n");
    let response = client.read_response("GET");
    assert_eq!(response.body, Body::Length(b"ok".to_vec()));
    assert_eq!(client.read_to_end(), (Vec::new(), End::Fin));
}

#[test]
fn connection_close_of_a_client_is_honoured() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: proxy.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_response("GET").content(), b"ok");
    assert_eq!(client.read_to_end(), (Vec::new(), End::Fin));
}

#[test]
fn expect_100_continue_goes_end_to_end() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Content-Length: 5\r\nExpect: 100-continue"));
    let mut origin = upstream.accept();
    let head = origin.read_request_head();
    assert_eq!(head.one("expect"), Some("100-continue"));
    origin.send("HTTP/1.1 100 Continue\r\n\r\n");
    // Without stalling: at once, not when some other timer happens to fire.
    client.set_deadline(Duration::from_secs(2));
    let interim = client.read_response_head();
    assert_eq!(interim.status(), 100);
    client.send("hello");
    assert_eq!(origin.read_exact(5), b"hello");
    origin.send(OK);
    let response = client.read_response("POST");
    assert_eq!((response.status(), response.content()), (200, &b"ok"[..]));
}

#[test]
fn an_upstream_that_never_says_100_does_not_stall() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Content-Length: 5\r\nExpect: 100-continue"));
    assert_eq!(client.read_response_head().status(), 100);
    client.send("hello");
    let response = client.read_response("POST");
    assert_eq!((response.status(), response.content()), (200, &b"ok"[..]));
    assert_eq!(upstream.request().1, Body::Length(b"hello".to_vec()));
}

#[test]
fn a_refusal_reaches_a_client_that_waits_to_continue() {
    for status in [413, 417, 401] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let mut client = proxy.connect();
        client.send(upload("Content-Length: 5000000\r\nExpect: 100-continue"));
        let mut origin = upstream.accept();
        origin.read_request_head();
        origin.send(format!(
            "HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno"
        ));
        // Nobody said 100, so the first head is the refusal itself.
        let response = client.read_response("POST");
        assert_eq!(
            (response.status(), response.content()),
            (status, &b"no"[..])
        );
    }
}

#[test]
fn a_client_that_expects_100_but_does_not_wait_is_served() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    // Nobody has to wait for the upstream's word on what was sent already: that would be a second. On a
    // busy machine one of a few tries is quick.
    let is_prompt = (0..20).any(|_| {
        let mut client = proxy.connect();
        client.send(upload("Content-Length: 5\r\nExpect: 100-continue") + "hello");
        let start = Instant::now();
        let mut response = client.read_response("POST");
        if response.status() == 100 {
            response = client.read_response("POST");
        }
        assert_eq!((response.status(), response.content()), (200, &b"ok"[..]));
        assert_eq!(upstream.request().1, Body::Length(b"hello".to_vec()));
        start.elapsed() < Duration::from_millis(700)
    });
    assert!(is_prompt, "a second is waited for");
    upstream.no_more();
}

#[test]
fn interim_answers_never_confuse_the_exchange() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    origin.send("HTTP/1.1 100 Continue\r\n\r\n");
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    let one = final_response(&mut client);
    assert_eq!((one.status(), one.content()), (200, &b"one"[..]));
    client.send(get("/2"));
    assert_eq!(origin.read_request().0.target(), "/2");
    origin.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    let two = final_response(&mut client);
    assert_eq!((two.status(), two.content()), (200, &b"two"[..]));
}

#[test]
fn an_early_answer_reaches_a_client_that_still_uploads() {
    for framing in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let mut client = proxy.connect();
        client.send(upload(framing));
        client.send_chunk(b"the first of many");
        let mut origin = upstream.accept();
        origin.read_request_head();
        let mut writer = client.clone_writer();
        let uploading = thread::spawn(move || {
            let block = chunk(&noise(64 * 1024));
            while writer.try_send(&block).is_ok() {}
        });
        origin.send("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large");
        let response = client.read_response("POST");
        assert_eq!(
            (response.status(), response.content()),
            (413, &b"too large"[..]),
            "{framing}"
        );
        drop((client, origin, proxy));
        uploading.join().unwrap();
    }
}

#[test]
fn an_early_answer_with_a_close_reaches_a_client_that_still_uploads() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Content-Length: 100000000"));
    client.send("the first of many");
    let mut origin = upstream.accept();
    origin.read_request_head();
    let mut writer = client.clone_writer();
    let uploading = thread::spawn(move || {
        let block = noise(64 * 1024);
        while writer.try_send(&block).is_ok() {}
    });
    origin
        .send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large");
    origin.finish();
    let response = client.read_response("POST");
    assert_eq!(
        (response.status(), response.content()),
        (413, &b"too large"[..])
    );
    drop((client, origin, proxy));
    uploading.join().unwrap();
}

#[test]
fn an_early_answer_survives_the_reset_that_follows_it() {
    // An upstream that closes with octets unread resets the connection.
    for _ in 0..20 {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let mut client = proxy.connect();
        client.send(upload("Content-Length: 100000000"));
        client.send(noise(100_000));
        let mut origin = upstream.accept();
        origin.read_request_head();
        origin.send("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large");
        drop(origin);
        let response = client.read_response("POST");
        assert_eq!(
            (response.status(), response.content()),
            (413, &b"too large"[..])
        );
    }
}

#[test]
fn uploads_stream_as_they_arrive() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();

    let mut client = proxy.connect();
    client.send(upload("Transfer-Encoding: chunked"));
    let mut origin = upstream.accept();
    origin.read_request_head();
    for piece in ["first", "second", "third"] {
        client.send_chunk(piece.as_bytes());
        assert_eq!(origin.read_chunks(piece.len()), piece.as_bytes());
    }

    let mut client = proxy.connect();
    client.send(upload("Content-Length: 11"));
    let mut origin = upstream.accept();
    origin.read_request_head();
    for piece in ["first", "second"] {
        client.send(piece);
        assert_eq!(origin.read_exact(piece.len()), piece.as_bytes());
    }
}

#[test]
fn answers_stream_as_they_arrive() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send(CHUNKED);
    assert_eq!(client.read_response_head().status(), 200);
    for event in ["event: one\n\n", "event: two\n\n", "event: three\n\n"] {
        origin.send_chunk(event.as_bytes());
        assert_eq!(client.read_chunks(event.len()), event.as_bytes());
    }
    origin.send_chunk(b"");
    assert_eq!(client.read_chunk(), b"");
}

#[test]
fn small_pieces_do_not_wait_for_each_other() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Transfer-Encoding: chunked"));
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.send(CHUNKED);
    client.read_response_head();
    let start = Instant::now();
    for _ in 0..400 {
        client.send_chunk(b"x");
        assert_eq!(origin.read_chunk(), b"x");
    }
    for _ in 0..400 {
        origin.send_chunk(b"x");
        assert_eq!(client.read_chunk(), b"x");
    }
    // Nagle's algorithm against delayed acknowledgements would make it 40 ms each, 32 s.
    assert_prompt(start, Duration::from_secs(2));
}

#[test]
fn the_end_of_a_chunk_is_not_waited_for() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Transfer-Encoding: chunked") + "100000\r\nbegin");
    let mut origin = upstream.accept();
    origin.read_request_head();
    assert_eq!(origin.read_chunks(5), b"begin");
    origin.send(format!("{CHUNKED}100000\r\nbegin"));
    client.read_response_head();
    assert_eq!(client.read_chunks(5), b"begin");
}

#[test]
fn an_answer_may_overtake_its_request() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Transfer-Encoding: chunked"));
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.send(CHUNKED);
    assert_eq!(client.read_response_head().status(), 200);
    for turn in ["ping", "pong", "ping again"] {
        client.send_chunk(turn.as_bytes());
        assert_eq!(origin.read_chunks(turn.len()), turn.as_bytes());
        origin.send_chunk(turn.as_bytes());
        assert_eq!(client.read_chunks(turn.len()), turn.as_bytes());
    }
    client.send_chunk(b"");
    assert_eq!(origin.read_chunk(), b"");
    origin.send_chunk(b"");
    assert_eq!(client.read_chunk(), b"");
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    let (upstream, content) = (Upstream::bind(), noise(20_000_000));
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    let mut writer = client.clone_writer();
    let mut request = upload("Transfer-Encoding: chunked").into_bytes();
    for piece in content.chunks(30_011) {
        request.extend(chunk(piece));
    }
    request.extend(chunk(b""));
    let sending = thread::spawn(move || writer.send(request));
    let mut origin = upstream.accept();
    let echoing = thread::spawn(move || {
        origin.read_request_head();
        origin.send(CHUNKED);
        loop {
            let piece = origin.read_chunk();
            origin.send_chunk(&piece);
            if piece.is_empty() {
                break;
            }
        }
    });
    assert_octets(client.read_response("POST").content(), &content, "the echo");
    sending.join().unwrap();
    echoing.join().unwrap();
}

#[test]
fn no_exchange_gets_the_octets_of_another() {
    let upstream = Upstream::answering(|head, body| {
        let (target, content) = (head.target(), body.content());
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nX-Target: {target}\r\nTransfer-Encoding: chunked\r\n\r\n")
                .into_bytes();
        for piece in content.chunks(997) {
            answer.extend(chunk(piece));
        }
        answer.extend(chunk(b""));
        answer
    });
    let proxy = Proxy::to(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", "x")
        .start();
    thread::scope(|scope| {
        for who in 0..16 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.connect();
                for turn in 0..30 {
                    let path = if turn % 2 == 0 {
                        "/v1/messages"
                    } else {
                        "/v1/files"
                    };
                    let target = format!("{path}?{who}-{turn}");
                    let content = format!("[\"{who}-{turn}\"]").repeat(1 + turn * who * 10);
                    client.send(post(&target, &content));
                    if turn % 7 == 6 {
                        // Leaves in the middle of it, and comes back.
                        client = proxy.connect();
                        continue;
                    }
                    let response = client.read_response("POST");
                    assert_eq!(response.head.one("x-target"), Some(target.as_str()));
                    assert_octets(response.content(), content, target);
                }
            });
        }
    });
}

#[test]
fn fifty_megabytes_up_are_the_same_octets() {
    let content = noise(50_000_000);
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    assert_eq!(proxy.send(post("/v1/files", &content)).content(), b"ok");
    assert_octets(upstream.request().1.content(), &content, "under a length");

    let mut request = upload("Transfer-Encoding: chunked").into_bytes();
    for piece in content.chunks(100_003) {
        request.extend(chunk(piece));
    }
    request.extend(chunk(b""));
    assert_eq!(proxy.send(request).content(), b"ok");
    assert_octets(upstream.request().1.content(), &content, "in chunks");
}

#[test]
fn fifty_megabytes_down_are_the_same_octets() {
    let content = noise(50_000_000);
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    answer.extend_from_slice(&content);
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url()).start();
    assert_octets(proxy.send(get("/")).content(), &content, "the content");

    let mut answer = CHUNKED.as_bytes().to_vec();
    for piece in content.chunks(100_003) {
        answer.extend(chunk(piece));
    }
    answer.extend(chunk(b""));
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url()).start();
    assert_octets(proxy.send(get("/")).content(), &content, "the content");
}

#[test]
fn a_slow_reader_holds_back_the_upstream() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = Wire::tcp(small_reader(&proxy));
    client.send(get("/"));
    let stream = upstream.accept_stream();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket2::SockRef::from(&stream)
        .set_send_buffer_size(16 * 1024)
        .unwrap();
    let mut origin = Wire::new(stream.try_clone().unwrap());
    origin.read_request();
    let before = resident(&proxy);
    origin.send(CHUNKED);
    let block = chunk(&noise(32 * 1024));
    let mut sent = 0;
    // The first write that does not get through in half a second is where it is held back.
    let rest = loop {
        assert!(
            sent < KERNEL_BUFFERS,
            "{sent} octets were taken though nobody reads"
        );
        match put(&stream, &block) {
            Ok(()) => sent += block.len(),
            Err(rest) => break rest,
        }
    };
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 1 << 20, "the process grew by {grown} octets");
    assert_eq!(client.read_response_head().status(), 200);
    let reading = thread::spawn(move || client.read_chunked());
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    origin.send(rest);
    origin.send_chunk(b"");
    let body = reading.join().unwrap();
    let expected = noise(32 * 1024).repeat(sent / block.len() + 1);
    let Body::Chunked(content) = body else {
        panic!("not a clean end")
    };
    assert_octets(&content, &expected, "the content");
}

#[test]
fn a_slow_upstream_holds_back_an_upload() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket2::SockRef::from(&stream)
        .set_send_buffer_size(16 * 1024)
        .unwrap();
    let mut client = Wire::new(stream.try_clone().unwrap());
    client.send(upload("Content-Length: 500000000"));
    let _origin = upstream.accept();
    let before = resident(&proxy);
    let block = noise(32 * 1024);
    let mut sent = 0;
    while put(&stream, &block).is_ok() {
        sent += block.len();
        assert!(
            sent < KERNEL_BUFFERS,
            "{sent} octets were taken though nobody reads"
        );
    }
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 1 << 20, "the process grew by {grown} octets");
}

#[test]
fn a_cut_content_length_is_never_a_clean_end() {
    for reset in [false, true] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it");
        let head = client.read_response_head();
        assert_eq!(client.read_exact(10), b"half of it");
        if reset {
            origin.reset()
        } else {
            drop(origin)
        }
        let body = client.read_to_end();
        assert_eq!(head.one("content-length"), Some("100"));
        assert_eq!(body.0, b"", "octets that the upstream did not send");
    }
}

#[test]
fn a_cut_chunked_answer_is_never_a_clean_end() {
    for (cut, content) in [
        ("", ""),
        ("5", ""),
        ("5\r\n", ""),
        ("5\r\nab", "ab"),
        ("5\r\nabcde", "abcde"),
        ("5\r\nabcde\r", "abcde"),
        ("5\r\nabcde\r\n", "abcde"),
        ("5\r\nabcde\r\n0", "abcde"),
        ("5\r\nabcde\r\n0\r\n", "abcde"),
        ("5\r\nabcde\r\n0\r\n\r", "abcde"),
    ] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!("{CHUNKED}{cut}"));
        drop(origin);
        let response = client.read_response("GET");
        assert_eq!(response.status(), 200, "{cut:?}");
        assert_aborted(&response.head, &response.body, content.as_bytes());
    }
}

#[test]
fn a_reset_inside_a_stream_is_never_a_clean_end() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send(format!("{CHUNKED}5\r\nabcde\r\n"));
    let head = client.read_response_head();
    assert_eq!(client.read_chunks(5), b"abcde");
    origin.reset();
    assert_aborted(&head, &client.read_chunked(), b"");
}

#[test]
fn a_reset_of_a_close_delimited_answer_is_never_a_clean_end() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send("HTTP/1.1 200 OK\r\n\r\nabcde");
    let head = client.read_response_head();
    assert_eq!(head.one("transfer-encoding"), Some("chunked"));
    assert_eq!(client.read_chunks(5), b"abcde");
    origin.reset();
    assert_aborted(&head, &client.read_chunked(), b"");
}

#[test]
fn a_broken_chunk_of_the_upstream_is_never_a_clean_end() {
    for broken in [
        "zz\r\n",
        "0x5\r\nabcde\r\n",
        "\r\n",
        "5\r\nabcdeXX",
        "-1\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!("{CHUNKED}2\r\nok\r\n"));
        let head = client.read_response_head();
        assert_eq!(client.read_chunks(2), b"ok");
        origin.send(broken);
        let body = client.read_chunked();
        assert!(
            matches!(body, Body::Cut(..)),
            "{broken:?}: {}{body:?}",
            show(&head.octets)
        );
        origin.closed_within(Duration::from_secs(2));
    }
}

#[test]
fn a_cut_answer_to_an_http_1_0_client_ends_with_a_reset() {
    for answer in [
        format!("{CHUNKED}5\r\nabcde\r\n"),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcde".to_owned(),
    ] {
        let (_proxy, _upstream, mut client, mut origin) = exchange("GET / HTTP/1.0\r\n\r\n");
        origin.send(&answer);
        let head = client.read_response_head();
        assert_eq!(client.read_exact(5), b"abcde");
        drop(origin);
        let (octets, end) = client.read_to_end();
        assert_eq!(octets, b"");
        assert!(
            end == End::Reset || head.has("content-length"),
            "a clean end of a close-delimited answer: {}",
            show(&head.octets)
        );
    }
}

#[test]
fn a_cut_request_is_never_a_complete_one() {
    for (framing, half) in [
        ("Content-Length: 100", "half"),
        ("Transfer-Encoding: chunked", "a\r\nhalf"),
    ] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let mut client = proxy.connect();
        client.send(upload(framing));
        let mut origin = upstream.accept();
        origin.read_request_head();
        client.send(half);
        drop(client);
        let (octets, _) = origin.closed_within(Duration::from_secs(2));
        assert!(!octets.ends_with(b"0\r\n\r\n"), "{:?}", show(&octets));
        upstream.no_more();
    }
}

#[test]
fn an_answer_means_the_same_however_it_is_split() {
    let answer = "HTTP/1.1 200 OK\r\nX-A: 1\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5;e=1\r\nabcde\r\n10\r\n0123456789abcdef\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = upstream.accept();
    let mut expected = None;
    for at in 0..=answer.len() {
        origin.read_request();
        match at {
            // Every octet alone, then in two parts at each place.
            0 => origin.send_split(answer.as_bytes()),
            at => {
                origin.send(&answer[..at]);
                pause();
                origin.send(&answer[at..]);
            }
        }
        let response = client.read_response("GET");
        assert_eq!(
            response.body,
            Body::Chunked(b"abcde0123456789abcdef".to_vec()),
            "at {at}"
        );
        let head = expected.get_or_insert_with(|| response.head.octets.clone());
        assert_octets(&response.head.octets, head, at);
        client.send(get("/"));
    }
}

#[test]
fn an_answer_with_a_length_means_the_same_however_it_is_split() {
    let answer = "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 12\r\n\r\nhello, world";
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = upstream.accept();
    for at in 1..=answer.len() {
        origin.read_request();
        origin.send(&answer[..at]);
        pause();
        origin.send(&answer[at..]);
        let response = client.read_response("GET");
        assert_eq!(
            response.body,
            Body::Length(b"hello, world".to_vec()),
            "at {at}"
        );
        client.send(get("/"));
    }
}

#[test]
fn a_request_means_the_same_however_it_is_split() {
    let chunked = "POST /v1/files?x HTTP/1.1\r\nHost: proxy.test\r\nX-A: 1\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    let length = "POST /v1/files?x HTTP/1.1\r\nHost: proxy.test\r\nX-A: 1\r\n\
                  Content-Length: 21\r\n\r\nabcde0123456789abcdef";
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for request in [chunked, length] {
        let mut client = proxy.connect();
        let mut expected = None;
        for at in 0..=request.len() {
            match at {
                0 => client.send_split(request.as_bytes()),
                at => {
                    client.send(&request[..at]);
                    pause();
                    client.send(&request[at..]);
                }
            }
            assert_eq!(client.read_response("POST").content(), b"ok", "at {at}");
            let (head, body) = upstream.request();
            assert_eq!(body.content(), b"abcde0123456789abcdef", "at {at}");
            let octets = expected.get_or_insert_with(|| head.octets.clone());
            assert_octets(&head.octets, octets, at);
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_with_one_upstream_request_each() {
    let upstream = Upstream::answering(|head, body| {
        let content = format!("{} {}", head.target(), show(body.content()));
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        )
        .into_bytes()
    });
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    let mut octets = get("/1").into_bytes();
    octets.extend(post("/2", "two"));
    octets.extend((upload("Transfer-Encoding: chunked") + "5\r\nthree\r\n0\r\n\r\n").bytes());
    octets.extend(get("/4").bytes());
    client.send(octets);
    for expected in ["/1 ", "/2 two", "/v1/files three", "/4 "] {
        let response = client.read_response("GET");
        assert_eq!(show(response.content()), expected);
    }
    for _ in 0..4 {
        upstream.request();
    }
    upstream.no_more();
}

#[test]
fn connections_are_kept_alive_on_both_sides() {
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    for (answer, content) in [
        (format!("{CHUNKED}2\r\nok\r\n0\r\n\r\n"), &b"ok"[..]),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), b""),
        (
            "HTTP/1.1 500 X\r\nContent-Length: 1\r\n\r\nx".to_owned(),
            b"x",
        ),
        (OK.to_owned(), b"ok"),
    ] {
        client.send(post("/v1/files", "{}"));
        origin.read_request();
        origin.send(answer);
        assert_eq!(client.read_response("POST").content(), content);
    }
    upstream.no_more();
}

#[test]
fn another_client_may_use_a_pooled_connection() {
    let (proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(OK);
    client.read_response("GET");
    let mut other = proxy.connect();
    other.send(get("/2"));
    assert_eq!(origin.read_request().0.target(), "/2");
    origin.send(OK);
    assert_eq!(other.read_response("GET").content(), b"ok");
    upstream.no_more();
}

#[test]
fn a_busy_connection_is_not_shared() {
    let (proxy, upstream, _client, _origin) = exchange(get("/1"));
    let mut other = proxy.connect();
    other.send(get("/2"));
    assert_eq!(upstream.accept().read_request().0.target(), "/2");
}

#[test]
fn a_connection_that_the_upstream_will_close_is_not_reused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
        origin.send(answer);
        assert_eq!(client.read_response("GET").content(), b"ok");
        // The client's connection lives on: `close` was for the hop behind us.
        client.send(get("/2"));
        let mut fresh = upstream.accept();
        assert_eq!(fresh.read_request().0.target(), "/2");
        fresh.send(OK);
        assert_eq!(client.read_response("GET").content(), b"ok");
        origin.closed_within(Duration::from_secs(2));
    }
}

#[test]
fn octets_after_an_answer_never_reach_the_next_exchange() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(format!("{OK}{smuggled}"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    client.send(get("/2"));
    let mut fresh = upstream.accept();
    fresh.read_request();
    fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh");
    assert_eq!(client.read_response("GET").content(), b"fresh");
}

#[test]
fn content_where_none_may_be_never_reaches_the_next_exchange() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
    ] {
        let request = format!("{method} /1 HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
        let (_proxy, upstream, mut client, mut origin) = exchange(request);
        origin.send(format!("{head}smuggled"));
        client.read_response(method);
        client.send(get("/2"));
        let mut fresh = upstream.accept();
        fresh.read_request();
        fresh.send(OK);
        assert_eq!(client.read_response("GET").content(), b"ok", "{method}");
    }
}

#[test]
fn a_connection_with_an_unfinished_upload_is_not_reused() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let mut client = proxy.connect();
    client.send(upload("Content-Length: 100") + "half");
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
    let mut other = proxy.connect();
    other.send(get("/2"));
    assert_eq!(upstream.accept().read_request().0.target(), "/2");
    origin.closed_within(Duration::from_secs(2));
}

#[test]
fn endless_chunk_extensions_and_trailers_of_the_upstream_are_bounded() {
    for endless in ["5;", "0\r\nX: "] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!("{CHUNKED}{endless}"));
        let block = "a".repeat(64 * 1024);
        let taken = (0..1024)
            .take_while(|_| origin.try_send(&block).is_ok())
            .count();
        assert!(taken < 1024, "64 MiB of {endless:?} were taken");
        let response = client.read_response("GET");
        assert!(
            matches!(response.body, Body::Cut(..)),
            "{:?}",
            response.body
        );
    }
}

#[test]
fn octets_on_an_idle_connection_never_reach_the_next_exchange() {
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    origin.send("HTTP/1.1 408 Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate");
    client.send(get("/2"));
    let mut fresh = upstream.accept();
    fresh.read_request();
    fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh");
    assert_eq!(client.read_response("GET").content(), b"fresh");
}

#[test]
fn a_connection_closed_while_idle_is_replaced_once() {
    for reset in [false, true] {
        let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
        origin.send(OK);
        assert_eq!(client.read_response("GET").content(), b"ok");
        if reset {
            origin.reset()
        } else {
            drop(origin)
        }
        client.send(post("/v1/files", "{}"));
        let mut fresh = upstream.accept();
        assert_eq!(fresh.read_request().1, Body::Length(b"{}".to_vec()));
        fresh.send(OK);
        assert_eq!(client.read_response("POST").content(), b"ok");
        upstream.no_more();
    }
}

#[test]
fn a_post_whose_octets_left_is_never_sent_twice() {
    for (pooled, reset) in [(false, false), (false, true), (true, false), (true, true)] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
        let mut client = proxy.connect();
        client.send(if pooled {
            get("/").into_bytes()
        } else {
            post("/v1/files", "{}")
        });
        let mut origin = upstream.accept();
        origin.read_request();
        if pooled {
            origin.send(OK);
            client.read_response("GET");
            client.send(post("/v1/files", "{}"));
            origin.read_request();
        }
        if reset {
            origin.reset()
        } else {
            drop(origin)
        }
        let response = client.read_response("POST");
        assert_proxy_error(&response, 502, "api_error", "connection_terminated");
        upstream.no_more();
    }
}

#[test]
fn a_connection_that_dies_inside_the_answers_head_is_502() {
    let (_proxy, upstream, mut client, mut origin) = exchange(post("/v1/files", "{}"));
    origin.send("HTTP/1.1 200 OK\r\nContent-Le");
    drop(origin);
    let response = client.read_response("POST");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    upstream.no_more();
}

#[test]
fn an_answer_that_is_not_http_is_502() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 2000 X\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let (_proxy, upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(answer);
        let response = client.read_response("GET");
        assert_proxy_error(&response, 502, "api_error", "http_protocol_error");
        origin.closed_within(Duration::from_secs(2));
        upstream.no_more();
    }
}

#[test]
fn ambiguous_framing_of_an_answer_is_502() {
    for framing in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: +2",
        "Content-Length: two",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, gzip",
    ] {
        let (_proxy, upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!(
            "HTTP/1.1 200 OK\r\n{framing}\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        ));
        let response = client.read_response("GET");
        assert_proxy_error(&response, 502, "api_error", "http_response_transfer_coding");
        origin.closed_within(Duration::from_secs(2));
        upstream.no_more();
    }
}

#[test]
fn an_answer_with_both_framings_is_never_relayed_with_both() {
    for framing in [
        "Content-Length: 99\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
    ] {
        let (_proxy, upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!(
            "HTTP/1.1 200 OK\r\n{framing}\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        ));
        let response = client.read_response("GET");
        if response.status() == 200 {
            // RFC 9112 §6.3: the transfer coding counts.
            assert_eq!(response.body, Body::Chunked(b"ok".to_vec()));
            assert!(!response.head.has("content-length"));
        } else {
            assert_proxy_error(&response, 502, "api_error", "http_response_transfer_coding");
        }
        // Such a connection is not trusted with another request.
        origin.closed_within(Duration::from_secs(2));
        upstream.no_more();
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_502() {
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/"));
    origin.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "http_upgrade_failed");
    upstream.no_more();
}

fn final_response(client: &mut Wire) -> crate::support::Response {
    loop {
        let response = client.read_response("GET");
        if response.status() >= 200 {
            return response;
        }
    }
}

/// Makes it likely, not certain, that what was sent is read alone: nothing depends on it.
fn pause() {
    thread::sleep(Duration::from_micros(500));
}

fn small_reader(proxy: &Proxy) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.connect(&proxy.addr().into()).unwrap();
    socket.into()
}

/// Writes a block; what did not get through in time comes back.
fn put(mut stream: &TcpStream, mut block: &[u8]) -> Result<(), Vec<u8>> {
    while !block.is_empty() {
        match stream.write(block) {
            Ok(count) => block = &block[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(block.to_vec()),
            Err(error) => panic!("{error}"),
        }
    }
    Ok(())
}

/// More than the kernel ever buffers on the way (`tcp_rmem` and `tcp_wmem` may allow 32 and 4 MiB);
/// what the process buffers itself is seen by its memory.
const KERNEL_BUFFERS: usize = 64 << 20;

/// Octets of memory that the process holds; 0 where the system does not tell.
fn resident(proxy: &Proxy) -> usize {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.map_or(0, |line| {
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            * 1024
    })
}

#[test]
fn a_refusal_does_not_cost_the_connection_when_its_request_is_complete() {
    // a port that was free a moment ago: nobody listens there
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let proxy = Proxy::to(url).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(upload("Content-Length: 5") + "hello");
        let response = client.read_response("POST");
        assert_eq!(response.status(), 502);
        assert_eq!(response.head.one("connection"), None);
    }
    client.send(get("/health"));
    assert_eq!(client.read_response("GET").status(), 200);
}
