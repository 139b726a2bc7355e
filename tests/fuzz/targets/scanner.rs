//! The edit of arbitrary octets in arbitrary chunks: the chunks make no difference, and what is
//! unchanged is identical.

#![no_main]

use anthropic_proxy::{
    config::{EditMode, EditTarget},
    edit::{BodyBuffer, Outcome},
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, bool, bool, &[u8])| {
    let (size, insert, first, body) = input;
    let mode = if insert {
        EditMode::InsertIfAbsent
    } else {
        EditMode::Replace
    };
    let target = if first {
        EditTarget::First
    } else {
        EditTarget::Prompt
    };
    let edit = |size: usize| {
        let mut hold = BodyBuffer::new(mode, target);
        for chunk in body.chunks(size) {
            hold.push(Bytes::copy_from_slice(chunk));
        }
        assert_eq!(hold.len(), body.len() as u64);
        let (parts, outcome) = hold.finish(&Bytes::from_static(b"\"new\""));
        (parts.concat(), outcome)
    };

    let whole = edit(body.len().max(1));
    assert_eq!(whole, edit(usize::from(size).max(1)));
    assert_eq!(whole, edit(1));
    match whole.1 {
        Outcome::Unchanged(_) => assert_eq!(whole.0, body),
        Outcome::Replaced { span } => {
            let (start, end) = (span.start as usize, span.end as usize);
            assert_eq!(whole.0, [&body[..start], b"\"new\"", &body[end..]].concat());
        }
        Outcome::Inserted { at, .. } => {
            let (head, tail) = body.split_at(at as usize);
            assert!(whole.0.starts_with(head) && whole.0.ends_with(tail));
        }
    }
});
