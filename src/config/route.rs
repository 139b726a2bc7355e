//! Placeholder of the road to the upstream: another part's file replaces it at merge.

use super::{Route, Upstream};

/// What is wrong with a variable that names an outbound proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFault {
    /// The variable at fault.
    pub variable: &'static str,
    /// What is wrong, without the value.
    pub message: String,
    /// What was expected.
    pub expected: &'static str,
}

/// Resolves the road to `upstream` from the variables that `lookup` knows.
pub fn resolve(
    _upstream: &Upstream,
    _lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Route, RouteFault> {
    Ok(Route::Direct)
}
