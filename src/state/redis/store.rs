//! The store of several replicas: keys, subjects, the version of both, and checkpoints of the audit.
//!
//! All of it is under one hash tag, so that a change is one script on one server. Every record has the version
//! that it was written with beside it, so that what changed since is found without reading the rest. Spend is
//! written by the limits (`ap:{subject}:b:…`); here is the index of its cells.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    checks,
    command::{Command, LuaScript},
    connection::RedisConnection,
    fault::{RedisFault, RedisFaultKind},
    settings::{RedisSettings, TAG},
    spends::{self, SpendIndex},
};
use crate::state::store::{
    SpendRegister, StateError, Store, StoreChange, StoredCheckpoint, StoredRegister, StoredSpend,
    StoredText, StoredUse,
};

/// Records in one command.
const PAGE: usize = 1_000;

/// Time for a change or a page, and more of it for each record of a change.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_micros(100));

/// Checkpoints of the audit that are kept, of all chains: those of four replicas in 40 days, at one each quarter
/// of an hour.
const CHECKPOINTS: isize = 16_384;

/// Time between two looks at what an operator may change on the server.
const RECHECK: Duration = Duration::from_secs(30);

static CHANGE: LuaScript = LuaScript::new(include_str!("change.lua"));

/// A Redis, its keys and subjects.
pub struct RedisStore {
    connection: RedisConnection,
    settings: Arc<RedisSettings>,
    /// Tells the pepper of the digests from another one.
    fingerprint: String,
    /// Names the place of this replica's audit: checkpoints of others are for others to check.
    audit: String,
    /// The last look at the server that found nothing wrong, or what it found.
    checked: Option<(Instant, Option<RedisFault>)>,
    /// The version that was seen last, and the name of its change.
    seen: Option<(u64, String)>,
    index: SpendIndex,
}

/// Looks at the server of these settings: is it one that can keep keys and limits? Nothing is written there.
///
/// # Errors
/// It does not answer, or cannot keep them.
pub fn look(settings: &Arc<RedisSettings>) -> Result<(), StateError> {
    checks::server(&mut RedisConnection::new(settings))
}

impl RedisStore {
    /// The store of a Redis, whose digests are made with the pepper of this fingerprint. Nothing is opened yet.
    /// `audit` names the place of the files that checkpoints are of.
    pub fn new(settings: &Arc<RedisSettings>, fingerprint: &str, audit: &str) -> Self {
        Self {
            connection: RedisConnection::new(settings),
            settings: Arc::clone(settings),
            fingerprint: fingerprint.to_owned(),
            audit: audit.to_owned(),
            checked: None,
            seen: None,
            index: SpendIndex::default(),
        }
    }

    /// The connection to a server that was looked at, and is ours.
    fn checked(&mut self) -> Result<&mut RedisConnection, StateError> {
        if self.checked.is_none() {
            checks::server(&mut self.connection)?;
            checks::begin(&mut self.connection, &self.settings, &self.fingerprint)?;
            self.checked = Some((Instant::now(), None));
        }
        Ok(&mut self.connection)
    }

    fn name(&self, rest: &str) -> String {
        self.settings.key(TAG, rest)
    }

    /// Version and name of the last change; none if the server has lost everything.
    fn last_change(&mut self) -> Result<Option<(u64, String)>, StateError> {
        let meta = Command::new("HMGET", &self.name("meta"))
            .arg("schema")
            .arg("version")
            .arg("change");
        let (schema, version, change): (Option<String>, Option<u64>, Option<String>) =
            self.checked()?.query(&meta)?;
        if schema.is_none() {
            // emptied while it is in use: mark it anew
            self.checked = None;
            self.checked()?;
            return Ok(None);
        }
        Ok(Some((version.unwrap_or(0), change.unwrap_or_default())))
    }

    /// Shows the records of one kind: all, or those that changed after a version.
    fn show(
        &mut self,
        kind: &str,
        since: u64,
        show: &mut dyn FnMut(&str, &str),
    ) -> Result<(), StateError> {
        let records = self.name(kind);
        if since == 0 {
            // a page may have what another one had
            let (mut shown, mut cursor) = (HashSet::new(), 0_u64);
            loop {
                let page = Command::new("HSCAN", &records)
                    .arg(cursor)
                    .arg("COUNT")
                    .arg(PAGE);
                let (next, page): (u64, Vec<(String, String)>) = self.checked()?.query(&page)?;
                for (id, record) in page {
                    show(&id, &record);
                    shown.insert(id);
                }
                cursor = next;
                if cursor == 0 {
                    return Ok(());
                }
            }
        }
        let changed = Command::new("ZRANGEBYSCORE", &self.name(&format!("{kind}:v")))
            .arg(format!("({since}"))
            .arg("+inf");
        let changed: Vec<String> = self.checked()?.query(&changed)?;
        for page in changed.chunks(PAGE) {
            let read = Command::new("HMGET", &records).arg(page);
            let found: Vec<Option<String>> = self.checked()?.query(&read)?;
            for (id, record) in page.iter().zip(found) {
                if let Some(record) = record {
                    show(id, &record);
                }
            }
        }
        Ok(())
    }
}

impl Store for RedisStore {
    fn read(
        &mut self,
        since: u64,
        show: &mut dyn FnMut(StoredText<'_>),
    ) -> Result<u64, StateError> {
        // before the records: what is changed meanwhile is read once more the next time
        let last = self.last_change()?;
        let version = last.as_ref().map_or(0, |(version, _)| *version);
        self.show("subjects", since, &mut |name, record| {
            show(StoredText::Subject { name, record });
        })?;
        self.show("keys", since, &mut |id, record| {
            show(StoredText::Key { id, record });
        })?;
        self.seen = last;
        Ok(version)
    }

    fn version(&mut self) -> Result<u64, StateError> {
        if let Some((at, _)) = &self.checked
            && at.elapsed() >= RECHECK
        {
            let fault = match checks::server(&mut self.connection) {
                Ok(()) => None,
                Err(StateError::Redis(fault)) if !fault.kind.is_temporary() => Some(fault),
                Err(error) => return Err(error),
            };
            self.checked = Some((Instant::now(), fault));
        }
        let last = self.last_change()?;
        let (version, change) = last.unwrap_or_default();
        Ok(match &self.seen {
            // another server, which had not seen the change: what it has is not what was read
            Some((seen, name)) if *seen == version && *name != change => 0,
            _ => version,
        })
    }

    fn change(&mut self, expected: u64, changes: &[StoreChange]) -> Result<u64, StateError> {
        let name = random_name()?;
        let keys = ["meta", "keys", "keys:v", "subjects", "subjects:v"].map(|key| self.name(key));
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut command = CHANGE
            .call(&keys)
            .arg(expected)
            .arg(&name)
            .arg(self.settings.channel());
        for change in changes {
            let (kind, id, record) = match change {
                StoreChange::Key { id, record } => ("k", id, record),
                StoreChange::Subject { name, record } => ("s", name, record),
            };
            command = command.arg(kind).arg(id).arg(record);
        }
        let (base, each) = PATIENCE;
        let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let patience = base.saturating_add(each.saturating_mul(count));
        let connection = self.checked()?;
        let answers = connection.send_within(patience, std::slice::from_ref(&command));
        let answer = match answers {
            Ok(mut answers) => answers.pop().unwrap_or(Ok(redis::Value::Nil)),
            Err(StateError::Redis(fault)) if is_unknown(&fault) => {
                // it may have been done, and the answer lost
                match self.last_change() {
                    Ok(Some((version, change))) if change == name => {
                        self.seen = Some((version, name));
                        return Ok(version);
                    }
                    _ => return Err(StateError::Redis(fault)),
                }
            }
            Err(error) => return Err(error),
        };
        let value = answer.map_err(StateError::Redis)?;
        let (is_done, version): (bool, u64) = self.connection.converted(value)?;
        if !is_done {
            return Err(StateError::Conflict);
        }
        self.seen = Some((version, name));
        Ok(version)
    }

    fn spends(&mut self, except: &str) -> Result<Vec<StoredSpend>, StateError> {
        self.checked()?;
        self.index.all(&mut self.connection, &self.settings, except)
    }

    fn changed_spends(&mut self, except: &str) -> Result<Vec<StoredSpend>, StateError> {
        self.checked()?;
        self.index
            .changed(&mut self.connection, &self.settings, except)
    }

    fn registers(&mut self, subject: &str) -> Result<Vec<StoredRegister>, StateError> {
        self.checked()?;
        spends::of_subject(&mut self.connection, &self.settings, subject)
    }

    fn write_spends(&mut self, _boot: &str, rows: &[SpendRegister]) -> Result<(), StateError> {
        // the limits report what was spent; the index tells the others where
        self.checked()?;
        self.index.note(&mut self.connection, &self.settings, rows)
    }

    fn seed_spends(&mut self, spends: &[StoredSpend]) -> Result<(), StateError> {
        self.checked()?;
        self.index
            .seed(&mut self.connection, &self.settings, spends, 0)
    }

    fn restore_spends(
        &mut self,
        spends: &[StoredSpend],
        lost_within: Duration,
    ) -> Result<(), StateError> {
        self.checked()?;
        let age = u64::try_from(lost_within.as_millis()).unwrap_or(u64::MAX);
        self.index
            .seed(&mut self.connection, &self.settings, spends, age)
    }

    fn end_boot(&mut self, _boot: &str) -> Result<(), StateError> {
        Ok(())
    }

    fn merge_boots(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    fn write_uses(&mut self, uses: &[StoredUse]) -> Result<(), StateError> {
        let name = self.name("uses");
        for page in uses.chunks(PAGE) {
            let mut write = Command::new("ZADD", &name).arg("GT");
            for StoredUse { key, secret, at } in page {
                write = write.arg(at).arg(format!("{key} {secret}"));
            }
            let _: u64 = self.checked()?.query(&write)?;
        }
        Ok(())
    }

    fn uses(&mut self, since: i64) -> Result<Vec<StoredUse>, StateError> {
        let read = Command::new("ZRANGEBYSCORE", &self.name("uses"))
            .arg(since)
            .arg("+inf")
            .arg("WITHSCORES");
        let rows: Vec<(String, i64)> = self.checked()?.query(&read)?;
        let uses = rows.into_iter().filter_map(|(row, at)| {
            let (key, secret) = row.split_once(' ')?;
            Some(StoredUse {
                key: key.to_owned(),
                secret: secret.to_owned(),
                at,
            })
        });
        Ok(uses.collect())
    }

    fn add_checkpoint(&mut self, checkpoint: &StoredCheckpoint) -> Result<(), StateError> {
        let StoredCheckpoint {
            chain,
            seq,
            hash,
            hmac,
            at,
        } = checkpoint;
        let name = self.name("checkpoints");
        let commands = [
            Command::new("ZADD", &name)
                .arg(at)
                .arg(format!("{} {chain} {seq} {hash} {hmac} {at}", self.audit)),
            Command::new("ZREMRANGEBYRANK", &name)
                .arg(0)
                .arg(-CHECKPOINTS - 1),
        ];
        let answers = self.checked()?.send(&commands)?;
        let mut answers = answers.into_iter();
        answers.try_for_each(|answer| answer.map(drop).map_err(StateError::Redis))
    }

    fn checkpoints(&mut self) -> Result<Vec<StoredCheckpoint>, StateError> {
        let read = Command::new("ZRANGE", &self.name("checkpoints"))
            .arg(0)
            .arg(-1);
        let rows: Vec<String> = self.checked()?.query(&read)?;
        let own = rows.iter().filter_map(|row| {
            let (audit, row) = row.split_once(' ')?;
            checkpoint(row).filter(|_| audit == self.audit)
        });
        let mut checkpoints: Vec<_> = own.collect();
        checkpoints.sort_by(|one, other| (&one.chain, one.seq).cmp(&(&other.chain, other.seq)));
        Ok(checkpoints)
    }

    fn change_name(&self) -> String {
        let seen = self.seen.as_ref();
        seen.map(|(_, change)| change.clone()).unwrap_or_default()
    }

    fn claim(&mut self, names: &[String], life: Duration) -> Result<bool, StateError> {
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1);
        let claim = |name: &String| {
            let key = self.name(&format!("claim:{name}"));
            let set = Command::new("SET", &key).arg(1);
            set.arg("NX").arg("PX").arg(life)
        };
        let commands: Vec<_> = names.iter().map(claim).collect();
        let mut answers = self.checked()?.send(&commands)?;
        let first = answers.drain(..).next().unwrap_or(Ok(redis::Value::Nil));
        let taken: Option<String> = {
            let value = first.map_err(StateError::Redis)?;
            self.connection.converted(value)?
        };
        Ok(taken.is_some())
    }

    fn warning(&self) -> Option<StateError> {
        let (_, fault) = self.checked.as_ref()?;
        fault.clone().map(StateError::Redis)
    }
}

/// True if a command may have been done all the same.
fn is_unknown(fault: &RedisFault) -> bool {
    matches!(
        fault.kind,
        RedisFaultKind::TimedOut | RedisFaultKind::Unreachable
    )
}

fn checkpoint(row: &str) -> Option<StoredCheckpoint> {
    let mut parts = row.split(' ');
    Some(StoredCheckpoint {
        chain: parts.next()?.to_owned(),
        seq: parts.next()?.parse().ok()?,
        hash: parts.next()?.to_owned(),
        hmac: parts.next()?.to_owned(),
        at: parts.next()?.parse().ok()?,
    })
}

/// A name that no other change has.
fn random_name() -> Result<String, StateError> {
    let mut octets = [0; 12];
    let filled = SystemRandom::new().fill(&mut octets);
    filled.map_err(|_| StateError::Random)?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

#[cfg(test)]
mod tests;
