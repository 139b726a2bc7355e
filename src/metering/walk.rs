//! Walks through a JSON text (RFC 8259) as it comes and shows the known members.
//!
//! It shares its parts with the scanner of requests, but reads values where that records spans, and
//! reads a few objects only: in all other containers it checks the grammar. It copies no byte,
//! except for a known token that a chunk boundary cuts; it does not recurse.

use std::{borrow::Cow, mem, ops::ControlFlow};

use fearless_simd::{Level, Simd, dispatch};

use super::members::{Match, Member, MemberValue, ObjectPath};
use crate::json::{
    nesting::{Container, Nesting},
    scalar::{self, Scalar},
    string::{self, StringEnd, Within},
};

/// Walk through one JSON text.
#[derive(Debug)]
pub(super) struct JsonWalk {
    /// SIMD instruction set of this machine.
    level: Level,
    state: WalkState,
    nesting: Nesting,
    /// The objects of note that are open, from the outermost.
    places: [ObjectPath; PLACES],
    /// Number of containers on that path: members are read where as many are open.
    watched: u64,
    /// Kind of the next value.
    member: Member,
    /// The spelling so far of a token of note that began in an earlier chunk.
    token: Vec<u8>,
}

/// Position of a walk between two chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalkState {
    /// Before the first value, of a byte order mark this may come.
    Start(Scalar),
    /// Between tokens.
    Expect(NextToken),
    /// In a name; true if the name is compared.
    Name(Within, bool),
    /// In a string that is a value, of this leaf.
    String(Within, Option<MemberValue>),
    /// In a number or literal.
    Scalar(Scalar, Option<MemberValue>),
    /// The caller wants no more matches.
    Stopped,
    /// The text is not JSON, or nested too deep.
    Invalid,
}

/// Next token that is allowed, besides white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextToken {
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

/// State in which a walk ends before its chunk does.
type Halt = WalkState;

impl JsonWalk {
    /// Before the first byte of a text whose outermost object is this.
    pub(super) fn new(root: ObjectPath) -> Self {
        Self {
            level: Level::new(),
            state: WalkState::Start(BYTE_ORDER_MARK),
            nesting: Nesting::default(),
            places: [root; PLACES],
            watched: 0,
            member: Member::Object(root),
            token: Vec::new(),
        }
    }

    /// Before the first byte of another text of this kind.
    pub(super) fn restart(&mut self, root: ObjectPath) {
        self.state = WalkState::Start(BYTE_ORDER_MARK);
        self.nesting = Nesting::default();
        self.watched = 0;
        self.member = Member::Object(root);
        self.token.clear();
    }

    /// Reports whether the bytes so far are not the beginning of a readable JSON text.
    pub(super) fn is_invalid(&self) -> bool {
        self.state == WalkState::Invalid
    }

    /// Reports whether the bytes so far are one JSON text, or the caller wanted no more.
    pub(super) fn is_complete(&self) -> bool {
        match self.state {
            WalkState::Expect(NextToken::End) | WalkState::Stopped => true,
            WalkState::Scalar(rest, _) => self.nesting.depth == 0 && rest.is_complete(),
            _ => false,
        }
    }

    /// Reports whether nothing more can be found.
    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.state,
            WalkState::Expect(NextToken::End) | WalkState::Stopped | WalkState::Invalid
        )
    }

    /// Reads the next bytes. `show` may break off: then nothing more is read.
    pub(super) fn walk(
        &mut self,
        chunk: &[u8],
        show: &mut impl FnMut(Match<'_>) -> ControlFlow<()>,
    ) {
        if matches!(self.state, WalkState::Stopped | WalkState::Invalid) {
            return;
        }
        let level = self.level;
        self.state = dispatch!(level, simd => self.walk_with(simd, chunk, show));
    }

    #[inline(always)]
    fn walk_with<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        show: &mut impl FnMut(Match<'_>) -> ControlFlow<()>,
    ) -> WalkState {
        match self.resume(simd, chunk, show) {
            Ok((at, expect)) => match self.tokens(simd, chunk, at, expect, show) {
                Ok(expect) => WalkState::Expect(expect),
                Err(state) => state,
            },
            Err(state) => state,
        }
    }

    /// Ends the token that the last chunk cut: the index after it, and what may come there.
    fn resume<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        show: &mut impl FnMut(Match<'_>) -> ControlFlow<()>,
    ) -> Result<(usize, NextToken), Halt> {
        match self.state {
            WalkState::Expect(expect) => Ok((0, expect)),
            WalkState::Name(within, is_watched) => match string::resume(simd, chunk, within) {
                StringEnd::Closed { next, .. } => {
                    if is_watched {
                        self.gather(chunk.get(..next - 1));
                        let token = mem::take(&mut self.token);
                        self.named(&token);
                        self.token = token;
                    }
                    Ok((next, NextToken::Colon))
                }
                StringEnd::Open(within) => {
                    if is_watched {
                        self.gather(Some(chunk));
                    }
                    Err(WalkState::Name(within, is_watched))
                }
                StringEnd::Invalid => Err(WalkState::Invalid),
            },
            WalkState::String(within, leaf) => match string::resume(simd, chunk, within) {
                StringEnd::Closed { next, .. } => {
                    if let Some(leaf) = leaf {
                        self.gather(chunk.get(..next - 1));
                        shown(show(text(leaf, &self.token, &mut String::new())))?;
                    }
                    Ok((next, self.after()))
                }
                StringEnd::Open(within) => {
                    if leaf.is_some() {
                        self.gather(Some(chunk));
                    }
                    Err(WalkState::String(within, leaf))
                }
                StringEnd::Invalid => Err(WalkState::Invalid),
            },
            WalkState::Scalar(rest, leaf) => match rest.skip(chunk, 0) {
                scalar::ScalarEnd::Before(next) => {
                    if let Some(leaf) = leaf {
                        self.gather(chunk.get(..next));
                        shown(show(plain(leaf, &self.token)))?;
                    }
                    Ok((next, self.after()))
                }
                scalar::ScalarEnd::Open(rest) => {
                    if leaf.is_some() {
                        self.gather(Some(chunk));
                    }
                    Err(WalkState::Scalar(rest, leaf))
                }
                scalar::ScalarEnd::Invalid => Err(WalkState::Invalid),
            },
            WalkState::Start(mark) => match mark.skip(chunk, 0) {
                scalar::ScalarEnd::Before(next) => Ok((next, NextToken::Value)),
                scalar::ScalarEnd::Open(rest) => Err(WalkState::Start(rest)),
                scalar::ScalarEnd::Invalid
                    if mark == BYTE_ORDER_MARK && chunk.first() != Some(&0xEF) =>
                {
                    Ok((0, NextToken::Value))
                }
                scalar::ScalarEnd::Invalid => Err(WalkState::Invalid),
            },
            WalkState::Stopped | WalkState::Invalid => Err(self.state),
        }
    }

    /// Goes through `chunk[at..]`, token by token: what may come after it.
    #[inline(always)]
    fn tokens<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        mut at: usize,
        mut expect: NextToken,
        show: &mut impl FnMut(Match<'_>) -> ControlFlow<()>,
    ) -> Result<NextToken, Halt> {
        while let Some(&octet) = chunk.get(at) {
            let start = at;
            at += 1;
            if matches!(octet, b' ' | b'\n' | b'\r' | b'\t') {
                continue;
            }
            expect = match (expect, octet) {
                (NextToken::Next, b',') => match self.nesting.container() {
                    Container::Object => NextToken::Name,
                    Container::Array => NextToken::Value,
                },
                (NextToken::Next, b'}') if self.nesting.container() == Container::Object => {
                    self.leave(show)?
                }
                (NextToken::Next, b']') if self.nesting.container() == Container::Array => {
                    self.leave(show)?
                }
                (NextToken::NameOrEnd, b'}') | (NextToken::ValueOrEnd, b']') => self.leave(show)?,
                (NextToken::Name | NextToken::NameOrEnd, b'"') => {
                    let is_watched = self.nesting.depth == self.watched;
                    match string::skip(simd, chunk, at) {
                        StringEnd::Closed { next, .. } => {
                            if is_watched {
                                self.named(chunk.get(at..next - 1).unwrap_or_default());
                            }
                            at = next;
                            NextToken::Colon
                        }
                        StringEnd::Open(within) => {
                            self.token.clear();
                            if is_watched {
                                self.gather(chunk.get(at..));
                            }
                            return Err(WalkState::Name(within, is_watched));
                        }
                        StringEnd::Invalid => return Err(WalkState::Invalid),
                    }
                }
                (NextToken::Colon, b':') => NextToken::Value,
                (NextToken::Value | NextToken::ValueOrEnd, _) => {
                    let member = mem::replace(&mut self.member, Member::Other);
                    let leaf = match member {
                        Member::Value(leaf) => Some(leaf),
                        Member::Object(ObjectPath::Error) if octet == b'"' => {
                            shown(show(Match::Object(ObjectPath::Error)))?;
                            None
                        }
                        Member::Object(_) | Member::Array(_) | Member::Other => None,
                    };
                    match octet {
                        b'"' => match string::skip(simd, chunk, at) {
                            StringEnd::Closed { next, .. } => {
                                if let Some(leaf) = leaf {
                                    let spelling = chunk.get(at..next - 1).unwrap_or_default();
                                    shown(show(text(leaf, spelling, &mut String::new())))?;
                                }
                                at = next;
                                self.after()
                            }
                            StringEnd::Open(within) => {
                                self.token.clear();
                                if leaf.is_some() {
                                    self.gather(chunk.get(at..));
                                }
                                return Err(WalkState::String(within, leaf));
                            }
                            StringEnd::Invalid => return Err(WalkState::Invalid),
                        },
                        b'{' | b'[' => {
                            if self.nesting.depth >= DEEPEST {
                                return Err(WalkState::Invalid);
                            }
                            if let Some(leaf) = leaf {
                                shown(show(Match::Other(leaf)))?;
                            }
                            if octet == b'{' {
                                let member = match member {
                                    Member::Other => self.element(),
                                    member => member,
                                };
                                if let Member::Object(place) = member {
                                    self.watch(place);
                                    shown(show(Match::Object(place)))?;
                                }
                                self.nesting.enter(Container::Object);
                                NextToken::NameOrEnd
                            } else {
                                if let Member::Array(place) = member {
                                    self.watch(place);
                                    shown(show(Match::Object(place)))?;
                                }
                                self.nesting.enter(Container::Array);
                                NextToken::ValueOrEnd
                            }
                        }
                        _ => match skip_scalar(chunk, at, octet) {
                            scalar::ScalarEnd::Before(next) => {
                                if let Some(leaf) = leaf {
                                    let spelling = chunk.get(start..next).unwrap_or_default();
                                    shown(show(plain(leaf, spelling)))?;
                                }
                                at = next;
                                self.after()
                            }
                            scalar::ScalarEnd::Open(rest) => {
                                self.token.clear();
                                if leaf.is_some() {
                                    self.gather(chunk.get(start..));
                                }
                                return Err(WalkState::Scalar(rest, leaf));
                            }
                            scalar::ScalarEnd::Invalid => return Err(WalkState::Invalid),
                        },
                    }
                }
                _ => return Err(WalkState::Invalid),
            };
        }
        Ok(expect)
    }

    /// The innermost object or array of note that is open.
    fn innermost(&self) -> Option<ObjectPath> {
        let innermost = usize::try_from(self.watched).unwrap_or(usize::MAX);
        let index = innermost.checked_sub(1)?;
        self.places.get(index).copied()
    }

    /// Kind of an object that is an element of an array or the whole text.
    #[inline(always)]
    fn element(&self) -> Member {
        if self.nesting.depth != self.watched {
            return Member::Other;
        }
        self.innermost().map_or(Member::Other, ObjectPath::element)
    }

    /// The name of a member that is looked at.
    #[inline(never)]
    fn named(&mut self, spelling: &[u8]) {
        self.member = match (self.innermost(), unescaped(spelling)) {
            (Some(place), Some(name)) => place.member(&name),
            _ => Member::Other,
        };
    }

    /// Enters a known object.
    fn watch(&mut self, place: ObjectPath) {
        let outer = usize::try_from(self.watched).unwrap_or(usize::MAX);
        if let Some(slot) = self.places.get_mut(outer) {
            *slot = place;
            self.watched += 1;
        }
    }

    /// An object or array ended.
    #[inline(always)]
    fn leave(
        &mut self,
        show: &mut impl FnMut(Match<'_>) -> ControlFlow<()>,
    ) -> Result<NextToken, Halt> {
        self.nesting.leave();
        if self.watched > self.nesting.depth {
            let left = self.innermost();
            self.watched = self.nesting.depth;
            if left == Some(ObjectPath::Iteration) {
                shown(show(Match::Left(ObjectPath::Iteration)))?;
            }
        }
        Ok(self.after())
    }

    /// Next token that is allowed after a value.
    #[inline(always)]
    fn after(&self) -> NextToken {
        if self.nesting.depth == 0 {
            NextToken::End
        } else {
            NextToken::Next
        }
    }

    /// Adds to the spelling of a token that a chunk boundary cuts, as far as it may be of use.
    fn gather(&mut self, part: Option<&[u8]>) {
        let part = part.unwrap_or_default();
        let room = (LONGEST_TOKEN + 1).saturating_sub(self.token.len());
        self.token
            .extend_from_slice(part.get(..room).unwrap_or(part));
    }
}

/// Continues the walk, or stops it if the caller wants no more.
fn shown(flow: ControlFlow<()>) -> Result<(), Halt> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(WalkState::Stopped),
    }
}

/// Passes over the number or literal that begins with `first`, before `chunk[at]`.
#[inline(never)]
fn skip_scalar(chunk: &[u8], at: usize, first: u8) -> scalar::ScalarEnd {
    Scalar::begin(first).map_or(scalar::ScalarEnd::Invalid, |scalar| scalar.skip(chunk, at))
}

/// The value of a string of this spelling; `unspelt` is where escapes are undone.
#[inline(never)]
pub(super) fn text<'a>(
    leaf: MemberValue,
    spelling: &'a [u8],
    unspelt: &'a mut String,
) -> Match<'a> {
    let text: &str = match unescaped(spelling) {
        Some(Cow::Borrowed(octets)) => match str::from_utf8(octets) {
            Ok(text) => text,
            Err(_) => return Match::Other(leaf),
        },
        Some(Cow::Owned(octets)) => match String::from_utf8(octets) {
            Ok(text) => {
                *unspelt = text;
                unspelt
            }
            Err(_) => return Match::Other(leaf),
        },
        None => return Match::Other(leaf),
    };
    if text.len() > LONGEST_TEXT || text.chars().any(char::is_control) {
        return Match::Other(leaf);
    }
    Match::Text(leaf, text)
}

/// The value of a number or literal.
pub(super) fn plain(leaf: MemberValue, spelling: &[u8]) -> Match<'static> {
    match spelling {
        b"true" => Match::Bool(leaf, true),
        b"false" => Match::Bool(leaf, false),
        b"null" => Match::Null(leaf),
        _ => str::from_utf8(spelling)
            .ok()
            .and_then(whole)
            .map_or(Match::Other(leaf), |number| Match::Number(leaf, number)),
    }
}

/// The whole number of this spelling, of those that JSON has: `10`, and what some servers make of it, `10.0`
/// or `1e1`.
pub(super) fn whole(spelling: &str) -> Option<u64> {
    let spelling = spelling.trim();
    if let Ok(number) = spelling.parse() {
        return Some(number);
    }
    if !spelling.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let number: f64 = spelling.parse().ok()?;
    // beyond it not every whole number is one of these
    let is_exact = number.fract() == 0.0 && number <= LARGEST_EXACT;
    is_exact.then_some(number as u64)
}

/// Spelling with its escapes decoded; none if it is too long, or has half a surrogate pair.
pub(super) fn unescaped(spelling: &[u8]) -> Option<Cow<'_, [u8]>> {
    if spelling.len() > LONGEST_TOKEN {
        return None;
    }
    if !spelling.contains(&b'\\') {
        return Some(Cow::Borrowed(spelling));
    }
    let quoted = [b"\"", spelling, b"\""].concat();
    let text: String = serde_json::from_slice(&quoted).ok()?;
    Some(Cow::Owned(text.into_bytes()))
}

/// Byte order mark, which some servers put before JSON (RFC 8259 §8.1 lets a parser ignore it).
const BYTE_ORDER_MARK: Scalar = Scalar::Literal(b"\xEF\xBB\xBF");
/// Objects and arrays of note in each other at most: event, `message`, `usage`, `iterations`, its element,
/// `cache_creation`.
const PLACES: usize = 6;
/// 2⁵³
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
/// Bytes of a string of note, other than its spelling.
const LONGEST_TEXT: usize = 128;
/// Bytes of a token of note: every byte of the longest text as `\uXXXX`.
pub(super) const LONGEST_TOKEN: usize = 6 * LONGEST_TEXT;
/// Levels of nesting: a bit each, so 64 KiB.
pub(super) const DEEPEST: u64 = 64 * 1024 * 8;

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    /// What is shown of a text in these chunks, and whether it is valid, and complete.
    fn walk<'a>(
        root: ObjectPath,
        chunks: impl Iterator<Item = &'a [u8]>,
    ) -> (Vec<String>, bool, bool) {
        let (mut walk, mut found) = (JsonWalk::new(root), Vec::new());
        for chunk in chunks {
            walk.walk(chunk, &mut |shown| {
                found.push(format!("{shown:?}"));
                ControlFlow::Continue(())
            });
        }
        (found, !walk.is_invalid(), walk.is_complete())
    }

    #[track_caller]
    fn found(root: ObjectPath, text: &str) -> Vec<String> {
        let whole = walk(root, [text.as_bytes()].into_iter());
        assert!(whole.1 && whole.2, "{text}");
        for size in 1..8 {
            assert_eq!(walk(root, text.as_bytes().chunks(size)), whole, "{text}");
        }
        whole.0
    }

    #[test]
    fn members_are_found_in_their_place_only() {
        let text = r#" {"type":"message_start","usage":{"output_tokens":1,"x":{"input_tokens":9}},
            "content":[{"type":"x","usage":{"input_tokens":8}}],"model":"no",
            "message":{"model":"m","usage":{"cache_creation":{"ephemeral_1h_input_tokens":7},"input_tokens":6},
            "type":"message"},"delta":{"stop_reason":null}} "#;
        assert_eq!(
            found(ObjectPath::Event, text),
            [
                "Object(Event)",
                r#"Text(Type, "message_start")"#,
                "Object(Usage)",
                "Number(Output, 1)",
                "Object(Message)",
                r#"Text(Model, "m")"#,
                "Object(Usage)",
                "Object(CacheCreation)",
                "Number(CacheWrite1h, 7)",
                "Number(Input, 6)",
                "Object(Delta)",
                "Null(StopReason)",
            ]
        );
        for other in [r#"[{"model":"m"}]"#, r#""model""#, "1", "null", "[[]]"] {
            assert!(found(ObjectPath::Answer, other).is_empty(), "{other}");
        }
    }

    #[test]
    fn values_are_read_as_what_they_are() {
        for (value, expected) in [
            (r#""a""#, r#"Text(Model, "a")"#),
            (r#""\u0061\n""#, "Other(Model)"),
            (r#""\u6570\"""#, r#"Text(Model, "数\"")"#),
            (r#""\ud83d\ude00""#, r#"Text(Model, "😀")"#),
            (r#""\ud800""#, "Other(Model)"),
            ("12", "Number(Model, 12)"),
            ("-1", "Other(Model)"),
            ("-0", "Other(Model)"),
            ("1e3", "Number(Model, 1000)"),
            ("10.0", "Number(Model, 10)"),
            ("1.5", "Other(Model)"),
            ("1e-1", "Other(Model)"),
            ("1e400", "Other(Model)"),
            ("9007199254740994.0", "Other(Model)"),
            (
                "18446744073709551615",
                "Number(Model, 18446744073709551615)",
            ),
            ("18446744073709551616", "Other(Model)"),
            ("true", "Bool(Model, true)"),
            ("false", "Bool(Model, false)"),
            ("null", "Null(Model)"),
            ("[1]", "Other(Model)"),
            (r#"{"model":"b"}"#, "Other(Model)"),
        ] {
            let text = format!(r#"{{"m\u006fdel":{value}}}"#);
            let shown = found(ObjectPath::Request, &text);
            assert_eq!(shown, ["Object(Request)", expected], "{value}");
        }
        for (len, is_text) in [(LONGEST_TEXT, true), (LONGEST_TEXT + 1, false)] {
            for spelling in ["a", r"\u0061"] {
                let text = format!(r#"{{"model":"{}"}}"#, spelling.repeat(len));
                assert_eq!(
                    found(ObjectPath::Answer, &text)[1] != "Other(Model)",
                    is_text,
                    "{len} of {spelling}"
                );
            }
        }
        let invalid = walk(
            ObjectPath::Answer,
            [&b"{\"model\":\"\xff\"}"[..]].into_iter(),
        );
        assert_eq!(invalid.0[1], "Other(Model)");
    }

    #[test]
    fn tokens_are_kept_within_their_bound() {
        let mut walk = JsonWalk::new(ObjectPath::Answer);
        walk.walk(br#"{"model":""#, &mut |_| ControlFlow::Continue(()));
        for _ in 0..1000 {
            walk.walk(&[b'a'; 1000], &mut |_| ControlFlow::Continue(()));
        }
        assert!(walk.token.len() <= LONGEST_TOKEN + 1);
        walk.walk(br#"","stop_reason":"end_turn"}"#, &mut |found| {
            match found {
                Match::Text(leaf, _) => assert_eq!(leaf, MemberValue::StopReason),
                Match::Other(leaf) => assert_eq!(leaf, MemberValue::Model),
                _ => panic!("{found:?}"),
            }
            ControlFlow::Continue(())
        });
        assert!(walk.is_complete());
    }

    #[test]
    fn any_depth_is_safe_and_too_deep_is_refused() {
        let nested = |depth: usize| {
            let text = [vec![b'['; depth], vec![b']'; depth]].concat();
            walk(ObjectPath::Answer, [&text[..]].into_iter())
        };
        assert_eq!(nested(DEEPEST as usize), (vec![], true, true));
        assert_eq!(nested(DEEPEST as usize + 1), (vec![], false, false));
    }

    #[test]
    fn nothing_is_looked_at_once_it_breaks_off() {
        let (mut walk, mut shown) = (JsonWalk::new(ObjectPath::Request), 0);
        walk.walk(br#"{"model":"a","model":"b"} ["#, &mut |_| {
            shown += 1;
            if shown == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(walk.is_over() && walk.is_complete() && shown == 2);
    }

    /// Bytes that are nearly JSON.
    fn tokens() -> impl Strategy<Value = Vec<u8>> {
        let tokens = r#"{ } [ ] , : " \ "" "a" "model": "usage":{ "input_tokens":1 true null fals 0 - 1 . e + \u00e9 u \n
            {"model":"m"} "error":{"type":"#;
        let mut tokens: Vec<_> = tokens.split_ascii_whitespace().collect();
        tokens.extend([" ", "\n", "\t", "\u{e9}", "\u{feff}"]);
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
        fn a_text_is_complete_when_serde_json_says_so(octets in tokens(), size in 1usize..20) {
            let whole = walk(ObjectPath::Answer, [&octets[..]].into_iter());
            prop_assert_eq!(&whole, &walk(ObjectPath::Answer, octets.chunks(size)));
            let plain = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&octets);
            prop_assert_eq!(whole.2, serde_json::from_slice::<IgnoredAny>(plain).is_ok());
        }
    }
}
