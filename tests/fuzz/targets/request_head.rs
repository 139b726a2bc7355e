//! The parser of request heads and the writer of what goes upstream: one request in, the same one
//! request out, however it was split; and what two parsers could read in two ways is refused.
#![no_main]

use anthropic_proxy::downstream::parse_request_head;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

mod written;

use written::{Fields, trim, values};

/// The head as it is written, and what is left, if there is a whole one and it is taken.
fn parse(input: &[u8], cut: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut buffer, mut searched, mut fed) = (BytesMut::new(), 0, 0);
    for end in [cut, input.len()] {
        buffer.extend_from_slice(&input[fed..end]);
        fed = end;
        let before = buffer.clone();
        match parse_request_head(&mut buffer, &mut searched) {
            Ok(Some(parsed)) => {
                let rest = [&buffer, &input[fed..]].concat();
                return Some((written::write(&parsed.head), rest));
            }
            Ok(None) => assert_eq!(buffer, before, "nothing is taken"),
            Err(_) => return None,
        }
    }
    None
}

/// The fields of a head, read without any rule but that lines end with LF.
fn sent(head: &[u8]) -> Fields {
    let lines = head.split(|&octet| octet == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines.skip_while(|line| line.is_empty()).skip(1);
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|&octet| octet == b':')?;
        let (name, value) = line.split_at(colon);
        Some((name.to_ascii_lowercase(), trim(&value[1..]).to_vec()))
    });
    fields.collect()
}

// the first octet says where it is cut
fuzz_target!(|input: &[u8]| {
    let Some((&cut, input)) = input.split_first() else {
        return;
    };
    let cut = input.len() * usize::from(cut) / 256;
    // what is not whole may be refused now, or once more of it came
    let outcome = parse(input, 0);
    if input.len() < 60_000 {
        assert_eq!(parse(input, cut), outcome);
    }
    let Some((octets, rest)) = outcome else {
        return;
    };
    let written = written::read(&octets);
    let sent = sent(&input[..input.len() - rest.len()]);
    written::assert_same(&sent, &written.fields);
    let (lengths, codings) = (
        values(&sent, b"content-length"),
        values(&sent, b"transfer-encoding"),
    );
    assert!(
        lengths.len() + codings.len() <= 1,
        "two framings were taken"
    );
    assert!(values(&sent, b"host").len() <= 1, "two hosts were taken");
    let is_number = |value: &Vec<u8>| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    assert!(
        lengths.iter().all(is_number),
        "a length that is none was taken"
    );
    let length = lengths.first().map(|value| {
        let text = std::str::from_utf8(value).unwrap();
        text.parse().expect("a length that can be kept")
    });
    written::assert_framing(&written.fields, length, !codings.is_empty());
});
