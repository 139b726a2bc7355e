//! One listening socket: its protocol, address and reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::doctor::ListenerTarget;

/// A socket that listens, and what is spoken on it.
#[derive(Debug)]
pub(super) enum Listener {
    /// HTTP over TCP.
    Plain(TcpListener),
    /// HTTP over TLS.
    Tls(TcpListener),
    /// HTTP over a Unix socket.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// As a URL would begin.
    pub(super) fn origin(&self) -> String {
        let tcp = |scheme: &str, listener: &TcpListener| match listener.local_addr() {
            Ok(address) => format!("{scheme}://{address}"),
            Err(_) => scheme.to_owned(),
        };
        match self {
            Self::Plain(listener) => tcp("http", listener),
            Self::Tls(listener) => tcp("https", listener),
            #[cfg(unix)]
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                match address.as_ref().and_then(|address| address.as_pathname()) {
                    Some(path) => format!("unix:{}", path.display()),
                    None => "unix:(no path)".to_owned(),
                }
            }
        }
    }

    /// Its address, if it has one of IP.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(listener) | Self::Tls(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    /// Place at which this machine reaches it.
    pub(super) fn target(&self) -> Option<ListenerTarget> {
        let reached = |address: SocketAddr| {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            SocketAddr::new(ip, address.port())
        };
        match self {
            Self::Plain(_) => Some(ListenerTarget::Plain(reached(self.address()?))),
            Self::Tls(_) => Some(ListenerTarget::Tls(reached(self.address()?))),
            #[cfg(unix)]
            Self::Unix(_) => Some(ListenerTarget::Unix(self.path()?)),
        }
    }

    /// The path of a Unix socket that has one.
    #[cfg(unix)]
    pub(super) fn path(&self) -> Option<std::path::PathBuf> {
        match self {
            Self::Unix(listener) => {
                let address = listener.local_addr().ok()?;
                address.as_pathname().map(ToOwned::to_owned)
            }
            Self::Plain(_) | Self::Tls(_) => None,
        }
    }

    /// The name by which the protocol of a passed socket is told.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Plain(_) => "http",
            Self::Tls(_) => "https",
            #[cfg(unix)]
            Self::Unix(_) => "unix",
        }
    }

    /// A second handle on the socket.
    pub(super) fn handle(&self) -> Option<socket2::Socket> {
        let socket = match self {
            Self::Plain(listener) | Self::Tls(listener) => {
                socket2::SockRef::from(listener).try_clone()
            }
            #[cfg(unix)]
            Self::Unix(listener) => socket2::SockRef::from(listener).try_clone(),
        };
        socket.ok()
    }

    /// Reports that the listener is reachable from this machine only.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Plain(listener) | Self::Tls(listener) => listener
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback()),
            #[cfg(unix)]
            Self::Unix(_) => true,
        }
    }
}
