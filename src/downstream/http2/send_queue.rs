//! Content of a stream that h2 has not written yet.
//!
//! The h2 crate queues content until the client's windows and the socket take it. It hands the
//! pieces to its socket through `Buf`, where they are counted: the stream knows how much still
//! waits, and whether any of it moved.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use bytes::{Buf, Bytes};

use crate::wire::verification::Edge;

/// Octets of one stream that wait to be written.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    octets: Cell<usize>,
    /// True if some octets left since the last call of [`SendQueue::has_moved`].
    moved: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Digests what is written, of a response that is verified.
    pub(super) edge: OnceCell<Rc<Edge>>,
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

    /// Reports whether some octets left since the last call.
    pub(super) fn has_moved(&self) -> bool {
        self.moved.take()
    }

    /// Wakes the task when some octets leave.
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

/// Piece of content that counts itself out of its queue as it is written or dropped.
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
        if let Some(edge) = self.queue.edge.get() {
            edge.content(&self.octets[..count]);
        }
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
