//! Trailer sections between the versions: what HTTP/1.1 brings is passed on as exactly these fields and
//! no request behind them, and comes back from HTTP/2 as it was.
#![no_main]

use anthropic_proxy::{
    downstream::{http2_trailers, trailer_section},
    wire::body::{Decoded, Decoder, Framing},
};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

mod written;

use written::{Fields, values};

/// The raw section and what is left, if the coding ends.
fn decode(octets: &[u8], step: usize) -> Option<(Option<Vec<u8>>, usize)> {
    let (mut decoder, mut buffer) = (Decoder::new(Framing::Chunked), BytesMut::new());
    let mut fed = 0;
    for piece in octets.chunks(step) {
        buffer.extend_from_slice(piece);
        fed += piece.len();
        match decoder.decode(&mut buffer).ok()? {
            Decoded::End(raw) => {
                let left = buffer.len() + octets.len() - fed;
                return Some((raw.map(|raw| raw.to_vec()), left));
            }
            Decoded::NeedMore => {}
            Decoded::Content(_) => panic!("there is no content"),
        }
    }
    None
}

// the first octet says how large its pieces are
fuzz_target!(|input: &[u8]| {
    let Some((&step, input)) = input.split_first() else {
        return;
    };
    let step = usize::from(step).max(1);
    let octets = [b"0\r\n", input].concat();
    let whole = decode(&octets, octets.len());
    assert_eq!(decode(&octets, step), whole);
    let Some((Some(raw), _)) = whole else {
        return;
    };
    let sent = written::read_fields(&raw);
    for (name, _) in &sent {
        assert!(!FORBIDDEN.contains(&&name[..]), "{}", name.escape_ascii());
        assert!(!name.starts_with(b"proxy-"));
    }
    let map = http2_trailers(&raw);
    let in_http2: Fields = map
        .iter()
        .map(|(name, value)| (name.as_str().into(), value.as_bytes().into()))
        .collect();
    assert_eq!(in_http2.len(), sent.len());
    for (name, _) in &sent {
        assert_eq!(values(&in_http2, name), values(&sent, name));
    }
    match trailer_section(&map) {
        Some(section) => assert_eq!(written::read_fields(&section), in_http2),
        None => assert!(sent.is_empty() || raw.len() > 60_000, "it was lost"),
    }
});

/// What frames, routes, ends at a hop or says who asks (RFC 9110 §6.5.1).
const FORBIDDEN: [&[u8]; 10] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"connection",
    b"keep-alive",
    b"te",
    b"upgrade",
    b"expect",
    b"authorization",
    b"x-api-key",
];
