//! Timer of a connection.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

/// Timer for all waits of a connection. Its deadline moves often and it fires seldom, so it is
/// armed for an earlier time than needed rather than moved.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<actix_rt::time::Sleep>>>,
}

impl Timer {
    /// Ready once the deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(actix_rt::time::sleep_until(deadline.into())));
        if sleep.deadline() > deadline.into() {
            sleep.as_mut().reset(deadline.into());
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
    }
}
