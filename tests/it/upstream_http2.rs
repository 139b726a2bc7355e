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
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};

use crate::support::{DEADLINE, Proxy, ProxyBuilder, Upstream};

mod connections;
mod content;
mod flow;
mod negotiation;
mod sent_again;

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

// ---- streams and connections ----

// ---- what may be sent again ----

// ---- ends ----

// ---- bad upstreams ----

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
