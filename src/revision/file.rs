//! The file itself: read as it is, and written as a whole or not at all.
//!
//! A new content goes into a file beside the old one, onto the disk, and then takes its name: no reader sees a
//! half, and a machine that loses power has one or the other. Mode and owner stay; a new file is the user's own
//! alone. A link is followed to the file that it names.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Bytes of a file: as many as the configuration reads.
const LARGEST: u64 = 4 << 20;

/// Reason for which a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FileWriteError {
    /// The place takes no change.
    #[error("{path} cannot be changed: {why}", path = .path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// Anything else.
    #[error("{path} cannot be written: {1}; nothing was changed", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// The text of a file without a byte order mark; empty where there is no file.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    // as the configuration reads it: the usual way to say "no file" where one must be named
    if path == Path::new("/dev/null") {
        return Ok(String::new());
    }
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Reports that there is no file, or no folder that it could be in.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Writes a file as a whole. The directories above it are made for this user alone.
///
/// # Errors
/// The place takes no change, or the system refuses it; the file is what it was.
pub fn write_whole(path: &Path, content: &str) -> Result<(), FileWriteError> {
    let path = target(path);
    check_regular(&path)?;
    let failed = |error: io::Error| refusal_of(&path, error);
    let directory = parent(&path);
    make_directory(directory).map_err(failed)?;
    let mut file = NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    keep_mode(&path, file.as_file()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    sync_directory(directory).map_err(failed)
}

/// Checks that a file could be written, as far as the system tells without a change.
///
/// # Errors
/// The place takes no change.
pub fn check_writable(path: &Path) -> Result<(), FileWriteError> {
    let path = target(path);
    check_regular(&path)?;
    let mut above = path.ancestors().skip(1).map(or_here);
    let Some(directory) = above.find(|path| path.exists()) else {
        return Ok(());
    };
    if !directory.is_dir() {
        return Err(refusal_of(&path, io::ErrorKind::NotADirectory.into()));
    }
    may_write(directory).map_err(|error| refusal_of(&path, error))?;
    match is_mount_point(&path) {
        true => Err(refusal_of(&path, io::ErrorKind::ResourceBusy.into())),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn may_write(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(directory, Access::WRITE_OK)?)
}

#[cfg(not(unix))]
fn may_write(directory: &Path) -> io::Result<()> {
    match fs::metadata(directory)?.permissions().readonly() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

pub(super) fn refusal_of(path: &Path, error: io::Error) -> FileWriteError {
    let why = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "its file system is mounted read-only".to_owned(),
        io::ErrorKind::PermissionDenied => format!(
            "this user may not write the folder {}",
            parent(path).display()
        ),
        io::ErrorKind::ResourceBusy => {
            "it is mounted as a single file, which keeps its old content; mount its folder instead"
                .to_owned()
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("{} is no folder", parent(path).display())
        }
        _ => return FileWriteError::Io(path.to_owned(), error),
    };
    FileWriteError::ReadOnly {
        path: path.to_owned(),
        why,
    }
}

/// Checks that a path leads to a regular file or to none: a device would be replaced by a file.
fn check_regular(path: &Path) -> Result<(), FileWriteError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(FileWriteError::ReadOnly {
            path: path.to_owned(),
            why: "it is no regular file".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The file that a path leads to.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The directory of a file.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().map_or(Path::new("."), or_here)
}

fn or_here(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

/// Makes a directory, and those above it, for this user alone.
///
/// # Errors
/// The system refuses it.
pub fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

#[cfg(unix)]
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|it| it.dev()).ok();
    device(path).is_some_and(|own| device(parent(path)).is_some_and(|other| own != other))
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// Gives a new file the mode of the one that it replaces, and its owner if this user may.
#[cfg(unix)]
fn keep_mode(path: &Path, file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let Ok(before) = fs::metadata(path) else {
        return Ok(());
    };
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
        let kept = std::os::unix::fs::fchown(file, Some(before.uid()), Some(before.gid()));
        // the server of that user could not read it any more
        if kept.is_err() && before.mode() & 0o077 == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o777))
}

#[cfg(not(unix))]
fn keep_mode(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}

/// A new name is on the disk once its directory is.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(directory)?.sync_all(),
        false => Ok(()),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_is_the_users_own_and_an_old_one_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("made/when/needed");
        write_whole(&path, "A=1\n").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_whole(&path, "A=2\n").unwrap();
        assert_eq!(
            (mode(&path), read(&path).unwrap()),
            (0o644, "A=2\n".to_owned())
        );
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let (path, link) = (root.path().join("f"), root.path().join("l"));
        fs::write(&path, "A=1\n").unwrap();
        symlink(&path, &link).unwrap();
        write_whole(&link, "A=2\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "A=2\n");
    }

    #[test]
    fn what_cannot_be_written_is_told_before() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f"), "").unwrap();
        let below = root.path().join("f/env");
        let said = check_writable(&below).unwrap_err().to_string();
        assert!(said.contains("is no folder"), "{said}");
        assert!(write_whole(&below, "").is_err());
        check_writable(&root.path().join("no/such/.env")).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        for device in ["/dev/null", "/dev"] {
            let refused = write_whole(Path::new(device), "").unwrap_err().to_string();
            assert!(refused.contains("no regular file"), "{refused}");
        }
    }
}
