//! The user whom a service runs as: the owner of the settings, who alone can read them.

use std::path::Path;

/// User id and group id.
pub(super) type FileOwner = (u32, u32);

/// The owner of the file, or of the one that this process will make.
#[cfg(unix)]
pub(super) fn of(file: &Path) -> FileOwner {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::metadata(file) {
        Ok(found) => (found.uid(), found.gid()),
        Err(_) => {
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            (user.as_raw(), group.as_raw())
        }
    }
}

/// The user of the image.
#[cfg(not(unix))]
pub(super) fn of(_: &Path) -> FileOwner {
    (65532, 65532)
}
