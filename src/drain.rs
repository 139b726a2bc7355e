//! Drain of one worker: its phase, and the connections that are woken when the phase changes.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// Phase of a worker's life, up to the end of its drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Sockets and workers are being set up.
    Starting,
    /// Serving.
    Running,
    /// Another process accepts connections: idle ones wait for their next request, which is their last.
    HandedOver,
    /// Serving, but reported as not ready: load balancers need time to notice (`DRAIN_DELAY`).
    Leaving,
    /// No new connections; running exchanges may end.
    Draining,
    /// The drain timeout has passed: running exchanges are cut.
    Cut,
}

impl DrainPhase {
    /// True if a connection ends with its next response.
    pub fn ends_connections(self) -> bool {
        self >= Self::HandedOver
    }
}

/// Drain as one worker sees it, with the tasks of its connections.
#[derive(Debug)]
pub struct Drain {
    phase: Cell<DrainPhase>,
    /// Time at which the drain began.
    began: Cell<Option<Instant>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: Cell::new(DrainPhase::Running),
            began: Cell::default(),
            wakers: RefCell::default(),
            free: RefCell::default(),
        }
    }
}

impl Drain {
    /// Current phase.
    pub fn phase(&self) -> DrainPhase {
        self.phase.get()
    }

    /// Enters a phase and wakes every connection.
    pub fn advance(&self, phase: DrainPhase) {
        self.phase.set(phase);
        if phase >= DrainPhase::Draining && self.began.get().is_none() {
            self.began.set(Some(Instant::now()));
        }
        let wakers: Vec<Waker> = self.wakers.borrow().iter().flatten().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
    }

    /// While draining: deadline of the first request of a connection of this age.
    pub fn first_head_until(&self, since: Instant) -> Option<Instant> {
        let began = self.began.get()?;
        Some(began.max(since) + FIRST_HEAD_GRACE)
    }

    /// Waits until a connection of this age may not begin its first request any more.
    pub async fn first_head_over(&self, since: Instant) {
        self.reached(DrainPhase::Draining).await;
        if let Some(until) = self.first_head_until(since) {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Registers a connection's task; [`Drain::leave`] takes the ticket back.
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

    /// Removes a connection's task.
    pub fn leave(&self, ticket: usize) {
        self.wakers.borrow_mut()[ticket] = None;
        self.free.borrow_mut().push(ticket);
    }

    /// Waits until the drain has reached a phase.
    pub async fn reached(&self, phase: DrainPhase) {
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

/// Registration of a task that waits for a phase.
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

/// Time for the first request of a connection once the drain has begun: it may be on its way. Two
/// round trips across the world, and no noticeable delay of a restart.
const FIRST_HEAD_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_head_has_its_grace_from_the_drain_or_the_connection_on() {
        let drain = Drain::default();
        let before = Instant::now();
        drain.advance(DrainPhase::Leaving);
        assert_eq!(drain.first_head_until(before), None);
        drain.advance(DrainPhase::Draining);
        let until = drain.first_head_until(before).unwrap();
        assert!(until >= before + FIRST_HEAD_GRACE);
        drain.advance(DrainPhase::Cut);
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
        let end = async { drain.advance(DrainPhase::Draining) };
        futures_util::future::join(drain.reached(DrainPhase::Draining), end).await;
        drain.reached(DrainPhase::Running).await;
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
