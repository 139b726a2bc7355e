//! Sessions of Claude Code, and the agents in each: what they did, used and cost, in bounded memory.
//!
//! A session is what a client says it is, under the key that it shows: two keys that name one session have
//! two. Counts are sums and outer times, so that those of two processes can be added up.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::{
    cache_health::{BreakCause, CacheBreak, CacheHealth},
    cache_warnings::CacheWarnings,
    session_key::SessionKey,
    totals::{UsageTotals, is_failure},
    unix_time::unix_millis,
};
use crate::exchange::{Exchange, shortened};

/// Upper bound of sessions in memory, and of their rows on disk. The least recently used go first.
pub(super) const SESSIONS: usize = 10_000;
/// Upper bound of agents of all sessions together.
const ALL_AGENTS: usize = 20_000;
/// Upper bound of agents of a session with counts of their own.
const AGENTS: usize = 64;
/// Upper bound of models of an agent with counts of their own.
const MODELS: usize = 4;
/// Upper bound of cache breaks that a session lists, the last ones; all are counted.
const BREAKS: usize = 8;
/// Sessions that are evicted at once.
const EVICTED: usize = SESSIONS / 50;
/// Name of agents and models beyond the bounds.
pub(super) const OTHER: &str = "other";
/// Name of a model that neither request nor response has.
const UNKNOWN: &str = "unknown";
const LONGEST_MODEL: usize = 128;
const LONGEST_TEXT: usize = 256;

/// Sums of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SessionTotals {
    /// Name of the key.
    pub(super) name: Option<Box<str>>,
    pub(super) user: Option<Box<str>>,
    pub(super) team: Option<Box<str>>,
    pub(super) user_agent: Option<Box<str>>,
    pub(super) agents: Vec<AgentTotals>,
    /// The last breaks of the prompt cache.
    #[serde(default)]
    pub(super) breaks: VecDeque<CacheBreak>,
    /// Number of them by cause.
    #[serde(default)]
    pub(super) causes: BTreeMap<BreakCause, u64>,
}

/// Sums of an agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct AgentTotals {
    /// Its id; none for the main agent.
    pub(super) agent: Option<Box<str>>,
    /// The agent that started it, if another than the main agent did.
    pub(super) parent: Option<Box<str>>,
    /// Begin of its first exchange and end of its last one, in Unix milliseconds.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// Microseconds that its exchanges took, all together.
    pub(super) busy: u64,
    /// Breaks of the prompt cache.
    #[serde(default)]
    pub(super) breaks: u64,
    pub(super) models: Vec<(Box<str>, UsageTotals)>,
}

/// A session as readers get it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: SessionKey,
    pub(super) last: u64,
    /// Number of evictions before it: one that was evicted and came back has another.
    pub(super) generation: u32,
    pub(super) totals: SessionTotals,
}

impl Session {
    /// A session with these totals.
    pub(super) fn of(id: SessionKey, totals: SessionTotals) -> Self {
        Self {
            id,
            last: totals.last(),
            generation: 0,
            totals,
        }
    }

    /// The session with the totals of another replica.
    pub(super) fn with(&self, other: &Self) -> Arc<Self> {
        let mut both = [self.totals.clone(), other.totals.clone()];
        Arc::new(Self::of(self.id.clone(), SessionTotals::sum(&mut both)))
    }
}

/// The sessions that are kept.
#[derive(Default)]
pub(super) struct Sessions {
    by_key: HashMap<SessionKey, Arc<Session>>,
    agents: usize,
    /// Number of evictions.
    generation: u32,
    health: CacheHealth,
    /// Warnings of caches that break too often, if they are on.
    pub(super) warnings: Option<CacheWarnings>,
}

impl Sessions {
    /// Counts an exchange that ended, if it belongs to a session; also among the sums that are not stored yet.
    pub(super) fn count(
        &mut self,
        exchange: &Exchange,
        ended: SystemTime,
        unsaved: Option<&mut BTreeMap<SessionKey, SessionTotals>>,
    ) {
        let Some(key) = SessionKey::of(exchange) else {
            return;
        };
        let found = self.health.judge(&key, exchange);
        if let Some(warnings) = &mut self.warnings {
            warnings.count(&key, exchange, &found, ended);
        }
        let broken = found.into_break();
        if let Some(unsaved) = unsaved {
            let totals = unsaved.entry(key.clone()).or_default();
            totals.count(exchange, ended, broken.as_ref());
        }
        self.change(key, |totals| totals.count(exchange, ended, broken.as_ref()));
    }

    /// Adds to a session.
    pub(super) fn add(&mut self, key: SessionKey, more: &SessionTotals) {
        self.change(key, |totals| totals.merge(more));
    }

    fn change(&mut self, key: SessionKey, change: impl FnOnce(&mut SessionTotals)) {
        let generation = self.generation;
        let session = self.by_key.entry(key).or_insert_with_key(|key| {
            Arc::new(Session {
                generation,
                ..Session::of(key.clone(), SessionTotals::default())
            })
        });
        // a reader that holds it keeps what it has
        let session = Arc::make_mut(session);
        let before = session.totals.agents.len();
        change(&mut session.totals);
        session.last = session.last.max(session.totals.last());
        self.agents += session.totals.agents.len() - before;
        if self.by_key.len() > SESSIONS || self.agents > ALL_AGENTS {
            self.evict();
        }
    }

    /// A session.
    pub(super) fn get(&self, key: &SessionKey) -> Option<&Arc<Session>> {
        self.by_key.get(key)
    }

    /// The sessions; pointers only.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.by_key.values().cloned().collect()
    }

    /// Number of cache breaks since the process began, by cause.
    pub(super) fn breaks(&self) -> [u64; BreakCause::ALL.len()] {
        self.health.counts
    }

    fn evict(&mut self) {
        self.generation += 1;
        let mut lasts: Vec<u64> = self.by_key.values().map(|it| it.last).collect();
        let at = EVICTED.min(lasts.len().saturating_sub(1));
        let (_, until, _) = lasts.select_nth_unstable(at);
        let until = *until;
        self.by_key.retain(|_, session| session.last > until);
        let agents = self.by_key.values().map(|it| it.totals.agents.len());
        self.agents = agents.sum();
    }
}

impl SessionTotals {
    /// Counts an exchange.
    fn count(&mut self, exchange: &Exchange, ended: SystemTime, broken: Option<&CacheBreak>) {
        let begun = &exchange.begun;
        if let Some(owner) = &begun.owner {
            say(&mut self.name, Some(&owner.name));
            say(&mut self.user, owner.user.as_deref());
            say(&mut self.team, owner.team.as_deref());
        }
        say(&mut self.user_agent, begun.user_agent.as_deref());
        let first = unix_millis(begun.started);
        let agent = begun.agent.as_deref();
        let agent = agent.map(|agent| shortened(agent, LONGEST_MODEL));
        let agent = self.agent(agent, first);
        agent.count(exchange, first, unix_millis(ended));
        if let Some(broken) = broken {
            agent.breaks = agent.breaks.saturating_add(1);
            self.list_break(broken);
            self.count_cause(broken.cause, 1);
        }
    }

    /// The sum of several, of which those used last have the last word.
    pub(super) fn sum(all: &mut [Self]) -> Self {
        all.sort_by_key(Self::last);
        let mut sum = Self::default();
        all.iter().for_each(|one| sum.merge(one));
        sum
    }

    /// Adds the counts of another one, which is later.
    pub(super) fn merge(&mut self, later: &Self) {
        for (text, later) in [
            (&mut self.name, &later.name),
            (&mut self.user, &later.user),
            (&mut self.team, &later.team),
            (&mut self.user_agent, &later.user_agent),
        ] {
            say(text, later.as_deref());
        }
        for more in &later.agents {
            self.agent(more.agent.as_deref(), more.first).merge(more);
        }
        for broken in &later.breaks {
            self.list_break(broken);
        }
        for (cause, count) in &later.causes {
            self.count_cause(*cause, *count);
        }
    }

    fn list_break(&mut self, broken: &CacheBreak) {
        if self.breaks.len() >= BREAKS {
            self.breaks.pop_front();
        }
        self.breaks.push_back(broken.clone());
    }

    fn count_cause(&mut self, cause: BreakCause, count: u64) {
        let sum = self.causes.entry(cause).or_default();
        *sum = sum.saturating_add(count);
    }

    /// The agent of a name, else of [`OTHER`] where there are enough; a new one began at `first`.
    fn agent(&mut self, name: Option<&str>, first: u64) -> &mut AgentTotals {
        let find = |agents: &[AgentTotals], name: Option<&str>| {
            agents.iter().position(|it| it.agent.as_deref() == name)
        };
        let is_full = self.agents.len() >= AGENTS && name.is_some();
        let at = find(&self.agents, name)
            .or_else(|| is_full.then(|| find(&self.agents, Some(OTHER))).flatten());
        let at = at.unwrap_or_else(|| {
            self.agents.push(AgentTotals {
                agent: if is_full { Some(OTHER) } else { name }.map(Into::into),
                first,
                ..AgentTotals::default()
            });
            self.agents.len() - 1
        });
        &mut self.agents[at]
    }

    /// End of its last exchange, in Unix milliseconds.
    pub(super) fn last(&self) -> u64 {
        self.agents
            .iter()
            .map(|it| it.last)
            .max()
            .unwrap_or_default()
    }

    /// Begin of its first exchange.
    pub(super) fn first(&self) -> u64 {
        self.agents
            .iter()
            .map(|it| it.first)
            .min()
            .unwrap_or_default()
    }
}

impl AgentTotals {
    /// Counts an exchange that began and ended at these moments, in Unix milliseconds.
    fn count(&mut self, exchange: &Exchange, first: u64, last: u64) {
        self.is_child_of(exchange.begun.parent_agent.as_deref());
        self.first = self.first.min(first);
        self.last = self.last.max(last);
        let busy = u64::try_from(exchange.timings.total.as_micros()).unwrap_or(u64::MAX);
        for (sum, part) in [
            (&mut self.requests, 1),
            (&mut self.failed, u64::from(is_failure(exchange))),
            (&mut self.busy, busy),
        ] {
            *sum = sum.saturating_add(part);
        }
        let Some(usage) = &exchange.usage else {
            return;
        };
        let model = usage.model.as_deref().unwrap_or(UNKNOWN);
        let own = std::iter::once((model, UsageTotals::of_model(usage)));
        for (model, spent) in own.chain(UsageTotals::of_others(usage)) {
            add(&mut self.models, shortened(model, LONGEST_MODEL), &spent);
        }
    }

    /// Notes the agent that started it, if that is not known.
    fn is_child_of(&mut self, parent: Option<&str>) {
        if self.parent.is_none() && self.agent.as_deref() != Some(OTHER) {
            let parent = parent.map(|parent| shortened(parent, LONGEST_MODEL));
            self.parent = parent.map(Into::into);
        }
    }

    fn merge(&mut self, more: &Self) {
        self.is_child_of(more.parent.as_deref());
        self.first = self.first.min(more.first);
        self.last = self.last.max(more.last);
        for (sum, part) in [
            (&mut self.requests, more.requests),
            (&mut self.failed, more.failed),
            (&mut self.busy, more.busy),
            (&mut self.breaks, more.breaks),
        ] {
            *sum = sum.saturating_add(part);
        }
        for (model, spent) in &more.models {
            add(&mut self.models, model, spent);
        }
    }

    /// Usage of all its models.
    pub(super) fn spent(&self) -> UsageTotals {
        let mut sum = UsageTotals::default();
        self.models.iter().for_each(|(_, spent)| sum.add(spent));
        sum
    }
}

/// Takes over a text that is known, cut to what is kept.
fn say(text: &mut Option<Box<str>>, now: Option<&str>) {
    let Some(now) = now else { return };
    let now = shortened(now, LONGEST_TEXT);
    if text.as_deref() != Some(now) {
        *text = Some(now.into());
    }
}

/// Adds to the usage of a model, or of `other` if there is no place left.
fn add(models: &mut Vec<(Box<str>, UsageTotals)>, model: &str, spent: &UsageTotals) {
    let find = |models: &[(Box<str>, UsageTotals)], name: &str| {
        models.iter().position(|(known, _)| **known == *name)
    };
    let name = match find(models, model) {
        None if models.len() >= MODELS => OTHER,
        _ => model,
    };
    match find(models, name) {
        Some(at) => models[at].1.add(spent),
        None => models.push((name.into(), *spent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(session: &str) -> SessionKey {
        SessionKey {
            session: session.into(),
            key: "".into(),
        }
    }

    fn one(agent: Option<&str>, model: &str, at: u64) -> SessionTotals {
        let spent = UsageTotals {
            requests: 1,
            cost: 5,
            ..UsageTotals::default()
        };
        SessionTotals {
            agents: vec![AgentTotals {
                agent: agent.map(Into::into),
                first: at,
                last: at + 10,
                requests: 1,
                models: vec![(model.into(), spent)],
                ..AgentTotals::default()
            }],
            ..SessionTotals::default()
        }
    }

    #[test]
    fn agents_and_models_are_bounded_and_nothing_is_lost() {
        let mut sessions = Sessions::default();
        for agent in 0..200 {
            for model in 0..10 {
                let name = format!("a{agent}");
                sessions.add(
                    key("s"),
                    &one(Some(&name), &format!("m{model}"), 1000 + agent),
                );
            }
        }
        sessions.add(key("s"), &one(None, "m", 7));
        let all = sessions.all();
        let [session] = &all[..] else {
            panic!("{all:?}")
        };
        // the main agent has a place at any time
        assert_eq!(session.totals.agents.len(), AGENTS + 2);
        assert!(
            session
                .totals
                .agents
                .iter()
                .all(|it| it.models.len() <= MODELS + 1)
        );
        let sum = |of: fn(&AgentTotals) -> u64| session.totals.agents.iter().map(of).sum::<u64>();
        assert_eq!(
            (sum(|it| it.requests), sum(|it| it.spent().cost)),
            (2001, 10_005)
        );
        assert_eq!((session.totals.first(), session.last), (7, 1209));
    }

    #[test]
    fn the_sessions_used_last_are_kept() {
        let mut sessions = Sessions::default();
        for number in 0..2 * SESSIONS as u64 {
            sessions.add(key(&format!("s{number}")), &one(None, "m", number));
        }
        let all = sessions.all();
        assert!(
            all.len() <= SESSIONS && all.len() > SESSIONS - 2 * EVICTED,
            "{}",
            all.len()
        );
        let oldest = all.iter().map(|it| it.last).min().unwrap();
        assert!(oldest > SESSIONS as u64, "{oldest}");
        assert_eq!(sessions.agents, all.len());
    }

    #[test]
    fn one_name_under_two_keys_is_two_sessions() {
        let mut sessions = Sessions::default();
        for owner in ["a", "b", "a"] {
            let key = SessionKey {
                session: "s".into(),
                key: owner.into(),
            };
            sessions.add(key, &one(None, "m", 1));
        }
        let mut requests: Vec<_> = sessions
            .all()
            .iter()
            .map(|it| it.totals.agents[0].requests)
            .collect();
        requests.sort_unstable();
        assert_eq!(requests, [1, 2]);
    }
}
