//! The manuals say what the code says: each table of variables against [`table`].

use std::collections::BTreeMap;

use anthropic_proxy::config::env::table;

#[test]
fn the_readme_has_every_variable_with_its_default() {
    holds("README.md");
}

#[test]
fn the_chinese_readme_has_every_variable_with_its_default() {
    holds("README.zh-CN.md");
}

#[test]
fn the_example_file_names_every_variable() {
    let text = std::fs::read_to_string(".env.example").unwrap();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('='))
        .map(|(name, _)| name)
        .filter(|name| is_variable(name))
        .collect();
    let expected: Vec<&str> = table().iter().map(|variable| variable.name).collect();
    assert_eq!(names, expected);
}

#[track_caller]
fn holds(path: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text
        .split_once("<!-- variables:begin -->")
        .expect("the table begins");
    let (rows, _) = rest
        .split_once("<!-- variables:end -->")
        .expect("the table ends");
    let mut documented = BTreeMap::new();
    for row in rows.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`');
        if is_variable(name) {
            let default = cells[1].trim_matches('`').to_owned();
            assert!(
                documented.insert(name, default).is_none(),
                "{path} has {name} twice"
            );
        }
    }
    let names: Vec<&str> = documented.keys().copied().collect();
    let mut expected: Vec<&str> = table().iter().map(|variable| variable.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected, "{path}");
    for variable in table() {
        let default = &documented[variable.name];
        let unset = variable.default.is_empty() && NONE.contains(&default.as_str());
        assert!(
            unset || default == variable.default,
            "{path}: the default of {} is `{}`, not `{default}`",
            variable.name,
            variable.default,
        );
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|octet| octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'_')
}

/// How a table may say that there is no default.
const NONE: &[&str] = &["", "-", "–", "—"];
