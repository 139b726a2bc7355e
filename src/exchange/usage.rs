//! Usage of a generation: tokens, cost, and the terms that its price depends on.

/// What a generation used, as the upstream's answer says; as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model: that of the answer, else of the request.
    pub model: Option<Box<str>>,
    /// Whether the answer was streamed.
    pub is_stream: bool,
    /// What the request allowed at most (`max_tokens`).
    pub max_tokens: Option<u64>,
    /// The tokens that the model used.
    pub tokens: Tokens,
    /// Each compaction of the context, by the same model; part of `tokens` once there is a price.
    pub compactions: Vec<Tokens>,
    /// What other models used for it (advisors), each call.
    pub others: Vec<OtherModel>,
    /// Requests that server tools made (web search and the like).
    pub server_tools: u64,
    /// Of these, web searches, which have a fee.
    pub web_searches: u64,
    /// On what terms it was made.
    pub terms: Terms,
    /// Why the generation ended (`end_turn`, `tool_use`, …).
    pub stop_reason: Option<Box<str>>,
    /// The type of the error, of the answer or inside of the stream (`overloaded_error`, …).
    pub error_type: Option<Box<str>>,
    /// Why the copy could not be read to its end, if so: then the rest is what was read before.
    pub failure: Option<MeteringFailure>,
    /// Billionths of a US dollar that the model's tokens and the server tools cost; none where the model has
    /// no price.
    pub cost: Option<u64>,
    /// Whether it used and cost at least that much: the answer was broken off, or not all of it could be read
    /// or has a price.
    pub at_least: bool,
    /// What a stream that was broken off may have used, from the deltas that passed.
    pub estimate: Option<Estimate>,
}

/// What another model used for a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherModel {
    /// The model.
    pub model: Box<str>,
    /// Its tokens.
    pub tokens: Tokens,
    /// Billionths of a US dollar; none where it has no price.
    pub cost: Option<u64>,
}

/// Terms of a generation, on which its price depends, as the answer says.
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
    /// Of two events, what the later one says.
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

/// An estimate.
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

    /// Billionths of a US dollar that it cost, all models together; none where none of them has a price.
    pub fn total_cost(&self) -> Option<u64> {
        let others = self.others.iter().filter_map(|other| other.cost);
        self.cost
            .into_iter()
            .chain(others)
            .reduce(u64::saturating_add)
    }
}

/// Why an answer was not metered, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeteringFailure {
    /// Its content is not what its fields say.
    Broken,
    /// There was no memory left for its decoder.
    Memory,
    /// Its media type or its content coding is none that we read.
    Coding,
    /// It ended early inside of whole framing.
    Truncated,
    /// A count or an iteration of its usage is none that we read.
    Value,
    /// It says nothing of usage.
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
    /// Input written to a cache for 5 minutes (also where the answer does not say for how long).
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

    /// Adds others.
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
