//! Socket of an HTTP/2 connection as its streams see it.

use std::cell::RefCell;

use crate::downstream::peer::Peer;

/// Socket of a connection as its streams see it.
pub(super) trait Socket {
    /// Octets that were sent and that the client has not acknowledged, where the kernel tells.
    fn unacknowledged(&self) -> Option<u64>;
    /// Makes the coming close a reset, which drops the octets that wait in the kernel.
    fn reset_on_close(&self);
}

impl<S: Peer> Socket for RefCell<S> {
    fn unacknowledged(&self) -> Option<u64> {
        self.borrow().unacknowledged()
    }

    fn reset_on_close(&self) {
        self.borrow().reset_on_close();
    }
}
