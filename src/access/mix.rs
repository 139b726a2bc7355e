//! Mixing of bits for tables.
//!
//! Ids need no secret: a client may show any id, and finds an operator's entry or none. It cannot make an entry, so
//! a hash under a secret would guard nothing. For texts that clients choose, [`SecretMix`] hides which ones fall
//! together.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number of which each bit depends on all bits of another one (the finalizer of MurmurHash3).
pub(super) fn mixed(mut number: u64) -> u64 {
    number ^= number >> 33;
    number = number.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    number ^= number >> 33;
    number = number.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ number >> 33
}

/// Hash of texts that clients choose, for tables in which two texts that fall together do no harm.
///
/// A few multiplications under a secret: no client can aim at a collision without knowing it, and none is told a
/// hash.
#[derive(Debug)]
pub(super) struct SecretMix([u64; 2]);

impl Default for SecretMix {
    fn default() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0), random.hash_one(1)])
    }
}

impl SecretMix {
    pub(super) fn of(&self, text: &[u8]) -> u64 {
        let [key, start] = self.0;
        let (words, rest) = text.as_chunks::<8>();
        // the last eight, which may overlap those before
        let last = text.last_chunk::<8>().copied().unwrap_or_else(|| {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            last
        });
        let folded = |hash: u64, word: &[u8; 8]| {
            let product = u128::from(u64::from_le_bytes(*word) ^ key) * u128::from(hash);
            product as u64 ^ (product >> 64) as u64
        };
        let hash = words.iter().fold(start ^ text.len() as u64, folded);
        mixed(folded(hash, &last))
    }
}

/// Hasher of ids and names.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        let (words, rest) = octets.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        // with their number, so that zeros at the end count
        self.write_u64(u64::from_le_bytes(last) ^ (octets.len() as u64) << 56);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mixed(self.0 ^ number).wrapping_add(1);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        hash::{BuildHasher, BuildHasherDefault},
    };

    use super::*;
    use crate::access::id::KeyId;

    #[test]
    fn names_that_begin_alike_are_told_apart() {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        let names = [
            "",
            "\0",
            "a",
            "a\0",
            "user-123",
            "user-123\0",
            "user-124",
            "user-1234",
        ];
        let hashes: HashSet<u64> = names.iter().map(|name| hasher.hash_one(name)).collect();
        assert_eq!(hashes.len(), names.len());
    }

    #[test]
    fn texts_are_told_apart_under_each_secret() {
        let texts: Vec<String> = (0..5_000)
            .map(|n| format!("claude-{n}"))
            .chain((0..40).map(|n| "a".repeat(n)))
            .chain(["\0", "\0\0", "a\0", "aaaaaaaa\0"].map(str::to_owned))
            .collect();
        let (one, other) = (SecretMix::default(), SecretMix::default());
        let hashes: HashSet<u64> = texts.iter().map(|text| one.of(text.as_bytes())).collect();
        assert_eq!(hashes.len(), texts.len());
        for shift in [0, 32, 57] {
            let mut counts = [0; 32];
            for hash in &hashes {
                counts[(hash >> shift) as usize % 32] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*least > 90 && *most < 240, "{shift}: {least} to {most}");
        }
        let alike = texts
            .iter()
            .filter(|text| one.of(text.as_bytes()) == other.of(text.as_bytes()));
        assert_eq!(alike.count(), 0);
    }

    #[test]
    fn ids_that_follow_one_another_are_spread() {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        let ids = (0..10_000).map(|n| format!("{n:010}").parse::<KeyId>().unwrap());
        let hashes: HashSet<u64> = ids.map(|id| hasher.hash_one(id)).collect();
        assert_eq!(hashes.len(), 10_000);
        for shift in [0, 32, 57] {
            let mut counts = [0; 128];
            for hash in &hashes {
                counts[(hash >> shift) as usize % 128] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*least > 40 && *most < 130, "{shift}: {least} to {most}");
        }
    }
}
