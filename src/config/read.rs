//! Reads one small text file: bounded, regular, UTF-8.
//!
//! It refuses pipes and sockets, because a reload reads a file again and a pipe gives its content
//! once; and anything above 4 MiB, because a configuration is not a data set.

use std::{fs, fs::File, io, io::Read, path::Path};

use super::{certificate::CertificateFacts, scalar::InvalidValue};

/// Reason for which a file could not be read. The texts never contain its content.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("does not exist")]
    Missing,
    #[error("is a link to nothing, or below one")]
    Dangling,
    #[error("is a directory")]
    Directory,
    #[error("is not a regular file")]
    NotRegular,
    #[error("is larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    #[error("is not UTF-8 (line {line})")]
    NotUtf8 { line: usize },
    #[error("cannot be read: {0}")]
    Io(#[source] io::Error),
}

impl From<ReadError> for InvalidValue {
    fn from(error: ReadError) -> Self {
        Self::because(error.to_string())
    }
}

/// The text of the file at `path`, without a byte order mark.
pub(super) fn text(path: &Path) -> Result<String, ReadError> {
    text_of(octets(path)?)
}

/// The text of a file in PEM. One with a certificate in DER is told as such.
pub(super) fn pem(path: &Path) -> Result<String, InvalidValue> {
    let content = octets(path)?;
    match CertificateFacts::read(&content) {
        Some(_) => Err(InvalidValue::because(in_der(path))),
        None => Ok(text_of(content)?),
    }
}

/// The fault of a file with a certificate in DER, and the remedy.
pub fn in_der(path: &Path) -> String {
    let path = path.display();
    format!(
        "has a certificate in DER, not in PEM; convert it (openssl x509 -inform DER -in {path} -out {path}.pem), and \
         name {path}.pem"
    )
}

fn octets(path: &Path) -> Result<Vec<u8>, ReadError> {
    let kind = fs::metadata(path)
        .map_err(|error| missing(from_io(error), path))?
        .file_type();
    if kind.is_dir() {
        return Err(ReadError::Directory);
    }
    // The usual way to say "no file" where a file must be named.
    if !kind.is_file() && path != Path::new("/dev/null") {
        return Err(ReadError::NotRegular);
    }
    let mut content = Vec::new();
    let mut file = File::open(path).map_err(from_io)?.take(LARGEST + 1);
    file.read_to_end(&mut content).map_err(from_io)?;
    if content.len() as u64 > LARGEST {
        return Err(ReadError::TooLarge);
    }
    Ok(content)
}

fn text_of(content: Vec<u8>) -> Result<String, ReadError> {
    let text = String::from_utf8(content).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + memchr::memchr_iter(b'\n', &error.as_bytes()[..valid]).count();
        ReadError::NotUtf8 { line }
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Turns a missing file into a dangling link if a link on the way leads nowhere: the operator who
/// made the link expects a file there.
fn missing(error: ReadError, path: &Path) -> ReadError {
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|it| it.is_symlink());
    let is_dangling = |path: &Path| is_link(path) && fs::metadata(path).is_err();
    match error {
        ReadError::Missing if path.ancestors().any(is_dangling) => ReadError::Dangling,
        error => error,
    }
}

fn from_io(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Missing,
        _ => ReadError::Io(error),
    }
}

/// A prompt of a megabyte is far beyond any model's context; four leave room for quoting.
const LARGEST: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_text_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        assert!(matches!(text(&file), Err(ReadError::Missing)));
        assert!(matches!(text(&file.join("below")), Err(ReadError::Missing)));
        assert!(matches!(text(dir.path()), Err(ReadError::Directory)));
        fs::write(&file, b"a\nb\n\xff").unwrap();
        assert!(matches!(text(&file), Err(ReadError::NotUtf8 { line: 3 })));
        assert!(matches!(text(&file.join("below")), Err(ReadError::Missing)));
        fs::write(&file, "\u{feff}A=1").unwrap();
        assert_eq!(text(&file).unwrap(), "A=1");
        File::create(&file).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(text(&file), Err(ReadError::TooLarge)));
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_refused_but_for_null() {
        assert!(matches!(
            text(Path::new("/dev/zero")),
            Err(ReadError::NotRegular)
        ));
        assert_eq!(text(Path::new("/dev/null")).unwrap(), "");
    }
}
