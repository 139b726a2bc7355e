//! One stream: a request, its handler, and the response (RFC 9113 §8.1).
//!
//! This future owns everything that the exchange needs: a reset of the stream ends it, the end of
//! the connection drops it, and the upload and the upstream's connection end with it.

use std::{
    cell::RefCell,
    future::{Future as _, poll_fn},
    rc::Rc,
    task::{Poll, ready},
    time::Instant,
};

use actix_http::{
    BoxedPayloadStream, Payload, Request,
    body::{BoxBody, MessageBody},
};
use actix_service::Service;
use actix_web::{dev::ServiceResponse, http::Method};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};

use super::{
    body::{Http2Expectation, Http2RequestBody, StreamInbound},
    context::ConnectionContext,
    outbound::{StreamAbort, StreamOutbound},
    request::{self, BlockEnd},
    response::{self, Head, ResponsePurpose},
    send_queue::QueuedPiece,
    tunnel::tunnel,
};
use crate::{
    downstream::{
        limits::{FIRST_LOOK, IN_FLIGHT, LINGER, WATCH_INTERVAL},
        service::routed,
        source::ContentSource,
        timer::Timer,
    },
    error::{Answer, DeniedError, DownstreamError, InternalError, ProxyError},
    wire::{
        body::Framing,
        head::{BodyNotes, RelayedHead, RequestHead, Version},
        refused_request::RefusedRequest,
    },
};

/// Completeness of the request target that h2 gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamTarget {
    /// The target is complete.
    Whole,
    /// h2 has cut off a fragment.
    Cut,
}

/// Serves one stream.
pub(super) async fn serve<A>(
    request: http::Request<RecvStream>,
    target: StreamTarget,
    mut respond: SendResponse<QueuedPiece>,
    shared: Rc<ConnectionContext<A>>,
) where
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    let (parts, recv) = request.into_parts();
    let ends = if recv.is_end_stream() {
        BlockEnd::Stream
    } else {
        BlockEnd::Block
    };
    let head = match target {
        StreamTarget::Whole => request::http2_request_head(&parts, ends, shared.arrival.transport),
        StreamTarget::Cut => Err(DownstreamError::UnsupportedTarget),
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
    if !is_local && !shared.take_slot() {
        drop(recv);
        let answer = DeniedError::TooManyConnections.answer();
        return refuse(&mut respond, &answer, &method, &shared).await;
    }
    let outcome = exchange(head, recv, &mut respond, &shared, is_local).await;
    match outcome {
        Ok(()) | Err(StreamFailure::Gone(StreamAbort::Client)) => {}
        Err(StreamFailure::Gone(StreamAbort::Stalled)) => respond.send_reset(Reason::CANCEL),
        Err(StreamFailure::Gone(StreamAbort::Body)) => {
            // a reset takes back what h2 has not written yet, a head for instance
            shared.written.wait().await;
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Err(StreamFailure::Failed(answer)) => refuse(&mut respond, &answer, &method, &shared).await,
    }
}

/// Failure of an exchange.
enum StreamFailure {
    Gone(StreamAbort),
    /// The handler gave no response: the client gets this answer.
    Failed(Answer),
}

impl From<StreamAbort> for StreamFailure {
    fn from(gone: StreamAbort) -> Self {
        Self::Gone(gone)
    }
}

async fn exchange<A>(
    head: RequestHead,
    recv: RecvStream,
    respond: &mut SendResponse<QueuedPiece>,
    shared: &ConnectionContext<A>,
    is_local: bool,
) -> Result<(), StreamFailure>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    let method = head.method.clone();
    let asked = if head.upgrade.is_some() {
        ResponsePurpose::Tunnel
    } else {
        ResponsePurpose::Answer
    };
    let expect = if head.expects_continue {
        Http2Expectation::Waiting
    } else {
        Http2Expectation::Nothing
    };
    let (asked_notes, framing) = (Rc::clone(&head.notes), head.framing);
    let meter = (framing != Framing::None).then(|| shared.windows.meter());
    let inbound = StreamInbound::new(recv, expect, meter);
    let payload = if head.framing == Framing::None {
        Payload::None
    } else {
        let idle = (asked == ResponsePurpose::Answer).then_some(shared.timers.get().request_body);
        let body = Http2RequestBody::new(Rc::clone(&inbound), Rc::clone(&asked_notes), idle);
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
            .map_err(|cause| StreamFailure::Failed(ProxyError::Internal(cause).answer()))?,
        None => response::own(response.head(), body.size(), &method),
    };
    drop(response);
    if let Some(notes) = tunnel_notes {
        return Ok(tunnel(head, body, notes, respond, shared).await?);
    }
    let body = head.has_content.then_some(body);
    let answered = StreamRequest {
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
    respond: &mut SendResponse<QueuedPiece>,
    inbound: &RefCell<StreamInbound>,
    notes: &BodyNotes,
    shared: &ConnectionContext<A>,
) -> Result<ServiceResponse<BoxBody>, StreamFailure>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    let mut handler = std::pin::pin!(shared.services.app.call(request));
    poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(StreamAbort::Client.into()));
        }
        if let Poll::Ready(outcome) = handler.as_mut().poll(cx) {
            let failed = ProxyError::Internal(InternalError::Handler);
            return Poll::Ready(outcome.map_err(|_| StreamFailure::Failed(failed.answer())));
        }
        let mut inbound = inbound.borrow_mut();
        match inbound.expect {
            Http2Expectation::Nothing => {}
            Http2Expectation::Waiting => {
                if inbound.poll_unasked(cx).is_ready() {
                    notes.is_unasked.set(true);
                    // the exchange was polled before this, and holds the body back
                    cx.waker().wake_by_ref();
                }
            }
            Http2Expectation::Owed => {
                inbound.expect = Http2Expectation::Nothing;
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

/// Answers a request before it reaches the handler.
async fn refuse<A>(
    respond: &mut SendResponse<QueuedPiece>,
    answer: &Answer,
    method: &Method,
    shared: &ConnectionContext<A>,
) {
    let request_id = (shared.services.request_id)();
    let refused = RefusedRequest {
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
    if let Err(StreamAbort::Stalled) = content(head, body, respond, (None, None), shared).await {
        respond.send_reset(Reason::CANCEL);
    }
}

/// Request of a stream as its response needs it.
#[derive(Clone, Copy)]
struct StreamRequest<'a> {
    notes: &'a BodyNotes,
    /// True if the body of the response drives the upload.
    has_upload: bool,
}

/// Sends head and content as they come, and waits until they have arrived.
async fn content<A>(
    head: Head,
    body: Option<BoxBody>,
    respond: &mut SendResponse<QueuedPiece>,
    (notes, answered): (Option<Rc<BodyNotes>>, Option<StreamRequest<'_>>),
    shared: &ConnectionContext<A>,
) -> Result<(), StreamAbort> {
    let has_content = body.is_some();
    let head = Head {
        has_content,
        ..head
    };
    if let Some(StreamRequest { notes, .. }) = answered {
        notes.is_undelivered.set(true);
    }
    let mut outbound = StreamOutbound::begin(respond, head, shared)?;
    outbound.source = ContentSource::new(body);
    outbound.notes = notes;
    if let Some(StreamRequest { notes, .. }) = answered
        && let Some(verification) = notes.verification.get()
    {
        verification.response.begin(Framing::UntilClose, 0);
        let _ = outbound.queue.edge.set(Rc::clone(&verification.response));
    }
    let limit = shared.timers.get().write;
    poll_fn(|cx| {
        if outbound.sender.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(StreamAbort::Client));
        }
        let has_turn = outbound.pace.poll_turn(cx).is_ready();
        if has_turn {
            outbound.pull(cx)?;
        }
        if let Some(StreamRequest { notes, has_upload }) = answered
            && has_upload
            && (!has_turn || outbound.is_full())
        {
            outbound.poll_upload(cx, notes)?;
        }
        // an end that an operator asked for does not wait for a client that does not read
        if answered.is_some_and(|answered| answered.notes.is_ending()) {
            return Poll::Ready(Err(StreamAbort::Body));
        }
        if !has_turn {
            return Poll::Pending;
        }
        if outbound.queue.octets() == 0 {
            match outbound.source {
                ContentSource::Open(_) => {
                    outbound.stalled = None;
                    return Poll::Pending;
                }
                ContentSource::Ended(_) => return Poll::Ready(Ok(())),
                ContentSource::Failed => return Poll::Ready(Err(StreamAbort::Body)),
            }
        }
        let received = answered.map_or(0, |answered| answered.notes.octets.get());
        ready!(outbound.poll_stalled(cx, limit, received));
        if let Some(StreamRequest { notes, .. }) = answered {
            notes.is_stalled.set(true);
        }
        Poll::Ready(Err(StreamAbort::Stalled))
    })
    .await?;
    if outbound.sent > IN_FLIGHT {
        arrival_of_all(&mut outbound.sender, shared).await?;
    }
    if let Some(StreamRequest { notes, .. }) = answered {
        notes.is_undelivered.set(false);
    }
    Ok(())
}

/// Waits until the client has acknowledged all that the socket took so far, where the kernel can
/// tell. The connection of a client that acknowledges nothing is closed, and this future is dropped
/// with it.
async fn arrival_of_all<A>(
    sender: &mut SendStream<QueuedPiece>,
    shared: &ConnectionContext<A>,
) -> Result<(), StreamAbort> {
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
                return Poll::Ready(Err(StreamAbort::Client));
            }
            let at = *look_at.get_or_insert_with(|| Instant::now() + interval);
            ready!(timer.poll(cx, at));
            interval = (2 * interval).min(WATCH_INTERVAL);
            look_at = None;
        }
    })
    .await
}
