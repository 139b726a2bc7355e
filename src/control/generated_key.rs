//! The generated key of the dashboard, which is in effect while `DASHBOARD_API_KEY` is not set.
//!
//! It is random and one for all workers. With `DATA_DIR` a file keeps it for the next start; other users can
//! read that file at no moment. Beside the file, one log line alone has the key: the URL that signs in.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

use tempfile::NamedTempFile;

use super::{
    session::{is_id, random_id},
    state::AdminState,
};
use crate::{config::Config, secret::Secret};

/// Name of the file in `DATA_DIR`.
const FILE: &str = "dashboard.key";
/// Bytes of the file that are read: more than a key and a line break have.
const MAX_FILE: u64 = 128;

/// Reason for which there is no generated key.
#[derive(Debug, thiserror::Error)]
#[error("{0}, or set DASHBOARD_API_KEY")]
pub struct GeneratedKeyError(String);

impl AdminState {
    /// The key in effect: the configured one, or else the generated one.
    pub(super) fn key(&self) -> Option<Secret> {
        let configured = self.sources.live.load().dashboard_key.clone();
        configured.or_else(|| self.generated.get().cloned())
    }

    /// Generates the key when it comes into effect for the first time, and gives the log line that says how
    /// to sign in with it.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn generate_key(&self) -> Result<Option<String>, GeneratedKeyError> {
        let sources = &self.sources;
        if self.generated.get().is_some() || sources.live.load().dashboard_key.is_some() {
            return Ok(None);
        }
        let key = generate(sources.data_dir.as_deref())?;
        let line = format!(
            "DASHBOARD_API_KEY is not set; a generated key is in effect; sign in at {}#key={key}",
            sources.url
        );
        Ok(self.generated.set(Secret::new(&key)).ok().map(|()| line))
    }
}

/// Checks the file of the key that a start would read, without creating one.
///
/// # Errors
/// The file cannot be used.
pub fn check_generated_key(config: &Config) -> Result<(), GeneratedKeyError> {
    match &config.boot.data_dir {
        Some(directory) if config.boot.has_pages() && config.live.dashboard_key.is_none() => {
            kept(&directory.join(FILE)).map(drop)
        }
        _ => Ok(()),
    }
}

/// Gives the key that is kept in a directory, or creates one; without a directory nothing keeps it.
fn generate(directory: Option<&Path>) -> Result<String, GeneratedKeyError> {
    let key = random_id().ok_or_else(|| {
        GeneratedKeyError("the system gave no random bytes: restart the proxy".to_owned())
    })?;
    let Some(directory) = directory else {
        return Ok(key);
    };
    let path = directory.join(FILE);
    if let Some(kept) = kept(&path)? {
        return Ok(kept);
    }
    match keep(&key, directory, &path) {
        Ok(()) => Ok(key),
        Err(error) => match kept(&path)? {
            // another process was first
            Some(kept) => Ok(kept),
            None => Err(GeneratedKeyError(format!(
                "{} cannot be created: {error}; let this user write DATA_DIR",
                path.display()
            ))),
        },
    }
}

/// Reads the key of a file, if there is one.
fn kept(path: &Path) -> Result<Option<String>, GeneratedKeyError> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let fix = "let this user read it, delete it for a new key";
        GeneratedKeyError(format!("{shown} cannot be read: {error}; {fix}"))
    };
    match fs::metadata(path) {
        // a pipe would be waited for
        Ok(found) if !found.is_file() => {
            return Err(GeneratedKeyError(format!(
                "{shown} is not a file; delete it for a new key"
            )));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let file = File::open(path).map_err(unreadable)?;
    if let Some(mode) = wider_mode(&file).map_err(unreadable)? {
        return Err(GeneratedKeyError(format!(
            "{shown} is open to other users (mode {mode:04o}); chmod 600 it, delete it for a new key"
        )));
    }
    let mut content = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    let key = content.trim_ascii_end();
    if !is_id(key) {
        return Err(GeneratedKeyError(format!(
            "{shown} does not hold a key of 64 hexadecimal digits; delete it for a new key"
        )));
    }
    Ok(Some(String::from_utf8_lossy(key).into_owned()))
}

/// Writes the key into a file that has its content and its mode when it gets its name.
fn keep(key: &str, directory: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = NamedTempFile::new_in(directory)?;
    if let Some(mode) = wider_mode(file.as_file())? {
        return Err(io::Error::other(format!(
            "its file system opens it to other users (mode {mode:04o})"
        )));
    }
    writeln!(file, "{key}")?;
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
    fn a_key_is_kept_in_a_file_of_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("made/when/needed");
        let key = generate(Some(&directory)).unwrap();
        assert!(is_id(key.as_bytes()));
        let path = directory.join(FILE);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{key}\n"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(generate(Some(&directory)).unwrap(), key);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert_ne!(generate(None).unwrap(), generate(None).unwrap());
    }

    #[test]
    fn processes_that_start_at_once_have_one_key() {
        let root = tempfile::tempdir().unwrap();
        let keys: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| generate(Some(root.path())).unwrap()))
                .collect();
            all.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_an_error_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FILE);
        let refused = |expected: &str| {
            let said = generate(Some(root.path())).unwrap_err().to_string();
            assert!(said.starts_with(&*path.to_string_lossy()), "{said}");
            assert!(said.contains(expected), "{said}");
            assert!(
                said.ends_with("delete it for a new key, or set DASHBOARD_API_KEY"),
                "{said}"
            );
        };
        let key = "0123456789abcdef".repeat(4);
        let write = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o640, 0o604, 0o620, 0o660, 0o644] {
            write(&key, mode);
            refused(&format!("(mode {mode:04o}); chmod 600 it"));
        }
        for text in ["", "\n", &key[1..], &format!("{key}0"), &key.repeat(9), "é"] {
            write(text, 0o600);
            refused("does not hold a key");
        }
        for mode in [0o600, 0o400] {
            write(&format!("{key}\r\n"), mode);
            assert_eq!(generate(Some(root.path())).unwrap(), key);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("is not a file");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let said = generate(Some(&root.path().join("file"))).unwrap_err();
        assert!(
            said.to_string().contains("dashboard.key cannot be"),
            "{said}"
        );
    }
}
