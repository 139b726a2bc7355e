//! The pepper: the secret under which digests of keys are made.
//!
//! It comes from `ACCESS_PEPPER`, or else from a file in `DATA_DIR` that is made once. Where keys are stored
//! and the file is missing, another pepper would make every one of them invalid: that is an error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ring::{digest, hmac};

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
    /// Replicas share keys, and would each make one.
    #[error(
        "STATE_URL shares keys, and this replica has no pepper for them; set ACCESS_PEPPER to the same secret on \
         all replicas, or copy {path} of the first one", path = .0.display()
    )]
    NotShared(PathBuf),
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

/// The text of the pepper of all replicas: none is made.
pub(super) fn shared(configured: Option<&Secret>, directory: &Path) -> Result<Secret, PepperError> {
    let path = directory.join(FILE);
    if configured.is_none() && !path.exists() {
        return Err(PepperError::NotShared(path));
    }
    text(configured, directory, true)
}

/// The text of the pepper in a directory; none if no file there holds one.
pub(super) fn kept(directory: &Path) -> Option<Secret> {
    let file = SecretFile {
        path: directory.join(FILE),
        max_bytes: MAX_BYTES,
    };
    let text = String::from_utf8(file.read().ok()??).ok()?;
    Pepper::new(text.as_bytes())
        .is_ok()
        .then(|| Secret::new(&text))
}

/// Tells replicas whether they have one pepper: 128 bits of a code under it.
pub(super) fn fingerprint(pepper: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, pepper.expose().as_bytes());
    let code = hmac::sign(&key, b"anthropic-proxy shared state");
    let octets = code.as_ref().iter().take(16);
    octets.map(|octet| format!("{octet:02x}")).collect()
}

/// A name of a directory of this host, among those of all replicas.
pub(super) fn place(directory: &Path) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let place = format!("{}\n{}", host.trim(), directory.display());
    let digest = digest::digest(&digest::SHA256, place.as_bytes());
    let octets = digest.as_ref().iter().take(8);
    octets.map(|octet| format!("{octet:02x}")).collect()
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
    use std::os::unix::fs::PermissionsExt as _;

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
    fn one_that_replicas_share_is_not_made() {
        let root = tempfile::tempdir().unwrap();
        let refused = shared(None, root.path()).unwrap_err().to_string();
        assert!(refused.contains("set ACCESS_PEPPER"), "{refused}");
        assert!(!root.path().join(FILE).exists());
        let made = text(None, root.path(), false).unwrap();
        assert!(shared(None, root.path()).unwrap() == made);
        let other = Secret::new("another one with enough characters");
        assert!(shared(Some(&other), root.path()).unwrap() == other);
        assert_ne!(fingerprint(&made), fingerprint(&other));
        assert_eq!(fingerprint(&made).len(), 32);
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
