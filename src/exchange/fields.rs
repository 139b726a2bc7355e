//! Fields of a head as they may be shown: every name, and the values that are known to be no secret.

use std::{borrow::Cow, cell::RefCell, sync::Arc};

use crate::secret::Secrets;

/// Fields of a head: their names in the order of the wire, and values where they may be shown.
///
/// One text, `name: value` or `name` a line, since thousands are kept; shared with the progress of an
/// exchange in flight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShownFields(Option<Arc<str>>);

/// Upper bound of kept bytes of a head's fields: Claude Code's have about 1,000.
const MOST: usize = 2048;
/// Upper bound of bytes of a value.
const LONGEST_VALUE: usize = 256;
/// Upper bound of bytes of a name.
const LONGEST_NAME: usize = 64;

/// Fields whose values describe the message, its sender and its purpose, and never a credential; by their
/// length.
const SHOWN: [&str; 44] = [
    "te",
    "age",
    "via",
    "date",
    "host",
    "vary",
    "allow",
    "range",
    "x-app",
    "accept",
    "cf-ray",
    "expect",
    "pragma",
    "server",
    "alt-svc",
    "expires",
    "trailer",
    "upgrade",
    "connection",
    "keep-alive",
    "request-id",
    "user-agent",
    "retry-after",
    "content-type",
    "x-request-id",
    "accept-ranges",
    "cache-control",
    "content-range",
    "last-modified",
    "server-timing",
    "x-proxy-error",
    "anthropic-beta",
    "content-length",
    "x-should-retry",
    "accept-encoding",
    "accept-language",
    "cf-cache-status",
    "content-encoding",
    "content-language",
    "anthropic-version",
    "transfer-encoding",
    "x-claude-code-session-id",
    "strict-transport-security",
    "anthropic-dangerous-direct-browser-access",
];
/// The place of the first field that is at least so long.
const BY_LENGTH: [usize; LONGEST_NAME + 2] = {
    let mut places = [SHOWN.len(); LONGEST_NAME + 2];
    let mut length = LONGEST_NAME + 1;
    while length > 0 {
        length -= 1;
        let mut place = places[length + 1];
        while place > 0 && SHOWN[place - 1].len() >= length {
            place -= 1;
        }
        places[length] = place;
    }
    places
};
/// Prefixes of more such fields.
const SHOWN_KINDS: [&str; 2] = [RATE_LIMIT, "x-stainless-"];
/// Prefix of the fields of a response that say how much is left.
const RATE_LIMIT: &str = "anthropic-ratelimit-";
/// Upper bound of bytes of their values.
const LONGEST_LIMIT: usize = 128;

impl ShownFields {
    /// Renders the fields that may be shown, with these credentials masked; fields beyond the bound are left
    /// out.
    pub fn of<'a>(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        secrets: &Secrets,
    ) -> Self {
        thread_local! {
            // so that the kept text is allocated once, in its size
            static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        TEXT.with_borrow_mut(|text| {
            text.clear();
            for (name, value) in fields {
                let begin = text.len();
                push(text, &name[..name.len().min(LONGEST_NAME)]);
                text[begin..].make_ascii_lowercase();
                if is_shown(&text[begin..]) {
                    text.extend_from_slice(b": ");
                    push_value(text, value, secrets);
                }
                if text.len() > MOST {
                    text.truncate(begin);
                    break;
                }
                text.push(b'\n');
            }
            // it is, for it was written so
            let text = std::str::from_utf8(text).unwrap_or_default();
            Self((!text.is_empty()).then(|| text.into()))
        })
    }

    /// Names, and values where they may be shown.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.text().lines().map(|line| match line.split_once(": ") {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        })
    }

    /// The fields that say how much of the upstream's limits is left (`anthropic-ratelimit-*`, `retry-after`): their
    /// names without the prefix, and their values.
    pub fn rate_limits(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter_map(|(name, value)| {
            let short = match name.strip_prefix(RATE_LIMIT) {
                Some(short) => short,
                None if name == "retry-after" => name,
                None => return None,
            };
            let is_shown = |value: &&str| value.len() <= LONGEST_LIMIT && value.is_ascii();
            Some((short, value.filter(is_shown)?))
        })
    }

    /// Length of the rendered fields in bytes.
    pub fn len(&self) -> usize {
        self.text().len()
    }

    /// True if there are no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn text(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

fn push_value(text: &mut Vec<u8>, value: &[u8], secrets: &Secrets) {
    // before it is cut: half a key is one, too
    let masked = match secrets.may_be_within(value.len()) {
        true => std::str::from_utf8(value).map(|value| secrets.hide(value)),
        false => Ok(Cow::Borrowed("")),
    };
    let value = match &masked {
        Ok(Cow::Owned(masked)) => masked.as_bytes(),
        Ok(Cow::Borrowed(_)) | Err(_) => value,
    };
    push(text, &value[..value.len().min(LONGEST_VALUE)]);
    if LONGEST_VALUE < value.len() {
        text.extend_from_slice("…".as_bytes());
    }
}

/// Appends printable text as it is, the rest as `\n`, `\u{…}` or a replacement character.
fn push(text: &mut Vec<u8>, octets: &[u8]) {
    // without an early end it is done by many octets at once
    let is_plain = |plain, octet: &u8| plain & (b' '..=b'~').contains(octet);
    if octets.iter().fold(true, is_plain) {
        text.extend_from_slice(octets);
        return;
    }
    let mut shown = String::new();
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        if !chunk.invalid().is_empty() {
            shown.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text.extend_from_slice(shown.as_bytes());
}

fn is_shown(name: &[u8]) -> bool {
    let of_length = BY_LENGTH.get(name.len()).zip(BY_LENGTH.get(name.len() + 1));
    let mut known = of_length
        .and_then(|(from, to)| SHOWN.get(*from..*to))
        .into_iter()
        .flatten();
    known.any(|known| known.as_bytes() == name)
        || SHOWN_KINDS
            .iter()
            .any(|kind| name.starts_with(kind.as_bytes()))
}

#[cfg(test)]
impl ShownFields {
    /// A copy with memory of its own.
    pub(crate) fn copied(&self) -> Self {
        Self(self.0.as_deref().map(Arc::from))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(fields: &[(&[u8], &[u8])]) -> Vec<(String, Option<String>)> {
        let shown = ShownFields::of(fields.iter().copied(), &Secrets::default());
        let shown = shown.iter();
        shown
            .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
            .collect()
    }

    #[test]
    fn names_are_found_by_their_length() {
        assert!(SHOWN.is_sorted_by_key(|name| name.len()));
        for name in SHOWN {
            assert!(is_shown(name.as_bytes()), "{name}");
        }
        for name in ["", "x", "x-api-key", "authorization", &"x".repeat(64)] {
            assert!(!is_shown(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn values_are_shown_where_they_are_known_to_be_no_secret() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            of(&[
                (b"Host", b"a.example: 1"),
                (b"X-Api-Key", b"canary"),
                (b"authorization", b"Bearer canary"),
                (b"cookie", b"canary"),
                (b"X-Stainless-Lang", b"js"),
                (b"X-Unknown", b"canary"),
                (b"user-agent", "h\u{e9}\n\u{1}".as_bytes()),
                (b"server", b"\xff"),
                (b"accept", b""),
            ]),
            [
                ("host".into(), some("a.example: 1")),
                ("x-api-key".into(), None),
                ("authorization".into(), None),
                ("cookie".into(), None),
                ("x-stainless-lang".into(), some("js")),
                ("x-unknown".into(), None),
                ("user-agent".into(), some("h\u{e9}\\n\\u{1}")),
                ("server".into(), some("\u{fffd}")),
                ("accept".into(), some("")),
            ]
        );
        let mut secrets = Secrets::default();
        secrets.add("canary of ours");
        let agent: &[u8] = b"x canary%20of ours";
        let shown = ShownFields::of([(&b"user-agent"[..], agent)], &secrets);
        assert!(shown.iter().eq([("user-agent", Some("x \u{2026}"))]));
        let long = vec![b'x'; 300];
        let shown = of(&[(b"accept", &long)]);
        let value = shown[0].1.as_deref().unwrap();
        assert_eq!(value.len(), 256 + "…".len());
    }

    #[test]
    fn rate_limits_are_told_by_their_short_names() {
        let long = "1".repeat(LONGEST_LIMIT + 1);
        let fields = ShownFields::of(
            [
                (&b"Anthropic-RateLimit-Requests-Remaining"[..], &b"7"[..]),
                (b"retry-after", b"3"),
                (b"x-other", b"1"),
                (b"anthropic-ratelimit-tokens-limit", long.as_bytes()),
                (b"anthropic-ratelimit-tokens-reset", "\u{e9}".as_bytes()),
            ],
            &Secrets::default(),
        );
        let expected = [("requests-remaining", "7"), ("retry-after", "3")];
        assert!(fields.rate_limits().eq(expected));
    }

    proptest! {
        #[test]
        fn a_secret_is_not_shown_and_the_text_is_bounded(
            names in prop::collection::vec("[a-zA-Z-]{1,80}", 0..100),
            value in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let all = names.iter().map(|name| (name.as_bytes(), value.as_slice()));
            let shown = ShownFields::of(all, &Secrets::default());
            prop_assert!(shown.len() <= MOST + 1);
            for (name, value) in shown.iter() {
                prop_assert!(value.is_none() || is_shown(name.as_bytes()));
            }
        }
    }
}
