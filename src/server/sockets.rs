//! TCP sockets to listen on, and how many connections the process can have.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;
/// File descriptors that are not connections: standard streams, listeners, the reactors of main and
/// workers, files being reloaded, sockets to a resolver.
const RESERVED_FILES: u64 = 64;
const RESERVED_FILES_PER_WORKER: u64 = 16;

/// Why an address cannot be listened on. The first of each is the variable that gave the port.
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
    write_timeout: Duration,
) -> Result<Vec<TcpListener>, BindError> {
    let mut port = None;
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let mut address = *address;
        if let (0, Some(port)) = (address.port(), port) {
            address.set_port(port); // the kernel chose one for the first; the others share it
        }
        let listener = listen(address, write_timeout).map_err(|cause| match cause.kind() {
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

fn listen(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
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
    bequeath(SockRef::from(&socket), write_timeout)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets what accepted sockets inherit: a peer that vanished while data is on its way ends the
/// connection.
pub(super) fn bequeath(socket: SockRef<'_>, write_timeout: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return socket.set_tcp_user_timeout(Some(write_timeout));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (socket, write_timeout);
        Ok(())
    }
}

/// How many connections may be open: as asked, or what the limit of file descriptors leaves. A
/// connection may need two, its own and one to the upstream.
pub(super) fn connection_limit(asked: usize, workers: usize) -> usize {
    let needed = 2 * asked as u64 + reserved(workers);
    let files = match rlimit::increase_nofile_limit(needed) {
        Ok(files) => files,
        Err(cause) => {
            log::warn!("[Proxy] could not read the limit of open files: {cause}");
            return asked;
        }
    };
    let limit = limit(asked, workers, files);
    if limit < asked {
        log::warn!(
            "[Proxy] MAX_CONNECTIONS={asked} needs {needed} open files, the limit is {files}: using {limit}; raise it with `ulimit -n`, LimitNOFILE= or ulimits.nofile"
        );
    }
    limit
}

fn reserved(workers: usize) -> u64 {
    RESERVED_FILES + RESERVED_FILES_PER_WORKER * workers as u64
}

fn limit(asked: usize, workers: usize, files: u64) -> usize {
    let free = files.saturating_sub(reserved(workers)) / 2;
    asked
        .min(usize::try_from(free).unwrap_or(usize::MAX))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_leaves_a_reserve() {
        assert_eq!(limit(25_000, 2, 1_048_576), 25_000);
        assert_eq!(limit(25_000, 2, 1024), (1024 - 64 - 32) / 2);
        assert_eq!(limit(25_000, 64, 256), 1);
    }

    #[test]
    fn a_busy_port_is_named() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = bind(&[any], "PORT", Duration::from_secs(1)).unwrap();
        let address = first[0].local_addr().unwrap();
        let fault = bind(&[address], "TLS_PORT", Duration::from_secs(1)).unwrap_err();
        assert!(
            matches!(fault, BindError::InUse("TLS_PORT", busy) if busy == address),
            "{fault}"
        );
    }
}
