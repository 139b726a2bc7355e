//! What is asked of the upstream: a head that is written already, and a body that is here or still
//! arriving.

use std::{rc::Rc, time::Duration};

use actix_web::{dev::Payload, http::Method};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{pieces::Pieces, replay::ReplayBuffer};
use crate::wire::{
    head::{BodyNotes, ResponseHead, tokens},
    role::Role,
};

/// A request to be sent.
#[derive(Debug)]
pub struct Request {
    /// The whole head, up to and with the empty line.
    pub head: Bytes,
    /// The method, which decides whether the response has a body.
    pub method: Method,
    /// The body.
    pub body: Body,
    /// Time for the response head, counted from the last octet of the request that left.
    pub patience: Duration,
    /// Keeps the body, where another upstream may need it.
    pub keep: Option<Box<ReplayBuffer>>,
    /// Whether somebody wants to know how it got its connection.
    pub is_watched: bool,
}

/// A request body.
#[derive(Debug)]
pub enum Body {
    /// None.
    None,
    /// Complete in memory.
    Held(BufferedBody),
    /// As it comes.
    Streamed(StreamedBody),
    /// Whatever comes after a 101, and nothing after another answer. Only HTTP/1.1 can carry it: such a
    /// request needs a connection on which that was agreed.
    Tunnel(Switch),
}

/// Protocols that one answer may name.
const MOST_CHOSEN: usize = 16;

/// What a request to switch protocols asks, and what will follow it (RFC 9110 §7.8).
pub struct Switch {
    /// The protocols that were asked for, as a list.
    pub protocols: Bytes,
    /// What the client sends after its head. Not touched before the upstream agrees: if it does not,
    /// this is not its to read.
    pub payload: Payload,
    /// Where its octets are counted.
    pub notes: Rc<BodyNotes>,
}

impl Switch {
    /// Whether a 101 is an answer to what was asked: it names a protocol of the list, whatever the
    /// version, and nothing else. Nobody switches to many at once, and comparing many with many would
    /// take long.
    pub(super) fn agrees(&self, answer: &ResponseHead) -> bool {
        let name = |token: &[u8]| {
            let end = token.iter().position(|&octet| octet == b'/');
            token[..end.unwrap_or(token.len())].to_ascii_lowercase()
        };
        let asked: SmallVec<[Vec<u8>; 2]> = tokens(&self.protocols).map(name).collect();
        let mut chosen = answer
            .fields
            .iter()
            .filter(|field| field.role() == Role::Upgrade)
            .flat_map(|field| tokens(field.value))
            .enumerate()
            .peekable();
        chosen.peek().is_some()
            && chosen.all(|(index, token)| index < MOST_CHOSEN && asked.contains(&name(token)))
    }

    /// The upstream agreed: the rest of the request is raw octets.
    pub(super) fn open(self) -> StreamedBody {
        StreamedBody {
            first: Pieces::new(),
            payload: self.payload,
            coding: BodyCoding::Length,
            go_ahead: Continue::NotExpected,
            notes: self.notes,
        }
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch")
            .field("protocols", &self.protocols)
            .finish_non_exhaustive()
    }
}

/// A request body that has arrived.
#[derive(Debug)]
pub struct BufferedBody {
    /// The content.
    pub content: Pieces,
    /// Its framing towards the upstream.
    pub coding: BodyCoding,
    /// Its raw trailer section, which a chunked body may have.
    pub trailers: Option<Bytes>,
}

/// A request body that is still arriving.
pub struct StreamedBody {
    /// What was read before it was decided to stream.
    pub first: Pieces,
    /// The rest.
    pub payload: Payload,
    /// Its framing towards the upstream.
    pub coding: BodyCoding,
    /// Whether it waits for the upstream's word.
    pub go_ahead: Continue,
    /// Where its trailer section will be.
    pub notes: Rc<BodyNotes>,
}

impl std::fmt::Debug for StreamedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamedBody")
            .field("coding", &self.coding)
            .field("go_ahead", &self.go_ahead)
            .finish_non_exhaustive()
    }
}

/// How a request body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCoding {
    /// As it is: under a `Content-Length`, or in a tunnel.
    Length,
    /// In chunks.
    Chunked,
}

/// Whether the body waits for `100 Continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continue {
    /// The client sends on its own.
    NotExpected,
    /// The client waits for the upstream's word, and so does the body.
    Expected,
}
