//! Queue of octets to be written: pieces, sent by vectored writes and never joined.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::verification::Edge;

/// Pieces in one vectored write. A spliced request is 4 pieces, a chunk is 3; a held body of 1 MiB
/// comes in about 16 reads, so 32 takes nearly everything in one call (Linux allows 1,024).
const MAX_PIECES: usize = 32;

/// A queue of pieces.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Bytes>,
    octets: usize,
    edge: Option<Rc<Edge>>,
}

impl Outbox {
    /// Adds a piece; an empty one is dropped.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.octets += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Digests the octets that leave from now on; none: not any more.
    pub fn digests(&mut self, edge: Option<Rc<Edge>>) {
        self.edge = edge;
    }

    /// Octets that wait.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Reports whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.octets == 0
    }

    /// Makes one vectored write. Gives the number of octets that left.
    ///
    /// # Errors
    /// The error of the socket; `WriteZero` if it takes nothing.
    pub fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut W,
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(socket);
        let written = if self.pieces.len() == 1 || !socket.is_write_vectored() {
            let first = self.pieces.front().map_or(&[][..], |piece| &piece[..]);
            ready!(socket.poll_write(cx, first))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_PIECES];
            let mut count = 0;
            for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            ready!(socket.poll_write_vectored(cx, &slices[..count]))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut written: usize) {
        self.octets -= written;
        while let Some(piece) = self.pieces.front_mut() {
            if let Some(edge) = &self.edge {
                edge.wire(&piece[..written.min(piece.len())]);
            }
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn pieces_leave_in_order_whatever_the_socket_takes() {
        let (mut near, far) = tokio::io::duplex(7);
        let mut outbox = Outbox::default();
        for piece in ["", "head ", "replacement", " ", "tail"] {
            outbox.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(outbox.octets(), 21);
        let write = async {
            while !outbox.is_empty() {
                poll_fn(|cx| outbox.poll_write(cx, &mut near))
                    .await
                    .unwrap();
            }
            drop(near);
        };
        let mut read = String::new();
        let mut far = pin!(far);
        let ((), result) = futures_util::future::join(write, far.read_to_string(&mut read)).await;
        result.unwrap();
        assert_eq!(read, "head replacement tail");
    }
}
