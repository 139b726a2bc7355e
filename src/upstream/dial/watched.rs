//! A value made from a file, and made again when the file has changed.
//!
//! For small system files (`/etc/hosts`, `/etc/resolv.conf`) that a VPN, a DHCP client or a
//! container runtime rewrites under a running process. It asks the file system when the value is
//! wanted and at most every 5 s; it starts no task and keeps no descriptor.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// A file and the value made from it.
pub(super) struct Watched<T> {
    path: PathBuf,
    made: RefCell<Option<Made<T>>>,
}

struct Made<T> {
    value: T,
    stamp: Option<Stamp>,
    checked: Instant,
}

/// The version of a file, by its time and length; `None` for a missing file.
type Stamp = (SystemTime, u64);

impl<T: Clone> Watched<T> {
    /// Reads nothing yet.
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            made: RefCell::new(None),
        }
    }

    /// The value for the present state of the file. A failure of `make` is not kept: the last good
    /// value stands in for it, and without one the next call tries again.
    pub(super) fn current<E>(&self, make: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, E> {
        let mut made = self.made.borrow_mut();
        let now = Instant::now();
        if let Some(made) = &*made
            && now.duration_since(made.checked) < RECHECK
        {
            return Ok(made.value.clone());
        }
        let stamp = stamp(&self.path);
        let value = match &*made {
            Some(made) if made.stamp == stamp => made.value.clone(),
            earlier => match (make(&self.path), earlier) {
                (Ok(value), _) => value,
                (Err(_), Some(earlier)) => earlier.value.clone(),
                (Err(error), None) => return Err(error),
            },
        };
        *made = Some(Made {
            value: value.clone(),
            stamp,
            checked: now,
        });
        Ok(value)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// As often as Go's resolver looks at the same files.
const RECHECK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use tokio::time::advance;

    use super::*;

    fn read(path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_after_five_seconds_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let watched = Watched::new(&path);
        assert_eq!(watched.current(read).unwrap(), "one");
        fs::write(&path, "three").unwrap();
        advance(RECHECK - Duration::from_millis(1)).await;
        assert_eq!(watched.current(read).unwrap(), "one");
        advance(Duration::from_millis(1)).await;
        assert_eq!(watched.current(read).unwrap(), "three");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unchanged_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let watched = Watched::new(&path);
        watched.current(read).unwrap();
        advance(RECHECK).await;
        let unread = |_: &Path| -> io::Result<String> { panic!("read again") };
        assert_eq!(watched.current(unread).unwrap(), "one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let watched = Watched::new(&path);
        assert!(watched.current(read).is_err());
        fs::write(&path, "one").unwrap();
        assert_eq!(watched.current(read).unwrap(), "one");
        fs::remove_file(&path).unwrap();
        advance(RECHECK).await;
        assert_eq!(
            watched.current(read).unwrap(),
            "one",
            "the last good value stands in"
        );
    }
}
