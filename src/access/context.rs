//! State that all admissions share.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{clock::SteadyClock, estimate::Estimates, ledger::Ledger, limit::Subject};

/// State that all admissions share.
pub(super) struct Context {
    /// The organisation.
    pub(super) organisation: Arc<Subject>,
    pub(super) estimates: Estimates,
    pub(super) ledger: Ledger,
    pub(super) clock: SteadyClock,
    /// The person or place that a refused client may ask.
    pub(super) contact: ArcSwapOption<String>,
}

impl Context {
    /// The person or place that a refused client may ask.
    pub(super) fn contact(&self) -> Option<Arc<String>> {
        self.contact.load_full()
    }
}
