//! Idle timer for one peer.
//!
//! It is made at the first wait and moved only when it fires, so that a chunk costs at most one
//! read of the clock. It counts only while the proxy waits for the peer: time in which the proxy
//! does not read, because the other side does not take the octets, is not idle time.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

/// Timer that fires when a peer has sent nothing for the whole timeout.
#[derive(Debug)]
pub struct IdleTimer {
    limit: Duration,
    timer: Option<Pin<Box<actix_rt::time::Sleep>>>,
    /// Start of the wait for the peer.
    since: Option<Instant>,
}

impl IdleTimer {
    /// Makes a timer with this timeout.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            timer: None,
            since: None,
        }
    }

    /// Records that octets came.
    pub fn heard(&mut self) {
        self.since = None;
    }

    /// Ready if nothing has come for the whole timeout.
    pub fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(actix_rt::time::sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn only_time_of_waiting_is_silence() {
        let limit = Duration::from_secs(60);
        let mut idle = IdleTimer::new(limit);
        let poll = |idle: &mut IdleTimer| {
            idle.poll_silence(&mut Context::from_waker(std::task::Waker::noop()))
        };
        assert!(poll(&mut idle).is_pending());
        idle.heard();
        // no reads for longer than the limit: the peer is not to blame
        tokio::time::advance(2 * limit).await;
        assert!(poll(&mut idle).is_pending());
        let start = Instant::now();
        poll_fn(|cx| idle.poll_silence(cx)).await;
        assert_eq!(start.elapsed().as_secs(), limit.as_secs());
    }
}
