//! The steady clock of rates, which neither jumps nor goes back when the time of day is set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// A steady clock.
#[derive(Debug)]
pub(super) enum SteadyClock {
    /// The machine's.
    Machine(Instant),
    /// One that its owner sets, for tests and simulations.
    Manual(Arc<AtomicU64>),
}

impl SteadyClock {
    /// The machine's clock.
    pub(super) fn start() -> Self {
        Self::Machine(Instant::now())
    }

    /// Nanoseconds since its start.
    pub(super) fn now(&self) -> u64 {
        match self {
            // 584 years
            Self::Machine(start) => start.elapsed().as_nanos() as u64,
            Self::Manual(now) => now.load(SeqCst),
        }
    }
}

/// Unix seconds of a time of day.
pub(super) fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs().try_into().unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |it| -it),
    }
}
