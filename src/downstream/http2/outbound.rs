//! Response side of a stream: head, content and trailers on their way to the client.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_http::body::MessageBody;
use bytes::Bytes;
use h2::{SendStream, server::SendResponse};

use super::{
    context::ConnectionContext,
    monitor::FrameMonitor,
    request::BlockEnd,
    response::{self, Head},
    send_queue::{QueuedPiece, SendQueue},
};
use crate::{
    downstream::{limits::WRITE_AHEAD, source::ContentSource, timer::Timer},
    wire::{head::BodyNotes, pace::Pace},
};

/// Reason for the abort of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamAbort {
    /// The client reset the stream.
    Client,
    /// The client does not open its window.
    Stalled,
    /// The response body failed: the client must not take it for complete.
    Body,
}

/// Response side of a stream.
pub(super) struct StreamOutbound {
    pub(super) sender: SendStream<QueuedPiece>,
    pub(super) queue: Rc<SendQueue>,
    pub(super) source: ContentSource,
    pub(super) notes: Option<Rc<BodyNotes>>,
    watch: Rc<FrameMonitor>,
    /// Start of the time in which the client has taken nothing.
    pub(super) stalled: Option<Instant>,
    /// Octets of the request's content at that time.
    received: u64,
    timer: Timer,
    pub(super) pace: Pace,
    /// Octets of content.
    pub(super) sent: u64,
}

impl StreamOutbound {
    /// Sends a head; the caller sends what follows it.
    pub(super) fn begin<A>(
        respond: &mut SendResponse<QueuedPiece>,
        head: Head,
        shared: &ConnectionContext<A>,
    ) -> Result<Self, StreamAbort> {
        shared.watch.head();
        let sender = respond.send_response(head.response, !head.has_content);
        Ok(Self {
            sender: sender.map_err(|_| StreamAbort::Client)?,
            queue: Rc::default(),
            source: ContentSource::new(None),
            notes: None,
            watch: Rc::clone(&shared.watch),
            stalled: None,
            received: 0,
            timer: Timer::default(),
            pace: Pace::default(),
            sent: 0,
        })
    }

    /// Ready when the client has taken nothing of what waits, and has sent nothing, for `limit`.
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

    /// Reports whether no more octets may wait.
    pub(super) fn is_full(&self) -> bool {
        self.queue.octets() >= WRITE_AHEAD
    }

    /// Moves the upload while the client takes nothing of the response.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        notes: &BodyNotes,
    ) -> Result<(), StreamAbort> {
        let ContentSource::Open(body) = &mut self.source else {
            return Ok(());
        };
        notes.is_held_back.set(true);
        let polled = Pin::new(body).poll_next(cx);
        notes.is_held_back.set(false);
        match polled {
            Poll::Ready(Some(Err(_))) => Err(StreamAbort::Body),
            _ => Ok(()),
        }
    }

    /// Takes content from the handler's body while there is room, and sends it.
    pub(super) fn pull(&mut self, cx: &mut Context<'_>) -> Result<(), StreamAbort> {
        // one chunk is held for as long as it takes to ask for the next: it may be the last one,
        // and then says so itself
        let mut last = None;
        while let ContentSource::Open(body) = &mut self.source {
            if self.queue.octets() + last.as_ref().map_or(0, Bytes::len) >= WRITE_AHEAD {
                break;
            }
            match Pin::new(body).poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => {}
                Poll::Ready(Some(Ok(chunk))) => {
                    if let Some(before) = last.replace(chunk) {
                        self.send(before, BlockEnd::Block)?;
                    }
                }
                Poll::Ready(None) => {
                    self.source.end();
                    return self.finish(last.take());
                }
                Poll::Ready(Some(Err(_))) => self.source = ContentSource::Failed,
                Poll::Pending => break,
            }
        }
        match last {
            Some(chunk) => self.send(chunk, BlockEnd::Block),
            None => Ok(()),
        }
    }

    fn finish(&mut self, last: Option<Bytes>) -> Result<(), StreamAbort> {
        let raw = self.notes.as_ref().and_then(|notes| notes.trailers.take());
        let trailers = raw.map(|raw| response::http2_trailers(&raw));
        match trailers.filter(|trailers| !trailers.is_empty()) {
            None => self.send(last.unwrap_or_default(), BlockEnd::Stream),
            Some(trailers) => {
                if let Some(chunk) = last {
                    self.send(chunk, BlockEnd::Block)?;
                }
                let sent = self.sender.send_trailers(trailers);
                sent.map_err(|_| StreamAbort::Client)
            }
        }
    }

    pub(super) fn send(&mut self, chunk: Bytes, ends: BlockEnd) -> Result<(), StreamAbort> {
        self.watch.chunk(chunk.len());
        self.pace.spend(chunk.len());
        self.sent += chunk.len() as u64;
        let piece = self.queue.piece(chunk);
        let sent = self.sender.send_data(piece, ends == BlockEnd::Stream);
        // only a stream that is closed takes no content
        sent.map_err(|_| StreamAbort::Client)
    }
}
