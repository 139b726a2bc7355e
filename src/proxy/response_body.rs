//! The response body on its way out, with its idle timer.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use super::record::{Chain, ExchangeEnd, ExchangeRecord};
use crate::{
    label::Label,
    upstream::{ResponseBody, exchange::BodyError},
    wire::{body::Framing, head::BodyNotes, idle::IdleTimer},
};

/// The response body, with its idle timer.
pub(super) struct ExchangeBody {
    body: ResponseBody,
    notes: Option<Rc<BodyNotes>>,
    record: ExchangeRecord,
    idle: IdleTimer,
    /// Octets of the request when the silence of the upstream began.
    uploaded: u64,
}

impl ExchangeBody {
    pub(super) fn new(
        body: ResponseBody,
        framing: Framing,
        mut record: ExchangeRecord,
        idle: Duration,
    ) -> Self {
        if body.is_done() {
            record.completes();
        }
        let notes = (framing == Framing::Chunked).then(Rc::default);
        Self {
            body,
            notes,
            uploaded: record.notes.octets.get(),
            record,
            idle: IdleTimer::new(idle),
        }
    }

    /// Notes that receive the trailer section, if there may be one.
    pub(super) fn notes(&self) -> Option<Rc<BodyNotes>> {
        self.notes.clone()
    }

    fn failed(
        &mut self,
        cause: BodyError,
    ) -> Poll<Option<Result<Bytes, Box<dyn std::error::Error>>>> {
        let label = match &cause {
            BodyError::Truncated | BodyError::Io(_) => Label::ConnectionTerminated,
            BodyError::Malformed => Label::HttpResponseTransferCoding,
            BodyError::Downstream(cause) => cause.answer().label,
        };
        Poll::Ready(Some(Err(self.fail(label, StreamError::Body(cause)).into())))
    }

    fn fail(&mut self, label: Label, cause: StreamError) -> StreamError {
        self.record.ended = match &cause {
            StreamError::Ended => ExchangeEnd::Proxy(label),
            StreamError::Body(BodyError::Downstream(_)) => ExchangeEnd::Client,
            _ => ExchangeEnd::Upstream(label),
        };
        log::warn!(
            "[Stream Error] {} request_id={}",
            Chain(&cause),
            self.record.id()
        );
        cause
    }
}

impl MessageBody for ExchangeBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if let Some(label) = this.record.poll_ending(cx) {
            let ended = this.fail(label, StreamError::Ended);
            return Poll::Ready(Some(Err(ended.into())));
        }
        if this.record.notes.is_held_back.get() {
            let polled = this.body.poll_upload(cx);
            this.record.receives();
            return match polled {
                Ok(()) => Poll::Pending,
                Err(cause) => this.failed(cause),
            };
        }
        let polled = this.body.poll_content(cx);
        this.record.receives();
        match polled {
            Poll::Ready(Some(Ok(content))) => {
                let is_last = this.body.is_done();
                this.record.content(&content, is_last);
                this.idle.heard();
                if is_last {
                    this.record.completes();
                }
                Poll::Ready(Some(Ok(content)))
            }
            Poll::Ready(None) => {
                this.record.completes();
                if let (Some(notes), Some(trailers)) = (&this.notes, this.body.take_trailers()) {
                    notes.trailers.replace(Some(trailers));
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(cause))) => this.failed(cause),
            Poll::Pending => {
                // an upstream that takes the rest of the request is not silent
                let uploaded = this.record.notes.octets.get();
                if uploaded != this.uploaded {
                    this.uploaded = uploaded;
                    this.idle.heard();
                }
                if this.idle.poll_silence(cx).is_pending() {
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(this
                    .fail(Label::StreamIdleTimeout, StreamError::Idle)
                    .into())))
            }
        }
    }
}

/// Error that ends a response early.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("upstream was silent for STREAM_IDLE_TIMEOUT")]
    Idle,
    #[error("an operator ended the exchange, or revoked its key")]
    Ended,
}
