//! Stream that has switched protocols (RFC 8441): octets both ways, until both directions have
//! ended.
//!
//! `END_STREAM` ends one direction, like a TCP FIN; a reset is an abort.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::body::{BoxBody, MessageBody};
use h2::server::SendResponse;

use super::{
    context::ConnectionContext,
    outbound::{StreamAbort, StreamOutbound},
    request::BlockEnd,
    response::Head,
    send_queue::QueuedPiece,
};
use crate::{downstream::limits::WRITE_AHEAD, wire::head::TunnelNotes};

/// Client side of a tunnel.
struct Http2Tunnel {
    outbound: StreamOutbound,
    /// Gives the upstream's octets and takes the client's; none once both directions have ended.
    body: Option<BoxBody>,
    notes: Rc<TunnelNotes>,
    /// True once `END_STREAM` was sent after the end of the upstream.
    is_shut: bool,
    /// True if one direction was aborted: content taken before that is still sent.
    has_failed: bool,
}

/// Sends this head and runs the tunnel.
pub(super) async fn tunnel<A>(
    head: Head,
    body: BoxBody,
    notes: Rc<TunnelNotes>,
    respond: &mut SendResponse<QueuedPiece>,
    shared: &ConnectionContext<A>,
) -> Result<(), StreamAbort> {
    let mut tunnel = Http2Tunnel {
        outbound: StreamOutbound::begin(respond, head, shared)?,
        body: Some(body),
        notes,
        is_shut: false,
        has_failed: false,
    };
    let limit = shared.timers.get().write;
    poll_fn(|cx| {
        tunnel.pull(cx)?;
        if tunnel.outbound.queue.octets() == 0 {
            tunnel.outbound.stalled = None;
            return match tunnel.body {
                Some(_) => Poll::Pending,
                None if tunnel.has_failed => Poll::Ready(Err(StreamAbort::Body)),
                None => Poll::Ready(Ok(())),
            };
        }
        ready!(tunnel.outbound.poll_stalled(cx, limit, 0));
        Poll::Ready(Err(StreamAbort::Stalled))
    })
    .await
}

impl Http2Tunnel {
    /// Moves the client's octets, and takes the upstream's while there is room.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<(), StreamAbort> {
        if self.outbound.sender.poll_reset(cx).is_ready() {
            return Err(StreamAbort::Client);
        }
        while let Some(body) = &mut self.body {
            let is_full = self.outbound.queue.octets() >= WRITE_AHEAD;
            self.notes.is_held_back.set(is_full);
            match Pin::new(body).poll_next(cx) {
                Poll::Ready(Some(Ok(octets))) => self.outbound.send(octets, BlockEnd::Block)?,
                Poll::Ready(Some(Err(_))) => {
                    (self.body, self.has_failed) = (None, true);
                    return Ok(());
                }
                Poll::Ready(None) => self.body = None,
                Poll::Pending => break,
            }
        }
        if self.has_failed {
            return Ok(());
        }
        if !self.is_shut && (self.notes.upstream_ended.get() || self.body.is_none()) {
            self.is_shut = true;
            self.outbound.send(bytes::Bytes::new(), BlockEnd::Stream)?;
        }
        Ok(())
    }
}
