//! The meter over arbitrary octets in arbitrary chunks, in every coding: no panic, and the chunks make
//! no difference.

#![no_main]

use anthropic_proxy::{
    exchange::Usage,
    metering::{RequestDetails, RequestInspector, UsageReader},
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const TYPES: [&[u8]; 2] = [b"text/event-stream", b"application/json"];
const CODINGS: [&[u8]; 5] = [b"", b"gzip", b"br", b"zstd", b"deflate"];

fn meter(content_type: u8, coding: u8, content: &[u8], size: usize) -> (Usage, usize) {
    let content_type = TYPES[usize::from(content_type) % TYPES.len()];
    let coding = CODINGS[usize::from(coding) % CODINGS.len()];
    let mut tap = UsageReader::new(Some(content_type), Some(coding)).unwrap();
    let firsts = content
        .chunks(size)
        .filter(|chunk| tap.push(&Bytes::copy_from_slice(chunk)))
        .count();
    (tap.finish().0, firsts)
}

fn look(content: &[u8], size: usize) -> RequestDetails {
    let mut look = RequestInspector::new();
    for chunk in content.chunks(size) {
        if !look.push(chunk) {
            break;
        }
    }
    look.finish()
}

fuzz_target!(|input: (u8, u8, u16, &[u8])| {
    let (content_type, coding, size, content) = input;
    let (whole, size) = (content.len().max(1), usize::from(size).max(1));
    // a broken coding may be found out an octet earlier or later
    let coded = meter(content_type, coding, content, size);
    assert!(coded.1 <= 1);
    let plain = meter(content_type, 0, content, whole);
    assert_eq!(plain, meter(content_type, 0, content, size));
    assert_eq!(plain, meter(content_type, 0, content, 1));
    assert_eq!(look(content, whole), look(content, size));
});
