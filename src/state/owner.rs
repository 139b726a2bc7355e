//! Files that a root user makes in a directory of another user: the server of that user must go on with them.

use std::{fs::File, io, path::Path};

/// Gives a file or a folder that is root's to the owner of the directory that it is in. Other users cannot, and
/// need not.
///
/// # Errors
/// The system refuses it.
#[cfg(unix)]
pub fn hand_over(path: &Path, file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    if !rustix::process::geteuid().is_root() || file.metadata()?.uid() != 0 {
        return Ok(());
    }
    let owner = std::fs::metadata(directory)?;
    match owner.uid() {
        0 => Ok(()),
        user => fchown(file, Some(user), Some(owner.gid())),
    }
}

/// Gives nothing where files have no such owner.
///
/// # Errors
/// There are none.
#[cfg(not(unix))]
pub fn hand_over(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown};

    use super::{super::StateLock, *};

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            chown(directory.path(), Some(12345), Some(23456)).unwrap();
        }
        // left behind by an earlier version
        let path = directory.path().join("state.lock");
        File::create(&path).unwrap();
        drop(StateLock::alone(directory.path()).unwrap());
        let owner = |path: &Path| {
            let found = std::fs::metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        assert_eq!(owner(&path), owner(directory.path()));
        assert!(!is_root || owner(&path) == (12345, 23456));
    }
}
