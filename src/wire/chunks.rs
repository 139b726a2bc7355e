//! Buffer of content that arrives in chunks, kept in its pieces and never joined.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Content in pieces, in order.
pub type Chunks = SmallVec<[Bytes; 4]>;

/// Buffer of content.
///
/// Large chunks are kept as they are. Small ones are copied into a tail: a body that arrives byte by byte
/// costs its bytes, and not 32 bytes of bookkeeping and a pinned read buffer for each.
#[derive(Default)]
pub struct ChunkBuffer {
    len: u64,
    parts: Chunks,
    /// Small chunks since the last part, joined.
    tail: BytesMut,
}

impl ChunkBuffer {
    /// Takes the next chunk.
    pub fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len() as u64;
        if chunk.len() >= SMALL {
            self.flush();
            self.parts.push(chunk);
            return;
        }
        if self.tail.capacity() - self.tail.len() < chunk.len() {
            let size = if self.tail.capacity() == 0 {
                TAIL_FIRST
            } else {
                TAIL
            };
            self.flush();
            self.tail = BytesMut::with_capacity(size);
        }
        self.tail.extend_from_slice(&chunk);
    }

    /// Number of bytes held.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reports whether no byte is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of pieces, without the tail.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Gives all content.
    pub fn finish(mut self) -> Chunks {
        self.flush();
        self.parts
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push(self.tail.split().freeze());
        }
    }
}

/// Size below which a chunk is copied.
pub(crate) const SMALL: usize = 2 * 1024;
/// Size of the first tail: a short body in few segments.
const TAIL_FIRST: usize = 4 * 1024;
/// Size of later tails.
pub(crate) const TAIL: usize = 64 * 1024;
