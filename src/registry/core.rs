//! The registry itself: what it holds, how it begins, and the one way of every change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use serde_json::Value;

use super::{
    author::Author,
    copied::KeptCopy,
    error::RegistryError,
    health::StoreHealth,
    lost,
    pepper::{self, PepperError},
    times,
    unwritten::Unwritten,
};
use crate::{
    access::{
        Access, AccessFilling, KeyRecord, Pepper, Records, SpendRow, SubjectId, SubjectRecord,
    },
    audit::{AUDIT_FOLDER, AuditEntry, AuditLog, AuditTarget, ChangeError},
    config::Prices,
    secret::Secret,
    state::{
        LockError, RedisSettings, RedisStore, SqliteStore, StateError, StateLock, Store,
        StoreChange, StoredText,
    },
};

/// Keys and limits as operators change them.
pub struct Registry {
    pub(super) access: Arc<Access>,
    pub(super) audit: AuditLog,
    pub(super) pepper: Pepper,
    /// Tells one pepper from another in an export.
    pub(super) pepper_name: String,
    pub(super) boot: String,
    /// Registers that are not stored yet.
    pub(super) unwritten: Unwritten,
    /// The store of several replicas, if that is what holds the keys.
    pub(super) state: Option<Arc<RedisSettings>>,
    /// State of the store, for metrics.
    pub(super) health: StoreHealth,
    source: SettingsSource,
    book: Mutex<Book>,
    _lock: StateLock,
}

/// The store, and the version of it that is in effect.
pub(super) struct Book {
    pub(super) store: Box<dyn Store>,
    pub(super) version: u64,
    /// False until a shared store has answered for the first time.
    pub(super) is_loaded: bool,
    /// The copy of a shared store.
    pub(super) copy: Option<KeptCopy>,
    /// Time at which last uses were written, in Unix seconds.
    pub(super) uses_at: i64,
    /// Time at which the store was last seen to have what this process knows.
    pub(super) agreed_at: Instant,
}

/// Settings of the moment that keys depend on.
#[derive(Debug, Clone)]
pub struct CurrentSettings {
    /// The prices.
    pub prices: Arc<Prices>,
    /// True if the configuration has a credential for each upstream; none if that is not known.
    pub has_credential: Option<bool>,
}

/// Gives the settings of the moment.
pub type SettingsSource = Box<dyn Fn() -> CurrentSettings + Send + Sync>;

/// Settings of a registry.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The directory (`DATA_DIR`).
    pub data_dir: PathBuf,
    /// The configured pepper (`ACCESS_PEPPER`).
    pub pepper: Option<Secret>,
    /// The store of several replicas (`STATE_URL`); none: a file in the directory.
    pub state: Option<Arc<RedisSettings>>,
    /// The program that has it.
    pub kind: RegistryKind,
}

/// Program that has a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryKind {
    /// A server, whose boot has this name. Two may run while one takes over from the other.
    Server(String),
    /// A verb of the command line, while no server runs.
    Tool,
}

/// Reason for which there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on the store.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The store cannot be used.
    #[error("{0}")]
    State(#[from] StateError),
    /// There is no pepper.
    #[error("{0}")]
    Pepper(#[from] PepperError),
    /// The store is gone, but not what was written down of it.
    #[error(
        "{path}/state.sqlite is missing, and the audit beside it tells of keys or limits; without them every \
         request would pass; restore the file from a backup, or move {path}/audit away to begin without keys",
        path = .0.display()
    )]
    Lost(PathBuf),
    /// A record is damaged.
    #[error(
        "the record of {0} in the store cannot be read ({1}); keys and limits cannot be used; restore the store \
         from a backup, or start the later release that wrote it"
    )]
    Record(String, serde_json::Error),
}

/// A change that is ready to be made.
pub(super) struct PlannedChange<T> {
    pub(super) target: AuditTarget,
    pub(super) before: Value,
    pub(super) after: Value,
    pub(super) keys: Vec<KeyRecord>,
    pub(super) subjects: Vec<(SubjectId, SubjectRecord)>,
    /// The answer to the author.
    pub(super) answer: T,
}

impl Registry {
    /// Opens the store, and puts what it holds into effect. A server begins without a shared store that does not
    /// answer: with its copy of it, or without any key until it does.
    ///
    /// # Errors
    /// The store, its lock or the pepper cannot be used.
    pub fn open(settings: RegistrySettings, source: SettingsSource) -> Result<Self, OpenError> {
        let RegistrySettings {
            data_dir,
            pepper,
            state,
            kind,
        } = settings;
        let mut text = match &state {
            Some(_) => Some(pepper::shared(pepper.as_ref(), &data_dir)?),
            None => None,
        };
        let (mut store, mut copy): (Box<dyn Store>, _) = match (&state, &text) {
            (Some(state), Some(text)) => {
                let (audit, fingerprint) = (pepper::place(&data_dir), pepper::fingerprint(text));
                let store = RedisStore::new(state, &fingerprint, &audit);
                let copy = KeptCopy::new(&data_dir, state, &fingerprint);
                // a verb works on the store, or not at all
                let copy = (kind != RegistryKind::Tool).then_some(copy);
                (Box::new(store), copy)
            }
            _ => {
                let store = SqliteStore::new(&data_dir);
                if !store.exists() && lost::is_lost(&data_dir) {
                    return Err(OpenError::Lost(data_dir));
                }
                (Box::new(store), None)
            }
        };
        let (lock, boot) = match kind {
            RegistryKind::Tool => (StateLock::alone(&data_dir)?, String::new()),
            RegistryKind::Server(boot) => {
                let mut merged = Ok(());
                let lock = StateLock::shared(&data_dir, || merged = store.merge_boots())?;
                merged?;
                (lock, boot)
            }
        };
        let health = StoreHealth::new(true);
        let (filling, version, is_loaded) = match (filled(&mut *store, &boot), &mut copy) {
            (Ok((filling, version)), copy) => {
                if let Some(copy) = copy {
                    copy.compare(version, &store.change_name());
                }
                (filling, version, true)
            }
            (Err(OpenError::State(error)), Some(copy)) if error.is_temporary() => {
                health.note(false);
                (filled_by(copy, &error, &health), 0, false)
            }
            (Err(error), _) => return Err(error),
        };
        let text = match text.take() {
            Some(text) => text,
            None => pepper::text(pepper.as_ref(), &data_dir, filling.has_keys())?,
        };
        let presumed = pepper::kept(&data_dir).as_ref().map(pepper::fingerprint);
        store.check_pepper(&pepper::fingerprint(&text), presumed.as_deref())?;
        let pepper = Pepper::new(text.expose().as_bytes()).map_err(PepperError::Weak)?;
        let access = filling.finish(pepper.clone());
        access.set_unknown(!is_loaded);
        let registry = Self {
            access: Arc::new(access),
            audit: AuditLog::new(data_dir.join(AUDIT_FOLDER), text.expose().as_bytes()),
            pepper,
            pepper_name: pepper::name(&text),
            boot,
            unwritten: Unwritten::default(),
            state,
            health,
            source,
            book: Mutex::new(Book {
                store,
                version,
                is_loaded,
                copy,
                uses_at: 0,
                agreed_at: Instant::now(),
            }),
            _lock: lock,
        };
        if is_loaded {
            registry.load_uses()?;
        }
        Ok(registry)
    }

    /// Reports whether a directory has a store, be it one that cannot be used.
    pub fn has_store(directory: &Path) -> bool {
        SqliteStore::new(directory).exists()
    }

    /// The keys and limits in effect, for the workers.
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access)
    }

    /// The audit.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    pub(super) fn settings(&self) -> CurrentSettings {
        (self.source)()
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts into effect what another process changed.
    pub(super) fn refresh(&self, book: &mut Book) -> Result<(), RegistryError> {
        if !book.is_loaded {
            return self.load(book);
        }
        let version = book.store.version()?;
        if version < book.version {
            return self.restore(book, version);
        }
        book.agreed_at = Instant::now();
        if version == book.version {
            return Ok(());
        }
        let mut changed = Records::default();
        let mut damaged = None;
        let version = book
            .store
            .read(book.version, &mut |text| match record(text) {
                Ok(Record::Key(record)) => {
                    changed.keys.insert(record.id, *record);
                }
                Ok(Record::Subject(id, record)) => {
                    changed.subjects.insert(id, record);
                }
                Err(error) => {
                    damaged.get_or_insert(error);
                }
            })?;
        if let Some(damaged) = damaged {
            return Err(RegistryError::Invalid(damaged.to_string()));
        }
        book.version = version;
        for record in changed.keys.into_values() {
            self.access.put_key(&record);
        }
        for (id, record) in changed.subjects {
            self.access.put_subject(&id, record);
        }
        Ok(())
    }

    /// Takes what other servers on the same store have spent by now. Gives the cells, in which that is nothing of
    /// this process.
    pub(super) fn follow_spends(&self, book: &mut Book) -> Result<Vec<SpendRow>, StateError> {
        let changed = book.store.changed_spends(&self.boot)?;
        let rows = changed.into_iter().map(|it| SpendRow {
            subject: it.subject,
            cell: it.cell,
            spent: it.spent,
            upto: it.upto,
        });
        let mut rows: Vec<_> = rows.collect();
        self.access.follow(&rows);
        // none of it is this process' own
        rows.iter_mut().for_each(|row| row.spent = 0);
        Ok(rows)
    }

    /// Makes a change, the one way of all: planned on what is in effect, written down, stored, put into
    /// effect, and its result written down. A plan without changes is an answer alone.
    pub(super) fn change<T>(
        &self,
        author: &Author,
        action: &'static str,
        reason: Option<&str>,
        plan: impl Fn() -> Result<PlannedChange<T>, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut book = self.book();
        let mut tries = 0;
        loop {
            self.refresh(&mut book)?;
            let PlannedChange {
                target,
                before,
                after,
                keys,
                subjects,
                answer,
            } = plan()?;
            if keys.is_empty() && subjects.is_empty() {
                return Ok(answer);
            }
            let entry = AuditEntry {
                actor: author.actor.clone(),
                action: action.to_owned(),
                target,
                before,
                after,
                reason: reason.map(str::to_owned),
                request_id: author.request_id.clone(),
            };
            let changes = changes(&keys, &subjects)?;
            let made = self.audit.change(&entry, || {
                let version = book.version;
                book.version = book.store.change(version, &changes)?;
                for record in &keys {
                    self.access.put_key(record);
                }
                for (id, record) in subjects {
                    self.access.put_subject(&id, record);
                }
                Ok::<_, StateError>(())
            });
            match made {
                Ok(()) => {
                    self.anchor(&mut book);
                    return Ok(answer);
                }
                Err(ChangeError::Unaudited(error)) => return Err(error.into()),
                // another process was faster: once more, on what it left
                Err(ChangeError::Failed(StateError::Conflict)) if tries < CONFLICTS => tries += 1,
                Err(ChangeError::Failed(error)) => return Err(error.into()),
            }
        }
    }

    /// Stores a checkpoint of the audit, so that lines that are cut later are missed.
    pub(super) fn anchor(&self, book: &mut Book) {
        let is_due = self.audit.is_checkpoint_due();
        let stored = match self.audit.checkpoint() {
            Ok(Some(checkpoint)) => {
                if is_due {
                    log::info!(
                        "[Audit] checkpoint chain={} seq={} hash={} hmac={}",
                        checkpoint.chain,
                        checkpoint.seq,
                        checkpoint.hash,
                        checkpoint.hmac
                    );
                }
                let stored = book.store.add_checkpoint(&checkpoint);
                stored.map_err(|error| error.to_string())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = stored {
            log::warn!("[Audit] no checkpoint: {error}; the next change tries again");
        }
    }
}

/// Tries after another process was faster.
const CONFLICTS: u32 = 3;

/// Access with what a store holds, and the version of it.
fn filled(store: &mut dyn Store, boot: &str) -> Result<(AccessFilling, u64), OpenError> {
    // a verb has the store alone: no process will tell more of what it had reserved
    let is_alone = boot.is_empty();
    let spends = store.spends(boot)?.into_iter().map(|it| SpendRow {
        subject: it.subject,
        cell: it.cell,
        spent: if is_alone { it.upto } else { it.spent },
        upto: it.upto,
    });
    let mut filling = AccessFilling::new(spends, variable, SystemTime::now());
    let mut damaged = None;
    let version = store.read(0, &mut |text| {
        let added = record(text).map(|record| match record {
            Record::Key(record) => filling.key(&record),
            Record::Subject(id, record) => filling.subject(id, record),
        });
        if let Err(error) = added {
            damaged.get_or_insert(error);
        }
    })?;
    match damaged {
        Some(damaged) => Err(damaged),
        None => Ok((filling, version)),
    }
}

/// Access with what the copy of a store holds, which does not answer; without a key if there is none that can be
/// used.
fn filled_by(copy: &mut KeptCopy, error: &StateError, health: &StoreHealth) -> AccessFilling {
    let filling = || AccessFilling::new([], variable, SystemTime::now());
    let (mut copied, mut keys, mut damaged) = (filling(), 0_usize, None);
    let now = times::now();
    let shown = copy.show(now, &mut |text| match record(text) {
        Ok(Record::Key(record)) => {
            keys += 1;
            copied.key(&record);
        }
        Ok(Record::Subject(id, record)) => copied.subject(id, record),
        Err(error) => {
            damaged.get_or_insert(error);
        }
    });
    let why = match (shown, damaged) {
        (Ok(_), Some(error)) => format!("its copy in DATA_DIR is not used: {error}"),
        // by now there may be some
        (Ok(_), None) if keys == 0 => "its copy in DATA_DIR has no key".to_owned(),
        (Ok(at), None) => {
            health.copy.note(at);
            health.copy.set_used(true);
            log::error!(
                "[Access] {error}; the start has its copy of {}, which is {} s old and has {keys} keys: they pass, \
                 limits that are `closed` refuse, others are the replica's part (REPLICAS), and other keys are \
                 refused, until it answers, which is tried each second",
                times::show(at),
                now.saturating_sub(at).max(0)
            );
            return copied;
        }
        (Err(why), _) => why,
    };
    log::error!(
        "[Access] {error}; {why}, so requests with a key are refused until it answers, which is tried each second"
    );
    filling()
}

/// A variable of the environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A stored record.
pub(super) enum Record {
    Key(Box<KeyRecord>),
    Subject(SubjectId, SubjectRecord),
}

/// Reads a stored record.
pub(super) fn record(text: StoredText<'_>) -> Result<Record, OpenError> {
    match text {
        StoredText::Key { id, record } => serde_json::from_str(record)
            .map(Record::Key)
            .map_err(|error| OpenError::Record(format!("key:{id}"), error)),
        StoredText::Subject { name, record } => {
            let damaged = |error| OpenError::Record(name.to_owned(), error);
            let id = serde_json::from_value(Value::String(name.to_owned())).map_err(damaged)?;
            let record = serde_json::from_str(record).map_err(damaged)?;
            Ok(Record::Subject(id, record))
        }
    }
}

pub(super) fn changes(
    keys: &[KeyRecord],
    subjects: &[(SubjectId, SubjectRecord)],
) -> Result<Vec<StoreChange>, RegistryError> {
    let unwritten = |error: serde_json::Error| RegistryError::Invalid(error.to_string());
    let mut changes = Vec::with_capacity(keys.len() + subjects.len());
    for key in keys {
        changes.push(StoreChange::Key {
            id: key.id.to_string(),
            record: serde_json::to_string(key).map_err(unwritten)?,
        });
    }
    for (id, record) in subjects {
        changes.push(StoreChange::Subject {
            name: id.to_string(),
            record: serde_json::to_string(record).map_err(unwritten)?,
        });
    }
    Ok(changes)
}
