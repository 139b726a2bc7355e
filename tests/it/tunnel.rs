//! docs/contract.md §2.9: after a 101 octets pass both ways, each end and each abort reaches the other side,
//! and what is no upgrade stays a request.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Answering, End, Head, Proxy, Upstream, Wire, assert_prompt, assert_proxy_error, get, noise,
    post,
    upstream::OK,
    wire::{assert_octets, show},
};

const LIMIT: Duration = Duration::from_secs(1);

const ASK: &str = "GET /ws?x=%20 HTTP/1.1\r\nHost: proxy.test\r\nConnection: keep-alive, Upgrade\r\n\
     Upgrade: websocket\r\n\r\n";
const AGREED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

fn ask(protocols: &str) -> String {
    format!(
        "GET /t HTTP/1.1\r\nHost: proxy.test\r\nConnection: upgrade\r\nUpgrade: {protocols}\r\n\r\n"
    )
}

/// A proxy before a scripted upstream, and a tunnel through it.
struct Tunnel {
    proxy: Proxy,
    client: Wire,
    origin: Wire,
}

fn tunnel(variables: &[(&str, &str)]) -> Tunnel {
    let upstream = Upstream::bind();
    let mut proxy = Proxy::to(upstream.url());
    for (name, value) in variables {
        proxy = proxy.env(name, value);
    }
    let proxy = proxy.start();
    let (client, origin) = open(&proxy, &upstream);
    Tunnel {
        proxy,
        client,
        origin,
    }
}

#[track_caller]
fn open(proxy: &Proxy, upstream: &Upstream) -> (Wire, Wire) {
    let (mut client, mut origin) = proxy.begin_exchange(upstream, ASK);
    origin.send(AGREED);
    assert_eq!(client.read_response_head().status(), 101);
    (client, origin)
}

#[track_caller]
fn record(proxy: &Proxy) -> String {
    proxy.wait_for_line(|line| line.contains("status=101"))
}

/// Sends in pieces of ever other sizes.
fn send_in_pieces(mut wire: Wire, octets: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (mut at, mut size) = (0, 1);
        while at < octets.len() {
            let end = (at + size).min(octets.len());
            wire.send(&octets[at..end]);
            at = end;
            size = (size * 7 + 3) % 70_001 + 1;
        }
    })
}

#[test]
fn octets_pass_both_ways_at_once_as_they_are() {
    let Tunnel {
        proxy,
        mut client,
        mut origin,
    } = tunnel(&[]);
    let (up, down) = (noise(5_000_000), noise(5_000_001));
    let senders = [
        send_in_pieces(client.clone_writer(), up.clone()),
        send_in_pieces(origin.clone_writer(), down.clone()),
    ];
    let receiver = thread::spawn(move || (client.read_exact(5_000_001), client));
    assert_octets(origin.read_exact(5_000_000), &up, "to the upstream");
    let (received, client) = receiver.join().unwrap();
    assert_octets(received, &down, "to the client");
    for sender in senders {
        sender.join().unwrap();
    }
    client.finish();
    origin.closed_within(LIMIT);
    drop(origin);
    let record = record(&proxy);
    assert!(
        record.contains("GET /ws status=101 in=5000000 out=5000001")
            && record.contains("ended=complete"),
        "{record}"
    );
}

#[test]
fn a_piece_that_arrives_is_a_piece_that_leaves() {
    let Tunnel {
        proxy: _proxy,
        mut client,
        mut origin,
    } = tunnel(&[]);
    for turn in 0..200_u8 {
        client.send([turn]);
        assert_eq!(origin.read_exact(1), [turn]);
        origin.send([turn, turn]);
        assert_eq!(client.read_exact(2), [turn, turn]);
    }
}

#[test]
fn octets_that_come_with_either_head_are_not_lost() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    for more in [1, 100_000] {
        let (mut client, mut origin) =
            proxy.begin_exchange(&upstream, [ASK.as_bytes(), &noise(more)].concat());
        // not before the upstream agrees: it would take them for a request
        origin.quiet();
        origin.send([AGREED.as_bytes(), &noise(more + 1)].concat());
        assert_octets(origin.read_exact(more), noise(more), "client");
        client.read_response_head();
        assert_octets(client.read_exact(more + 1), noise(more + 1), "upstream");
    }
}

#[test]
fn the_fields_of_a_handshake_pass() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("HEADERS_FILE", "h.json")
        .file("h.json", r#"{"x-ours": "1"}"#)
        .start();
    let mut client = proxy.connect();
    client.send(
        "GET /chat HTTP/1.1\r\nHost: proxy.test\r\nUpgrade: WebSocket\r\nConnection: Upgrade, X-Hop\r\n\
         X-Hop: 1\r\nTE: trailers\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: a; b=\"1\"\r\n\
         sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://x\r\n\r\n",
    );
    let mut origin = upstream.accept();
    let head = origin.read_request_head();
    let octets = show(&head.octets);
    let passed = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\
         Sec-WebSocket-Protocol: chat, superchat\\r\\nSec-WebSocket-Extensions: a; b=\"1\"\\r\\n\
         sec-websocket-extensions: permessage-deflate; client_max_window_bits\\r\\nOrigin: http://x\\r\\n";
    assert!(octets.contains(passed), "{octets}");
    assert_eq!(head.one("upgrade"), Some("WebSocket"));
    assert_eq!(head.one("connection"), Some("upgrade"));
    assert_eq!(head.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.one("x-ours"), Some("1"));
    for gone in ["x-hop", "te", "content-length", "transfer-encoding"] {
        assert!(!head.has(gone), "{octets}");
    }
    origin.send(
        "HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: websocket\r\nConnection: Upgrade, X-Hop\r\n\
         X-Hop: 1\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
         Keep-Alive: 5\r\n\r\n",
    );
    let head = client.read_response_head();
    assert_eq!(
        show(&head.octets),
        "HTTP/1.1 101 Web Socket Protocol Handshake\\r\\nUpgrade: websocket\\r\\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\\r\\nSec-WebSocket-Protocol: chat\\r\\n\
         connection: upgrade\\r\\n\\r\\n"
    );
}

#[test]
fn any_protocol_but_http_is_asked_for() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(ask("h2c, foo/2 ,TLS/1.0,bar"));
    let mut origin = upstream.accept();
    let head = origin.read_request_head();
    assert_eq!(head.one("upgrade"), Some("foo/2, bar"));
    // a server may choose another version of what was asked for
    origin.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: FOO/1\r\n\r\n+");
    assert_eq!(client.read_response_head().one("upgrade"), Some("FOO/1"));
    client.send("-");
    assert_eq!(
        (client.read_exact(1), origin.read_exact(1)),
        (b"+".to_vec(), b"-".to_vec())
    );
}

#[test]
fn a_101_to_what_was_not_asked_for_is_502() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    for answer in [
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: foo, other\r\n\r\n",
        "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 S\r\n\r\n",
    ] {
        let (mut client, mut origin) = proxy.begin_exchange(&upstream, ask("foo, h2c"));
        origin.send(answer);
        let response = client.read_response("GET");
        assert_proxy_error(&response, 502, "api_error", "http_upgrade_failed");
        origin.closed_within(LIMIT);
    }
}

#[test]
fn interim_answers_before_the_101_are_passed_over() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) = proxy.begin_exchange(&upstream, [ASK, "early"].concat());
    origin.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    origin.quiet();
    origin.send(AGREED);
    assert_eq!(client.read_response_head().status(), 101);
    assert_eq!(origin.read_exact(5), b"early");
}

#[test]
fn a_refused_upgrade_is_an_answer_like_any_other() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let mut client = proxy.connect();
    let mut origin = None;
    for (answer, status, content) in [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: x\r\n\r\nno",
            403,
            &b"no"[..],
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            426,
            b"no",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (OK, 200, b"ok"),
    ] {
        // what follows is a request, if it is no tunnel
        client.send(ASK.to_owned() + &get("/next"));
        // and so all of it goes over one connection
        let origin = origin.get_or_insert_with(|| upstream.accept());
        assert_eq!(origin.read_request_head().one("upgrade"), Some("websocket"));
        origin.quiet();
        origin.send(answer);
        let response = client.read_response("GET");
        assert_eq!((response.status(), response.content()), (status, content));
        assert_eq!(response.head.has("upgrade"), status == 426);
        assert_eq!(origin.read_request_head().target(), "/next");
        origin.send(OK);
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    upstream.no_more();
}

#[test]
fn half_an_upgrade_is_dropped_and_the_request_goes_on() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for (fields, body) in [
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: h2c\r\n", ""),
        ("Upgrade: websocket\r\nConnection: keep-alive\r\n", ""),
        ("Upgrade: x\r\nContent-Length: 2\r\n", "{}"),
        (
            "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n",
            "{}",
        ),
        (
            "Upgrade: websocket\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
        ),
    ] {
        let mut client = proxy.connect();
        for _ in 0..2 {
            client.send(format!("POST /x HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}"));
            assert_eq!(client.read_response("POST").content(), b"ok", "{fields}");
            let (head, content) = upstream.request();
            for gone in ["upgrade", "connection"] {
                assert!(!head.has(gone), "{}", show(&head.octets));
            }
            let expected: &[u8] = if body.is_empty() { b"" } else { b"{}" };
            assert_eq!(content.content(), expected, "{fields}");
        }
    }
    upstream.no_more();
}

#[track_caller]
fn plain(upstream: &Answering, proxy: &Proxy, request: impl AsRef<[u8]>) -> Head {
    let response = proxy.send(request);
    assert_eq!((response.status(), response.content()), (200, &b"ok"[..]));
    let (head, _) = upstream.request();
    for gone in ["upgrade", "http2-settings", "connection"] {
        assert!(!head.has(gone), "{}", show(&head.octets));
    }
    head
}

#[test]
fn an_offer_of_h2c_is_answered_without() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let offer =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    for request in [
        format!("GET /x HTTP/1.1\r\nHost: x\r\n{offer}\r\n"),
        // as curl and Java do
        format!("POST /x HTTP/1.1\r\nHost: x\r\n{offer}Content-Length: 2\r\n\r\n{{}}"),
        // in whatever way it is spelled, or hidden among others
        format!("GET /x HTTP/1.1\r\nHost: x\r\n{}\r\n", offer.replace("h2c", "H2C")),
        format!("GET /x HTTP/1.1\r\nHost: x\r\n{}\r\n", offer.replace("h2c", "HTTP/2.0")),
        format!("GET /x HTTP/1.1\r\nHost: x\r\n{}\r\n", offer.replace("h2c", "tls/1.0,h2c-16")),
        format!("GET /x HTTP/1.1\r\nHost: x\r\n{}\r\n", offer.replace("h2c", "h2c /1,, h2c x")),
        format!("GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: TLS/1.3\r\n{offer}Upgrade: h2\r\n\r\n"),
        // whose settings `Connection` does not name
        "GET /x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n"
            .to_owned(),
        // nothing is offered
        "GET /x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
    ] {
        plain(&upstream, &proxy, request);
    }
}

#[test]
fn an_upgrade_of_http_1_0_is_ignored() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    plain(
        &upstream,
        &proxy,
        "GET /x HTTP/1.0\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    plain(
        &upstream,
        &proxy,
        "POST /x HTTP/1.0\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n{}",
    );
}

#[test]
fn the_clients_end_reaches_the_upstream_and_leaves_the_other_way_open() {
    let Tunnel {
        proxy,
        mut client,
        mut origin,
    } = tunnel(&[]);
    client.send("last");
    client.finish();
    assert_eq!(origin.closed_within(LIMIT), (b"last".to_vec(), End::Fin));
    for _ in 0..3 {
        origin.send("more");
        assert_eq!(client.read_exact(4), b"more");
    }
    origin.send(noise(1_000_000));
    drop(origin);
    let (octets, end) = client.read_to_end();
    assert_octets(octets, noise(1_000_000), "after the client's end");
    assert_eq!(end, End::Fin);
    assert!(record(&proxy).contains("ended=complete"));
}

#[test]
fn the_upstreams_end_reaches_the_client_and_leaves_the_other_way_open() {
    let Tunnel {
        proxy,
        mut client,
        mut origin,
    } = tunnel(&[]);
    origin.send("last");
    origin.finish();
    assert_eq!(client.closed_within(LIMIT), (b"last".to_vec(), End::Fin));
    for _ in 0..3 {
        client.send("more");
        assert_eq!(origin.read_exact(4), b"more");
    }
    client.send(noise(1_000_000));
    drop(client);
    let (octets, end) = origin.read_to_end();
    assert_octets(octets, noise(1_000_000), "after the upstream's end");
    assert_eq!(end, End::Fin);
    assert!(record(&proxy).contains("ended=complete"));
}

#[test]
fn an_abort_reaches_the_other_side() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    // in the quiet, after either side has ended, and while neither reads
    for state in 0..4 {
        for by_client in [true, false] {
            let (mut client, mut origin) = open(&proxy, &upstream);
            let mut full = Vec::new();
            match state {
                0 => {}
                1 => {
                    client.finish();
                    origin.closed_within(LIMIT);
                }
                2 => {
                    origin.finish();
                    client.closed_within(LIMIT);
                }
                _ => full = vec![fill(client.clone_writer()), fill(origin.clone_writer())],
            }
            let (one, mut other) = if by_client {
                (client, origin)
            } else {
                (origin, client)
            };
            one.reset();
            // who ended already sees it at its next word, by then at the latest
            let start = Instant::now();
            if state == 3 {
                let (_, end) = other.closed_within(LIMIT);
                assert_eq!(end, End::Reset);
            } else {
                while other.try_send("x").is_ok() {
                    assert_prompt(start, LIMIT);
                    thread::sleep(Duration::from_millis(20));
                }
            }
            assert_prompt(start, LIMIT);
            drop((other, full));
        }
    }
}

/// Writes until nothing more is taken for a moment; gives the octets that were.
fn fill(mut wire: Wire) -> usize {
    wire.socket()
        .set_write_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    let (block, mut count) = (noise(64 * 1024), 0);
    while wire.try_send(&block).is_ok() {
        count += block.len();
    }
    wire.socket()
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    count
}

fn resident(proxy: &Proxy) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

#[test]
fn a_peer_that_does_not_read_holds_the_other_back_and_not_itself() {
    for by_client in [true, false] {
        let Tunnel {
            proxy,
            client,
            origin,
        } = tunnel(&[]);
        let (mut writer, mut reader) = if by_client {
            (client, origin)
        } else {
            (origin, client)
        };
        let before = resident(&proxy);
        let taken = fill(writer.clone_writer());
        let grown = resident(&proxy).saturating_sub(before);
        assert!(taken < 64 << 20, "{taken} octets were taken");
        assert!(grown < 1 << 20, "{grown} octets are held");
        // the other direction does not wait for it
        for _ in 0..3 {
            reader.send(noise(100_000));
            assert_octets(writer.read_exact(100_000), noise(100_000), "the other way");
        }
        // and nothing is lost; the last block was taken in part
        let block = noise(64 * 1024);
        for _ in 0..taken / block.len() {
            assert_octets(reader.read_exact(block.len()), &block, "held back");
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let Tunnel {
        proxy,
        mut origin,
        client,
        // longer than it takes to see that nothing more is taken, or the reset would be seen there
    } = tunnel(&[("WRITE_TIMEOUT", "1500ms")]);
    fill(origin.clone_writer());
    let (_, end) = origin.closed_within(Duration::from_secs(3));
    assert_eq!(end, End::Reset);
    assert!(record(&proxy).contains("ended=client_gone"));
    drop(client);
}

#[test]
fn silence_both_ways_ends_a_tunnel() {
    let idle = Duration::from_secs(3);
    let Tunnel {
        proxy,
        mut client,
        mut origin,
    } = tunnel(&[("TUNNEL_IDLE_TIMEOUT", "3s")]);
    // any octet puts it off, whoever sends it
    for turn in 0..8 {
        thread::sleep(idle / 6);
        let (from, to) = if turn < 4 {
            (&mut client, &mut origin)
        } else {
            (&mut origin, &mut client)
        };
        from.send("x");
        assert_eq!(to.read_exact(1), b"x");
    }
    let start = Instant::now();
    assert_eq!(client.closed_within(LIMIT), (vec![], End::Reset));
    assert_eq!(origin.closed_within(LIMIT), (vec![], End::Reset));
    assert!(start.elapsed() > idle / 6);
    let record = record(&proxy);
    assert!(
        record.contains("ended=proxy:tunnel_idle_timeout"),
        "{record}"
    );
}

#[test]
fn no_other_timer_ends_a_tunnel() {
    let Tunnel {
        proxy: _proxy,
        mut client,
        mut origin,
    } = tunnel(&[
        ("REQUEST_HEAD_TIMEOUT", "2s"),
        ("REQUEST_BODY_TIMEOUT", "2s"),
        ("STREAM_IDLE_TIMEOUT", "2s"),
        ("UPSTREAM_TIMEOUT", "2s"),
        ("KEEP_ALIVE_TIMEOUT", "2s"),
        ("WRITE_TIMEOUT", "2s"),
    ]);
    thread::sleep(Duration::from_millis(2500));
    client.send("a");
    assert_eq!(origin.read_exact(1), b"a");
    origin.send("b");
    assert_eq!(client.read_exact(1), b"b");
}

#[test]
fn a_drain_lets_tunnels_run_and_then_cuts_them() {
    let Tunnel {
        proxy,
        mut client,
        mut origin,
    } = tunnel(&[("SHUTDOWN_TIMEOUT", "700ms")]);
    proxy.signal("TERM");
    proxy.wait_for_line(|line| line.contains("draining"));
    for _ in 0..3 {
        client.send("a");
        assert_eq!(origin.read_exact(1), b"a");
        origin.send("b");
        assert_eq!(client.read_exact(1), b"b");
    }
    let (_, end) = client.closed_within(Duration::from_secs(3));
    assert_eq!(end, End::Reset);
    assert_eq!(origin.closed_within(LIMIT), (vec![], End::Reset));
    let ended = proxy.wait();
    assert_eq!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("status=101 in=3 out=3"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_tunnel_that_ends_lets_the_drain_end() {
    let Tunnel {
        proxy,
        client,
        origin,
    } = tunnel(&[]);
    proxy.signal("TERM");
    proxy.wait_for_line(|line| line.contains("draining"));
    client.finish();
    drop(origin);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_tunnel_counts_as_in_flight() {
    let upstream = Upstream::answering(|head, _| {
        let answer = if head.has("upgrade") { AGREED } else { OK };
        answer.as_bytes().to_vec()
    });
    let proxy = Proxy::to(upstream.url()).env("MAX_IN_FLIGHT", 1).start();
    let mut client = proxy.connect();
    client.send(ASK);
    assert_eq!(client.read_response_head().status(), 101);
    upstream.request();
    for request in [get("/"), ASK.to_owned()] {
        let response = proxy.send(request);
        assert_proxy_error(&response, 503, "overloaded_error", "too_many_in_flight");
    }
    upstream.no_more();
    client.reset();
    // its line is written a moment before its place is free
    record(&proxy);
    let start = Instant::now();
    while proxy.send(get("/")).status() == 503 {
        assert_prompt(start, LIMIT);
    }
}

#[test]
fn a_client_that_leaves_before_the_101_closes_the_upstream() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    for half in [true, false] {
        let (client, mut origin) = proxy.begin_exchange(&upstream, ASK);
        if half {
            client.finish();
        } else {
            drop(client);
        }
        origin.closed_within(LIMIT);
    }
}

#[test]
fn an_upstream_that_closes_before_its_head_is_502() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, origin) = proxy.begin_exchange(&upstream, ASK);
    drop(origin);
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    // sent once, and not again
    upstream.no_more();
}

#[test]
fn a_tunnel_takes_a_pooled_connection_and_never_gives_it_back() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let (mut client, mut origin) = proxy.begin_exchange(&upstream, get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    client.send(ASK);
    origin.read_request_head();
    origin.send(AGREED);
    assert_eq!(client.read_response_head().status(), 101);
    client.finish();
    origin.closed_within(LIMIT);
    origin.finish();
    client.closed_within(LIMIT);
    let mut client = proxy.connect();
    client.send(get("/2"));
    assert_eq!(upstream.accept().read_request_head().target(), "/2");
}

#[test]
fn an_upgrade_that_was_not_sent_is_sent_over_another_connection() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let (mut client, mut origin) = proxy.begin_exchange(&upstream, get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    drop(origin);
    client.send(ASK.to_owned() + "first");
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.send(AGREED);
    assert_eq!(client.read_response_head().status(), 101);
    assert_eq!(origin.read_exact(5), b"first");
}

#[test]
fn nothing_in_a_tunnel_is_edited() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", "x")
        .start();
    let mut client = proxy.connect();
    client.send(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\
         Connection: upgrade\r\nUpgrade: foo\r\n\r\n",
    );
    let mut origin = upstream.accept();
    let head = origin.read_request_head();
    assert_eq!(head.one("content-length"), Some("0"));
    origin.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n");
    assert_eq!(client.read_response_head().status(), 101);
    let inside = post("/v1/messages", r#"{"system":[{"type":"text","text":"y"}]}"#);
    client.send(&inside);
    assert_octets(origin.read_exact(inside.len()), &inside, "inside");
}
