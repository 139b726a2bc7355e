//! Everything that is held, and how an event changes it. Time comes in with the events.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    histogram::Histogram,
    ledger::Ledger,
    places::{Paths, Upstreams},
    recent::{Recent, Text, shortened},
    ring::Ring,
    sums::{Spent, Sums},
};
use crate::record::{Answered, Begun, Exchange, Progress};

pub(super) const MINUTE: u64 = 60;
pub(super) const TEN_MINUTES: u64 = 600;
pub(super) const HOUR: u64 = 3600;
pub(super) const DAY: u64 = 86_400;
/// Days of which the spending is kept.
pub(super) const DAYS: u64 = 400;
/// Hours of which the spending is kept: a week, and the hour that has begun.
pub(super) const HOURS: u64 = 7 * 24 + 1;
/// Minutes of which sums are kept: a week.
pub(super) const MINUTES: u64 = 7 * 24 * 60;

/// The name of a model that neither request nor answer named.
const UNKNOWN: &str = "unknown";
const LONGEST_MODEL: usize = 128;

/// What is held.
pub(super) struct State {
    /// When the process began to count.
    pub(super) began: SystemTime,
    /// The second from which on sums of minutes are known.
    pub(super) since: u64,
    /// When something changed.
    pub(super) updated: SystemTime,
    pub(super) seconds: Ring<Sums>,
    pub(super) minutes: Ring<Sums>,
    /// Quantiles by second (15 minutes), minute (6 hours), ten minutes (7 days).
    pub(super) timing: [Ring<Timing>; 3],
    pub(super) hours: Ledger,
    pub(super) days: Ledger,
    pub(super) recent: Recent,
    pub(super) paths: Paths,
    pub(super) upstreams: Upstreams,
}

/// Durations of a span of time. Shared with whoever looks at them; counted on in a copy then.
#[derive(Default)]
pub(super) struct Timing {
    pub(super) duration: Option<Arc<Histogram>>,
    pub(super) first_token: Option<Arc<Histogram>>,
}

/// What is yet to be stored: additions by minute, and by hour and day and model.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Additions {
    pub(super) minutes: BTreeMap<u64, Sums>,
    pub(super) hours: BTreeMap<(u64, Box<str>), Spent>,
    pub(super) days: BTreeMap<(u64, Box<str>), Spent>,
}

impl State {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            began: now,
            since: second(now),
            updated: now,
            seconds: Ring::new(1, 15 * 60),
            minutes: Ring::new(MINUTE, MINUTES as usize),
            timing: [
                Ring::new(1, 15 * 60),
                Ring::new(MINUTE, 6 * 60),
                Ring::new(TEN_MINUTES, 7 * 24 * 6),
            ],
            hours: Ledger::new(HOUR, HOURS),
            days: Ledger::new(DAY, DAYS),
            recent: Recent::default(),
            paths: Paths::default(),
            upstreams: Upstreams::default(),
        }
    }

    /// Takes over what was stored.
    pub(super) fn load(&mut self, saved: &Additions, now: SystemTime) {
        let now = second(now);
        for (minute, sums) in &saved.minutes {
            if let Some(held) = self.minutes.at(minute * MINUTE, now) {
                held.add(sums);
                self.since = self.since.min(minute * MINUTE);
            }
        }
        for ((hour, model), spent) in &saved.hours {
            self.hours.add(hour * HOUR, now, model, spent);
        }
        for ((day, model), spent) in &saved.days {
            self.days.add(day * DAY, now, model, spent);
        }
    }

    pub(super) fn begun(&mut self, begun: Begun, progress: Arc<Progress>, now: SystemTime) {
        self.updated = now;
        self.recent.begun(begun, progress);
    }

    pub(super) fn answered(&mut self, answered: Answered, now: SystemTime) {
        self.updated = now;
        self.recent.answered(answered);
    }

    /// Counts an exchange at its end: begun when it says, ended so much later, but never after now.
    pub(super) fn ended(
        &mut self,
        exchange: Exchange,
        text: Option<Text>,
        now: SystemTime,
        mut unsaved: Option<&mut Additions>,
    ) {
        let ended = exchange.begun.started + exchange.timings.total.min(LONGEST);
        let ended = ended.min(now);
        let (at, now_second) = (second(ended), second(now));
        let sums = Sums::of(&exchange);
        self.updated = now;
        for ring in [&mut self.seconds, &mut self.minutes] {
            if let Some(held) = ring.at(at, now_second) {
                held.add(&sums);
            }
        }
        for ring in &mut self.timing {
            if let Some(timing) = ring.at(at, now_second) {
                count(&mut timing.duration, Some(exchange.timings.total));
                count(&mut timing.first_token, exchange.timings.first_token);
            }
        }
        if let Some(unsaved) = &mut unsaved {
            unsaved.minutes.entry(at / MINUTE).or_default().add(&sums);
        }
        if let Some(usage) = &exchange.usage {
            let model = usage.model.as_deref().unwrap_or(UNKNOWN);
            let own = std::iter::once((model, Spent::of_model(usage)));
            for (model, spent) in own.chain(Spent::of_others(usage)) {
                let model = shortened(model, LONGEST_MODEL);
                let hour = self.hours.add(at, now_second, model, &spent);
                let day = self.days.add(at, now_second, model, &spent);
                if let Some(unsaved) = &mut unsaved {
                    if let Some((hour, model)) = hour {
                        let held = unsaved.hours.entry((hour, model.into())).or_default();
                        held.add(&spent);
                    }
                    if let Some((day, model)) = day {
                        let held = unsaved.days.entry((day, model.into())).or_default();
                        held.add(&spent);
                    }
                }
            }
        }
        self.paths.add(&exchange);
        self.upstreams.add(&exchange, ended);
        self.recent.ended(exchange, ended, text);
    }
}

impl Additions {
    pub(super) fn is_empty(&self) -> bool {
        self.minutes.is_empty() && self.hours.is_empty() && self.days.is_empty()
    }

    pub(super) fn add(&mut self, other: Self) {
        for (minute, sums) in other.minutes {
            self.minutes.entry(minute).or_default().add(&sums);
        }
        for (key, spent) in other.hours {
            self.hours.entry(key).or_default().add(&spent);
        }
        for (key, spent) in other.days {
            self.days.entry(key).or_default().add(&spent);
        }
    }

    /// Forgets what is older than anything is kept for.
    pub(super) fn prune(&mut self, now: u64) {
        let from = |width: u64, keep: u64| (now / width + 1).saturating_sub(keep);
        self.minutes = self.minutes.split_off(&from(MINUTE, MINUTES));
        self.hours = self.hours.split_off(&(from(HOUR, HOURS), "".into()));
        self.days = self.days.split_off(&(from(DAY, DAYS), "".into()));
    }
}

/// Longer than any exchange, and short enough to be added to any time.
const LONGEST: Duration = Duration::from_secs(DAY * 366);

fn count(histogram: &mut Option<Arc<Histogram>>, duration: Option<Duration>) {
    if let Some(duration) = duration {
        Arc::make_mut(histogram.get_or_insert_default()).add(duration);
    }
}

/// Whole seconds since the epoch.
pub(super) fn second(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
