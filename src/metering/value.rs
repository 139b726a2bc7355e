//! Values of known members, from their spelling.

use std::borrow::Cow;

use super::members::{Match, MemberValue};
use crate::json::tokenizer;

/// The value of this spelling: a string with its quotes, a number or a literal.
#[inline(never)]
pub(super) fn read(leaf: MemberValue, spelling: &[u8]) -> Match<'_> {
    let found = match spelling {
        [b'0'..=b'9', ..] => digits(spelling)
            .or_else(|| unusual(spelling))
            .map(|number| Match::Number(leaf, number)),
        [b'"', inside @ .., b'"'] => text(inside).map(|text| Match::Text(leaf, text)),
        b"true" => Some(Match::Bool(leaf, true)),
        b"false" => Some(Match::Bool(leaf, false)),
        b"null" => Some(Match::Null(leaf)),
        _ => None,
    };
    found.unwrap_or(Match::Other(leaf))
}

/// Reports whether a text is nothing but white space.
pub(super) fn is_blank(text: &str) -> bool {
    let is_usual = text.starts_with(|first: char| first.is_ascii_graphic());
    !is_usual && text.trim().is_empty()
}

/// The whole number of another spelling than that of a few digits.
#[cold]
fn unusual(spelling: &[u8]) -> Option<u64> {
    let is_short = spelling.len() <= LONGEST_SPELLING;
    let spelling = is_short.then(|| str::from_utf8(spelling))?;
    whole(spelling.ok()?)
}

/// The number of a few digits, as nearly all counts are.
fn digits(spelling: &[u8]) -> Option<u64> {
    let is_short = matches!(spelling.len(), 1..=15);
    let add = |number, octet: &u8| match octet {
        b'0'..=b'9' => Some(number * 10 + u64::from(octet - b'0')),
        _ => None,
    };
    is_short.then(|| spelling.iter().try_fold(0, add))?
}

/// The text of this spelling, if it is short, Unicode and without control characters.
fn text(spelling: &[u8]) -> Option<Cow<'_, str>> {
    if let Some(text) = usual(spelling) {
        return Some(Cow::Borrowed(text));
    }
    if spelling.len() <= LONGEST_TEXT && are_printable(spelling) {
        return str::from_utf8(spelling).ok().map(Cow::Borrowed);
    }
    let text = match unescaped(spelling)? {
        Cow::Borrowed(octets) => Cow::Borrowed(str::from_utf8(octets).ok()?),
        Cow::Owned(octets) => Cow::Owned(String::from_utf8(octets).ok()?),
    };
    let is_plain = text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control);
    is_plain.then_some(text)
}

/// A text that nearly all answers have, which needs no look at its bytes.
fn usual(spelling: &[u8]) -> Option<&'static str> {
    Some(match spelling {
        b"end_turn" => "end_turn",
        b"tool_use" => "tool_use",
        b"standard" => "standard",
        b"message_start" => "message_start",
        b"message_delta" => "message_delta",
        _ => return None,
    })
}

/// Reports whether all bytes are printable ASCII other than a backslash.
fn are_printable(octets: &[u8]) -> bool {
    let (words, rest) = octets.as_chunks::<8>();
    let last = octets.last_chunk::<8>();
    let all = |are: bool, word: &[u8; 8]| are & !has_unusual(u64::from_le_bytes(*word));
    let are = words.iter().fold(true, all);
    match last {
        // it overlaps the last whole word
        Some(last) => are && all(true, last),
        None => rest
            .iter()
            .all(|octet| matches!(octet, b' '..=b'~') && *octet != b'\\'),
    }
}

/// Reports whether one of eight bytes is a control character, a backslash or not of ASCII.
fn has_unusual(word: u64) -> bool {
    const EACH: u64 = u64::MAX / 0xFF;
    let backslashes = word ^ (EACH * b'\\' as u64);
    // a borrow or carry reaches the byte beside it only where this one is unusual already
    let found = word
        | word.wrapping_sub(EACH * b' ' as u64)
        | word.wrapping_add(EACH)
        | (backslashes.wrapping_sub(EACH) & !backslashes);
    found & (EACH * 0x80) != 0
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
    if spelling.len() > LONGEST_SPELLING {
        return None;
    }
    if !spelling.contains(&b'\\') {
        return Some(Cow::Borrowed(spelling));
    }
    let quoted = [b"\"", spelling, b"\""].concat();
    let text: String = serde_json::from_slice(&quoted).ok()?;
    Some(Cow::Owned(text.into_bytes()))
}

/// 2⁵³
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
/// Bytes of a string of note, other than its spelling.
pub(super) const LONGEST_TEXT: usize = 128;
/// Bytes of a spelling of note: every byte of the longest text as `\uXXXX`.
pub(super) const LONGEST_SPELLING: usize = 6 * LONGEST_TEXT;
// the tokenizer keeps as many, and the quotes
const _: () = assert!(LONGEST_SPELLING + 2 <= tokenizer::LONGEST);

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn each_byte_is_told_in_each_place() {
        for octet in 0..=u8::MAX {
            let is_printable = matches!(octet, b' '..=b'~') && octet != b'\\';
            for length in 1..20 {
                for at in 0..length {
                    let mut text = vec![b'a'; length];
                    text[at] = octet;
                    assert_eq!(
                        are_printable(&text),
                        is_printable,
                        "{octet} at {at} of {length}"
                    );
                }
            }
        }
        assert!(are_printable(b""));
    }

    #[test]
    fn usual_texts_are_those_of_their_spelling() {
        for text in [
            "end_turn",
            "tool_use",
            "standard",
            "message_start",
            "message_delta",
        ] {
            assert_eq!(usual(text.as_bytes()), Some(text));
        }
        assert_eq!(usual(b"end_turm"), None);
    }

    proptest! {
        #[test]
        fn many_at_once_are_told_as_one_by_one(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let one_by_one = octets
                .iter()
                .all(|octet| matches!(octet, b' '..=b'~') && *octet != b'\\');
            prop_assert_eq!(are_printable(&octets), one_by_one);
        }
    }
}
