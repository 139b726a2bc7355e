//! Usage of a generation: tokens, cost, and the terms that its price depends on.

/// Usage of a generation, as reported by the upstream's response up to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model: that of the response, else of the request.
    pub model: Option<Box<str>>,
    /// True if the response was streamed.
    pub is_stream: bool,
    /// Upper bound of output tokens in the request (`max_tokens`).
    pub max_tokens: Option<u64>,
    /// The tokens that the model used.
    pub tokens: Tokens,
    /// Each compaction of the context, by the same model; part of `tokens` once there is a price.
    pub compactions: Vec<Tokens>,
    /// Usage of other models for it (advisors), one entry for each call.
    pub others: Vec<OtherModel>,
    /// Requests that server tools made (web search and the like).
    pub server_tools: u64,
    /// Web searches among them, which have a fee.
    pub web_searches: u64,
    /// The terms that its price depends on.
    pub terms: Terms,
    /// The stop reason (`end_turn`, `tool_use`, …).
    pub stop_reason: Option<Box<str>>,
    /// The type of the error, of the response or inside of the stream (`overloaded_error`, …).
    pub error_type: Option<Box<str>>,
    /// The reason for which the copy could not be read to its end, if any; the rest was read before.
    pub failure: Option<MeteringFailure>,
    /// Billionths of a US dollar that the model's tokens and the server tools cost; none where the model has
    /// no price.
    pub cost: Option<u64>,
    /// True if tokens and cost are a floor: the response was cut off, or not all of it could be read or has a
    /// price.
    pub at_least: bool,
    /// Estimated usage of a stream that was cut off, from the deltas that were forwarded.
    pub estimate: Option<Estimate>,
}

/// Usage of another model for a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherModel {
    /// The model.
    pub model: Box<str>,
    /// Its tokens.
    pub tokens: Tokens,
    /// Billionths of a US dollar; none where it has no price.
    pub cost: Option<u64>,
}

/// Terms of a generation that its price depends on, as the response reports them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// `inference_geo`
    pub inference_geo: Option<Box<str>>,
    /// `speed`
    pub speed: Option<Box<str>>,
    /// `service_tier`
    pub service_tier: Option<Box<str>>,
}

impl Terms {
    /// Updates the terms with those of a later event.
    pub fn update(&mut self, later: Self) {
        for (term, later) in [
            (&mut self.inference_geo, later.inference_geo),
            (&mut self.speed, later.speed),
            (&mut self.service_tier, later.service_tier),
        ] {
            *term = later.or(term.take());
        }
    }
}

/// Estimated usage of a stream that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens of output.
    pub output: u64,
    /// Billionths of a US dollar of the whole exchange with them; none where the model has no price.
    pub cost: Option<u64>,
}

impl Usage {
    /// The tokens of all models.
    pub fn all_tokens(&self) -> Tokens {
        let mut tokens = self.tokens;
        self.compactions.iter().for_each(|it| tokens.add(it));
        self.others.iter().for_each(|it| tokens.add(&it.tokens));
        tokens
    }

    /// Applies a change to every text, which a peer chose.
    pub fn texts_mut(&mut self, change: impl FnMut(&mut Box<str>)) {
        [
            &mut self.model,
            &mut self.stop_reason,
            &mut self.error_type,
            &mut self.terms.inference_geo,
            &mut self.terms.speed,
            &mut self.terms.service_tier,
        ]
        .into_iter()
        .flatten()
        .chain(self.others.iter_mut().map(|other| &mut other.model))
        .for_each(change);
    }

    /// Billionths of a US dollar that it cost, all models together; none where none of them has a price.
    pub fn total_cost(&self) -> Option<u64> {
        let others = self.others.iter().filter_map(|other| other.cost);
        self.cost
            .into_iter()
            .chain(others)
            .reduce(u64::saturating_add)
    }
}

/// Reason for which a response was not metered, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeteringFailure {
    /// Its content does not match its fields.
    Broken,
    /// There was no memory left for its decoder.
    Memory,
    /// Its media type or its content coding is not supported.
    Coding,
    /// It ended early inside of whole framing.
    Truncated,
    /// A count or an iteration of its usage is not supported.
    Value,
    /// It reports no usage.
    Missing,
}

impl MeteringFailure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Broken,
        Self::Memory,
        Self::Coding,
        Self::Truncated,
        Self::Value,
        Self::Missing,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Memory => "memory",
            Self::Coding => "coding",
            Self::Truncated => "truncated",
            Self::Value => "value",
            Self::Missing => "missing",
        }
    }
}

/// Tokens by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input that was neither read from nor written to a cache.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache for 5 minutes (also if the response names no duration).
    pub cache_write_5m: u64,
    /// Input written to a cache for an hour.
    pub cache_write_1h: u64,
}

impl Tokens {
    /// Input of all kinds: that of the prompt.
    pub fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
    }

    /// Input and output.
    pub fn all(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }

    /// Adds other tokens.
    pub fn add(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write_5m, other.cache_write_5m),
            (&mut self.cache_write_1h, other.cache_write_1h),
        ] {
            *sum = sum.saturating_add(part);
        }
    }
}
