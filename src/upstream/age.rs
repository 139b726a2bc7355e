//! Maximum age of connections to an upstream, with jitter.
//!
//! A connection that is never idle would never be closed, and its upstream's new addresses never be
//! resolved: a busy pool would stay with the addresses that DNS gave when it was filled. Beyond its
//! age a connection takes no new request; running exchanges go on.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// The age of one connection, and its share of jitter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    born: Instant,
    /// The jitter that this one lives less, in parts of 256.
    less: u8,
}

thread_local! {
    /// The jitter of the next connection. Workers begin at different values.
    static NEXT: Cell<u8> = Cell::new(RandomState::new().hash_one(0_u8) as u8);
}

/// 256 divided by the golden ratio: those that are made one after another lie far apart.
const STRIDE: u8 = 158;
/// The longest lifetime exceeds the shortest by a fifth, so that connections that were made in one
/// burst are not replaced in another.
const JITTER: u32 = 5;

impl Age {
    /// The age of a connection that is made now.
    pub(super) fn new() -> Self {
        let less = NEXT.get();
        NEXT.set(less.wrapping_add(STRIDE));
        Self {
            born: Instant::now(),
            less,
        }
    }

    /// The remaining time in which it may take requests; zero once it is too old.
    pub(super) fn left(&self, most: Duration) -> Duration {
        self.left_at(most, Instant::now())
    }

    /// Tells if it takes no new request.
    pub(super) fn is_over(&self, most: Duration) -> bool {
        self.left(most).is_zero()
    }

    /// Tells if it takes no new request at this time.
    pub(super) fn is_over_at(&self, most: Duration, now: Instant) -> bool {
        self.left_at(most, now).is_zero()
    }

    fn left_at(&self, most: Duration, now: Instant) -> Duration {
        let mine = most - most / JITTER / 256 * u32::from(self.less);
        mine.saturating_sub(now.saturating_duration_since(self.born))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_lie_between_four_fifths_and_the_whole() {
        let most = Duration::from_secs(600);
        let mut left: Vec<u64> = (0..64).map(|_| Age::new().left(most).as_secs()).collect();
        assert!(
            left.iter().all(|left| (478..=600).contains(left)),
            "{left:?}"
        );
        left.sort_unstable();
        let widest = left.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest < Some(10), "{left:?}");
        assert!(Age::new().is_over(Duration::ZERO));
        assert!(!Age::new().is_over(Duration::MAX));
    }
}
