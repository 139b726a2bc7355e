//! Bounds on an HTTP/2 upstream, and the choice of the version.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
    thread,
};

use super::{END_HEADERS, HEADERS, PING, Raw, SETTINGS, Server, frame, http2, identity, literal};
use crate::support::{Proxy, ProxyBuilder, Upstream, assert_proxy_error, contains, get};

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
