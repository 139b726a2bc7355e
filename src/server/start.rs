//! The servers of actix: one for the listeners of clients, with all workers, and one for the admin plane alone.

use std::{io, net::TcpListener, sync::Arc};
#[cfg(unix)]
use std::{path::PathBuf, time::Duration};

use actix_server::{Server, ServerBuilder};
use actix_service::fn_factory;

#[cfg(unix)]
use super::access::{self, ADMIN_SOCKET};
use super::{
    descriptors::Shares,
    inbound,
    listener::Listener,
    worker::{ListenerRole, SharedState, service},
};
use crate::config::Boot;

/// Starts the workers on the listeners.
pub(super) fn start(
    boot: &Boot,
    listeners: Vec<Listener>,
    shared: &SharedState,
) -> io::Result<Server> {
    let mut builder = builder(boot, boot.workers.get(), &shared.shares);
    for (index, listener) in listeners.into_iter().enumerate() {
        let (name, shared) = (format!("listener-{index}"), shared.clone());
        builder = match listener {
            Listener::Plain(socket) => builder.listen(name, socket, move || {
                let shared = shared.clone();
                fn_factory(move || service::<inbound::PlainTcp>(shared.clone(), ListenerRole::Main))
            })?,
            Listener::Tls(socket) => builder.listen(name, socket, move || {
                let shared = shared.clone();
                fn_factory(move || service::<inbound::TlsTcp>(shared.clone(), ListenerRole::Main))
            })?,
            #[cfg(unix)]
            Listener::Unix(socket) => builder.listen_uds(name, socket, move || {
                let shared = shared.clone();
                fn_factory(move || {
                    service::<inbound::UnixDomain>(shared.clone(), ListenerRole::Main)
                })
            })?,
        };
    }
    Ok(builder.run())
}

/// A listener of the admin plane alone.
pub(super) enum AdminListener {
    /// `ADMIN_LISTEN`.
    Tcp(TcpListener),
    /// The socket in `DATA_DIR`.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// Starts the admin plane's own worker, where it has a listener. It counts its connections by itself:
/// they take no place of clients, and no drain waits for them.
pub(super) fn start_admin(
    boot: &Boot,
    alone: Vec<AdminListener>,
    shared: &SharedState,
) -> io::Result<Option<Server>> {
    if alone.is_empty() {
        return Ok(None);
    }
    let mut shared = shared.clone();
    shared.limits = Arc::default();
    shared.shares.connections = shared.shares.admin;
    shared.workers = 1;
    let mut builder = builder(boot, 1, &shared.shares);
    for socket in alone {
        let shared = shared.clone();
        builder = match socket {
            AdminListener::Tcp(socket) => builder.listen("admin", socket, move || {
                let shared = shared.clone();
                fn_factory(move || {
                    service::<inbound::PlainTcp>(shared.clone(), ListenerRole::Admin)
                })
            })?,
            #[cfg(unix)]
            AdminListener::Unix(socket) => builder.listen_uds("operators", socket, move || {
                let shared = shared.clone();
                fn_factory(move || {
                    service::<inbound::UnixDomain>(shared.clone(), ListenerRole::Operators)
                })
            })?,
        };
    }
    Ok(Some(builder.run()))
}

fn builder(boot: &Boot, workers: usize, shares: &Shares) -> ServerBuilder {
    // We count connections ourselves, and answer some of those beyond the limit. This bounds what is
    // accepted and not yet counted: the rest waits in the kernel.
    let most = (shares.connections + shares.overflow).div_ceil(workers) + MOST_QUEUED;
    Server::build()
        .workers(workers)
        .disable_signals()
        .max_concurrent_connections(most)
        // the drain decides; this only must not be shorter
        .shutdown_timeout(boot.shutdown_timeout.as_secs() + 60)
}

/// Connections of one worker that are accepted and not yet counted: half of the descriptors that are
/// reserved for a worker.
const MOST_QUEUED: usize = 8;

/// Takes the socket of verbs once the server that has it has ended, and serves there until the end.
#[cfg(unix)]
pub(super) async fn listen_late(data_dir: PathBuf, boot: Boot, shared: SharedState) {
    loop {
        tokio::time::sleep(OPERATORS_INTERVAL).await;
        let (socket, _file) = match access::listen(&data_dir) {
            access::OperatorsSocket::Ours(socket, file) => (socket, file),
            access::OperatorsSocket::Occupied => continue,
            access::OperatorsSocket::Unusable => return,
        };
        match start_admin(&boot, vec![AdminListener::Unix(socket)], &shared) {
            Ok(Some(server)) => {
                log::info!(
                    "[Admin] the other server on DATA_DIR {} has ended: verbs on this machine reach this one now",
                    data_dir.display()
                );
                // it ends with the process
                let _ = server.await;
            }
            Ok(None) => {}
            Err(cause) => log::warn!(
                "[Admin] {} could not be served: {cause}; verbs on this machine need --server",
                data_dir.join(ADMIN_SOCKET).display()
            ),
        }
        return;
    }
}

/// Between looks at whether another server still has the socket of verbs.
#[cfg(unix)]
const OPERATORS_INTERVAL: Duration = Duration::from_millis(500);
