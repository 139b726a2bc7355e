//! Permissions and wishes of the operator for a run.

use std::time::Duration;

use crate::config::Credential;

/// Permissions and wishes of the operator for checks of upstreams.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// Makes the one request that costs money.
    pub spend: bool,
    /// Silence to be tried, where it is to be.
    pub slow: Option<Duration>,
    /// Model of requests; without it, a small one of those that the upstream names.
    pub model: Option<String>,
    /// Credential for an upstream that gets none of the configuration.
    pub credential: Option<Credential>,
}
