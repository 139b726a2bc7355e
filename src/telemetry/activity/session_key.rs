//! Names of sessions.

use std::sync::Arc;

use crate::exchange::{Exchange, shortened};

/// Bytes of a name that are kept.
const LONGEST: usize = 128;

/// Name of a session: that of the client, and the id of the key that it showed; empty without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SessionKey {
    pub(super) session: Arc<str>,
    pub(super) key: Arc<str>,
}

impl SessionKey {
    /// The session of an exchange, if it has one.
    pub(super) fn of(exchange: &Exchange) -> Option<Self> {
        let begun = &exchange.begun;
        let session = begun.session.as_ref()?;
        let short = shortened(session, LONGEST);
        let owner = begun.owner.as_ref();
        Some(Self {
            session: match short.len() == session.len() {
                true => Arc::clone(session),
                false => short.into(),
            },
            key: owner
                .map(|owner| Arc::clone(&owner.key))
                .unwrap_or_default(),
        })
    }

    /// The name under which replicas share it.
    pub(super) fn shared(&self) -> String {
        // the id of a key has no such character, which a client may put into the name of a session
        format!("{}\n{}", self.key, self.session)
    }

    /// The session of a shared name.
    pub(super) fn of_shared(name: &str) -> Option<Self> {
        let (key, session) = name.split_once('\n')?;
        Some(Self {
            session: session.into(),
            key: key.into(),
        })
    }
}
