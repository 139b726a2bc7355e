//! The run of all groups at once, and the bound of one check.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};

use super::check::{Check, DoctorReport, millis};

/// Time for one check.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A group of checks that runs.
pub type GroupRun<'a> = LocalBoxFuture<'a, Vec<Check>>;

/// Runs groups at once, and tells the checks of each when it has ended.
pub async fn run_groups(groups: Vec<GroupRun<'_>>, mut tell: impl FnMut(&[Check])) -> DoctorReport {
    let (at, began) = (SystemTime::now(), Instant::now());
    let numbered = groups.into_iter().enumerate();
    let mut running: FuturesUnordered<_> = numbered
        .map(|(number, group)| async move { (number, group.await) })
        .collect();
    let mut ended = Vec::new();
    while let Some((number, checks)) = running.next().await {
        tell(&checks);
        ended.push((number, checks));
    }
    ended.sort_by_key(|(number, _)| *number);
    let checks: Vec<Check> = ended.into_iter().flat_map(|(_, checks)| checks).collect();
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
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
