//! Reads the members at the end of a request, of which the last bytes are kept.
//!
//! `max_tokens` and `stream` often stand after the messages and the tools, far behind the part that
//! is read from the beginning. The walk begins where a member does: that is found backwards, since
//! the end of a JSON object is as clear as its beginning. No string is open there, and a quote opens
//! or closes one unless an odd number of backslashes stands before it. Text that is not the end of an
//! object gives nothing, or values that no upstream accepts.

use std::ops::ControlFlow;

use super::{
    members::{Match, ObjectPath},
    walk::JsonWalk,
};

/// The last bytes of a body.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    /// Takes the next bytes of the body, of which at least the last [`LENGTH`] are kept.
    pub(super) fn push(&mut self, content: &[u8]) {
        if let Some(last) = content.len().checked_sub(LENGTH) {
            self.0.clear();
            self.0
                .extend_from_slice(content.get(last..).unwrap_or_default());
            return;
        }
        if self.0.len() + content.len() > 2 * LENGTH {
            let old = self.0.len() + content.len() - LENGTH;
            self.0.drain(..old);
        }
        if self.0.capacity() == 0 {
            self.0.reserve_exact(2 * LENGTH);
        }
        self.0.extend_from_slice(content);
    }

    /// Walks through the last members of the body, which has ended, as far as they are whole.
    pub(super) fn walk(&self, show: impl FnMut(Match<'_>) -> ControlFlow<()>) {
        let start = self.0.len().saturating_sub(LENGTH);
        let octets = self.0.get(start..).unwrap_or_default();
        if let Some(members) = last_members(octets) {
            JsonWalk::inside(ObjectPath::Request).walk(members, show);
        }
    }
}

/// The members at the end of the object that ends here, from the first that has a comma or `{` before
/// it.
fn last_members(octets: &[u8]) -> Option<&[u8]> {
    let mut rest = octets.trim_ascii_end().strip_suffix(b"}")?;
    let (mut depth, mut first) = (0_usize, None);
    while let Some((octet, mut before)) = rest.split_last() {
        match octet {
            b'"' => match before_string(before) {
                Some(outside) => before = outside,
                None => break,
            },
            b'}' | b']' => depth += 1,
            b'{' | b'[' if depth == 0 => {
                first = Some(rest.len());
                break;
            }
            b'{' | b'[' => depth -= 1,
            b',' if depth == 0 => first = Some(rest.len()),
            _ => {}
        }
        rest = before;
    }
    octets.get(first?..)
}

/// The bytes before the string whose closing quote follows these.
fn before_string(mut inside: &[u8]) -> Option<&[u8]> {
    loop {
        inside = inside.get(..memchr::memrchr(b'"', inside)?)?;
        let plain = inside.iter().rposition(|octet| *octet != b'\\')?;
        // after an even number of backslashes
        if (inside.len() - plain) % 2 == 1 {
            return Some(inside);
        }
    }
}

/// Bytes that are read: Claude Code's `metadata`, `max_tokens`, `thinking`, `context_management` and
/// `stream` are 500 together.
pub(super) const LENGTH: usize = 2 * 1024;
