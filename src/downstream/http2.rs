//! HTTP/2 towards the client (RFC 9113): one connection and all of its streams, in one future.
//!
//! The h2 crate reads and writes the frames, and counts streams and windows. This room polls it
//! together with its streams, so that the end of the connection drops every handler, upload and
//! upstream exchange at once. It watches incoming frames ([`monitor`]), and ends the connection
//! when it is idle, drained, or flooded.

mod body;
mod context;
mod fragments;
mod guard;
mod limits;
mod monitor;
mod outbound;
mod progress;
mod request;
mod response;
mod send_queue;
mod socket;
mod stream;
mod tunnel;

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
    context::ConnectionContext,
    guard::GuardedSocket,
    limits::{CONNECTION_WINDOW, MAX_HEADER_LIST, MAX_STREAMS, STREAM_WINDOW},
    monitor::{FrameMonitor, Overdue},
    progress::WriteProgress,
    send_queue::QueuedPiece,
    socket::Socket,
    stream::StreamTarget,
};
use super::{
    client_connection::ClientConnection,
    delivery::DeliveryStatus,
    limits::{LINGER, LINGER_OCTETS},
    peer::Peer,
    permit::ConnectionPermit,
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
    request::{BlockEnd, http2_request_head},
    response::http2_trailers,
};

/// Serves a connection, of which some octets may have been read, until it ends.
pub(super) async fn serve<S, A>(
    stream: S,
    octets: Bytes,
    arrival: ClientConnection,
    services: Rc<Services<A>>,
    entry: ConnectionPermit,
) where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
{
    let watch = FrameMonitor::new();
    let timers = services.live.load().timers;
    let socket = Rc::new(RefCell::new(stream));
    let shared = Rc::new(ConnectionContext {
        arrival,
        timers: Cell::new(timers),
        entry: RefCell::new(entry),
        watch: Rc::clone(&watch),
        socket: Rc::clone(&socket) as Rc<dyn Socket>,
        written: WriteProgress::default(),
        windows: Windows::new(STREAM_WINDOW, CONNECTION_WINDOW),
        services,
    });
    let drain = Rc::clone(&shared.services.drain);
    let began = Instant::now();
    let mut timer = Timer::default();
    let _ticket = DrainTicket::new(Rc::clone(&drain)).await;

    let guarded = GuardedSocket::new(Rc::clone(&socket), octets, watch);
    let mut handshake = std::pin::pin!(settings().handshake::<_, QueuedPiece>(guarded));
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
    let mut connection = Http2ServerConnection {
        h2,
        windows,
        streams: FuturesUnordered::new(),
        shared: Rc::clone(&shared),
        timer,
        waits: IdleWait::First(began),
        leaving: None,
    };
    let admit = |request, respond: SendResponse<QueuedPiece>| {
        let target = if shared.watch.take(respond.stream_id().as_u32()) {
            StreamTarget::Cut
        } else {
            StreamTarget::Whole
        };
        let stream = stream::serve(request, target, respond, Rc::clone(&shared));
        // a defect in one exchange is none of the others'
        AssertUnwindSafe(stream).catch_unwind().map(drop)
    };
    let ends = poll_fn(|cx| connection.poll(cx, &admit)).await;
    // every handler, upload and upstream exchange goes with them
    connection.streams.clear();
    if let ConnectionEnd::With(reason) = ends {
        connection.h2.abrupt_shutdown(reason);
        let deadline = Instant::now() + LINGER;
        poll_fn(|cx| match connection.h2.poll_closed(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending if drain.phase() == DrainPhase::Cut => Poll::Ready(()),
            Poll::Pending => connection.timer.poll(cx, deadline),
        })
        .await;
    }
    if ends != ConnectionEnd::Gone && drain.phase() < DrainPhase::Cut {
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

/// Discards what the client still sends, for up to [`LINGER`]: a socket that is closed with unread
/// octets is reset, and the GOAWAY may be lost with it.
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

/// Deadline of the first request.
fn first_head_until(drain: &Drain, since: Instant, timers: &Timers) -> Instant {
    let until = since + timers.request_head;
    drain
        .first_head_until(since)
        .map_or(until, |end| end.min(until))
}

fn flooded(kind: &dyn std::fmt::Display) {
    log::warn!(
        "[Proxy] too many HTTP/2 frames ({kind}); connection closed; the client must send fewer"
    );
}

/// Registration of a connection to be woken by the drain.
struct DrainTicket {
    drain: Rc<Drain>,
    number: usize,
}

impl DrainTicket {
    async fn new(drain: Rc<Drain>) -> Self {
        let number = poll_fn(|cx| Poll::Ready(drain.enlist(cx.waker().clone()))).await;
        Self { drain, number }
    }
}

impl Drop for DrainTicket {
    fn drop(&mut self) {
        self.drain.leave(self.number);
    }
}

/// End of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionEnd {
    /// The client has disconnected or does not read.
    Gone,
    /// GOAWAY was sent or received, and all streams have ended.
    Agreed,
    /// The proxy sends a GOAWAY with this error code.
    With(Reason),
}

/// Wait of a connection that runs no stream.
#[derive(Debug, Clone, Copy)]
enum IdleWait {
    /// The first request, since the start of the connection.
    First(Instant),
    /// Nothing: streams run.
    Busy,
    /// The next request, since the end of the last.
    Next(Instant),
}

struct Http2ServerConnection<S: Peer, A, F> {
    h2: h2::server::Connection<GuardedSocket<S>, QueuedPiece>,
    windows: WindowDriver,
    streams: FuturesUnordered<F>,
    shared: Rc<ConnectionContext<A>>,
    timer: Timer,
    waits: IdleWait,
    /// Deadline for the client to close after a GOAWAY.
    leaving: Option<Instant>,
}

impl<S, A, F> Http2ServerConnection<S, A, F>
where
    S: Peer,
    F: Future<Output = ()>,
{
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        admit: &impl Fn(http::Request<RecvStream>, SendResponse<QueuedPiece>) -> F,
    ) -> Poll<ConnectionEnd> {
        if let Err(ends) = self.serve_streams(cx, admit) {
            return Poll::Ready(ends);
        }
        if let Some(kind) = self.shared.watch.flood() {
            flooded(&kind);
            return Poll::Ready(ConnectionEnd::With(Reason::ENHANCE_YOUR_CALM));
        }
        let phase = self.shared.services.drain.phase();
        if phase == DrainPhase::Cut {
            return Poll::Ready(ConnectionEnd::With(Reason::INTERNAL_ERROR));
        }
        let entry = self.shared.entry.borrow();
        entry.set_idle(self.streams.is_empty());
        if entry.poll_evicted(cx).is_ready() {
            return Poll::Ready(ConnectionEnd::Gone);
        }
        let has_slot = entry.has_slot();
        drop(entry);
        // the first request is waited for, a while also by a drain
        let is_first = matches!(self.waits, IdleWait::First(_));
        let is_left = matches!(phase, DrainPhase::HandedOver | DrainPhase::Draining);
        if !is_first && (is_left || !has_slot) {
            self.leave(cx);
        }
        self.poll_timers(cx)
    }

    /// Accepts streams, polls the running ones, and sends their output, until no progress is
    /// possible.
    fn serve_streams(
        &mut self,
        cx: &mut Context<'_>,
        admit: &impl Fn(http::Request<RecvStream>, SendResponse<QueuedPiece>) -> F,
    ) -> Result<(), ConnectionEnd> {
        let mut came = self.accept(cx, admit);
        loop {
            // also at the end: a stream learns here that all of its response has gone
            while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {}
            came?;
            came = self.accept(cx, admit);
            if matches!(came, Ok(0)) {
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
            self.waits = IdleWait::Busy;
        } else if matches!(self.waits, IdleWait::Busy) {
            self.waits = IdleWait::Next(Instant::now());
        }
        Ok(())
    }

    /// Reads and writes frames; gives the number of streams that came.
    fn accept(
        &mut self,
        cx: &mut Context<'_>,
        admit: &impl Fn(http::Request<RecvStream>, SendResponse<QueuedPiece>) -> F,
    ) -> Result<usize, ConnectionEnd> {
        let mut count = 0;
        while let Poll::Ready(stream) = self.h2.poll_accept(cx) {
            match stream {
                Some(Ok((request, respond))) => {
                    count += 1;
                    self.waits = IdleWait::Busy;
                    self.shared.follow_timers();
                    self.streams.push(admit(request, respond));
                }
                Some(Err(cause)) if cause.is_io() => return Err(ConnectionEnd::Gone),
                Some(Err(cause)) => {
                    // h2 has limits of its own, and has sent its GOAWAY
                    if cause.is_library() && cause.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        flooded(&cause);
                    }
                    return Err(ConnectionEnd::Agreed);
                }
                None => {
                    // h2 ends a connection once it has sent all
                    self.shared.written.all();
                    return Err(ConnectionEnd::Agreed);
                }
            }
        }
        if !self.shared.watch.is_blocked() {
            self.shared.written.all();
        }
        Ok(count)
    }

    /// Sends a GOAWAY (RFC 9113 §6.8): no further stream is taken; running streams may end.
    fn leave(&mut self, cx: &mut Context<'_>) {
        if self.leaving.is_none() {
            self.leaving = Some(Instant::now() + LINGER);
            self.h2.graceful_shutdown();
            // sent with the next poll
            cx.waker().wake_by_ref();
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        loop {
            let timers = self.shared.timers.get();
            let watch = self.shared.watch.deadline(&timers);
            let idle = match (self.waits, self.leaving) {
                (IdleWait::Busy, _) => None,
                (_, Some(leaving)) => Some(leaving),
                (IdleWait::First(since), None) => {
                    let drain = &self.shared.services.drain;
                    Some(first_head_until(drain, since, &timers))
                }
                (IdleWait::Next(since), None) => Some(since + timers.keep_alive),
            };
            let Some(deadline) = idle.into_iter().chain(watch.map(|(_, at)| at)).min() else {
                return Poll::Pending;
            };
            ready!(self.timer.poll(cx, deadline));
            return Poll::Ready(match (watch, self.waits, self.leaving) {
                (Some((Overdue::Client, at)), ..) if at == deadline => {
                    let unacknowledged = self.shared.socket.unacknowledged();
                    match self.shared.watch.look(unacknowledged, &timers) {
                        DeliveryStatus::Stalled => {
                            self.shared.socket.reset_on_close();
                            ConnectionEnd::Gone
                        }
                        DeliveryStatus::Fine => continue,
                    }
                }
                (Some((Overdue::Frame, at)), ..) if at == deadline => {
                    ConnectionEnd::With(Reason::PROTOCOL_ERROR)
                }
                (_, IdleWait::Next(_), None) => {
                    self.leave(cx);
                    continue;
                }
                _ => ConnectionEnd::With(Reason::NO_ERROR),
            });
        }
    }
}
