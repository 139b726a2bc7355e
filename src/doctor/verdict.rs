//! The outcome of all checks of upstreams, for a check that a failure there explains.

use std::future::Future;

use tokio::sync::watch;

use super::check::{Check, CheckStatus};

/// Collects the outcome of the groups of upstreams.
pub struct UpstreamVerdicts(watch::Sender<Standing>);

/// The outcome of them, once they have ended.
#[derive(Clone)]
pub struct UpstreamVerdict(watch::Receiver<Standing>);

struct Standing {
    /// Groups that have not ended.
    running: usize,
    is_failing: bool,
}

impl UpstreamVerdicts {
    /// For this number of upstreams.
    pub fn of(upstreams: usize) -> Self {
        Self(watch::Sender::new(Standing {
            running: upstreams,
            is_failing: false,
        }))
    }

    /// The outcome, to be waited for.
    pub fn verdict(&self) -> UpstreamVerdict {
        UpstreamVerdict(self.0.subscribe())
    }

    /// Runs the checks of one upstream, and notes their outcome.
    pub async fn note(&self, checks: impl Future<Output = Vec<Check>>) -> Vec<Check> {
        let checks = checks.await;
        self.0.send_modify(|standing| {
            standing.running = standing.running.saturating_sub(1);
            standing.is_failing |= checks.iter().any(|it| it.status == CheckStatus::Fail);
        });
        checks
    }
}

impl UpstreamVerdict {
    /// Waits for the end of all groups, and reports that a check of one failed.
    pub(super) async fn is_failing(&self) -> bool {
        let mut standing = self.0.clone();
        let ended = standing.wait_for(|it| it.running == 0).await;
        ended.is_ok_and(|it| it.is_failing)
    }
}
