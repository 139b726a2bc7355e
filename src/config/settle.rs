//! Waits until the files of the configuration are still.
//!
//! A writer that truncates a file and fills it later, and an editor that deletes one before it
//! creates it, leave states on the way that were not meant. What has been read counts only if no
//! file changed for a while before, and none while it was read. It reads no content.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Existence and metadata of files, which tell one content from another without reading it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    files: Vec<PathBuf>,
    states: Vec<Option<FileState>>,
}

impl Fingerprint {
    /// The files as they are now; links are followed.
    pub(super) fn of(files: Vec<PathBuf>) -> Self {
        let states = files.iter().map(|path| FileState::of(path).ok()).collect();
        Self { files, states }
    }

    /// The same files as they are now.
    pub(super) fn again(&self) -> Self {
        Self::of(self.files.clone())
    }

    /// The first file that differs.
    fn changed<'s>(&'s self, other: &Self) -> Option<&'s PathBuf> {
        let pairs = self.states.iter().zip(&other.states);
        let mut files = self.files.iter().zip(pairs);
        files
            .find(|(_, (one, other))| one != other)
            .map(|(path, _)| path)
    }
}

/// Identity, size, and times of change.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    len: u64,
    modified: Option<std::time::SystemTime>,
    #[cfg(unix)]
    identity: (u64, u64, i64, i64),
}

impl FileState {
    fn of(path: &Path) -> io::Result<Self> {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path)?;
        // a network file system asks its server when a file is opened, and may remember metadata for a minute
        let opened = match metadata.is_file() {
            true => File::open(path).and_then(|file| file.metadata()),
            false => Ok(metadata.clone()),
        };
        let metadata = opened.unwrap_or(metadata);
        Ok(Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            identity: (
                metadata.dev(),
                metadata.ino(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ),
        })
    }
}

/// Result of the wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing changed for as long as was asked; the files as they are.
    Still(Fingerprint),
    /// This file was still changing after [`PATIENCE`].
    Moving(PathBuf),
    /// The wait was broken off.
    Stopped,
}

/// Waits until nothing changes for `span`. `pause` waits, and says whether to go on.
pub(super) fn settle(
    files: Vec<PathBuf>,
    span: Duration,
    pause: impl Fn(Duration) -> bool,
) -> Settled {
    let latest = Instant::now() + PATIENCE;
    let mut last = Fingerprint::of(files);
    loop {
        if !pause(span) {
            return Settled::Stopped;
        }
        let now = last.again();
        match now.changed(&last) {
            None => return Settled::Still(now),
            Some(path) if Instant::now() >= latest => return Settled::Moving(path.clone()),
            Some(_) => last = now,
        }
    }
}

/// Longer than a file is written without a pause.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SPAN: Duration = Duration::from_millis(200);

    #[test]
    fn every_change_of_a_file_changes_its_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let missing = Fingerprint::of(vec![file.clone()]);
        fs::write(&file, "a").unwrap();
        let written = missing.again();
        assert_eq!(written.changed(&missing), Some(&file));
        fs::write(&file, "ab").unwrap();
        let longer = missing.again();
        assert_eq!(longer.changed(&written), Some(&file));
        assert_eq!(missing.again().changed(&longer), None);
        fs::write(dir.path().join("g"), "ab").unwrap();
        fs::rename(dir.path().join("g"), &file).unwrap();
        assert_eq!(missing.again().changed(&longer), Some(&file));
    }

    #[test]
    fn it_waits_as_long_as_a_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let rounds = Cell::new(0);
        let pause = |_| {
            rounds.set(rounds.get() + 1);
            if rounds.get() <= 3 {
                fs::write(&file, "x".repeat(rounds.get())).unwrap();
            }
            true
        };
        let settled = settle(vec![file.clone()], SPAN, pause);
        let still = Settled::Still(Fingerprint::of(vec![file.clone()]));
        assert_eq!((settled, rounds.get()), (still, 4));
    }

    #[test]
    fn it_waits_neither_for_ever_nor_after_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let files = vec![file.clone()];
        assert_eq!(settle(files.clone(), SPAN, |_| false), Settled::Stopped);
        let start = Instant::now();
        let rounds = Cell::new(0);
        let pause = |_| {
            rounds.set(rounds.get() + 1);
            // a clock that a test can move would be more than this is worth: the bound is real
            std::thread::sleep(Duration::from_millis(100));
            fs::write(&file, "x".repeat(rounds.get())).unwrap();
            true
        };
        assert_eq!(settle(files, SPAN, pause), Settled::Moving(file.clone()));
        assert!(start.elapsed() >= PATIENCE);
    }
}
