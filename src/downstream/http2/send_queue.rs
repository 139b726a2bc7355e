//! Content on its way out of a stream, and how much of it waits.
//!
//! The h2 crate queues what it is given until the client's windows and the socket take it. It hands
//! the pieces to its socket through `Buf`, and that is where they are counted: so the stream knows
//! what still waits, and whether any of it moved.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use bytes::{Buf, Bytes};

/// What waits of one stream.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    octets: Cell<usize>,
    /// Whether some of it left since this was asked last.
    moved: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl SendQueue {
    /// Adds a piece.
    pub(super) fn piece(self: &Rc<Self>, octets: Bytes) -> QueuedPiece {
        self.octets.set(self.octets.get() + octets.len());
        QueuedPiece {
            octets,
            queue: Rc::clone(self),
        }
    }

    /// Octets that wait.
    pub(super) fn octets(&self) -> usize {
        self.octets.get()
    }

    /// Whether some left since this was asked last.
    pub(super) fn has_moved(&self) -> bool {
        self.moved.take()
    }

    /// Wakes when some leave.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.waker.replace(Some(cx.waker().clone()));
    }

    fn leave(&self, octets: usize) {
        self.octets.set(self.octets.get() - octets);
        self.moved.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Content that counts itself out of its queue as it leaves, or is thrown away.
#[derive(Debug)]
pub(super) struct QueuedPiece {
    octets: Bytes,
    queue: Rc<SendQueue>,
}

impl Buf for QueuedPiece {
    fn remaining(&self) -> usize {
        self.octets.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.octets
    }

    fn advance(&mut self, count: usize) {
        self.octets.advance(count);
        self.queue.leave(count);
    }
}

impl Drop for QueuedPiece {
    fn drop(&mut self) {
        if !self.octets.is_empty() {
            self.queue.leave(self.octets.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_or_is_dropped_no_longer_waits() {
        let queue = Rc::new(SendQueue::default());
        let mut piece = queue.piece(Bytes::from_static(b"hello"));
        assert_eq!((queue.octets(), queue.has_moved()), (5, false));
        piece.advance(2);
        assert_eq!((queue.octets(), queue.has_moved()), (3, true));
        drop(piece);
        assert_eq!((queue.octets(), queue.has_moved()), (0, true));
        assert!(!queue.has_moved());
    }
}
