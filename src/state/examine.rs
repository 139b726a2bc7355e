//! A look at a database file from outside, for a diagnosis: nothing is made, migrated or changed.

use std::{io, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Longest wait for a process that writes.
const BUSY: Duration = Duration::from_secs(1);

/// Condition of a database file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseFinding {
    /// There is none.
    Missing,
    /// It is whole.
    Whole,
    /// Another process writes.
    Busy,
    /// It cannot be opened, and why.
    Denied(String),
    /// It is damaged, or no database, and why.
    Damaged(String),
}

/// Checks the structure of a database file of SQLite.
pub fn check_database(path: &Path) -> DatabaseFinding {
    match std::fs::File::open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return DatabaseFinding::Missing,
        Err(error) => return DatabaseFinding::Denied(error.to_string()),
    }
    match quick_check(path) {
        Ok(said) if said == "ok" => DatabaseFinding::Whole,
        Ok(said) => DatabaseFinding::Damaged(said.lines().next().unwrap_or_default().to_owned()),
        Err(rusqlite::Error::SqliteFailure(failure, message)) => {
            let why = message.unwrap_or_else(|| failure.to_string());
            match failure.code {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => DatabaseFinding::Busy,
                ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => {
                    DatabaseFinding::Damaged(why)
                }
                _ => DatabaseFinding::Denied(why),
            }
        }
        Err(error) => DatabaseFinding::Denied(error.to_string()),
    }
}

fn quick_check(path: &Path) -> rusqlite::Result<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_judged_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sqlite");
        assert_eq!(check_database(&path), DatabaseFinding::Missing);
        let made = Connection::open(&path).unwrap();
        made.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1);")
            .unwrap();
        made.close().unwrap();
        assert_eq!(check_database(&path), DatabaseFinding::Whole);
        let mut octets = fs::read(&path).unwrap();
        let end = octets.len();
        octets[end - 4096..].fill(0x55);
        fs::write(&path, &octets).unwrap();
        assert!(matches!(check_database(&path), DatabaseFinding::Damaged(_)));
        assert_eq!(fs::read(&path).unwrap(), octets);
        fs::write(
            &path,
            "no database, and longer than a hundred octets".repeat(40),
        )
        .unwrap();
        assert!(matches!(check_database(&path), DatabaseFinding::Damaged(_)));
    }
}
