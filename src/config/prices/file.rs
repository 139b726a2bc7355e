//! The file of prices: its shape, its bounds, its faults.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Multipliers, Price, Prices, Rates};
use crate::config::scalar::InvalidValue;

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
    pub(in crate::config) fn parse(text: &str) -> Result<Self, InvalidValue> {
        Self::read(text, Self::built_in)
    }

    /// Sections that are not there are those of others.
    pub(super) fn read(text: &str, others: impl FnOnce() -> Self) -> Result<Self, InvalidValue> {
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
        let models = models.collect::<Result<_, InvalidValue>>()?;
        let mut prices = others().with_models(models);
        prices.date = file.date.into();
        if let Some(rows) = file.multipliers {
            prices.multipliers = rows.read()?;
        }
        if let Some(fees) = file.fees {
            prices.web_search = fee(fees.web_search)?;
        }
        Ok(prices)
    }
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

/// The problem of a file as serde puts it: members and types, without a value of the file.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((problem, _)) if !problem.starts_with("invalid") => problem.to_owned(),
        _ => "a member has not the type that is expected, or this is not JSON".to_owned(),
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

/// More than this for a million tokens is a slip of the pen.
const MOST: f64 = 100_000.0;
/// The same of a multiplier…
const MOST_TIMES: f64 = 100.0;
/// …and of a fee.
const MOST_FEE: f64 = 1000.0;
