//! Secrets: a text that is never shown and is compared in constant time ([`Secret`]), and credentials of an
//! exchange that are masked in whatever is shown or logged of it ([`mask`], [`shape`]).

use std::fmt;

pub mod mask;
pub mod shape;

pub use self::mask::Secrets;

use ring::digest::{SHA256, digest};

/// Whether a field or parameter of this name holds a credential: those that are known, and those that are
/// named alike.
pub fn names_credential(name: &[u8]) -> bool {
    (0..name.len()).any(|at| {
        let parts: &[&str] = match name[at].to_ascii_lowercase() {
            b'a' => &["auth"],
            b'c' => &["cookie", "credential"],
            b'k' => &["key"],
            b'p' => &["passw"],
            b's' => &["secret"],
            b't' => &["token"],
            _ => return false,
        };
        parts.iter().any(|part| {
            let word = name.get(at..at + part.len());
            word.is_some_and(|word| word.eq_ignore_ascii_case(part.as_bytes()))
        })
    })
}

/// A secret.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether a text is this secret. The time it takes does not depend on where they differ, nor on
    /// the length of the secret.
    pub fn is(&self, text: &[u8]) -> bool {
        // digests have one length, and whoever chooses `text` cannot choose its digest octet by octet
        let (ours, theirs) = (digest(&SHA256, self.0.as_bytes()), digest(&SHA256, text));
        let differing = ours
            .as_ref()
            .iter()
            .zip(theirs.as_ref())
            .fold(0, |differing, (one, other)| differing | (one ^ other));
        std::hint::black_box(differing) == 0
    }
}

/// Equality of configurations, not of what a stranger sent.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_by_their_names() {
        for name in [
            "authorization",
            "proxy-authorization",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "cookie",
            "x-amz-security-token",
            "cf-access-client-secret",
        ] {
            assert!(names_credential(name.as_bytes()), "{name}");
        }
        for name in ["user-agent", "anthropic-beta", "x-app", "content-type"] {
            assert!(!names_credential(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let secret = Secret::new("canary");
        assert!(secret.is(b"canary"));
        for other in [&b""[..], b"canar", b"canary ", b"Canary"] {
            assert!(!secret.is(other));
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
