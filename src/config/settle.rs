//! Waits until the files of the configuration are still.
//!
//! A writer that truncates a file and fills it later, and an editor that deletes one before it
//! creates it, leave states on the way that were not meant. What has been read counts only if no
//! file changed for a while before, and none while it was read. It reads no content.

use std::{
    fs::{self, Metadata},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Existence and metadata of files, which tell one content from another without reading it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<(PathBuf, Option<FileState>)>);

impl Fingerprint {
    /// The files as they are now; links are followed.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let state = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok();
            (path.clone(), metadata.as_ref().map(FileState::of))
        };
        Self(files.iter().map(state).collect())
    }

    /// The first file that differs.
    pub(super) fn changed<'s>(&'s self, other: &Self) -> Option<&'s PathBuf> {
        let mut pairs = self.0.iter().zip(&other.0);
        pairs
            .find(|(one, other)| one != other)
            .map(|((path, _), _)| path)
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
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            identity: (
                metadata.dev(),
                metadata.ino(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ),
        }
    }
}

/// Result of the wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing changed for [`STILL`].
    Still,
    /// This file was still changing after [`PATIENCE`].
    Moving(PathBuf),
    /// The wait was broken off.
    Stopped,
}

/// Waits until nothing changes. `is_being_written` tells of a writer that has not closed its file;
/// `pause` waits, and says whether to go on.
pub(super) fn settle(
    files: &[PathBuf],
    is_being_written: impl Fn() -> bool,
    pause: impl Fn(Duration) -> bool,
) -> Settled {
    let latest = Instant::now() + PATIENCE;
    let mut last = Fingerprint::of(files);
    loop {
        if !pause(STILL) {
            return Settled::Stopped;
        }
        let now = Fingerprint::of(files);
        let is_late = Instant::now() >= latest;
        match now.changed(&last) {
            // who keeps a file open and writes nothing may keep it open for ever
            None if is_late || !is_being_written() => return Settled::Still,
            Some(path) if is_late => return Settled::Moving(path.clone()),
            _ => last = now,
        }
    }
}

/// Longer than a writer takes from one write to the next, or an editor from delete to create.
const STILL: Duration = Duration::from_millis(200);

/// Longer than a writer is waited for that pauses with its file open.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn every_change_of_a_file_changes_its_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let files = [file.clone()];
        let missing = Fingerprint::of(&files);
        fs::write(&file, "a").unwrap();
        let written = Fingerprint::of(&files);
        assert_eq!(written.changed(&missing), Some(&file));
        fs::write(&file, "ab").unwrap();
        let longer = Fingerprint::of(&files);
        assert_eq!(longer.changed(&written), Some(&file));
        assert_eq!(Fingerprint::of(&files).changed(&longer), None);
        fs::write(dir.path().join("g"), "ab").unwrap();
        fs::rename(dir.path().join("g"), &file).unwrap();
        assert_eq!(Fingerprint::of(&files).changed(&longer), Some(&file));
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
        let settled = settle(std::slice::from_ref(&file), || false, pause);
        assert_eq!((settled, rounds.get()), (Settled::Still, 4));
    }

    #[test]
    fn it_waits_for_a_writer_to_close() {
        let rounds = Cell::new(0);
        let pause = |_| {
            rounds.set(rounds.get() + 1);
            true
        };
        let settled = settle(&[], || rounds.get() < 3, pause);
        assert_eq!((settled, rounds.get()), (Settled::Still, 3));
    }

    #[test]
    fn it_waits_neither_for_ever_nor_after_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let files = [file.clone()];
        assert_eq!(settle(&files, || true, |_| false), Settled::Stopped);
        let start = Instant::now();
        let rounds = Cell::new(0);
        let pause = |_| {
            rounds.set(rounds.get() + 1);
            // a clock that a test can move would be more than this is worth: the bound is real
            std::thread::sleep(Duration::from_millis(100));
            fs::write(&file, "x".repeat(rounds.get())).unwrap();
            true
        };
        assert_eq!(
            settle(&files, || false, pause),
            Settled::Moving(file.clone())
        );
        assert!(start.elapsed() >= PATIENCE);
    }
}
