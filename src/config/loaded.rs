//! A valid configuration with its warnings and origins.

use super::{envfile::EnvFileFacts, error::Warning, model::Config, origin::Setting};

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
