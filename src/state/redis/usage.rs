//! State of a store in use, common to all connections of a process: was it reached before, and by when must calls end.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

/// Time for the last words of a process to a store that says nothing; each answer gives it anew.
const LAST: Duration = Duration::from_secs(2);

/// Use of a store by a process.
#[derive(Debug, Clone)]
pub struct RedisUsage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    base: Instant,
    was_reached: AtomicBool,
    /// Milliseconds after the base by which every call ends; 0 while the process goes on.
    end: AtomicU64,
}

impl Default for RedisUsage {
    fn default() -> Self {
        Self(Arc::new(Shared {
            base: Instant::now(),
            was_reached: AtomicBool::new(false),
            end: AtomicU64::new(0),
        }))
    }
}

/// It is no part of what operators set.
impl PartialEq for RedisUsage {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for RedisUsage {}

impl RedisUsage {
    /// Ends all calls in a short time from now on, unless the store answers: the process ends.
    pub fn end(&self) {
        self.0.end.fetch_max(self.millis(LAST), SeqCst);
    }

    /// Notes that the store answered.
    pub(super) fn answered(&self) {
        if !self.0.was_reached.load(Relaxed) {
            self.0.was_reached.store(true, Relaxed);
        }
        if self.0.end.load(Relaxed) > 0 {
            self.end();
        }
    }

    /// Reports whether the store has answered once.
    pub(super) fn was_reached(&self) -> bool {
        self.0.was_reached.load(Relaxed)
    }

    /// The moment by which a call ends that begins now.
    pub(super) fn deadline(&self, patience: Duration) -> Instant {
        let deadline = Instant::now() + patience;
        match self.0.end.load(SeqCst) {
            0 => deadline,
            end => deadline.min(self.0.base + Duration::from_millis(end)),
        }
    }

    fn millis(&self, ahead: Duration) -> u64 {
        let millis = (self.0.base.elapsed() + ahead).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_bounds_calls_and_an_answer_moves_it() {
        let long = Duration::from_secs(60);
        let usage = RedisUsage::default();
        assert!(usage.deadline(long) > Instant::now() + long / 2);
        usage.answered();
        assert!(usage.was_reached() && usage.deadline(long) > Instant::now() + long / 2);
        usage.clone().end();
        let end = usage.deadline(long);
        assert!(end <= Instant::now() + LAST);
        assert!(usage.deadline(Duration::ZERO) < end);
        usage.0.end.store(1, SeqCst);
        let over = usage.deadline(long);
        usage.answered();
        assert!(over < end && usage.deadline(long) >= end);
    }
}
