//! Read buffer that grows with the amount that the peer sends.

use std::{
    cell::RefCell,
    io, mem,
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
/// Pages that a worker keeps for the next connection that has something to read.
const MOST_PAGES: usize = 16;

thread_local! {
    /// Pages of this worker that no connection needs: the last one used comes first, since it is still
    /// in the processor's cache.
    static PAGES: RefCell<Vec<BytesMut>> = RefCell::default();
}

/// A read buffer. Content is split off its front without a copy. Between two reads an empty one keeps
/// no memory: a stream that waits for its next event has none.
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
        if self.octets.capacity() == 0 && self.next_read == FIRST_READ {
            let page = PAGES.with_borrow_mut(Vec::pop);
            self.octets = page.unwrap_or_default();
        }
        let mut room = self.octets.capacity() - self.octets.len();
        // half of it will do: a reader that keeps small pieces keeps their buffers, and few are needed then
        if room < SMALLEST_READ || (room < self.next_read / 2 && self.next_read > FIRST_READ) {
            self.octets.reserve(self.next_read);
            room = self.octets.capacity() - self.octets.len();
        }
        let outcome = tokio_util::io::poll_read_buf(Pin::new(socket), cx, &mut self.octets);
        if outcome.is_pending() && self.next_read == FIRST_READ {
            self.release();
        }
        let read = ready!(outcome)?;
        if read == room {
            self.next_read = (self.next_read * 2).min(LARGEST_READ);
        } else if read < self.next_read / 4 {
            self.next_read = (self.next_read / 2).max(FIRST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Gives memory back for a while: the next read will be as large as before. A page to which nothing
    /// refers any more is kept for the worker's next read.
    pub fn release(&mut self) {
        if self.octets.is_empty() {
            let mut page = mem::take(&mut self.octets);
            if page.try_reclaim(FIRST_READ) && page.capacity() < 2 * FIRST_READ {
                PAGES.with_borrow_mut(|pages| {
                    if pages.len() < MOST_PAGES {
                        pages.push(page);
                    }
                });
            }
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
    use std::{collections::HashSet, task::Waker};

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

    /// Gives an octet and has nothing then, in turn.
    struct Trickle {
        is_ready: bool,
    }

    impl AsyncRead for Trickle {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.is_ready = !self.is_ready;
            if !self.is_ready {
                return Poll::Pending;
            }
            buf.put_slice(b".");
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_stream_that_waits_has_no_page_and_all_use_one() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut streams: Vec<_> = (0..64)
            .map(|_| (ReadBuffer::default(), Trickle { is_ready: false }))
            .collect();
        let mut pages = HashSet::new();
        for _ in 0..3 {
            for (read, socket) in &mut streams {
                assert!(read.poll_read(&mut cx, socket).is_ready());
                let content = read.octets.split();
                pages.insert(content.as_ptr());
                drop(content);
                assert!(read.poll_read(&mut cx, socket).is_pending());
                assert_eq!(read.octets.capacity(), 0);
            }
        }
        assert_eq!(pages.len(), 1);
        assert_eq!(PAGES.with_borrow(Vec::len), 1);
    }

    #[test]
    fn a_page_that_is_referred_to_is_not_used_again() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut kept = Vec::new();
        for _ in 0..100 {
            let (mut read, mut socket) = (ReadBuffer::default(), Trickle { is_ready: false });
            assert!(read.poll_read(&mut cx, &mut socket).is_ready());
            kept.push(read.octets.split().freeze());
            read.release();
            assert!(kept.iter().all(|content| content == "."));
        }
        let places: HashSet<_> = kept.iter().map(|content| content.as_ptr()).collect();
        assert_eq!(places.len(), 100);
        // a worker keeps no more than it may
        let mut full: Vec<_> = (0..2 * MOST_PAGES)
            .map(|_| ReadBuffer {
                octets: BytesMut::with_capacity(FIRST_READ),
                ..ReadBuffer::default()
            })
            .collect();
        full.iter_mut().for_each(ReadBuffer::release);
        assert_eq!(PAGES.with_borrow(Vec::len), MOST_PAGES);
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
