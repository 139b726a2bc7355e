//! Digests of a prompt's parts, by which two prompts are compared without their content.

/// Digests of the parts of a prompt, in the order in which a prompt cache reads them: 8 octets of SHA-256
/// each. Marks for the cache (`cache_control`) are no part of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptDigests {
    /// `tools`
    pub tools: Option<u64>,
    /// `system`
    pub system: Option<u64>,
    /// The parameters on which the cache of the messages depends: `thinking` and `tool_choice`.
    pub parameters: Option<u64>,
    /// Each of `messages`; the last one stands for all beyond [`MESSAGES`](Self::MESSAGES).
    pub messages: Vec<u64>,
}

impl PromptDigests {
    /// Upper bound of messages with a digest of their own.
    pub const MESSAGES: usize = 1024;

    /// Adds the digest of a message.
    pub fn add_message(&mut self, digest: u64) {
        let is_full = self.messages.len() >= Self::MESSAGES;
        match self.messages.last_mut() {
            Some(last) if is_full => {
                // an odd number keeps all bits of the digests before
                *last = last.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ digest;
            }
            _ => self.messages.push(digest),
        }
    }

    /// Number of messages at the beginning that are the same in both.
    pub fn common(&self, other: &Self) -> usize {
        let pairs = self.messages.iter().zip(&other.messages);
        pairs.take_while(|(one, other)| one == other).count()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.messages.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_beyond_the_bound_share_a_digest() {
        let of = |messages: &[u64]| {
            let mut digests = PromptDigests::default();
            messages.iter().for_each(|it| digests.add_message(*it));
            digests
        };
        let many: Vec<u64> = (0..3000).collect();
        let (whole, mut other) = (of(&many), many.clone());
        assert_eq!(whole.messages.len(), PromptDigests::MESSAGES);
        assert_eq!(whole.common(&of(&many)), PromptDigests::MESSAGES);
        other[2000] = 7;
        assert_eq!(whole.common(&of(&other)), PromptDigests::MESSAGES - 1);
        assert_eq!(of(&[1, 2, 3]).common(&of(&[1, 2, 4, 5])), 2);
    }
}
