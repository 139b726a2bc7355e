//! Roads that meet: HTTP/2 over TLS, tunnels on streams, one version in and another out.

use bytes::Bytes;
use h2::Reason;

use crate::support::{
    Body, DEADLINE, End, Proxy, ProxyBuilder, Upstream, Wire, get,
    h2::{Client, request},
    noise, post,
    tls::Pair,
    upstream::OK,
    wire::assert_octets,
};

fn h2c(upstream: &Upstream) -> Proxy {
    Proxy::to(upstream.url()).env("H2C", "true").start()
}

/// A tunnel on a stream, and its end at the upstream.
struct Tunnel {
    client: Client,
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    origin: Wire,
    proxy: Proxy,
}

impl Tunnel {
    /// Whether the upstream's direction ends in order, with nothing before that.
    fn is_ended(&mut self) -> bool {
        loop {
            match self.client.wait(self.receive.data()) {
                // the end comes with an empty frame
                Some(Ok(octets)) if octets.is_empty() => {}
                Some(_) => return false,
                None => return self.receive.is_end_stream(),
            }
        }
    }
}

fn tunnel(upstream: &Upstream) -> Tunnel {
    let proxy = h2c(upstream);
    let mut client = Client::connect(&proxy);
    let health = client.get("/health");
    client.answer(health);
    let mut asked = request("CONNECT", "/chat?x");
    asked
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    asked
        .headers_mut()
        .insert("sec-websocket-protocol", "chat".parse().unwrap());
    let (response, send) = client.send(asked, false);
    let mut origin = upstream.accept();
    let head = origin.read_request_head();
    assert_eq!(head.line, "GET /chat?x HTTP/1.1");
    assert_eq!(head.one("upgrade"), Some("websocket"));
    assert_eq!(head.one("connection"), Some("upgrade"));
    assert_eq!(head.one("sec-websocket-protocol"), Some("chat"));
    let accept = websocket_accept(head.one("sec-websocket-key").unwrap());
    origin.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello"
    ));
    let (head, mut receive) = client.head(response).into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["sec-websocket-protocol"], "chat");
    assert!(!head.headers.contains_key("sec-websocket-accept"));
    assert_eq!(client.chunk(&mut receive), "hello");
    Tunnel {
        client,
        send,
        receive,
        origin,
        proxy,
    }
}

/// RFC 6455 §4.2.2.
fn websocket_accept(key: &str) -> String {
    use base64::Engine as _;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash)
}

#[test]
fn octets_pass_both_ways_on_a_stream() {
    let upstream = Upstream::bind();
    let mut tunnel = tunnel(&upstream);
    for round in 0..3 {
        let octets = noise(60_000 + round);
        tunnel
            .send
            .send_data(Bytes::from(octets.clone()), false)
            .unwrap();
        assert_octets(tunnel.origin.read_exact(octets.len()), &octets, "out");
        tunnel.origin.send(&octets);
        let mut back = Vec::new();
        while back.len() < octets.len() {
            back.extend(tunnel.client.chunk(&mut tunnel.receive));
        }
        assert_octets(back, octets, "back");
    }
}

#[test]
fn each_end_of_a_stream_ends_one_direction() {
    let upstream = Upstream::bind();
    // the client first
    let mut one = tunnel(&upstream);
    one.send
        .send_data(Bytes::from_static(b"bye"), true)
        .unwrap();
    assert_eq!(one.origin.read_to_end().0, b"bye");
    one.origin.send("later");
    assert_eq!(one.client.chunk(&mut one.receive), "later");
    one.origin.finish();
    assert!(one.is_ended());
    one.proxy
        .wait_for_line(|line| line.contains("status=101") && line.contains("ended=complete"));
    // the upstream first
    let mut two = tunnel(&upstream);
    two.origin.send("bye");
    two.origin.finish();
    assert_eq!(two.client.chunk(&mut two.receive), "bye");
    assert!(two.is_ended());
    two.send
        .send_data(Bytes::from_static(b"later"), true)
        .unwrap();
    assert_eq!(two.origin.read_to_end().0, b"later");
}

#[test]
fn an_abort_of_a_stream_or_of_its_upstream_reaches_the_other() {
    let upstream = Upstream::bind();
    let mut one = tunnel(&upstream);
    one.send.send_reset(Reason::CANCEL);
    one.origin.closed_within(std::time::Duration::from_secs(1));
    let mut two = tunnel(&upstream);
    two.origin.reset();
    let cause = two.client.wait(two.receive.data()).unwrap().unwrap_err();
    assert!(cause.is_reset(), "{cause}");
    // other streams of the connection go on
    let response = two.client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send(OK);
    assert_eq!(two.client.answer(response).content, b"ok");
}

#[test]
fn alpn_chooses_what_the_client_likes() {
    let upstream = Upstream::answering(|head, body| {
        let proto = head.one("x-forwarded-proto").unwrap().to_owned();
        let mut octets = format!(
            "HTTP/1.1 200 OK\r\nx-proto: {proto}\r\nContent-Length: {}\r\n\r\n",
            body.content().len()
        )
        .into_bytes();
        octets.extend(body.content());
        octets
    });
    let pair = Pair::new();
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let content = noise(60_000);
    let mut client = Client::over_tls(&pair, proxy.tls_addr());
    let asked = request("POST", "/v1/files");
    let response = client.post(asked, &content);
    let answer = client.answer(response);
    assert_eq!(answer.all("x-proto"), [b"https"]);
    assert_octets(answer.content, &content, "over HTTP/2");
    assert_eq!(upstream.request().1.content(), content);
    let mut client = pair.connect(proxy.tls_addr());
    client.send(post("/v1/files", &content));
    assert_octets(
        client.read_response("POST").content(),
        &content,
        "over HTTP/1.1",
    );
}

#[test]
fn a_truncated_answer_over_tls_and_http_2_is_a_reset() {
    let upstream = Upstream::bind();
    let pair = Pair::new();
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let mut client = Client::over_tls(&pair, proxy.tls_addr());
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    let (head, mut body) = client.head(response).into_parts();
    assert_eq!(client.chunk(&mut body), "half");
    drop(origin);
    let answer = client.rest(head, body);
    assert_eq!(answer.end.unwrap_err(), Some(Reason::INTERNAL_ERROR));
    // and a client that leaves ends what it asked for
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    drop(response);
    origin.closed_within(std::time::Duration::from_secs(1));
}

#[test]
fn failover_works_on_streams() {
    let first = Upstream::always("HTTP/1.1 529 Busy\r\nContent-Length: 0\r\n\r\n");
    let second = Upstream::ok();
    let proxy = ProxyBuilder::new()
        .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
        .env("H2C", "true")
        .start();
    let mut client = Client::connect(&proxy);
    let content = noise(50_000);
    let response = client.post(request("POST", "/v1/messages"), &content);
    assert_eq!(client.answer(response).content, b"ok");
    assert_octets(first.request().1.content(), &content, "first");
    assert_octets(second.request().1.content(), &content, "second");
}

#[test]
fn an_upgrade_that_the_first_upstream_refuses_by_failure_goes_to_the_next() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = ProxyBuilder::new()
        .env("API_BASE_URLS", format!("{},{}", first.url(), second.url()))
        .start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &first,
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly",
    );
    origin.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let mut origin = second.accept();
    assert_eq!(origin.read_request_head().one("upgrade"), Some("websocket"));
    origin.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    );
    assert_eq!(client.read_response_head().status(), 101);
    assert_eq!(origin.read_exact(5), b"early");
    origin.send("back");
    assert_eq!(client.read_exact(4), b"back");
}

#[test]
fn a_proxy_before_a_proxy_speaks_http_2_between_them() {
    // HTTP/1.1 in, HTTP/2 between, HTTP/1.1 out: what arrives is what was sent
    let upstream = Upstream::answering(|_, body| {
        let mut octets = format!(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: {}\r\n\r\n",
            body.content().len()
        )
        .into_bytes();
        octets.extend(body.content());
        octets
    });
    let far = Proxy::to(upstream.url()).env("H2C", "true").start();
    let near = Proxy::to(format!("http://{}", far.addr()))
        .env("UPSTREAM_HTTP_VERSION", "2")
        .start();
    let content = noise(3 << 20);
    let mut client = near.connect();
    let mut writer = client.clone_writer();
    let sent = post("/v1/files//x%2F?", &content);
    let writing = std::thread::spawn(move || writer.send(sent));
    let response = client.read_response("POST");
    writing.join().unwrap();
    assert_octets(response.content(), &content, "there and back");
    assert_eq!(response.head.all("set-cookie"), [b"a", b"b"]);
    let (head, body) = upstream.request();
    assert_eq!(head.target(), "/v1/files//x%2F?");
    assert_eq!(body, Body::Length(content));
    for _ in 0..20 {
        client.send(get("/v1/models"));
        assert_eq!(client.read_response("GET").status(), 200);
    }
}

const ASK: &str =
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const AGREED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";

/// Octets pass both ways through a tunnel that this client asked for.
#[track_caller]
fn carries<S: std::io::Read + std::io::Write>(client: &mut Wire<S>, upstream: &Upstream) -> Wire {
    client.send(ASK);
    let mut origin = upstream.accept();
    origin.read_request_head();
    origin.send(format!("{AGREED}first"));
    assert_eq!(client.read_response_head().status(), 101);
    assert_eq!(client.read_exact(5), b"first");
    let octets = noise(40_000);
    for _ in 0..5 {
        client.send(&octets);
        assert_octets(origin.read_exact(octets.len()), &octets, "out");
        origin.send(&octets);
        assert_octets(client.read_exact(octets.len()), &octets, "back");
    }
    origin
}

#[test]
fn a_tunnel_goes_through_tls_and_its_abort_is_no_end() {
    let upstream = Upstream::bind();
    let pair = Pair::new();
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let mut client = pair.connect(proxy.tls_addr());
    let origin = carries(&mut client, &upstream);
    origin.reset();
    // no close_notify: rustls calls it an error, which the wire tells as a reset
    assert_eq!(client.read_to_end().1, End::Reset);
    let mut client = pair.connect(proxy.tls_addr());
    let origin = carries(&mut client, &upstream);
    origin.finish();
    assert_eq!(client.read_to_end().1, End::Fin);
    let mut client = pair.connect(proxy.tls_addr());
    let mut origin = carries(&mut client, &upstream);
    client.reset();
    assert_eq!(
        origin.closed_within(std::time::Duration::from_secs(1)).1,
        End::Reset
    );
}

#[cfg(unix)]
#[test]
fn a_tunnel_goes_through_a_unix_socket() {
    let upstream = Upstream::bind();
    let builder = Proxy::to(upstream.url()).env("UNIX_SOCKET", "proxy.sock");
    let path = builder.path("proxy.sock");
    let proxy = builder.start();
    let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut client = Wire::new(stream);
    let mut origin = carries(&mut client, &upstream);
    drop(client);
    origin.closed_within(std::time::Duration::from_secs(1));
    // the other direction is the upstream's to end
    drop(origin);
    proxy.wait_for_line(|line| line.contains("status=101"));
}
