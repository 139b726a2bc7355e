//! Contents of the file before its changes, in a folder beside it: `.env.history` beside `.env`.
//!
//! One file for each change, which the user alone can read, since it has the secrets of its time. The oldest
//! go when there are too many.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::file::{self, FileWriteError};

/// Changes that are kept.
const KEPT: usize = 50;

/// A change of the past. Its text may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PastRevision {
    /// Its number, from 1 on.
    pub id: u64,
    /// Its time (RFC 3339).
    pub at: String,
    /// Its author.
    pub actor: String,
    /// The variables that it changed.
    pub changed: Vec<String>,
    /// The reason that the author gave.
    #[serde(default)]
    pub reason: Option<String>,
    /// The text of the file before it.
    pub before: String,
    /// The text of the file after it; none of changes that an earlier version kept.
    #[serde(default)]
    pub after: Option<String>,
}

/// A change of the past, without contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct HistoryEntry {
    /// Its number, from 1 on.
    pub id: u64,
    /// Its time (RFC 3339).
    #[cfg_attr(test, schema(example = "2026-11-28T21:00:00Z"))]
    pub at: String,
    /// Its author.
    pub actor: String,
    /// The variables that it changed.
    pub changed: Vec<String>,
    /// The reason that the author gave.
    pub reason: Option<String>,
}

impl From<&PastRevision> for HistoryEntry {
    fn from(past: &PastRevision) -> Self {
        Self {
            id: past.id,
            at: past.at.clone(),
            actor: past.actor.clone(),
            changed: past.changed.clone(),
            reason: past.reason.clone(),
        }
    }
}

/// The folder of a file's history.
#[derive(Debug, Clone)]
pub(super) struct History {
    folder: PathBuf,
}

impl History {
    /// The history of a file.
    pub(super) fn of(file: &Path) -> Self {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".history");
        Self {
            folder: file.with_file_name(name),
        }
    }

    /// Holds other processes off that change the file, until it is dropped.
    pub(super) fn lock(&self) -> Result<File, FileWriteError> {
        let path = self.folder.join("lock");
        let opened = file::make_directory(&self.folder)
            .and_then(|()| create(&path))
            .and_then(|file| file.lock().map(|()| file));
        opened.map_err(|error| file::refusal_of(&self.folder, error))
    }

    /// All changes, newest first. What is no change of ours is left out.
    pub(super) fn all(&self) -> io::Result<Vec<PastRevision>> {
        let mut found = Vec::new();
        for id in self.ids()?.into_iter().rev() {
            if let Some(past) = self.read(id) {
                found.push(past);
            }
        }
        Ok(found)
    }

    /// One change.
    pub(super) fn one(&self, id: u64) -> Option<PastRevision> {
        self.read(id)
    }

    /// The last change.
    pub(super) fn last(&self) -> io::Result<Option<PastRevision>> {
        let ids = self.ids()?;
        Ok(ids.into_iter().rev().find_map(|id| self.read(id)))
    }

    /// Keeps a change, and gives its number. The caller has the lock.
    pub(super) fn add(&self, mut past: PastRevision) -> Result<u64, FileWriteError> {
        let failed = |error| FileWriteError::Io(self.folder.clone(), error);
        let mut ids = self.ids().map_err(failed)?;
        past.id = ids.last().map_or(1, |last| last + 1);
        let text = serde_json::to_string(&past)
            .map_err(|error| failed(io::Error::other(error.to_string())))?;
        file::write_whole(&self.path(past.id), &text)?;
        ids.push(past.id);
        let surplus = ids.len().saturating_sub(KEPT);
        for id in &ids[..surplus] {
            // one that stays is removed by the next change
            let _ = fs::remove_file(self.path(*id));
        }
        Ok(past.id)
    }

    /// Forgets a change that did not take effect.
    pub(super) fn remove(&self, id: u64) {
        let _ = fs::remove_file(self.path(id));
    }

    fn ids(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if file::is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(id.and_then(|id| id.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn read(&self, id: u64) -> Option<PastRevision> {
        let text = fs::read_to_string(self.path(id)).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:06}.json"))
    }
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(before: &str) -> PastRevision {
        PastRevision {
            id: 0,
            at: "2026-11-28T21:00:00Z".to_owned(),
            actor: "cli ada".to_owned(),
            changed: vec!["PORT".to_owned()],
            reason: None,
            before: before.to_owned(),
            after: None,
        }
    }

    #[test]
    fn the_last_changes_are_kept_for_the_user_alone() {
        let root = tempfile::tempdir().unwrap();
        let history = History::of(&root.path().join(".env"));
        assert_eq!(history.last().unwrap().map(|past| past.id), None);
        for n in 1..=KEPT + 3 {
            let _lock = history.lock().unwrap();
            assert_eq!(history.add(past(&format!("PORT={n}\n"))).unwrap(), n as u64);
        }
        let all = history.all().unwrap();
        assert_eq!(all.len(), KEPT);
        assert_eq!(all[0].before, format!("PORT={}\n", KEPT + 3));
        assert!(history.one(1).is_none());
        assert_eq!(history.one(4).unwrap().before, "PORT=4\n");
        history.remove(all[0].id);
        assert_eq!(history.last().unwrap().unwrap().id, all[1].id);
        #[cfg(unix)]
        for entry in fs::read_dir(root.path().join(".env.history")).unwrap() {
            use std::os::unix::fs::PermissionsExt as _;
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        }
    }
}
