//! Query parameters of the API. Unknown ones are refused.

use actix_web::{HttpRequest, web};
use serde::{Deserialize, de::DeserializeOwned};

use super::problem::Problem;
use crate::telemetry::activity::{
    Filter, InvalidFilter, Range, SessionFilter, SessionSort, StatusFilter, UsageBy, UsageRange,
};

#[cfg(test)]
pub(super) mod schemas;

/// A span of time that ends now.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct RangeParams {
    #[cfg_attr(test, param(schema_with = schemas::ranges))]
    range: Option<String>,
}

impl RangeParams {
    pub(super) fn read(request: &HttpRequest) -> Result<Range, Problem> {
        let Self { range } = read(request)?;
        let range = range.as_deref().unwrap_or("15m");
        Range::parse(range).ok_or(Problem::BadRange(RANGES))
    }
}

/// A span of time that ends now, and what is listed.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct UsageParams {
    #[cfg_attr(test, param(schema_with = schemas::usage_ranges))]
    range: Option<String>,
    #[cfg_attr(test, param(schema_with = schemas::rows))]
    by: Option<String>,
    /// In place of `range`: the begin of the span, in Unix milliseconds.
    #[cfg_attr(test, param(maximum = 9007199254740991_u64))]
    since: Option<u64>,
    /// In place of `range`: the end of the span, in Unix milliseconds; now if it is not given.
    #[cfg_attr(test, param(maximum = 9007199254740991_u64))]
    until: Option<u64>,
}

/// Usage as it is asked for.
pub(super) struct UsageQuery {
    pub(super) range: UsageRange,
    pub(super) by: UsageBy,
    /// A name for a file.
    pub(super) name: String,
}

impl UsageParams {
    pub(super) fn read(request: &HttpRequest) -> Result<UsageQuery, Problem> {
        let Self {
            range,
            by,
            since,
            until,
        } = read(request)?;
        let by = match by.as_deref() {
            None => UsageBy::Model,
            Some(by) => UsageBy::parse(by).ok_or_else(|| {
                Problem::BadFilter(format!("by is not one of {GROUPINGS}").into())
            })?,
        };
        let range = range.as_deref().unwrap_or("24h");
        let named = UsageRange::parse(range).ok_or(Problem::BadRange(USAGE_RANGES))?;
        let (range, name) = match (since, until) {
            (None, None) => (named, range),
            (since, until) => (between(since, until)?, "range"),
        };
        Ok(UsageQuery {
            range,
            by,
            name: format!("usage-{name}-by-{}", by.label()),
        })
    }
}

/// A span between two moments in milliseconds: from the beginning and up to now where they are not given.
fn between(since: Option<u64>, until: Option<u64>) -> Result<UsageRange, Problem> {
    in_range([("since", since), ("until", until)])?;
    let (since, until) = (since.unwrap_or_default(), until.unwrap_or(LARGEST));
    Ok(UsageRange::Between(since / 1000, until.div_ceil(1000)))
}

/// Filter on sessions, their order, and the page of them. Texts match anywhere, in any case.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct SessionParams {
    /// Rows of a page; 100 if it is not given.
    #[cfg_attr(test, param(minimum = 1, maximum = 1000))]
    limit: Option<usize>,
    /// `next_offset` of the page before.
    #[cfg_attr(test, param(maximum = 1000000))]
    offset: Option<usize>,
    /// The id of the session.
    #[cfg_attr(test, param(max_length = 256))]
    session: Option<String>,
    /// The id or the name of the key.
    #[cfg_attr(test, param(max_length = 256))]
    key: Option<String>,
    /// The user.
    #[cfg_attr(test, param(max_length = 256))]
    user: Option<String>,
    /// The team.
    #[cfg_attr(test, param(max_length = 256))]
    team: Option<String>,
    /// Used at this moment or later, in Unix milliseconds.
    #[cfg_attr(test, param(maximum = 9007199254740991_u64))]
    since: Option<u64>,
    /// Begun before this moment, in Unix milliseconds.
    #[cfg_attr(test, param(maximum = 9007199254740991_u64))]
    until: Option<u64>,
    /// Any of these, a model, or an agent.
    #[cfg_attr(test, param(max_length = 256))]
    q: Option<String>,
    #[cfg_attr(test, param(schema_with = schemas::session_orders))]
    sort: Option<String>,
    #[cfg_attr(test, param(schema_with = schemas::directions))]
    order: Option<String>,
}

impl SessionParams {
    pub(super) fn read(request: &HttpRequest) -> Result<SessionFilter, Problem> {
        let this: Self = read(request)?;
        in_range([("since", this.since), ("until", this.until)])?;
        let sort = match this.sort {
            None => SessionSort::default(),
            Some(text) => SessionSort::parse(&text)
                .ok_or_else(|| Problem::BadFilter(format!("sort is not one of {ORDERS}").into()))?,
        };
        let is_ascending = match this.order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(Problem::BadFilter("order is not one of desc, asc".into())),
        };
        if this.offset.is_some_and(|offset| offset > MOST_ROWS) {
            return Err(Problem::BadFilter("offset is out of range".into()));
        }
        let filter = SessionFilter {
            limit: this.limit,
            offset: this.offset.unwrap_or_default(),
            session: said(this.session),
            key: said(this.key),
            user: said(this.user),
            team: said(this.team),
            since: this.since,
            until: this.until,
            q: said(this.q),
            sort,
            is_ascending,
        };
        filter.check()?;
        Ok(filter)
    }
}

/// The key of a session, where two keys have one of this name.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct SessionKeyParams {
    /// The id of the key, empty for none; that of the session used last if it is not given.
    #[cfg_attr(test, param(max_length = 256))]
    key: Option<String>,
}

impl SessionKeyParams {
    pub(super) fn read(request: &HttpRequest) -> Result<Option<String>, Problem> {
        let Self { key } = read(request)?;
        // an empty one is the session of no key
        let is_empty = key.as_ref().is_some_and(String::is_empty);
        Ok(text("key", key)?.or(is_empty.then(String::new)))
    }
}

/// Filter on exchanges, and the page of them. Texts match anywhere, in any case.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub(super) struct RequestParams {
    /// Rows of a page; 200 if it is not given.
    #[cfg_attr(test, param(minimum = 1, maximum = 1000))]
    limit: Option<usize>,
    /// `next_before` of the page before.
    #[cfg_attr(test, param(maximum = 9007199254740991_u64))]
    before: Option<u64>,
    #[cfg_attr(test, param(schema_with = schemas::statuses))]
    status: Option<String>,
    /// The method.
    #[cfg_attr(test, param(max_length = 256))]
    method: Option<String>,
    /// The path.
    #[cfg_attr(test, param(max_length = 256))]
    path: Option<String>,
    /// The model.
    #[cfg_attr(test, param(max_length = 256))]
    model: Option<String>,
    /// Claude Code's session.
    #[cfg_attr(test, param(max_length = 256))]
    session: Option<String>,
    /// The upstream.
    #[cfg_attr(test, param(max_length = 256))]
    upstream: Option<String>,
    /// The client's own name, `User-Agent`.
    #[cfg_attr(test, param(max_length = 256))]
    user_agent: Option<String>,
    /// Begun at this moment or later, in Unix milliseconds.
    #[cfg_attr(test, param(maximum = 9007199254740991_u64))]
    since: Option<u64>,
    /// Begun before this moment, in Unix milliseconds.
    #[cfg_attr(test, param(maximum = 9007199254740991_u64))]
    until: Option<u64>,
    /// Any of these, or the names of the exchange.
    #[cfg_attr(test, param(max_length = 256))]
    q: Option<String>,
}

impl RequestParams {
    pub(super) fn read(request: &HttpRequest) -> Result<Filter, Problem> {
        let this: Self = read(request)?;
        let status = match said(this.status) {
            Some(text) => Some(StatusFilter::parse(&text).ok_or(Problem::BadFilter(
                "status is no status of three digits and not one of 1xx, 2xx, 3xx, 4xx, 5xx, pending, \
                 succeeded, failed, canceled, aborted"
                    .into(),
            ))?),
            None => None,
        };
        in_range([
            ("before", this.before),
            ("since", this.since),
            ("until", this.until),
        ])?;
        let filter = Filter {
            limit: this.limit,
            before: this.before,
            status,
            method: said(this.method),
            path: said(this.path),
            model: said(this.model),
            session: said(this.session),
            upstream: said(this.upstream),
            user_agent: said(this.user_agent),
            since: this.since,
            until: this.until,
            q: said(this.q),
        };
        filter.check()?;
        Ok(filter)
    }
}

impl From<InvalidFilter> for Problem {
    fn from(bad: InvalidFilter) -> Self {
        Self::BadFilter(bad.to_string().into())
    }
}

/// A query without parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

/// Reads a query as a whole: what is unknown, said twice, or no number where one is wanted is refused.
pub(super) fn read<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    let read = web::Query::<T>::from_query(request.query_string());
    read.map(web::Query::into_inner).map_err(|cause| {
        let cause = cause.to_string();
        // serde repeats what it was given
        let cause: String = cause.chars().take(200).collect();
        Problem::BadRequest(format!("the query cannot be read: {cause}").into())
    })
}

/// The text of a parameter: an empty one is none, and a long one is refused.
pub(super) fn text(name: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let text = said(text);
    match &text {
        Some(long) if long.chars().count() > LONGEST => {
            Err(Problem::BadFilter(format!("{name} is too long").into()))
        }
        _ => Ok(text),
    }
}

/// The text of a parameter that is not empty.
fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Refuses moments and places that no number of JavaScript is.
fn in_range<const N: usize>(numbers: [(&str, Option<u64>); N]) -> Result<(), Problem> {
    let is_beyond = |(_, number): &&(&str, Option<u64>)| number.is_some_and(|it| it > LARGEST);
    match numbers.iter().find(is_beyond) {
        Some((name, _)) => Err(Problem::BadFilter(format!("{name} is out of range").into())),
        None => Ok(()),
    }
}

/// The largest number that JavaScript tells from its neighbours.
const LARGEST: u64 = (1 << 53) - 1;

const RANGES: &str = "5m, 15m, 1h, 6h, 24h, 7d";
/// The largest offset of a page.
const MOST_ROWS: usize = 1_000_000;
/// Characters of a text.
const LONGEST: usize = 256;

const GROUPINGS: &str = "model, day, model_day, hour, key, user, team, session";
const ORDERS: &str =
    "last, first, duration, requests, errors, tokens, cost, cache_hit_share, cache_breaks";
const USAGE_RANGES: &str = "1h, 6h, 24h, 7d, 30d, 90d, 365d";

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn asking(query: &str) -> HttpRequest {
        let uri = format!("/admin/api/v1/requests?{query}");
        TestRequest::with_uri(&uri).to_http_request()
    }

    #[test]
    fn a_range_is_one_of_those() {
        for (query, expected) in [
            ("", Ok("15m")),
            ("range=7d", Ok("7d")),
            ("range=", Err("bad_range")),
            ("range=8d", Err("bad_range")),
            ("range=7D", Err("bad_range")),
            ("range=7d&range=7d", Err("bad_request")),
            ("rang=7d", Err("bad_request")),
        ] {
            let found = RangeParams::read(&asking(query));
            let found = found.as_ref().map(|it| it.label()).map_err(|it| it.code());
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn filters_are_bounded_and_known() {
        let long = "x".repeat(257);
        for (query, expected) in [
            ("limit=1&before=7&status=2xx&q=%20&path=/v1", Ok(())),
            ("status=&model=&q=", Ok(())),
            ("limit=1000", Ok(())),
            ("limit=0", Err("bad_filter")),
            ("limit=1001", Err("bad_filter")),
            ("limit=-1", Err("bad_request")),
            ("limit=x", Err("bad_request")),
            ("before=1.5", Err("bad_request")),
            ("before=9007199254740991", Ok(())),
            ("before=9007199254740992", Err("bad_filter")),
            ("status=404&since=1&until=2&user_agent=claude-cli", Ok(())),
            ("status=failed", Ok(())),
            ("status=canceled", Ok(())),
            ("status=6xx", Err("bad_filter")),
            ("status=099", Err("bad_filter")),
            ("status=2000", Err("bad_filter")),
            ("status=%2B20", Err("bad_filter")),
            ("since=9007199254740992", Err("bad_filter")),
            ("until=x", Err("bad_request")),
            ("sort=at", Err("bad_request")),
            (&format!("model={long}"), Err("bad_filter")),
            (&format!("q={}", &long[1..]), Ok(())),
        ] {
            let found = RequestParams::read(&asking(query)).map(drop);
            assert_eq!(found.map_err(|it| it.code()), expected, "{query}");
        }
    }

    #[test]
    fn usage_is_by_model_or_day() {
        let found = UsageParams::read(&asking("range=90d&by=day")).ok().unwrap();
        assert_eq!(
            (found.by, found.name.as_str()),
            (UsageBy::Day, "usage-90d-by-day")
        );
        let found = UsageParams::read(&asking("since=7000&until=9000&by=team"));
        let found = found.ok().unwrap();
        assert_eq!(found.range, UsageRange::Between(7, 9));
        for (query, code) in [
            ("range=5m", "bad_range"),
            ("by=keys", "bad_filter"),
            ("range=8d&since=1", "bad_range"),
            ("since=9007199254740992", "bad_filter"),
        ] {
            let found = UsageParams::read(&asking(query)).err().unwrap();
            assert_eq!(found.code(), code, "{query}");
        }
    }
}
