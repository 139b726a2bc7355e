//! All keys and subjects, as they are in effect: found by id without a lock, changed one at a time.
//!
//! Keys are in shards, so that a change copies a small map of pointers. What a key's limits depend on hangs
//! on its subjects, so that a change of a subject takes effect for all of its keys with one store.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{
    budget::EarlierSpends,
    cell::SpendRow,
    id::KeyId,
    key::{Key, Subjects},
    limit::{Change, Subject, UpstreamCredential},
    record::{KeyRecord, LimitKind, LimitRule, Records, SubjectId, SubjectRecord},
};
use crate::config::Credential;

/// Variables of the environment, by name.
pub(super) type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Keys by id.
type Shard = HashMap<KeyId, Arc<Key>>;

/// All keys and subjects.
pub(super) struct Directory {
    shards: Box<[ArcSwap<Shard>]>,
    hasher: RandomState,
    count: AtomicUsize,
    known: Mutex<Known>,
    variables: Variables,
    earlier: Arc<EarlierSpends>,
}

/// Subjects, for changes.
#[derive(Default)]
struct Known {
    records: BTreeMap<SubjectId, SubjectRecord>,
    subjects: HashMap<SubjectId, Arc<Subject>>,
    /// Users of each team, with the team's default.
    members: HashMap<Box<str>, HashMap<Box<str>, Arc<Subject>>>,
}

impl Directory {
    pub(super) fn new(
        records: &Records,
        organisation: Arc<Subject>,
        variables: Variables,
        earlier: EarlierSpends,
        now: i64,
    ) -> Self {
        let directory = Self {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(records.keys.len()),
            known: Mutex::default(),
            variables,
            earlier: Arc::new(earlier),
        };
        let mut known = directory.lock();
        known.records = records.subjects.clone();
        known.subjects.insert(SubjectId::Org, organisation);
        for id in records
            .subjects
            .keys()
            .filter(|id| !matches!(id, SubjectId::Key(_)))
        {
            directory.apply(&mut known, id, now);
        }
        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::new()).collect();
        for record in records.keys.values() {
            let key = directory.build(&mut known, record, None, now);
            shards[directory.shard_of(record.id)].insert(record.id, Arc::new(key));
        }
        for (shard, keys) in directory.shards.iter().zip(shards) {
            shard.store(Arc::new(keys));
        }
        drop(known);
        directory
    }

    /// The number of keys, the revoked ones included.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn key(&self, id: KeyId) -> Option<Arc<Key>> {
        self.shards[self.shard_of(id)].load().get(&id).cloned()
    }

    /// Adds or replaces a key.
    pub(super) fn put_key(&self, record: &KeyRecord, now: i64) {
        let mut known = self.lock();
        let before = self.key(record.id);
        let key = self.build(&mut known, record, before.as_deref(), now);
        self.store(Arc::new(key), before.is_none());
    }

    /// Puts the record of a subject into effect.
    pub(super) fn put_subject(&self, id: &SubjectId, record: SubjectRecord, now: i64) {
        let mut known = self.lock();
        known.records.insert(id.clone(), record);
        if let SubjectId::Key(id) = id {
            // a key without limits gets a subject by its first one
            if let Some(before) = self.key(*id) {
                let key = self.build(&mut known, &before.record(), Some(&before), now);
                self.store(Arc::new(key), false);
            }
        } else {
            self.apply(&mut known, id, now);
        }
    }

    /// All records.
    pub(super) fn records(&self) -> Records {
        let known = self.lock();
        let keys = self.shards.iter().flat_map(|shard| {
            let shard = shard.load_full();
            shard
                .values()
                .map(|key| (key.id(), key.record()))
                .collect::<Vec<_>>()
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
            keys.extend(shard.load().values().cloned());
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

    /// The subjects that an id stands for: a user may have defaults of several teams.
    pub(super) fn subjects(&self, id: &SubjectId) -> Vec<Arc<Subject>> {
        if let SubjectId::Key(id) = id {
            let key = self.key(*id);
            return key
                .and_then(|key| key.subjects.own.clone())
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
            let own = shard.values().filter_map(|key| key.subjects.own.as_ref());
            own.for_each(|subject| subject.close(&mut rows));
        }
        rows
    }

    fn store(&self, key: Arc<Key>, is_new: bool) {
        let shard = &self.shards[self.shard_of(key.id())];
        let mut keys = Shard::clone(&shard.load());
        keys.insert(key.id(), key);
        shard.store(Arc::new(keys));
        if is_new {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A key with its subjects, which exist from then on.
    fn build(&self, known: &mut Known, record: &KeyRecord, before: Option<&Key>, now: i64) -> Key {
        let team = record.team.as_deref();
        let user = record.user.as_deref();
        let mut subject = |id: SubjectId| subject(known, id);
        let subjects = Subjects {
            team: team.map(|name| subject(SubjectId::Team(name.to_owned()))),
            user: user.map(|name| subject(SubjectId::User(name.to_owned()))),
            member: None,
            own: None,
        };
        let member = team
            .zip(user)
            .map(|(team, user)| self.member(known, team, user, now));
        let own = self.own(known, record, before, now);
        let upstream = record
            .upstream_key_env
            .as_deref()
            .map(|name| self.credential(name));
        let subjects = Subjects {
            member,
            own,
            ..subjects
        };
        Key::new(record, subjects, upstream, before)
    }

    /// The key as a subject, if it has or had limits.
    fn own(
        &self,
        known: &Known,
        record: &KeyRecord,
        before: Option<&Key>,
        now: i64,
    ) -> Option<Arc<Subject>> {
        let id = SubjectId::Key(record.id);
        let beside = known.records.get(&id);
        let before = before.and_then(|before| before.subjects.own.clone());
        if record.limits.is_empty() && beside.is_none() && before.is_none() {
            return None;
        }
        let subject = before.unwrap_or_else(|| Subject::new(id, None));
        let mut rules = record.limits.clone();
        let others = beside.map_or(&[][..], |beside| &beside.limits);
        rules.extend(
            others
                .iter()
                .filter(|rule| !overrides(&record.limits, rule))
                .cloned(),
        );
        let change = Change {
            rules: &rules,
            grants: beside.map_or(&[], |beside| &beside.grants),
            earlier: &self.earlier,
            now,
        };
        subject.apply(change, None);
        Some(subject)
    }

    fn member(&self, known: &mut Known, team: &str, user: &str, now: i64) -> Arc<Subject> {
        let found = known.members.get(team).and_then(|users| users.get(user));
        if let Some(member) = found {
            return Arc::clone(member);
        }
        let member = Subject::new(SubjectId::User(user.to_owned()), Some(team));
        let users = known.members.entry(team.into()).or_default();
        users.insert(user.into(), Arc::clone(&member));
        self.apply_member(known, team, user, &member, now);
        member
    }

    /// Puts the record of a subject other than a key into effect.
    fn apply(&self, known: &mut Known, id: &SubjectId, now: i64) {
        let subject = subject(known, id.clone());
        if let Some(record) = known.records.get(id) {
            let change = Change {
                rules: &record.limits,
                grants: &record.grants,
                earlier: &self.earlier,
                now,
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
            self.apply_member(known, &team, &user, &member, now);
        }
    }

    /// Puts a team's default for one of its users into effect: what the user's own limits do not bound.
    fn apply_member(&self, known: &Known, team: &str, user: &str, member: &Subject, now: i64) {
        let team = known.records.get(&SubjectId::Team(team.to_owned()));
        let user = known.records.get(&SubjectId::User(user.to_owned()));
        let own = user.map_or(&[][..], |user| &user.limits);
        let defaults = team.map_or(&[][..], |team| &team.user_limits);
        let rules: Vec<LimitRule> = defaults
            .iter()
            .filter(|rule| !overrides(own, rule))
            .cloned()
            .collect();
        if rules.is_empty() && member.policy().limits.is_empty() {
            return;
        }
        let change = Change {
            rules: &rules,
            // additions to a user's budgets are additions to its defaults, too
            grants: user.map_or(&[], |user| &user.grants),
            earlier: &self.earlier,
            now,
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

    fn shard_of(&self, id: KeyId) -> usize {
        self.hasher.hash_one(id) as usize % SHARDS
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

/// The subject of an id, which exists from then on. One with a record exists since the record was put.
fn subject(known: &mut Known, id: SubjectId) -> Arc<Subject> {
    let subject = known.subjects.entry(id);
    Arc::clone(subject.or_insert_with_key(|id| Subject::new(id.clone(), None)))
}

/// Reports whether limits bound what a rule bounds, whatever the amount and the zone.
fn overrides(limits: &[LimitRule], rule: &LimitRule) -> bool {
    let bounds_same = |other: &LimitRule| match (&other.kind, &rule.kind) {
        (
            LimitKind::Spend { period, .. },
            LimitKind::Spend {
                period: of_rule, ..
            },
        ) => period == of_rule,
        (kind, of_rule) => kind == of_rule,
    };
    limits
        .iter()
        .any(|other| other.models == rule.models && bounds_same(other))
}

/// Maps of keys: a change copies one of 256, 400 pointers of 100,000.
const SHARDS: usize = 256;
