//! What the process is at the moment of a scrape: version, load, configuration, lost log lines.

use std::fmt::Result;

use super::{
    Gauges,
    family::{Family, Writer},
};

impl Gauges {
    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result {
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
        out.counter(&LOST, self.exchanges_dropped)
    }
}

const BUILD: Family = Family {
    name: "anthropic_proxy_build",
    unit: None,
    help: "The version that runs.",
};

const PRICES: Family = Family {
    name: "anthropic_proxy_prices",
    unit: None,
    help: "The day that the table of prices is of.",
};

const IN_FLIGHT: Family = Family {
    name: "anthropic_proxy_in_flight_requests",
    unit: None,
    help: "Requests that have begun and not ended.",
};

const CONNECTIONS: Family = Family {
    name: "anthropic_proxy_connections",
    unit: None,
    help: "Connections of clients that are open.",
};

const LAST_RELOAD: Family = Family {
    name: "anthropic_proxy_config_last_reload_successful",
    unit: None,
    help: "Whether the configuration was taken when it was last read: 0 means that the one before is in force.",
};

const RELOADS: Family = Family {
    name: "anthropic_proxy_config_reloads",
    unit: None,
    help: "How often the configuration was read again, by result.",
};

const LOST: Family = Family {
    name: "anthropic_proxy_telemetry_dropped_exchanges",
    unit: None,
    help: "Exchanges that the dashboard and the access log lack, because their queue was full. These metrics have them.",
};

const DROPPED: Family = Family {
    name: "anthropic_proxy_log_lines_dropped",
    unit: None,
    help: "Lines that were dropped because their log could not be written fast enough, or not at all.",
};
