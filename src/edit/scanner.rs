//! Reads a request body as it arrives, and notes the byte spans that the edit needs: the first two
//! blocks of the top-level `system`, their texts, how many `cache_control` objects there are, and
//! whether one of them may have a `ttl`. On its way it reads `model`, `stream` and `max_tokens`, for
//! metering.
//!
//! It is a visitor of the [`Tokenizer`], which checks the grammar in full, since an edit of what is not
//! JSON would not be transparent. It decides nothing: that is [`system`](super::system)'s.

use std::{
    mem,
    ops::{ControlFlow, Range},
};

use super::text;
use crate::{
    json::tokenizer::{Tokenizer, Visitor},
    metering::{MemberValue, RequestDetails},
};

/// Incremental scan of one body.
#[derive(Debug)]
pub(super) struct Scanner {
    tokenizer: Tokenizer,
    scan: Scan,
}

/// Scan of a body: a visitor of its tokens.
#[derive(Debug)]
pub struct Scan {
    /// Name of the member whose value comes next, if it is a known one.
    name: MemberName,
    place: ScanPlace,
    /// The value that is being passed over, if it is read.
    reading: Option<ReadValue>,
    found: ScanResult,
    asked: RequestDetails,
}

/// Value that is read.
#[derive(Debug, Clone, Copy)]
enum ReadValue {
    /// The `text` of a block, by the block's index and the offset of the text.
    Text(usize, u64),
    /// A member that metering asks for.
    Asked(MemberValue),
}

/// Result of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScanResult {
    /// The value of the last top-level `system`.
    pub(super) system: System,
    /// Objects that are the value of a `cache_control`, anywhere.
    pub(super) cache_controls: u64,
    /// True if a `ttl` has a string as its value, anywhere.
    pub(super) has_ttl: bool,
}

/// The value of `system`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum System {
    /// The body has no `system`.
    Absent,
    /// It is a string or something else that is no array.
    NotArray,
    /// An array; its first two elements.
    Array([Option<Block>; WATCHED]),
}

/// An element of `system`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// Its text, quotes included, if it is an object and its last `text` is a string.
    pub(super) text: Option<Range<u64>>,
}

impl Scanner {
    /// Makes a scanner before the first byte.
    pub(super) fn new() -> Self {
        Self {
            tokenizer: Tokenizer::new(),
            scan: Scan::new(),
        }
    }

    /// Details that metering needs, as far as the scan has come.
    pub(super) fn asked(&self) -> &RequestDetails {
        self.scan.asked()
    }

    /// Scans the next bytes of the body.
    pub(super) fn scan(&mut self, chunk: &[u8]) {
        self.tokenizer.push(chunk, &mut self.scan);
    }

    /// Ends the scan. None if the bytes scanned are not one JSON text.
    pub(super) fn finish(self) -> Option<ScanResult> {
        self.tokenizer.is_complete().then(|| self.scan.found())
    }
}

impl Default for Scan {
    fn default() -> Self {
        Self::new()
    }
}

impl Visitor for Scan {
    #[inline(always)]
    fn reads_names(&self, _depth: u64) -> bool {
        true
    }

    #[inline(always)]
    fn name(&mut self, spelling: &[u8], escapes: bool) {
        self.name = MemberName::of(spelling, escapes);
    }

    #[inline(always)]
    fn begin(&mut self, first: u8, at: u64, depth: u64) -> ControlFlow<(), bool> {
        let is_noted = !matches!(self.name, MemberName::Other) || self.place == ScanPlace::System;
        ControlFlow::Continue(is_noted && self.note(first, at, depth))
    }

    #[inline(never)]
    fn value(&mut self, spelling: &[u8], end: u64) -> ControlFlow<()> {
        match self.reading.take() {
            Some(ReadValue::Text(index, start)) => {
                if let Some(block) = self.block(index) {
                    block.text = Some(start..end);
                }
            }
            Some(ReadValue::Asked(member)) => self.asked.read(member, spelling),
            None => {}
        }
        ControlFlow::Continue(())
    }

    #[inline(always)]
    fn end(&mut self, depth: u64) -> ControlFlow<()> {
        match (depth, self.place) {
            (2, ScanPlace::Block(_)) => self.place = ScanPlace::System,
            (1, ScanPlace::System) => self.place = ScanPlace::Elsewhere,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Scan {
    /// Makes a scan before the first byte.
    pub fn new() -> Self {
        Self {
            name: MemberName::Other,
            place: ScanPlace::Elsewhere,
            reading: None,
            found: ScanResult {
                system: System::Absent,
                cache_controls: 0,
                has_ttl: false,
            },
            asked: RequestDetails::default(),
        }
    }

    /// Details that metering needs, as far as the scan has come.
    pub fn asked(&self) -> &RequestDetails {
        &self.asked
    }

    /// Result of the scan of a body that has ended, and is one JSON text.
    pub(super) fn found(self) -> ScanResult {
        self.found
    }

    /// Records the beginning of a value that the edit or metering needs: true if the value is read.
    #[inline(never)]
    fn note(&mut self, first: u8, at: u64, depth: u64) -> bool {
        match (self.place, depth, mem::take(&mut self.name)) {
            (_, 1, MemberName::System) => {
                self.found.system = if first == b'[' {
                    self.place = ScanPlace::System;
                    System::Array([const { None }; WATCHED])
                } else {
                    System::NotArray
                };
            }
            (ScanPlace::System, 2, _) => {
                if let System::Array(blocks) = &mut self.found.system
                    && let Some(index) = blocks.iter().position(Option::is_none)
                    && let Some(block) = blocks.get_mut(index)
                {
                    *block = Some(Block {
                        start: at,
                        text: None,
                    });
                    if first == b'{' {
                        self.place = ScanPlace::Block(index);
                    }
                }
            }
            (ScanPlace::Block(index), 3, MemberName::Text) => {
                if let Some(block) = self.block(index) {
                    block.text = None;
                }
                self.reading = (first == b'"').then_some(ReadValue::Text(index, at));
            }
            (_, 1, MemberName::Asked(member)) => match first {
                b'{' | b'[' => self.asked.read(member, &[first]),
                _ => self.reading = Some(ReadValue::Asked(member)),
            },
            (_, _, MemberName::CacheControl) if first == b'{' => self.found.cache_controls += 1,
            (_, _, MemberName::Ttl) if first == b'"' => self.found.has_ttl = true,
            _ => {}
        }
        self.reading.is_some()
    }

    fn block(&mut self, index: usize) -> Option<&mut Block> {
        match &mut self.found.system {
            System::Array(blocks) => blocks.get_mut(index)?.as_mut(),
            System::Absent | System::NotArray => None,
        }
    }
}

/// The names that the edit depends on, and those that metering asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum MemberName {
    #[default]
    Other,
    System,
    Text,
    CacheControl,
    Ttl,
    /// A member that metering asks for.
    Asked(MemberValue),
}

impl MemberName {
    /// Name with this spelling, between the quotes.
    #[inline(always)]
    fn of(spelling: &[u8], escapes: bool) -> Self {
        if escapes && spelling.contains(&b'\\') {
            return Self::of_escaped(spelling);
        }
        match spelling {
            b"system" => Self::System,
            b"text" => Self::Text,
            b"cache_control" => Self::CacheControl,
            b"ttl" => Self::Ttl,
            b"model" => Self::Asked(MemberValue::Model),
            b"stream" => Self::Asked(MemberValue::Stream),
            b"max_tokens" => Self::Asked(MemberValue::MaxTokens),
            _ => Self::Other,
        }
    }

    #[inline(never)]
    fn of_escaped(spelling: &[u8]) -> Self {
        let mut room = [0; LONGEST_NAME];
        text::decoded(spelling, &mut room).map_or(Self::Other, |name| Self::of(name, false))
    }
}

/// Place in the document, as far as the edit depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanPlace {
    Elsewhere,
    /// In the array that is the top-level `system`.
    System,
    /// In the object that is this element of it.
    Block(usize),
}

/// Elements of `system` that can be the target.
const WATCHED: usize = 2;
/// Bytes of the longest name.
const LONGEST_NAME: usize = b"cache_control".len();

#[cfg(test)]
mod tests {
    use super::*;

    fn scan<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Option<ScanResult> {
        let mut scanner = Scanner::new();
        chunks.for_each(|chunk| scanner.scan(chunk));
        scanner.finish()
    }

    fn system(body: &str) -> System {
        let whole = scan([body.as_bytes()].into_iter()).unwrap();
        assert_eq!(
            scan(body.as_bytes().chunks(1)),
            Some(whole.clone()),
            "{body}"
        );
        whole.system
    }

    /// The texts of the first two blocks, as they stand in `body`.
    fn texts(body: &str) -> [Option<&str>; WATCHED] {
        let System::Array(blocks) = system(body) else {
            panic!("no array in {body}")
        };
        blocks.map(|block| {
            let span = block?.text?;
            Some(&body[span.start as usize..span.end as usize])
        })
    }

    #[test]
    fn the_last_of_duplicates_counts() {
        assert_eq!(
            texts(r#"{"system":[{"text":"a"}],"system":[{"text":"b"}]}"#),
            [Some("\"b\""), None]
        );
        assert_eq!(
            system(r#"{"system":[{"text":"a"}],"system":"b"}"#),
            System::NotArray
        );
        assert_eq!(
            texts(r#"{"system":"a","system":[{"text":"b"}]}"#),
            [Some("\"b\""), None]
        );
        assert_eq!(
            texts(r#"{"system":[{"text":"a","text":"b"}]}"#),
            [Some("\"b\""), None]
        );
        assert_eq!(
            texts(r#"{"system":[{"text":"a","text":["b"]}]}"#),
            [None, None]
        );
        assert_eq!(
            texts(r#"{"system":[{"text":1,"text":"b"}]}"#),
            [Some("\"b\""), None]
        );
    }

    #[test]
    fn only_the_top_level_system_counts() {
        assert_eq!(system(r#"{"a":{"system":[{"text":"a"}]}}"#), System::Absent);
        assert_eq!(system(r#"[{"system":[{"text":"a"}]}]"#), System::Absent);
        assert_eq!(system(r#"["system",[{"text":"a"}]]"#), System::Absent);
        assert_eq!(system(r#"{"System":[]}"#), System::Absent);
        assert_eq!(
            texts(r#"{"system":[{"a":{"text":"a"},"text":"b"},[{"text":"c"}]]}"#),
            [Some("\"b\""), None]
        );
        assert_eq!(
            texts(r#"{"system":["a",{"text":"b"},{"text":"c"}],"text":"d"}"#),
            [None, Some("\"b\"")]
        );
        assert_eq!(
            texts(r#"{"system":[{},{"x":[{"text":"a"}]}]}"#),
            [None, None]
        );
        assert_eq!(texts(r#"{"system":[]}"#), [None, None]);
    }

    #[test]
    fn escaped_names_count() {
        assert_eq!(
            texts(r#"{"sys\u0074em":[{"t\u0065xt":"a"}]}"#),
            [Some("\"a\""), None]
        );
        let every = |name: &str| {
            name.bytes()
                .map(|octet| format!("\\u00{octet:02X}"))
                .collect::<String>()
        };
        let body = format!(r#"{{"{}":[{{"{}":"a"}}]}}"#, every("system"), every("text"));
        assert_eq!(texts(&body), [Some("\"a\""), None]);
        assert_eq!(system(r#"{"sys\\u0074em":[]}"#), System::Absent);
    }

    #[test]
    fn cache_controls_are_counted_where_they_are_objects() {
        let every = |name: &str| {
            name.bytes()
                .map(|octet| format!("\\u00{octet:02x}"))
                .collect::<String>()
        };
        let body = format!(
            r#"{{"cache_control":{{}},"a":[{{"cache_control":{{"b":{{"{}":{{}}}}}}}}],"c":{{"cache_control":null}},
            "cache_control":[{{}}],"d":"cache_control","system":[{{}},{{}},{{"cache_control":{{}}}}]}}"#,
            every("cache_control"),
        );
        assert_eq!(
            scan([body.as_bytes()].into_iter()).unwrap().cache_controls,
            4
        );
        assert_eq!(scan(body.as_bytes().chunks(1)).unwrap().cache_controls, 4);
    }
}
