//! Reads and writes of an HTTP/1.1 connection, and detection of a client that disconnects.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::AsyncWrite;

use super::body::{ClientWire, Http1Expectation};
use crate::{
    downstream::{delivery::Delivery, limits::WATCH_INTERVAL, peer::Peer, timer::Timer},
    wire::outbox::Outbox,
};

/// Octets that are read ahead to notice a client that disconnects.
const READ_AHEAD: usize = 16 * 1024;

/// Writes the outbox, and records how much the socket took and whether it takes more.
pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    outbox: &mut Outbox,
    stream: &mut S,
    delivery: &mut Delivery,
) -> io::Result<Poll<()>> {
    while !outbox.is_empty() {
        match outbox.poll_write(cx, stream) {
            Poll::Ready(Ok(count)) => delivery.wrote(count),
            Poll::Ready(Err(cause)) => return Err(cause),
            Poll::Pending => {
                delivery.set_blocked(true);
                return Ok(Poll::Pending);
            }
        }
    }
    // under TLS the last record may not be out
    let flushed = Pin::new(stream).poll_flush(cx);
    delivery.set_blocked(flushed.is_pending());
    match flushed {
        Poll::Ready(outcome) => outcome.map(Poll::Ready),
        Poll::Pending => Ok(Poll::Pending),
    }
}

/// Reads once the socket is readable: a silent client costs no buffer.
pub(super) fn poll_readable<S: Peer>(
    cx: &mut Context<'_>,
    wire: &mut ClientWire<S>,
) -> Poll<io::Result<usize>> {
    ready!(wire.stream.poll_readable(cx));
    wire.poll_read(cx)
}

/// Ready when the client has disconnected. Reads ahead within a bound; beyond it, checks the socket
/// every [`WATCH_INTERVAL`].
pub(super) fn poll_watch<S: Peer>(
    cx: &mut Context<'_>,
    wire: &mut ClientWire<S>,
    timer: &mut Timer,
) -> Poll<()> {
    loop {
        if wire.ended {
            return Poll::Ready(());
        }
        if wire.read.octets.len() >= READ_AHEAD {
            if wire.stream.is_gone() {
                return Poll::Ready(());
            }
            let deadline = Instant::now() + WATCH_INTERVAL;
            if timer.poll(cx, deadline).is_ready() {
                continue;
            }
            return Poll::Pending;
        }
        match ready!(poll_readable(cx, wire)) {
            Ok(1..) => {
                if let Http1Expectation::Waiting(notes) = &wire.expect {
                    notes.is_unasked.set(true);
                    wire.expect = Http1Expectation::Nothing;
                    // the exchange was polled before this, and holds the body back
                    cx.waker().wake_by_ref();
                }
            }
            Ok(0) | Err(_) => return Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;

    use super::*;

    /// Takes octets, and does not get them out: as TLS does before a client that does not read.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(octets.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[test]
    fn octets_that_do_not_get_out_of_a_stream_block_it() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut outbox, mut delivery) = (Outbox::default(), Delivery::default());
        outbox.push(Bytes::from_static(b"last"));
        for _ in 0..2 {
            let polled = poll_flush(&mut cx, &mut outbox, &mut Stuck, &mut delivery);
            assert!(matches!(polled, Ok(Poll::Pending)));
            assert!(delivery.is_blocked() && delivery.written() == 4);
        }
    }
}
