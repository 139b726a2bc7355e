//! Dials over loopback against small servers on ports of the kernel's choice.

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    Dialer, Stream, Trust,
    resolve::tests::{Dns, local, name_server, names},
};
use crate::{
    config::{OutboundRoute, ProxyAddress, Scheme, Upstream},
    error::UpstreamError,
};

mod proxy;
mod tls;

/// Long enough never to expire on a busy machine.
const LONG: Duration = Duration::from_secs(30);
/// For what never comes.
const SHORT: Duration = Duration::from_millis(50);

/// A dialer with this hosts file and no name server.
fn dialer(trust: Trust, folder: &Path, hosts: &str) -> Dialer {
    let path = folder.join("hosts");
    fs::write(&path, hosts).unwrap();
    Dialer {
        trust,
        names: names(&path, None),
        listeners: Arc::new([]),
    }
}

/// A dialer that trusts the system and knows no name but those of `hosts`.
fn plain_dialer(folder: &Path, hosts: &str) -> Dialer {
    dialer(Trust::new(None), folder, hosts)
}

fn upstream(scheme: Scheme, host: &str, port: u16) -> Upstream {
    let (host, authority, prefix) = (host.to_owned(), String::new(), String::new());
    Upstream {
        scheme,
        host,
        port,
        authority,
        prefix,
    }
}

/// An error with all its sources, in both renderings.
fn chain(error: &UpstreamError) -> String {
    let mut text = format!("{error:?}");
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        text.push_str(&format!(" | {error}"));
        next = error.source();
    }
    text
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port of 127.0.0.1 without a listener.
async fn closed_port() -> u16 {
    listen().await.1.port()
}

/// Octets go and come back.
async fn assert_echo(stream: &mut Stream) {
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
}

async fn echo(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut buffer = [0; 4];
    if stream.read_exact(&mut buffer).await.is_ok() {
        stream.write_all(&buffer).await.unwrap();
        stream.flush().await.unwrap();
    }
}

#[tokio::test]
async fn http_is_plain_tcp_and_reads_no_trust_store() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Trust::new(Some(folder.path().join("missing.pem")));
    let dialer = dialer(broken, folder.path(), "127.0.0.1 api.test\n");
    let (listener, address) = listen().await;
    for host in ["127.0.0.1", "api.test", "localhost"] {
        let upstream = upstream(Scheme::Http, host, address.port());
        let server = async { echo(listener.accept().await.unwrap().0).await };
        let client = async {
            let mut stream = dialer
                .dial(&upstream, &OutboundRoute::Direct, LONG)
                .await
                .unwrap();
            assert!(matches!(stream, Stream::Tcp(_)));
            assert_eq!(stream.tcp().peer_addr().unwrap(), address);
            assert!(stream.tcp().nodelay().unwrap());
            assert_echo(&mut stream).await;
        };
        tokio::join!(server, client);
    }
    let https = upstream(Scheme::Https, "127.0.0.1", address.port());
    let error = dialer
        .dial(&https, &OutboundRoute::Direct, LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::TlsCertificateError(_)));
    assert!(chain(&error).contains("missing.pem"));
}

#[tokio::test]
async fn a_refusal_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let dialer = plain_dialer(folder.path(), "");
    for host in ["127.0.0.1", "localhost"] {
        let upstream = upstream(Scheme::Http, host, closed_port().await);
        let error = dialer
            .dial(&upstream, &OutboundRoute::Direct, LONG)
            .await
            .unwrap_err();
        assert!(
            matches!(error, UpstreamError::ConnectionRefused(_)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let (_listener, address) = listen().await;
    // Nothing listens on 127.0.0.2 and ::1 at this port.
    let hosts = "127.0.0.2 api.test\n127.0.0.1 api.test\n::1 api.test\n";
    let upstream = upstream(Scheme::Http, "api.test", address.port());
    let dialer = plain_dialer(folder.path(), hosts);
    let stream = dialer
        .dial(&upstream, &OutboundRoute::Direct, LONG)
        .await
        .unwrap();
    assert_eq!(stream.tcp().peer_addr().unwrap(), address);
}

#[tokio::test]
async fn dns_failures_are_told_apart() {
    local(Box::pin(async {
        let api = upstream(Scheme::Http, "api.test", 80);
        let missing = Path::new("/nonexistent");

        let without_names = Dialer {
            trust: Trust::new(None),
            names: names(missing, None),
            listeners: Arc::new([]),
        };
        let error = without_names
            .dial(&api, &OutboundRoute::Direct, LONG)
            .await
            .unwrap_err();
        assert!(matches!(error, UpstreamError::DnsError(_)));
        assert!(
            chain(&error).contains("/etc/resolv.conf"),
            "{}",
            chain(&error)
        );

        let (server, _) = name_server(Dns::Has(&[]), Dns::Has(&[])).await;
        let empty = Dialer {
            trust: Trust::new(None),
            names: names(missing, Some(server)),
            listeners: Arc::new([]),
        };
        let error = empty
            .dial(&api, &OutboundRoute::Direct, LONG)
            .await
            .unwrap_err();
        assert!(matches!(error, UpstreamError::DnsError(_)));
        assert!(
            chain(&error).contains("`api.test` has no address"),
            "{}",
            chain(&error)
        );

        let (server, _) = name_server(Dns::Silent, Dns::Silent).await;
        let silent = Dialer {
            trust: Trust::new(None),
            names: names(missing, Some(server)),
            listeners: Arc::new([]),
        };
        for patience in [SHORT, LONG] {
            let error = silent
                .dial(&api, &OutboundRoute::Direct, patience)
                .await
                .unwrap_err();
            assert!(matches!(error, UpstreamError::DnsTimeout), "{error:?}");
        }
    }))
    .await;
}

#[tokio::test]
async fn a_name_from_dns_is_dialled() {
    local(Box::pin(async {
        let (_listener, address) = listen().await;
        let (server, _) = name_server(Dns::Has(&["127.0.0.1"]), Dns::Has(&["::1"])).await;
        let names = names(Path::new("/nonexistent"), Some(server));
        let dialer = Dialer {
            trust: Trust::new(None),
            names,
            listeners: Arc::new([]),
        };
        let upstream = upstream(Scheme::Http, "api.test", address.port());
        let stream = dialer
            .dial(&upstream, &OutboundRoute::Direct, LONG)
            .await
            .unwrap();
        assert_eq!(stream.tcp().peer_addr().unwrap(), address);
    }))
    .await;
}

#[tokio::test]
async fn an_endless_timeout_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = upstream(Scheme::Http, "127.0.0.1", closed_port().await);
    let dialer = plain_dialer(folder.path(), "");
    assert!(
        dialer
            .dial(&upstream, &OutboundRoute::Direct, Duration::MAX)
            .await
            .is_err()
    );
}
