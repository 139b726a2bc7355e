//! Metering: what an answer to `POST /v1/messages` says that it used, read from a copy as it passes.
//!
//! A [`Tap`] is shown each chunk of the answer's content and keeps none of it. It undoes the content
//! coding (`coding`), finds the events of a stream (`events`), and reads the few that matter, or the one
//! JSON answer, member by member (`walk`, `place`). Nearly all events are `content_block_delta`: of those
//! it looks at the name and for the end. Nothing here can change, delay or end an answer: what cannot be
//! read is `is_broken`.
//!
//! Memory is bounded whatever comes: nothing is kept of an answer but strings of note, of at most 128
//! octets; nesting costs a bit a level, up to 64 KiB; decoders have their window.

use std::ops::ControlFlow;

use bytes::Bytes;

use self::{
    coding::Decoder,
    events::Events,
    place::{Found, Place},
    tally::{Read, Tally},
    walk::Walk,
};
use crate::record::Usage;

mod coding;
mod events;
mod look;
mod place;
mod tally;
mod walk;

pub use self::look::{Asked, Look};

/// Reads one answer along.
#[derive(Debug)]
pub struct Tap {
    decoder: Option<Decoder>,
    content: Content,
    tally: Tally,
    is_broken: bool,
}

/// What the answer is.
#[derive(Debug)]
enum Content {
    /// `text/event-stream`
    Events(Events),
    /// JSON
    Answer { walk: Walk, read: Read },
}

impl Tap {
    /// From the answer's fields: its media type and its content coding. None where there is nothing
    /// to meter: no stream of events and no JSON, or in a coding that we do not know.
    pub fn new(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> Option<Self> {
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
        Some(Self {
            decoder: Decoder::of(content_encoding)?,
            content,
            tally: Tally::default(),
            is_broken: false,
        })
    }

    /// A chunk of the answer's content as it passes. True once: with it the first
    /// `content_block_delta` was complete.
    #[inline]
    pub fn push(&mut self, content: &Bytes) -> bool {
        let Some(decoder) = &mut self.decoder else {
            return self.content.push(content, &mut self.tally);
        };
        if self.is_broken {
            return false;
        }
        let (mut is_first, tally, reader) = (false, &mut self.tally, &mut self.content);
        let decoded = decoder.decode(content, &mut |plain| is_first |= reader.push(plain, tally));
        if decoded.is_err() {
            self.is_broken = true;
            decoder.release();
        }
        is_first
    }

    /// What was read, as far as it came. (`cost` is left to who has the prices.)
    pub fn finish(self) -> Usage {
        let (is_stream, is_broken) = match &self.content {
            Content::Events(events) => (true, events.is_broken()),
            Content::Answer { walk, .. } => (false, walk.is_invalid()),
        };
        let mut tally = self.tally;
        if let Content::Answer { read, .. } = self.content {
            tally.answer(read);
        }
        tally.usage(is_stream, self.is_broken || is_broken)
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
        }
    }
}

#[cfg(test)]
mod tests;
