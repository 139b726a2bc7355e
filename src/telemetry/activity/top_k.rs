//! Counts by path and by upstream since the process began, in tables of a bounded size.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::{histogram::DurationHistogram, recent::shortened, totals::is_failure};
use crate::exchange::{Exchange, TerminationSource, Tried};

/// Upper bound of paths with counts of their own; the rest is [`OTHER`].
const PATHS: usize = 200;
/// Upper bound of upstreams with counts of their own.
const UPSTREAMS: usize = 64;
/// Name under which everything beyond the bounds is counted.
const OTHER: &str = "other";
const LONGEST_NAME: usize = 1024;
/// Rate-limit fields of an upstream; there are about ten.
const FIELDS: usize = 16;
const LONGEST_FIELD: usize = 128;

/// Counts by path.
#[derive(Default)]
pub(super) struct TopPaths(HashMap<Box<str>, PathCounts>);

/// Counts of a path.
#[derive(Clone, Copy, Default)]
pub(super) struct PathCounts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) took: Duration,
    pub(super) sent: u64,
}

impl TopPaths {
    pub(super) fn add(&mut self, exchange: &Exchange) {
        self.make_room(&exchange.begun.path);
        change(&mut self.0, &exchange.begun.path, PATHS, |counts| {
            counts.requests += 1;
            counts.errors += u64::from(is_failure(exchange));
            counts.took = counts.took.saturating_add(exchange.timings.total);
            counts.sent = counts.sent.saturating_add(exchange.sent);
        });
    }

    /// Evicts a path with a single request if the table is full: else a scan of random paths would fill
    /// it.
    fn make_room(&mut self, path: &str) {
        if self.0.len() < PATHS || self.0.contains_key(shortened(path, LONGEST_NAME)) {
            return;
        }
        let once = self
            .0
            .iter()
            .find(|(path, it)| it.requests == 1 && path.as_ref() != OTHER);
        let Some(once) = once.map(|(path, _)| path.clone()) else {
            return;
        };
        if let Some(counts) = self.0.remove(&once) {
            let other = self.0.entry(OTHER.into()).or_default();
            other.requests += counts.requests;
            other.errors += counts.errors;
            other.took = other.took.saturating_add(counts.took);
            other.sent = other.sent.saturating_add(counts.sent);
        }
    }

    /// The paths, those with the most requests first.
    pub(super) fn list(&self) -> Vec<(Box<str>, PathCounts)> {
        let mut list: Vec<_> = self
            .0
            .iter()
            .map(|(path, it)| (path.clone(), *it))
            .collect();
        list.sort_by(|(a, one), (b, other)| other.requests.cmp(&one.requests).then(a.cmp(b)));
        list
    }
}

/// Counts by upstream.
#[derive(Default)]
pub(super) struct TopUpstreams(HashMap<Box<str>, UpstreamCounts>);

/// Counts of an upstream.
#[derive(Clone, Default)]
pub(super) struct UpstreamCounts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) status_429: u64,
    pub(super) status_529: u64,
    pub(super) connects: u64,
    pub(super) connect_failures: u64,
    pub(super) connect: DurationHistogram,
    /// From the connection to the response head.
    pub(super) head: DurationHistogram,
    /// Name, value, when it was seen last.
    pub(super) rate_limit: Vec<(Box<str>, String, SystemTime)>,
}

impl TopUpstreams {
    pub(super) fn add(&mut self, exchange: &Exchange, at: SystemTime) {
        for tried in &exchange.tries {
            change(&mut self.0, &tried.upstream, UPSTREAMS, |counts| {
                counts.requests += 1;
                counts.errors += 1;
                match tried.outcome {
                    Tried::Unreachable => counts.connect_failures += 1,
                    Tried::Unanswered => {}
                    Tried::Status(status) => counts.answered(status),
                    // the status that says the same
                    Tried::Overloaded => counts.answered(529),
                }
            });
        }
        let Some(upstream) = &exchange.upstream else {
            return;
        };
        let is_answered = exchange.timings.head.is_some();
        // an attempt without a response is among the tries, unless the client left before
        if is_answered || exchange.termination.source == TerminationSource::Client {
            change(&mut self.0, upstream, UPSTREAMS, |counts| {
                counts.requests += 1;
                if is_answered {
                    counts.add_answer(exchange, at);
                }
            });
        }
    }

    pub(super) fn list(&self) -> Vec<(Box<str>, UpstreamCounts)> {
        let list = self.0.iter();
        let mut list: Vec<_> = list.map(|(url, it)| (url.clone(), it.clone())).collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }
}

impl UpstreamCounts {
    fn add_answer(&mut self, exchange: &Exchange, at: SystemTime) {
        let timings = &exchange.timings;
        self.errors += u64::from(is_failure(exchange));
        self.answered(exchange.status.unwrap_or_default());
        if let Some(connecting) = timings.connecting {
            self.connects += 1;
            self.connect.add(connecting);
        }
        let connected = timings.connected.unwrap_or_default();
        let head = timings.head.unwrap_or_default();
        self.head.add(head.saturating_sub(connected));
        for (name, value) in exchange.response_fields.rate_limits() {
            self.saw(shortened(name, LONGEST_FIELD), value, at);
        }
    }

    fn answered(&mut self, status: u16) {
        self.status_429 += u64::from(status == 429);
        self.status_529 += u64::from(status == 529);
    }

    fn saw(&mut self, name: &str, value: &str, at: SystemTime) {
        let mut fields = self.rate_limit.iter_mut();
        if let Some(field) = fields.find(|(known, ..)| known.as_ref() == name) {
            if field.1 != value {
                value.clone_into(&mut field.1);
            }
            field.2 = at;
        } else if self.rate_limit.len() < FIELDS {
            self.rate_limit.push((name.into(), value.into(), at));
        }
    }
}

/// Changes the counts of a name, or of [`OTHER`] where there are enough. A known name is not copied.
fn change<T: Default>(
    counts: &mut HashMap<Box<str>, T>,
    name: &str,
    most: usize,
    change: impl FnOnce(&mut T),
) {
    let name = shortened(name, LONGEST_NAME);
    if let Some(known) = counts.get_mut(name) {
        return change(known);
    }
    let name = if counts.len() < most { name } else { OTHER };
    change(counts.entry(name.into()).or_default());
}
