//! A key file is applied: keys and limits become what it says, all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    author::Author,
    call::ApplyFile,
    core::{PlannedChange, Registry},
    document::{self, FileKey, FileSubject, KeyFile},
    error::{FileFault, RegistryError},
    keys::KeySettings,
    shape::LimitShape,
    times,
    view::{Applied, AppliedChange, FieldChange, Reply},
};
use crate::{
    access::{KeyRecord, LimitRule, Revocation, SecretRecord, SubjectId, SubjectRecord},
    audit::AuditTarget,
};

/// The reason of a revocation by a file.
const PRUNED: &str = "not in the key file";

/// Keys and subjects after a file was applied, and what changes.
#[derive(Default)]
struct FileOutcome {
    keys: Vec<KeyRecord>,
    subjects: Vec<(SubjectId, SubjectRecord)>,
    changes: Vec<AppliedChange>,
    unchanged: usize,
    faults: Vec<FileFault>,
}

impl Registry {
    pub(super) fn apply(&self, author: &Author, apply: &ApplyFile) -> Result<Reply, RegistryError> {
        let now = times::now();
        let file = document::read(&apply.text, &apply.secrets, &self.pepper, now)
            .map_err(RegistryError::File)?;
        let mut warnings = BTreeSet::new();
        for key in &file.keys {
            warnings.extend(self.unpriced(&key.settings.models, &key.settings.limits));
            let team = key.settings.team.as_deref();
            let of_team = || file.subjects.get(&SubjectId::Team(team?.to_owned()));
            let variable = match &key.settings.upstream_key_env {
                Some(variable) => Some(variable),
                None => of_team().and_then(|team| team.upstream_key_env.as_ref()),
            };
            warnings.extend(self.credential_warning(team, variable.map(String::as_str)));
        }
        for subject in file.subjects.values() {
            let all = [&subject.limits[..], &subject.user_limits].concat();
            warnings.extend(self.unpriced(&[], &all));
        }
        let (file, warnings) = (&file, &warnings);
        self.change(author, "keys.apply", None, || {
            let mut outcome = self.outcome(file, apply.prune, now);
            if !outcome.faults.is_empty() {
                outcome.faults.sort();
                return Err(RegistryError::File(outcome.faults));
            }
            if file.keys.is_empty() && !apply.allow_empty {
                outcome.check_emptied()?;
            }
            let mut plan = PlannedChange {
                target: AuditTarget {
                    kind: "file".to_owned(),
                    id: apply.name(),
                },
                before: Value::Null,
                after: json!(outcome.changes),
                keys: outcome.keys,
                subjects: outcome.subjects,
                answer: Reply::Applied(Applied {
                    dry_run: apply.dry_run,
                    changes: outcome.changes,
                    unchanged: outcome.unchanged,
                    warnings: warnings.iter().cloned().collect(),
                }),
            };
            if apply.dry_run {
                plan.keys.clear();
                plan.subjects.clear();
            }
            Ok(plan)
        })
    }

    fn outcome(&self, file: &KeyFile, prune: bool, now: i64) -> FileOutcome {
        let mut outcome = FileOutcome::default();
        let existing: BTreeMap<_, _> = self
            .access
            .keys()
            .iter()
            .map(|key| (key.id(), key.record()))
            .collect();
        let by_name: BTreeMap<_, _> = existing
            .values()
            .filter(|record| record.revoked.is_none())
            .map(|record| (record.name.as_str(), record))
            .collect();
        let mut kept = BTreeSet::new();
        for key in &file.keys {
            let found = match key.id {
                Some(id) => existing.get(&id),
                None => by_name.get(key.settings.name.as_str()).copied(),
            };
            let is_other = |record: &&KeyRecord| Some(record.id) != found.map(|found| found.id);
            let other = by_name
                .get(key.settings.name.as_str())
                .copied()
                .filter(is_other);
            if let Some(other) = other
                && !file.keys.iter().any(|it| it.id == Some(other.id))
                && !prune
            {
                outcome.fault(
                    key,
                    format!("key {} has the name {:?} already", other.id, other.name),
                    "choose another name, or give its id",
                );
            }
            match found {
                Some(record) => {
                    kept.insert(record.id);
                    outcome.update(key, record);
                }
                None => {
                    let mut revoked = existing.values();
                    let revoked = revoked.rfind(|it| it.name == key.settings.name);
                    outcome.create(key, revoked, now);
                }
            }
        }
        for (id, subject) in &file.subjects {
            outcome.subject(id, subject, self.access.subject(id));
        }
        if prune {
            let gone = existing.values();
            for record in gone.filter(|it| it.revoked.is_none() && !kept.contains(&it.id)) {
                outcome.revoke(record, now);
            }
            for (id, record) in self.access.subjects() {
                let is_key = matches!(id, SubjectId::Key(_));
                if !is_key && !file.subjects.contains_key(&id) {
                    outcome.remove(&id, record);
                }
            }
        }
        outcome
    }
}

impl FileOutcome {
    /// Refuses what a file without keys would take away: it is more often a file that was not written than an
    /// end of all keys, and a revocation cannot be undone.
    fn check_emptied(&self) -> Result<(), RegistryError> {
        let count = |action: &str| self.changes.iter().filter(|it| it.action == action).count();
        match (count("revoke"), count("remove")) {
            (0, 0) => Ok(()),
            (keys, subjects) => Err(RegistryError::Invalid(format!(
                "the file has no [[key]], and to prune would revoke keys ({keys}) for good and remove limits of \
                 subjects ({subjects}); nothing was changed; check the file, or use --allow-empty \
                 (\"allow_empty\": true)"
            ))),
        }
    }

    fn fault(&mut self, key: &FileKey, fault: String, fix: &str) {
        self.faults.push(FileFault {
            line: key.line,
            fault,
            fix: fix.to_owned(),
        });
    }

    /// Notes the faults of a record.
    fn is_right(&mut self, key: &FileKey, record: &KeyRecord) -> bool {
        let faults = record.check();
        for fault in &faults {
            let text = format!("{}: {}", fault.place, fault.problem);
            self.fault(key, text, &fault.remedy);
        }
        faults.is_empty()
    }

    fn create(&mut self, key: &FileKey, revoked: Option<&KeyRecord>, now: i64) {
        let (Some(id), false) = (key.id, key.secrets.is_empty()) else {
            let name = &key.settings.name;
            if let Some(KeyRecord { id, .. }) = revoked {
                let fault = format!("key {id} had the name {name:?} and was revoked");
                let fix = "remove it from the file; a new key of this name needs keys create, key_env, or id and \
                           digests";
                return self.fault(key, fault, fix);
            }
            let fault = format!("there is no key {name:?}, and the file has no secret for it");
            let fix = "create it with keys create, or write key_env, or id and digests";
            return self.fault(key, fault, fix);
        };
        let mut record = KeyRecord {
            id,
            name: String::new(),
            user: None,
            team: None,
            secrets: key.secrets.clone(),
            models: Vec::new(),
            paths: Vec::new(),
            sources: Vec::new(),
            limits: Vec::new(),
            expires: None,
            upstream_key_env: None,
            created: now,
            revoked: None,
        };
        key.settings.put(&mut record);
        if !self.is_right(key, &record) {
            return;
        }
        self.changes.push(AppliedChange {
            action: "create",
            subject: format!("key:{id}"),
            name: Some(record.name.clone()),
            fields: fields(&KeySettings::default(), &key.settings),
        });
        self.keys.push(record);
    }

    fn update(&mut self, key: &FileKey, before: &KeyRecord) {
        if before.revoked.is_some() {
            let fault = format!("key {} was revoked", before.id);
            return self.fault(key, fault, "remove it from the file, or create another key");
        }
        let mut record = before.clone();
        key.settings.put(&mut record);
        if !key.secrets.is_empty() {
            record.secrets = secrets(&key.secrets, &before.secrets);
        }
        if record == *before {
            self.unchanged += 1;
            return;
        }
        if !self.is_right(key, &record) {
            return;
        }
        let mut fields = fields(&KeySettings::of(before), &key.settings);
        if record.secrets != before.secrets {
            let ends = |secrets: &[SecretRecord]| -> Vec<String> {
                secrets.iter().map(|it| it.last4.clone()).collect()
            };
            push(
                &mut fields,
                "last4",
                ends(&before.secrets),
                ends(&record.secrets),
            );
        }
        self.changes.push(AppliedChange {
            action: "update",
            subject: format!("key:{}", record.id),
            name: Some(record.name.clone()),
            fields,
        });
        self.keys.push(record);
    }

    fn revoke(&mut self, before: &KeyRecord, now: i64) {
        let mut record = before.clone();
        record.revoked = Some(Revocation {
            at: now,
            reason: PRUNED.to_owned(),
            cut: false,
        });
        self.changes.push(AppliedChange {
            action: "revoke",
            subject: format!("key:{}", record.id),
            name: Some(record.name.clone()),
            fields: Vec::new(),
        });
        self.keys.push(record);
    }

    fn subject(&mut self, id: &SubjectId, subject: &FileSubject, before: Option<SubjectRecord>) {
        let before = before.unwrap_or_default();
        let mut record = before.clone();
        record.limits.clone_from(&subject.limits);
        record.user_limits.clone_from(&subject.user_limits);
        record
            .upstream_key_env
            .clone_from(&subject.upstream_key_env);
        if same(&record.limits, &before.limits)
            && same(&record.user_limits, &before.user_limits)
            && record.upstream_key_env == before.upstream_key_env
        {
            self.unchanged += 1;
            return;
        }
        let mut fields = Vec::new();
        push(
            &mut fields,
            "limits",
            texts(&before.limits),
            texts(&record.limits),
        );
        push(
            &mut fields,
            "user_limits",
            texts(&before.user_limits),
            texts(&record.user_limits),
        );
        push(
            &mut fields,
            "upstream_key_env",
            before.upstream_key_env.clone(),
            record.upstream_key_env.clone(),
        );
        self.changes.push(AppliedChange {
            action: "update",
            subject: id.to_string(),
            name: None,
            fields,
        });
        self.subjects.push((id.clone(), record));
    }

    fn remove(&mut self, id: &SubjectId, before: SubjectRecord) {
        let mut record = before.clone();
        record.limits.clear();
        record.user_limits.clear();
        record.upstream_key_env = None;
        if record == before {
            return;
        }
        let mut fields = Vec::new();
        push(&mut fields, "limits", texts(&before.limits), texts(&[]));
        push(
            &mut fields,
            "user_limits",
            texts(&before.user_limits),
            texts(&[]),
        );
        push(
            &mut fields,
            "upstream_key_env",
            before.upstream_key_env,
            None,
        );
        self.changes.push(AppliedChange {
            action: "remove",
            subject: id.to_string(),
            name: None,
            fields,
        });
        self.subjects.push((id.clone(), record));
    }
}

/// The secrets of a file; one that exists keeps its times, but the newest has no end. The overlap of a
/// rotation goes on where the file has the newest secret alone.
fn secrets(file: &[SecretRecord], before: &[SecretRecord]) -> Vec<SecretRecord> {
    if let ([only], [_, newest]) = (file, before)
        && only.digest.eq_ignore_ascii_case(&newest.digest)
    {
        return before.to_vec();
    }
    let known = |secret: &SecretRecord| {
        let mut before = before.iter();
        before
            .find(|it| it.digest.eq_ignore_ascii_case(&secret.digest))
            .cloned()
    };
    let secrets = file
        .iter()
        .map(|secret| known(secret).unwrap_or_else(|| secret.clone()));
    let mut secrets: Vec<_> = secrets.collect();
    if let Some(newest) = secrets.last_mut() {
        newest.expires = None;
    }
    secrets
}

/// The same limits, in whatever order.
fn same(one: &[LimitRule], other: &[LimitRule]) -> bool {
    one.len() == other.len() && one.iter().all(|rule| other.contains(rule))
}

fn texts(rules: &[LimitRule]) -> Vec<String> {
    rules
        .iter()
        .map(|rule| LimitShape::of(rule).text())
        .collect()
}

fn push<T: Serialize + PartialEq>(
    fields: &mut Vec<FieldChange>,
    field: &'static str,
    before: T,
    after: T,
) {
    if before != after {
        fields.push(FieldChange {
            field,
            before: json!(before),
            after: json!(after),
        });
    }
}

fn fields(before: &KeySettings, after: &KeySettings) -> Vec<FieldChange> {
    let mut fields = Vec::new();
    push(&mut fields, "name", &before.name, &after.name);
    push(&mut fields, "user", &before.user, &after.user);
    push(&mut fields, "team", &before.team, &after.team);
    push(&mut fields, "models", &before.models, &after.models);
    push(&mut fields, "paths", &before.paths, &after.paths);
    push(&mut fields, "sources", &before.sources, &after.sources);
    push(
        &mut fields,
        "limits",
        texts(&before.limits),
        texts(&after.limits),
    );
    let moment = |expires: Option<i64>| expires.map(times::show);
    push(
        &mut fields,
        "expires_at",
        moment(before.expires),
        moment(after.expires),
    );
    push(
        &mut fields,
        "upstream_key_env",
        &before.upstream_key_env,
        &after.upstream_key_env,
    );
    fields
}
