//! The replicas that share a store: the thread that tells them of this one, and hears of them.
//!
//! It writes a heartbeat each second, and at once where a circuit opens; it reads those of the others, and hands
//! on their hints. No worker waits for it, and without a store the replica works on alone.

use std::{
    collections::HashSet,
    fs, io,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    background::locked,
    config::{SettingsDigest, reload::ConfigStatus},
    control::{FleetSnapshot, HeardReplica, ReplicaBeat, ReplicaSource},
    drain::DrainPhase,
    limits::Limits,
    state::{
        StateError,
        fleet::{Fleet, StoredBeat},
    },
    telemetry::{activity::unix_millis, metrics::Metrics},
    upstream::balance::{Balance, Hints},
};

/// Time between two heartbeats.
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two: circuits of several upstreams may open together.
const FLOOR: Duration = Duration::from_millis(100);
/// Heartbeats after which the key that all replicas have in common is asked for again: a store may lose it.
const KEY_ROUNDS: u64 = 10;
/// Moves of sessions that wait while the store cannot be used.
const MOST_WAITING: usize = 16_384;
/// Longest text of a replica, in characters.
const LONGEST_TEXT: usize = 64;
/// Most replicas that are shown.
const MOST_REPLICAS: usize = 1000;

/// Sources of this replica's heartbeat.
pub(super) struct OwnReplica {
    pub(super) boot: String,
    pub(super) started: SystemTime,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) balance: Arc<Balance>,
    pub(super) standing: Arc<ArcSwap<ConfigStatus>>,
    pub(super) phase: watch::Receiver<DrainPhase>,
    /// The name, read once.
    pub(super) name: String,
    /// The settings whose digests are known.
    pub(super) digest: Mutex<Option<(Arc<ConfigStatus>, SettingsDigest)>>,
}

impl OwnReplica {
    /// Its heartbeat now.
    fn beat(&self) -> ReplicaBeat {
        let (requests, errors) = self.metrics.requests();
        let digest = self.digest();
        ReplicaBeat {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: digest.all,
            settings: digest.each,
            started_at: unix_millis(self.started),
            in_flight: self.limits.in_flight() as u64,
            draining: *self.phase.borrow() >= DrainPhase::HandedOver,
            requests,
            errors,
            open: Hints::default().open(&self.balance),
        }
    }

    fn digest(&self) -> SettingsDigest {
        let standing = self.standing.load_full();
        let mut known = locked(&self.digest);
        match &*known {
            Some((of, digest)) if Arc::ptr_eq(of, &standing) => digest.clone(),
            _ => {
                let digest = SettingsDigest::of(&standing.settings);
                *known = Some((standing, digest.clone()));
                digest
            }
        }
    }

    fn heard(&self) -> HeardReplica {
        HeardReplica {
            boot: self.boot.clone(),
            at: SystemTime::now(),
            beat: self.beat(),
        }
    }
}

/// Tells what is known of the replicas: what was heard, and this one as it is now.
pub(super) fn source(own: &Arc<OwnReplica>, heard: &Arc<ArcSwap<FleetSnapshot>>) -> ReplicaSource {
    let (own, heard) = (Arc::clone(own), Arc::clone(heard));
    Box::new(move || {
        let mut snapshot = FleetSnapshot::clone(&heard.load());
        snapshot.replicas.retain(|it| it.boot != own.boot);
        snapshot.replicas.push(own.heard());
        Arc::new(snapshot)
    })
}

/// The name of this replica: that of its host, with the port where it has one, for a host may run several.
pub(super) fn replica_name(boot: &str, port: Option<u16>) -> String {
    let host = host_name(boot);
    match port {
        Some(port) => {
            let port = format!(":{port}");
            let host: String = host.chars().take(LONGEST_TEXT - port.len()).collect();
            host + &port
        }
        None => host,
    }
}

fn host_name(boot: &str) -> String {
    let read = |path: &str| fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/hostname")
        .or_else(|| read("/etc/hostname"))
        .or_else(|| std::env::var("HOSTNAME").ok());
    let name = shown(name.as_deref().unwrap_or_default());
    match name.is_empty() {
        true => boot.chars().take(8).collect(),
        false => name,
    }
}

/// The thread, until it is ended.
pub(super) struct FleetThread {
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FleetThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn start(
        own: Arc<OwnReplica>,
        store: Box<dyn Fleet>,
        heard: Arc<ArcSwap<FleetSnapshot>>,
    ) -> io::Result<Self> {
        let is_ended = Arc::<AtomicBool>::default();
        let is_urgent = Arc::<AtomicBool>::default();
        let balance = Arc::clone(&own.balance);
        let mut talk = Talk::new(own, store, heard);
        let (ended, urgent) = (Arc::clone(&is_ended), Arc::clone(&is_urgent));
        let thread = thread::Builder::new()
            .name("fleet".to_owned())
            .spawn(move || {
                while !ended.load(SeqCst) {
                    let began = Instant::now();
                    urgent.store(false, SeqCst);
                    talk.round();
                    while !ended.load(SeqCst) {
                        let wait = match urgent.load(SeqCst) {
                            true => FLOOR,
                            false => INTERVAL,
                        };
                        let left = wait.checked_sub(began.elapsed());
                        let Some(left) = left.filter(|left| !left.is_zero()) else {
                            break;
                        };
                        thread::park_timeout(left);
                    }
                }
                talk.end();
            })?;
        let woken = thread.thread().clone();
        balance.on_open(move || {
            if !is_urgent.swap(true, Relaxed) {
                woken.unpark();
            }
        });
        Ok(Self {
            is_ended,
            thread: Some(thread),
        })
    }
}

impl Drop for FleetThread {
    fn drop(&mut self) {
        self.is_ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // a thread that panicked has logged it
            let _ = thread.join();
        }
    }
}

/// The talk with other replicas, round by round.
struct Talk {
    own: Arc<OwnReplica>,
    store: Box<dyn Fleet>,
    heard: Arc<ArcSwap<FleetSnapshot>>,
    hints: Hints,
    /// Position in the moves of sessions.
    position: String,
    /// Moves that are not told yet.
    waiting: Vec<String>,
    rounds: u64,
    /// Versions of other replicas that the log has.
    versions: HashSet<String>,
    is_failing: bool,
}

impl Talk {
    fn new(
        own: Arc<OwnReplica>,
        store: Box<dyn Fleet>,
        heard: Arc<ArcSwap<FleetSnapshot>>,
    ) -> Self {
        Self {
            own,
            store,
            heard,
            hints: Hints::default(),
            position: String::new(),
            waiting: Vec::new(),
            rounds: 0,
            versions: HashSet::new(),
            is_failing: false,
        }
    }

    fn round(&mut self) {
        let outcome = self.beat().and_then(|()| self.exchange_moves());
        let fault = outcome.err().map(|error| error.to_string());
        match &fault {
            None if self.is_failing => log::info!("[Fleet] other replicas are heard again"),
            Some(fault) if !self.is_failing => log::warn!(
                "[Fleet] {fault}; this replica works on alone and tries again each second"
            ),
            _ => {}
        }
        self.is_failing = fault.is_some();
        if fault.is_some() {
            // what was told last may be lost
            self.rounds = 0;
            let mut snapshot = FleetSnapshot::clone(&self.heard.load());
            snapshot.fault = fault;
            snapshot.is_shared = true;
            self.heard.store(Arc::new(snapshot));
        }
    }

    fn beat(&mut self) -> Result<(), StateError> {
        let text = serde_json::to_string(&self.own.beat()).unwrap_or_default();
        let beats = self.store.beat(&self.own.boot, &text)?;
        let now = SystemTime::now();
        let mut replicas: Vec<_> = beats.iter().filter_map(|beat| heard(beat, now)).collect();
        replicas.truncate(MOST_REPLICAS);
        for replica in &replicas {
            let version = &replica.beat.version;
            if *version != env!("CARGO_PKG_VERSION") && self.versions.insert(version.clone()) {
                log::info!(
                    "[Fleet] replica {} runs version {version}, this one {}; finish the update where it is none",
                    replica.beat.name,
                    env!("CARGO_PKG_VERSION")
                );
            }
        }
        let others = replicas.iter().filter(|it| it.boot != self.own.boot);
        let open = others.flat_map(|it| {
            let open = it.beat.open.iter().cloned();
            open.map(|open| (it.boot.as_str().into(), open))
        });
        self.hints.hear(&self.own.balance, open.collect());
        self.heard.store(Arc::new(FleetSnapshot {
            replicas,
            fault: None,
            read_at: Some(now),
            is_shared: true,
        }));
        Ok(())
    }

    /// Tells and hears of the sessions that changed their upstream, where there are several.
    fn exchange_moves(&mut self) -> Result<(), StateError> {
        let balance = &self.own.balance;
        if !balance.has_choice() {
            return Ok(());
        }
        if self.rounds.is_multiple_of(KEY_ROUNDS) {
            let key = self.store.common_text(&balance.session_key())?;
            balance.set_session_key(&key);
        }
        self.rounds += 1;
        self.waiting.extend(self.hints.moves(balance));
        let beyond = self.waiting.len().saturating_sub(MOST_WAITING);
        self.waiting.drain(..beyond);
        let moves = self.store.moves(&self.waiting, &self.position)?;
        self.waiting.clear();
        self.position = moves.position;
        for (age, moved) in &moves.moves {
            self.hints.follow(balance, moved, *age);
        }
        Ok(())
    }

    fn end(&mut self) {
        // it expires by itself where this fails
        let _ = self.store.leave(&self.own.boot);
    }
}

/// A replica of its heartbeat; none if that cannot be read. Its texts go to logs and pages.
fn heard(stored: &StoredBeat, now: SystemTime) -> Option<HeardReplica> {
    let mut beat: ReplicaBeat = serde_json::from_str(&stored.text).ok()?;
    for text in [&mut beat.name, &mut beat.version, &mut beat.config] {
        *text = shown(text);
    }
    // names of variables, of this version or of another one
    beat.settings.retain(|name, _| {
        name.len() <= LONGEST_TEXT
            && name
                .bytes()
                .all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_')
    });
    Some(HeardReplica {
        boot: stored.boot.clone(),
        at: now.checked_sub(stored.age)?,
        beat,
    })
}

/// A text without what would end a line of the log, and of a bounded length.
fn shown(text: &str) -> String {
    let shown = text.trim().chars().filter(|c| !c.is_control());
    shown.take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Endpoint, HttpVersion, OutboundRoute},
        state::fleet::memory::MemoryFleet,
    };

    fn endpoints() -> Arc<[Endpoint]> {
        let endpoint = |url: &str| Endpoint {
            name: url.into(),
            upstream: url.parse().unwrap(),
            route: OutboundRoute::Direct,
            http: HttpVersion::Http11,
            credential: None,
        };
        ["http://a", "http://b"].map(endpoint).into()
    }

    fn talk(boot: &str, store: &MemoryFleet, endpoints: &Arc<[Endpoint]>) -> Talk {
        let own = OwnReplica {
            boot: boot.to_owned(),
            started: SystemTime::now(),
            limits: Arc::default(),
            metrics: Metrics::new(),
            balance: Arc::new(Balance::new(endpoints)),
            standing: Arc::default(),
            phase: watch::channel(DrainPhase::Running).1,
            name: format!("host-{boot}"),
            digest: Mutex::default(),
        };
        Talk::new(Arc::new(own), Box::new(store.clone()), Arc::default())
    }

    fn names(talk: &Talk) -> Vec<String> {
        let replicas = source(&talk.own, &talk.heard)().replicas.clone();
        let mut names: Vec<_> = replicas.into_iter().map(|it| it.beat.name).collect();
        names.sort();
        names
    }

    #[test]
    fn replicas_know_each_other_until_they_leave() {
        let (store, endpoints) = (MemoryFleet::default(), endpoints());
        let mut one = talk("a", &store, &endpoints);
        let mut other = talk("b", &store, &endpoints);
        assert_eq!(names(&one), ["host-a"], "itself, before the first answer");
        for talk in [&mut one, &mut other] {
            talk.round();
        }
        one.round();
        assert_eq!(names(&one), ["host-a", "host-b"]);
        other.end();
        one.round();
        assert_eq!(names(&one), ["host-a"]);
    }

    #[test]
    fn what_a_heartbeat_says_is_bounded_and_one_line() {
        let beat = |text: &str| StoredBeat {
            boot: "b".to_owned(),
            age: Duration::from_secs(1),
            text: text.to_owned(),
        };
        let now = SystemTime::now();
        let long = format!(r#"{{"name":"a\nb{}","unknown":1}}"#, "c".repeat(999));
        let replica = heard(&beat(&long), now).unwrap();
        assert_eq!(replica.beat.name, format!("ab{}", "c".repeat(62)));
        assert_eq!(replica.at, now - Duration::from_secs(1));
        assert!(heard(&beat("no heartbeat"), now).is_none());
    }

    #[test]
    fn a_store_that_fails_is_told_and_costs_nothing_else() {
        let (store, endpoints) = (MemoryFleet::default(), endpoints());
        let mut one = talk("a", &store, &endpoints);
        one.round();
        store.set_down(true);
        one.round();
        let snapshot = source(&one.own, &one.heard)();
        assert!(snapshot.fault.is_some());
        assert_eq!(names(&one), ["host-a"]);
        store.set_down(false);
        one.round();
        assert_eq!(source(&one.own, &one.heard)().fault, None);
    }

    #[test]
    fn a_session_and_an_open_circuit_are_told() {
        let (store, endpoints) = (MemoryFleet::default(), endpoints());
        let mut one = talk("a", &store, &endpoints);
        let mut other = talk("b", &store, &endpoints);
        one.round();
        other.round();
        let balance = &one.own.balance;
        let mut selection = balance.selection(&endpoints, Some(b"session"));
        let first = selection.first();
        let second = selection.next_healthy().unwrap();
        selection.pin_session(second);
        for _ in 0..5 {
            selection.failed(first);
        }
        one.round();
        other.round();
        let balance = &other.own.balance;
        let session = balance.selection(&endpoints, Some(b"session")).first();
        assert_eq!(session.endpoint, 1);
        let open = source(&other.own, &other.heard)().replicas.clone();
        let open: Vec<_> = open.iter().flat_map(|it| &it.beat.open).collect();
        assert_eq!(open, [&("http://a".into(), 1)]);
        // those that know no session go where this replica sees no failure
        let selection = balance.selection(&endpoints, None).first();
        assert_eq!(selection.endpoint, 0);
        // a replica that starts later knows it, too
        let mut later = talk("c", &store, &endpoints);
        later.round();
        let balance = &later.own.balance;
        let session = balance.selection(&endpoints, Some(b"session")).first();
        assert_eq!(session.endpoint, 1);
    }
}
