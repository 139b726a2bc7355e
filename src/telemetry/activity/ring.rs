//! The last buckets of time, in a ring of a fixed size.

/// The last buckets of a fixed width; an older one gives its place to a newer.
pub(super) struct Ring<T> {
    /// Seconds of a bucket.
    width: u64,
    slots: Box<[(u64, T)]>,
}

/// The number of no bucket.
const NONE: u64 = u64::MAX;

impl<T: Default> Ring<T> {
    pub(super) fn new(width: u64, count: usize) -> Self {
        let slots = (0..count).map(|_| (NONE, T::default())).collect();
        Self { width, slots }
    }

    /// The bucket of a second, as seen from now; none if it is older than the ring reaches.
    ///
    /// A place that holds a bucket of the future is given up: then the clock was set back.
    pub(super) fn at(&mut self, second: u64, now: u64) -> Option<&mut T> {
        let (bucket, newest) = (second / self.width, now / self.width);
        let count = self.slots.len() as u64;
        if bucket > newest || bucket + count <= newest {
            return None;
        }
        let slot = self.slots.get_mut((bucket % count) as usize)?;
        if slot.0 != bucket {
            *slot = (bucket, T::default());
        }
        Some(&mut slot.1)
    }

    /// The bucket of this number, if there is one.
    pub(super) fn bucket(&self, bucket: u64) -> Option<&T> {
        let slot = self
            .slots
            .get((bucket % self.slots.len() as u64) as usize)?;
        (slot.0 == bucket).then_some(&slot.1)
    }

    pub(super) fn width(&self) -> u64 {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_the_last_buckets() {
        let mut ring: Ring<u64> = Ring::new(60, 3);
        for second in [0, 59, 60, 120, 180, 185] {
            *ring.at(second, second).unwrap() += 1;
        }
        let held: Vec<_> = (0..5).map(|bucket| ring.bucket(bucket).copied()).collect();
        assert_eq!(held, [None, Some(1), Some(1), Some(2), None]);
        assert!(ring.at(0, 185).is_none(), "too old");
        assert!(ring.at(300, 185).is_none(), "not yet");
        *ring.at(60, 185).unwrap() += 1;
        assert_eq!(ring.bucket(1), Some(&2), "late, but in reach");
    }

    #[test]
    fn a_clock_that_goes_back_is_followed() {
        let mut ring: Ring<u64> = Ring::new(1, 10);
        for second in 1000..1010 {
            *ring.at(second, second).unwrap() += 1;
        }
        for second in 500..505 {
            *ring.at(second, second).unwrap() += 1;
        }
        assert!((500..505).all(|second| ring.bucket(second) == Some(&1)));
        assert!((1005..1010).all(|second| ring.bucket(second) == Some(&1)));
    }
}
