//! Keys: created, given another secret, revoked.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    author::Author,
    call::{NewKey, RevokeKey, RotateKey},
    core::{PlannedChange, Registry},
    error::RegistryError,
    shape::twice,
    times,
    view::{CreatedKey, KeyRow, Reply},
};
use crate::{
    access::{
        FullKey, KeyId, KeyRecord, LimitRule, Pattern, RecordFault, Revocation, is_name,
        without_keys,
    },
    audit::AuditTarget,
};

/// Time for which the old secret stays valid after a rotation.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// Characters of a reason.
const LONGEST_REASON: usize = 200;

/// Settings of a key that were checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct KeySettings {
    pub(super) name: String,
    pub(super) user: Option<String>,
    pub(super) team: Option<String>,
    pub(super) models: Vec<Pattern>,
    pub(super) paths: Vec<Pattern>,
    pub(super) sources: Vec<IpNet>,
    pub(super) limits: Vec<LimitRule>,
    pub(super) expires: Option<i64>,
    pub(super) upstream_key_env: Option<String>,
}

impl KeySettings {
    /// The settings of a record.
    pub(super) fn of(record: &KeyRecord) -> Self {
        Self {
            name: record.name.clone(),
            user: record.user.clone(),
            team: record.team.clone(),
            models: record.models.clone(),
            paths: record.paths.clone(),
            sources: record.sources.clone(),
            limits: record.limits.clone(),
            expires: record.expires,
            upstream_key_env: record.upstream_key_env.clone(),
        }
    }

    /// Puts them into a record.
    pub(super) fn put(&self, record: &mut KeyRecord) {
        let Self {
            name,
            user,
            team,
            models,
            paths,
            sources,
            limits,
            expires,
            upstream_key_env,
        } = self.clone();
        record.name = name;
        record.user = user;
        record.team = team;
        record.models = models;
        record.paths = paths;
        record.sources = sources;
        record.limits = limits;
        record.expires = expires;
        record.upstream_key_env = upstream_key_env;
    }

    fn checked(new: &NewKey, now: i64) -> Result<Self, RegistryError> {
        let mut faults = Vec::new();
        let mut note = |fault: String| faults.push(fault);
        if !is_name(&new.name) {
            note(format!("name {:?}: {NAME}", new.name));
        }
        for (what, name) in [("user", &new.user), ("team", &new.team)] {
            if name.as_deref().is_some_and(|name| !is_name(name)) {
                note(format!(
                    "{what} {:?}: {NAME}",
                    name.as_deref().unwrap_or_default()
                ));
            }
        }
        let mut patterns = |what: &str, texts: &[String]| {
            let mut patterns = Vec::new();
            for text in texts {
                match text.parse() {
                    Ok(pattern) => patterns.push(pattern),
                    Err(error) => note(format!("{what} {text:?}: {error}")),
                }
            }
            patterns
        };
        let models = patterns("models", &new.models);
        let paths = patterns("paths", &new.paths);
        let mut sources = Vec::new();
        for text in &new.sources {
            match source(text) {
                Ok(network) => sources.push(network),
                Err(fault) => note(format!("sources: {fault}")),
            }
        }
        let mut limits = Vec::new();
        for shape in &new.limits {
            match shape.rule() {
                Ok(rule) => limits.push(rule),
                Err(fault) => note(format!("limits: {fault}")),
            }
        }
        if let Some(twice) = twice(&limits) {
            note(format!("limits: {twice} is there twice"));
        }
        let expires = match new.expires.as_deref().map(|text| times::moment(text, now)) {
            Some(Ok(expires)) if expires <= now => {
                note(format!("expires: {} is over", times::show(expires)));
                None
            }
            Some(Ok(expires)) => Some(expires),
            Some(Err(fault)) => {
                note(format!("expires: {fault}"));
                None
            }
            None => None,
        };
        if let Some(variable) = &new.upstream_key_env
            && let Err(fault) = variable_name(variable)
        {
            note(format!("upstream_key_env: {fault}"));
        }
        if !faults.is_empty() {
            let faults = faults.join("; ");
            return Err(RegistryError::Invalid(format!("{faults}; no key was made")));
        }
        Ok(Self {
            name: new.name.clone(),
            user: new.user.clone(),
            team: new.team.clone(),
            models,
            paths,
            sources,
            limits,
            expires,
            upstream_key_env: new.upstream_key_env.clone(),
        })
    }
}

/// A name that is expected.
pub(super) const NAME: &str =
    "expected 1 to 128 printable characters without blanks at the ends, and no key";

/// Reads a network: `10.0.0.0/8`, or one address.
pub(super) fn source(text: &str) -> Result<IpNet, String> {
    let network: Option<IpNet> = text.parse().ok();
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    network.or_else(address).ok_or_else(|| {
        format!("{text:?} is no network: expected an address and a length, as 10.0.0.0/8")
    })
}

/// Refuses what is no name of a variable.
pub(super) fn variable_name(name: &str) -> Result<(), String> {
    let is_name = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'_');
    match is_name {
        true => Ok(()),
        // it may be a credential
        false => Err("it is no name of a variable: give the name, not its value".to_owned()),
    }
}

/// Refuses a record with faults. The caller adds what follows from them.
pub(super) fn checked(faults: &[RecordFault]) -> Result<(), RegistryError> {
    if faults.is_empty() {
        return Ok(());
    }
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    Err(RegistryError::Invalid(faults.join("; ")))
}

/// Adds to a fault what follows from it.
pub(super) fn so(error: RegistryError, effect: &str) -> RegistryError {
    match error {
        RegistryError::Invalid(fault) => RegistryError::Invalid(format!("{fault}; {effect}")),
        other => other,
    }
}

/// The reason of an author, without secrets of keys.
pub(super) fn reason(text: &str) -> Result<Cow<'_, str>, RegistryError> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err(RegistryError::Invalid(
            "the reason is empty; nothing was changed; say why".to_owned(),
        )),
        count if count > LONGEST_REASON => Err(RegistryError::Invalid(format!(
            "the reason has more than {LONGEST_REASON} characters; nothing was changed; shorten it"
        ))),
        _ => Ok(without_keys(text)),
    }
}

/// The older secret of a record without its newest one, while it is valid: its last characters, and its end.
fn running_overlap(record: &KeyRecord, now: i64) -> Option<(&str, String)> {
    let valid = record.secrets.iter().rev().find_map(|secret| {
        let end = secret.expires.unwrap_or(i64::MAX);
        (end > now).then_some((secret, end))
    });
    valid.map(|(secret, end)| (&*secret.last4, times::show(end)))
}

/// A key in the audit: as it is shown, without digests.
pub(super) fn audited(record: Option<&KeyRecord>, now: i64) -> Value {
    let row = record.map(|record| KeyRow::of(record, &[], now));
    let mut row = serde_json::to_value(row).unwrap_or_default();
    // a use is no setting, and null would say that there was none
    if let Some(fields) = row.as_object_mut() {
        fields.remove("last_used_at");
        let secrets = fields.get_mut("secrets").and_then(Value::as_array_mut);
        for secret in secrets.into_iter().flatten() {
            if let Some(fields) = secret.as_object_mut() {
                fields.remove("last_used_at");
            }
        }
    }
    row
}

pub(super) fn target(id: KeyId) -> AuditTarget {
    AuditTarget {
        kind: "key".to_owned(),
        id: id.to_string(),
    }
}

impl Registry {
    pub(super) fn create(&self, author: &Author, new: &NewKey) -> Result<Reply, RegistryError> {
        let now = times::now();
        let settings = KeySettings::checked(new, now)?;
        let id = new.id.as_deref().map(|text| {
            let id: Result<KeyId, _> = text.parse();
            id.map_err(|error| {
                RegistryError::Invalid(format!("id {text:?}: {error}; no key was made"))
            })
        });
        let id = id.transpose()?;
        let mut warnings = self.unpriced(&settings.models, &settings.limits);
        let (team, variable) = (
            settings.team.as_deref(),
            settings.upstream_key_env.as_deref(),
        );
        warnings.extend(self.credential_warning(team, variable));
        let warnings = &warnings;
        self.change(author, "key.create", None, || {
            if let Some(existing) = self.existing(new, id, &settings)? {
                return Ok(PlannedChange {
                    target: target(existing.id),
                    before: Value::Null,
                    after: Value::Null,
                    keys: Vec::new(),
                    subjects: Vec::new(),
                    answer: Reply::Created(CreatedKey {
                        row: self.row(&existing, now),
                        key: None,
                        warnings: warnings.clone(),
                    }),
                });
            }
            let id = match id {
                Some(id) => id,
                None => self.unused_id()?,
            };
            let full = FullKey::generate(id).map_err(|_| RegistryError::Random)?;
            let mut record = KeyRecord {
                id,
                name: String::new(),
                user: None,
                team: None,
                secrets: vec![self.pepper.record(&full, now)],
                models: Vec::new(),
                paths: Vec::new(),
                sources: Vec::new(),
                limits: Vec::new(),
                expires: None,
                upstream_key_env: None,
                created: now,
                revoked: None,
            };
            settings.put(&mut record);
            checked(&record.check()).map_err(|error| so(error, "no key was made"))?;
            let row = KeyRow::of(&record, &[], now);
            Ok(PlannedChange {
                target: target(id),
                before: Value::Null,
                after: audited(Some(&record), now),
                keys: vec![record],
                subjects: Vec::new(),
                answer: Reply::Created(CreatedKey {
                    row,
                    key: Some(full.reveal().to_owned()),
                    warnings: warnings.clone(),
                }),
            })
        })
    }

    /// The key that a repeated call means.
    fn existing(
        &self,
        new: &NewKey,
        id: Option<KeyId>,
        settings: &KeySettings,
    ) -> Result<Option<KeyRecord>, RegistryError> {
        let conflict = |why: String| Err(RegistryError::Conflict(why));
        if let Some(existing) = id.and_then(|id| self.access.key(id)) {
            let record = existing.record();
            if existing.is_revoked() {
                return conflict(format!(
                    "key {} was revoked; no key was made; choose another id",
                    record.id
                ));
            }
            let mut wanted = settings.clone();
            if new
                .expires
                .as_deref()
                .is_some_and(|it| times::duration(it).is_ok())
            {
                // from the first call on
                wanted.expires = record.expires;
            }
            return match KeySettings::of(&record) == wanted {
                true => Ok(Some(record)),
                false => conflict(format!(
                    "key {} exists with other settings; nothing was changed; change it with keys apply, or \
                     choose another id",
                    record.id
                )),
            };
        }
        let Some(existing) = self.active_by_name(&settings.name) else {
            // a script that is run again must not give a new key in place of one that was revoked
            return match self.revoked_by_name(&settings.name) {
                Some(revoked) if new.if_absent && id.is_none() => conflict(format!(
                    "key {} had the name {:?} and was revoked; no key was made; leave out --if-absent to make \
                     another one",
                    revoked.id(),
                    settings.name
                )),
                _ => Ok(None),
            };
        };
        let record = existing.record();
        match new.if_absent && id.is_none() {
            true => Ok(Some(record)),
            false => conflict(format!(
                "key {} has the name {:?} already; no key was made; choose another name, or --if-absent",
                record.id, record.name
            )),
        }
    }

    fn unused_id(&self) -> Result<KeyId, RegistryError> {
        loop {
            let id = KeyId::random().map_err(|_| RegistryError::Random)?;
            if self.access.key(id).is_none() {
                return Ok(id);
            }
        }
    }

    pub(super) fn rotate(
        &self,
        author: &Author,
        key: &str,
        terms: &RotateKey,
    ) -> Result<Reply, RegistryError> {
        let overlap = match terms.overlap.as_deref() {
            None => OVERLAP,
            Some(text) => times::duration(text)
                .map_err(|fault| RegistryError::Invalid(format!("overlap: {fault}")))?,
        };
        let overlap = i64::try_from(overlap.as_secs()).unwrap_or(i64::MAX);
        self.change(author, "key.rotate", None, || {
            let now = times::now();
            let before = self.found(key)?.record();
            if let Some(revoked) = &before.revoked {
                return Err(RegistryError::Conflict(format!(
                    "key {} was revoked at {}; it got no new secret; create another key",
                    before.id,
                    times::show(revoked.at)
                )));
            }
            let full = FullKey::generate(before.id).map_err(|_| RegistryError::Random)?;
            let mut record = before.clone();
            let mut old = record.secrets.pop();
            let mut warnings = Vec::new();
            // a key has two secrets at most, so that one of an earlier rotation ends
            if let Some((last4, end)) = running_overlap(&record, now) {
                if overlap > 0 && !terms.force {
                    return Err(RegistryError::Conflict(format!(
                        "key {} was rotated before, and the secret …{last4} is valid until {end}, which a new \
                         rotation would end at once; it got no new secret; wait until then, or use --force \
                         (\"force\": true)",
                        before.id
                    )));
                }
                warnings.push(format!(
                    "the secret …{last4} of an earlier rotation, which was to be valid until {end}, has ended"
                ));
            }
            if let Some(old) = &mut old {
                // without an overlap it stays as one that has ended, so that its client is told so
                let end = now.saturating_add(overlap);
                old.expires = Some(old.expires.map_or(end, |expires| expires.min(end)));
            }
            record.secrets = old.into_iter().collect();
            record.secrets.push(self.pepper.record(&full, now));
            let row = self.row(&record, now);
            Ok(PlannedChange {
                target: target(record.id),
                before: audited(Some(&before), now),
                after: audited(Some(&record), now),
                keys: vec![record],
                subjects: Vec::new(),
                answer: Reply::Created(CreatedKey {
                    row,
                    key: Some(full.reveal().to_owned()),
                    warnings,
                }),
            })
        })
    }

    pub(super) fn revoke(
        &self,
        author: &Author,
        key: &str,
        terms: &RevokeKey,
    ) -> Result<Reply, RegistryError> {
        let reason = &*reason(&terms.reason)?;
        let (id, reply) = self.change(author, "key.revoke", Some(reason), || {
            let now = times::now();
            let before = self.found(key)?.record();
            let mut record = before.clone();
            match &mut record.revoked {
                // what runs may be cut later, too
                Some(revoked) => revoked.cut |= terms.cut,
                None => {
                    record.revoked = Some(Revocation {
                        at: now,
                        reason: reason.to_owned(),
                        cut: terms.cut,
                    });
                }
            }
            let is_new = record != before;
            let row = self.row(&record, now);
            Ok(PlannedChange {
                target: target(record.id),
                before: audited(Some(&before), now),
                after: audited(Some(&record), now),
                answer: (record.id, Reply::Key(row)),
                keys: if is_new { vec![record] } else { Vec::new() },
                subjects: Vec::new(),
            })
        })?;
        if terms.cut {
            self.access.cut(id);
        }
        Ok(reply)
    }
}
