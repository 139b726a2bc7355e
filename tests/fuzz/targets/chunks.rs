//! The chunk decoder: no split into reads changes what it finds, and it never panics.
#![no_main]

use anthropic_proxy::wire::body::{Decoded, Decoder, Framing};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

/// Content, trailers and what is left, or `None` if the coding is broken or incomplete.
fn decode(input: &[u8], step: usize) -> Option<(Vec<u8>, Option<Vec<u8>>, usize)> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut buffer, mut content, mut fed) = (BytesMut::new(), Vec::new(), 0);
    loop {
        match decoder.decode(&mut buffer).ok()? {
            Decoded::Content(chunk) => content.extend_from_slice(&chunk),
            Decoded::End(trailers) => {
                let left = buffer.len() + input.len() - fed;
                return Some((content, trailers.map(|raw| raw.to_vec()), left));
            }
            Decoded::NeedMore if fed == input.len() => return None,
            Decoded::NeedMore => {
                let next = (fed + step).min(input.len());
                buffer.extend_from_slice(&input[fed..next]);
                fed = next;
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let whole = decode(input, input.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(decode(input, step), whole);
    }
});
