//! Composes the rows and totals of the API from the state.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    day_zone::DayZone,
    dimension::Dimension,
    ended::{EndedExchange, EndedRecord},
    histogram::DurationHistogram,
    others::OtherRow,
    recent::{FAILURES, FailedAttempt, InFlightExchange},
    ring::Ring,
    state::{ActivityState, DAY, HOUR, MINUTE, TEN_MINUTES, Timing, second},
    totals::{ExchangeTotals, UsageTotals},
    unix_time::unix_millis,
    usage_by_model::{OTHER, UsageByModel},
    view,
};
use crate::{
    exchange::{
        self, ExchangeStart, MeteringFailure, Reading, ShownFields, Timings, Tokens, Tried, Usage,
    },
    label::Label,
    logging::timestamp,
    state::fleet::SumTable,
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
    /// The day of the proxy's time zone.
    Day,
    /// The model within a day.
    ModelDay,
    /// The hour, for which days are those of any time zone.
    Hour,
    /// Another dimension.
    Of(Dimension),
}

impl UsageBy {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Model,
        Self::Day,
        Self::ModelDay,
        Self::Hour,
        Self::Of(Dimension::Key),
        Self::Of(Dimension::User),
        Self::Of(Dimension::Team),
        Self::Of(Dimension::Session),
    ];

    /// Reads a grouping.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.label() == text)
    }

    /// The text of the grouping.
    pub fn label(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Day => "day",
            Self::ModelDay => "model_day",
            Self::Hour => "hour",
            Self::Of(dimension) => dimension.label(),
        }
    }

    /// True if rows have a time.
    fn has_time(self) -> bool {
        matches!(self, Self::Day | Self::ModelDay | Self::Hour)
    }
}

/// A range of usage: hours up to a week, days beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageRange {
    /// The last hours, including the current one.
    Hours(u64),
    /// The last days, including today.
    Days(u64),
    /// Between two seconds, in whole hours, or in whole days if its hours are not kept any more.
    Between(u64, u64),
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

/// Sums since midnight.
pub(super) fn today(state: &ActivityState, now: u64) -> view::Today {
    let midnight = state.zone.begin(state.zone.day(now));
    // a day may have an hour more
    let sum = sum(&state.minutes, midnight, DAY + HOUR);
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
        model: owned(model.or(progress.model().map(|it| &**it))),
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
        verify: exchange.verified.as_ref().map(|it| it.identity().label()),
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
    let owner = begun.owner.as_deref();
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
        agent: owned(begun.agent.as_deref()),
        key: owner.map(|owner| owner.key.to_string()),
        key_name: owner.map(|owner| owner.name.to_string()),
        user: owner.and_then(|owner| owned(owner.user.as_deref())),
        team: owner.and_then(|owner| owned(owner.team.as_deref())),
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

/// Spans of usage that a range asks for: both numbers are included.
struct Spans<'a> {
    usage: &'a UsageByModel,
    first: u64,
    last: u64,
    /// Seconds of a span.
    width: u64,
    /// Time zone of spans that are days.
    zone: &'a DayZone,
    /// Usage of other replicas in these spans.
    others: &'a [OtherRow],
}

/// Spans of usage that other replicas are asked for.
pub(super) struct AskedSpans {
    pub(super) table: SumTable,
    pub(super) dimension: Option<Dimension>,
    pub(super) spans: RangeInclusive<u64>,
}

/// The spans that a range asks for.
pub(super) fn asked(state: &ActivityState, range: UsageRange, by: UsageBy, now: u64) -> AskedSpans {
    let spans = Spans::of(state, range, by, now, &[]);
    let dimension = match by {
        UsageBy::Of(dimension) => Some(dimension),
        UsageBy::Model | UsageBy::Day | UsageBy::ModelDay | UsageBy::Hour => None,
    };
    AskedSpans {
        table: match (dimension, spans.width) {
            (None, DAY) => SumTable::DaysByModel,
            (None, _) => SumTable::HoursByModel,
            (Some(_), DAY) => SumTable::DaysByName,
            (Some(_), _) => SumTable::HoursByName,
        },
        dimension,
        spans: spans.first..=spans.last,
    }
}

impl<'a> Spans<'a> {
    fn of(
        state: &'a ActivityState,
        range: UsageRange,
        by: UsageBy,
        now: u64,
        others: &'a [OtherRow],
    ) -> Self {
        let (hours, days) = match by {
            UsageBy::Of(dimension) => {
                let usage = &state.dimensions[dimension as usize];
                (&usage.hours, &usage.days)
            }
            UsageBy::Model | UsageBy::Day | UsageBy::ModelDay | UsageBy::Hour => {
                (&state.hours, &state.days)
            }
        };
        let kept = hours.kept();
        let zone = &state.zone;
        let last = |count: u64, newest: u64| ((newest + 1).saturating_sub(count), newest);
        let (usage, (first, last), width) = match range {
            // of days only whole ones
            UsageRange::Hours(count)
                if matches!(by, UsageBy::Day | UsageBy::ModelDay) && count >= 24 * 7 =>
            {
                (days, last(count / 24, zone.day(now)), DAY)
            }
            UsageRange::Hours(count) => (hours, last(count, now / HOUR), HOUR),
            UsageRange::Days(count) if by == UsageBy::Hour && (count + 1) * 24 <= kept => {
                (hours, last(count * 24, now / HOUR), HOUR)
            }
            UsageRange::Days(count) => (days, last(count, zone.day(now)), DAY),
            // no span has this number
            UsageRange::Between(from, to) if from >= to => (hours, (1, 0), HOUR),
            UsageRange::Between(from, to) => {
                let oldest = (now / DAY).saturating_sub(days.kept()) * DAY;
                let (from, to) = (from.max(oldest), to.clamp(oldest + 1, now.max(oldest) + 1));
                let from = from.min(to - 1);
                let (to, is_kept) = (to.saturating_sub(1), from / HOUR + kept > now / HOUR);
                if is_kept && !matches!(by, UsageBy::Day | UsageBy::ModelDay) {
                    (hours, (from / HOUR, to / HOUR), HOUR)
                } else {
                    (days, (zone.day(from), zone.day(to)), DAY)
                }
            }
        };
        Self {
            usage,
            first,
            last,
            width,
            zone,
            others,
        }
    }

    /// Rows by the number of their span; those of other replicas after those of this one.
    fn rows(&self) -> impl Iterator<Item = (u64, &'a str, &'a UsageTotals)> + use<'a> {
        let others = self.others.iter();
        let others = others.map(|(span, name, totals)| (*span, &**name, totals));
        self.usage.between(self.first, self.last).chain(others)
    }

    /// The first second of a span.
    fn begin(&self, span: u64) -> u64 {
        match self.width {
            DAY => self.zone.begin(span),
            width => span * width,
        }
    }

    /// The day of a span.
    fn day(&self, span: u64) -> u64 {
        match self.width {
            DAY => span,
            width => self.zone.day(span * width),
        }
    }
}

/// Usage of a range, copied from the state.
pub(super) fn spent(
    state: &ActivityState,
    range: UsageRange,
    by: UsageBy,
    now: u64,
    others: &[OtherRow],
) -> SpentBy {
    let mut rows = SpentBy::new();
    let spans = Spans::of(state, range, by, now, others);
    for (span, name, spent) in spans.rows() {
        let time = by.has_time().then(|| match by {
            UsageBy::Hour => spans.begin(span),
            _ => state.zone.begin(spans.day(span)),
        });
        let is_named = !matches!(by, UsageBy::Day | UsageBy::Hour);
        let name = is_named.then(|| name.into());
        rows.entry((time, name)).or_default().add(spent);
    }
    rows
}

/// Usage as rows: the newest time first, within it the highest cost first.
pub(super) fn usage(
    spent: SpentBy,
    by: UsageBy,
    names: &BTreeMap<Box<str>, Box<str>>,
    zone: &DayZone,
) -> Vec<view::UsageRow> {
    let mut rows: Vec<_> = spent
        .into_iter()
        .map(|((time, name), spent)| usage_row(time, name, &spent, (by, names, zone)))
        .collect();
    rows.sort_by(|a, b| {
        let by_cost = b.cost_usd.total_cmp(&a.cost_usd);
        b.at.cmp(&a.at).then(by_cost)
    });
    rows
}

fn usage_row(
    time: Option<u64>,
    name: Option<Box<str>>,
    spent: &UsageTotals,
    (by, names, zone): (UsageBy, &BTreeMap<Box<str>, Box<str>>, &DayZone),
) -> view::UsageRow {
    let text = time.map(|second| timestamp(UNIX_EPOCH + Duration::from_secs(second)));
    let day = time.filter(|_| by != UsageBy::Hour);
    let day = day.map(|second| zone.show(zone.day(second)));
    let title = match by {
        UsageBy::Of(Dimension::Key) => name.as_ref().and_then(|key| names.get(key)),
        _ => None,
    };
    let title = title.map(|title| title.to_string());
    let name = name.map(String::from);
    let key: [&str; 2] = match by {
        UsageBy::Hour => [text.as_deref().unwrap_or_default(), ""],
        _ => [&day, &name].map(|part: &Option<String>| part.as_deref().unwrap_or_default()),
    };
    view::UsageRow {
        key: key.join(" ").trim().to_owned(),
        at: time.map(|second| second * 1000),
        day,
        name: title,
        model: name.filter(|_| matches!(by, UsageBy::Model | UsageBy::ModelDay)),
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

/// The range and the grouping of usage over time.
pub(super) fn series_of(
    state: &ActivityState,
    range: UsageRange,
    by: UsageBy,
) -> (UsageRange, UsageBy) {
    let by = match by {
        UsageBy::Day | UsageBy::ModelDay | UsageBy::Hour => UsageBy::Model,
        by => by,
    };
    // a month by the hour, as the days of a time zone are made of
    let range = match range {
        UsageRange::Days(days) if by == UsageBy::Model && (days + 1) * 24 <= state.hours.kept() => {
            UsageRange::Hours(days * 24)
        }
        range => range,
    };
    (range, by)
}

/// Usage over time: a line for each of the names with the highest cost, and one for the rest.
pub(super) fn usage_series(
    state: &ActivityState,
    range: UsageRange,
    by: UsageBy,
    now: u64,
    (others, names): (&[OtherRow], &BTreeMap<Box<str>, Box<str>>),
) -> view::UsageSeries {
    let spans = Spans::of(state, range, by, now, others);
    let mut sums: BTreeMap<&str, UsageTotals> = BTreeMap::new();
    for (_, name, spent) in spans.rows() {
        sums.entry(name).or_default().add(spent);
    }
    let mut order: Vec<_> = sums.into_iter().collect();
    order.sort_by_key(|(_, spent)| std::cmp::Reverse((spent.cost, spent.tokens.all())));
    let mut lines: Vec<&str> = order.iter().map(|(name, _)| *name).collect();
    lines.retain(|name| *name != OTHER);
    lines.truncate(LINES);
    if order.len() > lines.len() {
        lines.push(OTHER);
    }
    let count = usize::try_from(spans.last.saturating_sub(spans.first) + 1).unwrap_or_default();
    let count = count.min(MOST_STEPS);
    let mut series: Vec<_> = lines
        .iter()
        .map(|name| view::UsageLine {
            key: (*name).to_owned(),
            name: match by {
                UsageBy::Of(Dimension::Key) => names.get(*name).map(|it| it.to_string()),
                _ => None,
            },
            requests: vec![0; count],
            tokens_in: vec![0; count],
            tokens_out: vec![0; count],
            cost_usd: vec![0.0; count],
        })
        .collect();
    for (span, name, spent) in spans.rows() {
        let step = usize::try_from(span - spans.first).unwrap_or(usize::MAX);
        let line = lines.iter().position(|known| *known == name);
        let line = line.or_else(|| lines.iter().position(|known| *known == OTHER));
        if let Some(line) = line.and_then(|line| series.get_mut(line))
            && step < count
        {
            line.requests[step] += spent.requests;
            line.tokens_in[step] += spent.tokens.prompt();
            line.tokens_out[step] += spent.tokens.output;
            line.cost_usd[step] += dollars(spent.cost);
        }
    }
    view::UsageSeries {
        step_ms: spans.width * 1000,
        t: (0..count as u64)
            .map(|step| spans.begin(spans.first + step) * 1000)
            .collect(),
        lines: series,
    }
}

/// Lines of a chart of usage, besides that of the rest.
const LINES: usize = 6;
/// Upper bound of steps of a chart of usage: those of hours that are kept.
const MOST_STEPS: usize = 1_000;

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

pub(super) fn cache_hit_share(spent: &UsageTotals) -> f64 {
    share(spent.tokens.cache_read, spent.tokens.prompt()).unwrap_or_default()
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

pub(super) fn dollars(billionths: u64) -> f64 {
    billionths as f64 / 1e9
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
