//! Errors and warnings of a configuration, one line each.
//!
//! A [`ConfigError`] stops a start or a reload, a [`Warning`] does not. A line names the variable, the
//! origin of its value, the value, the problem, the expected form and the remedy. A value that may be
//! a secret is shown by its length only.

use std::{borrow::Cow, fmt};

use super::{
    mask,
    origin::{Origin, Setting},
    scalar::InvalidValue,
};

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable, or the key in the headers file; none where a line or file as such is at fault.
    pub variable: Option<String>,
    /// Origin of the value.
    pub origin: Origin,
    /// The value, masked if it may be a secret.
    pub found: Option<String>,
    /// The problem, as a predicate of the variable.
    pub problem: String,
    /// The form that was expected.
    pub expected: Cow<'static, str>,
    /// The remedy.
    pub fix: Option<String>,
}

impl ConfigError {
    /// A fault at a place, of no variable.
    pub(super) fn at(
        origin: Origin,
        problem: impl Into<String>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            variable: None,
            origin,
            found: None,
            problem: problem.into(),
            expected: expected.into(),
            fix: None,
        }
    }

    /// A fault of a value.
    pub(super) fn of(setting: &Setting, bad: InvalidValue) -> Self {
        let Setting {
            variable,
            origin,
            text,
        } = setting;
        Self {
            variable: Some(variable.name.to_owned()),
            found: text.as_deref().map(|text| mask::found(variable, text)),
            fix: bad.hint,
            ..Self::at(origin.clone(), bad.problem, variable.form.en)
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.variable {
            Some(variable) => write!(f, "{variable} ({})", self.origin)?,
            None => write!(f, "{}", self.origin)?,
        }
        f.write_str(": ")?;
        if let Some(found) = &self.found {
            write!(f, "{found} ")?;
        }
        write!(f, "{}; expected {}", self.problem, self.expected)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// All faults of one configuration, and its warnings, which may explain them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// Never empty.
    pub faults: Vec<ConfigError>,
    /// Warnings of the same configuration.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => f.write_str("the configuration has 1 fault")?,
            n => write!(f, "the configuration has {n} faults")?,
        }
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        for warning in &self.warnings {
            write!(f, "\n  {warning} (a warning)")?;
        }
        Ok(())
    }
}

/// A setting that is probably unintended, but valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The variable, or the key in the headers file.
    pub variable: String,
    /// Origin of the value.
    pub origin: Origin,
    /// The message, as a predicate of the variable.
    pub message: String,
    /// The remedy, where it is another one than to change or remove the value.
    pub fix: Option<String>,
}

impl Warning {
    pub(super) fn of(
        variable: impl Into<String>,
        origin: Origin,
        message: impl Into<String>,
    ) -> Self {
        Self {
            variable: variable.into(),
            origin,
            message: message.into(),
            fix: None,
        }
    }

    pub(super) fn with_fix(mut self, fix: String) -> Self {
        self.fix = Some(fix);
        self
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.variable, self.origin, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_with_everything() {
        let fault = ConfigError {
            variable: Some("PORT".into()),
            origin: Origin::File {
                path: "env/.env".into(),
                line: Some(3),
            },
            found: Some("`80a`".into()),
            problem: "is not a port".into(),
            expected: "a number from 0 to 65535".into(),
            fix: Some("for example PORT=8088".into()),
        };
        assert_eq!(
            fault.to_string(),
            "PORT (env/.env line 3): `80a` is not a port; expected a number from 0 to 65535; \
             for example PORT=8088"
        );
    }
}
