//! Tables and fields of texts, for people.

use serde_json::Value;

/// Rows in columns that are as wide as their widest text, below their names.
pub(super) fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            let blanks = width.saturating_sub(text.chars().count()) + 2;
            line += text;
            line += &" ".repeat(blanks);
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// A text of JSON for a cell: a dash for nothing, a list with commas. No control character moves the terminal.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.chars().filter(|it| !it.is_control()).collect(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text() {
        let rows = [
            vec!["a".to_owned(), "bcd".to_owned()],
            vec!["äöü".to_owned(), String::new()],
        ];
        assert_eq!(table(&["ID", "N"], &rows), "ID   N\na    bcd\näöü\n");
    }

    #[test]
    fn a_cell_shows_no_control_character() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\n")), "a[2Jb");
        assert_eq!(cell(&json!(["a", null, 5, true])), "a, -, 5, yes");
        assert_eq!(cell(&json!([])), "-");
    }
}
