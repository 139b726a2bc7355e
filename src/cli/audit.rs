//! `audit`: the chain of changes.

use std::{process::ExitCode, thread, time::Duration};

use clap::Subcommand;
use serde_json::Value;

use super::{
    desk::{Desk, Reach, VerbError, finish, print_json},
    limit_flags::limit_texts,
    limits::money,
    output::say,
    table::cell,
};
use crate::{
    audit::AuditFilter,
    registry::{Call, since},
};

/// Time between two looks of `tail --follow`.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// Check the chain against itself and its checkpoints: exit 1 if a line is not as it was written, 3 if the shared
    /// state does not tell the checkpoints
    Verify {
        #[command(flatten)]
        reach: Reach,
    },
    /// Print the last lines
    Tail {
        /// Number of lines
        #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
        lines: usize,
        /// Go on with those that come
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Print the lines that match
    Search {
        /// Only lines with this text in any field
        #[arg(value_name = "TEXT")]
        text: Option<String>,
        /// The object: org, team:NAME, user:NAME, or a key by its id or name
        #[arg(long, value_name = "OBJECT")]
        target: Option<String>,
        /// A part of the author's name, the author's method, or its address
        #[arg(long, value_name = "TEXT")]
        actor: Option<String>,
        /// The action, or its beginning up to a dot: key, key.create
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// Oldest time, as 24h or 2026-11-28
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        since: Option<String>,
        /// Most lines, the newest ones
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        reach: Reach,
    },
}

impl AuditVerb {
    /// Options of the verb.
    pub(super) fn reach(&mut self) -> &mut Reach {
        match self {
            Self::Verify { reach } | Self::Tail { reach, .. } | Self::Search { reach, .. } => reach,
        }
    }
}

pub(super) fn run(verb: AuditVerb) -> ExitCode {
    finish(done(verb))
}

fn done(verb: AuditVerb) -> Result<ExitCode, VerbError> {
    match verb {
        AuditVerb::Verify { reach } => verified(&reach),
        AuditVerb::Tail {
            lines,
            follow,
            reach,
        } => tail(lines, follow, &reach),
        AuditVerb::Search {
            text,
            target,
            actor,
            action,
            since: from,
            limit,
            reach,
        } => {
            let from = from.as_deref().map(since).transpose();
            let filter = AuditFilter {
                actor,
                action,
                target,
                target_ids: Vec::new(),
                text,
                since: from.map_err(|fault| VerbError::Usage(format!("--since: {fault}")))?,
                limit: checked(limit)?,
            };
            let found = found(&reach.audit_desk()?, filter)?;
            Ok(printed(&found, reach.json))
        }
    }
}

fn checked(limit: usize) -> Result<usize, VerbError> {
    match limit {
        1..=10_000 => Ok(limit),
        _ => Err(VerbError::Usage(
            "the number of lines is not between 1 and 10000".to_owned(),
        )),
    }
}

fn found(desk: &Desk, filter: AuditFilter) -> Result<Vec<Value>, VerbError> {
    let mut answer = desk.make(&Call::Audit(filter))?;
    match answer["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

fn tail(lines: usize, follow: bool, reach: &Reach) -> Result<ExitCode, VerbError> {
    let mut filter = AuditFilter {
        limit: checked(lines)?,
        ..AuditFilter::default()
    };
    let mut last = 0;
    loop {
        // a server may begin or end meanwhile
        let lines = found(&reach.audit_desk()?, filter.clone())?;
        let seq = |line: &Value| line["seq"].as_u64().unwrap_or_default();
        let new: Vec<_> = lines.into_iter().filter(|line| seq(line) > last).collect();
        last = new.last().map_or(last, seq);
        let said = printed(&new, reach.json);
        if !follow {
            return Ok(said);
        }
        filter.limit = 10_000;
        thread::sleep(LOOK);
    }
}

/// Prints lines: in JSON one a line, as they are in the files.
fn printed(lines: &[Value], is_json: bool) -> ExitCode {
    let mut out = String::new();
    for line in lines {
        if is_json {
            out += &line.to_string();
            out.push('\n');
            continue;
        }
        let (actor, target) = (&line["actor"], &line["target"]);
        let ip = actor["ip"].as_str().map(|ip| format!("@{ip}"));
        out += &format!(
            "{} {} {}:{}{} {} {}:{} {}",
            cell(&line["seq"]),
            cell(&line["at"]),
            cell(&actor["type"]),
            cell(&actor["id"]),
            ip.unwrap_or_default(),
            cell(&line["action"]),
            cell(&target["type"]),
            cell(&target["id"]),
            cell(&line["result"])
        );
        if let Some(reason) = line["reason"].as_str() {
            out += &format!(" reason={reason:?}");
        }
        // once, since the intent says the same
        if line["result"] != "intent" {
            for change in changed(line) {
                out += &format!("\n    {change}");
            }
        }
        out.push('\n');
    }
    say(out.as_bytes())
}

/// Changes of a line, in short: a text for each field, or for each object of a file.
fn changed(line: &Value) -> Vec<String> {
    let (before, after) = (&line["before"], &line["after"]);
    if let Some(changes) = after.as_array() {
        let of_file = changes.iter().take(MOST_OBJECTS).map(|change| {
            let name = change["name"].as_str().map(|name| format!(" ({name})"));
            let (action, subject) = (cell(&change["action"]), cell(&change["subject"]));
            shortened(format!("{action} {subject}{}", name.unwrap_or_default()))
        });
        let mut texts: Vec<_> = of_file.collect();
        if changes.len() > MOST_OBJECTS {
            texts.push(format!("and {} more", changes.len() - MOST_OBJECTS));
        }
        return texts;
    }
    let Some(fields) = after.as_object() else {
        return Vec::new();
    };
    let mut texts = Vec::new();
    for (name, value) in fields {
        let (old, new) = (text_of(name, &before[name]), text_of(name, value));
        if UNTOLD.contains(&name.as_str()) || old == new {
            continue;
        }
        texts.push(match before.is_null() {
            true => shortened(format!("{name}: {new}")),
            false => shortened(format!("{name}: {old} -> {new}")),
        });
    }
    texts
}

/// Fields that others of the line tell.
const UNTOLD: [&str; 5] = [
    "id",
    "secrets",
    "created_at",
    "revoked_at",
    "revoked_reason",
];

/// Objects of a file that a line shows.
const MOST_OBJECTS: usize = 10;

/// The value of a field of a key or a subject.
fn text_of(field: &str, value: &Value) -> String {
    let texts = match field {
        "limits" | "user_limits" => limit_texts(value),
        "grants" => {
            let grants = value.as_array().into_iter().flatten();
            let text = |grant: &Value| {
                let (amount, until) = (money(&grant["amount_usd"]), cell(&grant["until"]));
                format!("+{amount} until {until}")
            };
            grants.map(text).collect()
        }
        _ => return cell(value),
    };
    match texts.is_empty() {
        true => "-".to_owned(),
        false => texts.join(", "),
    }
}

fn shortened(text: String) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

fn verified(reach: &Reach) -> Result<ExitCode, VerbError> {
    let answer = reach.audit_desk()?.make(&Call::VerifyAudit)?;
    let is_whole = answer["ok"] == true;
    let unanchored = answer["unanchored"].as_str();
    let said = match reach.json {
        true => print_json(&answer),
        false => {
            let mut out = String::new();
            let chains = answer["chains"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            for chain in chains {
                let (name, last) = (cell(&chain["chain"]), cell(&chain["last"]));
                let broken = &chain["broken"];
                if broken.is_null() {
                    out += &format!(
                        "chain {name}: whole, lines {} to {last}, {} checkpoints, head {}\n",
                        cell(&chain["first"]),
                        cell(&chain["checkpoints"]),
                        cell(&chain["hash"])
                    );
                } else {
                    out += &format!(
                        "chain {name}: BROKEN at line {}: {} ({} line {}); whole up to {last}\n",
                        cell(&broken["seq"]),
                        cell(&broken["why"]),
                        cell(&broken["file"]),
                        cell(&broken["line"])
                    );
                }
            }
            if chains.is_empty() {
                out += "no chain: nothing was changed yet\n";
            }
            if let Some(why) = unanchored {
                out += &format!("{UNANCHORED} ({why})\n");
            }
            say(out.as_bytes())
        }
    };
    Ok(match (is_whole, unanchored) {
        (false, _) => ExitCode::FAILURE,
        (true, Some(_)) => EXIT_UNANCHORED.into(),
        (true, None) => said,
    })
}

/// Note on a chain whose checkpoints are not known.
const UNANCHORED: &str = "checkpoints: unknown, since the shared state does not answer; the files are checked by \
                          themselves, so lines cut off the end, or files written anew, would not be seen; run this \
                          again once it answers";

/// Whole as far as the files tell.
const EXIT_UNANCHORED: u8 = 3;
