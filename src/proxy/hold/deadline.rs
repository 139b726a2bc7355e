//! The arrival of a held body, with a deadline for the whole of it (docs/contract.md §4.1).
//!
//! A body that moves an octet now and then is never idle, and would hold its memory for ever. The
//! deadline is `REQUEST_BODY_TIMEOUT`, 30 s, and one second more for each 64 KiB that arrived: the
//! slowest client that is waited for sends 64 KiB a second.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_web::dev::Payload;
use bytes::Bytes;
use futures_core::Stream as _;

use crate::error::DownstreamError;

/// The time that a body takes.
pub(in crate::proxy) struct BodyDeadline {
    /// The time that it may take by now.
    time: Duration,
    /// The first wait for it: content that is here at once needs no clock.
    since: Option<Instant>,
    timer: Option<Pin<Box<actix_rt::time::Sleep>>>,
}

impl BodyDeadline {
    /// A body whose first octet may take this long.
    pub(in crate::proxy) fn new(patience: Duration) -> Self {
        Self {
            time: patience,
            since: None,
            timer: None,
        }
    }

    /// The next content; `None` at the end.
    pub(in crate::proxy) async fn next(
        &mut self,
        payload: &mut Payload,
    ) -> Option<Result<Bytes, DownstreamError>> {
        let next = poll_fn(|cx| match Pin::new(&mut *payload).poll_next(cx) {
            Poll::Ready(content) => Poll::Ready(content.map(|content| match content {
                Ok(content) => Ok(content),
                Err(cause) => Err(DownstreamError::of(&cause)),
            })),
            Poll::Pending => self
                .poll_late(cx)
                .map(|()| Some(Err(DownstreamError::BodyTimeout))),
        })
        .await;
        if let Some(Ok(content)) = &next {
            self.arrived(content.len());
        }
        next
    }

    /// The client is not waited for in this time.
    pub(in crate::proxy) fn pause(&mut self, time: Duration) {
        self.time += time;
    }

    fn arrived(&mut self, octets: usize) {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        let nanoseconds = octets.saturating_mul(1_000_000_000 / OCTETS_PER_SECOND);
        self.time += Duration::from_nanos(nanoseconds);
    }

    /// Ready once the deadline has passed.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.time;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(actix_rt::time::sleep_until(deadline.into())));
        // it is armed for an earlier time than needed rather than moved with each chunk
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }
}

/// Rate that extends the deadline.
const OCTETS_PER_SECOND: u64 = 64 * 1024;
