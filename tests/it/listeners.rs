//! Every other way in: Unix sockets, sockets that systemd passes, both families of IP; and the health
//! check, which finds them all.

use std::{
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::support::{
    DEADLINE, End, Proxy, ProxyBuilder, Upstream, Wire, assert_prompt, get,
    tls::{CERT, Pair},
};

#[track_caller]
fn connect(path: &Path) -> Wire<UnixStream> {
    let stream = UnixStream::connect(path).expect("the proxy accepts");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    Wire::new(stream)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn a_unix_socket_carries_exchanges_and_names_no_client() {
    let upstream = Upstream::ok();
    let builder = Proxy::to(upstream.url()).env("UNIX_SOCKET", "s");
    let path = builder.path("s");
    let proxy = builder.start();
    proxy.wait_for_line(|line| line.contains("listening on unix:s"));
    let mut client = connect(&path);
    for _ in 0..2 {
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
        let (head, _) = upstream.request();
        assert_eq!(head.one("x-forwarded-proto"), Some("http"));
        assert!(!head.has("x-forwarded-for"));
    }
    client.send(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n",
    );
    client.read_response("GET");
    assert_eq!(client.read_to_end(), (Vec::new(), End::Fin));
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-forwarded-for"), Some("192.0.2.1"));
    // the port is there as well
    assert_eq!(proxy.send(get("/")).content(), b"ok");
}

#[test]
fn a_client_that_leaves_a_unix_socket_closes_the_upstream() {
    let upstream = Upstream::bind();
    let builder = Proxy::to(upstream.url()).env("UNIX_SOCKET", "s");
    let path = builder.path("s");
    let _proxy = builder.start();
    let mut client = connect(&path);
    client.send(get("/"));
    let mut origin = upstream.accept();
    origin.read_request();
    drop(client);
    origin.closed_within(std::time::Duration::from_secs(1));
}

#[test]
fn a_unix_socket_is_for_owner_and_group_and_goes_with_the_process() {
    let upstream = Upstream::bind();
    let builder = Proxy::to(upstream.url()).env("UNIX_SOCKET", "s");
    let path = builder.path("s");
    let proxy = builder.start();
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let (mut idle, start) = (connect(&path), std::time::Instant::now());
    proxy.signal("TERM");
    assert_eq!(idle.read_to_end().1, End::Fin);
    let directory = proxy.wait_and_keep();
    assert!(!path.exists());
    assert_prompt(start, std::time::Duration::from_secs(3));
    drop(directory);
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let upstream = Upstream::ok();
    let builder = Proxy::to(upstream.url()).env("UNIX_SOCKET", "s");
    let path = builder.path("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _proxy = builder.start();
    let mut client = connect(&path);
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn what_stands_in_the_way_of_a_unix_socket_is_named_and_left_alone() {
    let fails = |builder: ProxyBuilder, says: &str, code: i32| {
        let ended = builder.run();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains("UNIX_SOCKET"), "{ended:?}");
        assert!(ended.stderr.contains(says), "{says}: {ended:?}");
    };
    let builder = ProxyBuilder::new().env("UNIX_SOCKET", "s");
    let taken = UnixListener::bind(builder.path("s")).unwrap();
    fails(builder, "is in use", 1);
    taken.set_nonblocking(true).unwrap();
    let builder = ProxyBuilder::new().env("UNIX_SOCKET", "f");
    fails(builder.file("f", "kept"), "not a socket", 2);
    let builder = ProxyBuilder::new().env("UNIX_SOCKET", "no/s");
    fails(builder, "does not exist", 2);
    let builder = ProxyBuilder::new().env("UNIX_SOCKET", "x".repeat(200));
    fails(builder, "too long", 2);
}

#[test]
fn both_families_reach_an_unspecified_ipv6_address() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // no IPv6 on this machine
    }
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).env("HOST", "::").start();
    let port = proxy.addr().port();
    for (host, client) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let mut wire = Wire::tcp(TcpStream::connect((host, port)).unwrap());
        wire.send(get("/"));
        assert_eq!(wire.read_response("GET").content(), b"ok");
        let (head, _) = upstream.request();
        let said = head.one("x-forwarded-for").unwrap();
        assert!(said.trim_matches(['[', ']']) == client, "{said}");
    }
    let ended = ProxyBuilder::new()
        .env("HOST", "::")
        .env("PORT", port)
        .arg("healthcheck")
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn passed_sockets_replace_those_of_the_settings() {
    let (upstream, taken) = (Upstream::ok(), listener());
    let passed = listener();
    let addr = passed.local_addr().unwrap();
    // PORT would fail
    let proxy = Proxy::to(upstream.url())
        .env("PORT", taken.local_addr().unwrap().port())
        .env("UNIX_SOCKET", "s")
        .sockets([(passed.into(), "proxy.socket")])
        .start();
    assert_eq!(proxy.addr(), addr);
    proxy.wait_for_line(|line| line.contains("LISTEN_FDS"));
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    assert!(!proxy.stderr().contains("unix:"), "{}", proxy.stderr());
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn passed_sockets_speak_what_their_names_say() {
    let (pair, upstream) = (Pair::new(), Upstream::ok());
    let (clear, secure) = (listener(), listener());
    let addrs = (clear.local_addr().unwrap(), secure.local_addr().unwrap());
    let proxy = pair
        .served(Proxy::to(upstream.url()))
        .sockets([(secure.into(), "https"), (clear.into(), "http")])
        .start();
    assert_eq!((proxy.addr(), proxy.tls_addr()), addrs);
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    let mut client = pair.connect(proxy.tls_addr());
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
}

#[test]
fn a_passed_socket_without_a_telling_name_speaks_what_port_would() {
    let pair = Pair::new();
    let upstream = Upstream::bind();
    let with_certificate = pair.served(Proxy::to(upstream.url()));
    let proxy = with_certificate.sockets([(listener().into(), "x")]).start();
    pair.connect(proxy.tls_addr());
    let with_both = pair.served(Proxy::to(upstream.url()).env("TLS_PORT", 0));
    let proxy = with_both.sockets([(listener().into(), "x")]).start();
    assert_eq!(proxy.send(get("/health")).status(), 200);
}

#[test]
fn a_passed_unix_socket_is_served_and_its_file_left_alone() {
    let upstream = Upstream::ok();
    let builder = Proxy::to(upstream.url());
    let path = builder.path("theirs");
    let passed = UnixListener::bind(&path).unwrap();
    let proxy = builder
        .sockets([(passed.into(), "a"), (listener().into(), "b")])
        .start();
    let mut client = connect(&path);
    client.send(get("/"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    proxy.signal("TERM");
    let _directory = proxy.wait_and_keep();
    assert!(path.exists());
}

#[test]
fn passed_sockets_that_cannot_be_used_are_named() {
    let fails = |builder: ProxyBuilder, code: i32, says: &str| {
        let ended = builder.run();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains("LISTEN_FDS: socket 3"), "{ended:?}");
        assert!(ended.stderr.contains(says), "{says}: {ended:?}");
    };
    let tls = ProxyBuilder::new().sockets([(listener().into(), "https")]);
    fails(tls, 2, "TLS_CERT_FILE");
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = ProxyBuilder::new().sockets([(datagram.into(), "x")]);
    fails(udp, 1, "neither a TCP nor a Unix stream socket");
    let listener = listener();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accept = ProxyBuilder::new().sockets([(connected.into(), "x")]);
    fails(accept, 1, "Accept=no");
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let upstream = Upstream::bind();
    let passed = listener();
    let addr = passed.local_addr().unwrap();
    let proxy = Proxy::to(upstream.url())
        .env("LISTEN_PID", 1)
        .sockets([(passed.into(), "x")])
        .start();
    assert_ne!(proxy.addr(), addr);
    proxy.wait_for_line(|line| line.contains("LISTEN_PID"));
}

#[test]
fn healthcheck_knows_the_certificate_of_a_tls_port() {
    let (pair, other, upstream) = (Pair::new(), Pair::new(), Upstream::bind());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let port = proxy.tls_addr().port();
    let check = |pair: &Pair| {
        pair.served(ProxyBuilder::new().env("PORT", port))
            .arg("healthcheck")
            .run()
    };
    assert_eq!(check(&pair).code, Some(0), "{:?}", check(&pair));
    let ended = check(&other);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("not that of TLS_CERT_FILE"),
        "{ended:?}"
    );
    // a pair that the server would refuse does not make it look sick
    let ended = pair
        .served(ProxyBuilder::new().env("PORT", port))
        .file("tls/key.pem", &other.key)
        .arg("healthcheck")
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // a client in clear is no client of this port
    let ended = ProxyBuilder::new()
        .env("PORT", port)
        .arg("healthcheck")
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn healthcheck_asks_an_https_url() {
    let (pair, upstream) = (Pair::new(), Upstream::bind());
    let proxy = pair.served(Proxy::to(upstream.url())).start();
    let url = format!("https://{}", proxy.tls_addr());
    let ask = |builder: ProxyBuilder| builder.arg("healthcheck").arg("--url").arg(&url).run();
    let own = ask(pair.served(ProxyBuilder::new()));
    assert_eq!(own.code, Some(0), "{own:?}");
    // by the system's store, which does not have it
    let ended = ask(ProxyBuilder::new());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    // nor does another certificate make it trusted; the store does, for its name
    let ended = ask(Pair::new().served(ProxyBuilder::new()));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let trusted = ProxyBuilder::new()
        .file(CERT, &pair.cert)
        .env("SSL_CERT_FILE", CERT);
    let url = format!("https://localhost:{}", proxy.tls_addr().port());
    let ended = trusted.arg("healthcheck").arg("--url").arg(&url).run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn healthcheck_asks_a_unix_socket() {
    let upstream = Upstream::bind();
    let builder = Proxy::to(upstream.url()).env("UNIX_SOCKET", "s");
    let path = builder.path("s");
    let proxy = builder.start();
    // the port is unknown, so it is the socket or nothing
    let check = || {
        ProxyBuilder::new()
            .env("UNIX_SOCKET", path.display())
            .arg("healthcheck")
            .run()
    };
    assert_eq!(check().code, Some(0), "{:?}", check());
    proxy.kill();
    assert_eq!(check().code, Some(1));
}
