//! Limits over replicas: real admission, a store in memory, and whatever may happen between them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::{
    access::limit::Meter,
    state::{MemoryLimits, MemoryReplica, MeterName, SharedLimits, Unanswered},
};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLISECOND;

/// Microseconds of the store's clock at the start.
const STORE_START: u64 = 1_800_000_000_000_000;

/// Unix seconds of the replicas: noon, so that no period ends.
const NOON: u64 = 20_000 * 86_400 + 43_200;

/// A replica of a world.
struct Replica {
    access: Arc<Access>,
    key: Arc<Key>,
    syncer: Syncer,
    store: MemoryReplica,
    is_cut: bool,
    /// True if the last report had no answer: the store may not know what it runs.
    is_unanswered: bool,
    /// Time of the last answer.
    heard: u64,
    /// Time by which jumps of the store's clock may have brought the end of its lease nearer, since the last answer.
    jumped: u64,
    /// True if its lease lapsed, or was not known to the store, while it ran something.
    is_tainted: bool,
    /// True if it ran something when it was cut off.
    had_some: bool,
    running: Vec<(Grant, u64)>,
    waiting: Vec<SlotWait>,
    runtime: Arc<Runtime>,
}

/// Replicas with one store.
struct World {
    records: Records,
    /// Runtime of the timers of waits, whose clock stands still.
    runtime: Arc<Runtime>,
    store: MemoryLimits,
    /// Nanoseconds since the start.
    now: Arc<AtomicU64>,
    /// Microseconds by which the store's clock is ahead.
    jumped: i64,
    replicas: Vec<Replica>,
    boots: usize,
    /// Spent in truth.
    real: u64,
    /// Costs beyond what was held for them.
    beyond: u64,
    admitted: u64,
    kills: u64,
    /// True if the store was emptied and not called since.
    is_emptied: bool,
    /// Time until which the store learns what it lost.
    learned: u64,
}

impl World {
    fn new(count: usize, limits: &[LimitRule]) -> Self {
        let mut records = Records::default();
        let id = KeyId::random().unwrap();
        let full = FullKey::generate(id).unwrap();
        let key = record(&pepper(), id, &full, ("ci", Some("core"), None));
        records.keys.insert(id, key);
        let team = SubjectId::Team("core".into());
        records.subjects.entry(team).or_default().limits = limits.to_vec();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let mut world = Self {
            records,
            runtime: Arc::new(runtime.unwrap()),
            store: MemoryLimits::at(STORE_START),
            now: Arc::new(AtomicU64::new(SECOND)),
            jumped: 0,
            replicas: Vec::new(),
            boots: 0,
            real: 0,
            beyond: 0,
            admitted: 0,
            kills: 0,
            is_emptied: false,
            learned: 0,
        };
        for _ in 0..count {
            let replica = world.boot(count);
            world.replicas.push(replica);
        }
        world
    }

    fn boot(&mut self, count: usize) -> Replica {
        self.boots += 1;
        let mut filling = AccessFilling::new([], |_| None, self.time());
        for (id, record) in &self.records.subjects {
            filling.subject(id.clone(), record.clone());
        }
        self.records.keys.values().for_each(|key| filling.key(key));
        let access = Arc::new(filling.finish_at(pepper(), Arc::clone(&self.now)));
        let boot = format!("{:08}", self.boots * 7919 % 1000);
        let syncer = access.share(&boot, u32::try_from(count).unwrap());
        let key = access.keys().remove(0);
        Replica {
            access,
            key,
            syncer,
            store: self.store.replica(),
            is_cut: false,
            is_unanswered: false,
            heard: self.now(),
            jumped: 0,
            is_tainted: false,
            had_some: false,
            running: Vec::new(),
            waiting: Vec::new(),
            runtime: Arc::clone(&self.runtime),
        }
    }

    fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }

    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOON)
    }

    /// Lets time pass, in steps in which each replica reports what is due.
    fn pass(&mut self, milliseconds: u64) {
        let mut left = milliseconds;
        while left > 0 {
            let step = left.min(10);
            left -= step;
            self.now.fetch_add(step * MILLISECOND, SeqCst);
            self.set_store();
            for at in 0..self.replicas.len() {
                self.sync(at, Loss::None);
            }
        }
    }

    fn set_store(&self) {
        let at = STORE_START + self.now() / 1000;
        self.store.set(at.saturating_add_signed(self.jumped));
    }

    /// Reports what is due.
    fn sync(&mut self, at: usize, loss: Loss) {
        let now = self.now();
        let replica = &mut self.replicas[at];
        let is_due = replica.syncer.next_due().is_none_or(|due| due <= now);
        if !is_due || !replica.syncer.collect(now) {
            if !replica.is_cut && !replica.is_unanswered {
                (replica.heard, replica.jumped) = (now, 0);
            }
            return;
        }
        let loss = if replica.is_cut { Loss::Report } else { loss };
        let lost = || Err(Unanswered("lost".to_owned()));
        let (origin, reports) = (replica.syncer.origin(), replica.syncer.reports());
        if self.is_emptied && !matches!(loss, Loss::Report) {
            (self.is_emptied, self.learned) = (false, now + 3 * SECOND);
        }
        let answers = match loss {
            Loss::None => replica.store.exchange(origin, reports),
            Loss::Report => lost(),
            Loss::Answer => replica.store.exchange(origin, reports).and_then(|_| lost()),
            Loss::Twice => replica
                .store
                .exchange(origin, reports)
                .and_then(|_| replica.store.exchange(origin, reports)),
        };
        replica.is_unanswered = answers.is_err();
        if answers.is_ok() {
            (replica.heard, replica.jumped) = (now, 0);
        }
        replica.syncer.answered(now, answers);
        if replica.syncer.take_flush() {
            replica.access.resend();
        }
        replica.poll();
    }

    fn admit(&mut self, at: usize, price: &Price, octets: u64, max_tokens: u64) -> bool {
        let time = self.time();
        let asked = Asked {
            octets,
            max_tokens: Some(max_tokens),
            ..generation(price)
        };
        let replica = &mut self.replicas[at];
        match replica.access.admit(&replica.key, &asked, time) {
            Admitted::Granted(grant) => {
                self.admitted += 1;
                let held = grant.held();
                replica.running.push((grant, held));
                true
            }
            Admitted::Queued(wait) => {
                replica.waiting.push(wait);
                false
            }
            Admitted::Refused(_) => false,
        }
    }

    fn settle(&mut self, at: usize, exchange: usize, output: u64) {
        let replica = &mut self.replicas[at];
        if replica.running.is_empty() {
            return;
        }
        let exchange = exchange % replica.running.len();
        let (mut grant, held) = replica.running.swap_remove(exchange);
        let cost = output * 10_000;
        grant.settle(&tokens(0, output), Some(cost));
        drop(grant);
        self.real += cost;
        self.beyond += cost.saturating_sub(held);
        self.replicas[at].poll();
    }

    /// Ends a process without a word, and starts another one.
    fn kill(&mut self, at: usize) {
        let count = self.replicas.len();
        let next = self.boot(count);
        let dead = std::mem::replace(&mut self.replicas[at], next);
        self.kills += 1;
        // what it ran was spent as far as it had come: nothing
        std::mem::forget(dead.running);
    }

    fn running(&self) -> usize {
        self.replicas.iter().map(|it| it.running.len()).sum()
    }
}

impl Replica {
    /// Lets waiters look for their slots.
    fn poll(&mut self) {
        let _entered = self.runtime.enter();
        let mut context = std::task::Context::from_waker(futures_util::task::noop_waker_ref());
        let mut granted = Vec::new();
        self.waiting
            .retain_mut(|wait| match std::pin::Pin::new(wait).poll(&mut context) {
                std::task::Poll::Ready(Ok(grant)) => {
                    granted.push(grant);
                    false
                }
                std::task::Poll::Ready(Err(_)) => false,
                std::task::Poll::Pending => true,
            });
        for grant in granted {
            let held = grant.held();
            self.running.push((grant, held));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Loss {
    None,
    Report,
    Answer,
    Twice,
}

#[derive(Debug, Clone)]
enum Step {
    Admit {
        at: usize,
        octets: u64,
        max: u64,
    },
    Settle {
        at: usize,
        exchange: usize,
        output: u64,
    },
    Sync {
        at: usize,
        loss: Loss,
    },
    Pass(u64),
    Cut {
        at: usize,
        is_cut: bool,
    },
    Kill {
        at: usize,
    },
    Flush,
    Jump(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..4;
    let loss = prop_oneof![
        Just(Loss::None),
        Just(Loss::Report),
        Just(Loss::Answer),
        Just(Loss::Twice)
    ];
    prop_oneof![
        12 => (at(), 1_u64..3000, 1_u64..400).prop_map(|(at, octets, max)| Step::Admit { at, octets, max }),
        8 => (at(), any::<usize>(), 0_u64..500)
            .prop_map(|(at, exchange, output)| Step::Settle { at, exchange, output }),
        6 => (at(), loss).prop_map(|(at, loss)| Step::Sync { at, loss }),
        6 => prop_oneof![1_u64..40, 200_u64..1200, 2000_u64..4000].prop_map(Step::Pass),
        1 => prop_oneof![Just(9_000_u64), Just(11_000), Just(32_000)].prop_map(Step::Pass),
        2 => (at(), any::<bool>()).prop_map(|(at, is_cut)| Step::Cut { at, is_cut }),
        1 => at().prop_map(|at| Step::Kill { at }),
        1 => Just(Step::Flush),
        1 => prop_oneof![Just(-3600), Just(-5), Just(5), Just(90)].prop_map(Step::Jump),
    ]
}

/// Runs a step; false if it changes what the bound of rates is.
fn run(world: &mut World, step: &Step, price: &Price) {
    let count = world.replicas.len();
    match *step {
        Step::Admit { at, octets, max } => {
            world.admit(at % count, price, octets, max);
        }
        Step::Settle {
            at,
            exchange,
            output,
        } => world.settle(at % count, exchange, output),
        Step::Sync { at, loss } => {
            world.now.fetch_add(5 * MILLISECOND, SeqCst);
            world.set_store();
            world.sync(at % count, loss);
        }
        Step::Pass(milliseconds) => world.pass(milliseconds),
        Step::Cut { at, is_cut } => world.replicas[at % count].is_cut = is_cut,
        Step::Kill { at } => world.kill(at % count),
        Step::Flush => {
            world.store.flush();
            (world.is_emptied, world.learned) = (true, u64::MAX);
        }
        Step::Jump(seconds) => {
            world.jumped += seconds * 1_000_000;
            world.set_store();
            // a lease takes a jump for the longest step at most
            let ahead = if seconds > 0 { 2 * SECOND } else { 0 };
            world.replicas.iter_mut().for_each(|it| it.jumped += ahead);
        }
    }
}

/// Brings everything to rest: connected, nothing runs, and all was reported.
fn rest(world: &mut World) {
    for at in 0..world.replicas.len() {
        let replica = &mut world.replicas[at];
        replica.is_cut = false;
        replica.waiting.clear();
        while !world.replicas[at].running.is_empty() {
            world.settle(at, 0, 1);
        }
    }
    world.pass(14_000);
    // a store that was emptied while nothing ran is found so by the thread that follows keys
    world.replicas.iter().for_each(|it| it.access.resend());
    world.pass(2000);
}

#[test]
fn a_request_that_waits_has_its_part_once_the_store_is_stale() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 4)]);
    world.admit(0, &price, 1, 1);
    world.pass(200);
    world.settle(0, 0, 1);
    // it gives back what it does not use
    world.pass(50_000);
    world.replicas[0].is_cut = true;
    assert!(!world.admit(0, &price, 1, 1), "it has to ask");
    world.pass(900);
    assert_eq!(world.replicas[0].running.len(), 0);
    world.pass(600);
    assert_eq!(world.replicas[0].running.len(), 1);
}

#[test]
fn a_part_that_was_taken_without_the_store_ends_with_its_first_answer() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 1)]);
    world.replicas[0].is_cut = true;
    world.admit(0, &price, 1, 1);
    world.pass(2000);
    assert_eq!(world.replicas[0].running.len(), 1);
    world.settle(0, 0, 1);
    world.replicas[0].is_cut = false;
    world.pass(10);
    world.admit(0, &price, 1, 1);
    world.admit(0, &price, 1, 1);
    assert_eq!(world.replicas[0].running.len(), 1);
}

#[test]
fn a_slot_beyond_the_limit_is_not_taken_again() {
    let price = price();
    let mut world = World::new(2, &[super::limit(LimitKind::AtOnce, 1)]);
    world.replicas[0].is_cut = true;
    world.admit(0, &price, 1, 1);
    world.pass(990);
    // the store does not know that it runs one
    world.admit(1, &price, 1, 1);
    world.pass(20);
    world.replicas[0].is_cut = false;
    world.pass(200);
    assert_eq!(world.running(), 2);
    world.settle(0, 0, 1);
    world.admit(0, &price, 1, 1);
    assert_eq!(world.running(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Exchanges at once are never above the limit, except for those of replicas that were cut off for longer than
    /// their lease, or while the store lost what it knew.
    #[test]
    fn slots_stay_within_their_limit(
        count in 1_usize..5,
        limit in 1_u64..12,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let price = price();
        let mut world = World::new(count, &[super::limit(LimitKind::AtOnce, limit)]);
        let mut together = world.now();
        for step in &steps {
            run(&mut world, step, &price);
            // a replica that is apart may use what it has, and the others do not know it
            if world.replicas.iter().any(|it| it.is_cut || it.is_unanswered) {
                together = world.now();
            }
            if matches!(step, Step::Flush) {
                // one that has nothing cannot tell a limit that is new from one that the store lost
                let idle = world.replicas.iter_mut().filter(|it| it.running.is_empty());
                idle.for_each(|it| it.is_tainted = true);
            }
            let (now, learned) = (world.now(), world.learned);
            if let Step::Kill { at } = step {
                // nor can one that is new
                world.replicas[at % count].is_tainted = learned > now;
            }
            for replica in &mut world.replicas {
                let silent = now - replica.heard;
                replica.is_tainted |= silent + replica.jumped > 8 * SECOND;
                // one that has nothing has its part, once the store does not answer
                if silent < 100 * MILLISECOND {
                    replica.had_some = !replica.running.is_empty();
                }
                replica.is_tainted |= silent > SECOND && !replica.had_some;
                replica.is_tainted |= silent > 100 * MILLISECOND && learned > now;
                replica.is_tainted &=
                    !replica.running.is_empty() || silent > SECOND || learned > now;
            }
            let running = world.running();
            let of = |is_tainted: bool| -> usize {
                let replicas = world.replicas.iter().filter(|it| it.is_tainted == is_tainted);
                replicas.map(|it| it.running.len()).sum()
            };
            prop_assert!(of(false) <= limit as usize, "{} of {limit}, {step:?}", of(false));
            if running <= limit as usize && learned <= now && now - together > 2 * SECOND {
                // each has reported, and gave back what others need: those that came back are within it again
                let back = world.replicas.iter_mut().filter(|it| now - it.heard < SECOND);
                back.for_each(|it| it.is_tainted = false);
            }
        }
        rest(&mut world);
        if world.kills > 0 || world.learned > 0 {
            // what an ended boot had, or what the store may have lost, is there after a lease, which runs while the
            // store is asked for the limit
            world.admit(0, &price, 1, 1);
            world.pass(11_000);
            prop_assert_eq!(world.replicas[0].running.len(), 1, "a request waits for a lease at most");
            rest(&mut world);
        }
        for at in 0..count {
            for _ in 0..limit {
                world.admit(at, &price, 1, 1);
                world.pass(2200);
            }
            let running = world.replicas[at].running.len();
            prop_assert_eq!(running, limit as usize, "all of them can be used");
            while !world.replicas[at].running.is_empty() {
                world.settle(at, 0, 1);
            }
            // they go back, and others have them
            world.pass(11_000);
        }
    }

    /// Spend stays within the limit, what running exchanges cost beyond their estimates, and a share of each boot that
    /// had no answer; and all replicas agree on it in the end, to the last billionth.
    #[test]
    fn budgets_stay_within_their_limit_and_nothing_is_lost(
        count in 1_usize..5,
        amount in 1_000_000_u64..60_000_000,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let price = price();
        let mut world = World::new(count, &[spend(Period::Day, amount)]);
        let (mut silences, mut rests) = (0, 0);
        let mut cut = vec![false; count];
        for step in &steps {
            run(&mut world, step, &price);
            for (at, replica) in world.replicas.iter().enumerate() {
                // each time of silence, or of rest, ends with a share that is not held in the store
                let is_silent = world.now() - replica.heard > 8 * SECOND;
                silences += usize::from(is_silent && !cut[at]);
                cut[at] = is_silent;
            }
            rests += usize::from(matches!(step, Step::Flush | Step::Pass(11_000..))) * count;
            let shares = (world.boots + silences + rests) as u64 * (amount / count as u64).max(5_000_000);
            let bound = amount + world.beyond + shares;
            prop_assert!(world.real <= bound, "{} of {amount}, bound {bound}", world.real);
        }
        rest(&mut world);
        let name = world.replicas[0].access.explain(&SubjectId::Team("core".into()), world.time());
        let cell = name[0].cell.clone().unwrap();
        let name = MeterName { subject: "team:core".into(), meter: format!("b:{cell}").into() };
        let real = world.real;
        let Some((spent, held)) = world.store.budget(&name) else {
            // what a process spent and did not report is lost with it
            prop_assert!(real == 0 || world.kills > 0, "{real}");
            return Ok(());
        };
        // a boot that lapsed counts with what it held until it comes back, unless the store forgets that it lapsed
        let is_flushed = steps.iter().any(|step| matches!(step, Step::Flush));
        if world.kills == 0 && !(is_flushed && silences > 0) {
            prop_assert_eq!((spent, held), (real, 0));
        } else {
            prop_assert!(spent >= world.replicas.iter().map(|it| it.own_spent()).sum::<u64>());
        }
        for replica in &world.replicas {
            let state = &replica.access.explain(&SubjectId::Team("core".into()), world.time())[0];
            if state.shared.is_some_and(|it| it.age.is_some_and(|age| age < 1500)) {
                prop_assert_eq!(state.spent, spent);
            }
        }
    }

    /// Requests a minute: what a bucket lets through, and a share of each replica whose view is old.
    #[test]
    fn rates_stay_within_their_limit(
        count in 1_usize..5,
        amount in 1_u64..200,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let price = price();
        let mut world = World::new(count, &[super::limit(LimitKind::RequestsPerMinute, amount)]);
        let mut jumps = 0;
        for step in &steps {
            run(&mut world, step, &price);
            jumps += u64::from(matches!(step, Step::Jump(seconds) if *seconds > 0));
            let minutes = world.now() as f64 / 60e9;
            let amount = amount as f64;
            let share = (amount / count as f64).max(1.0);
            let shares = (world.boots + count) as f64 * amount.min(share * 2.0);
            let lost = amount * minutes;
            let bound = amount * (1.0 + minutes) + shares + lost + amount * jumps as f64;
            prop_assert!(world.admitted as f64 <= bound + 1.0, "{} of {bound}", world.admitted);
        }
    }
}

impl Replica {
    fn own_spent(&self) -> u64 {
        let subjects = self
            .access
            .directory
            .subjects(&SubjectId::Team("core".into()));
        let policy = subjects[0].policy();
        let budgets = policy
            .limits()
            .iter()
            .filter_map(|limit| match &limit.meter {
                Meter::Spend(budget) => Some(budget),
                _ => None,
            });
        let cells = budgets.flat_map(|budget| budget.recent());
        cells.map(|cell| cell.own_spent()).sum()
    }
}

#[test]
fn a_store_that_is_absent_since_the_start_is_lost_at_once_and_as_each_limit_says() {
    let price = price();
    let with = |kind: LimitKind, amount, unreachable| LimitRule {
        unreachable: Some(unreachable),
        ..super::limit(kind, amount)
    };
    let day = || LimitKind::Spend {
        period: Period::Day,
        zone: None,
    };
    let per_minute = || LimitKind::RequestsPerMinute;
    // of four replicas, in the first second; a request holds 1,000,000 of a budget
    for (rule, admitted) in [
        (with(per_minute(), 8, Unreachable::Open), 2),
        (with(per_minute(), 8, Unreachable::Closed), 0),
        (with(LimitKind::AtOnce, 8, Unreachable::Open), 2),
        (with(LimitKind::AtOnce, 8, Unreachable::Closed), 0),
        (with(day(), 8_000_000, Unreachable::Open), 10),
        (with(day(), 8_000_000, Unreachable::Closed), 0),
    ] {
        let mut world = World::new(4, std::slice::from_ref(&rule));
        let replica = &mut world.replicas[0];
        replica.access.set_unknown(true);
        replica.is_cut = true;
        for _ in 0..10 {
            world.admit(0, &price, 300, 90);
            world.pass(10);
        }
        let running = world.replicas[0].running.len();
        assert_eq!(running, admitted, "{rule:?}");
        let replica = &mut world.replicas[0];
        replica.access.set_unknown(false);
        replica.is_cut = false;
        // a store that is new gives slots slowly for 2 s
        world.pass(3000);
        world.admit(0, &price, 300, 90);
        world.pass(50);
        let is_spent = matches!(rule.kind, LimitKind::Spend { .. }) && admitted == 10;
        // those that waited for a slot have one, too
        let is_more = world.replicas[0].running.len() > admitted;
        assert_eq!(is_more, !is_spent, "{rule:?}");
    }
}

/// Load on replicas for a while: one request at each step of the clock.
fn drive(world: &mut World, weights: &[usize], milliseconds: u64, each: u64) -> u64 {
    let before = world.admitted;
    let price = price();
    let places: Vec<usize> = weights
        .iter()
        .enumerate()
        .flat_map(|(at, weight)| std::iter::repeat_n(at, *weight))
        .collect();
    for turn in 0..(milliseconds / each) as usize {
        // a step that is no divisor of the number of places visits all of them
        let at = places[turn * 37 % places.len()];
        world.admit(at, &price, 1, 1);
        world.pass(each);
    }
    world.admitted - before
}

#[test]
fn a_rate_over_replicas_is_that_of_one() {
    for (count, weights, amount, seconds) in [
        (4, vec![1, 1, 1, 1], 600, 20),
        (16, vec![1; 16], 600, 20),
        (4, vec![97, 1, 1, 1], 600, 20),
        (4, vec![1, 1, 1, 1], 6, 60),
        (4, vec![1, 1, 1, 1], 2, 120),
    ] {
        let limit = limit(LimitKind::RequestsPerMinute, amount);
        let mut world = World::new(count, &[limit]);
        // a second of quiet, in which nothing comes back
        let each = if amount > 100 { 10 } else { 50 };
        // the first minute's units are there at once
        let admitted = drive(&mut world, &weights, seconds * 1000, each);
        let exact = amount + amount * seconds / 60;
        let offered = seconds * 1000 / each;
        let expected = exact.min(offered);
        assert!(
            admitted <= expected + count as u64
                && (admitted * 100 >= expected * 93 || admitted + 1 >= expected),
            "{admitted} of {expected} on {count}"
        );
    }
}

#[test]
fn a_flush_gives_no_rate_back() {
    let mut world = World::new(4, &[limit(LimitKind::RequestsPerMinute, 600)]);
    let mut admitted = drive(&mut world, &[1, 1, 1, 1], 30_000, 10);
    world.store.flush();
    admitted += drive(&mut world, &[1, 1, 1, 1], 30_000, 10);
    assert!((1150..=1205).contains(&admitted), "{admitted}");
}

#[test]
fn a_budget_over_replicas_is_that_of_one() {
    for count in [1, 4, 16] {
        let mut world = World::new(count, &[spend(Period::Day, 2 * DOLLAR)]);
        let price = price();
        // 200 clients, whose requests cost about $0.02 and last for half a second
        for turn in 0..4000_usize {
            let at = turn * 7 % count;
            world.admit(at, &price, 300, 2000);
            if turn > 100 {
                let at = turn * 11 % count;
                world.settle(at, turn, 1200 + (turn as u64 * 131) % 1600);
            }
            world.pass(5);
        }
        rest(&mut world);
        let over = world.real as f64 / (2.0 * DOLLAR as f64) - 1.0;
        assert!(
            (-0.05..=0.05).contains(&over),
            "{:.1} % on {count}",
            over * 100.0
        );
    }
}

#[test]
fn slots_are_used_by_whom_wants_them() {
    for (count, weights, limit) in [
        (4, vec![1, 1, 1, 1], 20_u64),
        (16, vec![1; 16], 20),
        (4, vec![1, 1, 1, 1], 2),
        (4, vec![97, 1, 1, 1], 20),
    ] {
        let mut world = World::new(count, &[super::limit(LimitKind::AtOnce, limit)]);
        let price = price();
        let mut ends: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let (mut used, mut looked) = (0, 0);
        let places: Vec<usize> = (0..count)
            .flat_map(|at| std::iter::repeat_n(at, weights[at]))
            .collect();
        for turn in 0..2000_u64 {
            let at = places[turn as usize * 37 % places.len()];
            if world.replicas[at].waiting.len() < 2 * limit as usize {
                world.admit(at, &price, 1, 1);
            }
            let before: Vec<usize> = world.replicas.iter().map(|it| it.running.len()).collect();
            world.pass(5);
            for (at, before) in before.into_iter().enumerate() {
                for _ in before..world.replicas[at].running.len() {
                    ends.entry(turn + 60 + turn * 31 % 240)
                        .or_default()
                        .push(at);
                }
            }
            for at in ends.remove(&turn).unwrap_or_default() {
                world.settle(at, 0, 1);
            }
            assert!(world.running() <= limit as usize);
            if turn > 1000 {
                used += world.running();
                looked += 1;
            }
        }
        let part = used as f64 / looked as f64 / limit as f64;
        assert!(part > 0.85, "{part} of {limit} on {count} {weights:?}");
    }
}
