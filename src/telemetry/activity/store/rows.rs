//! Rows of the tables: read at the start, added to, and deleted.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, Transaction, types::ValueRef};

use crate::{
    exchange::Tokens,
    telemetry::activity::{
        dimension::Dimension,
        histogram::DurationHistogram,
        persisted,
        recent::{FAILURES, KEPT},
        session_key::SessionKey,
        sessions::{SESSIONS, SessionTotals},
        state::{
            DAY, DAYS, Delta, HOUR, HOURS, HOURS_BY, LastEnded, MINUTE, MINUTES, NamedSpan,
            SECONDS, Slice, StoredHistory, Timing, second,
        },
        totals::{ExchangeTotals, UsageTotals},
    },
};

/// Columns of usage, in the order of the tables.
const SPENT: [&str; 10] = [
    "metered",
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "cost",
    "unpriced",
    "at_least",
    "estimated",
];
/// Columns of a minute before them.
const SUMS: [&str; 8] = [
    "requests",
    "succeeded",
    "failed",
    "received",
    "sent",
    "duration_us",
    "first_tokens",
    "first_token_us",
];

/// Columns of the durations of a second or minute, behind them.
const TIMING: [&str; 2] = ["durations", "first_token_times"];

pub(super) fn read(
    connection: &mut Connection,
    now: SystemTime,
) -> rusqlite::Result<StoredHistory> {
    let now = second(now);
    let mut saved = Delta::default();
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(failure, Some(check)));
    }
    let columns = SUMS.iter().chain(&SPENT).chain(&TIMING).copied();
    let columns = columns.collect::<Vec<_>>().join(", ");
    for (table, width, keep, held) in [
        ("second", 1, SECONDS, &mut saved.seconds),
        ("minute", MINUTE, MINUTES, &mut saved.minutes),
    ] {
        let query = format!("SELECT {table}, {columns} FROM {table} WHERE {table} > ?");
        let mut statement = connection.prepare(&query)?;
        let mut rows = statement.query([signed(oldest(now, width, keep))])?;
        while let Some(row) = rows.next()? {
            held.insert(number(row, 0)?, slice(row, 1)?);
        }
    }
    for (table, width, keep, held) in [
        ("usage_hour", HOUR, HOURS, &mut saved.hours),
        ("usage_day", DAY, DAYS, &mut saved.days),
    ] {
        let query = format!(
            "SELECT span, model, {} FROM {table} WHERE span > ?",
            SPENT.join(", ")
        );
        let mut statement = connection.prepare(&query)?;
        let mut rows = statement.query([signed(oldest(now, width, keep))])?;
        while let Some(row) = rows.next()? {
            let model: String = row.get(1)?;
            held.insert((number(row, 0)?, model.into()), spent(row, 2)?);
        }
    }
    for (table, width, keep, held) in [
        ("usage_hour_by", HOUR, HOURS_BY, &mut saved.hours_by),
        ("usage_day_by", DAY, DAYS, &mut saved.days_by),
    ] {
        let query = format!(
            "SELECT span, dimension, name, {} FROM {table} WHERE span > ?",
            SPENT.join(", ")
        );
        let mut statement = connection.prepare(&query)?;
        let mut rows = statement.query([signed(oldest(now, width, keep))])?;
        while let Some(row) = rows.next()? {
            let (dimension, name): (String, String) = (row.get(1)?, row.get(2)?);
            let known = Dimension::ALL.into_iter();
            if let Some(dimension) = known.into_iter().find(|it| it.label() == dimension) {
                held.insert((number(row, 0)?, dimension, name.into()), spent(row, 3)?);
            }
        }
    }
    saved.sessions = read_sessions(connection, now)?;
    let mut statement = connection.prepare("SELECT record FROM exchange ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut ended = Vec::new();
    while let Some(row) = rows.next()? {
        let record: String = row.get(0)?;
        ended.extend(persisted::read(&record));
    }
    drop(rows);
    drop(statement);
    Ok(StoredHistory { sums: saved, ended })
}

/// The sessions used last. A record that cannot be read is left out.
fn read_sessions(
    connection: &Connection,
    now: u64,
) -> rusqlite::Result<BTreeMap<SessionKey, SessionTotals>> {
    const LAST: &str = "SELECT session, key, record FROM session WHERE last > ?
        ORDER BY last DESC LIMIT ?";
    let mut statement = connection.prepare(LAST)?;
    let oldest = now.saturating_sub(SESSION_DAYS * DAY).saturating_mul(1000);
    let mut rows = statement.query([signed(oldest), signed(SESSIONS as u64)])?;
    let mut sessions = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (session, key, record): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Ok(totals) = serde_json::from_str(&record) {
            let key = SessionKey {
                session: session.into(),
                key: key.into(),
            };
            sessions.insert(key, totals);
        }
    }
    Ok(sessions)
}

/// Totals and durations of a row, from a column on.
fn slice(row: &Row<'_>, from: usize) -> rusqlite::Result<Slice> {
    let mut at = from..;
    let mut next = || number(row, at.next().unwrap_or_default());
    let mut sums = ExchangeTotals {
        requests: next()?,
        succeeded: next()?,
        failed: next()?,
        received: next()?,
        sent: next()?,
        duration: next()?,
        first_tokens: next()?,
        first_token: next()?,
        spent: UsageTotals::default(),
    };
    let from = from + SUMS.len();
    sums.spent = spent(row, from)?;
    let timing = timing(row, from + SPENT.len())?;
    Ok(Slice { sums, timing })
}

/// The durations of a row. Unreadable ones are left out; the totals do not need them.
fn timing(row: &Row<'_>, from: usize) -> rusqlite::Result<Timing> {
    let read = |at: usize| -> rusqlite::Result<Option<Arc<DurationHistogram>>> {
        let octets: Option<Vec<u8>> = row.get(at)?;
        let histogram = octets.and_then(|octets| DurationHistogram::of_octets(&octets));
        Ok(histogram.map(Arc::new))
    };
    Ok(Timing {
        duration: read(from)?,
        first_token: read(from + 1)?,
    })
}

pub(super) fn write(transaction: &Transaction<'_>, additions: &Delta) -> rusqlite::Result<()> {
    write_slices(transaction, "second", &additions.seconds)?;
    write_slices(transaction, "minute", &additions.minutes)?;
    write_ended(transaction, &additions.ended)?;
    for (table, rows) in [
        ("usage_hour", &additions.hours),
        ("usage_day", &additions.days),
    ] {
        let mut statement = transaction.prepare(&addition(table, &["span", "model"], &SPENT))?;
        for ((span, model), spent) in rows {
            let (span, values) = (signed(*span), spent_values(spent));
            let mut all: Vec<&dyn ToSql> = vec![&span, model];
            all.extend(values.iter().map(|value| value as &dyn ToSql));
            statement.execute(all.as_slice())?;
        }
    }
    write_named(transaction, "usage_hour_by", &additions.hours_by)?;
    write_named(transaction, "usage_day_by", &additions.days_by)?;
    write_sessions(transaction, &additions.sessions)
}

/// Adds to the usage of names.
fn write_named(
    transaction: &Transaction<'_>,
    table: &str,
    rows: &BTreeMap<NamedSpan, UsageTotals>,
) -> rusqlite::Result<()> {
    let keys = ["span", "dimension", "name"];
    let mut statement = transaction.prepare(&addition(table, &keys, &SPENT))?;
    for ((span, dimension, name), spent) in rows {
        let (span, label, values) = (signed(*span), dimension.label(), spent_values(spent));
        let mut all: Vec<&dyn ToSql> = vec![&span, &label, name];
        all.extend(values.iter().map(|value| value as &dyn ToSql));
        statement.execute(all.as_slice())?;
    }
    Ok(())
}

/// Adds to the sessions.
fn write_sessions(
    transaction: &Transaction<'_>,
    sessions: &BTreeMap<SessionKey, SessionTotals>,
) -> rusqlite::Result<()> {
    let mut find =
        transaction.prepare("SELECT record FROM session WHERE session = ? AND key = ?")?;
    let mut set = transaction.prepare(
        "INSERT OR REPLACE INTO session (session, key, last, record) VALUES (?, ?, ?, ?)",
    )?;
    for (SessionKey { session, key }, more) in sessions {
        let record: Option<String> = find
            .query_row([session, key], |row| row.get(0))
            .optional()?;
        let stored = record.and_then(|record| serde_json::from_str(&record).ok());
        let mut totals: SessionTotals = stored.unwrap_or_default();
        totals.merge(more);
        if let Ok(record) = serde_json::to_string(&totals) {
            set.execute(rusqlite::params![
                session,
                key,
                signed(totals.last()),
                record
            ])?;
        }
    }
    Ok(())
}

/// Adds to the totals and durations of spans.
fn write_slices(
    transaction: &Transaction<'_>,
    table: &str,
    slices: &BTreeMap<u64, Slice>,
) -> rusqlite::Result<()> {
    let columns = SUMS.iter().chain(&SPENT).copied().collect::<Vec<_>>();
    let mut add = transaction.prepare(&addition(table, &[table], &columns))?;
    let [durations, first_tokens] = TIMING;
    let mut before = transaction.prepare(&format!(
        "SELECT {durations}, {first_tokens} FROM {table} WHERE {table} = ?"
    ))?;
    let mut set = transaction.prepare(&format!(
        "UPDATE {table} SET {durations} = ?, {first_tokens} = ? WHERE {table} = ?"
    ))?;
    for (span, Slice { sums, timing: more }) in slices {
        let mut values = vec![
            signed(*span),
            signed(sums.requests),
            signed(sums.succeeded),
            signed(sums.failed),
            signed(sums.received),
            signed(sums.sent),
            signed(sums.duration),
            signed(sums.first_tokens),
            signed(sums.first_token),
        ];
        values.extend(spent_values(&sums.spent));
        add.execute(rusqlite::params_from_iter(values))?;
        if *more == Timing::default() {
            continue;
        }
        let mut all = before.query_row([signed(*span)], |row| timing(row, 0))?;
        all.merge(more);
        let octets = |histogram: &Option<Arc<DurationHistogram>>| {
            histogram.as_ref().map(|it| it.to_octets())
        };
        let (durations, first_tokens) = (octets(&all.duration), octets(&all.first_token));
        set.execute(rusqlite::params![durations, first_tokens, signed(*span)])?;
    }
    Ok(())
}

/// Adds exchanges, and deletes the oldest beyond those that are kept: in the order in which they were stored,
/// regardless of the clock.
fn write_ended(transaction: &Transaction<'_>, ended: &LastEnded) -> rusqlite::Result<()> {
    const ADD: &str = "INSERT INTO exchange (is_failure, record) VALUES (?, ?)";
    const PRUNE: &str =
        "DELETE FROM exchange WHERE is_failure = ?1 AND seq <= (SELECT seq FROM exchange
        WHERE is_failure = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)";
    for (is_failure, queue, keep) in [
        (true, &ended.failed, FAILURES),
        (false, &ended.others, KEPT),
    ] {
        if queue.is_empty() {
            continue;
        }
        let mut add = transaction.prepare(ADD)?;
        for record in queue.iter().filter_map(persisted::write) {
            add.execute(rusqlite::params![is_failure, record])?;
        }
        transaction.execute(PRUNE, rusqlite::params![is_failure, signed(keep as u64)])?;
    }
    Ok(())
}

/// Deletes rows beyond those that are kept: the newest ones up to now, and as many after it. Those stem
/// from a clock that was set back since, and the ones next to now may well be right.
pub(super) fn prune(transaction: &Transaction<'_>, now: u64) -> rusqlite::Result<()> {
    for (table, column, width, keep) in [
        ("second", "second", 1, SECONDS),
        ("minute", "minute", MINUTE, MINUTES),
        ("usage_hour", "span", HOUR, HOURS),
        ("usage_day", "span", DAY, DAYS),
        ("usage_hour_by", "span", HOUR, HOURS_BY),
        ("usage_day_by", "span", DAY, DAYS),
    ] {
        for (side, order, beyond) in [("<=", "DESC", "<="), (">", "ASC", ">=")] {
            let delete = format!(
                "DELETE FROM {table} WHERE {column} {beyond} (SELECT DISTINCT {column} FROM {table}
                    WHERE {column} {side} ?1 ORDER BY {column} {order} LIMIT 1 OFFSET ?2)"
            );
            transaction.execute(&delete, [signed(now / width), signed(keep)])?;
        }
    }
    prune_sessions(transaction, now)
}

/// Deletes sessions beyond the newest ones, and those that ended 90 days before the newest. Of these a few
/// do not count, nor do those after now: they may stem from a clock that was wrong.
fn prune_sessions(transaction: &Transaction<'_>, now: u64) -> rusqlite::Result<()> {
    const BEYOND: &str = "DELETE FROM session WHERE last <= (SELECT last FROM session
        ORDER BY last DESC LIMIT 1 OFFSET ?1)";
    const OLD: &str = "DELETE FROM session WHERE last < (SELECT last FROM session WHERE last <= ?1
        ORDER BY last DESC LIMIT 1 OFFSET 8) - ?2";
    let now = now.saturating_add(DAY).saturating_mul(1000);
    transaction.execute(BEYOND, [signed(SESSIONS as u64)])?;
    transaction.execute(OLD, [signed(now), signed(SESSION_DAYS * DAY * 1000)])?;
    Ok(())
}

/// Days that a session is kept after its last exchange.
pub(super) const SESSION_DAYS: u64 = 90;

/// The number of the newest span that is not kept any more.
fn oldest(now: u64, width: u64, keep: u64) -> u64 {
    (now / width).saturating_sub(keep)
}

/// SQL statement that adds to a row, or inserts it. Sums end at the largest integer: beyond it SQLite would
/// make them floating-point numbers.
fn addition(table: &str, keys: &[&str], columns: &[&str]) -> String {
    let all = [keys, columns].concat();
    let marks = vec!["?"; all.len()].join(", ");
    let sums = columns
        .iter()
        .map(|column| {
            let (largest, more) = (i64::MAX, format!("excluded.{column}"));
            format!(
                "{column} = CASE WHEN {column} > {largest} - {more} THEN {largest} ELSE {column} + {more} END"
            )
        })
        .collect::<Vec<_>>();
    format!(
        "INSERT INTO {table} ({}) VALUES ({marks}) ON CONFLICT ({}) DO UPDATE SET {}",
        all.join(", "),
        keys.join(", "),
        sums.join(", ")
    )
}

fn spent(row: &Row<'_>, from: usize) -> rusqlite::Result<UsageTotals> {
    Ok(UsageTotals {
        requests: number(row, from)?,
        tokens: Tokens {
            input: number(row, from + 1)?,
            output: number(row, from + 2)?,
            cache_read: number(row, from + 3)?,
            cache_write_5m: number(row, from + 4)?,
            cache_write_1h: number(row, from + 5)?,
        },
        cost: number(row, from + 6)?,
        unpriced: number(row, from + 7)?,
        at_least: number(row, from + 8)?,
        estimated: number(row, from + 9)?,
    })
}

fn spent_values(spent: &UsageTotals) -> [i64; SPENT.len()] {
    let tokens = &spent.tokens;
    [
        spent.requests,
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write_5m,
        tokens.cache_write_1h,
        spent.cost,
        spent.unpriced,
        spent.at_least,
        spent.estimated,
    ]
    .map(signed)
}

pub(super) fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    match row.get_ref(at)? {
        // a sum that had overflown before sums were clamped
        ValueRef::Real(_) => Ok(i64::MAX as u64),
        _ => row
            .get::<_, i64>(at)
            .map(|number| u64::try_from(number).unwrap_or_default()),
    }
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
