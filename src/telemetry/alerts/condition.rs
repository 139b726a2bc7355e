//! The conditions: two looks at the counters, and what is wrong between them. Pure.

use std::time::{Duration, Instant, SystemTime};

use super::alert::Alert;
use crate::{
    config::AlertSettings,
    telemetry::metrics::{CounterReading, Gauges, ModelReading},
    webhook::plain_name,
};

/// All that is known at one moment.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) time: SystemTime,
    pub(super) counters: CounterReading,
    pub(super) gauges: Gauges,
}

/// A look beside earlier ones.
pub(super) struct Window<'a> {
    pub(super) now: &'a Look,
    /// 20 looks before, or the first.
    pub(super) short: &'a Look,
    /// 60 looks before, or the first.
    pub(super) long: &'a Look,
    /// Billionths of a US dollar that the last hour cost.
    pub(super) hour: u64,
}

/// A condition that holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) alert: Alert,
    /// Model, upstream or limit that it is about.
    pub(super) subject: Option<String>,
    /// One sentence.
    pub(super) summary: String,
    pub(super) value: f64,
    pub(super) threshold: f64,
}

/// The conditions that hold.
pub(super) fn conditions(window: &Window<'_>, settings: &AlertSettings) -> Vec<Condition> {
    let mut found = Vec::new();
    shares(window, settings, &mut found);
    models(window, settings, &mut found);
    upstreams(window, &mut found);
    process(window, &mut found);
    money(window, settings, &mut found);
    limits(window, &mut found);
    found
}

/// Shares of the requests.
fn shares(window: &Window<'_>, settings: &AlertSettings, found: &mut Vec<Condition>) {
    let (now, short, long) = (
        &window.now.counters,
        &window.short.counters,
        &window.long.counters,
    );
    let recent = span(window.now.at - window.short.at);
    let generations = now.generations.saturating_sub(short.generations);
    let of_generations = |alert, part, threshold, what| Share {
        alert,
        part,
        all: generations,
        fewest: (5, 0),
        threshold,
        what,
        span: recent.clone(),
    };
    let shares = [
        Share {
            alert: Alert::Errors,
            part: now.failed.saturating_sub(short.failed),
            all: now.requests.saturating_sub(short.requests),
            fewest: (1, 20),
            threshold: settings.error_rate,
            what: "of the requests fail",
            span: recent.clone(),
        },
        of_generations(
            Alert::CredentialRefused,
            now.credential_errors
                .saturating_sub(short.credential_errors),
            20,
            "of the generations are refused by the upstream for their credential",
        ),
        of_generations(
            Alert::RateLimited,
            now.rate_limit_errors
                .saturating_sub(short.rate_limit_errors),
            5,
            "of the generations are limited by the upstream (429)",
        ),
        of_generations(
            Alert::UpstreamOverloaded,
            now.overloaded_errors
                .saturating_sub(short.overloaded_errors),
            5,
            "of the generations find the upstream overloaded (529)",
        ),
        Share {
            alert: Alert::ConnectFailures,
            part: now.failed_connects.saturating_sub(short.failed_connects),
            all: now.connects.saturating_sub(short.connects),
            fewest: (5, 0),
            threshold: 20,
            what: "of the connects to upstreams fail",
            span: recent.clone(),
        },
        Share {
            alert: Alert::MeteringFailures,
            part: now.metering_failures.saturating_sub(long.metering_failures),
            all: now.generations.saturating_sub(long.generations),
            fewest: (5, 0),
            threshold: 1,
            what: "of the generations cannot be metered",
            span: span(window.now.at - window.long.at),
        },
        Share {
            alert: Alert::CacheBreaks,
            part: breaks(&window.now.gauges).saturating_sub(breaks(&window.long.gauges)),
            all: now.generations.saturating_sub(long.generations),
            fewest: (10, 0),
            threshold: 20,
            what: "of the generations break the prompt cache",
            span: span(window.now.at - window.long.at),
        },
    ];
    found.extend(shares.into_iter().filter_map(Share::condition));
}

/// A part of a sum, and the share that it may have.
struct Share<'a> {
    alert: Alert,
    part: u64,
    all: u64,
    /// Smallest part, and smallest sum, that have a share.
    fewest: (u64, u64),
    /// Percent.
    threshold: u8,
    what: &'a str,
    span: String,
}

impl Share<'_> {
    fn condition(self) -> Option<Condition> {
        let Self { part, all, .. } = self;
        let is_enough = part >= self.fewest.0 && all >= self.fewest.1;
        let is_above = u128::from(part) * 100 > u128::from(all) * u128::from(self.threshold);
        (is_enough && is_above).then(|| {
            // an attempt may be counted before the request that it is of
            let percent = (part as f64 * 100.0 / all.max(1) as f64).min(100.0);
            let (what, span) = (self.what, self.span);
            Condition {
                alert: self.alert,
                subject: None,
                summary: format!("{percent:.0}% {what} ({part} of {all} in {span})."),
                value: percent,
                threshold: self.threshold.into(),
            }
        })
    }
}

/// Breaks of prompt caches, of all causes.
fn breaks(gauges: &Gauges) -> u64 {
    gauges.cache_breaks.iter().map(|(_, count)| count).sum()
}

/// Speed and prices of models.
fn models(window: &Window<'_>, settings: &AlertSettings, found: &mut Vec<Condition>) {
    for model in &window.now.counters.models {
        let before = |look: &Look| {
            let mut models = look.counters.models.iter();
            models
                .find(|it| it.name == model.name)
                .cloned()
                .unwrap_or_default()
        };
        let name = plain_name(&model.name);
        let limit = settings.first_token.as_secs_f64();
        let waited = since(model, &before(window.short));
        if let Some(seconds) = quantile(&waited, 0.95).filter(|seconds| *seconds > limit) {
            found.push(Condition {
                alert: Alert::FirstTokenSlow,
                summary: format!(
                    "{name} needs {seconds:.0} s for the first token (95% of the generations of {} need less).",
                    span(window.now.at - window.short.at),
                ),
                subject: Some(name.clone()),
                value: seconds,
                threshold: limit,
            });
        }
        let unpriced = model.unpriced.saturating_sub(before(window.long).unpriced);
        if unpriced > 0 {
            found.push(Condition {
                alert: Alert::Unpriced,
                summary: match unpriced {
                    1 => format!("{name} has no price (1 request)."),
                    _ => format!("{name} has no price ({unpriced} requests)."),
                },
                subject: Some(name),
                value: unpriced as f64,
                threshold: 0.0,
            });
        }
    }
}

/// The times to the first token that were added since an earlier look.
fn since(model: &ModelReading, before: &ModelReading) -> Vec<(f64, u64)> {
    let earlier = before.first_token.iter().map(|(_, count)| *count);
    let earlier = earlier.chain(std::iter::repeat(0));
    let buckets = model.first_token.iter().zip(earlier);
    buckets
        .map(|((upper, count), earlier)| (*upper, count.saturating_sub(earlier)))
        .collect()
}

/// A quantile as Prometheus takes it, between the bounds of its bucket; none of fewer than 20 values.
fn quantile(buckets: &[(f64, u64)], share: f64) -> Option<f64> {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    if total < FEWEST_TIMES {
        return None;
    }
    let wanted = total as f64 * share;
    let (mut lower, mut below) = (0.0, 0.0);
    for (upper, count) in buckets {
        let count = *count as f64;
        if below + count >= wanted && count > 0.0 {
            return Some(match upper.is_finite() {
                true => lower + (upper - lower) * (wanted - below) / count,
                false => lower,
            });
        }
        below += count;
        lower = *upper;
    }
    None
}

/// Circuits. One upstream alone has none that opens.
fn upstreams(window: &Window<'_>, found: &mut Vec<Condition>) {
    let upstreams = &window.now.gauges.upstreams;
    let open = upstreams
        .iter()
        .filter(|it| matches!(it.circuit, "open" | "half_open"));
    let open: Vec<&str> = open.map(|it| it.url.as_str()).collect();
    for &url in &open {
        found.push(Condition {
            alert: Alert::CircuitOpen,
            subject: Some(url.to_owned()),
            summary: format!("The circuit of {url} is open."),
            value: 1.0,
            threshold: 0.0,
        });
    }
    if !open.is_empty() && open.len() == upstreams.len() {
        found.push(Condition {
            alert: Alert::NoUpstream,
            subject: None,
            summary: format!("None of {} upstreams is healthy.", upstreams.len()),
            value: open.len() as f64,
            threshold: 0.0,
        });
    }
}

/// The process itself: its limits, settings and logs.
fn process(window: &Window<'_>, found: &mut Vec<Condition>) {
    let (now, short) = (window.now, window.short);
    let recent = span(now.at - short.at);
    let saturations = now
        .counters
        .saturations
        .iter()
        .zip(&short.counters.saturations);
    for ((label, count), (_, before)) in saturations.filter(|(now, before)| now.1 > before.1) {
        let refused = count - before;
        found.push(Condition {
            alert: Alert::Saturated,
            subject: Some(label.text().to_owned()),
            summary: format!("{refused} requests of {recent} were refused: {label}."),
            value: refused as f64,
            threshold: 0.0,
        });
    }
    if let Some((open, most)) = now
        .counters
        .descriptors
        .filter(|(open, most)| open * 10 > most * 8)
    {
        found.push(Condition {
            alert: Alert::DescriptorsNearLimit,
            subject: None,
            summary: format!("{open} of {most} file descriptors are open."),
            value: open as f64 * 100.0 / most.max(1) as f64,
            threshold: 80.0,
        });
    }
    if !now.gauges.last_reload_successful {
        found.push(Condition {
            alert: Alert::ReloadFailed,
            subject: None,
            summary: "Changed settings could not be read.".to_owned(),
            value: 0.0,
            threshold: 0.0,
        });
    }
    let (after, before) = (&now.gauges, &short.gauges);
    let logs = [
        (
            "log",
            after
                .log_lines_dropped
                .saturating_sub(before.log_lines_dropped),
        ),
        (
            "access log",
            after
                .access_log_lines_dropped
                .saturating_sub(before.access_log_lines_dropped),
        ),
    ];
    for (log, lost) in logs.into_iter().filter(|(_, lost)| *lost > 0) {
        found.push(Condition {
            alert: Alert::LogLinesDropped,
            subject: Some(log.to_owned()),
            summary: format!("{lost} lines of the {log} were lost in {recent}."),
            value: lost as f64,
            threshold: 0.0,
        });
    }
    let lost = after
        .exchanges_dropped
        .saturating_sub(before.exchanges_dropped);
    if lost > 0 {
        found.push(Condition {
            alert: Alert::TelemetryDropped,
            subject: None,
            summary: format!("The dashboard and the access log lack {lost} exchanges of {recent}."),
            value: lost as f64,
            threshold: 0.0,
        });
    }
}

/// Cost.
fn money(window: &Window<'_>, settings: &AlertSettings, found: &mut Vec<Condition>) {
    if window.hour > settings.cost_per_hour {
        let dollars = window.hour as f64 / 1e9;
        found.push(Condition {
            alert: Alert::CostHigh,
            subject: None,
            summary: format!("${dollars:.2} were spent within an hour."),
            value: dollars,
            threshold: settings.cost_per_hour as f64 / 1e9,
        });
    }
}

/// Keys, limits, and their store.
fn limits(window: &Window<'_>, found: &mut Vec<Condition>) {
    let (now, short) = (window.now, window.short);
    let recent = span(now.at - short.at);
    if now.gauges.state.is_some_and(|(is_up, _)| !is_up) {
        found.push(Condition {
            alert: Alert::StateDown,
            subject: None,
            summary: "The store of keys and limits cannot be used.".to_owned(),
            value: 0.0,
            threshold: 0.0,
        });
    }
    let silent = now.gauges.sharing.map_or(0.0, |sharing| sharing.silent);
    if silent > LONGEST_SILENCE {
        found.push(Condition {
            alert: Alert::SharedLimitsLost,
            subject: None,
            summary: format!("The shared store has not answered about limits for {silent:.0} s."),
            value: silent,
            threshold: LONGEST_SILENCE,
        });
    }
    let (after, before) = (&now.counters, &short.counters);
    let refusals = [
        (
            Alert::LimitUnreachable,
            after
                .unreachable_refusals
                .saturating_sub(before.unreachable_refusals),
            "since the shared state of their limits cannot be reached",
        ),
        (
            Alert::SpendLimitReached,
            after.spend_refusals.saturating_sub(before.spend_refusals),
            "since a budget is spent",
        ),
    ];
    for (alert, refused, why) in refusals.into_iter().filter(|(_, refused, _)| *refused > 0) {
        found.push(Condition {
            alert,
            subject: None,
            summary: format!("{refused} requests of {recent} were refused {why}."),
            value: refused as f64,
            threshold: 0.0,
        });
    }
}

/// A length of time, for people.
pub(super) fn span(length: Duration) -> String {
    match length.as_secs() {
        0..120 => format!("{} s", length.as_secs()),
        120..7200 => format!("{} minutes", (length.as_secs() + 30) / 60),
        _ => format!("{} hours", (length.as_secs() + 1800) / 3600),
    }
}

/// Smallest number of times that have a quantile.
const FEWEST_TIMES: u64 = 20;

/// Seconds without an answer after which limits are lost.
const LONGEST_SILENCE: f64 = 30.0;
