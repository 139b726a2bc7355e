//! TLS towards the client: handshakes, ends, and the certificate that changes under way.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::support::{
    Body, DEADLINE, End, Proxy, ProxyBuilder, Upstream, Wire, assert_aborted, assert_prompt,
    assert_proxy_error, get, noise, post,
    tls::{self, CERT, KEY, Pair, TlsWire},
    upstream::OK,
    wire::{assert_octets, show},
};

const SOON: Duration = Duration::from_secs(3);
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn setup() -> (Pair, Upstream, Proxy) {
    let (pair, upstream) = (Pair::new(), Upstream::bind());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    (pair, upstream, proxy)
}

/// A stream that runs: its client and its upstream.
#[track_caller]
fn stream(mut client: TlsWire, upstream: &Upstream) -> (TlsWire, Wire) {
    client.send(post("/v1/messages", "{}"));
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send(STREAM);
    origin.send_chunk(b"one");
    assert_eq!(client.read_response_head().status(), 200);
    assert_eq!(client.read_chunks(3), b"one");
    (client, origin)
}

#[track_caller]
fn finish(mut client: TlsWire, mut origin: Wire) {
    origin.send_chunk(b"two");
    origin.send_chunk(b"");
    assert_eq!(client.read_chunked(), Body::Chunked(b"two".to_vec()));
}

/// A connection that never comes to the end of its handshake.
fn half_a_handshake(addr: SocketAddr) -> Wire {
    let mut client = Wire::tcp(TcpStream::connect(addr).unwrap());
    // the head of a record of 512 octets, and the first of a ClientHello
    client.send(b"\x16\x03\x01\x02\x00\x01\x00");
    client
}

#[track_caller]
fn eventually(what: &str, wanted: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !wanted() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn tls_1_2_and_1_3_carry_exchanges_and_are_kept_alive() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    assert!(!proxy.has_clear_text());
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut client = tls::connect(pair.client(&[version]), proxy.tls_addr()).unwrap();
        assert_eq!(client.stream().conn.protocol_version(), Some(expected));
        let protocol = client.stream().conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));
        for target in ["/1", "/2"] {
            client.send(get(target));
            assert_eq!(client.read_response("GET").content(), b"ok");
            let (head, _) = upstream.request();
            assert_eq!(head.target(), target);
            assert_eq!(head.one("x-forwarded-proto"), Some("https"));
            assert_eq!(head.one("x-forwarded-for"), Some("127.0.0.1"));
        }
        client.send("GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(client.read_response("GET").content(), b"ok");
        // with close_notify: without it, it would be an error
        assert_eq!(client.read_to_end(), (Vec::new(), End::Fin));
        upstream.request();
    }
}

#[test]
fn an_idle_connection_ends_with_close_notify() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair
        .served(Proxy::to(upstream.url()).env("KEEP_ALIVE", "200ms"))
        .start();
    let mut client = pair.connect(proxy.tls_addr());
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    assert_eq!(client.read_to_end(), (Vec::new(), End::Fin));
}

#[test]
fn tls_port_stands_beside_port() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair
        .served(Proxy::to(upstream.url()).env("TLS_PORT", 0))
        .start();
    assert_ne!(proxy.addr(), proxy.tls_addr());
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-forwarded-proto"), Some("http"));
    let mut client = pair.connect(proxy.tls_addr());
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_busy_tls_port_is_named() {
    let pair = Pair::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ended = pair.served(ProxyBuilder::new().env("TLS_PORT", port)).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains(&format!("TLS_PORT: 127.0.0.1:{port}")),
        "{ended:?}"
    );
}

#[test]
fn the_wrong_protocol_on_a_port_ends_quickly() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair
        .served(Proxy::to(upstream.url()).env("TLS_PORT", 0))
        .start();
    let mut clear = Wire::tcp(TcpStream::connect(proxy.tls_addr()).unwrap());
    clear.send(get("/"));
    let (octets, _) = clear.closed_within(SOON);
    // a fatal alert (RFC 8446 §6)
    assert!(octets.starts_with(b"\x15\x03"), "{}", show(&octets));
    assert!(pair.try_connect(proxy.addr()).is_err());
    upstream.no_more();
    assert_eq!(proxy.send(get("/")).content(), b"ok");
}

#[test]
fn a_stalled_handshake_is_closed_and_disturbs_nobody() {
    let (pair, upstream) = (Pair::new(), Upstream::bind());
    let proxy = pair
        .served(Proxy::to(upstream.url()).env("REQUEST_HEAD_TIMEOUT", "500ms"))
        .start();
    let running = stream(pair.connect(proxy.tls_addr()), &upstream);
    let mut silent = Wire::tcp(TcpStream::connect(proxy.tls_addr()).unwrap());
    let mut half = half_a_handshake(proxy.tls_addr());
    let during = stream(pair.connect(proxy.tls_addr()), &upstream);
    assert_eq!(show(&silent.closed_within(SOON).0), "");
    half.closed_within(SOON);
    finish(running.0, running.1);
    finish(during.0, during.1);
}

#[test]
fn a_silent_client_is_told_408_under_tls() {
    let (pair, upstream) = (Pair::new(), Upstream::bind());
    let proxy = pair
        .served(Proxy::to(upstream.url()).env("REQUEST_HEAD_TIMEOUT", "300ms"))
        .start();
    let mut client = pair.connect(proxy.tls_addr());
    let response = client.read_response("GET");
    assert_proxy_error(&response, 408, "timeout_error", "request_head_timeout");
    assert_eq!(client.read_to_end(), (Vec::new(), End::Fin));
}

#[test]
fn handshakes_have_seats_and_the_newest_few_are_made_beyond_the_limit() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair
        .served(Proxy::to(upstream.url()))
        .env("MAX_CONNECTIONS", 2)
        .env("WORKERS", 1)
        .env("REQUEST_HEAD_TIMEOUT", "60s")
        .start();
    let addr = proxy.tls_addr();
    let seated = [half_a_handshake(addr), half_a_handshake(addr)];
    let ask = |target: &str| {
        let mut client = pair.try_connect(addr).ok()?;
        client.send(get(target));
        Some(client.read_response("GET"))
    };
    let refused = ask("/").unwrap();
    assert_proxy_error(&refused, 503, "overloaded_error", "too_many_connections");
    assert_eq!(ask("/health").unwrap().status(), 200);
    // a newcomer takes the permit of the oldest: what is silent keeps no health check out
    let mut flood: Vec<Wire> = (0..200).map(|_| half_a_handshake(addr)).collect();
    assert_eq!(ask("/health").unwrap().status(), 200);
    for oldest in &mut flood[..100] {
        oldest.read_to_end();
    }
    assert_eq!(ask("/health").unwrap().status(), 200);
    drop(flood);
    upstream.no_more();
    drop(seated);
    eventually("a seat", || {
        ask("/").is_some_and(|response| response.status() == 200)
    });
}

#[test]
fn a_drain_waits_for_a_handshake_and_its_first_request() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let addr = proxy.tls_addr();
    let silent = std::net::TcpStream::connect(addr).unwrap();
    let mut half = half_a_handshake(addr);
    // connections are accepted in their order: once this one is served, those two are
    let mut served = pair.connect(addr);
    served.send(get("/health"));
    assert_eq!(served.read_response("GET").status(), 200);
    drop(served);
    proxy.signal("TERM");
    proxy.wait_for_line(|line| line.contains("draining"));
    let mut client = pair.shake_hands(silent);
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    half.read_to_end();
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn the_drain_ends_handshakes_and_idle_connections_and_lets_streams_end() {
    let (pair, upstream, proxy) = setup();
    let mut half = half_a_handshake(proxy.tls_addr());
    let mut idle = pair.connect(proxy.tls_addr());
    idle.send(get("/health"));
    assert_eq!(idle.read_response("GET").status(), 200);
    let (client, origin) = stream(pair.connect(proxy.tls_addr()), &upstream);
    proxy.signal("TERM");
    half.closed_within(SOON);
    assert_eq!(idle.read_to_end(), (Vec::new(), End::Fin));
    finish(client, origin);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_drain_waits_for_no_handshake() {
    let (_pair, _upstream, proxy) = setup();
    let mut half = half_a_handshake(proxy.tls_addr());
    let start = Instant::now();
    proxy.signal("TERM");
    half.closed_within(SOON);
    assert_eq!(proxy.wait().code, Some(0));
    assert_prompt(start, SOON);
}

#[test]
fn large_content_passes_both_ways_and_is_identical() {
    let (pair, upstream, proxy) = setup();
    let content = noise(5_000_000);
    let mut client = pair.connect(proxy.tls_addr());
    let request = post("/v1/files", &content);
    let sending = thread::spawn(move || {
        client.send(request);
        client
    });
    let mut origin = upstream.accept();
    let (_, body) = origin.read_request();
    assert_octets(body.content(), &content, "the upload");
    let mut client = sending.join().unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    let reading = thread::spawn(move || (client.read_response("POST"), client));
    origin.send(answer);
    origin.send(&content);
    let (response, mut client) = reading.join().unwrap();
    assert_octets(response.content(), &content, "the download");
    // chunks that fit nothing
    client.send(get("/2"));
    origin.read_request();
    let reading = thread::spawn(move || client.read_response("GET"));
    origin.send(STREAM);
    for piece in content.chunks(50_001) {
        origin.send_chunk(piece);
    }
    origin.send_chunk(b"");
    assert_octets(reading.join().unwrap().content(), &content, "the chunks");
}

#[test]
fn an_upload_in_small_records_arrives_as_it_is_sent() {
    let (pair, upstream, proxy) = setup();
    let mut client = pair.connect(proxy.tls_addr());
    client.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n");
    let mut origin = upstream.accept();
    origin.read_request_head();
    for piece in noise(300).chunks(100) {
        client.send(piece);
        assert_eq!(origin.read_exact(100), piece);
    }
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
}

#[test]
fn pipelined_requests_in_one_record_are_all_answered() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let mut client = pair.connect(proxy.tls_addr());
    client.send(get("/1") + &get("/2") + &get("/3"));
    for _ in 0..3 {
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    // more than one record, and more than is read ahead
    let long = format!(
        "GET /4 HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "y".repeat(40_000)
    );
    client.send(long + &get("/5"));
    for _ in 0..2 {
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
}

#[test]
fn head_and_content_are_one_record() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let mut client = pair.connect(proxy.tls_addr());
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    client.send(get("/"));
    let stream = client.stream();
    let (mut raw, mut plain) = (Vec::new(), Vec::new());
    while !plain.ends_with(b"\r\n\r\nok") {
        let mut octets = [0; 4096];
        let count = stream.sock.read(&mut octets).unwrap();
        assert_ne!(count, 0, "{}", show(&plain));
        raw.extend_from_slice(&octets[..count]);
        let mut rest = &octets[..count];
        while !rest.is_empty() {
            stream.conn.read_tls(&mut rest).unwrap();
            stream.conn.process_new_packets().unwrap();
        }
        let _ = stream.conn.reader().read_to_end(&mut plain);
    }
    let (mut records, mut at) = (0, 0);
    while at < raw.len() {
        at += 5 + usize::from(u16::from_be_bytes([raw[at + 3], raw[at + 4]]));
        records += 1;
    }
    assert_eq!((records, at), (1, raw.len()));
}

#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// With close_notify.
    Close,
    /// Without.
    Drop,
    Reset,
}

impl Leaving {
    fn leave(self, client: TlsWire) {
        match self {
            Self::Close => client.close(),
            Self::Drop => drop(client),
            Self::Reset => client.reset(),
        }
    }
}

const WAYS: [Leaving; 3] = [Leaving::Close, Leaving::Drop, Leaving::Reset];

#[test]
fn a_client_that_leaves_closes_the_upstream() {
    let (pair, upstream, proxy) = setup();
    for way in WAYS {
        let mut client = pair.connect(proxy.tls_addr());
        client.send(post("/v1/messages", "{}"));
        let mut origin = upstream.accept();
        origin.read_request();
        way.leave(client);
        origin.closed_within(Duration::from_secs(1));

        let (client, mut origin) = stream(pair.connect(proxy.tls_addr()), &upstream);
        way.leave(client);
        origin.closed_within(Duration::from_secs(1));

        let mut client = pair.connect(proxy.tls_addr());
        client.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nfirst");
        let mut origin = upstream.accept();
        origin.read_request_head();
        origin.read_exact(5);
        way.leave(client);
        origin.closed_within(Duration::from_secs(1));
    }
    upstream.no_more();
}

#[test]
fn a_close_notify_alone_is_leaving() {
    let (pair, upstream, proxy) = setup();
    let (mut client, mut origin) = stream(pair.connect(proxy.tls_addr()), &upstream);
    let stream = client.stream();
    stream.conn.send_close_notify();
    stream.conn.write_tls(&mut stream.sock).unwrap();
    origin.closed_within(Duration::from_secs(1));
}

#[test]
fn a_client_that_stops_reading_ends_after_the_write_timeout() {
    let (pair, upstream) = (Pair::new(), Upstream::bind());
    let proxy = pair
        .served(Proxy::to(upstream.url()).env("WRITE_TIMEOUT", "500ms"))
        .start();
    let mut client = pair.connect(proxy.tls_addr());
    client.send(get("/"));
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
    let mut writer = origin.clone_writer();
    let sending = thread::spawn(move || {
        let block = noise(64 * 1024);
        while writer.try_send(&block).is_ok() {}
    });
    client.read_response_head();
    origin.closed_within(DEADLINE);
    sending.join().unwrap();
}

#[test]
fn a_truncated_answer_is_an_abort() {
    let (pair, upstream, proxy) = setup();
    for (version, head) in [
        ("1.1", "Content-Length: 10\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\n"),
        ("1.0", "Transfer-Encoding: chunked\r\n"),
    ] {
        let mut client = pair.connect(proxy.tls_addr());
        client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
        let mut origin = upstream.accept();
        origin.read_request();
        origin.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n"));
        match head.starts_with('C') {
            true => origin.send("half"),
            false => origin.send_chunk(b"half"),
        }
        let head = client.read_response_head();
        let mut got = match head.has("transfer-encoding") {
            true => client.read_chunks(4),
            false => client.read_exact(4),
        };
        drop(origin);
        let body = client.read_response_body("GET", &head);
        got.extend_from_slice(body.content());
        assert!(
            matches!(body, Body::Cut(_, End::Reset)),
            "{version} {body:?}"
        );
        assert_aborted(&head, &Body::Cut(got, End::Reset), b"half");
    }
}

#[test]
fn a_new_pair_serves_new_connections_and_leaves_the_others_alone() {
    let (one, two) = (Pair::new(), Pair::new());
    let upstream = Upstream::bind();
    let proxy = one.served(Proxy::to(upstream.url())).start();
    let addr = proxy.tls_addr();
    let (client, origin) = stream(one.connect(addr), &upstream);
    // one after the other, as most tools do: in between they do not fit
    proxy.write(CERT, &two.cert);
    proxy.wait_for_line(|line| line.contains("reload refused"));
    one.connect(addr);
    proxy.write(KEY, &two.key);
    eventually("the new certificate", || two.try_connect(addr).is_ok());
    assert!(one.try_connect(addr).is_err());
    finish(client, origin);
    two.connect(addr);
}

#[test]
fn a_bad_pair_leaves_the_last_good_one_in_use() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let mut kept = pair.connect(proxy.tls_addr());
    proxy.write(CERT, "-----BEGIN CERTIFICATE-----\nnonsense\n");
    proxy.wait_for_line(|line| line.contains("reload refused"));
    proxy.wait_for_line(|line| line.contains("TLS_CERT_FILE"));
    for client in [&mut kept, &mut pair.connect(proxy.tls_addr())] {
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
}

#[test]
fn tls_is_not_turned_off_under_way() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let builder = Proxy::to(upstream.url());
    let proxy = builder
        .file(CERT, &pair.cert)
        .file(KEY, &pair.key)
        .file(
            "env/.env",
            format!("TLS_CERT_FILE={CERT}\nTLS_KEY_FILE={KEY}\n"),
        )
        .start();
    proxy.write("env/.env", "METERING=true\n");
    proxy.wait_for_line(|line| line.contains("restart to turn TLS off"));
    let mut client = pair.connect(proxy.tls_addr());
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn a_corrupt_record_ends_the_connection() {
    let (pair, upstream, proxy) = setup();
    let (mut client, mut origin) = stream(pair.connect(proxy.tls_addr()), &upstream);
    let mut record = b"\x17\x03\x03\x00\x20".to_vec();
    record.extend_from_slice(&noise(32));
    client.stream().sock.write_all(&record).unwrap();
    origin.closed_within(Duration::from_secs(1));
}

#[test]
fn a_pair_that_does_not_fit_is_exit_code_2() {
    let (one, two) = (Pair::new(), Pair::new());
    let ended = one.served(ProxyBuilder::new()).file(KEY, &two.key).run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("TLS_KEY_FILE"), "{ended:?}");
}
