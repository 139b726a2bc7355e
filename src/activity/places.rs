//! What is counted by path and by upstream, since the process began.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::{histogram::Histogram, recent::shortened, sums::is_success};
use crate::record::{By, Exchange, Phase};

/// Paths that are told apart; the rest is [`OTHER`].
const PATHS: usize = 200;
/// Upstreams that are told apart.
const UPSTREAMS: usize = 64;
/// What is counted beyond the bounds.
const OTHER: &str = "other";
const LONGEST_NAME: usize = 1024;
/// Rate-limit fields of an upstream; there are about ten.
const FIELDS: usize = 16;
const LONGEST_FIELD: usize = 128;

/// Counts by path.
#[derive(Default)]
pub(super) struct Paths(HashMap<Box<str>, PathCounts>);

/// Counts of a path.
#[derive(Clone, Copy, Default)]
pub(super) struct PathCounts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) took: Duration,
    pub(super) sent: u64,
}

impl Paths {
    pub(super) fn add(&mut self, exchange: &Exchange) {
        let counts = entry(&mut self.0, &exchange.begun.path, PATHS);
        counts.requests += 1;
        counts.errors += u64::from(!is_success(exchange));
        counts.took = counts.took.saturating_add(exchange.timings.total);
        counts.sent = counts.sent.saturating_add(exchange.sent);
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
pub(super) struct Upstreams(HashMap<Box<str>, UpstreamCounts>);

/// Counts of an upstream.
#[derive(Clone, Default)]
pub(super) struct UpstreamCounts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) status_429: u64,
    pub(super) status_529: u64,
    pub(super) connects: u64,
    pub(super) connect_failures: u64,
    pub(super) connect: Histogram,
    /// From the connection to the response head.
    pub(super) head: Histogram,
    /// Name, value, when it was seen last.
    pub(super) rate_limit: Vec<(Box<str>, Box<str>, SystemTime)>,
}

impl Upstreams {
    pub(super) fn add(&mut self, exchange: &Exchange, at: SystemTime) {
        let Some(upstream) = &exchange.upstream else {
            return;
        };
        let counts = entry(&mut self.0, upstream, UPSTREAMS);
        let timings = &exchange.timings;
        let is_theirs = exchange.ended.by != By::Proxy;
        counts.requests += 1;
        counts.errors += u64::from(exchange.ended.by != By::Client && !is_success(exchange));
        counts.status_429 += u64::from(is_theirs && exchange.status == Some(429));
        counts.status_529 += u64::from(is_theirs && exchange.status == Some(529));
        match timings.connected {
            Some(_) => {
                if let Some(connecting) = timings.connecting {
                    counts.connects += 1;
                    counts.connect.add(connecting);
                }
            }
            None => {
                let is_failure = !is_theirs && exchange.ended.phase == Phase::Request;
                counts.connect_failures += u64::from(is_failure);
            }
        }
        if let Some(head) = timings.head {
            let connected = timings.connected.unwrap_or_default();
            counts.head.add(head.saturating_sub(connected));
        }
        for (name, value) in &exchange.rate_limit {
            counts.saw(shortened(name, LONGEST_FIELD), value, at);
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
    fn saw(&mut self, name: &str, value: &str, at: SystemTime) {
        let value = shortened(value, LONGEST_FIELD).into();
        let mut fields = self.rate_limit.iter_mut();
        if let Some(field) = fields.find(|(known, ..)| known.as_ref() == name) {
            (field.1, field.2) = (value, at);
        } else if self.rate_limit.len() < FIELDS {
            self.rate_limit.push((name.into(), value, at));
        }
    }
}

/// The counts of a name, or of [`OTHER`] where there are enough.
fn entry<'a, T: Default>(
    counts: &'a mut HashMap<Box<str>, T>,
    name: &str,
    most: usize,
) -> &'a mut T {
    let name = shortened(name, LONGEST_NAME);
    let name = if counts.contains_key(name) || counts.len() < most {
        name
    } else {
        OTHER
    };
    counts.entry(name.into()).or_default()
}
