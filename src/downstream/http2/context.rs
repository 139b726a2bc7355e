//! State that the streams of one HTTP/2 connection share.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use super::{monitor::FrameMonitor, progress::WriteProgress, socket::Socket};
use crate::{
    config::Timers,
    downstream::{
        client_connection::ClientConnection, permit::ConnectionPermit, service::Services,
    },
    wire::window::Windows,
};

/// State that the streams of a connection share.
pub(super) struct ConnectionContext<A> {
    pub(super) services: Rc<Services<A>>,
    pub(super) arrival: ClientConnection,
    pub(super) timers: Cell<Timers>,
    /// Permit of the connection.
    pub(super) entry: RefCell<ConnectionPermit>,
    pub(super) watch: Rc<FrameMonitor>,
    pub(super) socket: Rc<dyn Socket>,
    pub(super) written: WriteProgress,
    pub(super) windows: Rc<Windows>,
}

impl<A> ConnectionContext<A> {
    /// Takes the timers of the current configuration.
    pub(super) fn follow_timers(&self) {
        self.timers.set(self.services.live.load().timers);
    }

    /// Reports whether the connection counts below `MAX_CONNECTIONS`, and takes a slot that has
    /// become free.
    pub(super) fn take_slot(&self) -> bool {
        self.entry.borrow_mut().take_slot(&self.services)
    }
}
