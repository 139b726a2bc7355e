//! docs/contract.md §1.1, §1.5, §2.5, §2.8, §2.10: where messages end, what happens when they end too
//! early, and which connection carries which exchange.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::support::{
    Body, End, Proxy, Upstream, Wire, assert_proxy_error, get, noise, post,
    upstream::OK,
    wire::{assert_octets, show},
};

mod connections;
mod cut;
mod streaming;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn upload(framing: &str) -> String {
    format!("POST /v1/files HTTP/1.1\r\nHost: proxy.test\r\n{framing}\r\n\r\n")
}

/// A proxy with one client and its upstream connection, the request already forwarded.
#[track_caller]
fn exchange(request: impl AsRef<[u8]>) -> (Proxy, Upstream, Wire, Wire) {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let (client, origin) = proxy.exchange(&upstream, request);
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
    let (mut client, mut origin) =
        proxy.begin_exchange(&upstream, upload(&format!("Content-Length: {}", u64::MAX)));
    client.send("hello");
    assert_eq!(origin.read_exact(5), b"hello");
}

#[test]
fn a_body_that_a_final_answer_made_needless_is_not_waited_for() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_BODY_TIMEOUT", "300ms")
        .start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &upstream,
        upload("Expect: 100-continue\r\nContent-Length: 5"),
    );
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
