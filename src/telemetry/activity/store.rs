//! History on disk: totals, durations and the last exchanges (without content), in SQLite, one small
//! transaction a second.
//!
//! Writes add to stored values, so that two processes may share the file while one takes over from the
//! other. A file that is not a database of the proxy is moved aside, and the newest three of those are
//! kept; a directory that cannot be written is reported once, and tried again with every write.
//!
//! Rows are deleted by the number of newer rows, not by the clock: once as many newer ones exist as are
//! kept. So a clock that jumps, either way, costs nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, TransactionBehavior};

mod rows;
mod schema;

use self::{
    rows::{prune, read, write},
    schema::{StoreError, connect, is_broken},
};
use super::state::{Delta, HOUR, StoredHistory, second};

/// The file's name in `DATA_DIR`.
pub const HISTORY_FILE: &str = "activity.sqlite";
/// Infix of the name of a file that was moved aside: [`HISTORY_FILE`], this, and the second.
const ASIDE: &str = ".corrupt-";
/// Upper bound of files that are kept aside.
const KEPT_ASIDE: usize = 3;
/// The file.
pub(super) struct Store {
    path: PathBuf,
    connection: Option<Connection>,
    /// True once the log has reported that the file cannot be written.
    is_failing: bool,
    /// The hour in which old rows were deleted.
    pruned: u64,
}

impl Store {
    /// Opens the file of a directory, and reads its history.
    pub(super) fn open(directory: &Path, now: SystemTime) -> (Self, StoredHistory) {
        let mut store = Self {
            path: directory.join(HISTORY_FILE),
            connection: None,
            is_failing: false,
            pruned: 0,
        };
        let saved = store.attempt(now, |connection| read(connection, now));
        (store, saved.unwrap_or_default())
    }

    /// Adds to the stored history. Returns true on success.
    pub(super) fn write(&mut self, additions: &Delta, now: SystemTime) -> bool {
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

    /// Moves the write-ahead log into the database, and closes it.
    pub(super) fn close(self) {
        let Some(connection) = self.connection else {
            return;
        };
        // another process that uses the file has the log, and moves it when it ends
        let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let closed = connection.close().map_err(|(_, error)| error);
        if let Err(error) = moved.and(closed) {
            log::warn!(
                "[Activity] {} could not be closed: {error}; its write-ahead log stays beside it and is read at the next start",
                self.path.display()
            );
        }
    }

    /// Runs an action on the file; a broken file is moved aside first, once.
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
                    log::info!("[Activity] {}: writing again", self.path.display());
                }
                Some(done)
            }
            Err(error) => {
                self.connection = None;
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::warn!(
                        "[Activity] {} cannot be used: {error}; history is kept in memory only; check that DATA_DIR is writable",
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
            // the file was removed: writes to it would be lost
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
                "[Activity] {base} is broken: {why}; moved to {} and started a new one",
                aside.display()
            );
        }
        if let Err(error) = prune_aside(&self.path, &aside) {
            log::warn!(
                "[Activity] an old file beside {base} cannot be deleted: {error}; delete it by hand"
            );
        }
        Ok(())
    }
}

/// Deletes files that were moved aside, except the newest; `newest` is one of them regardless of the clock.
fn prune_aside(path: &Path, newest: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut aside = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(HISTORY_FILE)?.strip_prefix(ASIDE));
        // the files beside each (`-wal`, `-shm`) do not end with a number
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

#[cfg(test)]
mod tests;
