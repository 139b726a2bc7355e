//! The store of one replica: a file of SQLite in `DATA_DIR`.
//!
//! The file is created by the first write: a process that has no keys leaves none. Each change is one
//! transaction that the disk has before it counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{
    schema::{connect, of_sqlite},
    spend,
    store::{
        SpendRegister, StateError, Store, StoreChange, StoredCheckpoint, StoredRegister,
        StoredSpend, StoredText, StoredUse,
    },
};

/// The file's name in `DATA_DIR`.
pub const STATE_FILE: &str = "state.sqlite";

/// Checkpoints of the audit that are kept for each chain: those of 40 days at one each quarter of an hour.
const CHECKPOINTS: i64 = 4_096;

/// A file of SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    open: Option<OpenFile>,
    /// Fingerprint of the pepper of the keys that are made.
    pepper: Option<String>,
}

/// The file, and what tells it from another one at its path.
#[derive(Debug)]
struct OpenFile {
    connection: Connection,
    identity: (u64, u64),
    /// SQLite's count of what other processes have written, when their spends were read last.
    seen: Option<i64>,
}

impl SqliteStore {
    /// The store of a directory. Nothing is opened yet.
    pub fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(STATE_FILE),
            open: None,
            pepper: None,
        }
    }

    /// True if there is a file.
    pub fn exists(&self) -> bool {
        self.open.is_some() || fs::symlink_metadata(&self.path).is_ok()
    }

    /// The connection, opened or created now if it was not before.
    fn connection(&mut self) -> Result<&mut Connection, StateError> {
        let identity = identity(&self.path);
        if let Some(open) = &self.open
            && identity != Some(open.identity)
        {
            // what were written now would be in no file
            return Err(StateError::Gone(self.path.clone()));
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => OpenFile {
                connection: connect(&self.path)?,
                identity: self::identity(&self.path).unwrap_or_default(),
                seen: None,
            },
        };
        Ok(&mut self.open.insert(open).connection)
    }

    /// Reads from the file; gives the default where there is none.
    fn view<T: Default>(
        &mut self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        if !self.exists() {
            return Ok(T::default());
        }
        let path = self.path.clone();
        read(self.connection()?).map_err(|error| of_sqlite(&path, error))
    }

    /// Writes in one transaction.
    fn write<T>(
        &mut self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let path = self.path.clone();
        let connection = self.connection()?;
        let written = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let written = write(&transaction)?;
                transaction.commit()?;
                Ok(written)
            });
        written.map_err(|error| of_sqlite(&path, error))
    }
}

impl Store for SqliteStore {
    fn read(
        &mut self,
        since: u64,
        show: &mut dyn FnMut(StoredText<'_>),
    ) -> Result<u64, StateError> {
        self.view(|connection| {
            // one view of both
            let view = connection.unchecked_transaction()?;
            let mut subjects =
                view.prepare("SELECT name, record FROM subject WHERE version > ?1 ORDER BY name")?;
            let mut rows = subjects.query([signed(since)])?;
            while let Some(row) = rows.next()? {
                show(StoredText::Subject {
                    name: row.get_ref(0)?.as_str()?,
                    record: row.get_ref(1)?.as_str()?,
                });
            }
            let mut keys =
                view.prepare("SELECT id, record FROM access_key WHERE version > ?1 ORDER BY id")?;
            let mut rows = keys.query([signed(since)])?;
            while let Some(row) = rows.next()? {
                show(StoredText::Key {
                    id: row.get_ref(0)?.as_str()?,
                    record: row.get_ref(1)?.as_str()?,
                });
            }
            version(&view)
        })
    }

    fn version(&mut self) -> Result<u64, StateError> {
        self.view(version)
    }

    fn change(&mut self, expected: u64, changes: &[StoreChange]) -> Result<u64, StateError> {
        let pepper = self.pepper.clone();
        let changed = self.write(|transaction| {
            let count = "UPDATE counter SET version = version + 1 WHERE version = ?1";
            if transaction.execute(count, [signed(expected)])? == 0 {
                return Ok(None);
            }
            let version = version(transaction)?;
            if let Some(fingerprint) = &pepper {
                put_pepper(transaction, fingerprint)?;
            }
            let mut put_key = transaction.prepare(
                "INSERT OR REPLACE INTO access_key (id, record, version) VALUES (?1, ?2, ?3)",
            )?;
            let mut put_subject = transaction.prepare(
                "INSERT OR REPLACE INTO subject (name, record, version) VALUES (?1, ?2, ?3)",
            )?;
            for change in changes {
                match change {
                    StoreChange::Key { id, record } => {
                        put_key.execute(params![id, record, signed(version)])?;
                    }
                    StoreChange::Subject { name, record } => {
                        put_subject.execute(params![name, record, signed(version)])?;
                    }
                }
            }
            Ok(Some(version))
        })?;
        changed.ok_or(StateError::Conflict)
    }

    fn check_pepper(
        &mut self,
        fingerprint: &str,
        presumed: Option<&str>,
    ) -> Result<(), StateError> {
        let (known, has_keys) = self.view(|connection| {
            let read = "SELECT max(fingerprint) FROM pepper";
            let known: Option<String> = connection.query_row(read, [], |row| row.get(0))?;
            let has_keys = "SELECT EXISTS (SELECT 1 FROM access_key)";
            Ok((known, connection.query_row(has_keys, [], |row| row.get(0))?))
        })?;
        let theirs = known.as_deref().or(presumed);
        if has_keys && theirs.is_some_and(|theirs| theirs != fingerprint) {
            return Err(StateError::OtherPepper(self.path.clone()));
        }
        self.pepper = Some(fingerprint.to_owned());
        if has_keys && known.is_none() {
            // where it cannot be written now, the next change writes it
            let _ = self.write(|transaction| put_pepper(transaction, fingerprint));
        }
        Ok(())
    }

    fn spends(&mut self, except: &str) -> Result<Vec<StoredSpend>, StateError> {
        self.view(|connection| spend::all_but(connection, except))
    }

    fn changed_spends(&mut self, except: &str) -> Result<Vec<StoredSpend>, StateError> {
        let written = |connection: &Connection| {
            connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0))
        };
        // before the rows: what is written meanwhile is read the next time
        let written = self.view(|connection| written(connection).map(Some))?;
        let seen = self.open.as_mut().map(|open| &mut open.seen);
        let Some(seen) = seen.filter(|seen| **seen != written) else {
            return Ok(Vec::new());
        };
        let before = std::mem::replace(seen, written);
        let spends = self.view(|connection| spend::of_others(connection, except));
        if spends.is_err()
            && let Some(open) = &mut self.open
        {
            open.seen = before;
        }
        spends
    }

    fn registers(&mut self, subject: &str) -> Result<Vec<StoredRegister>, StateError> {
        self.view(|connection| spend::of_subject(connection, subject))
    }

    fn write_spends(&mut self, boot: &str, rows: &[SpendRegister]) -> Result<(), StateError> {
        self.write(|transaction| spend::write(transaction, boot, rows))
    }

    fn seed_spends(&mut self, spends: &[StoredSpend]) -> Result<(), StateError> {
        match spends {
            [] => Ok(()),
            spends => self.write(|transaction| spend::seed(transaction, spends)),
        }
    }

    fn end_boot(&mut self, boot: &str) -> Result<(), StateError> {
        if !self.exists() {
            return Ok(());
        }
        self.write(|transaction| spend::end(transaction, boot))
    }

    fn merge_boots(&mut self) -> Result<(), StateError> {
        if !self.exists() {
            return Ok(());
        }
        self.write(|transaction| spend::merge(transaction))
    }

    fn write_uses(&mut self, uses: &[StoredUse]) -> Result<(), StateError> {
        if uses.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut write = transaction.prepare(
                "INSERT INTO last_use (key, secret, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key, secret) DO UPDATE SET at = max(at, excluded.at)",
            )?;
            for StoredUse { key, secret, at } in uses {
                write.execute(params![key, secret, at])?;
            }
            Ok(())
        })
    }

    fn uses(&mut self, since: i64) -> Result<Vec<StoredUse>, StateError> {
        self.view(|connection| {
            let mut read =
                connection.prepare("SELECT key, secret, at FROM last_use WHERE at >= ?1")?;
            let rows = read.query_map([since], |row| {
                Ok(StoredUse {
                    key: row.get(0)?,
                    secret: row.get(1)?,
                    at: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    fn add_checkpoint(&mut self, checkpoint: &StoredCheckpoint) -> Result<(), StateError> {
        self.write(|transaction| {
            let StoredCheckpoint {
                chain,
                seq,
                hash,
                hmac,
                at,
            } = checkpoint;
            transaction.execute(
                "INSERT OR REPLACE INTO checkpoint (chain, seq, hash, hmac, at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![chain, signed(*seq), hash, hmac, at],
            )?;
            transaction.execute(
                "DELETE FROM checkpoint WHERE chain = ?1 AND seq < (SELECT seq FROM checkpoint
                     WHERE chain = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                params![chain, CHECKPOINTS - 1],
            )
        })
        .map(drop)
    }

    fn checkpoints(&mut self) -> Result<Vec<StoredCheckpoint>, StateError> {
        self.view(|connection| {
            let mut read = connection
                .prepare("SELECT chain, seq, hash, hmac, at FROM checkpoint ORDER BY chain, seq")?;
            let rows = read.query_map([], |row| {
                Ok(StoredCheckpoint {
                    chain: row.get(0)?,
                    seq: row.get::<_, i64>(1)?.try_into().unwrap_or(0),
                    hash: row.get(2)?,
                    hmac: row.get(3)?,
                    at: row.get(4)?,
                })
            })?;
            rows.collect()
        })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            // moves the write-ahead log into the file; else the next start does
            let _ = open.connection.close();
        }
    }
}

fn put_pepper(transaction: &Transaction<'_>, fingerprint: &str) -> rusqlite::Result<()> {
    let put = "INSERT OR REPLACE INTO pepper (id, fingerprint) VALUES (1, ?1)";
    transaction.execute(put, [fingerprint]).map(drop)
}

fn version(connection: &Connection) -> rusqlite::Result<u64> {
    let version = "SELECT version FROM counter";
    let version: i64 = connection.query_row(version, [], |row| row.get(0))?;
    Ok(version.try_into().unwrap_or(0))
}

/// SQLite's integers are signed.
fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Device and inode of a file, if there is one.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|_| (0, 0))
}

#[cfg(test)]
mod tests;
