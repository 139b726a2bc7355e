//! State that all admissions share.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{
    clock::SteadyClock, estimate::Estimates, key::Key, ledger::Ledger, limit::Subject,
    others::OtherSpends,
};

/// State that all admissions share.
pub(super) struct Context {
    /// The organisation.
    pub(super) organisation: Arc<Subject>,
    pub(super) others: Arc<OtherSpends>,
    pub(super) estimates: Estimates,
    pub(super) ledger: Ledger,
    pub(super) clock: SteadyClock,
    /// The person or place that a refused client may ask.
    pub(super) contact: ArcSwapOption<String>,
}

impl Context {
    /// The subjects whose limits count the requests of a key, in the order in which they do.
    pub(super) fn subjects<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Arc<Subject>> {
        let subjects = &key.subjects;
        let below = [
            subjects.team.as_ref(),
            subjects.member.as_ref(),
            subjects.user.as_ref(),
            key.own(&self.others),
        ];
        std::iter::once(&self.organisation).chain(below.into_iter().flatten())
    }

    /// The person or place that a refused client may ask.
    pub(super) fn contact(&self) -> Option<Arc<String>> {
        self.contact.load_full()
    }
}
