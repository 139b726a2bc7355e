//! Message head as received: the octets, and the span of each field in them.
//!
//! No map is built and no name is lower-cased: fields keep their order, their case and their
//! duplicates. A field that is only forwarded costs one copy into the next head.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
};

use actix_web::http::{Method, StatusCode, header::HeaderMap};
use bytes::{Bytes, BytesMut};

use super::{
    body::Framing,
    role::{Role, is_same},
    verification::Verification,
};
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
    /// Found once: the fields of a head are looked through three or four times.
    role: Role,
}

/// Spans of all fields, while the buffer that they point into is turned into a head.
#[derive(Debug)]
pub struct FieldSpans(Vec<FieldSpan>);

impl FieldSpans {
    /// Number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One field line.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Name as received.
    pub name: &'a [u8],
    /// The value without the white space around it; any octets but CR, LF and NUL.
    pub value: &'a [u8],
    role: Role,
}

impl<'a> Field<'a> {
    /// A field line of these octets.
    pub fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        let role = Role::of(name);
        Self { name, value, role }
    }

    /// Compares the name without regard to case (RFC 9110 §5.1).
    pub fn is(&self, name: &str) -> bool {
        is_same(self.name, name)
    }

    /// Role of the name for forwarding.
    pub fn role(&self) -> Role {
        self.role
    }
}

impl Fields {
    /// Spans of the fields that `httparse` found, in the buffer that was parsed.
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
                role: Role::of(field.name.as_bytes()),
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
                role: Role::of(name),
            });
        }
        Self {
            raw: raw.freeze(),
            spans,
        }
    }

    /// Keeps the fields for which `keeps` holds. The octets are shared.
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
        self.spans.iter().map(|span| self.field(span))
    }

    fn field(&self, span: &FieldSpan) -> Field<'_> {
        Field {
            name: &self.raw[span.name as usize..span.name_end as usize],
            value: &self.raw[span.value as usize..span.value_end as usize],
            role: span.role,
        }
    }

    /// The value of the first field of this name.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|field| field.is(name))
            .map(|field| field.value)
    }

    /// The values of the first fields of these names, found in one pass.
    pub fn values<const N: usize>(&self, names: [&str; N]) -> [Option<&[u8]>; N] {
        let mut values = [None; N];
        for span in &self.spans {
            let length = (span.name_end - span.name) as usize;
            for (value, name) in values.iter_mut().zip(names) {
                if length == name.len() && value.is_none() {
                    let field = self.field(span);
                    *value = field.is(name).then_some(field.value);
                }
            }
        }
        values
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Reports whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Octets of the head they came in.
    pub fn octets(&self) -> usize {
        self.raw.len()
    }
}

/// Head of a request as received. It travels in the extensions of the request that actix-web
/// routes.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The origin-form target, verbatim.
    pub target: Bytes,
    /// The version.
    pub version: Version,
    /// Transport of the request.
    pub transport: Transport,
    /// The fields.
    pub fields: Fields,
    /// Framing of the body.
    pub framing: Framing,
    /// True if the client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// The protocols that the client asks to switch to: the value of `Upgrade`, or `:protocol` of an
    /// extended CONNECT (RFC 8441). Then the body is what the client sends after its head.
    pub upgrade: Option<Bytes>,
    /// Notes on the body as it is read.
    pub notes: Rc<BodyNotes>,
}

impl RequestHead {
    /// The path of the target, without the query.
    pub fn path(&self) -> &[u8] {
        let end = memchr::memchr(b'?', &self.target).unwrap_or(self.target.len());
        &self.target[..end]
    }
}

/// Notes on a body while it is read, shared by downstream and proxy.
#[derive(Debug, Default)]
pub struct BodyNotes {
    /// Octets of content so far.
    pub octets: Cell<u64>,
    /// True once the end of the body was seen; one of a known length may not be read beyond it.
    pub has_ended: Cell<bool>,
    /// True if the body is buffered whole before it goes on: it may be read in larger pieces.
    pub is_held: Cell<bool>,
    /// True if the client sent content without waiting for `100 Continue`.
    pub is_unasked: Cell<bool>,
    /// True if the client was given up because it did not read (`WRITE_TIMEOUT`).
    pub is_stalled: Cell<bool>,
    /// Progress of the exchange, where it is observed: an operator may end the exchange through it.
    pub progress: OnceCell<Arc<Progress>>,
    /// Set by downstream while the client takes no more of the response. The body of the response
    /// is polled nevertheless, and moves only the upload.
    pub is_held_back: Cell<bool>,
    /// Set by downstream until the response has reached the client.
    pub is_undelivered: Cell<bool>,
    /// The raw trailer section (RFC 9112 §7.1.2), with its empty line, once the body has ended.
    pub trailers: RefCell<Option<Bytes>>,
    /// Digests of the content, of an exchange that is verified (`VERIFY`).
    pub verification: OnceCell<Rc<Verification>>,
}

impl BodyNotes {
    /// Reports whether all of a body with this framing has come.
    pub fn is_whole(&self, framing: Framing) -> bool {
        match framing {
            Framing::None => true,
            Framing::Length(length) if self.octets.get() >= length => true,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => self.has_ended.get(),
        }
    }

    /// Reports whether an operator has asked for the end of the exchange.
    pub fn is_ending(&self) -> bool {
        self.progress.get().is_some_and(|it| it.is_ending())
    }

    /// End of a chunked body: the last chunk's size line, then the trailer section.
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

/// Transport of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A connection in clear.
    Clear,
    /// TLS.
    Tls,
}

/// Response head that is ready to be written but for its framing, which the downstream connection
/// adds. It travels in the extensions of the response that actix-web hands back.
#[derive(Debug)]
pub struct RelayedHead {
    /// Status line and fields without the framing.
    pub content: HeadContent,
    /// Framing of the content at the upstream.
    pub framing: Framing,
    /// Notes that receive the trailer section, if the body may have one.
    pub notes: Option<Rc<BodyNotes>>,
    /// Notes of the tunnel that follows a 101.
    pub tunnel: Option<Rc<TunnelNotes>>,
}

/// State that the two sides of a tunnel share while it runs.
///
/// The body of the response gives the upstream's octets and moves the client's; it ends when both
/// directions have ended, and fails when one was aborted.
#[derive(Debug, Default)]
pub struct TunnelNotes {
    /// Set by downstream while the client takes no more. The body is polled nevertheless, and moves
    /// only what the client sends.
    pub is_held_back: Cell<bool>,
    /// Set by proxy once the upstream has ended its direction and everything it sent was given.
    pub upstream_ended: Cell<bool>,
}

/// Status and fields of a relayed head, in the form that the client's version needs.
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

/// Reports whether a response of this status has no content by definition: neither `Content-Length`
/// nor `Transfer-Encoding` may stand in it (RFC 9110 §8.6, RFC 9112 §6.1).
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

/// Reports whether the buffer may hold the empty line that ends a head, so that parsing is
/// worthwhile.
///
/// `from` is the length of the buffer that was searched before. Bare LF counts as a line end, since
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
    fn several_fields_are_found_in_one_pass() {
        let pairs: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"Bc", b"2"), (b"bC", b"3"), (b"d", b"")];
        let fields = Fields::from_pairs(pairs);
        let values = fields.values(["bc", "d", "e", "A"]);
        assert_eq!(values, [Some(&b"2"[..]), Some(b""), None, Some(b"1")]);
        for (name, value) in ["bc", "d", "e", "A"].into_iter().zip(values) {
            assert_eq!(fields.value(name), value, "{name}");
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
