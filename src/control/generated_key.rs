//! The generated key of the dashboard, which is in effect while `DASHBOARD_API_KEY` is not set.
//!
//! It is random and one for all workers. With `DATA_DIR` a file keeps it for the next start. Beside the file,
//! one log line alone has the key: the URL that signs in.

use std::path::Path;

use super::{
    session::{is_id, random_id},
    state::AdminState,
};
use crate::{
    config::Config,
    secret::{Secret, SecretFile, SecretFileError},
};

/// Name of the file in `DATA_DIR`.
const FILE: &str = "dashboard.key";
/// Bytes of the file that are read: more than a key and a line break have.
const MAX_BYTES: u64 = 128;

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
            kept(&file(directory)).map(drop)
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
    let file = file(directory);
    if let Some(kept) = kept(&file)? {
        return Ok(kept);
    }
    match file.create(&key).map_err(|error| failed(&file, &error))? {
        Some(other) => valid(&file, &other),
        None => Ok(key),
    }
}

fn file(directory: &Path) -> SecretFile {
    SecretFile {
        path: directory.join(FILE),
        max_bytes: MAX_BYTES,
    }
}

/// Reads the key of a file, if there is one.
fn kept(file: &SecretFile) -> Result<Option<String>, GeneratedKeyError> {
    let kept = file.read().map_err(|error| failed(file, &error))?;
    kept.map(|kept| valid(file, &kept)).transpose()
}

fn valid(file: &SecretFile, key: &[u8]) -> Result<String, GeneratedKeyError> {
    if is_id(key) {
        return Ok(String::from_utf8_lossy(key).into_owned());
    }
    Err(GeneratedKeyError(format!(
        "{} does not hold a key of 64 hexadecimal digits; delete it for a new key",
        file.path.display()
    )))
}

fn failed(file: &SecretFile, error: &SecretFileError) -> GeneratedKeyError {
    let another = match error {
        SecretFileError::NotCreated(_) => "",
        _ => ", delete it for a new key",
    };
    let (path, remedy) = (file.path.display(), error.remedy());
    GeneratedKeyError(format!("{path} {error}; {remedy}{another}"))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_is_kept_for_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("made/when/needed");
        let key = generate(Some(&directory)).unwrap();
        assert!(is_id(key.as_bytes()));
        let text = fs::read_to_string(directory.join(FILE)).unwrap();
        assert_eq!(text, format!("{key}\n"));
        assert_eq!(generate(Some(&directory)).unwrap(), key);
        assert_ne!(generate(None).unwrap(), generate(None).unwrap());
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
        write(&key, 0o640);
        refused("(mode 0640); chmod 600 it");
        for text in ["", "\n", &key[1..], &format!("{key}0"), &key.repeat(9), "é"] {
            write(text, 0o600);
            refused("does not hold a key");
        }
        write(&format!("{key}\r\n"), 0o600);
        assert_eq!(generate(Some(root.path())).unwrap(), key);
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
