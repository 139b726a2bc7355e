//! TCP sockets to listen on, and what accepted ones inherit.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;
/// Keep-alive probes: first after this silence of a client, then at this interval, until the kernel
/// gives the connection up. A client may vanish while its upstream is silent, too, and nothing is on its
/// way to it that could time out.
const PROBE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15));
/// Octets that wait unsent in the kernel for one client: two writes of the largest size, so that the
/// network never waits for the worker.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;

/// Reason for which an address cannot be listened on. The first field is the variable that gave the port.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    #[error(
        "{0}: {1} is in use: stop what listens there (`ss -ltnp` tells what), or set {0} to another one"
    )]
    InUse(&'static str, SocketAddr),
    #[error(
        "{0}: no permission for {1}: ports below 1024 need a privilege; set {0} to a higher one"
    )]
    Denied(&'static str, SocketAddr),
    #[error("HOST: {0} is not an address of this machine")]
    NotOurs(SocketAddr),
    #[error("HOST, {0}: could not listen on {1}: {2}")]
    Other(&'static str, SocketAddr, #[source] io::Error),
}

/// Listens on all addresses, or on none. Their port comes from `variable`.
pub(super) fn bind(
    addresses: &[SocketAddr],
    variable: &'static str,
) -> Result<Vec<TcpListener>, BindError> {
    let mut port = None;
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let mut address = *address;
        if let (0, Some(port)) = (address.port(), port) {
            address.set_port(port); // the kernel chose one for the first; the others share it
        }
        let listener = listen(address).map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(variable, address),
            io::ErrorKind::PermissionDenied => BindError::Denied(variable, address),
            io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
            _ => BindError::Other(variable, address, cause),
        })?;
        port = listener.local_addr().ok().map(|address| address.port());
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `::` takes IPv4, too, whatever the system's default
        socket.set_only_v6(false)?;
    }
    bequeath(SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets what accepted sockets inherit: how many octets may wait in the kernel that were not sent yet.
/// Without it, these are megabytes for a slow reader.
///
/// There is no `TCP_USER_TIMEOUT`: it takes a window that stays closed, as that of a slow reader does,
/// for a peer that is gone. Clients are looked at by the connection itself.
pub(super) fn bequeath(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_keepalive(&PROBE)?;
    #[cfg(target_os = "linux")]
    return socket.set_tcp_notsent_lowat(UNSENT);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = bind(&[any], "PORT").unwrap();
        let address = first[0].local_addr().unwrap();
        let fault = bind(&[address], "TLS_PORT").unwrap_err();
        assert!(
            matches!(fault, BindError::InUse("TLS_PORT", busy) if busy == address),
            "{fault}"
        );
    }
}
