//! Spend of other processes, as the store has it: of those that have ended, and of those that run beside this
//! one on the same store.
//!
//! A cell asks for it once, when it is made; later changes are put into it. So nothing here is on the way of a
//! request.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use super::{
    cell::{OtherSpend, SpendRow},
    id::KeyId,
    mix::IdHasher,
    period::has_ended,
    record::SubjectId,
    share::Sharing,
};

/// Other processes: their spend, by name of the cell and subject (there are few cells and many subjects), and how
/// limits are shared with them.
#[derive(Debug, Default)]
pub(super) struct OtherSpends {
    cells: RwLock<HashMap<Box<str>, BySubject>>,
    sharing: OnceLock<Arc<Sharing>>,
}

/// Spend in one cell, by the subject.
#[derive(Debug, Default)]
struct BySubject {
    /// Spend of keys, of which there may be a hundred thousand.
    keys: HashMap<KeyId, OtherSpend, BuildHasherDefault<IdHasher>>,
    others: HashMap<Box<str>, OtherSpend>,
}

impl BySubject {
    fn get(&self, subject: &str) -> Option<&OtherSpend> {
        match key_of(subject) {
            Some(key) => self.keys.get(&key),
            None => self.others.get(subject),
        }
    }

    fn entry(&mut self, subject: &str) -> &mut OtherSpend {
        match key_of(subject) {
            Some(key) => self.keys.entry(key).or_default(),
            None => self.others.entry(subject.into()).or_default(),
        }
    }
}

/// The key that a subject is.
fn key_of(subject: &str) -> Option<KeyId> {
    subject.strip_prefix("key:")?.parse().ok()
}

impl OtherSpends {
    /// Takes rows, except for those of periods that have ended. Rows of the same cell are added up.
    pub(super) fn new(rows: impl IntoIterator<Item = SpendRow>, now: i64) -> Self {
        let mut cells = HashMap::<Box<str>, BySubject>::new();
        for row in rows {
            let subjects = match cells.get_mut(row.cell.as_str()) {
                Some(subjects) => subjects,
                None if has_ended(&row.cell, now) => continue,
                None => cells.entry(row.cell.into()).or_default(),
            };
            let sum = subjects.entry(&row.subject);
            sum.spent = sum.spent.saturating_add(row.spent);
            sum.upto = sum.upto.saturating_add(row.upto.max(row.spent));
        }
        Self {
            cells: RwLock::new(cells),
            sharing: OnceLock::new(),
        }
    }

    /// Shares the limits of meters that are made from now on. Once.
    pub(super) fn share(&self, sharing: Arc<Sharing>) {
        let _ = self.sharing.set(sharing);
    }

    /// The sharing of limits with other replicas; none for one replica.
    pub(super) fn sharing(&self) -> Option<&Arc<Sharing>> {
        self.sharing.get()
    }

    /// The spend in a cell.
    pub(super) fn of(&self, subject: &str, cell: &str) -> OtherSpend {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        let spend = cells.get(cell).and_then(|subjects| subjects.get(subject));
        spend.copied().unwrap_or_default()
    }

    /// The spend in all cells of periods that have not ended.
    pub(super) fn rows(&self, now: i64) -> Vec<SpendRow> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        let cells = cells.iter().filter(|(cell, _)| !has_ended(cell, now));
        let rows = cells.flat_map(|(cell, subjects)| {
            let keys = subjects.keys.iter();
            let keys = keys.map(|(id, spend)| (SubjectId::Key(*id).to_string(), spend));
            let others = subjects.others.iter();
            let others = others.map(|(subject, spend)| (subject.to_string(), spend));
            keys.chain(others).map(|(subject, spend)| SpendRow {
                subject,
                cell: cell.to_string(),
                spent: spend.spent,
                upto: spend.spent,
            })
        });
        rows.filter(|row| row.spent > 0).collect()
    }

    /// Reports whether a subject has spent in any cell.
    pub(super) fn has(&self, subject: &str) -> bool {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        cells
            .values()
            .any(|subjects| subjects.get(subject).is_some())
    }

    /// Replaces the spend in a cell. True if it was another one.
    pub(super) fn put(&self, subject: &str, cell: &str, spend: OtherSpend) -> bool {
        if self.of(subject, cell) == spend {
            return false;
        }
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        let subjects = match cells.get_mut(cell) {
            Some(subjects) => subjects,
            None => cells.entry(cell.into()).or_default(),
        };
        *subjects.entry(subject) = spend;
        true
    }
}
