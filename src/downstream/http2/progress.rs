//! Flush points of a connection, at which h2 has written everything that may be written.
//!
//! h2 does not tell when a HEADERS frame left its queue, and a reset of the stream takes back what
//! is still in there. A stream waits for a flush point before it is reset.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// Counter of flush points; wakes the streams that wait for the next one.
#[derive(Debug, Default)]
pub(super) struct WriteProgress {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl WriteProgress {
    /// Records a flush point: the connection made no more progress, and its socket took everything.
    pub(super) fn all(&self) {
        self.count.set(self.count.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until what was given to h2 before this call is written, unless the client's windows hold
    /// it back. A client that takes nothing ends its connection after `WRITE_TIMEOUT`.
    pub(super) async fn wait(&self) {
        let before = self.count.get();
        poll_fn(|cx| {
            if self.count.get() > before {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
