//! Names for exchanges: `req_` and 24 characters, unique over processes.

use std::{
    cell::Cell,
    fmt,
    hash::{BuildHasher, RandomState},
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
}

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
    }
}
