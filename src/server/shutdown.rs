//! The end of the process: readiness fails, listeners close, what runs may run on, and is cut at last.

use std::{sync::Arc, time::Duration};

use actix_server::ServerHandle;
use tokio::sync::watch;

use super::{closing::Closing, listeners::Listeners, signals::Signals};
use crate::{drain::DrainPhase, limits::Limits};

/// Inputs of the shutdown.
pub(super) struct Shutdown<'a> {
    /// The event that asked for it.
    pub(super) cause: ShutdownCause,
    pub(super) server: &'a ServerHandle,
    pub(super) closing: Closing,
    pub(super) phase: &'a watch::Sender<DrainPhase>,
    pub(super) limits: &'a Arc<Limits>,
    pub(super) workers: usize,
    pub(super) delay: Duration,
    pub(super) patience: Duration,
}

/// Cause of a shutdown.
#[derive(Debug, Clone, Copy)]
pub(super) enum ShutdownCause {
    /// A signal, by its name.
    Signal(&'static str),
    /// The process of this id has taken over.
    #[cfg(unix)]
    HandOver(u32),
}

impl std::fmt::Display for ShutdownCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            #[cfg(unix)]
            Self::HandOver(successor) => write!(f, "process {successor} has taken over"),
        }
    }
}

impl Shutdown<'_> {
    /// Readiness fails; after a delay the listeners close and idle connections end, and what runs may
    /// run on for a while. What still runs then, or at a second signal, is cut.
    pub(super) async fn drain(self, listeners: Listeners, signals: &mut Signals) {
        let cause = tokio::select! {
            biased;
            () = signals.stop() => "second signal",
            is_quiet = self.run_out(listeners) => match is_quiet {
                true => return log::info!("[Proxy] drained"),
                false => "SHUTDOWN_TIMEOUT",
            },
        };
        log::warn!(
            "[Proxy] {cause}: {} exchanges aborted",
            self.limits.in_flight()
        );
        self.limits.cut();
        let _ = self.phase.send(DrainPhase::Cut);
        // the workers need a moment to see it and to reset what must not look complete
        let _ = tokio::time::timeout(CUT_PATIENCE, until_quiet(self.limits)).await;
    }

    /// Waits for connections to end; reports that all ended in time.
    async fn run_out(&self, listeners: Listeners) -> bool {
        let Self {
            cause, patience, ..
        } = self;
        match cause {
            #[cfg(unix)]
            ShutdownCause::HandOver(successor) => {
                // no more connections; idle ones may send one more request, which is answered
                self.closing.close(self.server).await;
                log::info!(
                    "[Upgrade] process {successor} takes all new connections; {} exchanges run on here",
                    self.limits.in_flight()
                );
                let _ = self.phase.send(DrainPhase::HandedOver);
                let quiet = until_quiet(self.limits);
                let _ = tokio::time::timeout(self.delay, quiet).await;
            }
            ShutdownCause::Signal(name) if !self.delay.is_zero() => {
                let _ = self.phase.send(DrainPhase::Leaving);
                log::info!(
                    "[Proxy] {name}: readiness fails; connections are still accepted for {:?} (DRAIN_DELAY)",
                    self.delay
                );
                tokio::time::sleep(self.delay).await;
            }
            ShutdownCause::Signal(_) => {}
        }
        log::info!(
            "[Proxy] {cause}: draining, up to {patience:?} for {} exchanges",
            self.limits.in_flight()
        );
        let _ = self.phase.send(DrainPhase::Draining);
        if let ShutdownCause::Signal(_) = cause {
            self.closing.close(self.server).await;
        }
        drop(listeners);
        // stopping the server drops what its workers have not begun to serve; a worker that died since
        // the last look will not begin
        let _ = tokio::time::timeout(BEGIN_PATIENCE, async {
            while self.limits.draining_workers() < self.workers {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        })
        .await;
        drop(self.server.stop(true));
        tokio::time::timeout(*patience, until_quiet(self.limits))
            .await
            .is_ok()
    }
}

async fn until_quiet(limits: &Limits) {
    while limits.connections() > 0 {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// For all workers to begin the drain, on however busy a machine.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);

/// Between looks at what the workers count.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// For a cut to reach every connection.
const CUT_PATIENCE: Duration = Duration::from_millis(500);
