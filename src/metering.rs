//! Metering: usage in responses to `POST /v1/messages`, read from a copy as it passes.
//!
//! A [`UsageReader`] gets each chunk of the response's content and keeps none of it. It decodes the
//! content coding (`coding`), splits a stream into events (`events`), and reads the few that have
//! usage, or the one JSON response, member by member (`walk`, `members`, `value`). Nearly all events are
//! `content_block_delta`: their name and end are found and their bytes counted. Nothing here can
//! change, delay or end a response: a response that cannot be read has a `failure` in its usage.
//!
//! Memory is bounded: only known strings are kept, of at most 128 bytes; nesting costs a bit a
//! level, up to 64 KiB; decoders have their window, and share 256 MiB (`coding`). A
//! response without memory left for its decoder is metered as far as it came.

use std::ops::ControlFlow;

use bytes::Bytes;

use self::{
    accumulator::{EventUsage, UsageAccumulator},
    coding::ContentDecoder,
    events::SseEvents,
    members::ObjectPath,
    walk::JsonWalk,
};
use crate::{
    exchange::{Estimate, MeteringFailure, Tokens, Usage},
    json::is_json,
    memory::Budget,
};

mod accumulator;
mod coding;
mod counts;
mod events;
mod inspector;
mod iterations;
mod members;
mod model_watch;
mod prompt;
mod tail;
mod value;
mod walk;

pub(crate) use self::members::MemberValue;
pub use self::{
    inspector::{RequestDetails, RequestInspector},
    model_watch::{InvalidModel, ModelWatch, WatchedModel},
    prompt::PromptDigester,
};

/// Reader of the usage in one response, from a copy as it passes.
#[derive(Debug)]
pub struct UsageReader {
    /// Decoders of the content codings, in order of use; none if the content is not coded, or
    /// cannot be decoded.
    decoders: Vec<ContentDecoder>,
    content: MeteredContent,
    tally: UsageAccumulator,
    failure: Option<MeteringFailure>,
    /// True if the response is a success, which should have usage.
    is_success: bool,
    /// True once all of the content has come.
    has_ended: bool,
}

/// Reader of the response, by its media type.
#[derive(Debug)]
enum MeteredContent {
    /// `text/event-stream`
    Events(SseEvents),
    /// JSON
    Answer { walk: JsonWalk, read: EventUsage },
    /// Content that is not read.
    Unread,
}

impl UsageReader {
    /// Makes a reader by the media type and content coding of a response. None if the content
    /// cannot be metered: it is neither an event stream nor JSON, or its coding is unknown.
    pub fn new(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> Option<Box<Self>> {
        Self::within(&coding::DECODERS, content_type, content_encoding)
    }

    /// Makes a reader by the status, too: a success that cannot be metered becomes a metering
    /// failure.
    pub fn of(
        status: u16,
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
    ) -> Option<Box<Self>> {
        let has_content = matches!(status, 200..=203 | 206..=299);
        let mut tap = Self::new(content_type, content_encoding)
            .or_else(|| has_content.then(|| Self::failed(MeteringFailure::Coding)))?;
        tap.is_success = has_content;
        Some(tap)
    }

    /// Makes a reader of what a response costs alone: as [`UsageReader::of`], without the stop reason of an
    /// answer that is no stream.
    pub fn of_cost(
        status: u16,
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
    ) -> Option<Box<Self>> {
        let mut tap = Self::of(status, content_type, content_encoding)?;
        if let MeteredContent::Answer { walk, .. } = &mut tap.content {
            walk.restart(ObjectPath::PaidAnswer);
        }
        Some(tap)
    }

    fn within(
        budget: &'static Budget,
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
    ) -> Option<Box<Self>> {
        let content = MeteredContent::of(content_type?)?;
        match ContentDecoder::of(content_encoding, budget) {
            Ok(decoders) => Some(Box::new(Self {
                decoders,
                content,
                tally: UsageAccumulator::default(),
                failure: None,
                is_success: true,
                has_ended: false,
            })),
            Err(MeteringFailure::Coding) => None,
            Err(failure) => Some(Self::failed(failure)),
        }
    }

    /// Makes a reader of a response that cannot be read.
    fn failed(failure: MeteringFailure) -> Box<Self> {
        Box::new(Self {
            decoders: Vec::new(),
            content: MeteredContent::Unread,
            tally: UsageAccumulator::default(),
            failure: Some(failure),
            is_success: true,
            has_ended: false,
        })
    }

    /// Reads a chunk of the response's content. Returns true once, for the chunk that completes the
    /// first `content_block_delta`.
    #[inline]
    pub fn push(&mut self, content: &Bytes) -> bool {
        if self.failure.is_some() {
            return false;
        }
        if self.decoders.is_empty() {
            return self.content.push(content, &mut self.tally);
        }
        self.decode(content)
    }

    #[inline(never)]
    fn decode(&mut self, content: &Bytes) -> bool {
        let (mut is_first, tally, reader) = (false, &mut self.tally, &mut self.content);
        let mut show = |plain: &[u8]| is_first |= reader.push(plain, tally);
        let outcome = match &mut self.decoders[..] {
            [] => Ok(()),
            [decoder] => decoder.decode(content, &mut show),
            [outer, inner, ..] => {
                let mut outcome = Ok(());
                let outers = outer.decode(content, &mut |half| {
                    if outcome.is_ok() {
                        outcome = inner.decode(half, &mut show);
                    }
                });
                outers.and(outcome)
            }
        };
        if let Err(failure) = outcome {
            self.failure = Some(failure);
            // their memory is of use to others
            self.decoders = Vec::new();
        }
        is_first
    }

    /// Records that all of the content has come, as the framing says: an event or value that has
    /// not ended is truncated.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// The tokens reported so far, and the number of `content_block_delta` events that passed.
    pub fn so_far(&self) -> (Tokens, u64) {
        let deltas = match &self.content {
            MeteredContent::Events(events) => events.deltas(),
            MeteredContent::Answer { .. } | MeteredContent::Unread => 0,
        };
        (self.tally.tokens(), deltas)
    }

    /// Usage that was read so far, and the beginning of the content of an error in it. (`cost` is
    /// left to the prices.)
    pub fn finish(&mut self) -> (Usage, Vec<u8>) {
        let is_cut = self.decoders.iter().any(|decoder| !decoder.is_complete())
            || match &self.content {
                MeteredContent::Events(events) => events.is_cut(),
                MeteredContent::Answer { walk, .. } => !walk.is_complete(),
                MeteredContent::Unread => false,
            };
        let tally = &mut self.tally;
        let (is_stream, is_broken, passed) = match &mut self.content {
            MeteredContent::Events(events) => (true, events.is_broken(), events.estimate()),
            MeteredContent::Answer { walk, read } => {
                tally.answer(read, walk.is_complete());
                (false, walk.is_invalid(), None)
            }
            MeteredContent::Unread => (false, false, None),
        };
        let (is_final, has_error) = (tally.is_final(), tally.has_error());
        let is_missing = self.is_success && !tally.has_usage() && !has_error;
        let failure = self
            .failure
            .or(is_broken.then_some(MeteringFailure::Broken))
            .or((self.has_ended && is_cut).then_some(MeteringFailure::Truncated))
            .or((self.has_ended && is_missing).then_some(MeteringFailure::Missing));
        let words = std::mem::take(&mut tally.words);
        let known = tally.output();
        let mut usage = tally.usage(is_stream, failure);
        // an error that came first is all that there was
        let is_nothing = has_error && usage.tokens == Tokens::default();
        usage.at_least = self.is_success && (!is_final || usage.failure.is_some()) && !is_nothing;
        if usage.at_least && !is_final {
            usage.estimate = passed.map(|output| Estimate {
                output: output.max(known),
                cost: None,
            });
        }
        (usage, words)
    }
}

impl MeteredContent {
    /// Makes a reader by the media type; none if there is none for it.
    fn of(content_type: &[u8]) -> Option<Self> {
        let media_type = || {
            let media_type = content_type.split(|&octet| octet == b';').next();
            media_type.unwrap_or_default().trim_ascii()
        };
        // as nearly all answers that are no stream have it
        let is_plain = content_type == b"application/json";
        if !is_plain && media_type().eq_ignore_ascii_case(b"text/event-stream") {
            return Some(Self::Events(SseEvents::new()));
        }
        let is_read = is_plain || !media_type().is_empty() && is_json(content_type);
        is_read.then(|| Self::Answer {
            walk: JsonWalk::new(ObjectPath::Answer),
            read: EventUsage::default(),
        })
    }

    /// Reads bytes without a content coding. Returns true if the first delta ended in them.
    #[inline]
    fn push(&mut self, plain: &[u8], tally: &mut UsageAccumulator) -> bool {
        match self {
            Self::Events(events) => events.push(plain, tally),
            Self::Answer { walk, read } => {
                walk.walk(plain, |found| {
                    read.take(found);
                    ControlFlow::Continue(())
                });
                read.keep_words(plain);
                false
            }
            Self::Unread => false,
        }
    }
}

/// Content without its codings; none if one is unknown, it is broken or cut, or longer than `longest` bytes.
pub fn decoded(content: &[u8], codings: Option<&[u8]>, longest: usize) -> Option<Vec<u8>> {
    let mut decoders = ContentDecoder::of(codings, &coding::DECODERS).ok()?;
    let mut plain = content.to_vec();
    for decoder in &mut decoders {
        let coded = std::mem::take(&mut plain);
        // in pieces, so that a bomb is given up early
        for piece in coded.chunks(DECODED_AT_ONCE) {
            decoder
                .decode(piece, &mut |more| plain.extend_from_slice(more))
                .ok()?;
            if plain.len() > longest {
                return None;
            }
        }
        if !decoder.is_complete() {
            return None;
        }
    }
    Some(plain)
}

/// Bytes of a coded content that are decoded before its length is looked at.
const DECODED_AT_ONCE: usize = 4 * 1024;

#[cfg(test)]
mod tests;
