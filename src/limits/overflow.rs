//! Overflow permits: connections beyond `MAX_CONNECTIONS` that get a 503, or the answer to a health
//! check. Their number is bounded by the file descriptors and memory that were set aside for them.
//!
//! A newcomer takes the permit of the oldest connection that has sent nothing: silent connections
//! cannot keep a health check out, whatever their number. Each worker has its own permits.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Permits of one worker.
#[derive(Debug)]
pub struct Overflow {
    limit: usize,
    /// Held permits, the oldest first.
    held: RefCell<VecDeque<Rc<PermitState>>>,
}

#[derive(Debug)]
struct PermitState {
    is_idle: Cell<bool>,
    is_evicted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Permit of one connection beyond the limit, until a newcomer takes it.
#[derive(Debug)]
pub struct OverflowPermit {
    overflow: Rc<Overflow>,
    state: Rc<PermitState>,
}

impl Overflow {
    /// Makes a pool of `limit` permits.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            limit,
            held: RefCell::default(),
        })
    }

    /// Gives a permit to one more connection. None if all holders are at work.
    pub fn permit(self: &Rc<Self>) -> Option<OverflowPermit> {
        let mut held = self.held.borrow_mut();
        if held.len() >= self.limit {
            let oldest = held.iter().position(|state| state.is_idle.get())?;
            let oldest = held.remove(oldest)?;
            oldest.is_evicted.set(true);
            if let Some(waker) = oldest.waker.take() {
                waker.wake();
            }
        }
        let state = Rc::new(PermitState {
            is_idle: Cell::new(true),
            is_evicted: Cell::new(false),
            waker: RefCell::default(),
        });
        held.push_back(Rc::clone(&state));
        Some(OverflowPermit {
            overflow: Rc::clone(self),
            state,
        })
    }
}

impl OverflowPermit {
    /// Records whether the connection waits for its client, so that it may lose its permit.
    pub fn set_idle(&self, is_idle: bool) {
        self.state.is_idle.set(is_idle);
    }

    /// Ready once a newcomer has taken the permit.
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.is_evicted.get() {
            return Poll::Ready(());
        }
        let mut waker = self.state.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until a newcomer has taken the permit.
    pub async fn evicted(&self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }
}

impl Drop for OverflowPermit {
    fn drop(&mut self) {
        let mut held = self.overflow.held.borrow_mut();
        if let Some(at) = held.iter().position(|state| Rc::ptr_eq(state, &self.state)) {
            held.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(permit: &OverflowPermit) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        permit.poll_evicted(&mut cx).is_ready()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest_that_is_idle() {
        let overflow = Overflow::new(2);
        let first = overflow.permit().unwrap();
        let second = overflow.permit().unwrap();
        first.set_idle(false);
        let third = overflow.permit().unwrap();
        assert!(!is_evicted(&first) && is_evicted(&second) && !is_evicted(&third));
        third.set_idle(false);
        assert!(overflow.permit().is_none(), "both are at work");
        drop(first);
        assert!(overflow.permit().is_some());
    }

    #[test]
    fn a_permit_that_was_taken_gives_none_back() {
        let overflow = Overflow::new(1);
        let first = overflow.permit().unwrap();
        let second = overflow.permit().unwrap();
        second.set_idle(false);
        drop(first);
        assert!(overflow.permit().is_none());
    }
}
