//! Delivery of a response's content to the client: written as it comes, and watched until it
//! arrives.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use actix_http::{
    Request,
    body::{BoxBody, MessageBody},
};
use actix_service::Service;
use actix_web::dev::ServiceResponse;
use bytes::Bytes;

use super::{
    connection::{ConnectionAbort, Http1ServerConnection},
    io::{poll_flush, poll_watch},
    response::Delimiter,
};
use crate::{
    downstream::{
        limits::{FIRST_LOOK, IN_FLIGHT, WATCH_INTERVAL, WRITE_AHEAD},
        peer::Peer,
        source::ContentSource,
    },
    drain::DrainPhase,
    wire::{body::chunk_size_line, head::BodyNotes, pace::Pace},
};

impl<S, A> Http1ServerConnection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    /// Writes head and content as they come, and waits until they have arrived.
    pub(super) async fn content(
        &mut self,
        body: BoxBody,
        delimiter: Delimiter,
        notes: Option<Rc<BodyNotes>>,
    ) -> Result<(), ConnectionAbort> {
        let mut source = ContentSource::new((delimiter != Delimiter::Nothing).then_some(body));
        // turns are an exchange's, and not a connection's: a small answer waits for none
        self.pace = Pace::default();
        let undelivered = DeliveryMark::new(self.asked.clone());
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
        source: &mut ContentSource,
        delimiter: Delimiter,
        notes: Option<&BodyNotes>,
    ) -> Poll<Result<(), ConnectionAbort>> {
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
                    PullOutcome::Complete => return Poll::Ready(Ok(())),
                    PullOutcome::Failed => return Poll::Ready(Err(ConnectionAbort::Body)),
                    PullOutcome::Full => continue,
                    PullOutcome::Pending => wire.read.shrink(),
                },
                Ok(Poll::Pending) => {
                    drop(wire);
                    self.poll_upload(cx, source);
                }
                Err(_) => return Poll::Ready(Err(ConnectionAbort::Client)),
            }
            break;
        }
        if self.poll_stalled(cx).is_ready() {
            return Poll::Ready(Err(ConnectionAbort::Client));
        }
        let is_ending = self.asked.as_ref().is_some_and(|asked| asked.is_ending());
        if is_ending || self.services.drain.phase() == DrainPhase::Cut {
            return Poll::Ready(Err(ConnectionAbort::Cut));
        }
        let mut wire = self.wire.borrow_mut();
        poll_watch(cx, &mut wire, &mut self.timer).map(|()| Err(ConnectionAbort::Client))
    }

    /// Moves the upload while the client takes nothing of the response: the two directions do not
    /// wait for each other.
    fn poll_upload(&self, cx: &mut Context<'_>, source: &mut ContentSource) {
        let (ContentSource::Open(body), Some(upload)) = (&mut *source, &self.upload) else {
            return;
        };
        upload.is_held_back.set(true);
        let polled = Pin::new(body).poll_next(cx);
        upload.is_held_back.set(false);
        if let Poll::Ready(Some(Err(_))) = polled {
            *source = ContentSource::Failed;
            cx.waker().wake_by_ref();
        }
    }

    /// Waits until the client has acknowledged all that was written, where the kernel can tell.
    async fn arrival_of_all(&mut self) -> Result<(), ConnectionAbort> {
        let mut interval = FIRST_LOOK;
        let mut look_at = None;
        poll_fn(|cx| {
            loop {
                let (unacknowledged, is_aborted) = {
                    let stream = &self.wire.borrow().stream;
                    (stream.unacknowledged(), stream.is_aborted())
                };
                match unacknowledged {
                    _ if is_aborted => return Poll::Ready(Err(ConnectionAbort::Client)),
                    Some(1..) => {}
                    Some(0) | None => return Poll::Ready(Ok(())),
                }
                if self.poll_stalled(cx).is_ready() {
                    return Poll::Ready(Err(ConnectionAbort::Client));
                }
                let is_ending = self.asked.as_ref().is_some_and(|asked| asked.is_ending());
                if is_ending || self.services.drain.phase() == DrainPhase::Cut {
                    return Poll::Ready(Err(ConnectionAbort::Cut));
                }
                let mut wire = self.wire.borrow_mut();
                if poll_watch(cx, &mut wire, &mut self.timer).is_ready() {
                    let has_arrived = wire.stream.unacknowledged() == Some(0);
                    let outcome = has_arrived.then_some(()).ok_or(ConnectionAbort::Client);
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
        source: &mut ContentSource,
        delimiter: Delimiter,
        notes: Option<&BodyNotes>,
    ) -> PullOutcome {
        while self.outbox.octets() < WRITE_AHEAD {
            let body = match source {
                ContentSource::Open(body) => body,
                ContentSource::Ended(_) => return PullOutcome::Complete,
                ContentSource::Failed => return PullOutcome::Failed,
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
                Poll::Ready(Some(Err(_))) => *source = ContentSource::Failed,
                Poll::Pending => return PullOutcome::Pending,
            }
        }
        match source {
            ContentSource::Open(_) => PullOutcome::Full,
            ContentSource::Ended(_) => PullOutcome::Complete,
            ContentSource::Failed => PullOutcome::Failed,
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
}

/// Marks an exchange as undelivered until its response has reached the client.
struct DeliveryMark(Option<Rc<BodyNotes>>);

impl DeliveryMark {
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

/// Result of taking content from the handler's body.
enum PullOutcome {
    /// All that is available was taken; more comes later.
    Pending,
    /// The outbox is full; more may be available.
    Full,
    /// The body has ended.
    Complete,
    /// The body has failed; the content before that was taken.
    Failed,
}
