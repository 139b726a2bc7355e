//! A request for the upstream: a serialized head, and a body that is in memory or still arriving.

use std::{rc::Rc, time::Duration};

use actix_web::{dev::Payload, http::Method};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{pieces::Pieces, replay::ReplayBuffer};
use crate::wire::{
    head::{BodyNotes, ResponseHead, tokens},
    role::Role,
    verification::UpstreamEdges,
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
    /// Keeps the body, if another upstream may need it.
    pub keep: Option<Box<ReplayBuffer>>,
    /// Asks for the times of its connection in the response.
    pub is_watched: bool,
    /// Digests of this attempt, of an exchange that is verified.
    pub edges: Option<Rc<UpstreamEdges>>,
}

/// A request body.
#[derive(Debug)]
pub enum Body {
    /// None.
    None,
    /// Complete in memory.
    Held(BufferedBody),
    /// Streamed as it arrives.
    Streamed(StreamedBody),
    /// Raw bytes after a 101, and nothing after another answer. Only HTTP/1.1 can carry it: such a
    /// request needs a connection on which that was agreed.
    Tunnel(Switch),
}

/// Protocols that one answer may name.
const MOST_CHOSEN: usize = 16;

/// A request to switch protocols, and the bytes that follow it (RFC 9110 §7.8).
pub struct Switch {
    /// The protocols that were asked for, as a list.
    pub protocols: Bytes,
    /// The bytes that the client sends after its head. Not read before the upstream agrees: if it
    /// does not, they are the client's next request.
    pub payload: Payload,
    /// The counters of its bytes.
    pub notes: Rc<BodyNotes>,
}

impl Switch {
    /// Tells if a 101 agrees to the request: it names a protocol of the list, in any version, and
    /// nothing else. The number of chosen protocols is bounded, since comparing many with many
    /// would take long.
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

    /// Turns the request into raw bytes, since the upstream agreed.
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
    /// The content that was read before the decision to stream.
    pub first: Pieces,
    /// The rest.
    pub payload: Payload,
    /// Its framing towards the upstream.
    pub coding: BodyCoding,
    /// Tells if it waits for `100 Continue`.
    pub go_ahead: Continue,
    /// The place of its trailer section, once it has ended.
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

/// The framing of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCoding {
    /// As it is: under a `Content-Length`, or in a tunnel.
    Length,
    /// In chunks.
    Chunked,
}

/// Expectation of `100 Continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continue {
    /// The client sends on its own.
    NotExpected,
    /// The client, and so the body, waits for the upstream's interim response.
    Expected,
}
