//! A key in memory: small, since there may be a hundred thousand of them.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use ipnet::IpNet;
use smallvec::SmallVec;

use super::{
    id::KeyId,
    limit::{Change, Subject, UpstreamCredential},
    others::OtherSpends,
    pattern::Pattern,
    pepper::Digest,
    record::{KeyRecord, LimitKind, LimitRule, Revocation, SecretRecord, SubjectId, SubjectRecord},
    refusal::{RefusalKind, shortened},
};
use crate::exchange::{Owner, Route};

/// A key with the subjects that it belongs to.
pub struct Key {
    id: KeyId,
    name: Box<str>,
    pub(super) subjects: Subjects,
    /// The limits of the key itself. Many keys may have the same.
    limits: Arc<[LimitRule]>,
    secrets: SmallVec<[KeySecret; 1]>,
    expires: i64,
    created: i64,
    /// Rules that few keys have.
    rules: Option<Box<KeyRules>>,
    /// Parts that requests need: of a hundred thousand keys, few are used.
    used: OnceLock<Box<UsedKey>>,
    /// True once all that runs with it is to end.
    is_cut: AtomicBool,
}

/// Subjects of a key below the organisation.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    pub(super) team: Option<Arc<Subject>>,
    /// The user as one of the team's, with the team's default for each.
    pub(super) member: Option<Arc<Subject>>,
    pub(super) user: Option<Arc<Subject>>,
}

/// Parts of a key that its record does not hold.
#[derive(Default)]
pub(super) struct KeyParts<'a> {
    pub(super) subjects: Subjects,
    /// The limits of the record, shared with other keys.
    pub(super) limits: Arc<[LimitRule]>,
    /// The record of the key as a subject: grants.
    pub(super) beside: Option<&'a SubjectRecord>,
    pub(super) upstream: Option<UpstreamCredential>,
}

/// Parts of a key that are made when it is first used.
#[derive(Default)]
struct UsedKey {
    /// The key as a subject.
    own: OnceLock<Arc<Subject>>,
    owner: OnceLock<Arc<Owner>>,
}

#[derive(Default)]
struct KeyRules {
    models: Box<[Pattern]>,
    paths: Box<[Pattern]>,
    sources: Box<[IpNet]>,
    /// The record of the key as a subject: grants.
    beside: Option<Box<SubjectRecord>>,
    upstream: Option<UpstreamCredential>,
    revoked: Option<Revocation>,
}

/// The last use of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// The key.
    pub key: KeyId,
    /// Name of the secret: some digits of its digest.
    pub secret: String,
    /// The time, in Unix seconds.
    pub at: i64,
}

/// Digits of its digest that are a secret's name.
const NAME_DIGITS: usize = 16;

/// A secret of a key.
struct KeySecret {
    digest: Digest,
    last4: [u8; 4],
    created: i64,
    expires: i64,
    /// Unix seconds, which fit until 2106; 0 for never.
    last_used: AtomicU32,
}

impl Key {
    /// Takes a record; the last uses and the meters are those of the key before the change.
    pub(super) fn new(
        record: &KeyRecord,
        parts: KeyParts<'_>,
        before: Option<&Self>,
        others: &Arc<OtherSpends>,
    ) -> Self {
        let KeyParts {
            subjects,
            limits,
            beside,
            upstream,
        } = parts;
        let rules = KeyRules {
            models: record.models.as_slice().into(),
            paths: record.paths.as_slice().into(),
            sources: record.sources.as_slice().into(),
            beside: beside.cloned().map(Box::new),
            upstream,
            revoked: record.revoked.clone(),
        };
        // a key that is changed once more stays cut
        let revoked = record.revoked.as_ref();
        let is_cut = revoked.is_some_and(|it| it.cut || before.is_some_and(Self::is_cut));
        let key = Self {
            id: record.id,
            name: record.name.as_str().into(),
            subjects,
            limits,
            secrets: record.secrets.iter().filter_map(KeySecret::new).collect(),
            expires: record.expires.unwrap_or(i64::MAX),
            created: record.created,
            rules: (!rules.is_empty()).then(|| Box::new(rules)),
            used: OnceLock::new(),
            is_cut: AtomicBool::new(is_cut),
        };
        for secret in &key.secrets {
            let known = before.into_iter().flat_map(|before| &before.secrets);
            let known = known
                .into_iter()
                .find(|known| known.digest.is(&secret.digest));
            let last_used = known.map_or(0, |known| known.last_used.load(Relaxed));
            secret.last_used.store(last_used, Relaxed);
        }
        // made now, if it was not: requests that run have the key as it was, and both must count together
        if let Some(own) = before.and_then(|before| before.own(others)) {
            key.put_limits(own);
            let _ = key.parts().own.set(Arc::clone(own));
        }
        key
    }

    /// The key as a subject, if it has or had limits.
    pub(super) fn own(&self, others: &Arc<OtherSpends>) -> Option<&Arc<Subject>> {
        if let Some(own) = self.used() {
            return Some(own);
        }
        if self.limits.is_empty() && self.beside().is_none() {
            return None;
        }
        Some(self.parts().own.get_or_init(|| {
            let own = Subject::new(SubjectId::Key(self.id), None, others);
            self.put_limits(&own);
            own
        }))
    }

    /// The key as a subject, if it was used.
    pub(super) fn used(&self) -> Option<&Arc<Subject>> {
        self.used.get()?.own.get()
    }

    fn parts(&self) -> &UsedKey {
        self.used.get_or_init(Box::default)
    }

    /// Puts the limits of the record into effect, and those beside it that it does not override.
    fn put_limits(&self, own: &Subject) {
        let mut rules = self.limits.to_vec();
        let beside = self.beside();
        let others = beside.map_or(&[][..], |beside| &beside.limits);
        rules.extend(
            others
                .iter()
                .filter(|rule| !rule.is_overridden_by(&self.limits))
                .cloned(),
        );
        let change = Change {
            rules: &rules,
            grants: beside.map_or(&[], |beside| &beside.grants),
        };
        own.apply(change, None);
    }

    fn beside(&self) -> Option<&SubjectRecord> {
        self.rules.as_ref()?.beside.as_deref()
    }

    /// The id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn id_ref(&self) -> &KeyId {
        &self.id
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The owner, for the record of an exchange.
    pub fn owner(&self) -> &Arc<Owner> {
        self.parts().owner.get_or_init(|| {
            Arc::new(Owner {
                key: self.id.to_string().into(),
                name: self.name.clone(),
                user: self.user().map(Box::from),
                team: self.team().map(Box::from),
            })
        })
    }

    /// The user that owns it.
    pub fn user(&self) -> Option<&str> {
        match self.subjects.user.as_ref()?.id() {
            SubjectId::User(name) => Some(name),
            SubjectId::Org | SubjectId::Team(_) | SubjectId::Key(_) => None,
        }
    }

    /// The team of the user.
    pub fn team(&self) -> Option<&str> {
        match self.subjects.team.as_ref()?.id() {
            SubjectId::Team(name) => Some(name),
            SubjectId::Org | SubjectId::User(_) | SubjectId::Key(_) => None,
        }
    }

    /// The record, as it is stored and shown.
    pub fn record(&self) -> KeyRecord {
        let rules = self.rules.as_deref();
        KeyRecord {
            id: self.id,
            name: self.name.to_string(),
            user: self.user().map(str::to_owned),
            team: self.team().map(str::to_owned),
            secrets: self.secrets.iter().map(KeySecret::record).collect(),
            models: self.models().to_vec(),
            paths: rules.map_or(Vec::new(), |rules| rules.paths.to_vec()),
            sources: rules.map_or(Vec::new(), |rules| rules.sources.to_vec()),
            limits: self.limits().to_vec(),
            expires: (self.expires != i64::MAX).then_some(self.expires),
            upstream_key_env: self.upstream().map(|it| it.variable.to_string()),
            created: self.created,
            revoked: rules.and_then(|rules| rules.revoked.clone()),
        }
    }

    /// Models that it may use; empty: all.
    pub fn models(&self) -> &[Pattern] {
        self.rules.as_ref().map_or(&[], |rules| &rules.models)
    }

    /// Reports whether it may use a model.
    pub fn allows_model(&self, model: &str) -> bool {
        let models = self.models();
        models.is_empty() || models.iter().any(|pattern| pattern.matches(model))
    }

    /// Reports whether it was revoked. A key that is changed is another object, so look it up anew.
    pub fn is_revoked(&self) -> bool {
        self.rules
            .as_ref()
            .is_some_and(|rules| rules.revoked.is_some())
    }

    /// Ends what runs with it, on all workers.
    pub fn cut(&self) {
        self.is_cut.store(true, Relaxed);
    }

    /// Reports whether what runs with it is to end.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// The last use of each secret in Unix seconds, the newest secret last.
    pub fn last_used(&self) -> impl Iterator<Item = Option<i64>> {
        let secrets = self.secrets.iter();
        secrets.map(KeySecret::last_use)
    }

    /// Takes note of an earlier use of the secret with this name.
    pub(super) fn was_used(&self, secret: &str, at: i64) {
        let secrets = self.secrets.iter();
        for secret in secrets.filter(|known| known.name() == secret) {
            secret.last_used.fetch_max(of_use(at), Relaxed);
        }
    }

    /// Names and last uses of the secrets that were used since a time.
    pub(super) fn uses(&self, since: i64) -> impl Iterator<Item = (String, i64)> {
        let uses = self.secrets.iter();
        uses.filter_map(move |secret| {
            let at = secret.last_use()?;
            (at >= since).then(|| (secret.name(), at))
        })
    }

    /// The last use of the secret of a digest in Unix seconds, as [`Key::last_used`] gives those of all.
    pub fn last_use_of(&self, digest: &str) -> Option<i64> {
        let digest = Digest::parse(digest)?;
        let mut secrets = self.secrets.iter().zip(self.last_used());
        secrets.find(|(secret, _)| secret.digest.is(&digest))?.1
    }

    /// Reports whether a path may be used. What is metered or free may; what is not needs a pattern of the
    /// key.
    pub fn allows_path(&self, route: Route, method: &str, path: &str) -> bool {
        if matches!(method, "HEAD" | "OPTIONS") {
            return true;
        }
        // what an upstream may read as another path is none of those that are known
        if is_ambiguous(path) {
            return false;
        }
        match route {
            Route::Messages | Route::CountTokens | Route::Models | Route::Files => true,
            Route::Batches | Route::Tunnel | Route::Other => {
                let paths = self.rules.as_ref().map_or(&[][..], |rules| &rules.paths);
                paths.iter().any(|pattern| pattern.matches(path))
            }
        }
    }

    /// The name in a text for people.
    pub(super) fn title(&self) -> String {
        format!("key {}", shortened(&self.name, 48))
    }

    pub(super) fn limits(&self) -> &[LimitRule] {
        &self.limits
    }

    /// The number of its own budgets.
    pub fn budgets(&self) -> usize {
        let kinds = self.limits.iter().map(|rule| &rule.kind);
        let budgets = kinds.filter(|kind| matches!(kind, LimitKind::Spend { .. }));
        budgets.count()
    }

    /// The variable of the environment that holds its credential for the upstream.
    pub fn upstream_variable(&self) -> Option<&str> {
        self.upstream().map(|upstream| &*upstream.variable)
    }

    pub(super) fn upstream(&self) -> Option<&UpstreamCredential> {
        self.rules.as_ref()?.upstream.as_ref()
    }

    /// Verifies a secret; all secrets are compared, so that the time says nothing.
    pub(super) fn verify(&self, digest: &Digest, now: i64) -> Result<(), KeyFault> {
        let place = digest.place_in(self.secrets.iter().map(|secret| &secret.digest));
        let Some(secret) = place.and_then(|place| self.secrets.get(place)) else {
            return Err(KeyFault::of(RefusalKind::UnknownKey));
        };
        if self.is_revoked() {
            return Err(KeyFault::of(RefusalKind::RevokedKey));
        }
        let expires = self.expires.min(secret.expires);
        if expires <= now {
            return Err(KeyFault {
                kind: RefusalKind::ExpiredKey,
                at: expires,
            });
        }
        // once a second: other workers read the line, too
        let now = of_use(now);
        if secret.last_used.load(Relaxed) < now {
            secret.last_used.store(now, Relaxed);
        }
        Ok(())
    }

    /// Reports whether a client's address may use it.
    pub(super) fn allows_source(&self, client: Option<IpAddr>) -> bool {
        let sources = self.rules.as_ref().map_or(&[][..], |rules| &rules.sources);
        if sources.is_empty() {
            return true;
        }
        // a dual-stack socket shows an IPv4 client as ::ffff:…
        let client = client.map(|client| client.to_canonical());
        client.is_some_and(|client| sources.iter().any(|network| network.contains(&client)))
    }
}

/// Fault of a key that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyFault {
    pub(super) kind: RefusalKind,
    /// The time of its expiry.
    pub(super) at: i64,
}

impl KeyFault {
    fn of(kind: RefusalKind) -> Self {
        Self { kind, at: 0 }
    }
}

impl KeyRules {
    fn is_empty(&self) -> bool {
        let Self {
            models,
            paths,
            sources,
            beside,
            upstream,
            revoked,
        } = self;
        models.is_empty()
            && paths.is_empty()
            && sources.is_empty()
            && beside.is_none()
            && upstream.is_none()
            && revoked.is_none()
    }
}

impl KeySecret {
    /// None if its digest is none; a record's check says so.
    fn new(record: &SecretRecord) -> Option<Self> {
        Some(Self {
            digest: Digest::parse(&record.digest)?,
            last4: record.last4.as_bytes().try_into().unwrap_or(*b"????"),
            created: record.created,
            expires: record.expires.unwrap_or(i64::MAX),
            last_used: AtomicU32::new(0),
        })
    }

    /// The time of its last use.
    fn last_use(&self) -> Option<i64> {
        let at = self.last_used.load(Relaxed);
        (at != 0).then(|| i64::from(at))
    }

    /// A name that tells it from other secrets of the key.
    fn name(&self) -> String {
        let mut name = self.digest.text();
        name.truncate(NAME_DIGITS);
        name
    }

    fn record(&self) -> SecretRecord {
        SecretRecord {
            digest: self.digest.text(),
            last4: String::from_utf8_lossy(&self.last4).into_owned(),
            created: self.created,
            expires: (self.expires != i64::MAX).then_some(self.expires),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {:?})", self.id, self.name)
    }
}

/// The time of a use, in Unix seconds, as it is kept.
fn of_use(at: i64) -> u32 {
    u32::try_from(at.max(0)).unwrap_or(u32::MAX)
}

/// Reports whether two servers may read a path differently: dot segments, empty segments, escaped slashes or
/// points, backslashes.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    let inner = lower.strip_prefix('/').unwrap_or(&lower);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    lower.contains('\\')
        || lower.contains(';')
        || ["%2e", "%2f", "%5c", "%25", "%00"]
            .iter()
            .any(|it| lower.contains(it))
        || inner
            .split('/')
            .any(|segment| is_dots(segment) || (segment.is_empty() && !inner.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_two_servers_may_read_differently_are_told() {
        for path in [
            "/v1/files/../complete",
            "/v1/files/%2e%2E/complete",
            "/v1//messages",
            "//v1/messages",
            "/v1/files/..%2fcomplete",
            "/v1/files\\..\\complete",
            "/v1/files/..;/complete",
            "/v1/./complete",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in [
            "/",
            "/v1/messages",
            "/v1/messages/",
            "/v1/files/a..b",
            "/v1/models/a%20b",
            "*",
        ] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }
}
