//! Circuit breaker of one upstream, fed by the exchanges of clients (there are no health checks).
//!
//! Consecutive failures open the circuit: the upstream is skipped for a time that doubles with each
//! opening; then one request is let through as a probe, and its outcome closes the circuit or opens
//! it for longer. Apart from that, an upstream that sends `Retry-After` is skipped for that time.
//!
//! A circuit that opens at another replica is a hint: it counts as one failure towards opening this one, for a
//! while and until the next success. Hints alone open nothing, so one sick replica takes an upstream from no other.
//!
//! All workers share it: atomics, of which a healthy upstream's requests only read.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

/// Failures in a row that open a circuit: one bad answer is chance, five are not.
pub const THRESHOLD: u32 = 5;
/// The first opening; each probe that brings no success doubles it.
const FIRST_OPENING: Duration = Duration::from_secs(1);
/// 2^6 s is about a minute: longer would keep sessions off an upstream that has long recovered.
const MOST_DOUBLINGS: u32 = 6;
/// Upper bound of `Retry-After`, so that a broken upstream cannot disable itself for good.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// Most hints that count: at least one failure is this replica's own.
const MOST_HINTS: u64 = THRESHOLD as u64 - 1;
/// Time for which a hint counts: several openings of a circuit that stays open at another replica.
const HINT_LIFE: Duration = Duration::from_secs(30);

/// The health of one upstream. Times are milliseconds since a moment of the caller's choice, which
/// is more than 0 ago.
#[derive(Debug, Default)]
pub struct Circuit {
    /// Set once an exchange was made with the upstream since the start of the process.
    was_asked: AtomicBool,
    /// Failures since the last success.
    failures: AtomicU32,
    /// Hints since the last success, in the lowest octet; above it the time up to which they count.
    hints: AtomicU64,
    /// Number of times it opened while it was closed.
    episodes: AtomicU32,
    /// Openings since the last success: the first, and one for each probe.
    openings: AtomicU32,
    /// Time of the next probe; 0 while the circuit is closed.
    probe_at: AtomicU64,
    /// End of the back-off that `Retry-After` asked for.
    rests_until: AtomicU64,
}

/// Permission to send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitPermit {
    /// The circuit is closed.
    Regular,
    /// It is open, and this request is its probe.
    Probe,
    /// It is open, or backs off, and no other upstream is better.
    LastResort,
}

/// The state of a circuit, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests pass; no exchange was made with the upstream yet.
    Unknown,
    /// Requests pass; the number of failures in a row is below the threshold.
    Failing(u32),
    /// Requests pass, and the last one succeeded.
    Closed,
    /// Requests go elsewhere.
    Open,
    /// The next request is the probe.
    HalfOpen,
}

impl CircuitState {
    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Failing(_) => "failing",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Circuit {
    /// Permission to send a request now. Of all requests that ask when a probe is due, one gets it.
    pub fn permit(&self, now: u64) -> Option<CircuitPermit> {
        if self.rests_until.load(Relaxed) > now {
            return None;
        }
        match self.probe_at.load(Acquire) {
            0 => Some(CircuitPermit::Regular),
            probe_at if probe_at > now => None,
            probe_at => {
                // a probe whose outcome is late is followed by another one, as late as if it had failed:
                // where an upstream hangs, an outcome may take minutes
                let next = now + opening(self.openings.load(Relaxed) + 1);
                self.probe_at
                    .compare_exchange(probe_at, next, AcqRel, Acquire)
                    .ok()?;
                self.openings.fetch_add(1, Relaxed);
                Some(CircuitPermit::Probe)
            }
        }
    }

    /// Records a success.
    pub fn succeeded(&self) {
        self.asked();
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.hints.load(Relaxed) != 0 {
            self.hints.store(0, Relaxed);
        }
        if self.probe_at.load(Relaxed) != 0 {
            self.openings.store(0, Relaxed);
            self.probe_at.store(0, Release);
        }
    }

    /// Records a failure. Tells whether it opened the circuit, or opened it again.
    pub fn failed(&self, permit: CircuitPermit, now: u64) -> bool {
        self.asked();
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let is_closed = self.probe_at.load(Acquire) == 0;
        // what was on its way when the circuit opened says nothing new
        let is_due = || failures.saturating_add(self.hints(now)) >= THRESHOLD;
        if permit != CircuitPermit::Probe && (!is_closed || !is_due()) {
            return false;
        }
        if is_closed {
            self.openings.fetch_add(1, Relaxed);
            self.episodes.fetch_add(1, Relaxed);
        }
        let next = now + opening(self.openings.load(Relaxed));
        self.probe_at.store(next, Release);
        true
    }

    /// Records that it opened at another replica.
    pub fn hint(&self, now: u64) {
        let count = u64::from(self.hints(now)) + 1;
        let until = now + millis(HINT_LIFE);
        self.hints
            .store(until << 8 | count.min(MOST_HINTS), Relaxed);
    }

    /// Hints that count now.
    fn hints(&self, now: u64) -> u32 {
        let hints = self.hints.load(Relaxed);
        if hints >> 8 > now {
            (hints & 0xff) as u32
        } else {
            0
        }
    }

    /// The number of this opening, while it is open: the same until it closes.
    pub fn episode(&self) -> Option<u32> {
        (self.probe_at.load(Relaxed) != 0).then(|| self.episodes.load(Relaxed))
    }

    fn asked(&self) {
        // read by every exchange, written by the first
        if !self.was_asked.load(Relaxed) {
            self.was_asked.store(true, Relaxed);
        }
    }

    /// Passes the upstream over for a time, as its `Retry-After` asked.
    pub fn back_off(&self, wait: Duration, now: u64) {
        let until = now + millis(wait.min(LONGEST_REST));
        self.rests_until.fetch_max(until, Relaxed);
    }

    /// The state now.
    pub fn state(&self, now: u64) -> CircuitState {
        match self.probe_at.load(Relaxed) {
            _ if self.rests_until.load(Relaxed) > now => CircuitState::Open,
            0 if !self.was_asked.load(Relaxed) => CircuitState::Unknown,
            0 => match self.failures.load(Relaxed) {
                0 => CircuitState::Closed,
                failures => CircuitState::Failing(failures),
            },
            probe_at if probe_at > now => CircuitState::Open,
            _ => CircuitState::HalfOpen,
        }
    }
}

/// The length of the n-th opening in a row, in milliseconds.
fn opening(nth: u32) -> u64 {
    millis(FIRST_OPENING) << nth.saturating_sub(1).min(MOST_DOUBLINGS)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: u64) -> Circuit {
        let circuit = Circuit::default();
        for nth in 1..=THRESHOLD {
            assert_eq!(
                circuit.failed(CircuitPermit::Regular, now),
                nth == THRESHOLD
            );
        }
        circuit
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        let circuit = Circuit::default();
        for _ in 0..9 {
            for _ in 1..THRESHOLD {
                circuit.failed(CircuitPermit::Regular, 1);
            }
            circuit.succeeded();
        }
        assert_eq!(circuit.permit(1), Some(CircuitPermit::Regular));
        assert_eq!(opened(1).permit(1), None);
        assert_eq!(opened(1).state(1), CircuitState::Open);
    }

    #[test]
    fn hints_of_other_replicas_count_and_open_nothing_alone() {
        let circuit = Circuit::default();
        for _ in 0..100 {
            circuit.hint(1);
        }
        assert_eq!(circuit.permit(1), Some(CircuitPermit::Regular));
        assert_eq!(circuit.state(1), CircuitState::Unknown);
        assert!(circuit.failed(CircuitPermit::Regular, 1), "one of its own");
        // one replica that is sick saves one failure of five
        let circuit = Circuit::default();
        circuit.hint(1);
        for nth in 1..THRESHOLD {
            let opened = circuit.failed(CircuitPermit::Regular, 1);
            assert_eq!(opened, nth == THRESHOLD - 1);
        }
    }

    #[test]
    fn hints_end_with_a_success_and_with_time() {
        let circuit = Circuit::default();
        circuit.hint(1);
        circuit.succeeded();
        for _ in 1..THRESHOLD {
            assert!(!circuit.failed(CircuitPermit::Regular, 1));
        }
        let circuit = Circuit::default();
        circuit.hint(1);
        for _ in 1..THRESHOLD {
            assert!(!circuit.failed(CircuitPermit::Regular, 30_001));
        }
    }

    #[test]
    fn an_opening_has_one_number_until_it_closes() {
        let circuit = opened(1);
        assert_eq!(circuit.episode(), Some(1));
        assert_eq!(circuit.permit(1001), Some(CircuitPermit::Probe));
        assert!(circuit.failed(CircuitPermit::Probe, 1001));
        assert_eq!(circuit.episode(), Some(1));
        circuit.succeeded();
        assert_eq!(circuit.episode(), None);
        for _ in 0..THRESHOLD {
            circuit.failed(CircuitPermit::Regular, 5000);
        }
        assert_eq!(circuit.episode(), Some(2));
    }

    #[test]
    fn an_upstream_is_not_well_before_it_has_answered() {
        let circuit = Circuit::default();
        assert_eq!(circuit.state(1), CircuitState::Unknown);
        for nth in 1..THRESHOLD {
            circuit.failed(CircuitPermit::Regular, 1);
            assert_eq!(circuit.state(1), CircuitState::Failing(nth));
        }
        circuit.failed(CircuitPermit::Regular, 1);
        assert_eq!(circuit.state(1), CircuitState::Open);
        circuit.succeeded();
        assert_eq!(circuit.state(1), CircuitState::Closed);
        let circuit = Circuit::default();
        circuit.back_off(Duration::from_secs(1), 1);
        assert_eq!(circuit.state(1), CircuitState::Open);
    }

    #[test]
    fn one_probe_passes_at_a_time() {
        let circuit = opened(1);
        assert_eq!(circuit.permit(1000), None);
        assert_eq!(circuit.state(1001), CircuitState::HalfOpen);
        assert_eq!(circuit.permit(1001), Some(CircuitPermit::Probe));
        assert_eq!(circuit.permit(1001), None);
        circuit.succeeded();
        assert_eq!(circuit.permit(1001), Some(CircuitPermit::Regular));
    }

    #[test]
    fn probes_without_an_outcome_become_fewer() {
        let circuit = opened(1);
        // an upstream that answers no request for ten minutes
        let probes = (1..=600_000).filter(|now| circuit.permit(*now).is_some());
        assert_eq!(probes.count(), 14);
        assert!(circuit.failed(CircuitPermit::Probe, 600_000));
        assert_eq!(circuit.permit(663_999), None);
        assert_eq!(circuit.permit(664_000), Some(CircuitPermit::Probe));
    }

    #[test]
    fn openings_double_up_to_a_minute() {
        let circuit = opened(1);
        let mut now = 1;
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert_eq!(circuit.permit(now + seconds * 1000 - 1), None);
            now += seconds * 1000;
            assert_eq!(circuit.permit(now), Some(CircuitPermit::Probe), "{seconds}");
            assert!(circuit.failed(CircuitPermit::Probe, now));
        }
        circuit.succeeded();
        for _ in 0..THRESHOLD {
            circuit.failed(CircuitPermit::Regular, now);
        }
        assert_eq!(circuit.permit(now + 1000), Some(CircuitPermit::Probe));
    }

    #[test]
    fn what_was_on_its_way_does_not_open_it_further() {
        let circuit = opened(1);
        for _ in 0..100 {
            assert!(!circuit.failed(CircuitPermit::Regular, 2));
            assert!(!circuit.failed(CircuitPermit::LastResort, 2));
        }
        assert_eq!(circuit.permit(1001), Some(CircuitPermit::Probe));
    }

    #[test]
    fn a_rest_lasts_as_asked_but_not_for_ever() {
        let circuit = Circuit::default();
        circuit.back_off(Duration::from_secs(7), 1);
        circuit.back_off(Duration::from_secs(3), 1);
        assert_eq!(
            (circuit.permit(7000), circuit.state(7000)),
            (None, CircuitState::Open)
        );
        assert_eq!(circuit.permit(7001), Some(CircuitPermit::Regular));
        circuit.back_off(Duration::MAX, 1);
        assert_eq!(circuit.permit(600_001), Some(CircuitPermit::Regular));
    }
}
