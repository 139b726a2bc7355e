//! A histogram of durations: log-linear, of a fixed size, within 3.2 % of the truth.
//!
//! The layout of an HDR histogram with 16 buckets an octave, in units of 100 µs, from 0 to 3.7 hours:
//! 384 counts of 4 bytes, 1.5 KiB. The `hdrhistogram` crate keeps 64-bit fields around its counts and
//! grows; here 4,536 of them must fit into 7 MB.

use std::time::Duration;

/// 16 exact ones below 1.6 ms, and 16 for each of the octaves from 2⁴ to 2²⁶ units.
const BUCKETS: usize = 16 + 23 * 16;
const UNIT: Duration = Duration::from_micros(100);

/// Counts of durations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DurationHistogram {
    counts: [u32; BUCKETS],
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
        }
    }
}

impl DurationHistogram {
    pub(super) fn add(&mut self, duration: Duration) {
        let units = duration.as_micros() / UNIT.as_micros();
        let units = u64::try_from(units).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(units)) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*other);
        }
    }

    /// Quantiles in milliseconds; none without durations.
    pub(super) fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[f64; N]> {
        let total: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        if total == 0 {
            return None;
        }
        Some(shares.map(|share| {
            let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total);
            let mut seen = 0;
            let at = self.counts.iter().position(|count| {
                seen += u64::from(*count);
                seen >= wanted
            });
            middle(at.unwrap_or(BUCKETS - 1))
        }))
    }
}

impl DurationHistogram {
    /// Encodes the counts: for each bucket that is not empty, the number of empty ones before it and its
    /// count, both in LEB128. A minute of a busy proxy has 300 of them.
    pub(super) fn to_octets(&self) -> Vec<u8> {
        let mut octets = vec![LAYOUT];
        let mut empty = 0;
        for count in self.counts {
            if count == 0 {
                empty += 1;
                continue;
            }
            put(&mut octets, empty);
            put(&mut octets, count);
            empty = 0;
        }
        octets
    }

    /// Reads the bytes of [`Self::to_octets`]; none if the layout is another one, or broken.
    pub(super) fn of_octets(octets: &[u8]) -> Option<Self> {
        let (&LAYOUT, mut rest) = octets.split_first()? else {
            return None;
        };
        let mut histogram = Self::default();
        let mut at = 0_usize;
        while !rest.is_empty() {
            let empty = take(&mut rest)?;
            at = at.checked_add(usize::try_from(empty).ok()?)?;
            *histogram.counts.get_mut(at)? = take(&mut rest)?;
            at += 1;
        }
        Some(histogram)
    }
}

/// Version of the layout of the buckets in stored bytes.
const LAYOUT: u8 = 1;

fn put(octets: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        octets.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    octets.push(number as u8);
}

fn take(octets: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let (&octet, rest) = octets.split_first()?;
        *octets = rest;
        number |= u64::from(octet & 0x7f) << shift;
        if octet < 0x80 {
            return u32::try_from(number).ok();
        }
    }
    None
}

fn bucket(units: u64) -> usize {
    if units < 16 {
        return units as usize;
    }
    let shift = units.ilog2() - 4;
    let at = (shift as usize + 1) * 16 + ((units >> shift) & 15) as usize;
    at.min(BUCKETS - 1)
}

/// The middle of a bucket, in milliseconds.
fn middle(bucket: usize) -> f64 {
    let (low, width) = if bucket < 16 {
        (bucket as u64, 1)
    } else {
        let shift = bucket / 16 - 1;
        ((16 + bucket as u64 % 16) << shift, 1_u64 << shift)
    };
    (low as f64 + width as f64 / 2.0) / 10.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_within_their_precision() {
        for scale in [1_u64, 37, 1000, 10_000] {
            let mut histogram = DurationHistogram::default();
            for i in 1..=1000 {
                histogram.add(Duration::from_millis(i * scale));
            }
            let found = histogram.quantiles([0.5, 0.95, 0.99]).unwrap();
            for (found, truth) in found.iter().zip([500, 950, 990]) {
                let truth = (truth * scale) as f64;
                assert!((found - truth).abs() / truth < 0.0325, "{found} {truth}");
            }
        }
    }

    #[test]
    fn every_duration_has_a_bucket_and_buckets_have_no_gap() {
        let mut last = 0;
        for units in (0..200_000).chain([u64::MAX / 2, u64::MAX]) {
            let at = bucket(units);
            assert!(at == last || at == last + 1 || units > 200_000, "{units}");
            assert!(at < BUCKETS);
            last = at;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let mut histogram = DurationHistogram::default();
        assert!(histogram.quantiles([0.5]).is_none());
        histogram.add(Duration::MAX);
        histogram.add(Duration::ZERO);
        assert_eq!(histogram.quantiles([0.5]).unwrap(), [0.05]);
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read(counts in prop::collection::vec((0..BUCKETS, any::<u32>()), 0..50)) {
            let mut histogram = DurationHistogram::default();
            for (at, count) in counts {
                histogram.counts[at] = count;
            }
            let octets = histogram.to_octets();
            prop_assert_eq!(DurationHistogram::of_octets(&octets), Some(histogram));
        }

        #[test]
        fn what_was_not_stored_is_no_panic(octets in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = DurationHistogram::of_octets(&octets);
            let _ = DurationHistogram::of_octets(&[&[LAYOUT], octets.as_slice()].concat());
        }
    }

    #[test]
    fn a_broken_or_foreign_layout_is_none() {
        for octets in [
            &[][..],
            &[0, 0, 1],
            &[LAYOUT, 0],
            &[LAYOUT, 0, 0x80],
            &[LAYOUT, 0xff, 0x7f, 1],
        ] {
            assert_eq!(DurationHistogram::of_octets(octets), None, "{octets:?}");
        }
        let mut one = DurationHistogram::default();
        one.add(Duration::ZERO);
        assert_eq!(DurationHistogram::of_octets(&[LAYOUT, 0, 1]), Some(one));
    }

    #[test]
    fn merging_is_adding() {
        let (mut one, mut other, mut both) =
            <(DurationHistogram, DurationHistogram, DurationHistogram)>::default();
        for i in 0..500 {
            let duration = Duration::from_micros(i * i);
            both.add(duration);
            if i % 3 == 0 { &mut one } else { &mut other }.add(duration);
        }
        one.merge(&other);
        assert_eq!(one.counts, both.counts);
    }
}
