//! Connection that has switched protocols (RFC 9110 §7.8): octets both ways, until both directions
//! have ended.
//!
//! Each end is passed on separately: one direction may go on after the other has ended. An abort by
//! one peer, or a write timeout, aborts both directions.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use actix_http::{
    Request,
    body::{BoxBody, MessageBody},
};
use actix_service::Service;
use actix_web::dev::ServiceResponse;

use super::{
    connection::{ConnectionAbort, Http1ServerConnection},
    io::poll_flush,
    response,
};
use crate::{
    downstream::{
        limits::{WATCH_INTERVAL, WRITE_AHEAD},
        peer::Peer,
    },
    drain::DrainPhase,
    wire::{
        body::{Decoder, Framing},
        head::{RelayedHead, TunnelNotes},
    },
};

/// Client side of a tunnel.
struct Http1Tunnel {
    /// Gives the upstream's octets and takes the client's; none once both directions have ended.
    body: Option<BoxBody>,
    notes: Rc<TunnelNotes>,
    /// True once the client's sending side was shut down after the end of the upstream's.
    is_shut: bool,
}

impl<S, A> Http1ServerConnection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    /// Sends this head, a 101, and runs the tunnel.
    pub(super) async fn tunnel(
        &mut self,
        head: RelayedHead,
        body: BoxBody,
    ) -> Result<(), ConnectionAbort> {
        let mut tunnel = Http1Tunnel {
            body: Some(body),
            notes: head.tunnel.clone().unwrap_or_default(),
            is_shut: false,
        };
        self.outbox.push(response::switching(head));
        self.wire.borrow_mut().decoder = Decoder::new(Framing::UntilClose);
        let outcome = std::future::poll_fn(|cx| self.poll_tunnel(cx, &mut tunnel)).await;
        if outcome.is_err() {
            self.wire.borrow().stream.reset_on_close();
        }
        outcome
    }

    fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &mut Http1Tunnel,
    ) -> Poll<Result<(), ConnectionAbort>> {
        self.wire.borrow_mut().is_awaited = false;
        loop {
            let has_turn = self.pace.poll_turn(cx).is_ready();
            let is_full = self.pull_tunnel(cx, tunnel, has_turn);
            let waiting = self.outbox.octets();
            let mut wire = self.wire.borrow_mut();
            let flushed = poll_flush(cx, &mut self.outbox, &mut wire.stream, &mut self.delivery);
            self.pace.spend(waiting - self.outbox.octets());
            match flushed {
                Err(_) => return Poll::Ready(Err(ConnectionAbort::Client)),
                // an abort does not wait for a client that does not read
                Ok(_) if is_full.is_err() => return Poll::Ready(Err(ConnectionAbort::Body)),
                Ok(Poll::Ready(())) if tunnel.body.is_none() => return Poll::Ready(Ok(())),
                Ok(Poll::Ready(())) if is_full == Ok(true) && has_turn => continue,
                Ok(Poll::Ready(())) if tunnel.notes.upstream_ended.get() && !tunnel.is_shut => {
                    match Pin::new(&mut wire.stream).poll_shutdown(cx) {
                        Poll::Ready(Ok(())) => tunnel.is_shut = true,
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(ConnectionAbort::Client)),
                        Poll::Pending => {}
                    }
                }
                Ok(_) => {}
            }
            break;
        }
        if self.services.drain.phase() == DrainPhase::Cut {
            return Poll::Ready(Err(ConnectionAbort::Cut));
        }
        if self.poll_stalled(cx).is_ready() {
            return Poll::Ready(Err(ConnectionAbort::Client));
        }
        // a client that is not read from is checked at intervals: its abort must reach the upstream
        let wire = self.wire.borrow();
        if !wire.is_awaited && wire.stream.is_aborted() {
            return Poll::Ready(Err(ConnectionAbort::Client));
        }
        // not the outbox: under TLS the last record may wait after it
        let is_blocked = self.delivery.is_blocked();
        if is_blocked || !wire.is_awaited || tunnel.notes.upstream_ended.get() {
            let look = WATCH_INTERVAL.min(self.timers.write);
            if self.timer.poll(cx, Instant::now() + look).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Moves the client's octets, and takes the upstream's in its turn and while the outbox has
    /// room. Returns true if the outbox is full.
    fn pull_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        tunnel: &mut Http1Tunnel,
        has_turn: bool,
    ) -> Result<bool, ConnectionAbort> {
        loop {
            let is_full = self.outbox.octets() >= WRITE_AHEAD;
            let Some(body) = &mut tunnel.body else {
                return Ok(is_full);
            };
            tunnel.notes.is_held_back.set(is_full || !has_turn);
            match Pin::new(body).poll_next(cx) {
                Poll::Ready(Some(Ok(content))) => self.outbox.push(content),
                Poll::Ready(Some(Err(_))) => return Err(ConnectionAbort::Body),
                Poll::Ready(None) => tunnel.body = None,
                Poll::Pending => return Ok(is_full),
            }
        }
    }
}
