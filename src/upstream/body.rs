//! The body of a response, over either HTTP version.
//!
//! A choice between two and nothing else: the cost of a chunk is decided in [`super::http1`] and
//! [`super::http2`].

use std::{
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    exchange::BodyError,
    http1::{Http1Body, UpstreamTunnel},
    http2::Http2Body,
};
use crate::wire::verification::UpstreamEdges;

/// The body of a response. To drop it before its end ends the exchange with the upstream.
#[derive(Debug)]
pub enum ResponseBody {
    /// Over a connection of its own.
    Http1(Http1Body),
    /// Over a stream.
    Http2(Http2Body),
    /// Either of them, whose beginning was read already.
    Prefetched(Box<Prefetched>),
}

impl ResponseBody {
    /// More content, `None` at the end. Drives the rest of the upload, too.
    pub fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Http1(body) => body.poll_content(cx),
            Self::Http2(body) => body.poll_content(cx),
            Self::Prefetched(body) => body.poll_content(cx),
        }
    }

    /// Drives the rest of the upload, and takes nothing of the response.
    ///
    /// # Errors
    /// A fault of the client's upload.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        match self {
            Self::Http1(body) => body.poll_upload(cx),
            Self::Http2(body) => body.poll_upload(cx),
            Self::Prefetched(body) => body.poll_upload(cx),
        }
    }

    /// Tells if the whole response was read.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_done(),
            Self::Http2(body) => body.is_done(),
            Self::Prefetched(body) => body.is_done(),
        }
    }

    /// The tunnel that the upstream agreed to.
    pub fn into_tunnel(self) -> Option<UpstreamTunnel> {
        match self {
            Self::Http1(body) => body.into_tunnel(),
            Self::Http2(_) | Self::Prefetched(_) => None,
        }
    }

    /// Digests of the exchange, if it is verified.
    pub fn edges(&self) -> Option<&Rc<UpstreamEdges>> {
        match self {
            Self::Http1(body) => body.edges(),
            Self::Http2(body) => body.edges(),
            Self::Prefetched(body) => body.rest.edges(),
        }
    }

    /// The raw trailer section, once the body has ended.
    pub fn take_trailers(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(body) => body.take_trailers(),
            Self::Http2(body) => body.take_trailers(),
            Self::Prefetched(body) => body.take_trailers(),
        }
    }
}

/// A body of which the first event was read already.
#[derive(Debug)]
pub struct Prefetched {
    pub(super) content: VecDeque<Bytes>,
    /// The error that ended the reading.
    pub(super) failure: Option<BodyError>,
    pub(super) rest: ResponseBody,
}

impl Prefetched {
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(content) = self.content.pop_front() {
            return Poll::Ready(Some(Ok(content)));
        }
        match self.failure.take() {
            Some(cause) => Poll::Ready(Some(Err(cause))),
            None => self.rest.poll_content(cx),
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        self.rest.poll_upload(cx)
    }

    fn is_done(&self) -> bool {
        self.content.is_empty() && self.failure.is_none() && self.rest.is_done()
    }

    fn take_trailers(&mut self) -> Option<Bytes> {
        self.rest.take_trailers()
    }
}
