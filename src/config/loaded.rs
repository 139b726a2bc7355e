//! A valid configuration with its warnings and origins.

use super::{envfile::EnvFileFacts, error::Warning, model::Config, origin::Setting};

/// A valid configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is probably not meant.
    pub warnings: Vec<Warning>,
    /// Every variable with its origin, in the order of the table.
    pub settings: Vec<Setting>,
    /// What is known of the environment file that a later one is compared with.
    pub(super) env_file: EnvFileFacts,
}
