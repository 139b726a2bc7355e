//! The difference between two texts of `env/.env` as it may be shown: lines, with secrets masked.
//!
//! Lines are compared as they are, and shown masked: a secret that changed is seen to change, and neither of
//! its values is. Names that are not in the table may hold anything and are masked, too; so is what looks like
//! a key in a comment.

use serde::{Deserialize, Serialize};

use super::{
    env::{self, Redaction},
    envfile, mask,
};
use crate::secret::shape;

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct DiffLine {
    /// `removed`, `added`, or `same` for a line around them.
    pub kind: DiffKind,
    /// The line, with secrets masked.
    #[cfg_attr(test, schema(example = "PORT=8088"))]
    pub text: String,
}

/// Part of a line in a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// In both.
    Same,
    /// In the earlier text alone.
    Removed,
    /// In the later text alone.
    Added,
}

impl DiffKind {
    /// Its mark before the line.
    pub fn mark(self) -> char {
        match self {
            Self::Same => ' ',
            Self::Removed => '-',
            Self::Added => '+',
        }
    }
}

/// The lines that differ, with up to two lines around them; empty where nothing does.
pub fn difference(before: &str, after: &str) -> Vec<DiffLine> {
    let (before, after) = (units(before), units(after));
    let all = compared(&before, &after);
    let is_near = |at: usize| {
        let near = &all[at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(all.len())];
        near.iter().any(|(kind, _)| *kind != DiffKind::Same)
    };
    let near = (0..all.len()).filter(|at| is_near(*at)).map(|at| &all[at]);
    near.map(|(kind, unit)| DiffLine {
        kind: *kind,
        text: unit.shown(),
    })
    .collect()
}

/// A line, or the lines of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit<'t> {
    text: &'t str,
    /// Name, value, and the text after it, if it sets something.
    entry: Option<(String, String, &'t str)>,
    is_bad: bool,
}

impl Unit<'_> {
    fn shown(&self) -> String {
        let Some((name, value, after)) = &self.entry else {
            return match self.is_bad {
                true => format!("({} bytes that are no setting)", self.text.trim_end().len()),
                false => comment(self.text.trim_end()),
            };
        };
        let after = comment(after.trim_end());
        if value.is_empty() {
            return format!("{name}={after}");
        }
        format!("{name}={}{after}", shown_value(name, value))
    }
}

/// A value of the file as it may be shown.
pub fn shown_value(name: &str, value: &str) -> String {
    let variable = env::variable(name).or_else(|| env::variable(&name.to_ascii_uppercase()));
    match variable {
        // one that is invalid may be a key
        Some(variable) if shape::key_start(value).is_none() => {
            let shown = mask::shown(variable, value);
            shown.escape_debug().to_string()
        }
        Some(_) | None => mask::length(value),
    }
}

/// A comment, with stars for what looks like a setting of a secret or a key.
fn comment(text: &str) -> String {
    let trimmed = text.trim_start();
    let bare = trimmed.trim_start_matches(['#', ' ', '\t']);
    let setting = bare.split_once('=').filter(|_| trimmed.starts_with('#'));
    let setting = setting.and_then(|(name, value)| Some((env::variable(name.trim())?, value)));
    let Some((variable, value)) = setting else {
        return words(text);
    };
    // a line of the example
    let bare_value = value.trim_matches(['\'', '"']);
    if [variable.default, variable.example].contains(&bare_value) {
        return text.to_owned();
    }
    match variable.shown {
        Redaction::Plainly => words(text),
        Redaction::WithoutUserinfo | Redaction::Urls | Redaction::AsLength => {
            let lead = &text[..text.len() - bare.len()];
            format!(
                "{lead}{}={}",
                variable.name,
                mask::shown(variable, value.trim())
            )
        }
    }
}

/// The text, with a mask for each word that looks like a key, and for users and passwords of URLs.
fn words(text: &str) -> String {
    let mut out = String::new();
    let is_break = |c: char| c.is_whitespace() || "\"'`=,;()".contains(c);
    for part in text.split_inclusive(is_break) {
        let word = part.trim_end_matches(is_break);
        let rest = &part[word.len()..];
        let has_user = word.contains("://") && word.contains('@');
        if has_user || shape::key_start(word).is_some() || shape::is_key(word) {
            out.push_str(shape::MASK);
        } else {
            out.push_str(word);
        }
        out.push_str(rest);
    }
    out
}

fn units(text: &str) -> Vec<Unit<'_>> {
    let (entries, faults) = envfile::parse(text);
    let mut entries = entries.into_iter().peekable();
    let mut units = Vec::new();
    let (mut at, mut number) = (0, 1);
    while at < text.len() {
        if let Some(entry) = entries.next_if(|entry| entry.lines.start == at) {
            let unit = &text[entry.lines.clone()];
            let after = &text[entry.value_at.end..entry.lines.end];
            number += unit.matches('\n').count();
            at = entry.lines.end;
            units.push(Unit {
                text: unit,
                entry: Some((entry.key, entry.value, after)),
                is_bad: false,
            });
            continue;
        }
        let line = text[at..].split_inclusive('\n').next().unwrap_or_default();
        units.push(Unit {
            text: line,
            entry: None,
            is_bad: faults.iter().any(|fault| fault.line == number),
        });
        at += line.len();
        number += 1;
    }
    units
}

/// All units of both, in order: a longest common part stays, the rest is removed or added.
fn compared<'u, 't>(
    before: &'u [Unit<'t>],
    after: &'u [Unit<'t>],
) -> Vec<(DiffKind, &'u Unit<'t>)> {
    let same = |(one, other): &(&Unit<'_>, &Unit<'_>)| one.text.trim_end() == other.text.trim_end();
    let head = before.iter().zip(after).take_while(same).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(same)
        .count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut out: Vec<(DiffKind, &Unit<'t>)> = Vec::new();
    out.extend(before[..head].iter().map(|unit| (DiffKind::Same, unit)));
    if old.len() * new.len() > MOST_COMPARED {
        out.extend(old.iter().map(|unit| (DiffKind::Removed, unit)));
        out.extend(new.iter().map(|unit| (DiffKind::Added, unit)));
    } else {
        // lengths of the longest common parts of what follows
        let width = new.len() + 1;
        let mut lengths = vec![0_u32; (old.len() + 1) * width];
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                lengths[i * width + j] = match same(&(&old[i], &new[j])) {
                    true => lengths[(i + 1) * width + j + 1] + 1,
                    false => lengths[(i + 1) * width + j].max(lengths[i * width + j + 1]),
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < old.len() || j < new.len() {
            if i < old.len() && j < new.len() && same(&(&old[i], &new[j])) {
                out.push((DiffKind::Same, &old[i]));
                (i, j) = (i + 1, j + 1);
            } else if j == new.len()
                || (i < old.len() && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])
            {
                out.push((DiffKind::Removed, &old[i]));
                i += 1;
            } else {
                out.push((DiffKind::Added, &new[j]));
                j += 1;
            }
        }
    }
    let rest = &before[before.len() - tail..];
    out.extend(rest.iter().map(|unit| (DiffKind::Same, unit)));
    out
}

/// Lines around a difference that are shown.
const CONTEXT: usize = 2;

/// Pairs of lines that are compared: more are 16 MB, and a file of 2,000 lines has no form that a person edits.
const MOST_COMPARED: usize = 4_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(before: &str, after: &str) -> Vec<String> {
        let lines = difference(before, after);
        let lines = lines.iter();
        lines
            .map(|line| format!("{}{}", line.kind.mark(), line.text))
            .collect()
    }

    #[test]
    fn lines_that_differ_are_shown_with_those_around() {
        let before = "# a\nA=1\n\n# b\nPORT=1\nHOST=127.0.0.1\nWORKERS=2\nKEEP_ALIVE=5\n";
        let after = "# a\nA=1\n\n# b\nPORT=2\nHOST=127.0.0.1\nWORKERS=2\nKEEP_ALIVE=5\n";
        assert_eq!(
            shown(before, after),
            [
                " ",
                " # b",
                "-PORT=1",
                "+PORT=2",
                " HOST=127.0.0.1",
                " WORKERS=2"
            ]
        );
        assert_eq!(shown(before, before), [""; 0]);
        assert_eq!(shown("", "PORT=1\n"), ["+PORT=1"]);
        assert_eq!(shown("PORT=1\n", ""), ["-PORT=1"]);
        assert_eq!(
            shown("PORT=1\nHOST=a\nH2C=1\n", "HOST=a\nWORKERS=1\nH2C=1\n"),
            ["-PORT=1", " HOST=a", "+WORKERS=1", " H2C=1"]
        );
    }

    #[test]
    fn no_secret_is_shown_wherever_it_stands() {
        let secrets = [
            "UPSTREAM_API_KEYS=sk-ant-canary0123\n",
            "UPSTREAM_API_KEYS='Bearer canary' # was sk-canary99\n",
            "DASHBOARD_API_KEY=canarycanarycanary\n",
            "STATE_URL=redis://u:canary@h:1/0\n",
            "HTTPS_PROXY=http://u:canary@h:1\n",
            "SYSTEM_PROMPT_REPLACEMENT=\"canary\ncanary\"\n",
            "MY_OWN=canary\n",
            "sk-canary-without-a-name\n",
            "# sk-canary0123456789\n",
            "#UPSTREAM_API_KEYS=canary\n",
            "# see https://u:canary@h/\n",
            "PORT=sk-canary01234567\n",
        ];
        for text in secrets {
            for (before, after) in [(text, ""), ("", text)] {
                let shown = shown(before, after).join("\n");
                assert!(!shown.contains("canary"), "{text}: {shown}");
                assert!(!shown.is_empty());
            }
        }
    }

    #[test]
    fn a_secret_that_changed_is_seen_to_change() {
        assert_eq!(
            shown("UPSTREAM_API_KEYS=sk-1\n", "UPSTREAM_API_KEYS=sk-2\n"),
            [
                "-UPSTREAM_API_KEYS=(4 octets)",
                "+UPSTREAM_API_KEYS=(4 octets)"
            ]
        );
    }

    #[test]
    fn the_example_is_shown_as_it_is() {
        let text = env::example::file();
        let shown = shown("", &text);
        for line in [
            "+#UPSTREAM_API_KEYS='sk-first,Bearer second'",
            "+#PORT=8088",
        ] {
            assert!(shown.iter().any(|shown| shown == line), "{line}");
        }
    }
}
