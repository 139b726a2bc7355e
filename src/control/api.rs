//! The data of the API: each handler reads what is asked, and shows what others keep. What may be much is
//! composed beside the workers, which carry streams.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;

#[cfg(test)]
use super::problem::{ProblemDocument, ProblemResponses};
use super::{
    problem::Problem,
    query::{
        NoParams, RangeParams, RequestParams, SessionKeyParams, SessionParams, UsageParams,
        UsageQuery, read,
    },
    state::AdminState,
};
#[cfg(test)]
use crate::telemetry::activity::session_view;
use crate::{
    config::{Endpoint, HttpVersion, prices::NOT_PRICED},
    telemetry::activity::{Dimension, Range, UsageBy, unix_millis, view},
    telemetry::metrics::Format,
    upstream::circuit::{CircuitState, THRESHOLD},
};

type ApiResult<T> = Result<web::Json<T>, Problem>;

/// Current activity, and totals of a span of time.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Overview))]
pub(super) struct OverviewReport {
    #[serde(flatten)]
    activity: view::ActivityOverview,
    /// The version of this program.
    version: &'static str,
    /// Names this run of the process.
    boot_id: String,
    /// Time of the start.
    started_at: u64,
    /// Uptime.
    uptime_ms: u64,
    /// Connections that are open.
    connections: usize,
    /// True if replicas share a store (`STATE_URL`): `/replicas` has all of them, this answer is this one's.
    shared: bool,
    /// The date of the prices.
    prices_date: String,
    /// The proxy's time zone (`TZ`).
    #[cfg_attr(test, schema(example = "Europe/Berlin"))]
    zone: String,
    /// Configured upstreams.
    upstreams: Vec<UpstreamState>,
    /// Reloads of the configuration within the range.
    reloads: Vec<view::ReloadView>,
}

/// An upstream, and whether requests go there.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct UpstreamState {
    /// Its name: its URL, or `URL #2` of several with the same.
    name: String,
    /// Its URL.
    url: String,
    #[serde(flatten)]
    health: Health,
}

/// Health of an upstream.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct Health {
    /// State of its circuit.
    circuit: CircuitStatus,
    /// Requests in a row that failed since the last success, while it is `failing`.
    failures: u32,
    /// Failures in a row that open the circuit.
    failures_to_open: u32,
}

/// State of an upstream's circuit.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, schema(as = Circuit))]
enum CircuitStatus {
    /// Requests go there, but none was sent yet: its health is not known.
    Unknown,
    /// Requests go there, and the last one succeeded.
    Closed,
    /// Requests go there, and the last ones failed.
    Failing,
    /// No requests go there.
    Open,
    /// The next request probes it.
    HalfOpen,
}

impl From<CircuitState> for Health {
    fn from(state: CircuitState) -> Self {
        let (circuit, failures) = match state {
            CircuitState::Unknown => (CircuitStatus::Unknown, 0),
            CircuitState::Closed => (CircuitStatus::Closed, 0),
            CircuitState::Failing(failures) => (CircuitStatus::Failing, failures),
            CircuitState::Open => (CircuitStatus::Open, 0),
            CircuitState::HalfOpen => (CircuitStatus::HalfOpen, 0),
        };
        Self {
            circuit,
            failures,
            failures_to_open: THRESHOLD,
        }
    }
}

/// Usage: tokens and cost.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Usage))]
pub(super) struct UsageReport {
    /// By model, by time, or by whose it is.
    rows: Vec<view::UsageRow>,
    /// The proxy's time zone (`TZ`), of days whose hours are not kept any more.
    #[cfg_attr(test, schema(example = "Europe/Berlin"))]
    zone: String,
    /// The date of the prices.
    prices_date: String,
    /// Other replicas' part in the sums; null where there is no shared store (`STATE_URL`).
    shared: Option<view::SharedSums>,
    /// Charges that are in no sum: `regional_premium` (of Bedrock and Vertex), `priority_tier`,
    /// `code_execution_time`.
    not_priced: Vec<&'static str>,
}

/// Configured upstreams.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Upstreams))]
pub(super) struct UpstreamList {
    /// In order of preference.
    items: Vec<UpstreamDetails>,
}

/// An upstream.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = Upstream))]
struct UpstreamDetails {
    /// Its URL.
    url: String,
    #[serde(flatten)]
    health: Health,
    /// The version of HTTP that is spoken.
    #[cfg_attr(test, schema(example = "1.1"))]
    http: &'static str,
    /// True if the proxy sends it a key of its own.
    own_key: bool,
    /// Connections that wait for a request.
    idle_connections: usize,
    #[serde(flatten)]
    seen: view::UpstreamRow,
}

/// Current activity, and totals of a span of time.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/overview",
    tag = "activity",
    params(RangeParams),
    responses(
        (status = 200, body = OverviewReport),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn overview(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let range = RangeParams::read(&request)?;
    composed(&plane, move |plane| plane.overview(range)).await
}

/// The last exchanges, newest first; those in flight before them.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/requests",
    tag = "activity",
    params(RequestParams),
    responses(
        (status = 200, body = view::Page),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn requests(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let filter = RequestParams::read(&request)?;
    composed(&plane, move |plane| {
        Ok(plane.view()?.requests(&filter, SystemTime::now())?)
    })
    .await
}

/// One exchange, with what the upstream said if it failed.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/requests/{id}",
    tag = "activity",
    params(("id" = String, Path, description = "its name, as `request-id` had it",
            example = "req_000000000000000000000000")),
    responses(
        (status = 200, body = view::Detail),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        (status = 404, description = "not among the last ones", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn request(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> ApiResult<view::Detail> {
    let NoParams {} = read(&request)?;
    let id = request.match_info().query("id");
    let found = plane.view()?.request(id, SystemTime::now());
    found.map(web::Json).ok_or(Problem::NotFound)
}

/// The failures of a span of time, grouped.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/errors",
    tag = "activity",
    params(RangeParams),
    responses(
        (status = 200, body = view::Errors),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn errors(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let range = RangeParams::read(&request)?;
    composed(&plane, move |plane| {
        Ok(plane.view()?.errors(range, SystemTime::now()))
    })
    .await
}

/// Tokens and cost, by model, time, key, user, team or session.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/usage",
    tag = "usage",
    params(UsageParams),
    responses(
        (status = 200, body = UsageReport),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn usage(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let asked = UsageParams::read(&request)?;
    composed(&plane, move |plane| plane.usage(&asked)).await
}

/// Tokens and cost as a file of comma-separated values (RFC 4180).
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/usage.csv",
    tag = "usage",
    params(UsageParams),
    responses(
        (status = 200, body = String, content_type = "text/csv"),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn usage_csv(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let asked = UsageParams::read(&request)?;
    let name = attachment(&asked.name, "csv");
    let text = aside(&plane, move |plane| {
        Ok(csv(&plane.usage(&asked)?.rows, asked.by))
    })
    .await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/csv; charset=utf-8"))
        .insert_header((header::CONTENT_DISPOSITION, name))
        .body(text))
}

/// Tokens and cost as a file.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/usage.json",
    tag = "usage",
    params(UsageParams),
    responses(
        (status = 200, body = UsageReport),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn usage_json(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let asked = UsageParams::read(&request)?;
    let name = header::HeaderValue::try_from(attachment(&asked.name, "json"));
    let mut response = composed(&plane, move |plane| plane.usage(&asked)).await?;
    if let Ok(name) = name {
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Tokens and cost over time, by model, key, user, team or session.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/usage/series",
    tag = "usage",
    params(UsageParams),
    responses(
        (status = 200, body = view::UsageSeries),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn usage_series(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let asked = UsageParams::read(&request)?;
    composed(&plane, move |plane| {
        Ok(plane
            .view()?
            .usage_series(asked.range, asked.by, SystemTime::now()))
    })
    .await
}

/// Sessions of Claude Code, the last 90 days of them.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/sessions",
    tag = "sessions",
    params(SessionParams),
    responses(
        (status = 200, body = session_view::SessionPage),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn sessions(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let filter = SessionParams::read(&request)?;
    composed(&plane, move |plane| Ok(plane.view()?.sessions(&filter)?)).await
}

/// One session, with its agents, its cache breaks and its last requests.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/sessions/{id}",
    tag = "sessions",
    params(
        ("id" = String, Path, description = "its id, as the client says it"),
        SessionKeyParams,
    ),
    responses(
        (status = 200, body = session_view::SessionDetail),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        (status = 404, description = "no session of this id is kept", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn session(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let key = SessionKeyParams::read(&request)?;
    let id = request.match_info().query("id").to_owned();
    composed(&plane, move |plane| {
        let found = plane.view()?.session(&id, key.as_deref());
        found.ok_or(Problem::NotFound)
    })
    .await
}

/// Upstreams, with their health and their traffic since the process began.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/admin/api/v1/upstreams",
    tag = "activity",
    responses(
        (status = 200, body = UpstreamList),
        (status = 400, description = "a query that cannot be read", body = ProblemDocument),
        ProblemResponses,
    )
))]
pub(super) async fn upstreams(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> ApiResult<UpstreamList> {
    let NoParams {} = read(&request)?;
    let seen = plane.view()?.upstreams();
    let items = plane.circuits().map(|(endpoint, health, idle)| {
        let name = endpoint.name.as_ref();
        UpstreamDetails {
            url: endpoint.upstream.to_string(),
            health,
            http: match endpoint.http {
                HttpVersion::Http11 => "1.1",
                HttpVersion::Http2 => "2",
                HttpVersion::Auto => "auto",
            },
            own_key: endpoint.credential.is_some(),
            idle_connections: idle,
            seen: seen
                .iter()
                .find(|row| row.name == name)
                .cloned()
                .unwrap_or_else(|| unseen(name)),
        }
    });
    Ok(web::Json(UpstreamList {
        items: items.collect(),
    }))
}

/// The metrics of this moment: OpenMetrics where `Accept` names it, else Prometheus' text format 0.0.4.
///
/// Without a key where `METRICS_PUBLIC` says so, and on `ADMIN_LISTEN`. Where requests are forwarded,
/// methods other than GET and HEAD are forwarded here, too.
#[cfg_attr(test, utoipa::path(
    get,
    path = "/metrics",
    tag = "metrics",
    responses(
        (status = 200, content(
            (String = "text/plain"),
            (String = "application/openmetrics-text"),
        )),
        ProblemResponses,
    )
))]
pub(super) async fn metrics(
    plane: web::ThinData<Arc<AdminState>>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let accept = request.headers().get_all(header::ACCEPT);
    // several fields are one list (RFC 9110 §5.3)
    let accept: Vec<&[u8]> = accept.map(|value| value.as_bytes()).collect();
    let format = Format::of(&accept.join(&b','));
    let text = aside(&plane, move |plane| Ok((plane.sources.exposition)(format)));
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, format.content_type()))
        .insert_header((header::VARY, "accept"))
        .body(text.await?))
}

/// Answers with what is composed beside the workers, as JSON.
async fn composed<T: Serialize>(
    plane: &Arc<AdminState>,
    compose: impl FnOnce(&AdminState) -> Result<T, Problem> + Send + 'static,
) -> Result<HttpResponse, Problem> {
    let content = aside(plane, move |plane| {
        serde_json::to_vec(&compose(plane)?)
            .map_err(|_| Problem::Unavailable("the answer could not be written"))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(content.await?))
}

async fn aside<T: Send + 'static>(
    plane: &Arc<AdminState>,
    work: impl FnOnce(&AdminState) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let own = Arc::clone(plane);
    plane.aside.run(move || work(&own)).await?
}

impl AdminState {
    fn overview(&self, range: Range) -> Result<OverviewReport, Problem> {
        let (sources, now) = (&self.sources, SystemTime::now());
        let mut activity = self.view()?.overview(range, now);
        activity.in_flight = sources.limits.in_flight();
        let since = now - Duration::from_secs(range.seconds());
        let upstreams = self.circuits();
        Ok(OverviewReport {
            activity,
            version: env!("CARGO_PKG_VERSION"),
            boot_id: sources.boot_id.clone(),
            started_at: unix_millis(sources.started),
            uptime_ms: unix_millis(now).saturating_sub(unix_millis(sources.started)),
            connections: sources.limits.connections(),
            shared: self.view()?.shared_sums().is_some(),
            prices_date: self.prices_date(),
            zone: self.view()?.zone(),
            upstreams: upstreams
                .map(|(endpoint, health, _)| UpstreamState {
                    name: endpoint.name.to_string(),
                    url: endpoint.upstream.to_string(),
                    health,
                })
                .collect(),
            reloads: self.reloads(since),
        })
    }

    fn prices_date(&self) -> String {
        self.sources.live.load().prices.date.to_string()
    }

    fn usage(&self, asked: &UsageQuery) -> Result<UsageReport, Problem> {
        let view = self.view()?;
        Ok(UsageReport {
            rows: view.usage(asked.range, asked.by, SystemTime::now()),
            zone: view.zone(),
            prices_date: self.prices_date(),
            shared: view.shared_sums(),
            not_priced: NOT_PRICED.to_vec(),
        })
    }

    fn circuits(&self) -> impl Iterator<Item = (Endpoint, Health, usize)> + use<> {
        let endpoints = Arc::clone(&self.sources.live.load().endpoints);
        let idle = self.sources.balance.idle(&endpoints);
        let states = self.sources.balance.states(&endpoints);
        (0..endpoints.len()).map(move |at| {
            let state = states.get(at).copied().unwrap_or(CircuitState::Unknown);
            (endpoints[at].clone(), state.into(), idle[at].load(Relaxed))
        })
    }

    fn reloads(&self, since: SystemTime) -> Vec<view::ReloadView> {
        let standing = self.sources.standing.load();
        let reloads = standing.reloads.iter().filter(|reload| reload.at >= since);
        reloads
            .map(|reload| view::ReloadView {
                at: unix_millis(reload.at),
                ok: reload.faults.is_empty(),
                what: match reload.faults.first() {
                    Some(fault) => fault.clone(),
                    None => reload.changed.join(", "),
                },
            })
            .collect()
    }
}

/// An upstream that nothing was sent to.
fn unseen(name: &str) -> view::UpstreamRow {
    view::UpstreamRow {
        name: name.to_owned(),
        requests: 0,
        errors: 0,
        status_429: 0,
        status_529: 0,
        connects: 0,
        connect_failures: 0,
        connect_ms: view::Pair::default(),
        head_ms: view::Pair::default(),
        rate_limit: Vec::new(),
    }
}

fn attachment(name: &str, extension: &str) -> String {
    format!("attachment; filename=\"{name}.{extension}\"")
}

fn csv(rows: &[view::UsageRow], by: UsageBy) -> String {
    let key = match by {
        UsageBy::Of(Dimension::Key) => "key,name",
        UsageBy::Model | UsageBy::Day | UsageBy::Hour | UsageBy::Of(_) => "key",
        UsageBy::ModelDay => "day,model",
    };
    let mut text = format!(
        "{key},requests,input,output,cache_read,cache_write_5m,cache_write_1h,cache_hit_share,\
         cost_usd,unpriced,at_least,cost_estimate_usd,cost_is_floor,unpriced_requests\r\n",
    );
    for row in rows {
        let tokens = &row.tokens;
        let key = match (&row.day, &row.model) {
            (Some(day), Some(model)) => format!("{},{}", quoted(day), quoted(model)),
            _ if by == UsageBy::Of(Dimension::Key) => {
                let name = row.name.as_deref().unwrap_or_default();
                format!("{},{}", quoted(&row.key), quoted(name))
            }
            _ => quoted(&row.key),
        };
        text += &format!(
            "{key},{},{},{},{},{},{},{},{},{},{},{},{},{}\r\n",
            row.requests,
            tokens.input,
            tokens.output,
            tokens.cache_read,
            tokens.cache_write_5m,
            tokens.cache_write_1h,
            row.cache_hit_share,
            row.cost_usd,
            row.unpriced,
            row.at_least,
            row.cost_estimate_usd,
            row.cost_is_floor,
            row.unpriced_requests,
        );
    }
    text
}

/// A text that is one value. Clients choose a model's name: a spreadsheet must not take it for a
/// formula, whatever blanks it skips before one and whichever width its sign has.
fn quoted(text: &str) -> String {
    let is_skipped = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}')
    };
    let is_formula = text.starts_with(['\t', '\r', '\n'])
        || text.trim_start_matches(is_skipped).starts_with(FORMULA);
    let guard = if is_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

/// Signs that begin a formula, of either width.
const FORMULA: [char; 10] = ['=', '+', '-', '@', '|', '＝', '＋', '－', '＠', '−'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grouping_is_guarded() {
        let row = |day: Option<&str>, model: Option<&str>| view::UsageRow {
            key: "\u{a0}=1".into(),
            at: None,
            name: None,
            day: day.map(str::to_owned),
            model: model.map(str::to_owned),
            requests: 1,
            tokens: view::TokensView::default(),
            cache_hit_share: 0.0,
            cost_usd: 0.0,
            unpriced: false,
            unpriced_requests: 0,
            cost_is_floor: false,
            at_least: false,
            cost_estimate_usd: 0.0,
        };
        for (by, row) in [
            (UsageBy::Model, row(None, Some("\u{a0}=1"))),
            (UsageBy::Day, row(Some("\u{a0}=1"), None)),
            (UsageBy::Of(Dimension::Key), row(None, None)),
            (UsageBy::Of(Dimension::Team), row(None, None)),
            (UsageBy::ModelDay, row(Some("2026-11-28"), Some("\u{a0}=1"))),
        ] {
            let text = csv(&[row], by);
            assert!(text.contains("\"'\u{a0}=1\""), "{text}");
            assert!(!text.contains("\"\u{a0}"), "{text}");
        }
    }

    #[test]
    fn values_of_a_file_are_quoted_and_no_formulas() {
        for (text, expected) in [
            ("claude-x", "\"claude-x\""),
            ("a\"b,c\r\n", "\"a\"\"b,c\r\n\""),
            ("=1+1", "\"'=1+1\""),
            ("@x", "\"'@x\""),
            ("  =1+1", "\"'  =1+1\""),
            ("\u{a0}=1", "\"'\u{a0}=1\""),
            ("\u{feff}=1", "\"'\u{feff}=1\""),
            (
                "\u{feff} \u{3000}\u{ff1d}1",
                "\"'\u{feff} \u{3000}\u{ff1d}1\"",
            ),
            ("\u{200b}@x", "\"'\u{200b}@x\""),
            ("\u{ff0b}1", "\"'\u{ff0b}1\""),
            ("\tx", "\"'\tx\""),
            ("a=1", "\"a=1\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
