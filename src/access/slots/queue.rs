//! The queue for slots: turns of sessions, and within a session the first waiter first.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicBool},
};

use futures_util::task::AtomicWaker;

/// Waiters by session.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) sessions: HashMap<u64, VecDeque<Arc<Place>>>,
    /// Sessions with a waiter, in the order of their turns.
    pub(super) turns: VecDeque<u64>,
}

/// Place of a waiter in the queue.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) session: u64,
    pub(super) has_slot: AtomicBool,
    pub(super) waker: AtomicWaker,
}

impl Queue {
    /// Adds a waiter behind those of its session.
    pub(super) fn push(&mut self, place: Arc<Place>) {
        let waiters = self.sessions.entry(place.session).or_default();
        if waiters.is_empty() {
            self.turns.push_back(place.session);
        }
        waiters.push_back(place);
    }

    /// Takes the first waiter of the session whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Arc<Place>> {
        let session = self.turns.pop_front()?;
        let waiters = self.sessions.get_mut(&session)?;
        let place = waiters.pop_front();
        if waiters.is_empty() {
            self.sessions.remove(&session);
        } else {
            self.turns.push_back(session);
        }
        place
    }

    /// Removes a waiter; false if it is not here.
    pub(super) fn remove(&mut self, place: &Arc<Place>) -> bool {
        let Some(waiters) = self.sessions.get_mut(&place.session) else {
            return false;
        };
        let Some(at) = waiters.iter().position(|other| Arc::ptr_eq(other, place)) else {
            return false;
        };
        waiters.remove(at);
        if waiters.is_empty() {
            self.sessions.remove(&place.session);
            self.turns.retain(|session| *session != place.session);
        }
        true
    }
}
