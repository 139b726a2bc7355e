//! Connections to the upstream: how old they become, what is sent again over another one, and what
//! happens when there can be none: no file descriptor, or the proxy itself at the other end.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    Body, Proxy, ProxyBuilder, Upstream, Wire, assert_proxy_error, get, post, upstream::OK,
};

const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A proxy whose one client has a connection, kept at the upstream.
fn kept() -> (Proxy, Upstream, Wire, Wire) {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/first"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    (proxy, upstream, client, origin)
}

fn request(method: &str) -> String {
    format!("{method} /second HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[test]
fn a_get_or_head_whose_kept_connection_is_lost_is_sent_again_once() {
    for method in ["GET", "HEAD"] {
        for reset in [false, true] {
            let (_proxy, upstream, mut client, mut origin) = kept();
            client.send(request(method));
            assert_eq!(origin.read_request().0.target(), "/second");
            if reset {
                origin.reset();
            } else {
                drop(origin);
            }
            // the same over a new connection
            let mut fresh = upstream.accept();
            let head = fresh.read_request().0;
            assert_eq!((head.method(), head.target()), (method, "/second"));
            drop(fresh);
            // which was not kept: once is enough
            let response = client.read_response(method);
            assert_eq!(response.status(), 502);
            assert_eq!(
                response.head.one("x-proxy-error"),
                Some("connection_terminated")
            );
            upstream.no_more();
        }
    }
}

#[test]
fn what_may_have_been_processed_is_not_sent_again() {
    // other methods, content, and an answer that has begun
    let with_content = "GET /second HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    for (request, method, answer) in [
        (request("DELETE"), "DELETE", ""),
        (request("POST"), "POST", ""),
        (with_content.to_owned(), "GET", ""),
        (request("GET"), "GET", "H"),
        (request("GET"), "GET", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ] {
        let (_proxy, upstream, mut client, mut origin) = kept();
        client.send(&request);
        origin.read_request();
        origin.send(answer);
        drop(origin);
        let response = client.read_response(method);
        assert_proxy_error(&response, 502, "api_error", "connection_terminated");
        upstream.no_more();
    }
}

#[test]
fn a_connection_that_is_old_takes_no_new_request() {
    let age = Duration::from_millis(300);
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("WORKERS", 1)
        .env("UPSTREAM_MAX_AGE", "300ms")
        .start();
    let mut client = proxy.connect();
    client.send(get("/1"));
    let mut origin = upstream.accept();
    let begun = Instant::now();
    origin.read_request();
    origin.send(STREAM);
    client.read_response_head();
    // what runs on it runs on
    while begun.elapsed() < age {
        origin.send_chunk(b"x");
        assert_eq!(client.read_chunk(), b"x");
    }
    origin.send_chunk(b"");
    assert_eq!(client.read_chunk(), b"");
    client.send(get("/2"));
    let mut fresh = upstream.accept();
    assert_eq!(fresh.read_request().0.target(), "/2");
    fresh.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    assert_eq!(origin.closed_within(Duration::from_secs(30)).0, b"");
}

/// Leaves the process no file descriptor beyond those that it has.
fn leave_no_descriptor(proxy: &Proxy) {
    let folder = format!("/proc/{}/fd", proxy.id());
    let taken: Vec<u32> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    let first_free = (0..).find(|number| !taken.contains(number)).unwrap();
    let status = Command::new("prlimit")
        .args([
            format!("--pid={}", proxy.id()),
            format!("--nofile={first_free}:"),
        ])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn running_out_of_descriptors_is_503_and_opens_no_circuit() {
    let (first, second) = (Upstream::bind(), Upstream::ok());
    for urls in [first.url(), format!("{},{}", first.url(), second.url())] {
        let proxy = ProxyBuilder::new()
            .env("API_BASE_URLS", urls)
            .env("WORKERS", 1)
            .start();
        let (mut busy, mut client) = (proxy.connect(), proxy.connect());
        client.send(get("/health"));
        assert_eq!(client.read_response("GET").status(), 200);
        busy.send(get("/busy"));
        let mut origin = first.accept();
        origin.read_request();
        leave_no_descriptor(&proxy);
        // more than it takes to open a circuit
        for _ in 0..8 {
            client.send(post("/v1/messages", "{}"));
            let response = client.read_response("POST");
            assert_proxy_error(&response, 503, "overloaded_error", "descriptors_exhausted");
            assert_eq!(response.head.one("retry-after"), Some("1"));
        }
        origin.send(OK);
        assert_eq!(busy.read_response("GET").content(), b"ok");
        // the first upstream is well, and its connection serves again
        client.send(post("/v1/messages", "{}"));
        assert_eq!(origin.read_request().1, Body::Length(b"{}".to_vec()));
        origin.send(OK);
        assert_eq!(client.read_response("POST").content(), b"ok");
        second.no_more();
    }
}

#[test]
fn idle_connections_make_room_for_a_new_one() {
    let (first, second) = (Upstream::bind(), Upstream::ok());
    let proxy = ProxyBuilder::new()
        .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
        .env("WORKERS", 1)
        .start();
    let (mut client, mut origin) = proxy.exchange(&first, get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    leave_no_descriptor(&proxy);
    client.send(get("/2"));
    origin.read_request();
    origin.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_response("GET").content(), b"ok");
    assert_eq!(second.request().0.target(), "/2");
    assert_eq!(origin.closed_within(Duration::from_secs(30)).0, b"");
}

#[test]
fn a_proxy_before_itself_answers_508() {
    let upstream = Upstream::ok();
    for (host, name) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.2"),
        ("0.0.0.0", "0.0.0.0"),
        ("127.0.0.1", "admin"),
    ] {
        let proxy = ProxyBuilder::new()
            .file("env/.env", format!("API_BASE_URL={}\n", upstream.url()))
            .env("HOST", host)
            .env("ADMIN_LISTEN", "127.0.0.1:0")
            .env("WORKERS", 1)
            .start();
        let (name, port) = match name {
            "admin" => ("127.0.0.1", proxy.admin_addr().port()),
            name => (name, proxy.addr().port()),
        };
        proxy.write("env/.env", format!("API_BASE_URL=http://{name}:{port}\n"));
        proxy.wait_for_line(|line| line.contains("reloaded"));
        let response = proxy.send(post("/v1/messages", "{}"));
        assert_proxy_error(&response, 508, "api_error", "loop_detected");
        assert_eq!(response.head.one("x-should-retry"), Some("false"));
        proxy.wait_for_line(|line| line.contains("is a listener of this proxy"));
    }
    upstream.no_more();
}

#[test]
fn another_process_on_another_port_is_no_loop() {
    let behind = Upstream::ok();
    let inner = Proxy::to(behind.url()).env("HOST", "0.0.0.0").start();
    let outer = Proxy::to(format!("http://127.0.0.1:{}", inner.addr().port())).start();
    assert_eq!(outer.send(get("/")).content(), b"ok");
}

#[test]
fn the_head_of_a_generation_is_waited_for_whatever_its_path() {
    for (path, is_generation) in [
        ("/v1/messages", true),
        ("/gateway/v1/messages?beta=true", true),
        ("/v1/complete", true),
        ("/v1/chat/completions", true),
        ("/v1/responses", true),
        ("/v1/p/models/m:rawPredict", true),
        ("/v1/p/models/m:streamRawPredict", true),
        ("/model/m/invoke-with-response-stream", true),
        ("/v1/messages/count_tokens", false),
        ("/v1/files", false),
    ] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url())
            .env("UPSTREAM_TIMEOUT", "100ms")
            .env("GENERATION_TIMEOUT", "10m")
            .start();
        let (mut client, mut origin) = proxy.exchange(&upstream, post(path, "{}"));
        if is_generation {
            // twice as long as others are waited for
            client.quiet();
            origin.send(OK);
            assert_eq!(client.read_response("POST").content(), b"ok", "{path}");
        } else {
            let response = client.read_response("POST");
            assert_proxy_error(&response, 504, "timeout_error", "http_response_timeout");
        }
    }
}

#[test]
fn a_generation_that_passes_unseen_is_said_once() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", "ours")
        .start();
    for path in [
        "/v1/chat/completions",
        "/x/chat/completions",
        "/v1/responses",
        "/v1/messages",
    ] {
        assert_eq!(proxy.send(post(path, "{}")).status(), 200);
    }
    proxy.wait_for_line(|line| line.contains("…/responses is forwarded as it is"));
    let said = proxy.stderr().matches("is forwarded as it is").count();
    assert_eq!(said, 2, "{}", proxy.stderr());
    // without edit or metering there is nothing to miss
    let proxy = Proxy::to(upstream.url()).start();
    assert_eq!(proxy.send(post("/v1/responses", "{}")).status(), 200);
    assert!(!proxy.stderr().contains("is forwarded as it is"));
}
