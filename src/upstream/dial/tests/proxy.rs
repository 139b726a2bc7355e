//! Outbound proxies: the bytes that the dialer sends, and the report of each failure.

use super::{
    super::{proxy::MAX_HEAD, proxy_authorization},
    *,
};
use crate::config::{HttpVersion, Resolve};

fn proxy(port: u16, credentials: bool) -> ProxyAddress {
    let credentials = credentials.then(|| ("us:er".to_owned(), "pässword".to_owned()));
    ProxyAddress {
        host: "127.0.0.1".to_owned(),
        port,
        credentials,
    }
}

/// `us:er:pässword`; the colon is excluded by `config::route`, not here.
const BASIC: &str = "Basic dXM6ZXI6cMOkc3N3b3Jk";

fn assert_no_secret(error: &UpstreamError) {
    let text = chain(error);
    for secret in ["us:er", "pässword", "dXM6ZXI6", "hunter2"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Reads a head to its empty line.
async fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The head of CONNECT and the failure, for a proxy that answers `parts`, each in its own segment,
/// and closes.
async fn refused(host: &str, credentials: bool, parts: &[&[u8]]) -> (String, UpstreamError) {
    let folder = tempfile::tempdir().unwrap();
    let (listener, address) = listen().await;
    let server = async {
        let mut tcp = listener.accept().await.unwrap().0;
        tcp.set_nodelay(true).unwrap();
        let head = read_head(&mut tcp).await;
        for part in parts {
            // The client may have hung up already.
            let _ = tcp.write_all(part).await;
            tokio::task::yield_now().await;
        }
        head
    };
    let route = OutboundRoute::HttpProxy(proxy(address.port(), credentials));
    let upstream = upstream(Scheme::Https, host, 8443);
    let dialer = plain_dialer(folder.path(), "");
    let (head, result) = tokio::join!(server, dialer.dial(&upstream, &route, LONG));
    (head, result.unwrap_err())
}

#[tokio::test]
async fn connect_is_sent_as_rfc_9110_says() {
    let refusal: &[&[u8]] = &[b"HTTP/1.1 403 Forbidden\r\n\r\n"];
    let (head, _) = refused("api.test", false, refusal).await;
    assert_eq!(
        head,
        "CONNECT api.test:8443 HTTP/1.1\r\nHost: api.test:8443\r\n\r\n"
    );
    let (head, _) = refused("fd00::1", true, refusal).await;
    assert_eq!(
        head,
        format!(
            "CONNECT [fd00::1]:8443 HTTP/1.1\r\nHost: [fd00::1]:8443\r\n\
             Proxy-Authorization: {BASIC}\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn what_is_not_2xx_is_a_refusal_by_the_proxy() {
    let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    endless.resize(MAX_HEAD + 1, b'x');
    let table: [(&[&[u8]], &str); 10] = [
        (
            &[b"HTTP/1.1 407 hunter2\r\nProxy-Authenticate: Basic realm=hunter2\r\n\r\n"],
            "status 407",
        ),
        (
            &[b"HTTP/1.1 502 Bad Gateway\r\n", b"\r\nhunter2"],
            "status 502",
        ),
        (
            &[b"HTTP/1.1 302 Found\r\nLocation: http://sso.test/hunter2\r\n\r\n"],
            "status 302, which leads to http://sso.test",
        ),
        (
            &[
                b"HTTP/1.1 403 hunter2\r\nContent-Type: text/html\r\n\r\n<html><ti",
                b"tle>Denied\r\n by policy</title>hunter2",
            ],
            "status 403, a page titled \"Denied by policy\"",
        ),
        (&[b"HTTP/1.1 100 Continue\r\n\r\n"], "status 100"),
        (&[b"SSH-2.0-hunter2\r\n"], "not HTTP"),
        (&[b"HTTP/1.1 200 OK\r\n"], "closed"),
        (&[], "closed"),
        (&[b"HTTP/1.1 200 OK\r\n\r\nhunter2"], "unexpected bytes"),
        (&[&endless], "16 KiB"),
    ];
    for (parts, expected) in table {
        let (_, error) = refused("api.test", true, parts).await;
        assert!(
            matches!(error, UpstreamError::ProxyConnectionRefused(..)),
            "{error:?}"
        );
        assert!(
            chain(&error).contains(expected),
            "{expected}: {}",
            chain(&error)
        );
        assert_no_secret(&error);
    }
}

#[tokio::test]
async fn octets_that_come_with_the_tunnel_stay_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, address) = listen().await;
    for parts in [
        &[&b"HTTP/1.1 200 OK\r\n\r\nsettings"[..]][..],
        &[b"HTTP/1.1 200 OK\r\nx: y\r\n", b"\r", b"\nsett", b"ings"],
    ] {
        let server = async {
            let mut tcp = listener.accept().await.unwrap().0;
            tcp.set_nodelay(true).unwrap();
            read_head(&mut tcp).await;
            for part in parts {
                tcp.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            tcp
        };
        let client = async {
            let upstream = upstream(Scheme::Http, "api.test", 80);
            let route = OutboundRoute::HttpProxy(proxy(address.port(), false));
            let dialer = plain_dialer(folder.path(), "");
            let http = HttpVersion::Http2;
            let mut stream = dialer
                .dial_for(http, &upstream, &route, LONG)
                .await
                .unwrap();
            let mut first = [0; 8];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"settings");
        };
        tokio::join!(server, client);
    }
}

#[test]
fn proxy_authorization_is_for_http_proxies_and_not_for_show() {
    let value = proxy_authorization(&OutboundRoute::HttpProxy(proxy(1, true))).unwrap();
    assert_eq!(value, BASIC);
    assert!(value.is_sensitive());
    assert_eq!(format!("{value:?}"), "Sensitive");
    assert_eq!(
        proxy_authorization(&OutboundRoute::HttpProxy(proxy(1, false))),
        None
    );
    assert_eq!(proxy_authorization(&OutboundRoute::Direct), None);
    let socks = OutboundRoute::Socks5 {
        proxy: proxy(1, true),
        resolve: Resolve::AtProxy,
    };
    assert_eq!(proxy_authorization(&socks), None);
    assert!(!format!("{socks:?}").contains("word"));
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_not_told_as_the_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let dialer = plain_dialer(folder.path(), "");
    let upstream = upstream(Scheme::Https, "api.test", 443);
    let refusing = proxy(closed_port().await, true);
    let unknown = ProxyAddress {
        host: "proxy.test".to_owned(),
        ..refusing.clone()
    };
    for address in [refusing, unknown] {
        for route in [
            OutboundRoute::HttpProxy(address.clone()),
            OutboundRoute::Socks5 {
                proxy: address,
                resolve: Resolve::AtProxy,
            },
        ] {
            let error = dialer.dial(&upstream, &route, LONG).await.unwrap_err();
            assert!(
                matches!(error, UpstreamError::ProxyConnectionRefused(..)),
                "{error:?}"
            );
            assert_no_secret(&error);
        }
    }
}

#[tokio::test]
async fn a_silent_proxy_times_out() {
    let folder = tempfile::tempdir().unwrap();
    let (_listener, address) = listen().await;
    let upstream = upstream(Scheme::Https, "api.test", 443);
    let dialer = plain_dialer(folder.path(), "");
    let proxy = proxy(address.port(), false);
    for route in [
        OutboundRoute::HttpProxy(proxy.clone()),
        OutboundRoute::Socks5 {
            proxy,
            resolve: Resolve::AtProxy,
        },
    ] {
        let error = dialer.dial(&upstream, &route, SHORT).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::ConnectionTimeout),
            "{error:?}"
        );
    }
}

/// Plays a SOCKS5 proxy: each step is what must come, octet for octet, and what is answered.
async fn socks5(
    host: &str,
    resolve: Resolve,
    credentials: bool,
    steps: &[Step],
) -> Result<Stream, UpstreamError> {
    let folder = tempfile::tempdir().unwrap();
    let (listener, address) = listen().await;
    let server = async {
        let mut tcp = listener.accept().await.unwrap().0;
        for (expected, answer) in steps {
            let mut octets = vec![0; expected.len()];
            tcp.read_exact(&mut octets).await.unwrap();
            assert_eq!(&octets, expected);
            tcp.write_all(answer).await.unwrap();
        }
        echo(tcp).await;
    };
    let client = async {
        let upstream = upstream(Scheme::Http, host, 8080);
        let route = OutboundRoute::Socks5 {
            proxy: proxy(address.port(), credentials),
            resolve,
        };
        let dialer = plain_dialer(folder.path(), "fd00::7 api.test\n10.0.0.7 api.test\n");
        let mut stream = dialer.dial(&upstream, &route, LONG).await?;
        assert_echo(&mut stream).await;
        Ok(stream)
    };
    tokio::join!(server, client).1
}

/// The exchange that a client must make, and its result.
type Step = (&'static [u8], &'static [u8]);

const ANONYMOUS: Step = (&[5, 1, 0], &[5, 0]);
const BY_PASSWORD: Step = (&[5, 2, 0, 2], &[5, 2]);
const LOGIN: &[u8] = b"\x01\x05us:er\x09p\xc3\xa4ssword";
const DONE: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
/// 8080 is 0x1f90.
const NAME: &[u8] = b"\x05\x01\x00\x03\x08api.test\x1f\x90";

#[tokio::test]
async fn socks5_connects_by_name_or_by_address() {
    let ipv4 = b"\x05\x01\x00\x01\x0a\x00\x00\x07\x1f\x90";
    let ipv6 = b"\x05\x01\x00\x04\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\x1f\x90";
    let table: [(&str, Resolve, &[u8]); 5] = [
        ("api.test", Resolve::AtProxy, NAME),
        ("api.test", Resolve::Locally, ipv4),
        ("10.0.0.7", Resolve::AtProxy, ipv4),
        ("fd00::7", Resolve::AtProxy, ipv6),
        ("fd00::7", Resolve::Locally, ipv6),
    ];
    for (host, resolve, request) in table {
        socks5(host, resolve, false, &[ANONYMOUS, (request, DONE)])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn socks5_authenticates_when_asked() {
    let at = Resolve::AtProxy;
    socks5(
        "api.test",
        at,
        true,
        &[BY_PASSWORD, (LOGIN, &[1, 0]), (NAME, DONE)],
    )
    .await
    .unwrap();
    let not_asked = (BY_PASSWORD.0, ANONYMOUS.1);
    socks5("api.test", at, true, &[not_asked, (NAME, DONE)])
        .await
        .unwrap();
}

#[tokio::test]
async fn socks5_refusals_are_told_as_the_proxys() {
    let refused: &[u8] = &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0];
    let by_rule: &[u8] = &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0];
    let table: [(bool, &[Step]); 7] = [
        (false, &[ANONYMOUS, (NAME, refused)]),
        (false, &[ANONYMOUS, (NAME, by_rule)]),
        (false, &[(ANONYMOUS.0, &[5, 0xff])]),
        (false, &[(ANONYMOUS.0, &[5, 2])]),
        (false, &[(ANONYMOUS.0, &[5, 9])]),
        (false, &[(ANONYMOUS.0, b"HTTP/1.1 400 hunter2\r\n\r\n")]),
        (true, &[BY_PASSWORD, (LOGIN, &[1, 1])]),
    ];
    for (credentials, steps) in table {
        let error = socks5("api.test", Resolve::AtProxy, credentials, steps)
            .await
            .unwrap_err();
        assert!(
            matches!(error, UpstreamError::ProxyConnectionRefused(..)),
            "{error:?}"
        );
        assert_no_secret(&error);
    }
    let long = "a".repeat(256);
    let error = socks5(&long, Resolve::AtProxy, false, &[])
        .await
        .unwrap_err();
    assert!(
        matches!(error, UpstreamError::ProxyConnectionRefused(..)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_name_that_socks5_should_resolve_here_is_the_upstreams_failure() {
    let folder = tempfile::tempdir().unwrap();
    let dialer = plain_dialer(folder.path(), "");
    let upstream = upstream(Scheme::Http, "api.test", 80);
    let proxy = proxy(closed_port().await, false);
    let route = OutboundRoute::Socks5 {
        proxy,
        resolve: Resolve::Locally,
    };
    let error = dialer.dial(&upstream, &route, LONG).await.unwrap_err();
    assert!(matches!(error, UpstreamError::DnsError(_)), "{error:?}");
}
