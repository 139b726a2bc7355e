//! The copy of the shared records that this replica keeps in its own directory.
//!
//! The thread that reads changes of the store writes it, never a worker. A start while the store is away uses it:
//! its keys pass, and limits do as each of them says for a lost store. Once the store answers, what it has wins.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{health::CopyHealth, times};
use crate::state::{CopyMark, CopyOrigin, RecordCopy, RedisSettings, StateError, StoredText};

/// Age from which a copy is not used: too much may have been revoked since.
const OLDEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Time between two notes that the store still has the state of the copy.
const CONFIRM: Duration = Duration::from_secs(60);

/// The copy, and what is known of it.
pub(super) struct KeptCopy {
    copy: RecordCopy,
    /// State that it was seen to have in this process.
    mark: Option<CopyMark>,
    /// The last note in the file that the store has that state.
    confirmed: Instant,
}

impl KeptCopy {
    /// The copy of a store in a directory, whose digests are made with the pepper of a fingerprint.
    pub(super) fn new(directory: &Path, state: &RedisSettings, fingerprint: &str) -> Self {
        let origin = CopyOrigin {
            source: state.source(),
            pepper: fingerprint.to_owned(),
        };
        Self {
            copy: RecordCopy::new(directory, origin),
            mark: None,
            confirmed: Instant::now(),
        }
    }

    /// Shows all records. Gives the time of the copy in Unix seconds, or a reason for which it is not used.
    pub(super) fn show(
        &mut self,
        now: i64,
        show: &mut dyn FnMut(StoredText<'_>),
    ) -> Result<i64, String> {
        let unusable = |error| format!("its copy in DATA_DIR is not used ({error})");
        let Some(mark) = self.copy.mark().map_err(unusable)? else {
            return Err("there is no copy of it in DATA_DIR".to_owned());
        };
        let age = now.saturating_sub(mark.at).max(0).unsigned_abs();
        if age > OLDEST.as_secs() {
            let at = times::show(mark.at);
            return Err(format!("its copy in DATA_DIR is of {at}, too old"));
        }
        self.copy.read(show).map_err(unusable)?;
        Ok(mark.at)
    }

    /// Brings the copy up to a version, of which `read` shows what changed since another one, all for 0; at most
    /// notes the time if it has that version.
    pub(super) fn keep(
        &mut self,
        version: u64,
        now: i64,
        health: &CopyHealth,
        read: impl FnOnce(u64, &mut dyn FnMut(StoredText<'_>)) -> Result<CopyMark, StateError>,
    ) -> Result<(), StateError> {
        let kept = self.bring(version, now, read);
        match &kept {
            Ok(true) => health.note(now),
            // another process of this directory was faster: all of it the next time
            Ok(false) => self.mark = None,
            Err(error) => {
                self.mark = None;
                if matches!(error, StateError::Damaged(..)) {
                    self.copy.remove()?;
                }
            }
        }
        kept.map(drop)
    }

    /// As [`Self::keep`]; false if another process writes it, too.
    fn bring(
        &mut self,
        version: u64,
        now: i64,
        read: impl FnOnce(u64, &mut dyn FnMut(StoredText<'_>)) -> Result<CopyMark, StateError>,
    ) -> Result<bool, StateError> {
        let since = match &mut self.mark {
            Some(mark) if mark.version == version => {
                if self.confirmed.elapsed() >= CONFIRM {
                    mark.at = now;
                    self.copy.confirm(mark)?;
                    self.confirmed = Instant::now();
                }
                return Ok(true);
            }
            Some(mark) if mark.version < version => Some(mark.version),
            // not seen yet, or the store had lost changes
            _ => None,
        };
        let mut state = CopyMark::default();
        let written = self.copy.write(since, |show| {
            state = read(since.unwrap_or(0), show)?;
            Ok(state.clone())
        });
        match written {
            Err(StateError::Conflict) => Ok(false),
            written => {
                written?;
                self.mark = Some(state);
                self.confirmed = Instant::now();
                Ok(true)
            }
        }
    }

    /// Takes what the store has for what the copy has, if a start finds both the same.
    pub(super) fn compare(&mut self, version: u64, change: &str) {
        let mark = self.copy.mark().ok().flatten();
        self.mark = mark.filter(|mark| mark.version == version && mark.change == change);
        // the next look notes the time
        if let Some(earlier) = Instant::now().checked_sub(CONFIRM) {
            self.confirmed = earlier;
        }
    }

    /// Forgets what is known of the copy: the store had lost changes.
    pub(super) fn forget(&mut self) {
        self.mark = None;
    }
}
