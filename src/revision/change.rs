//! A change of the file, from what the author wants to what is in effect: the one way of all.

use std::{
    collections::{BTreeSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    error::RevisionError,
    file::{self, FileWriteError},
    history::{History, HistoryEntry, PastRevision},
};
use crate::{
    audit::{AuditActor, AuditEntry, AuditLog, AuditTarget, ChangeError},
    config::{
        Config, ConfigSource, Loaded,
        env::{self, Applies, Redaction},
        envdiff::{self, DiffLine},
        envtext, is_guarded,
        reload::{ReloadFault, ReloadHandle},
    },
};

/// Texts that are remembered, so that an author sees what changed meanwhile.
const REMEMBERED: usize = 8;

/// Bytes of them.
const LARGEST_REMEMBERED: usize = 256 * 1024;

/// Checks beyond those of the configuration: files that it names.
pub type FurtherChecks = Box<dyn Fn(&Config) -> Result<(), String> + Send + Sync>;

/// The file, and what judges and takes it.
pub struct Editor {
    source: ConfigSource,
    checks: FurtherChecks,
    /// The running server's reload; none where no server is known.
    reload: Option<ReloadHandle>,
    /// A version is a code under it: a digest would let a reader guess at secrets.
    key: hmac::Key,
    seen: Mutex<VecDeque<(String, Arc<str>)>>,
}

/// A variable, and the value that it is to have; none unsets it. The value may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: Option<String>,
}

/// State that is asked for.
#[derive(Clone)]
pub enum Wanted {
    /// Some variables with other values.
    Values(Vec<Assignment>),
    /// The file as it was before a change, or before the last one.
    Before(Option<u64>),
    /// This text.
    Text(String),
}

/// A change that is asked for.
#[derive(Clone)]
pub struct RevisionRequest {
    /// State that is asked for.
    pub wanted: Wanted,
    /// The reason.
    pub reason: Option<String>,
    /// The version that the author saw, if it must be the one that is changed.
    pub expected: Option<String>,
    /// Shows what would change, and changes nothing.
    pub is_dry_run: bool,
    /// Makes a file where there is none and none is known to have been.
    pub may_create: bool,
    /// Takes back edits by hand that were made since, too.
    pub takes_hand_edits: bool,
}

/// The author of a change, and where it is written down.
#[derive(Clone, Copy)]
pub struct RevisionAuthor<'a> {
    /// The author.
    pub actor: &'a AuditActor,
    /// Name of the request.
    pub request_id: &'a str,
    /// The audit; none where there is no place for one.
    pub audit: Option<&'a AuditLog>,
}

/// Result of a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct RevisionResult {
    /// State of the change.
    pub applied: RevisionState,
    /// Its number in the history; null if the file is as it was.
    pub id: Option<u64>,
    /// The version of the file after it.
    #[cfg_attr(test, schema(example = "5f0c1a9be2d47763"))]
    pub version: String,
    /// The variables that differ.
    pub changed: Vec<VariableChange>,
    /// The lines that differ, with secrets masked.
    pub diff: Vec<DiffLine>,
    /// Settings that are probably unintended.
    pub warnings: Vec<String>,
    /// Variables whose change waits for a restart.
    pub pending_restart: Vec<String>,
}

/// State of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RevisionState {
    /// The file has it already.
    Unchanged,
    /// It was only shown.
    Shown,
    /// It is in the file; no server told that it is in effect.
    Written,
    /// It is in the file, and the running server has taken it.
    InEffect,
}

/// A variable that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct VariableChange {
    /// Its name.
    pub name: String,
    /// The value in the file before, as it may be shown; null for none.
    pub before: Option<String>,
    /// The value in the file after, as it may be shown; null for none.
    pub after: Option<String>,
}

/// The file as it is now.
#[derive(Debug, Clone)]
pub struct ConfigView {
    /// The file.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
    /// The reason for which it cannot be changed, if there is one.
    pub read_only: Option<String>,
    /// Names that it sets.
    pub names: Vec<String>,
}

impl Editor {
    /// The file of a source. `reload` is the running server's.
    pub fn new(source: ConfigSource, checks: FurtherChecks, reload: Option<ReloadHandle>) -> Self {
        let mut secret = [0; 32];
        // without random octets a version is still a version
        let _ = SystemRandom::new().fill(&mut secret);
        Self {
            source,
            checks,
            reload,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            seen: Mutex::default(),
        }
    }

    /// The file, whether or not it exists.
    pub fn path(&self) -> PathBuf {
        self.source.env_file()
    }

    /// The file as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn view(&self) -> Result<ConfigView, RevisionError> {
        let path = self.source.env_file();
        let text = self.text()?;
        Ok(ConfigView {
            version: self.version(&text),
            read_only: file::check_writable(&path).err().map(|it| it.to_string()),
            names: envtext::values(&text)
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
            path,
        })
    }

    /// The changes that are kept, newest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn history(&self) -> Result<Vec<HistoryEntry>, RevisionError> {
        let all = self.kept().all();
        let all = all.map_err(|error| self.unreadable(error))?;
        Ok(all.iter().map(HistoryEntry::from).collect())
    }

    /// The difference between the file before a change, or before the last one, and the file now.
    ///
    /// # Errors
    /// There is no such change, or the file cannot be read.
    pub fn since(&self, id: Option<u64>) -> Result<(HistoryEntry, Vec<DiffLine>), RevisionError> {
        let past = self.past(id)?;
        let diff = envdiff::difference(&past.before, &self.text()?);
        Ok((HistoryEntry::from(&past), diff))
    }

    /// Makes a change: judged, written down, written, and taken by the running server, or undone.
    ///
    /// # Errors
    /// The reason for which the file is what it was.
    pub fn apply(
        &self,
        request: &RevisionRequest,
        author: RevisionAuthor<'_>,
    ) -> Result<RevisionResult, RevisionError> {
        if request.is_dry_run {
            return self.plan(request).map(|plan| plan.result);
        }
        let path = self.source.env_file();
        // before the lock, whose folder is made where it is missing
        if let Err(error) = self.check_presence(request) {
            self.note_refusal(request, author, &error);
            return Err(error);
        }
        let lock = match file::check_writable(&path) {
            Ok(()) => self.kept().lock(),
            Err(fault) => Err(fault),
        };
        let planned = match lock {
            Ok(lock) => self.plan(request).map(|plan| (plan, lock)),
            // what is asked for comes first: a fault of it is one anywhere
            Err(fault) => match self.plan(request) {
                Ok(plan) if plan.result.applied == RevisionState::Unchanged => {
                    return Ok(plan.result);
                }
                Ok(plan) => Err(read_only(fault, &plan.after, &plan.result)),
                Err(error) => Err(error),
            },
        };
        let (plan, _lock) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                self.note_refusal(request, author, &error);
                return Err(error);
            }
        };
        if plan.result.applied == RevisionState::Unchanged {
            return Ok(plan.result);
        }
        let entry = self.entry(request, author, &plan.result.changed);
        let make = || self.made(&plan, request, author);
        let made = match author.audit {
            Some(audit) => audit.change(&entry, make),
            None => make().map_err(ChangeError::Failed),
        };
        match made {
            Ok(made) => {
                log::info!(
                    "[Config] {} changed by {}: {}",
                    path.display(),
                    name_of(author.actor),
                    names(&plan.result.changed).join(", ")
                );
                Ok(made)
            }
            Err(ChangeError::Unaudited(error)) => Err(error.into()),
            Err(ChangeError::Failed(error)) => Err(error),
        }
    }

    /// Computes a change, and judges it.
    fn plan(&self, request: &RevisionRequest) -> Result<PlannedRevision, RevisionError> {
        let before = self.text()?;
        let version = self.version(&before);
        if let Some(expected) = &request.expected
            && *expected != version
        {
            return Err(RevisionError::Stale {
                diff: self
                    .remembered(expected)
                    .map(|text| envdiff::difference(&text, &before)),
                version,
            });
        }
        self.check_presence(request)?;
        let hand_edit = self.hand_edit(&request.wanted, &before)?;
        if let Some((id, diff)) = &hand_edit
            && !(request.is_dry_run || request.takes_hand_edits)
        {
            return Err(RevisionError::HandEdited {
                id: *id,
                diff: diff.clone(),
            });
        }
        let (after, emptied) = self.wanted(&before, &request.wanted)?;
        let changed = variables(&before, &after);
        let is_unchanged = before.trim_end() == after.trim_end();
        let loaded = match is_unchanged {
            true => None,
            false => Some(self.judge(&after)?),
        };
        let mut warnings = Vec::new();
        if let Some(loaded) = &loaded {
            let names: BTreeSet<&str> = changed.iter().map(|it| &*it.name).collect();
            let found = loaded.warnings.iter();
            let ours = found.filter(|warning| names.contains(&*warning.variable));
            warnings.extend(ours.map(ToString::to_string));
        }
        if let Some((id, _)) = hand_edit {
            warnings.push(format!(
                "the file was changed by hand after change {id}: that is taken back, too"
            ));
        }
        if !emptied.is_empty() {
            warnings.push(format!(
                "{} stays as an empty line, which unsets it: a running server takes a missing line for a damaged file",
                emptied.join(", ")
            ));
        }
        let waits = |name: &str| {
            let variable = env::variable(name);
            if variable.is_none_or(|it| it.applies != Applies::Restart) {
                return false;
            }
            // back to the value that is in effect, nothing waits
            match (&self.reload, &loaded) {
                (Some(reload), Some(loaded)) => {
                    let mut settings = loaded.settings.iter();
                    let next = settings.find(|setting| setting.variable.name == name);
                    next.is_none_or(|next| reload.is_other(next))
                }
                _ => true,
            }
        };
        Ok(PlannedRevision {
            result: RevisionResult {
                applied: match is_unchanged {
                    true => RevisionState::Unchanged,
                    false => RevisionState::Shown,
                },
                id: None,
                version,
                diff: envdiff::difference(&before, &after),
                warnings,
                pending_restart: names(&changed).into_iter().filter(|it| waits(it)).collect(),
                changed,
            },
            before,
            after,
        })
    }

    /// Checks that a file is there, unless one may be made: a file of one change would be all that the next start
    /// reads.
    fn check_presence(&self, request: &RevisionRequest) -> Result<(), RevisionError> {
        let path = self.source.env_file();
        if std::fs::symlink_metadata(&path).is_ok() {
            return Ok(());
        }
        let path = std::path::absolute(&path).unwrap_or(path);
        let had = self.reload.as_ref().map(ReloadHandle::settings_of_file);
        let last = self.kept().last();
        let last = last.map_err(|error| self.unreadable(error))?;
        match (&request.wanted, last, had) {
            (Wanted::Text(_), ..) => Ok(()),
            (Wanted::Before(id), ..) => self.past(*id).map(drop),
            (Wanted::Values(_), Some(last), _) => Err(RevisionError::Gone { path, id: last.id }),
            (Wanted::Values(_), None, Some(count @ 1..)) => {
                Err(RevisionError::Lost { path, count })
            }
            (Wanted::Values(_), None, Some(0)) => Ok(()),
            (Wanted::Values(_), None, None) => match request.may_create {
                true => Ok(()),
                false => Err(RevisionError::NoFile(path)),
            },
        }
    }

    /// The first change after which the file was changed by hand, of those that a return takes back, and the lines
    /// that the hand changed. A file that is gone is no edit.
    fn hand_edit(
        &self,
        wanted: &Wanted,
        now: &str,
    ) -> Result<Option<(u64, Vec<DiffLine>)>, RevisionError> {
        let Wanted::Before(id) = wanted else {
            return Ok(None);
        };
        let kept = self.kept().all();
        let kept = kept.map_err(|error| self.unreadable(error))?;
        let target = id.or_else(|| kept.first().map(|last| last.id));
        let mut later = match self.source.env_file().exists() {
            true => Some(now),
            false => None,
        };
        let mut found = None;
        for past in kept.iter().take_while(|past| Some(past.id) >= target) {
            if let (Some(after), Some(later)) = (&past.after, later)
                && after.trim_end() != later.trim_end()
            {
                found = Some((past.id, envdiff::difference(after, later)));
            }
            later = Some(&past.before);
        }
        Ok(found)
    }

    /// The text that is asked for, and the variables of which an empty line stays.
    fn wanted(
        &self,
        before: &str,
        wanted: &Wanted,
    ) -> Result<(String, Vec<String>), RevisionError> {
        let text = match wanted {
            Wanted::Text(text) => text.clone(),
            // the file is gone: that is what was done last
            Wanted::Before(None) if !self.source.env_file().exists() => {
                let last = self.past(None)?;
                last.after.unwrap_or(last.before)
            }
            Wanted::Before(id) => self.past(*id)?.before,
            Wanted::Values(assignments) => {
                let mut text = before.to_owned();
                for Assignment { name, value } in assignments {
                    if env::variable(name).is_none() {
                        return Err(RevisionError::Unknown {
                            name: name.chars().filter(|c| !c.is_control()).take(64).collect(),
                            nearest: env::nearest(name),
                        });
                    }
                    let value = value.as_deref().filter(|value| !value.is_empty());
                    text = match value {
                        Some(value) => envtext::with_value(&text, name, value)
                            .map_err(|_| RevisionError::Unwritable(name.clone()))?,
                        None if is_guarded(name) => envtext::cleared(&text, name),
                        None => envtext::without(&text, name),
                    };
                }
                text
            }
        };
        Ok(explicit(before, text))
    }

    /// Judges a text as `check` does, and as a reload would.
    fn judge(&self, text: &str) -> Result<Loaded, RevisionError> {
        let proposed = self.source.proposing(text);
        let loaded = proposed.load().map_err(RevisionError::Invalid)?;
        (self.checks)(&loaded.config).map_err(RevisionError::Faulty)?;
        if self.reload.is_some()
            && let Ok(last) = self.source.load()
        {
            proposed.load_after(&last).map_err(RevisionError::Invalid)?;
        }
        Ok(loaded)
    }

    /// Writes what was planned, and has the server take it.
    fn made(
        &self,
        plan: &PlannedRevision,
        request: &RevisionRequest,
        author: RevisionAuthor<'_>,
    ) -> Result<RevisionResult, RevisionError> {
        let path = self.source.env_file();
        let kept = self.kept();
        let existed = path.exists();
        let id = kept.add(PastRevision {
            id: 0,
            at: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            actor: name_of(author.actor),
            changed: names(&plan.result.changed),
            reason: request.reason.clone(),
            before: plan.before.clone(),
            after: Some(plan.after.clone()),
        })?;
        if let Err(fault) = file::write_whole(&path, &plan.after) {
            kept.remove(id);
            return Err(match fault {
                FileWriteError::ReadOnly { .. } => read_only(fault, &plan.after, &plan.result),
                FileWriteError::Io(..) => RevisionError::Write(fault),
            });
        }
        let mut result = RevisionResult {
            id: Some(id),
            version: self.version(&plan.after),
            applied: RevisionState::Written,
            ..plan.result.clone()
        };
        let outcome = self.reload.as_ref().map(ReloadHandle::reload);
        match outcome {
            None => {}
            Some(Ok(())) => result.applied = RevisionState::InEffect,
            Some(Err(fault @ ReloadFault::NoOutcome)) => {
                result.warnings.push(fault.to_string());
            }
            Some(Err(ReloadFault::Refused(faults))) => {
                let restored = match existed {
                    true => file::write_whole(&path, &plan.before).is_ok(),
                    false => std::fs::remove_file(&path).is_ok(),
                };
                if restored {
                    kept.remove(id);
                    // what was in effect before still is
                    let _ = self.reload.as_ref().map(ReloadHandle::reload);
                }
                return Err(RevisionError::Refused {
                    faults: faults.to_string(),
                    is_restored: restored,
                });
            }
        }
        Ok(result)
    }

    /// Writes down a change that was refused.
    fn note_refusal(
        &self,
        request: &RevisionRequest,
        author: RevisionAuthor<'_>,
        error: &RevisionError,
    ) {
        let Some(audit) = author.audit else {
            return;
        };
        let mut entry = self.entry(request, author, &[]);
        if let Wanted::Values(assignments) = &request.wanted {
            let names = assignments.iter().map(|it| it.name.chars().take(64));
            let names = names.map(|name| Value::String(name.collect()));
            entry.after = Value::Array(names.take(64).collect());
        }
        // texts of values are in none of them, but for masked ones
        let why: String = error.to_string().chars().take(500).collect();
        if let Err(error) = audit.note(&entry, &format!("refused: {why}")) {
            log::error!("[Audit] {} is not written down: {error}", entry.action);
        }
    }

    fn entry(
        &self,
        request: &RevisionRequest,
        author: RevisionAuthor<'_>,
        changed: &[VariableChange],
    ) -> AuditEntry {
        let of = |value: fn(&VariableChange) -> &Option<String>| {
            let pairs = changed.iter().map(|change| {
                let value = value(change).clone().map_or(Value::Null, Value::String);
                (change.name.clone(), value)
            });
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        AuditEntry {
            actor: author.actor.clone(),
            action: match request.wanted {
                Wanted::Before(_) => "config.rollback",
                Wanted::Values(_) | Wanted::Text(_) => "config.set",
            }
            .to_owned(),
            target: AuditTarget {
                kind: "file".to_owned(),
                id: self.source.env_file().display().to_string(),
            },
            before: of(|change| &change.before),
            after: of(|change| &change.after),
            reason: request.reason.clone(),
            request_id: author.request_id.to_owned(),
        }
    }

    fn text(&self) -> Result<String, RevisionError> {
        file::read(&self.source.env_file()).map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, error: std::io::Error) -> RevisionError {
        RevisionError::Unreadable(self.source.env_file().display().to_string(), error)
    }

    fn kept(&self) -> History {
        History::of(&self.source.env_file())
    }

    fn past(&self, id: Option<u64>) -> Result<PastRevision, RevisionError> {
        match id {
            Some(id) => self.kept().one(id).ok_or(RevisionError::NoSuchRevision(id)),
            None => {
                let last = self.kept().last();
                let last = last.map_err(|error| self.unreadable(error))?;
                last.ok_or(RevisionError::NoHistory)
            }
        }
    }

    /// The version of a text, which is remembered.
    fn version(&self, text: &str) -> String {
        let code = hmac::sign(&self.key, text.as_bytes());
        let octets = code.as_ref().iter().take(8);
        let version: String = octets.map(|octet| format!("{octet:02x}")).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(other, _)| *other != version);
        if text.len() <= LARGEST_REMEMBERED {
            seen.push_back((version.clone(), text.into()));
        }
        if seen.len() > REMEMBERED {
            seen.pop_front();
        }
        version
    }

    fn remembered(&self, version: &str) -> Option<Arc<str>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = seen.iter().find(|(other, _)| other == version);
        found.map(|(_, text)| Arc::clone(text))
    }
}

/// The text with an empty line for each variable whose loss a reload would take for a damage: for those that
/// guard traffic and keys, and for all where no setting is left. Gives the text, and their names.
fn explicit(before: &str, mut text: String) -> (String, Vec<String>) {
    let left = envtext::values(&text);
    let mut emptied = Vec::new();
    for (name, _) in envtext::values(before) {
        let is_lost = !left.iter().any(|(other, _)| *other == name);
        if is_lost && (is_guarded(&name) || left.is_empty()) && !envtext::names(&text, &name) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("{name}=\n"));
            emptied.push(name);
        }
    }
    (text, emptied)
}

/// A change that was judged.
struct PlannedRevision {
    before: String,
    after: String,
    result: RevisionResult,
}

fn names(changed: &[VariableChange]) -> Vec<String> {
    changed.iter().map(|change| change.name.clone()).collect()
}

fn name_of(actor: &AuditActor) -> String {
    format!("{} {}", actor.kind.label(), actor.id)
        .trim_end()
        .to_owned()
}

/// The variables that two texts set differently.
fn variables(before: &str, after: &str) -> Vec<VariableChange> {
    let (before, after) = (envtext::values(before), envtext::values(after));
    let value = |values: &[(String, String)], name: &str| {
        let found = values.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone())
    };
    let all: BTreeSet<&String> = before.iter().chain(&after).map(|(name, _)| name).collect();
    let mut changed = Vec::new();
    for name in all {
        let (old, new) = (value(&before, name), value(&after, name));
        if old != new {
            let shown =
                |value: Option<String>| value.map(|value| envdiff::shown_value(name, &value));
            changed.push(VariableChange {
                name: name.clone(),
                before: shown(old),
                after: shown(new),
            });
        }
    }
    changed
}

/// The refusal of a place that takes no change, with the lines to write elsewhere.
fn read_only(fault: FileWriteError, after: &str, result: &RevisionResult) -> RevisionError {
    let values = envtext::values(after);
    let line = |change: &VariableChange| {
        let name = &change.name;
        let is_shown = env::variable(name).is_some_and(|it| it.shown == Redaction::Plainly);
        let value = values.iter().find(|(other, _)| other == name);
        match value {
            None => format!("{name}="),
            Some((_, value)) if is_shown => envtext::with_value("", name, value)
                .map(|line| line.trim_end().to_owned())
                .unwrap_or_default(),
            Some(_) => format!("{name}=(the value that you entered)"),
        }
    };
    RevisionError::ReadOnly {
        fault,
        lines: result.changed.iter().map(line).collect(),
    }
}

#[cfg(test)]
mod tests;
