//! What a request says of itself, from the beginning of its body.

use std::ops::ControlFlow;

use super::{
    place::{Found, Leaf, Place},
    walk::Walk,
};

/// What a request asks for: members at the top level of its JSON body.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `model`
    pub model: Option<Box<str>>,
    /// `stream`
    pub is_stream: Option<bool>,
    /// `max_tokens`
    pub max_tokens: Option<u64>,
}

/// A look at the beginning of a body.
#[derive(Debug)]
pub struct Look {
    walk: Walk,
    asked: Asked,
    left: usize,
}

impl Default for Look {
    fn default() -> Self {
        Self::new()
    }
}

impl Look {
    /// Of a body that streams: its first 64 KiB.
    pub fn new() -> Self {
        Self::within(FIRST)
    }

    /// Of a body that is held, and bounded by that: all of it.
    pub fn whole() -> Self {
        Self::within(usize::MAX)
    }

    fn within(left: usize) -> Self {
        Self {
            walk: Walk::new(Place::Request),
            asked: Asked::default(),
            left,
        }
    }

    /// The next octets. Whether it wants more: there is more within the limit, not all three are
    /// found, and it is JSON so far.
    pub fn push(&mut self, content: &[u8]) -> bool {
        let content = content.get(..self.left).unwrap_or(content);
        self.left -= content.len();
        let asked = &mut self.asked;
        self.walk.walk(content, &mut |found| asked.take(found));
        if self.walk.is_over() {
            self.left = 0;
        }
        self.left > 0
    }

    /// What was found so far.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// What was found.
    pub fn finish(self) -> Asked {
        self.asked
    }
}

impl Asked {
    /// Of duplicates the last counts.
    fn take(&mut self, found: Found<'_>) -> ControlFlow<()> {
        match found {
            Found::Text(Leaf::Model, text) => self.model = Some(text.into()),
            Found::Bool(Leaf::Stream, value) => self.is_stream = Some(value),
            Found::Number(Leaf::MaxTokens, number) => self.max_tokens = Some(number),
            Found::Text(leaf, _)
            | Found::Bool(leaf, _)
            | Found::Number(leaf, _)
            | Found::Other(leaf) => match leaf {
                Leaf::Model => self.model = None,
                Leaf::Stream => self.is_stream = None,
                Leaf::MaxTokens => self.max_tokens = None,
                _ => {}
            },
            Found::Object(_) => {}
        }
        if self.model.is_some() && self.is_stream.is_some() && self.max_tokens.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Octets of a streamed body that are looked at: a first turn of Claude Code (50 kB), of which
/// `max_tokens` and `stream` come last, and no more.
const FIRST: usize = 64 * 1024;
