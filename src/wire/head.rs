//! A message head as it came: the octets, and where each field lies in them.
//!
//! No map is built and no name is folded: fields keep their order, their case and their
//! duplicates, and a field that is only passed on costs one copy into the next head.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
};

use actix_web::http::{Method, StatusCode, header::HeaderMap};
use bytes::{Bytes, BytesMut};

use super::{body::Framing, role::Role};
use crate::exchange::Progress;

/// Fields of one head (RFC 9110 §5), in the order they came.
#[derive(Debug, Default, Clone)]
pub struct Fields {
    raw: Bytes,
    spans: Vec<FieldSpan>,
}

/// Offsets into the head: it is at most 64 KiB + 1 octet long, so 32 bits are plenty.
#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
}

/// Places of fields, while the buffer that they point into is turned into a head.
#[derive(Debug)]
pub struct FieldSpans(Vec<FieldSpan>);

impl FieldSpans {
    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One field line.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// The name as it came.
    pub name: &'a [u8],
    /// The value without the white space around it; any octets but CR, LF and NUL.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether the name is this one. Names are compared without regard to case (RFC 9110 §5.1).
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// What the name means for forwarding.
    pub fn role(&self) -> Role {
        Role::of(self.name)
    }
}

impl Fields {
    /// Where the fields that `httparse` found lie in the buffer that was parsed.
    pub fn spans(buffer: *const u8, parsed: &[httparse::Header<'_>]) -> FieldSpans {
        let offset = |octets: &[u8]| (octets.as_ptr() as usize).wrapping_sub(buffer as usize);
        let spans = parsed.iter().map(|field| {
            let name = offset(field.name.as_bytes());
            // an empty value may lie anywhere, even outside of the buffer
            let value = if field.value.is_empty() {
                name
            } else {
                offset(field.value)
            };
            FieldSpan {
                name: name as u32,
                name_end: (name + field.name.len()) as u32,
                value: value as u32,
                value_end: (value + field.value.len()) as u32,
            }
        });
        FieldSpans(spans.collect())
    }

    /// The fields that lie at these places of a head, which begins where the parsed buffer began.
    pub fn with_spans(raw: Bytes, spans: FieldSpans) -> Self {
        Self {
            raw,
            spans: spans.0,
        }
    }

    /// Takes a map, as other protocol versions give it. Names come out in lower case.
    pub fn from_map(map: &HeaderMap) -> Self {
        Self::from_pairs(
            map.iter()
                .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
        )
    }

    /// Fields in this order; names and values must be those of a valid head.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let (mut raw, mut spans) = (BytesMut::new(), Vec::new());
        for (name, value) in pairs {
            let start = raw.len();
            raw.extend_from_slice(name);
            let middle = raw.len();
            raw.extend_from_slice(value);
            spans.push(FieldSpan {
                name: start as u32,
                name_end: middle as u32,
                value: middle as u32,
                value_end: raw.len() as u32,
            });
        }
        Self {
            raw: raw.freeze(),
            spans,
        }
    }

    /// Those of the fields for which `keeps` holds. The octets are shared.
    pub fn retain(&self, mut keeps: impl FnMut(&Field<'_>) -> bool) -> Self {
        let fields = self.spans.iter().zip(self.iter());
        let spans = fields.filter(|(_, field)| keeps(field));
        Self {
            raw: self.raw.clone(),
            spans: spans.map(|(span, _)| *span).collect(),
        }
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|span| Field {
            name: &self.raw[span.name as usize..span.name_end as usize],
            value: &self.raw[span.value as usize..span.value_end as usize],
        })
    }

    /// The value of the first field of this name.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|field| field.is(name))
            .map(|field| field.value)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Octets of the head they came in.
    pub fn octets(&self) -> usize {
        self.raw.len()
    }
}

/// Head of a request as it came. Rides in the extensions of the request that actix-web routes.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The origin-form target, verbatim.
    pub target: Bytes,
    /// The version.
    pub version: Version,
    /// What it came over.
    pub transport: Transport,
    /// The fields.
    pub fields: Fields,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// The protocols that the client asks to switch to: the value of `Upgrade`, or `:protocol` of an
    /// extended CONNECT (RFC 8441). Then the body is what the client sends after its head.
    pub upgrade: Option<Bytes>,
    /// What becomes known of the body as it is read.
    pub notes: Rc<BodyNotes>,
}

impl RequestHead {
    /// The path of the target, without the query.
    pub fn path(&self) -> &[u8] {
        let end = memchr::memchr(b'?', &self.target).unwrap_or(self.target.len());
        &self.target[..end]
    }
}

/// What becomes known of a body while it is read.
#[derive(Debug, Default)]
pub struct BodyNotes {
    /// Octets of content so far.
    pub octets: Cell<u64>,
    /// Whether the body is held whole before it goes on: it may be read in larger pieces.
    pub is_held: Cell<bool>,
    /// Whether the client began to send although it was to wait for `100 Continue`.
    pub is_unasked: Cell<bool>,
    /// Whether the client was given up since it did not read (`WRITE_TIMEOUT`).
    pub is_stalled: Cell<bool>,
    /// The progress of the exchange, where it is observed: through it an operator may end the exchange.
    pub progress: OnceCell<Arc<Progress>>,
    /// Said by the downstream: the client takes no more of the response for now. Its body is polled
    /// nevertheless, and moves only what the client sends.
    pub is_held_back: Cell<bool>,
    /// Said by the downstream: the response has not reached the client, or not yet.
    pub is_undelivered: Cell<bool>,
    /// The raw trailer section (RFC 9112 §7.1.2), with its empty line, once the body has ended.
    pub trailers: RefCell<Option<Bytes>>,
}

impl BodyNotes {
    /// Whether an operator has asked for the end of the exchange.
    pub fn is_ending(&self) -> bool {
        self.progress.get().is_some_and(|it| it.is_ending())
    }

    /// What ends a chunked body: the last chunk's size line, then the trailer section.
    pub fn end_of_chunks(notes: Option<&Self>) -> [Bytes; 2] {
        Self::end_with(notes.and_then(|notes| notes.trailers.take()))
    }

    /// The same with a trailer section that was taken before.
    pub fn end_with(trailers: Option<Bytes>) -> [Bytes; 2] {
        [
            Bytes::from_static(b"0\r\n"),
            trailers.unwrap_or(Bytes::from_static(b"\r\n")),
        ]
    }
}

/// The version a message was sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, and a connection serves once unless asked otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2: messages are framed by streams.
    Http2,
}

/// What a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A connection in clear.
    Clear,
    /// TLS.
    Tls,
}

/// A response head that is ready to be written but for its framing, which the downstream
/// connection adds. Rides in the extensions of the response that actix-web hands back.
#[derive(Debug)]
pub struct RelayedHead {
    /// What it says besides its framing.
    pub content: HeadContent,
    /// How the content is delimited at the upstream.
    pub framing: Framing,
    /// Where the trailer section appears, if the body may have one.
    pub notes: Option<Rc<BodyNotes>>,
    /// Of a 101: how its body, a tunnel, is driven.
    pub tunnel: Option<Rc<TunnelNotes>>,
}

/// What the two sides of a tunnel tell each other while it runs.
///
/// The body of its response gives the upstream's octets and moves the client's; it ends when both
/// directions have ended, and fails when one was aborted.
#[derive(Debug, Default)]
pub struct TunnelNotes {
    /// Said by the downstream: the client takes no more for now. The body is polled nevertheless, and
    /// moves only what the client sends.
    pub is_held_back: Cell<bool>,
    /// Said by the proxy: the upstream has ended its direction, and what it sent was given.
    pub upstream_ended: Cell<bool>,
}

/// What a relayed head says, in the form that the client's version needs.
#[derive(Debug)]
pub enum HeadContent {
    /// For HTTP/1: status line and fields, each with its line end.
    Octets(BytesMut),
    /// For HTTP/2: the fields. The status is that of the response which it rides in.
    Fields(Fields),
}

/// Head of a response, to be written as it came.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// The reason phrase; empty if it is not ASCII, which httparse does not give.
    pub reason: Bytes,
    /// The fields.
    pub fields: Fields,
}

/// The tokens of a comma-separated list (RFC 9110 §5.6.1), without the white space around them;
/// empty elements are passed over.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&octet| octet == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Whether an answer of this status has no content by definition: neither `Content-Length` nor
/// `Transfer-Encoding` may stand in it (RFC 9110 §8.6, RFC 9112 §6.1).
pub fn is_without_content(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

/// A `Content-Length`: one or more digits and nothing else (RFC 9110 §8.6).
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Where the empty line that ends a head may be: whether a parse is worth its while.
///
/// `from` is how much of the buffer was searched before. Bare LF counts as a line end, since
/// `httparse` takes it.
pub fn may_be_complete(buffer: &[u8], from: usize) -> bool {
    let start = from.saturating_sub(3);
    memchr::memchr_iter(b'\n', &buffer[start..])
        .any(|at| matches!(&buffer[start + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_digits_only() {
        for (value, expected) in [
            (&b"0"[..], Some(0)),
            (b"42", Some(42)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"+5", None),
            (b"-5", None),
            (b"5, 5", None),
            (b"5 5", None),
            (b"0x5", None),
            (b"", None),
        ] {
            assert_eq!(content_length(value), expected, "{value:?}");
        }
    }

    #[test]
    fn an_empty_line_is_found_across_reads() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for cut in 0..head.len() {
            assert!(!may_be_complete(&head[..cut], 0), "{cut}");
            assert!(may_be_complete(head, cut), "{cut}");
        }
        assert!(may_be_complete(b"GET / HTTP/1.1\nhost: a\n\n", 0));
    }

    #[test]
    fn tokens_are_trimmed_and_never_empty() {
        let found: Vec<_> = tokens(b" close,, x-foo\t,").collect();
        assert_eq!(found, [&b"close"[..], b"x-foo"]);
    }
}
