//! A value that must never be shown: keys, credentials, prompts.
//!
//! [`Secret`] has a redacted `Debug`, no `Display`, and compares in constant time. It refuses to
//! be serialised.

use std::fmt;

use subtle::ConstantTimeEq;

/// Octets that never reach a log, a metric, a page or an error text.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps a value. An empty value is allowed and equals only another empty value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(value.into())
    }

    /// The octets themselves: the caller takes over the duty not to show them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The length in octets, which may be shown.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        assert_eq!(
            format!("{:?}", Secret::new("sk-ant-api03-x")),
            "Secret(***)"
        );
    }

    #[test]
    fn equality_is_by_value() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }
}
