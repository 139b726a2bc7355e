//! Details of a request from the beginning and the end of its body.

use std::ops::ControlFlow;

use super::{
    members::{Match, MemberValue, ObjectPath},
    tail::{self, Tail},
    value,
    walk::JsonWalk,
};

/// Details of a request: members at the top level of its JSON body.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RequestDetails {
    /// `model`
    pub model: Option<Box<str>>,
    /// `stream`
    pub is_stream: Option<bool>,
    /// `max_tokens`
    pub max_tokens: Option<u64>,
}

/// Inspector of a body that streams: its first 64 KiB, and its last 2 KiB where it is longer.
///
/// The part between is not read: of 1 MB that would take 34 µs, as much as the edit's scan, and not
/// 3. The last of duplicates that is seen counts, and none after the point at which all three are
/// known.
#[derive(Debug)]
pub struct RequestInspector {
    walk: JsonWalk,
    asked: RequestDetails,
    left: usize,
    tail: Tail,
}

impl Default for RequestInspector {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestInspector {
    /// Makes an inspector before the first byte.
    pub fn new() -> Self {
        Self {
            walk: JsonWalk::new(ObjectPath::Request),
            asked: RequestDetails::default(),
            left: FIRST,
            tail: Tail::default(),
        }
    }

    /// Makes an inspector of a body whose details are known.
    pub fn known(asked: RequestDetails) -> Self {
        Self {
            asked,
            left: 0,
            ..Self::new()
        }
    }

    /// Reads the next bytes. Returns true if it wants more: not all three are found, and the body
    /// is JSON so far and has not ended.
    pub fn push(&mut self, content: &[u8]) -> bool {
        let (first, rest) = content.split_at(content.len().min(self.left));
        // the end may overlap with the beginning, of which the last bytes may be half a member
        let overlap = first
            .len()
            .min((first.len() + tail::LENGTH).saturating_sub(self.left));
        self.left -= first.len();
        if !first.is_empty() {
            let asked = &mut self.asked;
            self.walk.walk(first, |found| asked.take(found));
        }
        if self.walk.is_over() {
            return false;
        }
        if overlap > 0 || !rest.is_empty() {
            self.tail
                .push(content.get(first.len() - overlap..).unwrap_or_default());
        }
        true
    }

    /// Reads the end of the body, which has ended.
    pub fn end(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        if self.left == 0 && !self.walk.is_over() {
            let asked = &mut self.asked;
            tail.walk(|found| {
                // the last of duplicates counts
                let _ = asked.take(found);
                ControlFlow::Continue(())
            });
        }
    }

    /// Details found so far.
    pub fn asked(&self) -> &RequestDetails {
        &self.asked
    }

    /// Details that another reader of the same body finds: it is not read twice.
    pub fn asked_mut(&mut self) -> &mut RequestDetails {
        &mut self.asked
    }

    /// Details found.
    pub fn finish(self) -> RequestDetails {
        self.asked
    }
}

impl RequestDetails {
    /// Reads the value of a member from its spelling. The last of duplicates counts.
    pub(crate) fn read(&mut self, member: MemberValue, spelling: &[u8]) {
        let _ = self.take(value::read(member, spelling));
    }

    /// Takes one match. The last of duplicates counts.
    fn take(&mut self, found: Match<'_>) -> ControlFlow<()> {
        match found {
            Match::Text(MemberValue::Model, text) if !value::is_blank(&text) => {
                self.model = Some(text.into());
            }
            Match::Bool(MemberValue::Stream, value) => self.is_stream = Some(value),
            Match::Number(MemberValue::MaxTokens, number) => self.max_tokens = Some(number),
            Match::Text(leaf, _)
            | Match::Bool(leaf, _)
            | Match::Number(leaf, _)
            | Match::Null(leaf)
            | Match::Other(leaf) => match leaf {
                MemberValue::Model => self.model = None,
                MemberValue::Stream => self.is_stream = None,
                MemberValue::MaxTokens => self.max_tokens = None,
                _ => {}
            },
            Match::Object(_) | Match::Left(_) => {}
        }
        if self.model.is_some() && self.is_stream.is_some() && self.max_tokens.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Bytes at the beginning of a body that are looked at: all of a first turn of Claude Code (50 kB).
const FIRST: usize = 64 * 1024;
