//! The writing of a request body into a stream, as the peer's windows allow.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;

use super::head;
use crate::{
    error::DownstreamError,
    upstream::{
        exchange::Replay,
        pieces::Pieces,
        replay::ReplayBuffer,
        request::{Body, BodyCoding},
        upload::{BodyWriter, Upload},
    },
    wire::{
        head::ResponseHead,
        verification::{Edge, UpstreamEdges},
    },
};

/// Content of one stream in h2's buffer: a chunk of at most 48 KiB waits before it
/// (docs/contract.md §4.3).
pub(super) const SEND_BUFFER: usize = 16 * 1024;

/// The remaining request body.
pub(super) struct Http2Upload {
    pub(super) upload: Upload,
    writer: StreamWriter,
}

/// The sending half of a stream, and what waits for it.
struct StreamWriter {
    stream: SendStream<Bytes>,
    /// The piece that is being sent.
    current: Bytes,
    pieces: smallvec::IntoIter<[Bytes; 4]>,
    /// The end that follows the pieces, with these trailers.
    end: Option<Option<Bytes>>,
    /// Set once the stream was ended, or takes no more.
    is_over: bool,
    /// Octets of content that left.
    sent: u64,
    /// Digests what is sent, if the exchange is verified.
    edge: Option<Rc<Edge>>,
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
        keep: Option<Box<ReplayBuffer>>,
        edges: Option<&UpstreamEdges>,
    ) -> Self {
        let edge = edges.map(|edges| {
            edges.sent.begin(edges.framing, 0);
            Rc::clone(&edges.sent)
        });
        let mut writer = StreamWriter {
            stream,
            current: Bytes::new(),
            pieces: Pieces::new().into_iter(),
            end: None,
            is_over: Self::is_nothing(&body),
            sent: 0,
            edge,
        };
        Self {
            upload: Upload::new(body, keep, &mut writer),
            writer,
        }
    }

    /// Octets of content that left.
    pub(super) fn sent(&self) -> u64 {
        self.writer.sent
    }

    /// Tells if the upload is finished.
    pub(super) fn is_over(&self) -> bool {
        self.writer.is_over
    }

    /// Moves content from the client to the upstream, as far as both are ready.
    ///
    /// # Errors
    /// A fault of the client. A stream that takes no more content is no error here: an answer may
    /// come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), DownstreamError> {
        while !self.is_over() {
            self.upload.poll(cx, &mut self.writer)?;
            if self.writer.has_room() || self.writer.poll_write(cx).is_pending() {
                break;
            }
        }
        Ok(())
    }

    /// Takes note of a final response. Returns the request, if it was kept and another upstream may
    /// give a better answer; then no more is sent here of a body that was still running.
    pub(super) fn answered(&mut self, answer: &ResponseHead) -> Option<Box<Replay>> {
        let replay = self.upload.answered(answer, self.writer.is_over);
        self.writer.is_over |= self.upload.is_taken();
        replay
    }
}

impl StreamWriter {
    /// Sends one piece, as much of it as the windows allow, or the end.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.current.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.current = piece,
                None => self.finish(),
            }
            return Poll::Ready(());
        }
        let wanted = self.current.len().min(SEND_BUFFER);
        self.stream.reserve_capacity(wanted);
        let mut capacity = self.stream.capacity();
        if capacity == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(assigned)) => capacity = assigned,
                Some(Err(_)) | None => {
                    self.is_over = true;
                    return Poll::Ready(());
                }
            }
        }
        let piece = self.current.split_to(capacity.min(wanted));
        let octets = piece.len() as u64;
        let is_last = self.is_last();
        if let Some(edge) = &self.edge {
            edge.content(&piece);
            if is_last {
                edge.end();
            }
        }
        self.is_over = self.stream.send_data(piece, is_last).is_err() || is_last;
        self.sent += octets;
        Poll::Ready(())
    }

    /// Tells if the piece just taken is the end of the body.
    fn is_last(&self) -> bool {
        self.current.is_empty()
            && self.pieces.as_slice().iter().all(Bytes::is_empty)
            && self.end == Some(None)
    }

    fn finish(&mut self) {
        let Some(trailers) = self.end.take() else {
            return;
        };
        if let Some(edge) = &self.edge {
            edge.end();
        }
        // what fails here fails because the stream was reset: the response says so
        let _ = match trailers.as_deref().and_then(head::trailers) {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        self.is_over = true;
    }
}

impl BodyWriter for StreamWriter {
    fn has_room(&self) -> bool {
        self.current.is_empty() && self.pieces.len() == 0 && self.end.is_none()
    }

    fn write(&mut self, content: &[Bytes], _coding: BodyCoding) {
        self.pieces = Pieces::from(content).into_iter();
    }

    fn end(&mut self, _coding: BodyCoding, trailers: Option<&Bytes>) {
        self.end = Some(trailers.cloned());
    }
}
