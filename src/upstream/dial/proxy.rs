//! Connections through an outbound proxy: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, RFC
//! 1929).
//!
//! The connection to the proxy stands already. No error here repeats what was sent, since that
//! holds credentials; what is told of the proxy's answer is in `refusal`.

use std::net::SocketAddr;

use actix_web::http::header::HeaderValue;
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_socks::{TargetAddr, tcp::Socks5Stream};

use super::refusal::{OutboundProxyError, refused};
use crate::config::{OutboundRoute, ProxyAddress};

/// The value of `Proxy-Authorization` for requests in absolute-form. A SOCKS proxy got the
/// credentials when the connection was made; a direct upstream must not see them.
pub fn proxy_authorization(route: &OutboundRoute) -> Option<HeaderValue> {
    match route {
        OutboundRoute::HttpProxy(proxy) => {
            let mut value = HeaderValue::from_str(&basic(proxy)?).ok()?;
            value.set_sensitive(true);
            Some(value)
        }
        OutboundRoute::Direct | OutboundRoute::Socks5 { .. } => None,
    }
}

/// The protocol inside a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelProtocol {
    /// TLS: the server waits for our hello, and bytes that come first are not its own.
    Tls,
    /// HTTP/2: the server may begin with its SETTINGS, which stay in the socket (RFC 9113 §3.4).
    Http2,
}

/// Opens a tunnel to `host:port` with CONNECT.
pub(super) async fn connect(
    tcp: &mut TcpStream,
    proxy: &ProxyAddress,
    host: &str,
    port: u16,
    inside: TunnelProtocol,
) -> Result<(), OutboundProxyError> {
    // Authority-form always has a port (RFC 9112 §3.2.3), an IPv6 address its brackets.
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(credentials) = basic(proxy) {
        head.push_str("Proxy-Authorization: ");
        head.push_str(&credentials);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    tcp.write_all(head.as_bytes()).await?;
    read_answer(tcp, inside).await
}

/// Asks a SOCKS5 proxy for a connection to `target`.
pub(super) async fn socks5(
    tcp: TcpStream,
    proxy: &ProxyAddress,
    target: SocksTarget<'_>,
) -> Result<TcpStream, OutboundProxyError> {
    let target = match target {
        SocksTarget::Address(address) => TargetAddr::Ip(address),
        // The length goes into one octet (RFC 1928 §5).
        SocksTarget::Name(host, _) if host.len() > 255 => {
            return Err(tokio_socks::Error::InvalidTargetAddress("overlong name").into());
        }
        SocksTarget::Name(host, port) => TargetAddr::Domain(host.into(), port),
    };
    let stream = match &proxy.credentials {
        Some((user, password)) => {
            Socks5Stream::connect_with_password_and_socket(tcp, target, user, password).await?
        }
        None => Socks5Stream::connect_with_socket(tcp, target).await?,
    };
    Ok(stream.into_inner())
}

/// The destination that a SOCKS proxy connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocksTarget<'a> {
    /// An address, known or resolved by us.
    Address(SocketAddr),
    /// A name and a port, for the proxy to resolve.
    Name(&'a str, u16),
}

/// Any 2xx opens the tunnel, whatever fields it has (RFC 9110 §9.3.6). Octets are looked at before they
/// are taken, so that none behind the head is.
async fn read_answer(
    tcp: &mut TcpStream,
    inside: TunnelProtocol,
) -> Result<(), OutboundProxyError> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let taken = head.len();
        if taken == MAX_HEAD {
            return Err(OutboundProxyError::HeadTooLarge);
        }
        head.resize(MAX_HEAD, 0);
        let seen = tcp.peek(&mut head[taken..]).await?;
        head.truncate(taken + seen);
        if seen == 0 {
            return Err(OutboundProxyError::Closed);
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        let parsed = answer
            .parse(&head)
            .map_err(|_| OutboundProxyError::Malformed)?;
        let (end, code) = match parsed {
            httparse::Status::Complete(end) => (end, Some(answer.code)),
            httparse::Status::Partial => (head.len(), None),
        };
        let has_more = head.len() > end;
        if let Some(Some(status @ (..200 | 300..))) = code {
            // the octets that were seen are taken by the reader of its page
            let fields = answer.headers.to_vec();
            let mut taken_again = vec![0; end - taken];
            tcp.read_exact(&mut taken_again).await?;
            return Err(refused(tcp, status, &fields).await);
        }
        tcp.read_exact(&mut head[taken..end]).await?;
        return match code {
            None => continue,
            Some(Some(200..=299)) if has_more && inside == TunnelProtocol::Tls => {
                Err(OutboundProxyError::EarlyOctets)
            }
            Some(Some(_)) => Ok(()),
            Some(None) => Err(OutboundProxyError::Malformed),
        };
    }
}

/// RFC 7617.
fn basic(proxy: &ProxyAddress) -> Option<String> {
    let (user, password) = proxy.credentials.as_ref()?;
    Some(format!(
        "Basic {}",
        STANDARD.encode(format!("{user}:{password}"))
    ))
}

pub(super) const MAX_HEAD: usize = 16 * 1024;
/// As many as fit into 16 KiB would be thousands; proxies send about ten.
const MAX_FIELDS: usize = 128;
