//! Checks the paths that the process will write: ACCESS_LOG, DATA_DIR, UNIX_SOCKET.
//!
//! A path that cannot work is a fault at the start and for `check`, before anything is lost that
//! should have been written there. It creates and opens nothing, and what changes later is told where
//! the path is used. A reload does not look: these paths wait for a restart anyway.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    error::ConfigError, merge::MergedSettings, scalar::InvalidValue, source::ConfigSource,
};

impl ConfigSource {
    /// The faults of these paths.
    pub(super) fn unwritable(&self, merged: &MergedSettings) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        let mut check = |name: &str, check: fn(&Path) -> Result<(), InvalidValue>| {
            let Some(setting) = merged.setting(name) else {
                return;
            };
            let Some(text) = setting.text.as_deref() else {
                return;
            };
            if let Err(bad) = check(&self.root.join(text.trim())) {
                faults.push(ConfigError::of(setting, bad));
            }
        };
        let is_file = |text: &str| !matches!(text.trim(), "off" | "stdout");
        if merged.text("ACCESS_LOG").is_some_and(is_file) {
            check("ACCESS_LOG", access_log);
        }
        check("DATA_DIR", data_dir);
        // sockets that were passed take its place
        if cfg!(unix) && !self.are_sockets_passed() {
            check("UNIX_SOCKET", unix_socket);
        }
        faults
    }
}

/// A file that can be appended to, or made.
fn access_log(path: &Path) -> Result<(), InvalidValue> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let hint = format!("name a file in it: {}", path.join("access.log").display());
            Err(InvalidValue::because("is a directory").hint(hint))
        }
        Ok(_) if !is_writable(path) => {
            Err(InvalidValue::because("cannot be written by this user").hint(PERMISSION))
        }
        Ok(_) => Ok(()),
        Err(_) => has_room(path),
    }
}

/// A directory that can be written, or made.
fn data_dir(path: &Path) -> Result<(), InvalidValue> {
    // what is missing is made, with the directories above it
    let missing = |path: &&Path| fs::symlink_metadata(path).is_err();
    let above = path.ancestors().find(|path| !missing(path));
    // a relative path whose first directory is missing
    let above = match above {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    match fs::metadata(above) {
        Ok(found) if found.is_dir() => {}
        _ if above == path => return Err(InvalidValue::because("is not a directory")),
        _ => {
            let problem = format!("is below {}, which is not a directory", above.display());
            return Err(InvalidValue::because(problem));
        }
    }
    if is_writable(above) {
        return Ok(());
    }
    let problem = match above == path {
        true => "cannot be written by this user".to_owned(),
        false => format!(
            "does not exist and cannot be created: {} is not writable for this user",
            above.display()
        ),
    };
    Err(InvalidValue::because(problem).hint(PERMISSION))
}

/// A socket that is left over, or room for one. Whether another process listens there is seen when
/// it is bound.
fn unix_socket(path: &Path) -> Result<(), InvalidValue> {
    if path.as_os_str().len() > LONGEST_SOCKET {
        return Err(InvalidValue::because(format!(
            "is too long: a socket's path has at most {LONGEST_SOCKET} bytes"
        )));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !is_socket(&found) => Err(InvalidValue::because("exists and is not a socket")
            .hint("it is left alone: move it away, or set another path")),
        _ => has_room(path),
    }
}

/// Checks that a file can be created there.
fn has_room(path: &Path) -> Result<(), InvalidValue> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    match fs::metadata(&parent) {
        Err(_) => Err(
            InvalidValue::because("is in a directory that does not exist")
                .hint(format!("create it: mkdir -p {}", parent.display())),
        ),
        Ok(found) if !found.is_dir() => Err(InvalidValue::because(format!(
            "is below {}, which is not a directory",
            parent.display()
        ))),
        Ok(_) if !is_writable(&parent) => Err(InvalidValue::because(
            "is in a directory that this user cannot write",
        )
        .hint(PERMISSION)),
        Ok(_) => Ok(()),
    }
}

#[cfg(unix)]
fn is_socket(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    found.file_type().is_socket()
}

#[cfg(not(unix))]
fn is_socket(_: &fs::Metadata) -> bool {
    false
}

/// Reports that the system lets this user write.
#[cfg(unix)]
fn is_writable(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(path, Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn is_writable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.permissions().readonly())
}

const PERMISSION: &str = "change its owner or mode, or set another path";

/// `sun_path` of `unix(7)`, without its NUL.
const LONGEST_SOCKET: usize = 107;

#[cfg(test)]
mod tests {
    use super::super::{Environment, Flags};
    use super::*;

    /// What a start says of one variable.
    fn said(name: &str, value: &str, root: &Path) -> Option<String> {
        let environment: Environment = [(name, value)].into_iter().collect();
        let source = ConfigSource::new(Flags::default(), environment).rooted(root);
        let faults = source.load().err()?;
        assert_eq!(faults.faults.len(), 1, "{faults}");
        Some(faults.faults[0].to_string())
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_cannot_work_are_faults_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("file"), "").unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        let long = "x".repeat(120);
        for (name, value, expected) in [
            (
                "ACCESS_LOG",
                "/etc",
                "`/etc` is a directory; expected off, stdout or",
            ),
            ("ACCESS_LOG", "dir", "is a directory"),
            ("ACCESS_LOG", "no/access.log", "create it: mkdir -p"),
            (
                "ACCESS_LOG",
                "file/access.log",
                "file, which is not a directory",
            ),
            ("DATA_DIR", "file", "`file` is not a directory"),
            ("DATA_DIR", "file/data", "file, which is not a directory"),
            (
                "UNIX_SOCKET",
                "no/s",
                "is in a directory that does not exist",
            ),
            ("UNIX_SOCKET", "file", "exists and is not a socket"),
            ("UNIX_SOCKET", "dir", "exists and is not a socket"),
            ("UNIX_SOCKET", &long, "is too long"),
        ] {
            let said = said(name, value, root).unwrap_or_default();
            assert!(
                said.starts_with(&format!("{name} (environment): ")) && said.contains(expected),
                "{name}={value}: {said}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_work_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("file"), "").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
        for (name, value) in [
            ("ACCESS_LOG", "off"),
            ("ACCESS_LOG", "stdout"),
            ("ACCESS_LOG", "access.log"),
            ("ACCESS_LOG", "file"),
            ("ACCESS_LOG", "/dev/null"),
            ("DATA_DIR", "."),
            ("DATA_DIR", "made/when/needed"),
            ("UNIX_SOCKET", "s"),
            ("UNIX_SOCKET", "t"),
        ] {
            assert_eq!(said(name, value, root), None, "{name}={value}");
        }
        let entries = fs::read_dir(root).unwrap().count();
        assert_eq!(entries, 2, "something was created");
    }

    #[test]
    fn a_reload_does_not_look() {
        let dir = tempfile::tempdir().unwrap();
        let environment: Environment = [("DATA_DIR", "data")].into_iter().collect();
        let source = ConfigSource::new(Flags::default(), environment).rooted(dir.path());
        let loaded = source.load().unwrap();
        fs::write(dir.path().join("data"), "").unwrap();
        source.load_after(&loaded).unwrap();
    }
}
