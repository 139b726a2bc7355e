//! `limits`: limits and budgets of the organisation, of teams, users and keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    desk::{Reach, VerbError, finish, print_json, warn},
    limit_flags::{LimitFlags, limit_texts},
    output::say,
    table::{cell, table},
};
use crate::registry::{Call, GrantBudget, LimitShape, SetLimits, show_usd};

#[derive(Debug, Subcommand)]
pub(super) enum LimitsVerb {
    /// Show the limits of a subject: org, team:NAME, user:NAME or key:ID; without one, the rates and exchanges at once
    /// that are used most
    Show {
        /// The subjects
        #[arg(value_name = "SUBJECT")]
        subjects: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Set limits of a subject; `none` removes one (--rpm none, --budget none), and those that are not named stay
    Set(Box<SetFlags>),
    /// Add to the budgets of a subject until a time
    Grant {
        /// The subject: org, team:NAME, user:NAME or key:ID
        subject: String,
        /// US dollars, as $50
        #[arg(allow_hyphen_values = true)]
        amount: String,
        /// Its end, as 24h or 2027-03-01
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        until: String,
        /// The reason, for the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show what is spent, held and left of each limit, also of those above, and when it begins anew
    Explain {
        /// The subjects
        #[arg(required = true, value_name = "SUBJECT")]
        subjects: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Compare what counts as spent with the stored registers: exit 1 if they differ
    Verify {
        /// The subjects; all if none is named
        #[arg(value_name = "SUBJECT")]
        subjects: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Args)]
pub(super) struct SetFlags {
    /// The subject: org, team:NAME, user:NAME or key:ID
    subject: String,
    #[command(flatten)]
    limits: LimitFlags,
    /// Count these models alone, as claude-opus-*
    #[arg(long, value_name = "PATTERN")]
    models: Option<String>,
    /// Set limits of each user of a team
    #[arg(long)]
    each_user: bool,
    /// Remove the limits that are not named: all others, or with --models those of that pattern
    #[arg(long)]
    clear: bool,
    /// Variable of the proxy's environment that holds a team's or key's credential for the upstream; empty: none
    #[arg(long, value_name = "VARIABLE")]
    upstream_key_env: Option<String>,
    /// The reason, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    reach: Reach,
}

impl LimitsVerb {
    /// Options of the verb.
    pub(super) fn reach(&mut self) -> &mut Reach {
        match self {
            Self::Set(flags) => &mut flags.reach,
            Self::Show { reach, .. }
            | Self::Grant { reach, .. }
            | Self::Explain { reach, .. }
            | Self::Verify { reach, .. } => reach,
        }
    }
}

pub(super) fn run(verb: LimitsVerb) -> ExitCode {
    finish(done(verb))
}

fn done(verb: LimitsVerb) -> Result<ExitCode, VerbError> {
    match verb {
        LimitsVerb::Show { subjects, reach } if subjects.is_empty() => most_used(&reach),
        LimitsVerb::Show { subjects, reach } => shown(&subjects, &reach, described),
        LimitsVerb::Explain { subjects, reach } => shown(&subjects, &reach, explained),
        LimitsVerb::Set(flags) => {
            let SetFlags {
                subject,
                limits,
                models,
                each_user,
                clear,
                upstream_key_env,
                reason,
                reach,
            } = *flags;
            let shapes = limits.shapes(models.as_deref())?;
            if shapes.is_empty() && !clear && upstream_key_env.is_none() {
                return Err(VerbError::Usage(
                    "no limit is named: give --budget, --rpm, --input-tpm, --output-tpm, --streams (`none` removes \
                     one), or --clear"
                        .to_owned(),
                ));
            }
            let mut shapes = shapes;
            if clear {
                // what is not named goes, and so does what is named none
                shapes.retain(|shape| shape.amount.is_some() || shape.amount_usd.is_some());
            }
            let named = (!shapes.is_empty() || clear).then_some(shapes);
            let (limits, user_limits) = match each_user {
                true => (None, named),
                false => (named, None),
            };
            let change = SetLimits {
                limits,
                user_limits,
                merge: !clear,
                models: models.filter(|_| clear),
                upstream_key_env,
                reason,
            };
            let answer = reach.desk()?.make(&Call::SetLimits(subject, change))?;
            warn(&answer);
            Ok(match reach.json {
                true => print_json(&answer),
                false => say(described(&answer).as_bytes()),
            })
        }
        LimitsVerb::Grant {
            subject,
            amount,
            until,
            reason,
            reach,
        } => {
            let grant = GrantBudget {
                amount,
                until,
                reason,
            };
            let answer = reach.desk()?.make(&Call::Grant(subject, grant))?;
            Ok(match reach.json {
                true => print_json(&answer),
                false => say(explained(&answer).as_bytes()),
            })
        }
        LimitsVerb::Verify { subjects, reach } => verified(&subjects, &reach),
    }
}

fn shown(
    subjects: &[String],
    reach: &Reach,
    text: fn(&Value) -> String,
) -> Result<ExitCode, VerbError> {
    let desk = reach.desk()?;
    let mut answers = Vec::new();
    for subject in subjects {
        answers.push(desk.make(&Call::Limits(subject.clone()))?);
    }
    Ok(match (reach.json, &answers[..]) {
        (true, [answer]) => print_json(answer),
        (true, _) => print_json(&Value::Array(answers)),
        (false, _) => {
            let texts: Vec<_> = answers.iter().map(text).collect();
            say(texts.join("\n").as_bytes())
        }
    })
}

/// The rates and exchanges at once that are used most.
fn most_used(reach: &Reach) -> Result<ExitCode, VerbError> {
    let answer = reach.desk()?.make(&Call::UsedLimits(None))?;
    Ok(match reach.json {
        true => print_json(&answer),
        false => say(used_texts(&answer).as_bytes()),
    })
}

fn used_texts(answer: &Value) -> String {
    let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        return "no rates, and no limits of exchanges at once; budgets: limits explain SUBJECT\n"
            .to_owned();
    }
    let mut notes = BTreeMap::new();
    let rows: Vec<_> = items
        .iter()
        .map(|row| {
            let mut cells = use_cells(row, &cell(&row["subject"]), &mut notes);
            if let Some(name) = row["name"].as_str() {
                cells[0] = format!("{} ({name})", cells[0]);
            }
            cells
        })
        .collect();
    let mut out = table(&USE_COLUMNS, &rows);
    let total = answer["total"].as_u64().unwrap_or_default();
    if total > items.len() as u64 {
        out += &format!(
            "{} of {total} limits: those that are used most\n",
            items.len()
        );
    }
    for note in notes.values() {
        out += &format!("{note}\n");
    }
    out
}

/// The limits of a subject, a line for each.
fn described(answer: &Value) -> String {
    let mut out = format!("{}\n", cell(&answer["subject"]));
    let limits = limit_texts_of_rows(&answer["limits"]);
    if limits.is_empty() {
        out += "  no limits\n";
    }
    for limit in limits {
        out += &format!("  {limit}\n");
    }
    let mut rows = answer["limits"].as_array().into_iter().flatten();
    if rows.any(|row| row["shared"]["counts"] == UNKNOWN.0) {
        out += &format!("  used: unknown. {}\n", UNKNOWN.1);
    }
    for limit in limit_texts(&answer["user_limits"]) {
        out += &format!("  each user: {limit}\n");
    }
    out += &grants(answer);
    if let Some(variable) = answer["upstream_key_env"].as_str() {
        out += &format!("  credential for the upstream: {variable}\n");
    }
    out
}

fn grants(answer: &Value) -> String {
    let mut out = String::new();
    for grant in answer["grants"].as_array().into_iter().flatten() {
        let amount = money(&grant["amount_usd"]);
        let state = if grant["is_active"] == true {
            ""
        } else {
            " (over)"
        };
        let (until, reason) = (cell(&grant["until"]), cell(&grant["reason"]));
        out += &format!("  +{amount} until {until}{state}: {reason}\n");
    }
    out
}

/// Spent, held and left amounts of each limit.
fn explained(answer: &Value) -> String {
    let of = |name: &str| answer[name].as_array().into_iter().flatten();
    let mut notes = BTreeMap::new();
    let rows: Vec<_> = of("limits")
        .chain(of("above"))
        .map(|row| {
            let subject = match &row["subject"] {
                Value::Null => cell(&answer["subject"]),
                above => cell(above),
            };
            use_cells(row, &subject, &mut notes)
        })
        .collect();
    let mut out = format!("{}\n", cell(&answer["subject"]));
    if rows.is_empty() {
        out += "no limits\n";
    } else {
        out += &table(&USE_COLUMNS, &rows);
    }
    for note in notes.values() {
        out += &format!("{note}\n");
    }
    out + &grants(answer)
}

const USE_COLUMNS: [&str; 9] = [
    "OF", "LIMIT", "BOUND", "SPENT", "HELD", "LEFT", "USED", "RESETS", "SHARED",
];

/// A limit with its use, and the notes that it needs.
fn use_cells(
    row: &Value,
    subject: &str,
    notes: &mut BTreeMap<&'static str, &'static str>,
) -> Vec<String> {
    let is_spend = row["kind"] == "spend";
    let amount = |name: &str| match is_spend {
        true => money(&row[name]),
        false => cell_number(&row[name]),
    };
    let counts = row["shared"]["counts"].as_str().unwrap_or_default();
    notes.extend(NOTES.iter().copied().filter(|(of, _)| *of == counts));
    let used = |text: String| match counts {
        "unknown" => "unknown".to_owned(),
        _ => text,
    };
    vec![
        subject.to_owned(),
        limit_text(row),
        amount("bound"),
        used(amount("spent")),
        used(amount("held")),
        used(amount("left")),
        used(format!("{} %", cell_number(&row["percent"]))),
        cell(&row["resets_at"]),
        shared(&row["shared"]),
    ]
}

/// Notes on limits that replicas share, by the replicas whose use is told.
const NOTES: [(&str, &str); 2] = [
    (
        "own",
        "Exchanges at once are those of this replica; the others have theirs.",
    ),
    UNKNOWN,
];

/// The note on limits of which the shared state has told nothing yet.
const UNKNOWN: (&str, &str) = (
    "unknown",
    "The shared state has not told since the start of this replica; what was used is not known until it does.",
);

/// State of a limit that replicas share: `fresh, 4 replicas`.
fn shared(row: &Value) -> String {
    let Some(state) = row["state"].as_str() else {
        return "-".to_owned();
    };
    let replicas = row["replicas"].as_u64().unwrap_or_default();
    match (state, row["age_seconds"].as_f64()) {
        ("stale" | "lost", age) => {
            let effect = row["unreachable"].as_str().unwrap_or_default();
            match age {
                Some(age) => format!("{state} for {age:.0} s ({effect})"),
                None => format!("{state} since the start ({effect})"),
            }
        }
        _ if replicas == 1 => format!("{state}, 1 replica"),
        _ => format!("{state}, {replicas} replicas"),
    }
}

/// Times that budgets are looked at before they are said to differ.
const LOOKS: usize = 3;

/// Pause between two looks: longer than what was spent takes to every replica and to the store.
const LOOK_PAUSE: Duration = Duration::from_millis(1_500);

fn verified(subjects: &[String], reach: &Reach) -> Result<ExitCode, VerbError> {
    let desk = reach.desk()?;
    let look = || {
        let asked: Vec<Option<String>> = match subjects {
            [] => vec![None],
            subjects => subjects.iter().cloned().map(Some).collect(),
        };
        let (mut compared, mut differences) = (0, Vec::new());
        for subject in asked {
            let mut answer = desk.make(&Call::VerifyLimits(subject))?;
            compared += answer["compared"].as_u64().unwrap_or_default();
            if let Value::Array(found) = answer["differences"].take() {
                differences.extend(found);
            }
        }
        Ok::<_, VerbError>((compared, differences))
    };
    let (compared, differences) = looked(look, || thread::sleep(LOOK_PAUSE))?;
    let is_right = differences.is_empty();
    let said = match reach.json {
        true => print_json(&serde_json::json!({
            "compared": compared,
            "differences": differences,
        })),
        false => say(compared_text(compared, &differences).as_bytes()),
    };
    Ok(if is_right { said } else { ExitCode::FAILURE })
}

/// The number of budgets, and those that differ at every look in one direction. What is spent meanwhile is for a
/// moment at one place alone, now the one, now the other: a budget that was equal once is right.
fn looked<E>(
    mut look: impl FnMut() -> Result<(u64, Vec<Value>), E>,
    mut pause: impl FnMut(),
) -> Result<(u64, Vec<Value>), E> {
    let place = |row: &Value| {
        let is_less = row["difference_usd"]
            .as_f64()
            .is_some_and(f64::is_sign_negative);
        (cell(&row["subject"]), cell(&row["cell"]), is_less)
    };
    let (mut compared, mut differences) = look()?;
    for _ in 1..LOOKS {
        if differences.is_empty() {
            break;
        }
        pause();
        let before: BTreeSet<_> = differences.iter().map(place).collect();
        (compared, differences) = look()?;
        differences.retain(|row| before.contains(&place(row)));
    }
    Ok((compared, differences))
}

fn compared_text(compared: u64, differences: &[Value]) -> String {
    let rows: Vec<_> = differences
        .iter()
        .map(|row| {
            vec![
                cell(&row["subject"]),
                cell(&row["cell"]),
                money(&row["in_effect_usd"]),
                money(&row["stored_usd"]),
                signed_money(&row["difference_usd"]),
            ]
        })
        .collect();
    let mut out = String::new();
    if !rows.is_empty() {
        let names = ["SUBJECT", "CELL", "IN EFFECT", "STORED", "DIFFERENCE"];
        out += &table(&names, &rows);
    }
    let budgets = if compared == 1 { "budget" } else { "budgets" };
    let differ = if rows.len() == 1 { "differs" } else { "differ" };
    out + &format!("{compared} {budgets} compared, {} {differ}\n", rows.len())
}

/// US dollars of a difference to the last decimal, as `-$0.007485`: the two may be equal as tables show them.
fn signed_money(value: &Value) -> String {
    let usd = value.as_f64().unwrap_or_default();
    let sign = if usd < 0.0 { "-" } else { "" };
    let nano = (usd.abs() * 1_000_000_000.0).round() as u64;
    format!("{sign}{}", show_usd(nano))
}

fn limit_texts_of_rows(rows: &Value) -> Vec<String> {
    rows.as_array()
        .into_iter()
        .flatten()
        .map(limit_text)
        .collect()
}

/// A limit of a row that has more than the limit.
fn limit_text(row: &Value) -> String {
    let mut limit = row.clone();
    if let Value::Object(fields) = &mut limit {
        for name in [
            "subject",
            "name",
            "bound",
            "spent",
            "held",
            "left",
            "percent",
            "resets_at",
            "default_of",
            "waiting",
            "shared",
        ] {
            fields.remove(name);
        }
    }
    let shape = serde_json::from_value::<LimitShape>(limit);
    shape.map_or_else(|_| "?".to_owned(), |shape| shape.text())
}

/// US dollars of a number, as `$500`.
pub(super) fn money(value: &Value) -> String {
    let usd = value.as_f64().unwrap_or_default();
    // to a hundredth of a cent: a table is for people
    show_usd(((usd * 10_000.0).round() as u64).saturating_mul(100_000))
}

fn cell_number(value: &Value) -> String {
    let number = value.as_f64().unwrap_or_default();
    match number.fract() == 0.0 {
        true => format!("{number:.0}"),
        false => format!("{number:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_at_every_look_differs() {
        let row = |name: &str| {
            let (name, difference) = match name.strip_prefix('-') {
                Some(name) => (name, -1.0),
                None => (name, 1.0),
            };
            json!({"subject": name, "cell": "month", "difference_usd": difference})
        };
        let said = |looks: &[&[&str]]| {
            let (mut at, mut pauses) = (0, 0);
            let look = || {
                let found = looks[at].iter().map(|name| row(name)).collect();
                at += 1;
                Ok::<_, ()>((9, found))
            };
            let (_, found) = looked(look, || pauses += 1).unwrap();
            let names = found.iter().map(|row| cell(&row["subject"]));
            (names.collect::<Vec<_>>().join(" "), pauses)
        };
        assert_eq!(said(&[&[]]), (String::new(), 0));
        // traffic: another one each time
        assert_eq!(said(&[&["a", "b"], &["c"]]), (String::new(), 1));
        assert_eq!(
            said(&[&["a", "b"], &["b", "c"], &["c"]]),
            (String::new(), 2)
        );
        // more is in effect than is stored, then less: both follow the traffic
        assert_eq!(said(&[&["a"], &["-a"]]), (String::new(), 1));
        // a fault stays
        assert_eq!(
            said(&[&["a", "b"], &["b", "c"], &["b", "c"]]),
            ("b".to_owned(), 2)
        );
    }

    #[test]
    fn a_difference_has_the_decimals_of_an_amount() {
        let row = |difference: f64| {
            compared_text(
                1,
                &[json!({
                    "subject": "org", "cell": "month", "in_effect_usd": 1.0, "stored_usd": 1.0,
                    "difference_usd": difference,
                })],
            )
        };
        let text = row(0.007_485_000_000_000_186);
        assert!(text.contains("$0.007485\n"), "{text}");
        assert!(text.contains("1 budget compared, 1 differs"), "{text}");
        assert!(row(-0.5).contains("-$0.50"), "{}", row(-0.5));
    }

    #[test]
    fn a_limit_says_whose_use_it_counts() {
        let row = |counts: &str, state: &str, age: Option<f64>| {
            json!({
                "kind": "at_once", "amount": 4, "bound": 4, "spent": 3, "held": 0, "left": 1, "percent": 75.0,
                "resets_at": null,
                "shared": {
                    "state": state, "age_seconds": age, "replicas": 2, "counts": counts, "unreachable": "open",
                },
            })
        };
        let said = |row: Value| explained(&json!({"subject": "team:core", "limits": [row]}));
        let all = said(row("all", "fresh", Some(0.1)));
        assert!(
            all.contains("fresh, 2 replicas") && NOTES.iter().all(|(_, it)| !all.contains(it)),
            "{all}"
        );
        let own = said(row("own", "fresh", Some(0.1)));
        assert!(own.contains("75") && own.contains(NOTES[0].1), "{own}");
        let unknown = said(row("unknown", "lost", None));
        assert!(
            !unknown.contains("75") && unknown.contains(NOTES[1].1),
            "{unknown}"
        );
        assert!(unknown.contains("lost since the start (open)"), "{unknown}");
        let mut named = row("all", "fresh", Some(0.1));
        named["subject"] = "key:0aB3zZ9xY1".into();
        named["name"] = "desk".into();
        let used = used_texts(&json!({"items": [named], "total": 7}));
        assert!(
            used.contains("key:0aB3zZ9xY1 (desk)")
                && used.contains("4 at once")
                && used.contains("1 of 7 limits"),
            "{used}"
        );
        assert!(used_texts(&json!({"items": [], "total": 0})).starts_with("no rates"));
        // what it may use is known
        let shown = |row: Value| described(&json!({"subject": "team:core", "limits": [row]}));
        let text = shown(row("unknown", "lost", None));
        assert!(text.contains("used: unknown"), "{text}");
        let text = shown(row("all", "fresh", Some(0.1)));
        assert!(!text.contains("unknown"), "{text}");
        let stale = said(row("all", "stale", Some(7.0)));
        assert!(stale.contains("stale for 7 s (open)"), "{stale}");
    }
}
