//! Shared limits in memory: what the scripts on Redis do, step by step, for tests and for simulations.
//!
//! The clock is set by its owner. A test holds both against each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    BudgetAnswer, BudgetReport, LEASE, LONGEST_DEBT, LONGEST_STEP, MOST_LAPSED, MeterAnswer,
    MeterName, MeterReport, PATIENCE, QUIET, RETURN, RateAnswer, RateReport, ReportOrigin,
    ReportedState, SharedLimits, SlotAnswer, SlotReport, TOMB, Unanswered,
};

/// A store of shared limits in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryLimits(Arc<Mutex<Content>>);

#[derive(Debug, Clone)]
struct Content {
    /// Microseconds since 1970.
    now: u64,
    /// Microseconds by which the clock is ahead of them.
    ahead: i64,
    /// The server: another one after each failover.
    server: u64,
    rates: BTreeMap<MeterName, SharedRate>,
    budgets: BTreeMap<MeterName, SharedBudget>,
    slots: BTreeMap<MeterName, SharedSlots>,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            now: 0,
            ahead: 0,
            server: 1,
            rates: BTreeMap::new(),
            budgets: BTreeMap::new(),
            slots: BTreeMap::new(),
        }
    }
}

/// Content of a store at a time.
#[derive(Debug, Clone)]
pub struct MemoryContent(Content);

/// Access of one replica to a store in memory.
#[derive(Debug, Clone)]
pub struct MemoryReplica {
    limits: MemoryLimits,
    landing: Landing,
    /// True if the server is another one since this was last asked.
    is_another: bool,
}

/// The server that a replica has come to.
#[derive(Debug, Clone, Copy, Default)]
struct Landing {
    /// 0 before the first one.
    server: u64,
    /// Time without jumps, in microseconds.
    at: u64,
    is_moved: bool,
}

impl Landing {
    /// Milliseconds for which other replicas may still come to the server.
    fn fresh(self, now: u64) -> u64 {
        RETURN.saturating_sub(now.saturating_sub(self.at) / 1000)
    }
}

impl MemoryLimits {
    /// A store whose clock shows a time, in microseconds since 1970.
    pub fn at(now: u64) -> Self {
        let store = Self::default();
        store.set(now);
        store
    }

    /// Sets the clock.
    pub fn set(&self, now: u64) {
        self.lock().now = now;
    }

    /// Has the clock jump by some microseconds: times that are set later are ahead by as much.
    pub fn jump(&self, by: i64) {
        self.lock().ahead += by;
    }

    /// Content of the store at this time.
    pub fn content(&self) -> MemoryContent {
        MemoryContent(self.lock().clone())
    }

    /// Has another server take over, with what this one held before.
    pub fn fail_over(&self, to: &MemoryContent) {
        let mut content = self.lock();
        *content = Content {
            now: content.now,
            ahead: content.ahead,
            server: content.server + 1,
            ..to.0.clone()
        };
    }

    /// Forgets everything but the time.
    pub fn flush(&self) {
        let mut content = self.lock();
        *content = Content {
            now: content.now,
            ahead: content.ahead,
            server: content.server,
            ..Content::default()
        };
    }

    /// The access of one replica.
    pub fn replica(&self) -> MemoryReplica {
        MemoryReplica {
            limits: self.clone(),
            landing: Landing::default(),
            is_another: false,
        }
    }

    /// Spent by all, and held, of a budget.
    pub fn budget(&self, name: &MeterName) -> Option<(u64, u64)> {
        let content = self.lock();
        let budget = content.budgets.get(name)?;
        let held = budget.live.values().map(|it| it.held).sum();
        Some((budget.spent(), held))
    }

    /// Slots that boots have of a limit; none if it is not known.
    pub fn slots(&self, name: &MeterName) -> Option<u64> {
        let content = self.lock();
        let slots = content.slots.get(name)?;
        Some(slots.boots.values().map(|it| it.claim).sum())
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedLimits for MemoryReplica {
    fn exchange(
        &mut self,
        origin: &ReportOrigin,
        reports: &[MeterReport],
    ) -> Result<Vec<Option<MeterAnswer>>, Unanswered> {
        let mut content = self.limits.lock();
        if self.landing.server != content.server {
            self.landing = Landing {
                server: content.server,
                at: content.now,
                is_moved: self.landing.server != 0,
            };
            self.is_another = true;
        }
        let answers = reports
            .iter()
            .map(|report| content.take(origin, report, self.landing))
            .collect();
        Ok(answers)
    }

    fn is_another(&mut self) -> bool {
        std::mem::take(&mut self.is_another)
    }
}

impl Content {
    fn take(
        &mut self,
        origin: &ReportOrigin,
        report: &MeterReport,
        landing: Landing,
    ) -> Option<MeterAnswer> {
        let fresh = landing.fresh(self.now);
        let now = self.now.saturating_add_signed(self.ahead);
        let name = &report.name;
        match &report.state {
            ReportedState::Rate(state) => {
                let rate = self.rates.entry(name.clone()).or_default();
                rate.take(origin, state, report.is_last, now)
                    .map(MeterAnswer::Rate)
            }
            ReportedState::Budget(state) => {
                let budget = self.budgets.entry(name.clone()).or_default();
                budget
                    .take(origin, state, report.is_last, now / 1000)
                    .map(MeterAnswer::Budget)
            }
            ReportedState::Slots(state) => {
                let slots = self.slots.entry(name.clone()).or_default();
                slots
                    .take(origin, state, report.is_last, now / 1000, (landing, fresh))
                    .map(MeterAnswer::Slots)
            }
        }
    }
}

/// Time for which the store was seen to run.
#[derive(Debug, Clone, Default)]
struct RunningTime {
    /// The store's clock at the last call; none before the first one.
    at: Option<u64>,
    /// Milliseconds.
    ran: u64,
}

impl RunningTime {
    fn tick(&mut self, now: u64) -> u64 {
        let step = now.saturating_sub(self.at.unwrap_or(now));
        self.at = Some(now);
        self.ran += step.min(LONGEST_STEP);
        self.ran
    }
}

#[derive(Debug, Clone, Default)]
struct SharedRate {
    at: u64,
    full_at: u64,
    boots: BTreeMap<Box<str>, RateOfBoot>,
}

#[derive(Debug, Clone)]
struct RateOfBoot {
    sequence: u64,
    charged: i64,
    asked: u64,
    seen: u64,
}

impl SharedRate {
    fn take(
        &mut self,
        origin: &ReportOrigin,
        report: &RateReport,
        is_last: bool,
        now: u64,
    ) -> Option<RateAnswer> {
        // a clock that is set back takes the bucket with it
        let back = self.at.saturating_sub(now);
        let mut full_at = self.full_at.saturating_sub(back);
        let before = self.boots.get(&origin.boot);
        if before.is_some_and(|it| it.sequence > origin.sequence) {
            return None;
        }
        let (last, mut asked) = match before {
            Some(before) => (before.charged, before.asked),
            None => {
                full_at = full_at.max(report.full_at);
                (report.confirmed, 0)
            }
        };
        if report.asks {
            asked = now;
        }
        full_at = full_at
            .max(now)
            .saturating_add_signed(report.charged - last);
        full_at = full_at.clamp(now, now + LONGEST_DEBT);
        (self.at, self.full_at) = (now, full_at);
        let of_boot = RateOfBoot {
            sequence: origin.sequence,
            charged: report.charged,
            asked,
            seen: now,
        };
        self.boots.insert(origin.boot.clone(), of_boot);
        if is_last {
            self.boots.remove(&origin.boot);
        }
        self.boots
            .retain(|_, it| now.saturating_sub(it.seen) <= 60_000_000);
        let mut replicas = 0;
        let mut rank = None;
        for (boot, it) in &self.boots {
            if it.asked > 0 && now.saturating_sub(it.asked) <= QUIET * 1000 {
                if *boot == origin.boot {
                    rank = Some(replicas);
                }
                replicas += 1;
            }
        }
        Some(RateAnswer {
            full_at,
            now,
            replicas,
            rank,
        })
    }
}

#[derive(Debug, Clone, Default)]
struct SharedBudget {
    time: RunningTime,
    dead: u64,
    /// Spend of boots that the store has forgotten: one that is back takes its part out.
    gap: u64,
    /// The time of the store until which nothing is given: others have yet to report what they hold.
    learns_until: u64,
    live: BTreeMap<Box<str>, BudgetOfBoot>,
    /// Boots whose lease lapsed: what is counted of them among `dead`, and since when. One that did nothing but rest
    /// comes back.
    lapsed: BTreeMap<Box<str>, (u64, u64)>,
    /// Boots that sent their last report: the same, and how long they are known. It may come twice.
    ended: BTreeMap<Box<str>, (u64, u64)>,
}

#[derive(Debug, Clone, Default)]
struct BudgetOfBoot {
    sequence: u64,
    spent: u64,
    held: u64,
    kept: u64,
    lapses: u64,
    asked: Option<u64>,
    lacks: u64,
}

impl SharedBudget {
    fn spent(&self) -> u64 {
        let live: u64 = self.live.values().map(|it| it.spent).sum();
        self.dead + live + self.gap
    }

    /// Takes what a boot knows of those that ended, after the store lost it: one that is back is counted by itself.
    fn learn(&mut self, by: &str, ended: &str, time: u64) {
        let mut parts = ended.split(' ');
        let sum = parts.next().and_then(|it| it.parse().ok()).unwrap_or(0);
        self.dead = self.dead.max(self.lapsed_sum().saturating_add(sum));
        for part in parts {
            let known = part
                .split_once(':')
                .and_then(|(boot, counted)| Some((boot, counted.parse().ok()?)));
            let Some((boot, counted)) = known else {
                continue;
            };
            let is_counted = self.live.contains_key(boot) || self.ended.contains_key(boot);
            let before = self.lapsed.get(boot).map(|(before, _)| *before);
            if boot == by || is_counted || before.is_some_and(|before| before >= counted) {
                continue;
            }
            self.dead += counted - before.unwrap_or(0);
            self.lapsed.insert(boot.into(), (counted, time));
        }
    }

    fn lapsed_sum(&self) -> u64 {
        self.lapsed.values().map(|(counted, _)| counted).sum()
    }

    fn ended_for_reports(&self) -> Arc<str> {
        if self.dead == 0 && self.lapsed.is_empty() {
            return Arc::default();
        }
        let mut text = (self.dead - self.lapsed_sum()).to_string();
        for (boot, (counted, _)) in &self.lapsed {
            text.push_str(&format!(" {boot}:{counted}"));
        }
        text.into()
    }

    fn take(
        &mut self,
        origin: &ReportOrigin,
        report: &BudgetReport,
        is_last: bool,
        now: u64,
    ) -> Option<BudgetAnswer> {
        let is_new = self.time.at.is_none();
        let before = self.live.get(&origin.boot).cloned();
        if before
            .as_ref()
            .is_some_and(|it| it.sequence > origin.sequence)
        {
            return None;
        }
        let time = self.time.tick(now);
        let lapsed = self.lapsed.remove(&origin.boot);
        let tomb = lapsed.or_else(|| self.ended.remove(&origin.boot));
        if let Some((counted, _)) = tomb {
            self.dead = self.dead.saturating_sub(counted);
        } else if before.is_none() && report.is_known {
            // the store lost it
            let running: u64 = self.live.values().map(|it| it.spent).sum();
            let whole = self.spent().max(report.seen);
            self.learn(&origin.boot, &report.ended, time);
            self.gap = whole.saturating_sub(self.dead + running + report.spent);
            if is_new {
                self.learns_until = time + RETURN;
            }
        }
        let (mut others, mut others_kept, mut lacking, mut replicas) = (0, 0, false, 0);
        let mut lapsed = Vec::new();
        for (boot, it) in &self.live {
            if *boot == origin.boot {
                continue;
            }
            if it.lapses <= time {
                lapsed.push((boot.clone(), it.spent + it.held));
                continue;
            }
            others += it.held;
            others_kept += it.kept;
            if let Some(asked) = it.asked {
                replicas += u64::from(time - asked <= QUIET);
                lacking |= it.lacks > 0 && time - asked <= PATIENCE;
            }
        }
        for (boot, counted) in lapsed {
            self.dead += counted;
            self.live.remove(&boot);
            self.lapsed.insert(boot, (counted, time));
        }
        while self.lapsed.len() > MOST_LAPSED {
            let oldest = self
                .lapsed
                .iter()
                .min_by_key(|(boot, (_, since))| (*since, *boot));
            let Some(oldest) = oldest.map(|(boot, _)| boot.clone()) else {
                break;
            };
            self.lapsed.remove(&oldest);
        }
        self.ended.retain(|_, (_, until)| *until > time);
        let asked = if report.asks > 0 {
            Some(time)
        } else {
            before.and_then(|it| it.asked)
        };
        replicas += u64::from(asked.is_some_and(|asked| time - asked <= QUIET));
        let mut mine = BudgetOfBoot {
            sequence: origin.sequence,
            spent: report.spent,
            held: report.held,
            kept: report.kept,
            lapses: time + LEASE,
            asked,
            lacks: 0,
        };
        self.live.insert(origin.boot.clone(), mine.clone());
        let spent = self.spent();
        let used = spent + others + others_kept + report.held + report.kept;
        let free = report.limit.saturating_sub(used);
        let fair = ((free + report.kept) / (replicas + 1)).max(report.asks);
        if report.asks > 0 && time >= self.learns_until {
            let wanted = fair.saturating_sub(report.kept);
            let is_alone = others + others_kept == 0;
            let is_whole = report.kept + free >= report.asks || is_alone;
            let given = if is_whole { wanted.min(free) } else { 0 };
            mine.kept += given;
        }
        mine.lacks = report.asks.saturating_sub(mine.kept);
        let given = mine.kept;
        if is_last {
            let counted = report.spent + report.held;
            self.live.remove(&origin.boot);
            self.dead += counted;
            self.ended
                .insert(origin.boot.clone(), (counted, time + TOMB));
        } else {
            self.live.insert(origin.boot.clone(), mine);
        }
        Some(BudgetAnswer {
            spent,
            others,
            given,
            is_rest: others + others_kept == 0
                && given >= free + report.kept
                && time >= self.learns_until,
            fair,
            is_wanted: lacking,
            ended: self.ended_for_reports(),
            replicas,
            is_new,
        })
    }
}

#[derive(Debug, Clone, Default)]
struct SharedSlots {
    time: RunningTime,
    /// The time of the store until which nothing is given.
    learns_until: u64,
    /// The time of the store until which each replica has its part at most.
    new_until: u64,
    /// The server that took the last call.
    server: Option<u64>,
    /// The time of the store until which nothing is given: its server took over, and others have yet to report what
    /// they have.
    settles_until: u64,
    boots: BTreeMap<Box<str>, SlotsOfBoot>,
    /// Boots that gave all back until `new_until`: they are known, and not lost.
    gave_all: BTreeSet<Box<str>>,
}

#[derive(Debug, Clone)]
struct SlotsOfBoot {
    sequence: u64,
    claim: u64,
    lacks: u64,
    seen: u64,
}

impl SharedSlots {
    fn take(
        &mut self,
        origin: &ReportOrigin,
        report: &SlotReport,
        is_last: bool,
        now: u64,
        (landing, fresh): (Landing, u64),
    ) -> Option<SlotAnswer> {
        let is_new = self.time.at.is_none();
        let before = self.boots.get(&origin.boot);
        if before.is_some_and(|it| it.sequence > origin.sequence) {
            return None;
        }
        let is_missing = before.is_none() && !self.gave_all.contains(&origin.boot);
        let gave_back = before.is_some_and(|it| it.claim > report.claim);
        let time = self.time.tick(now);
        if is_new {
            self.new_until = time + RETURN;
        }
        if report.is_known && is_missing && time < self.new_until && self.learns_until == 0 {
            // it is not new: the store lost it, and others may hold what it does not know of
            self.learns_until = time + RETURN;
            self.new_until = time + LEASE;
        }
        if self.server != Some(landing.server) {
            // a connection that is old saw no server take over; the last call was one before it did
            if self.server.is_some() || landing.is_moved {
                self.settles_until = self.settles_until.max(time + fresh);
            }
            self.server = Some(landing.server);
        }
        self.boots
            .retain(|boot, it| *boot == origin.boot || time.saturating_sub(it.seen) < LEASE);
        let replicas = 1 + self.boots.keys().filter(|it| **it != origin.boot).count() as u64;
        let even = report.limit / replicas;
        let part = even.max(1);
        // what others lack, and what of it is due to them
        let (mut others, mut lacking, mut due) = (0, 0, 0);
        for (boot, it) in &self.boots {
            if *boot != origin.boot {
                others += it.claim;
                if time - it.seen <= PATIENCE {
                    lacking += it.lacks;
                    due += it.lacks.min(part.saturating_sub(it.claim));
                }
            }
        }
        let free = report.limit.saturating_sub(others + report.claim);
        let mut room = free;
        if time < self.learns_until.max(self.settles_until) {
            room = 0;
        } else if time < self.new_until {
            let least = u64::from(self.learns_until == 0);
            let most = (report.limit / u64::from(origin.replicas.max(1))).max(least);
            room = room.min(most.saturating_sub(report.claim));
        }
        // what was given back just now is for others first
        let mine = match gave_back && due > 0 {
            true => 0,
            false => free.min(part.saturating_sub(report.claim)),
        };
        let given = report
            .needs
            .min(room)
            .min(mine.max(free.saturating_sub(due)));
        let spare = report
            .wishes
            .saturating_sub(report.needs)
            .min(room - given)
            .min(free.saturating_sub(given + lacking))
            .min(even.saturating_sub(report.claim + given));
        let fair = if due > 0 { even } else { report.limit };
        let claim = report.claim + given + spare;
        let lacks = report.needs - given;
        if time >= self.new_until {
            self.gave_all.clear();
        }
        if is_last || claim + lacks == 0 {
            self.boots.remove(&origin.boot);
            if time < self.new_until {
                self.gave_all.insert(origin.boot.clone());
            }
        } else {
            let of_boot = SlotsOfBoot {
                sequence: origin.sequence,
                claim,
                lacks,
                seen: time,
            };
            self.boots.insert(origin.boot.clone(), of_boot);
        }
        Some(SlotAnswer {
            claim,
            fair,
            others,
            is_wanted: lacking > 0,
            replicas,
            is_new,
        })
    }
}

#[cfg(test)]
impl MemoryLimits {
    /// Has another server be the one that took the last call.
    pub(in crate::state) fn forget_server(&self) {
        for slots in self.lock().slots.values_mut() {
            slots.server = slots.server.and(Some(0));
        }
    }
}

#[cfg(test)]
impl MemoryReplica {
    /// Has the replica come to its server just now or long ago, from another one or not.
    pub(in crate::state) fn landed(&mut self, is_young: bool, is_moved: bool) {
        self.landing = Landing {
            server: 1,
            at: if is_young { u64::MAX } else { 0 },
            is_moved,
        };
    }
}

#[cfg(test)]
mod tests;
