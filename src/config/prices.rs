//! Prices of models: US dollars for a million tokens, by kind.
//!
//! A JSON file of the shape of `static/prices.json`, which is built in. The longest prefix of a model's
//! name counts, in the provider's spelling or in Anthropic's own; a model without one has no price, and none
//! is guessed. Some models cost more if the prompt is long. Multipliers change the price by terms of the
//! response, fees are for server tools; a file without one of these sections gets the built-in one.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::exchange::{Terms, Tokens, Usage};

mod file;
mod name;
pub mod recent;

pub use self::name::canonical;
use self::name::may_end;

/// Prices of models, and the day they are of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    /// The day, as `2026-11-24`.
    pub date: Box<str>,
    /// By the length of the name, then by the name.
    models: Box<[(Box<str>, Price)]>,
    /// The length and the last octet of each name in `models`: few have both of another name.
    ends: Box<[(usize, u8)]>,
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

/// Price of a model's tokens, whatever the terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPrice {
    rates: Rates,
    long_prompt: Option<(u64, Rates)>,
}

/// A price of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    billionths: u64,
    /// A term has no multiplier: it may cost more.
    is_floor: bool,
}

impl Price {
    /// The price of tokens alone, whatever the terms.
    pub fn of_tokens(&self) -> TokenPrice {
        TokenPrice {
            rates: self.rates,
            long_prompt: self.long_prompt,
        }
    }

    /// Cost of the tokens of one exchange, in billionths of a dollar.
    pub fn of(&self, tokens: &Tokens) -> u64 {
        cost(&self.rates, self.long_prompt.as_ref(), tokens)
    }
}

impl TokenPrice {
    /// Cost of the tokens of one exchange, in billionths of a dollar.
    pub fn of(&self, tokens: &Tokens) -> u64 {
        cost(&self.rates, self.long_prompt.as_ref(), tokens)
    }
}

fn cost(rates: &Rates, long_prompt: Option<&(u64, Rates)>, tokens: &Tokens) -> u64 {
    match long_prompt {
        Some((above, rates)) if tokens.prompt() > *above => rates.of(tokens),
        _ => rates.of(tokens),
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

impl Prices {
    /// The prices of `static/prices.json`.
    pub fn built_in() -> Self {
        // a test reads it
        Self::read(BUILT_IN, Self::default).unwrap_or_default()
    }

    /// Beginnings of the names of models that have a price.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|(name, _)| name.as_ref())
    }

    /// Sets what a generation cost, and its estimate; what else the same model was used for becomes part of
    /// its tokens.
    pub fn apply(&self, usage: &mut Usage) {
        let price = usage.model.as_deref().and_then(|model| self.of(model));
        self.apply_with(price, usage);
    }

    /// The same, by the price of the model that answered.
    fn apply_with(&self, price: Option<&Price>, usage: &mut Usage) {
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

    /// Billionths of a US dollar that a model's tokens cost on these terms; none where it has no price.
    pub fn cost_of(&self, model: &str, tokens: &Tokens, terms: &Terms) -> Option<u64> {
        let price = self.of(model)?;
        Some(self.cost(price, tokens, terms).billionths)
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
        self.at(self.place_of(model)?)
    }

    /// The place of a model's price.
    fn place_of(&self, model: &str) -> Option<usize> {
        self.place_of_prefix(model)
            .or_else(|| self.place_of_prefix(&canonical(model)))
    }

    fn at(&self, place: usize) -> Option<&Price> {
        self.models.get(place).map(|(_, price)| price)
    }

    /// The place of the price of the longest prefix of a name. Neither a number nor a version is cut: `m-4` says something
    /// of `m-4-20250514`, and nothing of `m-4-1` or `m-40`; `m` does of each.
    fn place_of_prefix(&self, model: &str) -> Option<usize> {
        let names = self.ends.iter().zip(&self.models).enumerate().rev();
        // nothing is no beginning, so that each has a last octet
        let ends_alike = |(length, last): &(usize, u8)| {
            let last_of = length.checked_sub(1);
            last_of.and_then(|at| model.as_bytes().get(at)) == Some(last)
        };
        let mut alike = names.filter(|(_, (end, _))| ends_alike(end));
        let found = alike.find(|(_, (_, (name, _)))| {
            model.starts_with(name.as_ref()) && may_end(model, name.len())
        });
        found.map(|(place, _)| place)
    }

    /// Puts the models in order.
    fn with_models(self, mut models: Box<[(Box<str>, Price)]>) -> Self {
        models.sort_by(|(one, _), (other, _)| order(one, other));
        let end = |(name, _): &(Box<str>, Price)| {
            (name.len(), name.bytes().next_back().unwrap_or_default())
        };
        Self {
            ends: models.iter().map(end).collect(),
            models,
            ..self
        }
    }
}

/// The order of names in the table: the longest that a name begins with is the last one.
fn order(one: &str, other: &str) -> Ordering {
    (one.len().cmp(&other.len())).then_with(|| one.cmp(other))
}

impl Cost {
    fn multiply(&mut self, thousandths: u64) {
        let product = u128::from(self.billionths) * u128::from(thousandths);
        self.billionths = u64::try_from((product + 500) / 1000).unwrap_or(u64::MAX);
    }
}

/// Costs without a price here: the regional premium of Bedrock and Vertex, the priority tier, the time of
/// code execution.
pub const NOT_PRICED: [&str; 3] = ["regional_premium", "priority_tier", "code_execution_time"];
/// Prices that are built in.
const BUILT_IN: &str = include_str!("../../static/prices.json");
/// Values of terms on which the price is the usual one. `priority` was paid for in advance.
const USUAL_GEOS: [&str; 2] = ["global", "not_available"];
const USUAL_SPEEDS: [&str; 1] = ["standard"];
const USUAL_TIERS: [&str; 2] = ["standard", "priority"];

#[cfg(test)]
mod tests;
