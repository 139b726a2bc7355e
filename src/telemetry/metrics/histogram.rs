//! Histograms with fixed bounds.
//!
//! Values are integers, so that sums are exact: microseconds (at 5,000 streams at a time their sum
//! lasts for a century), nanoseconds where values are small, tokens. The count is the sum of the
//! buckets, so that the two never disagree.

use std::time::Duration;

use super::counters::Counters;

/// Upper bounds of buckets, inclusive, in units of the values; the last one takes everything.
#[derive(Debug)]
pub(super) struct Bounds<const N: usize> {
    upper: [u64; N],
    /// Units of the values in one unit of the exposition.
    per: f64,
}

/// Counts of values by bucket, and their sum.
#[derive(Debug, Default)]
pub(super) struct Histogram<const N: usize> {
    buckets: Counters<N>,
    sum: Counters<1>,
}

/// A histogram at the moment of a scrape, in units of the exposition.
pub(super) struct HistogramReading {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bound, and values in this bucket alone.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn observe(&self, bounds: &Bounds<N>, value: u64) {
        let at = bounds.upper[..N - 1].partition_point(|upper| *upper < value);
        self.buckets.add(at, 1);
        self.sum.add(0, value);
    }

    /// Number of values.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|count| count == 0)
    }

    pub(super) fn absorb(&self, other: &Self) {
        let Self { buckets, sum } = other;
        self.buckets.absorb(buckets);
        self.sum.absorb(sum);
    }

    pub(super) fn read(&self, bounds: &Bounds<N>) -> HistogramReading {
        let upper = bounds.upper.iter().map(|&upper| match upper {
            u64::MAX => f64::INFINITY,
            upper => upper as f64 / bounds.per,
        });
        let buckets: Vec<(f64, u64)> = upper.zip(self.buckets.iter()).collect();
        HistogramReading {
            sum: self.sum.read(0) as f64 / bounds.per,
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}

impl<const N: usize> Bounds<N> {
    const fn new(upper: [u64; N], per: f64) -> Self {
        assert!(upper[N - 1] == u64::MAX, "the last bucket takes everything");
        Self { upper, per }
    }
}

/// A duration as a value of [`SECONDS`].
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration as a value of [`OVERHEAD`].
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Buckets of [`SECONDS`].
pub(super) const SECONDS_BUCKETS: usize = 20;

/// From a connection in the same rack to a generation of ten minutes: 1 ms to 600 s, in microseconds.
pub(super) const SECONDS: Bounds<SECONDS_BUCKETS> = Bounds::new(
    [
        1_000,
        2_500,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        20_000_000,
        30_000_000,
        60_000_000,
        120_000_000,
        300_000_000,
        600_000_000,
        u64::MAX,
    ],
    1e6,
);

/// Buckets of [`OVERHEAD`].
pub(super) const OVERHEAD_BUCKETS: usize = 15;

/// The proxy's own time: 10 µs to 1 s, in nanoseconds.
pub(super) const OVERHEAD: Bounds<OVERHEAD_BUCKETS> = Bounds::new(
    [
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        100_000_000,
        250_000_000,
        1_000_000_000,
        u64::MAX,
    ],
    1e9,
);

/// Buckets of [`TOKENS`].
pub(super) const TOKENS_BUCKETS: usize = 33;

/// Tokens of one generation: the bounds that OpenTelemetry advises, powers of 4, and between 64 and 262,144
/// half powers of 2, so that a quantile of usual values is within a third of the truth.
pub(super) const TOKENS: Bounds<TOKENS_BUCKETS> = Bounds::new(
    [
        1,
        4,
        16,
        64,
        128,
        192,
        256,
        384,
        512,
        768,
        1_024,
        1_536,
        2_048,
        3_072,
        4_096,
        6_144,
        8_192,
        12_288,
        16_384,
        24_576,
        32_768,
        49_152,
        65_536,
        98_304,
        131_072,
        196_608,
        262_144,
        524_288,
        1_048_576,
        4_194_304,
        16_777_216,
        67_108_864,
        u64::MAX,
    ],
    1.0,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_reaches_it() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 4, 5, 67_108_864, 67_108_865] {
            histogram.observe(&TOKENS, value);
        }
        let read = histogram.read(&TOKENS);
        assert_eq!(read.buckets[0], (1.0, 2));
        assert_eq!(read.buckets[1], (4.0, 2));
        assert_eq!(read.buckets[2], (16.0, 1));
        assert_eq!(read.buckets[31], (67_108_864.0, 1));
        assert_eq!(read.buckets[32], (f64::INFINITY, 1));
        assert_eq!((read.count, read.sum), (7, 134_217_741.0));
    }

    #[test]
    fn bounds_rise_and_are_in_seconds() {
        let read = Histogram::default().read(&SECONDS);
        assert!(read.buckets.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!((read.buckets[0].0, read.buckets[18].0), (0.001, 600.0));
        let read = Histogram::default().read(&OVERHEAD);
        assert!(read.buckets.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!((read.buckets[0].0, read.buckets[13].0), (0.00001, 1.0));
        let read = Histogram::default().read(&TOKENS);
        assert!(read.buckets.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn sums_of_durations_are_exact() {
        let histogram = Histogram::default();
        for _ in 0..1000 {
            histogram.observe(&SECONDS, micros(Duration::from_micros(1_001)));
        }
        assert_eq!(histogram.read(&SECONDS).sum, 1.001);
    }
}
