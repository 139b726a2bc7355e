//! Replicas with one store, and the steps of what may happen to them.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::super::*;
use crate::{
    access::limit::Meter,
    state::{
        MemoryContent, MemoryLimits, MemoryReplica, MeterName, ReportedState, SharedLimits,
        Unanswered,
    },
};

pub(super) const MILLISECOND: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1000 * MILLISECOND;

/// Milliseconds of writes that a server may lack when it takes over.
pub(super) const LAG: u64 = 1000;

/// Microseconds of the store's clock at the start.
const STORE_START: u64 = 1_800_000_000_000_000;

/// Unix seconds of the replicas: noon, so that no period ends.
const NOON: u64 = 20_000 * 86_400 + 43_200;

/// A replica of a world.
pub(super) struct Replica {
    pub(super) access: Arc<Access>,
    pub(super) key: Arc<Key>,
    pub(super) syncer: Syncer,
    pub(super) store: MemoryReplica,
    pub(super) is_cut: bool,
    /// True if the last report had no answer: the store may not know what it runs.
    pub(super) is_unanswered: bool,
    /// Time of the last answer.
    pub(super) heard: u64,
    /// Time of the last report that was answered.
    pub(super) told: u64,
    /// Time of the first one; the largest before it.
    pub(super) met: u64,
    /// Held of a budget, as the store heard last.
    pub(super) told_held: u64,
    /// Time by which jumps of the store's clock may have brought the end of its lease nearer, since the last answer.
    pub(super) jumped: u64,
    /// True if its lease lapsed, or was not known to the store, while it ran something.
    pub(super) is_tainted: bool,
    /// True if it ran something when it was cut off.
    pub(super) had_some: bool,
    pub(super) running: Vec<(Grant, u64)>,
    pub(super) waiting: Vec<SlotWait>,
    pub(super) runtime: Arc<Runtime>,
}

/// Replicas with one store.
pub(super) struct World {
    pub(super) records: Records,
    /// Runtime of the timers of waits, whose clock stands still.
    pub(super) runtime: Arc<Runtime>,
    pub(super) store: MemoryLimits,
    /// Nanoseconds since the start.
    pub(super) now: Arc<AtomicU64>,
    /// Contents of the store in the last second, with the times.
    pub(super) contents: VecDeque<(u64, MemoryContent)>,
    /// Time of the last failover.
    pub(super) failed_over: u64,
    /// Time by which jumps of the store's clock may have brought the end of what follows a failover nearer.
    pub(super) hastened: u64,
    /// Time at which a server took over that knew nothing of the limit, which was used before; 0 if none did.
    pub(super) lost_limit: u64,
    pub(super) replicas: Vec<Replica>,
    pub(super) boots: usize,
    /// Spent in truth.
    pub(super) real: u64,
    /// Costs beyond what was held for them.
    pub(super) beyond: u64,
    pub(super) admitted: u64,
    pub(super) kills: u64,
    /// True if the store was emptied and not called since.
    pub(super) is_emptied: bool,
    /// Time until which the store learns what it lost.
    pub(super) learned: u64,
}

impl World {
    pub(super) fn new(count: usize, limits: &[LimitRule]) -> Self {
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
            contents: VecDeque::new(),
            failed_over: 0,
            hastened: 0,
            lost_limit: 0,
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

    pub(super) fn boot(&mut self, count: usize) -> Replica {
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
            told: self.now(),
            met: u64::MAX,
            told_held: 0,
            jumped: 0,
            is_tainted: false,
            had_some: false,
            running: Vec::new(),
            waiting: Vec::new(),
            runtime: Arc::clone(&self.runtime),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }

    pub(super) fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOON)
    }

    /// Lets time pass, in steps in which each replica reports what is due.
    pub(super) fn pass(&mut self, milliseconds: u64) {
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

    /// Sets the store's clock, and keeps what a server that follows it has.
    pub(super) fn set_store(&mut self) {
        let now = self.now();
        self.contents.push_back((now, self.store.content()));
        while self
            .contents
            .front()
            .is_some_and(|(at, _)| now - at > LAG * MILLISECOND)
        {
            self.contents.pop_front();
        }
        self.store.set(STORE_START + now / 1000);
    }

    /// Has a server take over that lacks the writes of the last milliseconds.
    fn fail_over(&mut self, lag: u64) {
        let now = self.now();
        let then = now.saturating_sub(lag * MILLISECOND);
        let known = self.contents.iter().find(|(at, _)| *at >= then);
        let content = known.map_or_else(|| self.store.content(), |(_, content)| content.clone());
        let slots = MeterName {
            subject: "team:core".into(),
            meter: "s".into(),
        };
        let was_known = self.store.slots(&slots).is_some();
        self.store.fail_over(&content);
        if was_known && self.store.slots(&slots).is_none() {
            self.lost_limit = now;
        }
        self.contents.clear();
        (self.failed_over, self.hastened) = (now, 0);
    }

    /// Reports what is due.
    pub(super) fn sync(&mut self, at: usize, loss: Loss) {
        let now = self.now();
        let replica = &mut self.replicas[at];
        replica.syncer.receive(now);
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
        let held = reports.iter().find_map(|report| match &report.state {
            ReportedState::Budget(budget) => Some(budget.held),
            _ => None,
        });
        if let (Some(held), Loss::None | Loss::Answer | Loss::Twice) = (held, loss) {
            replica.told_held = held;
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
            (replica.heard, replica.told, replica.jumped) = (now, now, 0);
            replica.met = replica.met.min(now);
        }
        replica.syncer.answered(now, answers);
        if replica.store.is_another() && !replica.is_unanswered {
            replica.syncer.tell_again(now);
        }
        if replica.syncer.take_flush() {
            replica.access.resend();
        }
        replica.poll();
    }

    pub(super) fn admit(&mut self, at: usize, price: &Price, octets: u64, max_tokens: u64) -> bool {
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

    pub(super) fn settle(&mut self, at: usize, exchange: usize, output: u64) {
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
    pub(super) fn kill(&mut self, at: usize) {
        let count = self.replicas.len();
        let next = self.boot(count);
        let dead = std::mem::replace(&mut self.replicas[at], next);
        self.kills += 1;
        // what it ran was spent as far as it had come: nothing
        std::mem::forget(dead.running);
    }

    pub(super) fn running(&self) -> usize {
        self.replicas.iter().map(|it| it.running.len()).sum()
    }
}

impl Replica {
    /// Lets waiters look for their slots.
    pub(super) fn poll(&mut self) {
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
pub(super) enum Loss {
    None,
    Report,
    Answer,
    Twice,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
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
    /// With the milliseconds of writes that are lost.
    FailOver(u64),
    Jump(i64),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
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
        2 => prop_oneof![0..=LAG, 0_u64..100, Just(LAG)].prop_map(Step::FailOver),
        1 => prop_oneof![Just(-3600), Just(-5), Just(5), Just(90)].prop_map(Step::Jump),
    ]
}

/// Runs a step; false if it changes what the bound of rates is.
pub(super) fn run(world: &mut World, step: &Step, price: &Price) {
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
        Step::FailOver(lag) => world.fail_over(lag),
        Step::Jump(seconds) => {
            world.store.jump(seconds * 1_000_000);
            // a lease takes a jump for the longest step at most
            let ahead = if seconds > 0 { 2 * SECOND } else { 0 };
            world.replicas.iter_mut().for_each(|it| it.jumped += ahead);
            world.hastened += ahead;
        }
    }
}

/// Brings everything to rest: connected, nothing runs, and all was reported.
pub(super) fn rest(world: &mut World) {
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

impl Replica {
    pub(super) fn own_spent(&self) -> u64 {
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
