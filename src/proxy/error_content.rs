//! The beginning of an error's content, within a bound that all workers share.

use crate::memory::{Budget, BudgetShare};

/// The beginning of an error's content.
pub(super) struct ErrorPrefix {
    octets: Vec<u8>,
    coding: Option<Box<str>>,
    share: BudgetShare,
}

/// Memory of errors' contents that all workers hold while their exchanges last; beyond it only [`FEW`] bytes
/// of an error are kept.
static HELD: Budget = Budget::new(32 << 20);
/// Bytes of an error that are kept.
const MOST_ERROR: usize = 50 * 1000;
/// Bytes of an error that are kept beyond the budget: an error of the API is shorter.
const FEW: usize = 2 * 1000;

impl ErrorPrefix {
    /// Nothing yet, in this content coding.
    pub(super) fn new(coding: Option<Box<str>>) -> Self {
        Self {
            octets: Vec::new(),
            coding,
            share: BudgetShare::of(&HELD),
        }
    }

    /// Keeps as much as there is room for.
    pub(super) fn push(&mut self, content: &[u8]) {
        let whole = MOST_ERROR.min(self.octets.len() + content.len());
        let most = if self.share.grow_to(whole) {
            whole
        } else {
            FEW
        };
        let room = most.saturating_sub(self.octets.len()).min(content.len());
        self.octets.extend_from_slice(&content[..room]);
        self.share.force_to(self.octets.len());
    }

    /// Takes the content and its coding, and releases its memory.
    pub(super) fn take(&mut self) -> (Vec<u8>, Option<Box<str>>) {
        self.share.clear();
        (std::mem::take(&mut self.octets), self.coding.take())
    }
}
