//! The JSON tokenizer over arbitrary octets in arbitrary chunks: the chunks make no difference to any
//! visitor, spans are those of the text, and what is JSON is what serde_json says.

#![no_main]

use std::ops::ControlFlow;

use anthropic_proxy::json::tokenizer::{LONGEST, Tokenizer, Visitor};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

/// A token: its kind, a number that goes with it, and the beginning of its spelling.
type Shown = (char, u64, Vec<u8>);

/// Keeps what it is shown; reads names and values at these depths, a bit each.
struct Recorder {
    shown: Vec<Shown>,
    depths: u8,
    most: usize,
}

impl Recorder {
    fn reads(&self, depth: u64) -> bool {
        self.depths >> (depth % 8) & 1 == 1
    }

    fn take(&mut self, kind: char, number: u64, spelling: &[u8]) -> ControlFlow<()> {
        let kept = &spelling[..spelling.len().min(LONGEST + 1)];
        self.shown.push((kind, number, kept.to_vec()));
        if self.shown.len() < self.most {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

impl Visitor for Recorder {
    fn reads_names(&self, depth: u64) -> bool {
        self.reads(depth)
    }

    fn name(&mut self, spelling: &[u8], escapes: bool) {
        assert!(escapes || !spelling.contains(&b'\\'));
        let _ = self.take('n', 0, spelling);
    }

    fn begin(&mut self, first: u8, at: u64, depth: u64) -> ControlFlow<(), bool> {
        self.take('b', at, &[first])?;
        ControlFlow::Continue(self.reads(depth) && !matches!(first, b'{' | b'['))
    }

    fn value(&mut self, spelling: &[u8], end: u64) -> ControlFlow<()> {
        self.take('v', end, spelling)
    }

    fn end(&mut self, depth: u64) -> ControlFlow<()> {
        self.take('e', depth, &[])
    }
}

fuzz_target!(|input: (u16, u8, u8, &[u8])| {
    let (size, depths, most, text) = input;
    let tokens = |size: usize| {
        let mut tokenizer = Tokenizer::new();
        let mut recorder = Recorder {
            shown: Vec::new(),
            depths,
            // most often all
            most: if most < 16 { most.into() } else { usize::MAX },
        };
        for chunk in text.chunks(size) {
            tokenizer.push(chunk, &mut recorder);
        }
        let outcome = (tokenizer.is_invalid(), tokenizer.is_complete());
        (recorder.shown, outcome)
    };
    let whole = tokens(text.len().max(1));
    assert_eq!(whole, tokens(usize::from(size).max(1)));
    assert_eq!(whole, tokens(1));
    let mut begun = 0;
    for (kind, at, spelling) in &whole.0 {
        match kind {
            'b' => begun = *at as usize,
            'v' => assert!(text[begun..*at as usize].starts_with(spelling)),
            _ => {}
        }
    }
    if most >= 16 {
        let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let is_json = serde_json::from_slice::<IgnoredAny>(plain).is_ok();
        assert_eq!(whole.1.1, is_json);
    }
});
