//! An exchange that has ended, as it is kept: in the list, among the failures, and for the store.

use std::{sync::Arc, time::SystemTime};

use crate::exchange::Exchange;

/// An exchange that has ended.
pub(super) struct EndedExchange {
    pub(super) change: u64,
    pub(super) ended: SystemTime,
    pub(super) exchange: Box<Exchange>,
}

impl EndedExchange {
    /// The exchange alone, unless it is listed elsewhere.
    pub(super) fn unlisted(self: Arc<Self>) -> Option<Box<Exchange>> {
        Arc::into_inner(self).map(|ended| ended.exchange)
    }

    pub(super) fn seq(&self) -> u64 {
        self.exchange.begun.seq
    }
}

/// An ended exchange with the type and text of its error, if it has them.
#[derive(Clone)]
pub(super) struct EndedRecord {
    pub(super) done: Arc<EndedExchange>,
    /// The type of the error in its content.
    pub(super) kind: Option<Box<str>>,
    pub(super) text: Option<RedactedText>,
}

/// Redacted text of an upstream's error response.
#[derive(Clone)]
pub(super) struct RedactedText {
    pub(super) content: Arc<str>,
    pub(super) is_cut: bool,
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::EndedRecord;

    /// Compares by request id.
    impl PartialEq for EndedRecord {
        fn eq(&self, other: &Self) -> bool {
            self.done.exchange.begun.id == other.done.exchange.begun.id
        }
    }

    impl fmt::Debug for EndedRecord {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.done.exchange.begun.id)
        }
    }
}
