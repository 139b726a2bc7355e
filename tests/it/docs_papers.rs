//! The papers agree with the checkout: each section and each file that they or the code cite exists, and
//! they keep to the form that `CONTRIBUTING.md` asks for.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const CONTRACT: &str = "docs/contract.md";

#[test]
fn each_cited_section_of_the_contract_exists() {
    let contract = fs::read_to_string(CONTRACT).unwrap();
    let sections: BTreeSet<&str> = contract.lines().filter_map(heading).collect();
    assert!(sections.len() > 40, "{sections:?}");
    let mut wrong = Vec::new();
    let mut citations = 0;
    for path in files(&["src", "tests", "docs"], &["rs", "md"]) {
        let text = prose(&fs::read_to_string(&path).unwrap());
        for section in cited(&text, CONTRACT) {
            citations += 1;
            if !sections.contains(section.as_str()) {
                wrong.push(format!("{}: §{section}", path.display()));
            }
        }
        // the form that the reader above does not see
        if text.to_lowercase().contains(concat!("contract", " §")) {
            wrong.push(format!("{}: cite as {CONTRACT} §N.N", path.display()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(citations >= 30, "{citations} citations");
}

#[test]
fn the_reader_of_citations_sees_each_section() {
    let text = "/// One (a.md §1.1, §2;\n/// b) and a.md\n/// §3.14. a.md alone; §9 of RFC 1.";
    assert_eq!(cited(&prose(text), "a.md"), ["1.1", "2", "3.14"]);
    assert_eq!(heading("### §2.10 Retries and failover"), Some("2.10"));
    assert_eq!(heading("## §3 The edit"), Some("3"));
    assert_eq!(heading("as in §3"), None);
}

/// The number of a heading with a section sign.
fn heading(line: &str) -> Option<&str> {
    let (marks, rest) = line.split_once(" §")?;
    let is_heading = !marks.is_empty() && marks.chars().all(|c| c == '#');
    is_heading.then(|| rest.split(' ').next().unwrap())
}

/// The sections that follow each mention of a document.
fn cited(text: &str, document: &str) -> Vec<String> {
    let mut sections = Vec::new();
    for (at, _) in text.match_indices(document) {
        let mut rest = text[at + document.len()..].trim_start();
        while let Some(section) = rest.strip_prefix('§') {
            let end = section
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(section.len());
            sections.push(section[..end].trim_end_matches('.').to_owned());
            rest = section[end..].trim_start_matches([',', ' ']);
        }
    }
    sections
}

/// A text without comment marks and line breaks: a citation may span lines.
fn prose(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim().trim_start_matches(['/', '!']).trim())
        .collect();
    lines.join(" ")
}

fn files(roots: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() && !is_generated(&path) {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path
            .extension()
            .is_some_and(|e| extensions.iter().any(|x| e == *x))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_generated(path: &Path) -> bool {
    path.ends_with("target") || path.ends_with("node_modules")
}
