//! The run of all groups at once, and the bound of one check.

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};

use super::check::{Check, DoctorReport, millis};
use crate::error::plain_text;

/// Time for one check.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A group of checks that runs.
pub type GroupRun<'a> = LocalBoxFuture<'a, Vec<Check>>;

/// Order in which the checks of groups are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// As groups end, for a reader who waits.
    AsTheyEnd,
    /// In the order of the groups, the same in each run.
    InOrder,
}

/// Runs groups at once, and tells the checks of each when it has ended.
pub async fn run_groups(
    groups: Vec<GroupRun<'_>>,
    telling: Telling,
    mut tell: impl FnMut(&[Check]),
) -> DoctorReport {
    let (at, began) = (SystemTime::now(), Instant::now());
    let numbered = groups.into_iter().enumerate();
    let mut running: FuturesUnordered<_> = numbered
        .map(|(number, group)| async move { (number, group.await) })
        .collect();
    let (mut ended, mut told) = (BTreeMap::new(), 0);
    while let Some((number, checks)) = running.next().await {
        if telling == Telling::AsTheyEnd {
            tell(&checks);
        }
        ended.insert(number, checks);
        while telling == Telling::InOrder
            && let Some(checks) = ended.get(&told)
        {
            tell(checks);
            told += 1;
        }
    }
    let checks: Vec<Check> = ended.into_values().flatten().collect();
    let at = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    DoctorReport {
        version: env!("CARGO_PKG_VERSION").into(),
        at: millis(at),
        ms: millis(began.elapsed()),
        counts: DoctorReport::count(&checks),
        checks,
    }
}

/// The outcome of work within [`PATIENCE`], and the time that it took.
pub(super) async fn bounded<T>(work: impl Future<Output = T>) -> (Option<T>, Duration) {
    let began = Instant::now();
    let done = tokio::time::timeout(PATIENCE, work).await;
    (done.ok(), began.elapsed())
}

/// The same for work that blocks a thread. Work that is not done in time goes on, and its outcome is lost.
pub(super) async fn bounded_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> (Option<T>, Duration) {
    let (done, took) = bounded(tokio::task::spawn_blocking(work)).await;
    (done.and_then(Result::ok), took)
}

/// An error with its causes, in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = plain_text(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = plain_text(error);
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::check::CheckGroup;
    use super::*;

    /// The order of what is told of a slow group and a quick one.
    async fn told(telling: Telling) -> Vec<String> {
        let check = |id| vec![Check::ok(CheckGroup::Data, id, "")];
        let (quick_ended, quick) = tokio::sync::oneshot::channel();
        let groups = vec![
            async {
                let _ = quick.await;
                check("slow")
            }
            .boxed_local(),
            async {
                let _ = quick_ended.send(());
                check("quick")
            }
            .boxed_local(),
        ];
        let mut told = Vec::new();
        let report = run_groups(groups, telling, |checks| {
            told.extend(checks.iter().map(|check| check.id.to_string()));
        })
        .await;
        let reported: Vec<_> = report.checks.iter().map(|check| &*check.id).collect();
        assert_eq!(reported, ["slow", "quick"]);
        told
    }

    #[tokio::test]
    async fn a_reader_who_does_not_wait_gets_the_same_order_each_time() {
        assert_eq!(told(Telling::AsTheyEnd).await, ["quick", "slow"]);
        assert_eq!(told(Telling::InOrder).await, ["slow", "quick"]);
    }
}
