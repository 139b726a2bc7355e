//! Metrics as messages of OTLP: the families of a scrape, under the names and labels of the exposition.
//!
//! A counter is a sum, cumulative and monotonic since the process began; a histogram is cumulative, too, and has
//! explicit bounds; what an exposition calls an info is a gauge of 1. Families of OpenTelemetry's conventions for
//! generative AI have the names of these here, which the exposition has to write without points.

use std::time::SystemTime;

use super::{
    family::{Amount, Family, FamilyKind, Unit},
    histogram::HistogramReading,
};
use crate::telemetry::otlp::{
    nanos,
    protobuf::{AttributeValue, attribute, fixed64, message, number, octets, packed64},
};

/// Writer of families, as fields of `ScopeMetrics`.
pub(super) struct MessageWriter<'a> {
    out: &'a mut Vec<u8>,
    started: u64,
    now: u64,
    /// The points of one family.
    points: Vec<u8>,
}

impl<'a> MessageWriter<'a> {
    /// Writes the values of this moment, of a process that began at `started`.
    pub(super) fn new(out: &'a mut Vec<u8>, started: SystemTime, now: SystemTime) -> Self {
        let started = nanos(started);
        Self {
            out,
            started,
            // a clock may be set back
            now: nanos(now).max(started),
            points: Vec::new(),
        }
    }

    /// The points of the next family.
    pub(super) fn points(&mut self, kind: FamilyKind) -> Points<'_> {
        self.points.clear();
        Points {
            out: &mut self.points,
            started: matches!(kind, FamilyKind::Counter | FamilyKind::Histogram)
                .then_some(self.started),
            now: self.now,
        }
    }

    /// Writes a family of the points that were added. One without points is none.
    pub(super) fn end(&mut self, family: &Family, kind: FamilyKind) {
        if self.points.is_empty() {
            return;
        }
        let points = &self.points;
        message(self.out, METRICS, |out| {
            octets(out, 1, name(family, kind));
            octets(out, 2, family.help);
            if let Some(unit) = unit(family) {
                octets(out, 3, unit);
            }
            let data = match kind {
                FamilyKind::Gauge | FamilyKind::Info => 5,
                FamilyKind::Counter => 7,
                FamilyKind::Histogram => 9,
            };
            message(out, data, |out| {
                out.extend_from_slice(points);
                if matches!(kind, FamilyKind::Counter | FamilyKind::Histogram) {
                    number(out, 2, CUMULATIVE);
                }
                if kind == FamilyKind::Counter {
                    number(out, 3, MONOTONIC);
                }
            });
        });
    }
}

/// The points of a family: fields of `Gauge`, `Sum` or `Histogram`.
pub(super) struct Points<'a> {
    out: &'a mut Vec<u8>,
    /// None for values that are of a moment.
    started: Option<u64>,
    now: u64,
}

impl Points<'_> {
    /// Adds a `NumberDataPoint`.
    pub(super) fn number(&mut self, labels: &[(&'static str, &str)], amount: Amount) {
        let (started, now) = (self.started, self.now);
        message(self.out, 1, |out| {
            times(out, started, now);
            match amount {
                Amount::Whole(number) => fixed64(out, 6, number),
                Amount::Fraction(number) => fixed64(out, 4, number.to_bits()),
            }
            attributes(out, 7, labels);
        });
    }

    /// Adds a `HistogramDataPoint`.
    pub(super) fn histogram(
        &mut self,
        labels: &[(&'static str, &str)],
        reading: &HistogramReading,
    ) {
        let (started, now) = (self.started, self.now);
        message(self.out, 1, |out| {
            times(out, started, now);
            fixed64(out, 4, reading.count);
            fixed64(out, 5, reading.sum.to_bits());
            packed64(out, 6, reading.buckets.iter().map(|(_, count)| *count));
            // the last bucket has no bound
            let bounds = reading
                .buckets
                .split_last()
                .map_or(&[][..], |(_, rest)| rest);
            packed64(out, 7, bounds.iter().map(|(upper, _)| upper.to_bits()));
            attributes(out, 9, labels);
        });
    }
}

fn times(out: &mut Vec<u8>, started: Option<u64>, now: u64) {
    if let Some(started) = started {
        fixed64(out, 2, started);
    }
    fixed64(out, 3, now);
}

fn attributes(out: &mut Vec<u8>, field: u32, labels: &[(&'static str, &str)]) {
    // an empty label is none
    for (key, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        let key = match *key {
            "gen_ai_token_type" => "gen_ai.token.type",
            "gen_ai_request_model" => "gen_ai.request.model",
            key => key,
        };
        attribute(out, field, key, AttributeValue::Text(value));
    }
}

/// The name of a family: that of its samples in the exposition, or of the conventions.
fn name(family: &Family, kind: FamilyKind) -> String {
    let by_convention = match family.name {
        "gen_ai_client_token_usage" => Some("gen_ai.client.token.usage"),
        "gen_ai_server_time_to_first_token" => Some("gen_ai.server.time_to_first_token"),
        "gen_ai_server_request_duration" => Some("gen_ai.server.request.duration"),
        _ => None,
    };
    if let Some(name) = by_convention {
        return name.to_owned();
    }
    let unit = match family.unit {
        None => "",
        Some(Unit::Seconds) => "_seconds",
        Some(Unit::Bytes) => "_bytes",
        Some(Unit::Usd) => "_usd",
    };
    let suffix = match kind {
        FamilyKind::Counter => "_total",
        FamilyKind::Info => "_info",
        FamilyKind::Gauge | FamilyKind::Histogram => "",
    };
    [family.name, unit, suffix].concat()
}

/// The unit, by the Unified Code for Units of Measure. A mere number has none: receivers make a suffix of its `1`.
fn unit(family: &Family) -> Option<&'static str> {
    match family.unit {
        Some(Unit::Seconds) => Some("s"),
        Some(Unit::Bytes) => Some("By"),
        Some(Unit::Usd) => Some("{USD}"),
        None if family.name == "gen_ai_client_token_usage" => Some("{token}"),
        None => None,
    }
}

/// The field of metrics in `ScopeMetrics`.
const METRICS: u32 = 2;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
const MONOTONIC: u64 = 1;
