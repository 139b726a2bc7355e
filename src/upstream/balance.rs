//! Upstream selection: session affinity, health and retry budget over all workers.
//!
//! A session stays with its upstream while that one is healthy; other requests go to the first
//! healthy upstream of the list. All workers share one [`Balance`]; each request takes a
//! [`Selection`], which gives each upstream once. With one upstream none of it is used.
//!
//! It sends nothing and reads no content: [`super::Client`] and the proxy do.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use super::{
    affinity::Affinity,
    budget::RetryBudget,
    circuit::{Circuit, CircuitPermit, CircuitState},
};
use crate::config::Endpoint;

/// The state of the upstreams, shared by all workers.
pub struct Balance {
    known: ArcSwap<EndpointTable>,
    affinity: Affinity,
    budget: RetryBudget,
    /// Origin of the milliseconds.
    start: Instant,
    hasher: RandomState,
}

/// The upstreams of one configuration, with their health.
struct EndpointTable {
    endpoints: Arc<[Endpoint]>,
    circuits: Vec<Arc<NamedCircuit>>,
}

struct NamedCircuit {
    circuit: Circuit,
    /// The tag of this upstream in the table of sessions.
    tag: u16,
    /// Idle connections of all workers.
    idle: Arc<AtomicUsize>,
}

impl Balance {
    /// A balance without any outcome yet.
    pub fn new(endpoints: &Arc<[Endpoint]>) -> Self {
        let hasher = RandomState::new();
        let none = EndpointTable {
            endpoints: Arc::new([]),
            circuits: Vec::new(),
        };
        Self {
            known: ArcSwap::from_pointee(none.follow(endpoints, &hasher)),
            affinity: Affinity::default(),
            budget: RetryBudget::default(),
            start: Instant::now(),
            hasher,
        }
    }

    /// The selection for one request. `session` identifies the session of the request: a session
    /// id, else a key.
    pub fn selection(&self, endpoints: &Arc<[Endpoint]>, session: Option<&[u8]>) -> Selection<'_> {
        self.budget.earn();
        Selection {
            balance: self,
            known: self.known(endpoints),
            session: session.map(|session| self.hasher.hash_one(session)),
            tried: SmallVec::new(),
        }
    }

    /// The counters of idle connections, one for each upstream.
    pub fn idle(&self, endpoints: &Arc<[Endpoint]>) -> Vec<Arc<AtomicUsize>> {
        let known = self.known(endpoints);
        let counts = known.circuits.iter();
        counts.map(|named| Arc::clone(&named.idle)).collect()
    }

    fn known(&self, endpoints: &Arc<[Endpoint]>) -> Arc<EndpointTable> {
        let known = self.known.load_full();
        if Arc::ptr_eq(&known.endpoints, endpoints) {
            return known;
        }
        self.known
            .rcu(|known| known.follow(endpoints, &self.hasher));
        let known = self.known.load_full();
        if Arc::ptr_eq(&known.endpoints, endpoints) {
            return known;
        }
        // another worker has gone on to the next configuration meanwhile
        Arc::new(known.follow(endpoints, &self.hasher))
    }

    /// Records the outcome of an exchange with the only upstream. It decides nothing, since
    /// requests have no alternative; the state is shown to operators.
    pub fn learned_of_only(&self, endpoints: &Arc<[Endpoint]>, has_failed: bool) {
        let known = self.known.load();
        if Arc::ptr_eq(&known.endpoints, endpoints) {
            self.learned(&known, has_failed);
        } else {
            self.learned(&self.known(endpoints), has_failed);
        }
    }

    fn learned(&self, known: &EndpointTable, has_failed: bool) {
        let Some(NamedCircuit { circuit, .. }) = known.circuits.first().map(|named| &**named)
        else {
            return;
        };
        if has_failed {
            let now = self.now();
            let permit = circuit.permit(now).unwrap_or(CircuitPermit::LastResort);
            circuit.failed(permit, now);
        } else {
            circuit.succeeded();
        }
    }

    /// The state of each upstream's circuit.
    pub fn states(&self, endpoints: &Arc<[Endpoint]>) -> Vec<CircuitState> {
        let now = self.now();
        let known = self.known(endpoints);
        let states = known.circuits.iter();
        states.map(|named| named.circuit.state(now)).collect()
    }

    /// Milliseconds, more than 0.
    fn now(&self) -> u64 {
        1 + u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX >> 1)
    }

    fn minute(&self) -> u16 {
        (self.start.elapsed().as_secs() / 60) as u16
    }
}

impl EndpointTable {
    /// The upstreams of another configuration, with the health of those that stay.
    fn follow(&self, endpoints: &Arc<[Endpoint]>, hasher: &RandomState) -> Self {
        let named = |(at, endpoint): (usize, &Endpoint)| {
            // of several that are the same, each has its own
            let nth = |endpoints: &[Endpoint], to: usize| {
                let before = endpoints[..to].iter();
                before.filter(|other| *other == endpoint).count()
            };
            let wanted = nth(endpoints, at);
            let same = (0..self.endpoints.len())
                .find(|i| self.endpoints[*i] == *endpoint && nth(&self.endpoints, *i) == wanted);
            match same {
                Some(same) => Arc::clone(&self.circuits[same]),
                None => {
                    let Endpoint { upstream, .. } = endpoint;
                    let secret = endpoint.credential.as_ref().map(|c| c.value.as_bytes());
                    Arc::new(NamedCircuit {
                        circuit: Circuit::default(),
                        idle: Arc::default(),
                        tag: hasher.hash_one((upstream, secret, wanted)) as u16,
                    })
                }
            }
        };
        Self {
            endpoints: Arc::clone(endpoints),
            circuits: endpoints.iter().enumerate().map(named).collect(),
        }
    }
}

/// One request's selection of upstreams: each at most once.
pub struct Selection<'a> {
    balance: &'a Balance,
    known: Arc<EndpointTable>,
    session: Option<u64>,
    tried: SmallVec<[usize; 4]>,
}

/// An upstream, and the permit of its circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The index in the list of endpoints.
    pub endpoint: usize,
    permit: CircuitPermit,
}

impl Selection<'_> {
    /// The first candidate: the session's upstream, else the first healthy one; where none is
    /// healthy, the session's or the preferred one. A request is never refused for lack of health:
    /// the client gets the upstream's own answer then.
    pub fn first(&mut self) -> Candidate {
        let home = self.home();
        let candidate = self.healthy(home).unwrap_or(Candidate {
            endpoint: home.unwrap_or(0),
            permit: CircuitPermit::LastResort,
        });
        self.tried.push(candidate.endpoint);
        candidate
    }

    /// The next healthy upstream that was not tried.
    pub fn next_healthy(&mut self) -> Option<Candidate> {
        let candidate = self.healthy(None)?;
        self.tried.push(candidate.endpoint);
        Some(candidate)
    }

    /// An upstream that was not tried, where none of them is healthy: for a request that was not
    /// sent yet.
    pub fn last_resort(&mut self) -> Option<Candidate> {
        let endpoint = (0..self.known.circuits.len()).find(|at| !self.tried.contains(at))?;
        self.tried.push(endpoint);
        Some(Candidate {
            endpoint,
            permit: CircuitPermit::LastResort,
        })
    }

    /// The next healthy upstream after one had the request and failed, if the retry budget has room
    /// for it.
    pub fn next_healthy_within_budget(&mut self) -> Option<Candidate> {
        let now = self.balance.now();
        let mut others = self.known.circuits.iter().enumerate();
        // nothing is spent, and no probe is taken, without another upstream
        let is_any = others.any(|(endpoint, named)| {
            !self.tried.contains(&endpoint) && named.circuit.state(now) != CircuitState::Open
        });
        if is_any && self.balance.budget.spend(now) {
            self.next_healthy()
        } else {
            None
        }
    }

    /// Records a success.
    pub fn succeeded(&self, candidate: Candidate) {
        self.known.circuits[candidate.endpoint].circuit.succeeded();
    }

    /// Pins the session to this upstream.
    pub fn pin_session(&self, candidate: Candidate) {
        let Some(session) = self.session else { return };
        let named = &self.known.circuits[candidate.endpoint];
        let minute = self.balance.minute();
        // who is at the preferred one need not be remembered, unless it was elsewhere
        let before = self.balance.affinity.upstream(session, minute);
        if before != Some(named.tag) && (candidate.endpoint != 0 || before.is_some()) {
            self.balance.affinity.remember(session, named.tag, minute);
        }
    }

    /// Records a failure. Tells whether the circuit opened.
    pub fn failed(&self, candidate: Candidate) -> bool {
        let circuit = &self.known.circuits[candidate.endpoint].circuit;
        circuit.failed(candidate.permit, self.balance.now())
    }

    /// Passes the upstream over for a time, as its `Retry-After` asked.
    pub fn back_off(&self, candidate: Candidate, wait: Duration) {
        let circuit = &self.known.circuits[candidate.endpoint].circuit;
        circuit.back_off(wait, self.balance.now());
    }

    /// The upstream of the session.
    fn home(&self) -> Option<usize> {
        let (session, minute) = (self.session?, self.balance.minute());
        let tag = self.balance.affinity.upstream(session, minute)?;
        self.known.circuits.iter().position(|c| c.tag == tag)
    }

    fn healthy(&self, home: Option<usize>) -> Option<Candidate> {
        let now = self.balance.now();
        home.into_iter()
            .chain(0..self.known.circuits.len())
            .filter(|endpoint| !self.tried.contains(endpoint))
            .find_map(|endpoint| {
                let permit = self.known.circuits[endpoint].circuit.permit(now)?;
                Some(Candidate { endpoint, permit })
            })
    }
}

/// The wait in a `Retry-After` field: seconds or a date (RFC 9110 §10.2.3).
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpVersion, OutboundRoute};

    fn endpoints(urls: &[&str]) -> Arc<[Endpoint]> {
        let endpoint = |url: &&str| Endpoint {
            name: (*url).into(),
            upstream: url.parse().unwrap(),
            route: OutboundRoute::Direct,
            http: HttpVersion::Http11,
            credential: None,
        };
        urls.iter().map(endpoint).collect()
    }

    fn fail(balance: &Balance, endpoints: &Arc<[Endpoint]>, at: usize) {
        for _ in 0..5 {
            let selection = balance.selection(endpoints, None);
            selection.failed(Candidate {
                endpoint: at,
                permit: CircuitPermit::Regular,
            });
        }
    }

    #[test]
    fn the_first_healthy_one_is_chosen_and_each_once() {
        let endpoints = endpoints(&["http://a", "http://b", "http://c"]);
        let balance = Balance::new(&endpoints);
        fail(&balance, &endpoints, 1);
        assert_eq!(
            balance.states(&endpoints),
            [
                CircuitState::Unknown,
                CircuitState::Open,
                CircuitState::Unknown
            ]
        );
        let mut selection = balance.selection(&endpoints, None);
        assert_eq!(selection.first().endpoint, 0);
        assert_eq!(selection.next_healthy().unwrap().endpoint, 2);
        assert_eq!(selection.next_healthy(), None);
    }

    #[test]
    fn a_session_stays_while_its_upstream_is_healthy() {
        let endpoints = endpoints(&["http://a", "http://b", "http://c"]);
        let balance = Balance::new(&endpoints);
        let mut selection = balance.selection(&endpoints, Some(b"session"));
        selection.first();
        let second = selection.next_healthy().unwrap();
        selection.pin_session(second);
        // the preferred one is well, and others go there
        assert_eq!(
            balance
                .selection(&endpoints, Some(b"other"))
                .first()
                .endpoint,
            0
        );
        assert_eq!(
            balance
                .selection(&endpoints, Some(b"session"))
                .first()
                .endpoint,
            1
        );
        fail(&balance, &endpoints, 1);
        let mut selection = balance.selection(&endpoints, Some(b"session"));
        let candidate = selection.first();
        assert_eq!(candidate.endpoint, 0);
        selection.pin_session(candidate);
        assert_eq!(
            balance
                .selection(&endpoints, Some(b"session"))
                .first()
                .endpoint,
            0
        );
    }

    #[test]
    fn no_healthy_upstream_is_no_refusal() {
        let endpoints = endpoints(&["http://a", "http://b"]);
        let balance = Balance::new(&endpoints);
        fail(&balance, &endpoints, 0);
        fail(&balance, &endpoints, 1);
        let mut selection = balance.selection(&endpoints, None);
        assert_eq!(selection.first().endpoint, 0);
        assert_eq!(selection.next_healthy(), None, "a storm is not made larger");
    }

    #[test]
    fn what_is_learned_of_the_only_one_is_shown() {
        let endpoints = endpoints(&["http://a"]);
        let balance = Balance::new(&endpoints);
        assert_eq!(balance.states(&endpoints), [CircuitState::Unknown]);
        balance.learned_of_only(&endpoints, true);
        balance.learned_of_only(&endpoints, true);
        assert_eq!(balance.states(&endpoints), [CircuitState::Failing(2)]);
        for _ in 0..9 {
            balance.learned_of_only(&endpoints, true);
        }
        assert_eq!(balance.states(&endpoints), [CircuitState::Open]);
        balance.learned_of_only(&endpoints, false);
        assert_eq!(balance.states(&endpoints), [CircuitState::Closed]);
    }

    #[test]
    fn another_configuration_keeps_what_is_known() {
        let before = endpoints(&["http://a", "http://b", "http://b"]);
        let balance = Balance::new(&before);
        fail(&balance, &before, 2);
        let after = endpoints(&["http://b", "http://b", "http://c"]);
        assert_eq!(
            balance.states(&after),
            [
                CircuitState::Unknown,
                CircuitState::Open,
                CircuitState::Unknown
            ]
        );
        // an exchange that began before still finds its own
        assert_eq!(balance.selection(&before, None).first().endpoint, 0);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expected) in [
            ("0", Some(0)),
            (" 17 ", Some(17)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(value.as_bytes(), now), expected, "{value}");
        }
    }
}
