//! The end of the chain, where lines are appended.
//!
//! Each line is on the disk before its change takes effect. Two processes may append while one takes over
//! from the other: a lock holds them apart, and the one that finds a longer file reads its end anew.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::Serialize;

use super::{
    chain::{self, GENESIS},
    entry::{AuditActor, AuditEntry, AuditLine, AuditTarget},
    segment::{self, SEGMENT},
};
use crate::state::{StoredCheckpoint, hand_over};

/// Lines between two checkpoints.
const CHECKPOINT_LINES: u64 = 1_000;

/// Longest time between a line and the checkpoint after it.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(3600);

/// The chain of this replica.
pub struct AuditLog {
    directory: PathBuf,
    pepper: hmac::Key,
    head: Mutex<Option<ChainHead>>,
}

/// The last line, and the file that it is in.
struct ChainHead {
    file: File,
    path: PathBuf,
    length: u64,
    replica: String,
    seq: u64,
    hash: String,
    /// Lines since the last checkpoint of this process.
    unanchored: u64,
    anchored: Instant,
}

/// Reason for which a line cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The system refuses it.
    #[error("{path} cannot be written: {1}; the change is refused; check that DATA_DIR is writable and has space", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The last line is no line of the audit.
    #[error(
        "the last line of {path} cannot be read; changes are refused; run `anthropic-proxy audit verify`, and move \
         the folder away to begin a new chain", path = .0.display()
    )]
    Unreadable(PathBuf),
    /// The system gives no random bytes.
    #[error("the system gave no random bytes; the change is refused; try again")]
    Random,
}

/// Reason for which a change did not take effect.
#[derive(Debug)]
pub enum ChangeError<E> {
    /// It could not be written down.
    Unaudited(AuditError),
    /// It was refused or failed, which is written down.
    Failed(E),
}

/// A line without its hash.
#[derive(Serialize)]
struct OpenLine<'a> {
    seq: u64,
    at: String,
    actor: &'a AuditActor,
    action: &'a str,
    target: &'a AuditTarget,
    before: &'a serde_json::Value,
    after: &'a serde_json::Value,
    reason: Option<&'a str>,
    request_id: &'a str,
    result: &'a str,
    replica: &'a str,
    prev: &'a str,
}

impl AuditLog {
    /// The chain in a folder. Nothing is opened before the first line.
    pub fn new(directory: PathBuf, pepper: &[u8]) -> Self {
        Self {
            directory,
            pepper: hmac::Key::new(hmac::HMAC_SHA256, pepper),
            head: Mutex::default(),
        }
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The key of checkpoints, for a check.
    pub fn pepper(&self) -> &hmac::Key {
        &self.pepper
    }

    /// Applies a change between two lines: its intent, without which it is refused, and its result.
    ///
    /// # Errors
    /// The intent could not be written, or the change failed.
    pub fn change<T, E: Display>(
        &self,
        entry: &AuditEntry,
        apply: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        self.append(entry, "intent")
            .map_err(ChangeError::Unaudited)?;
        let applied = apply();
        let result = match &applied {
            Ok(_) => "done".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        if let Err(error) = self.append(entry, &result) {
            log::error!(
                "[Audit] the result of {} {} could not be written: {error}; its intent was",
                entry.action,
                entry.request_id
            );
        }
        applied.map_err(ChangeError::Failed)
    }

    /// Writes down what happened without being a change: a sign-in, or what was refused.
    ///
    /// # Errors
    /// The line could not be written.
    pub fn note(&self, entry: &AuditEntry, result: &str) -> Result<(), AuditError> {
        self.append(entry, result)
    }

    /// The checkpoint of the last line, if there is a line.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn checkpoint(&self) -> Result<Option<StoredCheckpoint>, AuditError> {
        if !self.directory.exists() {
            return Ok(None);
        }
        let mut slot = self.slot();
        let _lock = self.lock()?;
        let head = self.head(&mut slot)?;
        if head.seq == 0 {
            return Ok(None);
        }
        head.unanchored = 0;
        head.anchored = Instant::now();
        let checkpoint = StoredCheckpoint {
            chain: head.replica.clone(),
            seq: head.seq,
            hash: head.hash.clone(),
            hmac: chain::code(&self.pepper, &head.replica, head.seq, &head.hash),
            at: unix_seconds(),
        };
        Ok(Some(checkpoint))
    }

    /// True if a checkpoint is due: after 1,000 lines, or an hour after one.
    pub fn is_checkpoint_due(&self) -> bool {
        let slot = self.slot();
        slot.as_ref().is_some_and(|head| {
            head.unanchored >= CHECKPOINT_LINES
                || (head.unanchored > 0 && head.anchored.elapsed() >= CHECKPOINT_INTERVAL)
        })
    }

    fn append(&self, entry: &AuditEntry, result: &str) -> Result<(), AuditError> {
        let mut slot = self.slot();
        let in_folder = |error| AuditError::Io(self.directory.clone(), error);
        create_folder(&self.directory).map_err(in_folder)?;
        let _lock = self.lock()?;
        let head = self.head(&mut slot)?;
        let written = head.append(&self.directory, entry, result);
        if let Err(error) = written {
            let path = head.path.clone();
            // whatever is in the file now is read anew
            *slot = None;
            return Err(AuditError::Io(path, error));
        }
        Ok(())
    }

    /// The end of the chain, as it is in the files now. The caller has the lock.
    fn head<'a>(&self, slot: &'a mut Option<ChainHead>) -> Result<&'a mut ChainHead, AuditError> {
        let in_folder = |error| AuditError::Io(self.directory.clone(), error);
        let newest = segment::all(&self.directory).map_err(in_folder)?.pop();
        let is_current = slot.as_ref().is_some_and(|head| {
            let newest = newest.as_ref().map(|(_, path)| path);
            let length = fs::metadata(&head.path).map(|it| it.len());
            newest == Some(&head.path) && length.is_ok_and(|length| length == head.length)
        });
        if !is_current {
            let before = slot.take();
            let mut head = self.read_head()?;
            if let Some(before) = before.filter(|before| before.replica == head.replica) {
                let more = head.seq.saturating_sub(before.seq);
                head.unanchored = before.unanchored + more;
                head.anchored = before.anchored;
            }
            *slot = Some(head);
        }
        slot.as_mut()
            .ok_or_else(|| AuditError::Unreadable(self.directory.clone()))
    }

    /// Reads the end of the chain from the files. A line that was cut short (the process was killed, or the
    /// disk was full) is removed: its change did not take effect.
    fn read_head(&self) -> Result<ChainHead, AuditError> {
        let segments = segment::all(&self.directory)
            .map_err(|error| AuditError::Io(self.directory.clone(), error))?;
        let mut newest: Option<(File, PathBuf, u64)> = None;
        for (_, path) in segments.iter().rev() {
            let at_path = |error| AuditError::Io(path.clone(), error);
            let mut file = segment::append(path).map_err(at_path)?;
            let tail = segment::tail(&mut file).map_err(at_path)?;
            let mut length = file.metadata().map_err(at_path)?.len();
            if tail.cut > 0 {
                log::warn!(
                    "[Audit] the last line of {} was cut short; {} bytes are removed; its change did not take \
                     effect",
                    path.display(),
                    tail.cut
                );
                length -= tail.cut;
                file.set_len(length).map_err(at_path)?;
            }
            let (file, at, length) = newest.take().unwrap_or((file, path.clone(), length));
            if let Some(line) = tail.line {
                let line: AuditLine = serde_json::from_str(&line)
                    .map_err(|_| AuditError::Unreadable(path.clone()))?;
                return Ok(ChainHead {
                    file,
                    path: at,
                    length,
                    replica: line.replica,
                    seq: line.seq,
                    hash: line.hash,
                    unanchored: 0,
                    anchored: Instant::now(),
                });
            }
            newest = Some((file, at, length));
        }
        let (file, path, length) = match newest {
            Some(newest) => newest,
            None => {
                let path = segment::path(&self.directory, 1);
                let file = segment::append(&path);
                let file = file.map_err(|error| AuditError::Io(path.clone(), error))?;
                (file, path, 0)
            }
        };
        Ok(ChainHead {
            file,
            path,
            length,
            replica: new_replica()?,
            seq: 0,
            hash: GENESIS.to_owned(),
            unanchored: 0,
            anchored: Instant::now(),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Option<ChainHead>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for other processes that append.
    fn lock(&self) -> Result<File, AuditError> {
        let path = self.directory.join("lock");
        let lock = segment::append(&path).and_then(|file| {
            file.lock()?;
            Ok(file)
        });
        lock.map_err(|error| AuditError::Io(path, error))
    }
}

impl ChainHead {
    fn append(&mut self, directory: &Path, entry: &AuditEntry, result: &str) -> io::Result<()> {
        let seq = self.seq + 1;
        if self.length >= SEGMENT {
            let path = segment::path(directory, seq);
            self.file = segment::append(&path)?;
            (self.path, self.length) = (path, 0);
            sync_folder(directory)?;
        }
        let AuditEntry {
            actor,
            action,
            target,
            before,
            after,
            reason,
            request_id,
        } = entry;
        let line = OpenLine {
            seq,
            at: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string(),
            actor,
            action,
            target,
            before,
            after,
            reason: reason.as_deref(),
            request_id,
            result,
            replica: &self.replica,
            prev: &self.hash,
        };
        let text = serde_json::to_string(&line)?;
        let hash = chain::hash(&self.hash, &text);
        let sealed = chain::sealed(&text, &hash);
        let written = self
            .file
            .write_all(sealed.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // a part of a line would be a break of the chain
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        if self.seq == 0 {
            sync_folder(directory)?;
        }
        self.length += sealed.len() as u64;
        (self.seq, self.hash) = (seq, hash);
        self.unanchored += 1;
        Ok(())
    }
}

fn create_folder(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(directory)?;
    hand_over(directory, &File::open(directory)?)
}

/// A new file is on the disk once its folder is.
fn sync_folder(directory: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(directory)?.sync_all(),
        false => Ok(()),
    }
}

/// Names a chain.
fn new_replica() -> Result<String, AuditError> {
    let mut octets = [0; 4];
    let random = SystemRandom::new().fill(&mut octets);
    random.map_err(|_| AuditError::Random)?;
    Ok(format!("{:08x}", u32::from_be_bytes(octets)))
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
