//! Reads the members at the end of a request, backwards from its last byte.
//!
//! `max_tokens` and `stream` often stand after the messages and the tools, far behind the part that
//! is read from the beginning. Read backwards, the end of a JSON object is as clear as its
//! beginning: no string is open there, and a quote opens or closes one unless an odd number of
//! backslashes stands before it. Text that is not the end of an object gives nothing, or values
//! that no upstream accepts.

use super::{
    members::{Match, Member, MemberValue, ObjectPath},
    walk,
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

    /// Shows the last members of the body, which has ended, as far as they are whole, in their
    /// order.
    pub(super) fn show(&self, mut show: impl FnMut(Match<'_>)) {
        let start = self.0.len().saturating_sub(LENGTH);
        let octets = self.0.get(start..).unwrap_or_default();
        let mut members: Vec<(MemberValue, &[u8])> = Vec::new();
        let mut backwards = Backwards(octets);
        if backwards.take(b'}').is_none() {
            return;
        }
        while let Some((name, value)) = backwards.member() {
            if let Some(Member::Value(leaf)) =
                walk::unescaped(name).map(|it| ObjectPath::Request.member(&it))
            {
                members.push((leaf, value));
            }
            if backwards.take(b',').is_none() {
                break;
            }
        }
        for (leaf, value) in members.into_iter().rev() {
            match value {
                [b'"', inside @ .., b'"'] => show(walk::text(leaf, inside, &mut String::new())),
                _ => show(walk::plain(leaf, value)),
            }
        }
    }
}

/// Rest of a text that is read backwards, the next byte last.
struct Backwards<'a>(&'a [u8]);

impl<'a> Backwards<'a> {
    /// A name and the spelling of its value.
    fn member(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let value = self.value()?;
        self.take(b':')?;
        match self.string()? {
            [b'"', name @ .., b'"'] => Some((name, value)),
            _ => None,
        }
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        match self.peek()? {
            b'"' => self.string(),
            b'}' | b']' => self.container(),
            _ => {
                let is_part = |octet: &u8| octet.is_ascii_alphanumeric() || b"+-.".contains(octet);
                let outside = self.0.iter().rposition(|octet| !is_part(octet))?;
                Some(self.split(outside + 1)).filter(|scalar| !scalar.is_empty())
            }
        }
    }

    /// The string that ends here, with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        if self.peek()? != b'"' {
            return None;
        }
        let mut end = self.0.len() - 1;
        loop {
            let quote = memchr::memrchr(b'"', self.0.get(..end)?)?;
            let before = self.0.get(..quote)?;
            let plain = before.iter().rposition(|octet| *octet != b'\\')?;
            if (quote - plain) % 2 == 1 {
                return Some(self.split(quote));
            }
            end = quote;
        }
    }

    /// The object or array that ends here.
    fn container(&mut self) -> Option<&'a [u8]> {
        let (whole, mut depth) = (self.0, 0_usize);
        loop {
            let (octet, before) = self.0.split_last()?;
            match octet {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'}' | b']' => depth += 1,
                b'{' | b'[' => depth -= 1,
                _ => {}
            }
            self.0 = before;
            if depth == 0 {
                return whole.get(before.len()..);
            }
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_end();
        self.0.last().copied()
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        let _ = self.peek().filter(|octet| *octet == expected)?;
        self.0 = self.0.get(..self.0.len() - 1)?;
        Some(())
    }

    /// Takes what is behind this index.
    fn split(&mut self, at: usize) -> &'a [u8] {
        let (before, behind) = self.0.split_at(at);
        self.0 = before;
        behind
    }
}

/// Bytes that are read: Claude Code's `metadata`, `max_tokens`, `thinking`, `context_management` and
/// `stream` are 500 together.
pub(super) const LENGTH: usize = 2 * 1024;
