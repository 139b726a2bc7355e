//! Who may come in: counts of connections and exchanges over all workers, and the drain.
//!
//! Shared state is two counters and a phase, all atomics. What a worker needs to wake its own
//! connections is its own.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

mod overflow;

pub use self::overflow::{Overflow, OverflowPermit};

/// How long a connection that has not sent an octet is waited for once the drain has begun: its first
/// request may be on the way. Two round trips to anywhere, and no noticeable delay of a restart.
const FIRST_HEAD_GRACE: Duration = Duration::from_secs(1);

/// Counts of the whole process.
#[derive(Debug, Default)]
pub struct Gate {
    connections: AtomicUsize,
    seats: AtomicUsize,
    in_flight: AtomicUsize,
    draining_workers: AtomicUsize,
    is_cut: AtomicBool,
}

impl Gate {
    /// Counts a connection in; it counts itself out.
    pub fn connection(self: &Arc<Self>) -> Admission {
        Admission::new(Arc::clone(self), Kind::Connection)
    }

    /// A place among the connections that are served, if there is one of so many left. Connections
    /// beyond the limit are open for a moment, too, but take no place.
    pub fn seat(self: &Arc<Self>, limit: usize) -> Option<Admission> {
        let seat = Admission::new(Arc::clone(self), Kind::Seat);
        (seat.position <= limit).then_some(seat)
    }

    /// Counts an exchange in; it counts itself out.
    pub fn exchange(self: &Arc<Self>) -> Admission {
        Admission::new(Arc::clone(self), Kind::Exchange)
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Exchanges now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// A worker has begun to drain, and has counted what was accepted for it before.
    pub fn drains(&self) {
        self.draining_workers.fetch_add(1, Relaxed);
    }

    /// Workers that have begun to drain.
    pub fn draining_workers(&self) -> usize {
        self.draining_workers.load(Relaxed)
    }

    /// What still runs is cut from now on.
    pub fn cut(&self) {
        self.is_cut.store(true, Relaxed);
    }

    fn counter(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Seat => &self.seats,
            Kind::Exchange => &self.in_flight,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Connection,
    Seat,
    Exchange,
}

/// One that came in.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
    kind: Kind,
    /// How many were there, this one included.
    pub position: usize,
}

impl Admission {
    fn new(gate: Arc<Gate>, kind: Kind) -> Self {
        let position = gate.counter(kind).fetch_add(1, Relaxed) + 1;
        Self {
            gate,
            kind,
            position,
        }
    }
}

impl Admission {
    /// Whether what still runs is being cut.
    pub fn is_cut(&self) -> bool {
        self.gate.is_cut.load(Relaxed)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gate.counter(self.kind).fetch_sub(1, Relaxed);
    }
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sockets and workers are being set up.
    Starting,
    /// Serving.
    Running,
    /// Serving, and not ready any more: load balancers may take their time to see it (`DRAIN_DELAY`).
    Leaving,
    /// No new connections; what runs may end.
    Draining,
    /// Time is up: what still runs is cut.
    Cut,
}

/// The drain as one worker sees it: it knows its connections and wakes them.
#[derive(Debug)]
pub struct Drain {
    phase: Cell<Phase>,
    /// When the drain began.
    began: Cell<Option<Instant>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: Cell::new(Phase::Running),
            began: Cell::default(),
            wakers: RefCell::default(),
            free: RefCell::default(),
        }
    }
}

impl Drain {
    /// The phase.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Goes on to a phase and wakes every connection.
    pub fn advance(&self, phase: Phase) {
        self.phase.set(phase);
        if phase >= Phase::Draining && self.began.get().is_none() {
            self.began.set(Some(Instant::now()));
        }
        let wakers: Vec<Waker> = self.wakers.borrow().iter().flatten().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
    }

    /// While draining: until when a connection of this age may begin its first request.
    pub fn first_head_until(&self, since: Instant) -> Option<Instant> {
        let began = self.began.get()?;
        Some(began.max(since) + FIRST_HEAD_GRACE)
    }

    /// Waits until a connection of this age may not begin its first request any more.
    pub async fn first_head_over(&self, since: Instant) {
        self.reached(Phase::Draining).await;
        if let Some(until) = self.first_head_until(since) {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Enlists a connection's task; give the ticket back with [`Drain::leave`].
    pub fn enlist(&self, waker: Waker) -> usize {
        let mut wakers = self.wakers.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(ticket) => {
                wakers[ticket] = Some(waker);
                ticket
            }
            None => {
                wakers.push(Some(waker));
                wakers.len() - 1
            }
        }
    }

    /// Strikes a connection off the list.
    pub fn leave(&self, ticket: usize) {
        self.wakers.borrow_mut()[ticket] = None;
        self.free.borrow_mut().push(ticket);
    }

    /// Waits until the end has come so far.
    pub async fn reached(&self, phase: Phase) {
        let mut enlisted = Enlisted {
            drain: self,
            ticket: None,
        };
        poll_fn(|cx| {
            if self.phase() >= phase {
                return Poll::Ready(());
            }
            if enlisted.ticket.is_none() {
                enlisted.ticket = Some(self.enlist(cx.waker().clone()));
            }
            Poll::Pending
        })
        .await;
    }
}

/// A task on the list, for as long as it waits.
struct Enlisted<'a> {
    drain: &'a Drain,
    ticket: Option<usize>,
}

impl Drop for Enlisted<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.drain.leave(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admissions_count_themselves_out() {
        let gate = Arc::new(Gate::default());
        let first = gate.exchange();
        let second = gate.exchange();
        assert_eq!(
            (first.position, second.position, gate.in_flight()),
            (1, 2, 2)
        );
        drop((first, second));
        assert_eq!((gate.in_flight(), gate.connections()), (0, 0));
    }

    #[test]
    fn a_seat_that_is_not_had_is_not_taken() {
        let gate = Arc::new(Gate::default());
        let first = gate.seat(1).unwrap();
        assert!(gate.seat(1).is_none() && gate.seat(1).is_none());
        drop(first);
        assert!(gate.seat(1).is_some());
    }

    #[test]
    fn a_first_head_has_its_grace_from_the_drain_or_the_connection_on() {
        let drain = Drain::default();
        let before = Instant::now();
        drain.advance(Phase::Leaving);
        assert_eq!(drain.first_head_until(before), None);
        drain.advance(Phase::Draining);
        let until = drain.first_head_until(before).unwrap();
        assert!(until >= before + FIRST_HEAD_GRACE);
        drain.advance(Phase::Cut);
        assert_eq!(drain.first_head_until(before), Some(until));
        let later = Instant::now() + FIRST_HEAD_GRACE;
        assert_eq!(
            drain.first_head_until(later),
            Some(later + FIRST_HEAD_GRACE)
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_phase_is_waited_for_and_leaves_no_ticket() {
        let drain = Drain::default();
        let end = async { drain.advance(Phase::Draining) };
        futures_util::future::join(drain.reached(Phase::Draining), end).await;
        drain.reached(Phase::Running).await;
        assert!(drain.wakers.borrow().iter().all(Option::is_none));
    }

    #[test]
    fn tickets_are_used_again() {
        let drain = Drain::default();
        let first = drain.enlist(Waker::noop().clone());
        drain.leave(first);
        assert_eq!(drain.enlist(Waker::noop().clone()), first);
    }
}
