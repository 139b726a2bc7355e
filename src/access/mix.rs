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

/// Hasher of ids.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u64(u64::from(*octet));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mixed(self.0 ^ number);
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
