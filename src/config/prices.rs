//! Prices of models: US dollars for a million tokens, by kind.
//!
//! A JSON file of the shape of `static/prices.json`, which is built in. The longest prefix of a model's
//! name counts, in the provider's spelling or in Anthropic's own; a model without one has no price, and none
//! is guessed. Some models cost more if the prompt is long. Multipliers change the price by terms of the
//! response, fees are for server tools; a file without one of these sections gets the built-in one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::scalar::InvalidValue;
use crate::exchange::{Terms, Tokens, Usage};

/// Prices of models, and the day they are of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    /// The day, as `2026-11-24`.
    pub date: Box<str>,
    models: BTreeMap<Box<str>, Price>,
    multipliers: Multipliers,
    /// Billionths of a dollar for a web search.
    web_search: u64,
}

/// Price of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    /// Multipliers that override those of all models.
    multipliers: Multipliers,
    /// Rates for prompts up to the threshold of `long_prompt`.
    pub rates: Rates,
    /// Threshold and rates for long prompts: above this number of prompt tokens (cache reads and writes
    /// included), these rates apply to all tokens of the exchange.
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

/// Price multipliers in thousandths, by value of a term of the response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Multipliers {
    inference_geo: BTreeMap<Box<str>, u64>,
    speed: BTreeMap<Box<str>, u64>,
    service_tier: BTreeMap<Box<str>, u64>,
}

/// A price of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    billionths: u64,
    /// A term has no multiplier: it may cost more.
    is_floor: bool,
}

impl Price {
    /// Cost of the tokens of one exchange, in billionths of a dollar.
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
struct PricesFile {
    #[serde(rename = "__comment", default)]
    _comment: serde::de::IgnoredAny,
    date: String,
    models: BTreeMap<String, PriceRow>,
    multipliers: Option<MultiplierRows>,
    fees: Option<Fees>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MultiplierRows {
    #[serde(rename = "__comment", default)]
    _comment: serde::de::IgnoredAny,
    #[serde(default)]
    inference_geo: BTreeMap<Box<str>, f64>,
    #[serde(default)]
    speed: BTreeMap<Box<str>, f64>,
    #[serde(default)]
    service_tier: BTreeMap<Box<str>, f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fees {
    #[serde(rename = "__comment", default)]
    _comment: serde::de::IgnoredAny,
    #[serde(default)]
    web_search: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceRow {
    input: f64,
    output: f64,
    cache_read: f64,
    cache_write_5m: f64,
    cache_write_1h: f64,
    long_prompt: Option<LongPromptRow>,
    #[serde(default)]
    multipliers: MultiplierRows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongPromptRow {
    above: u64,
    input: f64,
    output: f64,
    cache_read: f64,
    cache_write_5m: f64,
    cache_write_1h: f64,
}

impl Prices {
    /// The prices of `static/prices.json`.
    pub fn built_in() -> Self {
        // a test reads it
        Self::read(BUILT_IN, Self::default).unwrap_or_default()
    }

    /// Beginnings of the names of models that have a price.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(AsRef::as_ref)
    }

    pub(super) fn parse(text: &str) -> Result<Self, InvalidValue> {
        Self::read(text, Self::built_in)
    }

    /// Sections that are not there are those of others.
    fn read(text: &str, others: impl FnOnce() -> Self) -> Result<Self, InvalidValue> {
        let file: PricesFile = serde_json::from_str(text).map_err(|error| {
            InvalidValue::because(format!(
                "is not a file of prices (line {} column {}: {})",
                error.line(),
                error.column(),
                problem(&error)
            ))
            .hint("see static/prices.json: a date, and for each model five prices in dollars per million tokens")
        })?;
        let is_date = file.date.len() == 10
            && file.date.bytes().enumerate().all(|(at, octet)| match at {
                4 | 7 => octet == b'-',
                _ => octet.is_ascii_digit(),
            });
        if !is_date {
            return Err(InvalidValue::because(
                "has a date that is not of the form 2026-11-24",
            ));
        }
        let models = file.models.into_iter().map(|(model, row)| {
            let price = row.price().map_err(|bad| of_model(bad, &model))?;
            Ok((model.into(), price))
        });
        let mut prices = others();
        prices.date = file.date.into();
        prices.models = models.collect::<Result<_, InvalidValue>>()?;
        if let Some(rows) = file.multipliers {
            prices.multipliers = rows.read()?;
        }
        if let Some(fees) = file.fees {
            prices.web_search = fee(fees.web_search)?;
        }
        Ok(prices)
    }

    /// Sets what a generation cost, and its estimate; what else the same model was used for becomes part of
    /// its tokens.
    pub fn apply(&self, usage: &mut Usage) {
        let price = usage.model.as_deref().and_then(|model| self.of(model));
        let fees = self.web_search.saturating_mul(usage.web_searches);
        if let Some(price) = price {
            let compactions = usage.compactions.iter();
            let beside = compactions
                .map(|tokens| self.cost(price, tokens, &usage.terms).billionths)
                .fold(fees, u64::saturating_add);
            let cost = self.cost(price, &usage.tokens, &usage.terms);
            usage.cost = Some(cost.billionths.saturating_add(beside));
            usage.at_least |= cost.is_floor;
            if let Some(estimate) = &mut usage.estimate {
                let tokens = Tokens {
                    output: estimate.output,
                    ..usage.tokens
                };
                let cost = self.cost(price, &tokens, &usage.terms).billionths;
                estimate.cost = Some(cost.saturating_add(beside));
            }
        }
        for tokens in std::mem::take(&mut usage.compactions) {
            usage.tokens.add(&tokens);
        }
        for other in &mut usage.others {
            // how fast the answer's model was says nothing of theirs
            let terms = Terms {
                speed: None,
                ..usage.terms.clone()
            };
            let price = self.of(&other.model);
            let cost = price.map(|price| self.cost(price, &other.tokens, &terms));
            other.cost = cost.map(|cost| cost.billionths);
            usage.at_least |= cost.is_none_or(|cost| cost.is_floor);
        }
        let others = usage.others.iter().filter_map(|other| other.cost);
        let others = others.fold(0, u64::saturating_add);
        if let Some(Some(cost)) = usage.estimate.as_mut().map(|it| it.cost.as_mut()) {
            *cost = cost.saturating_add(others);
        }
    }

    /// Cost of tokens on these terms.
    fn cost(&self, price: &Price, tokens: &Tokens, terms: &Terms) -> Cost {
        let mut cost = Cost {
            billionths: price.of(tokens),
            is_floor: false,
        };
        let (own, all) = (&price.multipliers, &self.multipliers);
        for (value, usual, own, all) in [
            (
                &terms.inference_geo,
                &USUAL_GEOS[..],
                &own.inference_geo,
                &all.inference_geo,
            ),
            (&terms.speed, &USUAL_SPEEDS, &own.speed, &all.speed),
            (
                &terms.service_tier,
                &USUAL_TIERS,
                &own.service_tier,
                &all.service_tier,
            ),
        ] {
            let Some(value) = value.as_deref() else {
                continue;
            };
            match own.get(value).or_else(|| all.get(value)) {
                Some(thousandths) => cost.multiply(*thousandths),
                None => cost.is_floor |= !usual.contains(&value),
            }
        }
        cost
    }

    /// The price of a model: as it is spelt, else as Anthropic spells it.
    pub fn of(&self, model: &str) -> Option<&Price> {
        self.of_prefix(model)
            .or_else(|| self.of_prefix(&canonical(model)))
    }

    /// The price of the longest prefix of a name. Neither a number nor a version is cut: `m-4` says something
    /// of `m-4-20250514`, and nothing of `m-4-1` or `m-40`; `m` does of each.
    fn of_prefix(&self, model: &str) -> Option<&Price> {
        let is_digit = |at: usize| model.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        (1..=model.len())
            .rev()
            .filter(|end| model.is_char_boundary(*end) && !(is_digit(end - 1) && is_digit(*end)))
            .filter(|end| !(is_digit(end - 1) && begins_with_version(&model[*end..])))
            .find_map(|end| self.models.get(&model[..end]))
    }
}

/// A name as Anthropic spells it, from the spelling of a provider: in lower case, without the provider and
/// its region (`us.anthropic.…`, `anthropic/…`, an ARN), with `-` for `@` and for the point of a version, and
/// without Bedrock's version or a variant behind a colon.
///
/// ```
/// # use anthropic_proxy::config::prices::canonical;
/// for spelling in ["us.anthropic.claude-opus-4-5-20251101-v1:0", "anthropic/claude-opus-4.5-20251101:beta"] {
///     assert_eq!(canonical(spelling), "claude-opus-4-5-20251101");
/// }
/// ```
pub fn canonical(model: &str) -> String {
    let mut name = model.trim().to_ascii_lowercase();
    if let Some(at) = name.rfind('/') {
        name.drain(..=at);
    }
    if let Some(at) = name.find("anthropic.") {
        name.drain(..at + "anthropic.".len());
    }
    if let Some(at) = name.find(':') {
        name.truncate(at);
        let version = name.rfind("-v").map(|at| (at, name.get(at + 2..)));
        if let Some((at, Some(digits))) = version
            && !digits.is_empty()
            && digits.bytes().all(|octet| octet.is_ascii_digit())
        {
            name.truncate(at);
        }
    }
    name.replace(['@', '.'], "-")
}

/// The problem of a file as serde puts it: members and types, without a value of the file.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((problem, _)) if !problem.starts_with("invalid") => problem.to_owned(),
        _ => "a member has not the type that is expected, or this is not JSON".to_owned(),
    }
}

/// Reports that the rest of a name begins with `-` or `.` and a number that is no date.
fn begins_with_version(rest: &str) -> bool {
    let number = rest.strip_prefix(['-', '.']).unwrap_or_default();
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    (1..6).contains(&digits)
}

impl PriceRow {
    fn price(&self) -> Result<Price, InvalidValue> {
        let long_prompt = self.long_prompt.as_ref();
        let long_prompt = long_prompt.map(|row| row.rates().map(|rates| (row.above, rates)));
        Ok(Price {
            multipliers: self.multipliers.read()?,
            rates: self.rates()?,
            long_prompt: long_prompt.transpose()?,
        })
    }

    fn rates(&self) -> Result<Rates, InvalidValue> {
        let Self {
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            long_prompt: _,
            multipliers: _,
        } = *self;
        Rates::read([input, output, cache_read, cache_write_5m, cache_write_1h])
    }
}

impl LongPromptRow {
    fn rates(&self) -> Result<Rates, InvalidValue> {
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
    fn read(dollars: [f64; 5]) -> Result<Self, InvalidValue> {
        let price = |dollars: f64| {
            if !(0.0..=MOST).contains(&dollars) {
                return Err(InvalidValue::because(
                    "has a price that is negative or above 100000",
                ));
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

impl MultiplierRows {
    fn read(&self) -> Result<Multipliers, InvalidValue> {
        let read =
            |rows: &BTreeMap<Box<str>, f64>| -> Result<BTreeMap<Box<str>, u64>, InvalidValue> {
                rows.iter()
                    .map(|(value, factor)| {
                        if !(*factor > 0.0 && *factor <= MOST_TIMES) {
                            return Err(InvalidValue::because(format!(
                                "has a multiplier of {value:?} that is not above 0 and at most 100"
                            )));
                        }
                        Ok((value.clone(), (factor * 1000.0).round() as u64))
                    })
                    .collect()
            };
        Ok(Multipliers {
            inference_geo: read(&self.inference_geo)?,
            speed: read(&self.speed)?,
            service_tier: read(&self.service_tier)?,
        })
    }
}

impl Cost {
    fn multiply(&mut self, thousandths: u64) {
        let product = u128::from(self.billionths) * u128::from(thousandths);
        self.billionths = u64::try_from((product + 500) / 1000).unwrap_or(u64::MAX);
    }
}

/// A fault of one row says which.
fn of_model(bad: InvalidValue, model: &str) -> InvalidValue {
    let problem = format!("{} ({model:?})", bad.problem);
    InvalidValue {
        problem: problem.into(),
        ..bad
    }
}

/// From dollars for one request.
fn fee(dollars: f64) -> Result<u64, InvalidValue> {
    if !(0.0..=MOST_FEE).contains(&dollars) {
        return Err(InvalidValue::because(
            "has a fee that is negative or above 1000",
        ));
    }
    Ok((dollars * 1e9).round() as u64)
}

/// Costs without a price here: the regional premium of Bedrock and Vertex, the priority tier, the time of
/// code execution.
pub const NOT_PRICED: [&str; 3] = ["regional_premium", "priority_tier", "code_execution_time"];
/// Prices that are built in.
const BUILT_IN: &str = include_str!("../../static/prices.json");
/// More than this for a million tokens is a slip of the pen.
const MOST: f64 = 100_000.0;
/// The same of a multiplier…
const MOST_TIMES: f64 = 100.0;
/// …and of a fee.
const MOST_FEE: f64 = 1000.0;
/// Values of terms on which the price is the usual one. `priority` was paid for in advance.
const USUAL_GEOS: [&str; 2] = ["global", "not_available"];
const USUAL_SPEEDS: [&str; 1] = ["standard"];
const USUAL_TIERS: [&str; 2] = ["standard", "priority"];

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
    fn spellings_of_providers_are_read() {
        let prices = Prices::built_in();
        for (spelling, model) in [
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
            (
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "claude-sonnet-4-5",
            ),
            ("anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
            (
                "arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-opus-4-1-20250805-v1:0",
                "claude-opus-4-1",
            ),
            ("global.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
            ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
            ("anthropic/claude-3.7-sonnet:thinking", "claude-3-7-sonnet"),
            ("anthropic/claude-opus-5.5", "claude-opus-5-5"),
            ("claude-opus-5.5", "claude-opus-5-5"),
            ("anthropic/claude-opus-4", "claude-opus-4"),
            ("claude-opus-4@20250514", "claude-opus-4"),
            ("Claude-Sonnet-4-5", "claude-sonnet-4-5"),
            ("claude-sonnet-4-5-20250929:beta", "claude-sonnet-4-5"),
            ("claude-opus-4-6-thinking", "claude-opus-4-6"),
            ("claude-opus-4-8[1m]", "claude-opus-4-8"),
            (" claude-sonnet-4 ", "claude-sonnet-4"),
        ] {
            let expected = prices.of_prefix(model);
            assert!(expected.is_some(), "{model}");
            assert_eq!(prices.of(spelling), expected, "{spelling}");
        }
        for unknown in [
            "claude-opus-latest",
            "anthropic/claude-opus-4.9",
            "us.anthropic.claude-opus-9-v1:0",
            "claude-sonnet-4.1",
            "anthropic.",
            "/",
            ":",
            "-v:",
        ] {
            assert_eq!(prices.of(unknown), None, "{unknown}");
        }
        // a table's own spelling goes first
        let row = r#"{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}"#;
        let text = format!(r#"{{"date":"2026-01-02","models":{{"Vendor/M.1":{row}}}}}"#);
        let prices = Prices::parse(&text).unwrap();
        assert!(prices.of("Vendor/M.1").is_some() && prices.of("vendor/m.1").is_none());
    }

    /// What it costs, in millionths of a dollar, and whether that is a floor.
    fn priced(
        prices: &Prices,
        model: &str,
        tokens: (u64, u64),
        change: impl FnOnce(&mut Usage),
    ) -> (f64, bool) {
        let mut usage = Usage {
            model: Some(model.into()),
            tokens: Tokens {
                input: tokens.0,
                output: tokens.1,
                ..Tokens::default()
            },
            ..Usage::default()
        };
        change(&mut usage);
        prices.apply(&mut usage);
        (usage.total_cost().unwrap() as f64 / 1e3, usage.at_least)
    }

    #[test]
    fn terms_multiply_and_searches_have_a_fee() {
        let prices = Prices::built_in();
        let many = (100_000, 10_000);
        let geo = |geo: &str| {
            priced(&prices, "claude-sonnet-4-6", many, |usage| {
                usage.terms.inference_geo = Some(geo.into());
            })
        };
        assert_eq!(geo("us"), (495_000.0, false));
        assert_eq!(geo("global"), (450_000.0, false));
        assert_eq!(geo("not_available"), (450_000.0, false));
        assert_eq!(geo("moon"), (450_000.0, true), "no multiplier is guessed");
        let speed = |model, speed: &str| {
            priced(&prices, model, many, |usage| {
                usage.terms.speed = Some(speed.into());
                usage.terms.service_tier = Some("standard".into());
            })
        };
        assert_eq!(speed("claude-opus-4-8", "fast"), (1_500_000.0, false));
        assert_eq!(speed("claude-opus-4-8", "standard"), (750_000.0, false));
        assert_eq!(speed("claude-opus-4-6", "fast"), (4_500_000.0, false));
        assert_eq!(speed("claude-sonnet-5", "fast"), (300_000.0, true));
        let batch = |usage: &mut Usage| {
            usage.terms.service_tier = Some("batch".into());
            usage.terms.inference_geo = Some("us".into());
        };
        assert_eq!(
            priced(&prices, "claude-opus-4-8", many, batch),
            (412_500.0, false)
        );
        let search = |usage: &mut Usage| {
            usage.web_searches = 3;
            usage.server_tools = 5;
        };
        let cost = priced(&prices, "claude-sonnet-4-5", (10, 10), search);
        assert_eq!(cost, (30_180.0, false));
    }

    #[test]
    fn compactions_and_advisors_are_priced_each_by_itself() {
        let prices = Prices::built_in();
        let tokens = |input, output| Tokens {
            input,
            output,
            ..Tokens::default()
        };
        let mut usage = Usage {
            model: Some("claude-opus-4-6".into()),
            tokens: tokens(23_000, 1_000),
            compactions: vec![tokens(180_000, 3_500)],
            ..Usage::default()
        };
        prices.apply(&mut usage);
        assert_eq!(usage.cost, Some(1_127_500_000));
        assert_eq!(usage.tokens, tokens(203_000, 4_500));
        let mut usage = Usage {
            model: Some("claude-sonnet-4-6".into()),
            tokens: tokens(2, 491),
            others: vec![crate::exchange::OtherModel {
                model: "claude-opus-4-7".into(),
                tokens: tokens(159_419, 7_805),
                cost: None,
            }],
            ..Usage::default()
        };
        prices.apply(&mut usage);
        assert_eq!(usage.total_cost(), Some(999_591_000));
        assert_eq!((usage.cost, usage.at_least), (Some(7_371_000), false));
        assert_eq!(usage.all_tokens(), tokens(159_421, 8_296));
        usage.others[0].model = "unknown".into();
        prices.apply(&mut usage);
        assert_eq!(
            (usage.total_cost(), usage.at_least),
            (Some(7_371_000), true)
        );
        // the length of a prompt is that of one of them
        let mut usage = Usage {
            model: Some("claude-haiku-5-5".into()),
            tokens: tokens(60_000, 0),
            compactions: vec![tokens(60_000, 0)],
            ..Usage::default()
        };
        prices.apply(&mut usage);
        assert_eq!(usage.cost, Some(2 * 6_000_000));
    }

    #[test]
    fn a_file_without_multipliers_has_the_built_in_ones() {
        let row = r#"{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":1}"#;
        let cost = |sections: &str| {
            let text = format!(r#"{{"date":"2026-01-02","models":{{"m":{row}}}{sections}}}"#);
            let prices = Prices::parse(&text).unwrap();
            priced(&prices, "m", (1_000_000, 0), |usage| {
                usage.web_searches = 1;
                usage.terms.inference_geo = Some("us".into());
            })
        };
        assert_eq!(cost(""), (1_110_000.0, false));
        assert_eq!(cost(r#","multipliers":{},"fees":{}"#), (1_000_000.0, true));
        let own = r#","multipliers":{"inference_geo":{"us":1}},"fees":{"web_search":0.5}"#;
        assert_eq!(cost(own), (1_500_000.0, false));
    }

    #[test]
    fn faults_of_multipliers_and_fees_say_what_is_wrong() {
        let fault = |sections: &str| {
            let text = format!(r#"{{"date":"2026-01-02","models":{{}},{sections}}}"#);
            Prices::parse(&text).unwrap_err().problem.into_owned()
        };
        for (sections, expected) in [
            (r#""multipliers":{"speed":{"fast":0}}"#, "\"fast\""),
            (r#""multipliers":{"speed":{"fast":101}}"#, "at most 100"),
            (
                r#""multipliers":{"sped":{"fast":1}}"#,
                "unknown field `sped`",
            ),
            (r#""fees":{"web_search":-1}"#, "a fee"),
            (r#""fees":{"web_search":"1"}"#, "line 1 column"),
            (r#""fee":{}"#, "unknown field `fee`"),
        ] {
            let problem = fault(sections);
            assert!(problem.contains(expected), "{sections}: {problem}");
        }
        let row = r#"{"input":1,"output":1,"cache_read":1,"cache_write_5m":1,"cache_write_1h":-1}"#;
        let text = format!(r#"{{"date":"2026-01-02","models":{{"m-1":{row}}}}}"#);
        let problem = Prices::parse(&text).unwrap_err().problem;
        assert!(problem.contains("m-1"), "{problem}");
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
