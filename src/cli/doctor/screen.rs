//! The checks on a terminal: group by group as they finish, with colour where a terminal shows it.

use std::io::{self, IsTerminal as _};

use serde_json::Value;

use super::super::{desk::print_json, output, table::cell};
use crate::doctor::{Check, CheckCounts, CheckStatus, DoctorReport, Telling, plural};

/// Form of the output.
pub(super) struct Screen {
    is_json: bool,
    has_colour: bool,
    telling: Telling,
}

/// A line of a check, as texts.
struct CheckLine {
    status: CheckStatus,
    id: String,
    detail: String,
    fix: Option<String>,
    evidence: Vec<String>,
    ms: u64,
}

impl Screen {
    /// The form for this process: colour on a terminal, unless NO_COLOR is set (no-color.org).
    pub(super) fn of_process(is_json: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = io::stdout().is_terminal();
        Self {
            is_json,
            has_colour: is_terminal && set("NO_COLOR").is_none() && !is_dumb,
            telling: match is_terminal {
                true => Telling::AsTheyEnd,
                false => Telling::InOrder,
            },
        }
    }

    /// The order of groups: on a terminal, an operator waits for them.
    pub(super) fn telling(&self) -> Telling {
        self.telling
    }

    /// Shows the checks of a group.
    pub(super) fn show(&self, checks: &[Check]) {
        let Some(first) = checks.first().filter(|_| !self.is_json) else {
            return;
        };
        let title = first.group.title();
        let subject = first.subject.as_deref().unwrap_or_default();
        // those of one upstream are a group; other groups name the object in each line
        let is_common = checks.iter().all(|check| check.subject == first.subject);
        let heading = match is_common && !subject.is_empty() {
            true => format!("{title}: {subject}"),
            false => title.to_owned(),
        };
        let lines = checks.iter().map(|check| CheckLine {
            status: check.status,
            id: check.id.to_string(),
            detail: match (&check.subject, is_common) {
                (Some(subject), false) => format!("{subject}: {}", check.detail),
                _ => check.detail.clone(),
            },
            fix: check.fix.clone(),
            evidence: check.evidence.clone(),
            ms: check.ms,
        });
        self.print(&heading, lines);
    }

    fn print(&self, heading: &str, lines: impl Iterator<Item = CheckLine>) {
        let mut text = format!("{}\n", self.bold(&shown(heading)));
        for line in lines {
            let word = self.coloured(line.status);
            let took = match line.ms {
                0 => String::new(),
                ms => format!(" ({ms} ms)"),
            };
            text += &format!("  {word}  {:15} {}{took}\n", line.id, shown(&line.detail));
            if line.status == CheckStatus::Fail || line.status == CheckStatus::Warn {
                for fact in &line.evidence {
                    text += &format!("{BESIDE}{}\n", shown(fact));
                }
            }
            if let Some(fix) = &line.fix {
                text += &format!("{BESIDE}fix: {}\n", shown(fix));
            }
        }
        output::say(text.as_bytes());
    }

    /// Shows the end of a run.
    pub(super) fn end(&self, report: &DoctorReport) {
        if self.is_json {
            print_json(&serde_json::to_value(report).unwrap_or_default());
            return;
        }
        self.summary(report.counts, report.ms);
    }

    fn summary(&self, counts: CheckCounts, ms: u64) {
        let CheckCounts {
            ok,
            warn,
            fail,
            skip,
        } = counts;
        let warned = plural(warn, "warning");
        let text = format!("\n{ok} ok, {warned}, {fail} failed, {skip} not tried ({ms} ms)\n");
        output::say(text.as_bytes());
    }

    /// Shows a report that a server made.
    pub(super) fn show_remote(&self, report: &Value) {
        let checks: Vec<&Value> = report["checks"].as_array().into_iter().flatten().collect();
        let place = |check: &Value| (check["group"].clone(), check["subject"].clone());
        for group in checks.chunk_by(|one, other| place(one) == place(other)) {
            let (name, subject) = group.first().map(|check| place(check)).unwrap_or_default();
            let heading = match subject.is_null() {
                true => cell(&name),
                false => format!("{}: {}", cell(&name), cell(&subject)),
            };
            let lines = group.iter().map(|check| CheckLine {
                status: match check["status"].as_str() {
                    Some("ok") => CheckStatus::Ok,
                    Some("warn") => CheckStatus::Warn,
                    Some("skip") => CheckStatus::Skip,
                    _ => CheckStatus::Fail,
                },
                id: cell(&check["id"]),
                detail: cell(&check["detail"]),
                fix: check["fix"].as_str().map(str::to_owned),
                evidence: Vec::new(),
                ms: check["ms"].as_u64().unwrap_or_default(),
            });
            self.print(&heading, lines);
        }
        let counts = counts_of(report);
        self.summary(counts, report["ms"].as_u64().unwrap_or_default());
    }

    fn coloured(&self, status: CheckStatus) -> String {
        let (word, colour) = match status {
            CheckStatus::Ok => ("ok  ", "32"),
            CheckStatus::Warn => ("warn", "33"),
            CheckStatus::Fail => ("FAIL", "31;1"),
            CheckStatus::Skip => ("skip", "2"),
        };
        match self.has_colour {
            true => format!("\u{1b}[{colour}m{word}\u{1b}[0m"),
            false => word.to_owned(),
        }
    }

    fn bold(&self, text: &str) -> String {
        match self.has_colour {
            true => format!("\u{1b}[1m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// The counts of a report in JSON.
pub(super) fn counts_of(report: &Value) -> CheckCounts {
    let count = |name: &str| {
        let count = report["counts"][name].as_u64().unwrap_or_default();
        usize::try_from(count).unwrap_or(usize::MAX)
    };
    CheckCounts {
        ok: count("ok"),
        warn: count("warn"),
        fail: count("fail"),
        skip: count("skip"),
    }
}

/// Columns before a line that belongs to the check above it.
const BESIDE: &str = "                        ";

/// A text that moves no terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_moves_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\r\n"), "a[2Jb");
    }

    #[test]
    fn colour_is_for_terminals() {
        let screen = |has_colour| Screen {
            is_json: false,
            has_colour,
            telling: Telling::InOrder,
        };
        assert_eq!(screen(false).coloured(CheckStatus::Fail), "FAIL");
        assert!(screen(true).coloured(CheckStatus::Fail).contains("\u{1b}["));
    }
}
