//! HTTP/2 seen from outside: a client on the h2 crate for what clients do, and raw frames for what
//! they must not do.

use std::{
    future::Future,
    io::Read,
    net::{Shutdown, TcpStream},
    sync::mpsc,
    thread,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};

use super::{DEADLINE, End, Proxy, Wire, tls::Pair};

/// A client that keeps the rules.
pub(crate) struct Client {
    send: SendRequest<Bytes>,
    socket: TcpStream,
    runtime: tokio::runtime::Runtime,
}

/// A whole answer, or what there was of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) content: Vec<u8>,
    /// How it ended: with these trailers, or this reset.
    pub(crate) end: Result<HeaderMap, Option<Reason>>,
}

/// The settings of a client's first frame.
pub(crate) type Settings = h2::client::Builder;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

impl Client {
    /// Connects with prior knowledge.
    pub(crate) fn connect(proxy: &Proxy) -> Self {
        Self::with(proxy, &Settings::new())
    }

    /// Connects with settings.
    pub(crate) fn with(proxy: &Proxy, settings: &Settings) -> Self {
        Self::at(proxy.addr(), settings)
    }

    /// Connects to an address.
    pub(crate) fn at(addr: std::net::SocketAddr, settings: &Settings) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_nodelay(true).unwrap();
        let ours = socket.try_clone().unwrap();
        let (sender, receiver) = mpsc::channel();
        let settings = settings.clone();
        thread::spawn(move || {
            runtime().block_on(async move {
                ours.set_nonblocking(true).unwrap();
                let stream = tokio::net::TcpStream::from_std(ours).unwrap();
                let (send, connection) = settings.handshake(stream).await.unwrap();
                sender.send(send).unwrap();
                // its end is seen by the streams
                let _ = connection.await;
            });
        });
        Self {
            send: receiver.recv_timeout(DEADLINE).unwrap(),
            socket,
            runtime: runtime(),
        }
    }

    /// Connects over TLS, where ALPN has chosen HTTP/2.
    pub(crate) fn over_tls(pair: &Pair, addr: std::net::SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_nodelay(true).unwrap();
        let ours = socket.try_clone().unwrap();
        let mut config = (*pair.client(rustls::ALL_VERSIONS)).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            runtime().block_on(async move {
                ours.set_nonblocking(true).unwrap();
                let stream = tokio::net::TcpStream::from_std(ours).unwrap();
                let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
                let name = "localhost".try_into().unwrap();
                let stream = connector.connect(name, stream).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let (send, connection) = h2::client::handshake(stream).await.unwrap();
                sender.send(send).unwrap();
                let _ = connection.await;
            });
        });
        Self {
            send: receiver.recv_timeout(DEADLINE).unwrap(),
            socket,
            runtime: runtime(),
        }
    }

    /// Waits for what must happen soon.
    #[track_caller]
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let outcome = self
            .runtime
            .block_on(async { tokio::time::timeout(DEADLINE, future).await });
        outcome.expect("it happens within the deadline")
    }

    /// Sends a head.
    #[track_caller]
    pub(crate) fn send(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let send = self.send.clone();
        let mut send = self.wait(send.ready()).expect("the connection is open");
        send.send_request(request, ends).expect("a request is sent")
    }

    /// Sends a GET.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> ResponseFuture {
        self.send(request("GET", target), true).0
    }

    /// Sends a POST with content, as far as the windows allow.
    #[track_caller]
    pub(crate) fn post(&mut self, request: Request<()>, content: &[u8]) -> ResponseFuture {
        let (response, mut stream) = self.send(request, false);
        stream
            .send_data(Bytes::copy_from_slice(content), true)
            .unwrap();
        response
    }

    /// Waits for a head.
    #[track_caller]
    pub(crate) fn head(&self, response: ResponseFuture) -> Response<RecvStream> {
        self.wait(response).expect("there is an answer")
    }

    /// Waits for a whole answer.
    #[track_caller]
    pub(crate) fn answer(&self, response: ResponseFuture) -> Answer {
        let (head, body) = self.head(response).into_parts();
        self.rest(head, body)
    }

    /// Waits for the rest of an answer.
    #[track_caller]
    pub(crate) fn rest(&self, head: http::response::Parts, mut body: RecvStream) -> Answer {
        self.wait(async move {
            let mut content = Vec::new();
            loop {
                match body.data().await {
                    Some(Ok(octets)) => {
                        let _ = body.flow_control().release_capacity(octets.len());
                        content.extend_from_slice(&octets);
                    }
                    Some(Err(cause)) => {
                        return Answer {
                            head,
                            content,
                            end: Err(cause.reason()),
                        };
                    }
                    None => break,
                }
            }
            let trailers = body.trailers().await;
            Answer {
                head,
                content,
                end: trailers
                    .map(Option::unwrap_or_default)
                    .map_err(|cause| cause.reason()),
            }
        })
    }

    /// Waits for the next content.
    #[track_caller]
    pub(crate) fn chunk(&self, body: &mut RecvStream) -> Bytes {
        let octets = self.wait(body.data()).expect("there is more").unwrap();
        body.flow_control().release_capacity(octets.len()).unwrap();
        octets
    }

    /// Whether the server has said that it takes extended CONNECT.
    pub(crate) fn knows_extended_connect(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }

    /// Loses the connection.
    pub(crate) fn cut(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }
}

impl Answer {
    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The values of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        let values = self.head.headers.get_all(name).iter();
        values.map(http::HeaderValue::as_bytes).collect()
    }

    /// Asserts that it is the proxy's own, in Anthropic's shape, for this cause.
    #[track_caller]
    pub(crate) fn assert_proxy_error(&self, status: u16, kind: &str, label: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.all("x-proxy-error"), [label.as_bytes()]);
        let content: serde_json::Value = serde_json::from_slice(&self.content).unwrap();
        assert_eq!(content["error"]["type"], kind, "{content}");
        let id = content["request_id"].as_str().unwrap();
        assert_eq!(self.all("request-id"), [id.as_bytes()]);
    }
}

/// A request head.
pub(crate) fn request(method: &str, target: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://proxy.test{target}"))
        .body(())
        .unwrap()
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITY_FLAG: u8 = 0x20;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Frame {
    /// The octets.
    pub(crate) fn octets(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut octets = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        octets.extend([kind, flags]);
        octets.extend(stream.to_be_bytes());
        octets.extend(payload);
        octets
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub(crate) fn reason(&self) -> Reason {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload[at..at + 4].try_into().unwrap();
        Reason::from(u32::from_be_bytes(code))
    }
}

/// A header block of literals: neither Huffman nor tables (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut octets = Vec::new();
    for (name, value) in fields {
        octets.push(0);
        for text in [name, value] {
            let length = text.len();
            if length < 127 {
                octets.push(length as u8);
            } else {
                // RFC 7541 §5.1
                octets.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    octets.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                octets.push(rest as u8);
            }
            octets.extend_from_slice(text.as_bytes());
        }
    }
    octets
}

/// A GET, as the block of its HEADERS.
pub(crate) fn get_block(target: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "proxy.test"),
        (":path", target),
    ])
}

/// A connection of raw frames, whose prefaces are exchanged.
pub(crate) fn raw(proxy: &Proxy) -> Wire {
    let mut wire = proxy.connect();
    wire.send(PREFACE);
    wire.send(Frame::octets(SETTINGS, 0, 0, &[]));
    wire
}

impl Wire {
    /// Sends a frame.
    #[track_caller]
    pub(crate) fn send_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(Frame::octets(kind, flags, stream, payload));
    }

    /// Reads a frame.
    #[track_caller]
    pub(crate) fn read_frame(&mut self) -> Frame {
        let head = self.read_exact(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: self.read_exact(length as usize),
        }
    }

    /// Reads frames up to one of this kind.
    #[track_caller]
    pub(crate) fn read_until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.read_frame();
            if frame.kind == kind {
                return frame;
            }
            assert_ne!(frame.kind, GOAWAY, "{frame:?} {:?}", frame.reason());
        }
    }

    /// Sends frames for as long as they are taken, reading meanwhile; gives the reason of the GOAWAY
    /// if one came before the end.
    pub(crate) fn flood(mut self, frames: &[u8], most: usize) -> Option<Reason> {
        let writer = self.clone_writer();
        let (frames, mut writer) = (frames.to_vec(), writer);
        let sending = thread::spawn(move || (0..most).all(|_| writer.try_send(&frames).is_ok()));
        self.set_deadline(DEADLINE);
        let (octets, end) = self.read_to_end();
        assert!(
            !sending.join().unwrap() || end == End::Fin,
            "all of it was taken"
        );
        let mut rest = &octets[..];
        while rest.len() >= 9 {
            let mut head = [0; 9];
            rest.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if rest.len() < length {
                break;
            }
            let (payload, after) = rest.split_at(length);
            if head[3] == GOAWAY {
                let code = payload[4..8].try_into().unwrap();
                return Some(Reason::from(u32::from_be_bytes(code)));
            }
            rest = after;
        }
        None
    }
}
