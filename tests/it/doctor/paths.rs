//! The way to the upstream: names, addresses, outbound proxies, TLS, silence.

use std::{process::Command, thread, time::Duration};

use serde_json::Value;

use super::{answer_of, assert_check, check, closed_port, doctor, events, good, report, upstream};
use crate::support::{Identity, ProxyBuilder, Upstream, Wire};

#[test]
fn a_port_that_takes_no_connections_is_found() {
    let url = format!("http://127.0.0.1:{}", closed_port());
    let (report, ended) = report(doctor(url));
    assert_check(&report, "tcp", "fail", "nothing listens on port");
    assert_check(&report, "tls", "skip", "");
    assert_eq!(ended.code, Some(1));
}

#[test]
fn a_name_without_an_address_is_found() {
    let status = Command::new("unshare").args(["-m", "true"]).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("no mount namespace without a privilege: not tried here");
        return;
    }
    // nothing listens there, and the kernel says so at once
    let resolv = "nameserver 127.0.0.78\noptions timeout:1 attempts:1\n";
    let builder = doctor("http://no-such.test:1").names("127.0.0.1 localhost\n", resolv);
    let (found, ended) = report(builder);
    assert_check(&found, "dns", "fail", "/etc/resolv.conf");
    assert_eq!(ended.code, Some(1));
    // what this machine cannot resolve, the SOCKS proxy may
    let builder = doctor("https://no-such.test").names("127.0.0.1 localhost\n", resolv);
    let (found, _) = report(builder.env("HTTPS_PROXY", "socks5://127.0.0.1:1"));
    assert_check(
        &found,
        "outbound_proxy",
        "fail",
        "write socks5h://127.0.0.1:1",
    );
    // one of two addresses takes connections
    let upstream = upstream(|_, _| None);
    let url = format!("http://two.test:{}", upstream.addr().port());
    let builder = doctor(url).names("127.0.0.1 two.test\n127.0.0.79 two.test\n", resolv);
    let (found, ended) = report(builder);
    assert_check(&found, "dns", "ok", "");
    assert_check(&found, "tcp", "warn", "nothing listens on port");
    assert_check(&found, "models", "ok", "");
    assert_eq!(ended.code, Some(0), "{found:#}");
}

/// The report on an upstream behind an outbound proxy that gives one answer to CONNECT.
fn behind(scheme: &str, login: &str, answer: &'static [u8]) -> Value {
    let proxy = Upstream::bind();
    let url = format!("{scheme}://{login}{}", proxy.addr());
    let playing = thread::spawn(move || {
        let mut wire = proxy.accept();
        match answer.starts_with(b"HTTP") || answer.is_empty() {
            true => drop(wire.read_request_head()),
            false => drop(wire.read_exact(3)),
        }
        wire.send(answer);
    });
    let (report, ended) = report(doctor("https://api.test").env("HTTPS_PROXY", url));
    playing.join().unwrap();
    assert_eq!(ended.code, Some(1));
    report
}

#[test]
fn an_outbound_proxy_that_refuses_is_found() {
    const CHALLENGE: &[u8] = b"HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\n\
                               Proxy-Authenticate: NTLM\r\n\r\n";
    for (login, answer, fix) in [
        ("", &b"HTTP/1.1 407 X\r\n\r\n"[..], "http://user:password@"),
        (
            "canary:canary@",
            b"HTTP/1.1 407 X\r\n\r\n",
            "which the proxy refuses",
        ),
        ("canary:canary@", CHALLENGE, "cntlm"),
        ("canary:canary@", b"HTTP/1.1 403 X\r\n\r\n", "NO_PROXY"),
        ("", b"", "socks5h://127.0.0.1"),
    ] {
        let report = behind("http", login, answer);
        assert_check(&report, "outbound_proxy", "fail", fix);
    }
    // the scheme of the user stays
    let report = behind("socks5h", "", &[5, 0xff]);
    assert_check(
        &report,
        "outbound_proxy",
        "fail",
        "socks5h://user:password@",
    );
}

#[test]
fn the_answer_of_an_outbound_proxy_is_told_without_secrets() {
    let detail = |report: &Value| check(report, "outbound_proxy")["detail"].to_string();
    let page = b"HTTP/1.1 403 canary\r\nContent-Type: text/html\r\nContent-Length: 51\r\n\r\n\
                 <title>Access\n denied\x1b[1m</title><p>canary</p>    \r\n";
    let told = detail(&behind("http", "", page));
    let expected = "status 403, a page titled \\\"Access denied[1m\\\"";
    assert!(told.contains(expected), "{told}");
    let moved = b"HTTP/1.1 302 X\r\nLocation: http://sso.test/login?t=canary\r\n\r\n";
    let told = detail(&behind("http", "", moved));
    assert!(
        told.contains("status 302, which leads to http://sso.test"),
        "{told}"
    );
    let challenge = b"HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM, Digest realm=\"canary\"\r\n\r\n";
    let told = detail(&behind("http", "", challenge));
    assert!(told.contains("offers NTLM, Digest"), "{told}");
}

#[test]
fn an_http_proxy_behind_a_url_of_socks_is_found() {
    let proxy = Upstream::bind();
    let url = format!("socks5h://{}", proxy.addr());
    let playing = thread::spawn(move || {
        let mut wire = proxy.accept();
        wire.read_exact(3);
        wire.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let (report, _) = report(doctor("https://api.test").env("HTTPS_PROXY", url));
    playing.join().unwrap();
    assert_check(&report, "outbound_proxy", "fail", "write http://127.0.0.1");
}

#[test]
fn a_page_to_sign_in_is_one_failure_and_nothing_is_spent() {
    let page = upstream(|_, _| {
        let html = "<html><title>Sign in</title>";
        Some(answer_of(200, "Content-Type: text/html", html))
    });
    let bare = || doctor(page.url()).arg("--spend");
    let behind = || {
        doctor("http://api.test")
            .env("HTTP_PROXY", page.url())
            .arg("--spend")
    };
    for (builder, fix) in [
        (bare(), "API_BASE_URL"),
        (behind(), "operator of the HTTP proxy"),
    ] {
        let (report, ended) = report(builder);
        assert_check(&report, "models", "fail", fix);
        let detail = check(&report, "models")["detail"].as_str().unwrap();
        assert!(detail.contains("titled \"Sign in\""), "{detail}");
        for id in [
            "error_shape",
            "count_tokens",
            "unknown_betas",
            "stream",
            "silence",
        ] {
            assert_check(&report, id, "skip", "");
        }
        assert_eq!(report["counts"]["fail"], 1, "{report:#}");
        assert_eq!(ended.code, Some(1));
    }
}

#[test]
fn a_port_that_speaks_tls_is_told_from_a_server_in_clear() {
    let words = "<title>400 The plain HTTP request was sent to HTTPS port</title>";
    let nginx = upstream(move |_, _| Some(answer_of(400, "Content-Type: text/html", words)));
    let (found, _) = report(doctor(nginx.url()));
    assert_check(&found, "models", "fail", "https://");
    assert_eq!(found["counts"]["fail"], 1, "{found:#}");
    // others hang up
    let upstream = Upstream::bind();
    let url = upstream.url();
    thread::spawn(move || while upstream.next_stream().is_some() {});
    let (found, _) = report(doctor(url));
    assert_check(&found, "models", "fail", "try https://");
}

#[test]
fn the_way_of_ipv6_is_told_for_an_address_without_a_name() {
    // an address of documentation (RFC 3849), to which nothing leads
    let (report, _) = report(doctor("http://[2001:db8::1]:9"));
    let detail = check(&report, "dns")["detail"].as_str().unwrap();
    assert_eq!(detail, "2001:db8::1 is an address: no name is looked up");
    let remedy = check(&report, "tcp")["fix"].as_str().unwrap();
    assert!(!remedy.contains("leave it"), "{remedy}");
}

/// Plays an upstream with TLS that keeps the contract, for as long as the test runs.
fn play(identity: &Identity, upstream: Upstream) {
    let identity = identity.clone();
    thread::spawn(move || {
        while let Some(stream) = upstream.next_stream() {
            let mut wire = identity.accept(stream);
            thread::spawn(move || {
                // a handshake that the peer gives up ends it
                while let Some((head, body)) = wire.try_read_request() {
                    if wire.try_send(good(&head, &body)).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// The report on an upstream with TLS.
fn of_tls(identity: &Identity, change: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Value {
    let upstream = Upstream::bind();
    let url = format!("https://localhost:{}", upstream.addr().port());
    play(identity, upstream);
    // the system's store is not asked: it may have anything
    let none = Identity::of(&["nothing.test"]);
    let builder = doctor(url).file("none.pem", none.authority());
    let path = builder.path("none.pem");
    report(change(builder.env("SSL_CERT_FILE", path.display()))).0
}

#[test]
fn certificates_are_judged_and_their_authority_is_named() {
    const AUTHORITY: &str = "Authority of localhost";
    let identity = Identity::of(&["localhost"]);
    let report = of_tls(&identity, |it| it);
    assert_check(&report, "tls", "fail", "UPSTREAM_CA_FILE");
    assert!(
        check(&report, "tls")["detail"]
            .as_str()
            .unwrap()
            .contains(AUTHORITY),
        "{report:#}"
    );
    // its remedy is true
    let report = of_tls(&identity, |it| identity.trusted(it));
    assert_check(&report, "tls", "ok", "");
    assert_check(&report, "models", "ok", "");
    // the system trusts it, and no public authority signed it: an interceptor
    let report = of_tls(&identity, |it| {
        let path = it.path("corp.pem");
        it.file("corp.pem", identity.authority())
            .env("SSL_CERT_FILE", path.display())
    });
    assert_check(&report, "tls", "warn", AUTHORITY);
    assert_check(&report, "models", "ok", "");
    let expired = Identity::expired(&["localhost"]);
    let report = of_tls(&expired, |it| expired.trusted(it));
    assert_check(
        &report,
        "tls",
        "fail",
        "Authority of localhost, which signed it",
    );
    let other = Identity::of(&["other.test"]);
    let report = of_tls(&other, |it| other.trusted(it));
    assert_check(&report, "tls", "fail", "name that the certificate has");
    assert!(
        check(&report, "tls")["detail"]
            .as_str()
            .unwrap()
            .contains("but for other.test"),
        "{report:#}"
    );
    // the file of the setting has another authority
    let report = of_tls(&identity, |it| other.trusted(it));
    assert_check(
        &report,
        "tls",
        "fail",
        "add its certificate in PEM to that file",
    );
    let soon = Identity::ending_soon(&["localhost"]);
    let report = of_tls(&soon, |it| soon.trusted(it));
    assert_check(&report, "tls", "warn", "renew");
}

#[test]
fn an_upstream_without_tls_on_its_port_is_found() {
    let plain =
        Upstream::always("HTTP/1.1 400 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let (report, ended) = report(doctor(format!("https://127.0.0.1:{}", plain.addr().port())));
    assert_check(&report, "tls", "fail", "https://");
    assert_eq!(ended.code, Some(1));
}

#[test]
fn an_upstream_that_is_the_proxy_itself_is_found() {
    let itself = Upstream::ok();
    // a name hides it from the check of the configuration
    let url = format!("http://localhost.:{}", itself.addr().port());
    let (report, ended) = report(doctor(url).env("PORT", itself.addr().port()));
    let id = if check(&report, "settings")["status"] == "fail" {
        "settings"
    } else {
        "tcp"
    };
    assert_eq!(check(&report, id)["status"], "fail", "{report:#}");
    assert_eq!(ended.code, Some(1));
}

/// Plays one connection: answers as a good upstream, in pieces or not to the end.
fn play_plainly(mut wire: Wire, pause: Duration, ends_silence: bool) {
    thread::spawn(move || {
        while let Some(head) = wire.try_read_request_head() {
            let length: usize = head
                .one("content-length")
                .map_or(0, |it| it.parse().unwrap());
            // the question with silence in it is the smallest of its kind
            if ends_silence && head.target().ends_with("count_tokens") && length < 120 {
                return;
            }
            let Some(body) = wire.try_read_body(length) else {
                return;
            };
            if !crate::support::contains(body.content(), b"\"stream\":true") {
                if wire.try_send(good(&head, &body)).is_err() {
                    return;
                }
                continue;
            }
            wire.send("HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            for event in events() {
                wire.send_chunk(event.as_bytes());
                thread::sleep(pause);
            }
            wire.send("0\r\n\r\n");
        }
    });
}

fn playing(pause: Duration, ends_silence: bool) -> String {
    let upstream = Upstream::bind();
    let url = upstream.url();
    thread::spawn(move || {
        while let Some(stream) = upstream.next_stream() {
            play_plainly(Wire::tcp(stream), pause, ends_silence);
        }
    });
    url
}

#[test]
fn a_stream_that_comes_as_it_is_made_is_not_buffered() {
    // the pace is what is measured; a machine that stands still meanwhile makes it another one
    let url = playing(Duration::from_millis(60), false);
    let is_fine = (0..3).any(|_| {
        let (report, _) = report(doctor(&url).arg("--spend"));
        let stream = check(&report, "stream");
        assert_ne!(stream["status"], "fail", "{stream:#}");
        stream["status"] == "ok"
    });
    assert!(is_fine);
}

#[test]
fn a_connection_that_bears_no_silence_is_found() {
    let (found, ended) = report(doctor(playing(Duration::ZERO, true)).args(["--slow", "1"]));
    assert_check(&found, "silence", "fail", "proxy_read_timeout");
    assert_eq!(ended.code, Some(1));
    let (found, _) = report(doctor(playing(Duration::ZERO, false)).args(["--slow", "1"]));
    assert_check(&found, "silence", "ok", "");
}

#[test]
fn a_connection_that_is_dropped_without_a_word_is_found_with_its_setting() {
    let upstream = Upstream::bind();
    let url = upstream.url();
    // what a firewall forgets stands open, and nothing comes
    thread::spawn(move || {
        let mut kept = Vec::new();
        while let Some(stream) = upstream.next_stream() {
            kept.push(stream);
        }
    });
    let (found, _) = report(doctor(url).args(["--slow", "1"]));
    assert_check(&found, "silence", "fail", "UPSTREAM_KEEP_ALIVE below 1 s");
    let remedy = check(&found, "silence")["fix"].as_str().unwrap();
    assert!(!remedy.contains("docs.rs"), "{remedy}");
}
