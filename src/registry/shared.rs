//! A store that several replicas share: it may answer only later, and it may lose changes that were made.
//!
//! A replica keeps in memory what it has read. A store that was emptied, or whose successor had not seen the last
//! changes, gets them again from the replicas; records are never deleted, so that one that is missing is a loss.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    core::{Book, Record, Registry, changes, record},
    error::RegistryError,
};
use crate::{
    access::{KeyId, KeyRecord, SpendRow, SubjectId, SubjectRecord},
    state::RedisSettings,
};

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
        let mut damaged = None;
        let mut count = 0_usize;
        let version = book.store.read(0, &mut |text| match record(text) {
            Ok(Record::Key(record)) => {
                count += 1;
                self.access.put_key(&record);
            }
            Ok(Record::Subject(id, record)) => self.access.put_subject(&id, record),
            Err(error) => {
                damaged.get_or_insert(error);
            }
        })?;
        if let Some(damaged) = damaged {
            return Err(RegistryError::Invalid(damaged.to_string()));
        }
        (book.version, book.is_loaded) = (version, true);
        self.access.set_unknown(false);
        log::info!("[Access] the shared store has answered: {count} keys");
        Ok(())
    }

    /// Gives a store that has lost changes what it lost. A revocation wins over what it does not know of.
    pub(super) fn restore(&self, book: &mut Book, version: u64) -> Result<(), RegistryError> {
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
        let records = self.access.records();
        let (mut keys, mut subjects) = (Vec::new(), Vec::new());
        for (id, own) in records.keys {
            match stored.keys.remove(&id) {
                Some(other) if other == own => {}
                Some(other) if other.revoked.is_some() && own.revoked.is_none() => {
                    self.access.put_key(&other);
                }
                _ => keys.push(own),
            }
        }
        for (id, own) in records.subjects {
            match stored.subjects.remove(&id) {
                Some(other) if other == own => {}
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
        let before = book.version;
        book.version = match lost.is_empty() {
            true => found,
            false => book.store.change(found, &lost)?,
        };
        log::warn!(
            "[Access] the shared store had lost changes (version {version} after {before}); {} keys and {} other \
             subjects were written again; look whether it was emptied or failed over",
            keys.len(),
            subjects.len()
        );
        self.anchor(book);
        self.access.resend();
        Ok(())
    }
}

#[derive(Default)]
struct Stored {
    keys: BTreeMap<KeyId, KeyRecord>,
    subjects: BTreeMap<SubjectId, SubjectRecord>,
}
