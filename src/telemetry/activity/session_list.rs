//! The list of sessions: filters, order and pages; and one session in full.

use std::{cmp::Ordering, sync::Arc};

use super::{
    cache_health::CacheBreak,
    compose::{cache_hit_share, dollars},
    filter::{InvalidFilter, contains, is_in},
    session_view::{
        AgentRow, CacheBreakRow, CauseCount, SessionDetail, SessionPage, SessionRow, SessionSums,
    },
    sessions::{AgentTotals, Session, SessionTotals},
    totals::UsageTotals,
    view::Row,
};

/// The longest text of a filter, in characters.
const LONGEST: usize = 256;
/// Default and upper bound of rows of a page.
const ROWS: (usize, usize) = (100, 1000);

/// Filter of sessions. Texts match any part of a value, ignoring case.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Rows of the page.
    pub limit: Option<usize>,
    /// Rows before the page.
    pub offset: usize,
    /// The id of the session.
    pub session: Option<String>,
    /// The id or the name of the key.
    pub key: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The team.
    pub team: Option<String>,
    /// Used at this moment or later, in Unix milliseconds.
    pub since: Option<u64>,
    /// Begun before this moment, in Unix milliseconds.
    pub until: Option<u64>,
    /// Any of these, a model, or an agent.
    pub q: Option<String>,
    /// The order of the rows.
    pub sort: SessionSort,
    /// True if the smallest comes first.
    pub is_ascending: bool,
}

/// Order of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionSort {
    /// By the end of the last exchange.
    #[default]
    Last,
    /// By the begin of the first exchange.
    First,
    /// By the time between them.
    Duration,
    /// By exchanges.
    Requests,
    /// By failed exchanges.
    Errors,
    /// By tokens of all kinds.
    Tokens,
    /// By cost.
    Cost,
    /// By the share of the input that was read from a cache.
    CacheHitShare,
    /// By breaks of the prompt cache.
    CacheBreaks,
}

impl SessionSort {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Last,
        Self::First,
        Self::Duration,
        Self::Requests,
        Self::Errors,
        Self::Tokens,
        Self::Cost,
        Self::CacheHitShare,
        Self::CacheBreaks,
    ];

    /// The text of the order.
    pub fn label(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::First => "first",
            Self::Duration => "duration",
            Self::Requests => "requests",
            Self::Errors => "errors",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::CacheHitShare => "cache_hit_share",
            Self::CacheBreaks => "cache_breaks",
        }
    }

    /// Reads an order.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.label() == text)
    }

    fn compare(self, one: &SessionSums, other: &SessionSums) -> Ordering {
        let tokens = |sums: &SessionSums| {
            let tokens = &sums.tokens;
            let written = tokens.cache_write_5m.saturating_add(tokens.cache_write_1h);
            let read = tokens.input.saturating_add(tokens.cache_read);
            read.saturating_add(written).saturating_add(tokens.output)
        };
        match self {
            Self::Last => one.last_at.cmp(&other.last_at),
            Self::First => one.first_at.cmp(&other.first_at),
            Self::Duration => one.duration_ms.total_cmp(&other.duration_ms),
            Self::Requests => one.requests.cmp(&other.requests),
            Self::Errors => one.errors.cmp(&other.errors),
            Self::Tokens => tokens(one).cmp(&tokens(other)),
            Self::Cost => one.cost_usd.total_cmp(&other.cost_usd),
            Self::CacheHitShare => one.cache_hit_share.total_cmp(&other.cache_hit_share),
            Self::CacheBreaks => one.cache_breaks.cmp(&other.cache_breaks),
        }
    }
}

impl SessionFilter {
    /// Checks the bounds of the filter.
    ///
    /// # Errors
    /// If a text has more than 256 characters, or a limit that is not between 1 and 1000.
    pub fn check(&self) -> Result<(), InvalidFilter> {
        for (name, text) in [
            ("session", &self.session),
            ("key", &self.key),
            ("user", &self.user),
            ("team", &self.team),
            ("q", &self.q),
        ] {
            let is_long = |text: &String| text.chars().count() > LONGEST;
            if text.as_ref().is_some_and(is_long) {
                return Err(InvalidFilter(name));
            }
        }
        match self.limit {
            Some(limit) if limit == 0 || limit > ROWS.1 => Err(InvalidFilter("limit")),
            _ => Ok(()),
        }
    }

    /// Selects the page.
    pub(super) fn page(&self, sessions: &[Arc<Session>]) -> SessionPage {
        let fitting = sessions.iter().filter(|session| self.fits(session));
        let mut found: Vec<_> = fitting
            .map(|session| (sums(&session.totals.agents), session))
            .collect();
        found.sort_unstable_by(|(one, a), (other, b)| {
            let order = self.sort.compare(one, other);
            let order = if self.is_ascending {
                order
            } else {
                order.reverse()
            };
            // pages need one order of what is equal
            order
                .then_with(|| b.last.cmp(&a.last))
                .then_with(|| a.id.cmp(&b.id))
        });
        let limit = self.limit.unwrap_or(ROWS.0).clamp(1, ROWS.1);
        let (total, end) = (found.len(), self.offset.saturating_add(limit));
        let page = found.into_iter().skip(self.offset).take(limit);
        SessionPage {
            items: page.map(|(sums, session)| row(session, sums)).collect(),
            next_offset: (end < total).then_some(end),
            total,
            shared: None,
        }
    }

    fn fits(&self, session: &Session) -> bool {
        let totals = &session.totals;
        let key = |key: &String| {
            contains(&session.id.key, key)
                || totals
                    .name
                    .as_deref()
                    .is_some_and(|name| contains(name, key))
        };
        self.since.is_none_or(|since| session.last >= since)
            && self.until.is_none_or(|until| totals.first() < until)
            && is_in(self.session.as_deref(), Some(&session.id.session))
            && is_in(self.user.as_deref(), totals.user.as_deref())
            && is_in(self.team.as_deref(), totals.team.as_deref())
            && self.key.as_ref().is_none_or(key)
            && self.q.as_ref().is_none_or(|q| has(session, q))
    }
}

fn has(session: &Session, q: &str) -> bool {
    let totals = &session.totals;
    let texts = [
        Some(&*session.id.session),
        Some(&session.id.key),
        totals.name.as_deref(),
        totals.user.as_deref(),
        totals.team.as_deref(),
        totals.user_agent.as_deref(),
    ];
    let agents = || totals.agents.iter();
    let models = agents().flat_map(|agent| agent.models.iter().map(|(model, _)| &**model));
    let agents = agents().filter_map(|agent| agent.agent.as_deref());
    let texts = texts.into_iter().flatten().chain(models).chain(agents);
    texts.into_iter().any(|text| contains(text, q))
}

/// A session in full.
pub(super) fn detail(session: &Session, last_requests: Vec<Row>) -> SessionDetail {
    let totals = &session.totals;
    let causes = totals.causes.iter();
    let mut causes: Vec<_> = causes
        .map(|(cause, count)| CauseCount {
            cause: cause.label(),
            count: *count,
        })
        .collect();
    causes.sort_by_key(|it| std::cmp::Reverse(it.count));
    SessionDetail {
        row: row(session, sums(&totals.agents)),
        tree: tree(totals),
        causes,
        breaks: totals.breaks.iter().rev().map(break_row).collect(),
        last_requests,
    }
}

fn row(session: &Session, sums: SessionSums) -> SessionRow {
    let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    let totals = &session.totals;
    SessionRow {
        id: session.id.session.to_string(),
        key: Some(session.id.key.to_string()).filter(|key| !key.is_empty()),
        key_name: owned(&totals.name),
        user: owned(&totals.user),
        team: owned(&totals.team),
        user_agent: owned(&totals.user_agent),
        agents: totals.agents.len(),
        models: models(&totals.agents),
        sums,
    }
}

fn break_row(broken: &CacheBreak) -> CacheBreakRow {
    CacheBreakRow {
        at: broken.at,
        request: broken.request.to_string(),
        agent: broken.agent.as_deref().map(str::to_owned),
        model: broken.model.to_string(),
        cause: broken.cause.label(),
        message: broken.message,
        expected: broken.expected,
        read: broken.read,
        written: broken.written,
    }
}

/// The agents, each before those that it started. One whose parent is not known stands below the main
/// agent, and so do those that name each other.
fn tree(totals: &SessionTotals) -> Vec<AgentRow> {
    let mut order: Vec<&AgentTotals> = totals.agents.iter().collect();
    order.sort_by_key(|it| it.first);
    let mut rows = Vec::with_capacity(order.len());
    let mut is_listed = vec![false; order.len()];
    let is_known = |name: &str| order.iter().any(|it| it.agent.as_deref() == Some(name));
    // the main agent first, then those below it, and at last those that are in a circle
    for pass in 0..3 {
        for at in 0..order.len() {
            let agent = order[at];
            let begins = match pass {
                0 => agent.agent.is_none(),
                1 => !agent.parent.as_deref().is_some_and(is_known),
                _ => true,
            };
            if begins && !is_listed[at] {
                list(
                    &order,
                    at,
                    usize::from(agent.agent.is_some()),
                    &mut is_listed,
                    &mut rows,
                );
            }
        }
    }
    rows
}

/// Lists an agent and those below it.
fn list(
    agents: &[&AgentTotals],
    at: usize,
    depth: usize,
    is_listed: &mut [bool],
    rows: &mut Vec<AgentRow>,
) {
    let agent = agents[at];
    is_listed[at] = true;
    rows.push(AgentRow {
        id: agent.agent.as_deref().map(str::to_owned),
        parent: agent.parent.as_deref().map(str::to_owned),
        depth,
        models: models(std::slice::from_ref(agent)),
        sums: sums(std::slice::from_ref(agent)),
    });
    let Some(name) = agent.agent.as_deref() else {
        return;
    };
    for below in 0..agents.len() {
        if !is_listed[below] && agents[below].parent.as_deref() == Some(name) {
            list(agents, below, depth + 1, is_listed, rows);
        }
    }
}

/// The models of agents, that with the highest cost first.
fn models(agents: &[AgentTotals]) -> Vec<String> {
    let mut models: Vec<(&str, u64)> = Vec::new();
    for (model, spent) in agents.iter().flat_map(|agent| &agent.models) {
        match models.iter_mut().find(|(known, _)| **known == **model) {
            Some((_, cost)) => *cost = cost.saturating_add(spent.cost),
            None => models.push((model, spent.cost)),
        }
    }
    models.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    models
        .into_iter()
        .map(|(model, _)| model.to_owned())
        .collect()
}

/// Sums of agents.
pub(super) fn sums(agents: &[AgentTotals]) -> SessionSums {
    let mut spent = UsageTotals::default();
    let mut sums = SessionSums {
        first_at: agents.iter().map(|it| it.first).min().unwrap_or_default(),
        last_at: agents.iter().map(|it| it.last).max().unwrap_or_default(),
        ..SessionSums::default()
    };
    let mut busy = 0_u64;
    for agent in agents {
        spent.add(&agent.spent());
        busy = busy.saturating_add(agent.busy);
        sums.requests = sums.requests.saturating_add(agent.requests);
        sums.errors = sums.errors.saturating_add(agent.failed);
        sums.cache_breaks = sums.cache_breaks.saturating_add(agent.breaks);
    }
    SessionSums {
        duration_ms: sums.last_at.saturating_sub(sums.first_at) as f64,
        busy_ms: busy as f64 / 1000.0,
        tokens: (&spent.tokens).into(),
        cache_hit_share: cache_hit_share(&spent),
        cost_usd: dollars(spent.cost),
        cost_is_floor: spent.unpriced > 0 || spent.at_least > 0,
        ..sums
    }
}
