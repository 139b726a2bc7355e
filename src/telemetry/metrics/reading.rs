//! Sums of the counters at one moment, as far as alerts compare them with earlier ones.

use crate::label::Label;

/// Counts since the process began.
#[derive(Debug, Clone)]
pub struct CounterReading {
    /// Requests.
    pub requests: u64,
    /// Requests that failed with another status than 4xx.
    pub failed: u64,
    /// Requests to `POST /v1/messages`.
    pub generations: u64,
    /// Errors of the upstream: authentication, permission, billing.
    pub credential_errors: u64,
    /// Errors of the upstream: too many requests.
    pub rate_limit_errors: u64,
    /// Errors of the upstream: overloaded.
    pub overloaded_errors: u64,
    /// Responses that could not be metered.
    pub metering_failures: u64,
    /// Billionths of a US dollar.
    pub cost: u64,
    /// Counts of each model.
    pub models: Vec<ModelReading>,
    /// Attempts to connect to upstreams.
    pub connects: u64,
    /// Those that failed.
    pub failed_connects: u64,
    /// Requests that a limit of the process refused, by its label.
    pub saturations: [(Label, u64); SATURATIONS.len()],
    /// Requests that a budget refused.
    pub spend_refusals: u64,
    /// Requests that were refused since the state of a limit could not be reached.
    pub unreachable_refusals: u64,
    /// Open file descriptors, and the upper bound of them, where the system tells.
    pub descriptors: Option<(u64, u64)>,
}

/// Counts of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelReading {
    /// Its name.
    pub name: String,
    /// Times to the first token: upper bound of a bucket in seconds, and values in it alone.
    pub first_token: Vec<(f64, u64)>,
    /// Requests without a price.
    pub unpriced: u64,
}

/// Limits of the process that refuse requests.
pub(super) const SATURATIONS: [Label; 4] = [
    Label::TooManyConnections,
    Label::TooManyInFlight,
    Label::EditMemoryExhausted,
    Label::DescriptorsExhausted,
];

/// Types of errors that tell of the credential.
pub(super) const CREDENTIAL_ERRORS: &[&str] =
    &["authentication_error", "permission_error", "billing_error"];

/// Types of errors that tell of too many requests.
pub(super) const RATE_LIMIT_ERRORS: &[&str] = &["rate_limit_error"];

/// Types of errors that tell of an upstream's load.
pub(super) const OVERLOADED_ERRORS: &[&str] = &["overloaded_error"];
