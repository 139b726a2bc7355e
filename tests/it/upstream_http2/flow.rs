//! Flow control, resets and early answers between a client and an HTTP/2 upstream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use super::{
    CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, INTERNAL_ERROR, PING,
    RST_STREAM, Raw, Server, channel, http2, literal, next, send_all,
};
use crate::support::{
    Upstream, assert_aborted, assert_prompt, assert_proxy_error, get, noise, post, relay::Relay,
    wire::assert_octets,
};

#[test]
fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut stays = proxy.connect();
    stays.send(get("/stays"));
    let mut raw = Raw::accept(&upstream, &[]);
    let staying = raw.request();
    raw.send(HEADERS, END_HEADERS, staying, &[0x88]);
    raw.send(DATA, 0, staying, b"one");
    stays.read_response_head();
    assert_eq!(stays.read_chunk(), b"one");
    for has_head in [false, true] {
        let mut leaves = proxy.connect();
        leaves.send(post("/leaves", "{}"));
        let stream = raw.request();
        if has_head {
            raw.send(HEADERS, END_HEADERS, stream, &[0x88]);
            raw.send(DATA, 0, stream, b"x");
            leaves.read_response_head();
        }
        let left = std::time::Instant::now();
        drop(leaves);
        let reset = raw.expect(RST_STREAM);
        assert_prompt(left, Duration::from_secs(1));
        assert_eq!(
            (reset.stream, reset.payload),
            (stream, CANCEL.to_be_bytes().to_vec())
        );
    }
    raw.send(DATA, END_STREAM, staying, b"two");
    assert_eq!(stays.read_chunk(), b"two");
    assert_eq!(stays.read_chunk(), b"");
    upstream.no_more();
}

#[test]
fn a_truncated_answer_is_never_a_clean_end() {
    for way in 0..4 {
        let upstream = Upstream::bind();
        let proxy = http2(upstream.url()).start();
        let mut client = proxy.connect();
        client.send(get("/"));
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.send(HEADERS, END_HEADERS, stream, &[0x88]);
        raw.send(DATA, 0, stream, b"half");
        let head = client.read_response_head();
        assert_eq!(client.read_chunk(), b"half");
        match way {
            0 => raw.reset(stream, INTERNAL_ERROR),
            // RFC 9113 §8.1: only after a complete response
            1 => raw.reset(stream, 0),
            2 => raw.go_away(0),
            _ => drop(raw),
        }
        let body = client.read_chunked();
        assert_aborted(&head, &body, b"");
    }
}

#[test]
fn a_content_that_is_not_as_long_as_it_says_is_no_clean_end() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    let head = [&[0x88][..], &literal("content-length", b"9")].concat();
    raw.send(HEADERS, END_HEADERS, stream, &head);
    raw.send(DATA, END_STREAM, stream, b"short");
    let head = client.read_response_head();
    let body = client.read_response_body("GET", &head);
    assert!(matches!(body, crate::support::Body::Cut(..)), "{body:?}");
}

#[test]
fn an_early_answer_arrives_while_the_upload_runs() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nfirst");
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.expect(DATA);
    let head = [&[0x08, 3][..], b"413"].concat();
    raw.send(HEADERS, END_HEADERS, stream, &head);
    raw.send(DATA, END_STREAM, stream, b"too large");
    // RFC 9113 §8.1: after a complete response this is no error
    raw.reset(stream, 0);
    let response = client.read_response("POST");
    assert_eq!(
        (response.status(), response.content()),
        (413, &b"too large"[..])
    );
}

#[test]
fn a_response_head_that_does_not_come_is_504_and_a_reset() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url())
        .env("UPSTREAM_TIMEOUT", "300ms")
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    let response = client.read_response("GET");
    assert_proxy_error(&response, 504, "timeout_error", "http_response_timeout");
    let reset = raw.expect(RST_STREAM);
    assert_eq!(
        (reset.stream, reset.payload),
        (stream, CANCEL.to_be_bytes().to_vec())
    );
}

#[test]
fn a_connection_that_falls_silent_is_left_and_one_that_speaks_is_not() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url())
        .env("UPSTREAM_TIMEOUT", "300ms")
        .start();
    let late = || {
        let mut client = proxy.connect();
        client.send(get("/late"));
        client
    };
    let mut client = late();
    let mut raw = Raw::accept(&upstream, &[]);
    raw.request();
    // it reads, and says so
    raw.send(PING, 0, 0, &[0; 8]);
    assert_eq!(client.read_response("GET").status(), 504);
    let mut client = late();
    raw.request();
    assert_eq!(client.read_response("GET").status(), 504);
    let mut client = late();
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.ok(stream, b"ok");
    assert_eq!(client.read_response("GET").content(), b"ok");
}

// ---- flow control ----

#[test]
fn a_closed_window_holds_the_client_back() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    let mut raw = Raw::accept(&upstream, &[(INITIAL_WINDOW_SIZE, 10)]);
    let stream = raw.request();
    let socket = client.socket();
    socket
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let block = noise(64 * 1024);
    let mut sent = 0;
    while client.try_send(&block).is_ok() {
        sent += block.len();
        assert!(sent < 50_000_000, "nobody holds the client back");
    }
    assert_eq!(raw.expect(DATA).payload.len(), 10);
    raw.send(8, 0, stream, &5_u32.to_be_bytes());
    assert_eq!(raw.expect(DATA).payload, block[10..15]);
}

#[test]
fn a_slow_client_holds_back_its_own_stream_only() {
    let (seen, progress) = channel();
    let server = Server::new(move |mut asked| {
        let seen = seen.clone();
        Box::pin(async move {
            if asked.path() == "/slow" {
                let mut body = asked.start(Response::builder(), false);
                let block = Bytes::from(noise(16 * 1024));
                loop {
                    let stalled = tokio::time::timeout(
                        Duration::from_millis(300),
                        send_all(&mut body, block.clone(), false),
                    );
                    if stalled.await.is_err() {
                        let _ = seen.send(());
                        std::future::pending::<()>().await;
                    }
                }
            }
            asked.answer(noise(500_000));
        })
    });
    let proxy = server.proxy().start();
    let mut slow: Vec<_> = (0..4).map(|_| proxy.connect()).collect();
    for client in &mut slow {
        client.send(get("/slow"));
    }
    slow.iter().for_each(|_| next(&progress));
    for _ in 0..3 {
        let response = proxy.send(get("/fast"));
        assert_octets(response.content(), noise(500_000), "the content");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_download_over_a_long_way_takes_few_round_trips() {
    const ROUND_TRIP: Duration = Duration::from_millis(150);
    // 64 windows of 64 KiB, each of which takes a round trip
    let content = noise(64 * 64 * 1024);
    let sent = Bytes::from(content.clone());
    let server = Server::new(move |mut asked| {
        let sent = sent.clone();
        Box::pin(async move {
            asked.answer(sent);
        })
    });
    let way = Relay::to(server.addr, ROUND_TRIP);
    let proxy = http2(format!("http://{}", way.addr())).start();
    let start = Instant::now();
    let response = proxy.send(get("/"));
    let trips = start.elapsed().div_duration_f64(ROUND_TRIP);
    assert_octets(response.content(), content, "the download");
    assert!(trips < 40.0, "{trips} round trips");
}

/// Time after which a client that reads nothing is given up (`WRITE_TIMEOUT`).
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn slow_clients_after_a_fast_one_hold_back_no_other() {
    let (seen, progress) = channel();
    let content = noise(2 << 20);
    let (fast, slow) = (Bytes::from(content.clone()), Bytes::from(vec![0; 16 << 20]));
    let server = Server::new(move |mut asked| {
        let (seen, fast, slow) = (seen.clone(), fast.clone(), slow.clone());
        Box::pin(async move {
            let mut body = asked.start(Response::builder(), false);
            if asked.path() == "/fast" {
                send_all(&mut body, fast, true).await;
                return;
            }
            let sending = send_all(&mut body, slow, true);
            let _ = tokio::time::timeout(Duration::from_millis(500), sending).await;
            let _ = seen.send(());
            std::future::pending::<()>().await;
        })
    });
    // the windows become smaller while the slow ones are asked for
    let way = Relay::to(server.addr, Duration::from_millis(20));
    let proxy = http2(format!("http://{}", way.addr())).start();
    let fast = || {
        let response = proxy.send(get("/fast"));
        assert_octets(response.content(), &content, "the content");
    };
    fast();
    let mut slow: Vec<_> = (0..16).map(|_| proxy.connect()).collect();
    for client in &mut slow {
        client.send(get("/slow"));
    }
    slow.iter().for_each(|_| next(&progress));
    let start = Instant::now();
    fast();
    let elapsed = start.elapsed();
    assert!(
        elapsed < CLIENT_PATIENCE,
        "the slow ones were given up: {elapsed:?}"
    );
    assert_eq!(server.connections(), 1);
}

// ---- interim responses ----

#[test]
fn a_client_that_waits_for_100_continue_gets_it_from_the_upstream() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    let interim = |status: &[u8]| [&[0x08, 3][..], status].concat();
    raw.send(HEADERS, END_HEADERS, stream, &interim(b"103"));
    raw.send(HEADERS, END_HEADERS, stream, &interim(b"100"));
    assert_eq!(client.read_response_head().status(), 100);
    client.send("abc");
    assert_eq!(raw.expect(DATA).payload, b"abc");
    raw.ok(stream, b"ok");
    assert_eq!(client.read_response("POST").content(), b"ok");
}

#[test]
fn an_upstream_that_says_nothing_does_not_stall_an_expectation() {
    let server = Server::new(|mut asked| {
        Box::pin(async move {
            let (content, _) = asked.content().await;
            asked.answer(content);
        })
    });
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.read_response_head().status(), 100);
    client.send("abc");
    assert_eq!(client.read_response("POST").content(), b"abc");
}

#[test]
fn an_upgrade_in_http_2_is_502() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.send(
        HEADERS,
        END_HEADERS,
        stream,
        &[&[0x08, 3][..], b"101"].concat(),
    );
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "http_upgrade_failed");
}
