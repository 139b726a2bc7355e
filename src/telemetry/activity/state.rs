//! State of the activity, and its changes by events. Time comes in with the events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(super) use super::day_zone::DAY;
use super::{
    day_zone::DayZone,
    dimension::{Dimension, DimensionUsage},
    ended::{EndedExchange, EndedRecord, RedactedText},
    histogram::DurationHistogram,
    persisted::RestoredExchange,
    recent::{FAILURES, KEPT, Recent, shortened},
    ring::Ring,
    session_key::SessionKey,
    sessions::{SESSIONS, SessionTotals, Sessions},
    top_k::{TopPaths, TopUpstreams},
    totals::{ExchangeTotals, UsageTotals, is_failure},
    usage_by_model::UsageByModel,
};
use crate::{background::Buffer, exchange::Exchange};

pub(super) const MINUTE: u64 = 60;
pub(super) const TEN_MINUTES: u64 = 600;
pub(super) const HOUR: u64 = 3600;
/// Days of kept usage.
pub(super) const DAYS: u64 = 400;
/// Hours of kept usage by model: a month and a day in any time zone, and the current hour.
pub(super) const HOURS: u64 = 32 * 24 + 1;
/// Hours of kept usage by other names: a week, and the current hour.
pub(super) const HOURS_BY: u64 = 7 * 24 + 1;
/// Seconds of kept totals and quantiles.
pub(super) const SECONDS: u64 = 15 * 60;
/// Minutes of which quantiles are kept, each by itself.
pub(super) const TIMED_MINUTES: u64 = 6 * 60;
/// Minutes of kept totals: a week.
pub(super) const MINUTES: u64 = 7 * 24 * 60;

/// Name of the model if neither request nor response has one.
const UNKNOWN: &str = "unknown";
const LONGEST_MODEL: usize = 128;
const LONGEST_NAME: usize = 512;
/// Upper bound of keys whose names are remembered.
const KEY_NAMES: usize = 4096;

/// Everything that the activity keeps.
pub(super) struct ActivityState {
    /// Time zone of days.
    pub(super) zone: DayZone,
    /// Start of counting in this process.
    pub(super) began: SystemTime,
    /// First second of known totals by minute.
    pub(super) since: u64,
    /// First second of known totals by second.
    pub(super) since_second: u64,
    /// Time of the last change.
    pub(super) updated: SystemTime,
    pub(super) seconds: Ring<ExchangeTotals>,
    pub(super) minutes: Ring<ExchangeTotals>,
    /// Quantiles by second (15 minutes), minute (6 hours), ten minutes (7 days).
    pub(super) timing: [Ring<Timing>; 3],
    pub(super) hours: UsageByModel,
    /// Usage by day of [`Self::zone`], as its clocks count days.
    pub(super) days: UsageByModel,
    /// In the order of [`Dimension::ALL`].
    pub(super) dimensions: [DimensionUsage; Dimension::ALL.len()],
    pub(super) sessions: Sessions,
    /// Names of keys by their ids, as seen last.
    pub(super) key_names: BTreeMap<Box<str>, Box<str>>,
    pub(super) recent: Recent,
    pub(super) paths: TopPaths,
    pub(super) upstreams: TopUpstreams,
}

/// Durations of a span of time. Shared with readers; copied on the next count while they hold it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Timing {
    pub(super) duration: Option<Arc<DurationHistogram>>,
    pub(super) first_token: Option<Arc<DurationHistogram>>,
}

/// Sums and durations of a span of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slice {
    pub(super) sums: ExchangeTotals,
    pub(super) timing: Timing,
}

/// A span, a dimension and a name in it.
pub(super) type NamedSpan = (u64, Dimension, Box<str>);

/// Changes that are not stored yet: totals by second and minute, usage by hour and day and model, exchanges.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Delta {
    pub(super) seconds: BTreeMap<u64, Slice>,
    pub(super) minutes: BTreeMap<u64, Slice>,
    pub(super) hours: BTreeMap<(u64, Box<str>), UsageTotals>,
    pub(super) days: BTreeMap<(u64, Box<str>), UsageTotals>,
    pub(super) hours_by: BTreeMap<NamedSpan, UsageTotals>,
    pub(super) days_by: BTreeMap<NamedSpan, UsageTotals>,
    pub(super) sessions: BTreeMap<SessionKey, SessionTotals>,
    pub(super) ended: LastEnded,
}

/// History stored by an earlier process.
#[derive(Default)]
pub(super) struct StoredHistory {
    pub(super) sums: Delta,
    pub(super) ended: Vec<RestoredExchange>,
}

/// The last exchanges that ended, as many as are kept: those that failed, and the others.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct LastEnded {
    pub(super) failed: VecDeque<EndedRecord>,
    pub(super) others: VecDeque<EndedRecord>,
}

impl LastEnded {
    /// Adds one. Returns the one that it replaces, if there are enough.
    pub(super) fn add(&mut self, ended: EndedRecord) -> Option<EndedRecord> {
        let (queue, most) = if is_failure(&ended.done.exchange) {
            (&mut self.failed, FAILURES)
        } else {
            (&mut self.others, KEPT)
        };
        let replaced = (queue.len() >= most).then(|| queue.pop_front()).flatten();
        queue.push_back(ended);
        replaced
    }

    pub(super) fn append(&mut self, other: Self) {
        for ended in other.failed.into_iter().chain(other.others) {
            self.add(ended);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.failed.len() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Timing {
    fn add(&mut self, total: Duration, first_token: Option<Duration>) {
        count(&mut self.duration, Some(total));
        count(&mut self.first_token, first_token);
    }

    /// Adds the counts of another one.
    pub(super) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.duration, &other.duration),
            (&mut self.first_token, &other.first_token),
        ] {
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => Arc::make_mut(ours).merge(theirs),
                (ours @ None, Some(theirs)) => *ours = Some(Arc::clone(theirs)),
                (_, None) => {}
            }
        }
    }
}

impl Slice {
    fn merge(&mut self, other: &Self) {
        self.sums.add(&other.sums);
        self.timing.merge(&other.timing);
    }
}

impl ActivityState {
    pub(super) fn new(now: SystemTime, zone: DayZone) -> Self {
        Self {
            zone,
            began: now,
            since: second(now),
            since_second: second(now),
            updated: now,
            seconds: Ring::new(1, SECONDS as usize),
            minutes: Ring::new(MINUTE, MINUTES as usize),
            timing: [
                Ring::new(1, SECONDS as usize),
                Ring::new(MINUTE, TIMED_MINUTES as usize),
                Ring::new(TEN_MINUTES, 7 * 24 * 6),
            ],
            hours: UsageByModel::new(HOUR, HOURS),
            days: UsageByModel::new(DAY, DAYS),
            dimensions: Dimension::ALL
                .map(|it| DimensionUsage::new(it, (HOUR, HOURS_BY), (DAY, DAYS))),
            sessions: Sessions::default(),
            key_names: BTreeMap::new(),
            recent: Recent::default(),
            paths: TopPaths::default(),
            upstreams: TopUpstreams::default(),
        }
    }

    /// Takes over the stored history; without usage and sessions where all replicas have them in common.
    pub(super) fn load(&mut self, saved: StoredHistory, is_shared: bool, now: SystemTime) {
        let now = second(now);
        let StoredHistory {
            sums: mut saved,
            ended,
        } = saved;
        if is_shared {
            for (key, totals) in &saved.sessions {
                self.name_key(&key.key, totals.name.as_deref());
            }
            saved = Delta {
                seconds: saved.seconds,
                minutes: saved.minutes,
                ..Delta::default()
            };
        }
        self.recent.restore(ended);
        let [by_second, by_minute, by_ten_minutes] = &mut self.timing;
        for (second, slice) in &saved.seconds {
            if let Some(held) = self.seconds.at(*second, now) {
                held.add(&slice.sums);
                self.since_second = self.since_second.min(*second);
            }
            if let Some(held) = by_second.at(*second, now) {
                held.merge(&slice.timing);
            }
        }
        for (minute, slice) in &saved.minutes {
            let at = minute * MINUTE;
            if let Some(held) = self.minutes.at(at, now) {
                held.add(&slice.sums);
                self.since = self.since.min(at);
            }
            for ring in [&mut *by_minute, &mut *by_ten_minutes] {
                if let Some(held) = ring.at(at, now) {
                    held.merge(&slice.timing);
                }
            }
        }
        for ((hour, model), spent) in &saved.hours {
            self.hours.add(hour * HOUR, now, model, spent);
        }
        let today = self.zone.local(now);
        for ((day, model), spent) in &saved.days {
            self.days.add(day * DAY, today, model, spent);
        }
        for ((hour, dimension, name), spent) in &saved.hours_by {
            let usage = &mut self.dimensions[*dimension as usize];
            usage.hours.add(hour * HOUR, now, name, spent);
        }
        for ((day, dimension, name), spent) in &saved.days_by {
            let usage = &mut self.dimensions[*dimension as usize];
            usage.days.add(day * DAY, today, name, spent);
        }
        for (key, totals) in saved.sessions {
            self.name_key(&key.key, totals.name.as_deref());
            self.sessions.add(key, &totals);
        }
    }

    /// Remembers the name of a key.
    fn name_key(&mut self, key: &str, name: Option<&str>) {
        let Some(name) = name else { return };
        let is_full = self.key_names.len() >= KEY_NAMES;
        match self.key_names.get_mut(key) {
            Some(known) if **known == *name => {}
            Some(known) => *known = name.into(),
            None if is_full => {}
            None => {
                self.key_names.insert(key.into(), name.into());
            }
        }
    }

    /// The moment from which on failures are known.
    pub(super) fn known_since(&self) -> SystemTime {
        let oldest = self.recent.oldest();
        oldest.map_or(self.began, |oldest| oldest.min(self.began))
    }

    /// Counts exchanges at their end: their start plus their duration, but never after now. What a batch has
    /// in common, a second and a few models, is looked up once.
    pub(super) fn count<'a>(
        &mut self,
        exchanges: impl IntoIterator<Item = &'a Exchange>,
        now: SystemTime,
        mut unsaved: Option<&mut Delta>,
    ) {
        self.updated = now;
        let mut span = SecondCounts::default();
        for exchange in exchanges {
            let ended = end(exchange, now);
            let at = second(ended);
            if at != span.at {
                self.add(std::mem::take(&mut span), now, unsaved.as_deref_mut());
                span.at = at;
            }
            span.add(exchange);
            self.paths.add(exchange);
            self.upstreams.add(exchange, ended);
            if let Some(owner) = &exchange.begun.owner {
                self.name_key(&owner.key, Some(&owner.name));
            }
            let unsaved = unsaved.as_deref_mut();
            let unsaved = unsaved.map(|unsaved| &mut unsaved.sessions);
            self.sessions.count(exchange, ended, unsaved);
        }
        self.add(span, now, unsaved);
    }

    fn add(&mut self, span: SecondCounts<'_>, now: SystemTime, mut unsaved: Option<&mut Delta>) {
        let SecondCounts {
            at,
            slice,
            spent,
            by,
        } = span;
        if slice.sums.requests == 0 {
            return;
        }
        let now = second(now);
        for ring in [&mut self.seconds, &mut self.minutes] {
            if let Some(held) = ring.at(at, now) {
                held.add(&slice.sums);
            }
        }
        for ring in &mut self.timing {
            if let Some(timing) = ring.at(at, now) {
                timing.merge(&slice.timing);
            }
        }
        if let Some(unsaved) = &mut unsaved {
            unsaved
                .minutes
                .entry(at / MINUTE)
                .or_default()
                .merge(&slice);
            unsaved.seconds.entry(at).or_default().merge(&slice);
        }
        let local = (self.zone.local(at), self.zone.local(now));
        for (model, spent) in spent {
            let hour = self.hours.add(at, now, model, &spent);
            let day = self.days.add(local.0, local.1, model, &spent);
            if let Some(unsaved) = &mut unsaved {
                for (sums, named) in [(&mut unsaved.hours, hour), (&mut unsaved.days, day)] {
                    if let Some((span, model)) = named {
                        sums.entry((span, model.into())).or_default().add(&spent);
                    }
                }
            }
        }
        for (dimension, name, spent) in by {
            let usage = &mut self.dimensions[dimension as usize];
            let hour = usage.hours.add(at, now, name, &spent);
            let day = usage.days.add(local.0, local.1, name, &spent);
            if let Some(unsaved) = &mut unsaved {
                for (sums, named) in [(&mut unsaved.hours_by, hour), (&mut unsaved.days_by, day)] {
                    if let Some((span, name)) = named {
                        let sum = sums.entry((span, dimension, name.into())).or_default();
                        sum.add(&spent);
                    }
                }
            }
        }
    }

    /// Lists an exchange that was counted, with the text of the error response and the type of the error in
    /// it. Returns the part that may be stored, and the exchange that is no longer listed.
    pub(super) fn list(
        &mut self,
        exchange: Box<Exchange>,
        (text, kind): (Option<RedactedText>, Option<Box<str>>),
        now: SystemTime,
    ) -> (EndedRecord, Option<Arc<EndedExchange>>) {
        let ended = end(&exchange, now);
        self.recent.ended(exchange, ended, text, kind)
    }
}

/// Counts of exchanges that ended within one second.
#[derive(Default)]
struct SecondCounts<'a> {
    at: u64,
    slice: Slice,
    /// By model.
    spent: Vec<(&'a str, UsageTotals)>,
    by: Vec<(Dimension, &'a str, UsageTotals)>,
}

impl<'a> SecondCounts<'a> {
    fn add(&mut self, exchange: &'a Exchange) {
        let timings = &exchange.timings;
        self.slice.sums.add(&ExchangeTotals::of(exchange));
        self.slice.timing.add(timings.total, timings.first_token);
        if let Some(usage) = &exchange.usage {
            let model = usage.model.as_deref().unwrap_or(UNKNOWN);
            let own = std::iter::once((model, UsageTotals::of_model(usage)));
            for (model, spent) in own.chain(UsageTotals::of_others(usage)) {
                let model = shortened(model, LONGEST_MODEL);
                match self.spent.iter_mut().find(|(known, _)| *known == model) {
                    Some((_, sum)) => sum.add(&spent),
                    None => self.spent.push((model, spent)),
                }
            }
            let spent = UsageTotals::of(usage);
            for dimension in Dimension::ALL {
                let name = shortened(dimension.of(exchange), LONGEST_NAME);
                let mut known = self.by.iter_mut();
                match known.find(|(of, known, _)| *of == dimension && *known == name) {
                    Some((_, _, sum)) => sum.add(&spent),
                    None => self.by.push((dimension, name, spent)),
                }
            }
        }
    }
}

/// The end of an exchange.
fn end(exchange: &Exchange, now: SystemTime) -> SystemTime {
    (exchange.begun.started + exchange.timings.total.min(LONGEST)).min(now)
}

impl Buffer for Delta {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Delta {
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            seconds,
            minutes,
            hours,
            days,
            hours_by,
            days_by,
            sessions,
            ended,
        } = self;
        let has_sums = !seconds.is_empty() || !minutes.is_empty();
        let has_usage = !hours.is_empty() || !days.is_empty();
        let has_names = !hours_by.is_empty() || !days_by.is_empty();
        !has_sums && !has_usage && !has_names && sessions.is_empty() && ended.is_empty()
    }

    pub(super) fn add(&mut self, other: Self) {
        for (ours, theirs) in [
            (&mut self.seconds, other.seconds),
            (&mut self.minutes, other.minutes),
        ] {
            for (span, slice) in theirs {
                ours.entry(span).or_default().merge(&slice);
            }
        }
        self.ended.append(other.ended);
        for (key, spent) in other.hours {
            self.hours.entry(key).or_default().add(&spent);
        }
        for (key, spent) in other.days {
            self.days.entry(key).or_default().add(&spent);
        }
        for (ours, theirs) in [
            (&mut self.hours_by, other.hours_by),
            (&mut self.days_by, other.days_by),
        ] {
            for (key, spent) in theirs {
                ours.entry(key).or_default().add(&spent);
            }
        }
        for (key, later) in other.sessions {
            self.sessions.entry(key).or_default().merge(&later);
        }
    }

    /// Removes spans beyond those that are kept.
    pub(super) fn prune(&mut self, now: u64) {
        let from = |width: u64, keep: u64| (now / width + 1).saturating_sub(keep);
        self.seconds = self.seconds.split_off(&from(1, SECONDS));
        self.minutes = self.minutes.split_off(&from(MINUTE, MINUTES));
        // if the disk cannot be written for hours, totals are enough
        let recent = from(MINUTE, TIMED_MINUTES);
        for (_, slice) in self.minutes.range_mut(..recent) {
            slice.timing = Timing::default();
        }
        self.hours = self.hours.split_off(&(from(HOUR, HOURS), "".into()));
        self.days = self.days.split_off(&(from(DAY, DAYS), "".into()));
        let begin = |from: u64| (from, Dimension::ALL[0], Box::<str>::default());
        self.hours_by = self.hours_by.split_off(&begin(from(HOUR, HOURS_BY)));
        self.days_by = self.days_by.split_off(&begin(from(DAY, DAYS)));
        if self.sessions.len() > SESSIONS {
            let mut lasts: Vec<u64> = self.sessions.values().map(SessionTotals::last).collect();
            lasts.sort_unstable();
            let oldest = lasts[lasts.len() - SESSIONS];
            self.sessions.retain(|_, totals| totals.last() >= oldest);
        }
    }
}

/// Longer than any exchange, and short enough to be added to any time.
const LONGEST: Duration = Duration::from_secs(DAY * 366);

fn count(histogram: &mut Option<Arc<DurationHistogram>>, duration: Option<Duration>) {
    if let Some(duration) = duration {
        Arc::make_mut(histogram.get_or_insert_default()).add(duration);
    }
}

/// Whole seconds since the epoch.
pub(super) fn second(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
