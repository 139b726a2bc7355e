//! The check of a chain: its first line that is not as it was written.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::Path,
};

use ring::hmac;
use serde::Serialize;

use super::{
    chain::{self, GENESIS},
    entry::AuditLine,
    segment,
};
use crate::state::StoredCheckpoint;

/// Result of the check of one chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ChainReport {
    /// The chain: a replica.
    pub chain: String,
    /// Number of its first line that is there; older files may be archived elsewhere.
    pub first: u64,
    /// Number of its last line that is as it was written.
    pub last: u64,
    /// Hash of that line.
    pub hash: String,
    /// Files.
    pub files: usize,
    /// Checkpoints that the chain was compared with.
    pub checkpoints: usize,
    /// The first line that is not as it was written.
    pub broken: Option<ChainBreak>,
}

/// A break of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ChainBreak {
    /// Number of the first line that is not as it was written.
    pub seq: u64,
    /// The file.
    pub file: String,
    /// The line of the file.
    pub line: u64,
    /// The difference.
    pub why: String,
}

/// Checks the chains of a folder against themselves and against checkpoints.
///
/// # Errors
/// A file cannot be read.
pub fn verify(
    directory: &Path,
    pepper: &hmac::Key,
    checkpoints: &[StoredCheckpoint],
) -> io::Result<Vec<ChainReport>> {
    let segments = segment::all(directory)?;
    let mut check = ChainCheck {
        anchors: checkpoints
            .iter()
            .map(|it| ((it.chain.as_str(), it.seq), it))
            .collect(),
        ..ChainCheck::default()
    };
    check.report.files = segments.len();
    'files: for (first, path) in &segments {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        check.file = name.into_owned();
        check.line = 0;
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            check.line += 1;
            if let Err(broken) = check.next(&line?, *first, pepper) {
                check.report.broken = Some(broken);
                break 'files;
            }
        }
    }
    if check.report.broken.is_none() {
        check.report.broken = check.end();
    }
    let mut reports = Vec::new();
    // a chain whose files are all gone
    let mut anchored: BTreeMap<&str, u64> = BTreeMap::new();
    for checkpoint in checkpoints {
        let last = anchored.entry(&checkpoint.chain).or_default();
        *last = checkpoint.seq.max(*last);
    }
    anchored.remove(check.report.chain.as_str());
    for (chain, last) in anchored {
        reports.push(ChainReport {
            chain: chain.to_owned(),
            broken: Some(ChainBreak {
                seq: 1,
                file: String::new(),
                line: 0,
                why: format!("lines 1 to {last} are not there: a checkpoint has the last of them"),
            }),
            ..ChainReport::default()
        });
    }
    if !segments.is_empty() {
        reports.push(check.report);
    }
    Ok(reports)
}

/// A check that is under way.
#[derive(Default)]
struct ChainCheck<'a> {
    anchors: BTreeMap<(&'a str, u64), &'a StoredCheckpoint>,
    report: ChainReport,
    file: String,
    line: u64,
}

impl ChainCheck<'_> {
    /// Checks a line of a file whose first line has this number.
    fn next(&mut self, line: &[u8], first: u64, pepper: &hmac::Key) -> Result<(), ChainBreak> {
        let is_first = self.report.last == 0 && self.report.first == 0;
        let expected = match is_first {
            true => first,
            false => self.report.last + 1,
        };
        let (file, at) = (self.file.clone(), self.line);
        let broken = |why: String| ChainBreak {
            seq: expected,
            file: file.clone(),
            line: at,
            why,
        };
        let text = std::str::from_utf8(line).ok();
        let read = text.and_then(|text| {
            let (open, hash) = chain::unsealed(text)?;
            let line: AuditLine = serde_json::from_str(text).ok()?;
            Some((open, hash.to_owned(), line))
        });
        let Some((open, hash, read)) = read else {
            return Err(broken("it is no line of the audit".to_owned()));
        };
        let seq = read.seq;
        if seq > expected {
            return Err(broken(match seq - expected {
                1 => format!("line {expected} is missing: line {seq} is in its place"),
                _ => format!("lines {expected} to {} are missing", seq - 1),
            }));
        }
        if seq < expected {
            return Err(broken(format!(
                "line {seq} is there again, or in another place"
            )));
        }
        if self.line == 1 && seq != first {
            return Err(broken(format!("the file's name says {first}")));
        }
        match is_first {
            true if seq == 1 && read.prev != GENESIS => {
                return Err(broken("the first line has a line before it".to_owned()));
            }
            true => {
                self.report.chain.clone_from(&read.replica);
                self.report.first = seq;
            }
            false if read.prev != self.report.hash => {
                return Err(broken(
                    "it does not follow the line before it: one of them was changed or inserted"
                        .to_owned(),
                ));
            }
            false if read.replica != self.report.chain => {
                return Err(broken(format!("it is of another chain, {}", read.replica)));
            }
            false => {}
        }
        if chain::hash(&read.prev, &open) != hash {
            return Err(broken("it was changed: its hash is another one".to_owned()));
        }
        let anchor = self.anchors.get(&(self.report.chain.as_str(), seq));
        if let Some(anchor) = anchor {
            if !chain::is_code(pepper, &anchor.chain, seq, &anchor.hash, &anchor.hmac) {
                return Err(broken(
                    "its checkpoint was changed, or was made under another pepper".to_owned(),
                ));
            }
            if anchor.hash != hash {
                return Err(broken(
                    "the chain up to here was written anew: the checkpoint has another hash"
                        .to_owned(),
                ));
            }
            self.report.checkpoints += 1;
        }
        (self.report.last, self.report.hash) = (seq, hash);
        Ok(())
    }

    /// Checks the end: the line of the last checkpoint must be there.
    fn end(&self) -> Option<ChainBreak> {
        let chain = self.report.chain.as_str();
        let mut anchors = self.anchors.range((chain, 0)..=(chain, u64::MAX));
        let ((_, seq), _) = anchors.next_back()?;
        let next = self.report.last + 1;
        (*seq >= next).then(|| {
            let why = format!("lines {next} to {seq} were cut: a checkpoint has the last of them");
            self.broken(next, why)
        })
    }

    fn broken(&self, seq: u64, why: String) -> ChainBreak {
        ChainBreak {
            seq,
            file: self.file.clone(),
            line: self.line,
            why,
        }
    }
}

#[cfg(test)]
mod tests;
