//! What a connection is served by: its place below the limit of connections, or a permit beyond it.

use std::task::{Context, Poll};

use super::service::Services;
use crate::limits::{Admission, OverflowPermit};

/// The admission of one connection.
#[derive(Debug)]
pub struct ConnectionPermit {
    /// Counts the socket, for the drain.
    _open: Admission,
    seat: Option<Admission>,
    overflow: Option<OverflowPermit>,
}

impl<A> Services<A> {
    /// Admits a connection. Where there is neither a place nor a permit left, it is to be closed.
    pub fn admit(&self) -> Option<ConnectionPermit> {
        let seat = self.limits.seat(self.max_connections);
        let overflow = match seat {
            Some(_) => None,
            None => Some(self.overflow.permit()?),
        };
        Some(ConnectionPermit {
            _open: self.limits.connection(),
            seat,
            overflow,
        })
    }
}

impl ConnectionPermit {
    /// Whether there is a place below the limit, taking one that has become free since.
    pub(super) fn has_seat<A>(&mut self, services: &Services<A>) -> bool {
        if self.seat.is_none() {
            self.seat = services.limits.seat(services.max_connections);
        }
        if self.seat.is_some() {
            self.overflow = None;
        }
        self.seat.is_some()
    }

    /// Whether there is a place below the limit.
    pub(super) fn is_seated(&self) -> bool {
        self.seat.is_some()
    }

    /// Says whether the connection waits for its client.
    pub(super) fn set_idle(&self, is_idle: bool) {
        if let Some(permit) = &self.overflow {
            permit.set_idle(is_idle);
        }
    }

    /// Ready once the connection has lost its permit: it is to be closed.
    pub(super) fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.overflow {
            Some(permit) => permit.poll_evicted(cx),
            None => Poll::Pending,
        }
    }

    /// Waits until the connection has lost its permit.
    pub async fn evicted(&self) {
        match &self.overflow {
            Some(permit) => permit.evicted().await,
            None => std::future::pending().await,
        }
    }

    /// Takes what it holds to the connection's next protocol.
    pub(super) fn hand_over<A>(&mut self, services: &Services<A>) -> Self {
        Self {
            _open: services.limits.connection(),
            seat: self.seat.take(),
            overflow: self.overflow.take(),
        }
    }
}
