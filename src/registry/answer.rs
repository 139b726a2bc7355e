//! The one entrance of all calls: rights, what is called, and what is written down of a refusal.

use super::{
    audited::verified,
    author::{Author, Role},
    call::{Call, Change},
    core::Registry,
    error::RegistryError,
    view::{AuditFound, Reply},
};
use crate::{
    access::{id_of, without_keys},
    audit::{AuditEntry, AuditTarget, search},
};

impl Registry {
    /// Answers a call. A change that is refused is in the audit, too.
    ///
    /// # Errors
    /// The reason for which it is refused or fails.
    pub fn answer(&self, author: &Author, call: &Call) -> Result<Reply, RegistryError> {
        let answer = may(author, call.needs()).and_then(|()| self.made(author, call));
        if let Err(refusal) = &answer {
            self.note_refusal(author, call, refusal);
        }
        answer
    }

    /// Refuses a change that the author's role does not allow, before it is known whole. The refusal is in
    /// the audit.
    ///
    /// # Errors
    /// The role does not suffice.
    pub fn permit(
        &self,
        author: &Author,
        change: Change,
        target: &str,
    ) -> Result<(), RegistryError> {
        may(author, change.needs()).inspect_err(|refusal| {
            self.note(author, (change, target), None, &refused(refusal));
        })
    }

    /// Writes down a change that another room made, with its result.
    pub fn note(
        &self,
        author: &Author,
        (change, target): (Change, &str),
        reason: Option<&str>,
        result: &str,
    ) {
        let (action, kind) = change.action();
        let entry = AuditEntry {
            actor: author.actor.clone(),
            action: action.to_owned(),
            target: AuditTarget {
                kind: kind.to_owned(),
                id: bounded(target),
            },
            before: serde_json::Value::Null,
            after: serde_json::Value::Null,
            reason: reason.map(bounded),
            request_id: author.request_id.clone(),
        };
        if let Err(error) = self.audit.note(&entry, result) {
            log::error!("[Audit] {action} is not written down: {error}");
        }
    }

    fn made(&self, author: &Author, call: &Call) -> Result<Reply, RegistryError> {
        match call {
            Call::Keys(filter) => self.list(filter),
            Call::Key(key) => self.show(key),
            Call::Create(new) => self.create(author, new),
            Call::Rotate(key, terms) => self.rotate(author, key, terms),
            Call::Revoke(key, terms) => self.revoke(author, key, terms),
            Call::Apply(file) => self.apply(author, file),
            Call::Export => self.export(author),
            Call::Import(import) => self.import(author, import),
            Call::Limits(subject) => {
                let id = self.subject(subject)?;
                Ok(Reply::Limits(self.limits_of(&id)))
            }
            Call::SetLimits(subject, change) => self.set_limits(author, subject, change),
            Call::Grant(subject, grant) => self.grant(author, subject, grant),
            Call::VerifyLimits(subject) => self.verify_limits(subject.as_deref()),
            Call::Spend(by) => Ok(Reply::Spend(self.spend(*by))),
            Call::UsedLimits(most) => self.used_limits(*most),
            Call::Audit(filter) => {
                let mut filter = filter.clone();
                filter.target_ids = self.ids_of(filter.target.as_deref());
                let items = search(self.audit.directory(), &filter)?;
                Ok(Reply::Audit(AuditFound { items }))
            }
            Call::VerifyAudit => {
                let checkpoints = self.book().store.checkpoints();
                verified(&self.audit, checkpoints).map(Reply::Verified)
            }
        }
    }

    /// Ids of the keys that have a name, be they revoked: lines on their limits have the id alone. Of a whole
    /// key, its id.
    fn ids_of(&self, name: Option<&str>) -> Vec<String> {
        let Some(name) = name.map(|it| it.strip_prefix("key:").unwrap_or(it)) else {
            return Vec::new();
        };
        let mut keys = self.access.keys();
        let id = id_of(name);
        keys.retain(|key| key.name() == name || Some(key.id()) == id);
        keys.iter().map(|key| key.id().to_string()).collect()
    }

    /// Writes down a change that was refused. One that failed after its intent is written down already.
    fn note_refusal(&self, author: &Author, call: &Call, refusal: &RegistryError) {
        let Some(change) = call.change() else {
            return;
        };
        if matches!(refusal, RegistryError::Audit(_) | RegistryError::State(_)) {
            return;
        }
        let reason = match call {
            Call::Revoke(_, terms) => Some(&*terms.reason),
            Call::Grant(_, grant) => Some(&*grant.reason),
            Call::SetLimits(_, change) => change.reason.as_deref(),
            _ => None,
        };
        self.note(author, change, reason, &refused(refusal));
    }
}

/// Compares the author's role with the least one that may.
fn may(author: &Author, needs: Role) -> Result<(), RegistryError> {
    let has = author.role;
    (has >= needs)
        .then_some(())
        .ok_or(RegistryError::Forbidden { has, needs })
}

fn refused(refusal: &RegistryError) -> String {
    format!("refused: {}", bounded(&refusal.to_string()))
}

/// The beginning of a text of a client, without secrets of keys.
fn bounded(text: &str) -> String {
    const LONGEST: usize = 500;
    without_keys(text).chars().take(LONGEST).collect()
}
