//! The settings of one load, read one by one; a value that cannot be parsed becomes an error.

use crate::config::{
    env::RawSettings, error::ConfigError, mask, merge::MergedSettings, origin::Origin,
    scalar::InvalidValue,
};

/// The merged settings, with the errors and warnings found so far.
pub(super) struct Reader {
    pub(super) merged: MergedSettings,
}

impl Reader {
    pub(super) fn raw(&mut self) -> Option<RawSettings> {
        let texts =
            self.merged.settings.iter().filter_map(|setting| {
                Some((setting.variable.name.to_owned(), setting.text.clone()?))
            });
        match envy::from_iter(texts) {
            Ok(raw) => Some(raw),
            // Unreachable while the table and `RawSettings` agree, which a test sees to.
            Err(error) => {
                self.merged.faults.push(ConfigError {
                    variable: None,
                    origin: Origin::Default,
                    found: None,
                    problem: error.to_string(),
                    expected: "the variables of the table".into(),
                    fix: None,
                });
                None
            }
        }
    }

    /// The value, or none with a fault noted; none without a fault where nothing was said.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        text: &Option<String>,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let text = text.as_deref()?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.fault(name, bad);
                None
            }
        }
    }

    pub(super) fn fault(&mut self, name: &'static str, bad: InvalidValue) {
        let Some(setting) = self.merged.setting(name) else {
            return;
        };
        let variable = setting.variable;
        let fix = bad
            .hint
            .unwrap_or_else(|| format!("for example {name}={}", variable.example));
        self.merged.faults.push(ConfigError {
            variable: Some(name.to_owned()),
            origin: setting.origin.clone(),
            found: setting
                .text
                .as_deref()
                .map(|text| mask::found(variable, text)),
            problem: bad.problem.into_owned(),
            expected: variable.expected.into(),
            fix: Some(fix),
        });
    }
}
