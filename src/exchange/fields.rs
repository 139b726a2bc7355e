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

/// Fields whose values describe the message, its sender and its purpose, and never a credential.
const SHOWN: [&str; 44] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "anthropic-version",
    "cache-control",
    "cf-cache-status",
    "cf-ray",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "expect",
    "expires",
    "host",
    "keep-alive",
    "last-modified",
    "pragma",
    "range",
    "request-id",
    "retry-after",
    "server",
    "server-timing",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-app",
    "x-claude-code-session-id",
    "x-proxy-error",
    "x-request-id",
    "x-should-retry",
];
/// Prefixes of more such fields.
const SHOWN_KINDS: [&str; 2] = ["anthropic-ratelimit-", "x-stainless-"];

impl ShownFields {
    /// Renders the fields that may be shown, with these credentials masked; fields beyond the bound are left
    /// out.
    pub fn of<'a>(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        secrets: &Secrets,
    ) -> Self {
        thread_local! {
            // so that the kept text is allocated once, in its size
            static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
        }
        TEXT.with_borrow_mut(|text| {
            text.clear();
            for (name, value) in fields {
                let begin = text.len();
                push(text, &name[..name.len().min(LONGEST_NAME)]);
                text[begin..].make_ascii_lowercase();
                if is_shown(&text[begin..]) {
                    text.push_str(": ");
                    // before it is cut: half a key is one, too
                    let masked = std::str::from_utf8(value).map(|value| secrets.hide(value));
                    let value = match &masked {
                        Ok(Cow::Owned(masked)) => masked.as_bytes(),
                        Ok(Cow::Borrowed(_)) | Err(_) => value,
                    };
                    push(text, &value[..value.len().min(LONGEST_VALUE)]);
                    if LONGEST_VALUE < value.len() {
                        text.push('…');
                    }
                }
                if text.len() > MOST {
                    text.truncate(begin);
                    break;
                }
                text.push('\n');
            }
            Self((!text.is_empty()).then(|| text.as_str().into()))
        })
    }

    /// Names, and values where they may be shown.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.text().lines().map(|line| match line.split_once(": ") {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
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

/// Appends printable text as it is, the rest as `\n`, `\u{…}` or a replacement character.
fn push(text: &mut String, octets: &[u8]) {
    match std::str::from_utf8(octets) {
        Ok(plain) if plain.bytes().all(|octet| matches!(octet, b' '..=b'~')) => {
            text.push_str(plain);
        }
        _ => {
            for chunk in octets.utf8_chunks() {
                for c in chunk.valid().chars() {
                    if c.is_control() {
                        text.extend(c.escape_default());
                    } else {
                        text.push(c);
                    }
                }
                if !chunk.invalid().is_empty() {
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
    }
}

fn is_shown(name: &str) -> bool {
    SHOWN.binary_search(&name).is_ok() || SHOWN_KINDS.iter().any(|kind| name.starts_with(kind))
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
    fn names_are_in_order() {
        assert!(SHOWN.is_sorted());
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
                prop_assert!(value.is_none() || is_shown(name));
            }
        }
    }
}
