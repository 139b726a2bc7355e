//! Edit of the system prompt: from the scan result to a splice of the body.
//!
//! [`edit`] selects the system prompt block in `system`, decides between replacement and insertion,
//! and cuts the chunks there. It copies no byte of the body. A body that does not have the expected
//! structure is forwarded unmodified.

use std::ops::Range;

use bytes::Bytes;

use super::{
    outcome::{CacheControl, Outcome, Unchanged},
    parts::BodyParts,
    scanner::{Block, ScanResult, System},
    text,
};
use crate::config::{EditMode, EditTarget};

/// Edits `body` by the result of its scan (`None`: it is not JSON).
pub(super) fn edit(
    body: BodyParts,
    found: Option<ScanResult>,
    mode: EditMode,
    target: EditTarget,
    replacement: &Bytes,
) -> (BodyParts, Outcome) {
    match decide(&body, found, mode, target) {
        Err(unchanged) => (body, Outcome::Unchanged(unchanged)),
        Ok(Decision::Replace(span)) => {
            let body = splice(body, &span, [replacement.clone()]);
            (body, Outcome::Replaced { span })
        }
        Ok(Decision::Insert { at, cache_control }) => {
            let close = match cache_control {
                CacheControl::Ephemeral => BLOCK_END_CACHED,
                CacheControl::Omitted => BLOCK_END,
            };
            let block = [
                Bytes::from_static(BLOCK_START),
                replacement.clone(),
                Bytes::from_static(close),
            ];
            (
                splice(body, &(at..at), block),
                Outcome::Inserted { at, cache_control },
            )
        }
    }
}

enum Decision {
    Replace(Range<u64>),
    Insert {
        at: u64,
        cache_control: CacheControl,
    },
}

fn decide(
    body: &[Bytes],
    found: Option<ScanResult>,
    mode: EditMode,
    target: EditTarget,
) -> Result<Decision, Unchanged> {
    let ScanResult {
        system,
        cache_controls,
        has_ttl,
    } = found.ok_or(Unchanged::NotJson)?;
    let [first, second] = match system {
        System::Absent => return Err(Unchanged::NoSystem),
        System::NotArray => return Err(Unchanged::SystemNotArray),
        System::Array(blocks) => blocks,
    };
    let first = first.ok_or(Unchanged::Empty)?;
    let block = match target {
        EditTarget::Prompt if is_attribution(body, &first) => {
            second.ok_or(Unchanged::TargetMissing)?
        }
        EditTarget::Prompt | EditTarget::First => first,
    };
    let span = block.text.ok_or(Unchanged::TargetNotText)?;
    match mode {
        EditMode::InsertIfAbsent if !text::mentions_claude_code(inside(body, &span)) => {
            let cache_control = if cache_controls < MAX_CACHE_CONTROLS && !has_ttl {
                CacheControl::Ephemeral
            } else {
                CacheControl::Omitted
            };
            Ok(Decision::Insert {
                at: block.start,
                cache_control,
            })
        }
        EditMode::InsertIfAbsent | EditMode::Replace => Ok(Decision::Replace(span)),
    }
}

/// Reports whether this is the attribution block, which Claude Code puts first and the upstream
/// strips by position.
fn is_attribution(body: &[Bytes], block: &Block) -> bool {
    let Some(span) = &block.text else {
        return false;
    };
    text::begins_with(inside(body, span), ATTRIBUTION)
}

/// The bytes between the quotes of the string at `span`.
fn inside<'a>(body: &'a [Bytes], span: &Range<u64>) -> impl Iterator<Item = &'a [u8]> {
    let (start, end) = (span.start + 1, span.end - 1);
    let mut base = 0;
    body.iter().filter_map(move |part| {
        let (from, to) = (within(part, base, start), within(part, base, end));
        base += part.len() as u64;
        part.get(from..to).filter(|slice| !slice.is_empty())
    })
}

/// The body with `parts` in place of the bytes of `span`.
fn splice<const N: usize>(body: BodyParts, span: &Range<u64>, parts: [Bytes; N]) -> BodyParts {
    let mut spliced = BodyParts::with_capacity(body.len() + N + 1);
    let mut parts = Some(parts);
    let mut base = 0;
    for part in body {
        let end = base + part.len() as u64;
        if end <= span.start || span.end <= base && parts.is_none() {
            spliced.push(part);
        } else {
            let head = part.slice(..within(&part, base, span.start));
            let tail = part.slice(within(&part, base, span.end)..);
            push(&mut spliced, head);
            spliced.extend(parts.take().into_iter().flatten());
            push(&mut spliced, tail);
        }
        base = end;
    }
    spliced
}

fn push(body: &mut BodyParts, part: Bytes) {
    if !part.is_empty() {
        body.push(part);
    }
}

/// The index in `part`, which begins at offset `base`, that is nearest to `offset`.
fn within(part: &Bytes, base: u64, offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(base)).map_or(part.len(), |index| index.min(part.len()))
}

/// Beginning of the text of Claude Code's attribution block.
const ATTRIBUTION: &[u8] = b"x-anthropic-billing-header:";
/// The upstream refuses a request with more, and one in which a block that is cached for 5 minutes, as the
/// inserted one would be, stands before one with `"ttl":"1h"`. Without `cache_control` it is cached with
/// the block after it.
const MAX_CACHE_CONTROLS: u64 = 4;
/// An inserted block up to its text.
const BLOCK_START: &[u8] = br#"{"type":"text","text":"#;
/// End of an inserted block after its text, and the comma before the next block.
const BLOCK_END_CACHED: &[u8] = br#","cache_control":{"type":"ephemeral"}},"#;
/// The same without `cache_control`.
const BLOCK_END: &[u8] = b"},";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::reference::{REPLACEMENT, edit_chunks};

    const PLAIN: &str = r#"{"system":[{"type":"text","text":"old"}]}"#;

    /// Edits a body, whole and byte by byte.
    fn edit_body(body: &str, mode: EditMode, target: EditTarget) -> (String, Outcome) {
        let whole = edit_chunks([body.as_bytes()].into_iter(), mode, target);
        assert_eq!(
            whole,
            edit_chunks(body.as_bytes().chunks(1), mode, target),
            "{body}"
        );
        (String::from_utf8(whole.0).unwrap(), whole.1)
    }

    fn replace(body: &str) -> String {
        edit_body(body, EditMode::Replace, EditTarget::Prompt).0
    }

    fn insert(body: &str) -> String {
        edit_body(body, EditMode::InsertIfAbsent, EditTarget::Prompt).0
    }

    #[test]
    fn the_text_of_the_first_block_is_replaced() {
        let (body, outcome) = edit_body(PLAIN, EditMode::Replace, EditTarget::Prompt);
        assert_eq!(
            body,
            r#"{"system":[{"type":"text","text":"You are \"other\""}]}"#
        );
        assert_eq!(outcome, Outcome::Replaced { span: 33..38 });
    }

    #[test]
    fn the_attribution_block_is_no_prompt() {
        for attribution in [
            "x-anthropic-billing-header: a",
            r"\u0078-anthropic-billing-header:",
        ] {
            let body =
                |second: &str| format!(r#"{{"system":[{{"text":"{attribution}"}},{second}]}}"#);
            assert_eq!(
                replace(&body(r#"{"text":"b"}"#)),
                body(&format!(r#"{{"text":{REPLACEMENT}}}"#))
            );
            let (first, outcome) = edit_body(
                &body(r#"{"text":"b"}"#),
                EditMode::Replace,
                EditTarget::First,
            );
            assert_eq!(
                first,
                format!(r#"{{"system":[{{"text":{REPLACEMENT}}},{{"text":"b"}}]}}"#)
            );
            assert!(matches!(outcome, Outcome::Replaced { .. }));
        }
        let other = r#"{"system":[{"text":" x-anthropic-billing-header:"},{"text":"b"}]}"#;
        assert_eq!(
            replace(other),
            format!(r#"{{"system":[{{"text":{REPLACEMENT}}},{{"text":"b"}}]}}"#)
        );
    }

    #[test]
    fn a_block_is_inserted_unless_claude_code_is_there() {
        assert_eq!(
            insert(PLAIN),
            r#"{"system":[{"type":"text","text":"You are \"other\"","cache_control":{"type":"ephemeral"}},{"type":"text","text":"old"}]}"#,
        );
        for known in [
            "You are Claude Code, the CLI",
            "CLAUDE code",
            r"claude\u0020code",
        ] {
            let body = format!(r#"{{"system":[{{"text":"{known}"}}]}}"#);
            assert_eq!(
                insert(&body),
                format!(r#"{{"system":[{{"text":{REPLACEMENT}}}]}}"#)
            );
        }
        let after =
            r#"{"system":[{"text":"x-anthropic-billing-header: Claude Code"}, {"text":"b"}]}"#;
        let (body, outcome) = edit_body(after, EditMode::InsertIfAbsent, EditTarget::Prompt);
        let at = after.find(r#"{"text":"b"}"#).unwrap() as u64;
        assert_eq!(
            outcome,
            Outcome::Inserted {
                at,
                cache_control: CacheControl::Ephemeral
            }
        );
        assert!(body.contains(r#"}, {"type":"text","text":"You"#), "{body}");
    }

    #[test]
    fn a_fifth_cache_control_is_not_added() {
        let body = |count: usize| {
            let tools = vec![r#"{"cache_control":{"type":"ephemeral"}}"#; count].join(",");
            format!(r#"{{"system":[{{"text":"old"}}],"tools":[{tools}]}}"#)
        };
        for (count, cache_control) in [
            (3, CacheControl::Ephemeral),
            (4, CacheControl::Omitted),
            (5, CacheControl::Omitted),
        ] {
            let body = body(count);
            let (edited, outcome) = edit_body(&body, EditMode::InsertIfAbsent, EditTarget::Prompt);
            assert_eq!(
                outcome,
                Outcome::Inserted {
                    at: 11,
                    cache_control
                }
            );
            let count = count + usize::from(cache_control == CacheControl::Ephemeral);
            assert_eq!(edited.matches("cache_control").count(), count);
            serde_json::from_str::<serde_json::Value>(&edited).unwrap();
        }
    }

    #[test]
    fn no_cache_control_is_added_where_one_has_a_ttl() {
        let inserted = |rest: &str| {
            let body = format!(r#"{{"system":[{{"text":"old"}}],{rest}}}"#);
            let (edited, outcome) = edit_body(&body, EditMode::InsertIfAbsent, EditTarget::Prompt);
            serde_json::from_str::<serde_json::Value>(&edited).unwrap();
            match outcome {
                Outcome::Inserted { cache_control, .. } => cache_control,
                other => panic!("{other:?}"),
            }
        };
        for with_ttl in [
            r#""tools":[{"cache_control":{"type":"ephemeral","ttl":"1h"}}]"#,
            r#""messages":[{"content":[{"cache_control":{"ttl":"5m"}}]}]"#,
            r#""cache_control":{"t\u0074l":"1h"}"#,
        ] {
            assert_eq!(inserted(with_ttl), CacheControl::Omitted, "{with_ttl}");
        }
        for without in [
            r#""tools":[{"cache_control":{"type":"ephemeral"}}]"#,
            // of a tool: no ttl of a cache is a number or an object
            r#""tools":[{"input_schema":{"properties":{"ttl":{"type":"number"}}}}]"#,
            r#""messages":[{"content":[{"input":{"ttl":60,"TTL":"1h","a":"ttl"}}]}]"#,
        ] {
            assert_eq!(inserted(without), CacheControl::Ephemeral, "{without}");
        }
    }

    #[test]
    fn what_is_not_as_expected_stays_as_it_came() {
        let attribution = r#"{"text":"x-anthropic-billing-header: a"}"#;
        for (body, unchanged) in [
            ("", Unchanged::NotJson),
            (r#"{"system":[{"text":"a"}]"#, Unchanged::NotJson),
            (r#"{"system":[{"text":"a"}]}}"#, Unchanged::NotJson),
            (
                r#"{"system":[{"text":"a"}],"messages":[01]}"#,
                Unchanged::NotJson,
            ),
            ("{}", Unchanged::NoSystem),
            ("[]", Unchanged::NoSystem),
            (
                r#"{"messages":[{"system":[{"text":"a"}]}]}"#,
                Unchanged::NoSystem,
            ),
            (
                r#"{"system":"You are Claude Code"}"#,
                Unchanged::SystemNotArray,
            ),
            (r#"{"system":null}"#, Unchanged::SystemNotArray),
            (r#"{"system":{"text":"a"}}"#, Unchanged::SystemNotArray),
            (r#"{"system":[ ]}"#, Unchanged::Empty),
            (r#"{"system":["a",{"text":"b"}]}"#, Unchanged::TargetNotText),
            (r#"{"system":[{"type":"text"}]}"#, Unchanged::TargetNotText),
            (r#"{"system":[{"text":null}]}"#, Unchanged::TargetNotText),
            (
                r#"{"system":[{"text":"a","text":1}]}"#,
                Unchanged::TargetNotText,
            ),
            (
                &format!(r#"{{"system":[{attribution}]}}"#),
                Unchanged::TargetMissing,
            ),
            (
                &format!(r#"{{"system":[{attribution},1]}}"#),
                Unchanged::TargetNotText,
            ),
        ] {
            for mode in [EditMode::Replace, EditMode::InsertIfAbsent] {
                let (edited, outcome) = edit_body(body, mode, EditTarget::Prompt);
                assert_eq!(
                    (edited.as_str(), outcome),
                    (body, Outcome::Unchanged(unchanged))
                );
            }
        }
    }

    #[test]
    fn everything_else_is_identical() {
        let body = |text: &str| {
            [
                b"\xef\xbb\xbf { \"b\" : 1.0e+02 ,\"a\":\"\\ud800\\u00e9 \xff\xfe\", \"a\":[ -0 ],\r\n\"sys\\u0074em\" : [ { \"text\" :\t".as_slice(),
                text.as_bytes(),
                b" } , { \"text\" : \"\\/\" } ] , \"c\":{} }\n\n",
            ]
            .concat()
        };
        let original = body("\"a\\u0062\"");
        for size in 1..original.len() {
            let chunks = original.chunks(size);
            let (edited, _) = edit_chunks(chunks, EditMode::Replace, EditTarget::Prompt);
            assert_eq!(edited, body(REPLACEMENT));
        }
    }
}
