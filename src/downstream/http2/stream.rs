//! One stream: a request, its handler, and the response (RFC 9113 §8.1).
//!
//! Everything that the exchange needs hangs on this one future: a reset of the stream ends it, the end
//! of the connection drops it, and the upload and the upstream's connection go with it.

use std::{
    cell::{Cell, RefCell},
    future::{Future as _, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_http::{
    BoxedPayloadStream, Payload, Request,
    body::{BoxBody, MessageBody},
};
use actix_service::Service;
use actix_web::{dev::ServiceResponse, http::Method};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};

use super::{
    Socket,
    body::{Expect, Inbound, RequestBody},
    content::{Piece, Queue},
    request::{self, Ends},
    response::{self, Asked, Head},
    tunnel::tunnel,
    watch::Watch,
    written::Written,
};
use crate::{
    config::Timers,
    downstream::{
        Arrival, Services,
        connection::{FIRST_LOOK, IN_FLIGHT, LINGER, WATCH_INTERVAL, WRITE_AHEAD, routed},
        entry::Entry,
        timer::Timer,
    },
    error::{Answer, DeniedError, DownstreamError, InternalError, ProxyError},
    wire::{
        body::Framing,
        head::{BodyNotes, RelayedHead, RequestHead, Version},
        pace::Pace,
        refused::Refused,
        window::Windows,
    },
};

/// What the streams of a connection share.
pub(super) struct Shared<A> {
    pub(super) services: Rc<Services<A>>,
    pub(super) arrival: Arrival,
    pub(super) timers: Cell<Timers>,
    /// What the connection is served by.
    pub(super) entry: RefCell<Entry>,
    pub(super) watch: Rc<Watch>,
    pub(super) socket: Rc<dyn Socket>,
    pub(super) written: Written,
    pub(super) windows: Rc<Windows>,
}

/// Why a stream ends, where it is not by agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// The client reset it.
    Client,
    /// The client does not open its window.
    Stalled,
    /// The response body failed: its end must not look like one.
    Body,
}

/// Whether the target that h2 gives is the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// It is.
    Whole,
    /// There was a fragment, which is cut off.
    Cut,
}

/// Serves one stream.
pub(super) async fn serve<A>(
    request: http::Request<RecvStream>,
    target: Target,
    mut respond: SendResponse<Piece>,
    shared: Rc<Shared<A>>,
) where
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    let (parts, recv) = request.into_parts();
    let ends = if recv.is_end_stream() {
        Ends::Stream
    } else {
        Ends::Block
    };
    let head = match target {
        Target::Whole => request::http2_request_head(&parts, ends, shared.arrival.transport),
        Target::Cut => Err(DownstreamError::UnsupportedTarget),
    };
    let head = match head {
        Ok(head) => head,
        Err(cause) => {
            drop(recv);
            let method = Method::from_bytes(parts.method.as_str().as_bytes());
            let method = method.unwrap_or(Method::GET);
            return refuse(&mut respond, &cause.answer(), &method, &shared).await;
        }
    };
    drop(parts);
    let method = head.method.clone();
    let is_local = (shared.services.is_local)(head.path());
    if !is_local && !shared.has_seat() {
        drop(recv);
        let answer = DeniedError::TooManyConnections.answer();
        return refuse(&mut respond, &answer, &method, &shared).await;
    }
    let outcome = exchange(head, recv, &mut respond, &shared, is_local).await;
    match outcome {
        Ok(()) | Err(Ended::Gone(Gone::Client)) => {}
        Err(Ended::Gone(Gone::Stalled)) => respond.send_reset(Reason::CANCEL),
        Err(Ended::Gone(Gone::Body)) => {
            // a reset takes back what h2 has not written yet, a head for instance
            shared.written.wait().await;
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Err(Ended::Failed(answer)) => refuse(&mut respond, &answer, &method, &shared).await,
    }
}

/// How an exchange ends otherwise than with its answer.
enum Ended {
    Gone(Gone),
    /// There is no answer: this one is given.
    Failed(Answer),
}

impl From<Gone> for Ended {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl<A> Shared<A> {
    /// Takes the timers of the present configuration.
    pub(super) fn follow_timers(&self) {
        self.timers.set(self.services.live.load().timers);
    }

    /// Whether the connection has its place; one may have become free since it came.
    fn has_seat(&self) -> bool {
        self.entry.borrow_mut().has_seat(&self.services)
    }
}

async fn exchange<A>(
    head: RequestHead,
    recv: RecvStream,
    respond: &mut SendResponse<Piece>,
    shared: &Shared<A>,
    is_local: bool,
) -> Result<(), Ended>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    let method = head.method.clone();
    let asked = if head.upgrade.is_some() {
        Asked::Tunnel
    } else {
        Asked::Answer
    };
    let expect = if head.expects_continue {
        Expect::Waiting
    } else {
        Expect::Nothing
    };
    let (asked_notes, framing) = (Rc::clone(&head.notes), head.framing);
    let meter = (framing != Framing::None).then(|| shared.windows.meter());
    let inbound = Inbound::new(recv, expect, meter);
    let payload = if head.framing == Framing::None {
        Payload::None
    } else {
        let idle = (asked == Asked::Answer).then_some(shared.timers.get().request_body);
        let body = RequestBody::new(Rc::clone(&inbound), Rc::clone(&asked_notes), idle);
        let body: BoxedPayloadStream = Box::pin(body);
        Payload::Stream { payload: body }
    };
    let request = routed(head, payload, &shared.arrival, is_local);
    let response = call(request, respond, &inbound, &asked_notes, shared).await?;
    let (_, mut response) = response.into_parts();
    let relayed = response.extensions_mut().remove::<RelayedHead>();
    let (response, body) = response.into_parts();
    let is_relayed = relayed.is_some();
    let notes = relayed.as_ref().and_then(|head| head.notes.clone());
    let tunnel_notes = relayed.as_ref().and_then(|head| head.tunnel.clone());
    let head = match relayed {
        Some(head) => response::relayed(&head, response.status().as_u16(), asked)
            .map_err(|cause| Ended::Failed(ProxyError::Internal(cause).answer()))?,
        None => response::own(response.head(), body.size(), &method),
    };
    drop(response);
    if let Some(notes) = tunnel_notes {
        return Ok(tunnel(head, body, notes, respond, shared).await?);
    }
    let body = head.has_content.then_some(body);
    let answered = Answered {
        notes: &asked_notes,
        has_upload: is_relayed && framing != Framing::None,
    };
    content(head, body, respond, (notes, Some(answered)), shared).await?;
    if framing == Framing::Length(asked_notes.octets.get()) {
        // all of it was here to be answered; that it has ended may follow in a frame of its own, and
        // some clients take the reset of a stream that they are about to end for a failure
        let (mut timer, deadline) = (Timer::default(), Instant::now() + LINGER);
        poll_fn(|cx| match inbound.borrow_mut().poll_end(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => timer.poll(cx, deadline),
        })
        .await;
    }
    // what is still unread is reset as it is dropped, with NO_ERROR (RFC 9113 §8.1)
    Ok(())
}

/// Runs the handler, and watches the client meanwhile.
async fn call<A>(
    request: Request,
    respond: &mut SendResponse<Piece>,
    inbound: &RefCell<Inbound>,
    notes: &BodyNotes,
    shared: &Shared<A>,
) -> Result<ServiceResponse<BoxBody>, Ended>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    let mut handler = std::pin::pin!(shared.services.app.call(request));
    poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Gone::Client.into()));
        }
        if let Poll::Ready(outcome) = handler.as_mut().poll(cx) {
            let failed = ProxyError::Internal(InternalError::Handler);
            return Poll::Ready(outcome.map_err(|_| Ended::Failed(failed.answer())));
        }
        let mut inbound = inbound.borrow_mut();
        match inbound.expect {
            Expect::Nothing => {}
            Expect::Waiting => {
                if inbound.poll_unasked(cx).is_ready() {
                    notes.is_unasked.set(true);
                    // the exchange was polled before this, and holds the body back
                    cx.waker().wake_by_ref();
                }
            }
            Expect::Owed => {
                inbound.expect = Expect::Nothing;
                let mut interim = http::Response::new(());
                *interim.status_mut() = http::StatusCode::CONTINUE;
                // a stream that is gone meanwhile says so at the next poll
                let _ = respond.send_informational(interim);
            }
        }
        Poll::Pending
    })
    .await
}

/// Answers a request that does not reach the handler.
async fn refuse<A>(
    respond: &mut SendResponse<Piece>,
    answer: &Answer,
    method: &Method,
    shared: &Shared<A>,
) {
    let request_id = (shared.services.request_id)();
    let refused = Refused {
        id: &request_id,
        version: Version::Http2,
        method: method.as_str(),
        answer,
    };
    (shared.services.refused)(shared.arrival.peer.map(|peer| peer.ip()), &refused);
    log::info!(
        "[Proxy] refused status={} error={} request_id={request_id}",
        answer.status.as_u16(),
        answer.label
    );
    let (head, octets) = response::refusal(answer, &request_id, method);
    let body = head.has_content.then(|| BoxBody::new(octets));
    if let Err(Gone::Stalled) = content(head, body, respond, (None, None), shared).await {
        respond.send_reset(Reason::CANCEL);
    }
}

/// The request of a stream, as its response needs to know it.
#[derive(Clone, Copy)]
struct Answered<'a> {
    notes: &'a BodyNotes,
    /// Whether its body is driven by that of the response.
    has_upload: bool,
}

/// Sends head and content as they come, and sees to it that they arrive.
async fn content<A>(
    head: Head,
    body: Option<BoxBody>,
    respond: &mut SendResponse<Piece>,
    (notes, answered): (Option<Rc<BodyNotes>>, Option<Answered<'_>>),
    shared: &Shared<A>,
) -> Result<(), Gone> {
    let has_content = body.is_some();
    let head = Head {
        has_content,
        ..head
    };
    if let Some(Answered { notes, .. }) = answered {
        notes.is_undelivered.set(true);
    }
    let mut outbound = Outbound::begin(respond, head, shared)?;
    outbound.source = body.map_or(Source::Ended(None), Source::Open);
    outbound.notes = notes;
    let limit = shared.timers.get().write;
    poll_fn(|cx| {
        if outbound.sender.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Gone::Client));
        }
        let has_turn = outbound.pace.poll_turn(cx).is_ready();
        if has_turn {
            outbound.pull(cx)?;
        }
        if let Some(Answered { notes, has_upload }) = answered
            && has_upload
            && (!has_turn || outbound.is_full())
        {
            outbound.poll_upload(cx, notes)?;
        }
        // an end that an operator asked for does not wait for a client that does not read
        if answered.is_some_and(|answered| answered.notes.is_ending()) {
            return Poll::Ready(Err(Gone::Body));
        }
        if !has_turn {
            return Poll::Pending;
        }
        if outbound.queue.octets() == 0 {
            match outbound.source {
                Source::Open(_) => {
                    outbound.stalled = None;
                    return Poll::Pending;
                }
                Source::Ended(_) => return Poll::Ready(Ok(())),
                Source::Failed => return Poll::Ready(Err(Gone::Body)),
            }
        }
        let received = answered.map_or(0, |answered| answered.notes.octets.get());
        ready!(outbound.poll_stalled(cx, limit, received));
        if let Some(Answered { notes, .. }) = answered {
            notes.is_stalled.set(true);
        }
        Poll::Ready(Err(Gone::Stalled))
    })
    .await?;
    if outbound.sent > IN_FLIGHT {
        arrival_of_all(&mut outbound.sender, shared).await?;
    }
    if let Some(Answered { notes, .. }) = answered {
        notes.is_undelivered.set(false);
    }
    Ok(())
}

/// Waits until the client has acknowledged all that the socket took so far, as far as that can be told.
/// A client that acknowledges nothing loses its connection, and this with it.
async fn arrival_of_all<A>(sender: &mut SendStream<Piece>, shared: &Shared<A>) -> Result<(), Gone> {
    let written = shared.watch.written();
    let (mut timer, mut interval, mut look_at) = (Timer::default(), FIRST_LOOK, None);
    poll_fn(|cx| {
        loop {
            let outstanding = shared.socket.unacknowledged().unwrap_or(0);
            // others write meanwhile
            let acknowledged = shared.watch.written().saturating_sub(outstanding);
            if outstanding == 0 || acknowledged >= written {
                return Poll::Ready(Ok(()));
            }
            if sender.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Gone::Client));
            }
            let at = *look_at.get_or_insert_with(|| Instant::now() + interval);
            ready!(timer.poll(cx, at));
            interval = (2 * interval).min(WATCH_INTERVAL);
            look_at = None;
        }
    })
    .await
}

/// The response side of a stream.
pub(super) struct Outbound {
    pub(super) sender: SendStream<Piece>,
    pub(super) queue: Rc<Queue>,
    source: Source,
    notes: Option<Rc<BodyNotes>>,
    watch: Rc<Watch>,
    /// Since when the client takes nothing of what waits.
    pub(super) stalled: Option<Instant>,
    /// Octets of the request's content at that time.
    received: u64,
    timer: Timer,
    pace: Pace,
    /// Octets of content.
    sent: u64,
}

/// Where content comes from.
enum Source {
    Open(BoxBody),
    /// Kept until all of it has arrived: its end writes the record of the exchange.
    Ended(#[expect(dead_code, reason = "dropped at its time")] Option<BoxBody>),
    Failed,
}

impl Outbound {
    /// Sends a head; what comes after it is the caller's to say.
    pub(super) fn begin<A>(
        respond: &mut SendResponse<Piece>,
        head: Head,
        shared: &Shared<A>,
    ) -> Result<Self, Gone> {
        shared.watch.head();
        let sender = respond.send_response(head.response, !head.has_content);
        Ok(Self {
            sender: sender.map_err(|_| Gone::Client)?,
            queue: Rc::default(),
            source: Source::Ended(None),
            notes: None,
            watch: Rc::clone(&shared.watch),
            stalled: None,
            received: 0,
            timer: Timer::default(),
            pace: Pace::default(),
            sent: 0,
        })
    }

    /// Ready when the client has taken nothing of what waits for so long, and has sent nothing.
    pub(super) fn poll_stalled(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        received: u64,
    ) -> Poll<()> {
        loop {
            self.queue.watch(cx);
            let has_moved = self.queue.has_moved() || received != self.received;
            self.received = received;
            let since = match self.stalled {
                Some(since) if !has_moved => since,
                _ => *self.stalled.insert(Instant::now()),
            };
            ready!(self.timer.poll(cx, since + limit));
            // what waits for the connection and not for the stream's window is the connection's to judge
            if !self.watch.is_blocked() {
                return Poll::Ready(());
            }
            self.stalled = None;
        }
    }

    /// Whether no more may wait.
    fn is_full(&self) -> bool {
        self.queue.octets() >= WRITE_AHEAD
    }

    /// Moves what the client sends, while it takes nothing of the response.
    fn poll_upload(&mut self, cx: &mut Context<'_>, notes: &BodyNotes) -> Result<(), Gone> {
        let Source::Open(body) = &mut self.source else {
            return Ok(());
        };
        notes.is_held_back.set(true);
        let polled = Pin::new(body).poll_next(cx);
        notes.is_held_back.set(false);
        match polled {
            Poll::Ready(Some(Err(_))) => Err(Gone::Body),
            _ => Ok(()),
        }
    }

    /// Takes content from the handler's body while there is room, and sends it.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        // one chunk is held for as long as it takes to ask for the next: it may be the last one,
        // and then says so itself
        let mut last = None;
        while let Source::Open(body) = &mut self.source {
            if self.queue.octets() + last.as_ref().map_or(0, Bytes::len) >= WRITE_AHEAD {
                break;
            }
            match Pin::new(body).poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => {}
                Poll::Ready(Some(Ok(chunk))) => {
                    if let Some(before) = last.replace(chunk) {
                        self.send(before, Ends::Block)?;
                    }
                }
                Poll::Ready(None) => {
                    if let Source::Open(body) = std::mem::replace(&mut self.source, Source::Failed)
                    {
                        self.source = Source::Ended(Some(body));
                    }
                    return self.finish(last.take());
                }
                Poll::Ready(Some(Err(_))) => self.source = Source::Failed,
                Poll::Pending => break,
            }
        }
        match last {
            Some(chunk) => self.send(chunk, Ends::Block),
            None => Ok(()),
        }
    }

    fn finish(&mut self, last: Option<Bytes>) -> Result<(), Gone> {
        let raw = self.notes.as_ref().and_then(|notes| notes.trailers.take());
        let trailers = raw.map(|raw| response::http2_trailers(&raw));
        match trailers.filter(|trailers| !trailers.is_empty()) {
            None => self.send(last.unwrap_or_default(), Ends::Stream),
            Some(trailers) => {
                if let Some(chunk) = last {
                    self.send(chunk, Ends::Block)?;
                }
                let sent = self.sender.send_trailers(trailers);
                sent.map_err(|_| Gone::Client)
            }
        }
    }

    pub(super) fn send(&mut self, chunk: Bytes, ends: Ends) -> Result<(), Gone> {
        self.watch.chunk(chunk.len());
        self.pace.spend(chunk.len());
        self.sent += chunk.len() as u64;
        let piece = self.queue.piece(chunk);
        let sent = self.sender.send_data(piece, ends == Ends::Stream);
        // only a stream that is closed takes no content
        sent.map_err(|_| Gone::Client)
    }
}
