//! Session affinity: the upstream that a session used last, so that it stays there and its prompt
//! cache survives.
//!
//! A table of fixed size, shared by all workers without a lock: each entry is one atomic word, and
//! an entry that is overwritten by another session costs that session its place, nothing else. It
//! holds hashes only, under a key of the process.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Sets of the table, a power of two. 4,096 sets of 4 are 16,384 sessions in 128 KiB, allocated when
/// a session first leaves the preferred upstream.
const SETS: usize = 4096;
const WAYS: usize = 4;
/// Lifetime of an unused entry in minutes: the longest lifetime of a prompt cache is an hour.
const LIFE: u16 = 60;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    entries: OnceLock<Box<[AtomicU64]>>,
}

/// An entry: 32 bits of the session's hash, 16 bits that name the upstream, 16 bits of the minute
/// in which it was used last. 0 is no entry: [`AffinityEntry::session`] is never 0.
#[derive(Debug, Clone, Copy)]
struct AffinityEntry {
    session: u32,
    upstream: u16,
    minute: u16,
}

impl Affinity {
    /// The upstream that a session had last, if that is not too long ago.
    pub(super) fn upstream(&self, session: u64, minute: u16) -> Option<u16> {
        let set = self.set(self.entries.get()?, session);
        let found = set.iter().find_map(|slot| {
            let entry = AffinityEntry::read(slot)?;
            (entry.session == tag(session) && entry.age(minute) < LIFE).then_some((slot, entry))
        });
        let (slot, entry) = found?;
        if entry.minute != minute {
            AffinityEntry { minute, ..entry }.write(slot);
        }
        Some(entry.upstream)
    }

    /// The session has this upstream now.
    pub(super) fn remember(&self, session: u64, upstream: u16, minute: u16) {
        let entries = self
            .entries
            .get_or_init(|| (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect());
        let set = self.set(entries, session);
        let own = set.iter().find(|slot| {
            AffinityEntry::read(slot).is_some_and(|entry| entry.session == tag(session))
        });
        let oldest = || {
            set.iter().max_by_key(|slot| {
                AffinityEntry::read(slot).map_or(u16::MAX, |entry| entry.age(minute))
            })
        };
        if let Some(slot) = own.or_else(oldest) {
            let session = tag(session);
            AffinityEntry {
                session,
                upstream,
                minute,
            }
            .write(slot);
        }
    }

    fn set<'a>(&self, entries: &'a [AtomicU64], session: u64) -> &'a [AtomicU64] {
        let at = (session as usize % SETS) * WAYS;
        &entries[at..at + WAYS]
    }
}

/// The half of the hash that does not choose the set.
fn tag(session: u64) -> u32 {
    ((session >> 32) as u32).max(1)
}

impl AffinityEntry {
    fn read(slot: &AtomicU64) -> Option<Self> {
        let word = slot.load(Relaxed);
        (word != 0).then_some(Self {
            session: (word >> 32) as u32,
            upstream: (word >> 16) as u16,
            minute: word as u16,
        })
    }

    fn write(self, slot: &AtomicU64) {
        let word =
            u64::from(self.session) << 32 | u64::from(self.upstream) << 16 | u64::from(self.minute);
        slot.store(word, Relaxed);
    }

    /// Minutes since it was used last; the clock wraps after 45 days.
    fn age(self, minute: u16) -> u16 {
        minute.wrapping_sub(self.minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash that falls into the first set.
    fn session(number: u64) -> u64 {
        number << 32
    }

    #[test]
    fn a_session_is_remembered_for_an_hour_of_silence() {
        let affinity = Affinity::default();
        assert_eq!(affinity.upstream(session(1), 0), None);
        affinity.remember(session(1), 7, u16::MAX);
        // each use counts from then on, also across the wrap of the clock
        assert_eq!(affinity.upstream(session(1), 58), Some(7));
        assert_eq!(affinity.upstream(session(1), 58 + LIFE - 1), Some(7));
        assert_eq!(affinity.upstream(session(1), 58 + 2 * LIFE - 1), None);
        affinity.remember(session(1), 8, 200);
        assert_eq!(affinity.upstream(session(1), 200), Some(8));
    }

    #[test]
    fn the_oldest_of_a_set_makes_room() {
        let affinity = Affinity::default();
        for number in 1..=WAYS as u64 {
            affinity.remember(session(number), number as u16, number as u16);
        }
        affinity.remember(session(9), 9, 10);
        assert_eq!(affinity.upstream(session(1), 10), None);
        for number in [2, 3, 4, 9] {
            assert_eq!(affinity.upstream(session(number), 10), Some(number as u16));
        }
    }
}
