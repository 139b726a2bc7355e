//! Metrics of generations: tokens, cost, and the upstream's speed, by model.
//!
//! Names and labels are those of OpenTelemetry's semantic conventions for generative AI where there
//! are some. `gen_ai.client.token.usage` is a histogram there, so it is one here: its `_sum` is the
//! number of tokens that an operator adds up, and a dashboard made for the conventions reads it.
//! `gen_ai.token.type` is `input` or `output` there, and an open set: tokens read from and written to caches have a
//! price of its own, and is a type of its own, not part of `input`.

use std::fmt::Result;

use super::{
    counters::Counters,
    family::{Family, Unit},
    histogram::{Histogram, SECONDS, SECONDS_BUCKETS, TOKENS, TOKENS_BUCKETS, micros},
    label_table::LabelTable,
    reading::ModelReading,
    writer::FamilyWriter,
};
use crate::exchange::{Exchange, MeteringFailure, Route, Tokens, Usage};

/// Counted by one worker.
#[derive(Debug)]
pub(super) struct GenerationMetrics {
    models: [Model; MODELS + 1],
    errors: Counters<{ ERRORS + 1 }>,
    server_tools: Counters<1>,
    failures: Counters<{ MeteringFailure::ALL.len() }>,
}

#[derive(Debug, Default)]
struct Model {
    tokens: [Histogram<TOKENS_BUCKETS>; KINDS.len()],
    first_token: Histogram<SECONDS_BUCKETS>,
    duration: Histogram<SECONDS_BUCKETS>,
    /// Billionths of a dollar.
    cost: Counters<1>,
    unpriced: Counters<1>,
    at_least: Counters<1>,
}

/// Labels that are learned.
#[derive(Debug, Default)]
pub(super) struct GenerationLabels {
    models: LabelTable<MODELS>,
    errors: LabelTable<ERRORS>,
}

impl Default for GenerationMetrics {
    fn default() -> Self {
        Self {
            models: std::array::from_fn(|_| Model::default()),
            errors: Counters::default(),
            server_tools: Counters::default(),
            failures: Counters::default(),
        }
    }
}

impl GenerationMetrics {
    pub(super) fn count(&self, known: &GenerationLabels, exchange: &Exchange) {
        if exchange.begun.route != Route::Messages {
            return;
        }
        let usage = exchange.usage.as_ref();
        let model = usage.map_or(MODELS, |usage| place(known, usage));
        let model = &self.models[model];
        let timings = &exchange.timings;
        model.duration.observe(&SECONDS, micros(timings.total));
        let Some(usage) = usage else { return };
        if let Some(first_token) = timings.first_token {
            model.first_token.observe(&SECONDS, micros(first_token));
        }
        model.used(&usage.tokens, usage.cost);
        for other in &usage.others {
            let model = if has_used(&other.tokens) {
                known.models.intern(&other.model)
            } else {
                MODELS
            };
            self.models[model].used(&other.tokens, other.cost);
        }
        if usage.at_least {
            model.at_least.add(0, 1);
        }
        if usage.server_tools > 0 {
            self.server_tools.add(0, usage.server_tools);
        }
        if let Some(error) = &usage.error_type {
            self.errors.add(known.errors.intern(error), 1);
        }
        if let Some(failure) = usage.failure {
            self.failures.add(failure as usize, 1);
        }
    }

    /// Number of requests to `POST /v1/messages`.
    pub(super) fn generations(&self) -> u64 {
        let durations = self.models.iter().map(|model| &model.duration);
        durations.map(Histogram::count).sum()
    }

    /// Number of errors of some types.
    pub(super) fn errors_of(&self, known: &GenerationLabels, kinds: &[&str]) -> u64 {
        let places = kinds.iter().map(|kind| known.errors.find(kind));
        // a type that was not seen yet shares the place of others
        let places = places.filter(|place| *place < ERRORS);
        places.map(|place| self.errors.read(place)).sum()
    }

    /// Number of responses that could not be metered.
    pub(super) fn failures(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Billionths of a US dollar.
    pub(super) fn cost(&self) -> u64 {
        self.models.iter().map(|model| model.cost.read(0)).sum()
    }

    /// Counts of each model.
    pub(super) fn models(&self, known: &GenerationLabels) -> Vec<ModelReading> {
        let models = known.models.labels().map(|(at, name)| ModelReading {
            name: name.to_owned(),
            first_token: self.models[at].first_token.read(&SECONDS).buckets,
            unpriced: self.models[at].unpriced.read(0),
        });
        models.collect()
    }

    pub(super) fn absorb(&self, other: &Self) {
        let Self {
            models,
            errors,
            server_tools,
            failures,
        } = other;
        for (ours, theirs) in self.models.iter().zip(models) {
            ours.absorb(theirs);
        }
        self.errors.absorb(errors);
        self.server_tools.absorb(server_tools);
        self.failures.absorb(failures);
    }

    pub(super) fn write(&self, known: &GenerationLabels, out: &mut FamilyWriter<'_>) -> Result {
        let models = || {
            let labels = known.models.labels();
            labels.map(|(at, name)| (&self.models[at], (MODEL, name)))
        };
        let tokens = models().flat_map(|(model, name)| {
            let kinds = KINDS.iter().zip(&model.tokens);
            kinds.map(move |(kind, used)| ([name, ("gen_ai_token_type", *kind)], used))
        });
        out.histograms(&USED, &TOKENS, tokens.filter(|(_, used)| !used.is_empty()))?;
        let speed = models().map(|(model, name)| ([name], &model.first_token));
        out.histograms(&FIRST, &SECONDS, speed.filter(|(_, seen)| !seen.is_empty()))?;
        let speed = models().map(|(model, name)| ([name], &model.duration));
        out.histograms(&WHOLE, &SECONDS, speed.filter(|(_, seen)| !seen.is_empty()))?;
        let cost = models().map(|(model, name)| ([name], model.cost.read(0) as f64 / 1e9));
        out.counters(&COST, cost)?;
        let unpriced = models().map(|(model, name)| ([name], model.unpriced.read(0)));
        out.counters(&UNPRICED, unpriced)?;
        let at_least = models().map(|(model, name)| ([name], model.at_least.read(0)));
        out.counters(&AT_LEAST, at_least)?;
        let errors = known.errors.labels();
        let errors = errors.map(|(at, kind)| ([("error_type", kind)], self.errors.read(at)));
        out.counters(&ERROR_TYPES, errors)?;
        out.counter(&SERVER_TOOLS, self.server_tools.read(0))?;
        let failures = MeteringFailure::ALL.into_iter();
        let failures = failures.map(|failure| {
            let count = self.failures.read(failure as usize);
            ([("reason", failure.label())], count)
        });
        out.counters(&FAILURES, failures)
    }
}

impl Model {
    fn used(&self, tokens: &Tokens, cost: Option<u64>) {
        // a fee may come without tokens
        if !has_used(tokens) && cost.unwrap_or_default() == 0 {
            return;
        }
        let counts = kinds(tokens).into_iter().enumerate();
        for (kind, count) in counts.filter(|(_, count)| *count > 0) {
            self.tokens[kind].observe(&TOKENS, count);
        }
        match cost {
            Some(cost) => self.cost.add(0, cost),
            None => self.unpriced.add(0, 1),
        }
    }

    fn absorb(&self, other: &Self) {
        let Self {
            tokens,
            first_token,
            duration,
            cost,
            unpriced,
            at_least,
        } = other;
        for (ours, theirs) in self.tokens.iter().zip(tokens) {
            ours.absorb(theirs);
        }
        self.first_token.absorb(first_token);
        self.duration.absorb(duration);
        self.cost.absorb(cost);
        self.unpriced.absorb(unpriced);
        self.at_least.absorb(at_least);
    }
}

/// The place of a model. Only one that has used tokens takes a new one: else any client could fill
/// the table with names that the upstream refuses.
fn place(known: &GenerationLabels, usage: &Usage) -> usize {
    let Some(model) = &usage.model else {
        return MODELS;
    };
    if has_used(&usage.tokens) {
        known.models.intern(model)
    } else {
        known.models.find(model)
    }
}

fn has_used(tokens: &Tokens) -> bool {
    *tokens != Tokens::default()
}

/// In the order of [`KINDS`].
fn kinds(tokens: &Tokens) -> [u64; KINDS.len()] {
    let Tokens {
        input,
        output,
        cache_read,
        cache_write_5m,
        cache_write_1h,
    } = *tokens;
    [input, output, cache_read, cache_write_5m, cache_write_1h]
}

const KINDS: [&str; 5] = [
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
];

const MODEL: &str = "gen_ai_request_model";

/// Models that have a label of their own.
const MODELS: usize = 50;

/// Types of errors; Anthropic documents nine.
const ERRORS: usize = 23;

const USED: Family = Family {
    name: "gen_ai_client_token_usage",
    unit: None,
    help: "Tokens of a generation by model and type, as the upstream counted them; caches read and written are types of their own.",
};

const FIRST: Family = Family {
    name: "gen_ai_server_time_to_first_token",
    unit: Some(Unit::Seconds),
    help: "Time from a request's head until the first content_block_delta of its response, by model.",
};

const WHOLE: Family = Family {
    name: "gen_ai_server_request_duration",
    unit: Some(Unit::Seconds),
    help: "Duration of POST /v1/messages, by model (other if the response names none).",
};

const COST: Family = Family {
    name: "anthropic_proxy_cost",
    unit: Some(Unit::Usd),
    help: "US dollars that the tokens cost by the table of prices, by model.",
};

const UNPRICED: Family = Family {
    name: "anthropic_proxy_unpriced_requests",
    unit: None,
    help: "Generations whose model has no price, by model; they are not included in costs.",
};

const AT_LEAST: Family = Family {
    name: "anthropic_proxy_at_least_requests",
    unit: None,
    help: "Generations whose tokens and cost are a lower bound, by model: the response was cut off, or not all of it could be read or has a price.",
};

const ERROR_TYPES: Family = Family {
    name: "anthropic_proxy_upstream_errors",
    unit: None,
    help: "Errors in upstream responses to POST /v1/messages, as a whole or inside of a stream, by type.",
};

const SERVER_TOOLS: Family = Family {
    name: "anthropic_proxy_server_tool_requests",
    unit: None,
    help: "Requests that server tools made (web search and the like).",
};

const FAILURES: Family = Family {
    name: "anthropic_proxy_metering_failures",
    unit: None,
    help: "Responses whose copy could not be metered, or not to its end, by reason: broken content, no memory left for its decoder, an unsupported media type or coding, content truncated inside of complete framing, an unsupported value of its usage, or no usage at all (missing). The responses themselves are forwarded unmodified.",
};
