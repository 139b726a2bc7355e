//! Content of errors as text that may be shown: decoded, cut, and without what looks like a secret.
//!
//! Masked are keys (`sk-…`), what follows `Bearer` or `Basic`, e-mail addresses, and long runs of
//! base64 or hexadecimal digits. Rather a word too many than a key too few.

use std::io::Read;

use brotli_decompressor::Decompressor;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::recent::shortened;
use crate::record::ErrorContent;

/// The longest text: 50 KiB.
pub(super) const LONGEST: usize = 50 * 1024;
/// What the proxy keeps of an error's content: content of this length may have been longer.
const LONGEST_KEPT: usize = 50_000;
/// A run of base64 or hexadecimal digits that is masked: 24 octets as base64, 16 as hexadecimal. Ids of
/// the API (`toolu_…`, `req_…`) are shorter.
const LONG_RUN: usize = 32;
const MASK: &str = "…";

/// How much of a text is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// All of it.
    Whole,
    /// Its beginning.
    Cut,
}

/// The text of an error's content; none where its coding is unknown to us.
pub(super) fn text(content: &ErrorContent) -> Option<(String, Length)> {
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
            _ => return None,
        },
    };
    if octets.len() >= LONGEST_KEPT {
        length = Length::Cut;
    }
    let mut text = masked(&String::from_utf8_lossy(&decoded));
    if text.len() > LONGEST {
        text.truncate(shortened(&text, LONGEST).len());
        length = Length::Cut;
    }
    Some((text, length))
}

/// What can be read, up to [`LONGEST`].
fn read(source: impl Read) -> (Vec<u8>, Length) {
    let mut decoded = Vec::new();
    // what was read before a failure stays
    let outcome = source.take(LONGEST as u64 + 1).read_to_end(&mut decoded);
    let length = if outcome.is_err() || decoded.len() > LONGEST {
        Length::Cut
    } else {
        Length::Whole
    };
    decoded.truncate(LONGEST);
    (decoded, length)
}

/// A text without what looks like a secret.
pub(super) fn masked(text: &str) -> String {
    without_tokens(&without_addresses(text))
}

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
    let key = run
        .match_indices("sk-")
        .find(|(at, _)| {
            let begins = *at == 0 || !run.as_bytes()[at - 1].is_ascii_alphanumeric();
            begins && run.len() - at >= "sk-".len() + 8
        })
        .map(|(at, _)| at);
    let (shown, secret) = run.split_at(key.unwrap_or(run.len()));
    let has_digit = shown.bytes().any(|octet| octet.is_ascii_digit());
    let is_long =
        shown.len() >= LONG_RUN && has_digit || shown.starts_with("eyJ") && shown.len() >= 16;
    masked.push_str(if is_long { MASK } else { shown });
    if !secret.is_empty() {
        masked.push_str("sk-");
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

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_masked_and_the_rest_stays() {
        for (text, expected) in [
            ("", ""),
            ("invalid x-api-key", "invalid x-api-key"),
            ("key sk-ant-api03-AbC_12345-xyz.", "key sk-…."),
            (r#"{"key":"sk-proj-12345678"}"#, r#"{"key":"sk-…"}"#),
            ("x=sk-ant-oat01-abcdefgh&y=1", "x=sk-…&y=1"),
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
            secrets: Vec::new(),
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
        ] {
            let (text, length) = text(&content(octets, coding)).unwrap();
            assert_eq!(text.as_bytes(), plain, "{coding:?}");
            assert_eq!(length, Length::Whole, "{coding:?}");
        }
        assert!(text(&content(plain.to_vec(), Some("zstd"))).is_none());
    }

    #[test]
    fn text_is_bounded_whatever_it_decodes_to() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![b' '; 40 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(bomb.len() < 50_000);
        let (shown, length) = text(&content(bomb, Some("gzip"))).unwrap();
        assert_eq!((shown.len(), length), (LONGEST, Length::Cut));

        // each octet becomes a replacement character of three
        let (shown, length) = text(&content(vec![0xff; 30_000], None)).unwrap();
        assert!(shown.len() <= LONGEST && length == Length::Cut);

        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(b"cut in the middle").unwrap();
        let mut cut = gzip.finish().unwrap();
        cut.truncate(cut.len() - 4);
        assert_eq!(text(&content(cut, Some("gzip"))).unwrap().1, Length::Cut);
    }
}
