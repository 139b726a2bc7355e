//! The table of variables, and their typed values.
//!
//! `check`, `.env.example`, `docs/configuration.md`, the dashboard and every error are made from
//! [`table()`], and `Settings` from the same declarations.

mod declaration;
pub mod example;
mod other_names;
pub mod reference;
mod table;
mod variable;

pub use self::other_names::other_name;
pub(super) use self::table::Settings;
use self::table::{RETIRED, TABLE};
pub use self::variable::{Applies, Language, Redaction, Section, Text, Variable};
use super::scalar;

/// Names at least this similar are near misses: two slips in `PORT` are not, three in
/// `SYSTEM_PROMPT_REPLACEMENT` are.
const NEAR: f64 = 0.7;

/// All variables, section by section.
pub fn table() -> &'static [Variable] {
    TABLE
}

/// The variable of that name.
pub fn variable(name: &str) -> Option<&'static Variable> {
    TABLE.iter().find(|variable| variable.name == name)
}

/// The variable whose name is most like this one, if any is near, or that other programs call so.
pub fn nearest(name: &str) -> Option<&'static str> {
    if let Some(other) = other_name(name) {
        return Some(other.variable);
    }
    let upper = name.to_ascii_uppercase();
    if let Some(variable) = variable(&upper) {
        return Some(variable.name);
    }
    let names = TABLE.iter().map(|variable| variable.name);
    scalar::nearest(name, names, NEAR)
}

/// A name of the service we replace that means nothing here, and the line that says why.
pub(super) fn retired(name: &str) -> Option<&'static str> {
    RETIRED
        .iter()
        .find(|(retired, _)| *retired == name)
        .map(|(_, why)| *why)
}

/// The names that [`retired`] knows.
pub(super) fn retired_names() -> impl Iterator<Item = &'static str> {
    RETIRED.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_and_the_names_agree() {
        let mut faults = Vec::new();
        // Unknown fields are denied: every name has a field.
        let read = |text: &str, faults: &mut Vec<&str>| {
            let texts = TABLE
                .iter()
                .map(|variable| (variable.name.to_owned(), text.to_owned()));
            Settings::read(texts, &mut |name, _| faults.push(name)).map(|_| ())
        };
        assert_eq!(read("\n", &mut faults), Ok(()));
        let names = TABLE.iter().map(|variable| variable.name);
        let checked: Vec<_> = names.filter(|name| faults.contains(name)).collect();
        assert_eq!(checked, faults, "not in the order of the table");
        assert!(checked.len() > 40, "{checked:?}");
    }

    #[test]
    fn names_of_other_programs_lead_to_a_variable() {
        let mut seen = Vec::new();
        for other in other_names::OTHER_NAMES {
            let (name, variable) = (other.name(), other.variable);
            assert!(super::variable(variable).is_some(), "{name}: {variable}");
            assert!(
                super::variable(name).is_none() && retired(name).is_none(),
                "{name}"
            );
            assert!(!seen.contains(&name), "{name} is there twice");
            assert!(other.remedy().contains(variable), "{name}");
            assert_eq!(nearest(&name.to_lowercase()), Some(variable));
            seen.push(name);
        }
    }

    #[test]
    fn rows_are_complete_and_sections_are_contiguous() {
        let mut seen: Vec<Section> = Vec::new();
        for variable in TABLE {
            assert!(
                !variable.example.is_empty(),
                "{} has no example",
                variable.name
            );
            let is_chinese = |text: &str| text.contains(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            let Text { en, zh } = variable.doc;
            assert!(en.ends_with('.') && !is_chinese(en), "{}", variable.name);
            assert!(
                zh.ends_with('。') && is_chinese(zh),
                "{} has no text in Chinese",
                variable.name
            );
            assert!(!(en.contains('\n') || zh.contains('\n')));
            // a form of names alone is the same in both
            let Text { en, zh } = variable.form;
            assert!(is_chinese(zh) && !is_chinese(en), "{}", variable.name);
            assert!(retired(variable.name).is_none(), "{}", variable.name);
            if seen.last() != Some(&variable.section) {
                assert!(!seen.contains(&variable.section), "{}", variable.name);
                seen.push(variable.section);
            }
        }
    }
}
