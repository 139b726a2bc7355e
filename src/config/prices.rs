//! What models cost: US dollars for a million tokens, by kind.
//!
//! A JSON file of the shape of `static/prices.json`, which is built in. The longest prefix of a model's
//! name counts; a model without one has no price, and none is guessed. Some models cost more where the
//! prompt is long.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::scalar::Bad;
use crate::record::Tokens;

/// Prices of models, and the day they are of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    /// The day, as `2026-11-24`.
    pub date: Box<str>,
    models: BTreeMap<Box<str>, Price>,
}

/// What one model costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// What counts, if nothing else does.
    pub rates: Rates,
    /// What counts for all tokens of an exchange whose prompt has more than so many tokens, read from and
    /// written to a cache included.
    pub long_prompt: Option<(u64, Rates)>,
}

/// Prices by kind, in billionths of a dollar for a token (dollars for a million, times 1000).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Input.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache for 5 minutes.
    pub cache_write_5m: u64,
    /// Input written to a cache for an hour.
    pub cache_write_1h: u64,
}

impl Price {
    /// What the tokens of one exchange cost, in billionths of a dollar.
    pub fn of(&self, tokens: &Tokens) -> u64 {
        match &self.long_prompt {
            Some((above, rates)) if tokens.prompt() > *above => rates.of(tokens),
            _ => self.rates.of(tokens),
        }
    }
}

impl Rates {
    fn of(&self, tokens: &Tokens) -> u64 {
        [
            (self.input, tokens.input),
            (self.output, tokens.output),
            (self.cache_read, tokens.cache_read),
            (self.cache_write_5m, tokens.cache_write_5m),
            (self.cache_write_1h, tokens.cache_write_1h),
        ]
        .iter()
        .fold(0_u64, |sum, (price, tokens)| {
            sum.saturating_add(price.saturating_mul(*tokens))
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "__comment", default)]
    _comment: serde::de::IgnoredAny,
    date: String,
    models: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    input: f64,
    output: f64,
    cache_read: f64,
    cache_write_5m: f64,
    cache_write_1h: f64,
    long_prompt: Option<LongRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongRow {
    above: u64,
    input: f64,
    output: f64,
    cache_read: f64,
    cache_write_5m: f64,
    cache_write_1h: f64,
}

impl Prices {
    /// Those of `static/prices.json`.
    pub fn built_in() -> Self {
        // a test reads it
        Self::parse(include_str!("../../static/prices.json")).unwrap_or_default()
    }

    pub(super) fn parse(text: &str) -> Result<Self, Bad> {
        let file: File = serde_json::from_str(text).map_err(|error| {
            Bad::because(format!(
                "is not a file of prices (line {} column {})",
                error.line(),
                error.column()
            ))
            .hint("see static/prices.json: a date, and for each model five prices in dollars per million tokens")
        })?;
        let is_date = file.date.len() == 10
            && file.date.bytes().enumerate().all(|(at, octet)| match at {
                4 | 7 => octet == b'-',
                _ => octet.is_ascii_digit(),
            });
        if !is_date {
            return Err(Bad::because(
                "has a date that is not of the form 2026-11-24",
            ));
        }
        let models = file
            .models
            .into_iter()
            .map(|(model, row)| Ok((model.into(), row.price()?)));
        Ok(Self {
            date: file.date.into(),
            models: models.collect::<Result<_, Bad>>()?,
        })
    }

    /// The price of a model: that of the longest prefix of its name. Neither a number nor a version is cut:
    /// `m-4` says something of `m-4-20250514`, and nothing of `m-4-1` or `m-40`; `m` does of each.
    pub fn of(&self, model: &str) -> Option<&Price> {
        let is_digit = |at: usize| model.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        (1..=model.len())
            .rev()
            .filter(|end| model.is_char_boundary(*end) && !(is_digit(end - 1) && is_digit(*end)))
            .filter(|end| !(is_digit(end - 1) && begins_with_version(&model[*end..])))
            .find_map(|end| self.models.get(&model[..end]))
    }
}

/// Whether what follows is `-` or `.` and a number that is no date.
fn begins_with_version(rest: &str) -> bool {
    let number = rest.strip_prefix(['-', '.']).unwrap_or_default();
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    (1..6).contains(&digits)
}

impl Row {
    fn price(&self) -> Result<Price, Bad> {
        let long_prompt = self.long_prompt.as_ref();
        let long_prompt = long_prompt.map(|row| Ok((row.above, row.rates()?)));
        Ok(Price {
            rates: self.rates()?,
            long_prompt: long_prompt.transpose()?,
        })
    }

    fn rates(&self) -> Result<Rates, Bad> {
        let Self {
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            long_prompt: _,
        } = *self;
        Rates::read([input, output, cache_read, cache_write_5m, cache_write_1h])
    }
}

impl LongRow {
    fn rates(&self) -> Result<Rates, Bad> {
        let Self {
            above: _,
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
        } = *self;
        Rates::read([input, output, cache_read, cache_write_5m, cache_write_1h])
    }
}

impl Rates {
    /// From dollars for a million tokens, in the order of the members.
    fn read(dollars: [f64; 5]) -> Result<Self, Bad> {
        let price = |dollars: f64| {
            if !(0.0..=MOST).contains(&dollars) {
                return Err(Bad::because("has a price that is negative or above 100000"));
            }
            Ok((dollars * 1000.0).round() as u64)
        };
        let [input, output, cache_read, cache_write_5m, cache_write_1h] = dollars;
        Ok(Self {
            input: price(input)?,
            output: price(output)?,
            cache_read: price(cache_read)?,
            cache_write_5m: price(cache_write_5m)?,
            cache_write_1h: price(cache_write_1h)?,
        })
    }
}

/// More than this for a million tokens is a slip of the pen.
const MOST: f64 = 100_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_prices_are_read() {
        let prices = Prices::built_in();
        assert_eq!(prices.date.len(), 10);
        let sonnet = prices.of("claude-sonnet-4-5-20250929").unwrap();
        assert_eq!((sonnet.rates.input, sonnet.rates.output), (3_000, 15_000));
        assert_eq!(prices.of("gpt-4"), None);
        assert_eq!(prices.of(""), None);
    }

    #[test]
    fn the_longest_prefix_counts_and_cost_is_tokens_times_price() {
        let row = |input: u32| {
            format!(
                r#"{{"input":{input},"output":2.5,"cache_read":0.1,"cache_write_5m":1.25,"cache_write_1h":2}}"#
            )
        };
        let text = format!(
            r#"{{"date":"2026-01-02","models":{{"m":{},"m-big":{}}}}}"#,
            row(1),
            row(7)
        );
        let prices = Prices::parse(&text).unwrap();
        assert_eq!(prices.of("m-small").unwrap().rates.input, 1_000);
        let big = prices.of("m-big-1").unwrap();
        let tokens = Tokens {
            input: 10,
            output: 3,
            cache_read: 100,
            cache_write_5m: 4,
            cache_write_1h: 1,
        };
        assert_eq!(big.of(&tokens), 70_000 + 7_500 + 10_000 + 5_000 + 2_000);
    }

    #[test]
    fn a_number_in_a_name_is_not_cut() {
        let prices = Prices::built_in();
        assert!(prices.of("claude-opus-4-1-20250805").is_some());
        assert!(prices.of("claude-opus-4-1").is_some());
        for unknown in [
            "claude-opus-4-10",
            "claude-opus-4-9",
            "claude-opus-5-6",
            "claude-opus-5-6-20270101",
            "claude-opus-5.5",
            "claude-opus-50",
            "claude-opus",
        ] {
            assert_eq!(prices.of(unknown), None, "{unknown}");
        }
        let five = prices.of("claude-opus-5").unwrap();
        for known in [
            "claude-opus-5-20260724",
            "claude-opus-5-latest",
            "claude-opus-5[1m]",
        ] {
            assert_eq!(prices.of(known), Some(five), "{known}");
        }
        assert_ne!(prices.of("claude-opus-5-5"), Some(five));
    }

    #[test]
    fn a_long_prompt_costs_what_it_costs() {
        let prices = Prices::built_in();
        let haiku = prices.of("claude-haiku-5-5").unwrap();
        let tokens = |cache_read| Tokens {
            input: 40_000,
            output: 1_000,
            cache_read,
            cache_write_5m: 20_000,
            cache_write_1h: 10_000,
        };
        // 40,000 × 100 + 1,000 × 500 + 30,000 × 10 + 20,000 × 125 + 10,000 × 200
        assert_eq!(haiku.of(&tokens(30_000)), 9_300_000);
        // one token more, and all of them cost five times as much
        assert_eq!(haiku.of(&tokens(30_001)), 5 * 9_300_010);
    }

    #[test]
    fn what_is_no_file_of_prices_is_a_fault() {
        for text in [
            "",
            "[]",
            r#"{"date":"2026-01-02"}"#,
            r#"{"date":"today","models":{}}"#,
            r#"{"date":"2026-01-02","models":{"m":{"input":1}}}"#,
            r#"{"date":"2026-01-02","models":{"m":{"input":-1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}}}"#,
            r#"{"date":"2026-01-02","models":{"m":{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1,"x":1}}}"#,
        ] {
            assert!(Prices::parse(text).is_err(), "{text}");
        }
    }
}
