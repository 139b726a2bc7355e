//! Rate limits on key attempts: for each client, for each network, and for all of them together.
//!
//! A try is counted before the key is looked at, so a guess that is right comes no further than one that is
//! wrong. A client pays for its own tries only: those of others stop it at most after its first one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{self, Duration},
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota,
    clock::{Clock, DefaultClock},
};

/// KeyAttempts of one client: a burst of 10, and 10 a minute.
const OF_CLIENT: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// Tries of the clients of one site of IPv6, likewise.
const OF_SITE: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);
/// Tries of all clients, likewise.
const OF_ALL: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
/// Clients, and sites, that are told apart. Each takes about 40 octets.
const CLIENTS: usize = 10_000;

/// Between two sweeps of a table that is full.
const SWEEP: Duration = Duration::from_secs(1);

/// The tries so far.
pub(super) struct KeyAttempts {
    clock: DefaultClock,
    /// By address of IPv4, and for all that are not told apart.
    of_addresses: LimiterTable,
    /// By network of IPv6.
    of_networks: LimiterTable,
    /// By site of IPv6.
    of_sites: LimiterTable,
    /// Sites without an attempt in the last minute.
    firsts: LimiterTable,
    of_all: DefaultDirectRateLimiter,
}

impl KeyAttempts {
    pub(super) fn new() -> Self {
        Self {
            clock: DefaultClock::default(),
            of_addresses: LimiterTable::new(Quota::per_minute(OF_CLIENT)),
            of_networks: LimiterTable::new(Quota::per_minute(OF_CLIENT)),
            of_sites: LimiterTable::new(Quota::per_minute(OF_SITE)),
            firsts: LimiterTable::new(Quota::per_minute(NonZeroU32::MIN)),
            of_all: DefaultDirectRateLimiter::direct(Quota::per_minute(OF_ALL)),
        }
    }

    /// Counts a try, before the key is looked at.
    ///
    /// # Errors
    /// How long to wait, where there were too many.
    pub(super) fn count(&self, client: Option<IpAddr>) -> Result<(), Duration> {
        let wait = |until: NotUntil<_>| until.wait_time_from(self.clock.now());
        // a client that may not try does not use up what others share with it
        match client.map_or(SHARED, network) {
            network @ IpAddr::V6(_) if self.of_networks.has_room() => {
                self.of_networks.check(network).map_err(wait)?;
                self.count_site(site(network)).map_err(wait)?;
            }
            network @ IpAddr::V6(_) => self.count_site(site(network)).map_err(wait)?,
            address @ IpAddr::V4(_) => self.count_address(address).map_err(wait)?,
        }
        // from this machine come also all clients of a reverse proxy here
        let Some(client) = client.filter(|client| !client.to_canonical().is_loopback()) else {
            return Ok(());
        };
        // many clients at once lock out none that has not tried yet
        let is_first = !self.firsts.has_room() || self.firsts.check(site(client)).is_ok();
        match self.of_all.check() {
            Err(until) if !is_first => Err(wait(until)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn count_site(&self, site: IpAddr) -> Result<(), NotUntil<Instant>> {
        if self.of_sites.has_room() {
            self.of_sites.check(site)
        } else {
            self.of_addresses.check(SHARED)
        }
    }

    fn count_address(&self, address: IpAddr) -> Result<(), NotUntil<Instant>> {
        let is_known = self.of_addresses.has_room();
        self.of_addresses
            .check(if is_known { address } else { SHARED })
    }
}

type Instant = <DefaultClock as Clock>::Instant;

/// Limiters, one for each client.
struct LimiterTable {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    swept: Mutex<Option<time::Instant>>,
}

impl LimiterTable {
    fn new(quota: Quota) -> Self {
        Self {
            limiter: DefaultKeyedRateLimiter::keyed(quota),
            swept: Mutex::default(),
        }
    }

    fn check(&self, client: IpAddr) -> Result<(), NotUntil<Instant>> {
        self.limiter.check_key(&client)
    }

    /// Tells whether the table has room for another client.
    fn has_room(&self) -> bool {
        if self.limiter.len() < CLIENTS {
            return true;
        }
        // a sweep looks at all of them
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            self.limiter.retain_recent();
            *swept = Some(time::Instant::now());
        }
        self.limiter.len() < CLIENTS
    }
}

/// Clients without an address, or without a place.
pub(super) const SHARED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The network that one client can choose its address from: 64 bits in IPv6, and this machine.
fn network(address: IpAddr) -> IpAddr {
    masked(address, 64)
}

/// The site that one customer of a provider may have: 48 bits in IPv6 (RFC 6177).
pub(super) fn site(address: IpAddr) -> IpAddr {
    masked(address, 48)
}

fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = u128::from(address) & !(u128::MAX >> bits);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
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
        let attempts = KeyAttempts::new();
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
        let attempts = KeyAttempts::new();
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
    fn a_site_of_ipv6_is_thirty_tries() {
        let attempts = KeyAttempts::new();
        let tries = |site: u16| {
            let tries = (0..200_u16).map(|number| {
                let network = number / 2;
                attempts.count(address(&format!("2001:db8:{site:x}:{network:x}::1")))
            });
            tries.filter(Result::is_ok).count()
        };
        assert_eq!(tries(1), 30);
        assert_eq!(tries(2), 30);
    }

    #[test]
    fn many_clients_lock_out_none_that_has_not_tried() {
        let attempts = KeyAttempts::new();
        let ten_tries_each = |clients: &[String]| {
            for client in clients.iter().flat_map(|client| [client; 10]) {
                let _ = attempts.count(address(client));
            }
        };
        let networks: Vec<_> = (0..10).map(|it| format!("2001:db8:0:{it:x}::1")).collect();
        ten_tries_each(&networks);
        let addresses: Vec<_> = (0..200).map(|last| format!("192.0.2.{last}")).collect();
        ten_tries_each(&addresses);
        assert_eq!(attempts.count(address("198.51.100.1")), Ok(()));
        assert_eq!(attempts.count(address("2001:db8:9::1")), Ok(()));
        // who did not know it is one of the many
        assert!(attempts.count(address("198.51.100.1")).is_err());
        // all of them together could not try on
        for client in &addresses {
            assert!(attempts.count(address(client)).is_err());
        }
    }

    #[test]
    fn this_machine_pays_for_itself_only() {
        let attempts = KeyAttempts::new();
        for last in 0..200_u8 {
            for _ in 0..2 {
                let _ = attempts.count(Some([192, 0, 2, last].into()));
            }
        }
        for client in [address("::1"), address("127.0.0.1"), None] {
            for _ in 0..10 {
                assert_eq!(attempts.count(client), Ok(()), "{client:?}");
            }
            assert!(attempts.count(client).is_err(), "{client:?}");
        }
        assert!(attempts.count(address("127.0.0.2")).is_err());
    }

    #[test]
    fn all_clients_together_try_a_hundred_times() {
        let attempts = KeyAttempts::new();
        let tries = |times: usize| {
            let clients = (0..50_u8).flat_map(|last| vec![last; times]);
            let tries = clients.map(|last| attempts.count(Some([192, 0, 2, last].into())));
            tries.filter(Result::is_ok).count()
        };
        let taken = tries(10);
        // 100, and the first of those that came too late for them
        assert!((100..=150).contains(&taken), "{taken}");
        let taken = tries(1);
        assert!(taken <= 2, "{taken}");
    }

    #[test]
    fn the_tables_are_bounded() {
        let attempts = KeyAttempts::new();
        for number in 0..15_000_u32 {
            let _ = attempts.count(Some((number + (1 << 24)).to_be_bytes().into()));
            let network = (0x2001_0db8_u128 << 96) | (u128::from(number) << 80);
            let _ = attempts.count(Some(Ipv6Addr::from(network).into()));
        }
        for table in [
            &attempts.of_addresses,
            &attempts.of_networks,
            &attempts.of_sites,
            &attempts.firsts,
        ] {
            let length = table.limiter.len();
            assert!((CLIENTS..=CLIENTS + 1).contains(&length), "{length}");
        }
    }
}
