//! What the admin plane shows of the activity, as it is serialised.
//!
//! Times are Unix milliseconds, durations milliseconds, money US dollars.

use serde::Serialize;
use utoipa::ToSchema;

use crate::exchange;

/// The activity's part of an overview.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Overview)]
pub struct ActivityOverview {
    /// The moment it is of.
    pub now: u64,
    /// The range that was asked for.
    pub range: &'static str,
    /// Width of a step of the series.
    pub step_ms: u64,
    /// When something changed last.
    pub updated_at: u64,
    /// Exchanges in flight.
    pub in_flight: usize,
    /// Exchanges since the start that are in no sum, since telemetry could not keep up.
    pub lost: u64,
    /// Sums over the range.
    pub totals: Totals,
    /// Sums since midnight, UTC.
    pub today: Today,
    /// The range by steps.
    pub series: Series,
    /// By path, since the process began.
    pub paths: Vec<PathRow>,
}

/// Sums over a range.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Totals {
    /// Exchanges that ended: `succeeded + failed + canceled`.
    pub requests: u64,
    /// Those with a whole answer, a status below 400 and no error in the answer.
    pub succeeded: u64,
    /// Those whose status is 400 or more, whose answer carried an error, or that the upstream or the proxy
    /// ended early. It is the same everywhere: totals, series, the filter `status=failed`, the errors, and
    /// `result="failed"` in the metrics.
    pub failed: u64,
    /// Those that their client left before any of that: they are not failures.
    pub canceled: u64,
    /// Share of `requests` that succeeded; 1 where there are none.
    pub success_rate: f64,
    /// Share of `requests` that failed. `success_rate + error_rate + canceled_rate` is 1.
    pub error_rate: f64,
    /// Share of `requests` that were canceled.
    pub canceled_rate: f64,
    /// Exchanges a second.
    pub requests_per_second: f64,
    /// Octets of requests' content.
    pub bytes_in: u64,
    /// Octets of responses' content.
    pub bytes_out: u64,
    /// How long exchanges took.
    pub duration_ms: Quantiles,
    /// Time to the first token.
    pub ttft_ms: Quantiles,
    /// Tokens.
    pub tokens: TokensView,
    /// Tokens of output a second.
    pub tokens_per_second: f64,
    /// Share of the input that was read from a cache.
    pub cache_hit_share: f64,
    /// What it cost.
    pub cost_usd: f64,
    /// Exchanges whose model has no price.
    pub unpriced_requests: u64,
    /// Exchanges of which tokens and cost are a floor: the answer was broken off, or not all of it could be
    /// read or has a price.
    pub at_least_requests: u64,
    /// What it cost with an estimate for the streams that were broken off; `cost_usd` where there is none.
    pub cost_estimate_usd: f64,
}

/// An average and quantiles; null where there is nothing.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Quantiles {
    /// The average.
    pub avg: Option<f64>,
    /// Half of them are not above.
    pub p50: Option<f64>,
    /// 95 % of them are not above.
    pub p95: Option<f64>,
    /// 99 % of them are not above.
    pub p99: Option<f64>,
}

/// Tokens by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Tokens)]
pub struct TokensView {
    /// Input that no cache was asked for.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache for 5 minutes.
    pub cache_write_5m: u64,
    /// Input written to a cache for an hour.
    pub cache_write_1h: u64,
}

impl From<&exchange::Tokens> for TokensView {
    fn from(tokens: &exchange::Tokens) -> Self {
        Self {
            input: tokens.input,
            output: tokens.output,
            cache_read: tokens.cache_read,
            cache_write_5m: tokens.cache_write_5m,
            cache_write_1h: tokens.cache_write_1h,
        }
    }
}

/// Sums since midnight, UTC.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Today {
    /// Exchanges.
    pub requests: u64,
    /// What they cost.
    pub cost_usd: f64,
    /// Exchanges of which tokens and cost are a floor.
    pub at_least_requests: u64,
    /// Their tokens.
    pub tokens: TokensView,
}

/// A range by steps: columns of one length. Null where there is nothing to say.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Series {
    /// Where the step begins.
    pub t: Vec<u64>,
    /// Exchanges.
    pub requests: Vec<u64>,
    /// Those that failed.
    pub errors: Vec<u64>,
    /// Those that their client left.
    pub canceled: Vec<u64>,
    /// Octets of requests' content.
    pub bytes_in: Vec<u64>,
    /// Octets of responses' content.
    pub bytes_out: Vec<u64>,
    /// Input of all kinds.
    pub tokens_in: Vec<u64>,
    /// Output.
    pub tokens_out: Vec<u64>,
    /// Cost.
    pub cost_usd: Vec<f64>,
    /// Quantile of the duration.
    pub duration_p50: Vec<Option<f64>>,
    /// Quantile of the duration.
    pub duration_p95: Vec<Option<f64>>,
    /// Quantile of the duration.
    pub duration_p99: Vec<Option<f64>>,
    /// Quantile of the time to the first token.
    pub ttft_p50: Vec<Option<f64>>,
    /// Quantile of the time to the first token.
    pub ttft_p95: Vec<Option<f64>>,
    /// Quantile of the time to the first token.
    pub ttft_p99: Vec<Option<f64>>,
}

/// Counts of a path.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PathRow {
    /// The path, or `other`.
    pub path: String,
    /// Exchanges.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Their average duration.
    pub avg_ms: f64,
    /// Octets of their responses.
    pub bytes_out: u64,
}

/// A reload of the configuration.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Reload)]
pub struct ReloadView {
    /// When.
    pub at: u64,
    /// Whether it was taken.
    pub ok: bool,
    /// What changed, or why not.
    pub what: String,
}

/// Whether an exchange is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowState {
    /// In flight.
    Pending,
    /// Ended.
    Done,
}

/// One exchange.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Row {
    /// Its number, in the order in which exchanges began.
    pub seq: u64,
    /// Its name.
    pub id: String,
    /// When it began.
    pub at: u64,
    /// Whether it is in flight.
    pub state: RowState,
    /// The client's address.
    pub client: Option<String>,
    /// The version that the client speaks.
    pub version: &'static str,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The class of the request.
    pub route: &'static str,
    /// The status that the client was given.
    pub status: Option<u16>,
    /// The upstream that was asked last.
    pub upstream: Option<String>,
    /// The upstream's name for it.
    pub upstream_request_id: Option<String>,
    /// Claude Code's session.
    pub session: Option<String>,
    /// The client's own name (`User-Agent`), at most 256 characters.
    pub user_agent: Option<String>,
    /// Octets of the request's content, so far where it is in flight.
    pub bytes_in: u64,
    /// Octets of the response's content, so far where it is in flight.
    pub bytes_out: u64,
    /// Until a connection was had.
    pub connected_ms: Option<f64>,
    /// What connecting took.
    pub connecting_ms: Option<f64>,
    /// Until the response head.
    pub head_ms: Option<f64>,
    /// Until the first token.
    pub ttft_ms: Option<f64>,
    /// Until the end, or now.
    pub duration_ms: f64,
    /// Our own time.
    pub overhead_ms: f64,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// How it ended.
    pub ended: Option<TerminationView>,
    /// `succeeded`, `failed` or `canceled`; null in flight.
    #[schema(example = "succeeded")]
    pub result: Option<&'static str>,
    /// Whether an operator has asked for its end, while it is in flight.
    pub ending: bool,
    /// What became of the edit.
    pub edit: Option<&'static str>,
    /// The model.
    pub model: Option<String>,
    /// Whether the answer was streamed.
    pub stream: Option<bool>,
    /// What the request allowed at most.
    pub max_tokens: Option<u64>,
    /// The tokens; in flight, those that the upstream has reported so far.
    pub tokens: Option<TokensView>,
    /// Events with a piece of output (`content_block_delta`) that have passed, in flight; each carries about
    /// one token or more. Null where it has ended or is not metered.
    pub output_events: Option<u64>,
    /// Requests of server tools.
    pub server_tools: u64,
    /// What it cost, other models included.
    pub cost_usd: Option<f64>,
    /// Whether tokens and cost are a floor: the answer was broken off, or not all of it could be read or has
    /// a price.
    pub at_least: bool,
    /// What a stream that was broken off may have used and cost, from the deltas that passed.
    pub estimate: Option<EstimateView>,
    /// What other models used for it (advisors), each call; not part of `tokens`.
    pub other_models: Vec<OtherModelView>,
    /// Where the model ran, as the answer says.
    pub inference_geo: Option<String>,
    /// How fast the model was, as the answer says.
    pub speed: Option<String>,
    /// The service tier, as the answer says.
    pub service_tier: Option<String>,
    /// Why not all of the answer could be metered.
    pub metering_failure: Option<&'static str>,
    /// Why the generation ended.
    pub stop_reason: Option<String>,
    /// The type of the error.
    pub error_type: Option<String>,
}

/// What a stream that was broken off may have used.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Estimate)]
pub struct EstimateView {
    /// Tokens of output.
    pub output: u64,
    /// What the exchange cost with them.
    pub cost_usd: Option<f64>,
}

/// What another model used.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OtherModel)]
pub struct OtherModelView {
    /// The model.
    pub model: String,
    /// Its tokens.
    pub tokens: TokensView,
    /// What they cost; null where it has no price.
    pub cost_usd: Option<f64>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Termination)]
pub struct TerminationView {
    /// By whom.
    pub by: &'static str,
    /// When.
    pub phase: &'static str,
    /// Why.
    pub label: Option<&'static str>,
}

/// A page of exchanges.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page {
    /// The exchanges: those in flight first, then newest first.
    pub items: Vec<Row>,
    /// What `before` says for the next page, if there is one.
    pub next_before: Option<u64>,
    /// How many fit the filters.
    pub total: usize,
}

/// One exchange, with what the upstream said if it failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Detail {
    /// The exchange.
    #[serde(flatten)]
    pub row: Row,
    /// The fields of the request.
    pub request_fields: Vec<FieldView>,
    /// The fields of the upstream's response, once they are there.
    pub response_fields: Vec<FieldView>,
    /// What the upstream said.
    pub error: Option<ErrorText>,
}

/// A field of a head.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Field)]
pub struct FieldView {
    /// Its name.
    pub name: String,
    /// Its value, if it is one that is known to be no secret.
    pub value: Option<String>,
}

/// Content of an error as text, without what looks like a secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorText {
    /// The text.
    pub content: String,
    /// Whether there was more.
    pub truncated: bool,
}

/// Failures, grouped and listed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Errors {
    /// The groups, largest first.
    pub groups: Vec<ErrorGroup>,
    /// The newest 100 of them, that which ended last (`ended_at`) first.
    pub items: Vec<Row>,
    /// So many failures are kept at most.
    pub kept: usize,
    /// Nothing older is known: the process began then, or the oldest one that it took over from an earlier
    /// process ended then.
    pub since: u64,
}

/// Failures of one kind.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorGroup {
    /// The status.
    pub status: Option<u16>,
    /// The type of the error, of the answer.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The upstream.
    pub upstream: Option<String>,
    /// Whose doing it was: `complete` where a whole answer said so, `client`, `upstream`, `proxy`.
    pub by: &'static str,
    /// Whether the answer was ours.
    pub ours: bool,
    /// Why it was not complete.
    pub label: Option<&'static str>,
    /// How many.
    pub count: u64,
    /// The first one's end.
    pub first_at: u64,
    /// The last one's end.
    pub last_at: u64,
    /// The newest one that has content, else the newest.
    pub sample: Sample,
}

/// An example of an error.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Sample {
    /// The exchange.
    pub id: String,
    /// What the upstream said.
    pub content: Option<String>,
}

/// What a model, or a day, used and cost.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageRow {
    /// The day, the model, or both.
    pub key: String,
    /// The day (UTC), if rows are told apart by it.
    pub day: Option<String>,
    /// The model, if rows are told apart by it.
    pub model: Option<String>,
    /// Exchanges.
    pub requests: u64,
    /// Their tokens.
    pub tokens: TokensView,
    /// Share of the input that was read from a cache.
    pub cache_hit_share: f64,
    /// What they cost, as far as that is known: a floor where `cost_is_floor` says so.
    pub cost_usd: f64,
    /// Whether they cost more than `cost_usd`: some of them have no price (`unpriced`), or were broken off
    /// (`at_least`).
    pub cost_is_floor: bool,
    /// Whether some of them have no price.
    pub unpriced: bool,
    /// Whether tokens and cost of some of them are a floor.
    pub at_least: bool,
    /// What they cost with an estimate for the streams that were broken off.
    pub cost_estimate_usd: f64,
    /// How many have no price.
    pub unpriced_requests: u64,
}

/// What was seen of an upstream since the process began.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UpstreamRow {
    /// The upstream as it is called: its URL, `URL #2` of several with the same, or `other`.
    pub name: String,
    /// Requests that were sent, or tried to be sent, there.
    pub requests: u64,
    /// Those that failed, or that another upstream was asked for then; not through the client.
    pub errors: u64,
    /// Answers with status 429.
    pub status_429: u64,
    /// Answers with status 529.
    pub status_529: u64,
    /// New connections.
    pub connects: u64,
    /// Tries that got no connection.
    pub connect_failures: u64,
    /// What connecting took.
    pub connect_ms: Pair,
    /// From the connection to the response head.
    pub head_ms: Pair,
    /// Its rate-limit fields as seen last.
    pub rate_limit: Vec<RateLimit>,
}

/// Two quantiles; null where there is nothing.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Pair {
    /// Half of them are not above.
    pub p50: Option<f64>,
    /// 95 % of them are not above.
    pub p95: Option<f64>,
}

/// A rate-limit field.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RateLimit {
    /// Its name without `anthropic-ratelimit-`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// When.
    pub at: u64,
}

/// What a second brought.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Tick)]
pub struct TickView {
    /// The moment.
    pub now: u64,
    /// Exchanges in flight.
    pub in_flight: usize,
    /// Exchanges a second, over the last five.
    pub requests_per_second: f64,
    /// Share that failed, over the last five seconds.
    pub error_rate: f64,
    /// Tokens of output a second, over the last five.
    pub tokens_per_second: f64,
    /// Exchanges that began, were answered or ended since the last tick, at most 100.
    pub rows: Vec<Row>,
    /// How many more there were.
    pub dropped: usize,
    /// What changed of exchanges in flight, of the newest 200.
    pub running: Vec<RunningView>,
}

/// How far an exchange in flight has come.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Running)]
pub struct RunningView {
    /// Its number.
    pub seq: u64,
    /// Its name.
    pub id: String,
    /// The upstream that is asked.
    pub upstream: Option<String>,
    /// Octets of the request's content so far.
    pub bytes_in: u64,
    /// Octets of the response's content so far.
    pub bytes_out: u64,
    /// Until the first token.
    pub ttft_ms: Option<f64>,
    /// Since it began.
    pub duration_ms: f64,
    /// Tokens that the upstream has reported so far.
    pub tokens: TokensView,
    /// Events with a piece of output (`content_block_delta`) so far.
    pub output_events: u64,
    /// Whether an operator has asked for its end.
    pub ending: bool,
}
