//! The HTTP/2 connections of one worker to one endpoint, and those that are being made.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Notify;

use super::{
    connection::{Http2Connection, StreamPermit},
    state::{Condition, Http2State},
};
use crate::config::{Endpoint, HttpVersion, Scheme, Timers};

/// The HTTP/2 connections of one worker to one endpoint.
pub struct Http2Pool {
    /// In the order they were made: the first with room is taken, so that those that are not needed
    /// any more go idle.
    pub(super) connections: RefCell<Vec<Http2Connection>>,
    pub(super) dials: RefCell<Vec<Rc<PendingDial>>>,
    pub(super) keep_alive: Cell<Duration>,
    pub(super) max_age: Cell<Duration>,
    /// The version that the last connection negotiated: an upstream rarely changes it.
    pub(super) speaks: Cell<NegotiatedVersion>,
    /// Streams that the last connection took.
    pub(super) usual_limit: Cell<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NegotiatedVersion {
    Http1,
    Http2,
}

/// A connection that is being made, and the number of requests that wait for it besides the one
/// that makes it.
#[derive(Default)]
pub(super) struct PendingDial {
    pub(super) waiting: Cell<usize>,
    pub(super) has_failed: Cell<bool>,
    pub(super) ended: Notify,
}

impl Http2Pool {
    /// A pool where HTTP/2 may be spoken.
    pub fn of(endpoint: &Endpoint, timers: &Timers) -> Option<Rc<Self>> {
        match (endpoint.http, endpoint.upstream.scheme) {
            (HttpVersion::Http11, _) | (HttpVersion::Auto, Scheme::Http) => None,
            (HttpVersion::Http2, _) | (HttpVersion::Auto, Scheme::Https) => Some(Rc::new(Self {
                connections: RefCell::default(),
                dials: RefCell::default(),
                keep_alive: Cell::new(timers.upstream_keep_alive),
                max_age: Cell::new(timers.upstream_max_age),
                speaks: Cell::new(NegotiatedVersion::Http2),
                usual_limit: Cell::new(usize::MAX),
            })),
        }
    }

    /// Takes over the limits of idle time and age.
    pub fn follow(&self, timers: &Timers) {
        self.keep_alive.set(timers.upstream_keep_alive);
        self.max_age.set(timers.upstream_max_age);
    }

    /// Closes the connections that have no stream. Returns their number.
    pub fn close_idle(&self) -> usize {
        self.forget_those(|connection| connection.state.idle().is_some())
    }

    /// Removes these connections: they take no more streams, and running streams go on.
    pub(super) fn forget_those(&self, is_meant: impl Fn(&Http2Connection) -> bool) -> usize {
        let forgotten: Vec<Http2Connection> = {
            let mut connections = self.connections.borrow_mut();
            connections
                .extract_if(.., |connection| is_meant(connection))
                .collect()
        };
        // what is dropped wakes its driver, which must find the list free
        forgotten.len()
    }

    /// Removes this connection: it takes no more streams, and running streams go on.
    pub(super) fn forget(&self, state: &Rc<Http2State>) {
        let forgotten = {
            let mut connections = self.connections.borrow_mut();
            let at = connections
                .iter()
                .position(|connection| Rc::ptr_eq(&connection.state, state));
            at.map(|at| connections.remove(at))
        };
        drop(forgotten);
    }

    /// A stream of a connection that has room for it.
    pub(super) async fn stream(&self) -> Option<(SendRequest<Bytes>, StreamPermit)> {
        let max_age = self.max_age.get();
        self.forget_those(|connection| connection.state.age.is_over(max_age));
        for _ in 0..LOOKS {
            let mut is_stirring = false;
            {
                let connections = self.connections.borrow();
                for connection in connections.iter() {
                    if !connection.state.has_room() {
                        continue;
                    }
                    match connection.state.condition() {
                        Condition::Good => return Some(connection.claim()),
                        Condition::Stirring => is_stirring = true,
                        // its driver is about to see it, too
                        Condition::Dead => {}
                    }
                }
            }
            if !is_stirring {
                return None;
            }
            tokio::task::yield_now().await;
        }
        None
    }

    /// A connection that is being made and should have room for one more.
    pub(super) fn join(&self) -> Option<Rc<PendingDial>> {
        let dials = self.dials.borrow();
        let room = self.usual_limit.get();
        let dial = dials.iter().find(|dial| dial.waiting.get() + 1 < room)?;
        dial.waiting.set(dial.waiting.get() + 1);
        Some(Rc::clone(dial))
    }
}

/// A dial in the list of its pool. Dropping it ends the dial and wakes the requests that wait for
/// it.
pub(super) struct DialGuard {
    pool: Rc<Http2Pool>,
    pub(super) dial: Rc<PendingDial>,
}

impl DialGuard {
    pub(super) fn begin(pool: &Rc<Http2Pool>) -> Self {
        let dial = Rc::new(PendingDial::default());
        pool.dials.borrow_mut().push(Rc::clone(&dial));
        Self {
            pool: Rc::clone(pool),
            dial,
        }
    }
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        let mut dials = self.pool.dials.borrow_mut();
        dials.retain(|dial| !Rc::ptr_eq(dial, &self.dial));
        self.dial.ended.notify_waiters();
    }
}

/// Number of times that the driver of an idle connection is given to read pending frames before
/// another connection is made.
const LOOKS: usize = 3;
