//! Records of all keys and subjects for another proxy: given, and taken.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    author::Author,
    call::ImportKeys,
    core::{PlannedChange, Registry},
    error::RegistryError,
    keys::{checked, so},
    view::{Applied, AppliedChange, Exported, Reply},
};
use crate::{
    access::{KeyRecord, SubjectId, SubjectRecord},
    audit::{AuditEntry, AuditTarget},
};

/// Version of the text.
const VERSION: u32 = 1;

/// The text of an export.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportText {
    version: u32,
    /// Tells the pepper of the digests from another one.
    pepper: String,
    keys: Vec<KeyRecord>,
    subjects: BTreeMap<SubjectId, SubjectRecord>,
}

fn file() -> AuditTarget {
    AuditTarget {
        kind: "file".to_owned(),
        id: "keys".to_owned(),
    }
}

impl Registry {
    /// Gives all records. It changes nothing, but digests leave the proxy: it is in the audit.
    pub(super) fn export(&self, author: &Author) -> Result<Reply, RegistryError> {
        let mut keys: Vec<_> = self.access.keys().iter().map(|key| key.record()).collect();
        keys.sort_by_key(|key| key.id);
        let text = ExportText {
            version: VERSION,
            pepper: self.pepper_name.clone(),
            keys,
            subjects: self.access.subjects().into_iter().collect(),
        };
        let (keys, subjects) = (text.keys.len(), text.subjects.len());
        let entry = AuditEntry {
            actor: author.actor.clone(),
            action: "keys.export".to_owned(),
            target: file(),
            before: Value::Null,
            after: json!({"keys": keys, "subjects": subjects}),
            reason: None,
            request_id: author.request_id.clone(),
        };
        self.audit.note(&entry, "done")?;
        let text = serde_json::to_string_pretty(&text)
            .map_err(|error| RegistryError::Invalid(error.to_string()))?;
        Ok(Reply::Exported(Exported {
            text,
            keys,
            subjects,
        }))
    }

    /// Takes records, all or none. One that exists with other settings is a conflict.
    pub(super) fn import(
        &self,
        author: &Author,
        import: &ImportKeys,
    ) -> Result<Reply, RegistryError> {
        let invalid = |why: String| RegistryError::Invalid(format!("{why}; nothing was imported"));
        let text: ExportText = serde_json::from_str(&import.text).map_err(|error| {
            invalid(format!(
                "the file is no export of keys (line {}: {error})",
                error.line()
            ))
        })?;
        if text.version != VERSION {
            return Err(invalid(format!(
                "the export has version {}, which is unknown",
                text.version
            )));
        }
        if text.pepper != self.pepper_name && !text.keys.is_empty() {
            return Err(invalid(
                "the digests were made under another pepper, so that no key would be valid here; copy \
                 access.pepper or set ACCESS_PEPPER to the other proxy's"
                    .to_owned(),
            ));
        }
        for key in &text.keys {
            checked(&key.check())
                .map_err(|error| so(error, &format!("key {}; nothing was imported", key.id)))?;
        }
        for (id, record) in &text.subjects {
            checked(&record.check(id))
                .map_err(|error| so(error, &format!("{id}; nothing was imported")))?;
        }
        let text = &text;
        self.change(author, "keys.import", None, || self.imported(text))
    }

    fn imported(&self, text: &ExportText) -> Result<PlannedChange<Reply>, RegistryError> {
        let (mut keys, mut subjects, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut changes, mut unchanged) = (Vec::new(), 0);
        let mut create = |subject: String, name: Option<String>| {
            changes.push(AppliedChange {
                action: "create",
                subject,
                name,
                fields: Vec::new(),
            });
        };
        for key in &text.keys {
            match self.access.key(key.id) {
                Some(existing) if existing.record() == *key => unchanged += 1,
                Some(_) => conflicts.push(format!("key {} exists with other settings", key.id)),
                None if key.revoked.is_none() && self.active_by_name(&key.name).is_some() => {
                    conflicts.push(format!("another key has the name {:?}", key.name));
                }
                None => {
                    create(format!("key:{}", key.id), Some(key.name.clone()));
                    keys.push(key.clone());
                }
            }
        }
        for (id, record) in &text.subjects {
            match self.access.subject(id) {
                Some(existing) if existing == *record => unchanged += 1,
                Some(existing) if existing != SubjectRecord::default() => {
                    conflicts.push(format!("{id} has other limits"));
                }
                _ => {
                    create(id.to_string(), None);
                    subjects.push((id.clone(), record.clone()));
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(RegistryError::Conflict(format!(
                "{}; nothing was imported",
                conflicts.join("; ")
            )));
        }
        let ids: Vec<_> = keys.iter().map(|key| key.id.to_string()).collect();
        let names: Vec<_> = subjects.iter().map(|(id, _)| id.to_string()).collect();
        Ok(PlannedChange {
            target: file(),
            before: Value::Null,
            after: json!({"keys": ids, "subjects": names}),
            keys,
            subjects,
            answer: Reply::Applied(Applied {
                dry_run: false,
                changes,
                unchanged,
                warnings: Vec::new(),
            }),
        })
    }
}
