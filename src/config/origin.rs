//! One variable as it is in effect, and where its value comes from.

use std::{fmt, path::PathBuf};

use super::{env::Variable, mask};
use crate::secret::Secrets;

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// The environment file, the headers file, and the line where there is one.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// The environment.
    Environment,
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{} line {line}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One variable as it is in effect.
#[derive(Clone)]
pub struct Setting {
    /// Its row in the table.
    pub variable: &'static Variable,
    /// Origin of the value.
    pub origin: Origin,
    /// The text, if there is any: said, or the default. It may be a secret.
    pub(super) text: Option<String>,
}

impl Setting {
    /// The value as it may be shown; none where it is unset and has no default.
    pub fn shown(&self) -> Option<String> {
        self.text
            .as_deref()
            .map(|text| mask::shown(self.variable, text))
    }

    /// Adds the parts of the value that are not shown.
    pub(super) fn add_secrets(&self, secrets: &mut Secrets) {
        for hidden in self
            .text
            .iter()
            .flat_map(|text| mask::hidden(self.variable, text))
        {
            secrets.add(&hidden);
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown().unwrap_or_default();
        write!(f, "{}={shown} ({})", self.variable.name, self.origin)
    }
}
