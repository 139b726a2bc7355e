//! HTTP/2 towards the upstream: `UPSTREAM_HTTP_VERSION` 2 and auto.
//!
//! Two scripted upstreams: [`Server`], the h2 crate's own server, for what any upstream does; and
//! [`Raw`], frames as octets, for what only some do.

use std::{
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};

use crate::support::{
    DEADLINE, Proxy, ProxyBuilder, Upstream, assert_aborted, assert_prompt, assert_proxy_error,
    contains, get, noise, post, relay::Relay, wire::assert_octets,
};

// ---- the h2 crate's server ----

type Handling = Pin<Box<dyn Future<Output = ()>>>;

/// A server on a thread of its own; a request is handled by a future of the test's.
struct Server {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

/// One request at the server.
struct Asked {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Server {
    fn new(handler: impl Fn(Asked) -> Handling + Send + 'static) -> Self {
        Self::with(h2::server::Builder::new(), None, handler)
    }

    fn limited(streams: u32, handler: impl Fn(Asked) -> Handling + Send + 'static) -> Self {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(streams);
        Self::with(builder, None, handler)
    }

    fn with(
        builder: h2::server::Builder,
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(Asked) -> Handling + Send + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let (count, now) = (connections.clone(), open.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let handler = std::rc::Rc::new(handler);
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    now.fetch_add(1, Ordering::SeqCst);
                    let (builder, handler, now) = (builder.clone(), handler.clone(), now.clone());
                    let tls = tls.clone();
                    tokio::task::spawn_local(async move {
                        match tls {
                            None => serve(builder, socket, handler).await,
                            Some(config) => {
                                let acceptor = tokio_rustls::TlsAcceptor::from(config);
                                if let Ok(socket) = acceptor.accept(socket).await {
                                    serve(builder, socket, handler).await;
                                }
                            }
                        }
                        now.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        });
        Self {
            addr,
            connections,
            open,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn proxy(&self) -> ProxyBuilder {
        http2(self.url())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many connections are open.
    #[track_caller]
    fn wait_for_open(&self, count: usize) {
        let end = std::time::Instant::now() + DEADLINE;
        while self.open.load(Ordering::SeqCst) != count {
            assert!(std::time::Instant::now() < end, "not {count} connections");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    builder: h2::server::Builder,
    socket: S,
    handler: std::rc::Rc<impl Fn(Asked) -> Handling + 'static>,
) {
    let Ok(mut connection) = builder.handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(handler(Asked { request, respond }));
    }
}

impl Asked {
    fn path(&self) -> String {
        self.request.uri().path().to_owned()
    }

    fn start(&mut self, response: http::response::Builder, ends: bool) -> SendStream<Bytes> {
        self.respond
            .send_response(response.body(()).unwrap(), ends)
            .unwrap()
    }

    fn answer(&mut self, content: impl Into<Bytes>) {
        let mut body = self.start(Response::builder(), false);
        let _ = body.send_data(content.into(), true);
    }

    async fn content(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let body = self.request.body_mut();
        let mut content = Vec::new();
        while let Some(Ok(piece)) = body.data().await {
            content.extend_from_slice(&piece);
            let _ = body.flow_control().release_capacity(piece.len());
        }
        (content, body.trailers().await.unwrap_or_default())
    }
}

/// Sends content as the windows allow.
async fn send_all(body: &mut SendStream<Bytes>, mut content: Bytes, ends: bool) -> bool {
    while !content.is_empty() {
        body.reserve_capacity(content.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
            return false;
        };
        let piece = content.split_to(room.min(content.len()));
        let is_last = ends && content.is_empty();
        if body.send_data(piece, is_last).is_err() {
            return false;
        }
    }
    true
}

fn http2(url: impl ToString) -> ProxyBuilder {
    Proxy::to(url)
        .env("UPSTREAM_HTTP_VERSION", "2")
        .env("WORKERS", 1)
}

/// A channel for what a handler sees.
fn channel<T>() -> (Sender<T>, Receiver<T>) {
    mpsc::channel()
}

#[track_caller]
fn next<T>(receiver: &Receiver<T>) -> T {
    receiver
        .recv_timeout(DEADLINE)
        .expect("the upstream sees it")
}

// ---- frames ----

/// An upstream that writes and reads frames.
struct Raw {
    stream: TcpStream,
}

#[derive(Debug)]
struct Got {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Raw {
    /// The connection after both prefaces, with these settings.
    #[track_caller]
    fn accept(upstream: &Upstream, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::accept_silent(upstream);
        raw.settings(settings);
        raw
    }

    /// The connection after the client's preface.
    #[track_caller]
    fn accept_silent(upstream: &Upstream) -> Self {
        let mut stream = upstream.accept_stream();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        Self { stream }
    }

    fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(SETTINGS, 0, 0, &payload);
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.stream
            .write_all(&frame(kind, flags, stream, payload))
            .unwrap();
    }

    /// The next frame of this kind.
    #[track_caller]
    fn expect(&mut self, kind: u8) -> Got {
        loop {
            let got = self.read().expect("a frame");
            if got.kind == kind && !(kind == SETTINGS && got.flags & 1 == 1) {
                return got;
            }
        }
    }

    /// The stream of the next request.
    #[track_caller]
    fn request(&mut self) -> u32 {
        self.expect(HEADERS).stream
    }

    fn read(&mut self) -> Option<Got> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Got {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// `:status: 200` (RFC 7541 appendix A, index 8).
    fn ok(&mut self, stream: u32, content: &[u8]) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]);
        self.send(DATA, END_STREAM, stream, content);
    }

    fn reset(&mut self, stream: u32, reason: u32) {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes());
    }

    fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut octets = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    octets.extend_from_slice(&[kind, flags]);
    octets.extend_from_slice(&stream.to_be_bytes());
    octets.extend_from_slice(payload);
    octets
}

/// A literal field that is not indexed.
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name.as_bytes(), value] {
        // a length with a prefix of seven bits (RFC 7541 §5.1)
        if text.len() < 127 {
            block.push(text.len() as u8);
        } else {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
        block.extend_from_slice(text);
    }
    block
}

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const INTERNAL_ERROR: u32 = 2;

// ---- identity ----

#[test]
fn big_bodies_pass_both_ways_at_once() {
    let server = Server::new(|mut asked| {
        Box::pin(async move {
            let mut out = asked.start(Response::builder(), false);
            let body = asked.request.body_mut();
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                send_all(&mut out, piece, false).await;
            }
            let _ = out.send_data(Bytes::new(), true);
        })
    });
    let proxy = server.proxy().start();
    let content = noise(5_000_000);
    let mut client = proxy.connect();
    let request = post("/v1/files", &content);
    let mut writer = client.clone_writer();
    let sending = thread::spawn(move || writer.send(request));
    let response = client.read_response("POST");
    sending.join().unwrap();
    assert_eq!(response.status(), 200);
    assert_octets(response.content(), &content, "the content");
    assert_eq!(server.connections(), 1);
}

#[test]
fn heads_are_what_http_2_makes_of_them() {
    let (seen, heads) = channel();
    let server = Server::new(move |mut asked| {
        let _ = seen.send((asked.request.uri().clone(), asked.request.headers().clone()));
        Box::pin(async move {
            let value = http::HeaderValue::from_bytes(b"caf\xe9").unwrap();
            let response = Response::builder()
                .status(203)
                .header("set-cookie", "a=1")
                .header("x-odd", value)
                .header("set-cookie", "b=2");
            let mut body = asked.start(response, false);
            let _ = body.send_data("ok".into(), true);
        })
    });
    let proxy = http2(format!("{}/base", server.url())).start();
    let mut client = proxy.connect();
    client.send(b"GET /x//%2f?q= HTTP/1.1\r\nHost: c\r\nX-Api-Key: k\r\nX-Dup: 1\r\nX-Odd: \xff\xe9\r\nx-dup: 2\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\n\r\n");
    let response = client.read_response("GET");
    let (uri, head) = next(&heads);
    assert_eq!(uri.to_string(), format!("{}/base/x//%2f?q=", server.url()));
    let all = |name: &str| -> Vec<Vec<u8>> {
        let values = head.get_all(name).iter();
        values.map(|value| value.as_bytes().to_vec()).collect()
    };
    assert_eq!(all("x-dup"), [b"1", b"2"]);
    assert_eq!(all("x-odd"), [b"\xff\xe9"]);
    assert_eq!(all("x-api-key"), [b"k"]);
    assert_eq!(all("te"), [b"trailers"]);
    assert_eq!(all("x-forwarded-host"), [b"c"]);
    for gone in ["host", "connection", "keep-alive", "x-gone"] {
        assert!(!head.contains_key(gone), "{gone}");
    }
    assert_eq!(response.status(), 203);
    assert_eq!(response.head.all("set-cookie"), [b"a=1", b"b=2"]);
    assert_eq!(response.head.all("x-odd"), [b"caf\xe9"]);
}

#[test]
fn events_pass_one_by_one() {
    let (go, wait) = tokio::sync::mpsc::unbounded_channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let server = Server::new(move |mut asked| {
        let mut wait = wait.lock().unwrap().take().unwrap();
        Box::pin(async move {
            let response = Response::builder().header("content-type", "text/event-stream");
            let mut body = asked.start(response, false);
            while wait.recv().await.is_some() {
                let _ = body.send_data("event: ping\n\n".into(), false);
            }
            let _ = body.send_data(Bytes::new(), true);
        })
    });
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    client.send(post("/v1/messages", "{}"));
    assert_eq!(
        client.read_response_head().one("content-type"),
        Some("text/event-stream")
    );
    for _ in 0..20 {
        go.send(()).unwrap();
        assert_eq!(client.read_chunk(), b"event: ping\n\n");
    }
    drop(go);
    assert_eq!(client.read_chunk(), b"");
}

#[test]
fn trailers_pass_both_ways() {
    let (seen, trailers) = channel();
    let server = Server::new(move |mut asked| {
        let seen = seen.clone();
        Box::pin(async move {
            let (content, trailers) = asked.content().await;
            let _ = seen.send((content, trailers));
            let mut body = asked.start(Response::builder(), false);
            let _ = body.send_data("x".into(), false);
            let mut fields = HeaderMap::new();
            fields.insert("x-sum", "2".parse().unwrap());
            let _ = body.send_trailers(fields);
        })
    });
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: c\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n");
    client.read_response_head();
    assert_eq!(client.read_chunk(), b"x");
    assert_eq!(client.read_trailers(), "x-sum: 2\r\n");
    let (content, trailers) = next(&trailers);
    assert_eq!(content, b"abc");
    assert_eq!(trailers.unwrap()["x-sum"], "1");
}

#[test]
fn answers_without_content_keep_their_length() {
    let server = Server::new(|mut asked| {
        Box::pin(async move {
            match asked.path().as_str() {
                "/head" => {
                    asked.start(Response::builder().header("content-length", 5), true);
                }
                "/204" => {
                    asked.start(Response::builder().status(204), true);
                }
                "/304" => {
                    let response = Response::builder().status(304);
                    asked.start(response.header("content-length", 7), true);
                }
                "/late" => {
                    let response = Response::builder().header("content-length", 0);
                    let mut body = asked.start(response, false);
                    let _ = body.send_data(Bytes::new(), true);
                }
                _ => {
                    asked.start(Response::builder(), true);
                }
            }
        })
    });
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    for (method, target, status, length) in [
        ("HEAD", "/head", 200, Some("5")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("7")),
        ("GET", "/empty", 200, Some("0")),
        ("GET", "/late", 200, Some("0")),
    ] {
        client.send(get(target).replace("GET", method));
        let head = client.read_response_head();
        assert_eq!(head.status(), status, "{target}");
        assert_eq!(head.one("content-length"), length, "{target}");
    }
    client.quiet();
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_edit_works_over_http_2() {
    let (seen, contents) = channel();
    let server = Server::new(move |mut asked| {
        let seen = seen.clone();
        Box::pin(async move {
            let length = asked.request.headers()["content-length"].clone();
            let _ = seen.send((asked.content().await.0, length));
            asked.answer("ok");
        })
    });
    let proxy = server
        .proxy()
        .env("SYSTEM_PROMPT_REPLACEMENT", "ours")
        .start();
    let tail = "x".repeat(300_000);
    let content = |prompt: &str| {
        format!(r#"{{"system":[{{"type":"text","text":"{prompt}"}}],"x":"{tail}"}}"#)
    };
    let response = proxy.send(post("/v1/messages", content("theirs")));
    assert_eq!(response.content(), b"ok");
    let (edited, length) = next(&contents);
    assert_octets(&edited, content("ours").as_bytes(), "the edit");
    assert_eq!(length.to_str().unwrap(), edited.len().to_string());
}

// ---- streams and connections ----

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
    }
    upstream.no_more();
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
        }
    }
    let end = std::time::Instant::now() + DEADLINE;
    while sockets() > before {
        assert!(std::time::Instant::now() < end, "{} > {before}", sockets());
        thread::sleep(Duration::from_millis(5));
    }
}

// ---- what may be sent again ----

#[test]
fn a_goaway_loses_nothing_that_was_not_processed() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut first = proxy.connect();
    first.send(post("/1", "one"));
    let mut raw = Raw::accept(&upstream, &[]);
    let below = raw.request();
    let mut second = proxy.connect();
    second.send(post("/2", "two"));
    let above = raw.request();
    assert!(above > below);
    raw.go_away(below);
    // the one above goes to another connection, whole
    let mut other = Raw::accept(&upstream, &[]);
    let again = other.request();
    let mut content = Vec::new();
    loop {
        let data = other.expect(DATA);
        content.extend_from_slice(&data.payload);
        if data.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(content, b"two");
    other.ok(again, b"again");
    assert_eq!(second.read_response("POST").content(), b"again");
    // the one below runs on
    raw.ok(below, b"below");
    assert_eq!(first.read_response("POST").content(), b"below");
    // and the connection, which has nothing more to do, ends
    while raw.read().is_some() {}
    upstream.no_more();
}

#[test]
fn a_goaway_at_an_idle_connection_costs_nothing() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    for _ in 0..10 {
        let mut client = proxy.connect();
        client.send(post("/", "{}"));
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.ok(stream, b"ok");
        raw.go_away(stream);
        assert_eq!(client.read_response("POST").content(), b"ok");
    }
    upstream.no_more();
}

#[test]
fn a_request_that_a_goaway_names_is_not_sent_again() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(post("/", "{}"));
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.go_away(stream);
    drop(raw);
    let response = client.read_response("POST");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    upstream.no_more();
}

#[test]
fn a_refused_stream_is_sent_again_and_others_are_not() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(post("/", "{}"));
    for _ in 0..2 {
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.reset(stream, REFUSED_STREAM);
    }
    let mut raw = Raw::accept(&upstream, &[]);
    let stream = raw.request();
    raw.ok(stream, b"ok");
    assert_eq!(client.read_response("POST").content(), b"ok");
    upstream.no_more();

    for reason in [CANCEL, INTERNAL_ERROR] {
        let mut client = proxy.connect();
        client.send(post("/", "{}"));
        let stream = raw.request();
        raw.reset(stream, reason);
        let response = client.read_response("POST");
        assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    }
    upstream.no_more();
}

#[test]
fn an_upstream_that_always_refuses_is_asked_three_times() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    for _ in 0..3 {
        let mut raw = Raw::accept(&upstream, &[]);
        let stream = raw.request();
        raw.reset(stream, REFUSED_STREAM);
    }
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    upstream.no_more();
}

// ---- several upstreams ----

#[test]
fn a_body_moves_on_from_one_http_2_upstream_to_the_next() {
    let busy = |status: u16| {
        let (seen, contents) = channel();
        let server = Server::new(move |mut asked| {
            let seen = seen.clone();
            Box::pin(async move {
                let _ = seen.send(asked.content().await);
                asked.start(Response::builder().status(status), true);
            })
        });
        (server, contents)
    };
    let ((first, asked), (second, got)) = (busy(529), busy(200));
    let whole = |content: &[u8]| {
        format!(
            "POST /x HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
            content.len(),
            String::from_utf8_lossy(content)
        )
    };
    let large = "x".repeat(200_000);
    for request in [
        get("/").into_bytes(),
        post("/v1/messages", "{}"),
        post("/v1/messages", &large),
        whole(b"abc").into_bytes(),
        whole(large.as_bytes()).into_bytes(),
    ] {
        // each on its own: the circuit of the first stays closed, and the budget has its three
        let proxy = http2(first.url())
            .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
            .start();
        assert_eq!(proxy.send(&request).status(), 200);
        let (content, trailers) = next(&asked);
        assert_eq!(contains(&request, b"X-Sum"), trailers.is_some());
        assert_eq!(next(&got), (content, trailers));
    }
}

#[test]
fn an_upload_that_still_runs_moves_on_from_http_2() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = http2(first.url())
        .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
        .start();
    let mut client = proxy.connect();
    client.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\none");
    let mut one = Raw::accept(&first, &[]);
    let stream = one.request();
    assert_eq!(one.expect(DATA).payload, b"one");
    let head = [&[0x08, 3][..], b"503"].concat();
    one.send(HEADERS, END_HEADERS | END_STREAM, stream, &head);
    let mut other = Raw::accept(&second, &[]);
    let stream = other.request();
    assert_eq!(other.expect(DATA).payload, b"one");
    client.send("twoend");
    let mut rest = Vec::new();
    while rest.len() < 6 {
        rest.extend(other.expect(DATA).payload);
    }
    assert_eq!(rest, b"twoend");
    other.ok(stream, b"ok");
    assert_eq!(client.read_response("POST").content(), b"ok");
    // what the first one has of it stays incomplete
    one.expect(RST_STREAM);
}

#[test]
fn an_upstream_that_always_refuses_is_left_for_the_next() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = http2(first.url())
        .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
        .start();
    let mut client = proxy.connect();
    client.send(post("/", "{}"));
    for _ in 0..3 {
        let mut raw = Raw::accept(&first, &[]);
        let stream = raw.request();
        raw.reset(stream, REFUSED_STREAM);
    }
    let mut raw = Raw::accept(&second, &[]);
    let stream = raw.request();
    assert_eq!(raw.expect(DATA).payload, b"{}");
    raw.ok(stream, b"ok");
    assert_eq!(client.read_response("POST").content(), b"ok");
    first.no_more();
}

// ---- ends ----

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
    fast();
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

// ---- bad upstreams ----

#[test]
fn a_head_that_is_too_large_is_502() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut raw = None;
    for large in [true, false] {
        let mut client = proxy.connect();
        client.send(get("/"));
        let raw = raw.get_or_insert_with(|| Raw::accept(&upstream, &[]));
        let stream = raw.request();
        let mut block = vec![0x88];
        if large {
            for at in 0..5 {
                block.extend_from_slice(&literal(&format!("x-{at}"), &[b'y'; 15_000]));
            }
        } else {
            (0..257).for_each(|_| block.extend_from_slice(&literal("x", b"y")));
        }
        let mut pieces = block.chunks(16_000);
        raw.send(HEADERS, 0, stream, pieces.next().unwrap());
        for piece in pieces {
            raw.send(9, 0, stream, piece);
        }
        raw.send(9, END_HEADERS, stream, &[]);
        let response = client.read_response("GET");
        assert_proxy_error(
            &response,
            502,
            "api_error",
            "http_response_header_section_size",
        );
    }
}

#[test]
fn a_flood_of_control_frames_ends_the_connection() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut raw = Raw::accept(&upstream, &[]);
    raw.request();
    let mut reader = raw.stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    let pings = frame(PING, 0, 0, &[1; 8]).repeat(500);
    let mut sent = 0;
    while raw.stream.write_all(&pings).is_ok() {
        sent += 500;
        assert!(sent < 10_000_000, "nobody ends it");
    }
    reading.join().unwrap();
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
}

#[test]
fn an_upstream_that_speaks_http_1_gives_an_error_that_says_so() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = upstream.accept();
    origin.read_exact(24);
    origin.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "http_protocol_error");
    assert!(contains(response.content(), b"UPSTREAM_HTTP_VERSION"));
}

#[test]
fn a_target_that_http_2_cannot_carry_is_400() {
    let server = Server::new(|mut asked| Box::pin(async move { asked.answer("ok") }));
    let proxy = server.proxy().start();
    let response = proxy.send(get("/a<b"));
    assert_proxy_error(
        &response,
        400,
        "invalid_request_error",
        "unsupported_target",
    );
}

// ---- TLS and the roads ----

/// A certificate for 127.0.0.1 whose server offers these protocols, and its authority.
fn identity(protocols: &[&str]) -> (String, Arc<rustls::ServerConfig>) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    (pem, Arc::new(config))
}

fn over_tls(version: &str, addr: SocketAddr, ca: &str) -> ProxyBuilder {
    let builder = http2(format!("https://{addr}")).env("UPSTREAM_HTTP_VERSION", version);
    let path = builder.path("ca.pem");
    builder
        .file("ca.pem", ca)
        .env("UPSTREAM_CA_FILE", path.display())
}

/// Plays HTTP/1.1 under TLS: one connection, `ok` to each request.
fn play_http1(upstream: Upstream, config: Arc<rustls::ServerConfig>) {
    thread::spawn(move || {
        loop {
            let stream = upstream.accept_stream();
            let session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut wire = rustls::StreamOwned::new(session, stream);
            let mut buffer = [0; 4096];
            while wire.read(&mut buffer).is_ok_and(|read| read > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh1";
                if wire.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
}

#[test]
fn alpn_chooses_http_2_where_both_speak_it() {
    let (ca, config) = identity(&["h2", "http/1.1"]);
    for version in ["2", "auto"] {
        let builder = h2::server::Builder::new();
        let server = Server::with(builder, Some(config.clone()), |mut asked| {
            Box::pin(async move {
                let scheme = asked.request.uri().scheme_str().unwrap().to_owned();
                asked.answer(scheme);
            })
        });
        let proxy = over_tls(version, server.addr, &ca).start();
        for _ in 0..3 {
            assert_eq!(proxy.send(get("/")).content(), b"https", "{version}");
        }
        assert_eq!(server.connections(), 1, "{version}");
    }
}

#[test]
fn auto_speaks_http_1_where_nothing_else_is_spoken() {
    for protocols in [&["http/1.1"][..], &[]] {
        let (ca, config) = identity(protocols);
        let upstream = Upstream::bind();
        let proxy = over_tls("auto", upstream.addr(), &ca).start();
        play_http1(upstream, config);
        for _ in 0..3 {
            assert_eq!(proxy.send(get("/")).content(), b"h1", "{protocols:?}");
        }
    }
}

#[test]
fn http_2_with_an_upstream_without_it_is_an_error_that_says_so() {
    for protocols in [&["http/1.1"][..], &[]] {
        let (ca, config) = identity(protocols);
        let upstream = Upstream::bind();
        let proxy = over_tls("2", upstream.addr(), &ca).start();
        play_http1(upstream, config);
        let response = proxy.send(get("/"));
        assert_proxy_error(&response, 502, "api_error", "tls_protocol_error");
        assert!(contains(response.content(), b"UPSTREAM_HTTP_VERSION"));
    }
}

#[test]
fn auto_without_tls_is_http_1() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_HTTP_VERSION", "auto")
        .start();
    assert_eq!(proxy.send(get("/")).content(), b"ok");
}

#[test]
fn prior_knowledge_goes_through_an_outbound_proxy_by_connect() {
    let outbound = Upstream::bind();
    let proxy = http2("http://upstream.invalid")
        .env("HTTP_PROXY", format!("http://u:p@{}", outbound.addr()))
        .start();
    let mut client = proxy.connect();
    client.send(get("/x"));
    let stream = outbound.accept_stream();
    let mut tunnel = crate::support::Wire::tcp(stream.try_clone().unwrap());
    let head = tunnel.read_request_head();
    assert_eq!(head.line, "CONNECT upstream.invalid:80 HTTP/1.1");
    // the server behind the tunnel may be the first to speak
    let settings = frame(SETTINGS, 0, 0, &[]);
    tunnel.send([b"HTTP/1.1 200 OK\r\n\r\n", &settings[..]].concat());
    let mut raw = Raw { stream };
    raw.stream.read_exact(&mut [0; 24]).unwrap();
    let request = raw.expect(HEADERS);
    assert!(!contains(&request.payload, b"proxy-authorization"));
    raw.ok(request.stream, b"ok");
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn who_waits_for_a_connection_that_was_given_up_waits_for_the_next_one() {
    let upstream = Upstream::bind();
    let proxy = http2(upstream.url()).env("WORKERS", 1).start();
    let mut first = proxy.connect();
    first.send(get("/first"));
    // connected, and not yet allowed to send
    let given_up = Raw::accept_silent(&upstream);
    let mut waiting: Vec<_> = (0..5)
        .map(|_| {
            let mut client = proxy.connect();
            client.send(get("/"));
            client
        })
        .collect();
    waiting[0].quiet();
    drop(first);
    let mut raw = Raw::accept(&upstream, &[]);
    drop(given_up);
    for _ in 0..5 {
        let stream = raw.request();
        raw.ok(stream, b"ok");
    }
    for client in &mut waiting {
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    upstream.no_more();
}
