//! Registers of spend that the store does not have yet: it failed, or it is their turn now.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    access::SpendRow,
    state::{SpendRegister, StateError},
};

/// Registers that are not stored yet, by subject and cell.
#[derive(Default)]
pub(super) struct Unwritten(Mutex<HashMap<(String, String), (u64, u64)>>);

impl Unwritten {
    /// Adds rows, and writes all that are not stored yet.
    pub(super) fn write(
        &self,
        rows: Vec<SpendRow>,
        write: impl FnOnce(&[SpendRegister]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            // absolute: the newest one counts
            waiting.insert((row.subject, row.cell), (row.spent, row.upto));
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = waiting
            .iter()
            .map(|((subject, cell), (spent, upto))| SpendRegister {
                subject: subject.clone(),
                cell: cell.clone(),
                spent: *spent,
                upto: *upto,
            })
            .collect();
        write(&rows)?;
        waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_could_not_be_written_wait_and_the_newest_counts() {
        let unwritten = Unwritten::default();
        let row = |cell: &str, spent: u64| SpendRow {
            subject: "org".to_owned(),
            cell: cell.to_owned(),
            spent,
            upto: spent + 10,
        };
        let failed = unwritten.write(vec![row("a", 1), row("b", 1)], |rows| {
            assert_eq!(rows.len(), 2);
            Err(StateError::Conflict)
        });
        assert!(failed.is_err());
        unwritten
            .write(vec![row("a", 5)], |rows| {
                let mut sums: Vec<_> = rows.iter().map(|it| (it.cell.as_str(), it.spent)).collect();
                sums.sort_unstable();
                assert_eq!(sums, [("a", 5), ("b", 1)]);
                Ok(())
            })
            .unwrap();
        unwritten
            .write(Vec::new(), |_| panic!("nothing waits"))
            .unwrap();
    }
}
