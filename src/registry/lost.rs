//! A store that is gone while the audit knows of it: without it there would be no keys, and every request would
//! pass.

use std::path::Path;

use super::core::OpenError;
use crate::audit::{AUDIT_FOLDER, AuditFilter, search};

/// Actions that leave a store behind.
const CHANGES: [&str; 5] = [
    "key.create",
    "keys.apply",
    "keys.import",
    "limits.set",
    "limits.grant",
];

/// Refuses a directory without a store whose audit tells of a change that was made.
pub(super) fn check(directory: &Path) -> Result<(), OpenError> {
    let folder = directory.join(AUDIT_FOLDER);
    for action in CHANGES {
        let filter = AuditFilter {
            action: Some(action.to_owned()),
            limit: usize::MAX,
            ..AuditFilter::default()
        };
        // an audit that cannot be read is told of by the first change
        let lines = search(&folder, &filter).unwrap_or_default();
        if lines.iter().any(|line| line.result == "done") {
            return Err(OpenError::Lost(directory.to_owned()));
        }
    }
    Ok(())
}
