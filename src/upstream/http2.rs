//! HTTP/2 towards the upstream (RFC 9113), where `UPSTREAM_HTTP_VERSION` is `2` or `auto`.
//!
//! The h2 crate speaks it; this chooses connections. No stream waits behind the peer's limit of
//! concurrent streams: a request that finds no connection with room has one dialled. That is why awc's
//! HTTP/2 is not used: it has one connection per worker and host, and queues without bound what goes
//! beyond the peer's limit.
//!
//! - **`auto`** offers both versions by ALPN and speaks what was negotiated; without TLS it is
//!   HTTP/1.1. **`2`** is HTTP/2 or an error; without TLS by prior knowledge (§3.3).
//! - **Nothing is lost by GOAWAY**: a connection that is told to go away takes no new streams and
//!   drains; a request above its last stream, or that was refused (§8.7), is sent again over another
//!   connection if its body is still here. Never one that may have been processed.
//! - **A slow client holds back its own stream only**: a stream's window is 64 KiB, the connection's
//!   is that of all its streams.
//!
//! # What it costs
//!
//! Beside an HTTP/1.1 exchange, which has no field map and no second task: the request's fields in a
//! map, one allocation for each value and each name that is not a known one, the response's fields in
//! another and from there into octets again; h2's slots and queue entries, its locks (never contended:
//! one thread), and two changes of task for each direction, since the connection's own task does the
//! reading and writing. A chunk of an answer is a reference into h2's read buffer and not copied.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Notify;

use super::{
    Connections, Lane, Road,
    http1::{self, Failed, Request, Response},
};
use crate::{
    config::{Endpoint, HttpVersion, Live, Scheme, Timers},
    error::UpstreamError,
    telemetry::metrics::Moved,
};

mod connection;
mod exchange;
mod head;
mod response;
mod upload;
mod wire;

use self::connection::{Claim, Condition, Connection, State};
pub use self::response::Http2Body;

/// The HTTP/2 connections of one worker to one endpoint.
pub(super) struct Pool {
    /// In the order they were made: the first with room is taken, so that those that are not needed
    /// any more go idle.
    connections: RefCell<Vec<Connection>>,
    dials: RefCell<Vec<Rc<Dial>>>,
    keep_alive: Cell<Duration>,
    max_age: Cell<Duration>,
    /// What the last connection turned out to speak: an upstream rarely changes its mind.
    speaks: Cell<Speaks>,
    /// Streams that the last connection took.
    usual_limit: Cell<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

/// A connection that is being made, and how many wait for it besides the one who makes it.
#[derive(Default)]
struct Dial {
    waiting: Cell<usize>,
    has_failed: Cell<bool>,
    ended: Notify,
}

/// What a request goes over.
enum Way {
    Stream((SendRequest<Bytes>, Claim)),
    Connection(http1::Connection),
}

/// Sends a request over whichever version is spoken there.
///
/// # Errors
/// [`Failed::Unsent`] if it was not processed and every try to send it failed.
pub(super) async fn send(
    connections: &Connections,
    live: &Live,
    lane: &Lane,
    pool: &Rc<Pool>,
    mut request: Request,
) -> Result<Response, Failed> {
    for tries_left in (0..TRIES).rev() {
        let is_first = tries_left + 1 == TRIES;
        let (way, connecting) = match pool.way(connections, live, lane, is_first).await {
            Ok(had) => had,
            Err(cause) => return Err(Failed::Unsent(Box::new(request), cause)),
        };
        let road = request.is_watched.then(|| Road::had(connecting));
        // once: a second connection that is lost in the same way is no chance any more
        let may_repeat = is_first && connecting.is_none();
        let (outcome, unsent_since) = match way {
            Way::Stream(stream) => {
                let upstream = &lane.endpoint.upstream;
                let outcome = exchange::exchange(stream, request, upstream, may_repeat);
                (outcome.await, Moved::Unprocessed)
            }
            Way::Connection(connection) => {
                let outcome = http1::exchange(connection, request, &lane.pool);
                (outcome.await, Moved::Stale)
            }
        };
        match outcome {
            Err(Failed::Unsent(unsent, _)) if tries_left > 0 => {
                connections.shard.moved(unsent_since);
                request = *unsent;
            }
            outcome => return outcome.map(|response| Response { road, ..response }),
        }
    }
    Err(Failed::Unsent(
        Box::new(request),
        UpstreamError::ConnectionTerminated(None),
    ))
}

impl Pool {
    /// A pool where HTTP/2 may be spoken.
    pub(super) fn of(endpoint: &Endpoint, timers: &Timers) -> Option<Rc<Self>> {
        match (endpoint.http, endpoint.upstream.scheme) {
            (HttpVersion::Http11, _) | (HttpVersion::Auto, Scheme::Http) => None,
            (HttpVersion::Http2, _) | (HttpVersion::Auto, Scheme::Https) => Some(Rc::new(Self {
                connections: RefCell::default(),
                dials: RefCell::default(),
                keep_alive: Cell::new(timers.upstream_keep_alive),
                max_age: Cell::new(timers.upstream_max_age),
                speaks: Cell::new(Speaks::Http2),
                usual_limit: Cell::new(usize::MAX),
            })),
        }
    }

    /// How long a connection may be idle, and how old it may become.
    pub(super) fn follow(&self, timers: &Timers) {
        self.keep_alive.set(timers.upstream_keep_alive);
        self.max_age.set(timers.upstream_max_age);
    }

    /// Closes the connections that have no stream. Gives how many there were.
    pub(super) fn close_idle(&self) -> usize {
        self.forget_those(|connection| connection.state.idle().is_some())
    }

    /// Takes no more streams from these connections. What runs there runs on.
    fn forget_those(&self, is_meant: impl Fn(&Connection) -> bool) -> usize {
        let forgotten: Vec<Connection> = {
            let mut connections = self.connections.borrow_mut();
            connections
                .extract_if(.., |connection| is_meant(connection))
                .collect()
        };
        // what is dropped wakes its driver, which must find the list free
        forgotten.len()
    }

    /// Takes no more streams from this connection. What runs there runs on.
    fn forget(&self, state: &Rc<State>) {
        let forgotten = {
            let mut connections = self.connections.borrow_mut();
            let at = connections
                .iter()
                .position(|connection| Rc::ptr_eq(&connection.state, state));
            at.map(|at| connections.remove(at))
        };
        drop(forgotten);
    }

    /// A stream or a connection for one request: one that is there, the one that somebody else is
    /// making, or a new one, and how long it took to make that.
    ///
    /// It waits for another's connection only if that one should have room for it: what the upstream
    /// allowed the last time is what it is expected to allow. If it has none, or cannot be made, the
    /// request goes on to another, and in the end to one of its own.
    async fn way(
        self: &Rc<Self>,
        connections: &Connections,
        live: &Live,
        lane: &Lane,
        is_first: bool,
    ) -> Result<(Way, Option<Duration>), UpstreamError> {
        let mut joins_left = JOINS;
        loop {
            if self.speaks.get() == Speaks::Http1 {
                joins_left = 0;
                if is_first && let Some(idle) = poll_fn(|cx| Poll::Ready(lane.pool.take(cx))).await
                {
                    return Ok((Way::Connection(idle), None));
                }
            }
            if let Some(stream) = self.stream().await {
                return Ok((Way::Stream(stream), None));
            }
            let Some(dial) = (joins_left > 0).then(|| self.join()).flatten() else {
                let began = Instant::now();
                let way = self.dial(connections, live, lane).await?;
                return Ok((way, Some(began.elapsed())));
            };
            dial.ended.notified().await;
            // one that was given up by its client says nothing of the upstream
            joins_left = if dial.has_failed.get() {
                0
            } else {
                joins_left - 1
            };
        }
    }

    /// A stream of a connection that has room for it.
    async fn stream(&self) -> Option<(SendRequest<Bytes>, Claim)> {
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
    fn join(&self) -> Option<Rc<Dial>> {
        let dials = self.dials.borrow();
        let room = self.usual_limit.get();
        let dial = dials.iter().find(|dial| dial.waiting.get() + 1 < room)?;
        dial.waiting.set(dial.waiting.get() + 1);
        Some(Rc::clone(dial))
    }

    /// A new connection.
    async fn dial(
        self: &Rc<Self>,
        connections: &Connections,
        live: &Live,
        lane: &Lane,
    ) -> Result<Way, UpstreamError> {
        let dialling = Dialling::begin(self);
        let way = self.make(connections, live, lane).await;
        dialling.dial.has_failed.set(way.is_err());
        way
    }

    async fn make(
        self: &Rc<Self>,
        connections: &Connections,
        live: &Live,
        lane: &Lane,
    ) -> Result<Way, UpstreamError> {
        let stream = connections
            .dial(live, &lane.endpoint, lane.endpoint.http)
            .await?;
        // in clear, HTTP/2 is known beforehand: `auto` has no pool there
        let is_http2 = stream.negotiated_http2() || lane.endpoint.upstream.scheme == Scheme::Http;
        if !is_http2 {
            self.speaks.set(Speaks::Http1);
            return Ok(Way::Connection(http1::Connection::new(stream)));
        }
        self.speaks.set(Speaks::Http2);
        let connection = Connection::open(stream, self, live.timers.connect).await?;
        self.usual_limit.set(connection.state.limit());
        let claimed = connection.claim();
        self.connections.borrow_mut().push(connection);
        Ok(Way::Stream(claimed))
    }
}

/// A dial in the list, until it has ended in whichever way: then those that wait look again.
struct Dialling {
    pool: Rc<Pool>,
    dial: Rc<Dial>,
}

impl Dialling {
    fn begin(pool: &Rc<Pool>) -> Self {
        let dial = Rc::new(Dial::default());
        pool.dials.borrow_mut().push(Rc::clone(&dial));
        Self {
            pool: Rc::clone(pool),
            dial,
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        let mut dials = self.pool.dials.borrow_mut();
        dials.retain(|dial| !Rc::ptr_eq(dial, &self.dial));
        self.dial.ended.notify_waiters();
    }
}

/// How often one request is sent at most: a second time because a connection went away, a third time
/// because the next one did, too.
const TRIES: usize = 3;
/// How many connections of others a request waits for at most: the first may have been for an upstream
/// whose limit was not known yet.
const JOINS: usize = 2;
/// How often the driver of an idle connection gets the chance to read what came before another
/// connection is made.
const LOOKS: usize = 3;
