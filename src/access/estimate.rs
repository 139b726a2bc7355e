//! Learned estimates of an exchange: its tokens and its cost, at admission.
//!
//! Clients ask for far more output than they use (`max_tokens` is an upper bound alone), so the output is
//! learned: the 90th percentile by key and model. Input tokens and input cost are learned as ratios to the
//! octets of the request, by session, then by key, then by model: with a warm cache, the same octets cost a
//! tenth.
//!
//! The table has a fixed size and no lock. Entries that are evicted or torn by a race change how good an
//! estimate is, never what is charged in the end.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    id::KeyId,
    mix::{SecretMix, mixed},
};
use crate::{config::prices::Price, exchange::Tokens};

/// Estimate of an exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Tokens of input without those read from a cache.
    pub(super) input: u64,
    /// Tokens of output.
    pub(super) output: u64,
    /// Billionths of a US dollar.
    pub(super) cost: u64,
    /// Billionths of a US dollar for a token of output.
    pub(super) output_price: u64,
}

/// Identity of an exchange to the table, from the finest to the coarsest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tags {
    /// Key, session and model.
    pub(super) session: u64,
    key: u64,
    model: u64,
}

/// Facts of a request that an estimate needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size<'a> {
    pub(super) octets: u64,
    pub(super) max_tokens: Option<u64>,
    pub(super) price: Option<&'a Price>,
}

/// The table.
pub(super) struct Estimates {
    hashes: SecretMix,
    entries: Box<[Entry]>,
}

/// Knowledge of one tag.
#[derive(Default)]
struct Entry {
    tag: AtomicU64,
    /// Two `f32`: tokens of input and cost of input, both by octet.
    input: AtomicU64,
    /// An `f32`, the 90th percentile of output tokens, and the number of observations.
    output: AtomicU64,
}

impl Default for Estimates {
    fn default() -> Self {
        Self {
            hashes: SecretMix::default(),
            entries: (0..ENTRIES).map(|_| Entry::default()).collect(),
        }
    }
}

impl Estimates {
    /// The tags of an exchange.
    pub(super) fn tags(&self, key: KeyId, session: Option<&[u8]>, model: Option<&str>) -> Tags {
        // what a client chooses is hashed under a secret, and the rest is mixed in
        let model = model.map_or(NO_MODEL, |model| self.hashes.of(model.as_bytes()));
        let of_key = mixed(model ^ mixed(key.number()));
        let session = match session {
            Some(session) => self.hashes.of(session),
            None => NO_SESSION,
        };
        // 0 is the tag of a free entry
        Tags {
            session: (of_key ^ session.rotate_left(32)) | 1,
            key: of_key | 1,
            model: model | 1,
        }
    }

    /// Estimates an exchange.
    pub(super) fn estimate(&self, tags: Tags, size: Size<'_>) -> Estimate {
        let levels = [tags.session, tags.key, tags.model];
        let known = || levels.into_iter().filter_map(|tag| self.find(tag));
        let octets = if size.octets == 0 {
            UNKNOWN_OCTETS
        } else {
            size.octets
        };
        let ratios = known().find_map(Entry::ratios);
        let output = known().find_map(Entry::output);
        let output = output.map_or(FIRST_OUTPUT, |output| margin(f64::from(output)));
        let output = output.min(size.max_tokens.unwrap_or(u64::MAX)).max(1);
        let (input, learned_cost) = match ratios {
            Some((tokens, cost)) => {
                let of = |ratio: f32| margin(f64::from(ratio) * octets as f64);
                (of(tokens), Some(of(cost)))
            }
            None => (octets.div_ceil(OCTETS_PER_TOKEN), None),
        };
        // the ratio of short requests says little of a long one
        let input = input.min(MOST_INPUT);
        let Some(price) = size.price else {
            return Estimate {
                input,
                output,
                cost: 0,
                output_price: 0,
            };
        };
        // a first request writes its prompt to the cache
        let tokens = |output| Tokens {
            cache_write_5m: input,
            output,
            ..Tokens::default()
        };
        let largest = Tokens {
            cache_write_5m: MOST_INPUT,
            ..Tokens::default()
        };
        let (input_cost, all) = (price.of(&tokens(0)), price.of(&tokens(output)));
        let output_cost = all.saturating_sub(input_cost);
        Estimate {
            input,
            output,
            cost: learned_cost
                .map_or(input_cost, |cost| cost.min(price.of(&largest)))
                .saturating_add(output_cost),
            output_price: output_cost / output,
        }
    }

    /// Learns from an exchange that has ended; `cost` without that of its output.
    pub(super) fn learn(&self, tags: Tags, octets: u64, tokens: &Tokens, input_cost: Option<u64>) {
        let octets = octets.max(1) as f64;
        let input = (counted_input(tokens) as f64 / octets) as f32;
        let cost = input_cost.map(|cost| (cost as f64 / octets) as f32);
        for (tag, rise, fall) in [
            (tags.model, 0.3, 0.1),
            (tags.key, 0.5, 0.1),
            // the present session: what costs more now may do so again
            (tags.session, 1.0, 0.3),
        ] {
            let entry = self.entry(tag);
            entry.learn_input(input, cost, rise, fall);
            entry.learn_output(tokens.output);
        }
    }

    fn ways(&self, tag: u64) -> &[Entry] {
        let first = (tag >> 8) as usize % (self.entries.len() / WAYS) * WAYS;
        &self.entries[first..first + WAYS]
    }

    fn find(&self, tag: u64) -> Option<&Entry> {
        self.ways(tag)
            .iter()
            .find(|entry| entry.tag.load(Relaxed) == tag)
    }

    fn entry(&self, tag: u64) -> &Entry {
        let ways = self.ways(tag);
        let is = |wanted: u64| move |entry: &&Entry| entry.tag.load(Relaxed) == wanted;
        if let Some(entry) = ways
            .iter()
            .find(is(tag))
            .or_else(|| ways.iter().find(is(0)))
        {
            put(&entry.tag, tag);
            return entry;
        }
        let evicted = &ways[(tag >> 1) as usize % WAYS];
        evicted.input.store(0, Relaxed);
        evicted.output.store(0, Relaxed);
        evicted.tag.store(tag, Relaxed);
        evicted
    }
}

impl Entry {
    fn ratios(&self) -> Option<(f32, f32)> {
        let bits = self.input.load(Relaxed);
        (bits != 0).then(|| (high(bits), f32::from_bits(bits as u32)))
    }

    fn output(&self) -> Option<f32> {
        let bits = self.output.load(Relaxed);
        (bits != 0).then(|| high(bits))
    }

    /// Follows a rise faster than a fall.
    fn learn_input(&self, tokens: f32, cost: Option<f32>, rise: f32, fall: f32) {
        let follow = |known: f32, seen: f32| {
            let rate = if seen > known { rise } else { fall };
            known + (seen - known) * rate
        };
        let (tokens, cost) = match self.ratios() {
            Some((known, known_cost)) => (
                follow(known, tokens),
                cost.map_or(known_cost, |cost| follow(known_cost, cost)),
            ),
            None => (tokens, cost.unwrap_or_default()),
        };
        // smallest number instead of zero, which says that nothing is known
        let tokens = tokens.max(f32::MIN_POSITIVE);
        put(&self.input, packed(tokens, cost.to_bits()));
    }

    /// Moves the percentile: up by 9 parts when it is exceeded, down by one when it is not, so that it
    /// rests where one of ten observations exceeds it. The parts become smaller while it is learned.
    fn learn_output(&self, seen: u64) {
        let bits = self.output.load(Relaxed);
        let (known, count) = (high(bits), bits as u32);
        let seen = (seen as f32).max(1.0);
        let part = (1.0 / (count as f32 + 1.0)).max(SMALLEST_PART);
        let next = match count {
            0 => seen,
            _ if seen > known => (known * (1.0 + 9.0 * part)).min(seen.max(known)),
            _ => (known * (1.0 - part)).max(seen),
        };
        put(
            &self.output,
            packed(next, count.saturating_add(1).min(1000)),
        );
    }
}

/// Tokens of input that count against a limit: those read from a cache do not.
pub(super) fn counted_input(tokens: &Tokens) -> u64 {
    tokens
        .input
        .saturating_add(tokens.cache_write_5m)
        .saturating_add(tokens.cache_write_1h)
}

/// Stores a number that is another one: all workers read the line.
fn put(place: &AtomicU64, number: u64) {
    if place.load(Relaxed) != number {
        place.store(number, Relaxed);
    }
}

fn packed(high: f32, low: u32) -> u64 {
    u64::from(high.to_bits()) << 32 | u64::from(low)
}

fn high(bits: u64) -> f32 {
    f32::from_bits((bits >> 32) as u32)
}

/// A tenth more, so that what runs rarely exceeds what is held.
fn margin(value: f64) -> u64 {
    (value * 11.0 / 10.0).ceil() as u64
}

/// Entries: 24 bytes each, 384 KiB.
const ENTRIES: usize = 16 * 1024;

/// Entries that a tag may be in.
const WAYS: usize = 4;

/// Output of a model of which nothing is known: four times what requests of Claude Code use on average, so
/// that a first wave of requests does not spend a small budget many times over.
const FIRST_OUTPUT: u64 = 4096;

/// Octets of a request for a token of input, if nothing is known: JSON has 3.5 to 4.
const OCTETS_PER_TOKEN: u64 = 3;

/// The largest context window of a model, in tokens.
const MOST_INPUT: u64 = 1_000_000;

/// Octets of a request of unknown length: those of a first request of Claude Code are about as many.
const UNKNOWN_OCTETS: u64 = 64 * 1024;

/// Stands for the session of a request without one.
const NO_SESSION: u64 = 0x9E37_79B9_7F4A_7C15;
const NO_MODEL: u64 = 0xC2B2_AE3D_27D4_EB4F;

/// Smallest step of a percentile.
const SMALLEST_PART: f32 = 0.02;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Prices, prices::Rates};

    fn key(number: u32) -> KeyId {
        format!("{number:010}").parse().unwrap()
    }

    fn price() -> Price {
        let mut price = Price::default();
        price.rates = Rates {
            input: 5000,
            output: 25_000,
            cache_read: 500,
            cache_write_5m: 6250,
            cache_write_1h: 10_000,
        };
        price
    }

    fn size(octets: u64, price: &Price) -> Size<'_> {
        Size {
            octets,
            max_tokens: Some(128_000),
            price: Some(price),
        }
    }

    #[test]
    fn a_first_guess_is_cautious_and_max_tokens_is_a_bound() {
        let (table, price) = (Estimates::default(), price());
        let tags = table.tags(key(1), Some(b"s"), Some("m"));
        let guess = table.estimate(tags, size(30_000, &price));
        assert_eq!((guess.input, guess.output), (10_000, 4096));
        assert_eq!(guess.cost, 10_000 * 6250 + 4096 * 25_000);
        assert_eq!(guess.output_price, 25_000);
        let small = Size {
            max_tokens: Some(16),
            ..size(30_000, &price)
        };
        assert_eq!(table.estimate(tags, small).output, 16);
        let unpriced = Size {
            price: None,
            ..size(0, &price)
        };
        assert_eq!(table.estimate(tags, unpriced).cost, 0);
        assert_eq!(table.estimate(tags, unpriced).input, 21_846);
        assert!(Prices::built_in().of("claude-opus-4-5").is_some());
    }

    #[test]
    fn a_session_learns_its_cache_and_falls_back_to_its_key_and_model() {
        let (table, price) = (Estimates::default(), price());
        let tags = table.tags(key(1), Some(b"s"), Some("m"));
        let cached = Tokens {
            input: 10,
            output: 300,
            cache_read: 9_000,
            cache_write_5m: 990,
            ..Tokens::default()
        };
        let input_cost = 10 * 5000 + 9_000 * 500 + 990 * 6250;
        for _ in 0..5 {
            table.learn(tags, 40_000, &cached, Some(input_cost));
        }
        let learned = table.estimate(tags, size(40_000, &price));
        assert_eq!(learned.input, 1101, "a tenth above the thousand");
        let expected = (input_cost + 300 * 25_000) * 11 / 10;
        assert!(
            learned.cost.abs_diff(expected) < expected / 100,
            "{learned:?}"
        );
        for other in [
            table.tags(key(1), Some(b"other"), Some("m")),
            table.tags(key(1), None, Some("m")),
            table.tags(key(2), Some(b"s"), Some("m")),
        ] {
            assert_eq!(table.estimate(other, size(40_000, &price)).input, 1101);
        }
        let strange = table.tags(key(1), Some(b"s"), Some("another"));
        assert_eq!(table.estimate(strange, size(30_000, &price)).output, 4096);
        // the cache has lapsed: the next estimate knows
        table.learn(
            tags,
            40_000,
            &Tokens {
                input: 10_000,
                ..cached
            },
            Some(62_500_000),
        );
        assert!(table.estimate(tags, size(40_000, &price)).cost > 62_500_000);
    }

    #[test]
    fn the_table_stays_as_large_as_it_is() {
        let (table, price) = (Estimates::default(), price());
        let tokens = Tokens {
            input: 1,
            output: 1,
            ..Tokens::default()
        };
        for number in 0..100_000 {
            let tags = table.tags(key(number), Some(b"s"), Some("m"));
            table.learn(tags, 4, &tokens, Some(1));
            assert_eq!(table.estimate(tags, size(400, &price)).input, 110);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// About one of ten observations exceeds the percentile.
        #[test]
        fn the_percentile_is_exceeded_by_a_tenth(seed in any::<u64>()) {
            let entry = Entry::default();
            let (mut random, mut exceeded) = (seed | 1, 0);
            for round in 0..3000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                // 1…2000, most of them small
                let uniform = (random >> 40) % 1000 + 1;
                let seen = 1 + uniform * uniform / 500;
                let known = entry.output();
                if round >= 1000 && known.is_some_and(|known| seen as f32 > known) {
                    exceeded += 1;
                }
                entry.learn_output(seen);
            }
            prop_assert!((100..360).contains(&exceeded), "{exceeded} of 2000");
        }
    }
}
