//! The file `.env.example`, made from the table; a test holds the committed file against it.

use std::fmt::Write as _;

use super::{table::TABLE, variable::Applies};

/// The file `.env.example`: every variable, commented out, with its default or an example.
pub fn file() -> String {
    let mut out = String::from(EXAMPLE_HEAD);
    let mut section = None;
    for variable in TABLE {
        if section != Some(variable.section) {
            section = Some(variable.section);
            let _ = write!(out, "\n# --- {} ---\n", variable.section.title().en);
        }
        let restart = match variable.applies {
            Applies::Live => "",
            Applies::Restart => " (needs a restart)",
        };
        let _ = write!(out, "\n# {}{restart}\n", variable.doc.en);
        let _ = writeln!(out, "# Expected: {}.", variable.form.en);
        let value = if variable.default.is_empty() {
            variable.example
        } else {
            variable.default
        };
        let quote = if value.contains([' ', '#', '"']) {
            "'"
        } else {
            ""
        };
        let _ = writeln!(out, "#{}={quote}{value}{quote}", variable.name);
    }
    out
}

const EXAMPLE_HEAD: &str = "\
# anthropic-proxy: every variable with its default (or an example, where it has none).
#
# Copy this file to env/.env and uncomment what you change. A flag overrides the environment, the
# environment overrides this file. Empty means unset. Changes are picked up while the proxy runs,
# unless a line says that it needs a restart. `anthropic-proxy check` shows what is in effect.
#
# Made from src/config/env/table.rs: `anthropic-proxy env-example` prints it.
";

#[cfg(test)]
mod tests {
    use super::super::super::envfile;
    use super::*;

    #[test]
    fn the_committed_example_is_the_generated_one() {
        let committed = std::fs::read_to_string(".env.example").unwrap();
        assert!(
            committed == file(),
            "run `just docs`, or `cargo run -- env-example > .env.example`"
        );
    }

    #[test]
    fn the_example_is_a_valid_env_file_also_when_uncommented() {
        let text = file();
        let (entries, faults) = envfile::parse(&text);
        assert!(entries.is_empty() && faults.is_empty());
        let uncommented: String = text
            .lines()
            .filter(|line| line.starts_with('#') && !line.starts_with("# "))
            .map(|line| format!("{}\n", &line[1..]))
            .collect();
        let (entries, faults) = envfile::parse(&uncommented);
        assert_eq!(faults, []);
        let names: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let expected: Vec<_> = TABLE.iter().map(|variable| variable.name).collect();
        assert_eq!(names, expected);
    }
}
