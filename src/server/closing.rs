//! The end of listening, while the workers go on with what was accepted.
//!
//! Stopping actix-server drops what it has accepted and not yet begun to serve. So the sockets are shut
//! down first: the kernel refuses connections from then on, and the server is stopped once its workers
//! have taken what waits for them. A socket that was passed to us is another process's, too, and only
//! left alone: what comes there waits for the next one that listens.

use actix_server::ServerHandle;

use super::listener::Listener;

/// Handles on the sockets that are ours alone.
#[derive(Debug, Default)]
pub(super) struct Closing {
    sockets: Vec<socket2::Socket>,
}

impl Closing {
    /// Handles on these listeners; none if they were passed.
    pub(super) fn of(listeners: &[Listener], are_passed: bool) -> Self {
        if are_passed || !cfg!(target_os = "linux") {
            return Self::default();
        }
        Self {
            // one that is not had is closed with the server
            sockets: listeners.iter().filter_map(Listener::handle).collect(),
        }
    }

    /// Ends listening.
    pub(super) async fn close(&self, server: &ServerHandle) {
        crate::logging::hush_accept();
        for socket in &self.sockets {
            let _ = socket.shutdown(std::net::Shutdown::Read);
        }
        if cfg!(target_os = "linux") {
            server.pause().await;
        } else {
            // elsewhere a socket that listens is not shut down, but closed
            drop(server.stop(true));
        }
    }
}
