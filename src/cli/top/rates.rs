//! Tokens a second of requests in flight, from what two looks have counted.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::snapshot::ShownRequest;

/// Counts of output tokens over the last seconds, by the number of the request.
#[derive(Debug, Default)]
pub(super) struct TokenRates(HashMap<u64, VecDeque<(Instant, u64)>>);

/// Time over which a rate is taken.
const SPAN: Duration = Duration::from_secs(5);

impl TokenRates {
    /// Takes a look at all requests in flight.
    pub(super) fn take(&mut self, rows: &[ShownRequest], now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for row in rows {
            let mut counts = before.remove(&row.seq).unwrap_or_default();
            counts.push_back((now, row.output()));
            // one that is older than the span stays, so that there are two
            while counts
                .get(1)
                .is_some_and(|(at, _)| now.duration_since(*at) >= SPAN)
            {
                counts.pop_front();
            }
            self.0.insert(row.seq, counts);
        }
    }

    /// Tokens a second of a request; none until it was seen twice.
    pub(super) fn of(&self, seq: u64) -> Option<f64> {
        let counts = self.0.get(&seq)?;
        let ((first, before), (last, now)) = (counts.front()?, counts.back()?);
        let span = last.duration_since(*first).as_secs_f64();
        (span > 0.0).then(|| now.saturating_sub(*before) as f64 / span)
    }

    /// Tokens a second of all together.
    pub(super) fn sum(&self) -> f64 {
        let rates = self.0.keys().filter_map(|seq| self.of(*seq));
        // the sum of no fractions is -0
        rates.fold(0.0, |sum, rate| sum + rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u64, events: u64) -> ShownRequest {
        ShownRequest {
            seq,
            output_events: Some(events),
            ..ShownRequest::default()
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let (mut rates, start) = (TokenRates::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        rates.take(&[row(1, 10)], at(0));
        assert_eq!(rates.of(1), None);
        rates.take(&[row(1, 40), row(2, 5)], at(1));
        assert_eq!((rates.of(1), rates.of(2)), (Some(30.0), None));
        for second in 2..=20 {
            rates.take(&[row(1, 40 + second), row(2, 5)], at(second));
        }
        assert_eq!((rates.of(1), rates.of(2)), (Some(1.0), Some(0.0)));
        assert_eq!(rates.sum(), 1.0);
        // one that ended is forgotten
        rates.take(&[row(2, 5)], at(21));
        assert_eq!(rates.of(1), None);
    }

    #[test]
    fn without_requests_the_rate_is_0() {
        assert_eq!(format!("{:.0}", TokenRates::default().sum()), "0");
    }
}
