//! Signals as events: two ways to stop, one to reload, one to open the access log anew.

use std::io;

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Drain and exit, with the name of the signal.
    Stop(&'static str),
    /// Read the configuration again.
    Reload,
    /// Open the access log anew.
    Reopen,
}

pub(super) use platform::{Signals, listen};

impl Signals {
    /// The next signal that asks for the end.
    pub(super) async fn stop(&mut self) {
        while !matches!(self.next().await, Signal::Stop(_)) {}
    }
}

#[cfg(unix)]
mod platform {
    use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

    use super::{Signal, io};

    /// The signals of this process.
    pub(in super::super) struct Signals {
        terminate: Stream,
        interrupt: Stream,
        hangup: Stream,
        user1: Stream,
    }

    /// Takes the signals over from their default actions.
    pub(in super::super) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    impl Signals {
        /// The next signal.
        pub(in super::super) async fn next(&mut self) -> Signal {
            tokio::select! {
                _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
                _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
                _ = self.hangup.recv() => Signal::Reload,
                _ = self.user1.recv() => Signal::Reopen,
            }
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use super::{Signal, io};

    /// Control-C, which is all there is.
    pub(in super::super) struct Signals;

    /// Nothing to take over.
    pub(in super::super) fn listen() -> io::Result<Signals> {
        Ok(Signals)
    }

    impl Signals {
        /// The next signal.
        pub(in super::super) async fn next(&mut self) -> Signal {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            Signal::Stop("Ctrl-C")
        }
    }
}
