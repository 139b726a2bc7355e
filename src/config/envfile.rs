//! The grammar of `env/.env`: lines of `KEY=VALUE`, each with its number.
//!
//! An `export ` prefix and `#` comments are allowed. A bare value ends at white space followed by
//! `#`, or at the end of the line. A quoted value may span lines: in double quotes `\n`, `\r`,
//! `\t`, `\"`, `\\` and `\$` are escapes, in single quotes `\'` and `\\` (as python-dotenv reads
//! them); any other backslash stands for itself. Nothing is interpolated: `$` is a dollar sign.
//!
//! Faults carry the line and never its content, which may be a secret.

use std::ops::Range;

/// An environment file in a few facts, without its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EnvFileFacts {
    /// The file does not exist.
    pub(super) is_missing: bool,
    /// Lines that set something.
    pub(super) settings: usize,
    /// Names that are given an empty value, which is to unset them on purpose.
    pub(super) cleared: Vec<String>,
    /// The file ends with a line break.
    pub(super) is_whole: bool,
}

/// One `KEY=VALUE`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct EnvEntry {
    pub(super) key: String,
    pub(super) value: String,
    /// The line of the key, from 1.
    pub(super) line: usize,
    /// Its lines in the text, with the line break after them.
    pub(super) lines: Range<usize>,
    /// The value in the text, with its quotes.
    pub(super) value_at: Range<usize>,
    /// The comment behind a bare value, if its `#` may have been meant as a part of the value.
    pub(super) remark: Option<CommentStart>,
}

/// Place at which a doubtful comment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommentStart {
    /// Directly behind the equals sign: there is no value.
    AtOnce,
    /// Behind a value and white space, and directly before a word.
    AtWord,
}

/// A line that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

/// All entries in order, and all lines at fault.
pub(super) fn parse(text: &str) -> (Vec<EnvEntry>, Vec<BadLine>) {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (this, next) = rest.split_once('\n').unwrap_or((rest, ""));
        let mut consumed = &rest[..rest.len() - next.len()];
        match entry(this, rest) {
            Ok(None) => {}
            Ok(Some(ParsedEntry {
                key,
                value,
                value_at,
                remark,
                tail,
            })) => {
                // A value that spans lines moves the cursor to the end of its last one.
                let end = rest.len() - tail.len();
                if end > this.len() {
                    let last = tail.find('\n').map_or(tail.len(), |at| at + 1);
                    consumed = &rest[..end + last];
                }
                let start = text.len() - rest.len();
                entries.push(EnvEntry {
                    key: key.to_owned(),
                    value,
                    line,
                    lines: start..start + consumed.len(),
                    value_at: start + value_at.start..start + value_at.end,
                    remark,
                });
            }
            Err(problem) => faults.push(BadLine { line, problem }),
        }
        line += consumed.matches('\n').count();
        rest = &rest[consumed.len()..];
    }
    (entries, faults)
}

struct ParsedEntry<'t> {
    key: &'t str,
    value: String,
    /// The value from the line on, with its quotes.
    value_at: Range<usize>,
    remark: Option<CommentStart>,
    /// The text after the value, to the end of the file.
    tail: &'t str,
}

/// Reads the entry that begins on `line`; `rest` is the file from that line on.
fn entry<'t>(line: &'t str, rest: &'t str) -> Result<Option<ParsedEntry<'t>>, &'static str> {
    let bare = line.trim();
    if bare.is_empty() || bare.starts_with('#') {
        return Ok(None);
    }
    let Some(equals) = line.find('=') else {
        return Err("has no `=`");
    };
    let key = line[..equals].trim();
    let key = match key.strip_prefix("export") {
        Some(name) if name.starts_with([' ', '\t']) => name.trim_start(),
        _ => key,
    };
    if !is_name(key) {
        return Err("does not begin with the name of a variable");
    }
    let from_value = rest[equals + 1..].trim_start_matches([' ', '\t']);
    let quote = from_value
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        let value = line[equals + 1..].trim_end();
        let bare = bare_value(value);
        let blank = match bare.is_empty() {
            true => 0,
            false => value.len() - value.trim_start().len(),
        };
        let start = equals + 1 + blank;
        return Ok(Some(ParsedEntry {
            key,
            value: bare.to_owned(),
            value_at: start..start + bare.len(),
            remark: doubtful_comment(value, bare),
            tail: &rest[line.len()..],
        }));
    };
    let (value, tail) =
        quoted(&from_value[1..], quote).ok_or("opens a quote that nothing closes")?;
    let after = tail.split('\n').next().unwrap_or("").trim();
    if !after.is_empty() && !after.starts_with('#') {
        return Err(
            "has text after the closing quote (a quote inside the value needs a backslash)",
        );
    }
    Ok(Some(ParsedEntry {
        key,
        value,
        value_at: rest.len() - from_value.len()..rest.len() - tail.len(),
        remark: None,
        tail,
    }))
}

/// The place of a comment behind a bare value, which ends before it, if it is a doubtful one.
fn doubtful_comment(after_equals: &str, bare: &str) -> Option<CommentStart> {
    if bare.is_empty() {
        return after_equals
            .starts_with('#')
            .then_some(CommentStart::AtOnce);
    }
    let comment = after_equals.trim_start().get(bare.len()..)?.trim_start();
    let is_word = |c: char| c.is_alphanumeric();
    let word = comment.strip_prefix('#')?;
    word.starts_with(is_word).then_some(CommentStart::AtWord)
}

fn is_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `value` up to white space followed by `#`, trimmed.
fn bare_value(value: &str) -> &str {
    let comment = value
        .match_indices('#')
        .find(|(at, _)| value[..*at].ends_with([' ', '\t']) || value[..*at].is_empty());
    match comment {
        Some((at, _)) => value[..at].trim(),
        None => value.trim(),
    }
}

/// The value up to the closing quote, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((value, &text[at + 1..]));
        }
        // A file written on Windows has CR LF; the value has lines.
        if c == '\r' && text[at + 1..].starts_with('\n') {
            continue;
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        let (_, escaped) = chars.next()?;
        match (quote, escaped) {
            ('"', 'n') => value.push('\n'),
            ('"', 'r') => value.push('\r'),
            ('"', 't') => value.push('\t'),
            ('"', '"' | '$') | ('\'', '\'') | (_, '\\') => value.push(escaped),
            _ => value.extend(['\\', escaped]),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, usize)> {
        let (entries, faults) = parse(text);
        assert_eq!(faults, []);
        entries
            .into_iter()
            .map(|e| (e.key, e.value, e.line))
            .collect()
    }

    #[test]
    fn values_are_read() {
        for (text, value) in [
            ("A=1", "1"),
            ("A=", ""),
            ("  A = 1  ", "1"),
            ("export A=1", "1"),
            ("export\tA=1", "1"),
            ("A=a b c", "a b c"),
            ("A=a#b", "a#b"),
            ("A=a # b", "a"),
            ("A=a\t# b", "a"),
            ("A= # b", ""),
            ("A=# b", ""),
            ("A=a=b", "a=b"),
            ("A=it's", "it's"),
            ("A=$B ${C}", "$B ${C}"),
            ("A=1\r", "1"),
            ("A=a\\nb", "a\\nb"),
            (r#"A="a b""#, "a b"),
            (r#"A="a # b" # c"#, "a # b"),
            (r#"A="""#, ""),
            (r#"A="a\n\t\"\\\r\$b""#, "a\n\t\"\\\r$b"),
            (r#"A="C:\dir""#, r"C:\dir"),
            ("A='a \"b\" $c'", "a \"b\" $c"),
            (r"A='a\nb'", r"a\nb"),
            (r"A='it\'s \\'", r"it's \"),
            ("A=\"a\nb\"", "a\nb"),
            ("A=\"a\r\nb\"\r", "a\nb"),
            ("A='a\n# no comment\nb'", "a\n# no comment\nb"),
            ("A=\"é 你好\"", "é 你好"),
        ] {
            assert_eq!(read(text), [("A".into(), value.into(), 1)], "{text}");
        }
    }

    #[test]
    fn lines_are_counted() {
        let text = "# c\n\nA=1\r\n  # c\nB=\"x\ny\nz\" # c\nC=3\n\nD='q'";
        let lines: Vec<_> = read(text)
            .into_iter()
            .map(|(key, _, line)| (key, line))
            .collect();
        assert_eq!(
            lines,
            [
                ("A".into(), 3),
                ("B".into(), 5),
                ("C".into(), 8),
                ("D".into(), 10)
            ]
        );
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = "A\nB=1\n1C=2\nsk-ant-x=3\nD=\"open\nE=\"a\" b\nF=2\n=x\nexport=ok";
        let (entries, faults) = parse(text);
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        // Line 5 opens a quote that the first quote of line 6 closes, with text behind it.
        assert_eq!(lines, [1, 3, 4, 5, 6, 8]);
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["B", "F", "export"]);
    }

    #[test]
    fn an_open_quote_does_not_hide_what_follows() {
        let (entries, faults) = parse("A='open\nB=1\n");
        assert_eq!(
            faults,
            [BadLine {
                line: 1,
                problem: "opens a quote that nothing closes"
            }]
        );
        assert_eq!(entries[0].key, "B");
        assert_eq!(entries[0].line, 2);
    }

    #[test]
    fn a_backslash_at_the_end_of_the_file_is_an_open_quote() {
        assert_eq!(parse("A=\"x\\").1.len(), 1);
    }
}
