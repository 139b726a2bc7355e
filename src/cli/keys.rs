//! `keys`: the keys of clients.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    desk::{Reach, VerbError, finish, print_json, warn},
    limit_flags::{LimitFlags, limit_texts},
    migrate::{self, StoreName},
    output::{complain, say},
    table::{cell, table},
};
use crate::registry::{
    ApplyFile, Call, ImportKeys, KeyFilter, NewKey, RevokeKey, RotateKey, variables,
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysVerb {
    /// Create a key and print it, this once
    Create(Box<CreateFlags>),
    /// List keys
    List {
        /// Only keys with this text in their id, name, user or team
        #[arg(value_name = "TEXT")]
        q: Option<String>,
        /// Only keys in this state: active, expired, revoked
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show a key
    Show {
        /// Its id or name
        key: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give a key another secret and print it, this once; the old one stays valid for a while
    Rotate {
        /// Its id or name
        key: String,
        /// Time for which the old secret stays valid
        #[arg(
            long,
            value_name = "DURATION",
            default_value = "24h",
            allow_hyphen_values = true
        )]
        overlap: String,
        /// End the secret that is still valid from an earlier rotation at once
        #[arg(long)]
        force: bool,
        /// Print the secret alone
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// End the validity of a key, within a second everywhere
    Revoke {
        /// Its id or name
        key: String,
        /// The reason, for the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Also end its streams that run
        #[arg(long)]
        cut: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take the keys and limits of an export
    Import {
        /// The file; `-` for standard input
        file: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// Print all keys and limits, with digests of secrets, for an import
    Export {
        #[command(flatten)]
        reach: Reach,
    },
    /// Bring keys and limits to what a file says: all of it or nothing
    Apply {
        /// The file (TOML); `-` for standard input
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
        /// Revoke keys, and remove limits, that are not in it
        #[arg(long)]
        prune: bool,
        /// Let --prune revoke all keys if the file has none
        #[arg(long, requires = "prune")]
        allow_empty: bool,
        /// Print what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Copy keys, limits and spend between the file in DATA_DIR and STATE_URL, while no server runs
    Migrate {
        /// The store to read
        #[arg(long, value_name = "STORE")]
        from: StoreName,
        /// The store to write; it must be empty, or have the same
        #[arg(long, value_name = "STORE")]
        to: StoreName,
        /// Print what would be copied, and copy nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateFlags {
    /// The name that people know it by
    #[arg(long, value_name = "TEXT")]
    name: String,
    /// The id: 10 letters or digits; the same call again changes nothing
    #[arg(long, value_name = "ID", conflicts_with = "if_absent")]
    id: Option<String>,
    /// Change nothing if there is a key of this name
    #[arg(long)]
    if_absent: bool,
    /// The user that owns it
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The team of the user
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// Models that it may use, as claude-opus-* [default: all]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    models: Vec<String>,
    /// Further paths that it may use, as /v1/messages/batches*
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    paths: Vec<String>,
    /// Networks that it may come from, as 10.0.0.0/8 [default: all]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    sources: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
    /// End of its validity, as 90d or 2027-03-01
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    expires: Option<String>,
    /// Variable of the proxy's environment that holds its credential for the upstream
    #[arg(long, value_name = "VARIABLE")]
    upstream_key_env: Option<String>,
    /// Print the secret alone
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    reach: Reach,
}

impl KeysVerb {
    /// Options of the verb.
    pub(super) fn reach(&mut self) -> &mut Reach {
        match self {
            Self::Create(flags) => &mut flags.reach,
            Self::List { reach, .. }
            | Self::Show { reach, .. }
            | Self::Rotate { reach, .. }
            | Self::Revoke { reach, .. }
            | Self::Import { reach, .. }
            | Self::Export { reach }
            | Self::Apply { reach, .. }
            | Self::Migrate { reach, .. } => reach,
        }
    }
}

pub(super) fn run(verb: KeysVerb) -> ExitCode {
    finish(done(verb))
}

fn done(verb: KeysVerb) -> Result<ExitCode, VerbError> {
    match verb {
        KeysVerb::Create(flags) => {
            let CreateFlags {
                name,
                id,
                if_absent,
                user,
                team,
                models,
                paths,
                sources,
                limits,
                expires,
                upstream_key_env,
                quiet,
                reach,
            } = *flags;
            let new = NewKey {
                name,
                id,
                if_absent,
                user,
                team,
                models,
                paths,
                sources,
                limits: limits.shapes(None)?,
                expires,
                upstream_key_env,
            };
            let answer = reach.desk()?.make(&Call::Create(new))?;
            Ok(created(&answer, quiet, reach.json))
        }
        KeysVerb::List { q, state, reach } => list(q, state, &reach),
        KeysVerb::Show { key, reach } => {
            let answer = reach.desk()?.make(&Call::Key(key))?;
            Ok(match reach.json {
                true => print_json(&answer),
                false => say(described(&answer).as_bytes()),
            })
        }
        KeysVerb::Rotate {
            key,
            overlap,
            force,
            quiet,
            reach,
        } => {
            let terms = RotateKey {
                overlap: Some(overlap),
                force,
            };
            let answer = reach.desk()?.make(&Call::Rotate(key, terms))?;
            Ok(created(&answer, quiet, reach.json))
        }
        KeysVerb::Revoke {
            key,
            reason,
            cut,
            reach,
        } => {
            let answer = reach
                .desk()?
                .make(&Call::Revoke(key, RevokeKey { reason, cut }))?;
            Ok(match reach.json {
                true => print_json(&answer),
                false => {
                    let [id, name, at, reason] =
                        ["id", "name", "revoked_at", "revoked_reason"].map(|it| cell(&answer[it]));
                    say(format!("revoked {id} ({name}) at {at}: {reason}\n").as_bytes())
                }
            })
        }
        KeysVerb::Import { file, reach } => {
            let text = text_of(&file)?;
            let answer = reach.desk()?.make(&Call::Import(ImportKeys { text }))?;
            Ok(applied(&answer, reach.json))
        }
        KeysVerb::Export { reach } => {
            let answer = reach.desk()?.make(&Call::Export)?;
            let mut text = answer["text"].as_str().unwrap_or_default().to_owned();
            text.push('\n');
            Ok(say(text.as_bytes()))
        }
        KeysVerb::Apply {
            file,
            prune,
            allow_empty,
            dry_run,
            reach,
        } => {
            let text = text_of(&file)?;
            let secrets: BTreeMap<String, String> = variables(&text)
                .into_iter()
                .filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)))
                .collect();
            let call = Call::Apply(ApplyFile {
                text,
                file: named(&file),
                prune,
                allow_empty,
                dry_run,
                secrets,
            });
            let desk = match dry_run {
                true => reach.dry_desk()?,
                false => reach.desk()?,
            };
            Ok(applied(&desk.make(&call)?, reach.json))
        }
        KeysVerb::Migrate {
            from,
            to,
            dry_run,
            reach,
        } => migrate::run(from, to, dry_run, &reach),
    }
}

fn list(q: Option<String>, state: Option<String>, reach: &Reach) -> Result<ExitCode, VerbError> {
    let desk = reach.desk()?;
    let mut filter = KeyFilter {
        q,
        state,
        limit: Some(10_000),
        after: None,
    };
    let mut items = Vec::new();
    let total = loop {
        let mut page = desk.make(&Call::Keys(filter.clone()))?;
        if let Value::Array(rows) = page["items"].take() {
            items.extend(rows);
        }
        match page["next_after"].as_str() {
            Some(after) => filter.after = Some(after.to_owned()),
            None => break page["total"].take(),
        }
    };
    if reach.json {
        return Ok(print_json(
            &serde_json::json!({"items": items, "total": total}),
        ));
    }
    let rows: Vec<_> = items
        .iter()
        .map(|row| {
            vec![
                cell(&row["id"]),
                cell(&row["name"]),
                cell(&row["state"]),
                cell(&row["user"]),
                cell(&row["team"]),
                cell(&row["last4"]),
                cell(&row["last_used_at"]),
                cell(&row["expires_at"]),
                limit_texts(&row["limits"]).join(", "),
            ]
        })
        .collect();
    let names = [
        "ID",
        "NAME",
        "STATE",
        "USER",
        "TEAM",
        "LAST4",
        "LAST USED",
        "EXPIRES",
        "LIMITS",
    ];
    Ok(say(table(&names, &rows).as_bytes()))
}

/// Prints a key that was created or rotated: the one moment in which its secret is shown.
fn created(answer: &Value, is_quiet: bool, is_json: bool) -> ExitCode {
    warn(answer);
    let key = answer["key"].as_str();
    if is_json {
        return print_json(answer);
    }
    let id = cell(&answer["id"]);
    match (is_quiet, key) {
        (true, Some(key)) => say(format!("{key}\n").as_bytes()),
        (true, None) => {
            complain(&format_args!(
                "key {id} exists; its secret is not shown again; for another one: keys rotate {id}"
            ));
            ExitCode::SUCCESS
        }
        (false, Some(key)) => {
            complain(&"the key is shown this once: keep it now");
            say(format!("key        {key}\n{}", described(answer)).as_bytes())
        }
        (false, None) => {
            complain(&format_args!("key {id} exists; nothing was changed"));
            say(described(answer).as_bytes())
        }
    }
}

/// The fields of a key, a line for each.
fn described(row: &Value) -> String {
    let mut out = String::new();
    for (label, field) in [
        ("id", "id"),
        ("name", "name"),
        ("state", "state"),
        ("user", "user"),
        ("team", "team"),
        ("models", "models"),
        ("paths", "paths"),
        ("sources", "sources"),
        ("created", "created_at"),
        ("expires", "expires_at"),
        ("revoked", "revoked_at"),
        ("reason", "revoked_reason"),
        ("credential", "upstream_key_env"),
    ] {
        let text = cell(&row[field]);
        if text != "-" {
            out += &format!("{label:10} {text}\n");
        }
    }
    for secret in row["secrets"].as_array().into_iter().flatten() {
        let used = cell(&secret["last_used_at"]);
        let last4 = &secret["last4"];
        let mut line = format!("…{}, last used {used}", cell(last4));
        if !secret["expires_at"].is_null() {
            let mut valid = row["last4"].as_array().into_iter().flatten();
            let verb = match valid.any(|it| it == last4) {
                true => "valid until",
                false => "ended",
            };
            line += &format!(", {verb} {}", cell(&secret["expires_at"]));
        }
        out += &format!("{:10} {line}\n", "secret");
    }
    for limit in limit_texts(&row["limits"]) {
        out += &format!("{:10} {limit}\n", "limit");
    }
    out
}

/// Prints the changes of a file.
fn applied(answer: &Value, is_json: bool) -> ExitCode {
    warn(answer);
    if is_json {
        return print_json(answer);
    }
    let mut out = String::new();
    let changes = answer["changes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for change in changes {
        let (action, subject) = (cell(&change["action"]), cell(&change["subject"]));
        let sign = match action.as_str() {
            "create" => '+',
            "update" => '~',
            _ => '-',
        };
        let name = change["name"].as_str().map(|name| format!(" ({name})"));
        out += &format!("{sign} {action} {subject}{}\n", name.unwrap_or_default());
        for field in change["fields"].as_array().into_iter().flatten() {
            let (before, after) = (cell(&field["before"]), cell(&field["after"]));
            out += &format!("    {}: {before} -> {after}\n", cell(&field["field"]));
        }
    }
    let (count, unchanged) = (changes.len(), cell(&answer["unchanged"]));
    let (s, would) = match (count, answer["dry_run"] == true) {
        (1, is_dry) => ("", is_dry),
        (_, is_dry) => ("s", is_dry),
    };
    let end = if would {
        "; dry run, nothing was changed"
    } else {
        ""
    };
    out += &format!("{count} change{s}, {unchanged} unchanged{end}\n");
    say(out.as_bytes())
}

/// The name of a file for the audit. A server of an earlier version knows none: the one that it takes for granted is
/// left out.
fn named(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    (name != "keys.toml").then(|| name.into_owned())
}

fn text_of(path: &Path) -> Result<String, VerbError> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(|_| text),
        _ => fs::read_to_string(path),
    };
    read.map_err(|error| VerbError::Usage(format!("{} cannot be read: {error}", path.display())))
}
