//! A budget: a cell for each period, of which the present one is found without a lock.

use std::{
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, Guard};

use super::{
    cell::{Cell, OtherSpend},
    others::OtherSpends,
    period::Calendar,
};

/// Spend of a subject by period.
pub(super) struct Budget {
    calendar: Calendar,
    subject: Arc<str>,
    /// Behind the period in a cell's name: the models, and the team whose default it is.
    suffix: Box<str>,
    present: ArcSwap<Cell>,
    /// The present cell and those before it, which a clock that is set back finds again.
    recent: Mutex<Vec<Arc<Cell>>>,
    others: Arc<OtherSpends>,
}

impl Budget {
    /// A budget without a cell: the first request makes it.
    pub(super) fn new(
        calendar: Calendar,
        subject: Arc<str>,
        suffix: Box<str>,
        others: Arc<OtherSpends>,
    ) -> Self {
        Self {
            calendar,
            subject,
            suffix,
            present: ArcSwap::new(Arc::clone(&NO_CELL)),
            recent: Mutex::default(),
            others,
        }
    }

    pub(super) fn calendar(&self) -> &Calendar {
        &self.calendar
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

    /// Takes what other processes have spent in a cell, if it is made already: one that is made later asks for
    /// it itself.
    pub(super) fn follow(&self, cell: &str, spend: OtherSpend) {
        let recent = self.lock();
        let known = recent.iter().filter(|known| known.name() == cell);
        known.for_each(|known| known.follow(spend));
    }

    /// Makes the cell of a second the present one.
    fn turn(&self, now: i64) {
        let mut recent = self.lock();
        if self.present.load().covers(now) {
            return;
        }
        let known = recent.iter().find(|cell| cell.covers(now)).cloned();
        let cell = known.unwrap_or_else(|| {
            let cell = Arc::new(self.new_cell(now));
            if recent.len() == MOST_RECENT {
                recent.remove(0);
            }
            recent.push(Arc::clone(&cell));
            cell
        });
        self.present.store(cell);
    }

    fn new_cell(&self, now: i64) -> Cell {
        let span = self.calendar.span(now);
        let name = format!("{}{}", span.id, self.suffix);
        let others = self.others.of(&self.subject, &name);
        let sharing = self.others.sharing();
        let link = sharing.map(|sharing| sharing.link(&self.subject, format!("b:{name}")));
        let subject = Arc::clone(&self.subject);
        Cell::new(subject, name.into(), (span.start, span.end), others, link)
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

/// The cell of a budget that has none yet: it covers no second.
static NO_CELL: LazyLock<Arc<Cell>> = LazyLock::new(|| {
    let nothing = OtherSpend::default();
    Arc::new(Cell::new(
        Arc::default(),
        Box::default(),
        (i64::MAX, i64::MIN),
        nothing,
        None,
    ))
});

/// Cells of one budget that are kept: a week of days. An older one is in the ledger, and is no longer
/// charged.
const MOST_RECENT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{
        cell::{Hold, SpendRow},
        record::Period,
    };

    const DAY: i64 = 86_400;

    fn budget(rows: &[SpendRow], suffix: &str) -> Budget {
        let calendar = Calendar::new(Period::Day, None).unwrap();
        let others = Arc::new(OtherSpends::new(rows.to_vec(), 10 * DAY));
        Budget::new(calendar, "team:a".into(), suffix.into(), others)
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
    fn spends_of_other_processes_count_in_their_cell() {
        let rows = [
            row("team:a", "1970-01-11@UTC", 3, 4),
            row("team:a", "1970-01-11@UTC", 5, 5),
            row("team:a", "1970-01-11@UTC|m-*", 1, 1),
            row("team:b", "1970-01-11@UTC", 100, 100),
            row("team:a", "1970-01-01@UTC", 100, 100),
        ];
        let all = budget(&rows, "");
        let cell = all.cell(10 * DAY);
        assert_eq!((cell.spent(), cell.held()), (8, 1));
        assert_eq!(all.cell(11 * DAY).spent(), 0);
        assert_eq!(budget(&rows, "|m-*").cell(10 * DAY).spent(), 1);
    }

    #[test]
    fn spends_of_other_processes_are_followed_in_cells_that_are_made_and_those_to_come() {
        let budget = budget(&[], "");
        let (cell, next) = ("1970-01-11@UTC", "1970-01-12@UTC");
        let spend = |spent, upto| OtherSpend { spent, upto };
        let put = |cell: &str, spend| {
            let is_new = budget.others.put("team:a", cell, spend);
            budget.follow(cell, spend);
            is_new
        };
        assert!(put(cell, spend(1, 2)), "before there is a cell");
        assert_eq!(budget.cell(10 * DAY).spent(), 1);
        assert!(put(cell, spend(3, 7)) && !put(cell, spend(3, 7)));
        assert_eq!(budget.cell(10 * DAY).spent(), 3);
        assert_eq!(budget.cell(10 * DAY).held(), 4);
        put(next, spend(5, 5));
        assert_eq!(budget.cell(10 * DAY).spent(), 3);
        assert_eq!(budget.cell(11 * DAY).spent(), 5);
        // it ended: what it had reserved is free
        put(cell, spend(4, 4));
        assert_eq!(budget.cell(10 * DAY).hold(6, 10), Hold::Taken(6));
    }
}
