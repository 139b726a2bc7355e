//! The tables of the file: made, migrated, and closed to other users of the host.

use std::{fs, io, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::rows::number;

/// Version of the tables. A file of an earlier version is migrated step by step; one of a later version is
/// moved aside.
pub(super) const VERSION: i64 = 3;
/// Longest wait for another process that writes.
const BUSY: Duration = Duration::from_secs(1);

pub(super) const TABLES: &str = "
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

/// Additions of version 2: seconds, the durations of each second and minute, and the last exchanges.
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

/// Additions of version 3: usage by key, user, team and session, and the sessions.
const SESSIONS: &str = "
    CREATE TABLE IF NOT EXISTS usage_hour_by (span INTEGER, dimension TEXT, name TEXT,
        metered INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
        cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL, cost INTEGER NOT NULL, unpriced INTEGER NOT NULL,
        at_least INTEGER NOT NULL, estimated INTEGER NOT NULL,
        PRIMARY KEY (span, dimension, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS usage_day_by (span INTEGER, dimension TEXT, name TEXT,
        metered INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
        cache_read INTEGER NOT NULL, cache_write_5m INTEGER NOT NULL,
        cache_write_1h INTEGER NOT NULL, cost INTEGER NOT NULL, unpriced INTEGER NOT NULL,
        at_least INTEGER NOT NULL, estimated INTEGER NOT NULL,
        PRIMARY KEY (span, dimension, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS session (session TEXT, key TEXT, last INTEGER NOT NULL,
        record TEXT NOT NULL, PRIMARY KEY (session, key)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS session_by_last ON session (last);
    PRAGMA user_version = 3;";

/// Columns of usage that are newer than the tables.
const ADDED: [&str; 2] = ["at_least", "estimated"];

/// Reason for which the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its version {0} is unknown to this release")]
    Version(i64),
}

pub(super) fn is_broken(error: &StoreError) -> bool {
    match error {
        StoreError::Version(_) => true,
        StoreError::Io(_) => false,
        StoreError::Sqlite(rusqlite::Error::SqliteFailure(failure, message)) => {
            match failure.code {
                ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => true,
                // foreign tables of the same name
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

pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
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

pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Migrates the tables to the current version, step by step in one transaction.
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
            2 => transaction.execute_batch(SESSIONS)?,
            VERSION => break,
            other => return Err(StoreError::Version(other)),
        }
    }
    Ok(transaction.commit()?)
}

/// Adds the columns missing in a file of an earlier release, which can still write to it.
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

/// Creates a missing file with access for its owner and group only; SQLite gives the files beside it the
/// same permissions. Stricter permissions are kept.
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
            // fails on a file of another owner, which is used as it is
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
