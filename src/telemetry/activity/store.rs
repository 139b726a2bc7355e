//! The history on disk: sums, durations and the last exchanges (without content), in SQLite, one small
//! transaction a second.
//!
//! What is written are additions, so that two processes may share the file while one takes over from the
//! other. A file that is no database of ours is moved aside, and the newest three of those are kept; a
//! directory that cannot be written is said once, and tried again with every write.
//!
//! What is old is told by what is newer, not by the clock: rows go when there are as many newer ones as are
//! kept. So a clock that jumps, either way, costs nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, Row, ToSql, Transaction, TransactionBehavior, types::ValueRef,
};

use super::{
    histogram::Histogram,
    kept,
    recent::{FAILURES, KEPT},
    state::{
        Additions, DAY, DAYS, HOUR, HOURS, LastEnded, MINUTE, MINUTES, SECONDS, Saved, Slice,
        Timing, second,
    },
    sums::{Spent, Sums},
};
use crate::exchange::Tokens;

/// The file's name in `DATA_DIR`.
const NAME: &str = "activity.sqlite";
/// What a file that was moved aside is called: [`NAME`], this, and the second.
const ASIDE: &str = ".corrupt-";
/// Of those, so many are kept.
const KEPT_ASIDE: usize = 3;
/// Of the tables. A file of an earlier version is brought up to it, step by step; one of a later version is
/// moved aside.
const VERSION: i64 = 2;
/// How long another process that writes is waited for.
const BUSY: Duration = Duration::from_secs(1);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS minute (minute INTEGER PRIMARY KEY,
        requests INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL,
        received INTEGER NOT NULL, sent INTEGER NOT NULL, duration_us INTEGER NOT NULL,
        first_tokens INTEGER NOT NULL, first_token_us INTEGER NOT NULL,
        metered INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
        cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL, cost INTEGER NOT NULL, unpriced INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS usage_hour (span INTEGER, model TEXT,
        metered INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
        cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL, cost INTEGER NOT NULL, unpriced INTEGER NOT NULL,
        PRIMARY KEY (span, model)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS usage_day (span INTEGER, model TEXT,
        metered INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
        cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL, cost INTEGER NOT NULL, unpriced INTEGER NOT NULL,
        PRIMARY KEY (span, model)) WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// What version 2 has more: seconds, the durations of each second and minute, and the last exchanges.
const HISTORY: &str = "
    ALTER TABLE minute ADD COLUMN durations BLOB;
    ALTER TABLE minute ADD COLUMN first_token_times BLOB;
    CREATE TABLE IF NOT EXISTS second (second INTEGER PRIMARY KEY,
        requests INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL,
        received INTEGER NOT NULL, sent INTEGER NOT NULL, duration_us INTEGER NOT NULL,
        first_tokens INTEGER NOT NULL, first_token_us INTEGER NOT NULL,
        metered INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
        cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL, cost INTEGER NOT NULL, unpriced INTEGER NOT NULL,
        at_least INTEGER NOT NULL, estimated INTEGER NOT NULL,
        durations BLOB, first_token_times BLOB);
    CREATE TABLE IF NOT EXISTS exchange (seq INTEGER PRIMARY KEY AUTOINCREMENT,
        is_failure INTEGER NOT NULL, record TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS exchange_by_failure ON exchange (is_failure, seq);
    PRAGMA user_version = 2;";

/// Columns of what was spent, in the order of the tables.
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
/// Of these, the ones that are newer than the tables.
const ADDED: [&str; 2] = ["at_least", "estimated"];
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

/// The file.
pub(super) struct Store {
    path: PathBuf,
    connection: Option<Connection>,
    /// Whether it was said that it cannot be written.
    is_failing: bool,
    /// The hour in which old rows were deleted.
    pruned: u64,
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is of version {0}")]
    Version(i64),
}

impl Store {
    /// Opens the file of a directory, and reads what it has.
    pub(super) fn open(directory: &Path, now: SystemTime) -> (Self, Saved) {
        let mut store = Self {
            path: directory.join(NAME),
            connection: None,
            is_failing: false,
            pruned: 0,
        };
        let saved = store.attempt(now, |connection| read(connection, now));
        (store, saved.unwrap_or_default())
    }

    /// Adds to what is stored. Says whether it did.
    pub(super) fn write(&mut self, additions: &Additions, now: SystemTime) -> bool {
        let hour = second(now) / HOUR;
        let is_due = self.pruned != hour;
        let written = self.attempt(now, |connection| {
            // from its first statement on: durations are read before they are written
            let behavior = TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(behavior)?;
            write(&transaction, additions)?;
            if is_due {
                prune(&transaction, second(now))?;
            }
            transaction.commit()
        });
        if written.is_some() {
            self.pruned = hour;
        }
        written.is_some()
    }

    /// Moves what is in the log of the database into it, and closes it.
    pub(super) fn close(self) {
        let Some(connection) = self.connection else {
            return;
        };
        // another process that uses the file has the log, and moves it when it ends
        let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let closed = connection.close().map_err(|(_, error)| error);
        if let Err(error) = moved.and(closed) {
            log::warn!(
                "[Activity] {} was not closed properly, its log stays beside it: {error}",
                self.path.display()
            );
        }
    }

    /// Does something with the file; a file that is broken is moved aside first, once.
    fn attempt<T>(
        &mut self,
        now: SystemTime,
        act: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Option<T> {
        let mut outcome = self.once(&act);
        if outcome.as_ref().is_err_and(is_broken) {
            self.connection = None;
            outcome = match self.move_aside(now, &outcome) {
                Ok(()) => self.once(&act),
                Err(error) => Err(error.into()),
            };
        }
        match outcome {
            Ok(done) => {
                if std::mem::take(&mut self.is_failing) {
                    log::info!("[Activity] {} is written again", self.path.display());
                }
                Some(done)
            }
            Err(error) => {
                self.connection = None;
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::warn!(
                        "[Activity] {} cannot be used, sums are kept in memory alone: {error}",
                        self.path.display()
                    );
                }
                None
            }
        }
    }

    fn once<T>(
        &mut self,
        act: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = match self.connection.take() {
            // somebody removed the file: what is written would go nowhere
            Some(connection) if self.path.exists() => connection,
            _ => connect(&self.path)?,
        };
        Ok(act(self.connection.insert(connection))?)
    }

    fn move_aside<T>(&self, now: SystemTime, why: &Result<T, StoreError>) -> io::Result<()> {
        let base = self.path.display();
        let aside = (0_u64..)
            .map(|n| PathBuf::from(format!("{base}{ASIDE}{}", second(now) + n)))
            .find(|aside| !aside.exists())
            .unwrap_or_default();
        fs::rename(&self.path, &aside)?;
        for suffix in ["-wal", "-shm"] {
            let beside = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            // there need not be one
            let _ = fs::rename(beside(&self.path), beside(&aside));
        }
        if let Err(why) = why {
            log::warn!(
                "[Activity] {base} was moved to {}, and a new one begun: {why}",
                aside.display()
            );
        }
        if let Err(error) = prune_aside(&self.path, &aside) {
            log::warn!("[Activity] an old file beside {base} is not deleted: {error}");
        }
        Ok(())
    }
}

/// Deletes what was moved aside, but the newest, of which `newest` is one whatever the clock says.
fn prune_aside(path: &Path, newest: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut aside = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(NAME)?.strip_prefix(ASIDE));
        // what is beside each (`-wal`, `-shm`) is no number
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok())
            && path != newest
        {
            aside.push((number, path));
        }
    }
    aside.sort();
    let mut outcome = Ok(());
    for (_, old) in aside.iter().rev().skip(KEPT_ASIDE - 1) {
        for suffix in ["", "-wal", "-shm"] {
            match fs::remove_file(format!("{}{suffix}", old.display())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
                _ => {}
            }
        }
    }
    outcome
}

fn is_broken(error: &StoreError) -> bool {
    match error {
        StoreError::Version(_) => true,
        StoreError::Io(_) => false,
        StoreError::Sqlite(rusqlite::Error::SqliteFailure(failure, message)) => {
            match failure.code {
                ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => true,
                // tables of that name that are not ours
                ErrorCode::Unknown => message.as_deref().is_some_and(|message| {
                    message.starts_with("no such")
                        || message.starts_with("duplicate column")
                        || message.contains("has no column")
                }),
                _ => false,
            }
        }
        StoreError::Sqlite(
            rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::SqlInputError { .. },
        ) => true,
        StoreError::Sqlite(_) => false,
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    restrict(path)?;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // a commit is an append to the log; the disk is waited for at checkpoints alone
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    if version(&connection)? != VERSION {
        migrate(&mut connection)?;
    }
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the tables up to the version, step by step and as a whole.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    loop {
        // another process may have been faster
        match version(&transaction)? {
            0 => transaction.execute_batch(TABLES)?,
            1 => {
                add_columns(&transaction)?;
                transaction.execute_batch(HISTORY)?;
            }
            VERSION => break,
            other => return Err(StoreError::Version(other)),
        }
    }
    Ok(transaction.commit()?)
}

/// Adds the columns that a file of an earlier release has not; that release writes to it as before.
fn add_columns(connection: &Connection) -> rusqlite::Result<()> {
    const EXISTS: &str = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
    for table in ["minute", "usage_hour", "usage_day"] {
        for column in ADDED {
            let exists = || connection.query_row(EXISTS, [table, column], |row| number(row, 0));
            if exists()? == 0 {
                let add =
                    format!("ALTER TABLE {table} ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0");
                // another process may have been faster
                match connection.execute_batch(&add) {
                    Err(_) if exists()? > 0 => {}
                    outcome => outcome?,
                }
            }
        }
    }
    Ok(())
}

/// Makes the file if there is none, for its owner and its group alone; SQLite gives those beside it the same
/// permissions. One that is closed to more stays so.
#[cfg(unix)]
fn restrict(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    const OWNER_AND_GROUP: u32 = 0o640;
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).mode(OWNER_AND_GROUP);
    options.open(path)?;
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", path.display());
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & !OWNER_AND_GROUP != 0 {
            // of another owner: it is used as it is
            let closed = fs::Permissions::from_mode(mode & OWNER_AND_GROUP);
            let _ = fs::set_permissions(&path, closed);
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> io::Result<()> {
    Ok(())
}

fn read(connection: &mut Connection, now: SystemTime) -> rusqlite::Result<Saved> {
    let now = second(now);
    let mut saved = Additions::default();
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
    let mut statement = connection.prepare("SELECT record FROM exchange ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut ended = Vec::new();
    while let Some(row) = rows.next()? {
        let record: String = row.get(0)?;
        ended.extend(kept::read(&record));
    }
    drop(rows);
    drop(statement);
    Ok(Saved { sums: saved, ended })
}

/// Sums and durations of a row, from a column on.
fn slice(row: &Row<'_>, from: usize) -> rusqlite::Result<Slice> {
    let mut at = from..;
    let mut next = || number(row, at.next().unwrap_or_default());
    let mut sums = Sums {
        requests: next()?,
        succeeded: next()?,
        failed: next()?,
        received: next()?,
        sent: next()?,
        duration: next()?,
        first_tokens: next()?,
        first_token: next()?,
        spent: Spent::default(),
    };
    let from = from + SUMS.len();
    sums.spent = spent(row, from)?;
    let timing = timing(row, from + SPENT.len())?;
    Ok(Slice { sums, timing })
}

/// The durations of a row. What cannot be read is left out: the sums stand without it.
fn timing(row: &Row<'_>, from: usize) -> rusqlite::Result<Timing> {
    let read = |at: usize| -> rusqlite::Result<Option<Arc<Histogram>>> {
        let octets: Option<Vec<u8>> = row.get(at)?;
        let histogram = octets.and_then(|octets| Histogram::of_octets(&octets));
        Ok(histogram.map(Arc::new))
    };
    Ok(Timing {
        duration: read(from)?,
        first_token: read(from + 1)?,
    })
}

fn write(transaction: &Transaction<'_>, additions: &Additions) -> rusqlite::Result<()> {
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
    Ok(())
}

/// Adds to the sums and durations of spans.
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
        let octets =
            |histogram: &Option<Arc<Histogram>>| histogram.as_ref().map(|it| it.to_octets());
        let (durations, first_tokens) = (octets(&all.duration), octets(&all.first_token));
        set.execute(rusqlite::params![durations, first_tokens, signed(*span)])?;
    }
    Ok(())
}

/// Adds exchanges, and deletes the oldest beyond those that are kept: in the order in which they were stored,
/// whatever the clock said.
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
        for record in queue.iter().filter_map(kept::write) {
            add.execute(rusqlite::params![is_failure, record])?;
        }
        transaction.execute(PRUNE, rusqlite::params![is_failure, signed(keep as u64)])?;
    }
    Ok(())
}

/// Deletes rows beyond those that are kept: the newest ones up to now, and as many after it, of a clock
/// that was set back since, of which those next to now may well be right.
fn prune(transaction: &Transaction<'_>, now: u64) -> rusqlite::Result<()> {
    for (table, column, width, keep) in [
        ("second", "second", 1, SECONDS),
        ("minute", "minute", MINUTE, MINUTES),
        ("usage_hour", "span", HOUR, HOURS),
        ("usage_day", "span", DAY, DAYS),
    ] {
        for (side, order, beyond) in [("<=", "DESC", "<="), (">", "ASC", ">=")] {
            let delete = format!(
                "DELETE FROM {table} WHERE {column} {beyond} (SELECT DISTINCT {column} FROM {table}
                    WHERE {column} {side} ?1 ORDER BY {column} {order} LIMIT 1 OFFSET ?2)"
            );
            transaction.execute(&delete, [signed(now / width), signed(keep)])?;
        }
    }
    Ok(())
}

/// The number of the newest span that is not kept any more.
fn oldest(now: u64, width: u64, keep: u64) -> u64 {
    (now / width).saturating_sub(keep)
}

/// A statement that adds to a row, or makes it. Sums end at the largest integer: beyond it SQLite would
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

fn spent(row: &Row<'_>, from: usize) -> rusqlite::Result<Spent> {
    Ok(Spent {
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

fn spent_values(spent: &Spent) -> [i64; SPENT.len()] {
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

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    match row.get_ref(at)? {
        // a sum that had overflown before sums were clamped
        ValueRef::Real(_) => Ok(i64::MAX as u64),
        _ => row
            .get::<_, i64>(at)
            .map(|number| u64::try_from(number).unwrap_or_default()),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOW: u64 = 1_795_402_800;

    #[cfg(unix)]
    #[test]
    fn the_files_are_for_their_owner_and_group() {
        use std::os::unix::fs::PermissionsExt as _;

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        for before in [None, Some(0o666), Some(0o600)] {
            if let Some(before) = before {
                fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            }
            let (mut store, _) = Store::open(directory.path(), at(NOW));
            assert!(store.write(&additions(NOW, 1), at(NOW)));
            for entry in fs::read_dir(directory.path()).unwrap() {
                let path = entry.unwrap().path();
                assert_eq!(mode(&path) & !0o640, 0, "{path:?} {before:?}");
            }
        }
        assert_eq!(mode(&path), 0o600);
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn open(directory: &Path, now: SystemTime) -> (Store, Additions) {
        let (store, saved) = Store::open(directory, now);
        (store, saved.sums)
    }

    fn additions(second: u64, cost: u64) -> Additions {
        let spent = Spent {
            requests: 1,
            cost,
            tokens: Tokens {
                input: 1,
                output: 2,
                cache_read: 3,
                cache_write_5m: 4,
                cache_write_1h: 5,
            },
            unpriced: 6,
            at_least: 7,
            estimated: 8,
        };
        let sums = Sums {
            requests: 7,
            succeeded: 8,
            failed: 9,
            received: 10,
            sent: 11,
            duration: 12,
            first_tokens: 13,
            first_token: 14,
            spent,
        };
        let mut histogram = Histogram::default();
        histogram.add(Duration::from_secs(1));
        let timing = Timing {
            duration: Some(Arc::new(histogram)),
            first_token: None,
        };
        let slice = Slice { sums, timing };
        Additions {
            seconds: [(second, slice.clone())].into(),
            minutes: [(second / MINUTE, slice)].into(),
            hours: [((second / HOUR, "m".into()), spent)].into(),
            days: [((second / DAY, "m".into()), spent)].into(),
            ended: LastEnded::default(),
        }
    }

    #[test]
    fn closing_leaves_no_log_beside_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        assert!(directory.path().join(format!("{NAME}-wal")).exists());
        store.close();
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_was_written_is_read_and_additions_add_up() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, saved) = open(directory.path(), at(NOW));
        assert!(saved.is_empty());
        // another process that has the file open
        let (mut other, _) = open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        assert!(other.write(&additions(NOW, 6), at(NOW)));
        let (_, saved) = open(directory.path(), at(NOW));
        let mut expected = additions(NOW, 5);
        expected.add(additions(NOW, 6));
        assert_eq!(saved, expected);
    }

    #[test]
    fn a_file_of_an_earlier_release_is_read_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let old = Connection::open(directory.path().join(NAME)).unwrap();
        old.execute_batch(TABLES).unwrap();
        let row = "INSERT INTO usage_day VALUES (?, 'm', 1, 1, 2, 3, 4, 5, 5, 6)";
        old.execute(row, [signed(NOW / DAY)]).unwrap();
        let (mut store, saved) = open(directory.path(), at(NOW));
        let mut expected = additions(NOW, 5).days;
        for spent in expected.values_mut() {
            (spent.at_least, spent.estimated) = (0, 0);
        }
        assert_eq!(saved.days, expected);
        assert_eq!(version(&old), Ok(VERSION));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        // which still runs beside it
        let insert = "INSERT INTO usage_day (span, model, metered, input, output, cache_read, \
            cache_write_5m, cache_write_1h, cost, unpriced) VALUES (?, 'n', 1, 1, 1, 1, 1, 1, 1, 1)";
        old.execute(insert, [signed(NOW / DAY)]).unwrap();
        let (_, saved) = open(directory.path(), at(NOW));
        let at_least = saved.days.values().map(|spent| spent.at_least);
        assert_eq!(at_least.collect::<Vec<_>>(), [7, 0]);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            3,
            "nothing is moved aside"
        );
    }

    #[test]
    fn a_version_that_is_not_known_yet_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        let connection = store.connection.take().unwrap();
        connection.execute_batch("PRAGMA user_version = 3").unwrap();
        drop(connection);
        let (mut store, saved) = open(directory.path(), at(NOW));
        assert!(saved.is_empty() && store.write(&additions(NOW, 6), at(NOW)));
        assert!(
            directory
                .path()
                .join(format!("{NAME}{ASIDE}{NOW}"))
                .exists()
        );
    }

    #[test]
    fn durations_that_cannot_be_read_cost_no_sums() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        let connection = store.connection.as_ref().unwrap();
        let broken = "UPDATE minute SET durations = x'0100'; UPDATE second SET durations = x'07'";
        connection.execute_batch(broken).unwrap();
        let (_, saved) = open(directory.path(), at(NOW));
        let mut expected = additions(NOW, 5);
        for slice in expected
            .seconds
            .values_mut()
            .chain(expected.minutes.values_mut())
        {
            slice.timing = Timing::default();
        }
        assert_eq!(saved, expected);
    }

    #[test]
    fn old_rows_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        let (_, saved) = open(directory.path(), at(NOW + 8 * DAY));
        assert_eq!(
            (saved.minutes.len(), saved.hours.len(), saved.days.len()),
            (0, 0, 1)
        );
        let (_, saved) = open(directory.path(), at(NOW + 401 * DAY));
        assert!(saved.is_empty());
    }

    /// How many rows there are: minutes, hours, days.
    fn rows(store: &Store) -> [u64; 3] {
        let connection = store.connection.as_ref().unwrap();
        ["minute", "usage_hour", "usage_day"].map(|table| {
            let count = format!("SELECT count(*) FROM {table}");
            let row = connection.query_row(&count, [], |row| number(row, 0));
            row.unwrap()
        })
    }

    #[test]
    fn rows_go_when_enough_newer_ones_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), at(NOW));
        let mut many = Additions::default();
        for span in 0..MINUTES + 100 {
            many.add(Additions {
                minutes: additions(NOW + span * MINUTE, 1).minutes,
                hours: additions(NOW + span * HOUR, 1).hours,
                days: additions(NOW + span * DAY, 1).days,
                ..Additions::default()
            });
        }
        assert!(store.write(&many, at(NOW + (MINUTES + 100) * DAY)));
        assert_eq!(rows(&store), [MINUTES, HOURS, DAYS]);
    }

    #[test]
    fn a_clock_that_jumps_costs_no_history() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        for wrong in [NOW + 900 * DAY, 60] {
            assert!(store.write(&additions(wrong, 1), at(wrong)));
            assert!(store.write(&additions(wrong + HOUR, 1), at(wrong + HOUR)));
        }
        assert!(store.write(&Additions::default(), at(NOW + HOUR)));
        let (store, saved) = open(directory.path(), at(NOW));
        let minute = NOW / MINUTE;
        assert_eq!(
            saved.minutes[&minute],
            additions(NOW, 5).minutes[&minute],
            "what was there is there"
        );
        assert_eq!(rows(&store), [5, 5, 3]);
    }

    #[test]
    fn sums_end_at_the_largest_integer() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), at(NOW));
        for cost in [u64::MAX, 7, u64::MAX] {
            assert!(store.write(&additions(NOW, cost), at(NOW)));
        }
        let cost = |saved: &Additions| saved.minutes[&(NOW / MINUTE)].sums.spent.cost;
        let (mut store, saved) = open(directory.path(), at(NOW));
        assert_eq!(cost(&saved), i64::MAX as u64);
        assert_eq!(saved.minutes[&(NOW / MINUTE)].sums.requests, 21);
        // as it was written before they were clamped
        let connection = store.connection.as_ref().unwrap();
        connection
            .execute("UPDATE minute SET cost = 9.3e18", [])
            .unwrap();
        assert!(store.write(&additions(NOW, 1), at(NOW)));
        let (_, saved) = open(directory.path(), at(NOW));
        assert_eq!(cost(&saved), i64::MAX as u64);
        assert_eq!(saved.minutes[&(NOW / MINUTE)].sums.requests, 28);
    }

    #[test]
    fn of_files_moved_aside_the_newest_three_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let broken = "not a database, but long enough to be looked at, and then some more of it";
        // the clock is set back before the last
        for second in [9, 10, 100, 101, 102, 50] {
            fs::write(&path, broken).unwrap();
            fs::write(directory.path().join(format!("{NAME}-wal")), "x").unwrap();
            let (mut store, _) = open(directory.path(), at(NOW + second));
            assert!(store.write(&additions(NOW, 5), at(NOW)));
        }
        fs::write(directory.path().join(format!("{NAME}.corrupt-x")), "kept").unwrap();
        let left = fs::read_dir(directory.path()).unwrap();
        let mut left: Vec<_> = left
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| Some(name.split_once(ASIDE)?.1.to_owned()))
            .filter(|rest| !rest.contains('-'))
            .collect();
        left.sort();
        let named = [50, 101, 102].map(|second| (NOW + second).to_string());
        assert_eq!(left[..3], named);
        assert_eq!(left[3..], ["x".to_owned()]);
    }

    #[test]
    fn a_broken_or_foreign_file_is_moved_aside_and_a_clean_one_begun() {
        let foreign = tempfile::tempdir().unwrap();
        let connection = Connection::open(foreign.path().join("x")).unwrap();
        connection
            .execute_batch("PRAGMA user_version = 7; CREATE TABLE minute (a)")
            .unwrap();
        drop(connection);
        let unversioned = foreign.path().join("y");
        Connection::open(&unversioned)
            .unwrap()
            .execute_batch("CREATE TABLE minute (a)")
            .unwrap();
        for content in [
            b"not a database, but long enough to be looked at, and then some more of it".to_vec(),
            fs::read(foreign.path().join("x")).unwrap(),
            fs::read(unversioned).unwrap(),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(NAME);
            fs::write(&path, &content).unwrap();
            let (mut store, saved) = open(directory.path(), at(NOW));
            assert!(saved.is_empty());
            assert!(store.write(&additions(NOW, 5), at(NOW)));
            assert_eq!(open(directory.path(), at(NOW)).1, additions(NOW, 5));
            let aside = directory.path().join(format!("{NAME}.corrupt-{NOW}"));
            assert!(aside.exists());
        }
    }

    #[test]
    fn a_file_that_breaks_while_it_is_used_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = open(directory.path(), at(NOW));
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        drop(store);
        let path = directory.path().join(NAME);
        let mut octets = fs::read(&path).unwrap();
        for octet in &mut octets[4096..] {
            *octet = 0x55;
        }
        fs::write(&path, octets).unwrap();
        let (mut store, saved) = open(directory.path(), at(NOW));
        assert!(saved.is_empty());
        assert!(store.write(&additions(NOW, 6), at(NOW)));
        assert!(
            directory
                .path()
                .join(format!("{NAME}.corrupt-{NOW}"))
                .exists()
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let blocked = directory.path().join("a");
        fs::write(&blocked, "a file where a directory should be").unwrap();
        let (mut store, saved) = open(&blocked, at(NOW));
        assert!(saved.is_empty() && store.is_failing);
        assert!(!store.write(&additions(NOW, 5), at(NOW)));
        fs::remove_file(&blocked).unwrap();
        assert!(store.write(&additions(NOW, 5), at(NOW)));
        assert!(!store.is_failing);
        // and a directory that vanishes
        fs::remove_dir_all(&blocked).unwrap();
        assert!(store.write(&additions(NOW, 6), at(NOW)));
        assert_eq!(open(&blocked, at(NOW)).1, additions(NOW, 6));
    }
}
