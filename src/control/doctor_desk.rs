//! The last run of the doctor, and whether one is under way.
//!
//! One at a time, and not more often than every few seconds: each asks the upstreams, and may cost money.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    config::AccessMode,
    doctor::{DoctorReport, ListenerTarget},
    state::RedisSettings,
};

/// Least time between the end of a run and the start of the next.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time after which a run that was not finished does not count as one: its client may have gone.
const LONGEST: Duration = Duration::from_secs(120);

/// Places that the doctor looks at, beside those of the plane.
pub struct DoctorSources {
    /// `UPSTREAM_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// `ACCESS`.
    pub access: AccessMode,
    /// `STATE_URL`.
    pub state: Option<Arc<RedisSettings>>,
    /// The listeners of clients.
    pub targets: Vec<ListenerTarget>,
    /// Addresses of this process, to which no upstream may lead.
    pub addresses: Arc<[SocketAddr]>,
}

/// The last run, and whether one is under way.
#[derive(Default)]
pub(super) struct DoctorDesk(Mutex<DoctorRuns>);

#[derive(Default)]
pub(super) struct DoctorRuns {
    began: Option<Instant>,
    ended: Option<Instant>,
    pub(super) is_running: bool,
    pub(super) last: Option<DoctorReport>,
}

impl DoctorDesk {
    pub(super) fn runs(&self) -> MutexGuard<'_, DoctorRuns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run; the error has the seconds until one may.
    pub(super) fn begin(&self, now: Instant) -> Result<RunningDoctor<'_>, u64> {
        let mut runs = self.runs();
        let since = |moment: Option<Instant>| Some(now.saturating_duration_since(moment?));
        let wait = match since(runs.began) {
            Some(since) if runs.is_running && since < LONGEST => Some(INTERVAL),
            _ => since(runs.ended).and_then(|since| INTERVAL.checked_sub(since)),
        };
        let wait = wait.filter(|wait| !wait.is_zero());
        if let Some(wait) = wait {
            // rounded up
            return Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        }
        (runs.began, runs.is_running) = (Some(now), true);
        Ok(RunningDoctor(self))
    }
}

/// A run; it is over when this is dropped.
pub(super) struct RunningDoctor<'a>(&'a DoctorDesk);

impl Drop for RunningDoctor<'_> {
    fn drop(&mut self) {
        let mut runs = self.0.runs();
        (runs.is_running, runs.ended) = (false, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_runs_at_a_time_and_not_too_often() {
        let (desk, now) = (DoctorDesk::default(), Instant::now());
        let first = desk.begin(now).ok();
        assert!(first.is_some());
        assert_eq!(desk.begin(now + Duration::from_secs(60)).err(), Some(10));
        drop(first);
        let ended = desk.runs().ended.unwrap();
        let soon = ended + INTERVAL - Duration::from_millis(1500);
        assert_eq!(desk.begin(soon).err(), Some(2));
        let second = desk.begin(ended + INTERVAL).ok();
        assert!(second.is_some());
        // one whose end was lost
        assert!(desk.begin(ended + INTERVAL + LONGEST).is_ok());
    }
}
