//! What is asked of the upstream: a head that is written already, and a body that is here or still
//! arriving.

use std::{rc::Rc, time::Duration};

use actix_web::{dev::Payload, http::Method};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::{framing::head::BodyNotes, upstream::replay::Keep};

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
    pub keep: Option<Keep>,
}

/// A request body.
#[derive(Debug)]
pub enum Body {
    /// None.
    None,
    /// Complete in memory.
    Held(Held),
    /// As it comes.
    Streamed(Incoming),
}

/// A request body that has arrived.
#[derive(Debug)]
pub struct Held {
    /// The content.
    pub content: Pieces,
    /// Its framing towards the upstream.
    pub coding: Coding,
    /// Its raw trailer section, which a chunked body may have.
    pub trailers: Option<Bytes>,
}

/// Content in order, in one or more pieces.
pub type Pieces = SmallVec<[Bytes; 4]>;

/// A request body that is still arriving.
pub struct Incoming {
    /// What was read before it was decided to stream.
    pub first: Pieces,
    /// The rest.
    pub payload: Payload,
    /// Its framing towards the upstream.
    pub coding: Coding,
    /// Whether it waits for the upstream's word.
    pub go_ahead: Continue,
    /// Where its trailer section will be.
    pub notes: Rc<BodyNotes>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("coding", &self.coding)
            .field("go_ahead", &self.go_ahead)
            .finish_non_exhaustive()
    }
}

/// How a request body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is, under a `Content-Length`.
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
