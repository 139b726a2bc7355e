//! The settings of one load; a value that is invalid by itself, or beside others, becomes an error.

use std::path::Path;

use crate::config::{
    env::Settings, error::ConfigError, merge::MergedSettings, origin::Origin, scalar::InvalidValue,
};

/// The merged settings, with the errors and warnings found so far.
pub(super) struct Reader {
    pub(super) merged: MergedSettings,
}

impl Reader {
    /// The typed values, with every invalid one noted as an error.
    pub(super) fn settings(&mut self) -> Option<Settings> {
        let settings = self.merged.settings.iter();
        let texts: Vec<_> = settings
            .filter_map(|it| Some((it.variable.name.to_owned(), it.text.clone()?)))
            .collect();
        match Settings::read(texts, &mut |name, bad| self.fault(name, bad)) {
            Ok(settings) => Some(settings),
            // Unreachable while the declarations are sound, which tests see to.
            Err(error) => {
                let expected = "the variables of the table";
                let fault = ConfigError::at(Origin::Default, error.to_string(), expected);
                self.merged.faults.push(fault);
                None
            }
        }
    }

    /// The content of a file that a variable names, or none with a fault noted.
    pub(super) fn opened<T>(
        &mut self,
        name: &'static str,
        path: Option<&Path>,
        root: &Path,
        open: impl FnOnce(&Path) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let opened = open(&root.join(path?));
        opened.map_err(|bad| self.fault(name, bad)).ok()
    }

    /// Reports that a variable has an error, so that its value is only a stand-in.
    pub(super) fn is_faulty(&self, name: &str) -> bool {
        let mut faults = self.merged.faults.iter();
        faults.any(|fault| fault.variable.as_deref() == Some(name))
    }

    /// Notes an error of the value of a variable.
    pub(super) fn fault(&mut self, name: &'static str, bad: InvalidValue) {
        let fault = match self.merged.setting(name) {
            Some(setting) => {
                let example = || format!("for example {name}={}", setting.variable.example);
                let hint = bad.hint.clone().unwrap_or_else(example);
                ConfigError::of(setting, bad.hint(hint))
            }
            None => ConfigError::at(Origin::Default, bad.problem, name),
        };
        self.merged.faults.push(fault);
    }
}
