//! Tests of the tokenizer: RFC 8259 as serde_json reads it, in any pieces, with any instruction set.

use std::fmt;

use proptest::{
    prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest},
    sample::select,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor as SerdeVisitor},
};
use serde_json::Value;

use super::*;

/// Token as the visitor was shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    Name(Vec<u8>),
    /// First byte, offset and depth of a value.
    Begin(u8, u64, u64),
    /// Spelling of a value, and the offset after it.
    Value(Vec<u8>, u64),
    End(u64),
}

/// Visitor that keeps what it is shown. It reads names and values at some depths, and halts after some
/// tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Recorder {
    shown: Vec<Shown>,
    /// Depths below 64 that are read, a bit each.
    depths: u64,
    most: usize,
}

impl Recorder {
    const ALL: Self = Self {
        shown: Vec::new(),
        depths: u64::MAX,
        most: usize::MAX,
    };

    fn reads(&self, depth: u64) -> bool {
        self.depths >> (depth % 64) & 1 == 1
    }

    fn take(&mut self, shown: Shown) -> ControlFlow<()> {
        self.shown.push(shown);
        if self.shown.len() < self.most {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

impl Visitor for Recorder {
    const DEEPEST: u64 = 1024 * 1024;

    fn reads_names(&self, depth: u64) -> bool {
        self.reads(depth)
    }

    fn name(&mut self, spelling: &[u8], escapes: bool) {
        assert!(escapes || !spelling.contains(&b'\\'));
        let kept = spelling.len().min(LONGEST + 1);
        self.shown.push(Shown::Name(spelling[..kept].to_vec()));
    }

    fn begin(&mut self, first: u8, at: u64, depth: u64) -> ControlFlow<(), bool> {
        self.take(Shown::Begin(first, at, depth))?;
        ControlFlow::Continue(self.reads(depth) && !matches!(first, b'{' | b'['))
    }

    fn value(&mut self, spelling: &[u8], end: u64) -> ControlFlow<()> {
        let kept = spelling.len().min(LONGEST + 1);
        self.take(Shown::Value(spelling[..kept].to_vec(), end))
    }

    fn end(&mut self, depth: u64) -> ControlFlow<()> {
        self.take(Shown::End(depth))
    }
}

/// The tokens of a text in these chunks, if it is valid, and if it is complete. All instruction sets of
/// this machine must agree.
fn tokens_with<'a>(
    recorder: &Recorder,
    chunks: impl Iterator<Item = &'a [u8]> + Clone,
) -> (Vec<Shown>, bool, bool) {
    let level = Level::new();
    let levels = [
        Some(level),
        Some(Level::baseline()),
        #[cfg(target_arch = "x86_64")]
        level.as_avx2().map(Level::Avx2),
    ];
    let mut found = levels.into_iter().flatten().map(|level| {
        let (mut tokenizer, mut visitor) = (Tokenizer::new(), recorder.clone());
        tokenizer.level = level;
        for chunk in chunks.clone() {
            tokenizer.push(chunk, &mut visitor);
            assert!(tokenizer.spelling.len() <= LONGEST + 1);
        }
        assert!(!tokenizer.is_over() || tokenizer.is_complete() || tokenizer.is_invalid());
        (
            visitor.shown,
            !tokenizer.is_invalid(),
            tokenizer.is_complete(),
        )
    });
    let first = found.next().unwrap();
    assert!(found.all(|other| other == first));
    first
}

fn tokens_of<'a>(chunks: impl Iterator<Item = &'a [u8]> + Clone) -> (Vec<Shown>, bool, bool) {
    tokens_with(&Recorder::ALL, chunks)
}

fn is_json(octets: &[u8]) -> bool {
    let (_, is_valid, is_complete) = tokens_of([octets].into_iter());
    assert!(is_valid || !is_complete);
    is_complete
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
fn any_depth_is_safe() {
    for depth in [100_000, 1024 * 1024] {
        let nested = |open, close| [vec![open; depth], vec![close; depth]].concat();
        assert!(is_json(&nested(b'[', b']')));
        assert!(!is_json(&nested(b'[', b'}')));
    }
    assert!(!is_json(&[b'['; 1024 * 1024 + 1]), "a level too deep");
    let mixed = r#"{"a":["#.repeat(500) + &"]}".repeat(500);
    assert!(is_json(mixed.as_bytes()));
    assert!(!is_json(mixed.replacen("]}]}", "]]}}", 1).as_bytes()));
}

/// Passes over all, and counts what it is shown.
#[derive(Default)]
struct Counter(usize);

impl Visitor for Counter {
    fn reads_names(&self, _depth: u64) -> bool {
        false
    }

    fn name(&mut self, _spelling: &[u8], _escapes: bool) {
        self.0 += 1000;
    }

    fn begin(&mut self, _first: u8, _at: u64, _depth: u64) -> ControlFlow<(), bool> {
        ControlFlow::Continue(false)
    }

    fn value(&mut self, _spelling: &[u8], _end: u64) -> ControlFlow<()> {
        self.0 += 1000;
        ControlFlow::Continue(())
    }

    fn end(&mut self, _depth: u64) -> ControlFlow<()> {
        self.0 += 1;
        ControlFlow::Continue(())
    }
}

#[test]
fn what_is_not_asked_for_is_neither_shown_nor_kept() {
    let text = format!(
        r#"{{"{0}":["{0}",{{"a":1e{1}}}]}}"#,
        "x".repeat(3_000),
        "0".repeat(3_000)
    );
    for size in [1, 100, 10_000] {
        let (mut tokenizer, mut counter) = (Tokenizer::new(), Counter::default());
        for chunk in text.as_bytes().chunks(size) {
            tokenizer.push(chunk, &mut counter);
        }
        assert!(tokenizer.is_complete() && counter.0 == 3);
        assert_eq!(tokenizer.spelling.capacity(), 0);
    }
}

#[test]
fn a_spelling_is_kept_within_its_bound_and_shown_whole_below_it() {
    for len in [LONGEST - 2, LONGEST - 1, 3 * LONGEST] {
        let string = format!("\"{}\"", "x".repeat(len));
        let text = format!("{{{string}:{string}}}");
        for size in [1, 7, 1_000, 100_000] {
            let (shown, _, is_complete) = tokens_of(text.as_bytes().chunks(size));
            assert!(is_complete);
            let kept = string.len().min(LONGEST + 1);
            let end = text.len() as u64 - 1;
            let value = Shown::Value(string.as_bytes()[..kept].to_vec(), end);
            assert_eq!(shown[3], value, "{len} in {size}");
        }
    }
}

#[test]
fn a_text_may_begin_inside_of_an_object() {
    let mut recorder = Recorder::ALL;
    let mut tokenizer = Tokenizer::inside_object();
    tokenizer.push(br#" "a":[1], "b":{}} "#, &mut recorder);
    assert!(tokenizer.is_complete() && tokenizer.is_over());
    let names = |shown: &&Shown| matches!(shown, Shown::Name(_));
    assert_eq!(recorder.shown.iter().filter(names).count(), 2);
    tokenizer.restart();
    assert!(!tokenizer.is_complete());
    tokenizer.push(b"[[[]]", &mut recorder);
    tokenizer.restart();
    tokenizer.push(b"\xef\xbb\xbf0", &mut recorder);
    assert!(tokenizer.is_complete());
    assert_eq!(recorder.shown.last(), Some(&Shown::Begin(b'0', 3, 0)));
    tokenizer.push(b" }", &mut recorder);
    assert!(tokenizer.is_invalid());
}

/// Tokens as serde_json reads them: texts and numbers by their value.
#[derive(Debug, PartialEq)]
enum Truth {
    Name(String),
    Open(char),
    Value(Value),
    Close,
}

#[derive(Default)]
struct Truths(Vec<Truth>);

impl<'de> Deserialize<'de> for Truths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TruthVisitor)
    }
}

struct TruthVisitor;

impl<'de> SerdeVisitor<'de> for TruthVisitor {
    type Value = Truths;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Truths, E> {
        Ok(Truths(vec![Truth::Value(Value::Null)]))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Truths, E> {
        Ok(Truths(vec![Truth::Value(value.into())]))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Truths, E> {
        Ok(Truths(vec![Truth::Value(value.into())]))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Truths, E> {
        Ok(Truths(vec![Truth::Value(value.into())]))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Truths, E> {
        Ok(Truths(vec![Truth::Value(value.into())]))
    }

    fn visit_str<E>(self, value: &str) -> Result<Truths, E> {
        Ok(Truths(vec![Truth::Value(value.into())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Truths, A::Error> {
        let mut all = vec![Truth::Open('[')];
        while let Some(Truths(element)) = elements.next_element()? {
            all.extend(element);
        }
        all.push(Truth::Close);
        Ok(Truths(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Truths, A::Error> {
        let mut all = vec![Truth::Open('{')];
        while let Some((name, Truths(value))) = members.next_entry()? {
            all.push(Truth::Name(name));
            all.extend(value);
        }
        all.push(Truth::Close);
        Ok(Truths(all))
    }
}

/// The same from what the visitor was shown. Spans are those of the text.
fn truths(text: &[u8], shown: &[Shown]) -> Vec<Truth> {
    let mut begun = 0;
    let mut all = Vec::new();
    for shown in shown {
        match shown {
            Shown::Name(spelling) => {
                let quoted = [b"\"", &spelling[..], b"\""].concat();
                all.push(Truth::Name(serde_json::from_slice(&quoted).unwrap()));
            }
            Shown::Begin(first, at, _) => {
                begun = *at as usize;
                assert_eq!(text[begun], *first);
                if matches!(first, b'{' | b'[') {
                    all.push(Truth::Open(char::from(*first)));
                }
            }
            Shown::Value(spelling, end) => {
                assert_eq!(&text[begun..*end as usize], spelling);
                all.push(Truth::Value(serde_json::from_slice(spelling).unwrap()));
            }
            Shown::End(_) => all.push(Truth::Close),
        }
    }
    all
}

/// Strings by their spelling, with every kind of escape.
fn spellings() -> impl Strategy<Value = String> {
    let parts = select(vec![
        "a",
        "system",
        " ",
        "數",
        r"\n",
        r#"\""#,
        r"\\",
        r"\/",
        r"\b\f\r\t",
        r"\u0041",
        r"\u00e9",
        r"\ud83d\ude00",
        "{[]},:",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ]);
    prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
}

/// JSON texts, with white space anywhere.
fn texts() -> impl Strategy<Value = String> {
    let space = || select(vec!["", "", "", " ", "\n\t", "\r\n    "]);
    let scalars = select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12",
        "-7",
        "1.5",
        "-1.50e+2",
        "1E-2",
        "18446744073709551615",
    ]);
    let value = prop_oneof![
        scalars.prop_map(str::to_owned),
        spellings().prop_map(|spelling| format!("\"{spelling}\"")),
    ];
    let value = value.prop_recursive(5, 40, 5, move |inner| {
        let element = (space(), inner.clone(), space())
            .prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member = (space(), spellings(), space(), element.clone())
            .prop_map(|(before, name, after, value)| format!("{before}\"{name}\"{after}:{value}"));
        prop_oneof![
            (prop::collection::vec(element, 0..5), space())
                .prop_map(|(all, space)| format!("[{space}{}]", all.join(","))),
            (prop::collection::vec(member, 0..5), space())
                .prop_map(|(all, space)| format!("{{{space}{}}}", all.join(","))),
        ]
    });
    (space(), value, space()).prop_map(|(before, value, after)| format!("{before}{value}{after}"))
}

/// The octets in chunks of these sizes, in turn.
fn cut<'a>(octets: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = octets;
    let next = |&size: &usize| {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    };
    sizes.iter().cycle().map_while(next).collect()
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
    fn tokens_are_those_of_serde_json_in_any_pieces(
        text in texts(),
        sizes in prop::collection::vec(1usize..40, 1..10),
    ) {
        // the end of a number is seen in what follows it
        let text = text + "\n";
        let whole = tokens_of([text.as_bytes()].into_iter());
        prop_assert!(whole.1 && whole.2, "{}", text);
        let expected: Truths = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(truths(text.as_bytes(), &whole.0), expected.0, "{}", text);
        let chunks = cut(text.as_bytes(), &sizes);
        prop_assert_eq!(tokens_of(chunks.into_iter()), whole);
    }

    #[test]
    fn pieces_make_no_difference_to_a_visitor_that_reads_some_and_halts(
        text in prop_oneof![texts().prop_map(String::into_bytes), tokens()],
        depths in prop_oneof![any::<u64>(), Just(0)],
        most in prop_oneof![1usize..20, Just(usize::MAX)],
        sizes in prop::collection::vec(1usize..40, 1..10),
    ) {
        let recorder = Recorder { depths, most, ..Recorder::ALL };
        let whole = tokens_with(&recorder, [&text[..]].into_iter());
        let chunks = cut(&text, &sizes);
        prop_assert_eq!(tokens_with(&recorder, chunks.into_iter()), whole);
    }

    #[test]
    fn arbitrary_octets_are_json_when_serde_json_says_so(octets in tokens(), size in 1usize..20) {
        let whole = tokens_of([&octets[..]].into_iter());
        prop_assert_eq!(&whole, &tokens_of(octets.chunks(size)));
        let plain = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&octets);
        prop_assert_eq!(whole.2, serde_json::from_slice::<IgnoredAny>(plain).is_ok());
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
        let whole = tokens_of([&json[..]].into_iter());
        prop_assert_eq!(&whole, &tokens_of(json.chunks(size)));
        prop_assert_eq!(whole.2, serde_json::from_slice::<IgnoredAny>(&json).is_ok());
    }
}
