//! Finds the events with usage in a stream (`text/event-stream`, WHATWG HTML §9.2.6).
//!
//! Lines end with LF, CR or both, and may be cut anywhere. The name of an event decides whether its
//! data is read, else the `type` in its data; of other events only line ends are read. An event
//! that has not ended is ignored.

use std::ops::ControlFlow;

use memchr::memchr2;

use super::{
    accumulator::{EventKind, EventUsage, UsageAccumulator},
    members::ObjectPath,
    walk::JsonWalk,
};

/// Reader of the events of one stream.
#[derive(Debug)]
pub(super) struct SseEvents {
    line: SseLine,
    /// The name of the field of a line, as far as it came.
    field: Start<LONGEST_FIELD>,
    /// The value of `event:`, as far as it came.
    name: Start<LONGEST_NAME>,
    kind: EventKind,
    has_data: bool,
    /// Bytes of its data.
    data: u64,
    /// Data of this event was read.
    is_read: bool,
    walk: JsonWalk,
    read: EventUsage,
    /// The line before ended with CR: LF is part of that.
    is_after_cr: bool,
    /// A byte order mark may come.
    is_first_line: bool,
    /// Deltas that have come.
    tokens: u64,
    /// Bytes of their data.
    passed: u64,
    is_broken: bool,
}

/// Position in a line of an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SseLine {
    /// In the name of its field.
    Field,
    /// After `event:`; a space may come.
    BeforeName,
    /// In the name of the event.
    Name,
    /// After `data:`; a space may come.
    BeforeData,
    /// In data.
    Data,
    /// In a line that is not read.
    Skip,
}

/// The first bytes of something that may be cut.
#[derive(Debug)]
struct Start<const LEN: usize> {
    octets: [u8; LEN],
    len: usize,
}

impl<const LEN: usize> Start<LEN> {
    const EMPTY: Self = Self {
        octets: [0; LEN],
        len: 0,
    };

    #[inline]
    fn get(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    /// Adds bytes; what has no room is cut off.
    #[inline]
    fn extend(&mut self, more: &[u8]) {
        for (slot, octet) in self.octets.iter_mut().skip(self.len).zip(more) {
            *slot = *octet;
            self.len += 1;
        }
    }
}

impl SseEvents {
    /// Makes a reader before the first byte.
    pub(super) fn new() -> Self {
        Self {
            line: SseLine::Field,
            field: Start::EMPTY,
            name: Start::EMPTY,
            kind: EventKind::Unnamed,
            has_data: false,
            data: 0,
            is_read: false,
            walk: JsonWalk::new(ObjectPath::Event),
            read: EventUsage::default(),
            is_after_cr: false,
            is_first_line: true,
            tokens: 0,
            passed: 0,
            is_broken: false,
        }
    }

    /// Reports whether the bytes so far end inside an event. Text that cannot begin one, such as
    /// the `[DONE]` with which some servers end, does not count.
    pub(super) fn is_cut(&self) -> bool {
        let is_noise = self.kind == EventKind::Unnamed && self.walk.is_invalid();
        let is_in_name = matches!(self.line, SseLine::BeforeName | SseLine::Name);
        self.has_data && !is_noise || is_in_name || self.name.len > 0 || self.field.len > 0
    }

    /// Estimated number of tokens in the deltas that have passed, by their bytes; none if there was
    /// no delta.
    ///
    /// The API reports the number only at the end. A token of English text has about four bytes; no
    /// delta has less than one token.
    pub(super) fn estimate(&self) -> Option<u64> {
        let content = self.passed.saturating_sub(self.tokens * DELTA_FRAME);
        (self.tokens > 0).then(|| (content / OCTETS_OF_A_TOKEN).max(self.tokens))
    }

    /// Reports whether an event with usage could not be read.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// `content_block_delta` events so far.
    pub(super) fn deltas(&self) -> u64 {
        self.tokens
    }

    /// Reads the next bytes. Returns true if the first `content_block_delta` ended in them.
    pub(super) fn push(&mut self, mut chunk: &[u8], tally: &mut UsageAccumulator) -> bool {
        let had_token = self.tokens > 0;
        if self.is_after_cr && !chunk.is_empty() {
            self.is_after_cr = false;
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
        }
        while let Some(end) = memchr2(b'\n', b'\r', chunk) {
            let (piece, rest) = chunk.split_at(end);
            self.piece(piece);
            self.end_line(tally);
            chunk = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.is_after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => rest,
            };
        }
        if !chunk.is_empty() {
            self.piece(chunk);
        }
        self.tokens > 0 && !had_token
    }

    /// Reads bytes of a line.
    #[inline]
    fn piece(&mut self, mut piece: &[u8]) {
        if self.line == SseLine::Field {
            let Some(rest) = self.field_name(piece) else {
                return;
            };
            piece = rest;
        }
        let Some(&first) = piece.first() else {
            return;
        };
        if matches!(self.line, SseLine::BeforeName | SseLine::BeforeData) {
            if first == b' ' {
                piece = piece.get(1..).unwrap_or_default();
            }
            self.line = if self.line == SseLine::BeforeName {
                SseLine::Name
            } else {
                SseLine::Data
            };
        }
        match self.line {
            SseLine::Name => self.name.extend(piece),
            SseLine::Data => self.data(piece),
            SseLine::Field | SseLine::BeforeName | SseLine::BeforeData | SseLine::Skip => {}
        }
    }

    /// Reads a line up to its colon; gives the bytes after it, if it came.
    #[inline]
    fn field_name<'a>(&mut self, piece: &'a [u8]) -> Option<&'a [u8]> {
        if self.field.len == 0 {
            if let Some(rest) = piece.strip_prefix(b"data:") {
                self.begin_data();
                return Some(rest);
            }
            if let Some(rest) = piece.strip_prefix(b"event:") {
                self.begin_name();
                return Some(rest);
            }
        }
        for (at, &octet) in piece.iter().enumerate() {
            if octet == b':' {
                match self.field.get() {
                    b"data" => self.begin_data(),
                    b"event" => self.begin_name(),
                    // a comment, or another field
                    _ => self.line = SseLine::Skip,
                }
                return piece.get(at + 1..);
            }
            if self.field.len == LONGEST_FIELD {
                self.line = SseLine::Skip;
                return None;
            }
            self.field.extend(&[octet]);
            if self.is_first_line && self.field.get() == BYTE_ORDER_MARK {
                self.field.len = 0;
                self.is_first_line = false;
            }
        }
        None
    }

    fn begin_name(&mut self) {
        self.line = SseLine::BeforeName;
        self.name.len = 0;
    }

    fn begin_data(&mut self) {
        self.line = SseLine::BeforeData;
        if self.has_data {
            // lines of data are joined by a line feed
            self.data(b"\n");
        }
        self.has_data = true;
    }

    fn data(&mut self, data: &[u8]) {
        self.data += data.len() as u64;
        if !self.kind.is_read() {
            return;
        }
        self.is_read = true;
        let (kind, read) = (self.kind, &mut self.read);
        self.walk.walk(data, |found| {
            read.take(found);
            if kind == EventKind::Unnamed && !read.kind.is_read() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match kind {
            EventKind::Error => {
                read.kind = EventKind::Error;
                read.keep_words(data);
            }
            EventKind::Unnamed | EventKind::Unknown => read.keep_words(data),
            EventKind::Start
            | EventKind::Delta
            | EventKind::Stop
            | EventKind::Token
            | EventKind::Other => {}
        }
    }

    #[inline]
    fn end_line(&mut self, tally: &mut UsageAccumulator) {
        match self.line {
            SseLine::Field => match self.field.get() {
                b"" => self.end_event(tally),
                b"data" => self.begin_data(),
                b"event" => {
                    self.name.len = 0;
                    self.kind = EventKind::Unnamed;
                }
                _ => {}
            },
            SseLine::BeforeName | SseLine::Name => self.kind = EventKind::of(self.name.get()),
            SseLine::BeforeData | SseLine::Data | SseLine::Skip => {}
        }
        self.line = SseLine::Field;
        self.field.len = 0;
        self.is_first_line = false;
    }

    /// Completes an event at a blank line. Without data it is none.
    #[inline]
    fn end_event(&mut self, tally: &mut UsageAccumulator) {
        let kind = match self.kind {
            EventKind::Unnamed => self.read.kind,
            kind => kind,
        };
        match kind {
            _ if !self.has_data => {}
            EventKind::Token => {
                self.tokens += 1;
                self.passed += self.data;
            }
            // whatever it says
            EventKind::Error => tally.event(kind, std::mem::take(&mut self.read)),
            EventKind::Start | EventKind::Delta => {
                if self.walk.is_complete() {
                    tally.event(kind, std::mem::take(&mut self.read));
                } else {
                    self.is_broken = true;
                }
            }
            EventKind::Stop => tally.event(kind, EventUsage::default()),
            EventKind::Unnamed | EventKind::Unknown if self.read.has_error() => {
                tally.event(kind, std::mem::take(&mut self.read));
            }
            EventKind::Unnamed | EventKind::Unknown | EventKind::Other => {}
        }
        self.data = 0;
        if self.is_read {
            self.is_read = false;
            self.walk.restart(ObjectPath::Event);
            self.read = EventUsage::default();
        }
        self.name.len = 0;
        self.kind = EventKind::Unnamed;
        self.has_data = false;
    }
}

/// Byte order mark, which may stand before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Bytes of the longest name of a field that we look for, and one more.
const LONGEST_FIELD: usize = b"event".len() + 1;
/// Bytes of a delta's data besides its text: `{"type":"content_block_delta","index":0,"delta":{"type":
/// "text_delta","text":""}}`.
const DELTA_FRAME: u64 = 80;
/// Bytes of a token of English text.
const OCTETS_OF_A_TOKEN: u64 = 4;
/// Bytes of the longest name of an event that we look for, and one more.
const LONGEST_NAME: usize = b"content_block_delta".len() + 1;
