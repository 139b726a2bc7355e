//! Digests of secrets: HMAC-SHA256 under a pepper that the store does not hold.

use std::fmt;

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use super::{
    id::{FullKey, NoRandomness},
    record::{MOST_SECRETS, SecretRecord},
};

/// Key under which secrets are digested.
#[derive(Clone)]
pub struct Pepper(hmac::Key);

/// A text that is too short for a pepper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shorter than {SHORTEST} octets")]
pub struct WeakPepper;

impl Pepper {
    /// The pepper of a text, of at least 32 octets.
    pub fn new(text: &[u8]) -> Result<Self, WeakPepper> {
        if text.len() < SHORTEST {
            return Err(WeakPepper);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text)))
    }

    /// A new random text for a pepper: 64 hexadecimal digits.
    pub fn generate() -> Result<String, NoRandomness> {
        let mut octets = [0; 32];
        let random = SystemRandom::new();
        random.fill(&mut octets).map_err(|_| NoRandomness)?;
        Ok(hexadecimal(&octets))
    }

    /// The record of a key's secret.
    pub fn record(&self, key: &FullKey, created: i64) -> SecretRecord {
        SecretRecord {
            digest: hexadecimal(&self.digest(key.secret()).0),
            last4: key.last4().to_owned(),
            created,
            expires: None,
        }
    }

    pub(super) fn digest(&self, secret: &[u8]) -> Digest {
        #[cfg(test)]
        work::add(1, 0);
        let tag = hmac::sign(&self.0, secret);
        let mut digest = Digest::default();
        digest.0.copy_from_slice(tag.as_ref());
        digest
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper")
    }
}

/// Digest of a secret.
#[derive(Clone, Copy, Default)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// Reads hexadecimal digits; none if they are no digest.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let mut digest = Self::default();
        if text.len() != 2 * digest.0.len() {
            return None;
        }
        for (octet, digits) in digest.0.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = [digits[0], digits[1]].map(|it| (it as char).to_digit(16));
            *octet = (high? << 4 | low?) as u8;
        }
        Some(digest)
    }

    /// The place among the digests of a key. An unknown key has none; it takes as many comparisons as one with
    /// all the secrets that a key may have.
    pub(super) fn place_in<'a>(&self, digests: impl Iterator<Item = &'a Self>) -> Option<usize> {
        let (mut place, mut compared) = (None, 0);
        for digest in digests {
            if digest.is(self) {
                place = Some(compared);
            }
            compared += 1;
        }
        for _ in compared..MOST_SECRETS {
            std::hint::black_box(Self::default().is(self));
        }
        place
    }

    /// Compares in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        #[cfg(test)]
        work::add(0, 1);
        let differing = self
            .0
            .iter()
            .zip(other.0)
            .fold(0, |differing, (one, other)| differing | (one ^ other));
        std::hint::black_box(differing) == 0
    }

    pub(super) fn text(&self) -> String {
        hexadecimal(&self.0)
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    use std::fmt::Write;
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// Digests and comparisons that a thread has made.
#[cfg(test)]
pub(super) mod work {
    use std::cell::Cell;

    thread_local! {
        static WORK: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    }

    pub(super) fn add(digests: u32, comparisons: u32) {
        let (before, compared) = WORK.get();
        WORK.set((before + digests, compared + comparisons));
    }

    /// The work of a call on this thread.
    pub(in crate::access) fn of<T>(call: impl FnOnce() -> T) -> (T, (u32, u32)) {
        let before = WORK.get();
        let value = call();
        let after = WORK.get();
        (value, (after.0 - before.0, after.1 - before.1))
    }
}

/// Octets of the shortest pepper: those of a digest.
const SHORTEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::id::KeyId;

    #[test]
    fn a_digest_is_that_of_hmac_sha256() {
        // RFC 4231, test case 6: a key longer than a block
        let pepper = Pepper::new(&[0xaa; 131]).unwrap();
        let digest = pepper.digest(b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(
            digest.text(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn a_record_holds_the_digest_and_the_end_of_the_key_alone() {
        let pepper = Pepper::new(Pepper::generate().unwrap().as_bytes()).unwrap();
        let key = FullKey::generate(KeyId::random().unwrap()).unwrap();
        let record = pepper.record(&key, 7);
        let digest = Digest::parse(&record.digest).unwrap();
        assert!(digest.is(&pepper.digest(key.secret())));
        assert!(!digest.is(&pepper.digest(b"another")));
        let other = Pepper::new(&[7; 32]).unwrap();
        assert!(!digest.is(&other.digest(key.secret())));
        let text = format!("{record:?} {pepper:?}");
        assert!(!text.contains(std::str::from_utf8(key.secret()).unwrap()));
    }

    #[test]
    fn what_is_no_digest_or_pepper_is_refused() {
        assert!(Pepper::new(&[0; 31]).is_err());
        for wrong in ["", "00", &"0".repeat(65), &"g".repeat(64)] {
            assert!(Digest::parse(wrong).is_none(), "{wrong}");
        }
    }
}
