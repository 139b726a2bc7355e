//! Counts of connections and exchanges over all workers, and the limits on them.
//!
//! The shared state is counters, all atomics.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

mod overflow;

pub use self::overflow::{Overflow, OverflowPermit};

/// Counters of the whole process.
#[derive(Debug, Default)]
pub struct Limits {
    connections: AtomicUsize,
    slots: AtomicUsize,
    in_flight: AtomicUsize,
    draining_workers: AtomicUsize,
    is_cut: AtomicBool,
}

impl Limits {
    /// Counts a connection in; the drop of the admission counts it out.
    pub fn connection(self: &Arc<Self>) -> Admission {
        Admission::new(Arc::clone(self), CountKind::Connection)
    }

    /// Takes one of `limit` slots for connections, if one is free. Connections beyond the limit are
    /// open for a moment, too, but take no slot.
    pub fn slot(self: &Arc<Self>, limit: usize) -> Option<Admission> {
        let slot = Admission::new(Arc::clone(self), CountKind::Slot);
        (slot.position <= limit).then_some(slot)
    }

    /// Counts an exchange in; the drop of the admission counts it out.
    pub fn exchange(self: &Arc<Self>) -> Admission {
        Admission::new(Arc::clone(self), CountKind::Exchange)
    }

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Number of exchanges in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Records that a worker has begun to drain and has counted the connections accepted for it
    /// before.
    pub fn drains(&self) {
        self.draining_workers.fetch_add(1, Relaxed);
    }

    /// Workers that have begun to drain.
    pub fn draining_workers(&self) -> usize {
        self.draining_workers.load(Relaxed)
    }

    /// Records that running exchanges are cut from now on.
    pub fn cut(&self) {
        self.is_cut.store(true, Relaxed);
    }

    fn counter(&self, kind: CountKind) -> &AtomicUsize {
        match kind {
            CountKind::Connection => &self.connections,
            CountKind::Slot => &self.slots,
            CountKind::Exchange => &self.in_flight,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum CountKind {
    Connection,
    Slot,
    Exchange,
}

/// Counted connection, slot or exchange; its drop counts it out.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    kind: CountKind,
    /// Count at admission, this one included.
    pub position: usize,
}

impl Admission {
    fn new(limits: Arc<Limits>, kind: CountKind) -> Self {
        let position = limits.counter(kind).fetch_add(1, Relaxed) + 1;
        Self {
            limits,
            kind,
            position,
        }
    }
}

impl Admission {
    /// Reports whether running exchanges are being cut.
    pub fn is_cut(&self) -> bool {
        self.limits.is_cut.load(Relaxed)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.limits.counter(self.kind).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admissions_count_themselves_out() {
        let limits = Arc::new(Limits::default());
        let first = limits.exchange();
        let second = limits.exchange();
        assert_eq!(
            (first.position, second.position, limits.in_flight()),
            (1, 2, 2)
        );
        drop((first, second));
        assert_eq!((limits.in_flight(), limits.connections()), (0, 0));
    }

    #[test]
    fn a_slot_that_is_not_had_is_not_taken() {
        let limits = Arc::new(Limits::default());
        let first = limits.slot(1).unwrap();
        assert!(limits.slot(1).is_none() && limits.slot(1).is_none());
        drop(first);
        assert!(limits.slot(1).is_some());
    }
}
