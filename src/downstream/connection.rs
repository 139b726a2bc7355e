//! The loop of one connection: head, handler, response, and again.
//!
//! One task, no channels: the handler, the upload that it reads and the response that it writes are
//! polled here in turn, and the client is watched all the while, so that its absence ends
//! everything at once by being dropped.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_http::{
    BoxedPayloadStream, HttpMessage as _, Payload, Request,
    body::{BoxBody, MessageBody},
};
use actix_service::Service;
use actix_web::{
    dev::ServiceResponse,
    http::{Method, Uri},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{
    Arrival, Protocol,
    body::{Expect, RequestBody, Wire},
    delivery::{Delivery, Seen},
    entry::Entry,
    http2::{self, Preface},
    peer::Peer,
    request::{self, KeepAlive, Parsed},
    response::{self, Delimiter},
    timer::Timer,
};
use crate::{
    config::{Live, Timers},
    drain::{Drain, DrainPhase},
    error::{Answer, DeniedError, DownstreamError, InternalError, ProxyError},
    limits::{Limits, Overflow},
    wire::{
        body::{Decoder, Framing, chunk_size_line},
        head::{BodyNotes, Fields, RelayedHead, RequestHead, Version},
        outbox::Outbox,
        pace::Pace,
        refused::Refused,
    },
};

mod tunnel;

/// Octets of a response that may wait when more is asked for. With the largest read of 48 KiB that
/// makes 64 KiB that a slow reader can hold back (docs/contract.md §4.3).
pub(super) const WRITE_AHEAD: usize = 16 * 1024;
/// Octets that are read ahead of need, to see whether the client is still there.
const READ_AHEAD: usize = 16 * 1024;
/// How often a client is looked at that cannot be read from any more.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// A response of at most so many octets counts as delivered when the socket has taken it: they are on
/// their way for a round trip or two. Of a larger one the last octets may wait in the kernel for
/// minutes.
pub(super) const IN_FLIGHT: u64 = 64 * 1024;
/// When the arrival of a response is looked at first; each further look takes twice as long, up to
/// [`WATCH_INTERVAL`]. An acknowledgement may take 40 ms.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(5);
/// After an answer to an unfinished request: how long what still comes is thrown away, so that the
/// answer is not lost to a reset (RFC 9112 §9.6), and how much of it.
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_OCTETS: usize = 4 * 1024 * 1024;

/// What a connection needs of its worker.
pub struct Services<A> {
    /// The routed application.
    pub app: A,
    /// The configuration: timers are read anew for every request.
    pub live: Arc<ArcSwap<Live>>,
    /// Counts of the process.
    pub limits: Arc<Limits>,
    /// Connections that the process takes.
    pub max_connections: usize,
    /// Permits for those beyond.
    pub overflow: Rc<Overflow>,
    /// The end of the worker.
    pub drain: Rc<Drain>,
    /// Paths that are answered here: they need their fields in actix-web's map, and are served
    /// beyond the limit of connections.
    pub is_local: fn(&[u8]) -> bool,
    /// Names a refused request.
    pub request_id: fn() -> String,
    /// Is told of it.
    pub refused: TellRefused,
}

/// Is told of a refused request and its client.
pub type TellRefused = Box<dyn Fn(Option<IpAddr>, &Refused<'_>)>;

/// Serves a connection until it ends.
pub async fn serve<S, A>(stream: S, mut arrival: Arrival, services: Rc<Services<A>>, entry: Entry)
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>> + 'static,
{
    let (timers, h2c) = {
        let live = services.live.load();
        (live.timers, live.h2c)
    };
    match arrival.protocol {
        Protocol::Http2 => {
            // boxed here and below: it is larger than all that HTTP/1.1 needs
            let octets = Bytes::new();
            return Box::pin(http2::serve(stream, octets, arrival, services, entry)).await;
        }
        Protocol::Unsaid if h2c => {}
        Protocol::Unsaid | Protocol::Http1 => arrival.protocol = Protocol::Http1,
    }
    let mut connection = Connection {
        wire: Rc::new(RefCell::new(Wire::new(stream))),
        outbox: Outbox::default(),
        timers,
        timer: Timer::default(),
        delivery: Delivery::default(),
        pace: Pace::default(),
        arrival,
        services,
        entry,
        ticket: None,
        searched: 0,
        asked: None,
        upload: None,
    };
    // how it ended was told to whom it concerns: the client, or the exchange that was dropped
    let _ = connection.run().await;
    if connection.arrival.protocol == Protocol::Http2 {
        let (wire, arrival) = (Rc::clone(&connection.wire), connection.arrival);
        let services = Rc::clone(&connection.services);
        let entry = connection.entry.hand_over(&services);
        drop(connection);
        if let Some(wire) = Rc::into_inner(wire) {
            let Wire { stream, read, .. } = wire.into_inner();
            let octets = read.octets.freeze();
            Box::pin(http2::serve(stream, octets, arrival, services, entry)).await;
        }
    }
}

/// Why a connection ends, where it is not by agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// The client closed, reset, or does not read.
    Client,
    /// The response body failed: its end must not look like one.
    Body,
    /// Time is up.
    Cut,
}

struct Connection<S, A> {
    wire: Rc<RefCell<Wire<S>>>,
    outbox: Outbox,
    timers: Timers,
    timer: Timer,
    /// Whether the client takes what is written.
    delivery: Delivery,
    /// Of the response.
    pace: Pace,
    arrival: Arrival,
    services: Rc<Services<A>>,
    entry: Entry,
    ticket: Option<usize>,
    searched: usize,
    /// Of the request that is being answered.
    asked: Option<Rc<BodyNotes>>,
    /// The same where the response is the upstream's, whose body drives the rest of the request's.
    upload: Option<Rc<BodyNotes>>,
}

impl<S, A> Drop for Connection<S, A> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.services.drain.leave(ticket);
        }
    }
}

impl<S, A> Connection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    async fn run(&mut self) -> Result<(), Gone> {
        poll_fn(|cx| {
            self.ticket = Some(self.services.drain.enlist(cx.waker().clone()));
            Poll::Ready(())
        })
        .await;
        let mut waits = Waits::First(Instant::now());
        loop {
            let mut parsed = match self.head(waits).await {
                Ok(Some(parsed)) => parsed,
                Ok(None) => {
                    self.wire.borrow_mut().stream.close();
                    return Ok(());
                }
                Err(cause) => return self.refuse(cause.answer(), None).await,
            };
            self.entry.set_idle(false);
            // the wait for the head may have been long
            self.follow_timers();
            let is_local = (self.services.is_local)(parsed.head.path());
            let is_seated = self.entry.has_seat(&self.services);
            if !is_seated && !is_local {
                let answer = DeniedError::TooManyConnections.answer();
                return self.refuse(answer, Some(&parsed.head.method)).await;
            }
            if self.services.drain.phase() >= DrainPhase::Leaving || !is_seated {
                parsed.keep_alive = KeepAlive::No;
            }
            let keep_alive = self.exchange(parsed, is_local).await?;
            if keep_alive == KeepAlive::No {
                return self.linger().await;
            }
            waits = Waits::Next(Instant::now());
        }
    }

    /// Takes the timers of the present configuration.
    fn follow_timers(&mut self) {
        self.timers = self.services.live.load().timers;
    }

    /// The next head; `None` if there is none to come.
    async fn head(&mut self, waits: Waits) -> Result<Option<Parsed>, DownstreamError> {
        self.follow_timers();
        let mut began = match waits {
            Waits::First(at) => Some(at),
            Waits::Next(_) => None,
        };
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            loop {
                if self.arrival.protocol == Protocol::Unsaid {
                    self.arrival.protocol = match http2::preface(&wire.read.octets) {
                        Preface::Whole => Protocol::Http2,
                        Preface::Begun => Protocol::Unsaid,
                        Preface::Other => Protocol::Http1,
                    };
                }
                match self.arrival.protocol {
                    Protocol::Http2 => return Poll::Ready(Ok(None)),
                    // it is neither yet
                    Protocol::Unsaid => {}
                    Protocol::Http1 => {
                        if request::skip_empty_lines(&mut wire.read.octets) {
                            self.searched = 0;
                        }
                        let parsed =
                            request::parse_request_head(&mut wire.read.octets, &mut self.searched)?;
                        if let Some(parsed) = parsed {
                            return Poll::Ready(Ok(Some(parsed)));
                        }
                    }
                }
                match poll_readable(cx, &mut wire) {
                    Poll::Ready(Ok(1..)) => continue,
                    Poll::Ready(_) => return Poll::Ready(Ok(None)),
                    Poll::Pending => {}
                }
                if self.entry.poll_evicted(cx).is_ready() {
                    return Poll::Ready(Ok(None));
                }
                let is_idle = !request::is_begun(&wire.read.octets);
                let drain = &self.services.drain;
                if drain.phase() == DrainPhase::Cut {
                    return Poll::Ready(Ok(None));
                }
                let head = self.timers.request_head;
                let (deadline, late) = match (waits, is_idle) {
                    (Waits::Next(_), true) if drain.phase() >= DrainPhase::Draining => {
                        return Poll::Ready(Ok(None));
                    }
                    (Waits::Next(since), true) => {
                        wire.read.shrink();
                        (since + self.timers.keep_alive, Ok(None))
                    }
                    // the drain does not wait for those that have nothing to say
                    (Waits::First(since), true) => match drain.first_head_until(since) {
                        Some(until) => (until.min(since + head), Ok(None)),
                        None => (since + head, Err(DownstreamError::HeadTimeout)),
                    },
                    (_, false) => {
                        let began = *began.get_or_insert_with(Instant::now);
                        (began + head, Err(DownstreamError::HeadTimeout))
                    }
                };
                ready!(self.timer.poll(cx, deadline));
                return Poll::Ready(late);
            }
        })
        .await
    }

    /// One request and its response.
    async fn exchange(&mut self, parsed: Parsed, is_local: bool) -> Result<KeepAlive, Gone> {
        let Parsed {
            mut head,
            mut keep_alive,
        } = parsed;
        let version = head.version;
        let method = head.method.clone();
        {
            let mut wire = self.wire.borrow_mut();
            // what follows an upgrade is the next request, unless the upstream agrees
            wire.decoder = Decoder::new(match head.upgrade {
                None => head.framing,
                Some(_) => Framing::None,
            });
            // a client that already sends does not wait
            head.expects_continue &= wire.read.octets.is_empty();
            wire.expect = if head.expects_continue {
                Expect::Waiting(Rc::clone(&head.notes))
            } else {
                Expect::Nothing
            };
        }
        self.asked = Some(Rc::clone(&head.notes));
        let has_body = head.framing != Framing::None;
        let request = self.request(head, is_local);
        let response = match self.call(request).await? {
            Ok(response) => response,
            Err(answer) => {
                return self
                    .refuse(answer, Some(&method))
                    .await
                    .map(|()| KeepAlive::No);
            }
        };
        let (_, mut response) = response.into_parts();
        let mut relayed_head = response.extensions_mut().remove::<RelayedHead>();
        let (response, body) = response.into_parts();
        if let Some(head) = relayed_head.take_if(|head| head.tunnel.is_some()) {
            drop(response);
            return self.tunnel(head, body).await.map(|()| KeepAlive::No);
        }
        if relayed_head.is_none() {
            // a refusal does not cost the connection if the request it refuses is here already
            self.wire.borrow_mut().discard();
        }
        // what is unread of the request must be read before the next one, and nobody reads it
        if !self.wire.borrow().decoder.is_done()
            || self.services.drain.phase() >= DrainPhase::Leaving
        {
            keep_alive = KeepAlive::No;
        }
        self.upload = match (&relayed_head, has_body) {
            (Some(_), true) => self.asked.clone(),
            _ => None,
        };
        let notes = relayed_head.as_ref().and_then(|head| head.notes.clone());
        let (head, delimiter) = match relayed_head {
            Some(head) => response::relayed(head, response.head(), version, &mut keep_alive),
            None => response::own(
                response.head(),
                body.size(),
                &method,
                version,
                &mut keep_alive,
            ),
        };
        drop(response);
        self.outbox.push(head);
        self.content(body, delimiter, notes).await?;
        if !self.wire.borrow().decoder.is_done() {
            keep_alive = KeepAlive::No;
        }
        Ok(keep_alive)
    }

    fn request(&self, mut head: RequestHead, is_local: bool) -> Request {
        head.transport = self.arrival.transport;
        let payload = if head.framing == Framing::None {
            Payload::None
        } else {
            let body = RequestBody::new(
                Rc::clone(&self.wire),
                Rc::clone(&head.notes),
                self.timers.request_body,
            );
            let body: BoxedPayloadStream = Box::pin(body);
            Payload::Stream { payload: body }
        };
        routed(head, payload, &self.arrival, is_local)
    }

    /// Runs the handler, and watches the client meanwhile.
    async fn call(
        &mut self,
        request: Request,
    ) -> Result<Result<ServiceResponse<BoxBody>, Answer>, Gone> {
        let mut handler = std::pin::pin!(self.services.app.call(request));
        let (wire, outbox) = (&self.wire, &mut self.outbox);
        let (timer, delivery) = (&mut self.timer, &mut self.delivery);
        let drain = &self.services.drain;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = handler.as_mut().poll(cx) {
                let failed = ProxyError::Internal(InternalError::Handler);
                return Poll::Ready(Ok(outcome.map_err(|_| failed.answer())));
            }
            let mut wire = wire.borrow_mut();
            if matches!(wire.expect, Expect::Owed) {
                wire.expect = Expect::Nothing;
                outbox.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
            if poll_flush(cx, outbox, &mut wire.stream, delivery).is_err() {
                return Poll::Ready(Err(Gone::Client));
            }
            if drain.phase() == DrainPhase::Cut {
                return Poll::Ready(Err(Gone::Cut));
            }
            ready!(poll_watch(cx, &mut wire, timer));
            Poll::Ready(Err(Gone::Client))
        })
        .await
    }

    /// Writes head and content as they come, and sees to it that they arrive.
    async fn content(
        &mut self,
        body: BoxBody,
        delimiter: Delimiter,
        notes: Option<Rc<BodyNotes>>,
    ) -> Result<(), Gone> {
        let mut source = Source::new((delimiter != Delimiter::Nothing).then_some(body));
        // turns are an exchange's, and not a connection's: a small answer waits for none
        self.pace = Pace::default();
        let undelivered = Undelivered::new(self.asked.clone());
        let before = self.delivery.written();
        let outcome = poll_fn(|cx| self.poll_content(cx, &mut source, delimiter, notes.as_deref()));
        let mut outcome = outcome.await;
        if outcome.is_ok() && self.delivery.written() - before > IN_FLIGHT {
            outcome = self.arrival_of_all().await;
        }
        match outcome {
            Ok(()) => undelivered.clear(),
            Err(_) if delimiter == Delimiter::Close => self.wire.borrow().stream.reset_on_close(),
            Err(_) => {}
        }
        // the record of the exchange is written with it
        drop(source);
        outcome
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source,
        delimiter: Delimiter,
        notes: Option<&BodyNotes>,
    ) -> Poll<Result<(), Gone>> {
        loop {
            if self.pace.poll_turn(cx).is_pending() {
                // the upload has turns of its own, and would hold up others if it did not take them
                self.poll_upload(cx, source);
                break;
            }
            let pulled = self.pull(cx, source, delimiter, notes);
            let waiting = self.outbox.octets();
            let mut wire = self.wire.borrow_mut();
            let flushed = poll_flush(cx, &mut self.outbox, &mut wire.stream, &mut self.delivery);
            self.pace.spend(waiting - self.outbox.octets());
            match flushed {
                Ok(Poll::Ready(())) => match pulled {
                    Pulled::Everything => return Poll::Ready(Ok(())),
                    Pulled::Failure => return Poll::Ready(Err(Gone::Body)),
                    Pulled::Enough => continue,
                    Pulled::WhatThereWas => wire.read.shrink(),
                },
                Ok(Poll::Pending) => {
                    drop(wire);
                    self.poll_upload(cx, source);
                }
                Err(_) => return Poll::Ready(Err(Gone::Client)),
            }
            break;
        }
        if self.poll_stalled(cx).is_ready() {
            return Poll::Ready(Err(Gone::Client));
        }
        let is_ending = self.asked.as_ref().is_some_and(|asked| asked.is_ending());
        if is_ending || self.services.drain.phase() == DrainPhase::Cut {
            return Poll::Ready(Err(Gone::Cut));
        }
        let mut wire = self.wire.borrow_mut();
        poll_watch(cx, &mut wire, &mut self.timer).map(|()| Err(Gone::Client))
    }

    /// Moves what the client sends, while it takes nothing of the response: the two directions do not
    /// wait for each other.
    fn poll_upload(&self, cx: &mut Context<'_>, source: &mut Source) {
        let (Source::Open(body), Some(upload)) = (&mut *source, &self.upload) else {
            return;
        };
        upload.is_held_back.set(true);
        let polled = Pin::new(body).poll_next(cx);
        upload.is_held_back.set(false);
        if let Poll::Ready(Some(Err(_))) = polled {
            *source = Source::Failed;
            cx.waker().wake_by_ref();
        }
    }

    /// Ready when the client has acknowledged nothing for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.timers.write;
        while let Some(look_at) = self.delivery.next_look(limit) {
            ready!(self.timer.poll(cx, look_at));
            let unacknowledged = self.wire.borrow().stream.unacknowledged();
            let asked = self.asked.as_ref();
            let received = asked.map_or(0, |asked| asked.octets.get());
            let now = Instant::now();
            if self.delivery.look(unacknowledged, received, now, limit) == Seen::Stalled {
                if let Some(asked) = asked {
                    asked.is_stalled.set(true);
                }
                // what waits in the kernel goes with it
                self.wire.borrow().stream.reset_on_close();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Waits until the client has acknowledged all that was written, as far as that can be told.
    async fn arrival_of_all(&mut self) -> Result<(), Gone> {
        let mut interval = FIRST_LOOK;
        let mut look_at = None;
        poll_fn(|cx| {
            loop {
                let (unacknowledged, is_aborted) = {
                    let stream = &self.wire.borrow().stream;
                    (stream.unacknowledged(), stream.is_aborted())
                };
                match unacknowledged {
                    _ if is_aborted => return Poll::Ready(Err(Gone::Client)),
                    Some(1..) => {}
                    Some(0) | None => return Poll::Ready(Ok(())),
                }
                if self.poll_stalled(cx).is_ready() {
                    return Poll::Ready(Err(Gone::Client));
                }
                let is_ending = self.asked.as_ref().is_some_and(|asked| asked.is_ending());
                if is_ending || self.services.drain.phase() == DrainPhase::Cut {
                    return Poll::Ready(Err(Gone::Cut));
                }
                let mut wire = self.wire.borrow_mut();
                if poll_watch(cx, &mut wire, &mut self.timer).is_ready() {
                    let has_arrived = wire.stream.unacknowledged() == Some(0);
                    let outcome = has_arrived.then_some(()).ok_or(Gone::Client);
                    return Poll::Ready(outcome);
                }
                drop(wire);
                let at = *look_at.get_or_insert_with(|| Instant::now() + interval);
                ready!(self.timer.poll(cx, at));
                interval = (2 * interval).min(WATCH_INTERVAL);
                look_at = None;
            }
        })
        .await
    }

    /// Takes content from the handler's body while there is room.
    fn pull(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source,
        delimiter: Delimiter,
        notes: Option<&BodyNotes>,
    ) -> Pulled {
        while self.outbox.octets() < WRITE_AHEAD {
            let body = match source {
                Source::Open(body) => body,
                Source::Ended(_) => return Pulled::Everything,
                Source::Failed => return Pulled::Failure,
            };
            match Pin::new(body).poll_next(cx) {
                Poll::Ready(Some(Ok(content))) if content.is_empty() => {}
                Poll::Ready(Some(Ok(content))) => self.push(content, delimiter),
                Poll::Ready(None) => {
                    source.end();
                    if delimiter == Delimiter::Chunks {
                        for piece in BodyNotes::end_of_chunks(notes) {
                            self.outbox.push(piece);
                        }
                    }
                }
                Poll::Ready(Some(Err(_))) => *source = Source::Failed,
                Poll::Pending => return Pulled::WhatThereWas,
            }
        }
        match source {
            Source::Open(_) => Pulled::Enough,
            Source::Ended(_) => Pulled::Everything,
            Source::Failed => Pulled::Failure,
        }
    }

    fn push(&mut self, content: Bytes, delimiter: Delimiter) {
        if delimiter == Delimiter::Chunks {
            self.outbox.push(chunk_size_line(content.len()));
            self.outbox.push(content);
            self.outbox.push(Bytes::from_static(b"\r\n"));
        } else {
            self.outbox.push(content);
        }
    }

    /// Answers a request that does not reach the handler, and closes.
    async fn refuse(&mut self, answer: Answer, method: Option<&Method>) -> Result<(), Gone> {
        let request_id = (self.services.request_id)();
        log::info!(
            "[Proxy] refused status={} error={} request_id={request_id}",
            answer.status.as_u16(),
            answer.label
        );
        let refused = Refused {
            id: &request_id,
            version: Version::Http11,
            method: method.map_or("", Method::as_str),
            answer: &answer,
        };
        (self.services.refused)(self.arrival.peer.map(|peer| peer.ip()), &refused);
        // of what could not be read, any method but HEAD will do
        let method = method.unwrap_or(&Method::GET);
        self.outbox
            .push(response::refusal(&answer, &request_id, method));
        self.content(BoxBody::new(()), Delimiter::Nothing, None)
            .await?;
        self.linger().await
    }

    /// Closes so that the client gets what was written (RFC 9112 §9.6): this side is shut down,
    /// and what the client still sends is thrown away for a while.
    async fn linger(&mut self) -> Result<(), Gone> {
        let deadline = Instant::now() + LINGER;
        let mut thrown_away = 0;
        self.entry.set_idle(true);
        poll_fn(|cx| {
            if self.entry.poll_evicted(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut wire = self.wire.borrow_mut();
            match Pin::new(&mut wire.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone::Client)),
                // under TLS: `close_notify` waits for a client that does not read
                Poll::Pending => return self.timer.poll(cx, deadline).map(|()| Ok(())),
            }
            loop {
                wire.read.octets.clear();
                match wire.poll_read(cx) {
                    Poll::Ready(Ok(count @ 1..)) if thrown_away < LINGER_OCTETS => {
                        thrown_away += count;
                    }
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => return self.timer.poll(cx, deadline).map(|()| Ok(())),
                }
            }
        })
        .await
    }
}

/// The request as actix-web routes it.
pub(super) fn routed(
    head: RequestHead,
    payload: Payload,
    arrival: &Arrival,
    is_local: bool,
) -> Request {
    let mut request = Request::with_payload(payload);
    let parts = request.head_mut();
    parts.method = head.method.clone();
    parts.version = match head.version {
        Version::Http11 => actix_web::http::Version::HTTP_11,
        Version::Http10 => actix_web::http::Version::HTTP_10,
        Version::Http2 => actix_web::http::Version::HTTP_2,
    };
    parts.peer_addr = arrival.peer;
    // only routing reads it, and routing decodes it: `/%68ealth` is none of our own paths, and is
    // forwarded as it came
    parts.uri = Uri::from_static("/");
    if is_local {
        parts.uri = Uri::from_maybe_shared(head.target.clone()).unwrap_or_default();
        fill(&mut parts.headers, &head.fields);
    }
    request.extensions_mut().insert(head);
    request
}

/// Where content comes from.
enum Source {
    Open(BoxBody),
    /// Kept until all of it has arrived: its end writes the record of the exchange.
    Ended(#[expect(dead_code, reason = "dropped at its time")] Option<BoxBody>),
    Failed,
}

impl Source {
    fn new(body: Option<BoxBody>) -> Self {
        body.map_or(Self::Ended(None), Self::Open)
    }

    fn end(&mut self) {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Open(body) => Self::Ended(Some(body)),
            other => other,
        };
    }
}

/// Says of an exchange that its response has not reached the client, until it has.
struct Undelivered(Option<Rc<BodyNotes>>);

impl Undelivered {
    fn new(asked: Option<Rc<BodyNotes>>) -> Self {
        if let Some(asked) = &asked {
            asked.is_undelivered.set(true);
        }
        Self(asked)
    }

    fn clear(&self) {
        if let Some(asked) = &self.0 {
            asked.is_undelivered.set(false);
        }
    }
}

/// How far taking content came.
enum Pulled {
    /// All there is now; more comes later.
    WhatThereWas,
    /// As much as may wait; there may be more.
    Enough,
    /// All of it.
    Everything,
    /// All there was before it failed.
    Failure,
}

/// What the coming head follows.
#[derive(Debug, Clone, Copy)]
enum Waits {
    /// The start of the connection.
    First(Instant),
    /// A response.
    Next(Instant),
}

/// Writes what waits, and notes what the socket took and whether it takes more.
fn poll_flush<S: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    outbox: &mut Outbox,
    stream: &mut S,
    delivery: &mut Delivery,
) -> io::Result<Poll<()>> {
    while !outbox.is_empty() {
        match outbox.poll_write(cx, stream) {
            Poll::Ready(Ok(count)) => delivery.wrote(count),
            Poll::Ready(Err(cause)) => return Err(cause),
            Poll::Pending => {
                delivery.set_blocked(true);
                return Ok(Poll::Pending);
            }
        }
    }
    // under TLS the last record may not be out
    let flushed = Pin::new(stream).poll_flush(cx);
    delivery.set_blocked(flushed.is_pending());
    match flushed {
        Poll::Ready(outcome) => outcome.map(Poll::Ready),
        Poll::Pending => Ok(Poll::Pending),
    }
}

/// Reads once there is something to read: a silent client costs no buffer.
fn poll_readable<S: Peer>(cx: &mut Context<'_>, wire: &mut Wire<S>) -> Poll<io::Result<usize>> {
    ready!(wire.stream.poll_readable(cx));
    wire.poll_read(cx)
}

/// Ready when the client is gone. Reads ahead, within a bound; beyond it, looks now and then.
fn poll_watch<S: Peer>(cx: &mut Context<'_>, wire: &mut Wire<S>, timer: &mut Timer) -> Poll<()> {
    loop {
        if wire.ended {
            return Poll::Ready(());
        }
        if wire.read.octets.len() >= READ_AHEAD {
            if wire.stream.is_gone() {
                return Poll::Ready(());
            }
            let deadline = Instant::now() + WATCH_INTERVAL;
            if timer.poll(cx, deadline).is_ready() {
                continue;
            }
            return Poll::Pending;
        }
        match ready!(poll_readable(cx, wire)) {
            Ok(1..) => {
                if let Expect::Waiting(notes) = &wire.expect {
                    notes.is_unasked.set(true);
                    wire.expect = Expect::Nothing;
                    // the exchange was polled before this, and holds the body back
                    cx.waker().wake_by_ref();
                }
            }
            Ok(0) | Err(_) => return Poll::Ready(()),
        }
    }
}

/// Copies fields into actix-web's map, for handlers of ours that read them there.
fn fill(map: &mut actix_web::http::header::HeaderMap, fields: &Fields) {
    use actix_web::http::header::{HeaderName, HeaderValue};
    for field in fields.iter() {
        let name = HeaderName::from_bytes(field.name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes octets, and does not get them out: as TLS does before a client that does not read.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(octets.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[test]
    fn octets_that_do_not_get_out_of_a_stream_block_it() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut outbox, mut delivery) = (Outbox::default(), Delivery::default());
        outbox.push(Bytes::from_static(b"last"));
        for _ in 0..2 {
            let polled = poll_flush(&mut cx, &mut outbox, &mut Stuck, &mut delivery);
            assert!(matches!(polled, Ok(Poll::Pending)));
            assert!(delivery.is_blocked() && delivery.written() == 4);
        }
    }
}
