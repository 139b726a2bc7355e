//! Secrets: a text that is never shown and is compared in constant time ([`Secret`]), and
//! credentials of an exchange that are masked in everything that is shown or logged of it
//! ([`mask`], [`shape`]). [`SecretFile`] keeps a secret over a restart.

use std::fmt;

mod kept;
pub mod mask;
mod names;
pub mod shape;

pub use self::{
    kept::{SecretFile, SecretFileError},
    mask::Secrets,
    names::names_credential,
};

use ring::digest::{SHA256, digest};

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Gives the text to what must use it, and never show it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares a text with this secret, in a time that does not depend on where they differ, nor
    /// on the length of the secret.
    pub fn is(&self, text: &[u8]) -> bool {
        // digests have one length, and a client that chooses `text` cannot choose its digest byte by byte
        let (ours, theirs) = (digest(&SHA256, self.0.as_bytes()), digest(&SHA256, text));
        let differing = ours
            .as_ref()
            .iter()
            .zip(theirs.as_ref())
            .fold(0, |differing, (one, other)| differing | (one ^ other));
        std::hint::black_box(differing) == 0
    }
}

/// Equality of configurations; a client's text is compared by [`Secret::is`].
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
    fn a_secret_is_compared_and_not_shown() {
        let secret = Secret::new("canary");
        assert!(secret.is(b"canary"));
        for other in [&b""[..], b"canar", b"canary ", b"Canary"] {
            assert!(!secret.is(other));
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
