//! Looks in their order: since when a condition holds, whether it was told, and when it has ended.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use super::{
    alert::Alert,
    condition::{Condition, Look, Window, conditions},
};
use crate::config::AlertSettings;

/// The last looks, and the conditions that hold.
pub(super) struct Watch {
    settings: AlertSettings,
    /// The newest last.
    looks: VecDeque<Look>,
    /// Cost at the minutes of the last hour, the newest last.
    costs: VecDeque<(Instant, u64)>,
    /// By kind and subject.
    held: BTreeMap<(Alert, Option<String>), Held>,
}

/// A condition that holds, or has held.
struct Held {
    condition: Condition,
    since: SystemTime,
    began: Instant,
    /// Looks in a row at which it held.
    looks: u32,
    /// Looks in a row at which it did not.
    calm: u32,
    is_told: bool,
}

/// A condition to be told of.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) condition: Condition,
    pub(super) since: SystemTime,
    /// Time for which it held; none while it does.
    pub(super) lasted: Option<Duration>,
}

impl Watch {
    pub(super) fn new(settings: &AlertSettings) -> Self {
        Self {
            settings: settings.clone(),
            looks: VecDeque::new(),
            costs: VecDeque::new(),
            held: BTreeMap::new(),
        }
    }

    /// Takes the newest look, and gives what is to be told.
    pub(super) fn look(&mut self, now: Look) -> Vec<Event> {
        let hour = self.cost_of_the_hour(&now);
        if self.looks.len() > LONG {
            self.looks.pop_front();
        }
        let (at, time) = (now.at, now.time);
        self.looks.push_back(now);
        let (Some(now), Some(long)) = (self.looks.back(), self.looks.front()) else {
            return Vec::new();
        };
        let short = self.looks.iter().rev().nth(SHORT).unwrap_or(long);
        let window = Window {
            now,
            short,
            long,
            hour,
        };
        let found = conditions(&window, &self.settings);
        self.judge(found, at, time)
    }

    /// Billionths of a US dollar since an hour ago, or since the first look.
    fn cost_of_the_hour(&mut self, now: &Look) -> u64 {
        let cost = now.counters.cost;
        let age = |at: &Instant| now.at.saturating_duration_since(*at);
        let is_due = |last: &(Instant, u64)| age(&last.0) >= MINUTE;
        if self.costs.back().is_none_or(is_due) {
            self.costs.push_back((now.at, cost));
        }
        while self.costs.len() > 1 && self.costs.front().is_some_and(|first| age(&first.0) > HOUR) {
            self.costs.pop_front();
        }
        self.costs
            .front()
            .map_or(0, |first| cost.saturating_sub(first.1))
    }

    fn judge(&mut self, found: Vec<Condition>, at: Instant, time: SystemTime) -> Vec<Event> {
        let mut events = Vec::new();
        for held in self.held.values_mut() {
            held.calm += 1;
        }
        for condition in found {
            let patience = condition.alert.facts().patience;
            let key = (condition.alert, condition.subject.clone());
            let held = self.held.entry(key).or_insert_with(|| Held {
                condition: condition.clone(),
                since: time,
                began: at,
                looks: 0,
                calm: 0,
                is_told: false,
            });
            held.condition = condition;
            held.looks += 1;
            held.calm = 0;
            if held.looks >= patience && !held.is_told {
                held.is_told = true;
                events.push(Event {
                    condition: held.condition.clone(),
                    since: held.since,
                    lasted: None,
                });
            }
        }
        self.held.retain(|_, held| {
            // one that was not told yet has to hold without a gap
            let is_over = held.calm >= if held.is_told { CALM } else { 1 };
            if is_over && held.is_told {
                events.push(Event {
                    condition: held.condition.clone(),
                    since: held.since,
                    lasted: Some(at.saturating_duration_since(held.began)),
                });
            }
            !is_over
        });
        events
    }
}

/// Looks between the two that most conditions compare: five minutes of 15 s.
const SHORT: usize = 20;

/// Looks between the two that the others compare.
const LONG: usize = 60;

/// Looks in a row without a condition after which it has ended.
const CALM: u32 = 4;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
