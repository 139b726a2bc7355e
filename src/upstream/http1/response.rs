//! The body of a response: content as it comes, the rest of the upload meanwhile, and at the end the
//! connection back to the pool, or not.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{exchange::Http1Exchange, pool::Http1Pool, tunnel::UpstreamTunnel};
use crate::{
    upstream::exchange::BodyError,
    wire::{
        body::{Decoded, Decoder, Framing},
        verification::UpstreamEdges,
    },
};

/// The body of a response. To drop it before its end closes the connection to the upstream.
#[derive(Debug)]
pub struct Http1Body {
    decoder: Decoder,
    exchange: Option<Box<Http1Exchange>>,
    pool: Rc<Http1Pool>,
    reusable: bool,
    trailers: Option<Bytes>,
    edges: Option<Rc<UpstreamEdges>>,
}

impl Http1Body {
    pub(super) fn new(
        mut exchange: Box<Http1Exchange>,
        framing: Framing,
        reusable: bool,
        pool: &Rc<Http1Pool>,
    ) -> Self {
        exchange.digests_body(framing);
        let mut body = Self {
            edges: exchange.edges.clone(),
            decoder: Decoder::new(framing),
            exchange: Some(exchange),
            pool: Rc::clone(pool),
            reusable,
            trailers: None,
        };
        if body.decoder.is_done() {
            body.finish();
        }
        body
    }

    /// More content, `None` at the end. Drives the rest of the upload, too.
    pub fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let outcome = self.poll_inner(cx);
        if let Poll::Ready(Some(Err(_))) = outcome {
            self.exchange = None;
        }
        outcome
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let Some(exchange) = &mut self.exchange else {
                return Poll::Ready(None);
            };
            if let Err(cause) = exchange.poll_rest(cx) {
                return Poll::Ready(Some(Err(BodyError::Downstream(cause))));
            }
            match self.decoder.decode(&mut exchange.connection.read.octets) {
                Ok(Decoded::Content(content)) => {
                    if self.decoder.is_done() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(content)));
                }
                Ok(Decoded::End(trailers)) => {
                    self.trailers = trailers;
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Decoded::NeedMore) => {}
                Err(_) => return Poll::Ready(Some(Err(BodyError::Malformed))),
            }
            match exchange.poll_read(cx) {
                Poll::Ready(Ok(0)) if self.decoder.ends_with_connection() => {
                    self.exchange = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Err(BodyError::Truncated))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Poll::Ready(Some(Err(BodyError::Io(cause)))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Drives the rest of the upload, and takes nothing of the response.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(exchange) = &mut self.exchange else {
            return Ok(());
        };
        let outcome = exchange.poll_rest(cx).map_err(BodyError::Downstream);
        if outcome.is_err() {
            self.exchange = None;
        }
        outcome
    }

    /// The body of a 101: bytes both ways. `None` if this response is complete.
    pub fn into_tunnel(self) -> Option<UpstreamTunnel> {
        self.exchange.map(UpstreamTunnel::new)
    }

    /// Tells if the whole response was read.
    pub fn is_done(&self) -> bool {
        self.exchange.is_none()
    }

    /// Digests of the exchange, if it is verified.
    pub fn edges(&self) -> Option<&Rc<UpstreamEdges>> {
        self.edges.as_ref()
    }

    /// The raw trailer section, once the body has ended.
    pub fn take_trailers(&mut self) -> Option<Bytes> {
        self.trailers.take()
    }

    /// The response is complete: the connection may serve again, or is closed.
    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take()
            && self.reusable
            && exchange.upload_is_done()
            && exchange.connection.read.octets.is_empty()
        {
            self.pool.put(exchange.connection);
        }
    }
}
