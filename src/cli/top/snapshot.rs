//! Answers of the API at one moment, as far as they are shown. Members that a server does not send have their
//! defaults, so that the views of two versions may differ.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::cli::{
    client::{API, ApiClient, segment},
    desk::VerbError,
};

/// State of a proxy at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) overview: ShownOverview,
    /// Requests in flight, newest first.
    pub(super) requests: Listing<ShownRequest>,
    /// Sessions; none if they were not asked for.
    pub(super) sessions: Option<Listing<ShownSession>>,
    /// Upstreams in full; none if they were not asked for.
    pub(super) upstreams: Option<Vec<ShownUpstream>>,
    /// Budgets, those nearest to their end first; none if they were not asked for, or are not kept.
    pub(super) budgets: Option<Vec<ShownBudget>>,
    /// Rates and exchanges at once, the most used ones first; none if they were not asked for, or are not kept.
    pub(super) limits: Option<Listing<ShownLimit>>,
}

/// View of a snapshot, which decides on the parts that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopView {
    Requests,
    Sessions,
    Upstreams,
    Budgets,
    Limits,
}

/// Question to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) view: TopView,
    /// Text that requests or sessions contain.
    pub(super) filter: String,
    /// Order of sessions, as the API names it.
    pub(super) session_order: &'static str,
}

/// A list and the number of all that match.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Listing<T> {
    pub(super) items: Vec<T>,
    pub(super) total: usize,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            total: 0,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownOverview {
    pub(super) version: String,
    pub(super) uptime_ms: u64,
    pub(super) in_flight: u64,
    pub(super) connections: u64,
    pub(super) totals: ShownTotals,
    pub(super) today: ShownToday,
    pub(super) upstreams: Vec<ShownUpstream>,
}

/// Sums of the last 15 minutes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownTotals {
    pub(super) requests_per_second: f64,
    pub(super) error_rate: f64,
    pub(super) tokens_per_second: f64,
    pub(super) cache_hit_share: f64,
    pub(super) ttft_ms: ShownQuantiles,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownQuantiles {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownToday {
    pub(super) requests: u64,
    pub(super) cost_usd: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownRequest {
    pub(super) seq: u64,
    pub(super) id: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) client: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) upstream: Option<String>,
    pub(super) session: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) key_name: Option<String>,
    pub(super) user: Option<String>,
    pub(super) team: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) ttft_ms: Option<f64>,
    pub(super) duration_ms: f64,
    pub(super) ending: bool,
    pub(super) model: Option<String>,
    pub(super) max_tokens: Option<u64>,
    pub(super) tokens: Option<ShownTokens>,
    pub(super) output_events: Option<u64>,
}

impl ShownRequest {
    /// Tokens of output so far, at least: each event carries one or more.
    pub(super) fn output(&self) -> u64 {
        let reported = self.tokens.as_ref().map_or(0, |tokens| tokens.output);
        reported.max(self.output_events.unwrap_or_default())
    }

    /// Tokens of input.
    pub(super) fn input(&self) -> u64 {
        self.tokens.as_ref().map_or(0, ShownTokens::all_input)
    }

    /// The user, else the name of the key, else the client's address.
    pub(super) fn who(&self) -> &str {
        let named = [&self.user, &self.key_name, &self.client];
        named.into_iter().flatten().next().map_or("-", |it| it)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownTokens {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write_5m: u64,
    pub(super) cache_write_1h: u64,
}

impl ShownTokens {
    /// Tokens of input of all kinds.
    pub(super) fn all_input(&self) -> u64 {
        self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownSession {
    pub(super) id: String,
    pub(super) key_name: Option<String>,
    pub(super) user: Option<String>,
    pub(super) team: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) agents: usize,
    pub(super) models: Vec<String>,
    pub(super) last_at: u64,
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) tokens: ShownTokens,
    pub(super) cache_hit_share: f64,
    pub(super) cache_breaks: u64,
    pub(super) cost_usd: f64,
    pub(super) cost_is_floor: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownUpstream {
    pub(super) name: String,
    pub(super) circuit: String,
    pub(super) failures: u32,
    pub(super) failures_to_open: u32,
    pub(super) http: String,
    pub(super) idle_connections: u64,
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) status_429: u64,
    pub(super) status_529: u64,
    pub(super) connect_failures: u64,
    pub(super) head_ms: ShownQuantiles,
    pub(super) rate_limit: Vec<ShownRateLimit>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownRateLimit {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownBudget {
    pub(super) subject: String,
    pub(super) name: Option<String>,
    pub(super) period: String,
    pub(super) models: Option<String>,
    pub(super) limit_usd: f64,
    pub(super) spent_usd: f64,
    pub(super) held_usd: f64,
    pub(super) left_usd: f64,
    pub(super) percent: f64,
    pub(super) resets_at: Option<String>,
    pub(super) forecast_usd: Option<f64>,
}

/// A rate or a number of exchanges at once.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownLimit {
    pub(super) subject: String,
    pub(super) name: Option<String>,
    pub(super) kind: String,
    pub(super) models: Option<String>,
    pub(super) bound: f64,
    pub(super) spent: f64,
    pub(super) left: f64,
    pub(super) percent: f64,
    pub(super) resets_at: Option<String>,
    pub(super) default_of: Option<String>,
    pub(super) waiting: u64,
    pub(super) shared: Option<ShownSharing>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShownSharing {
    pub(super) state: String,
    pub(super) replicas: u64,
    pub(super) counts: String,
}

impl Snapshot {
    /// The parts that a query asks for.
    pub(super) fn of(server: &ApiClient, query: &Query) -> Result<Self, VerbError> {
        let filter = segment(&query.filter);
        let mut this = Self {
            overview: read(server, OVERVIEW)?,
            requests: read(server, &format!("{IN_FLIGHT}&q={filter}"))?,
            ..Self::default()
        };
        match query.view {
            TopView::Requests => {}
            TopView::Sessions => {
                let order = query.session_order;
                let path = format!("/sessions?limit={ROWS}&sort={order}&q={filter}");
                this.sessions = Some(read(server, &path)?);
            }
            TopView::Upstreams => this.upstreams = Some(upstreams(server)?),
            TopView::Budgets => this.budgets = budgets(server)?,
            TopView::Limits => this.limits = found(server, LIMITS)?.map(page),
        }
        Ok(this)
    }

    /// All parts.
    pub(super) fn of_all(server: &ApiClient) -> Result<Self, VerbError> {
        Ok(Self {
            overview: read(server, OVERVIEW)?,
            requests: read(server, IN_FLIGHT)?,
            sessions: Some(read(server, SESSIONS)?),
            upstreams: Some(upstreams(server)?),
            budgets: budgets(server)?,
            limits: found(server, LIMITS)?.map(page),
        })
    }
}

/// The answers of the API, as they are.
pub(super) fn as_json(server: &ApiClient) -> Result<Value, VerbError> {
    let mut budgets = Vec::new();
    for by in SUBJECTS {
        if let Some(mut answer) = found(server, &format!("/spend?by={by}"))?
            && let Value::Array(items) = answer["items"].take()
        {
            budgets.extend(items);
        }
    }
    Ok(json!({
        "overview": asked(server, OVERVIEW)?,
        "requests": asked(server, IN_FLIGHT)?,
        "sessions": asked(server, SESSIONS)?,
        "upstreams": asked(server, "/upstreams")?["items"],
        "budgets": budgets,
        "limits": found(server, LIMITS)?.map(|mut answer| answer["items"].take()),
    }))
}

fn upstreams(server: &ApiClient) -> Result<Vec<ShownUpstream>, VerbError> {
    read::<Listing<ShownUpstream>>(server, "/upstreams").map(|page| page.items)
}

/// The budgets of all subjects; none where no keys are kept.
fn budgets(server: &ApiClient) -> Result<Option<Vec<ShownBudget>>, VerbError> {
    let mut all: Vec<ShownBudget> = Vec::new();
    for by in SUBJECTS {
        match found(server, &format!("/spend?by={by}"))? {
            Some(answer) => all.extend(page(answer).items),
            None => return Ok(None),
        }
    }
    all.sort_by(|one, other| other.percent.total_cmp(&one.percent));
    Ok(Some(all))
}

fn page<T: DeserializeOwned>(answer: Value) -> Listing<T> {
    serde_json::from_value(answer).unwrap_or_default()
}

fn read<T: DeserializeOwned + Default>(server: &ApiClient, path: &str) -> Result<T, VerbError> {
    let answer = asked(server, path)?;
    serde_json::from_value(answer).map_err(|error| VerbError::Refused {
        status: 502,
        message: format!(
            "the answer to {path} is none of this API: {error}; is it another version?"
        ),
    })
}

/// An answer; none where the server has nothing of the kind.
fn found(server: &ApiClient, path: &str) -> Result<Option<Value>, VerbError> {
    match asked(server, path) {
        Ok(answer) => Ok(Some(answer)),
        Err(VerbError::Refused {
            status: 404 | 503, ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn asked(server: &ApiClient, path: &str) -> Result<Value, VerbError> {
    let answer = server.send("GET", &format!("{API}{path}"), None, None, PATIENCE)?;
    answer.success().map_err(|error| match error {
        // the socket is there, and nothing is recorded
        VerbError::Refused { status, message } if message == "nothing is recorded" => {
            VerbError::Refused {
                status,
                message: format!("{message}: start the server with ENABLE_DASHBOARD=true"),
            }
        }
        error => error,
    })
}

/// Rows of a list.
const ROWS: usize = 200;
const OVERVIEW: &str = "/overview?range=15m";
const IN_FLIGHT: &str = "/requests?status=pending&limit=200";
const SESSIONS: &str = "/sessions?limit=200";
const LIMITS: &str = "/limits?limit=200";
const SUBJECTS: [&str; 4] = ["org", "team", "user", "key"];
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);
