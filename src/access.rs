//! Access: who may pass, and how much.
//!
//! It owns the keys of clients, the tree of their subjects (organisation > team > user > key), and the
//! limits of each. [`Access::identify`] tells the key of a request, [`Access::admit`] takes what the
//! request needs of every limit, and the [`Grant`] replaces the estimates by what was used. One [`Access`]
//! is shared by all workers: no lock on the way of a request, except while a limit of exchanges at once is
//! reached.
//!
//! It is pure: it reads no file, writes no line, waits for no store. What changes comes through
//! [`Access::put_key`] and [`Access::put_subject`], and what must survive the process leaves through
//! [`Access::take_dirty`].

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hint::black_box,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

mod admit;
mod base62;
mod budget;
mod cell;
mod check;
mod clock;
mod context;
mod directory;
mod estimate;
mod explain;
mod grant;
mod id;
mod key;
mod ledger;
mod limit;
pub mod local;
mod mix;
mod most_used;
mod notice;
mod others;
mod pattern;
mod pepper;
mod period;
mod rate;
mod record;
mod refusal;
mod share;
mod shown;
mod slots;
mod syncer;
#[cfg(test)]
mod tests;
mod zone;

pub use self::{
    admit::Asked,
    cell::SpendRow,
    check::RecordFault,
    explain::LimitState,
    grant::{Admitted, Grant, SlotWait},
    id::{FullKey, InvalidKey, InvalidKeyId, KeyId, NoRandomness, id_of, is_ours, without_keys},
    key::{Key, SecretUse},
    most_used::MostUsed,
    notice::{NoticeFields, SpendNotice, SpendVerdict},
    pattern::{InvalidPattern, Pattern},
    pepper::{Pepper, WeakPepper},
    record::{
        BudgetGrant, InvalidSubject, KeyRecord, LimitKind, LimitRule, Period, Records, Revocation,
        SecretRecord, SubjectId, SubjectRecord, Unreachable, is_hidden, is_name,
    },
    refusal::{Refusal, RefusalKind},
    share::{SharedState, SharedView, SharingStatus},
    shown::{KeyField, Shown},
    syncer::Syncer,
    zone::Zone,
};
use self::{
    admit::Need,
    cell::OtherSpend,
    clock::{SteadyClock, unix},
    context::{Context, LocalContext},
    directory::{Directory, Filling},
    estimate::Estimates,
    ledger::Ledger,
    limit::Subject,
    others::OtherSpends,
    pepper::Digest,
};
use crate::{config::Credential, exchange::Route};

/// Keys and limits of the process, shared by all workers.
pub struct Access {
    /// The store has not told yet which keys there are.
    is_unknown: Arc<AtomicBool>,
    pepper: Pepper,
    context: Arc<Context>,
    local: Arc<LocalContext>,
    directory: Directory,
}

/// Access while it is filled with what the store holds, one record after the other: there may be a hundred
/// thousand.
pub struct AccessFilling {
    filling: Filling,
    organisation: Arc<Subject>,
    others: Arc<OtherSpends>,
}

impl AccessFilling {
    /// Takes the spends of other processes. `variables` reads the environment, for credentials that keys and
    /// teams name.
    pub fn new(
        spends: impl IntoIterator<Item = SpendRow>,
        variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        now: SystemTime,
    ) -> Self {
        let others = Arc::new(OtherSpends::new(spends, unix(now)));
        let organisation = Subject::new(SubjectId::Org, None, &others);
        let filling = Filling::new(
            Box::new(variables),
            Arc::clone(&organisation),
            Arc::clone(&others),
        );
        Self {
            filling,
            organisation,
            others,
        }
    }

    /// Adds a subject. All of them come before the keys.
    pub fn subject(&mut self, id: SubjectId, record: SubjectRecord) {
        self.filling.subject(id, record);
    }

    /// Adds a key.
    pub fn key(&mut self, record: &KeyRecord) {
        self.filling.key(record);
    }

    /// Reports whether there is a key.
    pub fn has_keys(&self) -> bool {
        self.filling.has_keys()
    }

    /// Access with all that was added.
    pub fn finish(self, pepper: Pepper) -> Access {
        self.finish_with(pepper, SteadyClock::start())
    }

    /// Access with a steady clock that its owner sets, in nanoseconds, for tests and simulations.
    pub fn finish_at(self, pepper: Pepper, now: Arc<AtomicU64>) -> Access {
        self.finish_with(pepper, SteadyClock::Manual(now))
    }

    fn finish_with(self, pepper: Pepper, clock: SteadyClock) -> Access {
        let context = Context {
            organisation: self.organisation,
            others: self.others,
            estimates: Estimates::default(),
            ledger: Ledger::default(),
            clock,
            contact: Default::default(),
        };
        let context = Arc::new(context);
        Access {
            is_unknown: Arc::default(),
            pepper,
            local: LocalContext::new(&context),
            context,
            directory: self.filling.finish(),
        }
    }
}

impl Access {
    /// Access without keys.
    pub fn none(pepper: Pepper) -> Self {
        AccessFilling::new([], |_| None, SystemTime::now()).finish(pepper)
    }

    /// Sets the person or place that a refused client may ask (`Ask in #claude.`).
    pub fn set_contact(&self, contact: Option<&str>) {
        let contact = contact.map(|contact| Arc::new(contact.to_owned()));
        self.context.contact.store(contact);
    }

    /// Reports whether there is a key, be it a revoked one, or there may be one: the store has not told yet.
    pub fn has_keys(&self) -> bool {
        self.directory.count() > 0 || self.is_unknown()
    }

    /// Tells whether the store has not told yet which keys there are. A key that is not known is refused then for
    /// this reason, and the store is lost for limits on which it has not answered.
    pub fn set_unknown(&self, is_unknown: bool) {
        self.is_unknown.store(is_unknown, Relaxed);
    }

    /// Reports whether the store has not told yet which keys there are.
    pub fn is_unknown(&self) -> bool {
        self.is_unknown.load(Relaxed)
    }

    /// Number of limits of keys and other subjects; those of each user of a team count once.
    pub fn limits(&self) -> u64 {
        let keys = self.keys();
        let of_keys = keys.iter().map(|key| key.limits().len());
        let subjects = self.subjects();
        let of_others = subjects
            .values()
            .map(|it| it.limits.len() + it.user_limits.len());
        of_keys.chain(of_others).sum::<usize>() as u64
    }

    /// Digests secrets of new keys.
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    /// Adds or replaces a key, at once and for all workers.
    pub fn put_key(&self, record: &KeyRecord) {
        self.directory.put_key(record);
    }

    /// Adds or replaces a subject, at once and for all workers. The record of a key as a subject holds what
    /// is not in the key's own record: grants.
    pub fn put_subject(&self, id: &SubjectId, record: SubjectRecord) {
        self.directory.put_subject(id, record);
    }

    /// All records, for lists.
    pub fn records(&self) -> Records {
        self.directory.records()
    }

    /// All keys, in no order.
    pub fn keys(&self) -> Vec<Arc<Key>> {
        self.directory.keys()
    }

    /// Last uses of secrets since a time in Unix seconds, by any worker.
    pub fn uses(&self, since: i64) -> Vec<SecretUse> {
        let keys = self.keys();
        let uses = keys.iter().flat_map(|key| {
            key.uses(since).map(|(secret, at)| SecretUse {
                key: key.id(),
                secret,
                at,
            })
        });
        uses.collect()
    }

    /// Takes note of a use that another process saw, or this one before its start.
    pub fn was_used(&self, seen: &SecretUse) {
        if let Some(key) = self.key(seen.key) {
            key.was_used(&seen.secret, seen.at);
        }
    }

    /// The records of all subjects.
    pub fn subjects(&self) -> BTreeMap<SubjectId, SubjectRecord> {
        self.directory.subject_records()
    }

    /// The record of a subject; of a key, its grants.
    pub fn subject(&self, id: &SubjectId) -> Option<SubjectRecord> {
        self.directory.subject_record(id)
    }

    /// The variables that hold the credentials of teams for the upstream, by team.
    pub fn team_variables(&self) -> HashMap<String, String> {
        self.directory.team_variables()
    }

    /// The key of an id.
    pub fn key(&self, id: KeyId) -> Option<Arc<Key>> {
        self.directory.key(id)
    }

    /// Tells the key of a request. An unknown id takes as long as a wrong secret, and is told by the same
    /// text.
    pub fn identify(
        &self,
        shown: &Shown<'_>,
        client: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<Arc<Key>, Refusal> {
        let text = shown.key().map_err(|kind| self.refuse_key(kind))?;
        let (key, digest) = self.look_up(text)?;
        self.judge(&key, &digest, client, now)?;
        Ok(key)
    }

    /// The key that a text claims to be, and the digest of the secret in it.
    fn look_up(&self, text: &[u8]) -> Result<(Arc<Key>, Digest), Refusal> {
        let Some(parts) = id::parse(text) else {
            return Err(self.refuse_key(RefusalKind::MistypedKey));
        };
        let digest = self.pepper.digest(parts.secret);
        let Some(key) = self.directory.key(parts.id) else {
            black_box(digest.place_in([].into_iter()));
            return Err(self.refuse_unknown());
        };
        Ok((key, digest))
    }

    /// Judges a secret of a key by its digest, and the client's address.
    fn judge(
        &self,
        key: &Key,
        digest: &Digest,
        client: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        key.verify(digest, unix(now))
            .map_err(|fault| match fault.kind {
                RefusalKind::RevokedKey => {
                    self.refuse(fault.kind, &format!("The {} was revoked.", key.title()))
                }
                RefusalKind::ExpiredKey => {
                    self.refuse(fault.kind, &refusal::expired(&key.title(), fault.at))
                }
                RefusalKind::UnknownKey => self.refuse_unknown(),
                kind => self.refuse_key(kind),
            })?;
        if !key.allows_source(client) {
            let text = refusal::source(&key.title(), client);
            return Err(self.refuse(RefusalKind::Source, &text));
        }
        Ok(())
    }

    /// Ends what runs with a key, which was revoked, on all workers. Tells whether there is such a key.
    pub fn cut(&self, id: KeyId) -> bool {
        self.key(id).is_some_and(|key| {
            key.cut();
            true
        })
    }

    /// Reports whether the requests that run with a key are to end.
    pub fn is_cut(&self, key: &Key) -> bool {
        self.key(key.id()).is_some_and(|key| key.is_cut())
    }

    /// Reports whether the admission of a message depends on its model: by the key's own rules, or by a
    /// limit that counts tokens, money or some models only.
    pub fn needs_model(&self, key: &Key) -> bool {
        !key.models().is_empty()
            || self
                .context
                .policies(key)
                .any(|(_, policy)| policy.depends_on_model())
    }

    /// Checks that a key may use a path.
    pub fn check_path(
        &self,
        key: &Key,
        route: Route,
        method: &str,
        path: &str,
    ) -> Result<(), Refusal> {
        if key.allows_path(route, method, path) {
            return Ok(());
        }
        Err(self.refuse(
            RefusalKind::Path,
            &refusal::path(&key.title(), method, path),
        ))
    }

    /// Reports whether a variable of the environment holds a credential.
    pub fn has_variable(&self, name: &str) -> bool {
        self.directory.has_variable(name)
    }

    /// The credential for the upstream of a key: its own, else its team's; none for the upstream's own.
    pub fn credential(&self, key: &Key) -> Result<Option<Arc<Credential>>, Refusal> {
        let team = key.subjects.team.as_ref();
        let team = team
            .filter(|team| team.has_rules())
            .map(|team| team.rules());
        let of_team = || team.as_ref()?.upstream.as_ref();
        let Some(upstream) = key.upstream().or_else(of_team) else {
            return Ok(None);
        };
        // without it, the request must not go out with a credential that others pay for
        let missing = || {
            let (variable, title) = (refusal::shortened(&upstream.variable, 60), key.title());
            let text = format!(
                "The credential of {title} for the upstream ({variable}) is not set on the proxy."
            );
            self.refuse(RefusalKind::UpstreamCredential, &text)
        };
        upstream.credential.clone().map(Some).ok_or_else(missing)
    }

    /// Takes what a request needs of every limit, or nothing.
    pub fn admit(&self, key: &Arc<Key>, asked: &Asked<'_>, now: SystemTime) -> Admitted {
        self.admit_in(&self.local, key, asked, now)
    }

    fn admit_in(
        &self,
        context: &Arc<LocalContext>,
        key: &Arc<Key>,
        asked: &Asked<'_>,
        now: SystemTime,
    ) -> Admitted {
        if !key.models().is_empty() {
            let is_allowed = match asked.model {
                Some(model) => key.allows_model(model),
                None => !asked.is_generation,
            };
            if !is_allowed {
                let text = refusal::model(&key.title(), asked.model, key.models());
                return Admitted::Refused(self.refuse(RefusalKind::Model, &text));
            }
        }
        let need = Need::new(context, key, asked);
        grant::admit(context, key, need, asked.model, unix(now))
    }

    /// The rows of the ledger that changed since the last call. Rows that could not be stored must be kept
    /// by the caller, until a later one replaces them.
    pub fn take_dirty(&self) -> Vec<SpendRow> {
        self.context.ledger.take()
    }

    /// The last rows, when no exchange runs any longer: nothing is reserved in them.
    pub fn close(&self) -> Vec<SpendRow> {
        self.directory.close()
    }

    /// Sets what is called when a reserve of the ledger runs short, once. It is called on the way of a
    /// request, so it must return at once.
    pub fn on_urgent(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.context.ledger.on_urgent(wake);
    }

    /// Shares limits with other replicas from now on: the limits of all subjects that no request has used yet. The
    /// syncer reports them to the store; its owner carries the reports.
    pub fn share(&self, boot: &str, replicas: u32) -> Syncer {
        let (syncer, sharing) = Syncer::new(boot, replicas, &self.is_unknown);
        self.context.others.share(sharing);
        syncer
    }

    /// The state of the sharing of limits; none for one replica.
    pub fn sharing(&self) -> Option<Arc<SharingStatus>> {
        let sharing = self.context.others.sharing();
        sharing.map(|sharing| Arc::clone(&sharing.status))
    }

    /// The steady clock: nanoseconds since its start.
    pub fn steady(&self) -> u64 {
        self.context.clock.now()
    }

    /// The spend of other processes, in all periods that have not ended.
    pub fn spend_of_others(&self, now: SystemTime) -> Vec<SpendRow> {
        self.context.others.rows(unix(now))
    }

    /// Reports all that this process has spent to the store once more, which has lost it.
    pub fn resend(&self) {
        self.directory.resend();
    }

    /// The state of a subject's limits. A user's are its own, and the defaults of its teams.
    pub fn explain(&self, subject: &SubjectId, now: SystemTime) -> Vec<LimitState> {
        let subjects = self.directory.subjects(subject);
        let states = subjects
            .iter()
            .map(|it| explain::explain(&self.context, it, unix(now)));
        states.flatten().collect()
    }

    /// The state of all limits that count the requests of a key: of its organisation, team, user and its own.
    pub fn explain_key(&self, key: &Key, now: SystemTime) -> Vec<LimitState> {
        self.context
            .subjects(key)
            .flat_map(|subject| explain::explain(&self.context, subject, unix(now)))
            .collect()
    }

    /// The most used rates and exchanges at once of all subjects: up to a number of them.
    pub fn most_used(&self, most: usize, now: SystemTime) -> MostUsed {
        let limited = self.directory.limited();
        most_used::most_used(&self.context, &limited, most, unix(now))
    }

    /// Takes what other processes have spent by now: absolute sums by subject and cell.
    pub fn follow(&self, spends: &[SpendRow]) {
        for row in spends {
            let spend = OtherSpend {
                spent: row.spent,
                upto: row.upto.max(row.spent),
            };
            self.directory.follow(&row.subject, &row.cell, spend);
        }
    }

    /// Reports whether a key has spent of its own budgets, or is about to.
    pub fn is_used(&self, key: &Key) -> bool {
        self.directory.is_used(key)
    }

    /// Refuses an unknown id or a wrong secret: for now, if the store may know better.
    fn refuse_unknown(&self) -> Refusal {
        match self.is_unknown() {
            true => self.refuse(RefusalKind::StateUnreachable, refusal::UNKNOWN_YET),
            false => self.refuse_key(RefusalKind::UnknownKey),
        }
    }

    fn refuse_key(&self, kind: RefusalKind) -> Refusal {
        self.refuse(kind, refusal::invalid_key(kind))
    }

    fn refuse(&self, kind: RefusalKind, text: &str) -> Refusal {
        let contact = self.context.contact();
        Refusal::new(kind, text, contact.as_ref().map(|it| it.as_str()))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({:?})", self.directory)
    }
}
