//! The copy of keys and subjects that a replica keeps of the shared store, in `DATA_DIR`: with it a replica that
//! starts while the store is away knows them.
//!
//! It holds what the store holds, digests and no secret, and is never written where the store could be. It is of one
//! store, prefix and pepper; one of another origin is as good as none. A damaged one is made anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{
    schema::{of_sqlite, open},
    store::{StateError, StoredText},
};

/// The file's name in `DATA_DIR`.
const FILE: &str = "shared-copy.sqlite";

/// Version of the tables. A copy of another version is made anew.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE origin (id INTEGER PRIMARY KEY CHECK (id = 1), source TEXT NOT NULL, pepper TEXT NOT NULL,
        version INTEGER NOT NULL, change TEXT NOT NULL, at INTEGER NOT NULL);
    CREATE TABLE access_key (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE subject (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// The origin of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOrigin {
    /// The store: its form, servers, database and prefix.
    pub source: String,
    /// Fingerprint of the pepper of the digests.
    pub pepper: String,
}

/// State of the store that a copy has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyMark {
    /// The store's version.
    pub version: u64,
    /// The name of the change that made it.
    pub change: String,
    /// Time at which the store was last seen to have it, in Unix seconds.
    pub at: i64,
}

/// The copy in a directory.
#[derive(Debug)]
pub struct RecordCopy {
    path: PathBuf,
    origin: CopyOrigin,
    connection: Option<Connection>,
}

impl RecordCopy {
    /// The copy of an origin in a directory. Nothing is opened yet.
    pub fn new(directory: &Path, origin: CopyOrigin) -> Self {
        Self {
            path: directory.join(FILE),
            origin,
            connection: None,
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state that it has; none without a copy of this origin.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn mark(&mut self) -> Result<Option<CopyMark>, StateError> {
        let origin = self.origin.clone();
        self.view(|connection| mark(connection, &origin))
    }

    /// Shows all records, subjects before keys, and gives the state that they are of; none without a copy of this
    /// origin.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(
        &mut self,
        show: &mut dyn FnMut(StoredText<'_>),
    ) -> Result<Option<CopyMark>, StateError> {
        let origin = self.origin.clone();
        self.view(|connection| {
            // one view of all
            let view = connection.unchecked_transaction()?;
            let Some(mark) = mark(&view, &origin)? else {
                return Ok(None);
            };
            let mut subjects = view.prepare("SELECT name, record FROM subject ORDER BY name")?;
            let mut rows = subjects.query([])?;
            while let Some(row) = rows.next()? {
                show(StoredText::Subject {
                    name: row.get_ref(0)?.as_str()?,
                    record: row.get_ref(1)?.as_str()?,
                });
            }
            let mut keys = view.prepare("SELECT id, record FROM access_key ORDER BY id")?;
            let mut rows = keys.query([])?;
            while let Some(row) = rows.next()? {
                show(StoredText::Key {
                    id: row.get_ref(0)?.as_str()?,
                    record: row.get_ref(1)?.as_str()?,
                });
            }
            Ok(Some(mark))
        })
    }

    /// Takes what `read` shows, all or nothing: everything, or what changed `since` a version that it must have.
    /// `read` gives the state that the copy has then.
    ///
    /// # Errors
    /// [`StateError::Conflict`] if it has another version, or the error of `read` or of the file.
    pub fn write(
        &mut self,
        since: Option<u64>,
        read: impl FnOnce(&mut dyn FnMut(StoredText<'_>)) -> Result<CopyMark, StateError>,
    ) -> Result<(), StateError> {
        let (path, origin) = (self.path.clone(), self.origin.clone());
        let on_disk = |error| of_sqlite(&path, error);
        let connection = self.connection()?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(on_disk)?;
        match since {
            Some(since) => {
                let found = mark(&transaction, &origin).map_err(on_disk)?;
                if found.is_none_or(|found| found.version != since) {
                    return Err(StateError::Conflict);
                }
            }
            None => transaction
                .execute_batch("DELETE FROM access_key; DELETE FROM subject;")
                .map_err(on_disk)?,
        }
        let mark = put_all(&transaction, read, &on_disk)?;
        let CopyMark {
            version,
            change,
            at,
        } = &mark;
        let version = i64::try_from(*version).unwrap_or(i64::MAX);
        transaction
            .execute(
                "INSERT OR REPLACE INTO origin (id, source, pepper, version, change, at)
                     VALUES (1, ?1, ?2, ?3, ?4, ?5)",
                params![origin.source, origin.pepper, version, change, at],
            )
            .map_err(on_disk)?;
        transaction.commit().map_err(on_disk)
    }

    /// Notes that the store was seen to have the state of the copy.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn confirm(&mut self, mark: &CopyMark) -> Result<(), StateError> {
        let path = self.path.clone();
        let CopyOrigin { source, pepper } = self.origin.clone();
        let version = i64::try_from(mark.version).unwrap_or(i64::MAX);
        let confirmed = self.connection()?.execute(
            "UPDATE origin SET at = max(at, ?1)
                 WHERE source = ?2 AND pepper = ?3 AND version = ?4 AND change = ?5",
            params![mark.at, source, pepper, version, mark.change],
        );
        confirmed.map(drop).map_err(|error| of_sqlite(&path, error))
    }

    /// Removes the file, which can be made anew.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn remove(&mut self) -> Result<(), StateError> {
        self.connection = None;
        for suffix in ["-wal", "-shm", ""] {
            let path = PathBuf::from(format!("{}{suffix}", self.path.display()));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StateError::Io(path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads from the file; gives the default where there is none.
    fn view<T: Default>(
        &mut self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        if self.connection.is_none() && !self.path.exists() {
            return Ok(T::default());
        }
        let path = self.path.clone();
        read(self.connection()?).map_err(|error| of_sqlite(&path, error))
    }

    /// The connection, opened or created now if it was not before.
    fn connection(&mut self) -> Result<&mut Connection, StateError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        Ok(self.connection.insert(connection))
    }
}

/// Opens the file, with its tables.
fn connect(path: &Path) -> Result<Connection, StateError> {
    let of = |error| of_sqlite(path, error);
    let mut connection = open(path)?;
    let version = |connection: &Connection| {
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
    };
    if version(&connection).map_err(of)? == VERSION {
        return Ok(connection);
    }
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(of)?;
    // another process may have been faster
    match version(&transaction).map_err(of)? {
        0 => transaction.execute_batch(TABLES).map_err(of)?,
        VERSION => {}
        other => {
            let why = format!("it has version {other}");
            return Err(StateError::Damaged(path.to_owned(), why));
        }
    }
    transaction.commit().map_err(of)?;
    Ok(connection)
}

/// The state that the copy has, if it is one of the origin.
fn mark(connection: &Connection, origin: &CopyOrigin) -> rusqlite::Result<Option<CopyMark>> {
    let mark = connection.query_row(
        "SELECT version, change, at FROM origin WHERE source = ?1 AND pepper = ?2",
        params![origin.source, origin.pepper],
        |row| {
            Ok(CopyMark {
                version: row.get::<_, i64>(0)?.try_into().unwrap_or(0),
                change: row.get(1)?,
                at: row.get(2)?,
            })
        },
    );
    mark.optional()
}

/// Puts each record that `read` shows.
fn put_all(
    transaction: &Transaction<'_>,
    read: impl FnOnce(&mut dyn FnMut(StoredText<'_>)) -> Result<CopyMark, StateError>,
    on_disk: &impl Fn(rusqlite::Error) -> StateError,
) -> Result<CopyMark, StateError> {
    let put = |table: &str| {
        let put = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)");
        transaction.prepare(&put).map_err(on_disk)
    };
    let (mut put_key, mut put_subject) = (put("access_key")?, put("subject")?);
    let mut failed = None;
    let mark = read(&mut |text| {
        let put = match text {
            StoredText::Key { id, record } => put_key.execute([id, record]),
            StoredText::Subject { name, record } => put_subject.execute([name, record]),
        };
        if let Err(error) = put {
            failed.get_or_insert(error);
        }
    })?;
    match failed {
        Some(error) => Err(on_disk(error)),
        None => Ok(mark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str) -> CopyOrigin {
        CopyOrigin {
            source: source.to_owned(),
            pepper: "p".to_owned(),
        }
    }

    fn mark(version: u64, at: i64) -> CopyMark {
        CopyMark {
            version,
            change: format!("c{version}"),
            at,
        }
    }

    type Texts = Vec<(String, String)>;

    fn shown(copy: &mut RecordCopy) -> Option<(Texts, CopyMark)> {
        let mut texts = Vec::new();
        let mark = copy.read(&mut |text| {
            let (name, record) = match text {
                StoredText::Key { id, record } => (id, record),
                StoredText::Subject { name, record } => (name, record),
            };
            texts.push((name.to_owned(), record.to_owned()));
        });
        mark.unwrap().map(|mark| (texts, mark))
    }

    fn put(
        copy: &mut RecordCopy,
        since: Option<u64>,
        keys: &[(&str, &str)],
        mark: CopyMark,
    ) -> Result<(), StateError> {
        copy.write(since, |show| {
            show(StoredText::Subject {
                name: "org",
                record: "{0}",
            });
            for (id, record) in keys {
                show(StoredText::Key { id, record });
            }
            Ok(mark)
        })
    }

    fn texts(texts: &[(&str, &str)]) -> Texts {
        let owned = |(one, other): &(&str, &str)| ((*one).to_owned(), (*other).to_owned());
        texts.iter().map(owned).collect()
    }

    #[test]
    fn it_is_whole_or_what_changed_since_its_version_and_of_one_origin() {
        let directory = tempfile::tempdir().unwrap();
        let copy = |source: &str| RecordCopy::new(directory.path(), origin(source));
        let mut one = copy("a");
        assert_eq!((shown(&mut one), one.mark().unwrap()), (None, None));
        assert!(!one.path().exists(), "a look leaves no file");
        put(&mut one, None, &[("k", "{1}"), ("l", "{2}")], mark(7, 10)).unwrap();
        put(&mut one, Some(7), &[("k", "{3}")], mark(8, 11)).unwrap();
        let late = put(&mut one, Some(7), &[("k", "{4}")], mark(9, 12));
        assert!(matches!(late, Err(StateError::Conflict)), "{late:?}");
        one.confirm(&mark(8, 20)).unwrap();
        one.confirm(&mark(7, 30)).unwrap();
        let all = [("org", "{0}"), ("k", "{3}"), ("l", "{2}")];
        let expected = (texts(&all), mark(8, 20));
        assert_eq!(shown(&mut copy("a")), Some(expected));
        assert_eq!(shown(&mut copy("b")), None);
        put(&mut copy("b"), None, &[("m", "{5}")], mark(1, 40)).unwrap();
        assert_eq!(shown(&mut one), None);
        let expected = (texts(&[("org", "{0}"), ("m", "{5}")]), mark(1, 40));
        assert_eq!(shown(&mut copy("b")), Some(expected));
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there_and_a_damaged_file_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut copy = RecordCopy::new(directory.path(), origin("a"));
        put(&mut copy, None, &[("k", "{1}")], mark(1, 1)).unwrap();
        let failed = copy.write(None, |show| {
            show(StoredText::Key {
                id: "l",
                record: "{2}",
            });
            Err(StateError::Random)
        });
        assert!(matches!(failed, Err(StateError::Random)), "{failed:?}");
        let expected = (texts(&[("org", "{0}"), ("k", "{1}")]), mark(1, 1));
        assert_eq!(shown(&mut copy), Some(expected));
        copy.remove().unwrap();
        fs::write(
            copy.path(),
            "no file of SQLite, and longer than its header is".repeat(9),
        )
        .unwrap();
        let damaged = copy.mark();
        assert!(
            matches!(damaged, Err(StateError::Damaged(..))),
            "{damaged:?}"
        );
        copy.remove().unwrap();
        put(&mut copy, None, &[], mark(2, 2)).unwrap();
        assert_eq!(copy.mark().unwrap(), Some(mark(2, 2)));
    }

    #[cfg(unix)]
    #[test]
    fn it_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let mut copy = RecordCopy::new(directory.path(), origin("a"));
        put(&mut copy, None, &[], mark(1, 1)).unwrap();
        let mode = fs::metadata(copy.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
