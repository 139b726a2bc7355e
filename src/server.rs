//! Placeholder of the composition root: the founder's file replaces it at merge.

use std::process::ExitCode;

use crate::config::{Loaded, Source};

/// Serves until a signal ends it.
pub fn serve(_loaded: Loaded, _source: Source) -> ExitCode {
    ExitCode::SUCCESS
}
