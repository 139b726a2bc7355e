//! Keys, limits, spend and checkpoints from one store to another, while no server uses the one they come from.
//!
//! A target that has something else is left as it is. The same call again changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    author::Author,
    core::OpenError,
    error::RegistryError,
    pepper::{self, PepperError},
};
use crate::{
    access::Pepper,
    audit::{AUDIT_FOLDER, AuditEntry, AuditLog, AuditTarget, ChangeError},
    secret::Secret,
    state::{
        RedisSettings, RedisStore, SqliteStore, StateError, StateLock, Store, StoreChange,
        StoredCheckpoint, StoredSpend,
    },
};

/// A migration.
#[derive(Debug, Clone)]
pub struct Migration {
    /// The directory (`DATA_DIR`).
    pub data_dir: PathBuf,
    /// The configured pepper (`ACCESS_PEPPER`).
    pub pepper: Option<Secret>,
    /// The store of several replicas (`STATE_URL`).
    pub state: Arc<RedisSettings>,
    /// True to it, false from it to the file in the directory.
    pub is_to_shared: bool,
    /// True to change nothing.
    pub is_dry: bool,
}

/// Numbers of what a migration adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Keys.
    pub keys: usize,
    /// Records of other subjects.
    pub subjects: usize,
    /// Cells of spend.
    pub spends: usize,
    /// Checkpoints of the audit.
    pub checkpoints: usize,
}

/// Reason for which nothing was migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A store cannot be used.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// It is refused.
    #[error("{0}")]
    Refused(#[from] RegistryError),
}

impl From<StateError> for MigrateError {
    fn from(error: StateError) -> Self {
        Self::Open(error.into())
    }
}

impl Migration {
    /// Migrates, or tells what would be.
    ///
    /// # Errors
    /// A store cannot be used, or the target has other keys.
    pub fn run(&self, author: &Author) -> Result<Migrated, MigrateError> {
        let _lock = StateLock::alone(&self.data_dir).map_err(OpenError::from)?;
        let shared = pepper::shared(self.pepper.as_ref(), &self.data_dir);
        let text = shared.map_err(OpenError::from)?;
        let weak = |error| OpenError::Pepper(PepperError::Weak(error));
        Pepper::new(text.expose().as_bytes()).map_err(weak)?;
        let (place, fingerprint) = (pepper::place(&self.data_dir), pepper::fingerprint(&text));
        let redis = RedisStore::new(&self.state, &fingerprint, &place);
        let mut sqlite = SqliteStore::new(&self.data_dir);
        let presumed = pepper::kept(&self.data_dir)
            .as_ref()
            .map(pepper::fingerprint);
        sqlite.check_pepper(&fingerprint, presumed.as_deref())?;
        let mut stores: [Box<dyn Store>; 2] = [Box::new(sqlite), Box::new(redis)];
        if !self.is_to_shared {
            stores.reverse();
        }
        let [mut from, mut to] = stores;
        let plan = Plan::of(&mut *from, &mut *to)?;
        if self.is_dry || plan.counts() == Migrated::default() {
            return Ok(plan.counts());
        }
        let audit = AuditLog::new(self.data_dir.join(AUDIT_FOLDER), text.expose().as_bytes());
        let Migrated {
            keys,
            subjects,
            spends,
            checkpoints,
        } = plan.counts();
        let entry = AuditEntry {
            actor: author.actor.clone(),
            action: "keys.migrate".to_owned(),
            target: AuditTarget {
                kind: "store".to_owned(),
                id: if self.is_to_shared { "redis" } else { "sqlite" }.to_owned(),
            },
            before: Value::Null,
            after: json!({"keys": keys, "subjects": subjects, "spends": spends, "checkpoints": checkpoints}),
            reason: None,
            request_id: author.request_id.clone(),
        };
        let counts = plan.counts();
        let made = audit.change(&entry, || plan.apply(&mut *to));
        match made {
            Ok(()) => Ok(counts),
            Err(ChangeError::Unaudited(error)) => Err(RegistryError::from(error).into()),
            Err(ChangeError::Failed(error)) => Err(error.into()),
        }
    }
}

/// Records that the target lacks.
struct Plan {
    version: u64,
    changes: Vec<StoreChange>,
    spends: Vec<StoredSpend>,
    checkpoints: Vec<StoredCheckpoint>,
}

impl Plan {
    fn of(from: &mut dyn Store, to: &mut dyn Store) -> Result<Self, MigrateError> {
        let (source, target) = (from.load(0)?, to.load(0)?);
        let mut others = Vec::new();
        let keys = missing("key:", source.keys, target.keys, &mut others);
        let subjects = missing("", source.subjects, target.subjects, &mut others);
        if !others.is_empty() {
            let count = others.len();
            others.truncate(SHOWN);
            let more = if count > SHOWN { ", …" } else { "" };
            return Err(RegistryError::Conflict(format!(
                "the target has {count} other records ({}{more}); nothing was migrated; choose an empty one",
                others.join(", ")
            ))
            .into());
        }
        let keys = keys
            .into_iter()
            .map(|(id, record)| StoreChange::Key { id, record });
        let subjects = subjects
            .into_iter()
            .map(|(name, record)| StoreChange::Subject { name, record });
        let there = to.spends("")?.into_iter();
        let there: BTreeSet<_> = there.map(|it| (it.subject, it.cell)).collect();
        let mut spends = from.spends("")?;
        spends.retain(|it| !there.contains(&(it.subject.clone(), it.cell.clone())));
        let there = to.checkpoints()?.into_iter();
        let there: BTreeSet<_> = there.map(|it| (it.chain, it.seq)).collect();
        let mut checkpoints = from.checkpoints()?;
        checkpoints.retain(|it| !there.contains(&(it.chain.clone(), it.seq)));
        Ok(Self {
            version: target.version,
            changes: keys.chain(subjects).collect(),
            spends,
            checkpoints,
        })
    }

    fn counts(&self) -> Migrated {
        let is_key = |change: &&StoreChange| matches!(change, StoreChange::Key { .. });
        let keys = self.changes.iter().filter(is_key).count();
        Migrated {
            keys,
            subjects: self.changes.len() - keys,
            spends: self.spends.len(),
            checkpoints: self.checkpoints.len(),
        }
    }

    /// Spend first: a key that is there without what it has spent could spend it again.
    fn apply(&self, to: &mut dyn Store) -> Result<(), StateError> {
        to.seed_spends(&self.spends)?;
        for checkpoint in &self.checkpoints {
            to.add_checkpoint(checkpoint)?;
        }
        if !self.changes.is_empty() {
            to.change(self.version, &self.changes)?;
        }
        Ok(())
    }
}

/// Records that are named in a conflict.
const SHOWN: usize = 5;

/// The records of a source that a target lacks. Those that it has otherwise, or alone, are `others`.
fn missing(
    kind: &str,
    source: Vec<(String, String)>,
    target: Vec<(String, String)>,
    others: &mut Vec<String>,
) -> Vec<(String, String)> {
    let mut target: BTreeMap<_, _> = target.into_iter().collect();
    let mut missing = Vec::new();
    for (id, record) in source {
        match target.remove(&id) {
            None => missing.push((id, record)),
            Some(other) if is_same(&record, &other) => {}
            Some(_) => others.push(format!("{kind}{id}")),
        }
    }
    others.extend(target.into_keys().map(|id| format!("{kind}{id}")));
    missing
}

/// True if two texts are one record.
fn is_same(one: &str, other: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || value(one).is_some_and(|one| Some(one) == value(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_lacks_is_migrated_and_what_it_has_otherwise_is_told() {
        let rows = |rows: &[(&str, &str)]| -> Vec<(String, String)> {
            let rows = rows.iter();
            rows.map(|(id, text)| ((*id).to_owned(), (*text).to_owned()))
                .collect()
        };
        let source = rows(&[("a", "{\"x\":1,\"y\":2}"), ("b", "{}"), ("c", "{\"x\":1}")]);
        let mut others = Vec::new();
        let lacks = missing(
            "key:",
            source.clone(),
            rows(&[("a", "{\"y\":2,\"x\":1}")]),
            &mut others,
        );
        assert_eq!(lacks, rows(&[("b", "{}"), ("c", "{\"x\":1}")]));
        assert!(others.is_empty());
        let target = rows(&[("c", "{\"x\":2}"), ("d", "{}")]);
        missing("key:", source, target, &mut others);
        assert_eq!(others, ["key:c", "key:d"]);
    }
}
