//! The trait of a store, what it takes and gives, and the errors that it has.

use std::{io, path::PathBuf, time::Duration};

use super::redis::fault::RedisFault;

/// Keys and subjects: all of them, or those that changed after a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredState {
    /// Number of changes so far.
    pub version: u64,
    /// Keys by id, as JSON texts.
    pub keys: Vec<(String, String)>,
    /// Other subjects by name, as JSON texts.
    pub subjects: Vec<(String, String)>,
}

/// A key or a subject, while it is read: there may be a hundred thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredText<'a> {
    /// A key.
    Key {
        /// Its id.
        id: &'a str,
        /// Its record, a JSON text.
        record: &'a str,
    },
    /// Another subject.
    Subject {
        /// Its name.
        name: &'a str,
        /// Its record, a JSON text.
        record: &'a str,
    },
}

/// A change of one key or subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChange {
    /// A key, new or replaced.
    Key {
        /// Its id.
        id: String,
        /// Its record, a JSON text.
        record: String,
    },
    /// A subject, new or replaced.
    Subject {
        /// Its name.
        name: String,
        /// Its record, a JSON text.
        record: String,
    },
}

/// Spend of a subject in a cell: a period, and the models that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSpend {
    /// The subject.
    pub subject: String,
    /// The cell.
    pub cell: String,
    /// Billionths of a US dollar that are spent.
    pub spent: u64,
    /// Billionths of a US dollar that count as spent once none of the boots runs.
    pub upto: u64,
}

/// The register of this boot for a cell: absolute since the boot, so that it may be written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendRegister {
    /// The subject.
    pub subject: String,
    /// The cell.
    pub cell: String,
    /// Billionths of a US dollar that were spent.
    pub spent: u64,
    /// Upper bound of what is spent before the next write: it counts if there is none.
    pub upto: u64,
}

/// A register of any boot, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRegister {
    /// The boot; empty for the sum of earlier ones.
    pub boot: String,
    /// The cell.
    pub cell: String,
    /// Billionths of a US dollar that were spent.
    pub spent: u64,
    /// Upper bound of what was spent.
    pub upto: u64,
    /// True if the boot ended with a last write.
    pub is_ended: bool,
}

impl StoredRegister {
    /// Billionths of a US dollar that count as spent: the upper bound where the last write is missing.
    pub fn counted(&self) -> u64 {
        match self.is_ended {
            true => self.spent,
            false => self.upto.max(self.spent),
        }
    }
}

/// The last use of a secret of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUse {
    /// Id of the key.
    pub key: String,
    /// Name of the secret: some digits of its digest.
    pub secret: String,
    /// The time, in Unix seconds.
    pub at: i64,
}

/// A checkpoint of the audit: an anchor outside of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The chain.
    pub chain: String,
    /// Sequence number of a line.
    pub seq: u64,
    /// Hash of that line, in hexadecimal digits.
    pub hash: String,
    /// Code of chain, number and hash under the pepper, in hexadecimal digits.
    pub hmac: String,
    /// Its time, in Unix seconds.
    pub at: i64,
}

/// Keys, limits and spend that outlive the process.
pub trait Store: Send {
    /// Shows what changed after a version, all for version 0, and gives the version of that. Subjects come before
    /// keys.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read(&mut self, since: u64, show: &mut dyn FnMut(StoredText<'_>))
    -> Result<u64, StateError>;

    /// Reads what changed after a version at once; all for version 0.
    ///
    /// # Errors
    /// The store cannot be read.
    fn load(&mut self, since: u64) -> Result<StoredState, StateError> {
        let mut state = StoredState::default();
        state.version = self.read(since, &mut |text| match text {
            StoredText::Key { id, record } => {
                state.keys.push((id.to_owned(), record.to_owned()));
            }
            StoredText::Subject { name, record } => {
                state.subjects.push((name.to_owned(), record.to_owned()));
            }
        })?;
        Ok(state)
    }

    /// Reads the number of changes so far. One that is lower than a version that was read tells that the store has
    /// lost changes.
    ///
    /// # Errors
    /// The store cannot be read.
    fn version(&mut self) -> Result<u64, StateError>;

    /// Applies changes, all or none, to the version that they were made for. Returns the new version.
    ///
    /// # Errors
    /// [`StateError::Conflict`] if another process was faster, or the store cannot be written.
    fn change(&mut self, expected: u64, changes: &[StoreChange]) -> Result<u64, StateError>;

    /// Reads the spend of all boots but this one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn spends(&mut self, except: &str) -> Result<Vec<StoredSpend>, StateError>;

    /// Reads the spend of all boots but this one in the cells that other boots have charged since the boots were
    /// added up, if another process has written since the last call.
    ///
    /// # Errors
    /// The store cannot be read.
    fn changed_spends(&mut self, except: &str) -> Result<Vec<StoredSpend>, StateError>;

    /// Reads all registers of a subject.
    ///
    /// # Errors
    /// The store cannot be read.
    fn registers(&mut self, subject: &str) -> Result<Vec<StoredRegister>, StateError>;

    /// Writes registers of a boot.
    ///
    /// # Errors
    /// The store cannot be written.
    fn write_spends(&mut self, boot: &str, rows: &[SpendRegister]) -> Result<(), StateError>;

    /// Adds spend of earlier times to cells that have none.
    ///
    /// # Errors
    /// The store cannot be written.
    fn seed_spends(&mut self, spends: &[StoredSpend]) -> Result<(), StateError>;

    /// Gives a store that was emptied within this time the spend that it lost: of cells that it has no more, or anew
    /// since then.
    ///
    /// # Errors
    /// The store cannot be written.
    fn restore_spends(
        &mut self,
        _spends: &[StoredSpend],
        _lost_within: Duration,
    ) -> Result<(), StateError> {
        // one that is not shared is not emptied while it is used
        Ok(())
    }

    /// Ends a boot whose registers are exact: from now on they count with what was spent.
    ///
    /// # Errors
    /// The store cannot be written.
    fn end_boot(&mut self, boot: &str) -> Result<(), StateError>;

    /// Adds up the registers of all boots, none of which runs any more, and deletes old periods.
    ///
    /// # Errors
    /// The store cannot be written.
    fn merge_boots(&mut self) -> Result<(), StateError>;

    /// Writes last uses; an earlier one than is stored changes nothing.
    ///
    /// # Errors
    /// The store cannot be written.
    fn write_uses(&mut self, uses: &[StoredUse]) -> Result<(), StateError>;

    /// Reads the last uses since a time in Unix seconds, in no order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn uses(&mut self, since: i64) -> Result<Vec<StoredUse>, StateError>;

    /// Adds a checkpoint of the audit.
    ///
    /// # Errors
    /// The store cannot be written.
    fn add_checkpoint(&mut self, checkpoint: &StoredCheckpoint) -> Result<(), StateError>;

    /// Reads the checkpoints of the audit.
    ///
    /// # Errors
    /// The store cannot be read.
    fn checkpoints(&mut self) -> Result<Vec<StoredCheckpoint>, StateError>;

    /// The name of the change that made the version that was read last: of two stores, or of one that was emptied,
    /// a version may be another one. Empty where that cannot be.
    fn change_name(&self) -> String {
        String::new()
    }

    /// Takes names for a while, as far as they are free. False if another process has the first one.
    ///
    /// # Errors
    /// The store cannot be used.
    fn claim(&mut self, _names: &[String], _life: Duration) -> Result<bool, StateError> {
        Ok(true)
    }

    /// Holds the fingerprint of the pepper against that of the stored keys; `presumed` is theirs where the store does
    /// not tell. Keys that are made later are this one's.
    ///
    /// # Errors
    /// The keys were made under another pepper, or the store cannot be read.
    fn check_pepper(
        &mut self,
        _fingerprint: &str,
        _presumed: Option<&str>,
    ) -> Result<(), StateError> {
        Ok(())
    }

    /// The fault of a store that can be used nevertheless.
    fn warning(&self) -> Option<StateError> {
        None
    }
}

/// Reason for which a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process changed it meanwhile.
    #[error(
        "keys or limits were changed by another process at the same time; nothing was changed; try again"
    )]
    Conflict,
    /// Another process holds a lock for too long.
    #[error(
        "{path} is locked by another process; keys and limits cannot be used; end the process that holds it \
         (`fuser {path}` names it) and try again", path = .0.display()
    )]
    Locked(PathBuf),
    /// It is damaged, or no file of the proxy.
    #[error(
        "{path} is damaged or no file of the proxy ({1}); keys and limits cannot be used, and the file is left as it \
         is; restore it from a backup, or move it away to begin without keys and spend", path = .0.display()
    )]
    Damaged(PathBuf, String),
    /// A later release wrote it.
    #[error(
        "{path} has version {1}, which this release does not know; keys and limits cannot be used; start the later \
         release that wrote it, or restore a backup", path = .0.display()
    )]
    Newer(PathBuf, i64),
    /// It was removed or replaced while it was in use.
    #[error(
        "{path} was removed or replaced while it was in use; keys and limits cannot be changed; put it back or \
         restore a backup of it", path = .0.display()
    )]
    Gone(PathBuf),
    /// The system refuses it.
    #[error("{path} cannot be used: {1}; keys and limits cannot be changed; check that DATA_DIR is writable and has space", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// Anything else that SQLite reports.
    #[error("{path} cannot be used: {1}; keys and limits cannot be changed; check that DATA_DIR is writable and has space", path = .0.display())]
    Database(PathBuf, String),
    /// Its keys were made under another pepper.
    #[error(
        "the keys in {path} were made under another pepper; with this one each of them is invalid; set ACCESS_PEPPER to \
         theirs (the content of access.pepper beside it, if ACCESS_PEPPER was not set then)", path = .0.display()
    )]
    OtherPepper(PathBuf),
    /// The system gives no random bytes.
    #[error("the system gave no random bytes; nothing was changed; try again")]
    Random,
    /// Redis cannot be used.
    #[error("{0}")]
    Redis(#[from] RedisFault),
}

impl StateError {
    /// True if it may pass by itself, so that a server can start without the store.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Redis(fault) => fault.kind.is_temporary(),
            Self::Conflict
            | Self::Locked(_)
            | Self::Damaged(..)
            | Self::Newer(..)
            | Self::Gone(_)
            | Self::OtherPepper(_)
            | Self::Io(..)
            | Self::Database(..)
            | Self::Random => false,
        }
    }
}
