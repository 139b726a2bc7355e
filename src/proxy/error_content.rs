//! The beginning of an error's content, within a bound that all workers share.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The beginning of an error's content.
pub(super) struct ErrorPrefix {
    octets: Vec<u8>,
    coding: Option<Box<str>>,
}

/// Octets of errors' contents that all workers hold while their exchanges last.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Maximum of these; beyond it only [`FEW`] bytes of an error are kept.
const MOST_HELD: usize = 32 << 20;
/// Bytes of an error that are kept.
const MOST_ERROR: usize = 50 * 1000;
/// Bytes of an error that are kept beyond [`MOST_HELD`]: an error of the API is shorter.
const FEW: usize = 2 * 1000;
impl ErrorPrefix {
    /// Nothing yet, in this content coding.
    pub(super) fn new(coding: Option<Box<str>>) -> Self {
        Self {
            octets: Vec::new(),
            coding,
        }
    }

    /// Keeps as much as there is room for.
    pub(super) fn push(&mut self, content: &[u8]) {
        let most = if HELD.load(Relaxed) < MOST_HELD {
            MOST_ERROR
        } else {
            FEW
        };
        let room = most.saturating_sub(self.octets.len()).min(content.len());
        self.octets.extend_from_slice(&content[..room]);
        HELD.fetch_add(room, Relaxed);
    }

    /// Takes the content and its coding, and releases its memory.
    pub(super) fn take(&mut self) -> (Vec<u8>, Option<Box<str>>) {
        HELD.fetch_sub(self.octets.len(), Relaxed);
        (std::mem::take(&mut self.octets), self.coding.take())
    }
}

impl Drop for ErrorPrefix {
    fn drop(&mut self) {
        self.take();
    }
}
