//! The steady clock of rates, which neither jumps nor goes back when the time of day is set.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A steady clock.
#[derive(Debug)]
pub(super) enum SteadyClock {
    /// The machine's.
    Machine(Instant),
    /// One that a test sets.
    #[cfg(test)]
    Manual(std::sync::atomic::AtomicU64),
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
            #[cfg(test)]
            Self::Manual(now) => now.load(std::sync::atomic::Ordering::SeqCst),
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
