//! Lines of the chain that match, newest last.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::Path,
};

use super::{entry::AuditLine, segment};

/// Lines that are asked for.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Name, method or address of the author; any part of it.
    pub actor: Option<String>,
    /// The action, or its beginning up to a dot: `key`, `key.create`.
    pub action: Option<String>,
    /// Time (RFC 3339, UTC) of the oldest line.
    pub since: Option<String>,
    /// Upper bound of lines, the newest ones.
    pub limit: usize,
}

/// The newest lines that match, in their order. A line that cannot be read is passed over.
///
/// # Errors
/// A file cannot be read.
pub fn search(directory: &Path, filter: &AuditFilter) -> io::Result<Vec<AuditLine>> {
    let mut found = VecDeque::new();
    for (_, path) in segment::all(directory)?.iter().rev() {
        let (mut of_file, mut is_over) = (VecDeque::new(), false);
        let left = filter.limit.saturating_sub(found.len());
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let Ok(line) = serde_json::from_slice::<AuditLine>(&line?) else {
                continue;
            };
            // one format of one length: texts are compared
            if filter.since.as_ref().is_some_and(|since| line.at < *since) {
                is_over = true;
                continue;
            }
            if filter.matches(&line) {
                of_file.push_back(line);
                if of_file.len() > left {
                    of_file.pop_front();
                }
            }
        }
        of_file.extend(found);
        found = of_file;
        // files before this one are older
        if is_over || found.len() >= filter.limit {
            break;
        }
    }
    Ok(found.into())
}

impl AuditFilter {
    fn matches(&self, line: &AuditLine) -> bool {
        let is_actor = self.actor.as_ref().is_none_or(|actor| {
            let it = &line.actor;
            it.id.contains(actor.as_str())
                || it.kind.label() == actor
                || it.ip.as_ref().is_some_and(|ip| ip == actor)
        });
        let is_action = self.action.as_ref().is_none_or(|action| {
            let rest = line.action.strip_prefix(action.trim_end_matches(".*"));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        is_actor && is_action
    }
}
