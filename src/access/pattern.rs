//! Patterns of models and paths: a text with `*` for any characters.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text with `*` as wildcard; case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Box<str>);

/// A text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It has no characters.
    #[error("an empty pattern: expected a text such as claude-opus-*")]
    Empty,
    /// It has more than 128 characters.
    #[error("a pattern of more than {LONGEST} characters")]
    TooLong,
    /// It has white space, a control character or a bar.
    #[error("a pattern with white space, control characters or `|`")]
    Character,
}

impl Pattern {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reports whether the whole of a text matches.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut matched) = (0, 0);
        // the last wildcard, and the end of what it stands for
        let mut wildcard: Option<(usize, usize)> = None;
        while matched < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    wildcard = Some((at, matched));
                    at += 1;
                }
                Some(octet) if *octet == text[matched] => {
                    at += 1;
                    matched += 1;
                }
                _ => {
                    let Some((place, end)) = wildcard else {
                        return false;
                    };
                    wildcard = Some((place, end + 1));
                    at = place + 1;
                    matched = end + 1;
                }
            }
        }
        pattern[at..].iter().all(|octet| *octet == b'*')
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.chars().count() > LONGEST {
            return Err(InvalidPattern::TooLong);
        }
        // a bar separates the parts of a cell's name
        let is_wrong = |it: char| it.is_whitespace() || it.is_control() || it == '|';
        if text.chars().any(is_wrong) {
            return Err(InvalidPattern::Character);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.into()
    }
}

/// Characters of the longest pattern.
const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("claude-opus-*", "claude-opus-4-5", true),
            ("claude-opus-*", "claude-opus-", true),
            ("claude-opus-*", "Claude-opus-4", false),
            ("claude-opus-*", "us.claude-opus-4", false),
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "", false),
            ("*-4-*-x*", "m-4-4-4-xyz", true),
            ("a*b*c", "abbbc-c", true),
            ("a*b*c", "acb", false),
            ("**a", "a", true),
        ] {
            let matches = pattern.parse::<Pattern>().unwrap().matches(text);
            assert_eq!(matches, expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!("".parse::<Pattern>(), Err(InvalidPattern::Empty));
        assert_eq!("a b".parse::<Pattern>(), Err(InvalidPattern::Character));
        assert_eq!("a|b".parse::<Pattern>(), Err(InvalidPattern::Character));
        let long = "ä".repeat(129);
        assert_eq!(long.parse::<Pattern>(), Err(InvalidPattern::TooLong));
        assert!(serde_json::from_str::<Pattern>("\"\"").is_err());
    }

    /// The definition, with backtracking.
    fn is_match(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|end| is_match(rest, &text[end..])),
            Some((octet, rest)) => text.first() == Some(octet) && is_match(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[ab*]{1,8}", text in "[ab]{0,10}") {
            let matches = pattern.parse::<Pattern>().unwrap().matches(&text);
            prop_assert_eq!(matches, is_match(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
