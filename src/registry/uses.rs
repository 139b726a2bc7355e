//! Last uses of keys, kept in the store, so that a restart does not make a key look unused.
//!
//! Written once a minute; each process takes those of the others then.

use super::{
    core::{Book, Registry},
    times,
};
use crate::{
    access::SecretUse,
    state::{StateError, StoredUse},
};

/// Seconds between two writes.
const INTERVAL: i64 = 60;

/// Seconds by which the clocks of two processes may differ.
const TOLERANCE: i64 = 60;

impl Registry {
    /// Takes the uses that are stored, all of them.
    pub(super) fn load_uses(&self) -> Result<(), StateError> {
        let mut book = self.book();
        self.take_uses(&mut book, 0)?;
        book.uses_at = times::now();
        Ok(())
    }

    /// Writes the uses since the last time, and takes those of others, when it is due.
    pub(super) fn follow_uses(&self, book: &mut Book) -> Result<(), StateError> {
        let (before, now) = (book.uses_at, times::now());
        if (before..before + INTERVAL).contains(&now) {
            return Ok(());
        }
        self.write_uses(book)?;
        self.take_uses(book, before - INTERVAL - TOLERANCE)?;
        book.uses_at = now;
        Ok(())
    }

    /// Writes the uses since the last time.
    pub(super) fn write_uses(&self, book: &mut Book) -> Result<(), StateError> {
        let uses = self.access.uses(book.uses_at).into_iter();
        let uses: Vec<_> = uses
            .map(|SecretUse { key, secret, at }| StoredUse {
                key: key.to_string(),
                secret,
                at,
            })
            .collect();
        match uses.is_empty() {
            true => Ok(()),
            false => book.store.write_uses(&uses),
        }
    }

    fn take_uses(&self, book: &mut Book, since: i64) -> Result<(), StateError> {
        for StoredUse { key, secret, at } in book.store.uses(since)? {
            if let Ok(key) = key.parse() {
                self.access.was_used(&SecretUse { key, secret, at });
            }
        }
        Ok(())
    }
}
