//! The pepper: the secret under which digests of keys are made.
//!
//! It comes from `ACCESS_PEPPER`, or else from a file in `DATA_DIR` that is made once. Where keys are stored
//! and the file is missing, another pepper would make every one of them invalid: that is an error.

use std::path::{Path, PathBuf};

use ring::digest;

use crate::{
    access::Pepper,
    secret::{Secret, SecretFile, SecretFileError},
};

/// Name of the file in `DATA_DIR`.
const FILE: &str = "access.pepper";

/// Bytes of the file that are read: more than a pepper and a line break have.
const MAX_BYTES: u64 = 4096;

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
    #[error(
        "{path} {1}; keys cannot be used; {remedy}, or set ACCESS_PEPPER",
        path = .0.display(), remedy = .1.remedy()
    )]
    File(PathBuf, #[source] SecretFileError),
    /// The file holds something else.
    #[error(
        "{path} holds no pepper of 32 or more characters; keys cannot be used; restore it from a backup, or set \
         ACCESS_PEPPER", path = .0.display()
    )]
    Content(PathBuf),
    /// The system gives no random bytes.
    #[error("{0}; keys cannot be used; restart the proxy, or set ACCESS_PEPPER")]
    Generate(String),
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
    let file = SecretFile {
        path: path.clone(),
        max_bytes: MAX_BYTES,
    };
    let failed = |error| PepperError::File(path.clone(), error);
    let kept = match file.read().map_err(failed)? {
        Some(kept) => kept,
        None if has_keys => return Err(PepperError::Missing(path)),
        None => {
            let own = Pepper::generate();
            let own = own.map_err(|error| PepperError::Generate(error.to_string()))?;
            match file.create(&own).map_err(failed)? {
                Some(other) => other,
                None => return Ok(Secret::new(&own)),
            }
        }
    };
    match String::from_utf8(kept) {
        Ok(text) if Pepper::new(text.as_bytes()).is_ok() => Ok(Secret::new(&text)),
        _ => Err(PepperError::Content(path)),
    }
}

/// A name that tells one pepper from another, and tells nothing of it.
pub(super) fn name(pepper: &Secret) -> String {
    let named = ["anthropic-proxy pepper ", pepper.expose()].concat();
    let digest = digest::digest(&digest::SHA256, named.as_bytes());
    let octets = digest.as_ref().iter().take(4);
    octets.map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn it_is_made_once_and_a_configured_one_counts_instead() {
        let root = tempfile::tempdir().unwrap();
        let made = text(None, root.path(), false).unwrap();
        assert!(text(None, root.path(), true).unwrap() == made);
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
