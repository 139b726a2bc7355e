//! `config`: reads and changes the configuration file, by the running server or on the file itself.
//!
//! The server is asked by the socket in `DATA_DIR` or by its URL, so that a change is in effect when the verb
//! ends, or undone. Where none is found, the file is changed, and a server that reads it takes it within a
//! second. Secrets go in and never out.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::{self, Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::{
    client::{ApiAnswer, ApiClient},
    desk::{self, Reach, VerbError, finish, print_json},
    output::{complain, say},
    table::{cell, table},
};
use crate::{
    audit::{AUDIT_FOLDER, AuditLog},
    config::{
        AccessMode, ConfigSource, Setting,
        env::{self, Redaction},
    },
    registry::Author,
    revision::{
        Assignment, Editor, RevisionAuthor, RevisionError, RevisionRequest, RevisionResult, Wanted,
    },
    server,
};

/// Bytes of a value from standard input.
const LARGEST_VALUE: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Show settings in effect, secrets by their length; without a name, all that are set
    Get {
        /// Their names
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Also show those that are not set
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Set variables of the file; without a value, it is asked for (a secret unseen) or read from standard input
    Set {
        /// Names, with their values or without
        #[arg(value_name = "NAME[=VALUE]", required = true)]
        pairs: Vec<String>,
        /// Make the file, and its folder, where there is none
        #[arg(long)]
        create: bool,
        #[command(flatten)]
        how: HowToChange,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take variables out of the file, so that the default counts
    Unset {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        how: HowToChange,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show what differs between the file before a change and now
    Diff {
        /// The change [default: the last one]
        #[arg(value_name = "ID")]
        id: Option<u64>,
        #[command(flatten)]
        reach: Reach,
    },
    /// List the changes that are kept
    History {
        #[command(flatten)]
        reach: Reach,
    },
    /// Bring the file back to what it was before a change; one that is gone, to what it was last
    Rollback {
        /// The change [default: the last one]
        #[arg(value_name = "ID")]
        id: Option<u64>,
        /// Also take back what was changed by hand since
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: HowToChange,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Options of a change.
#[derive(Debug, Default, clap::Args)]
pub(super) struct HowToChange {
    /// The reason, for the audit and the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl HowToChange {
    fn request(self, wanted: Wanted) -> RevisionRequest {
        RevisionRequest {
            wanted,
            reason: self.reason,
            expected: None,
            is_dry_run: self.dry_run,
            may_create: false,
            takes_hand_edits: false,
        }
    }
}

impl ConfigVerb {
    /// Options of the verb.
    pub(super) fn reach(&mut self) -> &mut Reach {
        match self {
            Self::Get { reach, .. }
            | Self::Set { reach, .. }
            | Self::Unset { reach, .. }
            | Self::Diff { reach, .. }
            | Self::History { reach }
            | Self::Rollback { reach, .. } => reach,
        }
    }
}

pub(super) fn run(verb: ConfigVerb) -> ExitCode {
    finish(done(verb))
}

fn done(verb: ConfigVerb) -> Result<ExitCode, VerbError> {
    match verb {
        ConfigVerb::Get { names, all, reach } => get(&names, all, &reach),
        ConfigVerb::Set {
            pairs,
            create,
            how,
            reach,
        } => {
            known(&pairs)?;
            let assignments = pairs.iter().map(|pair| assignment(pair));
            let wanted = Wanted::Values(assignments.collect::<Result<_, _>>()?);
            let asked = RevisionRequest {
                may_create: create,
                ..how.request(wanted)
            };
            change(asked, &reach)
        }
        ConfigVerb::Unset { names, how, reach } => {
            let assignments = names
                .into_iter()
                .map(|name| Assignment { name, value: None });
            change(how.request(Wanted::Values(assignments.collect())), &reach)
        }
        ConfigVerb::Diff { id, reach } => {
            let answer = Place::of(&reach)?.since(id)?;
            if reach.json {
                return Ok(print_json(&answer));
            }
            let mut out = format!(
                "since before change {} ({}, {}):\n",
                answer["entry"]["id"],
                cell(&answer["entry"]["at"]),
                cell(&answer["entry"]["actor"])
            );
            out += &diff_text(&answer["diff"]);
            Ok(say(out.as_bytes()))
        }
        ConfigVerb::History { reach } => {
            let answer = Place::of(&reach)?.history()?;
            if reach.json {
                return Ok(print_json(&answer));
            }
            let rows = answer["items"].as_array().into_iter().flatten().map(|row| {
                ["id", "at", "actor", "changed", "reason"]
                    .map(|name| cell(&row[name]))
                    .to_vec()
            });
            let rows: Vec<_> = rows.collect();
            Ok(say(
                table(&["ID", "AT", "BY", "CHANGED", "REASON"], &rows).as_bytes()
            ))
        }
        ConfigVerb::Rollback {
            id,
            force,
            how,
            reach,
        } => {
            let asked = RevisionRequest {
                takes_hand_edits: force,
                ..how.request(Wanted::Before(id))
            };
            change(asked, &reach)
        }
    }
}

/// Judges the names of all pairs, before a value is asked for.
fn known(pairs: &[String]) -> Result<(), VerbError> {
    let mut before: Option<&str> = None;
    for pair in pairs {
        let name = pair.split_once('=').map_or(&**pair, |(name, _)| name);
        if env::variable(name).is_none() {
            // a space in place of the `=`
            let value = before.filter(|_| !pair.contains('='));
            return Err(VerbError::Usage(match value {
                Some(before) if is_secret(before) => format!(
                    "there is a value after {before}; `config set {before}` alone asks for it unseen"
                ),
                Some(before) => {
                    let value: String = pair.chars().filter(|c| !c.is_control()).collect();
                    format!("{value} is no setting; did you mean {before}={value}?")
                }
                None => RevisionError::Unknown {
                    name: name.to_owned(),
                    nearest: env::nearest(name),
                }
                .to_string(),
            }));
        }
        before = (!pair.contains('=')).then_some(&**pair);
    }
    Ok(())
}

/// Reports that values of a variable are never shown.
fn is_secret(name: &str) -> bool {
    env::variable(name).is_some_and(|it| it.shown == Redaction::AsLength)
}

/// A pair of the command line, or a name whose value is asked for: unseen, if it is a secret.
fn assignment(pair: &str) -> Result<Assignment, VerbError> {
    if let Some((name, value)) = pair.split_once('=') {
        if is_secret(name) && !value.is_empty() {
            complain(&format_args!(
                "warning: the value of {name} is in the history of the shell now; `config set {name}` asks for it unseen"
            ));
        }
        return Ok(Assignment {
            name: name.to_owned(),
            value: Some(value.to_owned()),
        });
    }
    let failed =
        |error: &dyn std::fmt::Display| VerbError::Usage(format!("{pair}: no value: {error}"));
    let value = match io::stdin().is_terminal() {
        true => {
            let question = format!("Value of {pair}");
            let answer = match is_secret(pair) {
                true => inquire::Password::new(&question)
                    .without_confirmation()
                    .with_display_mode(inquire::PasswordDisplayMode::Hidden)
                    .prompt(),
                false => inquire::Text::new(&question).prompt(),
            };
            answer.map_err(|error| failed(&error))?
        }
        false => {
            let mut text = String::new();
            let mut input = io::stdin().lock().take(LARGEST_VALUE);
            input
                .read_to_string(&mut text)
                .map_err(|error| failed(&error))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    if value.is_empty() {
        return Err(failed(&"it is empty; `config unset` takes a variable out"));
    }
    Ok(Assignment {
        name: pair.to_owned(),
        value: Some(value),
    })
}

fn get(names: &[String], all: bool, reach: &Reach) -> Result<ExitCode, VerbError> {
    for name in names {
        if env::variable(name).is_none() {
            return Err(VerbError::Usage(
                RevisionError::Unknown {
                    name: name.clone(),
                    nearest: env::nearest(name),
                }
                .to_string(),
            ));
        }
    }
    let place = Place::of(reach)?;
    if let Place::File(desk) = &place {
        let path = absolute(&desk.editor.path());
        if !path.exists() {
            complain(&format_args!(
                "no server was found, and {} does not exist: this is what the environment and the defaults say; run \
                 this in the folder of the server, or give --data-dir or --env-file",
                path.display()
            ));
        }
    }
    let answer = place.settings()?;
    let rows = answer["settings"].as_array().cloned().unwrap_or_default();
    let is_wanted = |row: &&Value| match names.is_empty() {
        true => all || row["origin"] != "default",
        false => names.iter().any(|name| row["name"] == **name),
    };
    let rows: Vec<&Value> = rows.iter().filter(is_wanted).collect();
    if reach.json {
        let members = ["name", "value", "next", "origin", "applies"];
        let row = |row: &&Value| -> Value {
            let pairs = members
                .iter()
                .map(|name| ((*name).to_owned(), row[*name].clone()));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        return Ok(print_json(
            &json!({ "settings": rows.iter().map(row).collect::<Vec<_>>() }),
        ));
    }
    if let ([_], [row]) = (names, &rows[..]) {
        return Ok(match row["value"].as_str() {
            Some(value) => say(format!("{value}\n").as_bytes()),
            None => {
                complain(&format_args!("{} is not set", cell(&row["name"])));
                ExitCode::FAILURE
            }
        });
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let waits = match row["next"].as_str() {
                Some(next) => format!(" (after a restart: {next})"),
                None => String::new(),
            };
            let value = row["value"]
                .as_str()
                .unwrap_or("(unset)")
                .escape_debug()
                .to_string();
            vec![
                cell(&row["name"]),
                value,
                format!("{}{waits}", cell(&row["origin"])),
            ]
        })
        .collect();
    Ok(say(table(&["NAME", "VALUE", "FROM"], &rows).as_bytes()))
}

fn change(asked: RevisionRequest, reach: &Reach) -> Result<ExitCode, VerbError> {
    let place = Place::of(reach)?;
    let (answer, path) = place.change(asked)?;
    if reach.json {
        return Ok(print_json(&answer));
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        complain(&format_args!("warning: {}", cell(warning)));
    }
    let out = diff_text(&answer["diff"]) + &outcome(&answer, &path);
    Ok(say(out.as_bytes()))
}

/// The outcome of a change in one sentence: what is in effect, and what waits for a restart.
fn outcome(answer: &Value, path: &str) -> String {
    let count = |name: &str| answer[name].as_array().map_or(0, Vec::len);
    let waiting = cell(&answer["pending_restart"]);
    let waits = match (count("pending_restart"), count("changed")) {
        (0, _) => Waits::Nothing,
        (some, all) if some < all => Waits::Some,
        _ => Waits::All,
    };
    let id = &answer["id"];
    match (answer["applied"].as_str(), waits) {
        (Some("unchanged"), _) => format!("{path} has it already: nothing was changed\n"),
        (Some("shown"), Waits::Nothing) => format!("nothing was changed in {path}\n"),
        (Some("shown"), _) => {
            format!("nothing was changed in {path}; {waiting} would need a restart\n")
        }
        (Some("in_effect"), Waits::Nothing) => format!("change {id}: in effect, from {path}\n"),
        (Some("in_effect"), Waits::Some) => {
            format!(
                "change {id}: in effect, from {path}; restart the proxy to apply {waiting}, too\n"
            )
        }
        (_, Waits::All) => {
            format!("change {id}: written to {path}; restart the proxy to apply {waiting}\n")
        }
        (_, waits) => {
            let also = match waits {
                Waits::Some => format!("; {waiting} needs a restart of it"),
                _ => String::new(),
            };
            format!(
                "change {id}: written to {path}; a server that reads this file takes it within a second, and its log \
                 says so{also}\n"
            )
        }
    }
}

/// Part of a change that a restart applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Nothing,
    Some,
    All,
}

/// A path from the root on, so that it is known in which folder it is.
fn absolute(path: &Path) -> PathBuf {
    path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn diff_text(diff: &Value) -> String {
    let lines = diff.as_array().into_iter().flatten().map(|line| {
        let mark = match line["kind"].as_str() {
            Some("added") => '+',
            Some("removed") => '-',
            _ => ' ',
        };
        let text = line["text"].as_str().unwrap_or_default();
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        format!("{mark} {text}\n")
    });
    lines.collect()
}

/// Place where the file is changed.
enum Place {
    /// The running server.
    Server(ApiClient),
    /// The file, while no server is known.
    File(Box<FileDesk>),
}

/// The file, and the audit of its settings.
struct FileDesk {
    source: ConfigSource,
    editor: Editor,
    audit: Option<AuditLog>,
    author: Author,
}

impl Place {
    fn of(reach: &Reach) -> Result<Self, VerbError> {
        if let Some(server) = reach.server()? {
            return Ok(Self::Server(server));
        }
        let source = ConfigSource::of_process(reach.settings.clone());
        let access = source.access().ok();
        // an audit where there is a place for one, and keys are not switched off
        let folder = access.and_then(|(data_dir, access)| {
            let folder = reach.data_dir().or(data_dir)?;
            (access.mode != AccessMode::Off && folder.exists()).then_some(folder)
        });
        Ok(Self::File(Box::new(FileDesk {
            editor: Editor::new(source.clone(), Box::new(server::further_checks), None),
            audit: folder.map(|folder| AuditLog::new(folder.join(AUDIT_FOLDER), b"")),
            author: desk::author(),
            source,
        })))
    }

    fn settings(&self) -> Result<Value, VerbError> {
        match self {
            Self::Server(client) => answered(client.ask("GET", "/config", None, None)?),
            Self::File(desk) => {
                let row = |setting: &Setting| {
                    json!({
                        "name": setting.variable.name,
                        "value": setting.shown(),
                        "next": Value::Null,
                        "origin": setting.origin.to_string(),
                        "applies": match setting.variable.applies {
                            env::Applies::Live => "live",
                            env::Applies::Restart => "restart",
                        },
                    })
                };
                let settings = desk.source.settings();
                let rows: Vec<_> = settings.iter().map(row).collect();
                Ok(json!({ "settings": rows }))
            }
        }
    }

    fn history(&self) -> Result<Value, VerbError> {
        match self {
            Self::Server(client) => answered(client.ask("GET", "/config/history", None, None)?),
            Self::File(desk) => {
                let items = desk.editor.history().map_err(refused)?;
                Ok(json!({ "items": items }))
            }
        }
    }

    fn since(&self, id: Option<u64>) -> Result<Value, VerbError> {
        match self {
            Self::Server(client) => {
                let id = id.map_or("last".to_owned(), |id| id.to_string());
                let id = utf8_percent_encode(&id, NON_ALPHANUMERIC);
                answered(client.ask("GET", &format!("/config/history/{id}"), None, None)?)
            }
            Self::File(desk) => {
                let (entry, diff) = desk.editor.since(id).map_err(refused)?;
                Ok(json!({ "entry": entry, "diff": diff }))
            }
        }
    }

    /// Makes a change: the answer, and the file.
    fn change(&self, asked: RevisionRequest) -> Result<(Value, String), VerbError> {
        match self {
            Self::Server(client) => {
                let seen = answered(client.ask("GET", "/config", None, None)?)?;
                let version = seen["file"]["version"].as_str().unwrap_or_default();
                let file = cell(&seen["file"]["path"]);
                let (method, path, mut content) = match asked.wanted {
                    Wanted::Values(assignments) => {
                        let pairs = assignments.into_iter().map(|it| (it.name, json!(it.value)));
                        let set = Value::Object(pairs.collect::<Map<_, _>>());
                        ("PATCH", "/config", json!({ "set": set }))
                    }
                    Wanted::Before(id) => {
                        let mut content = json!({ "to": id });
                        // an earlier version does not know it
                        if asked.takes_hand_edits {
                            content["force"] = true.into();
                        }
                        ("POST", "/config/rollback", content)
                    }
                    Wanted::Text(_) => {
                        return Err(VerbError::Usage(
                            "a text is not sent to a server".to_owned(),
                        ));
                    }
                };
                content["dry_run"] = asked.is_dry_run.into();
                if let Some(reason) = asked.reason {
                    content["reason"] = reason.into();
                }
                let answer = client.ask(method, path, Some(version), Some(&content))?;
                Ok((answered(answer)?, file))
            }
            Self::File(desk) => {
                let author = RevisionAuthor {
                    actor: &desk.author.actor,
                    request_id: &desk.author.request_id,
                    audit: desk.audit.as_ref(),
                };
                let made: RevisionResult = desk.editor.apply(&asked, author).map_err(refused)?;
                let answer = serde_json::to_value(&made)
                    .map_err(|error| VerbError::Usage(error.to_string()))?;
                Ok((answer, absolute(&desk.editor.path()).display().to_string()))
            }
        }
    }
}

/// The content of an answer, or the refusal.
fn answered(answer: ApiAnswer) -> Result<Value, VerbError> {
    let ApiAnswer { status, content } = answer;
    if status == 200 {
        return Ok(content);
    }
    let error = &content["error"];
    let mut message = match error["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the server answered with status {status}"),
    };
    let diff = diff_text(&error["diff"]);
    if !diff.is_empty() {
        message += &format!("\n{diff}");
    }
    Err(VerbError::Refused { status, message })
}

fn refused(error: RevisionError) -> VerbError {
    match error {
        RevisionError::Unknown { .. } | RevisionError::Unwritable(_) | RevisionError::NoFile(_) => {
            VerbError::Usage(error.to_string())
        }
        RevisionError::HandEdited { ref diff, .. } => VerbError::Refused {
            status: error.status(),
            message: format!("{error}\n{}", diff_text(&json!(diff))),
        },
        other => VerbError::Refused {
            status: other.status(),
            message: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_before_a_value_is_asked_for() {
        let judged = |pairs: &[&str]| {
            let pairs: Vec<String> = pairs.iter().map(|&pair| pair.to_owned()).collect();
            known(&pairs).map_err(|error| error.to_string())
        };
        assert_eq!(judged(&["UPSTREAM_TIMEOUT", "PORT=1", "HOST"]), Ok(()));
        let told = judged(&["UPSTREAM_TIMEOUT", "abc"]).unwrap_err();
        assert!(
            told.contains("did you mean UPSTREAM_TIMEOUT=abc?"),
            "{told}"
        );
        let told = judged(&["UPSTREAM_API_KEYS", "sk-canary"]).unwrap_err();
        assert!(!told.contains("canary"), "{told}");
        let told = judged(&["UPSTREAM_TIMEOUT", "UPSTREAM_URL=http://a"]).unwrap_err();
        assert!(told.contains("did you mean API_BASE_URL?"), "{told}");
    }

    #[test]
    fn an_outcome_says_one_thing_of_each_variable() {
        let said = |applied: &str, changed: usize, waiting: &[&str]| {
            let answer = json!({
                "applied": applied, "id": 3, "changed": vec!["x"; changed], "pending_restart": waiting,
            });
            outcome(&answer, "/e")
        };
        assert_eq!(said("in_effect", 1, &[]), "change 3: in effect, from /e\n");
        assert_eq!(
            said("in_effect", 1, &["PORT"]),
            "change 3: written to /e; restart the proxy to apply PORT\n"
        );
        assert_eq!(
            said("in_effect", 2, &["PORT"]),
            "change 3: in effect, from /e; restart the proxy to apply PORT, too\n"
        );
        assert_eq!(
            said("written", 1, &["PORT"]),
            "change 3: written to /e; restart the proxy to apply PORT\n"
        );
        assert!(said("written", 2, &["PORT"]).ends_with("PORT needs a restart of it\n"));
        assert_eq!(said("shown", 1, &[]), "nothing was changed in /e\n");
    }
}
