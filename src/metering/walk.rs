//! Walks through a JSON text as it comes and shows the known members: a visitor of [`Tokenizer`].
//!
//! The members of a few objects are read; of all else the tokenizer checks the grammar.

use std::{mem, ops::ControlFlow};

use super::{
    members::{Match, Member, ObjectPath},
    value::{self, LONGEST_SPELLING},
};
use crate::json::tokenizer::{Tokenizer, Visitor};

/// Walk through one JSON text.
#[derive(Debug)]
pub(super) struct JsonWalk {
    tokenizer: Tokenizer,
    path: OpenObjects,
}

/// Position of a walk.
#[derive(Debug)]
struct OpenObjects {
    /// The objects of note that are open, from the outermost.
    places: [ObjectPath; PLACES],
    /// Number of containers on that path: members are read where as many are open.
    watched: u64,
    /// Lengths of the names of note in the innermost of them, a bit each.
    lengths: u64,
    /// Kind of the next value, or of the one that is read.
    member: Member,
}

/// Visitor that passes on each match.
struct MemberVisitor<'a, F> {
    path: &'a mut OpenObjects,
    show: F,
}

impl JsonWalk {
    /// Before the first byte of a text whose outermost object is this.
    pub(super) fn new(root: ObjectPath) -> Self {
        Self {
            tokenizer: Tokenizer::new(),
            path: OpenObjects::new(root),
        }
    }

    /// Before a member of the outermost object of a text, which is this.
    pub(super) fn inside(root: ObjectPath) -> Self {
        let mut path = OpenObjects::new(root);
        path.member = Member::Other;
        path.enter(root);
        Self {
            tokenizer: Tokenizer::inside_object(),
            path,
        }
    }

    /// Before the first byte of another text of this kind.
    pub(super) fn restart(&mut self, root: ObjectPath) {
        self.tokenizer.restart();
        self.path.watched = 0;
        self.path.member = Member::Object(root);
    }

    /// Reports whether the bytes so far are not the beginning of a readable JSON text.
    pub(super) fn is_invalid(&self) -> bool {
        self.tokenizer.is_invalid()
    }

    /// Reports whether the bytes so far are one JSON text, or the caller wanted no more.
    pub(super) fn is_complete(&self) -> bool {
        self.tokenizer.is_complete()
    }

    /// Reports whether nothing more can be found.
    pub(super) fn is_over(&self) -> bool {
        self.tokenizer.is_over()
    }

    /// Reads the next bytes. `show` may break off: then nothing more is read.
    pub(super) fn walk(&mut self, chunk: &[u8], show: impl FnMut(Match<'_>) -> ControlFlow<()>) {
        let path = &mut self.path;
        self.tokenizer
            .push(chunk, &mut MemberVisitor { path, show });
    }
}

impl<F: FnMut(Match<'_>) -> ControlFlow<()>> Visitor for MemberVisitor<'_, F> {
    const DEEPEST: u64 = DEEPEST;

    #[inline(always)]
    fn reads_names(&self, depth: u64) -> bool {
        depth == self.path.watched
    }

    #[inline(always)]
    fn name(&mut self, spelling: &[u8], escapes: bool) {
        let is_known = spelling.len() >= 64 || self.path.lengths >> spelling.len() & 1 == 1;
        match is_known || escapes {
            true => self.path.named(spelling, escapes),
            false => self.path.member = Member::Other,
        }
    }

    #[inline(always)]
    fn begin(&mut self, first: u8, _at: u64, depth: u64) -> ControlFlow<(), bool> {
        if matches!(self.path.member, Member::Other)
            && (first != b'{' || depth != self.path.watched)
        {
            return ControlFlow::Continue(false);
        }
        self.member(first)
    }

    fn value(&mut self, spelling: &[u8], _end: u64) -> ControlFlow<()> {
        match mem::replace(&mut self.path.member, Member::Other) {
            Member::Value(leaf) => (self.show)(value::read(leaf, spelling)),
            Member::Object(_) | Member::Array(_) | Member::Other => ControlFlow::Continue(()),
        }
    }

    #[inline(always)]
    fn end(&mut self, depth: u64) -> ControlFlow<()> {
        if depth < self.path.watched {
            let left = self.path.innermost();
            self.path.watched = depth;
            self.path.lengths = self.path.innermost().map_or(u64::MAX, ObjectPath::lengths);
            if left == Some(ObjectPath::Iteration) {
                return (self.show)(Match::Left(ObjectPath::Iteration));
            }
        }
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(Match<'_>) -> ControlFlow<()>> MemberVisitor<'_, F> {
    /// The beginning of a value that may be of note: true if it is read.
    #[inline(never)]
    fn member(&mut self, first: u8) -> ControlFlow<(), bool> {
        let member = match mem::replace(&mut self.path.member, Member::Other) {
            // an element of an array
            Member::Other => self
                .path
                .innermost()
                .map_or(Member::Other, ObjectPath::element),
            member => member,
        };
        match (member, first) {
            (Member::Value(leaf), b'{' | b'[') => (self.show)(Match::Other(leaf))?,
            (Member::Value(_), _) => {
                self.path.member = member;
                return ControlFlow::Continue(true);
            }
            (Member::Object(place), b'{') | (Member::Array(place), b'[') => {
                self.path.enter(place);
                (self.show)(Match::Object(place))?;
            }
            (Member::Object(ObjectPath::Error), b'"') => {
                (self.show)(Match::Object(ObjectPath::Error))?;
            }
            (Member::Object(_) | Member::Array(_) | Member::Other, _) => {}
        }
        ControlFlow::Continue(false)
    }
}

impl OpenObjects {
    fn new(root: ObjectPath) -> Self {
        Self {
            places: [root; PLACES],
            watched: 0,
            lengths: u64::MAX,
            member: Member::Object(root),
        }
    }

    /// The innermost object or array of note that is open.
    fn innermost(&self) -> Option<ObjectPath> {
        let innermost = usize::try_from(self.watched).unwrap_or(usize::MAX);
        let index = innermost.checked_sub(1)?;
        self.places.get(index).copied()
    }

    /// The name of a member that is looked at.
    #[inline(never)]
    fn named(&mut self, spelling: &[u8], escapes: bool) {
        let Some(place) = self.innermost() else {
            self.member = Member::Other;
            return;
        };
        self.member = match escapes {
            false if spelling.len() <= LONGEST_SPELLING => place.member(spelling),
            false => Member::Other,
            true => value::unescaped(spelling).map_or(Member::Other, |name| place.member(&name)),
        };
    }

    /// Enters a known object.
    fn enter(&mut self, place: ObjectPath) {
        let outer = usize::try_from(self.watched).unwrap_or(usize::MAX);
        if let Some(slot) = self.places.get_mut(outer) {
            *slot = place;
            self.watched += 1;
            self.lengths = place.lengths();
        }
    }
}

/// Objects and arrays of note in each other at most: event, `message`, `usage`, `iterations`, its element,
/// `cache_creation`.
const PLACES: usize = 6;
/// Levels of nesting: a bit each, so 64 KiB.
const DEEPEST: u64 = 64 * 1024 * 8;

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{super::members::MemberValue, super::value::LONGEST_TEXT, *};

    /// The members of a text in these chunks that are read, if it is valid, and if it is complete.
    fn walk<'a>(
        root: ObjectPath,
        chunks: impl Iterator<Item = &'a [u8]>,
    ) -> (Vec<String>, bool, bool) {
        let (mut walk, mut found) = (JsonWalk::new(root), Vec::new());
        for chunk in chunks {
            walk.walk(chunk, |shown| {
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
        // the same of any spelling in any pieces, however long
        let zeros = "0".repeat(1_200);
        for value in [format!("1{zeros}e-1200"), format!("0.{zeros}1")] {
            let text = format!(r#"{{"max_tokens":{value}}}"#);
            assert_eq!(found(ObjectPath::Request, &text)[1], "Other(MaxTokens)");
        }
        let invalid = walk(
            ObjectPath::Answer,
            [&b"{\"model\":\"\xff\"}"[..]].into_iter(),
        );
        assert_eq!(invalid.0[1], "Other(Model)");
    }

    #[test]
    fn a_value_that_is_too_long_is_none() {
        let mut walk = JsonWalk::new(ObjectPath::Answer);
        walk.walk(br#"{"model":""#, |_| ControlFlow::Continue(()));
        for _ in 0..1000 {
            walk.walk(&[b'a'; 1000], |_| ControlFlow::Continue(()));
        }
        walk.walk(br#"","stop_reason":"end_turn"}"#, |found| {
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
        walk.walk(br#"{"model":"a","model":"b"} ["#, |_| {
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
