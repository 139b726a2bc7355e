//! TLS to the upstream, and the roads to it: HTTP proxies, CONNECT, SOCKS5.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::support::{
    DEADLINE, End, Identity, Proxy, Upstream, Wire, assert_aborted, assert_proxy_error, get, noise,
    post, upstream::OK, wire::assert_octets,
};

#[test]
fn tls_carries_exchanges_and_is_kept_alive() {
    let identity = Identity::of(&["127.0.0.1"]);
    let upstream = Upstream::bind();
    let proxy = identity
        .trusted(Proxy::to(format!("https://{}/base", upstream.addr())))
        .env("WORKERS", 1)
        .start();
    let mut client = proxy.connect();
    client.send(get("/1"));
    let mut origin = identity.accept(upstream.accept_stream());
    let (head, _) = origin.read_request();
    assert_eq!(head.target(), "/base/1");
    assert_eq!(head.one("host"), Some(upstream.addr().to_string().as_str()));
    assert_eq!(head.one("x-forwarded-proto"), Some("http"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");

    let content = noise(3_000_000);
    let request = post("/2", &content);
    let mut writer = client.clone_writer();
    let sending = std::thread::spawn(move || writer.send(request));
    let (_, body) = origin.read_request();
    sending.join().unwrap();
    assert_octets(body.content(), &content, "the content");
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let reading = std::thread::spawn(move || client.read_response("POST"));
    for piece in content.chunks(50_001) {
        origin.send_chunk(piece);
    }
    origin.send_chunk(b"");
    assert_octets(reading.join().unwrap().content(), &content, "the content");
    upstream.no_more();
}

#[test]
fn a_tunnel_over_tls_passes_ends_and_aborts() {
    const AGREED: &str = "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfirst";
    let identity = Identity::of(&["127.0.0.1"]);
    let upstream = Upstream::bind();
    let proxy = identity
        .trusted(Proxy::to(format!("https://{}", upstream.addr())))
        .start();
    let open = || {
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly");
        let mut origin = identity.accept(upstream.accept_stream());
        origin.read_request();
        origin.send(AGREED);
        assert_eq!(client.read_response_head().status(), 101);
        assert_eq!(client.read_exact(5), b"first");
        assert_eq!(origin.read_exact(5), b"early");
        (client, origin)
    };
    let (mut client, mut origin) = open();
    let mut writer = client.clone_writer();
    let sending = std::thread::spawn(move || writer.send(noise(1_000_000)));
    assert_octets(origin.read_exact(1_000_000), noise(1_000_000), "up");
    sending.join().unwrap();
    // an end is announced, and is of one direction
    client.finish();
    assert_eq!(origin.read_to_end(), (Vec::new(), End::Fin));
    let sending = std::thread::spawn(move || {
        origin.send(noise(1_000_000));
        origin
    });
    assert_octets(client.read_exact(1_000_000), noise(1_000_000), "down");
    // and one that is not announced is an abort
    drop(sending.join().unwrap());
    assert_eq!(client.read_to_end(), (Vec::new(), End::Reset));
    let (client, mut origin) = open();
    client.reset();
    assert_eq!(origin.read_to_end(), (Vec::new(), End::Reset));
}

#[test]
fn tls_to_a_name_goes_to_the_address_that_listens() {
    let identity = Identity::of(&["localhost"]);
    let upstream = Upstream::bind();
    let url = format!("https://localhost:{}", upstream.addr().port());
    let proxy = identity.trusted(Proxy::to(url)).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = identity.accept(upstream.accept_stream());
    let authority = format!("localhost:{}", upstream.addr().port());
    assert_eq!(
        origin.read_request().0.one("host"),
        Some(authority.as_str())
    );
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn tls_to_a_clear_text_port_is_502() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(format!("https://{}", upstream.addr())).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = upstream.accept();
    origin.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "tls_protocol_error");
}

#[test]
fn tls_that_ends_without_saying_so_is_never_a_clean_end() {
    let identity = Identity::of(&["127.0.0.1"]);
    let upstream = Upstream::bind();
    let proxy = identity
        .trusted(Proxy::to(format!("https://{}", upstream.addr())))
        .start();
    for framing in [
        "",
        "Content-Length: 9\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(get("/"));
        let stream = upstream.accept_stream();
        let mut origin = identity.accept(stream);
        origin.read_request();
        origin.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n5\r\nhalf"));
        let head = client.read_response_head();
        // No close_notify: anybody on the way could have done this.
        drop(origin);
        let body = client.read_response_body("GET", &head);
        let content: &[u8] = if framing.starts_with('T') {
            b"half"
        } else {
            b"5\r\nhalf"
        };
        assert_aborted(&head, &body, content);
    }
}

#[test]
fn an_http_proxy_is_asked_in_absolute_form() {
    let outbound = Upstream::bind();
    let proxy = Proxy::to("http://upstream.invalid:8000/base")
        .env(
            "HTTP_PROXY",
            format!("http://us%40er:pa%3Ass@{}", outbound.addr()),
        )
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .start();
    let mut client = proxy.connect();
    for target in ["/x?y", "//z/../"] {
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dGhlaXJz\r\n\r\n"
        ));
        let mut origin = outbound.accept();
        let (head, _) = origin.read_request();
        assert_eq!(
            head.target(),
            format!("http://upstream.invalid:8000/base{target}")
        );
        assert_eq!(head.one("host"), Some("upstream.invalid:8000"));
        // us@er:pa:ss
        assert_eq!(
            head.one("proxy-authorization"),
            Some("Basic dXNAZXI6cGE6c3M=")
        );
        origin.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
}

#[test]
fn an_asterisk_form_target_has_no_path_in_absolute_form() {
    // RFC 9112 §3.2.4: the last proxy before the origin makes `*` of it.
    let outbound = Upstream::ok();
    let proxy = Proxy::to("http://upstream.invalid")
        .env("HTTP_PROXY", outbound.url())
        .start();
    proxy.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(outbound.request().0.target(), "http://upstream.invalid");
}

#[test]
fn https_goes_through_an_http_proxy_by_connect() {
    let identity = Identity::of(&["upstream.invalid"]);
    let outbound = Upstream::bind();
    let builder = Proxy::to("https://upstream.invalid")
        .env(
            "https_proxy",
            format!("http://user:pass@{}", outbound.addr()),
        )
        .env("HTTP_PROXY", "http://127.0.0.1:9");
    let proxy = identity.trusted(builder).start();
    let mut client = proxy.connect();
    client.send(get("/x"));
    let stream = outbound.accept_stream();
    let mut tunnel = Wire::tcp(stream.try_clone().unwrap());
    let head = tunnel.read_request_head();
    assert_eq!(head.line, "CONNECT upstream.invalid:443 HTTP/1.1");
    assert_eq!(head.one("host"), Some("upstream.invalid:443"));
    assert_eq!(head.one("proxy-authorization"), Some("Basic dXNlcjpwYXNz"));
    // fields that mean nothing here
    tunnel.send_split(b"HTTP/1.0 200 Connection established\r\nContent-Length: 7\r\n\r\n");
    let mut origin = identity.accept(stream);
    let (head, _) = origin.read_request();
    assert_eq!(head.target(), "/x");
    assert_eq!(head.one("host"), Some("upstream.invalid"));
    assert!(
        !head.has("proxy-authorization"),
        "our credentials went past the proxy"
    );
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn a_proxy_that_refuses_is_502() {
    for answer in [
        "HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
    ] {
        let outbound = Upstream::bind();
        let proxy = Proxy::to("https://upstream.invalid")
            .env("HTTPS_PROXY", outbound.url())
            .start();
        let (mut client, mut tunnel) = proxy.begin_exchange(&outbound, get("/"));
        tunnel.send(answer);
        let response = client.read_response("GET");
        assert_proxy_error(&response, 502, "api_error", "proxy_connection_refused");
        // to try again helps where neither a login nor the policy is at fault
        let is_final = answer.contains("407") || answer.contains("403");
        let retries = response.head.one("x-should-retry");
        assert_eq!(retries == Some("false"), is_final, "{answer}");
        assert_eq!(
            crate::support::contains(response.content(), b"user:password@"),
            answer.contains("Basic"),
            "{answer}"
        );
        assert_eq!(
            crate::support::contains(response.content(), b"cntlm"),
            answer.contains("NTLM"),
            "{answer}"
        );
    }
}

#[test]
fn the_log_tells_the_page_of_a_proxy_that_refuses() {
    let outbound = Upstream::bind();
    let proxy = Proxy::to("https://upstream.invalid")
        .env("HTTPS_PROXY", outbound.url())
        .start();
    let (mut client, mut tunnel) = proxy.begin_exchange(&outbound, get("/"));
    tunnel.send(
        "HTTP/1.1 403 canary\r\nContent-Type: text/html\r\n\r\n<title>Blocked\n by \x1b[1mCorp</title>canary",
    );
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "proxy_connection_refused");
    let line = proxy.wait_for_line(|line| line.contains("status 403, a page titled"));
    assert!(line.contains("Blocked by [1mCorp"), "{line}");
    assert!(!line.contains("canary"), "{line}");
    for page in ["Blocked", "Corp"] {
        assert!(!crate::support::contains(
            response.content(),
            page.as_bytes()
        ));
    }
}

#[test]
fn a_challenge_of_the_outbound_proxy_is_not_for_the_client() {
    let challenge = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                     Proxy-Authenticate: Basic realm=\"corp\"\r\nContent-Length: 0\r\n\r\n";
    let outbound = Upstream::always(challenge);
    let proxy = Proxy::to("http://upstream.invalid")
        .env("HTTP_PROXY", outbound.url())
        .start();
    for _ in 0..2 {
        let response = proxy.send(get("/"));
        assert_proxy_error(&response, 502, "api_error", "proxy_connection_refused");
        assert!(!response.head.has("proxy-authenticate"));
        assert_eq!(response.head.one("x-should-retry"), Some("false"));
        assert_eq!(outbound.request().0.target(), "http://upstream.invalid/");
    }
    // an upstream that is asked directly may say what it likes
    let proxy = Proxy::to(outbound.url()).start();
    assert_eq!(proxy.send(get("/")).status(), 407);
}

#[test]
fn a_proxy_that_is_silent_is_504() {
    let outbound = Upstream::bind();
    let proxy = Proxy::to("https://upstream.invalid")
        .env("HTTPS_PROXY", outbound.url())
        .env("UPSTREAM_CONNECT_TIMEOUT", "300ms")
        .start();
    let (mut client, mut tunnel) = proxy.begin_exchange(&outbound, get("/"));
    let response = client.read_response("GET");
    assert_proxy_error(&response, 504, "timeout_error", "connection_timeout");
    tunnel.closed_within(Duration::from_secs(2));
}

#[test]
fn socks5h_lets_the_proxy_resolve() {
    let outbound = Upstream::bind();
    let proxy = Proxy::to("http://upstream.invalid:8000")
        .env(
            "ALL_PROXY",
            format!("socks5h://user:pass@{}", outbound.addr()),
        )
        .start();
    let mut client = proxy.connect();
    client.send(get("/x"));
    let mut stream = outbound.accept_stream();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    greet(&mut stream, Some(("user", "pass")));
    let mut request = vec![5, 1, 0, 3, 16];
    request.extend_from_slice(b"upstream.invalid");
    request.extend_from_slice(&8000_u16.to_be_bytes());
    assert_eq!(take(&mut stream, request.len()), request);
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut origin = Wire::tcp(stream);
    let (head, _) = origin.read_request();
    assert_eq!(head.target(), "/x", "origin-form: SOCKS knows no HTTP");
    assert_eq!(head.one("host"), Some("upstream.invalid:8000"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn socks5_resolves_here() {
    let outbound = Upstream::bind();
    let proxy = Proxy::to("http://127.0.0.2:8000")
        .env("all_proxy", format!("socks5://{}", outbound.addr()))
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut stream = outbound.accept_stream();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    greet(&mut stream, None);
    assert_eq!(
        take(&mut stream, 10),
        [5, 1, 0, 1, 127, 0, 0, 2, 0x1f, 0x40]
    );
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut origin = Wire::tcp(stream);
    origin.read_request();
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn https_goes_through_socks() {
    let identity = Identity::of(&["upstream.invalid"]);
    let outbound = Upstream::bind();
    let builder = Proxy::to("https://upstream.invalid")
        .env("HTTPS_PROXY", format!("socks5h://{}", outbound.addr()));
    let proxy = identity.trusted(builder).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut stream = outbound.accept_stream();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    greet(&mut stream, None);
    take(&mut stream, 5 + 16 + 2);
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut origin = identity.accept(stream);
    origin.read_request();
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn a_socks_proxy_that_refuses_is_502() {
    let outbound = Upstream::bind();
    let proxy = Proxy::to("http://upstream.invalid")
        .env("ALL_PROXY", format!("socks5h://{}", outbound.addr()))
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut stream = outbound.accept_stream();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    greet(&mut stream, None);
    take(&mut stream, 5 + 16 + 2);
    stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let response = client.read_response("GET");
    assert_proxy_error(&response, 502, "api_error", "proxy_connection_refused");
}

#[test]
fn no_proxy_goes_straight() {
    for no_proxy in [
        "127.0.0.1",
        "localhost, 127.0.0.0/8",
        "*",
        "127.0.0.1:{port}",
    ] {
        let upstream = Upstream::ok();
        let port = upstream.addr().port().to_string();
        let proxy = Proxy::to(upstream.url())
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("NO_PROXY", no_proxy.replace("{port}", &port))
            .start();
        assert_eq!(proxy.send(get("/")).status(), 200, "{no_proxy}");
        assert_eq!(upstream.request().0.target(), "/", "{no_proxy}");
    }
}

#[test]
fn no_proxy_for_others_changes_nothing() {
    let outbound = Upstream::ok();
    let proxy = Proxy::to("http://upstream.invalid")
        .env("HTTP_PROXY", outbound.url())
        .env(
            "NO_PROXY",
            "other.invalid,.sub.upstream.invalid,10.0.0.0/8,upstream.invalid:81",
        )
        .start();
    assert_eq!(proxy.send(get("/x")).status(), 200);
    assert_eq!(outbound.request().0.target(), "http://upstream.invalid/x");
}

/// The proxy's side of the SOCKS5 greeting (RFC 1928, RFC 1929).
#[track_caller]
fn greet(stream: &mut TcpStream, credentials: Option<(&str, &str)>) {
    let head = take(stream, 2);
    assert_eq!(head[0], 5);
    let methods = take(stream, head[1].into());
    let Some((user, password)) = credentials else {
        assert!(methods.contains(&0), "{methods:?}");
        stream.write_all(&[5, 0]).unwrap();
        return;
    };
    assert!(methods.contains(&2), "{methods:?}");
    stream.write_all(&[5, 2]).unwrap();
    let mut expected = vec![1, user.len() as u8];
    expected.extend_from_slice(user.as_bytes());
    expected.push(password.len() as u8);
    expected.extend_from_slice(password.as_bytes());
    assert_eq!(take(stream, expected.len()), expected);
    stream.write_all(&[1, 0]).unwrap();
}

#[track_caller]
fn take(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut octets = vec![0; count];
    stream
        .read_exact(&mut octets)
        .expect("the proxy speaks SOCKS5");
    octets
}
