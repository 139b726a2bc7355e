//! Scanner of HTTP/2 field blocks as they pass (RFC 7541), for a `:path` with a `#`.
//!
//! The h2 crate decodes the blocks, and the http crate below it cuts a fragment off a `:path`, so
//! that the request which h2 gives is not the one that was sent. This scanner reads the same octets
//! and follows the same dynamic table, of which it keeps lengths and two flags per entry: no name
//! and no value. It may accept blocks that h2 refuses, never the reverse: h2 ends the connection
//! then.

mod huffman;
mod table;

use self::table::{HpackTable, MAX_TABLE};

/// Name of the field to find.
const PATH: &[u8; 5] = b":path";
/// Continuation octets of an integer, of which h2 takes no more.
const MAX_INTEGER: u8 = 4;

/// Scanner of the field blocks of one direction of a connection.
#[derive(Debug, Default)]
pub struct FieldBlocks {
    table: HpackTable,
    step: BlockStep,
    line: LiteralLine,
    text: LiteralString,
    has_fragment: bool,
}

/// Meaning of the next octet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum BlockStep {
    /// The first of a field line representation.
    #[default]
    Line,
    /// One more of the integer that a representation begins with.
    Integer(RepresentationKind, Integer),
    /// The first of a string.
    Length,
    /// One more of a string's length.
    LongLength(StringCoding, Integer),
    /// A string's content.
    Text(StringCoding),
    /// Unknown: the block cannot be followed, and no later one.
    Lost,
}

/// A representation (RFC 7541 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RepresentationKind {
    Indexed,
    /// A literal that becomes an entry of the dynamic table.
    Added,
    /// A literal that does not.
    Plain,
    Resize,
}

/// An integer that does not fit into its prefix (RFC 7541 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Integer {
    value: u32,
    octets: u8,
}

impl Integer {
    fn new(prefix: u8) -> Self {
        Self {
            value: prefix.into(),
            octets: 0,
        }
    }

    /// Takes an octet; gives whether it is the last.
    fn push(&mut self, octet: u8) -> bool {
        // at most 127 + 2^28: `MAX_INTEGER` octets
        self.value += u32::from(octet & 0x7f) << (7 * self.octets);
        self.octets += 1;
        octet & 0x80 == 0
    }
}

/// Encoding of a string (RFC 7541 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StringCoding {
    Raw,
    Huffman,
    /// Either, of which nothing needs to be known.
    Skipped,
}

/// The literal field line that is being read.
#[derive(Debug, Default)]
struct LiteralLine {
    is_added: bool,
    is_in_value: bool,
    is_path: bool,
    name_length: u32,
}

/// The string that is being read.
#[derive(Debug, Default)]
struct LiteralString {
    /// Octets of it that are still to come.
    left: u32,
    /// Its length, decoded, as far as it came.
    length: u32,
    search: StringSearch,
    /// Octets of [`PATH`] that it begins with; or any, if there is a `#`.
    found: u8,
    /// Bits of a Huffman code that is not complete, at the upper end, and their number.
    bits: u64,
    held: u32,
}

/// Search within a string.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum StringSearch {
    #[default]
    Nothing,
    /// The string is compared with [`PATH`].
    Path,
    /// The string is searched for a `#`.
    Fragment,
}

impl FieldBlocks {
    /// Begins a field block.
    pub fn begin(&mut self) {
        if self.step != BlockStep::Line {
            // the last block ended within a line
            self.step = BlockStep::Lost;
        }
        self.has_fragment = false;
    }

    /// Reports whether the block has a `:path` with a `#` so far. True for all blocks after one
    /// that cannot be followed: they may have one.
    pub fn has_fragment(&self) -> bool {
        self.has_fragment || self.step == BlockStep::Lost
    }

    /// Scans the next octets of the block, wherever they are split.
    pub fn scan(&mut self, mut octets: &[u8]) {
        while let [first, rest @ ..] = octets {
            match self.step {
                BlockStep::Line => {
                    octets = rest;
                    // most lines are one octet, and leave the step as it is
                    match self.start(*first) {
                        BlockStep::Line => {}
                        step => self.step = step,
                    }
                }
                BlockStep::Integer(kind, mut integer) => {
                    octets = rest;
                    self.step = if integer.push(*first) {
                        self.line(kind, integer.value)
                    } else {
                        integer.next(|integer| BlockStep::Integer(kind, integer))
                    };
                }
                BlockStep::Length => {
                    octets = rest;
                    let coding = match first & 0x80 {
                        0 => StringCoding::Raw,
                        _ => StringCoding::Huffman,
                    };
                    self.step = match first & 0x7f {
                        0x7f => BlockStep::LongLength(coding, Integer::new(0x7f)),
                        length => self.text(coding, length.into()),
                    };
                }
                BlockStep::LongLength(coding, mut integer) => {
                    octets = rest;
                    self.step = if integer.push(*first) {
                        self.text(coding, integer.value)
                    } else {
                        integer.next(|integer| BlockStep::LongLength(coding, integer))
                    };
                }
                BlockStep::Text(coding) => {
                    let length = octets.len().min(self.text.left as usize);
                    let (text, rest) = octets.split_at(length);
                    octets = rest;
                    self.text.push(coding, text);
                    if self.text.left == 0 {
                        self.step = self.text_end();
                    }
                }
                BlockStep::Lost => return,
            }
        }
    }

    /// Takes the first octet of a representation.
    fn start(&mut self, octet: u8) -> BlockStep {
        let (kind, mask) = match octet {
            0x80.. => (RepresentationKind::Indexed, 0x7f),
            0x40.. => (RepresentationKind::Added, 0x3f),
            0x20.. => (RepresentationKind::Resize, 0x1f),
            _ => (RepresentationKind::Plain, 0x0f),
        };
        let prefix = octet & mask;
        if prefix == mask {
            BlockStep::Integer(kind, Integer::new(mask))
        } else {
            self.line(kind, prefix.into())
        }
    }

    /// Takes the integer that a representation begins with.
    #[inline]
    fn line(&mut self, kind: RepresentationKind, integer: u32) -> BlockStep {
        match kind {
            RepresentationKind::Indexed => match self.table.get(integer) {
                Some(entry) => {
                    self.has_fragment |= entry.is_path && entry.has_fragment;
                    BlockStep::Line
                }
                None => BlockStep::Lost,
            },
            RepresentationKind::Resize if integer <= MAX_TABLE => {
                self.table.resize(integer);
                BlockStep::Line
            }
            RepresentationKind::Resize => BlockStep::Lost,
            RepresentationKind::Added | RepresentationKind::Plain => {
                self.line = LiteralLine {
                    is_added: kind == RepresentationKind::Added,
                    ..LiteralLine::default()
                };
                if integer > 0 {
                    let Some(entry) = self.table.get(integer) else {
                        return BlockStep::Lost;
                    };
                    self.line.is_in_value = true;
                    self.line.is_path = entry.is_path;
                    self.line.name_length = entry.name_length.into();
                }
                BlockStep::Length
            }
        }
    }

    /// Begins a string of a literal.
    fn text(&mut self, coding: StringCoding, left: u32) -> BlockStep {
        let path_length = match coding {
            StringCoding::Huffman => huffman::PATH_LENGTH,
            StringCoding::Raw | StringCoding::Skipped => PATH.len() as u32,
        };
        let search = match (self.line.is_in_value, self.line.is_path) {
            (true, true) => StringSearch::Fragment,
            (false, _) if left == path_length => StringSearch::Path,
            _ => StringSearch::Nothing,
        };
        self.text = LiteralString {
            left,
            search,
            ..LiteralString::default()
        };
        if left == 0 {
            return self.text_end();
        }
        // the length counts only in an entry
        if search == StringSearch::Nothing && !self.line.is_added {
            BlockStep::Text(StringCoding::Skipped)
        } else {
            BlockStep::Text(coding)
        }
    }

    /// Ends a string of a literal.
    fn text_end(&mut self) -> BlockStep {
        let LiteralString {
            length,
            search,
            found,
            ..
        } = self.text;
        if !self.line.is_in_value {
            self.line.is_in_value = true;
            self.line.is_path = search == StringSearch::Path && usize::from(found) == PATH.len();
            self.line.name_length = length;
            return BlockStep::Length;
        }
        let has_fragment = search == StringSearch::Fragment && found > 0;
        self.has_fragment |= has_fragment;
        if self.line.is_added {
            let is_path = self.line.is_path;
            self.table
                .add(self.line.name_length, length, is_path, has_fragment);
        }
        BlockStep::Line
    }
}

impl Integer {
    /// The step after an octet that is not the last.
    fn next(self, step: impl FnOnce(Self) -> BlockStep) -> BlockStep {
        if self.octets == MAX_INTEGER {
            BlockStep::Lost
        } else {
            step(self)
        }
    }
}

impl LiteralString {
    fn push(&mut self, coding: StringCoding, octets: &[u8]) {
        self.left -= octets.len() as u32;
        match coding {
            StringCoding::Raw => {
                self.length = self.length.saturating_add(octets.len() as u32);
                match self.search {
                    StringSearch::Nothing => {}
                    StringSearch::Path => {
                        for octet in octets {
                            self.path(PATH.get(usize::from(self.found)) == Some(octet));
                        }
                    }
                    StringSearch::Fragment => self.found |= u8::from(octets.contains(&b'#')),
                }
            }
            // each refill leaves room for the next: a code is not longer than 30 bits
            StringCoding::Huffman => octets.chunks(4).for_each(|octets| self.decode(octets)),
            StringCoding::Skipped => {}
        }
    }

    /// Takes at most four octets of Huffman codes. What is left at the end is padding.
    fn decode(&mut self, octets: &[u8]) {
        let (mut bits, mut held, mut count) = (self.bits, self.held, 0);
        for octet in octets {
            bits |= u64::from(*octet) << (56 - held);
            held += 8;
        }
        loop {
            let length = huffman::length(bits);
            if length > held {
                break;
            }
            if self.search != StringSearch::Nothing {
                self.code(huffman::code(bits, length));
            }
            bits <<= length;
            held -= length;
            count += 1;
        }
        self.bits = bits;
        self.held = held;
        self.length = self.length.saturating_add(count);
    }

    fn code(&mut self, code: huffman::Code) {
        match self.search {
            StringSearch::Nothing => {}
            StringSearch::Path => {
                self.path(huffman::PATH.get(usize::from(self.found)) == Some(&code));
            }
            StringSearch::Fragment => self.found |= u8::from(code == huffman::FRAGMENT),
        }
    }

    fn path(&mut self, goes_on: bool) {
        if goes_on {
            self.found += 1;
        } else {
            self.search = StringSearch::Nothing;
        }
    }
}

#[cfg(test)]
mod tests;
