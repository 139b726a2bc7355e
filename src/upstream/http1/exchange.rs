//! A running exchange over one HTTP/1.1 connection: the writing of the request, and the reading of the
//! response.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_web::http::Method;
use bytes::Bytes;
use tokio::io::AsyncWrite as _;

use super::{
    connection::Http1Connection,
    head::{ParsedHead, parse_head, within_limit},
};
use crate::{
    error::{DownstreamError, UpstreamError},
    upstream::{
        replay::ReplayBuffer,
        request::{Body, BodyCoding},
        upload::{BodyWriter, Upload},
    },
    wire::{
        body::{Framing, chunk_size_line},
        head::{BodyNotes, may_be_complete},
        outbox::Outbox,
        pace::Pace,
        verification::{Edge, UpstreamEdges},
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
    pub(super) upload: Upload,
    /// Octets of the request that left.
    pub(super) sent: u64,
    /// Set once a byte came from the upstream.
    pub(super) is_heard: bool,
    pub(super) flushed: bool,
    /// Set when the body was released and not polled since.
    pub(super) goes_on: bool,
    /// The error that ended writing. Reading goes on: an answer may be waiting.
    pub(super) write_error: Option<io::Error>,
    /// Digests of both directions, of an exchange that is verified.
    pub(super) edges: Option<Rc<UpstreamEdges>>,
    /// Digests what is read, once the response head is here.
    edge: Option<Rc<Edge>>,
}

impl Http1Exchange {
    pub(super) fn new(
        connection: Http1Connection,
        head: &Bytes,
        body: Body,
        keep: Option<Box<ReplayBuffer>>,
        edges: Option<&Rc<UpstreamEdges>>,
    ) -> Self {
        let mut outbox = Outbox::default();
        if let Some(edges) = edges {
            edges.sent.begin(edges.framing, head.len());
            outbox.digests(Some(Rc::clone(&edges.sent)));
        }
        outbox.push(head.clone());
        let upload = Upload::new(body, keep, &mut outbox);
        Self {
            connection,
            outbox,
            pace: Pace::default(),
            upload,
            sent: 0,
            is_heard: false,
            flushed: true,
            goes_on: false,
            write_error: None,
            edges: edges.cloned(),
            edge: None,
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
        self.upload.poll(cx, &mut self.outbox)?;
        if self.outbox.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.outbox.poll_write(cx, &mut self.connection.stream)) {
            Ok(written) => {
                self.sent += written as u64;
                self.upload.left();
                self.pace.spend(written);
                self.flushed = false;
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

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Http1Connection { stream, read, .. } = &mut self.connection;
        let before = read.octets.len();
        let outcome = read.poll_read(cx, stream);
        if let (Some(edge), Poll::Ready(Ok(1..))) = (&self.edge, &outcome) {
            edge.wire(&read.octets[before..]);
        }
        outcome
    }

    /// The response head is here: what follows it is the body.
    pub(super) fn digests_body(&mut self, framing: Framing) {
        if let Some(edges) = &self.edges {
            edges.received.begin(framing, 0);
            edges.received.wire(&self.connection.read.octets);
            self.edge = Some(Rc::clone(&edges.received));
        }
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
                    return match self.upload.agrees(&found.head) {
                        true => Ok(Some(found)),
                        false => Err(UpstreamError::HttpUpgradeFailed),
                    };
                }
                100 => self.goes_on |= self.upload.go_on(),
                102..=199 => {}
                _ => return Ok(Some(found)),
            }
        }
    }

    /// Tells if the whole request left.
    pub(super) fn upload_is_done(&self) -> bool {
        self.upload.is_ended()
            && self.outbox.is_empty()
            && self.flushed
            && self.write_error.is_none()
    }
}

impl BodyWriter for Outbox {
    fn has_room(&self) -> bool {
        self.octets() < UPLOAD_AHEAD
    }

    fn write(&mut self, content: &[Bytes], coding: BodyCoding) {
        let octets: usize = content.iter().map(Bytes::len).sum();
        let is_chunk = coding == BodyCoding::Chunked && octets > 0;
        if is_chunk {
            self.push(chunk_size_line(octets));
        }
        for piece in content {
            self.push(piece.clone());
        }
        if is_chunk {
            self.push(Bytes::from_static(b"\r\n"));
        }
    }

    fn end(&mut self, coding: BodyCoding, trailers: Option<&Bytes>) {
        if coding == BodyCoding::Chunked {
            for piece in BodyNotes::end_with(trailers.cloned()) {
                self.push(piece);
            }
        }
    }
}
