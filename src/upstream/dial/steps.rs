//! The steps of a dial one by one, for a diagnosis: it tells which of them fails.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{Dialer, LONGEST_TIMEOUT, classify, exhausted, itself, stream};
use crate::{
    config::{HttpVersion, OutboundRoute, Upstream},
    error::UpstreamError,
};

impl Dialer {
    /// The addresses of a host, the preferred one first.
    ///
    /// # Errors
    /// There are none, or they are not known in time.
    pub async fn addresses(
        &self,
        host: &str,
        patience: Duration,
    ) -> Result<Vec<IpAddr>, UpstreamError> {
        let found = timeout(patience, self.names.resolve(host)).await;
        Ok(found.map_err(|_| UpstreamError::DnsTimeout)??)
    }

    /// Connects to one address, and closes the connection.
    ///
    /// # Errors
    /// It takes no connections, or is a listener of this process.
    pub async fn try_address(
        &self,
        address: SocketAddr,
        patience: Duration,
    ) -> Result<(), UpstreamError> {
        let tcp = timeout(patience, stream::connect(address))
            .await
            .map_err(|_| UpstreamError::ConnectionTimeout)?
            .map_err(classify)
            .map_err(exhausted::told)?;
        match itself::listener(&tcp, &self.listeners) {
            Some(listener) => Err(UpstreamError::LoopDetected(listener)),
            None => Ok(()),
        }
    }

    /// Connects to `upstream` by `route`, up to the handshake of TLS.
    ///
    /// # Errors
    /// See [`Dialer::dial_for`].
    pub async fn dial_in_clear(
        &self,
        http: HttpVersion,
        upstream: &Upstream,
        route: &OutboundRoute,
        patience: Duration,
    ) -> Result<TcpStream, UpstreamError> {
        let deadline = Instant::now() + patience.min(LONGEST_TIMEOUT);
        let dialled = self.tcp(http, upstream, route, deadline);
        dialled.await.map_err(exhausted::told)
    }
}
