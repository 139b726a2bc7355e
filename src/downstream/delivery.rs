//! Detection of a client that no longer reads (`WRITE_TIMEOUT`, docs/contract.md §4.1).
//!
//! A socket that takes no octets says little: its buffer may hold megabytes that a slow client
//! reads for minutes, and a client that vanished leaves it writable as long as there is room. The
//! measure is the number of octets that the client has acknowledged; the proxy asks the kernel for
//! it a few times per timeout while octets are on their way. Where the kernel cannot be asked, the
//! octets that the socket takes are the measure.

use std::time::{Duration, Instant};

/// Progress of the octets on their way over one connection.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// Octets that the socket took.
    written: u64,
    /// Highest number of octets known to be acknowledged.
    acknowledged: u64,
    /// Octets of the request's content at the last check: a client that sends is present.
    received: u64,
    /// True if the socket takes no more octets for now.
    is_blocked: bool,
    /// Time of the next check.
    look_at: Option<Instant>,
    /// Time of the first check without progress.
    since: Option<Instant>,
}

/// Result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryStatus {
    /// Nothing is on its way, or it progresses, or has not stalled for the whole timeout.
    Fine,
    /// The client has acknowledged nothing for the whole timeout.
    Stalled,
}

impl Delivery {
    /// Records octets that the socket took.
    pub(super) fn wrote(&mut self, octets: usize) {
        self.written += octets as u64;
        self.is_blocked = false;
    }

    /// Records whether the socket takes no more for now.
    pub(super) fn set_blocked(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
    }

    /// True if the socket takes no more octets for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Octets that the socket took.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Time of the next check; `None` while nothing is on its way.
    pub(super) fn next_look(&mut self, limit: Duration) -> Option<Instant> {
        if !self.is_blocked && self.acknowledged >= self.written {
            (self.look_at, self.since) = (None, None);
            return None;
        }
        let look_at = self.look_at;
        Some(look_at.unwrap_or_else(|| *self.look_at.insert(Instant::now() + limit / LOOKS)))
    }

    /// Checks the client by the octets that it has not acknowledged, if known, and by the octets of
    /// its request received so far.
    pub(super) fn look(
        &mut self,
        unacknowledged: Option<u64>,
        received: u64,
        now: Instant,
        limit: Duration,
    ) -> DeliveryStatus {
        let outstanding = unacknowledged.unwrap_or(0);
        // under TLS octets are more on the wire than here; whatever is counted, less outstanding with
        // nothing written is progress
        let acknowledged = self.written.saturating_sub(outstanding);
        let has_moved = acknowledged > self.acknowledged || received != self.received;
        self.acknowledged = self.acknowledged.max(acknowledged);
        self.received = received;
        self.look_at = Some(now + limit / LOOKS);
        let is_done = outstanding == 0 && !self.is_blocked;
        if has_moved || is_done {
            self.since = Some(now);
            return DeliveryStatus::Fine;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= limit {
            DeliveryStatus::Stalled
        } else {
            DeliveryStatus::Fine
        }
    }
}

/// Checks per timeout: a client that stops reading is given up after the timeout and at most two
/// further checks.
const LOOKS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Checks every 15 s a client that has acknowledged this number of 1000 octets each time; gives the
    /// number of looks until it is given up.
    fn looks(acknowledged: impl Fn(u64) -> u64, most: u64) -> Option<u64> {
        let start = Instant::now();
        let mut delivery = Delivery::default();
        delivery.wrote(1000);
        delivery.set_blocked(true);
        (1..=most).find(|&look| {
            assert!(delivery.next_look(LIMIT).is_some());
            let now = start + LIMIT / LOOKS * u32::try_from(look).unwrap();
            let left = 1000 - acknowledged(look);
            delivery.look(Some(left), 0, now, LIMIT) == DeliveryStatus::Stalled
        })
    }

    #[test]
    fn who_acknowledges_is_not_given_up_and_who_stops_is() {
        // an octet at each look, or at every third
        assert_eq!(looks(|look| look, 900), None);
        assert_eq!(looks(|look| look / 3, 900), None);
        assert_eq!(looks(|_| 0, 900), Some(5));
        assert_eq!(looks(|look| look.min(10), 900), Some(14));
    }

    #[test]
    fn what_has_arrived_needs_no_look() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.next_look(LIMIT), None);
        delivery.wrote(10);
        let look_at = delivery.next_look(LIMIT);
        assert!(look_at.is_some() && delivery.next_look(LIMIT) == look_at);
        let now = Instant::now();
        assert_eq!(delivery.look(Some(0), 0, now, LIMIT), DeliveryStatus::Fine);
        assert_eq!(delivery.next_look(LIMIT), None);
    }

    #[test]
    fn who_sends_is_there() {
        let mut delivery = Delivery::default();
        delivery.wrote(10);
        delivery.set_blocked(true);
        let start = Instant::now();
        for look in 1..100 {
            let now = start + LIMIT / 2 * look;
            let seen = delivery.look(Some(10), u64::from(look), now, LIMIT);
            assert_eq!(seen, DeliveryStatus::Fine);
        }
        let seen = delivery.look(Some(10), 99, start + LIMIT * 100, LIMIT);
        assert_eq!(seen, DeliveryStatus::Stalled);
    }

    #[test]
    fn a_socket_that_tells_nothing_is_judged_by_what_it_takes() {
        let mut delivery = Delivery::default();
        let start = Instant::now();
        for look in 1..10 {
            delivery.wrote(10);
            delivery.set_blocked(true);
            assert_eq!(
                delivery.look(None, 0, start + LIMIT * look, LIMIT),
                DeliveryStatus::Fine
            );
        }
        assert_eq!(
            delivery.look(None, 0, start + LIMIT * 11, LIMIT),
            DeliveryStatus::Stalled
        );
    }
}
