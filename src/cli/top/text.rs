//! A snapshot as a page of text, for `--once`.

use super::{
    grid::{self, Column, GridRow},
    rates::TokenRates,
    snapshot::Snapshot,
    tone::{duration, percent, usd},
};
use crate::cli::table::table;

/// The page.
pub(super) fn page(server: &str, snapshot: &Snapshot) -> String {
    let overview = &snapshot.overview;
    let totals = &overview.totals;
    let mut out = format!(
        "{server}  {} up {}\n{} in flight, {:.1} req/s, {:.1}% failed, {:.0} tok/s, cache {}, today {} for {} request{}\n",
        overview.version,
        duration(overview.uptime_ms as f64),
        overview.in_flight,
        totals.requests_per_second,
        100.0 * totals.error_rate,
        totals.tokens_per_second,
        percent(totals.cache_hit_share),
        usd(overview.today.cost_usd),
        overview.today.requests,
        if overview.today.requests == 1 {
            ""
        } else {
            "s"
        },
    );
    let requests = grid::requests(&snapshot.requests.items, &TokenRates::default());
    section(&mut out, "Requests in flight", grid::REQUESTS, &requests);
    if let Some(sessions) = &snapshot.sessions {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let rows = grid::sessions(&sessions.items, now);
        section(&mut out, "Sessions", grid::SESSIONS, &rows);
    }
    if let Some(upstreams) = &snapshot.upstreams {
        section(
            &mut out,
            "Upstreams",
            grid::UPSTREAMS,
            &grid::upstreams(upstreams),
        );
    }
    if let Some(budgets) = &snapshot.budgets {
        section(&mut out, "Budgets", grid::BUDGETS, &grid::budgets(budgets));
    }
    if let Some(limits) = &snapshot.limits {
        let rows = grid::limits(&limits.items);
        section(&mut out, "Limits", grid::LIMITS, &rows);
    }
    out
}

fn section(out: &mut String, title: &str, columns: &[Column], rows: &[GridRow]) {
    *out += &format!("\n{title}\n");
    if rows.is_empty() {
        *out += "none\n";
        return;
    }
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    let texts = |row: &GridRow| row.cells.iter().map(|cell| cell.text.clone()).collect();
    let rows: Vec<Vec<String>> = rows.iter().take(LISTED).map(texts).collect();
    *out += &table(&names, &rows);
}

/// Rows of a section.
const LISTED: usize = 20;
