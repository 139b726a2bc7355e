//! A request body on its way into a stream, as the peer's windows allow.
//!
//! It takes from the client one piece at a time and keeps a short body for as long as the request may
//! have to be sent again.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream as _;
use h2::SendStream;

use super::head;
use crate::{
    error::DownstreamError,
    upstream::{
        exchange::{CONTINUE_PATIENCE, Replay},
        pieces::Pieces,
        replay::ReplayBuffer,
        request::{Body, BodyCoding, BufferedBody, Continue, StreamedBody},
    },
    wire::head::ResponseHead,
};

/// Content of one stream in h2's buffer: a chunk of at most 48 KiB waits before it
/// (docs/contract.md §4.3).
pub(super) const SEND_BUFFER: usize = 16 * 1024;

/// The remaining request body.
pub(super) struct Http2Upload {
    stream: SendStream<Bytes>,
    /// The piece that is being sent.
    current: Bytes,
    /// Pieces that are here already.
    pieces: smallvec::IntoIter<[Bytes; 4]>,
    source: UploadSource,
    /// Set once the stream was ended, or takes no more.
    is_over: bool,
    kept: RetainedBody,
    /// Keeps the sent content, if another upstream may need it.
    keep: Option<Box<ReplayBuffer>>,
    /// The framing of a streamed body, and its trailer section, once it has ended.
    framing: Option<(BodyCoding, Option<Bytes>)>,
    /// Octets of content that left.
    sent: u64,
}

/// The source of content after the pieces.
enum UploadSource {
    /// Nothing: the last piece is the end, or these trailers.
    Here(Option<Bytes>),
    /// More from the client.
    Running(StreamedBody),
    /// The same, when the upstream says `100 Continue`, or has been silent for a while, or when the
    /// client sends unasked. A final response leaves the last.
    Waiting(StreamedBody, Option<Pin<Box<actix_rt::time::Sleep>>>),
}

/// The body, for as long as it can be given back.
enum RetainedBody {
    None,
    Held(BufferedBody),
    /// The pieces that came so far, and how large they are.
    Streamed(Pieces, usize),
    Gone,
}

/// The next piece.
enum Next {
    Piece(Bytes),
    End(Option<Bytes>),
    Later,
}

impl Http2Upload {
    /// Tells if a request has no content: its head ends the stream.
    pub(super) fn is_nothing(body: &Body) -> bool {
        match body {
            Body::None => true,
            Body::Held(held) => held.trailers.is_none() && held.content.iter().all(Bytes::is_empty),
            Body::Streamed(_) | Body::Tunnel(_) => false,
        }
    }

    /// The upload of a body into a stream that was opened for it.
    pub(super) fn new(
        stream: SendStream<Bytes>,
        body: Body,
        mut keep: Option<Box<ReplayBuffer>>,
    ) -> Self {
        let is_over = Self::is_nothing(&body);
        // pieces are references: to keep them costs no copy
        let (pieces, source, kept) = match body {
            // a tunnel goes over HTTP/1.1, and never comes here
            Body::None | Body::Tunnel(_) => {
                (Pieces::new(), UploadSource::Here(None), RetainedBody::None)
            }
            Body::Held(held) => (
                held.content.clone(),
                UploadSource::Here(held.trailers.clone()),
                RetainedBody::Held(held),
            ),
            Body::Streamed(mut incoming) => {
                let first = std::mem::take(&mut incoming.first);
                let size = first.iter().map(Bytes::len).sum();
                let kept = RetainedBody::Streamed(first.clone(), size);
                let source = match incoming.go_ahead {
                    Continue::NotExpected => UploadSource::Running(incoming),
                    Continue::Expected => {
                        let timer = Box::pin(actix_rt::time::sleep(CONTINUE_PATIENCE));
                        UploadSource::Waiting(incoming, Some(timer))
                    }
                };
                (first, source, kept)
            }
        };
        if let Some(keep) = &mut keep {
            pieces.iter().for_each(|piece| keep.push(piece));
        }
        Self {
            stream,
            keep,
            current: Bytes::new(),
            pieces: pieces.into_iter(),
            source,
            is_over,
            kept,
            framing: None,
            sent: 0,
        }
    }

    /// Octets of content that left.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Tells if the upload is finished.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Moves content from the client to the upstream, as far as both are ready.
    ///
    /// # Errors
    /// A fault of the client. A stream that takes no more content is no error here: an answer may
    /// come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        while !self.is_over() {
            if self.current.is_empty() {
                match self.next(cx)? {
                    Next::Piece(piece) => self.current = piece,
                    Next::End(trailers) => self.end(trailers),
                    Next::Later => return Ok(()),
                }
                continue;
            }
            let wanted = self.current.len().min(SEND_BUFFER);
            self.stream.reserve_capacity(wanted);
            let mut capacity = self.stream.capacity();
            if capacity == 0 {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(assigned))) => capacity = assigned,
                    Poll::Ready(_) => {
                        self.is_over = true;
                        return Ok(());
                    }
                    Poll::Pending => return Ok(()),
                }
            }
            let piece = self.current.split_to(capacity.min(wanted));
            let octets = piece.len() as u64;
            let is_last = self.is_last();
            self.is_over = self.stream.send_data(piece, is_last).is_err() || is_last;
            self.sent += octets;
        }
        Ok(())
    }

    /// Releases the body: the upstream asked for it.
    pub(super) fn go_on(&mut self) {
        let source = std::mem::replace(&mut self.source, UploadSource::Here(None));
        self.source = match source {
            UploadSource::Waiting(incoming, _) => UploadSource::Running(incoming),
            other => other,
        };
    }

    /// Takes note of a final response: the request is not sent to this upstream again, and a client
    /// that waits for `100 Continue` need not send its body (RFC 9110 §10.1.1). Returns the
    /// request, if it was kept and another upstream may give a better answer.
    pub(super) fn answered(&mut self, answer: &ResponseHead) -> Option<Box<Replay>> {
        let kept = std::mem::replace(&mut self.kept, RetainedBody::Gone);
        // a request that still runs is not taken from a stream that may well go on
        let has_ended = matches!(self.source, UploadSource::Here(_)) || self.framing.is_some();
        let is_sent = self.is_over && has_ended;
        if let Some(keep) = self.keep.take()
            && (keep.is_wanted_for(answer.status.as_u16())
                || (is_sent && keep.may_be_wanted_for(answer)))
        {
            return self.take_body(kept, keep).map(Box::new);
        }
        if let UploadSource::Waiting(_, timer) = &mut self.source {
            *timer = None;
        }
        None
    }

    /// The body from its beginning, if it was kept. Content that did not leave yet is not sent here
    /// any more.
    fn take_body(&mut self, kept: RetainedBody, mut keep: Box<ReplayBuffer>) -> Option<Replay> {
        let content = keep.take()?;
        let is_running = !matches!(self.source, UploadSource::Here(_));
        let body = match std::mem::replace(&mut self.source, UploadSource::Here(None)) {
            UploadSource::Running(incoming) if self.framing.is_none() => {
                Body::Streamed(StreamedBody {
                    first: content,
                    go_ahead: Continue::NotExpected,
                    ..incoming
                })
            }
            UploadSource::Waiting(incoming, _) => Body::Streamed(incoming),
            UploadSource::Running(_) | UploadSource::Here(_) => match (kept, self.framing.take()) {
                (RetainedBody::None, _) => Body::None,
                (RetainedBody::Held(held), _) => Body::Held(held),
                (_, Some((coding, trailers))) => Body::Held(BufferedBody {
                    content,
                    coding,
                    trailers,
                }),
                (_, None) => return None,
            },
        };
        self.is_over |= is_running;
        Some(Replay { body, keep })
    }

    /// The whole body, if it can be given back, and its replay buffer.
    pub(super) fn into_body(mut self) -> Option<(Body, Option<Box<ReplayBuffer>>)> {
        let mut keep = self.keep.take();
        if let Some(keep) = &mut keep {
            keep.take();
        }
        let body = self.whole()?;
        Some((body, keep))
    }

    fn whole(self) -> Option<Body> {
        match (self.kept, self.source) {
            (RetainedBody::None, _) => Some(Body::None),
            (RetainedBody::Held(held), _) => Some(Body::Held(held)),
            (
                RetainedBody::Streamed(first, _),
                UploadSource::Running(incoming) | UploadSource::Waiting(incoming, _),
            ) => Some(Body::Streamed(StreamedBody { first, ..incoming })),
            (RetainedBody::Streamed(..), UploadSource::Here(_)) | (RetainedBody::Gone, _) => None,
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Result<Next, DownstreamError> {
        if let UploadSource::Waiting(incoming, timer) = &mut self.source {
            let timer = timer.as_mut();
            if incoming.notes.is_unasked.get()
                || timer.is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
            {
                self.go_on();
            }
        }
        if let Some(piece) = self.pieces.next() {
            return Ok(Next::Piece(piece));
        }
        let incoming = match &mut self.source {
            UploadSource::Here(trailers) => return Ok(Next::End(trailers.take())),
            UploadSource::Running(incoming) => incoming,
            UploadSource::Waiting(..) => return Ok(Next::Later),
        };
        match Pin::new(&mut incoming.payload).poll_next(cx) {
            Poll::Ready(Some(Ok(content))) => {
                self.kept.add(&content);
                if let Some(keep) = &mut self.keep {
                    keep.push(&content);
                }
                Ok(Next::Piece(content))
            }
            Poll::Ready(Some(Err(cause))) => Err(DownstreamError::of(&cause)),
            Poll::Ready(None) => Ok(Next::End(incoming.notes.trailers.take())),
            Poll::Pending => Ok(Next::Later),
        }
    }

    /// Tells if the piece just taken is the end of the body.
    fn is_last(&self) -> bool {
        self.current.is_empty()
            && self.pieces.as_slice().iter().all(Bytes::is_empty)
            && matches!(self.source, UploadSource::Here(None))
    }

    fn end(&mut self, trailers: Option<Bytes>) {
        // what fails here fails because the stream was reset: the response says so
        let _ = match trailers.as_deref().and_then(head::trailers) {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        self.is_over = true;
        if let UploadSource::Running(incoming) = &self.source {
            self.framing = Some((incoming.coding, trailers.clone()));
        }
        if let (UploadSource::Running(incoming), RetainedBody::Streamed(pieces, _)) =
            (&self.source, &mut self.kept)
        {
            // all of it has arrived
            self.kept = RetainedBody::Held(BufferedBody {
                content: std::mem::take(pieces),
                coding: incoming.coding,
                trailers,
            });
        }
    }
}

impl RetainedBody {
    fn add(&mut self, content: &Bytes) {
        if let Self::Streamed(pieces, size) = self {
            // many small pieces take more for the references than for the content
            *size += content.len() + size_of::<Bytes>();
            if *size <= MAX_KEPT {
                pieces.push(content.clone());
            } else {
                *self = Self::Gone;
            }
        }
    }
}

/// Content of a streamed body that is kept until there is an answer: the bound of one stream
/// (docs/contract.md §4.3), and more than most requests have.
const MAX_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_however_small_its_pieces_are() {
        let mut kept = RetainedBody::Streamed(Pieces::new(), 0);
        kept.add(&Bytes::from_static(&[0; 48 * 1024]));
        assert!(matches!(kept, RetainedBody::Streamed(..)));
        let mut kept = RetainedBody::Streamed(Pieces::new(), 0);
        for _ in 0..MAX_KEPT / size_of::<Bytes>() {
            kept.add(&Bytes::from_static(b"."));
        }
        assert!(matches!(kept, RetainedBody::Gone));
    }
}
