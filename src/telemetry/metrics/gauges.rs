//! Gauges of the process at the moment of a scrape: version, load, configuration, lost log lines.

use std::fmt::Result;

use super::{
    family::{Family, Unit},
    writer::FamilyWriter,
};

/// Values read at the moment of a scrape.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// The program's version.
    pub version: &'static str,
    /// Exchanges in flight.
    pub in_flight: usize,
    /// Open connections of clients.
    pub connections: usize,
    /// Reloads of the configuration that succeeded.
    pub reload_succeeded: u64,
    /// Reloads of the configuration that failed.
    pub reload_failed: u64,
    /// True if the last reload succeeded; the start counts as one.
    pub last_reload_successful: bool,
    /// Lines lost on standard error.
    pub log_lines_dropped: u64,
    /// Lines lost of the access log.
    pub access_log_lines_dropped: u64,
    /// Exchanges missing from the totals of the activity, since its queue was full.
    pub exchanges_dropped: u64,
    /// Exchanges whose traces were dropped; none where traces are off.
    pub traces_dropped: Option<u64>,
    /// Requests with metrics that a receiver took, and that it did not; none where none are sent.
    pub metric_exports: Option<(u64, u64)>,
    /// Breaks of prompt caches by cause: label and number; empty if they are not looked for.
    pub cache_breaks: Vec<(&'static str, u64)>,
    /// State of the store of keys, if there is one: true if it could be used at the last try, and the number of
    /// tries at which it could not.
    pub state: Option<(bool, u64)>,
    /// The copy of the store that replicas share, if there is one: seconds since it was last current, and true if
    /// keys and limits in effect are those of it.
    pub state_copy: Option<(f64, bool)>,
    /// Limits that replicas share; none for one replica.
    pub sharing: Option<SharingGauges>,
    /// The upstreams of the configuration.
    pub upstreams: Vec<UpstreamGauges>,
    /// Date of the table of prices.
    pub prices_date: String,
}

/// Limits that replicas share, at the moment of a scrape.
#[derive(Debug, Clone, Copy, Default)]
pub struct SharingGauges {
    /// Calls of the store that were answered.
    pub syncs: u64,
    /// Calls that were not.
    pub failures: u64,
    /// Reports in the calls that were answered.
    pub reports: u64,
    /// Seconds for which the store has not answered, from a start without it since then; 0 while it does.
    pub silent: f64,
    /// Limits whose view is stale.
    pub stale: u64,
    /// Limits for which the store is lost.
    pub lost: u64,
}

/// An upstream at the moment of a scrape.
#[derive(Debug, Clone, Default)]
pub struct UpstreamGauges {
    /// `https://host[:port][/prefix]`.
    pub url: String,
    /// `closed`, `open` or `half_open`.
    pub circuit: &'static str,
    /// Pooled connections of all workers.
    pub idle_connections: usize,
}

impl Gauges {
    pub(super) fn write(&self, out: &mut FamilyWriter<'_>) -> Result {
        out.info(&BUILD, [("version", self.version)])?;
        out.info(&PRICES, [("date", &self.prices_date)])?;
        out.gauge(&IN_FLIGHT, self.in_flight)?;
        out.gauge(&CONNECTIONS, self.connections)?;
        out.gauge(&LAST_RELOAD, u32::from(self.last_reload_successful))?;
        let reloads = [
            ([("result", "ok")], self.reload_succeeded),
            ([("result", "failed")], self.reload_failed),
        ];
        out.counters(&RELOADS, reloads)?;
        let dropped = [
            ([("log", "log")], self.log_lines_dropped),
            ([("log", "access_log")], self.access_log_lines_dropped),
        ];
        out.counters(&DROPPED, dropped)?;
        out.counter(&LOST, self.exchanges_dropped)?;
        if let Some(dropped) = self.traces_dropped {
            out.counter(&TRACES_DROPPED, dropped)?;
        }
        if let Some((taken, failed)) = self.metric_exports {
            let exports = [
                ([("result", "ok")], taken),
                ([("result", "failed")], failed),
            ];
            out.counters(&METRIC_EXPORTS, exports)?;
        }
        if let Some((is_up, failures)) = self.state {
            out.gauge(&STATE, u32::from(is_up))?;
            out.counter(&STATE_FAILURES, failures)?;
        }
        if let Some((age, is_used)) = self.state_copy {
            out.gauge(&COPY_AGE, age)?;
            out.gauge(&COPY_USED, u32::from(is_used))?;
        }
        if let Some(sharing) = self.sharing {
            let calls = [
                ([("result", "ok")], sharing.syncs),
                ([("result", "failed")], sharing.failures),
            ];
            out.counters(&SYNCS, calls)?;
            out.counter(&REPORTS, sharing.reports)?;
            out.gauge(&SILENT, sharing.silent)?;
            let subjects = [
                ([("state", "stale")], sharing.stale),
                ([("state", "lost")], sharing.lost),
            ];
            out.gauges(&SHARED, subjects)?;
        }
        let breaks = self.cache_breaks.iter();
        let breaks = breaks.map(|(cause, count)| ([("cause", *cause)], *count));
        out.counters(&CACHE_BREAKS, breaks)
    }
}

const BUILD: Family = Family {
    name: "anthropic_proxy_build",
    unit: None,
    help: "Version of the running process.",
};

const PRICES: Family = Family {
    name: "anthropic_proxy_prices",
    unit: None,
    help: "Date of the table of prices.",
};

const IN_FLIGHT: Family = Family {
    name: "anthropic_proxy_in_flight_requests",
    unit: None,
    help: "Requests in flight.",
};

const CONNECTIONS: Family = Family {
    name: "anthropic_proxy_connections",
    unit: None,
    help: "Open connections of clients.",
};

const LAST_RELOAD: Family = Family {
    name: "anthropic_proxy_config_last_reload_successful",
    unit: None,
    help: "1 if the last reload of the configuration succeeded; 0 if it failed and the previous one is in force.",
};

const RELOADS: Family = Family {
    name: "anthropic_proxy_config_reloads",
    unit: None,
    help: "Reloads of the configuration, by result.",
};

const LOST: Family = Family {
    name: "anthropic_proxy_telemetry_dropped_exchanges",
    unit: None,
    help: "Exchanges missing from the dashboard and the access log because their queue was full; these metrics include them.",
};

const TRACES_DROPPED: Family = Family {
    name: "anthropic_proxy_traces_dropped",
    unit: None,
    help: "Exchanges whose traces were dropped because their queue was full or the receiver did not take them, or not wholly.",
};

const METRIC_EXPORTS: Family = Family {
    name: "anthropic_proxy_metric_exports",
    unit: None,
    help: "Requests with metrics for a receiver of OTLP, by result; the next one includes what a failed one counted.",
};

const CACHE_BREAKS: Family = Family {
    name: "anthropic_proxy_cache_breaks",
    unit: None,
    help: "Requests of Claude Code sessions that read less than half of the prefix that was in the prompt cache while their input had not shrunk, by cause; counted while the dashboard or CACHE_BREAK_WEBHOOK is on.",
};

const STATE: Family = Family {
    name: "anthropic_proxy_state_up",
    unit: None,
    help: "1 if the store of keys and limits could be used at the last try, each second; 0 if not, and what is in effect stays so.",
};

const STATE_FAILURES: Family = Family {
    name: "anthropic_proxy_state_failures",
    unit: None,
    help: "Tries, one each second, at which the store of keys and limits could not be used.",
};

const COPY_AGE: Family = Family {
    name: "anthropic_proxy_state_copy_age",
    unit: Some(Unit::Seconds),
    help: "Seconds since the copy of shared keys and limits in DATA_DIR was last current.",
};

const COPY_USED: Family = Family {
    name: "anthropic_proxy_state_copy_in_use",
    unit: None,
    help: "1 from a start without the shared store until it answers, if keys and limits in effect are those of the copy; else 0.",
};

const SYNCS: Family = Family {
    name: "anthropic_proxy_shared_limits_syncs",
    unit: None,
    help: "Calls of the store in which replicas share limits, by result.",
};

const REPORTS: Family = Family {
    name: "anthropic_proxy_shared_limits_reports",
    unit: None,
    help: "Reports on limits in the calls of the store that were answered.",
};

const SILENT: Family = Family {
    name: "anthropic_proxy_shared_limits_silent",
    unit: Some(Unit::Seconds),
    help: "Seconds for which the store has not answered calls about limits, after a start without it since the start; 0 while it does. From 1 on limits are stale, from 30 on lost.",
};

const SHARED: Family = Family {
    name: "anthropic_proxy_shared_limits",
    unit: None,
    help: "Limits on which the store has not answered: for a second (stale), for 30 seconds (lost); after a start without it all limits are lost.",
};

const DROPPED: Family = Family {
    name: "anthropic_proxy_log_lines_dropped",
    unit: None,
    help: "Log lines dropped because the log could not be written fast enough, or not at all.",
};
