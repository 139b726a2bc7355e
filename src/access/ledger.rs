//! Changed cells, for the thread that stores them. No admission waits for it.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::cell::{Cell, SpendRow};

/// Cells that changed since they were reported last.
#[derive(Default)]
pub(super) struct Ledger {
    /// A cell enters one of these once between two reports, so that workers hardly ever meet here.
    changed: [Mutex<Vec<Arc<Cell>>>; SHARDS],
    next: AtomicUsize,
    is_urgent: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Ledger {
    /// Sets what is called when a reserve runs short, once; it must return at once.
    pub(super) fn on_urgent(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// Notes a cell that changed.
    pub(super) fn note(&self, cell: &Arc<Cell>) {
        cell.note(false);
        if cell.mark() {
            let shard = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.changed[shard]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            shard.push(Arc::clone(cell));
        }
        if cell.share().is_none()
            && cell.is_short()
            && !self.is_urgent.swap(true, Ordering::SeqCst)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// The rows that changed since the last call.
    pub(super) fn take(&self) -> Vec<SpendRow> {
        self.is_urgent.store(false, Ordering::SeqCst);
        let mut rows = Vec::new();
        for shard in &self.changed {
            let changed =
                std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            rows.extend(changed.iter().map(|cell| cell.report()));
        }
        rows
    }
}

/// Lists of changed cells.
const SHARDS: usize = 16;
