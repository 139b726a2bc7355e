//! Search of a client's field blocks (RFC 9113 §6.2, §6.10) for streams whose `:path` has a
//! fragment, which h2 does not show.

use crate::wire::{
    frames::{self, Frame},
    hpack::FieldBlocks,
};

/// Octets in front of a block: the length of the padding, and the priority.
const MAX_PREFIX: usize = 6;
/// Those of the priority.
const PRIORITY: usize = 5;

/// Scanner of the field blocks of one connection.
#[derive(Debug, Default)]
pub(super) struct FragmentScanner {
    blocks: FieldBlocks,
    stream: u32,
    /// Octets before the field block, as far as they have come.
    prefix: [u8; MAX_PREFIX],
    filled: usize,
    wanted: usize,
    is_padded: bool,
    has_priority: bool,
    /// Octets of the block that are still to come in this frame.
    left: usize,
}

impl FragmentScanner {
    /// Takes the beginning of a frame.
    pub(super) fn frame(&mut self, frame: &Frame) {
        self.wanted = 0;
        self.filled = 0;
        self.left = 0;
        match frame.kind {
            frames::HEADERS => {
                self.is_padded = frame.flags & frames::PADDED != 0;
                self.has_priority = frame.flags & frames::PRIORITY_FLAG != 0;
                self.stream = frame.stream;
                self.wanted =
                    usize::from(self.is_padded) + PRIORITY * usize::from(self.has_priority);
                // shorter than that is a connection error
                self.left = (frame.length as usize).saturating_sub(self.wanted);
                if self.wanted == 0 {
                    self.blocks.begin();
                }
            }
            // without a block that it goes on with, or on another stream, it is a connection error
            frames::CONTINUATION => self.left = frame.length as usize,
            _ => {}
        }
    }

    /// Takes octets of the frame's payload; gives the stream if its `:path` has a fragment.
    pub(super) fn payload(&mut self, mut octets: &[u8]) -> Option<u32> {
        if self.filled < self.wanted {
            let taken = octets.len().min(self.wanted - self.filled);
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&octets[..taken]);
            self.filled += taken;
            octets = &octets[taken..];
            if self.filled < self.wanted {
                return None;
            }
            self.prefix_end();
        }
        if self.left == 0 {
            return None;
        }
        // what follows is padding
        let taken = octets.len().min(self.left);
        self.left -= taken;
        self.blocks.scan(&octets[..taken]);
        self.blocks.has_fragment().then_some(self.stream)
    }

    /// Reads padding length and priority in front of a block.
    fn prefix_end(&mut self) {
        let (padding, priority) = self.prefix.split_at(usize::from(self.is_padded));
        if self.has_priority {
            let stream = priority[..4]
                .iter()
                .fold(0, |number, octet| number << 8 | u32::from(*octet));
            if stream & frames::STREAM_BITS == self.stream {
                // h2 resets a stream that depends on itself, and does not decode the block
                self.left = 0;
                return;
            }
        }
        let padding = padding.first().copied().map_or(0, usize::from);
        // more than there is room for is a connection error
        self.left = self.left.saturating_sub(padding);
        self.blocks.begin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with a literal `:path` that is added to the table.
    fn block(path: &str) -> Vec<u8> {
        let mut octets = vec![0x44, path.len() as u8];
        octets.extend(path.bytes());
        octets
    }

    /// Takes frames with their payload in pieces of every size; gives the streams that have a fragment.
    fn streams(frames: &[(u8, u8, u32, Vec<u8>)]) -> Vec<u32> {
        let found = |size: usize| {
            let mut paths = FragmentScanner::default();
            let mut found = Vec::new();
            for (kind, flags, stream, payload) in frames {
                paths.frame(&Frame {
                    kind: *kind,
                    flags: *flags,
                    stream: *stream,
                    length: payload.len() as u32,
                    first: 0,
                });
                for octets in payload.chunks(size) {
                    found.extend(paths.payload(octets));
                }
            }
            found.dedup();
            found
        };
        let whole = found(usize::MAX);
        for size in 1..20 {
            assert_eq!(found(size), whole, "{size}");
        }
        whole
    }

    fn headers(flags: u8, stream: u32, payload: Vec<u8>) -> (u8, u8, u32, Vec<u8>) {
        (frames::HEADERS, flags, stream, payload)
    }

    #[test]
    fn padding_and_priority_are_no_part_of_a_block() {
        let (with, without) = (block("/a#b"), block("/a"));
        let padding: &[u8] = b"\x44\x04/a#b";
        for (path, expected) in [(&with, vec![1]), (&without, vec![])] {
            let padded = [&[6], &path[..], padding].concat();
            let weighed = [&[0, 0, 0, 3, 7], &path[..]].concat();
            let both = [&[6, 0x80, 0, 0, 3, 7], &path[..], padding].concat();
            for (flags, payload) in [
                (0, path.clone()),
                (frames::PADDED, padded),
                (frames::PRIORITY_FLAG, weighed),
                (frames::PADDED | frames::PRIORITY_FLAG, both),
            ] {
                assert_eq!(streams(&[headers(flags, 1, payload)]), expected, "{flags}");
            }
        }
    }

    #[test]
    fn a_block_goes_on_after_any_cut() {
        let whole = block("/a#b");
        for cut in 0..whole.len() {
            let padded = [&[2], &whole[..cut], &[0, 0]].concat();
            let rest = (frames::CONTINUATION, 0, 1, whole[cut..].to_vec());
            let frames = [headers(frames::PADDED, 1, padded), rest];
            assert_eq!(streams(&frames), [1], "{cut}");
        }
    }

    #[test]
    fn only_field_blocks_are_looked_at() {
        let data = (frames::DATA, 0, 1, block("/a#b"));
        assert_eq!(
            streams(&[headers(0, 1, block("/")), data]),
            Vec::<u32>::new()
        );
    }

    #[test]
    fn a_block_that_h2_does_not_decode_changes_no_table() {
        let skipped = [&[0x80, 0, 0, 1, 0][..], &block("/a#b")].concat();
        // the newest entry
        let indexed = vec![0xbe];
        assert_eq!(
            streams(&[
                headers(0, 1, block("/a")),
                headers(frames::PRIORITY_FLAG, 1, skipped),
                headers(0, 3, indexed),
            ]),
            Vec::<u32>::new()
        );
    }

    #[test]
    fn nothing_panics_where_frames_are_too_short() {
        let flags = frames::PADDED | frames::PRIORITY_FLAG;
        for length in 0..8 {
            streams(&[headers(flags, 1, vec![0xff; length])]);
        }
    }
}
