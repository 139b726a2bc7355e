//! States that systemd is told (`sd_notify(3)`): ready, reloading, stopping, alive, and the process that takes
//! over.
//! Nothing where it does not ask (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

use crate::background::locked;

/// Tells the states; a failure is logged.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(states) {
        log::warn!("[Proxy] NOTIFY_SOCKET: systemd cannot be told the state: {cause}");
    }
}

/// The process serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The process drains.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The configuration is read again; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Another process takes over.
pub(super) fn main_process(id: u32) {
    tell(&[NotifyState::MainPid(id)]);
}

/// Signs of life of the workers, where systemd asks for them (`WatchdogSec=`).
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Interval of the signs.
    interval: Duration,
    began: Instant,
    /// Milliseconds since the beginning, of each worker's last sign.
    workers: Mutex<Vec<Weak<AtomicU64>>>,
}

impl Watchdog {
    /// The watchdog that systemd asks for, if it does.
    pub(super) fn asked_for() -> Option<Arc<Self>> {
        let period = sd_notify::watchdog_enabled().filter(|it| !it.is_zero())?;
        Some(Arc::new(Self::new(period)))
    }

    fn new(period: Duration) -> Self {
        Self {
            // a sign may come late, and two late ones are in time
            interval: period / 4,
            began: Instant::now(),
            workers: Mutex::default(),
        }
    }

    /// Gives signs of life from a worker's own thread, until the worker ends.
    pub(super) async fn live(self: Arc<Self>) {
        let last = Arc::new(AtomicU64::new(self.now()));
        locked(&self.workers).push(Arc::downgrade(&last));
        loop {
            last.store(self.now(), Relaxed);
            tokio::time::sleep(self.interval).await;
        }
    }

    /// Tells systemd that the process lives, as long as each worker does.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            match self.is_alive() {
                true => tell(&[NotifyState::Watchdog]),
                false => log::error!(
                    "[Proxy] a worker does not respond; systemd is not told that the process lives, and restarts \
                     it after WatchdogSec"
                ),
            }
            tokio::time::sleep(self.interval).await;
        }
    }

    /// True if each worker has given a sign within two intervals.
    fn is_alive(&self) -> bool {
        let now = self.now();
        let silence = 2 * u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX / 2);
        let mut workers = locked(&self.workers);
        // one that ended has another one in its place
        workers.retain(|last| last.strong_count() > 0);
        let signs = workers.iter().filter_map(Weak::upgrade);
        signs
            .map(|last| now.saturating_sub(last.load(Relaxed)))
            .all(|since| since <= silence)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_worker_is_enough() {
        let watchdog = Watchdog {
            began: Instant::now() - Duration::from_secs(60),
            ..Watchdog::new(Duration::from_secs(4))
        };
        assert!(watchdog.is_alive(), "no worker has begun");
        let signs: Vec<_> = [60_000, 59_000].map(AtomicU64::new).map(Arc::new).into();
        let weak = signs.iter().map(Arc::downgrade);
        locked(&watchdog.workers).extend(weak);
        assert!(watchdog.is_alive());
        signs[1].store(50_000, Relaxed);
        assert!(!watchdog.is_alive());
        // that of a worker that ended
        drop(signs.into_iter().nth(1));
        assert!(watchdog.is_alive());
    }
}
