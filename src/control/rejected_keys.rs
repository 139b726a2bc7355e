//! Log lines on rejected keys: one at once, then one a minute for each client, with a count.
//!
//! Whoever tries keys must fill neither the log nor the memory.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::attempts::{SHARED, site};

/// Between two lines on one client.
const QUIET: Duration = Duration::from_secs(60);
/// Clients that are told apart; those beyond them are one.
const CLIENTS: usize = 1_000;

/// Clients whose keys were rejected.
#[derive(Default)]
pub(super) struct RejectedKeys(Mutex<HashMap<IpAddr, ClientRejections>>);

/// Rejections of a client since its last log line.
struct ClientRejections {
    since: Instant,
    more: u64,
}

/// RejectedKeys keys of which nothing was written yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RejectionSummary {
    client: IpAddr,
    more: u64,
}

impl RejectedKeys {
    /// Counts a rejection; true if it is to be logged now.
    pub(super) fn note(&self, client: Option<IpAddr>, now: Instant) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = client.map_or(SHARED, site);
        if noted.len() >= CLIENTS && !noted.contains_key(&client) {
            client = SHARED;
        }
        match noted.get_mut(&client) {
            Some(noted) => {
                noted.more += 1;
                false
            }
            None => {
                let first = ClientRejections {
                    since: now,
                    more: 0,
                };
                noted.insert(client, first);
                true
            }
        }
    }

    /// Takes the summaries that are due. Call it regularly.
    pub(super) fn due(&self, now: Instant) -> Vec<RejectionSummary> {
        let mut lines = Vec::new();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|client, noted| {
            if now.duration_since(noted.since) < QUIET {
                return true;
            }
            let more = std::mem::take(&mut noted.more);
            noted.since = now;
            if more > 0 {
                let client = *client;
                lines.push(RejectionSummary { client, more });
            }
            more > 0
        });
        lines
    }
}

impl fmt::Display for RejectionSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more keys refused in a minute, from ", self.more)?;
        match self.client {
            SHARED => f.write_str("clients that are not told apart"),
            client @ IpAddr::V6(_) if !client.is_loopback() => write!(f, "{client}/48"),
            client => client.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_client_is_written_of_once_a_minute() {
        let (refused, start) = (RejectedKeys::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let (one, other) = (address("192.0.2.1"), address("2001:db8::1"));
        assert!(refused.note(one, start));
        assert!(refused.note(other, after(1)));
        for second in 0..59 {
            assert!(!refused.note(one, after(second)));
            assert_eq!(refused.due(after(second)), []);
        }
        let told = |lines: Vec<RejectionSummary>| {
            lines.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            told(refused.due(after(60))),
            ["59 more keys refused in a minute, from 192.0.2.1"]
        );
        // nothing more of the other one, which is forgotten
        assert_eq!(refused.due(after(61)), []);
        assert!(refused.note(other, after(62)));
        assert!(!refused.note(address("2001:db8:0:9::2"), after(62)));
        assert_eq!(refused.due(after(119)), []);
        assert_eq!(refused.due(after(120)), []);
        assert_eq!(
            told(refused.due(after(122))),
            ["1 more keys refused in a minute, from 2001:db8::/48"]
        );
        assert_eq!(refused.due(after(182)), []);
        assert!(refused.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_thousand_clients_are_told_apart() {
        let (refused, now) = (RejectedKeys::default(), Instant::now());
        let clients = (0..5_000_u32).map(|number| Some(IpAddr::from((number + 9).to_be_bytes())));
        let written = clients.filter(|client| refused.note(*client, now)).count();
        assert_eq!(written, CLIENTS + 1);
        assert_eq!(refused.0.lock().unwrap().len(), CLIENTS + 1);
        let lines = refused.due(now + QUIET);
        let [RejectionSummary { client, more }] = lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!((client, more), (SHARED, 5_000 - CLIENTS as u64 - 1));
    }
}
