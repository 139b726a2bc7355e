//! Usage by model, or by another name, for hours and for days.

use std::collections::BTreeMap;

use super::totals::UsageTotals;
use crate::exchange::Tokens;

/// Upper bound of models with a row of their own in an hour or a day; the rest is [`OTHER`]. Only one that
/// has used tokens takes a place: else any client could fill the table with names that the upstream refuses.
const MODELS: usize = 64;
/// Name under which models beyond [`MODELS`] are added up.
pub(super) const OTHER: &str = "other";

/// Sums by model for each of the last spans of time.
pub(super) struct UsageByModel {
    /// Seconds of a span.
    width: u64,
    /// Spans that are kept.
    keep: u64,
    /// Upper bound of names with a row of their own in a span.
    names: usize,
    spans: BTreeMap<u64, BTreeMap<Box<str>, UsageTotals>>,
}

impl UsageByModel {
    pub(super) fn new(width: u64, keep: u64) -> Self {
        Self::bounded(width, keep, MODELS)
    }

    pub(super) fn bounded(width: u64, keep: u64, names: usize) -> Self {
        Self {
            width,
            keep,
            names,
            spans: BTreeMap::new(),
        }
    }

    /// Adds to the totals of a second's span; returns the span and the name under which it was added, if the
    /// span is kept.
    pub(super) fn add<'a>(
        &mut self,
        second: u64,
        now: u64,
        model: &'a str,
        spent: &UsageTotals,
    ) -> Option<(u64, &'a str)> {
        let (span, newest) = (second / self.width, now / self.width);
        if span > newest || span + self.keep <= newest {
            return None;
        }
        if !self.spans.contains_key(&span) {
            let oldest = (newest + 1).saturating_sub(self.keep);
            self.spans = self.spans.split_off(&oldest);
            // of a clock that was set back
            self.spans.split_off(&(newest + 1));
        }
        let models = self.spans.entry(span).or_default();
        let named = models.len() - usize::from(models.contains_key(OTHER));
        let has_place = spent.tokens != Tokens::default() && named < self.names;
        let name = if has_place || models.contains_key(model) {
            model
        } else {
            OTHER
        };
        match models.get_mut(name) {
            Some(sum) => sum.add(spent),
            None => {
                models.insert(name.into(), *spent);
            }
        }
        Some((span, name))
    }

    /// The totals of a name in a span.
    pub(super) fn get(&self, span: u64, name: &str) -> Option<&UsageTotals> {
        self.spans.get(&span)?.get(name)
    }

    /// Spans that are kept.
    pub(super) fn kept(&self) -> u64 {
        self.keep
    }

    /// The last spans, oldest first: number, model, totals.
    #[cfg(test)]
    pub(super) fn last(
        &self,
        spans: u64,
        now: u64,
    ) -> impl Iterator<Item = (u64, &str, &UsageTotals)> {
        let newest = now / self.width;
        self.between((newest + 1).saturating_sub(spans), newest)
    }

    /// Spans by their numbers, both included, oldest first: number, name, totals.
    pub(super) fn between(
        &self,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = (u64, &str, &UsageTotals)> {
        self.spans
            .range(first.min(last)..=last)
            .flat_map(|(span, models)| {
                models
                    .iter()
                    .map(|(model, spent)| (*span, model.as_ref(), spent))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(cost: u64) -> UsageTotals {
        UsageTotals {
            requests: 1,
            cost,
            tokens: Tokens {
                output: 1,
                ..Tokens::default()
            },
            ..UsageTotals::default()
        }
    }

    #[test]
    fn spans_and_models_are_bounded_and_nothing_in_reach_is_lost() {
        let mut ledger = UsageByModel::new(3600, 3);
        for hour in 0..5 {
            for model in 0..100 {
                let at = hour * 3600 + 1;
                ledger.add(at, at, &format!("m{model}"), &spent(1));
            }
        }
        let now = 4 * 3600 + 1;
        assert!(ledger.add(3600, now, "m1", &spent(1)).is_none());
        assert_eq!(ledger.spans.len(), 3);
        let held: Vec<_> = ledger.last(10, now).collect();
        assert_eq!(held.len(), 3 * 65);
        assert_eq!(held.iter().map(|(_, _, sum)| sum.cost).sum::<u64>(), 300);
        let other = held.iter().filter(|(_, model, _)| *model == OTHER);
        assert_eq!(other.map(|(_, _, sum)| sum.requests).sum::<u64>(), 3 * 36);
    }

    #[test]
    fn a_name_without_tokens_takes_no_place() {
        let mut ledger = UsageByModel::new(3600, 3);
        let failed = UsageTotals {
            requests: 1,
            ..UsageTotals::default()
        };
        for model in 0..100 {
            assert_eq!(
                ledger.add(1, 1, &format!("invented-{model}"), &failed),
                Some((0, OTHER))
            );
        }
        for model in 0..64 {
            let model = format!("m{model}");
            assert_eq!(ledger.add(1, 1, &model, &spent(1)), Some((0, &*model)));
        }
        assert_eq!(ledger.add(1, 1, "m64", &spent(1)), Some((0, OTHER)));
        // a failure of a known model counts for that model
        assert_eq!(ledger.add(1, 1, "m7", &failed), Some((0, "m7")));
        let other = ledger.last(1, 1).find(|(_, model, _)| *model == OTHER);
        assert_eq!(other.map(|(_, _, sum)| sum.requests), Some(101));
    }
}
