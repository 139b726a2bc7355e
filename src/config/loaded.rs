//! A valid configuration with its warnings and origins.

use super::{envfile::EnvFileFacts, error::Warning, model::Config, origin::Setting};
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
