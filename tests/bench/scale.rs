//! Replicas by the hundred and subjects by the hundred thousand, in simulated time: the tables of
//! `docs/scale.md`.
//!
//! What decides is the product: each replica is an [`Access`] with its [`Syncer`], and the store does what the
//! scripts do. Simulated are the clock, the requests, and the time that Redis and the network take: Redis runs
//! one script after the other, [`Script`] says how long (measured by `tests/state/scripts.py`), and a replica
//! has one call under way.
//!
//! `cargo bench --bench scale` prints the tables; `-- exact 64 100` that of exactness alone, for these replicas.
//! Without `--bench` it runs small worlds, as a test.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a simulation that cannot set up shall stop, and prints its tables"
)]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    env,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anthropic_proxy::{
    access::{
        Access, AccessFilling, Admitted, Asked, FullKey, Grant, Key, KeyField, KeyId, KeyRecord,
        LimitKind, LimitRule, Pepper, Period, Shown, SlotWait, Syncer,
    },
    config::Prices,
    exchange::Tokens,
    state::{MemoryLimits, MemoryReplica, MeterAnswer, SharedLimits, Unanswered},
};

fn main() {
    // waits for slots have a timer of tokio's, which never fires here
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let asks = |word: &str| env::args().any(|argument| argument == word);
    let named: Vec<u32> = env::args().filter_map(|it| it.parse().ok()).collect();
    match asks("--bench") {
        true if asks("exact") => limits_hold(&named),
        true => {
            costs();
            limits_hold(&REPLICAS);
        }
        false => small(),
    }
}

/// Small worlds, whose figures are known.
fn small() {
    for limited in [Limited::Rate, Limited::Budget, Limited::Slots] {
        let world = World::run(&limited.scene(3, 5));
        let exact = world.exactness(limited);
        assert!(exact.above <= 0.02, "{limited:?}: {exact:?}");
        assert!(exact.used >= 0.8, "{limited:?}: {exact:?}");
        assert!(world.syncs > 0 && world.redis > 0);
    }
}

/// Prints calls, scripts and the time of Redis, by replicas and subjects, while no limit is near.
fn costs() {
    println!(
        "| replicas | subjects | requests/s | calls/s of a replica | scripts/s | Redis, of a core | answer p99 |\n\
         |---|---|---|---|---|---|---|"
    );
    for replicas in REPLICAS {
        for subjects in [1, 100, 10_000, 100_000] {
            let rate = RATE * f64::from(replicas);
            let world = World::run(&Scene {
                replicas,
                subjects,
                rate,
                seconds: 12,
                limits: Limits {
                    per_minute: Some(u64::from(u32::MAX)),
                    budget: Some(u64::from(u32::MAX) * COST),
                    at_once: None,
                },
            });
            let seconds = 6.0;
            println!(
                "| {replicas} | {subjects} | {rate:.0} | {:.0} | {:.0} | {:.1} % | {:.1} ms |",
                world.syncs as f64 / seconds / f64::from(replicas),
                world.scripts as f64 / seconds,
                world.redis as f64 / seconds / 1e7,
                percentile(world.answers, 99) as f64 / 1e6,
            );
        }
    }
    println!();
}

/// Prints admissions above each kind of limit, and the part of it that was used, where more is asked for.
fn limits_hold(replicas: &[u32]) {
    println!(
        "| replicas | subjects | rate: above | used | budget: above | used | at once: above | used |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for replicas in replicas.iter().copied() {
        for subjects in [1, 100] {
            let mut row = format!("| {replicas} | {subjects} |");
            for limited in [Limited::Rate, Limited::Budget, Limited::Slots] {
                let exact = World::run(&limited.scene(replicas, subjects)).exactness(limited);
                let (above, used) = (exact.above * 100.0, exact.used * 100.0);
                row += &format!(" {above:.2} % | {used:.0} % |");
            }
            println!("{row}");
        }
    }
}

/// Kind of the limit that is asked for more than it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limited {
    Rate,
    Budget,
    Slots,
}

impl Limited {
    /// A world in which the first subjects, and all together, ask for far more than they may have.
    fn scene(self, replicas: u32, subjects: usize) -> Scene {
        let rate = RATE * f64::from(replicas);
        let each = rate / subjects as f64;
        let mut limits = Limits::default();
        let seconds = match self {
            Self::Rate => {
                limits.per_minute = Some((each * 15.0).ceil() as u64);
                60
            }
            Self::Budget => {
                limits.budget = Some((each * 10.0).ceil() as u64 * COST);
                40
            }
            Self::Slots => {
                limits.at_once = Some((each * LASTS / 4.0).ceil() as u64);
                30
            }
        };
        Scene {
            replicas,
            subjects,
            rate,
            seconds,
            limits,
        }
    }
}

/// A world to be run.
struct Scene {
    replicas: u32,
    subjects: usize,
    /// Requests a second of all subjects, which ask by Zipf's law.
    rate: f64,
    seconds: u64,
    /// The limits of each subject.
    limits: Limits,
}

#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    per_minute: Option<u64>,
    budget: Option<u64>,
    at_once: Option<u64>,
}

/// Replicas, their store, and what happens next.
struct World {
    limits: Limits,
    /// Nanoseconds since the beginning.
    now: u64,
    end: u64,
    clock: Arc<AtomicU64>,
    store: MemoryLimits,
    /// The time at which Redis has run all scripts that it was sent.
    free_at: u64,
    replicas: Vec<Replica>,
    subjects: Vec<Subject>,
    running: Vec<Option<(Grant, usize)>>,
    /// Events by their time; the number keeps their order.
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    number: u64,
    random: SplitMix,
    syncs: u64,
    scripts: u64,
    /// Nanoseconds in which Redis ran scripts.
    redis: u64,
    /// Nanoseconds from a call to its answer.
    answers: Vec<u64>,
}

/// Event of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request arrives.
    Asks,
    /// An exchange ends, that has this place in the list of those that run.
    Ends(usize, usize),
    /// Reports of a replica are due.
    Sends(usize),
    /// They arrive at Redis.
    Serves(usize),
    /// The answers are back.
    Answers(usize),
}

struct Replica {
    access: Access,
    syncer: Syncer,
    store: MemoryReplica,
    keys: HashMap<usize, Arc<Key>>,
    waiting: VecDeque<(u64, usize, SlotWait)>,
    is_under_way: bool,
    sent_at: u64,
    /// The time for which a call is planned.
    planned: u64,
    answers: Option<Result<Vec<Option<MeterAnswer>>, Unanswered>>,
}

/// A subject, as the world counts it.
#[derive(Default)]
struct Subject {
    asked: u64,
    admitted: u64,
    running: u64,
    peak: u64,
    /// Nanoseconds times exchanges that ran, in the second half.
    used: u64,
    changed: u64,
    first: u64,
}

#[derive(Debug)]
struct Exactness {
    /// Part of what was allowed, that was admitted beyond it.
    above: f64,
    /// Part of what was allowed, that was admitted, of subjects that asked for more.
    used: f64,
}

impl World {
    fn run(scene: &Scene) -> Self {
        let clock = Arc::new(AtomicU64::new(1));
        let store = MemoryLimits::at(BEGIN * 1_000_000);
        let mut random = SplitMix(u64::from(scene.replicas) << 32 | scene.subjects as u64);
        let replicas = (0..scene.replicas)
            .map(|number| Replica::new(number, scene.replicas, &clock, &store))
            .collect();
        let weights: Vec<f64> = (0..scene.subjects)
            .scan(0.0, |sum, place| {
                *sum += 1.0 / (place + 1) as f64;
                Some(*sum)
            })
            .collect();
        let mut world = Self {
            limits: scene.limits,
            now: 1,
            end: scene.seconds * SECOND,
            clock,
            store,
            free_at: 0,
            replicas,
            subjects: (0..scene.subjects).map(|_| Subject::default()).collect(),
            running: Vec::new(),
            events: BinaryHeap::new(),
            number: 0,
            random: SplitMix(random.next()),
            syncs: 0,
            scripts: 0,
            redis: 0,
            answers: Vec::new(),
        };
        world.plan(1, Event::Asks);
        while let Some(Reverse((at, _, event))) = world.events.pop() {
            if at > world.end {
                break;
            }
            world.now = at;
            world.clock.store(at, SeqCst);
            match event {
                Event::Asks => {
                    let gap = -(1.0 - world.random.part()).ln() / scene.rate;
                    world.plan(at + (gap * SECOND as f64) as u64, Event::Asks);
                    let total = weights.last().copied().unwrap_or_default();
                    let at = world.random.part() * total;
                    let subject = weights.partition_point(|weight| *weight <= at);
                    let replica = (world.random.next() % u64::from(scene.replicas)) as usize;
                    world.ask(replica, subject.min(scene.subjects - 1));
                }
                Event::Ends(replica, place) => world.end(replica, place),
                Event::Sends(replica) => world.send(replica),
                Event::Serves(replica) => world.serve(replica),
                Event::Answers(replica) => world.answer(replica),
            }
        }
        for place in 0..world.subjects.len() {
            world.count(place, 0);
        }
        world
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((at, self.number, event)));
    }

    fn is_measured(&self) -> bool {
        self.now >= self.end / 2
    }

    fn ask(&mut self, replica: usize, subject: usize) {
        let prices = Prices::built_in();
        let price = prices.of(MODEL);
        let asked = Asked {
            model: Some(MODEL),
            octets: 2_000,
            max_tokens: Some(TOKENS.output),
            session: None,
            is_generation: true,
            price,
        };
        let counted = &mut self.subjects[subject];
        counted.asked += 1;
        if counted.first == 0 {
            counted.first = self.now;
        }
        let time = self.time();
        let at = &mut self.replicas[replica];
        let key = at.key(subject, self.limits, time);
        match at.access.admit(&key, &asked, time) {
            Admitted::Granted(grant) => self.begin(replica, subject, grant),
            Admitted::Queued(wait) => at.waiting.push_back((self.now, subject, wait)),
            Admitted::Refused(_) => {}
        }
        self.serve_waiting(replica);
        self.poke(replica);
    }

    fn begin(&mut self, replica: usize, subject: usize, grant: Grant) {
        self.count(subject, 1);
        self.subjects[subject].admitted += 1;
        let place = self.running.len();
        self.running.push(Some((grant, subject)));
        // between a half and one and a half of the mean
        let lasts = LASTS * (0.5 + self.random.part());
        self.plan(
            self.now + (lasts * SECOND as f64) as u64,
            Event::Ends(replica, place),
        );
    }

    fn end(&mut self, replica: usize, place: usize) {
        if let Some((mut grant, subject)) = self.running[place].take() {
            grant.settle(&TOKENS, Some(COST));
            drop(grant);
            self.count(subject, -1);
        }
        self.serve_waiting(replica);
        self.poke(replica);
    }

    /// Counts what runs of a subject, and for how long.
    fn count(&mut self, subject: usize, change: i64) {
        let (now, half) = (self.now, self.end / 2);
        let counted = &mut self.subjects[subject];
        let since = counted.changed.max(half);
        counted.used += counted.running * now.saturating_sub(since);
        counted.changed = now;
        counted.running = counted.running.saturating_add_signed(change);
        counted.peak = counted.peak.max(counted.running);
    }

    /// Begins exchanges whose wait for a slot is over.
    fn serve_waiting(&mut self, replica: usize) {
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = std::mem::take(&mut self.replicas[replica].waiting);
        waiting.retain_mut(|(since, subject, wait)| {
            if self.now >= *since + 10 * SECOND {
                return false;
            }
            match Pin::new(wait).poll(&mut context) {
                Poll::Pending => true,
                Poll::Ready(Ok(grant)) => {
                    self.begin(replica, *subject, grant);
                    false
                }
                Poll::Ready(Err(_)) => false,
            }
        });
        self.replicas[replica].waiting = waiting;
    }

    /// Plans the next call of a replica.
    fn poke(&mut self, replica: usize) {
        let at = &mut self.replicas[replica];
        if at.is_under_way {
            return;
        }
        at.syncer.receive(self.now);
        let Some(due) = at.syncer.next_due() else {
            return;
        };
        let due = due.max(self.now);
        if due < at.planned {
            at.planned = due;
            self.plan(due, Event::Sends(replica));
        }
    }

    fn send(&mut self, replica: usize) {
        let at = &mut self.replicas[replica];
        if at.is_under_way || at.planned != self.now {
            return;
        }
        at.planned = u64::MAX;
        if at.syncer.collect(self.now) {
            at.is_under_way = true;
            at.sent_at = self.now;
            self.plan(self.now + WAY, Event::Serves(replica));
        } else {
            at.syncer.answered(self.now, Ok(Vec::new()));
            self.poke(replica);
        }
    }

    fn serve(&mut self, replica: usize) {
        let begins = self.free_at.max(self.now);
        let at = &mut self.replicas[replica];
        if begins > at.sent_at + SECOND {
            // Redis finds the connection closed before it has come to the call
            at.answers = Some(Err(Unanswered("too late".to_owned())));
            let back = at.sent_at + SECOND;
            self.plan(back, Event::Answers(replica));
            if self.is_measured() {
                self.answers.push(SECOND);
            }
            return;
        }
        self.store.set(BEGIN * 1_000_000 + begins / 1_000);
        let answers = at.store.exchange(at.syncer.origin(), at.syncer.reports());
        let scripts = answers.iter().flatten().flatten();
        let takes: u64 = scripts.map(|answer| Script::of(answer).takes(answer)).sum();
        self.free_at = begins + takes;
        let back = self.free_at + WAY;
        let sent_at = at.sent_at;
        let count = at.syncer.reports().len() as u64;
        // it was taken, but not heard of: the connection gives up
        let (back, answers) = match back > sent_at + SECOND {
            true => (sent_at + SECOND, Err(Unanswered("too late".to_owned()))),
            false => (back, answers),
        };
        at.answers = Some(answers);
        if self.is_measured() {
            self.syncs += 1;
            self.scripts += count;
            self.redis += takes;
            self.answers.push(back - sent_at);
        }
        self.plan(back.max(self.now), Event::Answers(replica));
    }

    fn answer(&mut self, replica: usize) {
        let at = &mut self.replicas[replica];
        at.is_under_way = false;
        if let Some(answers) = at.answers.take() {
            at.syncer.answered(self.now, answers);
        }
        self.serve_waiting(replica);
        self.poke(replica);
    }

    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(BEGIN) + Duration::from_nanos(self.now)
    }

    fn exactness(&self, limited: Limited) -> Exactness {
        let (mut above, mut allowed, mut used) = (0.0, 0.0, 0.0);
        for subject in &self.subjects {
            let (allows, admitted, asked) = self.of(subject, limited);
            above += (admitted - allows).max(0.0);
            if asked > allows * 1.5 {
                allowed += allows;
                used += match limited {
                    Limited::Slots => subject.used as f64 / (self.end / 2) as f64,
                    Limited::Rate | Limited::Budget => admitted,
                };
            }
        }
        Exactness {
            above: above / allowed,
            used: used / allowed,
        }
    }

    /// Exchanges of a subject: that its limit allows, that were admitted (at once), and that were asked for.
    fn of(&self, subject: &Subject, limited: Limited) -> (f64, f64, f64) {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / SECOND as f64;
        let (asked, admitted) = (subject.asked as f64, subject.admitted as f64);
        match limited {
            Limited::Rate => {
                let per_minute = self.limits.per_minute.unwrap_or_default() as f64;
                let minutes = seconds(subject.first, self.end) / 60.0;
                (per_minute * (1.0 + minutes), admitted, asked)
            }
            Limited::Budget => {
                let budget = self.limits.budget.unwrap_or_default();
                ((budget / COST) as f64, admitted, asked)
            }
            Limited::Slots => {
                let at_once = self.limits.at_once.unwrap_or_default() as f64;
                let wanted = asked / seconds(0, self.end) * LASTS;
                (at_once, subject.peak as f64, wanted)
            }
        }
    }
}

impl Replica {
    fn new(number: u32, replicas: u32, clock: &Arc<AtomicU64>, store: &MemoryLimits) -> Self {
        let begin = UNIX_EPOCH + Duration::from_secs(BEGIN);
        let filling = AccessFilling::new([], |_| None, begin);
        let access = filling.finish_at(Pepper::new(&PEPPER).unwrap(), Arc::clone(clock));
        let syncer = access.share(&format!("boot{number:04}"), replicas);
        Self {
            access,
            syncer,
            store: store.replica(),
            keys: HashMap::new(),
            waiting: VecDeque::new(),
            is_under_way: false,
            sent_at: 0,
            planned: u64::MAX,
            answers: None,
        }
    }

    /// The key of a subject, which the replica learns of when it is used first.
    fn key(&mut self, subject: usize, limits: Limits, now: SystemTime) -> Arc<Key> {
        if let Some(key) = self.keys.get(&subject) {
            return Arc::clone(key);
        }
        let id: KeyId = format!("{subject:010}").parse().unwrap();
        let full = FullKey::generate(id).unwrap();
        let limits = [
            limits
                .per_minute
                .map(|amount| (LimitKind::RequestsPerMinute, amount)),
            limits.budget.map(|amount| {
                let (period, zone) = (Period::Month, None);
                (LimitKind::Spend { period, zone }, amount)
            }),
            limits.at_once.map(|amount| (LimitKind::AtOnce, amount)),
        ];
        self.access.put_key(&KeyRecord {
            id,
            name: format!("key {subject}"),
            user: None,
            team: None,
            secrets: vec![self.access.pepper().record(&full, 0)],
            models: Vec::new(),
            paths: Vec::new(),
            sources: Vec::new(),
            limits: limits
                .into_iter()
                .flatten()
                .map(|(kind, amount)| LimitRule {
                    kind,
                    amount,
                    models: None,
                    unreachable: None,
                })
                .collect(),
            expires: None,
            upstream_key_env: None,
            created: 0,
            revoked: None,
        });
        let mut shown = Shown::default();
        shown.add(KeyField::ApiKey, full.reveal().as_bytes());
        let key = self.access.identify(&shown, None, now).unwrap();
        self.keys.insert(subject, Arc::clone(&key));
        key
    }
}

/// Time that a script takes of Redis' one thread, with its part of reading and writing, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Script {
    fixed: u64,
    /// For each replica that has a register.
    replica: u64,
}

impl Script {
    fn of(answer: &MeterAnswer) -> Self {
        let (fixed, replica) = match answer {
            MeterAnswer::Rate(_) => (30_000, 2_650),
            MeterAnswer::Budget(_) => (25_000, 2_950),
            MeterAnswer::Slots(_) => (20_000, 1_450),
        };
        Self { fixed, replica }
    }

    fn takes(self, answer: &MeterAnswer) -> u64 {
        let replicas = match answer {
            MeterAnswer::Rate(rate) => rate.replicas,
            MeterAnswer::Budget(budget) => budget.replicas,
            MeterAnswer::Slots(slots) => slots.replicas,
        };
        self.fixed + self.replica * replicas
    }
}

/// Sebastiano Vigna's SplitMix64: small, and the same in every run.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, without 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn percentile(mut values: Vec<u64>, percent: usize) -> u64 {
    values.sort_unstable();
    let place = values.len() * percent / 100;
    values.get(place).copied().unwrap_or_default()
}

const REPLICAS: [u32; 7] = [1, 4, 8, 16, 32, 64, 100];

/// Requests a second of each replica.
const RATE: f64 = 50.0;

/// Seconds of an exchange, in the mean.
const LASTS: f64 = 2.0;

const MODEL: &str = "claude-sonnet-4-5";

/// Tokens of every exchange.
const TOKENS: Tokens = Tokens {
    input: 100,
    output: 100,
    cache_read: 0,
    cache_write_5m: 0,
    cache_write_1h: 0,
};

/// Their price, in billionths of a US dollar.
const COST: u64 = 1_800_000;

/// Nanoseconds that the network takes for one way.
const WAY: u64 = 250_000;

/// The beginning, in Unix seconds.
const BEGIN: u64 = 1_800_000_000;

const PEPPER: [u8; 32] = [7; 32];

const SECOND: u64 = 1_000_000_000;
