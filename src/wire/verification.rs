//! Digests of an exchange's content at the edges of the process (`VERIFY`).
//!
//! An [`Edge`] stands at each of four places: where octets come from the client's socket, where they go into the
//! upstream's, and the same for the response. Over HTTP/1.1 it gets what the kernel gave or took, on the clear side
//! of TLS, and finds the content by a reader of framing that shares no code with [`super::body`]. Over HTTP/2 it
//! gets the content of DATA frames. Between a pair of edges lies all that is ours: parsing, buffers, metering, edit,
//! replay and framing.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
};

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use super::body::Framing;
use crate::exchange::{ContentDigest, EditedSpan, Identity, VerifiedContent, VerifiedExchange};

/// The edges of one exchange.
#[derive(Debug, Default)]
pub struct Verification {
    /// The request, from the client.
    pub request: Rc<Edge>,
    /// The response, to the client.
    pub response: Rc<Edge>,
    /// The upstream's side of the last attempt, or of the one whose response is relayed.
    upstream: RefCell<Option<Rc<UpstreamEdges>>>,
    edited: RefCell<Option<EditedContent>>,
    /// True if the response is not the upstream's as it came.
    is_own: Cell<bool>,
}

/// The upstream's side of one attempt.
#[derive(Debug)]
pub struct UpstreamEdges {
    /// The request, to the upstream.
    pub sent: Rc<Edge>,
    /// The response, from the upstream.
    pub received: Rc<Edge>,
    /// Framing of the request to the upstream.
    pub framing: Framing,
}

/// The body that was edited, as it was held.
#[derive(Debug)]
struct EditedContent {
    span: EditedSpan,
    whole: ContentDigest,
    outside: ContentDigest,
}

impl Verification {
    /// Begins an exchange whose request has this framing.
    pub fn begin(framing: Framing) -> Rc<Self> {
        let verification = Self::default();
        verification.request.begin(framing, 0);
        Rc::new(verification)
    }

    /// Edges for an attempt to send the request with this framing.
    pub fn attempt(&self, framing: Framing) -> Rc<UpstreamEdges> {
        let edges = Rc::new(UpstreamEdges {
            sent: Rc::default(),
            received: Rc::default(),
            framing,
        });
        if let Some(edited) = &*self.edited.borrow() {
            let start = edited.span.replaced.start;
            edges.sent.skip(start..start + edited.span.inserted);
        }
        self.upstream.replace(Some(Rc::clone(&edges)));
        edges
    }

    /// The response of this attempt is relayed.
    pub fn relays(&self, edges: &Rc<UpstreamEdges>) {
        self.upstream.replace(Some(Rc::clone(edges)));
    }

    /// The response is not the upstream's as it came: there is nothing to compare it with.
    pub fn answers_itself(&self) {
        self.is_own.set(true);
    }

    /// The body, which was held, is edited: `inserted` octets stand in place of `replaced`.
    pub fn edits(&self, held: &[Bytes], replaced: Range<u64>, inserted: u64) {
        let edge = Edge::default();
        edge.begin(Framing::None, 0);
        edge.skip(replaced.clone());
        held.iter().for_each(|piece| edge.content(piece));
        let state = edge.0.borrow();
        let (whole, outside) = (state.whole(), state.outside());
        self.edited.replace(Some(EditedContent {
            span: EditedSpan { replaced, inserted },
            whole,
            outside,
        }));
    }

    /// The outcome. `is_complete` tells if the whole response reached the client.
    pub fn outcome(&self, is_complete: bool) -> VerifiedExchange {
        let upstream = self.upstream.borrow();
        let upstream = upstream.as_deref();
        let response = upstream.filter(|_| !self.is_own.get()).and_then(|edges| {
            let (received, sent) = (edges.received.0.borrow(), self.response.0.borrow());
            let is_whole = is_complete || sent.is_ended;
            received
                .is_begun
                .then(|| compared(received.whole(), sent.whole(), is_whole))
        });
        VerifiedExchange {
            request: upstream.and_then(|edges| self.request_outcome(edges)),
            response,
        }
    }

    fn request_outcome(&self, edges: &UpstreamEdges) -> Option<VerifiedContent> {
        let (received, sent) = (self.request.0.borrow(), edges.sent.0.borrow());
        if !sent.is_begun {
            return None;
        }
        let (came, went) = (received.whole(), sent.whole());
        let Some(edited) = &*self.edited.borrow() else {
            return Some(compared(came, went, sent.is_ended));
        };
        let outside = compared(edited.outside, sent.outside(), sent.is_ended);
        Some(VerifiedContent {
            identity: match edited.whole == came {
                true => outside.identity,
                false => Identity::Differs,
            },
            received: came,
            sent: went,
            edit: Some(edited.span.clone()),
        })
    }
}

fn compared(received: ContentDigest, sent: ContentDigest, is_whole: bool) -> VerifiedContent {
    let identity = if received == sent {
        Identity::Same
    } else if is_whole || sent.octets >= received.octets {
        Identity::Differs
    } else {
        Identity::Incomplete
    };
    VerifiedContent {
        identity,
        received,
        sent,
        edit: None,
    }
}

/// A place where content enters or leaves the process.
#[derive(Debug, Default)]
pub struct Edge(RefCell<EdgeState>);

struct EdgeState {
    unframer: Unframer,
    digest: Context,
    octets: u64,
    /// A part of the content, and the digest of the rest.
    skipped: Option<(Range<u64>, Box<Context>)>,
    is_begun: bool,
    /// True once the end of the content passed.
    is_ended: bool,
}

impl Edge {
    /// Begins, or begins anew, with content of this framing after `head` other octets.
    pub fn begin(&self, framing: Framing, head: usize) {
        let state = &mut *self.0.borrow_mut();
        let skipped = state.skipped.take();
        *state = EdgeState {
            unframer: Unframer::new(framing, head),
            skipped: skipped.map(|(range, _)| (range, Box::new(Context::new(&SHA256)))),
            is_begun: true,
            is_ended: framing == Framing::None,
            ..EdgeState::default()
        };
    }

    /// Octets of HTTP/1.1: of the head, then of the body with its framing, then of anything.
    pub fn wire(&self, octets: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        let mut unframer = std::mem::take(&mut state.unframer);
        unframer.push(octets, |content| state.add(content));
        state.is_ended |= unframer.is_done();
        state.unframer = unframer;
    }

    /// Content without framing.
    pub fn content(&self, content: &[u8]) {
        self.0.borrow_mut().add(content);
    }

    /// The content has ended.
    pub fn end(&self) {
        self.0.borrow_mut().is_ended = true;
    }

    /// Digests the content outside of this part of it, too.
    fn skip(&self, range: Range<u64>) {
        self.0.borrow_mut().skipped = Some((range, Box::new(Context::new(&SHA256))));
    }
}

impl Default for EdgeState {
    fn default() -> Self {
        Self {
            unframer: Unframer::default(),
            digest: Context::new(&SHA256),
            octets: 0,
            skipped: None,
            is_begun: false,
            is_ended: false,
        }
    }
}

impl EdgeState {
    fn add(&mut self, content: &[u8]) {
        self.digest.update(content);
        if let Some((range, rest)) = &mut self.skipped {
            let within = |at: u64| {
                let at = at.saturating_sub(self.octets);
                usize::try_from(at).map_or(content.len(), |at| at.min(content.len()))
            };
            rest.update(&content[..within(range.start)]);
            rest.update(&content[within(range.end)..]);
        }
        self.octets += content.len() as u64;
    }

    fn whole(&self) -> ContentDigest {
        digest(self.digest.clone(), self.octets)
    }

    fn outside(&self) -> ContentDigest {
        match &self.skipped {
            None => self.whole(),
            Some((range, rest)) => {
                let skipped = range.end.min(self.octets) - range.start.min(self.octets);
                digest((**rest).clone(), self.octets - skipped)
            }
        }
    }
}

fn digest(context: Context, octets: u64) -> ContentDigest {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    ContentDigest { octets, sha256 }
}

impl std::fmt::Debug for EdgeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeState")
            .field("octets", &self.octets)
            .field("is_ended", &self.is_ended)
            .finish_non_exhaustive()
    }
}

/// Reader of framing, for octets that another one has found to be valid (RFC 9112 §6 and §7.1).
#[derive(Debug, Default)]
struct Unframer {
    state: UnframerState,
}

#[derive(Debug, Default)]
enum UnframerState {
    /// Other octets, and the framing of the body after them.
    Head(usize, Framing),
    /// Content of which this many octets are missing.
    Length(u64),
    /// Content without an end.
    Rest,
    /// A chunk's size line: the size so far, and whether its digits are over.
    Size(u64, bool),
    /// A chunk's content.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// A line of the trailer section: octets of it, without its end.
    Trailer(usize),
    #[default]
    Done,
}

impl Unframer {
    fn new(framing: Framing, head: usize) -> Self {
        let mut unframer = Self {
            state: UnframerState::Head(head, framing),
        };
        unframer.enter();
        unframer
    }

    fn is_done(&self) -> bool {
        matches!(self.state, UnframerState::Done)
    }

    /// Enters the body once the head is over.
    fn enter(&mut self) {
        if let UnframerState::Head(0, framing) = self.state {
            self.state = match framing {
                Framing::None | Framing::Length(0) => UnframerState::Done,
                Framing::Length(length) => UnframerState::Length(length),
                Framing::Chunked => UnframerState::Size(0, false),
                Framing::UntilClose => UnframerState::Rest,
            };
        }
    }

    fn push(&mut self, mut octets: &[u8], mut content: impl FnMut(&[u8])) {
        while !octets.is_empty() {
            let taken = match &mut self.state {
                UnframerState::Done => return,
                UnframerState::Rest => {
                    content(octets);
                    octets.len()
                }
                UnframerState::Head(left, _) => {
                    let taken = octets.len().min(*left);
                    *left -= taken;
                    self.enter();
                    taken
                }
                UnframerState::Length(left) | UnframerState::Chunk(left) => {
                    let taken =
                        usize::try_from(*left).map_or(octets.len(), |it| it.min(octets.len()));
                    content(&octets[..taken]);
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = match self.state {
                            UnframerState::Chunk(_) => UnframerState::ChunkEnd,
                            _ => UnframerState::Done,
                        };
                    }
                    taken
                }
                UnframerState::Size(..) | UnframerState::ChunkEnd | UnframerState::Trailer(_) => {
                    self.step(octets[0]);
                    1
                }
            };
            octets = &octets[taken..];
        }
    }

    /// One octet between chunks.
    fn step(&mut self, octet: u8) {
        self.state = match (&self.state, octet) {
            (UnframerState::Size(0, _), b'\n') => UnframerState::Trailer(0),
            (UnframerState::Size(size, _), b'\n') => UnframerState::Chunk(*size),
            (UnframerState::Size(size, false), digit) if digit.is_ascii_hexdigit() => {
                let value = char::from(digit).to_digit(16).unwrap_or_default();
                UnframerState::Size(size << 4 | u64::from(value), false)
            }
            (UnframerState::Size(size, _), _) => UnframerState::Size(*size, true),
            (UnframerState::ChunkEnd, b'\n') => UnframerState::Size(0, false),
            (UnframerState::ChunkEnd, _) => UnframerState::ChunkEnd,
            (UnframerState::Trailer(0), b'\n') => UnframerState::Done,
            (UnframerState::Trailer(_), b'\n') => UnframerState::Trailer(0),
            (UnframerState::Trailer(length), b'\r') => UnframerState::Trailer(*length),
            (UnframerState::Trailer(length), _) => UnframerState::Trailer(length + 1),
            _ => UnframerState::Done,
        };
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::body::{Decoded, Decoder, chunk_size_line};

    fn unframed(framing: Framing, head: usize, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut unframer, mut content) = (Unframer::new(framing, head), Vec::new());
        for piece in pieces {
            unframer.push(piece, |octets| content.extend_from_slice(octets));
        }
        (content, unframer.is_done())
    }

    fn request(came: &[u8], went: &[u8], framing: Framing) -> VerifiedContent {
        let verification = Verification::begin(framing);
        verification.request.wire(came);
        let edges = verification.attempt(framing);
        edges.sent.begin(framing, 0);
        edges.sent.wire(went);
        verification.outcome(true).request.unwrap()
    }

    #[test]
    fn an_octet_that_differs_is_found() {
        let length = Framing::Length(5);
        for (came, went, identity) in [
            (&b"hello"[..], &b"hello"[..], Identity::Same),
            (b"hello", b"hellO", Identity::Differs),
            (b"hello", b"hell", Identity::Incomplete),
            (b"hell", b"hello", Identity::Differs),
            (b"", b"", Identity::Same),
            // what follows the body is no part of it
            (b"helloGET / HTTP/1.1", b"hello", Identity::Same),
        ] {
            let verified = request(came, went, length);
            assert_eq!(verified.identity, identity, "{}", went.escape_ascii());
        }
        let chunked = Framing::Chunked;
        for (went, identity) in [
            (
                &b"3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\nx: y\r\n\r\n"[..],
                Identity::Same,
            ),
            (b"5\r\nhello\r\n0\r\n\r\n", Identity::Same),
            (b"4\r\nhell\r\n0\r\n\r\n", Identity::Differs),
            (b"4\r\nhell\r\n", Identity::Incomplete),
            (b"5\r\nheLlo\r\n", Identity::Differs),
        ] {
            let came = b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n";
            let verified = request(came, went, chunked);
            assert_eq!(verified.identity, identity, "{}", went.escape_ascii());
        }
    }

    #[test]
    fn outside_of_the_edit_every_octet_counts() {
        let held = [
            Bytes::from_static(b"{\"a\":\"o"),
            Bytes::from_static(b"ld\",\"b\":1}"),
        ];
        for (came, went, identity) in [
            (
                "{\"a\":\"old\",\"b\":1}",
                "{\"a\":\"new one\",\"b\":1}",
                Identity::Same,
            ),
            (
                "{\"a\":\"old\",\"b\":1}",
                "{\"a\":\"other 1\",\"b\":1}",
                Identity::Same,
            ),
            (
                "{\"a\":\"old\",\"b\":1}",
                "{\"a\":\"new one\",\"b\":2}",
                Identity::Differs,
            ),
            (
                "{\"a\":\"old\",\"b\":1}",
                "{\"A\":\"new one\",\"b\":1}",
                Identity::Differs,
            ),
            (
                "{\"a\":\"old\",\"b\":1}",
                "{\"a\":\"new one\",\"b\":",
                Identity::Incomplete,
            ),
            // what was held is not what came
            (
                "{\"a\":\"old\",\"b\":3}",
                "{\"a\":\"new one\",\"b\":1}",
                Identity::Differs,
            ),
        ] {
            let verification = Verification::begin(Framing::Length(came.len() as u64));
            verification.request.wire(came.as_bytes());
            verification.edits(&held, 5..10, 9);
            let framing = Framing::Length(21);
            let edges = verification.attempt(framing);
            edges.sent.begin(framing, 4);
            edges.sent.wire(b"head");
            edges.sent.wire(went.as_bytes());
            let verified = verification.outcome(true).request.unwrap();
            assert_eq!(verified.identity, identity, "{went}");
            let span = EditedSpan {
                replaced: 5..10,
                inserted: 9,
            };
            assert_eq!(verified.edit, Some(span));
        }
    }

    #[test]
    fn a_response_is_whole_if_the_exchange_was_complete() {
        let outcome = |came: &[u8], went: &[u8], is_complete: bool| {
            let verification = Verification::begin(Framing::None);
            let edges = verification.attempt(Framing::None);
            edges.received.begin(Framing::Length(9), 0);
            edges.received.wire(came);
            verification.response.begin(Framing::UntilClose, 0);
            verification.response.wire(went);
            let identity = |it: &Verification| Some(it.outcome(is_complete).response?.identity);
            let found = identity(&verification);
            verification.answers_itself();
            assert_eq!(identity(&verification), None);
            found
        };
        assert_eq!(
            outcome(b"123456789", b"123456789", true),
            Some(Identity::Same)
        );
        assert_eq!(
            outcome(b"123456789", b"12345678", true),
            Some(Identity::Differs)
        );
        assert_eq!(
            outcome(b"123456789", b"12345678", false),
            Some(Identity::Incomplete)
        );
        assert_eq!(outcome(b"123", b"123", false), Some(Identity::Same));
        assert_eq!(outcome(b"123", b"124", false), Some(Identity::Differs));
    }

    #[test]
    fn the_attempt_whose_response_is_relayed_counts() {
        let verification = Verification::begin(Framing::Length(2));
        verification.request.wire(b"ab");
        assert_eq!(
            verification.outcome(true),
            VerifiedExchange {
                request: None,
                response: None
            }
        );
        let send = |content: &[u8]| {
            let edges = verification.attempt(Framing::Length(2));
            edges.sent.begin(edges.framing, 0);
            edges.sent.wire(b"a");
            // the connection was dead: begun anew over another one
            edges.sent.begin(edges.framing, 0);
            edges.sent.wire(content);
            edges
        };
        let first = send(b"ab");
        send(b"ax");
        let identity = || verification.outcome(true).request.unwrap().identity;
        assert_eq!(identity(), Identity::Differs);
        verification.relays(&first);
        assert_eq!(identity(), Identity::Same);
    }

    proptest! {
        #[test]
        fn two_readers_of_framing_find_the_same_content(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            extension in prop::sample::select(vec!["", ";a", " ;b=\"2\""]),
            trailers in prop::sample::select(vec!["\r\n", "x: y\r\n\r\n", "a: b\r\nlong-name: c\r\n\r\n"]),
            rest in prop::collection::vec(any::<u8>(), 0..9),
            head in 0_usize..20,
            sizes in prop::collection::vec(1_usize..9, 1..5),
        ) {
            let mut wire = vec![b'h'; head];
            for chunk in &chunks {
                let line = chunk_size_line(chunk.len());
                wire.extend_from_slice(&line[..line.len() - 2]);
                wire.extend_from_slice(extension.as_bytes());
                wire.extend_from_slice(b"\r\n");
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n");
            wire.extend_from_slice(trailers.as_bytes());
            wire.extend_from_slice(&rest);
            let (mut pieces, mut left) = (Vec::new(), &wire[..]);
            for size in sizes.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, after) = left.split_at((*size).min(left.len()));
                pieces.push(piece);
                left = after;
            }
            let (content, is_done) = unframed(Framing::Chunked, head, &pieces);
            prop_assert!(is_done);
            prop_assert_eq!(&content, &chunks.concat());
            let (mut decoder, mut decoded) = (Decoder::new(Framing::Chunked), Vec::new());
            let mut buffer = BytesMut::from(&wire[head..]);
            while let Ok(Decoded::Content(content)) = decoder.decode(&mut buffer) {
                decoded.extend_from_slice(&content);
            }
            prop_assert_eq!(content, decoded);
        }
    }
}
