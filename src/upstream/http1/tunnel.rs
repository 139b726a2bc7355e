//! A connection to the upstream that has switched protocols (RFC 9110 §7.8): bytes both ways.
//!
//! Each direction ends by itself. Dropping it before both have ended is an abort: the upstream sees
//! a reset. It sets no timer and inspects no bytes.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite as _;

use super::exchange::Http1Exchange;
use crate::upstream::exchange::BodyError;

/// Writes of the client's bytes before the upstream's have their turn, so that neither direction
/// starves the other.
const ROUNDS: usize = 4;

/// Both directions of a connection.
pub struct UpstreamTunnel {
    exchange: Box<Http1Exchange>,
    /// Set once the end of the client's direction was sent to the upstream.
    is_shut: bool,
    /// Set once the upstream has ended its direction.
    has_ended: bool,
}

impl UpstreamTunnel {
    pub(super) fn new(exchange: Box<Http1Exchange>) -> Self {
        Self {
            exchange,
            is_shut: false,
            has_ended: false,
        }
    }

    /// Sends the client's bytes and returns the upstream's, unless they are held back; `None` once
    /// both directions have ended. After an error it may only be dropped.
    pub fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        is_held_back: bool,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Err(cause) = self.send(cx) {
            return Poll::Ready(Some(Err(cause)));
        }
        if !self.has_ended && !is_held_back {
            match self.poll_receive(cx) {
                Poll::Ready(Ok(content)) if content.is_empty() => self.has_ended = true,
                Poll::Ready(content) => return Poll::Ready(Some(content.map_err(BodyError::Io))),
                Poll::Pending => {}
            }
        }
        if self.has_ended && self.is_shut {
            return Poll::Ready(None);
        }
        // what cannot be written, or is not read, may have been aborted
        if let Some(cause) = self.exchange.write_error.take() {
            return Poll::Ready(Some(Err(BodyError::Io(cause))));
        }
        if (self.has_ended || is_held_back) && self.exchange.connection.stream.is_aborted() {
            let cause = io::ErrorKind::ConnectionReset.into();
            return Poll::Ready(Some(Err(BodyError::Io(cause))));
        }
        Poll::Pending
    }

    /// Tells if the upstream has ended its direction.
    pub fn upstream_ended(&self) -> bool {
        self.has_ended
    }

    /// Octets that left for the upstream, the head of the request among them.
    pub fn sent(&self) -> u64 {
        self.exchange.sent
    }

    /// Sends the client's bytes, and then its end.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let exchange = &mut self.exchange;
        let mut rounds = 0;
        while let Poll::Ready(moved) = exchange.poll_round(cx) {
            moved.map_err(BodyError::Downstream)?;
            rounds += 1;
            if rounds == ROUNDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        exchange.flush(cx);
        if exchange.upload_is_done() && !self.is_shut {
            match Pin::new(&mut exchange.connection.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.is_shut = true,
                Poll::Ready(Err(cause)) => exchange.write_error = Some(cause),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Reads from the upstream; no bytes at its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Http1Exchange {
            connection,
            write_error,
            ..
        } = &mut *self.exchange;
        if connection.read.octets.is_empty() {
            let read = match connection.stream.poll_readable(cx) {
                Poll::Ready(()) => connection.read.poll_read(cx, &mut connection.stream),
                Poll::Pending => Poll::Pending,
            };
            match read {
                // a connection that was reset seems to end, if a write was told of it first
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(write_error.take().map_or(Ok(Bytes::new()), Err));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(cause)),
                Poll::Pending => {
                    connection.read.release();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(connection.read.octets.split().freeze()))
    }
}

impl Drop for UpstreamTunnel {
    fn drop(&mut self) {
        if !(self.has_ended && self.is_shut) {
            self.exchange.connection.stream.reset_on_close();
        }
    }
}

impl fmt::Debug for UpstreamTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTunnel")
            .field("is_shut", &self.is_shut)
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}
