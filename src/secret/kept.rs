//! A secret that a file keeps: made once, by one of the processes that start at the same time.
//!
//! Other users can read the file at no moment; one that they can open is not used. Nothing is deleted or
//! replaced here.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use tempfile::NamedTempFile;

/// The file of a secret.
#[derive(Debug, Clone)]
pub struct SecretFile {
    /// Its path.
    pub path: PathBuf,
    /// Bytes that are read: more than a secret and a line break have.
    pub max_bytes: u64,
}

/// Reason for which a file gives no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It is there and cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is a directory, a pipe or a device.
    #[error("is not a file")]
    NotAFile,
    /// Other users can open it.
    #[error("is open to other users (mode {0:04o})")]
    Open(u32),
    /// It cannot be made.
    #[error("cannot be created: {0}")]
    NotCreated(#[source] io::Error),
}

impl SecretFileError {
    /// Remedy, as a phrase.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "let this user read it",
            Self::NotAFile => "move it away",
            Self::Open(_) => "chmod 600 it",
            Self::NotCreated(_) => "let this user write DATA_DIR",
        }
    }
}

impl SecretFile {
    /// Reads the secret, without white space around it, if there is a file.
    ///
    /// # Errors
    /// The file cannot be read, or other users can.
    pub fn read(&self) -> Result<Option<Vec<u8>>, SecretFileError> {
        match fs::metadata(&self.path) {
            Ok(found) if found.is_file() => {}
            // a pipe would be waited for
            Ok(_) => return Err(SecretFileError::NotAFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SecretFileError::Unreadable(error)),
        }
        let file = File::open(&self.path).map_err(SecretFileError::Unreadable)?;
        if let Some(mode) = wider_mode(&file).map_err(SecretFileError::Unreadable)? {
            return Err(SecretFileError::Open(mode));
        }
        let mut content = Vec::new();
        file.take(self.max_bytes)
            .read_to_end(&mut content)
            .map_err(SecretFileError::Unreadable)?;
        Ok(Some(content.trim_ascii().to_owned()))
    }

    /// Makes the file with a secret. Gives the one of another process that was first, and none if this one
    /// was.
    ///
    /// # Errors
    /// It cannot be made, or that of the other process cannot be read.
    pub fn create(&self, secret: &str) -> Result<Option<Vec<u8>>, SecretFileError> {
        match self.write(secret) {
            Ok(()) => Ok(None),
            Err(error) => match self.read()? {
                Some(other) => Ok(Some(other)),
                None => Err(SecretFileError::NotCreated(error)),
            },
        }
    }

    /// Writes into a file that has its content and its mode when it gets its name.
    fn write(&self, secret: &str) -> io::Result<()> {
        let directory = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(directory)?;
        let mut file = NamedTempFile::new_in(directory)?;
        if let Some(mode) = wider_mode(file.as_file())? {
            return Err(io::Error::other(format!(
                "its file system opens it to other users (mode {mode:04o})"
            )));
        }
        writeln!(file, "{secret}")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&self.path)?;
        Ok(())
    }
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

    fn file(root: &tempfile::TempDir) -> SecretFile {
        SecretFile {
            path: root.path().join("made/when/needed/secret"),
            max_bytes: 128,
        }
    }

    #[test]
    fn processes_that_start_at_once_have_one_secret_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let file = file(&root);
        assert!(file.read().unwrap().is_none());
        let secrets: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|number| {
                    let file = &file;
                    scope.spawn(move || {
                        let own = format!("secret {number}");
                        file.create(&own).unwrap().unwrap_or(own.into_bytes())
                    })
                })
                .collect();
            all.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        assert_eq!(file.read().unwrap().as_ref(), Some(&secrets[0]));
        let text = [&secrets[0][..], b"\n"].concat();
        assert_eq!(fs::read(&file.path).unwrap(), text);
        let mode = fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let directory = file.path.parent().unwrap();
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_open_or_that_is_none_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let file = file(&root);
        file.create("secret").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o660, 0o644] {
            fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
            let error = file.read().unwrap_err();
            assert!(matches!(error, SecretFileError::Open(found) if found == mode));
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(file.read().unwrap().unwrap(), b"secret");
        }
        fs::remove_file(&file.path).unwrap();
        fs::create_dir(&file.path).unwrap();
        assert!(matches!(file.read(), Err(SecretFileError::NotAFile)));
        let below = SecretFile {
            path: root.path().join("file/secret"),
            max_bytes: 128,
        };
        fs::write(root.path().join("file"), "").unwrap();
        let error = below.create("secret").unwrap_err();
        assert!(error.to_string().starts_with("cannot be "), "{error}");
    }
}
