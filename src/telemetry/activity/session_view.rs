//! Rows of sessions as the API serialises them. Times are Unix milliseconds, durations milliseconds, money
//! US dollars.

use serde::Serialize;

use super::view::{Row, SharedSums, TokensView};

/// A page of sessions.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SessionPage {
    /// The sessions.
    pub items: Vec<SessionRow>,
    /// Value of `offset` for the next page, if there is one.
    pub next_offset: Option<usize>,
    /// Number of sessions that match the filters.
    pub total: usize,
    /// Other replicas' part in the sums; null where there is no shared store (`STATE_URL`).
    pub shared: Option<SharedSums>,
}

/// A session of Claude Code.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Session))]
pub struct SessionRow {
    /// Its id, as the client says it (`X-Claude-Code-Session-Id`).
    pub id: String,
    /// The id of the key that its requests showed.
    pub key: Option<String>,
    /// The name of that key.
    pub key_name: Option<String>,
    /// The user that owns the key.
    pub user: Option<String>,
    /// The team of the user.
    pub team: Option<String>,
    /// `User-Agent` of its last request.
    pub user_agent: Option<String>,
    /// Number of agents: the main one, and subagents.
    pub agents: usize,
    /// Its models, that with the highest cost first.
    pub models: Vec<String>,
    /// Its exchanges, tokens and cost.
    #[serde(flatten)]
    pub sums: SessionSums,
}

/// Sums of a session or an agent.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SessionSums {
    /// Begin of the first exchange.
    pub first_at: u64,
    /// End of the last exchange.
    pub last_at: u64,
    /// Time from the one to the other.
    pub duration_ms: f64,
    /// Time that the exchanges took, all together.
    pub busy_ms: f64,
    /// Exchanges that ended.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Their tokens.
    pub tokens: TokensView,
    /// Share of the input that was read from a cache.
    pub cache_hit_share: f64,
    /// Breaks of the prompt cache.
    pub cache_breaks: u64,
    /// Their known cost: a lower bound if `cost_is_floor`.
    pub cost_usd: f64,
    /// True if they cost more than `cost_usd`.
    pub cost_is_floor: bool,
}

/// A session with its agents, its last cache breaks, and its last requests.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SessionDetail {
    /// The session.
    #[serde(flatten)]
    pub row: SessionRow,
    /// Its agents as a tree: each before those that it started.
    pub tree: Vec<AgentRow>,
    /// The number of cache breaks by cause.
    pub causes: Vec<CauseCount>,
    /// The last cache breaks, newest first.
    pub breaks: Vec<CacheBreakRow>,
    /// The last requests that are still listed, newest first, at most 100.
    pub last_requests: Vec<Row>,
}

/// An agent of a session.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Agent))]
pub struct AgentRow {
    /// Its id; null for the main agent.
    pub id: Option<String>,
    /// The agent that started it; null for the main agent, and for those that this started.
    pub parent: Option<String>,
    /// Its depth in the tree; 0 for the main agent.
    pub depth: usize,
    /// Its models.
    pub models: Vec<String>,
    /// Its exchanges, tokens and cost.
    #[serde(flatten)]
    pub sums: SessionSums,
}

/// Number of cache breaks of a cause.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct CauseCount {
    /// The cause.
    pub cause: &'static str,
    /// Number of breaks.
    pub count: u64,
}

/// A request that read less than half of the prefix that was in the prompt cache, while its input had not
/// shrunk.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = CacheBreak))]
pub struct CacheBreakRow {
    /// Begin of the request.
    pub at: u64,
    /// Its request id.
    pub request: String,
    /// The subagent; null for the main agent.
    pub agent: Option<String>,
    /// The model.
    pub model: String,
    /// The cause: `tools_changed`, `system_changed`, `parameters_changed`, `message_changed`,
    /// `model_changed`, `upstream_changed`, `ttl_lapsed` or `unknown`.
    #[cfg_attr(test, schema(example = "system_changed"))]
    pub cause: &'static str,
    /// The number of the message that differs, from 1 on.
    pub message: Option<u64>,
    /// Tokens of the prefix that was there.
    pub expected: u64,
    /// Tokens that were read from it.
    pub read: u64,
    /// Tokens that were written to the cache anew.
    pub written: u64,
}
