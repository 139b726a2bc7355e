//! An upgrade: a new process gets the sockets, and this one learns that it has taken over.

use std::{io, net::TcpListener};

use super::{handover, listeners::Listeners};

/// Hand-over of the sockets to a new process.
pub(super) struct Upgrade {
    program: io::Result<handover::Program>,
    sockets: Vec<handover::Heirloom>,
    owner: handover::SocketOwner,
    successor: Option<handover::Successor>,
}

impl Upgrade {
    pub(super) fn prepare(listeners: &Listeners, admin: &[TcpListener]) -> Self {
        Self {
            program: handover::Program::current(),
            sockets: listeners.heirlooms(admin),
            owner: match listeners.are_passed {
                true => handover::SocketOwner::Manager,
                false => handover::SocketOwner::Program,
            },
            successor: None,
        }
    }

    /// Starts a new process, unless one is starting.
    pub(super) fn begin(&mut self) {
        if let Some(successor) = &self.successor {
            log::warn!(
                "[Upgrade] process {} is starting already; a second request changes nothing",
                successor.id()
            );
            return;
        }
        let program = match &self.program {
            Ok(program) => program,
            Err(cause) => {
                log::error!(
                    "[Upgrade] the program's own file is not known: {cause}; this process goes on"
                );
                return;
            }
        };
        match program.start(&self.sockets, self.owner) {
            Ok(successor) => {
                log::info!(
                    "[Upgrade] process {} is starting with this one's sockets",
                    successor.id()
                );
                self.successor = Some(successor);
            }
            Err(fault) => log::error!("[Upgrade] {fault}; this process goes on"),
        }
    }

    /// Waits until a new process has taken over, and gives its id. May be dropped and called again.
    pub(super) async fn taken_over(&mut self) -> u32 {
        loop {
            let Some(successor) = &mut self.successor else {
                return std::future::pending().await;
            };
            let id = successor.id();
            let outcome = successor.ready().await;
            // it is on its own now, or has ended
            self.successor = None;
            match outcome {
                Ok(()) => return id,
                Err(fault) => log::error!("[Upgrade] {fault}; this process goes on"),
            }
        }
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        // this process ends: one that is not ready yet would be left without its place
        if let Some(successor) = &mut self.successor {
            successor.end();
        }
    }
}
