//! The body of a response that comes over a stream: content as it comes, and the rest of the upload
//! meanwhile.
//!
//! A chunk is released to the peer's window when the next one is requested: a client that does not
//! read holds back its own stream, and no other.

use std::{
    fmt,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;

use super::{connection::StreamPermit, errors::terse, head, upload::Http2Upload};
use crate::{upstream::exchange::BodyError, wire::verification::UpstreamEdges};

/// The body of a response. To drop it before its end resets the stream.
pub struct Http2Body {
    /// In a box, so that an HTTP/1.1 exchange is not moved about with the room for it.
    running: Option<Box<RunningStream>>,
    trailers: Option<Bytes>,
    edges: Option<Rc<UpstreamEdges>>,
}

/// Both directions of a stream. Fields are dropped in this order: the claim last.
struct RunningStream {
    receive: RecvStream,
    upload: Http2Upload,
    /// Bytes of the last chunk that were not released to the peer's window yet.
    owed: usize,
    claim: StreamPermit,
}

impl Http2Body {
    /// A body that is complete already.
    pub(super) fn ended(edges: Option<Rc<UpstreamEdges>>) -> Self {
        Self {
            running: None,
            trailers: None,
            edges,
        }
    }

    pub(super) fn new(
        receive: RecvStream,
        upload: Http2Upload,
        claim: StreamPermit,
        edges: Option<Rc<UpstreamEdges>>,
    ) -> Self {
        Self {
            running: Some(Box::new(RunningStream {
                receive,
                upload,
                owed: 0,
                claim,
            })),
            trailers: None,
            edges,
        }
    }

    /// More content, `None` at the end. Drives the rest of the upload, too.
    pub fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let outcome = self.poll_inner(cx);
        if let Poll::Ready(None | Some(Err(_))) = outcome {
            self.running = None;
        }
        outcome
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(running) = &mut self.running else {
            return Poll::Ready(None);
        };
        let RunningStream {
            receive,
            upload,
            owed,
            claim,
        } = &mut **running;
        if *owed > 0 {
            claim.consumed(*owed);
            // an error would mean that more is paid back than came: it cannot
            let _ = receive.flow_control().release_capacity(*owed);
            *owed = 0;
        }
        if !upload.is_over()
            && let Err(cause) = upload.poll(cx)
        {
            return Poll::Ready(Some(Err(BodyError::Downstream(cause))));
        }
        loop {
            match ready!(receive.poll_data(cx)) {
                // an empty DATA frame is no end
                Some(Ok(content)) if content.is_empty() => {}
                Some(Ok(content)) => {
                    if let Some(edges) = &self.edges {
                        edges.received.content(&content);
                    }
                    if receive.is_end_stream() {
                        self.running = None;
                    } else {
                        *owed = content.len();
                    }
                    return Poll::Ready(Some(Ok(content)));
                }
                Some(Err(cause)) => return failed(cause),
                None => break,
            }
        }
        match ready!(receive.poll_trailers(cx)) {
            Ok(fields) => {
                self.trailers = fields.as_ref().and_then(head::raw_trailers);
                Poll::Ready(None)
            }
            Err(cause) => failed(cause),
        }
    }

    /// Drives the rest of the upload, and takes nothing of the response.
    ///
    /// # Errors
    /// A fault of the client's upload.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let outcome = match &mut self.running {
            Some(running) if !running.upload.is_over() => running.upload.poll(cx),
            _ => Ok(()),
        };
        if outcome.is_err() {
            self.running = None;
        }
        outcome.map_err(BodyError::Downstream)
    }

    /// Tells if the whole response was read.
    pub fn is_done(&self) -> bool {
        self.running.is_none()
    }

    /// Digests of the exchange, if it is verified.
    pub fn edges(&self) -> Option<&Rc<UpstreamEdges>> {
        self.edges.as_ref()
    }

    /// The raw trailer section, once the body has ended.
    pub fn take_trailers(&mut self) -> Option<Bytes> {
        self.trailers.take()
    }
}

impl fmt::Debug for Http2Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Body")
            .field("is_done", &self.is_done())
            .finish_non_exhaustive()
    }
}

fn failed(cause: h2::Error) -> Poll<Option<Result<Bytes, BodyError>>> {
    Poll::Ready(Some(Err(BodyError::Io(terse(cause)))))
}
