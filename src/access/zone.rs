//! Name of a time zone in a rule: one pointer, since there may be a hundred thousand rules of few zones.

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

/// Name of a time zone. Its clones share one text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Zone(Arc<Name>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name(Box<str>);

impl From<&str> for Zone {
    fn from(name: &str) -> Self {
        Self(Arc::new(Name(name.into())))
    }
}

impl From<String> for Zone {
    fn from(name: String) -> Self {
        Self(Arc::new(Name(name.into())))
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}

impl Deref for Zone {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
