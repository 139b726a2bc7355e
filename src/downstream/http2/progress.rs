//! The moments at which h2 has written everything that may be written.
//!
//! h2 does not tell when a HEADERS frame left its queue, and a reset of the stream takes back what is
//! still in there. A stream that is to be reset waits for such a moment first.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// Counts the moments, and wakes the streams that wait for the next one.
#[derive(Debug, Default)]
pub(super) struct WriteProgress {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl WriteProgress {
    /// The connection was polled until it could do no more, and its socket took all of it.
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
