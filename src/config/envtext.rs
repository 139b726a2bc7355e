//! The text of `env/.env` as something to edit: one value changes, and every other byte stays.
//!
//! Comments, order, quoting of other lines and line breaks are kept. A new variable goes below the line of
//! [`.env.example`](super::env::example) that is commented out, or to the end. It reads and writes no file.

use std::fmt::Write as _;

use super::{
    env::{self, Section},
    envfile,
};

/// A value that no line can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has a NUL character, which no line of the file can hold")]
pub struct UnwritableValue;

/// The text with a variable set to a value, which is not empty.
///
/// # Errors
/// No line can hold the value.
pub fn with_value(text: &str, name: &str, value: &str) -> Result<String, UnwritableValue> {
    let quoted = quoted(value)?;
    let (entries, _) = envfile::parse(text);
    let of_name = |wanted: &str| entries.iter().rev().find(|entry| entry.key == wanted);
    // of the two spellings of an outbound proxy, the lower one counts
    let entry = lower(name).and_then(|lower| of_name(&lower));
    if let Some(entry) = entry.or_else(|| of_name(name)) {
        let (before, after) = (&text[..entry.value_at.start], &text[entry.value_at.end..]);
        let gap = match after.starts_with(|c: char| !c.is_whitespace()) {
            true => " ",
            false => "",
        };
        return Ok(format!("{before}{quoted}{gap}{after}"));
    }
    let end = line_end(text);
    let place = commented_out(text, name).unwrap_or(text.len());
    let (before, after) = text.split_at(place);
    let mut out = before.to_owned();
    if !before.is_empty() && !before.ends_with('\n') {
        out.push_str(end);
    }
    let _ = write!(out, "{name}={quoted}{end}{after}");
    Ok(out)
}

/// The text without the lines of a variable.
pub fn without(text: &str, name: &str) -> String {
    let lower = lower(name);
    let (entries, _) = envfile::parse(text);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for entry in entries {
        if entry.key == name || Some(&entry.key) == lower.as_ref() {
            out.push_str(&text[at..entry.lines.start]);
            at = entry.lines.end;
        }
    }
    out.push_str(&text[at..]);
    out
}

/// The text with an empty value for a variable, which unsets it explicitly.
pub fn cleared(text: &str, name: &str) -> String {
    let (entries, _) = envfile::parse(text);
    let Some(last) = entries.iter().rev().find(|entry| entry.key == name) else {
        return text.to_owned();
    };
    let (before, after) = text.split_at(last.value_at.start);
    let after = &after[last.value_at.len()..];
    format!("{before}{after}")
}

/// Reports that a line has this name, be its value empty.
pub fn names(text: &str, name: &str) -> bool {
    envfile::parse(text).0.iter().any(|entry| entry.key == name)
}

/// Names and values that the text sets, the last of each name.
pub fn values(text: &str) -> Vec<(String, String)> {
    let (entries, _) = envfile::parse(text);
    let mut values: Vec<(String, String)> = Vec::new();
    for entry in entries {
        values.retain(|(name, _)| *name != entry.key);
        values.push((entry.key, entry.value));
    }
    values.retain(|(_, value)| !value.is_empty());
    values
}

/// The value as a line has it: bare, or in quotes.
fn quoted(value: &str) -> Result<String, UnwritableValue> {
    if value.contains('\0') {
        return Err(UnwritableValue);
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=~[]".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return Ok(value.to_owned());
    }
    let spans = value.contains(['\n', '\r']);
    let quote = if spans { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in value.chars() {
        match (c, spans) {
            ('\n', true) => out.push_str("\\n"),
            ('\r', true) => out.push_str("\\r"),
            ('"' | '$', true) | ('\'', false) | ('\\', _) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out.push(quote);
    Ok(out)
}

/// The lower-case name of an outbound proxy.
fn lower(name: &str) -> Option<String> {
    let is_proxy = env::variable(name).is_some_and(|it| it.section == Section::Proxies);
    is_proxy.then(|| name.to_ascii_lowercase())
}

/// The place after the line that has this variable commented out.
fn commented_out(text: &str, name: &str) -> Option<usize> {
    let mut at = 0;
    let mut found = None;
    let (entries, _) = envfile::parse(text);
    for line in text.split_inclusive('\n') {
        let is_inside = entries.iter().any(|entry| entry.lines.contains(&at));
        let begins = line
            .strip_prefix('#')
            .map(str::trim_start)
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('='));
        at += line.len();
        if begins && !is_inside {
            found = Some(at);
        }
    }
    found
}

fn line_end(text: &str) -> &'static str {
    match text.contains("\r\n") {
        true => "\r\n",
        false => "\n",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str, name: &str, value: &str) -> String {
        with_value(text, name, value).unwrap()
    }

    #[test]
    fn one_value_changes_and_the_rest_stays() {
        for (before, value, after) in [
            ("PORT=1\n", "2", "PORT=2\n"),
            (
                "# a\nPORT=1 # why\nHOST=x\n",
                "2",
                "# a\nPORT=2 # why\nHOST=x\n",
            ),
            (
                "export PORT = '1'  # why\r\nHOST=x\r\n",
                "2",
                "export PORT = 2  # why\r\nHOST=x\r\n",
            ),
            ("PORT=# why\n", "2", "PORT=2 # why\n"),
            ("PORT= # why\n", "2", "PORT=2 # why\n"),
            ("PORT=1\nPORT=3\n", "2", "PORT=1\nPORT=2\n"),
            ("PORT=\"a\nb\"\nHOST=x", "2", "PORT=2\nHOST=x"),
            ("HOST=x", "2", "HOST=x\nPORT=2\n"),
            ("", "2", "PORT=2\n"),
            ("HOST=x\r\n", "2", "HOST=x\r\nPORT=2\r\n"),
            (
                "# Port.\n#PORT=8088\n\n# Next.\n",
                "2",
                "# Port.\n#PORT=8088\nPORT=2\n\n# Next.\n",
            ),
            ("A='x\n#PORT=1\n'\n", "2", "A='x\n#PORT=1\n'\nPORT=2\n"),
        ] {
            assert_eq!(set(before, "PORT", value), after, "{before:?}");
        }
    }

    #[test]
    fn lines_of_a_variable_go_and_others_stay() {
        let text = "# a\nPORT=1\nHOST=x # y\nexport PORT='a\nb' # c\n\n";
        assert_eq!(without(text, "PORT"), "# a\nHOST=x # y\n\n");
        assert_eq!(without(text, "WORKERS"), text);
        let text = "https_proxy=http://a:1\nHTTPS_PROXY=http://b:1\n";
        assert_eq!(without(text, "HTTPS_PROXY"), "");
        assert_eq!(
            set(text, "HTTPS_PROXY", "http://c:1"),
            "https_proxy=http://c:1\nHTTPS_PROXY=http://b:1\n"
        );
        let text = "A=1\nUPSTREAM_API_KEYS='sk-1' # k\n";
        assert_eq!(
            cleared(text, "UPSTREAM_API_KEYS"),
            "A=1\nUPSTREAM_API_KEYS= # k\n"
        );
        assert_eq!(cleared(text, "PORT"), text);
    }

    #[test]
    fn a_value_is_quoted_where_it_must_be() {
        for (value, line) in [
            ("https://a.example/p", "A=https://a.example/p\n"),
            ("a b", "A='a b'\n"),
            ("it's \\ #1", "A='it\\'s \\\\ #1'\n"),
            ("a\n\"b\" $c", "A=\"a\\n\\\"b\\\" \\$c\"\n"),
        ] {
            assert_eq!(set("", "A", value), line);
        }
        assert_eq!(with_value("", "A", "a\0"), Err(UnwritableValue));
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_again(
            before in proptest::collection::vec("(#[ -~]{0,20}|[A-C]=[a-z '#]{0,6}|PORT=[a-z]{0,5}( #c)?)", 0..8),
            value in "[^\0]{1,40}",
        ) {
            let text: String = before.iter().map(|line| format!("{line}\n")).collect();
            let (entries, faults) = envfile::parse(&text);
            // an open quote takes the lines after it
            prop_assume!(faults.is_empty());
            let after = set(&text, "PORT", &value);
            let (changed, faults) = envfile::parse(&after);
            prop_assert!(faults.is_empty(), "{after:?}");
            let last = changed.iter().rev().find(|it| it.key == "PORT").map(|it| it.value.clone());
            prop_assert_eq!(last, Some(value));
            let others = |entries: &[envfile::EnvEntry]| -> Vec<(String, String)> {
                let others = entries.iter().filter(|it| it.key != "PORT");
                others.map(|it| (it.key.clone(), it.value.clone())).collect()
            };
            prop_assert_eq!(others(&entries), others(&changed));
            let (after, text) = (without(&after, "PORT"), without(&text, "PORT"));
            prop_assert_eq!(after.trim_end(), text.trim_end());
        }
    }
}
