//! docs/contract.md §1.4: when a client goes away, the upstream exchange is closed within a second.

use std::{thread, time::Duration};

use crate::support::{Proxy, Upstream, Wire, get, noise, post};

const LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// The process closes its socket.
    Close,
    /// It ends its direction and still listens.
    HalfClose,
    /// It aborts.
    Reset,
}

const WAYS: [Leaving; 3] = [Leaving::Close, Leaving::HalfClose, Leaving::Reset];

impl Leaving {
    fn leave(self, client: Wire) -> Option<Wire> {
        match self {
            Self::Close => drop(client),
            Self::HalfClose => {
                client.finish();
                return Some(client);
            }
            Self::Reset => client.reset(),
        }
        None
    }
}

fn setup(replacement: bool) -> (Upstream, Proxy) {
    let upstream = Upstream::bind();
    let mut proxy = Proxy::to(upstream.url());
    if replacement {
        proxy = proxy.env("SYSTEM_PROMPT_REPLACEMENT", "x");
    }
    (upstream, proxy.start())
}

#[track_caller]
fn left_before_the_head(request: &[u8]) {
    let (upstream, proxy) = setup(true);
    for way in WAYS {
        let (client, mut origin) = proxy.exchange(&upstream, request);
        let _left = way.leave(client);
        origin.closed_within(LIMIT);
    }
    upstream.no_more();
}

#[test]
fn a_client_that_leaves_before_the_head_closes_the_upstream() {
    left_before_the_head(get("/").as_bytes());
    left_before_the_head(&post("/v1/files", "{}"));
}

#[test]
fn a_client_that_leaves_a_generation_closes_the_upstream() {
    left_before_the_head(&post(
        "/v1/messages",
        r#"{"system":[{"type":"text","text":"y"}]}"#,
    ));
}

#[test]
fn a_client_that_leaves_inside_a_quiet_stream_closes_the_upstream() {
    let (upstream, proxy) = setup(false);
    for way in WAYS {
        let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", "{}"));
        origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        origin.send_chunk(b"event: ping\n\n");
        client.read_response_head();
        client.read_chunks(13);
        let _left = way.leave(client);
        origin.closed_within(LIMIT);
    }
    upstream.no_more();
}

#[test]
fn a_client_that_leaves_inside_a_busy_stream_closes_the_upstream() {
    let (upstream, proxy) = setup(false);
    for way in [Leaving::Close, Leaving::Reset] {
        let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
        let mut writer = origin.clone_writer();
        let sending = thread::spawn(move || {
            let block = noise(64 * 1024);
            while writer.try_send(&block).is_ok() {}
        });
        client.read_response_head();
        client.read_exact(1_000_000);
        way.leave(client);
        origin.closed_within(LIMIT);
        sending.join().unwrap();
    }
}

#[test]
fn a_client_that_leaves_during_its_upload_closes_the_upstream() {
    let (upstream, proxy) = setup(true);
    for way in WAYS {
        for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
            let mut client = proxy.connect();
            client.send(format!(
                "POST /v1/files HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
            ));
            client.send_chunk(b"first");
            let mut origin = upstream.accept();
            origin.read_request_head();
            origin.read_exact(5);
            let _left = way.leave(client);
            let (octets, _) = origin.closed_within(LIMIT);
            assert!(!octets.ends_with(b"0\r\n\r\n"), "a complete request");
        }
    }
    upstream.no_more();
}

#[test]
fn a_client_that_leaves_during_a_held_upload_never_reaches_the_upstream() {
    let (upstream, proxy) = setup(true);
    for way in WAYS {
        let mut client = proxy.connect();
        client.send("POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"a");
        let _left = way.leave(client);
    }
    while let Some(mut origin) = upstream.accept_soon() {
        origin.closed_within(LIMIT);
        assert!(origin.seen().is_empty(), "a part of a held body");
    }
}

#[test]
fn a_client_that_leaves_a_pipeline_closes_the_upstream() {
    let (upstream, proxy) = setup(false);
    let (client, mut origin) = proxy.exchange(&upstream, get("/1") + &get("/2"));
    drop(client);
    origin.closed_within(LIMIT);
}

#[test]
fn a_client_that_leaves_octets_behind_closes_the_upstream() {
    let (upstream, proxy) = setup(false);
    let mut client = proxy.connect();
    // More than the proxy reads ahead while the first exchange runs, less than the kernel takes.
    client.send(get("/1").into_bytes());
    client.send(post("/2", noise(100_000)));
    let mut origin = upstream.accept();
    origin.read_request();
    drop(client);
    origin.closed_within(LIMIT);
}

#[test]
fn a_client_that_resets_a_held_back_upload_closes_the_upstream() {
    let (upstream, proxy) = setup(false);
    let (mut client, mut origin) = proxy.begin_exchange(
        &upstream,
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
    );
    // Nobody reads any more; when a write does not get through, all buffers on the way are full.
    client
        .socket()
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let block = noise(64 * 1024);
    while client.try_send(&block).is_ok() {}
    client.reset();
    origin.closed_within(LIMIT);
}

#[test]
fn an_unfinished_exchange_never_returns_its_connection_to_the_pool() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/1"));
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    client.read_response_head();
    drop(client);
    origin.closed_within(LIMIT);
    let mut client = proxy.connect();
    client.send(get("/2"));
    assert_eq!(upstream.accept().read_request().0.target(), "/2");
}
