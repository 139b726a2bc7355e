//! One HTTP/2 connection: its driver, and what is known of it besides.
//!
//! The driver is a task of the worker. It ends when h2 has nothing more to do: after the last handle
//! for new streams was dropped (by [`super::Pool`], when the connection is idle for too long, is told
//! to go away, or its lane is left) and its last stream has ended, or when the connection fails.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future as _, poll_fn},
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{sync::Notify, time::timeout};

use super::{Pool, wire::Wire};
use crate::{
    error::UpstreamError,
    upstream::{age::Age, dial::Stream},
    wire::{
        MAX_HEAD,
        window::{MAX_EXTRA, Meter, WindowDriver, Windows},
    },
};

/// A connection that takes new streams.
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    pub(super) state: Rc<State>,
}

/// What is known of a connection.
pub(super) struct State {
    /// The socket, until the driver has ended.
    pub(super) socket: RefCell<Option<Stream>>,
    /// Octets that were given to it.
    pub(super) written: Cell<u64>,
    /// Octets that came from it.
    pub(super) heard: Cell<u64>,
    /// Whether the peer's SETTINGS came.
    pub(super) has_settings: Cell<bool>,
    /// The last stream that may have been processed, if the peer sent GOAWAY (RFC 9113 §6.8).
    go_away: Cell<Option<u32>>,
    /// Streams of ours.
    streams: Cell<usize>,
    /// Streams that the peer allows: 0 before its SETTINGS.
    limit: Cell<usize>,
    /// Streams that it was seen to take: less than it allows once it refused one.
    taken: Cell<usize>,
    idle_since: Cell<Instant>,
    pub(super) age: Age,
    windows: Rc<Windows>,
    ended: Cell<bool>,
    /// Why it ended, if anybody waits for it.
    cause: RefCell<Option<UpstreamError>>,
    changed: Notify,
}

/// A stream of a connection, counted for as long as this lives.
pub(super) struct Claim(Rc<State>, Meter);

/// What a look at an idle connection says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It can be used.
    Good,
    /// It has something to say that the driver has not read.
    Stirring,
    /// It is closed.
    Dead,
}

impl Connection {
    /// Begins to speak HTTP/2 and waits until the peer allows a stream.
    ///
    /// # Errors
    /// What the connection ended with, or that it took too long.
    pub(super) async fn open(
        stream: Stream,
        pool: &Rc<Pool>,
        patience: Duration,
    ) -> Result<Self, UpstreamError> {
        let state = Rc::new(State::new(stream));
        let wire = Wire::new(Rc::clone(&state));
        let handshake = builder().handshake(wire);
        let (send, connection) = match timeout(patience, handshake).await {
            Ok(outcome) => outcome.map_err(unusable)?,
            Err(_) => return Err(UpstreamError::ConnectionTimeout),
        };
        let pool = Rc::downgrade(pool);
        actix_rt::spawn(drive(connection, Rc::clone(&state), pool));
        match timeout(patience, state.ready()).await {
            Ok(outcome) => outcome.map(|()| Self { send, state }),
            Err(_) if state.has_settings.get() => Err(UpstreamError::ConnectionFailed(
                io::Error::other("the upstream allows no HTTP/2 stream"),
            )),
            Err(_) => Err(UpstreamError::ConnectionTimeout),
        }
    }

    /// One more stream, if there is room for it.
    pub(super) fn claim(&self) -> (SendRequest<Bytes>, Claim) {
        let streams = &self.state.streams;
        streams.set(streams.get() + 1);
        let meter = self.state.windows.meter();
        (self.send.clone(), Claim(Rc::clone(&self.state), meter))
    }
}

impl State {
    fn new(stream: Stream) -> Self {
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

    /// Whether it takes no new streams.
    pub(super) fn is_leaving(&self) -> bool {
        self.ended.get() || self.go_away.get().is_some()
    }

    /// How many streams it takes at a time.
    pub(super) fn limit(&self) -> usize {
        self.limit.get().min(self.taken.get())
    }

    /// Whether there is room for one more stream.
    pub(super) fn has_room(&self) -> bool {
        !self.is_leaving() && self.streams.get() < self.limit()
    }

    /// What a stream can expect. Only an idle connection is looked at: on another one, something is
    /// always on its way.
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

    /// How long it has had no stream.
    pub(super) fn idle(&self) -> Option<Duration> {
        (self.streams.get() == 0).then(|| self.idle_since.get().elapsed())
    }

    fn follow(&self, limit: usize) {
        let limit = limit.min(MAX_STREAMS);
        if self.limit.replace(limit) != limit {
            self.changed.notify_waiters();
        }
    }

    fn end(&self, outcome: Result<(), h2::Error>) {
        self.ended.set(true);
        self.cause.replace(Some(match outcome {
            Ok(()) => UpstreamError::ConnectionTerminated(None),
            Err(cause) => unusable(cause),
        }));
        self.changed.notify_waiters();
    }

    /// Until a stream is allowed.
    async fn ready(&self) -> Result<(), UpstreamError> {
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

impl Claim {
    /// Octets that were given to the connection so far.
    pub(super) fn written(&self) -> u64 {
        self.0.written.get()
    }

    /// Octets that came from the connection so far.
    pub(super) fn heard(&self) -> u64 {
        self.0.heard.get()
    }

    /// Octets of content were taken by the client.
    pub(super) fn consumed(&self, octets: usize) {
        self.1.consumed(octets);
    }

    /// Whether the peer said that it did not process this stream (RFC 9113 §6.8).
    pub(super) fn was_left_behind(&self, stream: u32) -> bool {
        self.0.go_away.get().is_some_and(|last| stream > last)
    }

    /// The peer refused this stream: so many are too many for it.
    pub(super) fn refused(&self) {
        let others = self.0.streams.get() - 1;
        self.0.taken.set(others.min(self.0.taken.get()));
    }

    /// The connection opens no stream any more, or is not trusted with one.
    pub(super) fn exhausted(&self) {
        self.0.taken.set(0);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let streams = self.0.streams.get() - 1;
        self.0.streams.set(streams);
        if streams == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.0.streams.get()).finish()
    }
}

/// Reads and writes for all streams of a connection, and takes it from its pool when it is of no more
/// use.
async fn drive(
    mut connection: h2::client::Connection<Wire, Bytes>,
    state: Rc<State>,
    pool: Weak<Pool>,
) {
    let mut timer = None;
    let mut windows = WindowDriver::new(Rc::clone(&state.windows), &mut connection);
    let outcome = poll_fn(|cx| {
        // first: a stream that was opened is told of a smaller window before it is asked for
        windows.poll(cx, &mut connection);
        let outcome = Pin::new(&mut connection).poll(cx);
        state.follow(connection.max_concurrent_send_streams());
        if outcome.is_pending()
            && let Some(pool) = pool.upgrade()
            && (state.is_leaving() || poll_idle(cx, &state, &pool, &mut timer).is_ready())
        {
            // if it has no streams, h2 is woken by this and ends the connection
            pool.forget(&state);
        }
        outcome
    })
    .await;
    state.end(outcome);
    if let Some(pool) = pool.upgrade() {
        pool.forget(&state);
    }
}

/// Ready when the connection has had no stream for too long, or has none and is too old.
fn poll_idle(
    cx: &mut Context<'_>,
    state: &State,
    pool: &Pool,
    timer: &mut Option<Pin<Box<actix_rt::time::Sleep>>>,
) -> Poll<()> {
    let Some(idle) = state.idle() else {
        return Poll::Pending;
    };
    let rest = |idle: Duration| {
        let rest = pool.keep_alive.get().saturating_sub(idle);
        rest.min(state.age.left(pool.max_age.get()))
    };
    let timer = timer.get_or_insert_with(|| Box::pin(actix_rt::time::sleep(rest(idle))));
    while timer.as_mut().poll(cx).is_ready() {
        let rest = rest(state.idle().unwrap_or_default());
        if rest.is_zero() {
            return Poll::Ready(());
        }
        timer.set(actix_rt::time::sleep(rest));
    }
    Poll::Pending
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(2 * MAX_HEAD as u32)
        .initial_max_send_streams(0)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .data_frame_budget(FRAME_BUDGET);
    builder
}

/// An error of h2 before there was a stream.
fn unusable(cause: h2::Error) -> UpstreamError {
    if cause.is_io() {
        UpstreamError::ConnectionTerminated(cause.into_io())
    } else if cause.is_library() {
        UpstreamError::HttpProtocolError
    } else {
        UpstreamError::ConnectionTerminated(Some(terse(cause)))
    }
}

/// An error of h2 without the text that a peer may send with a GOAWAY: it could say anything.
pub(super) fn terse(cause: h2::Error) -> io::Error {
    match (cause.reason(), cause.is_go_away()) {
        (Some(reason), true) => io::Error::other(format!("HTTP/2 connection ended: {reason}")),
        (Some(reason), false) => io::Error::other(format!("HTTP/2 stream ended: {reason}")),
        (None, _) => cause
            .into_io()
            .unwrap_or_else(|| io::Error::other("HTTP/2")),
    }
}

/// Streams of one connection, if the peer allows more: with it, the window of the connection holds
/// the windows of all its streams, and the peer's own customary limit is 100 (RFC 9113 §6.5.2).
const MAX_STREAMS: usize = 100;
/// Content that a client that does not read may leave here (docs/contract.md §4.3); more only while it
/// reads ([`WindowDriver`]).
const STREAM_WINDOW: u32 = 65_535;
/// ... and those of all streams.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Content of one stream in h2's buffer: a chunk of at most 48 KiB waits before it
/// (docs/contract.md §4.3).
pub(super) const SEND_BUFFER: usize = 16 * 1024;
/// Streams that were reset here and whose late frames are passed over, for one second: as many as
/// clients may abort in that time before h2 takes the frames for faults and ends the connection.
const RESET_STREAMS: usize = 1024;
/// h2 charges a DATA frame that waits here 256 octets less its own, and ends the connection beyond
/// this. A window full of events of 50 octets is charged four times its size, with [`MAX_STREAMS`] of
/// them 27 MB, and 17 MB for the extra: slow clients must not end the streams of the others.
const FRAME_BUDGET: usize = 32 * 1024 * 1024 + 4 * MAX_EXTRA as usize;
