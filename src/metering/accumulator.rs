//! Accumulates the usage in the events of a stream, or in one JSON response.
//!
//! Counts are cumulative and never fall: of two events the larger count is right. A value that
//! should be a count and is none becomes a metering failure, and not a zero.

use std::mem;

use super::{
    counts::UsageCounts,
    iterations::Iterations,
    members::{Match, MemberValue, ObjectPath},
    value,
};
use crate::exchange::{MeteringFailure, Terms, Tokens, Usage};

/// Usage as one event or one response states it.
#[derive(Debug, Default)]
pub(super) struct EventUsage {
    /// Kind of the event by its `type`.
    pub(super) kind: EventKind,
    /// The beginning of the content of what is an error or may be one, as it came.
    pub(super) words: Vec<u8>,
    model: Option<Box<str>>,
    stop_reason: Option<Box<str>>,
    error_type: Option<Box<str>>,
    error_code: Option<Box<str>>,
    has_error: bool,
    has_usage: bool,
    counts: UsageCounts,
    terms: Terms,
    /// Boxed: rarely there.
    iterations: Option<Box<Iterations>>,
    /// True if a count could not be read.
    is_unread: bool,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum EventKind {
    /// No name.
    #[default]
    Unnamed,
    /// `message_start`
    Start,
    /// `message_delta`
    Delta,
    /// `message_stop`
    Stop,
    /// `error`
    Error,
    /// `content_block_delta`
    Token,
    /// An event without usage: the beginning or end of a content block, `ping`.
    Other,
    /// An event that the API does not document: it may have an `error`.
    Unknown,
}

/// Usage of the response so far.
#[derive(Debug, Default)]
pub(super) struct UsageAccumulator {
    /// The beginning of the content of an error.
    pub(super) words: Vec<u8>,
    model: Option<Box<str>>,
    stop_reason: Option<Box<str>>,
    error_type: Option<Box<str>>,
    counts: UsageCounts,
    terms: Terms,
    iterations: Option<Box<Iterations>>,
    has_usage: bool,
    is_unread: bool,
    /// True once the last counts were read.
    is_final: bool,
}

impl EventKind {
    /// The kind of an event of this name.
    #[inline]
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"content_block_delta" => Self::Token,
            b"message_start" => Self::Start,
            b"message_delta" => Self::Delta,
            b"message_stop" => Self::Stop,
            b"error" => Self::Error,
            b"content_block_start" | b"content_block_stop" | b"ping" => Self::Other,
            // what an event without a name is called (WHATWG HTML §9.2.6)
            b"" | b"message" => Self::Unnamed,
            _ => Self::Unknown,
        }
    }

    /// Reports whether an event of this kind is read.
    #[inline]
    pub(super) fn is_read(self) -> bool {
        match self {
            Self::Start | Self::Delta | Self::Error | Self::Unnamed | Self::Unknown => true,
            Self::Token | Self::Stop | Self::Other => false,
        }
    }
}

impl EventUsage {
    /// Takes one match. The last of duplicates counts; `null` is ignored.
    pub(super) fn take(&mut self, found: Match<'_>) {
        match found {
            Match::Object(ObjectPath::Usage) => self.has_usage = true,
            Match::Object(ObjectPath::Error) => self.has_error = true,
            Match::Object(ObjectPath::ServerTools) => {
                self.counts.server_tools = Some(0);
                self.counts.web_searches = None;
            }
            Match::Object(ObjectPath::Iterations) => self.iterations = Some(Box::default()),
            Match::Object(ObjectPath::Iteration) => {
                if let Some(iterations) = &mut self.iterations {
                    iterations.begin();
                }
            }
            Match::Left(ObjectPath::Iteration) => {
                if let Some(iterations) = &mut self.iterations {
                    iterations.end();
                }
            }
            Match::Text(MemberValue::Type, text) => {
                self.kind = match EventKind::of(text.as_bytes()) {
                    EventKind::Unnamed => EventKind::Unknown,
                    kind => kind,
                };
            }
            Match::Text(MemberValue::IterationType, text) => {
                if let Some(iterations) = &mut self.iterations {
                    iterations.is_of_type(&text);
                }
            }
            // an empty name is none
            Match::Text(MemberValue::Model, text) if value::is_blank(&text) => self.model(None),
            Match::Text(MemberValue::Model, text) => self.model(Some(&text)),
            Match::Text(MemberValue::StopReason, text) => self.stop_reason = Some(text.into()),
            Match::Text(MemberValue::ErrorType, text) => self.error_type = Some(text.into()),
            Match::Text(MemberValue::ErrorCode, text) => self.error_code = Some(text.into()),
            Match::Text(MemberValue::InferenceGeo, text) => {
                self.terms.inference_geo = Some(text.into())
            }
            Match::Text(MemberValue::Speed, text) => self.terms.speed = Some(text.into()),
            Match::Text(MemberValue::ServiceTier, text) => {
                self.terms.service_tier = Some(text.into())
            }
            Match::Number(leaf, number) => self.count(leaf, Some(number)),
            Match::Text(leaf, text) => self.count(leaf, value::whole(&text)),
            Match::Bool(leaf, _) | Match::Other(leaf) => self.count(leaf, None),
            Match::Object(_) | Match::Left(_) | Match::Null(_) => {}
        }
    }

    fn model(&mut self, model: Option<&str>) {
        match &mut self.iterations {
            Some(iterations) if iterations.is_open() => iterations.is_of_model(model),
            _ => self.model = model.map(Into::into),
        }
    }

    /// Takes a count, or records that a value is none.
    fn count(&mut self, leaf: MemberValue, number: Option<u64>) {
        if !leaf.is_count() {
            return;
        }
        let Some(number) = number.filter(|number| *number <= MOST) else {
            // what servers' tools tell besides is theirs
            self.is_unread |= leaf != MemberValue::ServerTool;
            return;
        };
        match &mut self.iterations {
            Some(iterations) if iterations.is_open() => iterations.counts().take(leaf, number),
            _ => self.counts.take(leaf, number),
        }
    }

    /// Reports whether the event has an error.
    pub(super) fn has_error(&self) -> bool {
        self.has_error || self.kind == EventKind::Error
    }

    /// Keeps the beginning of content that is or may be an error: nothing in it so far excludes
    /// one.
    pub(super) fn keep_words(&mut self, content: &[u8]) {
        let is_undecided = matches!(self.kind, EventKind::Unnamed | EventKind::Unknown)
            && self.model.is_none()
            && !self.has_usage;
        if !self.has_error() && !is_undecided {
            self.words.clear();
            return;
        }
        let room = MOST_WORDS.saturating_sub(self.words.len());
        let more = content.get(..room).unwrap_or(content);
        self.words.extend_from_slice(more);
    }
}

impl UsageAccumulator {
    /// Takes the usage of an event that has ended.
    pub(super) fn event(&mut self, kind: EventKind, read: EventUsage) {
        if kind == EventKind::Error || read.has_error {
            self.error(&read);
        }
        match kind {
            EventKind::Start => {
                self.model = read.model.or(self.model.take());
            }
            EventKind::Delta => {
                self.stop_reason = read.stop_reason.or(self.stop_reason.take());
                self.is_final |= read.counts.output.is_some();
            }
            EventKind::Stop => {
                self.is_final = true;
                return;
            }
            EventKind::Error => self.words = read.words,
            EventKind::Token | EventKind::Other | EventKind::Unnamed | EventKind::Unknown => {
                self.words = read.words;
                return;
            }
        }
        self.has_usage |= read.has_usage;
        self.is_unread |= read.is_unread;
        self.counts.update(read.counts);
        self.terms.update(read.terms);
        self.iterations = match (self.iterations.take(), read.iterations) {
            (Some(earlier), Some(later)) => Some(earlier.larger(later)),
            (earlier, later) => earlier.or(later),
        };
    }

    /// Takes the usage of a JSON response that has ended or broken off.
    pub(super) fn answer(&mut self, read: &mut EventUsage, is_whole: bool) {
        if read.has_error {
            self.error(read);
            self.words = mem::take(&mut read.words);
        }
        self.model = read.model.take();
        self.stop_reason = read.stop_reason.take();
        self.counts = read.counts;
        self.terms = mem::take(&mut read.terms);
        self.iterations = read.iterations.take();
        self.has_usage = read.has_usage;
        self.is_unread = read.is_unread;
        self.is_final = is_whole;
    }

    /// Names the error by its type, else by its code, else `error`.
    fn error(&mut self, read: &EventUsage) {
        let name = read.error_type.as_ref().or(read.error_code.as_ref());
        self.error_type = Some(name.map_or_else(|| ERROR.into(), Clone::clone));
    }

    /// Reports whether there was an error.
    pub(super) fn has_error(&self) -> bool {
        self.error_type.is_some()
    }

    /// Reports whether the last counts were read.
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }

    /// Reports whether there was a `usage`.
    pub(super) fn has_usage(&self) -> bool {
        self.has_usage
    }

    /// Output tokens reported so far.
    pub(super) fn output(&self) -> u64 {
        self.counts.output.unwrap_or_default()
    }

    /// The tokens reported so far.
    pub(super) fn tokens(&self) -> Tokens {
        self.counts.tokens()
    }

    /// Usage of the response.
    pub(super) fn usage(&mut self, is_stream: bool, failure: Option<MeteringFailure>) -> Usage {
        let iterations = self.iterations.take();
        let is_unread = self.is_unread || iterations.as_ref().is_some_and(|it| it.is_unread());
        let iterations = iterations.map(|it| it.finish());
        let (compactions, others) = iterations.unwrap_or_default();
        Usage {
            model: self.model.take(),
            is_stream,
            max_tokens: None,
            tokens: self.counts.tokens(),
            compactions,
            others,
            server_tools: self.counts.server_tools.unwrap_or_default(),
            web_searches: self.counts.web_searches.unwrap_or_default(),
            terms: mem::take(&mut self.terms),
            stop_reason: self.stop_reason.take(),
            error_type: self.error_type.take(),
            failure: failure.or(is_unread.then_some(MeteringFailure::Value)),
            cost: None,
            at_least: false,
            estimate: None,
        }
    }
}

/// Type of an error without a type.
const ERROR: &str = "error";
/// Most bytes kept of an error's content: error texts of the API are shorter.
const MOST_WORDS: usize = 2 * 1000;
/// Largest count that is accepted: no generation uses more, and sums stay far below the end of a
/// `u64` (10¹² × 10⁷ exchanges).
const MOST: u64 = 1_000_000_000_000;
