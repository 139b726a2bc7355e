//! Socket of an HTTP/1.1 client, shared by the connection and the body of its current request.
//!
//! The same task polls both, one after the other, so they share it by a `RefCell`.
//! [`Http1RequestBody`] reads the socket itself: no channel between them and no copy.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    downstream::peer::Peer,
    error::DownstreamError,
    wire::{
        body::{Decoded, Decoder, Framing},
        head::BodyNotes,
        idle::IdleTimer,
        read::{LARGEST_HELD_READ, LARGEST_READ, ReadBuffer},
        verification::Edge,
    },
};

/// Socket, read buffer and body decoder of one connection.
#[derive(Debug)]
pub(super) struct ClientWire<S> {
    pub(super) stream: S,
    pub(super) read: ReadBuffer,
    pub(super) decoder: Decoder,
    pub(super) expect: Http1Expectation,
    pub(super) ended: bool,
    /// True if this poll of a tunnel waits for the client's octets, and therefore notices its end.
    pub(super) is_awaited: bool,
    /// Digests the body of the request, if that is verified.
    pub(super) edge: Option<Rc<Edge>>,
}

/// State of `Expect: 100-continue` (RFC 9110 §10.1.1).
#[derive(Debug)]
pub(super) enum Http1Expectation {
    Nothing,
    /// The client waits for `100 Continue`; notes record if it sends without it.
    Waiting(Rc<BodyNotes>),
    /// The handler wants the body: `100 Continue` is written next.
    Owed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientWire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            read: ReadBuffer::default(),
            decoder: Decoder::new(Framing::None),
            expect: Http1Expectation::Nothing,
            ended: false,
            is_awaited: false,
            edge: None,
        }
    }

    /// Discards buffered octets of a body that no handler reads.
    pub(super) fn discard(&mut self) {
        while let Ok(Decoded::Content(_)) = self.decoder.decode(&mut self.read.octets) {}
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self {
            stream, read, edge, ..
        } = self;
        let before = read.octets.len();
        let outcome = read.poll_read(cx, stream);
        if let (Some(edge), Poll::Ready(Ok(1..))) = (edge, &outcome) {
            edge.wire(&read.octets[before..]);
        }
        if matches!(outcome, Poll::Ready(Ok(0) | Err(_))) {
            self.ended = true;
        }
        outcome
    }
}

/// Body of a request as it arrives.
#[derive(Debug)]
pub(super) struct Http1RequestBody<S> {
    wire: Rc<RefCell<ClientWire<S>>>,
    notes: Rc<BodyNotes>,
    idle: IdleTimer,
}

impl<S> Http1RequestBody<S> {
    pub(super) fn new(
        wire: Rc<RefCell<ClientWire<S>>>,
        notes: Rc<BodyNotes>,
        idle: Duration,
    ) -> Self {
        Self {
            wire,
            notes,
            idle: IdleTimer::new(idle),
        }
    }
}

impl<S: Peer> Stream for Http1RequestBody<S> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let mut wire = this.wire.borrow_mut();
            let ClientWire {
                read,
                decoder,
                edge,
                ..
            } = &mut *wire;
            if edge.is_none()
                && let Some(verification) = this.notes.verification.get()
            {
                // what came with the head; no octet of the body was taken yet
                verification.request.wire(&read.octets);
                *edge = Some(Rc::clone(&verification.request));
            }
            match decoder.decode(&mut read.octets) {
                Ok(Decoded::Content(content)) => {
                    this.idle.heard();
                    let octets = &this.notes.octets;
                    octets.set(octets.get() + content.len() as u64);
                    return Poll::Ready(Some(Ok(content)));
                }
                Ok(Decoded::End(trailers)) => {
                    this.notes.has_ended.set(true);
                    if trailers.is_some() {
                        this.notes.trailers.replace(trailers);
                    }
                    return Poll::Ready(None);
                }
                Ok(Decoded::NeedMore) => {}
                Err(_) => return failed(DownstreamError::MalformedBody),
            }
            if wire.ended {
                return failed(DownstreamError::Disconnected);
            }
            if let Some(remaining) = wire.decoder.remaining() {
                let largest = if this.notes.is_held.get() {
                    LARGEST_HELD_READ
                } else {
                    LARGEST_READ
                };
                wire.read.expect(remaining, largest);
            }
            // only a tunnel's octets end with their connection, and it may be silent for hours
            let is_tunnel = wire.decoder.ends_with_connection();
            if is_tunnel && wire.stream.poll_readable(cx).is_pending() {
                wire.is_awaited = true;
                wire.read.release();
                return Poll::Pending;
            }
            match wire.poll_read(cx) {
                Poll::Ready(Ok(1..)) => wire.expect = Http1Expectation::Nothing,
                Poll::Ready(Ok(0)) if is_tunnel => return Poll::Ready(None),
                Poll::Ready(_) => return failed(DownstreamError::Disconnected),
                Poll::Pending if is_tunnel => {
                    wire.is_awaited = true;
                    wire.read.release();
                    return Poll::Pending;
                }
                Poll::Pending => {
                    if matches!(wire.expect, Http1Expectation::Waiting(_)) {
                        wire.expect = Http1Expectation::Owed;
                        // the connection looks at it after this poll; but the poll may be of a
                        // body whose owner was woken by another task
                        cx.waker().wake_by_ref();
                    }
                    drop(wire);
                    if this.idle.poll_silence(cx).is_ready() {
                        return failed(DownstreamError::BodyTimeout);
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

fn failed(cause: DownstreamError) -> Poll<Option<Result<Bytes, PayloadError>>> {
    Poll::Ready(Some(Err(PayloadError::Io(io::Error::other(cause)))))
}
