//! Read buffer that grows with the amount that the peer sends.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::AsyncRead;

/// First read of a connection: a Claude Code head is about 1 KiB, a JSON answer with its head 2 KiB,
/// and an idle stream should not keep more than a page.
const FIRST_READ: usize = 4 * 1024;
/// Largest read: with the 16 KiB that may wait to be written, 64 KiB are what one stream may hold
/// back (docs/contract.md §4.3).
pub const LARGEST_READ: usize = 48 * 1024;
/// Largest read of a body that is held whole anyway: a quarter of a megabyte in one call.
pub const LARGEST_HELD_READ: usize = 256 * 1024;
/// Less room than this is not worth a system call.
const SMALLEST_READ: usize = 512;

/// A read buffer. Content is split off its front without a copy.
#[derive(Debug)]
pub struct ReadBuffer {
    /// The octets that were read and not taken.
    pub octets: BytesMut,
    next_read: usize,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self {
            octets: BytesMut::new(),
            next_read: FIRST_READ,
        }
    }
}

impl ReadBuffer {
    /// Makes one read. Gives the number of octets that came: 0 is the end of the connection.
    ///
    /// A read that fills its room doubles the next one, so that bulk moves in 48 KiB steps while a
    /// stream of small events stays in one page, which is used again as soon as nothing refers to
    /// it.
    ///
    /// # Errors
    /// The error of the socket.
    pub fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut R,
    ) -> Poll<io::Result<usize>> {
        let mut room = self.octets.capacity() - self.octets.len();
        // half of it will do: a reader that keeps small pieces keeps their buffers, and few are needed then
        if room < SMALLEST_READ || (room < self.next_read / 2 && self.next_read > FIRST_READ) {
            self.octets.reserve(self.next_read);
            room = self.octets.capacity() - self.octets.len();
        }
        let read = ready!(tokio_util::io::poll_read_buf(
            Pin::new(socket),
            cx,
            &mut self.octets
        ))?;
        if read == room {
            self.next_read = (self.next_read * 2).min(LARGEST_READ);
        } else if read < self.next_read / 4 {
            self.next_read = (self.next_read / 2).max(FIRST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Gives memory back for a while: the next read will be as large as before.
    pub fn release(&mut self) {
        if self.octets.is_empty() {
            self.octets = BytesMut::new();
        }
    }

    /// Gives memory back: to be called when the connection goes idle.
    pub fn shrink(&mut self) {
        self.next_read = FIRST_READ;
        self.release();
    }

    /// Prepares for `length` octets that are known to come, in reads of at most `largest`.
    pub fn expect(&mut self, length: u64, largest: usize) {
        // one octet more, so that the read that ends the content is seen to be short
        let wanted = usize::try_from(length).map_or(largest, |length| length.min(largest - 1) + 1);
        self.next_read = self.next_read.max(wanted);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::ReadBuf;

    use super::*;

    /// Gives one octet at a time.
    struct Drip;

    impl AsyncRead for Drip {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(b".");
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn pieces_that_are_kept_share_their_buffers() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut read, mut kept) = (ReadBuffer::default(), Vec::new());
        for _ in 0..64 * 1024 {
            read.expect(1 << 20, LARGEST_READ);
            assert!(matches!(
                read.poll_read(&mut cx, &mut Drip),
                Poll::Ready(Ok(1))
            ));
            kept.push(read.octets.split().freeze());
        }
        let buffers = 1 + kept
            .windows(2)
            .filter(|pair| pair[0].as_ptr().wrapping_add(1) != pair[1].as_ptr())
            .count();
        assert!(buffers <= 4, "{buffers}");
    }
}
