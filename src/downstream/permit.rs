//! Permit of a connection: a slot below `MAX_CONNECTIONS`, or an overflow permit beyond it.

use std::task::{Context, Poll};

use super::service::Services;
use crate::limits::{Admission, OverflowPermit};

/// Permit of one connection.
#[derive(Debug)]
pub struct ConnectionPermit {
    /// Counts the socket, for the drain.
    _open: Admission,
    slot: Option<Admission>,
    overflow: Option<OverflowPermit>,
}

impl<A> Services<A> {
    /// Admits a connection. None if neither a slot nor an overflow permit is left: the caller
    /// closes it.
    pub fn admit(&self) -> Option<ConnectionPermit> {
        let slot = self.limits.slot(self.max_connections);
        let overflow = match slot {
            Some(_) => None,
            None => Some(self.overflow.permit()?),
        };
        Some(ConnectionPermit {
            _open: self.limits.connection(),
            slot,
            overflow,
        })
    }
}

impl ConnectionPermit {
    /// Reports whether the connection has a slot below the limit, and takes one that has become
    /// free.
    pub(super) fn take_slot<A>(&mut self, services: &Services<A>) -> bool {
        if self.slot.is_none() {
            self.slot = services.limits.slot(services.max_connections);
        }
        if self.slot.is_some() {
            self.overflow = None;
        }
        self.slot.is_some()
    }

    /// Reports whether the connection has a slot below the limit.
    pub(super) fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// Records whether the connection waits for its client.
    pub(super) fn set_idle(&self, is_idle: bool) {
        if let Some(permit) = &self.overflow {
            permit.set_idle(is_idle);
        }
    }

    /// Ready once a newcomer has taken the overflow permit: the connection is to be closed.
    pub(super) fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.overflow {
            Some(permit) => permit.poll_evicted(cx),
            None => Poll::Pending,
        }
    }

    /// Waits until a newcomer has taken the overflow permit.
    pub async fn evicted(&self) {
        match &self.overflow {
            Some(permit) => permit.evicted().await,
            None => std::future::pending().await,
        }
    }

    /// Moves the permit to the connection's next protocol.
    pub(super) fn hand_over<A>(&mut self, services: &Services<A>) -> Self {
        Self {
            _open: services.limits.connection(),
            slot: self.slot.take(),
            overflow: self.overflow.take(),
        }
    }
}
