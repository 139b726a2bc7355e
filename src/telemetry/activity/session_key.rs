//! Names of sessions.

use crate::exchange::{Exchange, shortened};

/// Bytes of a name that are kept.
const LONGEST: usize = 128;

/// Name of a session: that of the client, and the id of the key that it showed; empty without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SessionKey {
    pub(super) session: Box<str>,
    pub(super) key: Box<str>,
}

impl SessionKey {
    /// The session of an exchange, if it has one.
    pub(super) fn of(exchange: &Exchange) -> Option<Self> {
        let begun = &exchange.begun;
        let owner = begun.owner.as_ref();
        Some(Self {
            session: shortened(begun.session.as_ref()?, LONGEST).into(),
            key: owner.map(|owner| owner.key.clone()).unwrap_or_default(),
        })
    }
}
