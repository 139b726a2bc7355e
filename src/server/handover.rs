//! Hand-over to a new process of the program: it gets the listening sockets, and once it is ready, this one
//! stops accepting and runs on until its exchanges have ended.
//!
//! The sockets go as systemd passes them (`LISTEN_FDS`, `LISTEN_FDNAMES`), with one more behind them, on which
//! the new process says `READY=1`. Both processes have the same sockets, so that no connection is refused or
//! lost between them. A new process that ends before it is ready, or is not ready in time, changes nothing.

use std::{
    env,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt as _, FdMapping};

/// Variable by which a process knows that it takes over, and whose the sockets are.
const VARIABLE: &str = "ANTHROPIC_PROXY_HANDOVER";
/// Value of [`VARIABLE`] where the process that hands over has made the sockets.
const OWN: &str = "own";
/// Value of [`VARIABLE`] where it got them from systemd.
const PASSED: &str = "passed";
/// Name of the socket on which the new process says that it is ready.
pub(super) const READY: &str = "handover-ready";
/// Name of a socket of `ADMIN_LISTEN`.
pub(super) const ADMIN: &str = "handover-admin";

/// For the new process to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at whether the new process still runs.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Reason for which the sockets were not handed over; this process goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    #[error("no new process could be started from {path}: {1}", path = .0.display())]
    NotStarted(PathBuf, #[source] io::Error),
    #[error("the new process ended ({0}) before it was ready; its log says why")]
    Ended(ExitStatus),
    #[error("the new process was not ready within {} s and was ended; its log says why", PATIENCE.as_secs())]
    Late,
    #[error("the new process was lost: {0}")]
    Lost(#[source] io::Error),
}

/// The program as it was started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// Owner of sockets that were inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketOwner {
    /// The program: the process that handed over had made them.
    Program,
    /// systemd.
    Manager,
}

impl SocketOwner {
    /// The owner of this process's inherited sockets, if it takes over from another one.
    pub(super) fn of_handover() -> Option<Self> {
        match env::var(VARIABLE).ok()?.as_str() {
            OWN => Some(Self::Program),
            PASSED => Some(Self::Manager),
            _ => None,
        }
    }
}

/// A socket to hand over, and its name.
pub(super) struct Heirloom {
    pub(super) socket: socket2::Socket,
    pub(super) name: &'static str,
}

/// A new process that is not ready yet.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    ready: tokio::net::UnixDatagram,
    until: Instant,
}

impl Program {
    /// The program of this process. Asked for at the start: the file may be replaced later, and then its name is
    /// that of the new one.
    pub(super) fn current() -> io::Result<Self> {
        Ok(Self {
            path: env::current_exe()?,
            arguments: env::args_os().skip(1).collect(),
        })
    }

    /// Starts a new process with these sockets.
    ///
    /// # Errors
    /// If the system refuses it.
    pub(super) fn start(
        &self,
        sockets: &[Heirloom],
        owner: SocketOwner,
    ) -> Result<Successor, HandoverError> {
        self.spawn(sockets, owner)
            .map_err(|cause| HandoverError::NotStarted(self.path.clone(), cause))
    }

    fn spawn(&self, sockets: &[Heirloom], owner: SocketOwner) -> io::Result<Successor> {
        let (ready, theirs) = UnixDatagram::pair()?;
        ready.set_nonblocking(true)?;
        let mut passed = Vec::with_capacity(sockets.len() + 1);
        for heirloom in sockets {
            passed.push(OwnedFd::from(heirloom.socket.try_clone()?));
        }
        passed.push(OwnedFd::from(theirs));
        let names: Vec<&str> = sockets.iter().map(|it| it.name).chain([READY]).collect();
        let count = passed.len();
        let mappings = (FIRST..).zip(passed);
        let mappings = mappings.map(|(child_fd, parent_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            // they name this process
            .env_remove("LISTEN_PID")
            .env_remove("WATCHDOG_PID")
            .env(
                VARIABLE,
                match owner {
                    SocketOwner::Program => OWN,
                    SocketOwner::Manager => PASSED,
                },
            )
            .fd_mappings(mappings.collect())
            .map_err(io::Error::other)?;
        let child = command.spawn()?;
        Ok(Successor {
            child,
            ready: tokio::net::UnixDatagram::from_std(ready)?,
            until: Instant::now() + PATIENCE,
        })
    }
}

/// Number of the first passed descriptor.
const FIRST: i32 = 3;

impl Successor {
    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready. May be dropped and called again.
    ///
    /// # Errors
    /// If it ends before that, or takes too long; then it is ended.
    pub(super) async fn ready(&mut self) -> Result<(), HandoverError> {
        loop {
            let mut said = [0; 64];
            let said = tokio::time::timeout(LOOK_INTERVAL, self.ready.recv(&mut said)).await;
            if let Ok(Ok(1..)) = said {
                return Ok(());
            }
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(HandoverError::Ended(status)),
                Err(cause) => return Err(HandoverError::Lost(cause)),
            }
            if Instant::now() >= self.until {
                self.end();
                return Err(HandoverError::Late);
            }
            if !matches!(said, Err(_) | Ok(Ok(0))) {
                // the socket fails at once; its process is looked at all the same
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        // one that has ended is ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the process that hands over that this one is ready.
pub(super) fn say_ready(ready: &UnixDatagram) {
    if let Err(cause) = ready.send(b"READY=1\n") {
        log::warn!(
            "[Upgrade] the earlier process could not be told that this one is ready: {cause}"
        );
    }
}
