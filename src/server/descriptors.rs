//! Shares of the process's file descriptors: connections, exchanges, and a few for connections beyond
//! the limits.
//!
//! Every connection takes one and every exchange may take another, to its upstream; with HTTP/2 a
//! connection has many exchanges. A limit that is set here cannot run out in the middle of an exchange.

use log::Level;

/// File descriptors that are not connections: standard streams, listeners, the reactors of main and
/// workers, files being reloaded, sockets to a resolver.
const RESERVED: u64 = 64;
const RESERVED_PER_WORKER: u64 = 16;
/// Divisor for connections beyond the limit at a time: one in 16 descriptors, within bounds.
const OVERFLOW_SHARE: u64 = 16;
const OVERFLOW: std::ops::RangeInclusive<u64> = 4..=1024;
/// Connections to `ADMIN_LISTEN` at a time: pages that follow what happens, probes, a scraper.
const ADMIN_SHARE: u64 = 32;
const ADMIN: std::ops::RangeInclusive<u64> = 4..=64;

/// Limits that the settings ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// `MAX_CONNECTIONS`.
    pub(super) connections: usize,
    /// `MAX_IN_FLIGHT`.
    pub(super) in_flight: usize,
    /// `WORKERS`.
    pub(super) workers: usize,
    /// `ADMIN_LISTEN` is set.
    pub(super) has_admin: bool,
}

/// Limits that the file descriptors allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections of clients.
    pub(super) connections: usize,
    /// Connections beyond that, which are told 503 or asked for their health check.
    pub(super) overflow: usize,
    /// Exchanges.
    pub(super) in_flight: usize,
    /// Connections to `ADMIN_LISTEN`.
    pub(super) admin: usize,
}

/// Raises the limit of open files as far as is needed and allowed, and shares out what there is. A variable that
/// the operator set and that gets less is warned of.
pub(super) fn share(wanted: Wanted, is_set: impl Fn(&str) -> bool) -> Shares {
    // an exchange more than connections may still run when its connection is gone
    let streams = wanted.connections.max(wanted.in_flight) as u64;
    let needed = wanted.connections as u64
        + streams
        + reserved(&wanted)
        + OVERFLOW.end()
        + admin(&wanted, u64::MAX);
    let files = match rlimit::increase_nofile_limit(needed) {
        Ok(files) => files,
        Err(cause) => {
            log::warn!("[Proxy] could not read the limit of open files: {cause}");
            needed
        }
    };
    let shares = of(wanted, files);
    for (level, line) in remarks(wanted, shares, (needed, files), is_set) {
        log::log!(level, "[Proxy] {line}");
    }
    shares
}

/// Lines about what is less than was wanted, with files needed and had.
fn remarks(
    wanted: Wanted,
    shares: Shares,
    (needed, files): (u64, u64),
    is_set: impl Fn(&str) -> bool,
) -> Vec<(Level, String)> {
    const REMEDY: &str = "raise it with `ulimit -n`, LimitNOFILE= or ulimits.nofile";
    let asked = [
        ("MAX_CONNECTIONS", wanted.connections, shares.connections),
        ("MAX_IN_FLIGHT", wanted.in_flight, shares.in_flight),
    ];
    let less = asked.into_iter().filter(|(_, asked, given)| given < asked);
    let (set, unset): (Vec<_>, Vec<_>) = less.partition(|(name, ..)| is_set(name));
    let mut lines: Vec<_> = set
        .into_iter()
        .map(|(name, asked, given)| {
            let line = format!(
                "{name}={asked} needs {needed} open files, the limit is {files}: using {given}; {REMEDY}"
            );
            (Level::Warn, line)
        })
        .collect();
    if !unset.is_empty() {
        let parts = unset
            .iter()
            .map(|(name, _, given)| format!("{name}={given}"));
        let parts: Vec<_> = parts.collect();
        let line = format!(
            "the limit of open files is {files}: using {}; {REMEDY}",
            parts.join(" and ")
        );
        lines.push((Level::Info, line));
    }
    lines
}

fn reserved(wanted: &Wanted) -> u64 {
    RESERVED + RESERVED_PER_WORKER * wanted.workers as u64
}

fn admin(wanted: &Wanted, files: u64) -> u64 {
    match wanted.has_admin {
        true => (files / ADMIN_SHARE).clamp(*ADMIN.start(), *ADMIN.end()),
        false => 0,
    }
}

fn of(wanted: Wanted, files: u64) -> Shares {
    let overflow = (files / OVERFLOW_SHARE).clamp(*OVERFLOW.start(), *OVERFLOW.end());
    let admin = admin(&wanted, files);
    let free = files.saturating_sub(reserved(&wanted) + overflow + admin);
    // half for connections, half for their exchanges, and what the one leaves for the other
    let connections = (wanted.connections as u64).min(free / 2).max(1);
    let in_flight = (wanted.in_flight as u64)
        .min(free.saturating_sub(connections))
        .max(1);
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Shares {
        connections: count(connections),
        overflow: count(overflow),
        in_flight: count(in_flight),
        admin: count(admin),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULTS: Wanted = Wanted {
        connections: 25_000,
        in_flight: 10_000,
        workers: 2,
        has_admin: false,
    };

    #[test]
    fn few_files_are_halved_after_the_reserve() {
        let plenty = of(DEFAULTS, 1_048_576);
        assert_eq!((plenty.connections, plenty.in_flight), (25_000, 10_000));
        let few = of(DEFAULTS, 1024);
        let half = (1024 - 64 - 32 - 64) / 2;
        assert_eq!((few.connections, few.in_flight), (half, half));
        let wanted = Wanted {
            connections: 10,
            ..DEFAULTS
        };
        // few connections leave more for exchanges
        let streams = of(wanted, 1024);
        assert_eq!(
            (streams.connections, streams.in_flight),
            (10, 2 * half - 10)
        );
        let workers = Wanted {
            workers: 64,
            ..DEFAULTS
        };
        let none = of(workers, 256);
        assert_eq!((none.connections, none.in_flight), (1, 1));
    }

    #[test]
    fn only_variables_that_were_set_are_warned_of() {
        let shares = of(DEFAULTS, 1024);
        let told = |set: &'static [&'static str]| {
            let lines = remarks(DEFAULTS, shares, (50_000, 1024), |name| set.contains(&name));
            let levels = lines.iter().map(|(level, _)| *level).collect::<Vec<_>>();
            (levels, lines[0].1.clone())
        };
        let (levels, line) = told(&[]);
        assert_eq!(levels, [Level::Info]);
        assert!(
            line.contains("MAX_CONNECTIONS=432 and MAX_IN_FLIGHT=432"),
            "{line}"
        );
        let (levels, line) = told(&["MAX_IN_FLIGHT"]);
        assert_eq!(levels, [Level::Warn, Level::Info]);
        assert!(
            line.starts_with("MAX_IN_FLIGHT=10000 needs 50000"),
            "{line}"
        );
        assert_eq!(
            told(&["MAX_IN_FLIGHT", "MAX_CONNECTIONS"]).0,
            [Level::Warn; 2]
        );
        let plenty = of(DEFAULTS, 1_048_576);
        assert!(remarks(DEFAULTS, plenty, (50_000, 1_048_576), |_| true).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_given_fits(
            connections in 1_usize..100_000,
            in_flight in 1_usize..100_000,
            workers in 1_usize..64,
            has_admin: bool,
            files in 0_u64..300_000,
        ) {
            let wanted = Wanted { connections, in_flight, workers, has_admin };
            let shares = of(wanted, files);
            prop_assert!((1..=connections).contains(&shares.connections));
            prop_assert!((1..=in_flight).contains(&shares.in_flight));
            let all = shares.connections + shares.in_flight + shares.overflow + shares.admin;
            let fits = all as u64 + reserved(&wanted) <= files;
            prop_assert!(fits || (shares.connections, shares.in_flight) == (1, 1));
        }
    }
}
