//! Content that passes as it comes: expectations, early answers, slow peers.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use super::{
    CHUNKED, KERNEL_BUFFERS, exchange, final_response, put, resident, small_reader, upload,
};
use crate::support::{
    Body, DEADLINE, Proxy, Upstream, Wire, assert_prompt, get, noise, post,
    upstream::OK,
    wire::{assert_octets, chunk},
};

#[test]
fn expect_100_continue_goes_end_to_end() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Content-Length: 5\r\nExpect: 100-continue"));
    let mut origin = upstream.accept();
    let head = origin.read_request_head();
    assert_eq!(head.one("expect"), Some("100-continue"));
    origin.send("HTTP/1.1 100 Continue\r\n\r\n");
    // Without stalling: at once, not when some other timer happens to fire.
    client.set_deadline(Duration::from_secs(2));
    let interim = client.read_response_head();
    assert_eq!(interim.status(), 100);
    client.send("hello");
    assert_eq!(origin.read_exact(5), b"hello");
    origin.send(OK);
    let response = client.read_response("POST");
    assert_eq!((response.status(), response.content()), (200, &b"ok"[..]));
}

#[test]
fn an_upstream_that_never_says_100_does_not_stall() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Content-Length: 5\r\nExpect: 100-continue"));
    assert_eq!(client.read_response_head().status(), 100);
    client.send("hello");
    let response = client.read_response("POST");
    assert_eq!((response.status(), response.content()), (200, &b"ok"[..]));
    assert_eq!(upstream.request().1, Body::Length(b"hello".to_vec()));
}

#[test]
fn a_refusal_reaches_a_client_that_waits_to_continue() {
    for status in [413, 417, 401] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let (mut client, mut origin) = proxy.begin_exchange(
            &upstream,
            upload("Content-Length: 5000000\r\nExpect: 100-continue"),
        );
        origin.send(format!(
            "HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno"
        ));
        // Nobody said 100, so the first head is the refusal itself.
        let response = client.read_response("POST");
        assert_eq!(
            (response.status(), response.content()),
            (status, &b"no"[..])
        );
    }
}

#[test]
fn a_client_that_expects_100_but_does_not_wait_is_served() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    // Nobody has to wait for the upstream's word on what was sent already: that would be a second. On a
    // busy machine one of a few tries is quick.
    let is_prompt = (0..20).any(|_| {
        let mut client = proxy.connect();
        client.send(upload("Content-Length: 5\r\nExpect: 100-continue") + "hello");
        let start = Instant::now();
        let mut response = client.read_response("POST");
        if response.status() == 100 {
            response = client.read_response("POST");
        }
        assert_eq!((response.status(), response.content()), (200, &b"ok"[..]));
        assert_eq!(upstream.request().1, Body::Length(b"hello".to_vec()));
        start.elapsed() < Duration::from_millis(700)
    });
    assert!(is_prompt, "a second is waited for");
    upstream.no_more();
}

#[test]
fn interim_answers_never_confuse_the_exchange() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    origin.send("HTTP/1.1 100 Continue\r\n\r\n");
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    let one = final_response(&mut client);
    assert_eq!((one.status(), one.content()), (200, &b"one"[..]));
    client.send(get("/2"));
    assert_eq!(origin.read_request().0.target(), "/2");
    origin.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    let two = final_response(&mut client);
    assert_eq!((two.status(), two.content()), (200, &b"two"[..]));
}

#[test]
fn an_early_answer_reaches_a_client_that_still_uploads() {
    for framing in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let mut client = proxy.connect();
        client.send(upload(framing));
        client.send_chunk(b"the first of many");
        let mut origin = upstream.accept();
        origin.read_request_head();
        let mut writer = client.clone_writer();
        let uploading = thread::spawn(move || {
            let block = chunk(&noise(64 * 1024));
            while writer.try_send(&block).is_ok() {}
        });
        origin.send("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large");
        let response = client.read_response("POST");
        assert_eq!(
            (response.status(), response.content()),
            (413, &b"too large"[..]),
            "{framing}"
        );
        drop((client, origin, proxy));
        uploading.join().unwrap();
    }
}

#[test]
fn an_early_answer_with_a_close_reaches_a_client_that_still_uploads() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(upload("Content-Length: 100000000"));
    client.send("the first of many");
    let mut origin = upstream.accept();
    origin.read_request_head();
    let mut writer = client.clone_writer();
    let uploading = thread::spawn(move || {
        let block = noise(64 * 1024);
        while writer.try_send(&block).is_ok() {}
    });
    origin
        .send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large");
    origin.finish();
    let response = client.read_response("POST");
    assert_eq!(
        (response.status(), response.content()),
        (413, &b"too large"[..])
    );
    drop((client, origin, proxy));
    uploading.join().unwrap();
}

#[test]
fn an_early_answer_survives_the_reset_that_follows_it() {
    // An upstream that closes with octets unread resets the connection.
    for _ in 0..20 {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let mut client = proxy.connect();
        client.send(upload("Content-Length: 100000000"));
        client.send(noise(100_000));
        let mut origin = upstream.accept();
        origin.read_request_head();
        origin.send("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large");
        drop(origin);
        let response = client.read_response("POST");
        assert_eq!(
            (response.status(), response.content()),
            (413, &b"too large"[..])
        );
    }
}

#[test]
fn uploads_stream_as_they_arrive() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();

    let (mut client, mut origin) =
        proxy.begin_exchange(&upstream, upload("Transfer-Encoding: chunked"));
    for piece in ["first", "second", "third"] {
        client.send_chunk(piece.as_bytes());
        assert_eq!(origin.read_chunks(piece.len()), piece.as_bytes());
    }

    let (mut client, mut origin) = proxy.begin_exchange(&upstream, upload("Content-Length: 11"));
    for piece in ["first", "second"] {
        client.send(piece);
        assert_eq!(origin.read_exact(piece.len()), piece.as_bytes());
    }
}

#[test]
fn answers_stream_as_they_arrive() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send(CHUNKED);
    assert_eq!(client.read_response_head().status(), 200);
    for event in ["event: one\n\n", "event: two\n\n", "event: three\n\n"] {
        origin.send_chunk(event.as_bytes());
        assert_eq!(client.read_chunks(event.len()), event.as_bytes());
    }
    origin.send_chunk(b"");
    assert_eq!(client.read_chunk(), b"");
}

#[test]
fn small_pieces_do_not_wait_for_each_other() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) =
        proxy.begin_exchange(&upstream, upload("Transfer-Encoding: chunked"));
    origin.send(CHUNKED);
    client.read_response_head();
    let start = Instant::now();
    for _ in 0..400 {
        client.send_chunk(b"x");
        assert_eq!(origin.read_chunk(), b"x");
    }
    for _ in 0..400 {
        origin.send_chunk(b"x");
        assert_eq!(client.read_chunk(), b"x");
    }
    // Nagle's algorithm against delayed acknowledgements would make it 40 ms each, 32 s.
    assert_prompt(start, Duration::from_secs(2));
}

#[test]
fn the_end_of_a_chunk_is_not_waited_for() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &upstream,
        upload("Transfer-Encoding: chunked") + "100000\r\nbegin",
    );
    assert_eq!(origin.read_chunks(5), b"begin");
    origin.send(format!("{CHUNKED}100000\r\nbegin"));
    client.read_response_head();
    assert_eq!(client.read_chunks(5), b"begin");
}

#[test]
fn an_answer_may_overtake_its_request() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) =
        proxy.begin_exchange(&upstream, upload("Transfer-Encoding: chunked"));
    origin.send(CHUNKED);
    assert_eq!(client.read_response_head().status(), 200);
    for turn in ["ping", "pong", "ping again"] {
        client.send_chunk(turn.as_bytes());
        assert_eq!(origin.read_chunks(turn.len()), turn.as_bytes());
        origin.send_chunk(turn.as_bytes());
        assert_eq!(client.read_chunks(turn.len()), turn.as_bytes());
    }
    client.send_chunk(b"");
    assert_eq!(origin.read_chunk(), b"");
    origin.send_chunk(b"");
    assert_eq!(client.read_chunk(), b"");
}

#[test]
fn megabytes_pass_both_ways_at_once() {
    let (upstream, content) = (Upstream::bind(), noise(20_000_000));
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    let mut writer = client.clone_writer();
    let mut request = upload("Transfer-Encoding: chunked").into_bytes();
    for piece in content.chunks(30_011) {
        request.extend(chunk(piece));
    }
    request.extend(chunk(b""));
    let sending = thread::spawn(move || writer.send(request));
    let mut origin = upstream.accept();
    let echoing = thread::spawn(move || {
        origin.read_request_head();
        origin.send(CHUNKED);
        loop {
            let piece = origin.read_chunk();
            origin.send_chunk(&piece);
            if piece.is_empty() {
                break;
            }
        }
    });
    assert_octets(client.read_response("POST").content(), &content, "the echo");
    sending.join().unwrap();
    echoing.join().unwrap();
}

#[test]
fn no_exchange_gets_the_octets_of_another() {
    let upstream = Upstream::answering(|head, body| {
        let (target, content) = (head.target(), body.content());
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nX-Target: {target}\r\nTransfer-Encoding: chunked\r\n\r\n")
                .into_bytes();
        for piece in content.chunks(997) {
            answer.extend(chunk(piece));
        }
        answer.extend(chunk(b""));
        answer
    });
    let proxy = Proxy::to(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", "x")
        .start();
    thread::scope(|scope| {
        for who in 0..16 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.connect();
                for turn in 0..30 {
                    let path = if turn % 2 == 0 {
                        "/v1/messages"
                    } else {
                        "/v1/files"
                    };
                    let target = format!("{path}?{who}-{turn}");
                    let content = format!("[\"{who}-{turn}\"]").repeat(1 + turn * who * 10);
                    client.send(post(&target, &content));
                    if turn % 7 == 6 {
                        // Leaves in the middle of it, and comes back.
                        client = proxy.connect();
                        continue;
                    }
                    let response = client.read_response("POST");
                    assert_eq!(response.head.one("x-target"), Some(target.as_str()));
                    assert_octets(response.content(), content, target);
                }
            });
        }
    });
}

#[test]
fn fifty_megabytes_up_are_the_same_octets() {
    let content = noise(50_000_000);
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    assert_eq!(proxy.send(post("/v1/files", &content)).content(), b"ok");
    assert_octets(upstream.request().1.content(), &content, "under a length");

    let mut request = upload("Transfer-Encoding: chunked").into_bytes();
    for piece in content.chunks(100_003) {
        request.extend(chunk(piece));
    }
    request.extend(chunk(b""));
    assert_eq!(proxy.send(request).content(), b"ok");
    assert_octets(upstream.request().1.content(), &content, "in chunks");
}

#[test]
fn fifty_megabytes_down_are_the_same_octets() {
    let content = noise(50_000_000);
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    answer.extend_from_slice(&content);
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url()).start();
    assert_octets(proxy.send(get("/")).content(), &content, "the content");

    let mut answer = CHUNKED.as_bytes().to_vec();
    for piece in content.chunks(100_003) {
        answer.extend(chunk(piece));
    }
    answer.extend(chunk(b""));
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url()).start();
    assert_octets(proxy.send(get("/")).content(), &content, "the content");
}

#[test]
fn a_slow_reader_holds_back_the_upstream() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = Wire::tcp(small_reader(&proxy));
    client.send(get("/"));
    let stream = upstream.accept_stream();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket2::SockRef::from(&stream)
        .set_send_buffer_size(16 * 1024)
        .unwrap();
    let mut origin = Wire::new(stream.try_clone().unwrap());
    origin.read_request();
    let before = resident(&proxy);
    origin.send(CHUNKED);
    let block = chunk(&noise(32 * 1024));
    let mut sent = 0;
    // The first write that does not get through in half a second is where it is held back.
    let rest = loop {
        assert!(
            sent < KERNEL_BUFFERS,
            "{sent} octets were taken though nobody reads"
        );
        match put(&stream, &block) {
            Ok(()) => sent += block.len(),
            Err(rest) => break rest,
        }
    };
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 1 << 20, "the process grew by {grown} octets");
    assert_eq!(client.read_response_head().status(), 200);
    let reading = thread::spawn(move || client.read_chunked());
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    origin.send(rest);
    origin.send_chunk(b"");
    let body = reading.join().unwrap();
    let expected = noise(32 * 1024).repeat(sent / block.len() + 1);
    let Body::Chunked(content) = body else {
        panic!("not a clean end")
    };
    assert_octets(&content, &expected, "the content");
}

#[test]
fn a_slow_upstream_holds_back_an_upload() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket2::SockRef::from(&stream)
        .set_send_buffer_size(16 * 1024)
        .unwrap();
    let mut client = Wire::new(stream.try_clone().unwrap());
    client.send(upload("Content-Length: 500000000"));
    let _origin = upstream.accept();
    let before = resident(&proxy);
    let block = noise(32 * 1024);
    let mut sent = 0;
    while put(&stream, &block).is_ok() {
        sent += block.len();
        assert!(
            sent < KERNEL_BUFFERS,
            "{sent} octets were taken though nobody reads"
        );
    }
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 1 << 20, "the process grew by {grown} octets");
}
