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

/// Papers of this form: README and the manuals have tests of their own.
const PAPERS: [&str; 5] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    CONTRACT,
];

#[test]
fn each_file_that_the_papers_name_exists() {
    let mut wrong = Vec::new();
    let mut names = 0;
    for path in papers() {
        let text = fs::read_to_string(&path).unwrap();
        let beside = path.parent().unwrap();
        let links = links(&text).map(|link| beside.join(link));
        let spans = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|span| is_path(span));
        for named in links.chain(spans.map(PathBuf::from)) {
            names += 1;
            if !named.exists() {
                wrong.push(format!("{}: {}", path.display(), named.display()));
            }
        }
    }
    for path in files(&["README.md", "README.zh-CN.md", "docs"], &["md"]) {
        let text = fs::read_to_string(&path).unwrap();
        for link in links(&text).filter(|link| !path.parent().unwrap().join(link).exists()) {
            wrong.push(format!("{}: {link}", path.display()));
        }
    }
    for path in files(&["src", "tests"], &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        for decision in decisions(&text).filter(|decision| !Path::new(decision).exists()) {
            wrong.push(format!("{}: {decision}", path.display()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(names > 100, "{names} names");
}

#[test]
fn each_decision_is_in_the_list() {
    let list = fs::read_to_string("docs/decisions/README.md").unwrap();
    for path in files(&["docs/decisions"], &["md"]) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        if name != "README.md" {
            assert!(list.contains(name), "{name}");
            let title = format!("# {}: ", &name[..4]);
            assert!(text.starts_with(&title), "{name} begins with `{title}`");
            for part in ["## Context", "## Decision", "## Consequences"] {
                assert!(text.contains(part), "{name} has no `{part}`");
            }
        }
    }
}

#[test]
fn the_papers_have_short_lines_and_paragraphs() {
    let mut wrong = Vec::new();
    for path in papers() {
        let text = fs::read_to_string(&path).unwrap();
        let (mut paragraph, mut is_code) = (0, false);
        for (number, line) in (1..).zip(text.lines()) {
            is_code ^= line.starts_with("```");
            let is_paragraph = line.starts_with(|c: char| c.is_alphanumeric() || "`*[".contains(c));
            paragraph = if is_paragraph && !is_code {
                paragraph + 1
            } else {
                0
            };
            if paragraph > 5 || (line.chars().count() > 110 && !line.starts_with('|')) {
                wrong.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

fn papers() -> impl Iterator<Item = PathBuf> {
    let decisions = files(&["docs/decisions"], &["md"]);
    PAPERS.iter().map(PathBuf::from).chain(decisions)
}

/// The files of the checkout that a text links to.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.starts_with("http") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap())
}

/// Whether a span of code is a path of the checkout, and no pattern.
fn is_path(span: &str) -> bool {
    let folders = ["src/", "tests/", "docs/", "static/", ".ci/"];
    folders.iter().any(|folder| span.starts_with(folder))
        && span
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
}

/// The decisions that a text names by their files.
fn decisions(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    text.match_indices("docs/decisions/")
        .map(move |(at, _)| text[at..].split(|c| !is_name(c)).next().unwrap())
        .map(|name| name.trim_end_matches('.'))
        .filter(|name| name.ends_with(".md"))
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
