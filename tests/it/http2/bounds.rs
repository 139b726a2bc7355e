//! Bounds and timers of HTTP/2 client connections.

use std::{thread, time::Duration};

use bytes::Bytes;
use h2::Reason;
use http::HeaderValue;

use super::{LIMIT, h2c, setup};
use crate::support::{
    Upstream, contains,
    h2::{
        CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE,
        PRIORITY, RST_STREAM, SETTINGS, Settings, WINDOW_UPDATE, block, get_block, raw, request,
    },
    noise,
    wire::assert_octets,
};

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
