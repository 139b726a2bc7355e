//! Metrics of the process: counted by worker, merged and written as text or OpenMetrics on a scrape, or as
//! messages of OTLP.
//!
//! A worker has a [`Shard`]: dense arrays of relaxed atomics, on cache lines that no other worker
//! writes to. Counting an exchange takes no lock and allocates nothing. Labels are a table of the program;
//! only names of an upstream, models and its types of errors, have a place in a table that only grows (`metrics::label_table`). [`Metrics::expose`] adds
//! up the shards. It refuses labels without a bound: sessions, user agents, keys and clients are no labels.
//!
//! # Upper bounds of series
//!
//! | family | labels | at most |
//! |---|---|---|
//! | `anthropic_proxy_requests_total` | method 8 × route 7 × status 6 × outcome 4 × phase 2 × result 3 | 8,064; only those seen, about 30 |
//! | `anthropic_proxy_aborts_total` | side 3 × phase 2 × reason 50 | 300; only those seen |
//! | `anthropic_proxy_edits_total` | outcome 11 | 11 |
//! | `anthropic_proxy_verified_exchanges_total` | result 3 | 3 |
//! | `anthropic_proxy_content_bytes_total` | direction 2 × route 7 | 14 |
//! | `anthropic_proxy_request_duration_seconds`, `anthropic_proxy_time_to_head_seconds` | route 7 | 7 × 22 each |
//! | `anthropic_proxy_overhead_seconds` | | 17 |
//! | `gen_ai_client_token_usage` | model 51 × type 5 | 255 × 35; only those seen |
//! | `gen_ai_server_time_to_first_token_seconds`, `gen_ai_server_request_duration_seconds` | model 51 | 51 × 22 each; only those seen |
//! | `anthropic_proxy_cost_usd_total`, `anthropic_proxy_unpriced_requests_total`, `anthropic_proxy_at_least_requests_total` | model 51 | 51 each |
//! | `anthropic_proxy_team_requests_total`, `anthropic_proxy_team_cost_usd_total` | team 51 × result 3; team 51 | 204; only those seen |
//! | `anthropic_proxy_team_tokens_total` | team 51 × type 5 | 255; only those seen |
//! | `anthropic_proxy_cache_breaks_total` | cause 8 | 8 |
//! | `anthropic_proxy_upstream_errors_total` | error type 24 | 24 |
//! | `anthropic_proxy_server_tool_requests_total` | | 1 |
//! | `anthropic_proxy_metering_failures_total` | reason 6 | 6 |
//! | `anthropic_proxy_access_refusals_total` | reason 18 × team 52 | 936; only those seen |
//! | `anthropic_proxy_access_waiting_requests`, `anthropic_proxy_access_wait_seconds` | | 1, 22 |
//! | `anthropic_proxy_upstream_connects_total` | outcome 16 | 16 |
//! | `anthropic_proxy_upstream_connect_duration_seconds` | result 2 | 2 × 22 |
//! | `anthropic_proxy_upstream_moves_total` | reason 5 | 5 |
//! | `anthropic_proxy_upstream_circuits`, `anthropic_proxy_upstream_idle_connections` | upstream × state 5; upstream | 6 an upstream |
//! | build, prices, in flight, connections, reloads, log lines, lost exchanges, lost traces, `process_*` | | 18 |
//! | `anthropic_proxy_metric_exports_total` | result 2 | 2 |

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, prometheus_text, text},
    registry::Registry,
};

mod access;
mod counters;
mod family;
mod format;
mod gauges;
mod generation;
mod histogram;
mod label_table;
mod message;
mod process;
mod reading;
mod requests;
mod teams;
mod upstream;
mod writer;

pub use self::{
    access::{AccessMetrics, Waiting},
    format::Format,
    gauges::{Gauges, SharingGauges, UpstreamGauges},
    reading::{CounterReading, ModelReading},
    upstream::Moved,
};
use crate::{exchange::Exchange, label::Label};

/// The metrics of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    known: Arc<LearnedLabels>,
    shards: Mutex<Vec<Arc<Shard>>>,
}

/// Counters of one worker, which alone counts in it.
///
/// Aligned to 128 bytes, since processors fetch pairs of cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shard {
    known: Arc<LearnedLabels>,
    requests: requests::RequestMetrics,
    generation: generation::GenerationMetrics,
    teams: teams::TeamMetrics,
    upstream: upstream::UpstreamMetrics,
    access: AccessMetrics,
}

/// Labels that are learned, shared by all workers.
#[derive(Debug, Default)]
struct LearnedLabels {
    generation: generation::GenerationLabels,
    teams: teams::TeamLabels,
}

impl Metrics {
    /// Creates metrics without counts.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns a shard for a worker: that of a worker that is gone, with its counts, else a new one.
    pub fn shard(self: &Arc<Self>) -> Arc<Shard> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = shards.iter().find(|shard| Arc::strong_count(shard) == 1) {
            return Arc::clone(free);
        }
        let shard = Arc::new(Shard::new(&self.known));
        shards.push(Arc::clone(&shard));
        shard
    }

    /// Number of requests since the process began, and of those that failed.
    pub fn requests(&self) -> (u64, u64) {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = shards.iter().map(|shard| shard.requests.totals());
        totals.fold((0, 0), |(all, failed), (more, more_failed)| {
            (all + more, failed + more_failed)
        })
    }

    /// Writes all metrics in a format.
    pub fn expose(&self, now: &Gauges, format: Format) -> String {
        let mut exposition = String::with_capacity(ROOM);
        let registry = self.scrape(now);
        // to write into a String does not fail
        let _ = match format {
            Format::Text => prometheus_text::encode(&mut exposition, &registry),
            Format::OpenMetrics => text::encode(&mut exposition, &registry),
        };
        exposition
    }

    /// All metrics as messages of OTLP: fields of `ScopeMetrics`. Their sums are since `started`.
    pub(super) fn messages(&self, now: &Gauges, started: SystemTime) -> Vec<u8> {
        let mut messages = Vec::with_capacity(ROOM);
        let writer = message::MessageWriter::new(&mut messages, started, SystemTime::now());
        // to write into a vector does not fail
        let _ = self
            .moment(now)
            .write(&mut writer::FamilyWriter::Message(writer));
        messages
    }

    /// Adds up the counters of all workers.
    pub fn reading(&self) -> CounterReading {
        let sum = self.sum();
        let process = process::Process::read();
        sum.reading(process.descriptors())
    }

    /// Sum of the counters of all workers.
    fn sum(&self) -> Shard {
        let sum = Shard::new(&self.known);
        for shard in &*self.shards.lock().unwrap_or_else(PoisonError::into_inner) {
            sum.absorb(shard);
        }
        sum
    }

    fn scrape(&self, now: &Gauges) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.moment(now)));
        registry
    }

    fn moment(&self, now: &Gauges) -> Scrape {
        Scrape {
            sum: self.sum(),
            now: now.clone(),
            process: process::Process::read(),
        }
    }
}

impl Shard {
    fn new(known: &Arc<LearnedLabels>) -> Self {
        Self {
            known: Arc::clone(known),
            ..Self::default()
        }
    }

    /// Counts an exchange that has ended.
    pub fn exchange(&self, exchange: &Exchange) {
        self.requests.count(exchange);
        self.generation.count(&self.known.generation, exchange);
        self.teams.count(&self.known.teams, exchange);
    }

    /// Counts a connection to an upstream that was opened, or failed.
    pub fn connected(&self, failure: Option<Label>, took: Duration) {
        self.upstream.connected(failure, took);
    }

    /// Counts a request that is sent again.
    pub fn moved(&self, why: Moved) {
        self.upstream.moved(why);
    }

    /// Counts a request that a rule or limit on keys refused.
    pub fn refused(&self, reason: Label, team: Option<&str>) {
        self.access.refused(&self.known.teams, reason, team);
    }

    /// Counts of requests with a key.
    pub fn access(&self) -> &AccessMetrics {
        &self.access
    }

    fn reading(&self, descriptors: Option<(u64, u64)>) -> CounterReading {
        let Self {
            known,
            requests,
            generation,
            teams: _,
            upstream,
            access,
        } = self;
        let errors = |kinds: &[&str]| generation.errors_of(&known.generation, kinds);
        let (connects, failed_connects) = upstream.connect_totals();
        CounterReading {
            requests: requests.totals().0,
            failed: requests.failed_but_refused(),
            generations: generation.generations(),
            credential_errors: errors(reading::CREDENTIAL_ERRORS),
            rate_limit_errors: errors(reading::RATE_LIMIT_ERRORS),
            overloaded_errors: errors(reading::OVERLOADED_ERRORS),
            metering_failures: generation.failures(),
            cost: generation.cost(),
            models: generation.models(&known.generation),
            connects,
            failed_connects,
            saturations: reading::SATURATIONS.map(|label| (label, requests.proxy_aborts(label))),
            spend_refusals: access.refusals(Label::SpendLimit)
                + access.refusals(Label::SpendReserved),
            unreachable_refusals: access.refusals(Label::LimitStateUnreachable),
            descriptors,
        }
    }

    fn absorb(&self, other: &Self) {
        let Self {
            known: _,
            requests,
            generation,
            teams,
            upstream,
            access,
        } = other;
        self.requests.absorb(requests);
        self.generation.absorb(generation);
        self.teams.absorb(teams);
        self.upstream.absorb(upstream);
        self.access.absorb(access);
    }
}

/// One scrape.
#[derive(Debug)]
struct Scrape {
    /// Sum of all shards.
    sum: Shard,
    now: Gauges,
    process: process::Process,
}

impl Scrape {
    fn write(&self, out: &mut writer::FamilyWriter<'_>) -> fmt::Result {
        let (sum, known) = (&self.sum, &self.sum.known);
        self.now.write(out)?;
        sum.requests.write(out)?;
        sum.generation.write(&known.generation, out)?;
        sum.teams.write(&known.teams, out)?;
        sum.upstream.write(&self.now.upstreams, out)?;
        sum.access.write(&known.teams, out)?;
        self.process.write(out)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write(&mut writer::FamilyWriter::Exposition(encoder))
    }
}

/// Room for an exposition with a few models.
const ROOM: usize = 64 * 1024;

#[cfg(test)]
mod tests;
