//! Upstream selection: session affinity, health and retry budget over all workers.
//!
//! A session stays with its upstream while that one is healthy; other requests go to the first
//! healthy upstream of the list. All workers share one [`Balance`]; each request takes a
//! [`Selection`], which gives each upstream once. With one upstream none of it is used.
//!
//! Replicas may tell each other what they see: `Hints` gives and takes it, on a thread beside the workers. All of
//! it is advice.
//!
//! It sends nothing and reads no content: [`super::Client`] and the proxy do.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use super::{
    affinity::{Affinity, AffinityMove, ToldAffinity},
    budget::RetryBudget,
    circuit::{Circuit, CircuitPermit, CircuitState},
    session_hash::SessionHash,
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
    session_hash: SessionHash,
    /// Called when a circuit opens, where other replicas are told.
    opened: OnceLock<Box<dyn Fn() + Send + Sync>>,
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
    /// Its name, which is the same at all replicas.
    name: Box<str>,
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
            session_hash: SessionHash::default(),
            opened: OnceLock::new(),
        }
    }

    /// The selection for one request. `session` identifies the session of the request: a session
    /// id, else a key.
    pub fn selection(&self, endpoints: &Arc<[Endpoint]>, session: Option<&[u8]>) -> Selection<'_> {
        self.budget.earn();
        Selection {
            balance: self,
            known: self.known(endpoints),
            session: session.map(|session| self.session_hash.of(session)),
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
                        name: (&*endpoint.name).into(),
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

/// A circuit that is open: the upstream's name, and the number of the opening.
pub type OpenCircuit = (Box<str>, u32);

/// Hints to other replicas and from them; kept by the one thread that tells and hears.
#[derive(Default)]
pub struct Hints {
    told: ToldAffinity,
    /// Openings at other replicas that were counted: boot, upstream, number.
    heard: Vec<(Box<str>, OpenCircuit)>,
}

impl Hints {
    /// The circuits that are open here, where requests have an alternative.
    pub fn open(&self, balance: &Balance) -> Vec<OpenCircuit> {
        let known = balance.known.load();
        let circuits = known.circuits.iter().filter(|_| known.circuits.len() > 1);
        let open = circuits.filter_map(|it| Some((it.name.clone(), it.circuit.episode()?)));
        open.take(MOST_OPEN).collect()
    }

    /// Takes the circuits that are open at other replicas, all of them. Each opening counts once.
    pub fn hear(&mut self, balance: &Balance, open: Vec<(Box<str>, OpenCircuit)>) {
        let (known, now) = (balance.known.load(), balance.now());
        for opening in open.iter().filter(|opening| !self.heard.contains(opening)) {
            let (_, (name, _)) = opening;
            let mut named = known.circuits.iter();
            if let Some(named) = named.find(|it| it.name == *name) {
                named.circuit.hint(now);
            }
        }
        self.heard = open;
    }

    /// The sessions that changed their upstream since they were told last, as texts.
    pub fn moves(&mut self, balance: &Balance) -> Vec<String> {
        let known = balance.known.load();
        let changes = balance.affinity.changes(&mut self.told, MOST_MOVES);
        let shown = changes.into_iter().filter_map(|moved| {
            let named = known.circuits.iter().find(|it| it.tag == moved.upstream)?;
            let upstream = crc32fast::hash(named.name.as_bytes());
            Some(format!("{:x} {:x} {upstream:x}", moved.set, moved.session))
        });
        shown.collect()
    }

    /// Takes a session that changed its upstream at some replica; ignores what it does not understand.
    pub fn follow(&mut self, balance: &Balance, moved: &str, age: Duration) {
        let known = balance.known.load();
        let mut parts = moved.split(' ').map(|part| u32::from_str_radix(part, 16));
        let mut next = || parts.next()?.ok();
        let (Some(set), Some(session), Some(upstream)) = (next(), next(), next()) else {
            return;
        };
        let mut named = known.circuits.iter();
        let named = named.find(|it| crc32fast::hash(it.name.as_bytes()) == upstream);
        if let (Some(named), Ok(set)) = (named, u16::try_from(set)) {
            let moved = AffinityMove {
                set,
                session,
                upstream: named.tag,
            };
            let minutes = u16::try_from(age.as_secs() / 60).unwrap_or(u16::MAX);
            let minute = balance.minute().wrapping_sub(minutes);
            balance.affinity.follow(moved, minute, &mut self.told);
        }
    }
}

/// Open circuits that are told.
const MOST_OPEN: usize = 16;
/// Sessions that are told at once.
const MOST_MOVES: usize = 500;

impl Balance {
    /// True if requests have an alternative.
    pub fn has_choice(&self) -> bool {
        self.known.load().circuits.len() > 1
    }

    /// Has this called when a circuit opens; the first call counts.
    pub fn on_open(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.opened.set(Box::new(tell));
    }

    /// The key of the hashes of sessions, in hexadecimal digits.
    pub fn session_key(&self) -> String {
        self.session_hash.key()
    }

    /// Puts another key into effect, which all replicas have. Sessions that were moved before lose their upstream.
    pub fn set_session_key(&self, key: &str) {
        if self.session_hash.set_key(key) {
            self.affinity.clear();
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
        let is_opened = circuit.failed(candidate.permit, self.balance.now());
        if is_opened && let Some(tell) = self.balance.opened.get() {
            tell();
        }
        is_opened
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

    fn join(one: &Balance, other: &Balance) {
        other.set_session_key(&one.session_key());
        assert_eq!(one.session_key(), other.session_key());
    }

    #[test]
    fn a_session_keeps_its_upstream_at_another_replica() {
        let (here, there) = (
            endpoints(&["http://a", "http://b", "http://c"]),
            endpoints(&["http://a", "http://c", "http://b"]),
        );
        let (one, other) = (Balance::new(&here), Balance::new(&there));
        join(&one, &other);
        let mut selection = one.selection(&here, Some(b"session"));
        selection.first();
        let second = selection.next_healthy().unwrap();
        selection.pin_session(second);
        let moves = Hints::default().moves(&one);
        assert_eq!(moves.len(), 1);
        assert!(!moves[0].contains("session"), "hashes alone: {moves:?}");
        let mut hints = Hints::default();
        hints.follow(&other, "no move", Duration::ZERO);
        hints.follow(&other, &moves[0], Duration::ZERO);
        // the same upstream, at another place of the list
        let mut selection = other.selection(&there, Some(b"session"));
        assert_eq!(selection.first().endpoint, 2);
        assert_eq!(hints.moves(&other), [""; 0], "it is not told on");
    }

    #[test]
    fn a_circuit_that_opens_elsewhere_counts_once_and_opens_nothing() {
        let endpoints = endpoints(&["http://a", "http://b"]);
        let (one, other) = (Balance::new(&endpoints), Balance::new(&endpoints));
        fail(&one, &endpoints, 0);
        let mut hints = Hints::default();
        let open = hints.open(&one);
        assert_eq!(open, [("http://a".into(), 1)]);
        for _ in 0..9 {
            let heard = open.iter().map(|it| ("boot".into(), it.clone()));
            hints.hear(&other, heard.collect());
        }
        assert_eq!(other.selection(&endpoints, None).first().endpoint, 0);
        let selection = other.selection(&endpoints, None);
        let candidate = Candidate {
            endpoint: 0,
            permit: CircuitPermit::Regular,
        };
        let opened: Vec<_> = (0..4).map(|_| selection.failed(candidate)).collect();
        assert_eq!(opened, [false, false, false, true]);
    }

    #[test]
    fn the_only_upstream_tells_nothing() {
        let endpoints = endpoints(&["http://a"]);
        let balance = Balance::new(&endpoints);
        for _ in 0..9 {
            balance.learned_of_only(&endpoints, true);
        }
        assert_eq!(Hints::default().open(&balance), []);
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
