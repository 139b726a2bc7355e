//! The way of a request from HTTP/2 to HTTP/1.1: whatever fields a header block has, as the h2 crate lets
//! them through, one request is written, and it is the one that was sent.
#![no_main]

use anthropic_proxy::{
    downstream::{BlockEnd, http2_request_head},
    wire::{head::Transport, hpack::FieldBlocks},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt as _;

mod written;

use written::{Fields, values};

#[derive(Debug)]
struct Input<'a> {
    ends: bool,
    /// Whether pseudo-fields that are missing are added.
    is_completed: bool,
    lines: Vec<(Name<'a>, &'a [u8])>,
}

#[derive(Debug)]
enum Name<'a> {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Host,
    ContentLength,
    Cookie,
    Te,
    Expect,
    Other(&'a [u8]),
}

impl Name<'_> {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Method => b":method",
            Self::Scheme => b":scheme",
            Self::Authority => b":authority",
            Self::Path => b":path",
            Self::Protocol => b":protocol",
            Self::Host => b"host",
            Self::ContentLength => b"content-length",
            Self::Cookie => b"cookie",
            Self::Te => b"te",
            Self::Expect => b"expect",
            Self::Other(name) => name,
        }
    }
}

impl<'a> Input<'a> {
    /// The first octet has the flags; then each line has a name, or the length of one and the name, and
    /// the length of its value and the value.
    fn of(octets: &'a [u8]) -> Self {
        let (flags, mut rest) = take(octets, 1);
        let flags = flags.first().copied().unwrap_or_default();
        let mut lines = Vec::new();
        while let Some(&kind) = rest.first() {
            rest = &rest[1..];
            let name = match kind % 16 {
                0 => Name::Method,
                1 => Name::Scheme,
                2 => Name::Authority,
                3 => Name::Path,
                4 => Name::Protocol,
                5 => Name::Host,
                6 => Name::ContentLength,
                7 => Name::Cookie,
                8 => Name::Te,
                9 => Name::Expect,
                _ => Name::Other(take_sized(&mut rest)),
            };
            lines.push((name, take_sized(&mut rest)));
        }
        Self {
            ends: flags & 1 != 0,
            is_completed: flags & 2 == 0,
            lines,
        }
    }
}

fn take(octets: &[u8], count: usize) -> (&[u8], &[u8]) {
    octets.split_at(count.min(octets.len()))
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (size, after) = take(rest, 1);
    let (taken, after) = take(after, size.first().copied().unwrap_or_default().into());
    *rest = after;
    taken
}

/// The fields in the order in which they are sent.
fn sent(input: &Input<'_>) -> Fields {
    let mut fields = Fields::new();
    let has = |name: &[u8]| input.lines.iter().any(|(other, _)| other.octets() == name);
    if input.is_completed {
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/"),
        ] {
            if !has(name.as_bytes()) {
                fields.push((name.into(), value.into()));
            }
        }
    }
    let lines = input.lines.iter();
    fields.extend(lines.map(|(name, value)| (name.octets().to_vec(), value.to_vec())));
    // pseudo-fields come first, or h2 refuses all of it
    fields.sort_by_key(|(name, _)| !name.starts_with(b":"));
    fields
}

/// Where the block of the request begins: after the preface, SETTINGS and the head of HEADERS.
const BLOCK: usize = 24 + 9 + 9;

/// A connection with one request (RFC 9113 §3.4, §6.2; RFC 7541 §6.2.2, neither Huffman nor tables).
fn connection(fields: &Fields, ends: bool) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            if text.len() < 127 {
                block.push(text.len() as u8);
            } else {
                block.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend(text);
        }
    }
    let mut octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    octets.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let length = u32::try_from(block.len()).ok().filter(|&it| it <= 16_384)?;
    octets.extend(&length.to_be_bytes()[1..]);
    octets.extend([1, 4 | u8::from(ends), 0, 0, 0, 1]);
    octets.extend(block);
    Some(octets)
}

/// What the h2 crate makes of it.
fn receive(octets: &[u8]) -> Option<(http::request::Parts, BlockEnd)> {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    near.write_all(octets).now_or_never()?.ok()?;
    let mut settings = h2::server::Builder::new();
    settings.enable_connect_protocol();
    let handshake = settings.handshake::<_, Bytes>(far);
    let mut connection = handshake.now_or_never()?.ok()?;
    let (request, _respond) = connection.accept().now_or_never()??.ok()?;
    let (parts, body) = request.into_parts();
    let ends = if body.is_end_stream() {
        BlockEnd::Stream
    } else {
        BlockEnd::Block
    };
    Some((parts, ends))
}

fuzz_target!(|input: &[u8]| {
    let input = Input::of(input);
    let sent = sent(&input);
    let Some(octets) = connection(&sent, input.ends) else {
        return;
    };
    let Some((parts, ends)) = receive(&octets) else {
        return;
    };
    let Ok(head) = http2_request_head(&parts, ends, Transport::Tls) else {
        return;
    };
    let written = written::read(&written::write(&head));
    let one = |name: &[u8]| values(&sent, name).into_iter().next();
    let protocol = one(b":protocol");
    let method = match &protocol {
        Some(_) => b"GET".to_vec(),
        None => one(b":method").expect("a method"),
    };
    assert_eq!(written.method, method);
    let path = one(b":path").expect("a path");
    let mut blocks = FieldBlocks::default();
    blocks.begin();
    blocks.scan(&octets[BLOCK..]);
    assert_eq!(blocks.has_fragment(), path.contains(&b'#'));
    // the http crate cuts a fragment off: such a request is refused
    let whole = match path.split(|&octet| octet == b'#').next() {
        Some(whole) if !whole.is_empty() => whole,
        _ => b"/",
    };
    assert_eq!(written.target, whole);
    let host = one(b":authority").or_else(|| one(b"host")).expect("a host");
    if one(b"x-forwarded-host").is_none() {
        assert_eq!(values(&written.fields, b"x-forwarded-host"), [host]);
    }
    let mut fields: Fields = sent.clone();
    fields.retain(|(name, _)| !name.starts_with(b":") && name != b"cookie");
    let crumbs = values(&sent, b"cookie");
    if !crumbs.is_empty() {
        // RFC 9113 §8.2.3
        let cookie = crumbs.join(&b"; "[..]);
        fields.push((b"cookie".to_vec(), written::trim(&cookie).to_vec()));
    }
    written::assert_same(&fields, &written.fields);
    let length = one(b"content-length").map(|value| {
        let text = std::str::from_utf8(&value).expect("a number");
        text.parse().expect("a number")
    });
    let is_chunked = length.is_none() && !input.ends && protocol.is_none();
    written::assert_framing(&written.fields, length, is_chunked);
    let upgrades: Vec<Vec<u8>> = protocol.into_iter().collect();
    assert_eq!(values(&written.fields, b"upgrade"), upgrades);
});
