//! Adds up what the events of a stream, or one answer, say of usage.

use super::place::{Found, Leaf, Place};
use crate::record::{MeteringFailure, Tokens, Usage};

/// What one event or answer says.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The event's own name for itself, where it has a part here.
    pub(super) kind: Kind,
    model: Option<Box<str>>,
    stop_reason: Option<Box<str>>,
    error_type: Option<Box<str>>,
    counts: Counts,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// It did not say.
    #[default]
    Unnamed,
    /// `message_start`
    Start,
    /// `message_delta`
    Delta,
    /// `error`
    Error,
    /// `content_block_delta`
    Token,
    /// Any other.
    Other,
}

/// Numbers of `usage`, as far as they are there.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    server_tools: Option<u64>,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    model: Option<Box<str>>,
    stop_reason: Option<Box<str>>,
    error_type: Option<Box<str>>,
    counts: Counts,
}

impl Kind {
    /// The kind of an event of this name.
    #[inline]
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"content_block_delta" => Self::Token,
            b"message_start" => Self::Start,
            b"message_delta" => Self::Delta,
            b"error" => Self::Error,
            // what an event without a name is called (WHATWG HTML §9.2.6)
            b"" | b"message" => Self::Unnamed,
            _ => Self::Other,
        }
    }

    /// Whether an event of this kind is read.
    #[inline]
    pub(super) fn is_read(self) -> bool {
        match self {
            Self::Start | Self::Delta | Self::Error | Self::Unnamed => true,
            Self::Token | Self::Other => false,
        }
    }
}

impl Read {
    /// Takes what was found. Of duplicates the last counts; `null` and the like say nothing.
    pub(super) fn take(&mut self, found: Found<'_>) {
        match found {
            Found::Object(Place::ServerTools) => self.counts.server_tools = Some(0),
            Found::Text(Leaf::Type, text) => {
                self.kind = match Kind::of(text.as_bytes()) {
                    Kind::Unnamed => Kind::Other,
                    kind => kind,
                };
            }
            Found::Text(Leaf::Model, text) => self.model = Some(text.into()),
            Found::Text(Leaf::StopReason, text) => self.stop_reason = Some(text.into()),
            Found::Text(Leaf::ErrorType, text) => self.error_type = Some(text.into()),
            Found::Number(leaf, number) if number <= MOST => self.counts.take(leaf, number),
            Found::Object(_)
            | Found::Text(..)
            | Found::Number(..)
            | Found::Bool(..)
            | Found::Other(_) => {}
        }
    }
}

impl Counts {
    fn take(&mut self, leaf: Leaf, number: u64) {
        let count = match leaf {
            Leaf::Input => &mut self.input,
            Leaf::Output => &mut self.output,
            Leaf::CacheRead => &mut self.cache_read,
            Leaf::CacheWrite => &mut self.cache_write,
            Leaf::CacheWrite5m => &mut self.cache_write_5m,
            Leaf::CacheWrite1h => &mut self.cache_write_1h,
            Leaf::ServerTool => {
                let sum = self.server_tools.unwrap_or_default().saturating_add(number);
                self.server_tools = Some(sum);
                return;
            }
            Leaf::Type
            | Leaf::Model
            | Leaf::Stream
            | Leaf::MaxTokens
            | Leaf::StopReason
            | Leaf::ErrorType => return,
        };
        *count = Some(number);
    }

    /// Counts are cumulative: a later one stands for the earlier.
    fn update(&mut self, later: Self) {
        let pairs = [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.cache_read, later.cache_read),
            (&mut self.cache_write, later.cache_write),
            (&mut self.cache_write_5m, later.cache_write_5m),
            (&mut self.cache_write_1h, later.cache_write_1h),
            (&mut self.server_tools, later.server_tools),
        ];
        for (count, later) in pairs {
            *count = later.or(*count);
        }
    }

    fn tokens(self) -> Tokens {
        let cache_write_1h = self.cache_write_1h.unwrap_or_default();
        // `message_delta` repeats the sum, but not how it is split
        let rest = self.cache_write.unwrap_or_default();
        let rest = rest.saturating_sub(cache_write_1h);
        Tokens {
            input: self.input.unwrap_or_default(),
            output: self.output.unwrap_or_default(),
            cache_read: self.cache_read.unwrap_or_default(),
            cache_write_5m: self.cache_write_5m.unwrap_or_default().max(rest),
            cache_write_1h,
        }
    }
}

impl Tally {
    /// An event of this kind has ended.
    pub(super) fn event(&mut self, kind: Kind, read: Read) {
        match kind {
            Kind::Start => {
                self.model = read.model.or(self.model.take());
                self.counts.update(read.counts);
            }
            Kind::Delta => {
                self.stop_reason = read.stop_reason.or(self.stop_reason.take());
                self.counts.update(read.counts);
            }
            Kind::Error => self.error_type = read.error_type.or(self.error_type.take()),
            Kind::Token | Kind::Other | Kind::Unnamed => {}
        }
    }

    /// An answer has ended, or what there is of it.
    pub(super) fn answer(&mut self, read: Read) {
        self.model = read.model;
        self.stop_reason = read.stop_reason;
        self.error_type = read.error_type;
        self.counts = read.counts;
    }

    /// The record of it.
    pub(super) fn usage(self, is_stream: bool, failure: Option<MeteringFailure>) -> Usage {
        Usage {
            model: self.model,
            is_stream,
            max_tokens: None,
            tokens: self.counts.tokens(),
            server_tools: self.counts.server_tools.unwrap_or_default(),
            stop_reason: self.stop_reason,
            error_type: self.error_type,
            failure,
            cost: None,
        }
    }
}

/// No generation uses more of anything: a larger number is not believed, so that sums stay far from
/// the end of a `u64` (10¹² × 10⁷ exchanges).
const MOST: u64 = 1_000_000_000_000;
