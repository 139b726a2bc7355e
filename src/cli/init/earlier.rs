//! Settings that the file has before `init` changes it: they are the defaults of the questions.

use crate::config::envtext;

/// Values that the file has already.
pub(super) struct Earlier(Vec<(String, String)>);

impl Earlier {
    /// Those of a text.
    pub(super) fn of(text: &str) -> Self {
        Self(envtext::values(text))
    }

    /// Names and values.
    pub(super) fn values(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    /// The value of a variable, if there is one.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| &**value)
    }
}
