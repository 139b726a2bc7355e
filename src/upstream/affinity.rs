//! Session affinity: the upstream that a session used last, so that it stays there and its prompt
//! cache survives.
//!
//! A table of fixed size, shared by all workers without a lock: each entry is one atomic word, and
//! an entry that is overwritten by another session costs that session its place, nothing else. It
//! holds hashes only, under a key of the process, or of all replicas. These tell each other what changed: a thread
//! compares the table with what it told last, so that requests pay nothing for it.

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

/// Minutes after which a session that is still used is told again: several times in the life of an entry.
const TOLD_AGAIN: u16 = 15;

/// The session of an entry, and its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AffinityMove {
    /// Number of the set.
    pub(super) set: u16,
    /// The half of the hash that does not choose the set.
    pub(super) session: u32,
    /// Tag of the upstream.
    pub(super) upstream: u16,
}

/// The table as it was told to other replicas, and as they told it.
#[derive(Debug, Default)]
pub(super) struct ToldAffinity(Vec<u64>);

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

    /// Forgets everything: the hashes have another key now.
    pub(super) fn clear(&self) {
        let entries = self.entries.get().into_iter().flatten();
        entries.for_each(|slot| slot.store(0, Relaxed));
    }

    /// Returns what changed since it was told last, up to a number of entries.
    pub(super) fn changes(&self, told: &mut ToldAffinity, most: usize) -> Vec<AffinityMove> {
        let Some(entries) = self.entries.get() else {
            return Vec::new();
        };
        told.0.resize(SETS * WAYS, 0);
        let mut changes = Vec::new();
        for (at, (slot, told)) in entries.iter().zip(&mut told.0).enumerate() {
            let word = slot.load(Relaxed);
            if word == *told || changes.len() >= most {
                continue;
            }
            let Some(entry) = AffinityEntry::of(word) else {
                *told = word;
                continue;
            };
            let is_due = AffinityEntry::of(*told).is_none_or(|told| {
                (told.session, told.upstream) != (entry.session, entry.upstream)
                    || entry.minute.wrapping_sub(told.minute) >= TOLD_AGAIN
            });
            if is_due {
                *told = word;
                changes.push(AffinityMove {
                    set: (at / WAYS) as u16,
                    session: entry.session,
                    upstream: entry.upstream,
                });
            }
        }
        changes
    }

    /// Takes over what another replica told in this minute. It is not told on.
    pub(super) fn follow(&self, moved: AffinityMove, minute: u16, told: &mut ToldAffinity) {
        let AffinityMove {
            set,
            session,
            upstream,
        } = moved;
        let session = (u64::from(session) << 32) | (u64::from(set) % SETS as u64);
        // one that this replica has used since knows better
        let is_here = self.entry(session).is_some_and(|entry| {
            entry.upstream == upstream || (minute.wrapping_sub(entry.minute) as i16) < 0
        });
        if is_here {
            return;
        }
        self.remember(session, upstream, minute);
        let Some(entries) = self.entries.get() else {
            return;
        };
        told.0.resize(SETS * WAYS, 0);
        let begin = (session as usize % SETS) * WAYS;
        for at in begin..begin + WAYS {
            let word = entries[at].load(Relaxed);
            if AffinityEntry::of(word).is_some_and(|entry| entry.session == tag(session)) {
                told.0[at] = word;
            }
        }
    }

    fn entry(&self, session: u64) -> Option<AffinityEntry> {
        let mut set = self.set(self.entries.get()?, session).iter();
        set.find_map(|slot| AffinityEntry::read(slot).filter(|entry| entry.session == tag(session)))
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
        Self::of(slot.load(Relaxed))
    }

    fn of(word: u64) -> Option<Self> {
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
    fn another_replica_follows_what_changed() {
        let (here, there) = (Affinity::default(), Affinity::default());
        let (mut told, mut heard) = (ToldAffinity::default(), ToldAffinity::default());
        assert_eq!(here.changes(&mut told, 9), []);
        here.remember(session(1), 7, 3);
        here.remember(session(2) + 5, 8, 3);
        let changes = here.changes(&mut told, 9);
        assert_eq!(changes.len(), 2);
        assert_eq!(here.changes(&mut told, 9), [], "told once");
        for moved in changes {
            // its clock began at another time
            there.follow(moved, 1000, &mut heard);
        }
        assert_eq!(there.upstream(session(1), 1000), Some(7));
        assert_eq!(there.upstream(session(2) + 5, 1000), Some(8));
        assert_eq!(
            there.changes(&mut heard, 9),
            [],
            "what was heard is not told on"
        );
        there.remember(session(1), 9, 1001);
        assert_eq!(there.changes(&mut heard, 9).len(), 1);
    }

    #[test]
    fn a_session_that_is_used_is_told_again() {
        let (affinity, mut told) = (Affinity::default(), ToldAffinity::default());
        affinity.remember(session(1), 7, 0);
        assert_eq!(affinity.changes(&mut told, 9).len(), 1);
        affinity.upstream(session(1), TOLD_AGAIN - 1);
        assert_eq!(affinity.changes(&mut told, 9), []);
        affinity.upstream(session(1), TOLD_AGAIN);
        assert_eq!(affinity.changes(&mut told, 9).len(), 1);
    }

    #[test]
    fn what_was_used_here_since_is_not_overwritten() {
        let (affinity, mut told) = (Affinity::default(), ToldAffinity::default());
        affinity.remember(session(1), 7, 20);
        let moved = AffinityMove {
            set: 0,
            session: 1,
            upstream: 9,
        };
        affinity.follow(moved, 10, &mut told);
        assert_eq!(affinity.upstream(session(1), 20), Some(7));
        affinity.follow(moved, 30, &mut told);
        assert_eq!(affinity.upstream(session(1), 30), Some(9));
        affinity.clear();
        assert_eq!(affinity.upstream(session(1), 30), None);
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
