//! The lock of the directory: servers share it, and a verb that works on the store without a server has it
//! alone.
//!
//! It also tells which boots have ended: a server that gets the lock alone at its start knows that no other one
//! runs. A second lock makes one step of what a server does with the socket of verbs: the look at who listens there,
//! and the change of the file.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::owner::hand_over;

/// Name of the file in `DATA_DIR`.
const FILE: &str = "state.lock";

/// Name of the file in `DATA_DIR` for the socket of verbs.
const SOCKET_FILE: &str = "admin.lock";

/// Longest wait of a server for a verb that has the store alone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// A lock, until it is dropped.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

/// Reason for which there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{path} is locked: another process works on the keys; nothing was changed; try again once it has ended, or \
         ask the running server (--server URL)", path = .0.display()
    )]
    Held(PathBuf),
    /// The file cannot be used.
    #[error("{path} cannot be locked: {1}; keys cannot be used; let this user write DATA_DIR", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
}

impl StateLock {
    /// Takes the lock alone, or gives up at once.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be used.
    pub fn alone(directory: &Path) -> Result<Self, LockError> {
        Self::of(directory, FILE)
    }

    /// Takes the lock of the socket of verbs, or gives up at once. It is held for a moment, and the kernel takes it
    /// from a process that ends.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be used.
    pub fn of_socket(directory: &Path) -> Result<Self, LockError> {
        Self::of(directory, SOCKET_FILE)
    }

    fn of(directory: &Path, name: &str) -> Result<Self, LockError> {
        let (path, file) = open(directory, name)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(path)),
            Err(TryLockError::Error(error)) => Err(LockError::Io(path, error)),
        }
    }

    /// Takes the lock together with other servers. `first` runs before, if no other process has it.
    ///
    /// # Errors
    /// A verb has it for too long, or the file cannot be used.
    pub fn shared(directory: &Path, first: impl FnOnce()) -> Result<Self, LockError> {
        let (path, file) = open(directory, FILE)?;
        if file.try_lock().is_ok() {
            first();
            file.unlock()
                .map_err(|error| LockError::Io(path.clone(), error))?;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(LockError::Held(path)),
                Err(TryLockError::Error(error)) => return Err(LockError::Io(path, error)),
            }
        }
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // closing the file does it, too
        let _ = self.file.unlock();
    }
}

fn open(directory: &Path, name: &str) -> Result<(PathBuf, File), LockError> {
    let path = directory.join(name);
    let file = fs::create_dir_all(directory).and_then(|()| create(&path));
    // a verb as root must not shut the server's user out
    let file = file.and_then(|file| hand_over(&path, &file).map(|()| file));
    match file {
        Ok(file) => Ok((path, file)),
        Err(error) => Err(LockError::Io(path, error)),
    }
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options.open(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_share_the_lock_and_a_verb_has_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut firsts = 0;
        let one = StateLock::shared(path, || firsts += 1).unwrap();
        let other = StateLock::shared(path, || firsts += 1).unwrap();
        assert_eq!(firsts, 1, "the second one is not alone");
        assert!(matches!(StateLock::alone(path), Err(LockError::Held(_))));
        drop(one);
        assert!(matches!(StateLock::alone(path), Err(LockError::Held(_))));
        drop(other);
        let alone = StateLock::alone(path).unwrap();
        assert!(matches!(StateLock::alone(path), Err(LockError::Held(_))));
        drop(alone);
        let socket = StateLock::of_socket(path).unwrap();
        assert!(matches!(
            StateLock::of_socket(path),
            Err(LockError::Held(_))
        ));
        drop(StateLock::shared(path, || firsts += 1).unwrap());
        drop(socket);
        drop(StateLock::of_socket(path).unwrap());
        assert_eq!(firsts, 2);
    }
}
