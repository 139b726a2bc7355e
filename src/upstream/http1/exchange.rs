//! A running exchange over one HTTP/1.1 connection: the upload, the content that can be given back,
//! and the reading of the response.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::http::Method;
use bytes::Bytes;
use futures_core::Stream as _;
use tokio::io::AsyncWrite as _;

use super::{
    connection::Http1Connection,
    head::{ParsedHead, parse_head, within_limit},
};
use crate::{
    error::{DownstreamError, UpstreamError},
    upstream::{
        exchange::{CONTINUE_PATIENCE, Replay},
        replay::ReplayBuffer,
        request::{Body, BodyCoding, BufferedBody, Continue, StreamedBody, Switch},
    },
    wire::{
        body::chunk_size_line,
        head::{BodyNotes, may_be_complete},
        outbox::Outbox,
        pace::Pace,
    },
};

/// Bytes of an upload that may wait when more is read; the largest read adds 48 KiB, which makes
/// the 64 KiB of docs/contract.md §4.3.
const UPLOAD_AHEAD: usize = 16 * 1024;

/// A running exchange: both directions of one connection.
#[derive(Debug)]
pub(super) struct Http1Exchange {
    pub(super) connection: Http1Connection,
    pub(super) outbox: Outbox,
    pub(super) pace: Pace,
    pub(super) upload: Http1Upload,
    /// Keeps the sent content, if another upstream may need it.
    pub(super) keep: Option<Box<ReplayBuffer>>,
    /// Octets of the request that left.
    pub(super) sent: u64,
    /// Set once a byte came from the upstream.
    pub(super) is_heard: bool,
    pub(super) flushed: bool,
    /// Set when the body was released and not polled since.
    pub(super) goes_on: bool,
    /// The error that ended writing. Reading goes on: an answer may be waiting.
    pub(super) write_error: Option<io::Error>,
}

/// The remaining request body.
#[derive(Debug)]
pub(super) enum Http1Upload {
    /// All of it is in the outbox, or left.
    Done(ReplayableBody),
    /// More comes from the client.
    Running(StreamedBody),
    /// More comes when the upstream says `100 Continue`, or has been silent for a while, or when
    /// the client sends unasked. A final response leaves the last: it makes the body needless.
    Waiting(StreamedBody, Option<Pin<Box<actix_rt::time::Sleep>>>),
    /// It went to another upstream; the request sent here stays incomplete.
    Taken,
    /// A tunnel that was asked for: more comes if the upstream switches protocols.
    Switching(Switch),
}

/// A body that can be given back.
#[derive(Debug)]
pub(super) enum ReplayableBody {
    /// There is none.
    None,
    /// As long as nothing of it left.
    Held(BufferedBody),
    /// If its content was kept: how it was framed, and its trailer section.
    Sent(BodyCoding, Option<Bytes>),
}

impl Http1Exchange {
    pub(super) fn new(
        connection: Http1Connection,
        head: &Bytes,
        body: Body,
        mut keep: Option<Box<ReplayBuffer>>,
    ) -> Self {
        let mut outbox = Outbox::default();
        outbox.push(head.clone());
        let upload = match body {
            Body::None => Http1Upload::Done(ReplayableBody::None),
            Body::Held(held) => {
                if let Some(keep) = &mut keep {
                    held.content.iter().for_each(|piece| keep.push(piece));
                }
                push_content(&mut outbox, &held.content, held.coding);
                if held.coding == BodyCoding::Chunked {
                    push_all(&mut outbox, BodyNotes::end_with(held.trailers.clone()));
                }
                // pieces are references: to keep them costs no copy
                Http1Upload::Done(ReplayableBody::Held(held))
            }
            Body::Streamed(mut incoming) => match incoming.go_ahead {
                Continue::NotExpected => {
                    let first = std::mem::take(&mut incoming.first);
                    if let Some(keep) = &mut keep {
                        first.iter().for_each(|piece| keep.push(piece));
                    }
                    push_content(&mut outbox, &first, incoming.coding);
                    Http1Upload::Running(incoming)
                }
                Continue::Expected => {
                    let timer = Box::pin(actix_rt::time::sleep(CONTINUE_PATIENCE));
                    Http1Upload::Waiting(incoming, Some(timer))
                }
            },
            Body::Tunnel(switch) => Http1Upload::Switching(switch),
        };
        Self {
            connection,
            outbox,
            pace: Pace::default(),
            upload,
            keep,
            sent: 0,
            is_heard: false,
            flushed: true,
            goes_on: false,
            write_error: None,
        }
    }

    /// Moves what can be moved from the client to the upstream, as long as it is its turn.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        while self.pace.poll_turn(cx).is_ready() {
            match self.poll_round(cx) {
                Poll::Ready(moved) => moved?,
                Poll::Pending => break,
            }
        }
        self.flush(cx);
        if self.upload_is_done() {
            // no more is moved: a turn that is not taken would hold up all others
            self.pace = Pace::default();
        }
        Ok(())
    }

    /// The same while the response comes.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        if self.upload_is_done() {
            return Ok(());
        }
        self.poll_upload(cx)
    }

    /// Takes from the client what there is room for, and writes once. `Pending` when nothing more
    /// can be moved now.
    pub(super) fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DownstreamError>> {
        if self.write_error.is_some() {
            return Poll::Pending;
        }
        self.pull(cx)?;
        if self.outbox.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.outbox.poll_write(cx, &mut self.connection.stream)) {
            Ok(written) => {
                self.sent += written as u64;
                self.pace.spend(written);
                self.flushed = false;
                if let Http1Upload::Done(kept) = &mut self.upload
                    && let ReplayableBody::Held(held) = kept
                {
                    *kept = ReplayableBody::Sent(held.coding, held.trailers.take());
                }
            }
            Err(cause) => self.write_error = Some(cause),
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if !self.flushed {
            match Pin::new(&mut self.connection.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(cause)) => self.write_error = Some(cause),
                Poll::Pending => {}
            }
        }
    }

    /// Takes content from the client while there is room.
    pub(super) fn pull(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        if let Http1Upload::Waiting(incoming, timer) = &mut self.upload
            && (incoming.notes.is_unasked.get()
                || timer
                    .as_mut()
                    .is_some_and(|timer| timer.as_mut().poll(cx).is_ready()))
        {
            self.go_on();
        }
        while self.outbox.octets() < UPLOAD_AHEAD {
            let Http1Upload::Running(incoming) = &mut self.upload else {
                break;
            };
            match Pin::new(&mut incoming.payload).poll_next(cx) {
                Poll::Ready(Some(Ok(content))) => {
                    if let Some(keep) = &mut self.keep {
                        keep.push(&content);
                    }
                    push_content(&mut self.outbox, &[content], incoming.coding);
                }
                Poll::Ready(Some(Err(cause))) => return Err(DownstreamError::of(&cause)),
                Poll::Ready(None) => {
                    let (coding, trailers) = (incoming.coding, incoming.notes.trailers.take());
                    if coding == BodyCoding::Chunked {
                        push_all(&mut self.outbox, BodyNotes::end_with(trailers.clone()));
                    }
                    self.upload = Http1Upload::Done(ReplayableBody::Sent(coding, trailers));
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Releases the body: the upstream asked for it.
    pub(super) fn go_on(&mut self) {
        self.upload = match std::mem::replace(&mut self.upload, Http1Upload::Taken) {
            Http1Upload::Waiting(incoming, _) => {
                self.goes_on = true;
                Http1Upload::Running(incoming)
            }
            other => other,
        };
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Http1Connection { stream, read, .. } = &mut self.connection;
        read.poll_read(cx, stream)
    }

    /// The final response head, if it is there. Interim ones are passed over (RFC 9110 §15.2).
    pub(super) fn parse(
        &mut self,
        method: &Method,
        parsed_to: &mut usize,
    ) -> Result<Option<ParsedHead>, UpstreamError> {
        loop {
            let buffer = &mut self.connection.read.octets;
            if buffer.is_empty() {
                return Ok(None);
            }
            // the first octets are parsed at once, so that a wrong protocol is seen at once
            if *parsed_to > 0 && !may_be_complete(buffer, *parsed_to) {
                *parsed_to = buffer.len();
                return within_limit(buffer.len()).map(|()| None);
            }
            *parsed_to = buffer.len();
            let Some(found) = parse_head(buffer, method)? else {
                return within_limit(buffer.len()).map(|()| None);
            };
            *parsed_to = 0;
            match found.head.status.as_u16() {
                101 => {
                    return match &self.upload {
                        Http1Upload::Switching(switch) if switch.agrees(&found.head) => {
                            Ok(Some(found))
                        }
                        _ => Err(UpstreamError::HttpUpgradeFailed),
                    };
                }
                100 => self.go_on(),
                102..=199 => {}
                _ => return Ok(Some(found)),
            }
        }
    }

    /// The whole body, if it can be given back.
    pub(super) fn unsent_body(mut self) -> Option<(Body, Option<Box<ReplayBuffer>>)> {
        let body = match self.upload {
            Http1Upload::Done(ReplayableBody::None) => Body::None,
            Http1Upload::Done(ReplayableBody::Held(held)) => Body::Held(held),
            Http1Upload::Waiting(incoming, _) => Body::Streamed(incoming),
            Http1Upload::Switching(switch) => Body::Tunnel(switch),
            // content that was pulled is in the outbox, framed: it is not taken apart again
            Http1Upload::Running(..)
            | Http1Upload::Done(ReplayableBody::Sent(..))
            | Http1Upload::Taken => {
                let Replay { body, keep } = self.take_body()?;
                return Some((body, Some(keep)));
            }
        };
        let mut keep = self.keep;
        if let Some(keep) = &mut keep {
            keep.take();
        }
        Some((body, keep))
    }

    /// The body from its beginning, if it was kept. Content that did not leave yet is not sent here
    /// any more.
    pub(super) fn take_body(&mut self) -> Option<Replay> {
        let mut keep = self.keep.take()?;
        let content = keep.take()?;
        let is_written = self.upload_is_done();
        let body = match std::mem::replace(&mut self.upload, Http1Upload::Taken) {
            Http1Upload::Done(kept) => {
                let (body, same) = match kept {
                    ReplayableBody::None => (Body::None, ReplayableBody::None),
                    ReplayableBody::Held(held) => {
                        let sent = ReplayableBody::Sent(held.coding, None);
                        (Body::Held(held), sent)
                    }
                    ReplayableBody::Sent(coding, trailers) => {
                        let held = BufferedBody {
                            content,
                            coding,
                            trailers,
                        };
                        (Body::Held(held), ReplayableBody::Sent(coding, None))
                    }
                };
                if is_written {
                    self.upload = Http1Upload::Done(same);
                }
                body
            }
            Http1Upload::Running(incoming) => Body::Streamed(StreamedBody {
                first: content,
                go_ahead: Continue::NotExpected,
                ..incoming
            }),
            Http1Upload::Waiting(incoming, _) => Body::Streamed(incoming),
            Http1Upload::Switching(switch) => Body::Tunnel(switch),
            Http1Upload::Taken => return None,
        };
        Some(Replay { body, keep })
    }

    /// Tells if the whole request left.
    pub(super) fn upload_is_done(&self) -> bool {
        matches!(self.upload, Http1Upload::Done(_))
            && self.outbox.is_empty()
            && self.flushed
            && self.write_error.is_none()
    }
}

fn push_all(outbox: &mut Outbox, pieces: [Bytes; 2]) {
    for piece in pieces {
        outbox.push(piece);
    }
}

fn push_content(outbox: &mut Outbox, pieces: &[Bytes], coding: BodyCoding) {
    let octets: usize = pieces.iter().map(Bytes::len).sum();
    if octets == 0 {
        return;
    }
    if coding == BodyCoding::Chunked {
        outbox.push(chunk_size_line(octets));
    }
    for piece in pieces {
        outbox.push(piece.clone());
    }
    if coding == BodyCoding::Chunked {
        outbox.push(Bytes::from_static(b"\r\n"));
    }
}
