//! Streams of one HTTP/2 client connection, side by side.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::Reason;

use super::{LIMIT, h2c, setup};
use crate::support::{
    Proxy, Upstream, contains,
    h2::{
        ACK, Client, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Settings,
        WINDOW_UPDATE, block, get_block, raw, request,
    },
    noise,
    relay::Relay,
    wire::assert_octets,
};

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
