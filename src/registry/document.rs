//! The key file, TOML: keys and limits as they are to be. All of its faults are found at once, each with its
//! line and remedy.
//!
//! ```toml
//! [org]
//! budget = "$2000/month@Europe/Berlin"
//!
//! [[team]]
//! name = "core"
//! budget = ["$500/month@Europe/Berlin", "$50/day@Europe/Berlin"]
//! rpm = 600
//! each_user = { budget = "$100/month@Europe/Berlin" }
//! limits = [{ models = "claude-opus-*", budget = "$200/month@Europe/Berlin" }]
//!
//! [[key]]
//! name = "ann-laptop"
//! key_env = "ANN_KEY"     # or id = "…" and digests = ["…"]
//! user = "ann"
//! team = "core"
//! ```

use std::collections::{BTreeMap, BTreeSet};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::FileFault,
    keys::{KeySettings, NAME, source, variable_name},
    money, shape, times,
};
use crate::access::{
    FullKey, KeyId, LimitKind, LimitRule, Pattern, Pepper, SecretRecord, SubjectId, Unreachable,
    is_name,
};

/// A key file without faults.
#[derive(Debug, Default)]
pub(super) struct KeyFile {
    pub(super) keys: Vec<FileKey>,
    pub(super) subjects: BTreeMap<SubjectId, FileSubject>,
}

/// A key of a file.
#[derive(Debug)]
pub(super) struct FileKey {
    pub(super) line: usize,
    pub(super) id: Option<KeyId>,
    pub(super) settings: KeySettings,
    /// Its secrets, if the file has them; else they stay as they are.
    pub(super) secrets: Vec<SecretRecord>,
}

/// Limits of a subject of a file.
#[derive(Debug, Default)]
pub(super) struct FileSubject {
    pub(super) line: usize,
    pub(super) limits: Vec<LimitRule>,
    pub(super) user_limits: Vec<LimitRule>,
    pub(super) upstream_key_env: Option<String>,
}

/// Reads a file. `secrets` are whole keys by the variable that has them.
pub(super) fn read(
    text: &str,
    secrets: &BTreeMap<String, String>,
    pepper: &Pepper,
    now: i64,
) -> Result<KeyFile, Vec<FileFault>> {
    let mut reader = FileReader {
        line_ends: memchr::memchr_iter(b'\n', text.as_bytes()).collect(),
        secrets,
        pepper,
        now,
        faults: Vec::new(),
        is_team_unread: false,
        is_user_unread: false,
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().trim_end().replace('\n', ", ");
        reader.fault(at, message, "see toml.io for the form of the file");
    }
    if !reader.faults.is_empty() {
        // what follows from broken text is no news
        return Err(reader.faults);
    }
    let file = reader.file(table.get_ref());
    match reader.faults.is_empty() {
        true => Ok(file),
        false => {
            reader.faults.sort();
            reader.faults.dedup();
            Err(reader.faults)
        }
    }
}

/// Names of the variables that a file refers to for whole keys, as far as it can be read.
pub fn variables(text: &str) -> BTreeSet<String> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut names = BTreeSet::new();
    let keys = table.get_ref().get("key").map(Spanned::get_ref);
    if let Some(DeValue::Array(keys)) = keys {
        for key in keys.iter() {
            if let DeValue::Table(key) = key.get_ref()
                && let Some(DeValue::String(name)) = key.get("key_env").map(Spanned::get_ref)
            {
                names.insert(name.to_string());
            }
        }
    }
    names
}

/// Fields of a limit, in each table that has limits.
const LIMIT_FIELDS: [&str; 5] = ["budget", "rpm", "input_tpm", "output_tpm", "streams"];

type Table<'a> = DeTable<'a>;
type Value<'a> = Spanned<DeValue<'a>>;

struct FileReader<'a> {
    /// Places of the ends of lines: there may be a million.
    line_ends: Vec<usize>,
    secrets: &'a BTreeMap<String, String>,
    pepper: &'a Pepper,
    now: i64,
    faults: Vec<FileFault>,
    /// True if a key has a team, or a user, that cannot be read.
    is_team_unread: bool,
    is_user_unread: bool,
}

impl FileReader<'_> {
    fn fault(&mut self, at: usize, fault: impl Into<String>, fix: impl Into<String>) {
        let line = self.line(at);
        self.faults.push(FileFault {
            line,
            fault: fault.into(),
            fix: fix.into(),
        });
    }

    fn line(&self, at: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < at)
    }

    fn file(&mut self, table: &Table<'_>) -> KeyFile {
        let mut file = KeyFile::default();
        let mut subjects: Vec<(Option<SubjectId>, usize, &Table<'_>)> = Vec::new();
        for (name, value) in table.iter() {
            let at = name.span().start;
            match name.get_ref().as_ref() {
                "org" => {
                    if let Some(org) = self.table(value, "[org]") {
                        subjects.push((Some(SubjectId::Org), at, org));
                    }
                }
                "team" => {
                    for (at, name, team) in self.named(value, "team") {
                        subjects.push((name.map(SubjectId::Team), at, team));
                    }
                }
                "user" => {
                    for (at, name, user) in self.named(value, "user") {
                        subjects.push((name.map(SubjectId::User), at, user));
                    }
                }
                // one with faults, too: others refer to its name, its team, its user
                "key" => {
                    for (at, name, key) in self.named(value, "key") {
                        let key = self.key(at, name, key);
                        file.keys.push(key);
                    }
                }
                other => self.unknown(at, other, &["org", "team", "user", "key"]),
            }
        }
        for (id, at, table) in subjects {
            let subject = self.subject(id.as_ref(), at, table);
            // its faults are found without a name, too
            let Some(id) = id else { continue };
            if file.subjects.contains_key(&id) {
                self.fault(at, format!("{id} is there twice"), "keep one of them");
            }
            file.subjects.insert(id, subject);
        }
        self.check_names(&file);
        file
    }

    /// Refuses what is there twice, and limits of subjects that no key of the file has.
    fn check_names(&mut self, file: &KeyFile) {
        let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
        let mut twice = Vec::new();
        for key in &file.keys {
            let name = Some(&key.settings.name).filter(|name| !name.is_empty());
            if let Some(line) = name.and_then(|name| names.insert(name, key.line)) {
                let fault = format!(
                    "the name {:?} is that of line {line}, too",
                    key.settings.name
                );
                twice.push((key.line, fault, "give each key a name of its own"));
            }
            if let Some(id) = key.id
                && let Some(line) = ids.insert(id, key.line)
            {
                let fault = format!("the id {id} is that of line {line}, too");
                twice.push((key.line, fault, "give each key an id of its own"));
            }
        }
        let names = |of: fn(&KeySettings) -> Option<&String>| -> BTreeSet<String> {
            let names = file
                .keys
                .iter()
                .filter_map(|key| of(&key.settings).cloned());
            names.collect()
        };
        let (teams, users) = (names(|it| it.team.as_ref()), names(|it| it.user.as_ref()));
        let (is_team_unread, is_user_unread) = (self.is_team_unread, self.is_user_unread);
        for (id, subject) in &file.subjects {
            let (what, name, known, is_unread) = match id {
                SubjectId::Team(name) => ("team", name, &teams, is_team_unread),
                SubjectId::User(name) => ("user", name, &users, is_user_unread),
                SubjectId::Org | SubjectId::Key(_) => continue,
            };
            // a key whose team cannot be read may have it
            if !known.contains(name) && !is_unread {
                self.faults.push(FileFault {
                    line: subject.line,
                    fault: format!("no key of the file has the {what} {name:?}"),
                    fix: near(name, known.iter().map(String::as_str)).map_or_else(
                        || format!("give it a key with {what} = {name:?}, or remove it"),
                        |near| format!("did you mean {near:?}?"),
                    ),
                });
            }
        }
        for (line, fault, fix) in twice {
            self.faults.push(FileFault {
                line,
                fault,
                fix: fix.to_owned(),
            });
        }
    }

    fn unknown(&mut self, at: usize, name: &str, known: &[&str]) {
        let fix = near(name, known.iter().copied()).map_or_else(
            || format!("expected one of {}", known.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        self.fault(at, format!("{name:?} is unknown"), fix);
    }

    fn table<'v, 't>(&mut self, value: &'v Value<'t>, what: &str) -> Option<&'v Table<'t>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.fault(
                    value.span().start,
                    format!("{what} is no table"),
                    "write it as a table",
                );
                None
            }
        }
    }

    /// Tables of a list, each with its place, and its name if it has one.
    fn named<'v, 't>(
        &mut self,
        value: &'v Value<'t>,
        what: &str,
    ) -> Vec<(usize, Option<String>, &'v Table<'t>)> {
        let DeValue::Array(array) = value.get_ref() else {
            let at = value.span().start;
            self.fault(
                at,
                format!("{what} is no list of tables"),
                format!("write [[{what}]]"),
            );
            return Vec::new();
        };
        let mut found = Vec::new();
        for item in array.iter() {
            let Some(table) = self.table(item, what) else {
                continue;
            };
            let at = item.span().start;
            let name = match table.get("name") {
                Some(name) => self.name(name),
                None => {
                    self.fault(at, format!("[[{what}]] has no name"), "add name = \"…\"");
                    None
                }
            };
            found.push((at, name, table));
        }
        found
    }

    fn text_of<'v>(&mut self, value: &'v Value<'_>) -> Option<&'v str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => {
                self.fault(
                    value.span().start,
                    "a text is expected",
                    "write it in quotes",
                );
                None
            }
        }
    }

    fn name(&mut self, value: &Value<'_>) -> Option<String> {
        let text = self.text_of(value)?;
        if !is_name(text) {
            self.fault(value.span().start, format!("{text:?} is no name"), NAME);
            return None;
        }
        Some(text.to_owned())
    }

    fn variable(&mut self, value: &Value<'_>) -> Option<String> {
        let text = self.text_of(value)?;
        if let Err(fault) = variable_name(text) {
            let fix = "write the name of a variable of the environment";
            self.fault(value.span().start, fault, fix);
            return None;
        }
        Some(text.to_owned())
    }

    /// A text, or a list of texts, each with its place.
    fn texts<'v>(&mut self, value: &'v Value<'_>) -> Vec<(usize, &'v str)> {
        match value.get_ref() {
            DeValue::Array(array) => {
                let items = array.iter();
                items
                    .filter_map(|item| Some((item.span().start, self.text_of(item)?)))
                    .collect()
            }
            _ => {
                let text = self.text_of(value);
                text.map(|text| (value.span().start, text))
                    .into_iter()
                    .collect()
            }
        }
    }

    fn patterns(&mut self, value: &Value<'_>) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for (at, text) in self.texts(value) {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    let fault = format!("{text:?}: {error}");
                    self.fault(at, fault, "write a pattern, as claude-opus-*");
                }
            }
        }
        patterns
    }

    /// Adds the limits of a field; false if it is none of theirs.
    fn limit(&mut self, name: &str, value: &Value<'_>, rules: &mut Vec<LimitRule>) -> bool {
        let kind = match name {
            "budget" => {
                for (at, text) in self.texts(value) {
                    match money::budget(text) {
                        Ok((kind, amount)) => self.push(at, rule(kind, amount), rules),
                        Err(fault) => {
                            self.fault(at, fault, "write it as \"$500/month@Europe/Berlin\"")
                        }
                    }
                }
                return true;
            }
            "rpm" => LimitKind::RequestsPerMinute,
            "input_tpm" => LimitKind::InputTokensPerMinute,
            "output_tpm" => LimitKind::OutputTokensPerMinute,
            "streams" => LimitKind::AtOnce,
            _ => return false,
        };
        let at = value.span().start;
        let amount = match value.get_ref() {
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                u64::from_str_radix(&digits, number.radix()).ok()
            }
            _ => None,
        };
        match amount {
            Some(amount) => self.push(at, rule(kind, amount), rules),
            None => {
                let fault = format!("{name} is no whole number of 1 or more");
                self.fault(at, fault, format!("write it as {name} = 60"));
            }
        }
        true
    }

    /// Adds a limit whose amount may be.
    fn push(&mut self, at: usize, rule: LimitRule, rules: &mut Vec<LimitRule>) {
        match shape::amount_fault(&rule) {
            None => rules.push(rule),
            Some((problem, remedy)) => {
                let text = shape::LimitShape::of(&rule).text();
                self.fault(at, format!("{text}: {problem}"), remedy);
            }
        }
    }

    /// The limits for some models: a list of tables.
    fn limits_of_models(&mut self, value: &Value<'_>, rules: &mut Vec<LimitRule>) {
        let DeValue::Array(array) = value.get_ref() else {
            let fix = "write it as limits = [{ models = \"claude-opus-*\", budget = \"$50/day\" }]";
            self.fault(value.span().start, "limits is no list of tables", fix);
            return;
        };
        for item in array.iter() {
            let Some(table) = self.table(item, "a limit") else {
                continue;
            };
            let faults = self.faults.len();
            let (mut own, mut models, mut unreachable) = (Vec::new(), None, None);
            for (name, value) in table.iter() {
                let at = name.span().start;
                match name.get_ref().as_ref() {
                    "models" => {
                        let text = self.text_of(value);
                        match text.map(str::parse::<Pattern>) {
                            Some(Ok(pattern)) => models = Some(pattern),
                            Some(Err(error)) => {
                                let fix = "write one pattern, as claude-opus-*";
                                self.fault(value.span().start, error.to_string(), fix);
                            }
                            None => {}
                        }
                    }
                    "unreachable" => {
                        unreachable = match self.text_of(value) {
                            Some("open") => Some(Unreachable::Open),
                            Some("closed") => Some(Unreachable::Closed),
                            Some(_) => {
                                let fault = "unreachable is not one of open, closed";
                                self.fault(at, fault, "write unreachable = \"closed\"");
                                None
                            }
                            None => None,
                        };
                    }
                    field if self.limit(field, value, &mut own) => {}
                    other => {
                        let known = [&LIMIT_FIELDS[..], &["models", "unreachable"]].concat();
                        self.unknown(at, other, &known);
                    }
                }
            }
            if own.is_empty() && self.faults.len() == faults {
                let fix = format!("add one of {}", LIMIT_FIELDS.join(", "));
                self.fault(item.span().start, "a limit without an amount", fix);
            }
            rules.extend(own.into_iter().map(|rule| LimitRule {
                models: models.clone(),
                unreachable,
                ..rule
            }));
        }
    }

    fn check_twice(&mut self, at: usize, rules: &[LimitRule]) {
        if let Some(twice) = shape::twice(rules) {
            let fault = format!("{twice} has another limit of the same kind, period and models");
            self.fault(at, fault, "keep one of them");
        }
    }

    fn subject(&mut self, id: Option<&SubjectId>, at: usize, table: &Table<'_>) -> FileSubject {
        // one without a name may be a team
        let is_team = matches!(id, Some(SubjectId::Team(_)) | None);
        let mut subject = FileSubject {
            line: self.line(at),
            ..FileSubject::default()
        };
        for (name, value) in table.iter() {
            match name.get_ref().as_ref() {
                "name" if id != Some(&SubjectId::Org) => {}
                "limits" => self.limits_of_models(value, &mut subject.limits),
                "each_user" if is_team => {
                    if let Some(table) = self.table(value, "each_user") {
                        self.each_user(table, &mut subject.user_limits);
                    }
                }
                "upstream_key_env" if is_team => subject.upstream_key_env = self.variable(value),
                field if self.limit(field, value, &mut subject.limits) => {}
                other => {
                    let mut known = [&LIMIT_FIELDS[..], &["limits"]].concat();
                    if is_team {
                        known.extend(["name", "each_user", "upstream_key_env"]);
                    }
                    self.unknown(name.span().start, other, &known);
                }
            }
        }
        self.check_twice(at, &subject.limits);
        self.check_twice(at, &subject.user_limits);
        subject
    }

    fn each_user(&mut self, table: &Table<'_>, rules: &mut Vec<LimitRule>) {
        for (name, value) in table.iter() {
            match name.get_ref().as_ref() {
                "limits" => self.limits_of_models(value, rules),
                field if self.limit(field, value, rules) => {}
                other => {
                    let known = [&LIMIT_FIELDS[..], &["limits"]].concat();
                    self.unknown(name.span().start, other, &known);
                }
            }
        }
    }

    /// A key, with what could be read of it. The name is empty if it has none.
    fn key(&mut self, at: usize, name: Option<String>, table: &Table<'_>) -> FileKey {
        let mut key = FileKey {
            line: self.line(at),
            id: None,
            settings: KeySettings {
                name: name.unwrap_or_default(),
                ..KeySettings::default()
            },
            secrets: Vec::new(),
        };
        let mut shown = None;
        for (field, value) in table.iter() {
            let place = value.span().start;
            match field.get_ref().as_ref() {
                "name" => {}
                "id" => match self.text_of(value).map(|text| (text, text.parse())) {
                    Some((_, Ok(id))) => key.id = Some(id),
                    Some((text, Err(_))) => self.fault(
                        place,
                        format!("{text:?} is no id of a key"),
                        "write 10 letters or digits",
                    ),
                    None => {}
                },
                "key_env" => shown = self.shown(value).map(|shown| (place, shown)),
                "digests" => key.secrets.extend(self.digests(value)),
                "user" => {
                    key.settings.user = self.name(value);
                    self.is_user_unread |= key.settings.user.is_none();
                }
                "team" => {
                    key.settings.team = self.name(value);
                    self.is_team_unread |= key.settings.team.is_none();
                }
                "models" => key.settings.models = self.patterns(value),
                "paths" => key.settings.paths = self.patterns(value),
                "sources" => {
                    for (at, text) in self.texts(value) {
                        match source(text) {
                            Ok(network) => key.settings.sources.push(network),
                            Err(fault) => self.fault(at, fault, "write it as \"10.0.0.0/8\""),
                        }
                    }
                }
                "expires" => key.settings.expires = self.expires(value),
                "upstream_key_env" => key.settings.upstream_key_env = self.variable(value),
                "limits" => self.limits_of_models(value, &mut key.settings.limits),
                "secret" | "key" => self.fault(
                    field.span().start,
                    "a secret does not belong into the file",
                    "write key_env = \"VARIABLE\", or id and digests",
                ),
                other if self.limit(other, value, &mut key.settings.limits) => {}
                other => {
                    let mut known = LIMIT_FIELDS.to_vec();
                    known.extend(["name", "id", "key_env", "digests", "user", "team", "models"]);
                    known.extend(["paths", "sources", "expires", "upstream_key_env", "limits"]);
                    self.unknown(field.span().start, other, &known);
                }
            }
        }
        if let Some((place, (id, secret))) = shown {
            if key.id.is_some_and(|other| other != id) {
                let fault = format!("the variable's key has the id {id}");
                self.fault(place, fault, "leave id out, or set the right one");
            }
            key.id = Some(id);
            key.secrets.push(secret);
        }
        if key.secrets.len() > 2 {
            self.fault(at, "a key has more than two secrets", "keep the two newest");
        }
        self.check_twice(at, &key.settings.limits);
        key
    }

    /// Id and digest of the key that a variable has.
    fn shown(&mut self, value: &Value<'_>) -> Option<(KeyId, SecretRecord)> {
        let name = self.variable(value)?;
        let at = value.span().start;
        let Some(text) = self.secrets.get(&name) else {
            let fault = format!("the variable {name} is not set where the file is applied");
            self.fault(at, fault, "set it, or write id and digests");
            return None;
        };
        let Ok(full) = text.trim().parse::<FullKey>() else {
            let fault = format!("the variable {name} holds no key of the proxy");
            self.fault(at, fault, "expected ap_…, as keys create prints it");
            return None;
        };
        Some((full.id(), self.pepper.record(&full, self.now)))
    }

    /// Digests of secrets, each with the last four characters behind a colon if they are known.
    fn digests(&mut self, value: &Value<'_>) -> Vec<SecretRecord> {
        let mut secrets = Vec::new();
        for (at, text) in self.texts(value) {
            let (digest, last4) = text.split_once(':').unwrap_or((text, "0000"));
            let is_digest = digest.len() == 64 && digest.bytes().all(|it| it.is_ascii_hexdigit());
            let is_end = last4.len() == 4 && last4.bytes().all(|it| it.is_ascii_alphanumeric());
            if !is_digest || !is_end {
                let fix = "write 64 hexadecimal digits, and the key's last four characters behind a colon";
                self.fault(at, "it is no digest of a key", fix);
                continue;
            }
            secrets.push(SecretRecord {
                digest: digest.to_ascii_lowercase(),
                last4: last4.to_owned(),
                created: self.now,
                expires: None,
            });
        }
        secrets
    }

    fn expires(&mut self, value: &Value<'_>) -> Option<i64> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(moment) => moment.to_string(),
            _ => String::new(),
        };
        let fix = "write a date (2027-03-01) or a moment (2027-03-01T12:00:00Z)";
        if times::duration(&text).is_ok() {
            let fault = "a duration would begin anew each time";
            self.fault(value.span().start, fault, fix);
            return None;
        }
        match times::moment(&text, self.now) {
            Ok(expires) => Some(expires),
            Err(_) => {
                self.fault(value.span().start, "expires is no time", fix);
                None
            }
        }
    }
}

fn rule(kind: LimitKind, amount: u64) -> LimitRule {
    LimitRule {
        kind,
        amount,
        models: None,
        unreachable: None,
    }
}

/// The known name that a mistyped one means.
fn near<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let distances = known.map(|it| (strsim::damerau_levenshtein(it, name), it));
    let near = distances.filter(|(distance, it)| *distance <= 1 + it.chars().count() / 4);
    near.min().map(|(_, near)| near)
}

#[cfg(test)]
mod tests;
