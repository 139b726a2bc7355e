//! The Huffman code of HPACK (RFC 7541 §5.2 and appendix B), as far as lengths are counted and few octets
//! are told apart.
//!
//! It is canonical: codes of one length follow each other, and longer ones follow shorter ones, so that
//! the number of each length is the whole code.

/// A code's bits and their number.
pub(super) type Code = (u32, u32);

/// The code of `#`.
pub(super) const FRAGMENT: Code = (0xffa, 12);
/// The codes of `:path`.
pub(super) const PATH: [Code; 5] = [(0x5c, 7), (0x2b, 6), (0x3, 5), (0x9, 5), (0x27, 6)];
/// Octets that these take.
pub(super) const PATH_LENGTH: u32 = 4;

/// Lengths, and how many codes have them; with that of EOS, which h2 refuses.
const COUNTS: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

/// Lengths of codes by the eight bits that they begin with; 0 if that does not say it.
const SHORT: [u8; 256] = {
    let mut lengths = [0; 256];
    let mut at = 0;
    let mut index = 0;
    while COUNTS[index].0 <= 8 {
        let (length, count) = COUNTS[index];
        let end = at + ((count as usize) << (8 - length));
        while at < end {
            lengths[at] = length as u8;
            at += 1;
        }
        index += 1;
    }
    lengths
};

/// For each length, where the codes end that have it, with 32 bits.
const ENDS: [(u64, u32); COUNTS.len()] = {
    let mut ends = [(0, 0); COUNTS.len()];
    let mut end = 0;
    let mut index = 0;
    while index < COUNTS.len() {
        let (length, count) = COUNTS[index];
        end += (count as u64) << (32 - length);
        ends[index] = (end, length);
        index += 1;
    }
    ends
};

/// The length of the code that these bits begin with; right if it is not larger than the number of
/// bits that are known, the others being 0.
pub(super) fn length(bits: u64) -> u32 {
    match SHORT[(bits >> 56) as usize] {
        0 => {
            let bits = bits >> 32;
            let found = ENDS.iter().find(|(end, _)| bits < *end);
            // the last end is that of all bits
            found.map_or(30, |(_, length)| *length)
        }
        length => length.into(),
    }
}

/// The code of this length that these bits begin with.
pub(super) fn code(bits: u64, length: u32) -> Code {
    ((bits >> (64 - length)) as u32, length)
}
