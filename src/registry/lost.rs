//! A store that is gone while the audit knows of it: without it there would be no keys, and every request would
//! pass.

use std::path::Path;

use crate::audit::{AUDIT_FOLDER, AuditFilter, search};

/// Actions that leave a store behind.
const CHANGES: [&str; 5] = [
    "key.create",
    "keys.apply",
    "keys.import",
    "limits.set",
    "limits.grant",
];

/// Reports that the audit of a directory without a store tells of a change that was made.
pub(super) fn is_lost(directory: &Path) -> bool {
    let folder = directory.join(AUDIT_FOLDER);
    CHANGES.into_iter().any(|action| {
        let filter = AuditFilter {
            action: Some(action.to_owned()),
            limit: usize::MAX,
            ..AuditFilter::default()
        };
        // an audit that cannot be read is told of by the first change
        let lines = search(&folder, &filter).unwrap_or_default();
        lines.iter().any(|line| line.result == "done")
    })
}
