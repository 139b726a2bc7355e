//! Names for exchanges: `req_` and 24 characters, unique over processes.

use std::{
    cell::Cell,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

/// Names one exchange, in our own answers and in the log. The upstream's `request-id` is another
/// one, and passes untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64, u64);

thread_local! {
    /// A key of the thread, from the system's randomness, and a counter.
    static NEXT: Cell<(u64, u64)> = Cell::new((RandomState::new().hash_one(0_u8), 0));
}

impl RequestId {
    /// A new name.
    pub fn next() -> Self {
        let (key, count) = NEXT.get();
        NEXT.set((key, count + 1));
        Self(key, count)
    }

    /// A number of it, another one for each exchange of the process.
    pub(super) fn number(self) -> u64 {
        self.0 ^ self.1
    }

    /// The name as a text that is shared.
    pub(super) fn text(self) -> Arc<str> {
        let Ok(count) = u32::try_from(self.1) else {
            return self.to_string().into();
        };
        let mut text = *b"req_\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let octets = self.0.to_be_bytes().into_iter().chain(count.to_be_bytes());
        for (digits, octet) in text[4..].chunks_exact_mut(2).zip(octets) {
            digits[0] = HEX[usize::from(octet >> 4)];
            digits[1] = HEX[usize::from(octet & 15)];
        }
        String::from_utf8_lossy(&text).into()
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:016x}{:08x}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let (one, two) = (RequestId::next(), RequestId::next());
        assert_ne!(one, two);
        assert_eq!(one.to_string().len(), 28);
        for name in [one, RequestId(u64::MAX, 0xab), RequestId(7, 1 << 32)] {
            assert_eq!(*name.text(), name.to_string());
        }
    }
}
