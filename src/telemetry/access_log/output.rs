//! Output of the access log: stdout, or a file that is rotated and reopened.
//!
//! Rotated files are named after the moment, `NAME.YYYYMMDDTHHMMSS`, and the newest of them are kept: the
//! disk holds at most `ACCESS_LOG_MAX_SIZE` × (`ACCESS_LOG_KEEP` + 1), and a line more where one is longer
//! than that. A line is written whole or not at all. If the file cannot be rotated (a directory without
//! write permission, a file that is a mount of its own), lines are appended up to its largest size.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::lines::{lines, whole_lines};
use crate::{
    config::{AccessLogSettings, AccessLogTarget},
    logging::timestamp,
};

/// Interval of the checks for a renamed or removed file, and of retries of a failed opening or rotation.
const CHECK: Duration = Duration::from_secs(1);
/// Owner writes, group reads.
const MODE: u32 = 0o640;

/// The output.
pub(super) struct Output {
    settings: AccessLogSettings,
    file: Option<OpenFile>,
    checked: Option<SystemTime>,
    /// True once the log has reported that lines are dropped.
    is_failing: bool,
    /// Lines that were dropped since then.
    dropped: u64,
    /// Time of the last failed rotation; none after one that succeeded.
    stuck: Option<SystemTime>,
}

/// The open file.
struct OpenFile {
    file: File,
    /// Its length; none where it is no regular file, which is not rotated.
    size: Option<u64>,
    /// The day that its lines are of.
    day: String,
    /// True if the file ends inside of a line that could neither be completed nor removed.
    is_torn: bool,
}

impl Output {
    pub(super) fn new(settings: AccessLogSettings) -> Self {
        Self {
            settings,
            file: None,
            checked: None,
            is_failing: false,
            dropped: 0,
            stuck: None,
        }
    }

    /// Reopens the file.
    pub(super) fn reopen(&mut self, now: SystemTime) {
        self.file = None;
        self.checked = None;
        if let AccessLogTarget::File(path) = self.settings.target.clone() {
            self.open(&path, now);
        }
    }

    /// Writes lines. Returns the number of lines that could not be written.
    pub(super) fn write(&mut self, text: &[u8], now: SystemTime) -> u64 {
        let outcome = match self.settings.target.clone() {
            AccessLogTarget::Stdout => {
                // the one owner of stdout while the program serves
                let (written, outcome) = write_some(&mut io::stdout().lock(), text);
                outcome.map_err(|error| (lines(&text[written..]), error))
            }
            AccessLogTarget::File(path) => self.write_file(&path, text, now),
        };
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    let dropped = std::mem::take(&mut self.dropped);
                    log::info!("[Access log] writing again after {dropped} dropped lines");
                }
                0
            }
            Err((dropped, error)) => {
                self.say_failing(&error);
                self.dropped += dropped;
                dropped
            }
        }
    }

    fn say_failing(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let target = match &self.settings.target {
                AccessLogTarget::Stdout => "stdout".into(),
                AccessLogTarget::File(path) => path.display().to_string(),
            };
            log::warn!(
                "[Access log] {target} cannot be written: {error}; lines are dropped; check permissions and disk space"
            );
        }
    }

    fn write_file(
        &mut self,
        path: &Path,
        mut text: &[u8],
        now: SystemTime,
    ) -> Result<(), (u64, io::Error)> {
        self.follow(path, now);
        while !text.is_empty() {
            let first = whole_lines(text, 0) as u64;
            let room = self.room(path, first, now);
            let room = room.map_err(|error| (lines(text), error))?;
            let part = &text[..whole_lines(text, room)];
            let Some(open) = &mut self.file else {
                return Err((lines(text), io::ErrorKind::NotFound.into()));
            };
            text = &text[part.len()..];
            open.write(part)
                .map_err(|(dropped, error)| (dropped + lines(text), error))?;
        }
        Ok(())
    }

    /// Reopens the path if it names another file than the open one; checks once a second.
    fn follow(&mut self, path: &Path, now: SystemTime) {
        if self.checked.is_some_and(|at| is_recent(at, now)) {
            return;
        }
        self.checked = Some(now);
        if self.file.as_ref().is_none_or(|open| !open.is_at(path)) {
            self.open(path, now);
        }
    }

    /// Number of bytes that may be written; rotates if there is no room for the first line, or on a new day.
    fn room(&mut self, path: &Path, first: u64, now: SystemTime) -> io::Result<u64> {
        let max_size = self.settings.max_size;
        let Some(open) = &mut self.file else {
            return Err(io::Error::other("the file could not be opened"));
        };
        let Some(size) = open.size else {
            return Ok(u64::MAX);
        };
        let today = day(now);
        if size == 0 {
            open.day = today;
            return Ok(max_size);
        }
        let fits = size + first <= max_size;
        // a clock that is set back begins no new day
        if fits && open.day >= today {
            return Ok(max_size - size);
        }
        if open.is_at(path)
            && let Err(error) = self.rotate(path, now)
        {
            return if fits {
                Ok(max_size - size)
            } else {
                Err(error)
            };
        }
        self.open(path, now);
        match &self.file {
            Some(open) => Ok(max_size.saturating_sub(open.size.unwrap_or_default())),
            None => Err(io::Error::other("the file could not be opened")),
        }
    }

    /// Rotates the file; a failed rotation is tried again a second later.
    fn rotate(&mut self, path: &Path, now: SystemTime) -> io::Result<()> {
        if self.stuck.is_some_and(|at| is_recent(at, now)) {
            return Err(io::Error::other("the file is full and cannot be rotated"));
        }
        if let Err(error) = rotate(path, now) {
            if self.stuck.replace(now).is_none() {
                log::warn!(
                    "[Access log] {} rotation failed: {error}; appending until ACCESS_LOG_MAX_SIZE; check that its directory is writable",
                    path.display()
                );
            }
            return Err(error);
        }
        if self.stuck.take().is_some() {
            log::info!("[Access log] {} rotation succeeds again", path.display());
        }
        if let Err(error) = prune(path, self.settings.keep, now) {
            log::warn!(
                "[Access log] a rotated file cannot be deleted: {error}; it stays on disk beyond ACCESS_LOG_KEEP; delete it by hand"
            );
        }
        Ok(())
    }

    fn open(&mut self, path: &Path, now: SystemTime) {
        match OpenFile::new(path, now) {
            Ok(open) => self.file = Some(open),
            Err(error) => {
                self.file = None;
                self.say_failing(&error);
            }
        }
    }
}

impl OpenFile {
    fn new(path: &Path, now: SystemTime) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(MODE).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            size: metadata.is_file().then_some(metadata.len()),
            day: day(metadata.modified().unwrap_or(now).min(now)),
            file,
            is_torn: false,
        })
    }

    /// True if it is the file at this path.
    fn is_at(&self, path: &Path) -> bool {
        let (Ok(ours), Ok(there)) = (self.file.metadata(), fs::metadata(path)) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (there.dev(), there.ino())
    }

    fn write(&mut self, text: &[u8]) -> Result<(), (u64, io::Error)> {
        if self.is_torn {
            self.file
                .write_all(b"\n")
                .map_err(|error| (lines(text), error))?;
            self.is_torn = false;
            self.size = self.size.map(|size| size + 1);
        }
        let (written, outcome) = write_some(&mut self.file, text);
        let Err(error) = outcome else {
            self.size = self.size.map(|size| size + text.len() as u64);
            return Ok(());
        };
        let whole = memchr::memrchr(b'\n', &text[..written]).map_or(0, |last| last + 1);
        if written > whole {
            self.is_torn = !self.take_back((written - whole) as u64);
        }
        // writes of other processes count, too
        let metadata = self.file.metadata().ok();
        self.size = self.size.and(metadata.map(|metadata| metadata.len()));
        Err((lines(&text[whole..]), error))
    }

    /// Removes the beginning of a line, unless another process has written since.
    fn take_back(&self, octets: u64) -> bool {
        let is_ours = |size: u64, len: u64| len > size && len - size >= octets;
        match (self.size, self.file.metadata()) {
            (Some(size), Ok(metadata)) if is_ours(size, metadata.len()) => {
                self.file.set_len(metadata.len() - octets).is_ok()
            }
            _ => false,
        }
    }
}

/// Writes as much as possible, and returns the number of bytes written.
fn write_some(to: &mut impl io::Write, text: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < text.len() {
        match to.write(&text[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, to.flush())
}

/// True if a time is less than [`CHECK`] ago.
fn is_recent(at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|since| since < CHECK)
}

/// Renames the file after the moment. Of several within a second the later have the larger numbers, even
/// if the earlier are gone.
fn rotate(path: &Path, now: SystemTime) -> io::Result<()> {
    let stamp = stamp(now);
    let rotated = rotated(path).unwrap_or_default();
    let numbers = rotated.iter().filter_map(|(suffix, _)| {
        let number = suffix.strip_prefix(&stamp)?;
        Some(
            number
                .strip_prefix('-')
                .map_or(0, |n| n.parse().unwrap_or(0)),
        )
    });
    let next = numbers.max().map_or(0_u32, |last| last + 1);
    let free = (next..1000)
        .map(|number| match number {
            0 => format!("{}.{stamp}", path.display()),
            _ => format!("{}.{stamp}-{number:03}", path.display()),
        })
        .find(|name| fs::symlink_metadata(name).is_err());
    fs::rename(path, free.ok_or(io::ErrorKind::AlreadyExists)?)
}

/// Deletes all rotated files except the newest.
///
/// # Errors
/// The last one; the others are deleted nevertheless.
fn prune(path: &Path, keep: usize, now: SystemTime) -> io::Result<()> {
    let (now, mut rotated) = (stamp(now), rotated(path)?);
    // names sort as their moments do; those from later than now are of a clock that was set back since,
    // and older than what is written now
    rotated.sort_by_cached_key(|(suffix, _)| {
        let is_past = suffix.get(..now.len()) <= Some(now.as_str());
        (is_past, suffix.clone())
    });
    let mut outcome = Ok(());
    for (_, old) in rotated.iter().rev().skip(keep) {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
            _ => {}
        }
    }
    outcome
}

/// Lists the rotated files: the suffix of the name, and the path. Only regular files are among them.
fn rotated(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut rotated = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let other = entry.file_name();
        let suffix = other.to_str().and_then(|other| other.strip_prefix(&*name));
        let suffix = suffix.and_then(|suffix| suffix.strip_prefix('.'));
        if let Some(suffix) = suffix.filter(|suffix| is_stamp(suffix))
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            rotated.push((suffix.to_owned(), entry.path()));
        }
    }
    Ok(rotated)
}

/// True if a text is `YYYYMMDDTHHMMSS`, with a number or without.
fn is_stamp(text: &str) -> bool {
    let (stamp, number) = text.split_once('-').unwrap_or((text, "000"));
    stamp.len() == 15
        && number.len() == 3
        && number.bytes().all(|octet| octet.is_ascii_digit())
        && stamp.bytes().enumerate().all(|(at, octet)| match at {
            8 => octet == b'T',
            _ => octet.is_ascii_digit(),
        })
}

/// `YYYYMMDDTHHMMSS`.
fn stamp(now: SystemTime) -> String {
    let timestamp = timestamp(now);
    let second = timestamp.split('.').next().unwrap_or_default();
    second.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// `YYYY-MM-DD`.
fn day(now: SystemTime) -> String {
    timestamp(now)
        .split('T')
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::UNIX_EPOCH};

    use super::*;

    const NOON: u64 = 1_795_435_200;

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn output(path: &Path, max_size: u64, keep: usize) -> Output {
        Output::new(AccessLogSettings {
            target: AccessLogTarget::File(path.into()),
            max_size,
            keep,
        })
    }

    fn files(directory: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn named(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn stamps_are_told_from_other_suffixes() {
        assert_eq!(stamp(at(NOON)), "20261123T120000");
        assert!(is_stamp("20261123T120000") && is_stamp("20261123T120000-001"));
        for other in [
            "",
            "gz",
            "20261123T120000.gz",
            "20261123 120000",
            "20261123T120000-1",
        ] {
            assert!(!is_stamp(other), "{other}");
        }
    }

    #[test]
    fn a_full_file_is_rotated_under_a_name_of_its_own_and_the_newest_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(directory.path().join("a.gz"), "kept").unwrap();
        fs::write(directory.path().join("b.20261123T120000"), "kept").unwrap();
        let mut output = output(&path, 8, 3);
        assert_eq!(output.write(b"1\n2\n3\n4\n5\n6\n7\n8\n9\n", at(NOON)), 0);
        assert_eq!(output.write(b"a longer line\nA\nB\n", at(NOON + 1)), 0);
        assert_eq!(
            files(directory.path()),
            named(&[
                ("a", "A\nB\n"),
                ("a.20261123T120000-001", "5\n6\n7\n8\n"),
                ("a.20261123T120001", "9\n"),
                ("a.20261123T120001-001", "a longer line\n"),
                ("a.gz", "kept"),
                ("b.20261123T120000", "kept"),
            ])
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }

    #[test]
    fn the_disk_is_bounded_whatever_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut output = output(&path, 1000, 2);
        let mut written = 0;
        for second in 0..200 {
            let line = "x".repeat(1 + second as usize * 7 % 400) + "\n";
            written += line.len();
            assert_eq!(output.write(line.as_bytes(), at(NOON + second)), 0);
            let held = files(directory.path());
            assert!(held.len() <= 3);
            assert!(held.iter().all(|(_, text)| text.len() <= 1000));
        }
        assert!(written > 10_000);
    }

    #[test]
    fn a_file_is_rotated_at_midnight_and_when_it_is_of_another_day() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let midnight = NOON + 12 * 3600;
        let mut first = output(&path, 1000, 5);
        assert_eq!(first.write(b"1\n", at(NOON)), 0);
        assert_eq!(first.write(b"2\n", at(midnight - 1)), 0);
        assert_eq!(first.write(b"3\n", at(midnight)), 0);
        // the clock is set back: nothing to rotate
        assert_eq!(first.write(b"4\n", at(NOON)), 0);
        assert_eq!(
            files(directory.path()),
            named(&[("a", "3\n4\n"), ("a.20261124T000000", "1\n2\n")])
        );
        // restarted a day later: the file tells its day
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(at(NOON)).unwrap();
        let mut second = output(&path, 1000, 5);
        assert_eq!(second.write(b"5\n", at(NOON + 86_400)), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "5\n");
    }

    #[test]
    fn a_file_that_was_renamed_or_removed_is_followed_within_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut output = output(&path, 1000, 5);
        assert_eq!(output.write(b"1\n", at(NOON)), 0);
        fs::rename(&path, directory.path().join("b")).unwrap();
        assert_eq!(output.write(b"2\n", at(NOON)), 0);
        assert_eq!(output.write(b"3\n", at(NOON + 1)), 0);
        fs::remove_file(&path).unwrap();
        assert_eq!(output.write(b"4\n", at(NOON + 2)), 0);
        assert_eq!(
            files(directory.path()),
            named(&[("a", "4\n"), ("b", "1\n2\n")])
        );
        // a clock that was set back does not stop the looking
        fs::rename(&path, directory.path().join("b")).unwrap();
        assert_eq!(output.write(b"5\n", at(NOON - 3600)), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "5\n");
    }

    /// A name that has room for no suffix: the file can be written, and not be rotated.
    fn unrotatable() -> String {
        "a".repeat(250)
    }

    #[test]
    fn a_file_that_cannot_be_rotated_is_written_on_to_its_largest_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(unrotatable());
        let tomorrow = NOON + 86_400;
        let mut output = output(&path, 10, 3);
        assert_eq!(output.write(b"1\n2\n", at(NOON)), 0);
        // a new day
        assert_eq!(output.write(b"3\n", at(tomorrow)), 0);
        assert_eq!(output.stuck, Some(at(tomorrow)));
        // tried again once a second at most
        assert_eq!(output.write(b"4\n5\n6\n7\n", at(tomorrow)), 2);
        assert_eq!(output.stuck, Some(at(tomorrow)));
        assert_eq!(output.write(b"8\n", at(tomorrow + 1)), 1);
        assert_eq!(output.stuck, Some(at(tomorrow + 1)));
        assert_eq!(output.dropped, 3);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n3\n4\n5\n");
        // and when it can be, it is
        let short = directory.path().join("a");
        fs::rename(&path, &short).unwrap();
        output.settings.target = AccessLogTarget::File(short.clone());
        assert_eq!(output.write(b"9\n", at(tomorrow + 2)), 0);
        assert_eq!((output.stuck, output.is_failing), (None, false));
        assert_eq!(fs::read_to_string(&short).unwrap(), "9\n");
    }

    #[test]
    fn what_cannot_be_deleted_stops_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        // a directory of that name is none of ours, whether it is the oldest or the newest
        for stamp in ["20260101T000000", "20270101T000000"] {
            fs::create_dir(directory.path().join(format!("a.{stamp}"))).unwrap();
        }
        for second in 0..5 {
            fs::write(&path, "x").unwrap();
            rotate(&path, at(NOON + second)).unwrap();
        }
        prune(&path, 2, at(NOON + 4)).unwrap();
        let mut left: Vec<_> = rotated(&path).unwrap();
        left.sort();
        let left: Vec<_> = left.iter().map(|(suffix, _)| suffix.as_str()).collect();
        assert_eq!(left, ["20261123T120003", "20261123T120004"]);
    }

    #[test]
    fn after_a_clock_was_set_back_the_newest_are_kept_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut output = output(&path, 2, 2);
        for (line, second) in [("1\n", 100), ("2\n", 101), ("3\n", 102)] {
            assert_eq!(output.write(line.as_bytes(), at(NOON + second)), 0);
        }
        for (line, second) in [("4\n", 0), ("5\n", 1), ("6\n", 1), ("7\n", 1)] {
            assert_eq!(output.write(line.as_bytes(), at(NOON + second)), 0);
        }
        assert_eq!(
            files(directory.path()),
            named(&[
                ("a", "7\n"),
                ("a.20261123T120001-001", "5\n"),
                ("a.20261123T120001-002", "6\n"),
            ])
        );
    }

    #[test]
    fn a_name_whose_file_is_gone_is_not_taken_again_within_its_second() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut output = output(&path, 2, 1);
        for line in ["1\n", "2\n", "3\n", "4\n"] {
            assert_eq!(output.write(line.as_bytes(), at(NOON)), 0);
        }
        assert_eq!(
            files(directory.path()),
            named(&[("a", "4\n"), ("a.20261123T120000-002", "3\n")])
        );
    }

    #[test]
    fn a_full_disk_drops_lines_and_counts_them() {
        let mut output = output(Path::new("/dev/full"), 1000, 5);
        assert_eq!(output.write(b"1\n2\n", at(NOON)), 2);
        assert_eq!(output.write(b"3\n", at(NOON)), 1);
        assert_eq!((output.is_failing, output.dropped), (true, 3));
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/a");
        let mut output = output(&path, 1000, 5);
        assert_eq!(output.write(b"1\n2\n", at(NOON)), 2);
        fs::create_dir(directory.path().join("none")).unwrap();
        assert_eq!(output.write(b"3\n", at(NOON)), 1, "within the second");
        assert_eq!(output.write(b"4\n", at(NOON + 1)), 0);
        assert!(!output.is_failing);
        assert_eq!(fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[test]
    fn a_line_that_was_cut_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut open = OpenFile::new(&path, at(NOON)).unwrap();
        open.write(b"1\n").unwrap();
        open.file.write_all(b"2\n3").unwrap();
        assert!(open.take_back(1));
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
        open.is_torn = true;
        open.write(b"4\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n\n4\n");
    }
}
