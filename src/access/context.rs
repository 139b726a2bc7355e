//! State that all admissions share.

use std::{ops::Deref, sync::Arc};

use arc_swap::{ArcSwapOption, Guard};

use super::{
    clock::SteadyClock,
    estimate::Estimates,
    key::Key,
    ledger::Ledger,
    limit::{Policy, Subject},
    others::OtherSpends,
};

/// A subject with its policy at this moment.
pub(super) type InEffect<'a> = (&'a Subject, Guard<Arc<Policy>>);

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

/// The shared state as one worker has it: the references of its requests are counted here, so that workers do not
/// write to one count.
pub(super) struct LocalContext(Arc<Context>);

impl LocalContext {
    pub(super) fn new(context: &Arc<Context>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(context)))
    }
}

impl Deref for LocalContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl Context {
    /// The subjects whose limits count the requests of a key, in the order in which they do.
    pub(super) fn subjects<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Arc<Subject>> {
        let subjects = &key.subjects;
        let all = [
            Some(&self.organisation),
            subjects.team.as_ref(),
            subjects.member.as_ref(),
            subjects.user.as_ref(),
            key.own(&self.others),
        ];
        all.into_iter().flatten()
    }

    /// Those of them that have rules, with the rules in effect.
    pub(super) fn policies<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = InEffect<'a>> {
        let ruled = self.subjects(key).filter(|subject| subject.has_rules());
        ruled.map(|subject| (&**subject, subject.policy()))
    }

    /// The person or place that a refused client may ask.
    pub(super) fn contact(&self) -> Option<Arc<String>> {
        self.contact.load_full()
    }
}
