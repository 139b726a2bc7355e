//! The edit as docs/contract.md §3 specifies it, on a tree of values: the reference for the scanner and the
//! splice in tests, with any JSON, any bytes and any chunks.

use std::{fmt, ops::Range};

use bytes::Bytes;
use proptest::{
    prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest},
    sample::select,
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::{
    outcome::{Outcome, Unchanged},
    parts::BodyParts,
    scanner::Scanner,
    system,
};
use crate::config::{EditMode, EditTarget};

/// The replacement in tests.
pub(super) const REPLACEMENT: &str = r#""You are \"other\"""#;

/// Edits a body that came in these chunks.
pub(super) fn edit_chunks<'a>(
    chunks: impl Iterator<Item = &'a [u8]>,
    mode: EditMode,
    target: EditTarget,
) -> (Vec<u8>, Outcome) {
    let body: BodyParts = chunks.map(Bytes::copy_from_slice).collect();
    let mut scanner = Scanner::new();
    body.iter().for_each(|chunk| scanner.scan(chunk));
    let replacement = Bytes::from_static(REPLACEMENT.as_bytes());
    let (body, outcome) = system::edit(body, scanner.finish(), mode, target, &replacement);
    (body.concat(), outcome)
}

/// A JSON value, by its spelling.
#[derive(Debug, Clone)]
enum Json {
    Scalar(&'static str),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Byte range of a value, and the ranges of the values in it.
struct JsonSpan {
    octets: Range<usize>,
    inner: Vec<JsonSpan>,
}

/// Writes `json`, with white space as `space` says.
fn write(
    json: &Json,
    out: &mut String,
    space: &mut impl Iterator<Item = &'static str>,
) -> JsonSpan {
    out.extend(space.next());
    let start = out.len();
    let mut inner = Vec::new();
    match json {
        Json::Scalar(spelling) => out.push_str(spelling),
        Json::String(spelling) => *out += &format!("\"{spelling}\""),
        Json::Array(elements) => {
            for element in elements {
                out.push(if inner.is_empty() { '[' } else { ',' });
                inner.push(write(element, out, space));
            }
            out.push_str(if elements.is_empty() { "[" } else { "" });
            out.extend(space.next());
            out.push(']');
        }
        Json::Object(members) => {
            for (name, value) in members {
                out.push(if inner.is_empty() { '{' } else { ',' });
                out.extend(space.next());
                *out += &format!("\"{name}\"");
                out.extend(space.next());
                out.push(':');
                inner.push(write(value, out, space));
            }
            out.push_str(if members.is_empty() { "{" } else { "" });
            out.extend(space.next());
            out.push('}');
        }
    }
    let octets = start..out.len();
    out.extend(space.next());
    JsonSpan { octets, inner }
}

fn meaning(spelling: &str) -> String {
    serde_json::from_str(&format!("\"{spelling}\"")).unwrap()
}

impl Json {
    /// The last member of this name, and where it is.
    fn member<'a>(&'a self, span: &'a JsonSpan, name: &str) -> Option<(&'a Json, &'a JsonSpan)> {
        let Json::Object(members) = self else {
            return None;
        };
        let index = members
            .iter()
            .rposition(|(spelling, _)| meaning(spelling) == name)?;
        Some((&members[index].1, &span.inner[index]))
    }
}

/// Members for caching in a body as serde_json reads them, duplicate names included.
#[derive(Default)]
struct Caching {
    controls: usize,
    has_ttl: bool,
    is_object: bool,
    is_string: bool,
}

impl<'de> Deserialize<'de> for Caching {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CachingVisitor)
    }
}

struct CachingVisitor;

impl<'de> Visitor<'de> for CachingVisitor {
    type Value = Caching;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Caching, E> {
        Ok(Caching::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Caching, E> {
        Ok(Caching::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Caching, E> {
        Ok(Caching::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Caching, E> {
        Ok(Caching::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Caching, E> {
        Ok(Caching {
            is_string: true,
            ..Caching::default()
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Caching, A::Error> {
        let mut all = Caching::default();
        while let Some(element) = elements.next_element::<Caching>()? {
            all.controls += element.controls;
            all.has_ttl |= element.has_ttl;
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Caching, A::Error> {
        let mut all = Caching {
            is_object: true,
            ..Caching::default()
        };
        while let Some((name, value)) = members.next_entry::<String, Caching>()? {
            all.controls +=
                value.controls + usize::from(name == "cache_control" && value.is_object);
            all.has_ttl |= value.has_ttl || name == "ttl" && value.is_string;
        }
        Ok(all)
    }
}

/// The edit of docs/contract.md §3 on the tree: bytes to replace, and what by; `None`: unchanged.
fn reference(
    json: &Json,
    span: &JsonSpan,
    body: &str,
    mode: EditMode,
    target: EditTarget,
) -> Option<(Range<usize>, String)> {
    let (Json::Array(blocks), spans) = json.member(span, "system")? else {
        return None;
    };
    let text = |index: usize| match blocks.get(index)?.member(&spans.inner[index], "text")? {
        (Json::String(spelling), span) => Some((meaning(spelling), span.octets.clone())),
        _ => None,
    };
    let is_attribution =
        text(0).is_some_and(|(text, _)| text.starts_with("x-anthropic-billing-header:"));
    let index = usize::from(target == EditTarget::Prompt && is_attribution);
    let (text, octets) = text(index)?;
    if mode == EditMode::Replace || text.to_ascii_lowercase().contains("claude code") {
        return Some((octets, REPLACEMENT.to_owned()));
    }
    let caching: Caching = serde_json::from_str(body).unwrap();
    let cache_control = if caching.controls < 4 && !caching.has_ttl {
        r#","cache_control":{"type":"ephemeral"}"#
    } else {
        ""
    };
    let start = spans.inner[index].octets.start;
    Some((
        start..start,
        format!(r#"{{"type":"text","text":{REPLACEMENT}{cache_control}}},"#),
    ))
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => select(vec!["system", "text", "cache_control"]),
        1 => select(vec!["ttl", r"t\u0074l"]),
        4 => select(vec![r"sys\u0074em", r"\u0074ext", r"cache\u005Fcontrol", r"te\\xt", "Text"]),
        2 => select(vec!["", "a", "messages", r"\n", "\u{e9}"]),
    ]
    .prop_map(str::to_owned)
}

fn strings() -> impl Strategy<Value = String> {
    let parts = select(vec![
        "a",
        "system",
        " ",
        "\u{6570}",
        r"\n",
        r#"\""#,
        r"\\",
        r"\u0041",
        r"\u00e9",
        r"\/",
        "Claude Code",
        r"CLAUDE\u0020code",
        "Claude ",
        "x-anthropic-billing-header:",
        r"\u0078-anthropic-billing-header:",
        "{[]},:",
    ]);
    prop::collection::vec(parts, 0..6).prop_map(|parts| parts.concat())
}

fn values() -> impl Strategy<Value = Json> {
    prop_oneof![
        select(vec!["null", "true", "false", "0", "-1.50e+2"]).prop_map(Json::Scalar),
        strings().prop_map(Json::String),
    ]
    .prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::vec((names(), inner), 0..4).prop_map(Json::Object),
        ]
    })
}

/// A value like a request: usually with a `system` of blocks.
fn requests() -> impl Strategy<Value = Json> {
    let text = (names(), strings().prop_map(Json::String));
    let block = prop_oneof![
        4 => prop::collection::vec(prop_oneof![2 => text, 1 => (names(), values())], 0..4)
            .prop_map(Json::Object),
        1 => values(),
    ];
    let system = (
        select(vec!["system".to_owned(), r"\u0073ystem".to_owned()]),
        prop::collection::vec(block, 0..4).prop_map(Json::Array),
    );
    let member = prop_oneof![3 => system, 2 => (names(), values())];
    prop_oneof![
        9 => prop::collection::vec(member, 0..5).prop_map(Json::Object),
        1 => values(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_json_in_any_chunks_is_edited_as_the_reference_says(
        json in requests(),
        space in prop::collection::vec(select(vec!["", "", "", " ", "\n\t", "\r\n    "]), 1..20),
        sizes in prop::collection::vec(1usize..30, 1..8),
        mode in prop_oneof![Just(EditMode::Replace), Just(EditMode::InsertIfAbsent)],
        target in prop_oneof![Just(EditTarget::Prompt), Just(EditTarget::First)],
    ) {
        let mut body = String::new();
        let span = write(&json, &mut body, &mut space.into_iter().cycle());
        let mut expected = body.clone();
        let decision = reference(&json, &span, &body, mode, target);
        if let Some((octets, by)) = &decision {
            expected.replace_range(octets.clone(), by);
        }

        let mut rest = body.as_bytes();
        let chunks = sizes.iter().cycle().map_while(|&size| {
            let (chunk, tail) = rest.split_at(size.min(rest.len()));
            rest = tail;
            (!chunk.is_empty()).then_some(chunk)
        });
        let (edited, outcome) = edit_chunks(chunks, mode, target);
        prop_assert_eq!(String::from_utf8(edited).unwrap(), expected);
        prop_assert_eq!(matches!(outcome, Outcome::Unchanged(_)), decision.is_none());
    }

    #[test]
    fn broken_json_stays_as_it_came(
        json in requests(),
        at in any::<prop::sample::Index>(),
        octet in any::<u8>(),
        size in 1usize..40,
    ) {
        let mut body = String::new();
        write(&json, &mut body, &mut std::iter::empty());
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        body[at] = octet;
        let (edited, outcome) =
            edit_chunks(body.chunks(size), EditMode::Replace, EditTarget::Prompt);
        let whole = edit_chunks([&body[..]].into_iter(), EditMode::Replace, EditTarget::Prompt);
        prop_assert_eq!(&whole, &(edited.clone(), outcome.clone()));
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        prop_assert_eq!(outcome == Outcome::Unchanged(Unchanged::NotJson), !is_json);
        if matches!(outcome, Outcome::Unchanged(_)) {
            prop_assert_eq!(edited, body);
        }
    }
}
