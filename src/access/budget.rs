//! A budget: a cell for each period, of which the present one is found without a lock.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, Guard};

use super::{
    cell::{Cell, SpendRow},
    period::{Calendar, has_ended},
};

/// Spend of processes that have ended, by subject and name of the cell.
#[derive(Debug, Default)]
pub(super) struct EarlierSpends(HashMap<Box<str>, HashMap<Box<str>, u64>>);

impl EarlierSpends {
    /// Takes rows, except for those of periods that have ended.
    pub(super) fn new(rows: &[SpendRow], now: i64) -> Self {
        let mut spends = HashMap::<Box<str>, HashMap<Box<str>, u64>>::new();
        for row in rows.iter().filter(|row| !has_ended(&row.cell, now)) {
            let cells = spends.entry(row.subject.as_str().into()).or_default();
            let spent = cells.entry(row.cell.as_str().into()).or_default();
            *spent = spent.saturating_add(row.upto.max(row.spent));
        }
        Self(spends)
    }

    fn of(&self, subject: &str, cell: &str) -> u64 {
        let cells = self.0.get(subject);
        let spent = cells.and_then(|cells| cells.get(cell));
        spent.copied().unwrap_or_default()
    }
}

/// Spend of a subject by period.
pub(super) struct Budget {
    calendar: Calendar,
    subject: Arc<str>,
    /// Behind the period in a cell's name: the models, and the team whose default it is.
    suffix: Box<str>,
    present: ArcSwap<Cell>,
    /// The present cell and those before it, which a clock that is set back finds again.
    recent: Mutex<Vec<Arc<Cell>>>,
    earlier: Arc<EarlierSpends>,
}

impl Budget {
    pub(super) fn new(
        calendar: Calendar,
        subject: Arc<str>,
        suffix: Box<str>,
        earlier: Arc<EarlierSpends>,
        now: i64,
    ) -> Self {
        let cell = Arc::new(new_cell(&calendar, &subject, &suffix, &earlier, now));
        Self {
            calendar,
            subject,
            suffix,
            present: ArcSwap::new(Arc::clone(&cell)),
            recent: Mutex::new(vec![cell]),
            earlier,
        }
    }

    pub(super) fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    pub(super) fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    /// The cell of a second.
    pub(super) fn cell(&self, now: i64) -> Guard<Arc<Cell>> {
        let cell = self.present.load();
        if cell.covers(now) {
            return cell;
        }
        drop(cell);
        self.turn(now);
        self.present.load()
    }

    /// The cells that this process has charged of late.
    pub(super) fn recent(&self) -> Vec<Arc<Cell>> {
        self.lock().clone()
    }

    /// Makes the cell of a second the present one.
    fn turn(&self, now: i64) {
        let mut recent = self.lock();
        if self.present.load().covers(now) {
            return;
        }
        let known = recent.iter().find(|cell| cell.covers(now)).cloned();
        let cell = known.unwrap_or_else(|| {
            let (calendar, subject) = (&self.calendar, &self.subject);
            let cell = new_cell(calendar, subject, &self.suffix, &self.earlier, now);
            let cell = Arc::new(cell);
            if recent.len() == MOST_RECENT {
                recent.remove(0);
            }
            recent.push(Arc::clone(&cell));
            cell
        });
        self.present.store(cell);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Cell>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Budget({}, {})",
            self.subject,
            self.present.load().name()
        )
    }
}

fn new_cell(
    calendar: &Calendar,
    subject: &str,
    suffix: &str,
    earlier: &EarlierSpends,
    now: i64,
) -> Cell {
    let span = calendar.span(now);
    let name = format!("{}{suffix}", span.id);
    let before = earlier.of(subject, &name);
    Cell::new(name.into(), span.start, span.end, before)
}

/// Cells of one budget that are kept: a week of days. An older one is in the ledger, and is no longer
/// charged.
const MOST_RECENT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{cell::Hold, record::Period};

    const DAY: i64 = 86_400;

    fn budget(rows: &[SpendRow], suffix: &str) -> Budget {
        let calendar = Calendar::new(Period::Day, None).unwrap();
        let earlier = Arc::new(EarlierSpends::new(rows, 10 * DAY));
        Budget::new(calendar, "team:a".into(), suffix.into(), earlier, 10 * DAY)
    }

    fn row(subject: &str, cell: &str, spent: u64, upto: u64) -> SpendRow {
        let (subject, cell) = (subject.to_owned(), cell.to_owned());
        SpendRow {
            subject,
            cell,
            spent,
            upto,
        }
    }

    #[test]
    fn a_period_that_changes_has_a_new_cell_and_a_clock_that_goes_back_finds_the_old_one() {
        let budget = budget(&[], "");
        assert_eq!(budget.cell(10 * DAY).hold(7, 10), Hold::Taken(7));
        assert_eq!(budget.cell(11 * DAY - 1).held(), 7);
        assert_eq!(budget.cell(11 * DAY).name(), "1970-01-12@UTC");
        assert_eq!(budget.cell(11 * DAY).held(), 0);
        assert_eq!(budget.cell(11 * DAY - 1).held(), 7);
        assert_eq!(budget.cell(400 * DAY).held(), 0);
        assert_eq!(budget.cell(10 * DAY).held(), 7);
        assert_eq!(budget.recent().len(), 3);
    }

    #[test]
    fn spends_of_earlier_processes_count_in_their_cell() {
        let rows = [
            row("team:a", "1970-01-11@UTC", 3, 4),
            row("team:a", "1970-01-11@UTC", 5, 5),
            row("team:a", "1970-01-11@UTC|m-*", 1, 1),
            row("team:b", "1970-01-11@UTC", 100, 100),
            row("team:a", "1970-01-01@UTC", 100, 100),
        ];
        let all = budget(&rows, "");
        assert_eq!(all.cell(10 * DAY).spent(), 9);
        assert_eq!(all.cell(11 * DAY).spent(), 0);
        assert_eq!(budget(&rows, "|m-*").cell(10 * DAY).spent(), 1);
    }
}
