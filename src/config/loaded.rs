//! A valid configuration with its warnings and origins.

use std::path::{self, Path};

use super::{
    envfile::EnvFileFacts,
    error::Warning,
    model::Config,
    origin::{Origin, Setting},
};
use crate::secret::Secrets;

/// A valid configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Settings that are probably unintended.
    pub warnings: Vec<Warning>,
    /// Every variable with its origin, in the order of the table.
    pub settings: Vec<Setting>,
    /// Facts about the environment file, compared with those of a later one.
    pub(super) env_file: EnvFileFacts,
}

impl Loaded {
    /// Reports that an operator gave the variable a value.
    pub fn is_set(&self, name: &str) -> bool {
        let mut settings = self.settings.iter();
        settings.any(|it| it.variable.name == name && it.origin != Origin::Default)
    }

    /// The files that settings are from, or that there is none, with paths from the root on.
    pub fn files(&self) -> String {
        let boot = &self.config.boot;
        let absolute = |path: &Path| {
            let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
            path.display().to_string()
        };
        let env_file = absolute(&boot.env_file);
        let mut read = Vec::new();
        if !self.env_file.is_missing {
            read.push(env_file.clone());
        }
        if boot.headers_file.exists() {
            read.push(absolute(&boot.headers_file));
        }
        let read = read.join(", ");
        match (self.env_file.is_missing, read.is_empty()) {
            (false, _) => format!("settings from {read}"),
            (true, false) => format!("no {env_file}; settings from {read}"),
            (true, true) => {
                format!("no {env_file}; settings from flags, environment and defaults alone")
            }
        }
    }

    /// Every secret of the configuration, for what is to have none of them.
    pub fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.share(&self.config.live.secrets);
        for setting in &self.settings {
            setting.add_secrets(&mut secrets);
        }
        secrets
    }
}
