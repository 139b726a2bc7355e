//! Names that become labels: the first few, the rest is `other`.
//!
//! A table that only grows, shared by all workers: a name's place is its index in arrays of counters.
//! Looking up is a walk over at most a table of short texts, without a lock; a name that is new takes
//! the next place by `OnceLock`, once in the life of the process.

use std::sync::OnceLock;

/// A table of at most `N` names.
#[derive(Debug)]
pub(super) struct LabelTable<const N: usize>([OnceLock<Box<str>>; N]);

impl<const N: usize> Default for LabelTable<N> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; N])
    }
}

impl<const N: usize> LabelTable<N> {
    /// The index of a name, which takes a place if there is one; else `N`.
    pub(super) fn intern(&self, name: &str) -> usize {
        if is_label(name) { self.place(name) } else { N }
    }

    /// The index of a name that an operator chose: it may have blanks and characters of any language.
    pub(super) fn intern_text(&self, name: &str) -> usize {
        let is_label = !name.is_empty() && name.len() <= LONGEST_TEXT && name != OTHER;
        if is_label && !name.contains(char::is_control) {
            self.place(name)
        } else {
            N
        }
    }

    fn place(&self, name: &str) -> usize {
        let place = self.0.iter().position(|slot| match slot.get() {
            Some(known) => **known == *name,
            None => slot.set(name.into()).is_ok() || slot.get().is_some_and(|won| **won == *name),
        });
        place.unwrap_or(N)
    }

    /// The index of a name if it has one; else `N`.
    pub(super) fn find(&self, name: &str) -> usize {
        let known = self.0.iter().map_while(OnceLock::get);
        known
            .into_iter()
            .position(|known| **known == *name)
            .unwrap_or(N)
    }

    /// Every label with its index, `other` last.
    pub(super) fn labels(&self) -> impl Iterator<Item = (usize, &str)> {
        let known = self.0.iter().map_while(OnceLock::get);
        let known = known.enumerate().map(|(at, name)| (at, &**name));
        known.chain([(N, OTHER)])
    }
}

/// True if a name may be a label: `other` has a place of its own, and a text that is long or unprintable is
/// no name.
fn is_label(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len())
        && name.bytes().all(|octet| octet.is_ascii_graphic())
        && name != OTHER
}

/// The label of names without a place.
const OTHER: &str = "other";

/// Upper bound of bytes of a name.
const LONGEST: usize = 128;

/// Upper bound of bytes of a name that an operator chose: 128 characters of four.
const LONGEST_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_have_a_place_and_the_rest_is_other() {
        let names = LabelTable::<3>::default();
        for (name, place) in [
            ("a", 0),
            ("b", 1),
            ("a", 0),
            ("other", 3),
            ("", 3),
            ("with space", 3),
            ("c", 2),
            ("d", 3),
            ("c", 2),
        ] {
            assert_eq!(names.intern(name), place, "{name}");
        }
        assert_eq!(names.intern(&"x".repeat(129)), 3);
        let labels: Vec<(usize, &str)> = names.labels().collect();
        assert_eq!(labels, [(0, "a"), (1, "b"), (2, "c"), (3, "other")]);
    }

    #[test]
    fn to_find_takes_no_place() {
        let names = LabelTable::<2>::default();
        assert_eq!(names.find("a"), 2);
        assert_eq!(names.intern("b"), 0);
        assert_eq!((names.find("a"), names.find("b")), (2, 0));
    }

    #[test]
    fn threads_agree_on_places() {
        let names = LabelTable::<8>::default();
        let all: Vec<String> = (0..8).map(|at| format!("model-{at}")).collect();
        let places = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (names, all) = (&names, &all);
                    scope.spawn(move || {
                        let mut places = [0; 8];
                        for step in 0..8 {
                            let at = (step + thread * 2) % 8;
                            places[at] = names.intern(&all[at]);
                        }
                        places
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(places.iter().all(|other| *other == places[0]));
        let mut sorted = places[0];
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
