//! All keys and subjects, as they are in effect: found by id without a lock, changed one at a time.
//!
//! Keys are in shards, so that a change copies a small map of pointers. What a key's limits depend on hangs
//! on its subjects, so that a change of a subject takes effect for all of its keys with one store.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{
    cell::{OtherSpend, SpendRow},
    id::KeyId,
    key::{Key, KeyParts, Subjects},
    limit::{Change, Subject, UpstreamCredential},
    mix::{IdHasher, mixed},
    others::OtherSpends,
    record::{KeyRecord, LimitKind, LimitRule, Records, SubjectId, SubjectRecord},
    zone::Zone,
};
use crate::config::Credential;

/// Variables of the environment, by name.
pub(super) type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Keys by id.
type Shard = HashSet<ById, BuildHasherDefault<IdHasher>>;

/// A key in a table, found by its id: the table holds it once.
#[derive(Clone)]
struct ById(Arc<Key>);

impl Borrow<KeyId> for ById {
    fn borrow(&self) -> &KeyId {
        self.0.id_ref()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for ById {}

/// Table of what operators have put there.
type Table<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// All keys and subjects.
pub(super) struct Directory {
    shards: Box<[ArcSwap<Shard>]>,
    count: AtomicUsize,
    /// Number of changes, counted once they are in effect.
    changes: AtomicU64,
    known: Mutex<Known>,
    variables: Variables,
    others: Arc<OtherSpends>,
}

/// Subjects, for changes.
#[derive(Default)]
struct Known {
    records: BTreeMap<SubjectId, SubjectRecord>,
    subjects: Table<SubjectId, Arc<Subject>>,
    /// Users of each team, with the team's default.
    members: Table<Box<str>, Table<Box<str>, Arc<Subject>>>,
}

/// All that has limits.
#[derive(Default)]
pub(super) struct Limited {
    /// Subjects with limits, and keys that were used.
    pub(super) subjects: Vec<Arc<Subject>>,
    /// Keys that were not used yet, with limits that are no budgets.
    pub(super) keys: Vec<Arc<Key>>,
}

/// A directory while it is filled, one record after the other.
pub(super) struct Filling {
    directory: Directory,
    known: Known,
    shards: Vec<Shard>,
    /// Limits of keys, so that keys with the same ones share them.
    limits: HashSet<Arc<[LimitRule]>, BuildHasherDefault<IdHasher>>,
    /// Zones of rules, so that all share their names.
    zones: HashSet<Zone, BuildHasherDefault<IdHasher>>,
}

impl Known {
    /// The record of a key as a subject, which few keys have.
    fn beside(&self, id: KeyId) -> Option<&SubjectRecord> {
        let (last, _) = self.records.last_key_value()?;
        // those of keys are behind all others
        let has_any = matches!(last, SubjectId::Key(_));
        has_any.then(|| self.records.get(&SubjectId::Key(id)))?
    }
}

impl Filling {
    pub(super) fn new(
        variables: Variables,
        organisation: Arc<Subject>,
        others: Arc<OtherSpends>,
    ) -> Self {
        let known = Known {
            subjects: Table::from_iter([(SubjectId::Org, organisation)]),
            ..Known::default()
        };
        Self {
            directory: Directory {
                shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
                count: AtomicUsize::new(0),
                changes: AtomicU64::new(0),
                known: Mutex::default(),
                variables,
                others,
            },
            known,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            limits: HashSet::default(),
            zones: HashSet::default(),
        }
    }

    /// Adds a subject. All of them come before the keys.
    pub(super) fn subject(&mut self, id: SubjectId, mut record: SubjectRecord) {
        let is_key = matches!(id, SubjectId::Key(_));
        let rules = record.limits.iter_mut().chain(&mut record.user_limits);
        rules.for_each(|rule| self.share_zone(rule));
        self.known.records.insert(id.clone(), record);
        if !is_key {
            self.directory.apply(&mut self.known, &id);
        }
    }

    /// Adds a key.
    pub(super) fn key(&mut self, record: &KeyRecord) {
        let limits = match self.limits.get(record.limits.as_slice()) {
            Some(limits) => Arc::clone(limits),
            None => {
                let rules = record.limits.iter().cloned().map(|mut rule| {
                    self.share_zone(&mut rule);
                    rule
                });
                let limits: Arc<[LimitRule]> = rules.collect();
                self.limits.insert(Arc::clone(&limits));
                limits
            }
        };
        let key = self.directory.build(&mut self.known, record, limits, None);
        let shard = Directory::shard_of(record.id);
        self.shards[shard].replace(ById(Arc::new(key)));
    }

    fn share_zone(&mut self, rule: &mut LimitRule) {
        let LimitKind::Spend {
            zone: Some(zone), ..
        } = &mut rule.kind
        else {
            return;
        };
        match self.zones.get(zone) {
            Some(known) => *zone = known.clone(),
            None => {
                self.zones.insert(zone.clone());
            }
        }
    }

    /// Reports whether there is a key.
    pub(super) fn has_keys(&self) -> bool {
        self.shards.iter().any(|shard| !shard.is_empty())
    }

    pub(super) fn finish(self) -> Directory {
        let Self {
            directory,
            mut known,
            shards,
            limits: _,
            zones: _,
        } = self;
        let count = shards.iter().map(Shard::len).sum();
        directory.count.store(count, Ordering::Relaxed);
        for (shard, mut keys) in directory.shards.iter().zip(shards) {
            keys.shrink_to_fit();
            shard.store(Arc::new(keys));
        }
        known.subjects.shrink_to_fit();
        *directory.lock() = known;
        directory
    }
}

impl Directory {
    /// The number of keys, the revoked ones included.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The number of changes of keys and subjects so far: what was looked up before holds as long as it stays.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn key(&self, id: KeyId) -> Option<Arc<Key>> {
        let shard = self.shards[Self::shard_of(id)].load();
        shard.get(&id).map(|key| Arc::clone(&key.0))
    }

    /// Adds or replaces a key.
    pub(super) fn put_key(&self, record: &KeyRecord) {
        let mut known = self.lock();
        let before = self.key(record.id);
        let limits = record.limits.as_slice().into();
        let key = self.build(&mut known, record, limits, before.as_deref());
        self.store(Arc::new(key), before.is_none());
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Puts the record of a subject into effect.
    pub(super) fn put_subject(&self, id: &SubjectId, record: SubjectRecord) {
        let mut known = self.lock();
        known.records.insert(id.clone(), record);
        if let SubjectId::Key(id) = id {
            // a key without limits gets a subject by its first one
            if let Some(before) = self.key(*id) {
                let record = before.record();
                let limits = record.limits.as_slice().into();
                let key = self.build(&mut known, &record, limits, Some(&before));
                self.store(Arc::new(key), false);
            }
        } else {
            self.apply(&mut known, id);
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Takes what other processes have spent in a cell.
    pub(super) fn follow(&self, subject: &str, cell: &str, spend: OtherSpend) {
        if !self.others.put(subject, cell, spend) {
            return;
        }
        match subject.parse() {
            Ok(SubjectId::Key(id)) => {
                let key = self.key(id);
                let own = key.as_ref().and_then(|key| key.used());
                own.into_iter().for_each(|own| own.follow(cell, spend));
            }
            Ok(id) => {
                let subjects = self.subjects(&id);
                subjects.iter().for_each(|it| it.follow(cell, spend));
            }
            Err(_) => {}
        }
    }

    /// Reports whether a key has spent of its own budgets, or is about to.
    pub(super) fn is_used(&self, key: &Key) -> bool {
        key.used().is_some() || self.others.has(&SubjectId::Key(key.id()).to_string())
    }

    /// All records.
    pub(super) fn records(&self) -> Records {
        let known = self.lock();
        let keys = self.shards.iter().flat_map(|shard| {
            let shard = shard.load_full();
            let keys = shard.iter().map(|ById(key)| (key.id(), key.record()));
            keys.collect::<Vec<_>>()
        });
        Records {
            keys: keys.collect(),
            subjects: known.records.clone(),
        }
    }

    /// All keys, in no order.
    pub(super) fn keys(&self) -> Vec<Arc<Key>> {
        let mut keys = Vec::with_capacity(self.count());
        for shard in &self.shards {
            keys.extend(shard.load().iter().map(|key| Arc::clone(&key.0)));
        }
        keys
    }

    /// The record of a subject; of a key, its grants.
    pub(super) fn subject_record(&self, id: &SubjectId) -> Option<SubjectRecord> {
        self.lock().records.get(id).cloned()
    }

    /// The records of all subjects.
    pub(super) fn subject_records(&self) -> BTreeMap<SubjectId, SubjectRecord> {
        self.lock().records.clone()
    }

    /// The variables that hold the credentials of teams for the upstream, by team.
    pub(super) fn team_variables(&self) -> HashMap<String, String> {
        let known = self.lock();
        let variables = known.records.iter().filter_map(|(id, record)| match id {
            SubjectId::Team(name) => Some((name.clone(), record.upstream_key_env.clone()?)),
            SubjectId::Org | SubjectId::User(_) | SubjectId::Key(_) => None,
        });
        variables.collect()
    }

    /// The subjects that an id stands for: a user may have defaults of several teams.
    pub(super) fn subjects(&self, id: &SubjectId) -> Vec<Arc<Subject>> {
        if let SubjectId::Key(id) = id {
            let key = self.key(*id);
            return key
                .and_then(|key| key.own(&self.others).cloned())
                .into_iter()
                .collect();
        }
        let known = self.lock();
        let mut subjects: Vec<_> = known.subjects.get(id).cloned().into_iter().collect();
        if let SubjectId::User(name) = id {
            let of_teams = known
                .members
                .values()
                .filter_map(|users| users.get(name.as_str()));
            subjects.extend(of_teams.cloned());
        }
        subjects
    }

    /// All that has limits, without keys that were revoked.
    pub(super) fn limited(&self) -> Limited {
        let mut limited = Limited::default();
        {
            let known = self.lock();
            let members = known.members.values().flat_map(HashMap::values);
            let subjects = known.subjects.values().chain(members);
            let subjects = subjects.filter(|subject| subject.has_rules());
            limited.subjects.extend(subjects.cloned());
        }
        for shard in &self.shards {
            let shard = shard.load();
            let keys = shard.iter().map(|ById(key)| key);
            for key in keys.filter(|key| !key.is_revoked()) {
                match key.used() {
                    Some(own) => limited.subjects.push(Arc::clone(own)),
                    None if key.limits().iter().all(LimitRule::is_budget) => {}
                    None => limited.keys.push(Arc::clone(key)),
                }
            }
        }
        limited
    }

    /// All subjects but keys.
    #[cfg(test)]
    pub(super) fn all_subjects(&self) -> Vec<Arc<Subject>> {
        let known = self.lock();
        let members = known.members.values().flat_map(HashMap::values);
        known.subjects.values().chain(members).cloned().collect()
    }

    /// The last rows of the ledger.
    pub(super) fn close(&self) -> Vec<SpendRow> {
        let known = self.lock();
        let mut rows = Vec::new();
        let members = known.members.values().flat_map(HashMap::values);
        for subject in known.subjects.values().chain(members) {
            subject.close(&mut rows);
        }
        for shard in &self.shards {
            let shard = shard.load();
            let own = shard.iter().filter_map(|key| key.0.used());
            own.for_each(|subject| subject.close(&mut rows));
        }
        rows
    }

    /// Marks all meters of budgets and slots for a report to the store.
    pub(super) fn resend(&self) {
        let known = self.lock();
        let members = known.members.values().flat_map(HashMap::values);
        let subjects = known.subjects.values().chain(members);
        subjects.for_each(|subject| subject.resend());
        drop(known);
        for shard in &self.shards {
            let shard = shard.load();
            let own = shard.iter().filter_map(|key| key.0.used());
            own.for_each(|subject| subject.resend());
        }
    }

    #[expect(
        clippy::mutable_key_type,
        reason = "a key is found by its id, which does not change"
    )]
    fn store(&self, key: Arc<Key>, is_new: bool) {
        let shard = &self.shards[Self::shard_of(key.id())];
        let mut keys = Shard::clone(&shard.load());
        keys.replace(ById(key));
        shard.store(Arc::new(keys));
        if is_new {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A key with its subjects, which exist from then on.
    fn build(
        &self,
        known: &mut Known,
        record: &KeyRecord,
        limits: Arc<[LimitRule]>,
        before: Option<&Key>,
    ) -> Key {
        let team = record.team.as_deref();
        let user = record.user.as_deref();
        let mut subject = |id: SubjectId| self.subject(known, id);
        let subjects = Subjects {
            team: team.map(|name| subject(SubjectId::Team(name.to_owned()))),
            user: user.map(|name| subject(SubjectId::User(name.to_owned()))),
            member: None,
        };
        let member = team
            .zip(user)
            .map(|(team, user)| self.member(known, team, user));
        let upstream = record
            .upstream_key_env
            .as_deref()
            .map(|name| self.credential(name));
        let parts = KeyParts {
            subjects: Subjects { member, ..subjects },
            limits,
            beside: known.beside(record.id),
            upstream,
        };
        Key::new(record, parts, before, &self.others)
    }

    /// The subject of an id, which exists from then on. One with a record exists since the record was put.
    fn subject(&self, known: &mut Known, id: SubjectId) -> Arc<Subject> {
        let subject = known.subjects.entry(id);
        let subject = subject.or_insert_with_key(|id| Subject::new(id.clone(), None, &self.others));
        Arc::clone(subject)
    }

    fn member(&self, known: &mut Known, team: &str, user: &str) -> Arc<Subject> {
        let found = known.members.get(team).and_then(|users| users.get(user));
        if let Some(member) = found {
            return Arc::clone(member);
        }
        let member = Subject::new(SubjectId::User(user.to_owned()), Some(team), &self.others);
        let users = known.members.entry(team.into()).or_default();
        users.insert(user.into(), Arc::clone(&member));
        self.apply_member(known, team, user, &member);
        member
    }

    /// Puts the record of a subject other than a key into effect.
    fn apply(&self, known: &mut Known, id: &SubjectId) {
        let subject = self.subject(known, id.clone());
        if let Some(record) = known.records.get(id) {
            let change = Change {
                rules: &record.limits,
                grants: &record.grants,
            };
            let upstream = record.upstream_key_env.as_deref();
            subject.apply(change, upstream.map(|name| self.credential(name)));
        }
        let members: Vec<(Box<str>, Box<str>, Arc<Subject>)> = match id {
            SubjectId::Team(team) => {
                let users = known.members.get(team.as_str()).into_iter().flatten();
                let members =
                    users.map(|(user, it)| (team.as_str().into(), user.clone(), Arc::clone(it)));
                members.collect()
            }
            SubjectId::User(user) => {
                let teams = known.members.iter();
                let members = teams.filter_map(|(team, users)| {
                    let member = users.get(user.as_str())?;
                    Some((team.clone(), user.as_str().into(), Arc::clone(member)))
                });
                members.collect()
            }
            SubjectId::Org | SubjectId::Key(_) => Vec::new(),
        };
        for (team, user, member) in members {
            self.apply_member(known, &team, &user, &member);
        }
    }

    /// Puts a team's default for one of its users into effect: what the user's own limits do not bound.
    fn apply_member(&self, known: &Known, team: &str, user: &str, member: &Subject) {
        let team = known.records.get(&SubjectId::Team(team.to_owned()));
        let user = known.records.get(&SubjectId::User(user.to_owned()));
        let own = user.map_or(&[][..], |user| &user.limits);
        let defaults = team.map_or(&[][..], |team| &team.user_limits);
        let rules: Vec<LimitRule> = defaults
            .iter()
            .filter(|rule| !rule.is_overridden_by(own))
            .cloned()
            .collect();
        if rules.is_empty() && member.rules().rules.is_empty() {
            return;
        }
        let change = Change {
            rules: &rules,
            // additions to a user's budgets are additions to its defaults, too
            grants: user.map_or(&[], |user| &user.grants),
        };
        member.apply(change, None);
    }

    fn credential(&self, variable: &str) -> UpstreamCredential {
        let value = (self.variables)(variable);
        let credential = value.and_then(|value| value.parse::<Credential>().ok());
        UpstreamCredential {
            variable: variable.into(),
            credential: credential.map(Arc::new),
        }
    }

    pub(super) fn has_variable(&self, name: &str) -> bool {
        self.credential(name).credential.is_some()
    }

    fn shard_of(id: KeyId) -> usize {
        // bits that the map of a shard does not tell its entries by
        (mixed(id.number()) >> 32) as usize % SHARDS
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({} keys)", self.count())
    }
}

/// Maps of keys: a change copies one of 256, 400 pointers of 100,000.
const SHARDS: usize = 256;
