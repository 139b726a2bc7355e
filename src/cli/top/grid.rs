//! Rows of each view as texts, for the terminal and for a page of text.

use super::{
    rates::TokenRates,
    snapshot::{ShownBudget, ShownLimit, ShownRequest, ShownSession, ShownUpstream},
    tone::{Tone, TonedText, cache, circuit, count, duration, health, or_dash, percent, usd, used},
};

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Its width on a terminal; 0 takes what is left.
    pub(super) width: u16,
    /// True for numbers, which are aligned to the right.
    pub(super) is_number: bool,
}

/// A row, and the name by which it is found again in another look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GridRow {
    pub(super) name: String,
    pub(super) cells: Vec<TonedText>,
    /// Facts of its detail.
    pub(super) facts: Vec<(&'static str, String)>,
}

const fn text(name: &'static str, width: u16) -> Column {
    Column {
        name,
        width,
        is_number: false,
    }
}

const fn number(name: &'static str, width: u16) -> Column {
    Column {
        name,
        width,
        is_number: true,
    }
}

/// Columns of requests: 80 characters with a blank between two.
pub(super) const REQUESTS: &[Column] = &[
    number("AGE", 6),
    text("MODEL", 0),
    text("WHO", 14),
    text("SESSION", 8),
    number("IN", 6),
    number("OUT", 6),
    number("TOK/S", 6),
    number("TTFT", 6),
];

pub(super) const SESSIONS: &[Column] = &[
    text("SESSION", 8),
    text("WHO", 12),
    text("MODEL", 0),
    number("REQ", 5),
    number("ERR", 4),
    number("CACHE", 5),
    number("BREAKS", 6),
    number("COST", 9),
    number("LAST", 6),
];

pub(super) const UPSTREAMS: &[Column] = &[
    text("UPSTREAM", 0),
    text("HEALTH", 13),
    number("REQ", 6),
    number("ERR", 6),
    number("429", 5),
    number("529", 5),
    number("HEAD50", 6),
    number("HEAD95", 6),
];

pub(super) const BUDGETS: &[Column] = &[
    text("SUBJECT", 0),
    text("PERIOD", 6),
    number("SPENT", 9),
    number("HELD", 8),
    number("OF", 9),
    number("LEFT", 9),
    number("USED", 5),
    number("FORECAST", 9),
];

/// Columns of rates and exchanges at once.
pub(super) const LIMITS: &[Column] = &[
    text("SUBJECT", 0),
    text("LIMIT", 17),
    number("IN USE", 8),
    number("OF", 8),
    number("LEFT", 8),
    number("USED", 5),
    number("WAIT", 5),
];

pub(super) fn requests(rows: &[ShownRequest], rates: &TokenRates) -> Vec<GridRow> {
    let row = |row: &ShownRequest| {
        let rate = rates.of(row.seq);
        let speed = match (row.ending, rate) {
            (true, _) => TonedText::toned("ending", Tone::Warning),
            (_, Some(rate)) => TonedText::plain(format!("{rate:.0}")),
            (_, None) => TonedText::toned("-", Tone::Faint),
        };
        let what = match &row.model {
            Some(model) => model.clone(),
            None => format!("{} {}", row.method, row.path),
        };
        GridRow {
            name: row.id.clone(),
            cells: vec![
                TonedText::plain(duration(row.duration_ms)),
                TonedText::plain(&what),
                TonedText::plain(row.who()),
                TonedText::toned(short(or_dash(row.session.as_ref())), Tone::Faint),
                TonedText::plain(count(row.input())),
                TonedText::plain(count(row.output())),
                speed,
                TonedText::plain(row.ttft_ms.map_or("-".to_owned(), duration)),
            ],
            facts: request_facts(row, rate),
        }
    };
    rows.iter().map(row).collect()
}

fn request_facts(row: &ShownRequest, rate: Option<f64>) -> Vec<(&'static str, String)> {
    let text = |text: &Option<String>| or_dash(text.as_ref()).to_owned();
    let tokens = row.tokens.clone().unwrap_or_default();
    let mut facts = vec![
        ("request", row.id.clone()),
        ("what", format!("{} {}", row.method, row.path)),
        ("model", text(&row.model)),
        ("upstream", text(&row.upstream)),
        (
            "status",
            row.status
                .map_or("no response head yet".to_owned(), |it| it.to_string()),
        ),
        (
            "key, user, team",
            [&row.key_name, &row.user, &row.team].map(text).join(", "),
        ),
        (
            "client",
            format!("{}  {}", text(&row.client), text(&row.user_agent)),
        ),
        ("session", text(&row.session)),
        ("subagent", text(&row.agent)),
        ("age", duration(row.duration_ms)),
        ("first token", row.ttft_ms.map_or("-".to_owned(), duration)),
        (
            "input",
            format!(
                "{} ({} read from the cache, {} written to it)",
                row.input(),
                tokens.cache_read,
                tokens.cache_write_5m + tokens.cache_write_1h
            ),
        ),
        (
            "output",
            format!(
                "{} so far of at most {}, {} a second",
                row.output(),
                row.max_tokens.map_or("-".to_owned(), |it| it.to_string()),
                rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"))
            ),
        ),
        (
            "bytes",
            format!("{} in, {} out", count(row.bytes_in), count(row.bytes_out)),
        ),
    ];
    if row.ending {
        facts.push(("end", "asked for by an operator".to_owned()));
    }
    facts
}

pub(super) fn sessions(rows: &[ShownSession], now_ms: u64) -> Vec<GridRow> {
    let row = |row: &ShownSession| {
        let named = [&row.user, &row.key_name, &row.user_agent];
        let who = named.into_iter().flatten().next();
        let floor = if row.cost_is_floor { "+" } else { "" };
        let errors = match row.errors {
            0 => Tone::Faint,
            _ => Tone::Warning,
        };
        let models = row.models.join(", ");
        let since = now_ms.saturating_sub(row.last_at) as f64;
        GridRow {
            name: format!("{} {}", row.id, or_dash(row.key_name.as_ref())),
            cells: vec![
                TonedText::plain(short(&row.id)),
                TonedText::plain(or_dash(who)),
                TonedText::plain(or_dash(row.models.first())),
                TonedText::plain(count(row.requests)),
                TonedText::toned(count(row.errors), errors),
                cache(row.cache_hit_share, row.tokens.all_input()),
                TonedText::plain(count(row.cache_breaks)),
                TonedText::plain(format!("{}{floor}", usd(row.cost_usd))),
                TonedText::plain(duration(since)),
            ],
            facts: vec![
                ("session", row.id.clone()),
                (
                    "key, user, team",
                    [&row.key_name, &row.user, &row.team]
                        .map(|it| or_dash(it.as_ref()))
                        .join(", "),
                ),
                ("client", or_dash(row.user_agent.as_ref()).to_owned()),
                ("models", models),
                ("agents", row.agents.to_string()),
                (
                    "requests",
                    format!("{}, {} of them failed", row.requests, row.errors),
                ),
                ("cost", format!("${:.4}{floor}", row.cost_usd)),
                (
                    "input",
                    format!(
                        "{} ({} read from the cache)",
                        row.tokens.all_input(),
                        row.tokens.cache_read
                    ),
                ),
                ("output", row.tokens.output.to_string()),
                (
                    "cache",
                    format!(
                        "{} hits, {} breaks",
                        percent(row.cache_hit_share),
                        row.cache_breaks
                    ),
                ),
                ("last", format!("{} ago", duration(since))),
            ],
        }
    };
    rows.iter().map(row).collect()
}

pub(super) fn upstreams(rows: &[ShownUpstream]) -> Vec<GridRow> {
    let row = |row: &ShownUpstream| {
        let millis = |millis: Option<f64>| millis.map_or("-".to_owned(), duration);
        let some = |number: u64| match number {
            0 => TonedText::toned("0", Tone::Faint),
            _ => TonedText::toned(count(number), Tone::Warning),
        };
        let mut facts = vec![
            ("upstream", row.name.clone()),
            (
                "health",
                format!(
                    "{}, {} failures in a row, {} take it out",
                    health(&row.circuit),
                    row.failures,
                    row.failures_to_open
                ),
            ),
            ("HTTP", row.http.clone()),
            ("idle connections", row.idle_connections.to_string()),
            ("connect failures", row.connect_failures.to_string()),
        ];
        let limits = row.rate_limit.iter();
        facts.extend(limits.map(|it| ("rate limit", format!("{}: {}", it.name, it.value))));
        GridRow {
            name: row.name.clone(),
            cells: vec![
                TonedText::plain(&row.name),
                TonedText::toned(health(&row.circuit), circuit(&row.circuit)),
                TonedText::plain(count(row.requests)),
                some(row.errors),
                some(row.status_429),
                some(row.status_529),
                TonedText::plain(millis(row.head_ms.p50)),
                TonedText::plain(millis(row.head_ms.p95)),
            ],
            facts,
        }
    };
    rows.iter().map(row).collect()
}

pub(super) fn budgets(rows: &[ShownBudget]) -> Vec<GridRow> {
    let row = |row: &ShownBudget| {
        let subject = match &row.name {
            Some(name) => format!("key {name}"),
            None => row.subject.clone(),
        };
        let tone = used(row.percent);
        let forecast = match row.forecast_usd {
            Some(forecast) if forecast > row.limit_usd => {
                TonedText::toned(usd(forecast), Tone::Warning)
            }
            Some(forecast) => TonedText::plain(usd(forecast)),
            None => TonedText::toned("-", Tone::Faint),
        };
        let models = row.models.as_deref().unwrap_or("all");
        GridRow {
            name: format!("{} {} {models}", row.subject, row.period),
            cells: vec![
                TonedText::plain(&subject),
                TonedText::plain(&row.period),
                TonedText::plain(usd(row.spent_usd)),
                TonedText::plain(usd(row.held_usd)),
                TonedText::plain(usd(row.limit_usd)),
                TonedText::toned(usd(row.left_usd), tone),
                TonedText::toned(format!("{:.0}%", row.percent.floor()), tone),
                forecast,
            ],
            facts: vec![
                ("subject", row.subject.clone()),
                ("name", or_dash(row.name.as_ref()).to_owned()),
                ("models", models.to_owned()),
                ("period", row.period.clone()),
                ("budget", format!("${:.4}", row.limit_usd)),
                ("spent", format!("${:.4}", row.spent_usd)),
                ("held by requests", format!("${:.4}", row.held_usd)),
                ("left", format!("${:.4}", row.left_usd)),
                ("begins anew", or_dash(row.resets_at.as_ref()).to_owned()),
            ],
        }
    };
    rows.iter().map(row).collect()
}

pub(super) fn limits(rows: &[ShownLimit]) -> Vec<GridRow> {
    let row = |row: &ShownLimit| {
        let subject = match (&row.name, &row.default_of) {
            (Some(name), _) => format!("key {name}"),
            (None, Some(team)) => format!("{} of {team}", row.subject),
            (None, None) => row.subject.clone(),
        };
        let kind = match &*row.kind {
            "requests_per_minute" => "requests/min",
            "input_tokens_per_minute" => "input tokens/min",
            "output_tokens_per_minute" => "output tokens/min",
            "at_once" => "at once",
            other => other,
        };
        let tone = used(row.percent);
        let counts = row.shared.as_ref().map_or("", |it| &*it.counts);
        // the store has not told yet
        let is_known = counts != "unknown";
        let known = |text: String| match is_known {
            true => text,
            false => "-".to_owned(),
        };
        let units = |units: f64| known(count(units.max(0.0) as u64));
        let waiting = match row.waiting {
            0 => TonedText::toned("0", Tone::Faint),
            waiting => TonedText::toned(count(waiting), Tone::Warning),
        };
        let models = row.models.as_deref().unwrap_or("all");
        let replicas = |number| match number {
            1 => "1 replica".to_owned(),
            _ => format!("{number} replicas"),
        };
        let sharing = match &row.shared {
            None => "this server alone".to_owned(),
            Some(it) if counts == "own" => {
                format!(
                    "{}, {}; in use is of this one",
                    it.state,
                    replicas(it.replicas)
                )
            }
            Some(it) => format!("{}, {}", it.state, replicas(it.replicas)),
        };
        GridRow {
            name: format!("{subject} {} {kind} {models}", row.subject),
            cells: vec![
                TonedText::plain(&subject),
                TonedText::plain(kind),
                TonedText::plain(units(row.spent)),
                TonedText::plain(count(row.bound as u64)),
                TonedText::toned(units(row.left), tone),
                TonedText::toned(known(format!("{:.0}%", row.percent.floor())), tone),
                waiting,
            ],
            facts: vec![
                ("subject", row.subject.clone()),
                ("name", or_dash(row.name.as_ref()).to_owned()),
                (
                    "default of team",
                    or_dash(row.default_of.as_ref()).to_owned(),
                ),
                ("limit", kind.to_owned()),
                ("models", models.to_owned()),
                ("bound", format!("{:.0}", row.bound)),
                ("in use", known(format!("{:.0}", row.spent))),
                ("left", known(format!("{:.0}", row.left))),
                ("requests waiting", row.waiting.to_string()),
                ("unused again", or_dash(row.resets_at.as_ref()).to_owned()),
                ("replicas", sharing),
            ],
        }
    };
    rows.iter().map(row).collect()
}

/// The beginning of an id.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}
