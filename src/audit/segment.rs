//! The files of the chain: named by the number of their first line, for their owner alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use crate::state::hand_over;

/// Octets at which a new file begins.
pub(super) const SEGMENT: u64 = 8 << 20;

/// Ending of the files' names.
const ENDING: &str = ".jsonl";

/// Octets that are read at a time from the end.
const CHUNK: u64 = 64 << 10;

/// The path of the file whose first line has this number.
pub(super) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:012}{ENDING}"))
}

/// The files, oldest first, each with the number of its first line.
pub(super) fn all(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(ENDING));
        let digits = number.filter(|it| it.len() >= 12 && it.bytes().all(|c| c.is_ascii_digit()));
        if let Some(first) = digits.and_then(|digits| digits.parse().ok()) {
            segments.push((first, path));
        }
    }
    segments.sort();
    Ok(segments)
}

/// Opens a file to append to, and creates it if it is missing.
pub(super) fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let file = options.open(path)?;
    hand_over(path, &file)?;
    Ok(file)
}

/// The end of a file: its last whole line, and the octets of a line that was cut short after it.
pub(super) struct SegmentTail {
    pub(super) line: Option<String>,
    pub(super) cut: u64,
}

/// Reads the end of a file.
pub(super) fn tail(file: &mut File) -> io::Result<SegmentTail> {
    let length = file.metadata()?.len();
    let (mut from, mut end) = (length, Vec::new());
    loop {
        let step = from.min(CHUNK);
        from -= step;
        let mut chunk = vec![0; usize::try_from(step).unwrap_or_default()];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut chunk)?;
        chunk.append(&mut end);
        end = chunk;
        let mut breaks = memchr::memrchr_iter(b'\n', &end);
        let (last, before) = (breaks.next(), breaks.next());
        if let Some(last) = last.filter(|_| before.is_some() || from == 0) {
            let begin = before.map_or(0, |before| before + 1);
            let line = String::from_utf8_lossy(&end[begin..last]).into_owned();
            return Ok(SegmentTail {
                line: Some(line),
                cut: (end.len() - last - 1) as u64,
            });
        }
        if from == 0 {
            return Ok(SegmentTail {
                line: None,
                cut: end.len() as u64,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_whole_line_is_found_over_chunks() {
        let directory = tempfile::tempdir().unwrap();
        let long = "y".repeat(200_000);
        for (content, line, cut) in [
            ("", None, 0),
            ("abc", None, 3),
            ("\n", Some(""), 0),
            ("a\n", Some("a"), 0),
            ("a\nb\n", Some("b"), 0),
            ("a\nb\ncde", Some("b"), 3),
            (&format!("x\n{long}\n{long}"), Some(&*long), 200_000),
        ] {
            let path = directory.path().join("f");
            let _ = fs::remove_file(&path);
            let mut file = append(&path).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            let found = tail(&mut file).unwrap();
            assert_eq!(found.line.as_deref(), line);
            assert_eq!(found.cut, cut);
        }
    }

    #[test]
    fn only_segments_are_listed_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "000000000012.jsonl",
            "000000000003.jsonl",
            "x.jsonl",
            "lock",
            "3.jsonl",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let found: Vec<_> = all(directory.path())
            .unwrap()
            .into_iter()
            .map(|it| it.0)
            .collect();
        assert_eq!(found, [3, 12]);
        assert_eq!(
            path(directory.path(), 3),
            directory.path().join("000000000003.jsonl")
        );
        assert!(all(&directory.path().join("missing")).unwrap().is_empty());
    }
}
