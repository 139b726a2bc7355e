//! The tables of the file: made, migrated, and closed to other users of the host.

use std::{fs, io, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{owner::hand_over, store::StateError};

/// Version of the tables. A file of an earlier version is migrated step by step; one of a later version is
/// an error.
pub(super) const VERSION: i64 = 3;

/// Longest wait for another process that writes.
const BUSY: Duration = Duration::from_secs(2);

/// Mark of the proxy's files in their header: `apst`.
const APPLICATION: i64 = 0x6170_7374;

const TABLES: &str = "
    CREATE TABLE counter (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
    INSERT INTO counter VALUES (1, 0);
    CREATE TABLE access_key (id TEXT PRIMARY KEY, record TEXT NOT NULL, version INTEGER NOT NULL)
        WITHOUT ROWID;
    CREATE INDEX access_key_by_version ON access_key (version);
    CREATE TABLE subject (name TEXT PRIMARY KEY, record TEXT NOT NULL, version INTEGER NOT NULL)
        WITHOUT ROWID;
    CREATE INDEX subject_by_version ON subject (version);
    CREATE TABLE spend (subject TEXT NOT NULL, cell TEXT NOT NULL, boot TEXT NOT NULL,
        spent INTEGER NOT NULL, upto INTEGER NOT NULL, is_ended INTEGER NOT NULL,
        PRIMARY KEY (subject, cell, boot)) WITHOUT ROWID;
    CREATE INDEX spend_by_boot ON spend (boot);
    CREATE TABLE checkpoint (chain TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL,
        hmac TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (chain, seq)) WITHOUT ROWID;
    PRAGMA application_id = 1634759540;
    PRAGMA user_version = 1;";

/// The last use of each secret, since version 2.
const LAST_USES: &str = "
    CREATE TABLE last_use (key TEXT NOT NULL, secret TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (key, secret)) WITHOUT ROWID;
    PRAGMA user_version = 2;";

/// Fingerprint of the pepper under which the digests of the keys are made, since version 3.
const PEPPER: &str = "
    CREATE TABLE pepper (id INTEGER PRIMARY KEY CHECK (id = 1), fingerprint TEXT NOT NULL);
    PRAGMA user_version = 3;";

/// Opens the file, and creates or migrates its tables.
pub(super) fn connect(path: &Path) -> Result<Connection, StateError> {
    let mut connection = open(path)?;
    migrate(path, &mut connection)?;
    Ok(connection)
}

/// Opens or creates a file for its owner alone.
pub(super) fn open(path: &Path) -> Result<Connection, StateError> {
    let on_disk = |error: io::Error| StateError::Io(path.to_owned(), error);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(on_disk)?;
    }
    restrict(path).map_err(on_disk)?;
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        // a revocation must outlive a loss of power, so each commit waits for the disk
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;",
        )?;
        // the file is read through once, at the start: kept pages would only take memory (2 MB by default)
        connection.execute_batch("PRAGMA cache_size = -256;")?;
        Ok(connection)
    };
    open().map_err(|error| of_sqlite(path, error))
}

/// Migrates the tables to the current version, in one transaction.
fn migrate(path: &Path, connection: &mut Connection) -> Result<(), StateError> {
    let of = |error| of_sqlite(path, error);
    if version(connection).map_err(of)? == VERSION {
        return check_mark(path, connection);
    }
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(of)?;
    loop {
        // another process may have been faster
        match version(&transaction).map_err(of)? {
            0 => {
                let tables = "SELECT count(*) FROM sqlite_schema";
                let tables: i64 = transaction
                    .query_row(tables, [], |row| row.get(0))
                    .map_err(of)?;
                if tables > 0 {
                    let why = "it has tables of another program".to_owned();
                    return Err(StateError::Damaged(path.to_owned(), why));
                }
                transaction.execute_batch(TABLES).map_err(of)?;
            }
            1 => transaction.execute_batch(LAST_USES).map_err(of)?,
            2 => transaction.execute_batch(PEPPER).map_err(of)?,
            VERSION => break,
            other => return Err(StateError::Newer(path.to_owned(), other)),
        }
    }
    transaction.commit().map_err(of)
}

fn check_mark(path: &Path, connection: &Connection) -> Result<(), StateError> {
    let mark: i64 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(|error| of_sqlite(path, error))?;
    match mark {
        APPLICATION => Ok(()),
        _ => {
            let why = "it has the tables of another program".to_owned();
            Err(StateError::Damaged(path.to_owned(), why))
        }
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The error of SQLite, with its remedy.
pub(super) fn of_sqlite(path: &Path, error: rusqlite::Error) -> StateError {
    let path = path.to_owned();
    match &error {
        rusqlite::Error::SqliteFailure(failure, message) => match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StateError::Locked(path),
            ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => {
                StateError::Damaged(path, error.to_string())
            }
            // tables of another program
            ErrorCode::Unknown
                if message
                    .as_deref()
                    .is_some_and(|it| it.starts_with("no such")) =>
            {
                StateError::Damaged(path, error.to_string())
            }
            _ => StateError::Database(path, error.to_string()),
        },
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::Utf8Error(..) => StateError::Damaged(path, error.to_string()),
        _ => StateError::Database(path, error.to_string()),
    }
}

/// Creates a missing file for its owner alone, and closes one that is open to others; SQLite gives the files
/// beside it the same permissions.
#[cfg(unix)]
fn restrict(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    const OWNER: u32 = 0o600;
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).mode(OWNER);
    // SQLite does the same with the files beside it
    hand_over(path, &options.open(path)?)?;
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", path.display());
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & !OWNER != 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & OWNER))?;
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn restrict(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?;
    Ok(())
}
