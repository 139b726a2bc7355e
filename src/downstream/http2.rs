//! HTTP/2 towards the client (RFC 9113): one connection and all of its streams, in one future.
//!
//! The h2 crate reads and writes the frames, and counts streams and windows. This polls it together
//! with the streams that it gives, so that the end of the connection drops every handler, upload and
//! upstream exchange at once; watches what comes in ([`watch`]); and knows when the connection has
//! served enough: idle, drained, or flooded.

mod body;
mod content;
mod guard;
mod limits;
mod outbound;
mod paths;
mod request;
mod response;
mod shared;
mod socket;
mod stream;
mod tunnel;
mod watch;
mod written;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use actix_http::Request;
use actix_service::Service;
use actix_web::{body::BoxBody, dev::ServiceResponse};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use tokio::io::ReadBuf;

use self::{
    content::Piece,
    guard::Guarded,
    limits::{CONNECTION_WINDOW, MAX_HEADER_LIST, MAX_STREAMS, STREAM_WINDOW},
    shared::Shared,
    socket::Socket,
    stream::Target,
    watch::{Late, Watch},
    written::Written,
};
use super::{
    arrival::Arrival,
    delivery::Seen,
    entry::Entry,
    limits::{LINGER, LINGER_OCTETS},
    peer::Peer,
    service::Services,
    timer::Timer,
};
use crate::{
    config::Timers,
    drain::{Drain, DrainPhase},
    wire::window::{WindowDriver, Windows},
};

pub use self::{
    body::trailer_section,
    request::{Ends as BlockEnds, http2_request_head},
    response::http2_trailers,
};

/// Serves a connection, of which some octets may have been read, until it ends.
pub(super) async fn serve<S, A>(
    stream: S,
    octets: Bytes,
    arrival: Arrival,
    services: Rc<Services<A>>,
    entry: Entry,
) where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
{
    let watch = Watch::new();
    let timers = services.live.load().timers;
    let socket = Rc::new(RefCell::new(stream));
    let shared = Rc::new(Shared {
        arrival,
        timers: Cell::new(timers),
        entry: RefCell::new(entry),
        watch: Rc::clone(&watch),
        socket: Rc::clone(&socket) as Rc<dyn Socket>,
        written: Written::default(),
        windows: Windows::new(STREAM_WINDOW, CONNECTION_WINDOW),
        services,
    });
    let drain = Rc::clone(&shared.services.drain);
    let began = Instant::now();
    let mut timer = Timer::default();
    let _ticket = Ticket::new(Rc::clone(&drain)).await;

    let guarded = Guarded::new(Rc::clone(&socket), octets, watch);
    let mut handshake = std::pin::pin!(settings().handshake::<_, Piece>(guarded));
    let h2 = poll_fn(|cx| {
        if let Poll::Ready(outcome) = handshake.as_mut().poll(cx) {
            return Poll::Ready(outcome.ok());
        }
        if drain.phase() == DrainPhase::Cut || shared.entry.borrow().poll_evicted(cx).is_ready() {
            return Poll::Ready(None);
        }
        timer
            .poll(cx, first_head_until(&drain, began, &timers))
            .map(|()| None)
    })
    .await;
    let Some(mut h2) = h2 else { return };

    let windows = WindowDriver::new(Rc::clone(&shared.windows), &mut h2);
    let mut connection = Connection {
        h2,
        windows,
        streams: FuturesUnordered::new(),
        shared: Rc::clone(&shared),
        timer,
        waits: Waits::First(began),
        leaving: None,
    };
    let admit = |request, respond: SendResponse<Piece>| {
        let target = if shared.watch.take(respond.stream_id().as_u32()) {
            Target::Cut
        } else {
            Target::Whole
        };
        let stream = stream::serve(request, target, respond, Rc::clone(&shared));
        // a defect in one exchange is none of the others'
        AssertUnwindSafe(stream).catch_unwind().map(drop)
    };
    let ends = poll_fn(|cx| connection.poll(cx, &admit)).await;
    // every handler, upload and upstream exchange goes with them
    connection.streams.clear();
    if let Ends::With(reason) = ends {
        connection.h2.abrupt_shutdown(reason);
        let deadline = Instant::now() + LINGER;
        poll_fn(|cx| match connection.h2.poll_closed(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending if drain.phase() == DrainPhase::Cut => Poll::Ready(()),
            Poll::Pending => connection.timer.poll(cx, deadline),
        })
        .await;
    }
    if ends != Ends::Gone && drain.phase() < DrainPhase::Cut {
        drop(connection.h2);
        linger(&socket, &drain, &mut connection.timer).await;
    }
}

fn settings() -> Builder {
    let mut settings = Builder::new();
    settings
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        // as many as may have been opened; the guard knows how many are too many
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        // what is still under way to a stream that we reset is passed over for a second, not an error:
        // all streams may be answered early, and as many others that took their place
        .max_concurrent_reset_streams(2 * MAX_STREAMS as usize)
        .enable_connect_protocol();
    // the size of the header table stays the default: `Paths` counts on it
    settings
}

/// Throws away what the client still sends, for a while: a socket that is closed with octets unread
/// is reset, and the GOAWAY may be lost with it.
async fn linger<S: Peer>(socket: &RefCell<S>, drain: &Drain, timer: &mut Timer) {
    let deadline = Instant::now() + LINGER;
    let mut thrown_away = 0;
    poll_fn(|cx| {
        let mut octets = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut octets);
            let mut socket = socket.borrow_mut();
            match Pin::new(&mut *socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) if thrown_away < LINGER_OCTETS => {
                    thrown_away += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if drain.phase() == DrainPhase::Cut => return Poll::Ready(()),
                Poll::Pending => return timer.poll(cx, deadline),
            }
        }
    })
    .await;
}

/// Until when the first request may begin.
fn first_head_until(drain: &Drain, since: Instant, timers: &Timers) -> Instant {
    let until = since + timers.request_head;
    drain
        .first_head_until(since)
        .map_or(until, |end| end.min(until))
}

fn flooded(kind: &dyn std::fmt::Display) {
    log::warn!("[Proxy] too many HTTP/2 frames, connection closed: {kind}");
}

/// A place on the list of those that a drain wakes.
struct Ticket {
    drain: Rc<Drain>,
    number: usize,
}

impl Ticket {
    async fn new(drain: Rc<Drain>) -> Self {
        let number = poll_fn(|cx| Poll::Ready(drain.enlist(cx.waker().clone()))).await;
        Self { drain, number }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.drain.leave(self.number);
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The client is gone, or does not take what is written.
    Gone,
    /// Everything was said.
    Agreed,
    /// With a GOAWAY that says why.
    With(Reason),
}

/// What is waited for when nothing runs.
#[derive(Debug, Clone, Copy)]
enum Waits {
    /// The first request, since the start of the connection.
    First(Instant),
    /// Nothing: streams run.
    Busy,
    /// The next request, since the end of the last.
    Next(Instant),
}

struct Connection<S: Peer, A, F> {
    h2: h2::server::Connection<Guarded<S>, Piece>,
    windows: WindowDriver,
    streams: FuturesUnordered<F>,
    shared: Rc<Shared<A>>,
    timer: Timer,
    waits: Waits,
    /// Once a GOAWAY was sent: until when the client may answer it.
    leaving: Option<Instant>,
}

impl<S, A, F> Connection<S, A, F>
where
    S: Peer,
    F: Future<Output = ()>,
{
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        admit: &impl Fn(http::Request<RecvStream>, SendResponse<Piece>) -> F,
    ) -> Poll<Ends> {
        if let Err(ends) = self.serve_streams(cx, admit) {
            return Poll::Ready(ends);
        }
        if let Some(kind) = self.shared.watch.flood() {
            flooded(&kind);
            return Poll::Ready(Ends::With(Reason::ENHANCE_YOUR_CALM));
        }
        let phase = self.shared.services.drain.phase();
        if phase == DrainPhase::Cut {
            return Poll::Ready(Ends::With(Reason::INTERNAL_ERROR));
        }
        let entry = self.shared.entry.borrow();
        entry.set_idle(self.streams.is_empty());
        if entry.poll_evicted(cx).is_ready() {
            return Poll::Ready(Ends::Gone);
        }
        let is_seated = entry.is_seated();
        drop(entry);
        // the first request is waited for, a while also by a drain
        let is_first = matches!(self.waits, Waits::First(_));
        if !is_first && (phase == DrainPhase::Draining || !is_seated) {
            self.leave(cx);
        }
        self.poll_timers(cx)
    }

    /// Takes what came, lets the streams go on, and sends what they have, until all of it waits.
    fn serve_streams(
        &mut self,
        cx: &mut Context<'_>,
        admit: &impl Fn(http::Request<RecvStream>, SendResponse<Piece>) -> F,
    ) -> Result<(), Ends> {
        self.accept(cx, admit)?;
        loop {
            while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {}
            if self.accept(cx, admit)? == 0 {
                break;
            }
        }
        let frames = self.windows.poll(cx, &mut self.h2);
        if frames > 0 {
            self.shared.watch.asked(frames);
            // sent with the next poll
            cx.waker().wake_by_ref();
        }
        if !self.streams.is_empty() {
            self.waits = Waits::Busy;
        } else if matches!(self.waits, Waits::Busy) {
            self.waits = Waits::Next(Instant::now());
        }
        Ok(())
    }

    /// Reads and writes frames; gives the number of streams that came.
    fn accept(
        &mut self,
        cx: &mut Context<'_>,
        admit: &impl Fn(http::Request<RecvStream>, SendResponse<Piece>) -> F,
    ) -> Result<usize, Ends> {
        let mut count = 0;
        while let Poll::Ready(stream) = self.h2.poll_accept(cx) {
            match stream {
                Some(Ok((request, respond))) => {
                    count += 1;
                    self.waits = Waits::Busy;
                    self.shared.follow_timers();
                    self.streams.push(admit(request, respond));
                }
                Some(Err(cause)) if cause.is_io() => return Err(Ends::Gone),
                Some(Err(cause)) => {
                    // h2 has limits of its own, and has sent its GOAWAY
                    if cause.is_library() && cause.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        flooded(&cause);
                    }
                    return Err(Ends::Agreed);
                }
                None => return Err(Ends::Agreed),
            }
        }
        if !self.shared.watch.is_blocked() {
            self.shared.written.all();
        }
        Ok(count)
    }

    /// Says that no further stream is taken (RFC 9113 §6.8); those that run may end.
    fn leave(&mut self, cx: &mut Context<'_>) {
        if self.leaving.is_none() {
            self.leaving = Some(Instant::now() + LINGER);
            self.h2.graceful_shutdown();
            // sent with the next poll
            cx.waker().wake_by_ref();
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Ends> {
        loop {
            let timers = self.shared.timers.get();
            let watch = self.shared.watch.deadline(&timers);
            let idle = match (self.waits, self.leaving) {
                (Waits::Busy, _) => None,
                (_, Some(leaving)) => Some(leaving),
                (Waits::First(since), None) => {
                    let drain = &self.shared.services.drain;
                    Some(first_head_until(drain, since, &timers))
                }
                (Waits::Next(since), None) => Some(since + timers.keep_alive),
            };
            let Some(deadline) = idle.into_iter().chain(watch.map(|(_, at)| at)).min() else {
                return Poll::Pending;
            };
            ready!(self.timer.poll(cx, deadline));
            return Poll::Ready(match (watch, self.waits, self.leaving) {
                (Some((Late::Client, at)), ..) if at == deadline => {
                    let unacknowledged = self.shared.socket.unacknowledged();
                    match self.shared.watch.look(unacknowledged, &timers) {
                        Seen::Stalled => {
                            self.shared.socket.reset_on_close();
                            Ends::Gone
                        }
                        Seen::Fine => continue,
                    }
                }
                (Some((Late::Frame, at)), ..) if at == deadline => {
                    Ends::With(Reason::PROTOCOL_ERROR)
                }
                (_, Waits::Next(_), None) => {
                    self.leave(cx);
                    continue;
                }
                _ => Ends::With(Reason::NO_ERROR),
            });
        }
    }
}
