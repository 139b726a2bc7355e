//! Hashes of sessions, under a key that all replicas may have in common: else one would not know the session that
//! another one moved.
//!
//! The key is random and no client knows it, so that none can make sessions that fall into one place.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A keyed hash. Its key may change while it is used: a session is hashed under a mixture then, once.
#[derive(Debug)]
pub(super) struct SessionHash([AtomicU64; 2]);

impl Default for SessionHash {
    fn default() -> Self {
        let random = || AtomicU64::new(RandomState::new().hash_one(0));
        Self([random(), random()])
    }
}

impl SessionHash {
    /// The hash of a session.
    pub(super) fn of(&self, session: &[u8]) -> u64 {
        let [one, other] = self.0.each_ref().map(|half| half.load(Relaxed));
        #[expect(
            deprecated,
            reason = "the keyed SipHash of the standard library; its successors have no key"
        )]
        let mut hasher = std::hash::SipHasher::new_with_keys(one, other);
        hasher.write(session);
        hasher.finish()
    }

    /// The key, in hexadecimal digits.
    pub(super) fn key(&self) -> String {
        let [one, other] = self.0.each_ref().map(|half| half.load(Relaxed));
        format!("{one:016x}{other:016x}")
    }

    /// Sets the key. Returns false if it is in effect already, or is none.
    pub(super) fn set_key(&self, key: &str) -> bool {
        if key.len() != 32 || key == self.key() {
            return false;
        }
        let half = |from: usize| u64::from_str_radix(key.get(from..from + 16)?, 16).ok();
        let (Some(one), Some(other)) = (half(0), half(16)) else {
            return false;
        };
        self.0[0].store(one, Relaxed);
        self.0[1].store(other, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_agree_under_one_key() {
        let (one, other) = (SessionHash::default(), SessionHash::default());
        assert_ne!(one.of(b"session"), other.of(b"session"));
        assert!(other.set_key(&one.key()));
        assert_eq!(one.of(b"session"), other.of(b"session"));
        assert!(!other.set_key(&one.key()), "it is in effect");
    }

    #[test]
    fn what_is_no_key_changes_nothing() {
        let hash = SessionHash::default();
        let before = hash.key();
        for text in ["", "12", &"x".repeat(32), &"é".repeat(16)] {
            assert!(!hash.set_key(text), "{text}");
        }
        assert_eq!(hash.key(), before);
    }
}
