//! A client's socket, and what is asked of it beyond octets.
//!
//! TLS adds an end of its own to that of TCP: `close_notify` (RFC 8446 §6.1). [`Peer::close`] sends it
//! where a connection ends in good order; a stream that is only dropped never does, so that an abort
//! cannot be taken for an end.

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
    /// Takes leave before an orderly close, where the transport has a word for it and takes it now.
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

    fn write_timeout(&self, limit: Duration) {
        // our own timer stands if this fails
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(self).set_tcp_user_timeout(Some(limit));
        #[cfg(not(target_os = "linux"))]
        let _ = limit;
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

    fn write_timeout(&self, limit: Duration) {
        self.get_ref().0.write_timeout(limit);
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

    fn write_timeout(&self, _limit: Duration) {}
}

/// The flags that the reactor has seen; this asks nothing of the kernel.
fn is_read_closed(ready: impl Future<Output = io::Result<Ready>>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(pin!(ready).poll(&mut cx), Poll::Ready(Ok(ready)) if ready.is_read_closed())
}
