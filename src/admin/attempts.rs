//! How often a key may be tried: by each client, and by all of them together.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota,
    clock::{Clock, DefaultClock},
};

/// Tries of one client: so many at once, and as many in a minute.
const OF_CLIENT: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// Tries of all clients: so many at once, and as many in a minute.
const OF_ALL: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
/// Clients that are told apart; what comes beyond them counts as one. Each takes about 40 octets.
const CLIENTS: usize = 10_000;

/// The tries so far.
pub(super) struct Attempts {
    clock: DefaultClock,
    of_clients: DefaultKeyedRateLimiter<IpAddr>,
    of_all: DefaultDirectRateLimiter,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            clock: DefaultClock::default(),
            of_clients: DefaultKeyedRateLimiter::keyed(Quota::per_minute(OF_CLIENT)),
            of_all: DefaultDirectRateLimiter::direct(Quota::per_minute(OF_ALL)),
        }
    }

    /// Counts a try, before the key is looked at.
    ///
    /// # Errors
    /// How long to wait, where there were too many.
    pub(super) fn count(&self, client: Option<IpAddr>) -> Result<(), Duration> {
        let wait = |until: NotUntil<_>| until.wait_time_from(self.clock.now());
        let mut client = client.map_or(SHARED, prefix);
        if self.of_clients.len() >= CLIENTS {
            self.of_clients.retain_recent();
            if self.of_clients.len() >= CLIENTS {
                client = SHARED;
            }
        }
        // a client that may not try does not use up what all may
        self.of_clients.check_key(&client).map_err(wait)?;
        self.of_all.check().map_err(wait)
    }
}

/// Clients without an address, or without a place.
const SHARED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What one client can choose its address from: a network of 64 bits in IPv6.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_client_tries_ten_times_and_others_are_not_the_worse_for_it() {
        let attempts = Attempts::new();
        for _ in 0..10 {
            assert_eq!(attempts.count(address("192.0.2.1")), Ok(()));
        }
        let wait = attempts.count(address("::ffff:192.0.2.1")).unwrap_err();
        assert!(wait <= Duration::from_secs(6), "{wait:?}");
        assert_eq!(attempts.count(address("192.0.2.2")), Ok(()));
        assert_eq!(attempts.count(None), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let attempts = Attempts::new();
        for host in 0..10 {
            assert_eq!(
                attempts.count(address(&format!("2001:db8::{host}"))),
                Ok(())
            );
        }
        assert!(attempts.count(address("2001:db8::ffff")).is_err());
        assert_eq!(attempts.count(address("2001:db8:0:1::1")), Ok(()));
    }

    #[test]
    fn all_clients_together_try_a_hundred_times() {
        let attempts = Attempts::new();
        let tries = (0..200_u8).map(|last| attempts.count(Some([192, 0, 2, last].into())));
        let taken = tries.filter(Result::is_ok).count();
        assert!((100..=102).contains(&taken), "{taken}");
    }
}
