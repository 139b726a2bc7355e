//! A file for those who help: what the doctor found, with the settings and facts around it, and without secrets.
//!
//! Its first member says what else it has. It is written beside its place, for its owner alone, and gets its name
//! when it is whole; a file that is there already is left alone.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{secret::Secrets, telemetry::activity::masked};

/// A part of a bundle.
#[derive(Debug, Clone)]
pub struct BundlePart {
    /// Name of its member.
    pub name: &'static str,
    /// Description for the list of contents.
    pub about: String,
    /// The content.
    pub content: Value,
    /// True for texts that others wrote, where anything may look like a secret.
    pub is_foreign: bool,
}

/// All parts of a bundle.
#[derive(Debug, Default)]
pub struct Bundle {
    /// The parts.
    pub parts: Vec<BundlePart>,
}

/// Reason for which no bundle was written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The path has a file.
    #[error("{path} exists: nothing was written; name another file, or remove it", path = .0.display())]
    Exists(PathBuf),
    /// The directory does not exist.
    #[error("the directory of {path} does not exist: nothing was written; make it (mkdir -p), or name another file", path = .0.display())]
    NoDirectory(PathBuf),
    /// It cannot be written.
    #[error("{path} cannot be written: {1}; let this user write its directory, or name another file", path = .0.display())]
    Unwritable(PathBuf, #[source] io::Error),
}

/// A line of the list of contents.
#[derive(Serialize)]
struct ContentLine<'a> {
    name: &'a str,
    about: &'a str,
    bytes: usize,
}

impl Bundle {
    /// The document, with everything masked that is one of these secrets.
    pub fn document(&self, secrets: &Secrets) -> String {
        let masked: Vec<(&BundlePart, String)> = self
            .parts
            .iter()
            .map(|part| {
                let mut content = part.content.clone();
                redact(&mut content, secrets, part.is_foreign);
                (
                    part,
                    serde_json::to_string_pretty(&content).unwrap_or_default(),
                )
            })
            .collect();
        let contents: Vec<ContentLine<'_>> = masked
            .iter()
            .map(|(part, text)| ContentLine {
                name: part.name,
                about: &part.about,
                bytes: text.len(),
            })
            .collect();
        // by hand: the list comes first
        let list = serde_json::to_string_pretty(&contents).unwrap_or_default();
        let mut document = format!("{{\n\"contents\": {list}");
        for (part, text) in masked {
            document += &format!(",\n\"{}\": {text}", part.name);
        }
        document + "\n}\n"
    }
}

/// Masks each text of a value, the names of members among them.
fn redact(value: &mut Value, secrets: &Secrets, is_foreign: bool) {
    let shown = |text: &str| {
        let text = secrets.hide(text);
        match is_foreign {
            true => masked(&text),
            false => text.into_owned(),
        }
    };
    match value {
        Value::String(text) => *text = shown(text),
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| redact(item, secrets, is_foreign)),
        Value::Object(members) => {
            let taken = std::mem::take(members);
            for (name, mut value) in taken {
                redact(&mut value, secrets, is_foreign);
                members.insert(secrets.hide(&name).into_owned(), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reports whether a bundle may be written to a path: before the checks are made, which take time.
///
/// # Errors
/// There is a file, or no directory.
pub fn may_write(path: &Path) -> Result<(), BundleError> {
    if path.symlink_metadata().is_ok() {
        return Err(BundleError::Exists(path.to_owned()));
    }
    match directory(path).is_dir() {
        true => Ok(()),
        false => Err(BundleError::NoDirectory(path.to_owned())),
    }
}

/// Writes a bundle to a path that has no file.
///
/// # Errors
/// There is a file, or it cannot be written. Nothing is left behind then.
pub fn write_bundle(path: &Path, document: &str) -> Result<(), BundleError> {
    may_write(path)?;
    let unwritable = |error| BundleError::Unwritable(path.to_owned(), error);
    // its mode is 0600 from the beginning
    let mut file = NamedTempFile::new_in(directory(path)).map_err(unwritable)?;
    file.write_all(document.as_bytes()).map_err(unwritable)?;
    file.as_file().sync_all().map_err(unwritable)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(BundleError::Exists(path.to_owned()))
        }
        Err(error) => Err(unwritable(error.error)),
    }
}

fn directory(path: &Path) -> &Path {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn bundle() -> Bundle {
        let part = |name, content, is_foreign| BundlePart {
            name,
            about: format!("the part {name}"),
            content,
            is_foreign,
        };
        Bundle {
            parts: vec![
                part(
                    "doctor",
                    json!({"detail": "key canary-key-1 and canary-key-1"}),
                    false,
                ),
                part(
                    "log",
                    json!([
                        "Authorization: Bearer other-canary-token-12345",
                        "GET /x 200"
                    ]),
                    true,
                ),
            ],
        }
    }

    #[test]
    fn the_list_comes_first_and_no_secret_is_in_it() {
        let mut secrets = Secrets::default();
        secrets.add("canary-key-1");
        let document = bundle().document(&secrets);
        assert!(document.starts_with("{\n\"contents\": ["), "{document}");
        let read: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(read["contents"][1]["name"], "log");
        assert_eq!(read["log"][1], "GET /x 200");
        assert!(!document.contains("canary"), "{document}");
    }

    #[test]
    fn a_path_that_is_taken_is_refused_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.json");
        write_bundle(&path, "one").unwrap();
        assert!(matches!(
            write_bundle(&path, "two"),
            Err(BundleError::Exists(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let below = dir.path().join("no/b.json");
        assert!(matches!(
            write_bundle(&below, "x"),
            Err(BundleError::NoDirectory(_))
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            assert!(matches!(
                write_bundle(&link, "x"),
                Err(BundleError::Exists(_))
            ));
        }
    }
}
