//! Connections to an HTTP/2 upstream: made, shared, limited, aged and closed.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Response;

use super::{
    CANCEL, HEADERS, INTERNAL_ERROR, MAX_CONCURRENT_STREAMS, PING, Raw, SETTINGS, Server, channel,
    http2, next,
};
use crate::support::{
    DEADLINE, ProxyBuilder, Upstream, assert_proxy_error, get, noise, post, wire::assert_octets,
};

fn at_once(limit: u32, requests: usize) -> usize {
    let (seen, arrived) = channel();
    let barrier = Arc::new(tokio::sync::Notify::new());
    let release = barrier.clone();
    let server = Server::limited(limit, move |mut asked| {
        let (seen, barrier) = (seen.clone(), barrier.clone());
        Box::pin(async move {
            let released = barrier.notified();
            let _ = seen.send(());
            released.await;
            asked.answer("ok");
        })
    });
    let proxy = server.proxy().start();
    let mut clients: Vec<_> = (0..requests).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    // all of them are at the upstream before any of them is answered
    (0..requests).for_each(|_| next(&arrived));
    release.notify_waiters();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    server.connections()
}

#[test]
fn no_stream_waits_behind_the_limit_of_the_upstream() {
    assert_eq!(at_once(1, 30), 30);
    let connections = at_once(10, 30);
    assert!((3..=6).contains(&connections), "{connections}");
    assert_eq!(at_once(1000, 30), 1);
}

#[test]
fn nothing_is_sent_before_the_settings() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut first = proxy.connect();
    first.send(get("/1"));
    let mut raw = Raw::accept_silent(&upstream);
    let mut second = proxy.connect();
    second.send(get("/2"));
    raw.expect(SETTINGS);
    raw.stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while let Some(got) = raw.read() {
        assert_ne!(got.kind, HEADERS, "a request before the settings");
    }
    raw.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    raw.settings(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let stream = raw.request();
    let mut other = Raw::accept(&upstream, &[(MAX_CONCURRENT_STREAMS, 1)]);
    let on_other = other.request();
    raw.ok(stream, b"a");
    other.ok(on_other, b"b");
    let mut answers = [first.read_response("GET"), second.read_response("GET")]
        .map(|response| response.content().to_vec());
    answers.sort();
    assert_eq!(answers, [b"a", b"b"]);
    upstream.no_more();
}

#[test]
fn an_upstream_that_allows_no_stream_is_an_error_in_time() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url())
        .env("UPSTREAM_CONNECT_TIMEOUT", "300ms")
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let _raw = Raw::accept(&upstream, &[(MAX_CONCURRENT_STREAMS, 0)]);
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "connection_failed");
    let mut client = proxy.connect();
    client.send(get("/"));
    let _silent = Raw::accept_silent(&upstream);
    let response = client.read_response("GET");
    assert_proxy_error(&response, 504, "timeout_error", "connection_timeout");
}

#[test]
fn a_limit_that_is_lowered_is_kept() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/1"));
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.settings(&[(MAX_CONCURRENT_STREAMS, 0)]);
    raw.send(PING, 0, 0, &[7; 8]);
    raw.expect(PING);
    let mut other = proxy.connect();
    other.send(get("/2"));
    let mut second = Raw::accept(&upstream, &[]);
    let on_second = second.request();
    second.ok(on_second, b"b");
    assert_eq!(other.read_response("GET").content(), b"b");
    raw.ok(stream, b"a");
    assert_eq!(client.read_response("GET").content(), b"a");
}

#[test]
fn one_connection_serves_requests_in_turn() {
    let server = Server::new(|mut asked| Box::pin(async move { asked.answer("ok") }));
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    for _ in 0..200 {
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_time_for_a_connection_is_told_of_the_request_that_made_it() {
    let server = Server::new(|mut asked| Box::pin(async move { asked.answer("ok") }));
    let proxy = server
        .proxy()
        .env("WORKERS", 1)
        .env("ACCESS_LOG", "access.log")
        .start();
    for _ in 0..2 {
        assert_eq!(proxy.send(get("/")).status(), 200);
    }
    let end = std::time::Instant::now() + DEADLINE;
    let log = loop {
        let log = std::fs::read_to_string(proxy.path("access.log")).unwrap_or_default();
        if log.lines().count() == 2 && log.ends_with('\n') {
            break log;
        }
        assert!(std::time::Instant::now() < end, "{log}");
        thread::sleep(Duration::from_millis(10));
    };
    let has: Vec<_> = log
        .lines()
        .map(|line| {
            (
                line.contains("connecting_ms"),
                line.contains("connected_ms"),
            )
        })
        .collect();
    assert_eq!(has, [(true, true), (false, true)], "{log}");
}

#[test]
fn idle_connections_are_closed() {
    let server = Server::new(|mut asked| Box::pin(async move { asked.answer("ok") }));
    let proxy = server.proxy().env("UPSTREAM_KEEP_ALIVE", "300ms").start();
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    server.wait_for_open(1);
    server.wait_for_open(0);
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_connection_that_the_upstream_closed_is_not_used() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    for _ in 0..10 {
        let mut client = proxy.connect();
        client.send(post("/", "{}"));
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.ok(stream, b"ok");
        assert_eq!(client.read_response("POST").content(), b"ok");
        // it is closed without a GOAWAY
        drop(raw);
        wait_for_close(&upstream);
    }
    upstream.no_more();
}

/// Waits until the kernel knows of no open connection to the upstream: on a busy machine the packet that
/// says so may be delivered later than the next request.
fn wait_for_close(upstream: &Upstream) {
    let remote = format!("0100007F:{:04X}", upstream.addr().port());
    let end = Instant::now() + DEADLINE;
    // 01: established
    while std::fs::read_to_string("/proc/net/tcp").is_ok_and(|table| {
        table.lines().any(|line| {
            let mut columns = line.split_whitespace().skip(2);
            columns.next() == Some(&remote) && columns.next() == Some("01")
        })
    }) {
        assert!(Instant::now() < end, "the connection stays open");
        thread::yield_now();
    }
}

#[test]
fn a_get_whose_connection_is_lost_is_sent_again_once() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).env("WORKERS", 1).start();
    for (request, is_repeatable) in [(get("/x").into_bytes(), true), (post("/x", "{}"), false)] {
        let mut client = proxy.connect();
        client.send(get("/1"));
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.ok(stream, b"ok");
        assert_eq!(client.read_response("GET").content(), b"ok");
        client.send(&request);
        raw.request();
        // it is closed without a GOAWAY
        drop(raw);
        if is_repeatable {
            let mut raw = Raw::accept(&upstream, &[]);
            raw.request();
            drop(raw);
        }
        let response = client.read_response("GET");
        assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    }
    upstream.no_more();
}

#[test]
fn a_connection_that_is_old_drains() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let server = Server::new(move |mut asked| {
        let wait = wait.lock().unwrap().take();
        Box::pin(async move {
            let mut body = asked.start(Response::builder(), false);
            let _ = body.send_data("a".into(), false);
            if let Some(wait) = wait {
                let _ = wait.await;
            }
            let _ = body.send_data("b".into(), true);
        })
    });
    let age = Duration::from_millis(300);
    let proxy = server
        .proxy()
        .env("WORKERS", 1)
        .env("UPSTREAM_MAX_AGE", "300ms")
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    client.read_response_head();
    assert_eq!(client.read_chunk(), b"a");
    // busy all the time, and yet not for ever the same
    let begun = std::time::Instant::now();
    while begun.elapsed() < age {
        assert_eq!(proxy.send(get("/")).content(), b"ab");
    }
    assert_eq!(proxy.send(get("/")).content(), b"ab");
    assert!(server.connections() >= 2);
    // what runs on the first runs on
    go.send(()).unwrap();
    assert_eq!(client.read_chunk(), b"b");
    assert_eq!(client.read_chunk(), b"");
    // and in the end all of them are closed
    server.wait_for_open(0);
}

#[test]
fn an_overloaded_error_as_the_first_event_moves_a_request_on() {
    let overloaded =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    let first = Server::new(move |mut asked| {
        Box::pin(async move {
            asked.content().await;
            let head = Response::builder().header("content-type", "text/event-stream");
            let mut body = asked.start(head, false);
            for octets in overloaded.as_bytes().chunks(20) {
                let _ = body.send_data(Bytes::from_static(octets), false);
            }
            let _ = body.send_data(Bytes::new(), true);
        })
    });
    let second = Server::new(|mut asked| {
        Box::pin(async move {
            let content = asked.content().await.0;
            asked.answer(content);
        })
    });
    let proxy = http2(first.url())
        .env("API_BASE_URLS", second.url())
        .start();
    let content = noise(50_000);
    assert_octets(
        proxy.send(post("/v1/messages", &content)).content(),
        &content,
        "the content",
    );
    assert_eq!(first.connections(), 1);
}

#[test]
fn a_left_lane_drains() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let (seen, arrived) = channel();
    let server = Server::new(move |mut asked| {
        let wait = wait.lock().unwrap().take();
        let _ = seen.send(());
        Box::pin(async move {
            let mut body = asked.start(Response::builder(), false);
            let _ = body.send_data("a".into(), false);
            if let Some(wait) = wait {
                let _ = wait.await;
            }
            let _ = body.send_data("b".into(), true);
        })
    });
    let other = Server::new(|mut asked| Box::pin(async move { asked.answer("other") }));
    let variables =
        |url: String| format!("API_BASE_URL={url}\nUPSTREAM_HTTP_VERSION=2\nWORKERS=1\n");
    let proxy = ProxyBuilder::new()
        .file("env/.env", variables(server.url()))
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    next(&arrived);
    client.read_response_head();
    assert_eq!(client.read_chunk(), b"a");
    proxy.write("env/.env", variables(other.url()));
    let end = std::time::Instant::now() + DEADLINE;
    while proxy.send(get("/")).content() != b"other" {
        assert!(std::time::Instant::now() < end);
    }
    go.send(()).unwrap();
    assert_eq!(client.read_chunk(), b"b");
    assert_eq!(client.read_chunk(), b"");
    server.wait_for_open(0);
}

#[test]
fn failures_do_not_leak_connections() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let sockets = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap();
        descriptors.count()
    };
    // a worker that answers has opened what it needs
    assert_eq!(proxy.send(get("/health")).status(), 200);
    let before = sockets();
    // what was dropped here is closed there, too, so that the next request has a connection of its own
    let closed = || {
        let end = std::time::Instant::now() + DEADLINE;
        while sockets() > before {
            assert!(std::time::Instant::now() < end, "{} > {before}", sockets());
            thread::sleep(Duration::from_millis(5));
        }
    };
    for reason in [INTERNAL_ERROR, CANCEL] {
        for _ in 0..5 {
            let mut client = proxy.connect();
            client.send(post("/", "{}"));
            let mut raw = Raw::accept(&upstream, &[]);
            let stream = raw.request();
            raw.reset(stream, reason);
            let response = client.read_response("POST");
            assert_proxy_error(&response, 502, "api_error", "connection_terminated");
            drop((client, raw));
            closed();
        }
    }
}
