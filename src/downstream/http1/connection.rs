//! State of one HTTP/1.1 connection.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use actix_http::{Request, body::BoxBody};
use actix_service::Service;
use actix_web::dev::ServiceResponse;
use bytes::Bytes;

use super::body::ClientWire;
use crate::{
    config::Timers,
    downstream::{
        client_connection::{ClientConnection, Protocol},
        delivery::{Delivery, DeliveryStatus},
        peer::Peer,
        permit::ConnectionPermit,
        service::Services,
        timer::Timer,
    },
    wire::{head::BodyNotes, outbox::Outbox, pace::Pace},
};

/// Reason for the abort of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionAbort {
    /// The client closed or reset the connection, or does not read.
    Client,
    /// The response body failed: the client must not take it for complete.
    Body,
    /// The drain timeout has passed, or an operator ended the exchange.
    Cut,
}

/// A connection that speaks HTTP/1.1, or whose protocol the first octets have yet to tell.
pub(crate) struct Http1ServerConnection<S, A> {
    pub(super) wire: Rc<RefCell<ClientWire<S>>>,
    pub(super) outbox: Outbox,
    pub(super) timers: Timers,
    pub(super) timer: Timer,
    /// Progress of what is written to the client.
    pub(super) delivery: Delivery,
    /// Turns of the response.
    pub(super) pace: Pace,
    pub(super) arrival: ClientConnection,
    pub(super) services: Rc<Services<A>>,
    pub(super) entry: ConnectionPermit,
    pub(super) ticket: Option<usize>,
    pub(super) searched: usize,
    /// Notes of the request that is being answered.
    pub(super) asked: Option<Rc<BodyNotes>>,
    /// The same notes where the response is the upstream's: its body drives the rest of the upload.
    pub(super) upload: Option<Rc<BodyNotes>>,
}

impl<S, A> Drop for Http1ServerConnection<S, A> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.services.drain.leave(ticket);
        }
    }
}

impl<S, A> Http1ServerConnection<S, A>
where
    S: Peer,
    A: Service<Request, Response = ServiceResponse<BoxBody>>,
{
    /// Wraps an accepted socket.
    pub(crate) fn new(
        stream: S,
        arrival: ClientConnection,
        services: Rc<Services<A>>,
        entry: ConnectionPermit,
        timers: Timers,
    ) -> Self {
        Self {
            wire: Rc::new(RefCell::new(ClientWire::new(stream))),
            outbox: Outbox::default(),
            timers,
            timer: Timer::default(),
            delivery: Delivery::default(),
            pace: Pace::default(),
            arrival,
            services,
            entry,
            ticket: None,
            searched: 0,
            asked: None,
            upload: None,
        }
    }

    /// Takes the connection apart for HTTP/2: socket, octets read so far, permit. None if HTTP/1.1
    /// was spoken.
    pub(crate) fn into_http2(mut self) -> Option<(S, Bytes, ConnectionPermit)> {
        if self.arrival.protocol != Protocol::Http2 {
            return None;
        }
        let wire = Rc::clone(&self.wire);
        let entry = self.entry.hand_over(&self.services);
        drop(self);
        let ClientWire { stream, read, .. } = Rc::into_inner(wire)?.into_inner();
        Some((stream, read.octets.freeze(), entry))
    }

    /// Takes the timers of the current configuration.
    pub(super) fn follow_timers(&mut self) {
        self.timers = self.services.live.load().timers;
    }

    /// Ready when the client has acknowledged nothing for the whole write timeout.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.timers.write;
        while let Some(look_at) = self.delivery.next_look(limit) {
            ready!(self.timer.poll(cx, look_at));
            let unacknowledged = self.wire.borrow().stream.unacknowledged();
            let asked = self.asked.as_ref();
            let received = asked.map_or(0, |asked| asked.octets.get());
            let now = Instant::now();
            if self.delivery.look(unacknowledged, received, now, limit) == DeliveryStatus::Stalled {
                if let Some(asked) = asked {
                    asked.is_stalled.set(true);
                }
                // what waits in the kernel goes with it
                self.wire.borrow().stream.reset_on_close();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
