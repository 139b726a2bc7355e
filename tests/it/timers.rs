//! docs/contract.md §4.1, §5: each silence has its timer, each timer its answer; and what the proxy says
//! when the upstream cannot be reached.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    End, Proxy, Upstream, Wire, assert_aborted, assert_prompt, assert_proxy_error, get, noise,
    post, upstream::OK, wire::chunk,
};

const SHORT: &str = "300ms";
const SOON: Duration = Duration::from_secs(3);
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[track_caller]
fn times_out(client: &mut Wire, label: &str) {
    let response = client.read_response("POST");
    assert_proxy_error(&response, 408, "timeout_error", label);
    assert_eq!(response.head.one("connection"), Some("close"));
    assert_eq!(client.closed_within(SOON).0, b"");
}

#[test]
fn a_head_that_does_not_end_is_408() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", SHORT)
        .start();
    for half in [
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A",
    ] {
        let mut client = proxy.connect();
        client.send(half);
        times_out(&mut client, "request_head_timeout");
    }
    upstream.no_more();
}

#[test]
fn a_silent_connection_is_closed() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", SHORT)
        .start();
    let mut client = proxy.connect();
    times_out(&mut client, "request_head_timeout");
}

#[test]
fn a_second_head_that_does_not_end_is_408() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", SHORT)
        .start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    client.send("GET / HT");
    times_out(&mut client, "request_head_timeout");
    upstream.request();
    upstream.request();
    upstream.no_more();
}

#[test]
fn an_empty_line_after_an_answer_begins_no_request() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", "100ms")
        .env("KEEP_ALIVE", "1h")
        .start();
    for stray in ["\r\n", "\n", "\r", "\r\n\r\n"] {
        let mut client = proxy.connect();
        client.send(get("/"));
        client.read_response("GET");
        client.send(stray);
        // nothing may come of it: no 408, no close
        client.quiet();
        client.quiet();
        if stray.ends_with('\r') {
            client.send("\n");
        }
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok", "{stray:?}");
    }
}

#[test]
fn a_head_that_trickles_does_not_reset_its_timer() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", "500ms")
        .start();
    let mut client = proxy.connect();
    let mut writer = client.clone_writer();
    let start = Instant::now();
    thread::spawn(move || {
        while writer.try_send("X").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    times_out(&mut client, "request_head_timeout");
    assert_prompt(start, SOON);
}

#[test]
fn a_body_that_stands_still_is_408() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_BODY_TIMEOUT", SHORT)
        .env("SYSTEM_PROMPT_REPLACEMENT", "x")
        .start();
    // One streams through, the other is held for the edit.
    for path in ["/v1/files", "/v1/messages"] {
        for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
            let mut client = proxy.connect();
            client.send(format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
            ));
            client.send_chunk(b"{\"a");
            times_out(&mut client, "request_body_timeout");
            if let Some(mut origin) = upstream.accept_soon() {
                let (octets, _) = origin.closed_within(SOON);
                assert!(!octets.ends_with(b"0\r\n\r\n"));
            }
        }
    }
}

#[test]
fn a_body_that_moves_is_not_timed() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_BODY_TIMEOUT", "4s")
        .start();
    let mut client = proxy.connect();
    client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(600));
        client.send("x");
    }
    assert_eq!(client.read_response("POST").content(), b"ok");
    assert_eq!(upstream.request().1.content(), b"xxxxxxxx");
}

#[test]
fn a_held_back_upload_is_not_the_clients_silence() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_BODY_TIMEOUT", SHORT)
        .start();
    let mut client = proxy.connect();
    let content = noise(40_000_000);
    let mut writer = client.clone_writer();
    let request = post("/v1/files", &content);
    let uploading = thread::spawn(move || writer.send(request));
    let mut origin = upstream.accept();
    // The upstream reads nothing for longer than the client's timer.
    thread::sleep(Duration::from_millis(900));
    assert!(origin.read_request().1.content() == content);
    origin.send(OK);
    uploading.join().unwrap();
    assert_eq!(client.read_response("POST").content(), b"ok");
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("WRITE_TIMEOUT", SHORT)
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    origin.send(STREAM);
    let block = chunk(&noise(64 * 1024));
    let start = Instant::now();
    // The socket's own deadline would be an error too: 10 s.
    while origin.try_send(&block).is_ok() {}
    assert_prompt(start, Duration::from_secs(5));
    let body = {
        client.read_response_head();
        client.read_chunked()
    };
    assert!(matches!(body, crate::support::Body::Cut(..)), "a clean end");
}

#[test]
fn a_connection_takes_the_timers_of_a_reload() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("WORKERS", 1)
        .file("env/.env", "WRITE_TIMEOUT=300ms\nREQUEST_BODY_TIMEOUT=60\n")
        .start();
    let mut clients = [proxy.connect(), proxy.connect()];
    let mut origin = None;
    for client in &mut clients {
        client.send(get("/"));
        let origin = origin.get_or_insert_with(|| upstream.accept());
        origin.read_request();
        origin.send(OK);
        client.read_response("GET");
    }
    proxy.write("env/.env", "WRITE_TIMEOUT=60\nREQUEST_BODY_TIMEOUT=300ms\n");
    proxy.wait_for_line(|line| line.contains("reloaded"));
    let [mut silent, mut reader] = clients;

    silent.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    times_out(&mut silent, "request_body_timeout");

    reader.send(get("/"));
    let mut origin = upstream.accept();
    origin.read_request();
    let content = noise(20_000_000);
    let answer = content.clone();
    let sending = thread::spawn(move || {
        origin.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        ));
        origin.send(&answer);
        origin
    });
    // far above the first limit: it is a socket option, too
    thread::sleep(Duration::from_millis(1500));
    reader.read_response_head();
    assert!(reader.read_exact(content.len()) == content);
    drop(sending.join().unwrap());
}

#[test]
fn a_client_that_reads_slowly_is_not_given_up() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("WRITE_TIMEOUT", "500ms")
        .start();
    let mut client = proxy.connect();
    client.socket().set_recv_buffer_size(16 * 1024).unwrap();
    client.send(get("/"));
    let mut origin = upstream.accept();
    origin.read_request();
    let content = noise(16_000_000);
    let answer = content.clone();
    let sending = thread::spawn(move || {
        origin.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        ));
        origin.send(&answer);
        origin
    });
    client.read_response_head();
    let mut read = Vec::new();
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(100));
        read.extend(client.read_exact(400_000));
    }
    read.extend(client.read_exact(content.len() - read.len()));
    assert!(read == content);
    drop(sending.join().unwrap());
}

#[test]
fn an_idle_connection_of_a_client_is_closed_in_order() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).env("KEEP_ALIVE", SHORT).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    assert_eq!(client.closed_within(SOON), (Vec::new(), End::Fin));
}

#[test]
fn an_idle_connection_to_the_upstream_is_closed_in_order() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_KEEP_ALIVE", SHORT)
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    assert_eq!(origin.closed_within(SOON), (Vec::new(), End::Fin));
    client.send(get("/2"));
    let mut fresh = upstream.accept();
    fresh.read_request();
    fresh.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn a_connection_that_the_upstream_closed_does_not_stay_in_close_wait() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    origin.finish();
    // Nobody asks for anything: the proxy closes its side all the same, well before its idle
    // time of 60 s is over.
    assert_eq!(origin.closed_within(Duration::from_secs(9)).0, b"");
}

#[test]
fn an_upstream_that_does_not_answer_is_504() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_TIMEOUT", SHORT)
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/files", "{}"));
    let response = client.read_response("POST");
    assert_proxy_error(&response, 504, "timeout_error", "http_response_timeout");
    origin.closed_within(SOON);
    upstream.no_more();
}

#[test]
fn an_upstream_that_stops_reading_is_504() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_TIMEOUT", "500ms")
        .start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &upstream,
        "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n",
    );
    let mut writer = client.clone_writer();
    let uploading = thread::spawn(move || {
        let block = noise(64 * 1024);
        while writer.try_send(&block).is_ok() {}
    });
    let response = client.read_response("POST");
    assert_proxy_error(&response, 504, "timeout_error", "http_response_timeout");
    origin.closed_within(SOON);
    drop((client, proxy));
    uploading.join().unwrap();
}

#[test]
fn half_a_response_head_is_no_answer() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_TIMEOUT", SHORT)
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    origin.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX-");
    let mut response = client.read_response("GET");
    if response.status() == 103 {
        response = client.read_response("GET");
    }
    assert_proxy_error(&response, 504, "timeout_error", "http_response_timeout");
}

#[test]
fn the_client_may_go_on_after_a_504() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_TIMEOUT", SHORT)
        .start();
    let (mut client, _origin) = proxy.exchange(&upstream, get("/1"));
    assert_eq!(client.read_response("GET").status(), 504);
    client.send(get("/2"));
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn the_time_of_an_upload_does_not_count_as_the_upstreams() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_TIMEOUT", "500ms")
        .start();
    let mut client = proxy.connect();
    client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    let mut origin = upstream.accept();
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(100));
        client.send("x");
    }
    origin.read_request();
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
}

/// One request that gets an answer only after another had none in time.
#[track_caller]
fn outlasts(patient: &[u8], hasty: &[u8], general: &str, generation: &str) {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_TIMEOUT", general)
        .env("GENERATION_TIMEOUT", generation)
        .start();
    let (mut one, mut origin) = proxy.exchange(&upstream, patient);
    let (mut other, _silent) = proxy.exchange(&upstream, hasty);
    let response = other.read_response("POST");
    assert_proxy_error(&response, 504, "timeout_error", "http_response_timeout");
    origin.send(OK);
    assert_eq!(one.read_response("POST").content(), b"ok");
}

#[test]
fn messages_have_a_timer_of_their_own() {
    outlasts(
        &post("/v1/messages?beta=true", "{}"),
        &post("/v1/files", "{}"),
        SHORT,
        "8s",
    );
    outlasts(
        &post("/v1/files", "{}"),
        &post("/v1/messages", "{}"),
        "8s",
        SHORT,
    );
}

#[test]
fn counting_tokens_is_no_generation() {
    let counting = post("/v1/messages/count_tokens", "{}");
    outlasts(&post("/v1/messages/", "{}"), &counting, SHORT, "8s");
}

#[test]
fn a_clients_declared_patience_raises_the_timer() {
    let patient = "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Stainless-Timeout: 8\r\n\
                   Content-Length: 2\r\n\r\n{}";
    outlasts(
        patient.as_bytes(),
        &post("/v1/messages", "{}"),
        SHORT,
        SHORT,
    );
}

#[test]
fn a_clients_declared_patience_never_lowers_the_timer() {
    for value in ["0", "0.1", "-5", "NaN", "soon", ""] {
        let hurried = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Stainless-Timeout: {value}\r\n\
             Content-Length: 2\r\n\r\n{{}}"
        );
        outlasts(hurried.as_bytes(), &post("/v1/files", "{}"), SHORT, "8s");
    }
}

#[test]
fn silence_inside_a_stream_is_an_abort() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("STREAM_IDLE_TIMEOUT", SHORT)
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", "{}"));
    origin.send([STREAM.as_bytes(), &chunk(b"event: ping\n\n")].concat());
    let head = client.read_response_head();
    assert_aborted(&head, &client.read_chunked(), b"event: ping\n\n");
    origin.closed_within(SOON);
}

#[test]
fn a_stream_that_moves_is_not_timed() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("STREAM_IDLE_TIMEOUT", "4s")
        .env("UPSTREAM_TIMEOUT", "4s")
        .env("GENERATION_TIMEOUT", "4s")
        .env("KEEP_ALIVE", "4s")
        .env("WRITE_TIMEOUT", "4s")
        .env("REQUEST_HEAD_TIMEOUT", "4s")
        .env("REQUEST_BODY_TIMEOUT", "4s")
        .env("UPSTREAM_KEEP_ALIVE", "4s")
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", "{}"));
    origin.send(STREAM);
    for _ in 0..12 {
        thread::sleep(Duration::from_millis(400));
        origin.send_chunk(b"x");
    }
    origin.send_chunk(b"");
    assert_eq!(client.read_response("POST").content(), b"xxxxxxxxxxxx");
}

#[test]
fn a_port_where_nobody_listens_is_502() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::to(format!("http://{addr}")).start();
    let response = proxy.send(post("/v1/messages", "{}"));
    assert_proxy_error(&response, 502, "api_error", "connection_refused");
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(get("/"));
        let response = client.read_response("GET");
        assert_proxy_error(&response, 502, "api_error", "connection_refused");
    }
}

#[test]
fn each_error_has_a_request_id_of_its_own() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::to(format!("http://{addr}")).start();
    let one = proxy.send(get("/"));
    let two = proxy.send(get("/"));
    assert_ne!(one.head.one("request-id"), two.head.one("request-id"));
}

#[test]
fn an_error_to_head_has_no_body() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::to(format!("http://{addr}")).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = client.read_response("HEAD");
        assert_eq!(response.status(), 502);
        assert_eq!(
            response.head.one("x-proxy-error"),
            Some("connection_refused")
        );
    }
}

#[test]
fn a_name_that_does_not_resolve_is_502_or_504() {
    let proxy = Proxy::to("http://nonexistent.invalid")
        .env("UPSTREAM_CONNECT_TIMEOUT", "2s")
        .start();
    let response = proxy.send(get("/"));
    match response.status() {
        502 => assert_proxy_error(&response, 502, "api_error", "dns_error"),
        // Where no name server answers at all.
        _ => assert_proxy_error(&response, 504, "timeout_error", "dns_timeout"),
    }
}

#[test]
fn a_connection_that_is_not_accepted_is_504() {
    // A full backlog drops further SYNs, as an unreachable host would.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 64, "this system's backlog does not fill");
    }
    let proxy = Proxy::to(format!("http://{addr}"))
        .env("UPSTREAM_CONNECT_TIMEOUT", SHORT)
        .start();
    let response = proxy.send(get("/"));
    assert_proxy_error(&response, 504, "timeout_error", "connection_timeout");
}

#[test]
fn a_tls_handshake_that_does_not_end_is_504() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(format!("https://{}", upstream.addr()))
        .env("UPSTREAM_CONNECT_TIMEOUT", SHORT)
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut silent = upstream.accept();
    let response = client.read_response("GET");
    assert_proxy_error(&response, 504, "timeout_error", "connection_timeout");
    silent.closed_within(SOON);
}

/// Sends an answer of this length on the next connection, as fast as it is taken.
fn answering(upstream: Upstream, content: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut origin = upstream.accept();
        origin.read_request();
        origin.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            content.len()
        ));
        let _ = origin.try_send(&content);
    })
}

#[test]
fn a_client_that_reads_is_not_given_up_however_slowly_it_reads() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WRITE_TIMEOUT", "2s").start();
    let content = noise(8_000_000);
    let sending = answering(upstream, content.clone());
    let mut client = proxy.connect_with_window(16 * 1024);
    client.send(get("/"));
    client.read_response_head();
    // far less in one limit than the kernel would hold for it
    let mut read = Vec::new();
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(100));
        read.extend(client.read_exact(10_000));
    }
    read.extend(client.read_exact(content.len() - read.len()));
    assert!(read == content);
    sending.join().unwrap();
    proxy.wait_for_line(|line| line.contains("GET /") && line.contains("ended=complete"));
}

#[test]
fn an_answer_that_is_not_acknowledged_is_not_complete() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("WRITE_TIMEOUT", "500ms")
        .start();
    // all of it is in the kernel's hands soon, and most of it stays there
    let sending = answering(upstream, noise(150_000));
    let mut client = proxy.connect_with_window(4 * 1024);
    client.send(get("/"));
    sending.join().unwrap();
    let line = proxy.wait_for_line(|line| line.contains("GET /") && line.contains("ended="));
    assert!(line.contains("ended=client_gone"), "{line}");
    // and what it did not read is no clean end
    client.read_response_head();
    let (read, _) = client.read_to_end();
    assert!(read.len() < 150_000, "all of it");
}

#[test]
fn the_directions_do_not_wait_for_each_other() {
    let upstream = Upstream::bind();
    // neither timer has anything to do with it
    let proxy = Proxy::to(upstream.url())
        .env("WRITE_TIMEOUT", "60s")
        .start();
    let (up, down) = (noise(20_000_000), noise(8_000_000));
    let mut client = proxy.connect_with_window(64 * 1024);
    let (asked, answered) = (up.clone(), down.clone());
    let serving = thread::spawn(move || {
        let mut origin = upstream.accept();
        origin.read_request_head();
        let mut writer = origin.clone_writer();
        let writing = thread::spawn(move || {
            writer.send(STREAM);
            for block in answered.chunks(64 * 1024) {
                writer.send(chunk(block));
            }
            writer
        });
        let read = origin.read_exact(asked.len());
        assert!(read == asked, "the upload");
        writing.join().unwrap().send("0\r\n\r\n");
        origin
    });
    client.send(format!(
        "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        up.len()
    ));
    // not a word of the answer is read until all of this has gone out
    client.send(&up);
    client.read_response_head();
    let body = client.read_chunked();
    assert!(matches!(body, crate::support::Body::Chunked(..)), "cut");
    assert!(body.content() == down);
    drop(serving.join().unwrap());
}

#[test]
fn an_upload_that_ends_with_its_turn_holds_up_no_other() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    // as much as a turn moves (`pace::TURN`): the last write takes the rest of it
    let (up, down) = (noise(512 * 1024), noise(2_000_000));
    let (asked, answered) = (up.clone(), down.clone());
    let serving = thread::spawn(move || {
        let mut origin = upstream.accept();
        origin.read_request_head();
        origin.send(STREAM);
        assert!(origin.read_exact(asked.len()) == asked, "the upload");
        for block in answered.chunks(64 * 1024) {
            origin.send(chunk(block));
        }
        origin.send(chunk(b""));
        origin
    });
    let mut client = proxy.connect();
    client.send(format!(
        "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        up.len()
    ));
    // the rest goes out while the answer comes
    client.send(&up[..1000]);
    client.read_response_head();
    client.send(&up[1000..]);
    assert!(client.read_chunked().content() == down);
    drop(serving.join().unwrap());
}

#[test]
fn an_upload_that_moves_is_no_silence_of_the_upstream() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("STREAM_IDLE_TIMEOUT", "1s")
        .start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &upstream,
        "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n",
    );
    origin.send(STREAM);
    client.read_response_head();
    for _ in 0..8 {
        client.send("x");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(origin.read_exact(1), b"x");
    }
    origin.send(chunk(b"ok"));
    origin.send(chunk(b""));
    assert_eq!(client.read_chunked().content(), b"ok");
}
