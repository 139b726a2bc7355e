//! Reads a request body as it arrives, as JSON (RFC 8259), and notes the byte spans that the edit
//! needs: the first two blocks of the top-level `system`, their texts, how many `cache_control`
//! objects there are, and whether one of them may have a `ttl`. On its way it notes where `model`, `stream` and `max_tokens` stand, for metering.
//!
//! It keeps no byte (but for a name that a chunk boundary cuts), builds no value and does not
//! recurse: nesting costs one bit a level. The grammar is checked in full, since an edit of what
//! is not JSON would not be transparent; of the bytes inside strings see [`string`]. It decides
//! nothing: that is [`system`](super::system)'s.

use std::{mem, ops::Range};

use fearless_simd::{Level, Simd, dispatch};

use super::text;
use crate::json::{
    nesting::{Container, Nesting},
    scalar::{self, Scalar},
    string::{self, StringEnd, Within},
};

/// Incremental scan of one body.
#[derive(Debug)]
pub(super) struct Scanner {
    /// SIMD instruction set of this machine.
    level: Level,
    state: ScanState,
    nesting: Nesting,
    /// Offset in the body of the chunk being scanned.
    base: u64,
    /// Name of the member whose value comes next, if it is a known one.
    name: MemberName,
    /// The spelling so far of a name that began in an earlier chunk.
    spelling: Vec<u8>,
    place: ScanPlace,
    /// Block and offset of the `text` that is being passed over.
    capture: Option<(usize, u64)>,
    found: ScanResult,
    leaves: MemberOffsets,
}

/// Offsets of the values of top-level members; the last of duplicates counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemberOffsets {
    pub(super) model: Option<u64>,
    pub(super) stream: Option<u64>,
    pub(super) max_tokens: Option<u64>,
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
            level: Level::new(),
            state: ScanState::Start(BYTE_ORDER_MARK),
            nesting: Nesting::default(),
            base: 0,
            name: MemberName::Other,
            spelling: Vec::new(),
            place: ScanPlace::Elsewhere,
            capture: None,
            found: ScanResult {
                system: System::Absent,
                cache_controls: 0,
                has_ttl: false,
            },
            leaves: MemberOffsets::default(),
        }
    }

    /// Offsets that metering needs, as far as the scan has come.
    pub(super) fn leaves(&self) -> MemberOffsets {
        self.leaves
    }

    /// Scans the next bytes of the body.
    pub(super) fn scan(&mut self, chunk: &[u8]) {
        dispatch!(self.level, simd => self.scan_with(simd, chunk));
        self.base += chunk.len() as u64;
    }

    #[inline(always)]
    fn scan_with<S: Simd>(&mut self, simd: S, chunk: &[u8]) {
        let mut nesting = mem::take(&mut self.nesting);
        self.state = match self.resume(simd, chunk, nesting.depth) {
            Ok((at, expect)) => self.walk(simd, chunk, at, expect, &mut nesting),
            Err(state) => state,
        };
        self.nesting = nesting;
    }

    /// Ends the scan. None if the bytes scanned are not one JSON text.
    pub(super) fn finish(self) -> Option<ScanResult> {
        match self.state {
            ScanState::Expect(ExpectedToken::End) => Some(self.found),
            ScanState::Scalar(rest) if self.nesting.depth == 0 && rest.is_complete() => {
                Some(self.found)
            }
            _ => None,
        }
    }

    /// Ends the token that the last chunk cut: the index after it, and what may come there.
    fn resume<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        depth: u64,
    ) -> Result<(usize, ExpectedToken), ScanState> {
        match self.state {
            ScanState::Expect(expect) => Ok((0, expect)),
            ScanState::Name(within) => match string::resume(simd, chunk, within) {
                StringEnd::Closed { next, .. } => {
                    self.spell(chunk.get(..next - 1).unwrap_or_default());
                    self.name = MemberName::of(&self.spelling, true);
                    Ok((next, ExpectedToken::Colon))
                }
                StringEnd::Open(within) => {
                    self.spell(chunk);
                    Err(ScanState::Name(within))
                }
                StringEnd::Invalid => Err(ScanState::Invalid),
            },
            ScanState::String(within) => match string::resume(simd, chunk, within) {
                StringEnd::Closed { next, .. } => Ok((next, self.string_ended(next, depth))),
                StringEnd::Open(within) => Err(ScanState::String(within)),
                StringEnd::Invalid => Err(ScanState::Invalid),
            },
            ScanState::Scalar(rest) => match rest.skip(chunk, 0) {
                scalar::ScalarEnd::Before(next) => Ok((next, after(depth))),
                scalar::ScalarEnd::Open(rest) => Err(ScanState::Scalar(rest)),
                scalar::ScalarEnd::Invalid => Err(ScanState::Invalid),
            },
            ScanState::Start(mark) => match mark.skip(chunk, 0) {
                scalar::ScalarEnd::Before(next) => Ok((next, ExpectedToken::Value)),
                scalar::ScalarEnd::Open(rest) => Err(ScanState::Start(rest)),
                scalar::ScalarEnd::Invalid
                    if mark == BYTE_ORDER_MARK && chunk.first() != Some(&0xEF) =>
                {
                    Ok((0, ExpectedToken::Value))
                }
                scalar::ScalarEnd::Invalid => Err(ScanState::Invalid),
            },
            ScanState::Invalid => Err(ScanState::Invalid),
        }
    }

    /// Goes through `chunk[at..]`, token by token.
    #[inline(always)]
    fn walk<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        mut at: usize,
        mut expect: ExpectedToken,
        nesting: &mut Nesting,
    ) -> ScanState {
        while let Some(&octet) = chunk.get(at) {
            match expect {
                ExpectedToken::Next => {
                    at += 1;
                    expect = match (octet, nesting.container()) {
                        (b',', Container::Object) => ExpectedToken::Name,
                        (b',', Container::Array) => ExpectedToken::Value,
                        (b'}', Container::Object) | (b']', Container::Array) => self.leave(nesting),
                        (space!(), _) => ExpectedToken::Next,
                        _ => return ScanState::Invalid,
                    };
                }
                ExpectedToken::Name | ExpectedToken::NameOrEnd => {
                    at += 1;
                    expect = match (octet, expect) {
                        (b'"', _) => match string::skip(simd, chunk, at) {
                            StringEnd::Closed { next, escapes } => {
                                let spelling = chunk.get(at..next - 1).unwrap_or_default();
                                self.name = MemberName::of(spelling, escapes);
                                at = next;
                                ExpectedToken::Colon
                            }
                            StringEnd::Open(within) => {
                                self.spelling.clear();
                                self.spell(chunk.get(at..).unwrap_or_default());
                                return ScanState::Name(within);
                            }
                            StringEnd::Invalid => return ScanState::Invalid,
                        },
                        (b'}', ExpectedToken::NameOrEnd) => self.leave(nesting),
                        (space!(), _) => expect,
                        _ => return ScanState::Invalid,
                    };
                }
                ExpectedToken::Colon => {
                    at += 1;
                    expect = match octet {
                        b':' => ExpectedToken::Value,
                        space!() => ExpectedToken::Colon,
                        _ => return ScanState::Invalid,
                    };
                }
                ExpectedToken::Value | ExpectedToken::ValueOrEnd => {
                    if octet > b' '
                        && (self.name != MemberName::Other || self.place == ScanPlace::System)
                    {
                        self.note(octet, at, nesting.depth);
                    }
                    at += 1;
                    expect = match octet {
                        b'"' => match string::skip(simd, chunk, at) {
                            StringEnd::Closed { next, .. } => {
                                at = next;
                                self.string_ended(at, nesting.depth)
                            }
                            StringEnd::Open(within) => return ScanState::String(within),
                            StringEnd::Invalid => return ScanState::Invalid,
                        },
                        b'{' => {
                            nesting.enter(Container::Object);
                            ExpectedToken::NameOrEnd
                        }
                        b'[' => {
                            nesting.enter(Container::Array);
                            ExpectedToken::ValueOrEnd
                        }
                        b']' if expect == ExpectedToken::ValueOrEnd => self.leave(nesting),
                        space!() => expect,
                        _ => match skip_scalar(chunk, at, octet) {
                            scalar::ScalarEnd::Before(next) => {
                                at = next;
                                after(nesting.depth)
                            }
                            scalar::ScalarEnd::Open(rest) => return ScanState::Scalar(rest),
                            scalar::ScalarEnd::Invalid => return ScanState::Invalid,
                        },
                    };
                }
                ExpectedToken::End if is_space(octet) => at += 1,
                ExpectedToken::End => return ScanState::Invalid,
            }
        }
        ScanState::Expect(expect)
    }

    /// Records the beginning of a value that the edit or metering needs.
    #[inline(never)]
    fn note(&mut self, octet: u8, at: usize, depth: u64) {
        let start = self.base + at as u64;
        let name = mem::take(&mut self.name);
        match (self.place, depth, name) {
            (_, 1, MemberName::System) => {
                self.found.system = if octet == b'[' {
                    self.place = ScanPlace::System;
                    System::Array([const { None }; WATCHED])
                } else {
                    System::NotArray
                };
            }
            (ScanPlace::System, 2, _) if octet != b']' => {
                if let System::Array(blocks) = &mut self.found.system
                    && let Some(index) = blocks.iter().position(Option::is_none)
                    && let Some(block) = blocks.get_mut(index)
                {
                    *block = Some(Block { start, text: None });
                    if octet == b'{' {
                        self.place = ScanPlace::Block(index);
                    }
                }
            }
            (ScanPlace::Block(index), 3, MemberName::Text) => {
                if let Some(block) = self.block(index) {
                    block.text = None;
                }
                self.capture = (octet == b'"').then_some((index, start));
            }
            (_, 1, MemberName::Model) => self.leaves.model = Some(start),
            (_, 1, MemberName::Stream) => self.leaves.stream = Some(start),
            (_, 1, MemberName::MaxTokens) => self.leaves.max_tokens = Some(start),
            (_, _, MemberName::CacheControl) if octet == b'{' => self.found.cache_controls += 1,
            (_, _, MemberName::Ttl) if octet == b'"' => self.found.has_ttl = true,
            _ => {}
        }
    }

    /// A string value ended before `chunk[at]`.
    #[inline(always)]
    fn string_ended(&mut self, at: usize, depth: u64) -> ExpectedToken {
        if let Some((index, start)) = self.capture.take() {
            let end = self.base + at as u64;
            if let Some(block) = self.block(index) {
                block.text = Some(start..end);
            }
        }
        after(depth)
    }

    /// An object or array ended.
    #[inline(always)]
    fn leave(&mut self, nesting: &mut Nesting) -> ExpectedToken {
        nesting.leave();
        match (nesting.depth, self.place) {
            (2, ScanPlace::Block(_)) => self.place = ScanPlace::System,
            (1, ScanPlace::System) => self.place = ScanPlace::Elsewhere,
            _ => {}
        }
        after(nesting.depth)
    }

    fn block(&mut self, index: usize) -> Option<&mut Block> {
        match &mut self.found.system {
            System::Array(blocks) => blocks.get_mut(index)?.as_mut(),
            System::Absent | System::NotArray => None,
        }
    }

    /// Adds to the spelling of a name that a chunk boundary cuts, as far as it may be one of ours.
    fn spell(&mut self, part: &[u8]) {
        let room = (LONGEST_SPELLING + 1).saturating_sub(self.spelling.len());
        self.spelling
            .extend_from_slice(part.get(..room).unwrap_or(part));
    }
}

/// Position of a scan between two chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    /// Before the first value, of a byte order mark this may come.
    Start(Scalar),
    /// Between tokens.
    Expect(ExpectedToken),
    /// In a name.
    Name(Within),
    /// In a string that is a value.
    String(Within),
    /// In a number or literal.
    Scalar(Scalar),
    /// The body is not JSON.
    Invalid,
}

/// Next token that is allowed, besides white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpectedToken {
    /// A value.
    Value,
    /// A value or `]`.
    ValueOrEnd,
    /// A name.
    Name,
    /// A name or `}`.
    NameOrEnd,
    /// `:`
    Colon,
    /// `,` or what closes the container.
    Next,
    /// Nothing.
    End,
}

/// Next token that is allowed after a value at this depth.
#[inline(always)]
fn after(depth: u64) -> ExpectedToken {
    if depth == 0 {
        ExpectedToken::End
    } else {
        ExpectedToken::Next
    }
}

/// Passes over the number or literal that begins with `first`, before `chunk[at]`.
#[inline(never)]
fn skip_scalar(chunk: &[u8], at: usize, first: u8) -> scalar::ScalarEnd {
    Scalar::begin(first).map_or(scalar::ScalarEnd::Invalid, |scalar| scalar.skip(chunk, at))
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
    Model,
    Stream,
    MaxTokens,
}

impl MemberName {
    /// Name with this spelling, between the quotes.
    #[inline(always)]
    fn of(spelling: &[u8], escapes: bool) -> Self {
        if escapes && spelling.contains(&b'\\') {
            return Self::of_escaped(spelling);
        }
        match spelling {
            SYSTEM => Self::System,
            TEXT => Self::Text,
            CACHE_CONTROL => Self::CacheControl,
            TTL => Self::Ttl,
            MODEL => Self::Model,
            STREAM => Self::Stream,
            MAX_TOKENS => Self::MaxTokens,
            _ => Self::Other,
        }
    }

    #[inline(never)]
    fn of_escaped(spelling: &[u8]) -> Self {
        let names = [
            (SYSTEM, Self::System),
            (TEXT, Self::Text),
            (CACHE_CONTROL, Self::CacheControl),
            (TTL, Self::Ttl),
            (MODEL, Self::Model),
            (STREAM, Self::Stream),
            (MAX_TOKENS, Self::MaxTokens),
        ];
        names
            .into_iter()
            .find(|(name, _)| text::is(spelling, name))
            .map_or(Self::Other, |(_, name)| name)
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

/// White space in the sense of RFC 8259 §2.
macro_rules! space {
    () => {
        b' ' | b'\n' | b'\r' | b'\t'
    };
}
use space;

fn is_space(octet: u8) -> bool {
    matches!(octet, space!())
}

/// Byte order mark, which some editors put before JSON (RFC 8259 §8.1 lets a parser ignore it).
const BYTE_ORDER_MARK: Scalar = Scalar::Literal(b"\xEF\xBB\xBF");
/// Elements of `system` that can be the target.
const WATCHED: usize = 2;
const SYSTEM: &[u8] = b"system";
const TEXT: &[u8] = b"text";
const CACHE_CONTROL: &[u8] = b"cache_control";
const TTL: &[u8] = b"ttl";
const MODEL: &[u8] = b"model";
const STREAM: &[u8] = b"stream";
const MAX_TOKENS: &[u8] = b"max_tokens";
/// Every byte of the longest name as `\uXXXX`.
const LONGEST_SPELLING: usize = 6 * CACHE_CONTROL.len();

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use serde::de::IgnoredAny;

    use super::*;

    /// Scans `chunks` with every instruction set this machine has; all must agree.
    fn scan<'a>(chunks: impl Iterator<Item = &'a [u8]> + Clone) -> Option<ScanResult> {
        let level = Level::new();
        let levels = [
            Some(level),
            Some(Level::baseline()),
            #[cfg(target_arch = "x86_64")]
            level.as_avx2().map(Level::Avx2),
        ];
        let mut found = levels.into_iter().flatten().map(|level| {
            let mut scanner = Scanner {
                level,
                ..Scanner::new()
            };
            chunks.clone().for_each(|chunk| scanner.scan(chunk));
            scanner.finish()
        });
        let first = found.next().flatten();
        assert!(found.all(|other| other == first));
        first
    }

    fn is_json(octets: &[u8]) -> bool {
        scan([octets].into_iter()).is_some()
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
    fn json_is_what_rfc_8259_says() {
        let json = r#"{} [] null true false 0 -0 12 1.5 -1.5e+10 1E-2 0e1 "" [[],{}] {"a":[{}]}
            "\"\\\/\b\f\n\r\t\u00aF" ["\ud800"] {"":0,"":0}"#;
        for json in json.split_ascii_whitespace() {
            assert!(is_json(json.as_bytes()), "{json}");
        }
        let other = r#"{ [ } ] {] [} {}{} {}, [1,] {"a":1,} [,] {,} {"a"} {"a":} {a:1} {1:2} ['a'] nul nulL
            truee True 01 - -a 1. .5 +1 1e 1e+ 0x1 1.e5 --1 1-1 NaN " "\" "\x" "\u00g0" "\u00" /**/1 ["a":1]
            {"a":1:2} {"a":1"b":2} [1[]] {"a",1} , :"#;
        for other in other.split_ascii_whitespace() {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
        let spaced = " \t\r\n[ 1 , { \"a\" : [ ] ,\n\"b\"\t:\r{ } } , { } , true , 0 , \"\" ] \n";
        assert!(is_json(spaced.as_bytes()));
        assert!(is_json(format!("\u{feff}{spaced}").as_bytes()));
        for other in [
            "",
            " ",
            "\u{feff}",
            " \u{feff}1",
            "\u{feff}\u{feff}1",
            "\u{b}1",
            "\u{a0}1",
            "1\0",
        ] {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
        for other in [
            "1 2",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "\"\n\"",
            "\"\u{1f}\"",
            "\"\\\n\"",
        ] {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
        assert!(is_json("\"\u{7f}\u{80}\u{6570}\"".as_bytes()));
        assert!(
            is_json(b"\"\xff\xc3\x28\""),
            "UTF-8 is not looked at inside strings"
        );
        assert!(!is_json(b"\xff"));
        assert!(!is_json(b"\xef\xbb"));
    }

    #[test]
    fn escapes_are_checked_at_every_place_of_a_block() {
        let good = [
            r"\n",
            r"\\",
            r#"\""#,
            r"\u0aF9",
            r"\/",
            r"\\\\",
            r#"\\\""#,
            r"\b\f\r\t",
        ];
        let bad = [r"\x", r"\u0aG9", "\n", "\\\n", r"\\\x", r"\ "];
        for before in 0..140 {
            let string = |middle: &str| {
                format!(
                    "[\"{}{middle}{}\"]",
                    "é".repeat(before / 2),
                    "x".repeat(before % 70)
                )
            };
            for middle in good {
                assert!(
                    is_json(string(middle).as_bytes()),
                    "{middle} after {before}"
                );
            }
            for middle in bad {
                assert!(
                    !is_json(string(middle).as_bytes()),
                    "{middle} after {before}"
                );
            }
            let runs = "\\".repeat(before);
            assert_eq!(
                is_json(format!("\"{runs}\"").as_bytes()),
                before % 2 == 0,
                "{before}"
            );
        }
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

    #[test]
    fn any_depth_is_safe() {
        for depth in [100_000, 1024 * 1024] {
            let nested = |open, close| [vec![open; depth], vec![close; depth]].concat();
            assert!(is_json(&nested(b'[', b']')));
            assert!(!is_json(&nested(b'[', b'}')));
        }
        let mixed = r#"{"a":["#.repeat(500) + &"]}".repeat(500);
        assert!(is_json(mixed.as_bytes()));
        assert!(!is_json(mixed.replacen("]}]}", "]]}}", 1).as_bytes()));
    }

    /// Bytes that are nearly JSON.
    fn tokens() -> impl Strategy<Value = Vec<u8>> {
        let tokens = r#"{ } [ ] , : " \ "" "a" "system": "text": true null fals 0 - 1 . e + \u00e9 u \n
            [{"text":"a"}]"#;
        let mut tokens: Vec<_> = tokens.split_ascii_whitespace().collect();
        tokens.extend([" ", "\n", "\t", "\u{e9}"]);
        let tokens = prop::sample::select(tokens);
        prop::collection::vec(
            prop_oneof![
                9 => tokens.prop_map(|token| token.as_bytes().to_vec()),
                1 => any::<u8>().prop_map(|octet| vec![octet]),
            ],
            0..40,
        )
        .prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn arbitrary_octets_are_json_when_serde_json_says_so(octets in tokens(), size in 1usize..20) {
            let whole = scan([&octets[..]].into_iter());
            prop_assert_eq!(&whole, &scan(octets.chunks(size)));
            prop_assert_eq!(whole.is_some(), serde_json::from_slice::<IgnoredAny>(&octets).is_ok());
        }

        #[test]
        fn strings_are_judged_as_serde_json_judges_them(
            inside in prop::collection::vec(prop_oneof![
                4 => prop::sample::select(b"\\\\\\nu\"tx/0aF\n\x1f ".to_vec()),
                6 => prop::sample::select(b"abc \xc3\xa9".to_vec()),
            ], 0..200),
            size in 1usize..200,
        ) {
            let json = [&b"[\""[..], &inside, b"\"]"].concat();
            let whole = scan([&json[..]].into_iter());
            prop_assert_eq!(&whole, &scan(json.chunks(size)));
            prop_assert_eq!(whole.is_some(), serde_json::from_slice::<IgnoredAny>(&json).is_ok());
        }
    }
}
