//! Session cookie of the dashboard, among the cookies of a request (RFC 6265 §4.2).
//!
//! Cookies are not bound to ports: a browser sends the cookie to every server on the same host. It
//! is a credential of the proxy, so it is removed from forwarded requests; the rest of the field is
//! unchanged.

use std::borrow::Cow;

/// The name of the session cookie.
pub const SESSION: &str = "anthropic_proxy_session";

/// The values that the session cookie has in a `Cookie` field.
pub fn sessions(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    pairs(value).filter_map(session)
}

/// A `Cookie` field without the session cookie; `None` where nothing else is in it.
pub fn without_sessions(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if sessions(value).next().is_none() {
        return Some(Cow::Borrowed(value));
    }
    let mut rest = Vec::with_capacity(value.len());
    for pair in pairs(value).filter(|pair| session(pair).is_none()) {
        if !rest.is_empty() {
            rest.push(b';');
        }
        rest.extend_from_slice(pair);
    }
    // white space before the first pair was between two
    let start = rest.len() - rest.trim_ascii_start().len();
    rest.drain(..start);
    (!rest.is_empty()).then_some(Cow::Owned(rest))
}

fn pairs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&octet| octet == b';')
}

/// The value of a pair, if it is the session's.
fn session(pair: &[u8]) -> Option<&[u8]> {
    let rest = pair.trim_ascii().strip_prefix(SESSION.as_bytes())?;
    Some(rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_session_is_taken_out_and_the_rest_stays() {
        let s = "anthropic_proxy_session=0123";
        for (value, rest) in [
            (String::new(), Some("")),
            ("a=1; b=2".into(), Some("a=1; b=2")),
            ("a=1;b=\"x y\" ;; c".into(), Some("a=1;b=\"x y\" ;; c")),
            (s.into(), None),
            (format!(" {s}; {s} "), None),
            (format!("{s}; a=1"), Some("a=1")),
            (format!("a=1; {s}"), Some("a=1")),
            (format!("a=1; {s};b=2;  c=3"), Some("a=1;b=2;  c=3")),
            (
                "anthropic_proxy_session".into(),
                Some("anthropic_proxy_session"),
            ),
            (
                "xanthropic_proxy_session=1; anthropic_proxy_sessions=2".into(),
                Some("xanthropic_proxy_session=1; anthropic_proxy_sessions=2"),
            ),
            (
                "Anthropic_proxy_session=1".into(),
                Some("Anthropic_proxy_session=1"),
            ),
            ("anthropic_proxy_session = 1; a".into(), Some("a")),
            ("anthropic_proxy_session=".into(), None),
        ] {
            let found = without_sessions(value.as_bytes());
            assert_eq!(found.as_deref(), rest.map(str::as_bytes), "{value}");
        }
        let two = format!("a=1; {s}; {SESSION}=x");
        let found: Vec<_> = sessions(two.as_bytes()).collect();
        assert_eq!(found, [&b"0123"[..], b"x"]);
    }

    proptest! {
        #[test]
        fn no_session_is_left_and_no_other_pair_is_lost(
            pairs in prop::collection::vec(
                prop_oneof![
                    "[a-z]{1,3}=[ -:<-~]{0,5}",
                    "[0-9a-f]{0,4}".prop_map(|id| format!("{SESSION}={id}")),
                ],
                0..8,
            ),
        ) {
            let value = pairs.join("; ");
            let rest = without_sessions(value.as_bytes()).unwrap_or_default();
            prop_assert_eq!(sessions(&rest).count(), 0);
            let others: Vec<&str> = pairs.iter().filter(|it| !it.starts_with(SESSION)).map(|it| &**it).collect();
            let expected = others.join("; ");
            prop_assert_eq!(&*rest, expected.as_bytes());
        }
    }
}
