//! A client's socket, and what is asked of it beyond octets.

use std::{
    future::Future as _,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, Interest};

/// A client's socket.
pub trait Peer: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Whether the client closed or reset its side, even if octets before that are unread.
    fn is_gone(&self) -> bool;
    /// Whether the connection was aborted, as far as the kernel knows.
    fn is_aborted(&self) -> bool;
    /// Ready when there may be something to read, so that nobody holds a buffer for a silent client.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Makes the coming close a reset: for content that only the end of the connection delimits.
    fn reset_on_close(&self);
    /// How long octets on their way may stay unacknowledged, or the client's window closed.
    fn write_timeout(&self, limit: Duration);
}

impl Peer for tokio::net::TcpStream {
    fn is_gone(&self) -> bool {
        // the flags that the reactor has seen; this asks nothing of the kernel
        let ready = std::pin::pin!(self.ready(Interest::READABLE));
        let mut cx = Context::from_waker(Waker::noop());
        matches!(ready.poll(&mut cx), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn is_aborted(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(|_| ())
    }

    fn reset_on_close(&self) {
        // a client that already left makes this fail, and needs it no more
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn write_timeout(&self, limit: Duration) {
        // our own timer stands if this fails
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(self).set_tcp_user_timeout(Some(limit));
        #[cfg(not(target_os = "linux"))]
        let _ = limit;
    }
}
