//! Socket of a client: state and orderly close, beyond reads and writes.
//!
//! TLS adds an end of its own to that of TCP: `close_notify` (RFC 8446 §6.1). [`Peer::close`] sends
//! it where a connection ends in good order; a stream that is only dropped never does, so that an
//! abort cannot be taken for an end.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, Ready},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

#[cfg(target_os = "linux")]
use super::unacknowledged;

/// Socket of a client.
pub trait Peer: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Reports whether the client closed or reset its side, even if octets before that are unread.
    fn is_gone(&self) -> bool;
    /// Reports whether the connection was aborted, as far as the kernel knows.
    fn is_aborted(&self) -> bool;
    /// Ready when there may be something to read, so that a silent client holds no buffer.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Makes the coming close a reset: for content that only the end of the connection delimits,
    /// and for a client that does not read.
    fn reset_on_close(&self);
    /// Octets that were sent and that the client has not acknowledged, where the kernel tells.
    fn unacknowledged(&self) -> Option<u64>;
    /// Announces an orderly close (`close_notify`), where the transport has such a message and
    /// takes it now.
    fn close(&mut self) {}
}

impl Peer for TcpStream {
    fn is_gone(&self) -> bool {
        is_read_closed(self.ready(Interest::READABLE))
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

    fn unacknowledged(&self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        return unacknowledged::unacknowledged(self);
        #[cfg(not(target_os = "linux"))]
        None
    }
}

impl Peer for TlsStream<TcpStream> {
    fn is_gone(&self) -> bool {
        self.get_ref().0.is_gone()
    }

    fn is_aborted(&self) -> bool {
        self.get_ref().0.is_aborted()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (tcp, session) = self.get_ref();
        // content that is decrypted already, or `close_notify`: the socket would not tell of them
        if !session.wants_read() {
            return Poll::Ready(());
        }
        Peer::poll_readable(tcp, cx)
    }

    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }

    fn unacknowledged(&self) -> Option<u64> {
        self.get_ref().0.unacknowledged()
    }

    fn close(&mut self) {
        // a client that does not take it now has other worries
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(self).poll_shutdown(&mut cx);
    }
}

/// A Unix socket has no reset: content that only the end of the connection delimits (towards
/// HTTP/1.0) looks complete there when it is not.
#[cfg(unix)]
impl Peer for tokio::net::UnixStream {
    fn is_gone(&self) -> bool {
        is_read_closed(self.ready(Interest::READABLE))
    }

    fn is_aborted(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(|_| ())
    }

    fn reset_on_close(&self) {}

    fn unacknowledged(&self) -> Option<u64> {
        None
    }
}

/// Readiness as the reactor has seen it; asks nothing of the kernel.
fn is_read_closed(ready: impl Future<Output = io::Result<Ready>>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(pin!(ready).poll(&mut cx), Poll::Ready(Ok(ready)) if ready.is_read_closed())
}
