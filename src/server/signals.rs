//! Signals as events: two ways to stop, one to reload, one to open the access log anew, one to hand over.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};

/// Request of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Drain and exit, with the name of the signal.
    Stop(&'static str),
    /// Read the configuration again.
    Reload,
    /// Open the access log anew.
    Reopen,
    /// Hand over to a new process.
    Upgrade,
}

/// The signals of this process; Control-C alone where there are no Unix signals.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: UnixSignal,
    #[cfg(unix)]
    interrupt: UnixSignal,
    #[cfg(unix)]
    hangup: UnixSignal,
    #[cfg(unix)]
    user1: UnixSignal,
    #[cfg(unix)]
    user2: UnixSignal,
}

impl Signals {
    /// The next signal that asks for the end.
    pub(super) async fn stop(&mut self) {
        while !matches!(self.next().await, Signal::Stop(_)) {}
    }
}

#[cfg(unix)]
impl Signals {
    /// Takes the signals over from their default actions.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Reopen,
            _ = self.user2.recv() => Signal::Upgrade,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Has nothing to take over.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Stop("Ctrl-C")
    }
}
