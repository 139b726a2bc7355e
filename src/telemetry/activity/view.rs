//! Rows and totals of the activity as the API serialises them.
//!
//! Times are Unix milliseconds, durations milliseconds, money US dollars.

use serde::Serialize;

use super::verified_view::VerifiedView;
use crate::exchange;

/// The activity's part of an overview.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ActivityOverview {
    /// Time of the overview.
    pub now: u64,
    /// The requested range.
    pub range: &'static str,
    /// Width of a step of the series.
    pub step_ms: u64,
    /// Time of the last change.
    pub updated_at: u64,
    /// Exchanges in flight.
    pub in_flight: usize,
    /// Exchanges since the start that are missing from the totals, since telemetry could not keep up.
    pub lost: u64,
    /// Sums over the range.
    pub totals: Totals,
    /// Sums since midnight in the proxy's time zone (`TZ`).
    pub today: Today,
    /// The range by steps.
    pub series: Series,
    /// By path, since the process began.
    pub paths: Vec<PathRow>,
}

/// Sums over a range.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Totals {
    /// Exchanges that ended: `succeeded + failed + canceled`.
    pub requests: u64,
    /// Those with a complete response, a status below 400 and no error in the response.
    pub succeeded: u64,
    /// Those whose status is 400 or more, whose response carried an error, or that the upstream or the proxy
    /// ended early. It is the same everywhere: totals, series, the filter `status=failed`, the errors, and
    /// `result` of the metrics.
    pub failed: u64,
    /// Those that their client left before any of that: client cancellations are not counted as errors.
    pub canceled: u64,
    /// Share of `requests` that succeeded; 1 where there are none.
    pub success_rate: f64,
    /// Share of `requests` that failed. `success_rate + error_rate + canceled_rate` is 1.
    pub error_rate: f64,
    /// Share of `requests` that were canceled.
    pub canceled_rate: f64,
    /// Exchanges a second.
    pub requests_per_second: f64,
    /// Bytes of requests' content.
    pub bytes_in: u64,
    /// Bytes of responses' content.
    pub bytes_out: u64,
    /// Durations of exchanges.
    pub duration_ms: Quantiles,
    /// Time to the first token.
    pub ttft_ms: Quantiles,
    /// Tokens.
    pub tokens: TokensView,
    /// Tokens of output a second.
    pub tokens_per_second: f64,
    /// Share of the input that was read from a cache.
    pub cache_hit_share: f64,
    /// Cost.
    pub cost_usd: f64,
    /// Exchanges whose model has no price.
    pub unpriced_requests: u64,
    /// Exchanges whose tokens and cost are a lower bound: the response was cut off, or not all of it could be
    /// read or has a price.
    pub at_least_requests: u64,
    /// Cost with an estimate for the streams that were cut off; `cost_usd` without one.
    pub cost_estimate_usd: f64,
}

/// An average and quantiles; null without values.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Tokens))]
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

/// Sums since midnight in the proxy's time zone (`TZ`).
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Today {
    /// Exchanges.
    pub requests: u64,
    /// Their cost.
    pub cost_usd: f64,
    /// Exchanges whose tokens and cost are a lower bound.
    pub at_least_requests: u64,
    /// Their tokens.
    pub tokens: TokensView,
}

/// A range by steps: columns of one length. Null without values.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Series {
    /// Begin of the step.
    pub t: Vec<u64>,
    /// Exchanges.
    pub requests: Vec<u64>,
    /// Those that failed.
    pub errors: Vec<u64>,
    /// Those that their client canceled.
    pub canceled: Vec<u64>,
    /// Bytes of requests' content.
    pub bytes_in: Vec<u64>,
    /// Bytes of responses' content.
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
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct PathRow {
    /// The path, or `other`.
    pub path: String,
    /// Exchanges.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Their average duration.
    pub avg_ms: f64,
    /// Bytes of their responses.
    pub bytes_out: u64,
}

/// A reload of the configuration.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Reload))]
pub struct ReloadView {
    /// Time of the reload.
    pub at: u64,
    /// True if the configuration was applied.
    pub ok: bool,
    /// The changes, or the reason of the failure.
    pub what: String,
}

/// State of an exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum RowState {
    /// In flight.
    #[default]
    Pending,
    /// Ended.
    Done,
}

/// One exchange.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Row {
    /// Its number, in the order in which exchanges began.
    pub seq: u64,
    /// Its request id.
    pub id: String,
    /// Begin.
    pub at: u64,
    /// State: in flight or ended.
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
    /// The status sent to the client.
    pub status: Option<u16>,
    /// The upstream of the response, else of the last attempt.
    pub upstream: Option<String>,
    /// The upstream's request id.
    pub upstream_request_id: Option<String>,
    /// Claude Code's session.
    pub session: Option<String>,
    /// Claude Code's subagent; null for the main agent.
    pub agent: Option<String>,
    /// The id of the key that the request showed.
    pub key: Option<String>,
    /// The name of that key.
    pub key_name: Option<String>,
    /// The user that owns the key.
    pub user: Option<String>,
    /// The team of the user.
    pub team: Option<String>,
    /// `User-Agent` of the client, at most 256 characters.
    pub user_agent: Option<String>,
    /// Bytes of the request's content, so far if it is in flight.
    pub bytes_in: u64,
    /// Bytes of the response's content, so far if it is in flight.
    pub bytes_out: u64,
    /// Time until a connection was available.
    pub connected_ms: Option<f64>,
    /// Time spent connecting.
    pub connecting_ms: Option<f64>,
    /// Time until the response head.
    pub head_ms: Option<f64>,
    /// Time until the first token.
    pub ttft_ms: Option<f64>,
    /// Time until the end, or now.
    pub duration_ms: f64,
    /// The proxy's own time.
    pub overhead_ms: f64,
    /// End.
    pub ended_at: Option<u64>,
    /// Source, phase and label of its end.
    pub ended: Option<TerminationView>,
    /// `succeeded`, `failed` or `canceled`; null in flight.
    #[cfg_attr(test, schema(example = "succeeded"))]
    pub result: Option<&'static str>,
    /// True if an operator has asked for its end, while it is in flight.
    pub ending: bool,
    /// Outcome of the edit.
    pub edit: Option<&'static str>,
    /// Outcome of the comparison of its content before and after the proxy (`VERIFY`): `same`, `incomplete` or
    /// `differs`; null if it was not verified.
    pub verify: Option<&'static str>,
    /// The model.
    pub model: Option<String>,
    /// True if the response was streamed.
    pub stream: Option<bool>,
    /// Upper bound of output tokens in the request.
    pub max_tokens: Option<u64>,
    /// The tokens; in flight, those that the upstream has reported so far.
    pub tokens: Option<TokensView>,
    /// Events with a piece of output (`content_block_delta`) that have passed, in flight; each carries about
    /// one token or more. Null if it has ended or is not metered.
    pub output_events: Option<u64>,
    /// Requests of server tools.
    pub server_tools: u64,
    /// Cost, including other models.
    pub cost_usd: Option<f64>,
    /// True if tokens and cost are a lower bound: the response was cut off, or not all of it could be read or
    /// has a price.
    pub at_least: bool,
    /// Estimated usage and cost of a stream that was cut off, from the deltas that were forwarded.
    pub estimate: Option<EstimateView>,
    /// Usage of other models for it (advisors), one entry for each call; not part of `tokens`.
    pub other_models: Vec<OtherModelView>,
    /// Region in which the model ran, as the response reports it.
    pub inference_geo: Option<String>,
    /// Speed of the model, as the response reports it.
    pub speed: Option<String>,
    /// Service tier, as the response reports it.
    pub service_tier: Option<String>,
    /// Reason for which not all of the response could be metered.
    pub metering_failure: Option<&'static str>,
    /// Stop reason of the generation.
    pub stop_reason: Option<String>,
    /// The type of the error.
    pub error_type: Option<String>,
}

/// Estimated usage of a stream that was cut off.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Estimate))]
pub struct EstimateView {
    /// Tokens of output.
    pub output: u64,
    /// Cost of the exchange with them.
    pub cost_usd: Option<f64>,
}

/// Usage of another model.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = OtherModel))]
pub struct OtherModelView {
    /// The model.
    pub model: String,
    /// Its tokens.
    pub tokens: TokensView,
    /// Their cost; null if the model has no price.
    pub cost_usd: Option<f64>,
}

/// End of an exchange.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Ended))]
pub struct TerminationView {
    /// The side that ended it: `complete`, `client`, `upstream`, `proxy`.
    pub by: &'static str,
    /// Phase in which it ended.
    pub phase: &'static str,
    /// Label of the reason.
    pub label: Option<&'static str>,
}

/// A page of exchanges.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Page {
    /// The exchanges: those in flight first, then newest first.
    pub items: Vec<Row>,
    /// Value of `before` for the next page, if there is one.
    pub next_before: Option<u64>,
    /// Number of exchanges that match the filters.
    pub total: usize,
}

/// One exchange, with the upstream's error text if it failed.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Detail {
    /// The exchange.
    #[serde(flatten)]
    pub row: Row,
    /// The fields of the request.
    pub request_fields: Vec<FieldView>,
    /// The fields of the upstream's response, once its head is here.
    pub response_fields: Vec<FieldView>,
    /// Error text of the upstream.
    pub error: Option<ErrorText>,
    /// Comparison of its content before and after the proxy's own code, if it was verified (`VERIFY`).
    pub verified: Option<VerifiedView>,
}

/// A field of a head.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Field))]
pub struct FieldView {
    /// Its name.
    pub name: String,
    /// Its value, if it is known to be no secret.
    pub value: Option<String>,
}

/// Content of an error as text, with everything masked that looks like a secret.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ErrorText {
    /// The text.
    pub content: String,
    /// True if the text was cut.
    pub truncated: bool,
}

/// Failures, grouped and listed.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Errors {
    /// The groups, largest first.
    pub groups: Vec<ErrorGroup>,
    /// The newest 100 of them, that which ended last (`ended_at`) first.
    pub items: Vec<Row>,
    /// Upper bound of kept failures.
    pub kept: usize,
    /// Begin of the known history: the start of the process, or the earliest end that it took over from an
    /// earlier process.
    pub since: u64,
}

/// Failures of one kind.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ErrorGroup {
    /// The status.
    pub status: Option<u16>,
    /// The type of the error, of the response.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The upstream.
    pub upstream: Option<String>,
    /// Termination source: `complete` if the response was complete, `client`, `upstream`, `proxy`.
    pub by: &'static str,
    /// True if the proxy itself sent the response.
    pub ours: bool,
    /// Label of the reason if it was not complete.
    pub label: Option<&'static str>,
    /// Number of failures.
    pub count: u64,
    /// The first one's end.
    pub first_at: u64,
    /// The last one's end.
    pub last_at: u64,
    /// The newest one that has content, else the newest.
    pub sample: Sample,
}

/// An example of an error.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Sample {
    /// The exchange.
    pub id: String,
    /// Error text of the upstream.
    pub content: Option<String>,
}

/// Usage and sessions of other replicas, as far as they are in the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SharedSums {
    /// True if the shared store was read. Else its sums are those of `read_at`, and this replica's are current.
    pub complete: bool,
    /// Time of the last reading of the shared store.
    pub read_at: u64,
}

/// Usage and cost of a model or a day.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct UsageRow {
    /// The day, the hour, the model, the id of the key, the user, the team or the session; empty for usage
    /// that has none.
    pub key: String,
    /// Begin of the day or hour, if rows are grouped by it.
    pub at: Option<u64>,
    /// The day of the proxy's time zone (`TZ`), if rows are grouped by it.
    pub day: Option<String>,
    /// The name of the key, if rows are grouped by keys.
    pub name: Option<String>,
    /// The model, if rows are grouped by it.
    pub model: Option<String>,
    /// Exchanges.
    pub requests: u64,
    /// Their tokens.
    pub tokens: TokensView,
    /// Share of the input that was read from a cache.
    pub cache_hit_share: f64,
    /// Their known cost: a lower bound if `cost_is_floor`.
    pub cost_usd: f64,
    /// True if they cost more than `cost_usd`: some of them have no price (`unpriced`), or were cut off
    /// (`at_least`).
    pub cost_is_floor: bool,
    /// True if some of them have no price.
    pub unpriced: bool,
    /// True if tokens and cost of some of them are a lower bound.
    pub at_least: bool,
    /// Their cost with an estimate for the streams that were cut off.
    pub cost_estimate_usd: f64,
    /// Number of exchanges without a price.
    pub unpriced_requests: u64,
}

/// Usage over time.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct UsageSeries {
    /// Width of a step: an hour, or a day of the proxy's time zone (`TZ`), which may be an hour longer or
    /// shorter.
    pub step_ms: u64,
    /// Begin of the step.
    pub t: Vec<u64>,
    /// The names with the highest cost, and `other`.
    pub lines: Vec<UsageLine>,
}

/// Usage of a name over time: columns of one length.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct UsageLine {
    /// The model, the id of the key, the user, the team or the session; empty for usage that has none.
    pub key: String,
    /// The name of the key.
    pub name: Option<String>,
    /// Exchanges.
    pub requests: Vec<u64>,
    /// Input of all kinds.
    pub tokens_in: Vec<u64>,
    /// Output.
    pub tokens_out: Vec<u64>,
    /// Cost.
    pub cost_usd: Vec<f64>,
}

/// Counts of an upstream since the process began.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct UpstreamRow {
    /// Name of the upstream: its URL, `URL #2` of several with the same, or `other`.
    pub name: String,
    /// Requests that were sent there, failed attempts included.
    pub requests: u64,
    /// Those that failed or were retried on another upstream; without those that the client ended.
    pub errors: u64,
    /// Responses with status 429.
    pub status_429: u64,
    /// Responses with status 529.
    pub status_529: u64,
    /// New connections.
    pub connects: u64,
    /// Attempts without a connection.
    pub connect_failures: u64,
    /// Durations of connecting.
    pub connect_ms: Pair,
    /// Durations from the connection to the response head.
    pub head_ms: Pair,
    /// Its rate-limit fields as seen last.
    pub rate_limit: Vec<RateLimit>,
}

/// Two quantiles; null without values.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Pair {
    /// Half of them are not above.
    pub p50: Option<f64>,
    /// 95 % of them are not above.
    pub p95: Option<f64>,
}

/// A rate-limit field.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct RateLimit {
    /// Its name without `anthropic-ratelimit-`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Time at which it was seen.
    pub at: u64,
}

/// Changes of a second.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Tick))]
pub struct TickView {
    /// Time of the tick.
    pub now: u64,
    /// Exchanges in flight.
    pub in_flight: usize,
    /// Exchanges a second, over the last five.
    pub requests_per_second: f64,
    /// Share that failed, over the last five seconds.
    pub error_rate: f64,
    /// Tokens of output a second, over the last five.
    pub tokens_per_second: f64,
    /// Exchanges that began, got a response head or ended since the last tick, at most 100.
    pub rows: Vec<Row>,
    /// Number of exchanges beyond those.
    pub dropped: usize,
    /// Progress of exchanges in flight that changed, among the newest 200.
    pub running: Vec<RunningView>,
}

/// Progress of an exchange in flight.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Running))]
pub struct RunningView {
    /// Its number.
    pub seq: u64,
    /// Its request id.
    pub id: String,
    /// The current upstream.
    pub upstream: Option<String>,
    /// Bytes of the request's content so far.
    pub bytes_in: u64,
    /// Bytes of the response's content so far.
    pub bytes_out: u64,
    /// Time until the first token.
    pub ttft_ms: Option<f64>,
    /// Time since its beginning.
    pub duration_ms: f64,
    /// Tokens that the upstream has reported so far.
    pub tokens: TokensView,
    /// Events with a piece of output (`content_block_delta`) so far.
    pub output_events: u64,
    /// True if an operator has asked for its end.
    pub ending: bool,
}
