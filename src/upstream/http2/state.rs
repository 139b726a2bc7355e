//! The state of one HTTP/2 connection: its socket, its streams, the peer's limits and its end.

use std::{
    cell::{Cell, RefCell},
    io,
    mem::MaybeUninit,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::errors::unusable;
use crate::{
    error::UpstreamError,
    upstream::{age::Age, dial::Stream},
    wire::window::Windows,
};

/// Streams of one connection, if the peer allows more: with it, the window of the connection holds
/// the windows of all its streams, and the peer's own customary limit is 100 (RFC 9113 §6.5.2).
pub(super) const MAX_STREAMS: usize = 100;
/// Content that a client that does not read may leave here (docs/contract.md §4.3); more only while it
/// reads (its extra window).
pub(super) const STREAM_WINDOW: u32 = 65_535;
/// The window of the connection: the windows of all its streams.
pub(super) const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;

/// The state of a connection.
pub(super) struct Http2State {
    /// The socket, until the driver has ended.
    pub(super) socket: RefCell<Option<Stream>>,
    /// Octets that were given to it.
    pub(super) written: Cell<u64>,
    /// Octets that came from it.
    pub(super) heard: Cell<u64>,
    /// Set once the peer's SETTINGS came.
    pub(super) has_settings: Cell<bool>,
    /// The last stream that may have been processed, if the peer sent GOAWAY (RFC 9113 §6.8).
    pub(super) go_away: Cell<Option<u32>>,
    /// Open streams.
    pub(super) streams: Cell<usize>,
    /// Streams that the peer allows: 0 before its SETTINGS.
    pub(super) limit: Cell<usize>,
    /// Streams that it was seen to take: less than it allows once it refused one.
    pub(super) taken: Cell<usize>,
    pub(super) idle_since: Cell<Instant>,
    pub(super) age: Age,
    pub(super) windows: Rc<Windows>,
    pub(super) ended: Cell<bool>,
    /// The error that ended it, for the request that waits for it.
    pub(super) cause: RefCell<Option<UpstreamError>>,
    pub(super) changed: Notify,
}

/// The condition of an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It can be used.
    Good,
    /// It has bytes that the driver has not read.
    Stirring,
    /// It is closed.
    Dead,
}

impl Http2State {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            socket: RefCell::new(Some(stream)),
            written: Cell::new(0),
            heard: Cell::new(0),
            has_settings: Cell::new(false),
            go_away: Cell::new(None),
            streams: Cell::new(0),
            limit: Cell::new(0),
            taken: Cell::new(MAX_STREAMS),
            idle_since: Cell::new(Instant::now()),
            age: Age::new(),
            windows: Windows::new(STREAM_WINDOW, CONNECTION_WINDOW),
            ended: Cell::new(false),
            cause: RefCell::default(),
            changed: Notify::new(),
        }
    }

    /// The peer goes away: streams above `last` are not processed. A second GOAWAY may lower it.
    pub(super) fn going_away(&self, last: u32) {
        let earlier = self.go_away.get().unwrap_or(u32::MAX);
        self.go_away.set(Some(last.min(earlier)));
    }

    /// Tells if it takes no new streams.
    pub(super) fn is_leaving(&self) -> bool {
        self.ended.get() || self.go_away.get().is_some()
    }

    /// Streams that it takes at a time.
    pub(super) fn limit(&self) -> usize {
        self.limit.get().min(self.taken.get())
    }

    /// Tells if there is room for one more stream.
    pub(super) fn has_room(&self) -> bool {
        !self.is_leaving() && self.streams.get() < self.limit()
    }

    /// The condition for a new stream. Only an idle connection is examined: a busy one always has
    /// frames on their way.
    pub(super) fn condition(&self) -> Condition {
        if self.streams.get() > 0 {
            return Condition::Good;
        }
        let socket = self.socket.borrow();
        let Some(stream) = &*socket else {
            return Condition::Dead;
        };
        // what the runtime knows may be one turn of its reactor old
        let mut octet = [MaybeUninit::uninit()];
        match socket2::SockRef::from(stream.tcp()).peek(&mut octet) {
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Condition::Good,
            Ok(1..) => Condition::Stirring,
            Ok(0) | Err(_) => Condition::Dead,
        }
    }

    /// The time without a stream; `None` while it has one.
    pub(super) fn idle(&self) -> Option<Duration> {
        (self.streams.get() == 0).then(|| self.idle_since.get().elapsed())
    }

    pub(super) fn follow(&self, limit: usize) {
        let limit = limit.min(MAX_STREAMS);
        if self.limit.replace(limit) != limit {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn end(&self, outcome: Result<(), h2::Error>) {
        self.ended.set(true);
        self.cause.replace(Some(match outcome {
            Ok(()) => UpstreamError::ConnectionTerminated(None),
            Err(cause) => unusable(cause),
        }));
        self.changed.notify_waiters();
    }

    /// Waits until the peer allows a stream.
    pub(super) async fn ready(&self) -> Result<(), UpstreamError> {
        loop {
            let changed = self.changed.notified();
            if self.ended.get() || self.go_away.get().is_some() {
                let cause = self.cause.take();
                return Err(cause.unwrap_or(UpstreamError::ConnectionTerminated(None)));
            }
            if self.limit.get() > 0 {
                return Ok(());
            }
            changed.await;
        }
    }
}
