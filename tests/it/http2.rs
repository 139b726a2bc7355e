//! HTTP/2 from clients (RFC 9113), in clear: what holds for HTTP/1.1 holds here, and what only
//! HTTP/2 makes possible is bounded.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue};

use crate::support::{
    End, Proxy, ProxyBuilder, QUIET, Upstream, contains, get,
    h2::{
        ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED,
        PING, PREFACE, PRIORITY, PRIORITY_FLAG, RST_STREAM, SETTINGS, Settings, WINDOW_UPDATE,
        block, get_block, raw, request,
    },
    noise,
    relay::Relay,
    wire::assert_octets,
};

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

#[test]
fn streams_leave_event_by_event() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let responses = ["/1", "/2"].map(|target| client.get(target));
    let mut origins = [upstream.accept(), upstream.accept()];
    let mut bodies = Vec::new();
    for origin in &mut origins {
        origin.read_request();
        origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    }
    for response in responses {
        bodies.push(client.head(response).into_body());
    }
    for number in 0..20 {
        for origin in &mut origins {
            origin.send_chunk(format!("event: {number}\n\n").as_bytes());
        }
        for body in &mut bodies {
            assert_eq!(client.chunk(body), format!("event: {number}\n\n"));
        }
    }
}

#[test]
fn an_upload_leaves_as_it_comes_and_only_as_it_is_taken() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let (_response, mut stream) = client.send(request("POST", "/"), false);
    let mut origin = upstream.accept();
    origin.read_request_head();
    for part in [&b"one"[..], b"two"] {
        stream
            .send_data(Bytes::copy_from_slice(part), false)
            .unwrap();
        assert_eq!(origin.read_chunk(), part);
    }
    // nobody reads any more: the sockets fill up, then the window of the stream
    let mut sent = 0;
    while sent < 64 << 20 {
        stream.reserve_capacity(1 << 16);
        let capacity = client.wait(async {
            let next = std::future::poll_fn(|cx| stream.poll_capacity(cx));
            tokio::time::timeout(Duration::from_millis(500), next).await
        });
        let Ok(Some(Ok(capacity))) = capacity else {
            break;
        };
        stream.send_data(noise(capacity).into(), false).unwrap();
        sent += capacity;
    }
    assert!(sent < 32 << 20, "{sent} octets are held somewhere");
}

#[test]
fn the_101st_stream_is_refused_and_the_others_go_on() {
    let (upstream, proxy) = setup();
    let mut wire = raw(&proxy);
    for number in 0..102 {
        let stream = 2 * number + 1;
        wire.send_frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_block("/"));
    }
    for stream in [201, 203] {
        let refused = wire.read_until(RST_STREAM);
        assert_eq!(
            (refused.stream, refused.reason()),
            (stream, Reason::REFUSED_STREAM)
        );
    }
    let mut origins: Vec<_> = (0..100).map(|_| upstream.accept()).collect();
    upstream.no_more();
    for origin in &mut origins {
        origin.read_request();
        origin.send("HTTP/1.1 204 No Content\r\n\r\n");
    }
    let mut answered: Vec<_> = (0..100).map(|_| wire.read_until(HEADERS).stream).collect();
    answered.sort_unstable();
    assert_eq!(
        answered,
        (0..100).map(|number| 2 * number + 1).collect::<Vec<_>>()
    );
}

#[test]
fn a_reset_closes_the_upstream() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    // before the head
    let (response, mut stream) = client.send(request("GET", "/"), true);
    let mut origin = upstream.accept();
    origin.read_request();
    stream.send_reset(Reason::CANCEL);
    origin.closed_within(LIMIT);
    drop(response);
    // inside of a quiet stream
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    let mut body = client.head(response).into_body();
    client.chunk(&mut body);
    drop(body);
    origin.closed_within(LIMIT);
    // during an upload
    let (_response, mut stream) = client.send(request("POST", "/"), false);
    stream
        .send_data(Bytes::from_static(b"half"), false)
        .unwrap();
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.read_chunk();
    stream.send_reset(Reason::CANCEL);
    let (octets, _) = origin.closed_within(LIMIT);
    assert!(!contains(&octets, b"0\r\n\r\n"), "a complete request");
}

#[test]
fn a_lost_connection_closes_every_upstream() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let responses = ["/1", "/2", "/3"].map(|target| client.get(target));
    let mut origins: Vec<_> = (0..3).map(|_| upstream.accept()).collect();
    for origin in &mut origins {
        origin.read_request();
    }
    origins[0].send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    client.cut();
    for origin in &mut origins {
        origin.closed_within(LIMIT);
    }
    drop(responses);
}

#[test]
fn a_truncated_answer_is_reset_after_what_there_was() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let response = client.get("/");
        let mut origin = upstream.accept();
        origin.read_request();
        origin.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"));
        drop(origin);
        let answer = client.answer(response);
        assert_eq!(answer.status(), 200);
        assert!(contains(&answer.content, b"hello"), "{answer:?}");
        assert_eq!(answer.end.unwrap_err(), Some(Reason::INTERNAL_ERROR));
    }
}

#[test]
fn an_aborted_answer_keeps_its_head_and_what_there_was_beside_other_streams() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let others: Vec<_> = (0..5).map(|_| client.get("/slow")).collect();
    let origins: Vec<_> = others.iter().map(|_| upstream.accept()).collect();
    for round in 0..10 {
        for content in ["", "hello"] {
            let response = client.get("/cut");
            let mut origin = upstream.accept();
            origin.read_request();
            let mut answer =
                b"HTTP/1.1 200 OK\r\nX-Seen: yes\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            if !content.is_empty() {
                answer.extend(crate::support::wire::chunk(content.as_bytes()));
            }
            origin.send(answer);
            drop(origin);
            let answer = client.answer(response);
            assert_eq!(answer.all("x-seen"), [b"yes"], "{round} {content:?}");
            assert_eq!(answer.content, content.as_bytes());
            assert_eq!(answer.end.unwrap_err(), Some(Reason::INTERNAL_ERROR));
        }
    }
    drop((others, origins));
}

#[test]
fn one_length_is_written_and_it_is_that_of_the_framing() {
    let ten = "a\r\n0123456789\r\n0\r\n\r\n";
    let coded = format!("200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{ten}");
    let late = format!("200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n{ten}");
    let twice = "200 OK\r\nContent-Length: 5\r\nX: y\r\ncontent-length: 5\r\n\r\n";
    let head_coded = "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let nothing = "204 No Content\r\nContent-Length: 5\r\n\r\n";
    let same = "304 Not Modified\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n";
    let zero = "200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
    let twice_hello = twice.to_owned() + "hello";
    let padded = "200 OK\r\nContent-Length: 005\r\n\r\nhello";
    // what comes, and for HTTP/2 and HTTP/1.1: the lengths and the content
    type Lengths<'a> = &'a [&'a str];
    let cases: [(&str, &str, Lengths<'_>, Lengths<'_>, &str); 9] = [
        ("GET", &coded, &[], &[], "0123456789"),
        ("GET", &late, &[], &[], "0123456789"),
        ("GET", &twice_hello, &["5"], &["5"], "hello"),
        ("GET", padded, &["5"], &["5"], "hello"),
        ("GET", zero, &["0"], &["0"], ""),
        ("HEAD", twice, &["5"], &["5"], ""),
        ("HEAD", head_coded, &[], &[], ""),
        ("GET", nothing, &[], &[], ""),
        ("GET", same, &["5"], &["5"], ""),
    ];
    for (method, answer, over_2, over_1, content) in cases {
        let upstream = Upstream::always(format!("HTTP/1.1 {answer}"));
        let proxy = h2c(upstream.url()).start();
        let mut client = Client::connect(&proxy);
        let (response, _) = client.send(request(method, "/"), true);
        let found = client.answer(response);
        let lengths: Vec<_> = over_2.iter().map(|length| length.as_bytes()).collect();
        assert_eq!(found.all("content-length"), lengths, "{method} {answer:?}");
        assert!(found.all("transfer-encoding").is_empty());
        assert_eq!(found.content, content.as_bytes(), "{method} {answer:?}");
        found.end.unwrap();
        let mut wire = proxy.connect();
        wire.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        let found = wire.read_response(method);
        let lengths: Vec<_> = over_1.iter().map(|length| length.as_bytes()).collect();
        assert_eq!(
            found.head.all("content-length"),
            lengths,
            "{method} {answer:?}"
        );
        assert_eq!(found.content(), content.as_bytes());
        if answer == nothing {
            assert!(!found.head.has("transfer-encoding"));
        }
    }
}

#[test]
fn an_upload_over_a_long_way_takes_few_round_trips() {
    const ROUND_TRIP: Duration = Duration::from_millis(150);
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let way = Relay::to(proxy.addr(), ROUND_TRIP);
    let mut client = Client::at(way.addr(), &Settings::new());
    // 64 windows of 64 KiB, each of which takes a round trip
    let content = noise(64 * 64 * 1024);
    let start = Instant::now();
    let response = client.post(request("POST", "/"), &content);
    assert_eq!(client.answer(response).content, b"ok");
    let trips = start.elapsed().div_duration_f64(ROUND_TRIP);
    assert!(trips < 40.0, "{trips} round trips");
    let (_, body) = upstream.request();
    assert_octets(body.content(), content, "the upload");
}

/// A client that fills its windows again and again, and answers a PING when it has filled them several
/// times since: so a window takes less than one round trip.
struct Filling {
    wire: crate::support::Wire,
    /// What a new stream may send.
    initial: i64,
    /// What the stream may send, and the connection.
    windows: (i64, i64),
    /// PINGs that are to be answered, and how often the windows were filled since.
    pings: Vec<(Vec<u8>, usize)>,
}

impl Filling {
    fn new(proxy: &Proxy) -> Self {
        let mut filling = Self {
            wire: raw(proxy),
            initial: 65_535,
            windows: (65_535, 65_535),
            pings: Vec::new(),
        };
        filling.wire.set_deadline(Duration::from_secs(60));
        filling.open(1);
        filling
    }

    fn open(&mut self, stream: u32) {
        let fields = block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "proxy.test"),
            (":path", "/"),
        ]);
        self.wire.send_frame(HEADERS, END_HEADERS, stream, &fields);
    }

    fn fill(&mut self) {
        loop {
            let length = self.windows.0.min(self.windows.1).min(16_384);
            if length <= 0 {
                return;
            }
            self.wire.send_frame(DATA, 0, 1, &vec![0; length as usize]);
            self.windows = (self.windows.0 - length, self.windows.1 - length);
        }
    }

    /// Reads a frame; gives the window that it announces.
    fn read(&mut self) -> Option<i64> {
        let frame = self.wire.read_frame();
        let number = |at: usize| {
            let octets = frame.payload[at..at + 4].try_into().unwrap();
            i64::from(u32::from_be_bytes(octets))
        };
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                self.wire.send_frame(SETTINGS, ACK, 0, &[]);
                let settings = frame.payload.chunks(6).enumerate();
                let at = settings
                    .filter(|(_, setting)| setting[..2] == [0, 4])
                    .map(|(index, _)| 6 * index + 2)
                    .next()?;
                self.windows.0 += number(at) - self.initial;
                self.initial = number(at);
                return Some(self.initial);
            }
            WINDOW_UPDATE if frame.stream == 0 => self.windows.1 += number(0),
            WINDOW_UPDATE => self.windows.0 += number(0),
            PING if frame.flags & ACK == 0 => self.pings.push((frame.payload, 0)),
            SETTINGS | PING => {}
            _ => panic!("{frame:?}"),
        }
        None
    }

    fn answer_pings(&mut self, fills: usize) {
        for (payload, filled) in &mut self.pings {
            *filled += 1;
            if *filled == fills {
                self.wire.send_frame(PING, ACK, 0, payload);
            }
        }
        self.pings.retain(|(_, filled)| *filled < fills);
    }
}

#[test]
fn windows_grow_while_content_is_consumed_and_are_shared_and_given_back() {
    const ORDINARY: i64 = 64 * 1024;
    const MOST_EXTRA: i64 = 4 << 20;
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).start();
    let mut client = Filling::new(&proxy);
    let mut origin = upstream.accept();
    thread::spawn(move || origin.read_to_end());
    let mut largest = 0;
    for _ in 0..10_000 {
        client.fill();
        client.answer_pings(4);
        while client.windows.0.min(client.windows.1) <= 0 {
            largest = client.read().unwrap_or(0).max(largest);
        }
        if largest == ORDINARY + MOST_EXTRA {
            break;
        }
    }
    assert_eq!(largest, ORDINARY + MOST_EXTRA);
    // more streams have less each, so that together they hold no more
    let mut others = Vec::new();
    for stream in [3, 5, 7] {
        client.open(stream);
        others.push(upstream.accept());
    }
    while client.initial > ORDINARY + MOST_EXTRA / 4 {
        client.read();
    }
    // and what is not needed is given back
    client.answer_pings(1);
    while client.initial > ORDINARY {
        client.read();
    }
    assert_eq!(client.initial, ORDINARY);
}

#[test]
fn errors_of_ours_have_their_shape() {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).env("MAX_IN_FLIGHT", 1).start();
    let mut client = Client::connect(&proxy);
    let _running = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    let response = client.get("/2");
    let answer = client.answer(response);
    answer.assert_proxy_error(503, "overloaded_error", "too_many_in_flight");
    assert_eq!(answer.all("retry-after"), [b"1"]);
    drop(origin);
    let response = client.get("/health");
    let answer = client.answer(response);
    assert_eq!(answer.status(), 200);
    assert!(contains(&answer.content, b"healthy"));
    assert_eq!(answer.all("cache-control"), [b"no-store"]);
}

#[test]
fn connections_beyond_the_limit_are_answered() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).env("MAX_CONNECTIONS", 1).start();
    let mut first = Client::connect(&proxy);
    let response = first.get("/");
    assert_eq!(first.answer(response).status(), 200);
    let mut second = Client::connect(&proxy);
    let response = second.get("/");
    let answer = second.answer(response);
    answer.assert_proxy_error(503, "overloaded_error", "too_many_connections");
    let mut third = Client::connect(&proxy);
    let response = third.get("/health");
    assert_eq!(third.answer(response).status(), 200);
}

#[test]
fn the_edit_works() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", "ours")
        .start();
    let mut client = Client::connect(&proxy);
    let content = br#"{"system":[{"type":"text","text":"theirs"}],"x":1.0}"#;
    for with_length in [true, false] {
        let mut request = request("POST", "/v1/messages");
        if with_length {
            request
                .headers_mut()
                .insert("content-length", content.len().into());
        }
        let response = client.post(request, content);
        assert_eq!(client.answer(response).content, b"ok");
        let (_, body) = upstream.request();
        assert_octets(
            body.content(),
            br#"{"system":[{"type":"text","text":"ours"}],"x":1.0}"#,
            "the edit",
        );
    }
}

#[test]
fn floods_end_their_connection_and_no_other() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut other = Client::connect(&proxy);
    for (what, frames) in [
        ("PING", Frame::octets(PING, 0, 0, &[0; 8])),
        ("SETTINGS", Frame::octets(SETTINGS, 0, 0, &[])),
        ("PRIORITY", Frame::octets(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        (
            "WINDOW_UPDATE",
            Frame::octets(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        ("other", Frame::octets(0x42, 0, 0, &[])),
    ] {
        let reason = raw(&proxy).flood(&frames, 200_000);
        assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM), "{what}");
        proxy.wait_for_line(|line| line.contains(what) && line.contains("too many"));
        let response = other.get("/");
        assert_eq!(other.answer(response).content, b"ok", "{what}");
    }
    // a header block without end: h2 counts those
    let mut wire = raw(&proxy);
    wire.send_frame(HEADERS, 0, 1, &get_block("/"));
    let frames = Frame::octets(CONTINUATION, 0, 1, &[]);
    assert_eq!(
        wire.flood(&frames, 200_000),
        Some(Reason::ENHANCE_YOUR_CALM)
    );
    // content without content
    let mut wire = raw(&proxy);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ];
    wire.send_frame(HEADERS, END_HEADERS, 1, &block(&fields));
    let frames = Frame::octets(DATA, 0, 1, &[]);
    assert_eq!(
        wire.flood(&frames, 200_000),
        Some(Reason::ENHANCE_YOUR_CALM)
    );
    let response = other.get("/");
    assert_eq!(other.answer(response).content, b"ok");
}

#[test]
fn resets_that_a_client_provokes_end_its_connection() {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).start();
    let mut wire = raw(&proxy);
    let mut reader = wire.clone_writer();
    let sending = thread::spawn(move || {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
            ("content-length", "1"),
        ];
        let fields = block(&fields);
        for number in 0..1_000_000_u32 {
            let stream = 2 * number + 1;
            let mut frames = Frame::octets(HEADERS, END_HEADERS, stream, &fields);
            // more than was announced (RFC 9113 §8.1.1)
            frames.extend(Frame::octets(DATA, 0, stream, b"more"));
            if wire.try_send(frames).is_err() {
                return;
            }
        }
        panic!("all of it was taken");
    });
    reader.read_to_end();
    sending.join().unwrap();
    proxy.wait_for_line(|line| line.contains("too many HTTP/2 frames"));
    let mut begun = 0;
    while upstream.accept_soon().is_some() {
        begun += 1;
    }
    // as many as a client may reset itself, and those that were under way
    assert!(begun <= 400, "{begun} requests were begun");
}

#[test]
fn rapid_resets_end_their_connection() {
    let (upstream, proxy) = setup();
    let mut wire = raw(&proxy);
    let mut reader = wire.clone_writer();
    let sending = thread::spawn(move || {
        for number in 0..1_000_000_u32 {
            let stream = 2 * number + 1;
            let mut frames =
                Frame::octets(HEADERS, END_HEADERS | END_STREAM, stream, &get_block("/"));
            frames.extend(Frame::octets(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            if wire.try_send(frames).is_err() {
                return false;
            }
        }
        true
    });
    reader.closed_within(Duration::from_secs(5));
    assert!(!sending.join().unwrap(), "all of it was taken");
    proxy.wait_for_line(|line| line.contains("too many HTTP/2 frames"));
    let seen = reader.seen();
    let goaway = Frame::octets(GOAWAY, 0, 0, &[]);
    let at = seen
        .windows(5)
        .rposition(|octets| octets[..2] == goaway[3..5] && octets[2..] == [0; 3]);
    let at = at.expect("a GOAWAY");
    assert_eq!(seen[at + 13], 11, "ENHANCE_YOUR_CALM");
    while let Some(mut origin) = upstream.accept_soon() {
        origin.closed_within(LIMIT);
    }
}

#[test]
fn a_client_that_answers_every_chunk_is_no_flood() {
    let (upstream, proxy) = setup();
    let mut wire = raw(&proxy);
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_block("/"));
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..2000 {
        origin.send_chunk(b"event\n\n");
        wire.read_until(DATA);
        let mut answers = Frame::octets(WINDOW_UPDATE, 0, 0, &7_u32.to_be_bytes());
        answers.extend(Frame::octets(WINDOW_UPDATE, 0, 1, &7_u32.to_be_bytes()));
        answers.extend(Frame::octets(PING, 0, 0, &[0; 8]));
        wire.send(answers);
    }
    origin.send("0\r\n\r\n");
    assert_eq!(wire.read_until(DATA).flags, END_STREAM);
}

#[test]
fn silence_times_out() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", "200ms")
        .start();
    let limit = Duration::from_secs(4);
    // nothing; half a preface; a preface; settings; half a frame; half a header block
    let settings = Frame::octets(SETTINGS, 0, 0, &[]);
    let half_block = Frame::octets(HEADERS, 0, 1, &get_block("/"));
    for octets in [
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &settings].concat(),
        [PREFACE, &settings, &settings[..5]].concat(),
        [PREFACE, &settings, &half_block].concat(),
    ] {
        let mut wire = proxy.connect();
        wire.send(&octets);
        wire.closed_within(limit);
    }
    // a header block that grows, but slowly; with a request before it
    let mut wire = raw(&proxy);
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_block("/"));
    wire.read_until(DATA);
    wire.send_frame(HEADERS, 0, 3, &get_block("/"));
    let mut writer = wire.clone_writer();
    thread::spawn(move || {
        while writer
            .try_send(Frame::octets(CONTINUATION, 0, 3, &[]))
            .is_ok()
        {
            thread::sleep(Duration::from_millis(90));
        }
    });
    wire.closed_within(limit);
}

#[test]
fn an_idle_connection_is_told_and_closed() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).env("KEEP_ALIVE", "200ms").start();
    let mut wire = raw(&proxy);
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_block("/"));
    wire.read_until(DATA);
    let goaway = loop {
        let frame = wire.read_frame();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(goaway.reason(), Reason::NO_ERROR);
    wire.closed_within(Duration::from_secs(5));
}

#[test]
fn a_silent_upload_is_a_408() {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url())
        .env("REQUEST_BODY_TIMEOUT", "200ms")
        .start();
    let mut client = Client::connect(&proxy);
    let (response, mut stream) = client.send(request("POST", "/"), false);
    stream
        .send_data(Bytes::from_static(b"half"), false)
        .unwrap();
    let mut origin = upstream.accept();
    origin.read_request_head();
    let answer = client.answer(response);
    answer.assert_proxy_error(408, "timeout_error", "request_body_timeout");
    origin.closed_within(LIMIT);
}

#[test]
fn a_window_that_stays_closed_times_out_its_stream_only() {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).env("WRITE_TIMEOUT", "500ms").start();
    let mut settings = Settings::new();
    settings.initial_window_size(1000);
    let mut client = Client::with(&proxy, &settings);
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    let mut writer = origin.clone_writer();
    let sending = thread::spawn(move || {
        let block = noise(64 * 1024);
        let mut sent = 0;
        while writer.try_send(&block).is_ok() {
            sent += block.len();
        }
        sent
    });
    let (_, mut body) = client.head(response).into_parts();
    // read, and nothing given back
    let first = client.wait(body.data()).unwrap().unwrap();
    assert_eq!(first.len(), 1000);
    let cause = client.wait(body.data()).unwrap().unwrap_err();
    assert_eq!(cause.reason(), Some(Reason::CANCEL));
    origin.closed_within(LIMIT);
    assert!(sending.join().unwrap() < 50_000_000, "all of it was taken");
    // one whose upstream has said everything, too
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n{}",
        "x".repeat(2000)
    ));
    let (_, mut body) = client.head(response).into_parts();
    client.wait(body.data()).unwrap().unwrap();
    let cause = client.wait(body.data()).unwrap().unwrap_err();
    assert_eq!(cause.reason(), Some(Reason::CANCEL));
    let response = client.get("/health");
    assert_eq!(client.answer(response).status(), 200);
}

#[test]
fn a_client_that_reads_nothing_loses_its_connection() {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).env("WRITE_TIMEOUT", "500ms").start();
    let mut wire = proxy.connect();
    wire.send(PREFACE);
    // INITIAL_WINDOW_SIZE, and the connection's window
    wire.send_frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    wire.send_frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_block("/"));
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let mut writer = origin.clone_writer();
    let sending = thread::spawn(move || {
        let block = noise(64 * 1024);
        (0..1_000_000_000 / block.len()).all(|_| writer.try_send(&block).is_ok())
    });
    origin.closed_within(Duration::from_secs(5));
    assert!(!sending.join().unwrap(), "all of it was taken");
}

#[test]
fn heads_that_are_too_large_are_431() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut client = Client::connect(&proxy);
    let mut large = request("GET", "/");
    large
        .headers_mut()
        .insert("x", "y".repeat(65_600).parse().unwrap());
    let (response, _) = client.send(large, true);
    let answer = client.answer(response);
    answer.assert_proxy_error(431, "invalid_request_error", "head_too_large");
    let mut many = request("GET", "/");
    for _ in 0..256 {
        many.headers_mut()
            .append("x", HeaderValue::from_static("y"));
    }
    let (response, _) = client.send(many, true);
    assert_eq!(client.answer(response).status(), 431);
    // more than is told apart: h2 answers, and says no more than that
    let mut huge = request("GET", "/");
    for _ in 0..9 {
        huge.headers_mut()
            .append("x", "y".repeat(15_000).parse().unwrap());
    }
    let (response, _) = client.send(huge, true);
    let answer = client.answer(response);
    assert_eq!((answer.status(), &answer.content[..]), (431, &b""[..]));
    upstream.no_more();
}

#[test]
fn malformed_requests_are_refused_on_their_stream_only() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut wire = raw(&proxy);
    let method = (":method", "GET");
    let (scheme, authority, path) = ((":scheme", "http"), (":authority", "a"), (":path", "/"));
    let whole = [method, scheme, authority, path];
    let mut cases: Vec<Vec<(&str, &str)>> = vec![
        vec![scheme, authority, path],
        vec![method, authority, path],
        vec![method, scheme, authority],
        vec![method, method, scheme, authority, path],
        vec![method, scheme, authority, path, (":status", "200")],
        vec![method, scheme, authority, ("x", "y"), path],
    ];
    for field in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "5"),
        ("proxy-connection", "x"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("content-length", "1"),
        ("content-length", "x"),
    ] {
        cases.push([&whole[..], &[field]].concat());
    }
    let mut stream = 1;
    for fields in &cases {
        wire.send_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields));
        let reset = wire.read_until(RST_STREAM);
        assert_eq!(
            (reset.stream, reset.reason()),
            (stream, Reason::PROTOCOL_ERROR),
            "{fields:?}"
        );
        stream += 2;
    }
    // content that is not as long as it was said
    let fields = [&whole[..], &[("content-length", "5")]].concat();
    for content in [&b"four"[..], b"sixsix"] {
        wire.send_frame(HEADERS, END_HEADERS, stream, &block(&fields));
        wire.send_frame(DATA, END_STREAM, stream, content);
        let reset = wire.read_until(RST_STREAM);
        assert_eq!(
            (reset.stream, reset.reason()),
            (stream, Reason::PROTOCOL_ERROR)
        );
        stream += 2;
    }
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&whole));
    assert_eq!(wire.read_until(HEADERS).stream, stream);
    let mut client = Client::connect(&proxy);
    for (name, value, label) in [
        ("host", "another.test", "invalid_host"),
        ("x", " y", "malformed_head"),
    ] {
        let mut request = request("GET", "/");
        request.headers_mut().insert(name, value.parse().unwrap());
        let (response, _) = client.send(request, true);
        let answer = client.answer(response);
        answer.assert_proxy_error(400, "invalid_request_error", label);
    }
    let asked = http::Request::builder()
        .method("CONNECT")
        .uri("proxy.test:443");
    let (response, _) = client.send(asked.body(()).unwrap(), false);
    let answer = client.answer(response);
    answer.assert_proxy_error(400, "invalid_request_error", "unsupported_target");
    // a name in upper case costs the connection: h2 takes it for a broken table
    let mut wire = raw(&proxy);
    let fields = [&whole[..], &[("X", "y")]].concat();
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
    let goaway = loop {
        let frame = wire.read_frame();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(goaway.reason(), Reason::PROTOCOL_ERROR);
}

#[test]
fn a_path_with_a_fragment_is_refused_and_not_cut() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut wire = raw(&proxy);
    let others = |method: u8| {
        let mut octets = vec![method, 0x86];
        octets.extend(b"\x01\x0aproxy.test");
        octets
    };
    let get = |path: &[u8]| [&others(0x82)[..], path].concat();
    let ends = END_HEADERS | END_STREAM;
    let headers = |block: Vec<u8>| vec![(HEADERS, ends, block)];
    let literal = |start: &[u8], path: &[u8]| [start, &[path.len() as u8], path].concat();
    let cut = |at: usize| {
        let block = get(&literal(b"\x04", b"/v1/messages#x"));
        let (start, rest) = block.split_at(at);
        vec![
            (HEADERS, END_STREAM, start.to_vec()),
            (CONTINUATION, END_HEADERS, rest.to_vec()),
        ]
    };
    let end = get(b"").len();
    let padded = |path: &[u8]| {
        // the padding begins like another path
        let padding = b"\x04\x03/#x\0";
        let block = [&[padding.len() as u8], &get(path)[..], padding].concat();
        vec![(HEADERS, ends | PADDED, block)]
    };
    let weighed = |path: &[u8]| {
        let block = [&[0, 0, 0, 0, 15], &get(path)[..]].concat();
        vec![(HEADERS, ends | PRIORITY_FLAG, block)]
    };
    // RFC 7541 appendix B: `/#` and `:path`
    let huffman: &[u8] = &[0x83, 0x63, 0xfe, 0xbf];
    let huffman_name: &[u8] = &[0x84, 0xb9, 0x58, 0xd3, 0x3f];
    let mut stream = 1;
    for (what, frames, target) in [
        (
            "raw",
            headers(get(&literal(b"\x04", b"/v1/messages#x"))),
            None,
        ),
        (
            "its end",
            headers(get(&literal(b"\x04", b"/v1/messages#"))),
            None,
        ),
        (
            "in a query",
            headers(get(&literal(b"\x04", b"/a?b#c"))),
            None,
        ),
        (
            "by name",
            headers(get(&literal(b"\0\x05:path", b"/#"))),
            None,
        ),
        (
            "never indexed",
            headers(get(&literal(b"\x14", b"/#"))),
            None,
        ),
        ("Huffman", headers(get(&[&[0x04], huffman].concat())), None),
        (
            "Huffman in name and value",
            headers(get(&[&[0], huffman_name, huffman].concat())),
            None,
        ),
        ("within the name", cut(end + 1), None),
        ("within the value", cut(end + 14), None),
        ("at the end", cut(end + 16), None),
        ("padded", padded(&literal(b"\x04", b"/#")), None),
        ("padded without", padded(&literal(b"\x04", b"/")), Some("/")),
        ("with a priority", weighed(&literal(b"\x04", b"/#")), None),
        (
            "weighed without",
            weighed(&literal(b"\x04", b"/a")),
            Some("/a"),
        ),
        ("added", headers(get(&literal(b"\x44", b"/added#"))), None),
        ("indexed", headers(get(&[0xbe])), None),
        (
            "the name of an entry",
            headers(get(&literal(b"\x0f\x2f", b"/other#"))),
            None,
        ),
        (
            "the name of an entry without",
            headers(get(&literal(b"\x0f\x2f", b"/other"))),
            Some("/other"),
        ),
        (
            "added without",
            headers(get(&literal(b"\x44", b"/whole"))),
            Some("/whole"),
        ),
        ("indexed without", headers(get(&[0xbe])), Some("/whole")),
        ("indexed before", headers(get(&[0xbf])), None),
        // the table has room for the newer entry only
        (
            "evicted",
            headers([&[0x3f, 0x21], &get(&[0xbe])[..]].concat()),
            Some("/whole"),
        ),
        (
            "another field",
            headers(get(&[&[0x84], &literal(b"\0\x01x", b"/#")[..]].concat())),
            Some("/"),
        ),
        (
            "a POST",
            headers([&others(0x83)[..], &literal(b"\x04", b"/v1/messages#x")].concat()),
            None,
        ),
        ("the end", headers(get(&[0x84])), Some("/")),
    ] {
        for (kind, flags, payload) in &frames {
            wire.send_frame(*kind, *flags, stream, payload);
        }
        let head = wire.read_until(HEADERS);
        assert_eq!(head.stream, stream, "{what}");
        let content = wire.read_until(DATA).payload;
        match target {
            Some(target) => {
                assert_octets(&content, b"ok", what);
                assert_eq!(upstream.request().0.target(), target, "{what}");
            }
            None => {
                assert!(contains(&content, b"invalid_request_error"), "{what}");
                assert!(contains(&content, b"fragment"), "{what}");
                assert!(upstream.try_request().is_none(), "{what}");
            }
        }
        stream += 2;
    }
    upstream.no_more();
}

#[test]
fn paths_with_a_fragment_do_not_change_those_beside_them() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut wire = raw(&proxy);
    let mut octets = Vec::new();
    // more than may run: some are refused, and none of them is taken for another
    for number in 0..120 {
        let target = if number % 2 == 0 { "/kept" } else { "/cut#" };
        let block = get_block(target);
        let stream = 2 * number + 1;
        octets.extend(Frame::octets(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &block,
        ));
    }
    wire.send(octets);
    let (mut kept, mut cut, mut refused) = (0, 0, 0);
    while kept + cut + refused < 120 {
        let frame = wire.read_frame();
        match frame.kind {
            DATA if frame.stream % 4 == 1 => {
                assert_octets(&frame.payload, b"ok", "it is forwarded");
                kept += 1;
            }
            DATA => {
                assert!(contains(&frame.payload, b"fragment"), "{frame:?}");
                cut += 1;
            }
            RST_STREAM => {
                assert_eq!(frame.reason(), Reason::REFUSED_STREAM);
                refused += 1;
            }
            GOAWAY => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert!(kept >= 50 && cut >= 50, "{kept} {cut} {refused}");
    for _ in 0..kept {
        assert_eq!(upstream.request().0.target(), "/kept");
    }
    upstream.no_more();
}

#[test]
fn an_extended_connect_that_is_refused_gets_the_upstreams_answer() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let response = client.get("/health");
    client.answer(response);
    assert!(client.knows_extended_connect());
    let mut asked = request("CONNECT", "/chat");
    asked
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    let (response, _stream) = client.send(asked, false);
    let mut origin = upstream.accept();
    assert_eq!(origin.read_request_head().line, "GET /chat HTTP/1.1");
    origin.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let answer = client.answer(response);
    assert_eq!((answer.status(), &answer.content[..]), (403, &b"no"[..]));
}

#[test]
fn an_extended_connect_to_http_itself_is_refused() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut client = Client::connect(&proxy);
    let response = client.get("/health");
    client.answer(response);
    for protocol in [
        "h2c",
        "H2C",
        "h2c-14",
        "HTTP/2.0",
        "http/1.1",
        "TLS/1.0",
        "tls",
        "websocket, h2c",
        "web socket",
    ] {
        let mut asked = request("CONNECT", "/v1/messages");
        asked
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static(protocol));
        let settings = http::HeaderValue::from_static("AAMAAABkAAQAAP__");
        asked.headers_mut().insert("http2-settings", settings);
        let (response, _stream) = client.send(asked, false);
        let answer = client.answer(response);
        answer.assert_proxy_error(501, "invalid_request_error", "unsupported_protocol");
    }
    upstream.no_more();
    // and the connection serves on
    let response = client.get("/");
    assert_eq!(client.answer(response).content, b"ok");
}

#[test]
fn a_drain_lets_streams_end() {
    let (upstream, proxy) = setup();
    let mut idle = raw(&proxy);
    idle.read_until(SETTINGS);
    idle.send_frame(SETTINGS, ACK, 0, &[]);
    let mut client = Client::connect(&proxy);
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
    let (head, mut body) = client.head(response).into_parts();
    assert_eq!(client.chunk(&mut body), "ha");
    proxy.signal("TERM");
    let goaway = loop {
        let frame = idle.read_frame();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(goaway.reason(), Reason::NO_ERROR);
    drop(idle);
    origin.send("lf");
    let answer = client.rest(head, body);
    assert_eq!(answer.content, b"lf");
    answer.end.unwrap();
    drop(client);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_cut_looks_like_none_of_its_ends() {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).env("SHUTDOWN_TIMEOUT", "200ms").start();
    let mut client = Client::connect(&proxy);
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    let (head, body) = client.head(response).into_parts();
    proxy.signal("TERM");
    let answer = client.rest(head, body);
    assert!(answer.end.is_err(), "{answer:?}");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn without_h2c_the_preface_is_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut wire = proxy.connect();
    wire.send(PREFACE);
    let answer = wire.read_response("");
    assert_eq!(
        answer.head.one("x-proxy-error"),
        Some("unsupported_version")
    );
    assert_eq!(answer.status(), 400);
}

#[test]
fn a_preface_may_come_in_pieces_and_http_1_beside_it() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut octets = PREFACE.to_vec();
    octets.extend(Frame::octets(SETTINGS, 0, 0, &[]));
    octets.extend(Frame::octets(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &get_block("/"),
    ));
    for cut in [1, 3, 17, 23, 24, 30, octets.len()] {
        let mut wire = proxy.connect();
        wire.send(&octets[..cut]);
        if cut < octets.len() {
            thread::sleep(QUIET / 10);
        }
        wire.send(&octets[cut..]);
        assert_eq!(wire.read_until(DATA).payload, b"ok", "{cut}");
    }
    let mut wire = proxy.connect();
    wire.send_split(get("/1").as_bytes());
    assert_eq!(wire.read_response("").content(), b"ok");
    // begins as the preface does
    let answer = proxy.send("PRI /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.content(), b"ok");
    let mut wire = proxy.connect();
    wire.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert_eq!(wire.read_response("").status(), 400);
    assert_eq!(wire.read_to_end().1, End::Fin);
}
