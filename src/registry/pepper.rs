//! The pepper: the secret under which digests of keys are made.
//!
//! It comes from `ACCESS_PEPPER`, or else from a file in `DATA_DIR` that is made once. Other users can read
//! that file at no moment. Where keys are stored and the file is missing, another pepper would make every one
//! of them invalid: that is an error.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use ring::digest;
use tempfile::NamedTempFile;

use crate::{access::Pepper, secret::Secret};

/// Name of the file in `DATA_DIR`.
const FILE: &str = "access.pepper";

/// Bytes of the file that are read: more than a pepper and a line break have.
const MAX_FILE: u64 = 4096;

/// Reason for which there is no pepper.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// The configured one is too short.
    #[error(
        "ACCESS_PEPPER: {0}; keys cannot be used; set 32 or more random characters, or unset it"
    )]
    Weak(crate::access::WeakPepper),
    /// The file is gone.
    #[error(
        "{path} is missing, and there are keys; without it every key is invalid; restore it from a backup, or set \
         ACCESS_PEPPER", path = .0.display()
    )]
    Missing(PathBuf),
    /// The file cannot be used.
    #[error("{path}: {1}; keys cannot be used; {2}, or set ACCESS_PEPPER", path = .0.display())]
    File(PathBuf, String, &'static str),
}

/// The text of the pepper.
pub(super) fn text(
    configured: Option<&Secret>,
    directory: &Path,
    has_keys: bool,
) -> Result<Secret, PepperError> {
    if let Some(configured) = configured {
        return Ok(configured.clone());
    }
    let path = directory.join(FILE);
    if let Some(kept) = kept(&path)? {
        return Ok(kept);
    }
    if has_keys {
        return Err(PepperError::Missing(path));
    }
    let failed = |why: String| PepperError::File(path.clone(), why, "let this user write DATA_DIR");
    let text = Pepper::generate().map_err(|error| failed(error.to_string()))?;
    match keep(&text, directory, &path) {
        Ok(()) => Ok(Secret::new(&text)),
        // another process may have been first
        Err(error) => kept(&path)?.ok_or_else(|| failed(format!("cannot be created: {error}"))),
    }
}

/// A name that tells one pepper from another, and tells nothing of it.
pub(super) fn name(pepper: &Secret) -> String {
    let named = ["anthropic-proxy pepper ", pepper.expose()].concat();
    let digest = digest::digest(&digest::SHA256, named.as_bytes());
    let octets = digest.as_ref().iter().take(4);
    octets.map(|octet| format!("{octet:02x}")).collect()
}

/// Reads the file, if there is one.
fn kept(path: &Path) -> Result<Option<Secret>, PepperError> {
    let unreadable = |error: io::Error| {
        let why = format!("cannot be read: {error}");
        PepperError::File(path.to_owned(), why, "let this user read it")
    };
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => {
            let why = "is not a file".to_owned();
            return Err(PepperError::File(path.to_owned(), why, "move it away"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let file = File::open(path).map_err(unreadable)?;
    if let Some(mode) = wider_mode(&file).map_err(unreadable)? {
        let why = format!("is open to other users (mode {mode:04o})");
        return Err(PepperError::File(path.to_owned(), why, "chmod 600 it"));
    }
    let mut content = String::new();
    file.take(MAX_FILE)
        .read_to_string(&mut content)
        .map_err(unreadable)?;
    let text = content.trim();
    if Pepper::new(text.as_bytes()).is_err() {
        let why = "holds no pepper of 32 or more characters".to_owned();
        return Err(PepperError::File(
            path.to_owned(),
            why,
            "restore it from a backup",
        ));
    }
    Ok(Some(Secret::new(text)))
}

/// Writes the pepper into a file that has its content and its mode when it gets its name.
fn keep(text: &str, directory: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = NamedTempFile::new_in(directory)?;
    if let Some(mode) = wider_mode(file.as_file())? {
        return Err(io::Error::other(format!(
            "its file system opens it to other users (mode {mode:04o})"
        )));
    }
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

/// The mode of a file that other users can open.
#[cfg(unix)]
fn wider_mode(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(not(unix))]
fn wider_mode(_: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, thread};

    use super::*;

    #[test]
    fn it_is_made_once_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let texts: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| text(None, root.path(), false).unwrap()))
                .collect();
            all.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(texts.iter().all(|it| *it == texts[0]));
        let path = root.path().join(FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(text(None, root.path(), true).unwrap() == texts[0]);
        let configured = Secret::new("configured");
        assert!(text(Some(&configured), root.path(), true).unwrap() == configured);
    }

    #[test]
    fn a_missing_open_or_short_file_is_an_error_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FILE);
        let said = |has_keys| text(None, root.path(), has_keys).unwrap_err().to_string();
        assert!(
            said(true).contains("is missing, and there are keys"),
            "{}",
            said(true)
        );
        assert!(!path.exists());
        for (content, mode, expected) in [
            ("0".repeat(64), 0o644, "chmod 600 it"),
            ("0".repeat(31), 0o600, "restore it from a backup"),
            (String::new(), 0o600, "restore it from a backup"),
        ] {
            fs::write(&path, &content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(said(false).contains(expected), "{}", said(false));
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
