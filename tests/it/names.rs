//! Names that hang or change, in a mount namespace with files of the test's own in the place of
//! `/etc/hosts` and `/etc/resolv.conf`. That needs a privilege: without it, the dialer's own tests hold
//! the same.

use std::{
    io::Write,
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::support::{ProxyBuilder, Upstream, Wire, assert_proxy_error, get, post, upstream::OK};

fn may_mount() -> bool {
    let status = Command::new("unshare").args(["-m", "true"]).status();
    let may = status.is_ok_and(|status| status.success());
    if !may {
        eprintln!("no mount namespace without a privilege: not tried here");
    }
    may
}

/// The next connection to a listener.
fn accept(listener: &TcpListener) -> Wire {
    Wire::tcp(listener.accept().unwrap().0)
}

#[test]
fn a_name_server_that_hangs_is_504_and_passed_over() {
    // bound, and silent: port 53 is what resolv.conf can name
    if !may_mount() {
        return;
    }
    let Ok(_silent) = UdpSocket::bind("127.0.0.77:53") else {
        eprintln!("no port 53 without a privilege: not tried here");
        return;
    };
    let other = Upstream::ok();
    let hanging = "http://upstream.test:9".to_owned();
    for urls in [hanging.clone(), format!("{hanging},{}", other.url())] {
        let proxy = ProxyBuilder::new()
            .env("API_BASE_URLS", &urls)
            .env("UPSTREAM_CONNECT_TIMEOUT", "300ms")
            .names("127.0.0.1 localhost\n", "nameserver 127.0.0.77\n")
            .start();
        let response = proxy.send(post("/v1/messages", "{}"));
        if urls == hanging {
            assert_proxy_error(&response, 504, "timeout_error", "dns_timeout");
        } else {
            assert_eq!(response.content(), b"ok");
            other.request();
        }
    }
}

#[test]
fn a_name_that_changes_is_followed_by_new_connections() {
    if !may_mount() {
        return;
    }
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let Ok(second) = TcpListener::bind(("127.0.0.2", port)) else {
        eprintln!("the port is taken on 127.0.0.2: not tried here");
        return;
    };
    let (sender, arrived) = mpsc::channel();
    thread::spawn(move || sender.send(accept(&second)));
    let proxy = ProxyBuilder::new()
        .env("API_BASE_URL", format!("http://upstream.test:{port}"))
        .names("127.0.0.1 upstream.test\n", "")
        .start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = accept(&first);
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.read_response("GET").content(), b"ok");
    drop((origin, first));
    // in place: what is mounted is the file, not its name
    let mut hosts = std::fs::File::create(proxy.path("hosts")).unwrap();
    hosts.write_all(b"127.0.0.2 upstream.test\n").unwrap();
    drop(hosts);
    // files are looked at every 5 s; until then nobody is there
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        assert!(Instant::now() < end, "the change was not seen");
        client.send(get("/"));
        if let Ok(mut origin) = arrived.recv_timeout(Duration::from_secs(1)) {
            origin.read_request();
            origin.send(OK);
            assert_eq!(client.read_response("GET").content(), b"ok");
            return;
        }
        let response = client.read_response("GET");
        assert_proxy_error(&response, 502, "api_error", "connection_refused");
    }
}
