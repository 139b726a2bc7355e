//! A store that several replicas share: it may answer only later, and it may lose changes that were made.
//!
//! A replica keeps in memory what it has read. A store that was emptied, or whose successor had not seen the last
//! changes, gets them again from the replicas; records are never deleted, so that one that is missing is a loss.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    core::{Book, Record, Registry, changes, record},
    error::RegistryError,
    times,
};
use crate::{
    access::{KeyId, KeyRecord, SpendRow, SubjectId, SubjectRecord},
    state::{CopyMark, RedisSettings, StateError, StoredSpend},
};

/// Time beside that for which a store was not looked at, within which it may have been emptied.
const MARGIN: Duration = Duration::from_secs(1);

impl Registry {
    /// The store that replicas share, if there is one.
    pub fn shared_state(&self) -> Option<&Arc<RedisSettings>> {
        self.state.as_ref()
    }

    /// Reports whether the store could be used at the last try, and how often it could not.
    pub fn store_health(&self) -> (bool, u64) {
        self.health.read()
    }

    /// Reads everything, since the store did not answer at the start.
    pub(super) fn load(&self, book: &mut Book) -> Result<(), RegistryError> {
        let spends = book.store.spends(&self.boot)?.into_iter();
        let spends = spends.map(|it| SpendRow {
            subject: it.subject,
            cell: it.cell,
            spent: it.spent,
            upto: it.upto,
        });
        self.access.follow(&spends.collect::<Vec<_>>());
        if self.copy_health().is_some_and(|(_, is_used)| is_used) {
            let (keys, subjects) = self.reconcile(book, Winner::Store)?;
            if keys + subjects > 0 {
                log::warn!(
                    "[Access] the shared store lacked {keys} keys and {subjects} other subjects of the copy; they were \
                     written again; look whether it was emptied or failed over"
                );
            }
        } else {
            self.load_all(book)?;
        }
        book.is_loaded = true;
        self.health.copy.set_used(false);
        self.access.set_unknown(false);
        let count = self.access.keys().len();
        log::info!("[Access] the shared store has answered: {count} keys");
        Ok(())
    }

    fn load_all(&self, book: &mut Book) -> Result<(), RegistryError> {
        let mut damaged = None;
        book.version = book.store.read(0, &mut |text| match record(text) {
            Ok(Record::Key(record)) => self.access.put_key(&record),
            Ok(Record::Subject(id, record)) => self.access.put_subject(&id, record),
            Err(error) => {
                damaged.get_or_insert(error);
            }
        })?;
        match damaged {
            Some(damaged) => Err(RegistryError::Invalid(damaged.to_string())),
            None => Ok(()),
        }
    }

    /// Gives a store that has lost changes what it lost. A revocation wins over what it does not know of.
    pub(super) fn restore(&self, book: &mut Book, version: u64) -> Result<(), RegistryError> {
        let before = book.version;
        let (keys, subjects) = self.reconcile(book, Winner::Own)?;
        log::warn!(
            "[Access] the shared store had lost changes (version {version} after {before}); {keys} keys and \
             {subjects} other subjects were written again; look whether it was emptied or failed over"
        );
        if let Some(copy) = &mut book.copy {
            copy.forget();
        }
        self.anchor(book);
        self.restore_spends(book)?;
        self.access.resend();
        Ok(())
    }

    /// Gives a store that has lost changes the spend of others, too: of boots that ended, and of subjects that no
    /// request has named since. What this process spent itself, the limits report again.
    fn restore_spends(&self, book: &mut Book) -> Result<(), StateError> {
        let rows = self.access.spend_of_others(SystemTime::now());
        let spends: Vec<_> = rows
            .into_iter()
            .map(|row| StoredSpend {
                subject: row.subject,
                cell: row.cell,
                spent: row.spent,
                upto: row.upto,
            })
            .collect();
        let lost_within = book.agreed_at.elapsed() + MARGIN;
        book.store.restore_spends(&spends, lost_within)?;
        book.agreed_at = Instant::now();
        Ok(())
    }

    /// Puts what the store has and this replica has together: into effect here, and what it lacks into the store.
    /// Gives the numbers of keys and other subjects that were written.
    fn reconcile(&self, book: &mut Book, winner: Winner) -> Result<(usize, usize), RegistryError> {
        let mut stored = Stored::default();
        let mut damaged = None;
        let found = book.store.read(0, &mut |text| match record(text) {
            Ok(Record::Key(record)) => {
                stored.keys.insert(record.id, *record);
            }
            Ok(Record::Subject(id, record)) => {
                stored.subjects.insert(id, record);
            }
            Err(error) => {
                damaged.get_or_insert(error);
            }
        })?;
        if let Some(damaged) = damaged {
            return Err(RegistryError::Invalid(damaged.to_string()));
        }
        let is_stores = winner == Winner::Store;
        let records = self.access.records();
        let (mut keys, mut subjects) = (Vec::new(), Vec::new());
        for (id, own) in records.keys {
            match stored.keys.remove(&id) {
                Some(other) if other == own => {}
                Some(other) if is_stores || (other.revoked.is_some() && own.revoked.is_none()) => {
                    self.access.put_key(&other);
                }
                _ => keys.push(own),
            }
        }
        for (id, own) in records.subjects {
            match stored.subjects.remove(&id) {
                Some(other) if other == own => {}
                Some(other) if is_stores => self.access.put_subject(&id, other),
                _ => subjects.push((id, own)),
            }
        }
        // made by replicas that this one did not hear of
        for record in stored.keys.into_values() {
            self.access.put_key(&record);
        }
        for (id, record) in stored.subjects {
            self.access.put_subject(&id, record);
        }
        let lost = changes(&keys, &subjects)?;
        book.version = match lost.is_empty() {
            true => found,
            false => book.store.change(found, &lost)?,
        };
        Ok((keys.len(), subjects.len()))
    }

    /// Brings the copy up to what the store has.
    pub(super) fn keep_copy(&self) -> Result<(), StateError> {
        let mut book = self.book();
        let Book {
            store,
            version,
            is_loaded: true,
            copy: Some(copy),
            ..
        } = &mut *book
        else {
            return Ok(());
        };
        let at = times::now();
        copy.keep(*version, at, &self.health.copy, |since, show| {
            let version = store.read(since, show)?;
            let change = store.change_name();
            Ok(CopyMark {
                version,
                change,
                at,
            })
        })
    }

    /// Seconds since the copy of the shared store was last current, and true if keys and limits in effect are those of
    /// the copy; none without a copy.
    pub fn copy_age(&self) -> Option<(f64, bool)> {
        let (at, is_used) = self.copy_health()?;
        Some((times::now().saturating_sub(at).max(0) as f64, is_used))
    }

    /// The time at which the copy of the shared store was last current, in Unix seconds, and true if keys and limits
    /// in effect are those of the copy; none without a copy.
    pub fn copy_health(&self) -> Option<(i64, bool)> {
        self.health.copy.read()
    }
}

/// Side whose record counts where both have one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Winner {
    /// This replica, which has what the store lost; but a revocation wins.
    Own,
    /// The store, over a copy of earlier times.
    Store,
}

#[derive(Default)]
struct Stored {
    keys: BTreeMap<KeyId, KeyRecord>,
    subjects: BTreeMap<SubjectId, SubjectRecord>,
}
