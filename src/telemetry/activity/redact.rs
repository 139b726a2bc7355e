//! Content of errors as text that may be shown: decoded, cut, and with everything masked that looks like a
//! secret.
//!
//! Masked are, first, the credentials of the request itself, wherever they stand and however they are
//! escaped; then everything that looks like one: keys (`sk-…`), text after `Bearer` or `Basic`, the value of
//! a member or field called `api_key`, `token`, `secret`, `password` or the like, e-mail addresses, and long
//! runs of base64 or hexadecimal digits. Rather a word too many than a key too few.

use std::{io::Read, ops::Range};

use brotli_decompressor::Decompressor;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::recent::shortened;
use crate::{
    exchange::ErrorContent,
    secret::{
        mask::{Extent, MASK},
        shape,
    },
};

/// The longest text: 50 KiB.
pub(super) const LONGEST: usize = 50 * 1024;
/// Length at which the proxy cuts an error's content: content of this length may have been longer.
const LONGEST_KEPT: usize = 50_000;
/// Length of a run of base64 or hexadecimal digits that is masked: 24 bytes as base64, 16 as hexadecimal. Ids
/// of the API (`toolu_…`, `req_…`) are shorter.
const LONG_RUN: usize = 32;
/// The largest window of zstd as a content coding: 8 MiB (RFC 9659 §3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// Completeness of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completeness {
    /// The whole text.
    Whole,
    /// Only its beginning.
    Cut,
}

/// The text of an error's content; none where its coding is unknown to us.
pub(super) fn text(content: &ErrorContent) -> Option<(String, Completeness)> {
    let octets = content.octets.as_ref();
    let (decoded, mut length) = match content.coding.as_deref().map(str::trim) {
        None | Some("") => read(octets),
        Some(coding) => match coding.to_ascii_lowercase().as_str() {
            "identity" => read(octets),
            "gzip" | "x-gzip" => read(MultiGzDecoder::new(octets)),
            // RFC 9110 §8.4.1.2 means zlib; some send a bare deflate stream
            "deflate" if octets.first().is_some_and(|first| first & 15 == 8) => {
                read(ZlibDecoder::new(octets))
            }
            "deflate" => read(DeflateDecoder::new(octets)),
            "br" => read(Decompressor::new(octets, 4096)),
            "zstd" => {
                let mut decoder = zstd::stream::read::Decoder::new(octets).ok()?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).ok()?;
                read(decoder)
            }
            _ => return None,
        },
    };
    if octets.len() >= LONGEST_KEPT {
        length = Completeness::Cut;
    }
    let text = String::from_utf8_lossy(&decoded);
    // the kept content may have been cut: its end may be the beginning of a credential
    let mut text = masked(&content.secrets.hide_all(&text, Extent::Cut));
    if text.len() > LONGEST {
        text.truncate(shortened(&text, LONGEST).len());
        length = Completeness::Cut;
    }
    Some((text, length))
}

/// Reads as much as possible, up to [`LONGEST`].
fn read(source: impl Read) -> (Vec<u8>, Completeness) {
    let mut decoded = Vec::new();
    // bytes read before a failure stay
    let outcome = source.take(LONGEST as u64 + 1).read_to_end(&mut decoded);
    let length = if outcome.is_err() || decoded.len() > LONGEST {
        Completeness::Cut
    } else {
        Completeness::Whole
    };
    decoded.truncate(LONGEST);
    (decoded, length)
}

/// Masks everything in a text that looks like a secret.
pub fn masked(text: &str) -> String {
    without_tokens(&without_named(&without_addresses(text)))
}

/// Masks the values of names that secrets have. Numbers stay: `max_tokens: 5`.
fn without_named(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut masked = String::with_capacity(text.len());
    let (mut shown, mut from) = (0, 0);
    while let Some(end) = name_end(&lower, from) {
        from = end;
        let Some(value) = value_after(text, end).filter(|value| !is_plain(&text[value.clone()]))
        else {
            continue;
        };
        masked.push_str(&text[shown..value.start]);
        masked.push_str(MASK);
        (shown, from) = (value.end, value.end);
    }
    masked.push_str(&text[shown..]);
    masked
}

/// End of the next name that secrets have.
fn name_end(lower: &str, from: usize) -> Option<usize> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let ends = NAMES.iter().filter_map(|name| {
        let at = from + lower.get(from..)?.find(name)?;
        Some((at, at + name.len()))
    });
    let (_, end) = ends.min()?;
    let rest = &lower[end..];
    // `max_tokens` is a number of them
    if rest.starts_with('s') {
        return Some(end);
    }
    Some(end + rest.len() - rest.trim_start_matches(is_name).len())
}

/// The value after a name: behind `:` or `=`, without its quotes.
fn value_after(text: &str, name_end: usize) -> Option<Range<usize>> {
    let rest = text[name_end..].trim_start_matches(['\\', '"', '\'']);
    let rest = rest.trim_start().strip_prefix([':', '='])?.trim_start();
    let slashes = rest.len() - rest.trim_start_matches('\\').len();
    let start = text.len() - rest.len();
    let quote = rest[slashes..].chars().next();
    let Some(quote) = quote.filter(|quote| matches!(quote, '"' | '\'')) else {
        let ends = |c: char| c.is_whitespace() || ",;&\"'<>)]}".contains(c);
        let len = rest.find(ends).unwrap_or(rest.len());
        return (len > 0).then_some(start..start + len);
    };
    let inside = start + slashes + 1;
    // it ends with a quote that is escaped as the first one is; backslashes inside of it are doubled for
    // each time
    let ends = text[inside..].match_indices(quote).find(|(at, _)| {
        let before = &text[inside..inside + at];
        let escapes = before.len() - before.trim_end_matches('\\').len();
        escapes % (2 * (slashes + 1)) == slashes
    });
    let end = ends.map_or(text.len(), |(at, _)| inside + at - slashes);
    (end > inside).then_some(inside..end)
}

/// True if a value may be shown: a number, a literal, or the beginning of an object or array.
fn is_plain(value: &str) -> bool {
    value.starts_with(['{', '[', '…'])
        || matches!(value, "true" | "false" | "null" | "None")
        || value.bytes().any(|octet| octet.is_ascii_digit())
            && value.len() <= LONGEST_NUMBER
            && value
                .bytes()
                .all(|octet| octet.is_ascii_digit() || b".,+-".contains(&octet))
}

/// Parts of names that secrets have.
const NAMES: [&str; 8] = [
    "api-key", "api_key", "api key", "apikey", "token", "secret", "password", "passwd",
];
/// Digits of a number: `u64::MAX` has 20. More are a key.
const LONGEST_NUMBER: usize = 20;

fn without_addresses(text: &str) -> String {
    let is_local = |c: char| c.is_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let local = before.trim_end_matches(is_local);
        let domain = after.trim_start_matches(is_domain);
        if local.len() == before.len() || domain.len() == after.len() {
            masked.push_str(&rest[..=at]);
            rest = after;
            continue;
        }
        masked.push_str(local);
        masked.push_str("…@…");
        rest = domain;
    }
    masked.push_str(rest);
    masked
}

fn without_tokens(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_credential = false;
    while !rest.is_empty() {
        let end = |is: fn(u8) -> bool| rest.bytes().position(|octet| !is(octet));
        let gap = end(|octet| !is_run(octet)).unwrap_or(rest.len());
        if gap > 0 {
            // a scheme and its credentials are apart by space, at most escaped or quoted
            let between = &rest[..gap];
            is_credential &= between.bytes().all(|octet| b" \t\":'%\\".contains(&octet));
            masked.push_str(between);
            rest = &rest[gap..];
            continue;
        }
        let is_part: fn(u8) -> bool = if is_credential { is_token68 } else { is_run };
        let end = end(is_part).unwrap_or(rest.len());
        let run = &rest[..end];
        rest = &rest[end..];
        if is_credential && run.len() >= 6 {
            masked.push_str(MASK);
        } else {
            push_run(&mut masked, run);
        }
        is_credential = ["bearer", "basic"]
            .iter()
            .any(|scheme| run.eq_ignore_ascii_case(scheme));
    }
    masked
}

/// A run of token characters, whose secret part is masked.
fn push_run(masked: &mut String, run: &str) {
    let key = shape::key_start(run);
    let (shown, secret) = run.split_at(key.unwrap_or(run.len()));
    let has_digit = shown.bytes().any(|octet| octet.is_ascii_digit());
    let is_long =
        shown.len() >= LONG_RUN && has_digit || shown.starts_with("eyJ") && shown.len() >= 16;
    masked.push_str(if is_long { MASK } else { shown });
    if !secret.is_empty() {
        // the prefix of the kind stays, the secret does not
        if secret.starts_with("sk-") {
            masked.push_str("sk-");
        }
        masked.push_str(MASK);
    }
}

/// Characters of base64, base64url, hexadecimal digits and keys.
fn is_run(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'_' | b'-' | b'=')
}

/// RFC 9110 §11.2.
fn is_token68(octet: u8) -> bool {
    is_run(octet) || matches!(octet, b'.' | b'~')
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use proptest::prelude::{Strategy, prop, prop_assert, prop_assume, prop_oneof, proptest};

    use super::*;
    use crate::secret::Secrets;

    #[test]
    fn what_looks_like_a_secret_is_masked_and_the_rest_stays() {
        for (text, expected) in [
            ("", ""),
            ("invalid x-api-key", "invalid x-api-key"),
            ("key sk-ant-api03-AbC_12345-xyz.", "key sk-…."),
            (r#"{"key":"sk-proj-12345678"}"#, r#"{"key":"sk-…"}"#),
            ("x=sk-ant-oat01-abcdefgh&y=1", "x=sk-…&y=1"),
            ("sk-1 and sk-", "sk-… and sk-"),
            (r#"{"api_key":"a b","b":1}"#, r#"{"api_key":"…","b":1}"#),
            (
                r#"{"a":"{\"apiKey\":\"x\",\"b\":1}"}"#,
                r#"{"a":"{\"apiKey\":\"…\",\"b\":1}"}"#,
            ),
            (
                r#"{"password" : "a\"b\\", "c":1}"#,
                r#"{"password" : "…", "c":1}"#,
            ),
            (r#"{"client_secret":"a"}"#, r#"{"client_secret":"…"}"#),
            ("x-api-key: abc, other", "x-api-key: …, other"),
            ("API Key = 'abc'; x", "API Key = '…'; x"),
            ("secret_access_key=abc&x=1", "secret_access_key=…&x=1"),
            ("access_token: t0k", "access_token: …"),
            ("TOKEN=1234567890123456789012", "TOKEN=…"),
            (
                r#"{"max_tokens": 5, "token": 12}"#,
                r#"{"max_tokens": 5, "token": 12}"#,
            ),
            ("max_tokens: Field required", "max_tokens: Field required"),
            (
                "max_tokens: 32001 > 32000, which is the maximum",
                "max_tokens: 32001 > 32000, which is the maximum",
            ),
            (
                r#"{"token":null,"secret":{"a":1}}"#,
                r#"{"token":null,"secret":{"a":1}}"#,
            ),
            ("no token, a secret.", "no token, a secret."),
            ("password:", "password:"),
            (
                "risk-assessment, task-scheduler",
                "risk-assessment, task-scheduler",
            ),
            (
                "Authorization: Bearer abc.def~ghi",
                "Authorization: Bearer …",
            ),
            (r#""bearer  abc123xyz""#, r#""bearer  …""#),
            ("Basic dXNlcjpwYXNz!", "Basic …!"),
            ("a bearer", "a bearer"),
            ("ask jane.doe+x@example.co.uk, now", "ask …@…, now"),
            ("jürgen@münchen.example", "…@…"),
            ("at 5 @ noon, @name, name@", "at 5 @ noon, @name, name@"),
            ("d41d8cd98f00b204e9800998ecf8427e", "…"),
            ("id 123e4567-e89b-12d3-a456-426614174000 x", "id … x"),
            (
                "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ==",
                "data:image/png;base64,…",
            ),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0", "….…"),
            (
                "request req_011CSHoEeqs5C35K2UUqR7Fy failed",
                "request req_011CSHoEeqs5C35K2UUqR7Fy failed",
            ),
            (
                "model: claude-sonnet-4-5-20250929",
                "model: claude-sonnet-4-5-20250929",
            ),
            (
                "see https://docs.anthropic.com/en/docs/build-with-claude/caching",
                "see https://docs.anthropic.com/en/docs/build-with-claude/caching",
            ),
            ("zu viel: 过载 …", "zu viel: 过载 …"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    fn content(octets: Vec<u8>, coding: Option<&str>) -> ErrorContent {
        ErrorContent {
            octets: Bytes::from(octets),
            coding: coding.map(Into::into),
            secrets: Secrets::default(),
        }
    }

    #[test]
    fn the_credentials_of_the_request_are_masked_first() {
        let shown = |octets: &str, secrets: &[&str]| {
            let mut content = content(octets.into(), None);
            for secret in secrets {
                content.secrets.add(secret);
            }
            text(&content).unwrap().0
        };
        assert_eq!(shown("key: open sesame!", &["open sesame"]), "key: …!");
        assert_eq!(shown("aXXaXX abc", &["aXXa", "XXa", "ab"]), "…XX abc");
        // Go writes `<` and `/` so
        assert_eq!(shown(r#"a \u003cb\/c> d"#, &["<b/c>"]), "a … d");
        assert_eq!(shown("nothing", &["", " ", "n"]), "nothing");
        // of content that was cut, its beginning at the end
        let long = "x ".repeat(LONGEST) + "open";
        let cut = format!("{}open ses", " ".repeat(LONGEST_KEPT - 8));
        assert!(shown(&cut, &["open sesame"]).ends_with(" …"));
        assert!(shown(&long, &["open sesame"]).ends_with("x "));
        assert_eq!(shown("open ses", &["open sesame"]), "…");
    }

    proptest! {
        #[test]
        fn a_credential_never_survives(
            secret in "[ -~]{6,200}",
            before in "[ -~é]{0,30}",
            after in "[ -~é]{0,30}",
            escaped in 0usize..4,
        ) {
            let secret = secret.trim();
            prop_assume!(secret.len() >= 6);
            // a backslash there would escape the first one of the secret: something else is meant then
            prop_assume!(escaped == 0 || !before.ends_with('\\'));
            let mut spelt = secret.to_owned();
            for _ in 0..escaped.min(2) {
                let quoted = serde_json::to_string(&spelt).unwrap();
                spelt = quoted[1..quoted.len() - 1].to_owned();
            }
            if escaped == 3 {
                spelt = secret.bytes().map(|octet| format!("\\u{octet:04x}")).collect();
            }
            let mut content = content(format!("{before}{spelt}{after}").into_bytes(), None);
            content.secrets.add(secret);
            let (shown, _) = text(&content).unwrap();
            prop_assert!(!shown.contains(&spelt), "{}", shown);
            prop_assert!(!shown.contains(secret), "{}", shown);
        }

        #[test]
        fn no_text_makes_it_panic(
            words in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec!["token", "api_key", ":", "=", "\"", "'", "\\", "\\u", "é", "…", "@",
                        "sk-", "Bearer ", "{", "12", " ", "password\":\""]).prop_map(str::to_owned),
                    ".{0,6}",
                ],
                0..30,
            ),
            secret in "[ -~]{0,8}",
        ) {
            let mut content = content(words.concat().into_bytes(), None);
            content.secrets.add(&secret);
            text(&content).unwrap();
        }
    }

    #[test]
    fn codings_are_decoded_and_unknown_ones_are_not_shown() {
        let plain =
            br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(plain).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(plain).unwrap();
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(plain).unwrap();
        // one uncompressed meta-block (RFC 7932 §9.2), then the empty last one
        let mut br = vec![0x0c];
        let length = plain.len() as u32 - 1;
        // WBITS 16 (1 bit), not last (1), 4 nibbles (2), length - 1 (16), uncompressed (1)
        let head: u32 = (length << 4) | (1 << 20);
        br.clear();
        br.extend_from_slice(&head.to_le_bytes()[..3]);
        br.extend_from_slice(plain);
        br.push(3);
        for (octets, coding) in [
            (plain.to_vec(), None),
            (plain.to_vec(), Some("identity")),
            (gzip.finish().unwrap(), Some("GZIP")),
            (zlib.finish().unwrap(), Some("deflate")),
            (deflate.finish().unwrap(), Some("deflate")),
            (br, Some("br")),
            (
                zstd::stream::encode_all(&plain[..], 3).unwrap(),
                Some("zstd"),
            ),
        ] {
            let (text, length) = text(&content(octets, coding)).unwrap();
            assert_eq!(text.as_bytes(), plain, "{coding:?}");
            assert_eq!(length, Completeness::Whole, "{coding:?}");
        }
        assert!(text(&content(plain.to_vec(), Some("compress"))).is_none());
    }

    #[test]
    fn text_is_bounded_whatever_it_decodes_to() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![b' '; 40 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 50_000);
        let (shown, length) = text(&content(bomb, Some("gzip"))).unwrap();
        assert_eq!((shown.len(), length), (LONGEST, Completeness::Cut));

        // each octet becomes a replacement character of three
        let (shown, length) = text(&content(vec![0xff; 30_000], None)).unwrap();
        assert!(shown.len() <= LONGEST && length == Completeness::Cut);

        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(b"cut in the middle").unwrap();
        let mut cut = gzip.finish().unwrap();
        cut.truncate(cut.len() - 4);
        assert_eq!(
            text(&content(cut, Some("gzip"))).unwrap().1,
            Completeness::Cut
        );
    }
}
