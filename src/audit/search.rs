//! Lines of the chain that match, newest last.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::Path,
};

use serde_json::Value;

use super::{
    entry::{AuditActor, AuditLine, AuditTarget},
    segment,
};

/// Lines that are asked for.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Name, method or address of the author; any part of it.
    pub actor: Option<String>,
    /// The action, or its beginning up to a dot: `key`, `key.create`.
    pub action: Option<String>,
    /// The object: `type:id`, its id, or its name; also as one of those of a file.
    pub target: Option<String>,
    /// Ids of the keys that have, or had, the object's name.
    pub target_ids: Vec<String>,
    /// A text that any field has, in any case.
    pub text: Option<String>,
    /// Time (RFC 3339, UTC) of the oldest line.
    pub since: Option<String>,
    /// Upper bound of lines, the newest ones.
    pub limit: usize,
}

/// The newest lines that match, in their order. A line that cannot be read is passed over.
///
/// # Errors
/// A file cannot be read.
pub fn search(directory: &Path, filter: &AuditFilter) -> io::Result<Vec<AuditLine>> {
    let mut found = VecDeque::new();
    for (_, path) in segment::all(directory)?.iter().rev() {
        let (mut of_file, mut is_over) = (VecDeque::new(), false);
        let left = filter.limit.saturating_sub(found.len());
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let Ok(line) = serde_json::from_slice::<AuditLine>(&line?) else {
                continue;
            };
            // one format of one length: texts are compared
            if filter.since.as_ref().is_some_and(|since| line.at < *since) {
                is_over = true;
                continue;
            }
            if filter.matches(&line) {
                of_file.push_back(line);
                if of_file.len() > left {
                    of_file.pop_front();
                }
            }
        }
        of_file.extend(found);
        found = of_file;
        // files before this one are older
        if is_over || found.len() >= filter.limit {
            break;
        }
    }
    Ok(found.into())
}

impl AuditFilter {
    fn matches(&self, line: &AuditLine) -> bool {
        let is_actor = self.actor.as_ref().is_none_or(|actor| {
            let it = &line.actor;
            it.id.contains(actor.as_str())
                || it.kind.label() == actor
                || it.ip.as_ref().is_some_and(|ip| ip == actor)
        });
        let is_action = self.action.as_ref().is_none_or(|action| {
            let rest = line.action.strip_prefix(action.trim_end_matches(".*"));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        is_actor
            && is_action
            && self.matches_target(line)
            && self
                .text
                .as_ref()
                .is_none_or(|text| has_text(line, &text.to_lowercase()))
    }

    fn matches_target(&self, line: &AuditLine) -> bool {
        let Some(asked) = &self.target else {
            return true;
        };
        let objects = objects(line);
        let mut objects = objects.iter();
        objects.any(|object| object == asked || self.target_ids.contains(object))
    }
}

/// Names of the objects that a line is about: of its target, and of all that a file changed.
fn objects(line: &AuditLine) -> Vec<String> {
    let AuditTarget { kind, id } = &line.target;
    let mut found = vec![id.clone(), format!("{kind}:{id}")];
    let mut add = |subject: &str, name: Option<&str>| {
        found.push(subject.to_owned());
        if let Some(id) = subject.strip_prefix("key:") {
            found.push(id.to_owned());
            found.extend(name.map(str::to_owned));
            found.extend(name.map(|name| format!("key:{name}")));
        }
    };
    let subject = match kind.as_str() {
        "key" => format!("key:{id}"),
        _ => id.clone(),
    };
    for value in [&line.before, &line.after] {
        add(&subject, value["name"].as_str());
    }
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten();
        texts.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    // of a key file, and of an import
    for change in line.after.as_array().into_iter().flatten() {
        add(
            change["subject"].as_str().unwrap_or_default(),
            change["name"].as_str(),
        );
    }
    for id in texts(&line.after["keys"]) {
        add(&format!("key:{id}"), None);
    }
    for subject in texts(&line.after["subjects"]) {
        add(&subject, None);
    }
    found
}

/// Reports whether a field of a line has a text, which is in lower case.
fn has_text(line: &AuditLine, text: &str) -> bool {
    let has = |field: &str| field.to_lowercase().contains(text);
    let AuditActor { kind, id, ip, ua } = &line.actor;
    let fields = [
        Some(id.as_str()),
        Some(kind.label()),
        ip.as_deref(),
        ua.as_deref(),
        Some(&line.action),
        Some(&line.target.id),
        line.reason.as_deref(),
        Some(&line.request_id),
        Some(&line.result),
    ];
    fields.into_iter().flatten().any(has)
        || has_value(&line.before, text)
        || has_value(&line.after, text)
}

fn has_value(value: &Value, text: &str) -> bool {
    match value {
        Value::String(it) => it.to_lowercase().contains(text),
        Value::Number(number) => number.to_string().contains(text),
        Value::Array(items) => items.iter().any(|it| has_value(it, text)),
        Value::Object(fields) => fields.values().any(|it| has_value(it, text)),
        Value::Null | Value::Bool(_) => false,
    }
}
