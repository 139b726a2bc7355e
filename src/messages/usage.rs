//! Metering: what an answer to `POST /v1/messages` says that it used, read from a copy as it passes.
//!
//! A [`Tap`] is shown each chunk of the answer's content and keeps none of it. It undoes the content
//! coding (`coding`), finds the events of a stream (`events`), and reads the few that matter, or the one
//! JSON answer, member by member (`walk`, `place`). Nearly all events are `content_block_delta`: of those
//! it looks at the name and for the end. Nothing here can change, delay or end an answer: why one cannot
//! be read is its record's `failure`.
//!
//! Memory is bounded whatever comes: nothing is kept of an answer but strings of note, of at most 128
//! octets; nesting costs a bit a level, up to 64 KiB; decoders have their window, and all of them 256 MiB
//! together (`budget`, `coding`). An answer for which there is none left is metered as far as it came.

use std::ops::ControlFlow;

use bytes::Bytes;

use self::{
    budget::{Budget, DECODERS},
    coding::Decoder,
    events::Events,
    place::{Found, Place},
    tally::{Read, Tally},
    walk::Walk,
};
use crate::record::{MeteringFailure, Usage};

mod budget;
mod coding;
mod events;
mod look;
mod place;
mod tail;
mod tally;
mod walk;

pub(super) use self::look::LONGEST_VALUE;
pub use self::look::{Asked, Look};

/// Reads one answer along.
#[derive(Debug)]
pub struct Tap {
    /// What undoes the codings, in this order; none if there is nothing to undo, or it cannot be.
    decoders: Vec<Decoder>,
    content: Content,
    tally: Tally,
    failure: Option<MeteringFailure>,
}

/// What the answer is.
#[derive(Debug)]
enum Content {
    /// `text/event-stream`
    Events(Events),
    /// JSON
    Answer { walk: Walk, read: Read },
    /// Neither.
    Unread,
}

impl Tap {
    /// From the answer's fields: its media type and its content coding. None where there is nothing
    /// that we can meter: no stream of events and no JSON, or in a coding that we do not know.
    pub fn new(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> Option<Self> {
        Self::within(&DECODERS, content_type, content_encoding)
    }

    /// The same from its status, too: where a success cannot be metered, that is a failure to meter.
    pub fn of(
        status: u16,
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
    ) -> Option<Self> {
        let has_content = matches!(status, 200..=203 | 206..=299);
        Self::new(content_type, content_encoding)
            .or_else(|| has_content.then(|| Self::failed(MeteringFailure::Coding)))
    }

    fn within(
        budget: &'static Budget,
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
    ) -> Option<Self> {
        let content_type = content_type?;
        let media_type = content_type.split(|&octet| octet == b';').next()?;
        let media_type = media_type.trim_ascii();
        let content = if media_type.eq_ignore_ascii_case(b"text/event-stream") {
            Content::Events(Events::new())
        } else if !media_type.is_empty() && super::is_json(content_type) {
            Content::Answer {
                walk: Walk::new(Place::Answer),
                read: Read::default(),
            }
        } else {
            return None;
        };
        match Decoder::of(content_encoding, budget) {
            Ok(decoders) => Some(Self {
                decoders,
                content,
                tally: Tally::default(),
                failure: None,
            }),
            Err(MeteringFailure::Coding) => None,
            Err(failure) => Some(Self::failed(failure)),
        }
    }

    /// Of an answer that is not read.
    fn failed(failure: MeteringFailure) -> Self {
        Self {
            decoders: Vec::new(),
            content: Content::Unread,
            tally: Tally::default(),
            failure: Some(failure),
        }
    }

    /// A chunk of the answer's content as it passes. True once: with it the first
    /// `content_block_delta` was complete.
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

    /// What was read, as far as it came. (`cost` is left to who has the prices.)
    pub fn finish(self) -> Usage {
        let (is_stream, is_broken) = match &self.content {
            Content::Events(events) => (true, events.is_broken()),
            Content::Answer { walk, .. } => (false, walk.is_invalid()),
            Content::Unread => (false, false),
        };
        let mut tally = self.tally;
        if let Content::Answer { read, .. } = self.content {
            tally.answer(read);
        }
        let broken = is_broken.then_some(MeteringFailure::Broken);
        tally.usage(is_stream, self.failure.or(broken))
    }
}

impl Content {
    /// Octets without a content coding. True if the first delta ended in them.
    #[inline]
    fn push(&mut self, plain: &[u8], tally: &mut Tally) -> bool {
        match self {
            Self::Events(events) => events.push(plain, tally),
            Self::Answer { walk, read } => {
                walk.walk(plain, &mut |found: Found<'_>| {
                    read.take(found);
                    ControlFlow::Continue(())
                });
                false
            }
            Self::Unread => false,
        }
    }
}

#[cfg(test)]
mod tests;
