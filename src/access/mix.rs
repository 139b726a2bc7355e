//! Mixing of the bits of a number, for tables whose keys no client can choose.
//!
//! A client may show any id, and finds what an operator has put there or nothing: it cannot make an entry, so
//! a hash under a secret would guard nothing.

use std::hash::Hasher;

/// A number of which each bit depends on all bits of another one (the finalizer of MurmurHash3).
pub(super) fn mixed(mut number: u64) -> u64 {
    number ^= number >> 33;
    number = number.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    number ^= number >> 33;
    number = number.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ number >> 33
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
