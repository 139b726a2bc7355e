//! Composes the rows and totals of the API from the state.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    ended::{EndedExchange, EndedRecord},
    histogram::DurationHistogram,
    recent::{FAILURES, FailedAttempt, InFlightExchange},
    ring::Ring,
    state::{ActivityState, DAY, HOUR, MINUTE, TEN_MINUTES, Timing, second},
    totals::{ExchangeTotals, UsageTotals},
    view,
};
use crate::{
    exchange::{
        self, ExchangeStart, MeteringFailure, Reading, ShownFields, Timings, Tokens, Tried, Usage,
    },
    label::Label,
    logging::timestamp,
};

/// A range of an overview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Five minutes, by two seconds.
    Minutes5,
    /// A quarter of an hour, by five seconds.
    Minutes15,
    /// An hour, by minutes.
    Hour,
    /// Six hours, by two minutes.
    Hours6,
    /// A day, by ten minutes.
    Day,
    /// A week, by hours.
    Week,
}

impl Range {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Minutes5,
        Self::Minutes15,
        Self::Hour,
        Self::Hours6,
        Self::Day,
        Self::Week,
    ];

    /// Reads `5m`, `15m`, `1h`, `6h`, `24h`, `7d`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|range| range.label() == text)
    }

    /// The text of the range.
    pub fn label(self) -> &'static str {
        match self {
            Self::Minutes5 => "5m",
            Self::Minutes15 => "15m",
            Self::Hour => "1h",
            Self::Hours6 => "6h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// Length of the range in seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Minutes5 => 5 * MINUTE,
            Self::Minutes15 => 15 * MINUTE,
            Self::Hour => HOUR,
            Self::Hours6 => 6 * HOUR,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
        }
    }

    fn step(self) -> u64 {
        match self {
            Self::Minutes5 => 2,
            Self::Minutes15 => 5,
            Self::Hour => MINUTE,
            Self::Hours6 => 2 * MINUTE,
            Self::Day => TEN_MINUTES,
            Self::Week => HOUR,
        }
    }
}

/// Grouping of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageBy {
    /// The model.
    Model,
    /// The day, UTC.
    Day,
    /// The model within a day.
    ModelDay,
}

/// A range of usage: hours up to a week, days beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageRange {
    /// The last hours, including the current one.
    Hours(u64),
    /// The last days, including today.
    Days(u64),
}

impl UsageRange {
    /// Reads `1h`, `6h`, `24h`, `7d`, `30d`, `90d`, `365d`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "1h" => Self::Hours(1),
            "6h" => Self::Hours(6),
            "24h" => Self::Hours(24),
            "7d" => Self::Hours(7 * 24),
            "30d" => Self::Days(30),
            "90d" => Self::Days(90),
            "365d" => Self::Days(365),
            _ => return None,
        })
    }
}

/// Totals and quantiles of a range, copied from the state and composed without its lock.
pub(super) struct RangeSnapshot {
    range: Range,
    now: u64,
    since: u64,
    steps: Vec<RangeStep>,
}

/// Totals and durations of a step.
struct RangeStep {
    at: u64,
    sums: ExchangeTotals,
    durations: Vec<Arc<DurationHistogram>>,
    first_tokens: Vec<Arc<DurationHistogram>>,
}

impl RangeSnapshot {
    /// Copies a range: for a week, 10,080 totals and 2,016 pointers.
    pub(super) fn of(state: &ActivityState, range: Range, now: u64) -> Self {
        let step = range.step();
        let [seconds, minutes, ten_minutes] = &state.timing;
        let (sums, timing, since) = match step {
            ..MINUTE => (&state.seconds, seconds, state.since_second),
            MINUTE..TEN_MINUTES => (&state.minutes, minutes, state.since),
            TEN_MINUTES.. => (&state.minutes, ten_minutes, state.since),
        };
        let newest = now / step;
        let count = range.seconds() / step;
        let steps = ((newest + 1).saturating_sub(count)..=newest)
            .map(|number| {
                let mut sum = ExchangeTotals::default();
                for part in within(sums, number * step, step) {
                    sum.add(part);
                }
                let parts = || within(timing, number * step, step);
                let of = |part: fn(&Timing) -> &Option<Arc<DurationHistogram>>| {
                    parts().filter_map(|timing| part(timing).clone()).collect()
                };
                RangeStep {
                    at: number * step,
                    sums: sum,
                    durations: of(|timing| &timing.duration),
                    first_tokens: of(|timing| &timing.first_token),
                }
            })
            .collect();
        Self {
            range,
            now,
            since,
            steps,
        }
    }

    pub(super) fn step_ms(&self) -> u64 {
        self.range.step() * 1000
    }

    pub(super) fn compose(self) -> (view::Totals, view::Series) {
        let mut series = view::Series::default();
        let mut sum = ExchangeTotals::default();
        let (mut durations, mut first_tokens) = <(DurationHistogram, DurationHistogram)>::default();
        for RangeStep {
            at,
            sums: step,
            durations: duration,
            first_tokens: first_token,
        } in &self.steps
        {
            sum.add(step);
            series.t.push(at * 1000);
            series.requests.push(step.requests);
            series.errors.push(step.failed);
            series.canceled.push(canceled(step));
            series.bytes_in.push(step.received);
            series.bytes_out.push(step.sent);
            series.tokens_in.push(step.spent.tokens.prompt());
            series.tokens_out.push(step.spent.tokens.output);
            series.cost_usd.push(dollars(step.spent.cost));
            let [p50, p95, p99] = merged(duration, &mut durations);
            series.duration_p50.push(p50);
            series.duration_p95.push(p95);
            series.duration_p99.push(p99);
            let [p50, p95, p99] = merged(first_token, &mut first_tokens);
            series.ttft_p50.push(p50);
            series.ttft_p95.push(p95);
            series.ttft_p99.push(p99);
        }
        let elapsed = (self.now + 1).saturating_sub(self.since);
        let elapsed = elapsed.clamp(1, self.range.seconds()) as f64;
        let totals = view::Totals {
            requests: sum.requests,
            succeeded: sum.succeeded,
            failed: sum.failed,
            canceled: canceled(&sum),
            success_rate: share(sum.succeeded, sum.requests).unwrap_or(1.0),
            error_rate: share(sum.failed, sum.requests).unwrap_or_default(),
            canceled_rate: share(canceled(&sum), sum.requests).unwrap_or_default(),
            requests_per_second: sum.requests as f64 / elapsed,
            bytes_in: sum.received,
            bytes_out: sum.sent,
            duration_ms: quantiles(sum.duration, sum.requests, &durations),
            ttft_ms: quantiles(sum.first_token, sum.first_tokens, &first_tokens),
            tokens: (&sum.spent.tokens).into(),
            tokens_per_second: sum.spent.tokens.output as f64 / elapsed,
            cache_hit_share: cache_hit_share(&sum.spent),
            cost_usd: dollars(sum.spent.cost),
            unpriced_requests: sum.spent.unpriced,
            at_least_requests: sum.spent.at_least,
            cost_estimate_usd: with_estimate(&sum.spent),
        };
        (totals, series)
    }
}

/// Number of canceled exchanges.
fn canceled(sums: &ExchangeTotals) -> u64 {
    sums.requests
        .saturating_sub(sums.succeeded)
        .saturating_sub(sums.failed)
}

/// The buckets of a ring within a span of time.
fn within<T: Default>(ring: &Ring<T>, from: u64, seconds: u64) -> impl Iterator<Item = &T> {
    let width = ring.width();
    (from / width..(from + seconds) / width).filter_map(|bucket| ring.bucket(bucket))
}

/// Quantiles of parts, which are added to a whole, too.
fn merged(parts: &[Arc<DurationHistogram>], whole: &mut DurationHistogram) -> [Option<f64>; 3] {
    let Some((first, rest)) = parts.split_first() else {
        return [None; 3];
    };
    let mut sum = DurationHistogram::clone(first);
    for part in rest {
        sum.merge(part);
    }
    whole.merge(&sum);
    sum.quantiles(SHARES)
        .map_or([None; 3], |found| found.map(Some))
}

fn quantiles(micros: u64, count: u64, histogram: &DurationHistogram) -> view::Quantiles {
    let avg = share(micros, count).map(|micros| micros / 1000.0);
    let found = histogram.quantiles(SHARES);
    let [p50, p95, p99] = found.map_or([None; 3], |found| found.map(Some));
    view::Quantiles { avg, p50, p95, p99 }
}

const SHARES: [f64; 3] = [0.5, 0.95, 0.99];

/// Sums of a span of time.
pub(super) fn sum(ring: &Ring<ExchangeTotals>, from: u64, seconds: u64) -> ExchangeTotals {
    let mut sum = ExchangeTotals::default();
    for part in within(ring, from, seconds) {
        sum.add(part);
    }
    sum
}

/// Sums since midnight, UTC.
pub(super) fn today(state: &ActivityState, now: u64) -> view::Today {
    let midnight = now / DAY * DAY;
    let sum = sum(&state.minutes, midnight, DAY);
    view::Today {
        requests: sum.requests,
        cost_usd: dollars(sum.spent.cost),
        at_least_requests: sum.spent.at_least,
        tokens: (&sum.spent.tokens).into(),
    }
}

/// The row of an exchange in flight.
pub(super) fn pending(pending: &InFlightExchange, now: SystemTime) -> view::Row {
    let InFlightExchange { begun, progress } = pending;
    let response = progress.response();
    let timings = response.map_or_else(Timings::default, |response| response.timings);
    let so_far = progress.read();
    let duration = now.duration_since(begun.started).unwrap_or_default();
    let upstream = response.and_then(|it| it.upstream.as_ref());
    let model = response.and_then(|it| it.model.as_deref());
    view::Row {
        status: response.map(|it| it.status),
        upstream: upstream.or(progress.upstream()).map(|it| it.to_string()),
        upstream_request_id: response.and_then(|it| owned(it.upstream_request_id.as_deref())),
        bytes_in: so_far.received,
        bytes_out: so_far.sent,
        ttft_ms: so_far.first_token.map(millis),
        duration_ms: millis(duration),
        ending: so_far.is_ending,
        edit: progress.edit().map(Label::text),
        model: owned(model.or(progress.model())),
        stream: response.and_then(|it| it.is_stream),
        max_tokens: response.and_then(|it| it.max_tokens),
        tokens: is_metered(&so_far).then(|| (&so_far.tokens).into()),
        output_events: is_metered(&so_far).then_some(so_far.deltas),
        ..row(begun, &timings, view::RowState::Pending)
    }
}

/// The row of an exchange that has ended.
pub(super) fn done(done: &EndedExchange) -> view::Row {
    let exchange = &done.exchange;
    let timings = &exchange.timings;
    let row = view::Row {
        status: exchange.status,
        upstream: owned(exchange.upstream.as_deref()),
        upstream_request_id: owned(exchange.upstream_request_id.as_deref()),
        bytes_in: exchange.received,
        bytes_out: exchange.sent,
        ttft_ms: timings.first_token.map(millis),
        duration_ms: millis(timings.total),
        ended_at: Some(unix_millis(done.ended)),
        ended: Some(view::TerminationView {
            by: exchange.termination.source.label(),
            phase: exchange.termination.phase.label(),
            label: exchange.termination.label.map(Label::text),
        }),
        result: Some(exchange.verdict().label()),
        edit: exchange.edit.map(Label::text),
        ..row(&exchange.begun, timings, view::RowState::Done)
    };
    let Some(usage) = &exchange.usage else {
        return row;
    };
    view::Row {
        model: owned(usage.model.as_deref()),
        stream: Some(usage.is_stream),
        max_tokens: usage.max_tokens,
        tokens: Some((&usage.tokens).into()),
        server_tools: usage.server_tools,
        cost_usd: usage.total_cost().map(dollars),
        at_least: usage.at_least,
        estimate: usage.estimate.map(estimate),
        other_models: others(usage),
        inference_geo: owned(usage.terms.inference_geo.as_deref()),
        speed: owned(usage.terms.speed.as_deref()),
        service_tier: owned(usage.terms.service_tier.as_deref()),
        metering_failure: usage.failure.map(MeteringFailure::label),
        stop_reason: owned(usage.stop_reason.as_deref()),
        error_type: owned(usage.error_type.as_deref()),
        ..row
    }
}

/// The part of a row that is known from the beginning on.
fn row(begun: &ExchangeStart, timings: &Timings, state: view::RowState) -> view::Row {
    view::Row {
        seq: begun.seq,
        id: begun.id.to_string(),
        at: unix_millis(begun.started),
        state,
        client: begun.client.map(|client| client.to_string()),
        version: begun.version,
        method: begun.method.to_string(),
        path: begun.path.to_string(),
        route: begun.route.label(),
        session: owned(begun.session.as_deref()),
        user_agent: owned(begun.user_agent.as_deref()),
        connected_ms: timings.connected.map(millis),
        connecting_ms: timings.connecting.map(millis),
        head_ms: timings.head.map(millis),
        overhead_ms: millis(timings.overhead),
        ..view::Row::default()
    }
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// True if anything of a response in flight was metered.
fn is_metered(so_far: &Reading) -> bool {
    so_far.deltas > 0 || so_far.tokens != Tokens::default()
}

/// Progress of an exchange in flight.
pub(super) fn running(
    pending: &InFlightExchange,
    so_far: &Reading,
    now: SystemTime,
) -> view::RunningView {
    let duration = now.duration_since(pending.begun.started);
    view::RunningView {
        seq: pending.begun.seq,
        id: pending.begun.id.to_string(),
        upstream: pending.progress.upstream().map(|it| it.to_string()),
        bytes_in: so_far.received,
        bytes_out: so_far.sent,
        ttft_ms: so_far.first_token.map(millis),
        duration_ms: millis(duration.unwrap_or_default()),
        tokens: (&so_far.tokens).into(),
        output_events: so_far.deltas,
        ending: so_far.is_ending,
    }
}

/// Groups failures, which come newest first.
pub(super) fn errors(
    failures: &[EndedRecord],
    attempts: &[FailedAttempt],
    since: SystemTime,
    began: SystemTime,
) -> view::Errors {
    let mut groups: BTreeMap<_, view::ErrorGroup> = BTreeMap::new();
    let mut items = Vec::new();
    let mut failures: Vec<_> = failures
        .iter()
        .filter(|failure| failure.done.ended >= since)
        .collect();
    // the latest end first: the workers hand exchanges over in batches
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.done.ended));
    for failure in failures {
        let exchange = &failure.done.exchange;
        let metered = exchange.usage.as_ref();
        let metered = metered.and_then(|usage| usage.error_type.as_deref());
        let content = failure.text.as_ref().map(|text| text.content.as_ref());
        let kind = metered.or(failure.kind.as_deref()).map(str::to_owned);
        let (by, ours) = (exchange.termination.source, exchange.is_ours());
        if items.len() < ITEMS {
            // the only source of the type if the response was not metered
            items.push(view::Row {
                error_type: kind.clone(),
                ..done(&failure.done)
            });
        }
        // a client that went away says nothing about the upstream's status
        let label = match exchange.termination.label {
            None if exchange.termination.source != crate::exchange::TerminationSource::Complete => {
                Some(exchange.termination.source.label())
            }
            label => label.map(Label::text),
        };
        let key = (
            exchange.status,
            kind.clone(),
            exchange.upstream.clone(),
            ours,
            by.label(),
            label,
        );
        let at = unix_millis(failure.done.ended);
        let group = groups.entry(key).or_insert_with(|| view::ErrorGroup {
            status: exchange.status,
            kind,
            upstream: exchange.upstream.as_deref().map(str::to_owned),
            by: by.label(),
            ours,
            label,
            count: 0,
            first_at: at,
            last_at: at,
            sample: sample(exchange.begun.id.as_ref(), content),
        });
        group.count += 1;
        group.first_at = group.first_at.min(at);
        group.last_at = group.last_at.max(at);
        if group.sample.content.is_none() && content.is_some() {
            group.sample = sample(exchange.begun.id.as_ref(), content);
        }
    }
    // an attempt is an error of its upstream, although its client got the response of another one
    for failed in attempts.iter().filter(|failed| failed.ended >= since) {
        let (status, kind, label) = match failed.attempt.outcome {
            Tried::Unreachable => (None, None, "unreachable"),
            Tried::Unanswered => (None, None, "unanswered"),
            Tried::Status(status) => (Some(status), None, "failed_over"),
            Tried::Overloaded => (
                Some(200),
                Some("overloaded_error".to_owned()),
                "failed_over",
            ),
        };
        let by = crate::exchange::TerminationSource::Upstream.label();
        let upstream = Some(Arc::clone(&failed.attempt.upstream));
        let key = (
            status,
            kind.clone(),
            upstream.clone(),
            false,
            by,
            Some(label),
        );
        let at = unix_millis(failed.ended);
        let group = groups.entry(key).or_insert_with(|| view::ErrorGroup {
            status,
            kind,
            upstream: upstream.as_deref().map(str::to_owned),
            by,
            ours: false,
            label: Some(label),
            count: 0,
            first_at: at,
            last_at: at,
            sample: sample(&failed.id, None),
        });
        group.count += 1;
        group.first_at = group.first_at.min(at);
        group.last_at = group.last_at.max(at);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.count, group.last_at)));
    view::Errors {
        groups,
        items,
        kept: FAILURES,
        since: unix_millis(began),
    }
}

/// Upper bound of failures listed beside their groups.
const ITEMS: usize = 100;

fn sample(id: &str, content: Option<&str>) -> view::Sample {
    view::Sample {
        id: id.to_owned(),
        content: content.map(str::to_owned),
    }
}

/// The fields of a head.
pub(super) fn fields(fields: &ShownFields) -> Vec<view::FieldView> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| view::FieldView {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        })
        .collect()
}

/// Usage by day (its first second) and model, as far as the grouping has them.
pub(super) type SpentBy = BTreeMap<(Option<u64>, Option<Box<str>>), UsageTotals>;

/// Usage of a range, copied from the state.
pub(super) fn spent(state: &ActivityState, range: UsageRange, by: UsageBy, now: u64) -> SpentBy {
    let mut rows = SpentBy::new();
    let (ledger, spans, width) = match range {
        // of days only whole ones
        UsageRange::Hours(hours) if by != UsageBy::Model && hours >= 24 * 7 => {
            (&state.days, hours / 24, DAY)
        }
        UsageRange::Hours(hours) => (&state.hours, hours, HOUR),
        UsageRange::Days(days) => (&state.days, days, DAY),
    };
    for (span, model, spent) in ledger.last(spans, now) {
        let day = (by != UsageBy::Model).then(|| span * width / DAY * DAY);
        let model = (by != UsageBy::Day).then(|| model.into());
        rows.entry((day, model)).or_default().add(spent);
    }
    rows
}

/// Usage as rows: the newest day first, within a day the highest cost first.
pub(super) fn usage(spent: SpentBy, by: UsageBy) -> Vec<view::UsageRow> {
    let mut rows: Vec<_> = spent
        .into_iter()
        .map(|((day, model), spent)| usage_row(day, model, &spent))
        .collect();
    rows.sort_by(|a, b| {
        let by_cost = b.cost_usd.total_cmp(&a.cost_usd);
        match by {
            UsageBy::Model => by_cost,
            UsageBy::Day | UsageBy::ModelDay => b.day.cmp(&a.day).then(by_cost),
        }
    });
    rows
}

fn usage_row(day: Option<u64>, model: Option<Box<str>>, spent: &UsageTotals) -> view::UsageRow {
    let day = day.map(|second| {
        let at = UNIX_EPOCH + Duration::from_secs(second);
        timestamp(at).chars().take("2026-11-24".len()).collect()
    });
    let model = model.map(String::from);
    let key: [&str; 2] =
        [&day, &model].map(|part: &Option<String>| part.as_deref().unwrap_or_default());
    view::UsageRow {
        key: key.join(" ").trim().to_owned(),
        day,
        model,
        requests: spent.requests,
        tokens: (&spent.tokens).into(),
        cache_hit_share: cache_hit_share(spent),
        cost_usd: dollars(spent.cost),
        cost_is_floor: spent.unpriced > 0 || spent.at_least > 0,
        unpriced: spent.unpriced > 0,
        at_least: spent.at_least > 0,
        cost_estimate_usd: with_estimate(spent),
        unpriced_requests: spent.unpriced,
    }
}

pub(super) fn upstreams(state: &ActivityState) -> Vec<view::UpstreamRow> {
    let pair = |histogram: &DurationHistogram| {
        let found = histogram.quantiles([0.5, 0.95]);
        let [p50, p95] = found.map_or([None; 2], |found| found.map(Some));
        view::Pair { p50, p95 }
    };
    let list = state.upstreams.list().into_iter();
    list.map(|(url, counts)| view::UpstreamRow {
        name: url.into(),
        requests: counts.requests,
        errors: counts.errors,
        status_429: counts.status_429,
        status_529: counts.status_529,
        connects: counts.connects,
        connect_failures: counts.connect_failures,
        connect_ms: pair(&counts.connect),
        head_ms: pair(&counts.head),
        rate_limit: counts
            .rate_limit
            .iter()
            .map(|(name, value, at)| view::RateLimit {
                name: name.to_string(),
                value: value.to_string(),
                at: unix_millis(*at),
            })
            .collect(),
    })
    .collect()
}

pub(super) fn paths(state: &ActivityState) -> Vec<view::PathRow> {
    let list = state.paths.list().into_iter();
    list.map(|(path, counts)| view::PathRow {
        path: path.into(),
        requests: counts.requests,
        errors: counts.errors,
        avg_ms: millis(counts.took) / counts.requests.max(1) as f64,
        bytes_out: counts.sent,
    })
    .collect()
}

/// The last five whole seconds: exchanges a second, share that failed, tokens of output a second.
pub(super) fn rates(state: &ActivityState, now: SystemTime) -> (f64, f64, f64) {
    const SECONDS: u64 = 5;
    let sum = sum(&state.seconds, second(now).saturating_sub(SECONDS), SECONDS);
    (
        sum.requests as f64 / SECONDS as f64,
        share(sum.failed, sum.requests).unwrap_or_default(),
        sum.spent.tokens.output as f64 / SECONDS as f64,
    )
}

fn estimate(estimate: exchange::Estimate) -> view::EstimateView {
    view::EstimateView {
        output: estimate.output,
        cost_usd: estimate.cost.map(dollars),
    }
}

fn others(usage: &Usage) -> Vec<view::OtherModelView> {
    let others = usage.others.iter();
    others
        .map(|other| view::OtherModelView {
            model: other.model.to_string(),
            tokens: (&other.tokens).into(),
            cost_usd: other.cost.map(dollars),
        })
        .collect()
}

fn with_estimate(spent: &UsageTotals) -> f64 {
    dollars(spent.cost.saturating_add(spent.estimated))
}

fn cache_hit_share(spent: &UsageTotals) -> f64 {
    share(spent.tokens.cache_read, spent.tokens.prompt()).unwrap_or_default()
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn dollars(billionths: u64) -> f64 {
    billionths as f64 / 1e9
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Milliseconds since the epoch.
pub fn unix_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
