//! Detection of keys by their form, where no value is known to compare with: the parts of paths.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The text that replaces a credential.
pub const MASK: &str = "…";

/// Prefixes of keys of known makers, and the shortest length of the rest.
const PREFIXES: [(&str, usize); 26] = [
    ("sk-", 1),
    ("pk-", 8),
    ("rk-", 8),
    ("sk_", 8),
    ("AKIA", 12),
    ("ASIA", 12),
    ("ghp_", 8),
    ("gho_", 8),
    ("ghu_", 8),
    ("ghs_", 8),
    ("ghr_", 8),
    ("github_pat_", 8),
    ("glpat-", 8),
    ("xoxb-", 8),
    ("xoxp-", 8),
    ("xoxa-", 8),
    ("xoxs-", 8),
    ("xapp-", 8),
    ("AIza", 12),
    ("ya29.", 8),
    ("eyJ", 13),
    ("gsk_", 8),
    ("hf_", 12),
    ("xai-", 12),
    ("fw_", 12),
    ("r8_", 12),
];

/// The position of a key in a run of characters that keys are made of.
pub fn key_start(run: &str) -> Option<usize> {
    let starts = PREFIXES.iter().filter_map(|(prefix, rest)| {
        let mut found = run.match_indices(prefix);
        let found = found.find(|(at, _)| {
            let begins = *at == 0 || !run.as_bytes()[at - 1].is_ascii_alphanumeric();
            begins && run.len() - at >= prefix.len() + rest
        });
        found.map(|(at, _)| at)
    });
    starts.min()
}

/// Tells if a part of a path looks like a key. Ids of the API, names of models and dates do not.
pub fn is_key(part: &str) -> bool {
    if part.contains('%') {
        let decoded = percent_decode_str(part).decode_utf8_lossy();
        return !decoded.contains('%') && is_key(&decoded);
    }
    if part.len() < SHORTEST {
        return false;
    }
    if key_start(part) == Some(0) {
        return true;
    }
    if is_id(part) {
        return false;
    }
    let is_hex = part
        .bytes()
        .all(|octet| octet.is_ascii_hexdigit() || octet == b'-');
    let has_digit = part.bytes().any(|octet| octet.is_ascii_digit());
    let has_letter = part.bytes().any(|octet| octet.is_ascii_alphabetic());
    if is_hex && has_digit && has_letter && part.len() >= LONG_HEX {
        return true;
    }
    let is_separator = |c: char| !c.is_ascii_alphanumeric();
    part.split(is_separator).any(is_random)
}

/// Tells if a word looks random.
fn is_random(word: &str) -> bool {
    let octets = word.as_bytes();
    let kind = |octet: &u8| match octet {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    };
    let turns = |of: fn(u8) -> u8| {
        let pairs = octets.windows(2);
        pairs
            .filter(|pair| of(kind(&pair[0])) != of(kind(&pair[1])))
            .count()
    };
    // between digits and letters; between all three
    let (digits, all) = (turns(|kind| u8::from(kind == 0)), turns(|kind| kind));
    match octets.len() {
        ..8 => false,
        8..12 => digits >= 3,
        12..20 => digits >= 2,
        _ => digits >= 1 || all >= 6 || octets.iter().all(u8::is_ascii_digit),
    }
}

/// An id as Anthropic makes them: `msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d`, `file_011CNha8iCJcU1wXNR6q4V8w`.
fn is_id(part: &str) -> bool {
    let Some((kind, id)) = part.rsplit_once('_') else {
        return false;
    };
    let is_kind = |octet: u8| octet.is_ascii_lowercase() || octet == b'_';
    (2..=16).contains(&kind.len())
        && kind.bytes().all(is_kind)
        && (20..=26).contains(&id.len())
        && id.starts_with("01")
        && id.bytes().all(|octet| octet.is_ascii_alphanumeric())
}

/// A path with what looks like a key masked.
pub fn path(path: &str) -> Cow<'_, str> {
    if !path.split('/').any(is_key) {
        return Cow::Borrowed(path);
    }
    let parts = path.split('/');
    let parts: Vec<&str> = parts
        .map(|part| if is_key(part) { MASK } else { part })
        .collect();
    Cow::Owned(parts.join("/"))
}

/// The path of an upstream's URL as it is shown: parts that are words. What is none may be a key, however
/// short it is.
pub fn prefix(path: &str) -> Cow<'_, str> {
    if path.split('/').all(is_word) {
        return Cow::Borrowed(path);
    }
    let parts = path.split('/');
    let parts: Vec<&str> = parts
        .map(|part| if is_word(part) { part } else { STARS })
        .collect();
    Cow::Owned(parts.join("/"))
}

/// The parts of such a path that are not shown.
pub fn hidden(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !is_word(part))
}

/// Tells if a part is made of words, each with at most two digits at its end: `v1`, `us-east-1`,
/// `v1beta1`.
fn is_word(part: &str) -> bool {
    part.len() <= LONGEST_WORD
        && part.split(['-', '_']).all(|word| {
            let versioned = word
                .strip_prefix('v')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            let word = match versioned {
                Some(rest) => rest.trim_start_matches(|c: char| c.is_ascii_digit()),
                None => word,
            };
            let rest = word
                .strip_prefix(|c: char| c.is_ascii_uppercase())
                .unwrap_or(word);
            let digits = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
            digits.len() <= 2 && digits.bytes().all(|octet| octet.is_ascii_digit())
        })
}

/// The mask in URLs.
const STARS: &str = "***";
/// A part that is shorter is no key by its looks.
const SHORTEST: usize = 8;
/// Hexadecimal digits, with or without dashes, that are a key.
const LONG_HEX: usize = 16;
/// A part that is longer is no word.
const LONGEST_WORD: usize = 32;

#[cfg(test)]
pub(crate) mod tests;
