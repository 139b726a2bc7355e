//! New connections for an upstream and a route: names, TCP, outbound proxies, TLS.
//!
//! One [`Dialer`] per worker. The steps, each in its file: `resolve` finds the addresses, `race`
//! connects to the first that answers, `proxy` asks an outbound proxy for a tunnel, `tls` makes the
//! handshake, with the authorities of `trust`. This file owns their order and their deadlines, and
//! classifies their failures. It pools nothing, retries nothing and sends no request.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

pub use self::{
    judged::{PeerCertificates, judged},
    proxy::proxy_authorization,
    refusal::proxy_challenge,
    stream::Stream,
    trust::{Trust, TrustStoreError, store, tls_config},
};
use self::{
    proxy::{SocksTarget, TunnelProtocol},
    race::race,
    refusal::OutboundProxyError,
    resolve::{HostResolver, ResolveError},
};
use crate::{
    config::{HttpVersion, OutboundRoute, ProxyAddress, Resolve, Scheme, Upstream},
    error::UpstreamError,
};

mod exhausted;
mod itself;
mod judged;
mod proxy;
mod race;
mod refusal;
mod resolve;
mod steps;
mod stream;
mod tls;
mod trust;
mod watched;

/// Makes connections for one worker. Cheap to create: files are read when they are first needed.
pub struct Dialer {
    trust: Trust,
    names: HostResolver,
    /// The listeners of this process.
    listeners: Arc<[SocketAddr]>,
}

impl Dialer {
    /// A dialer with the machine's own names. All workers share one [`Trust`].
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            names: HostResolver::system(),
            listeners: Arc::new([]),
        }
    }

    /// The same dialer, which refuses to connect to these listeners of the process itself.
    pub fn that_refuses(self, listeners: Arc<[SocketAddr]>) -> Self {
        Self { listeners, ..self }
    }

    /// Connects to `upstream` by `route`, to speak HTTP/1.1.
    ///
    /// # Errors
    /// See [`Dialer::dial_for`].
    pub async fn dial(
        &self,
        upstream: &Upstream,
        route: &OutboundRoute,
        connect_timeout: Duration,
    ) -> Result<Stream, UpstreamError> {
        self.dial_for(HttpVersion::Http11, upstream, route, connect_timeout)
            .await
    }

    /// Connects to `upstream` by `route`, to speak `http`: under TLS, ALPN offers what that allows.
    ///
    /// Names, TCP and the outbound proxy's handshake together have `connect_timeout`, and TLS has
    /// it again. With [`OutboundRoute::HttpProxy`] and an `http` upstream the connection is to the proxy,
    /// which expects targets in absolute-form and [`proxy_authorization`]; but HTTP/2 by prior
    /// knowledge needs a tunnel, since the proxy itself speaks HTTP/1.1.
    ///
    /// Dropping the future closes whatever it has opened.
    ///
    /// # Errors
    /// The step that failed. [`UpstreamError::TlsProtocolError`] also if only HTTP/2 would do and was
    /// not negotiated; [`UpstreamError::DescriptorsExhausted`] in whichever step that happened.
    pub async fn dial_for(
        &self,
        http: HttpVersion,
        upstream: &Upstream,
        route: &OutboundRoute,
        connect_timeout: Duration,
    ) -> Result<Stream, UpstreamError> {
        let dialled = self.dial_step_by_step(http, upstream, route, connect_timeout);
        dialled.await.map_err(exhausted::told)
    }

    async fn dial_step_by_step(
        &self,
        http: HttpVersion,
        upstream: &Upstream,
        route: &OutboundRoute,
        connect_timeout: Duration,
    ) -> Result<Stream, UpstreamError> {
        let tls =
            match upstream.scheme {
                Scheme::Http => None,
                Scheme::Https => Some(self.trust.config_for(http).map_err(|error| {
                    UpstreamError::TlsCertificateError(io::Error::other(error))
                })?),
            };
        let deadline = Instant::now() + connect_timeout.min(LONGEST_TIMEOUT);
        let tcp = self.tcp(http, upstream, route, deadline).await?;
        let Some(config) = tls else {
            return Ok(Stream::Tcp(tcp));
        };
        let handshake = tls::handshake(config, &upstream.host, tcp);
        let stream = match timeout(connect_timeout, handshake).await {
            Ok(tls) => Stream::Tls(Box::new(tls?)),
            Err(_) => return Err(UpstreamError::ConnectionTimeout),
        };
        if http == HttpVersion::Http2 && !stream.negotiated_http2() {
            return Err(UpstreamError::TlsProtocolError(io::Error::other(
                "the upstream did not negotiate HTTP/2 (ALPN), which UPSTREAM_HTTP_VERSION=2 asks for",
            )));
        }
        Ok(stream)
    }

    /// Connects by a route, up to the handshake of TLS.
    async fn tcp(
        &self,
        http: HttpVersion,
        upstream: &Upstream,
        route: &OutboundRoute,
        deadline: Instant,
    ) -> Result<TcpStream, UpstreamError> {
        match route {
            OutboundRoute::Direct => self.connect(&upstream.host, upstream.port, deadline).await,
            OutboundRoute::HttpProxy(proxy) => self.tunnel(http, upstream, proxy, deadline).await,
            OutboundRoute::Socks5 { proxy, resolve } => {
                self.socks5(upstream, proxy, *resolve, deadline).await
            }
        }
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<TcpStream, UpstreamError> {
        let addresses = timeout_at(deadline, self.names.resolve(host))
            .await
            .map_err(|_| UpstreamError::DnsTimeout)??;
        let tcp = timeout_at(deadline, race(&addresses, port, stream::connect))
            .await
            .map_err(|_| UpstreamError::ConnectionTimeout)?
            .map_err(classify)?;
        match itself::listener(&tcp, &self.listeners) {
            Some(listener) => Err(UpstreamError::LoopDetected(listener)),
            None => Ok(tcp),
        }
    }

    /// Connects to the HTTP proxy, and through it where the upstream speaks TLS or HTTP/2.
    async fn tunnel(
        &self,
        http: HttpVersion,
        upstream: &Upstream,
        proxy: &ProxyAddress,
        deadline: Instant,
    ) -> Result<TcpStream, UpstreamError> {
        let mut tcp = self.reach(proxy, deadline).await?;
        let inside = match (upstream.scheme, http) {
            (Scheme::Https, _) => Some(TunnelProtocol::Tls),
            (Scheme::Http, HttpVersion::Http2) => Some(TunnelProtocol::Http2),
            (Scheme::Http, HttpVersion::Http11 | HttpVersion::Auto) => None,
        };
        if let Some(inside) = inside {
            let connect = proxy::connect(&mut tcp, proxy, &upstream.host, upstream.port, inside);
            timeout_at(deadline, connect)
                .await
                .map_err(|_| UpstreamError::ConnectionTimeout)??;
        }
        Ok(tcp)
    }

    async fn socks5(
        &self,
        upstream: &Upstream,
        proxy: &ProxyAddress,
        resolve: Resolve,
        deadline: Instant,
    ) -> Result<TcpStream, UpstreamError> {
        let (host, port) = (upstream.host.as_str(), upstream.port);
        let target = match (host.parse(), resolve) {
            (Ok(address), _) => SocksTarget::Address(SocketAddr::new(address, port)),
            (Err(_), Resolve::AtProxy) => SocksTarget::Name(host, port),
            (Err(_), Resolve::Locally) => {
                let addresses = timeout_at(deadline, self.names.resolve(host))
                    .await
                    .map_err(|_| UpstreamError::DnsTimeout)??;
                // There is no racing through a proxy. It may well have no IPv6 where we have it.
                let address = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first());
                let Some(address) = address else {
                    return Err(ResolveError::NoAddress {
                        host: host.to_owned(),
                    }
                    .into());
                };
                SocksTarget::Address(SocketAddr::new(*address, port))
            }
        };
        let tcp = self.reach(proxy, deadline).await?;
        let tcp = timeout_at(deadline, proxy::socks5(tcp, proxy, target))
            .await
            .map_err(|_| UpstreamError::ConnectionTimeout)??;
        Ok(tcp)
    }

    /// Connects to an outbound proxy. Its failures are not reported as the upstream's: the advice
    /// would be about `API_BASE_URL`.
    async fn reach(
        &self,
        proxy: &ProxyAddress,
        deadline: Instant,
    ) -> Result<TcpStream, UpstreamError> {
        self.connect(&proxy.host, proxy.port, deadline)
            .await
            .map_err(|error| match error {
                UpstreamError::ConnectionTimeout | UpstreamError::DnsTimeout => {
                    UpstreamError::ConnectionTimeout
                }
                UpstreamError::ConnectionRefused(error)
                | UpstreamError::ConnectionFailed(error) => OutboundProxyError::Io(error).into(),
                UpstreamError::DnsError(error) => {
                    OutboundProxyError::Io(io::Error::other(error)).into()
                }
                other => other,
            })
    }
}

impl From<ResolveError> for UpstreamError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Timeout => Self::DnsTimeout,
            ResolveError::NotAName { .. }
            | ResolveError::NoNameServer { .. }
            | ResolveError::NoAddress { .. }
            | ResolveError::Failed { .. } => Self::DnsError(Box::new(error)),
        }
    }
}

fn classify(error: io::Error) -> UpstreamError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => UpstreamError::ConnectionRefused(error),
        // The kernel gave up before we did.
        io::ErrorKind::TimedOut => UpstreamError::ConnectionTimeout,
        _ => UpstreamError::ConnectionFailed(error),
    }
}

/// No clock overflows in a day.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests;
