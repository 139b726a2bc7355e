//! Incremental tokenizer of one JSON text (RFC 8259), which shows a [`Visitor`] what it asks for.
//!
//! The grammar is checked in full, whatever the visitor reads; of the bytes inside strings see
//! `string`. Nothing recurses and no value is built: nesting costs one bit a level, and no byte is
//! kept but for a name or value that is read and cut by a chunk boundary, of at most [`LONGEST`]. Where
//! the chunks are cut makes no difference to the visitor.

use std::ops::ControlFlow;

use fearless_simd::{Level, Simd, dispatch};

use super::{
    nesting::{Container, Nesting, OuterLevels},
    scalar::{Scalar, ScalarEnd},
    string::{self, StringEnd, Within},
};

/// Reader of what a [`Tokenizer`] passes. Depths are numbers of containers that are open.
pub trait Visitor {
    /// Largest number of containers that may be open at once: a text with more is invalid.
    const DEEPEST: u64 = u64::MAX;

    /// Reports whether the names of members are read at this depth.
    fn reads_names(&self, depth: u64) -> bool;

    /// Takes a name, by its spelling between the quotes. Without `escapes` it has none.
    fn name(&mut self, spelling: &[u8], escapes: bool);

    /// Takes the first byte of a value, its offset in the text and its depth. Returns true if the
    /// value is to be read, which is for strings, numbers and literals only.
    fn begin(&mut self, first: u8, at: u64, depth: u64) -> ControlFlow<(), bool>;

    /// Takes the spelling of a value that is read, the quotes of a string included, and the offset
    /// after it.
    ///
    /// The end of a number is seen in the byte behind it: one that is the whole text is not shown.
    ///
    /// A spelling longer than [`LONGEST`] that a chunk boundary cuts is given in part: more than that many
    /// bytes, but not all.
    fn value(&mut self, spelling: &[u8], end: u64) -> ControlFlow<()>;

    /// Takes the end of an object or array that was at this depth.
    fn end(&mut self, depth: u64) -> ControlFlow<()>;
}

/// Incremental tokenizer of one text.
#[derive(Debug)]
pub struct Tokenizer {
    /// SIMD instruction set of this machine.
    level: Level,
    state: TokenizerState,
    nesting: Nesting,
    outer: OuterLevels,
    /// Offset of the next chunk in the text.
    base: u64,
    /// The spelling so far of a name or value that is read and began in an earlier chunk.
    spelling: Vec<u8>,
}

/// Position between two chunks. A token that is cut is read if its flag is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenizerState {
    /// Before the first value, of a byte order mark this may come.
    Start(Scalar),
    /// Between tokens.
    Expect(ExpectedToken),
    /// In a name.
    Name(Within, bool),
    /// In a string that is a value.
    String(Within, bool),
    /// In a number or literal.
    Scalar(Scalar, bool),
    /// The visitor wants no more.
    Stopped,
    /// The text is not JSON, or nested too deep.
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

/// State in which the tokenizer halts before its chunk ends.
type Halt = TokenizerState;

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// Makes a tokenizer before the first byte.
    pub fn new() -> Self {
        Self {
            level: Level::new(),
            state: TokenizerState::Start(BYTE_ORDER_MARK),
            nesting: Nesting::default(),
            outer: OuterLevels::new(),
            base: 0,
            spelling: Vec::new(),
        }
    }

    /// Makes a tokenizer behind the `{` of a text, or behind the comma after one of its members.
    pub(crate) fn inside_object() -> Self {
        let mut tokenizer = Self::new();
        tokenizer
            .nesting
            .enter(Container::Object, &mut tokenizer.outer);
        tokenizer.state = TokenizerState::Expect(ExpectedToken::NameOrEnd);
        tokenizer
    }

    /// Begins another text.
    pub(crate) fn restart(&mut self) {
        self.state = TokenizerState::Start(BYTE_ORDER_MARK);
        self.nesting = Nesting::default();
        self.outer.clear();
        self.base = 0;
    }

    /// Reports whether the bytes so far are not the beginning of a JSON text, or nested too deep.
    pub fn is_invalid(&self) -> bool {
        self.state == TokenizerState::Invalid
    }

    /// Reports whether the bytes so far are one JSON text, or the visitor wanted no more.
    pub fn is_complete(&self) -> bool {
        match self.state {
            TokenizerState::Expect(ExpectedToken::End) | TokenizerState::Stopped => true,
            TokenizerState::Scalar(rest, _) => self.nesting.depth == 0 && rest.is_complete(),
            _ => false,
        }
    }

    /// Reports whether nothing more can be shown.
    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self.state,
            TokenizerState::Expect(ExpectedToken::End)
                | TokenizerState::Stopped
                | TokenizerState::Invalid
        )
    }

    /// Reads the next bytes of the text.
    #[inline]
    pub fn push(&mut self, chunk: &[u8], visitor: &mut impl Visitor) {
        if matches!(
            self.state,
            TokenizerState::Stopped | TokenizerState::Invalid
        ) {
            return;
        }
        let level = self.level;
        self.state = dispatch!(level, simd => self.push_with(simd, chunk, visitor));
        self.base += chunk.len() as u64;
    }

    #[inline(always)]
    fn push_with<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        visitor: &mut impl Visitor,
    ) -> TokenizerState {
        let resumed = match self.state {
            TokenizerState::Expect(expect) => Ok((0, expect)),
            // nearly all texts have no byte order mark
            TokenizerState::Start(BYTE_ORDER_MARK)
                if matches!(chunk.first(), Some(b'{' | b'[')) =>
            {
                Ok((0, ExpectedToken::Value))
            }
            _ => self.resume(simd, chunk, visitor),
        };
        // a local can stay in registers
        let mut nesting = self.nesting;
        let halt = resumed
            .and_then(|(at, expect)| self.tokens(simd, chunk, at, expect, &mut nesting, visitor));
        self.nesting = nesting;
        match halt {
            Ok(expect) => TokenizerState::Expect(expect),
            Err(state) => state,
        }
    }

    /// Ends the token that the last chunk cut: the index after it, and what may come there.
    fn resume<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        visitor: &mut impl Visitor,
    ) -> Result<(usize, ExpectedToken), Halt> {
        match self.state {
            TokenizerState::Name(within, is_read) => match string::resume(simd, chunk, within) {
                StringEnd::Closed { next, .. } => {
                    if is_read {
                        self.gather(chunk.get(..next - 1), is_read);
                        visitor.name(&self.spelling, true);
                    }
                    Ok((next, ExpectedToken::Colon))
                }
                StringEnd::Open(within) => {
                    self.gather(Some(chunk), is_read);
                    Err(TokenizerState::Name(within, is_read))
                }
                StringEnd::Invalid => Err(TokenizerState::Invalid),
            },
            TokenizerState::String(within, is_read) => match string::resume(simd, chunk, within) {
                StringEnd::Closed { next, .. } => self.complete(chunk, next, is_read, visitor),
                StringEnd::Open(within) => {
                    self.gather(Some(chunk), is_read);
                    Err(TokenizerState::String(within, is_read))
                }
                StringEnd::Invalid => Err(TokenizerState::Invalid),
            },
            TokenizerState::Scalar(rest, is_read) => match rest.skip(chunk, 0) {
                ScalarEnd::Before(next) => self.complete(chunk, next, is_read, visitor),
                ScalarEnd::Open(rest) => {
                    self.gather(Some(chunk), is_read);
                    Err(TokenizerState::Scalar(rest, is_read))
                }
                ScalarEnd::Invalid => Err(TokenizerState::Invalid),
            },
            TokenizerState::Start(mark) => match mark.skip(chunk, 0) {
                ScalarEnd::Before(next) => Ok((next, ExpectedToken::Value)),
                ScalarEnd::Open(rest) => Err(TokenizerState::Start(rest)),
                ScalarEnd::Invalid if mark == BYTE_ORDER_MARK && chunk.first() != Some(&0xEF) => {
                    Ok((0, ExpectedToken::Value))
                }
                ScalarEnd::Invalid => Err(TokenizerState::Invalid),
            },
            TokenizerState::Expect(_) | TokenizerState::Stopped | TokenizerState::Invalid => {
                Err(self.state)
            }
        }
    }

    /// Shows a value that began in an earlier chunk and ends before `chunk[next]`.
    fn complete(
        &mut self,
        chunk: &[u8],
        next: usize,
        is_read: bool,
        visitor: &mut impl Visitor,
    ) -> Result<(usize, ExpectedToken), Halt> {
        if is_read {
            self.gather(chunk.get(..next), is_read);
            shown(visitor.value(&self.spelling, self.base + next as u64))?;
        }
        Ok((next, after(&self.nesting)))
    }

    /// Goes through `chunk[at..]`, token by token: what may come after it.
    #[inline(always)]
    fn tokens<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        mut at: usize,
        mut expect: ExpectedToken,
        nesting: &mut Nesting,
        visitor: &mut impl Visitor,
    ) -> Result<ExpectedToken, Halt> {
        while let Some(&octet) = chunk.get(at) {
            let start = at;
            at += 1;
            expect = match expect {
                ExpectedToken::Next => match (octet, nesting.container()) {
                    (b',', Container::Object) => ExpectedToken::Name,
                    (b',', Container::Array) => ExpectedToken::Value,
                    (b'}', Container::Object) | (b']', Container::Array) => {
                        self.leave(nesting, visitor)?
                    }
                    (space!(), _) => ExpectedToken::Next,
                    _ => return Err(TokenizerState::Invalid),
                },
                ExpectedToken::Name | ExpectedToken::NameOrEnd => match octet {
                    b'"' => {
                        let is_read = visitor.reads_names(nesting.depth);
                        match string::skip(simd, chunk, at) {
                            StringEnd::Closed { next, escapes } => {
                                if is_read {
                                    let spelling = chunk.get(at..next - 1).unwrap_or_default();
                                    visitor.name(spelling, escapes);
                                }
                                at = next;
                                // nearly always the next byte
                                if chunk.get(at) == Some(&b':') {
                                    at += 1;
                                    ExpectedToken::Value
                                } else {
                                    ExpectedToken::Colon
                                }
                            }
                            StringEnd::Open(within) => {
                                self.cut(chunk.get(at..), is_read);
                                return Err(TokenizerState::Name(within, is_read));
                            }
                            StringEnd::Invalid => return Err(TokenizerState::Invalid),
                        }
                    }
                    b'}' if expect == ExpectedToken::NameOrEnd => self.leave(nesting, visitor)?,
                    space!() => expect,
                    _ => return Err(TokenizerState::Invalid),
                },
                ExpectedToken::Colon => match octet {
                    b':' => ExpectedToken::Value,
                    space!() => ExpectedToken::Colon,
                    _ => return Err(TokenizerState::Invalid),
                },
                ExpectedToken::Value | ExpectedToken::ValueOrEnd => match octet {
                    b'"' => {
                        let is_read = self.begin(octet, start, nesting, visitor)?;
                        match string::skip(simd, chunk, at) {
                            StringEnd::Closed { next, .. } => {
                                at = next;
                                if is_read {
                                    let spelling = chunk.get(start..at).unwrap_or_default();
                                    shown(visitor.value(spelling, self.base + at as u64))?;
                                }
                                behind(nesting, chunk, &mut at)
                            }
                            StringEnd::Open(within) => {
                                self.cut(chunk.get(start..), is_read);
                                return Err(TokenizerState::String(within, is_read));
                            }
                            StringEnd::Invalid => return Err(TokenizerState::Invalid),
                        }
                    }
                    b'{' => {
                        self.begin(octet, start, nesting, visitor)?;
                        self.enter(nesting, Container::Object, visitor)?;
                        ExpectedToken::NameOrEnd
                    }
                    b'[' => {
                        self.begin(octet, start, nesting, visitor)?;
                        self.enter(nesting, Container::Array, visitor)?;
                        ExpectedToken::ValueOrEnd
                    }
                    b']' if expect == ExpectedToken::ValueOrEnd => self.leave(nesting, visitor)?,
                    space!() => expect,
                    _ => {
                        let is_read = self.begin(octet, start, nesting, visitor)?;
                        match skip_scalar(chunk, at, octet) {
                            ScalarEnd::Before(next) => {
                                at = next;
                                if is_read {
                                    let spelling = chunk.get(start..at).unwrap_or_default();
                                    shown(visitor.value(spelling, self.base + at as u64))?;
                                }
                                behind(nesting, chunk, &mut at)
                            }
                            ScalarEnd::Open(rest) => {
                                self.cut(chunk.get(start..), is_read);
                                return Err(TokenizerState::Scalar(rest, is_read));
                            }
                            ScalarEnd::Invalid => return Err(TokenizerState::Invalid),
                        }
                    }
                },
                ExpectedToken::End => match octet {
                    space!() => ExpectedToken::End,
                    _ => return Err(TokenizerState::Invalid),
                },
            };
        }
        Ok(expect)
    }

    /// Shows the beginning of a value at `chunk[at]`: true if the value is read.
    #[inline(always)]
    fn begin(
        &self,
        first: u8,
        at: usize,
        nesting: &Nesting,
        visitor: &mut impl Visitor,
    ) -> Result<bool, Halt> {
        shown(visitor.begin(first, self.base + at as u64, nesting.depth))
    }

    /// Opens an object or array.
    #[inline(always)]
    fn enter<V: Visitor>(
        &mut self,
        nesting: &mut Nesting,
        container: Container,
        _visitor: &V,
    ) -> Result<(), Halt> {
        if nesting.depth >= V::DEEPEST {
            return Err(TokenizerState::Invalid);
        }
        nesting.enter(container, &mut self.outer);
        Ok(())
    }

    /// Closes an object or array.
    #[inline(always)]
    fn leave(
        &mut self,
        nesting: &mut Nesting,
        visitor: &mut impl Visitor,
    ) -> Result<ExpectedToken, Halt> {
        nesting.leave(&mut self.outer);
        shown(visitor.end(nesting.depth))?;
        Ok(after(nesting))
    }

    /// Keeps the beginning of a name or value that the end of this chunk cuts, if it is read.
    fn cut(&mut self, part: Option<&[u8]>, is_read: bool) {
        self.spelling.clear();
        self.gather(part, is_read);
    }

    /// Adds to the spelling of a name or value that is read, as far as it may be of use.
    #[inline]
    fn gather(&mut self, part: Option<&[u8]>, is_read: bool) {
        if is_read && let Some(part) = part {
            let room = (LONGEST + 1).saturating_sub(self.spelling.len());
            self.spelling
                .extend_from_slice(part.get(..room).unwrap_or(part));
        }
    }
}

/// Goes on, or halts if the visitor wants no more.
#[inline(always)]
fn shown<T>(flow: ControlFlow<(), T>) -> Result<T, Halt> {
    match flow {
        ControlFlow::Continue(more) => Ok(more),
        ControlFlow::Break(()) => Err(TokenizerState::Stopped),
    }
}

/// Next token that is allowed after a value.
#[inline(always)]
fn after(nesting: &Nesting) -> ExpectedToken {
    if nesting.depth == 0 {
        ExpectedToken::End
    } else {
        ExpectedToken::Next
    }
}

/// Next token that is allowed after a value, behind the comma that nearly always follows one.
#[inline(always)]
fn behind(nesting: &Nesting, chunk: &[u8], at: &mut usize) -> ExpectedToken {
    if nesting.depth == 0 || chunk.get(*at) != Some(&b',') {
        return after(nesting);
    }
    *at += 1;
    match nesting.container() {
        Container::Object => ExpectedToken::Name,
        Container::Array => ExpectedToken::Value,
    }
}

/// Passes over the number or literal that begins with `first`, before `chunk[at]`.
#[inline(never)]
fn skip_scalar(chunk: &[u8], at: usize, first: u8) -> ScalarEnd {
    if let b'1'..=b'9' = first {
        // nearly all numbers are a few digits
        let rest = chunk.get(at..).unwrap_or_default();
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit());
        let next = at + digits.count();
        if !matches!(chunk.get(next), None | Some(b'.' | b'e' | b'E')) {
            return ScalarEnd::Before(next);
        }
    }
    // and many of these are 0
    if first == b'0' && matches!(chunk.get(at), Some(b',' | b'}' | b']')) {
        return ScalarEnd::Before(at);
    }
    Scalar::begin(first).map_or(ScalarEnd::Invalid, |scalar| scalar.skip(chunk, at))
}

/// White space in the sense of RFC 8259 §2.
macro_rules! space {
    () => {
        b' ' | b'\n' | b'\r' | b'\t'
    };
}
use space;

/// Most bytes of a name or value that a visitor can count on.
pub const LONGEST: usize = 1024;
/// Byte order mark, which some editors and servers put before JSON (RFC 8259 §8.1 lets a parser
/// ignore it).
const BYTE_ORDER_MARK: Scalar = Scalar::Literal(b"\xEF\xBB\xBF");

#[cfg(test)]
mod tests;
