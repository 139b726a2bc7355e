//! The manuals say what the code says, both languages say the same, and both are short enough to be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anthropic_proxy::config::env::{Applies, Language, reference, table};

use crate::support::ProxyBuilder;

#[test]
fn the_pages_of_settings_are_those_of_the_table() {
    for (path, language) in [
        ("docs/configuration.md", Language::English),
        ("docs/configuration.zh-CN.md", Language::Chinese),
    ] {
        assert!(
            read(path) == reference::page(language),
            "{path} is not what the table says: run `just docs`"
        );
        for variable in table() {
            let default = match variable.default {
                "" => "–".to_owned(),
                default => format!("`{default}`"),
            };
            let row = format!("\n| `{}` | {default} | ", variable.name);
            assert!(read(path).contains(&row), "{path} lacks {row}");
        }
    }
}

#[test]
fn the_example_file_names_every_variable() {
    let text = read(".env.example");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('='))
        .map(|(name, _)| name)
        .filter(|name| is_variable(name))
        .collect();
    let expected: Vec<&str> = table().iter().map(|variable| variable.name).collect();
    assert_eq!(names, expected);
}

#[test]
fn the_chart_knows_every_setting() {
    let text = read("static/deploy/chart/files/settings.yaml");
    let names: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| is_variable(name))
        .collect();
    let expected: Vec<(&str, &str)> = table()
        .iter()
        .map(|variable| match variable.applies {
            Applies::Live => (variable.name, "live"),
            Applies::Restart => (variable.name, "restart"),
        })
        .collect();
    assert_eq!(names, expected, "run `just docs`");
}

#[test]
fn the_hidden_verbs_print_the_generated_files() {
    for (path, verb) in [
        (".env.example", vec!["env-example"]),
        ("docs/configuration.md", vec!["docs", "configuration"]),
        (
            "docs/configuration.zh-CN.md",
            vec!["docs", "configuration", "--lang", "zh"],
        ),
    ] {
        let begun = ProxyBuilder::new();
        let ended = verb.iter().fold(begun, |begun, word| begun.arg(word)).run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.stdout == read(path),
            "{path} is not what {verb:?} prints"
        );
    }
}

#[test]
fn the_readme_is_a_front_door() {
    for path in ["README.md", "README.zh-CN.md"] {
        let text = read(path);
        let lines = text.lines().count();
        assert!(lines <= 150, "{path} has {lines} lines");
        for command in ["cargo run --release --locked", "cargo test --locked"] {
            assert!(
                text.lines().any(|line| line == command),
                "{path}: {command}"
            );
        }
        assert!(text.contains("](static/dashboard.png)"), "{path}");
        // the first command names the upstream, and the default one is named before any key
        let first = text.find("API_BASE_URL=https://").unwrap();
        let default = text.find("https://anyrouter.top").unwrap();
        let key = text.find("ANTHROPIC_AUTH_TOKEN").unwrap();
        assert!(first < text.find("cargo run").unwrap(), "{path}");
        assert!(default < key, "{path}");
    }
    let picture = fs::metadata("static/dashboard.png").unwrap().len();
    assert!(picture <= 150 * 1024, "the picture has {picture} bytes");
}

#[test]
fn both_languages_have_the_same_headings_code_and_names() {
    for (english, chinese) in pairs() {
        let (one, other) = (Page::read(&english), Page::read(&chinese));
        let path = chinese.display();
        assert_eq!(one.headings(), other.headings(), "headings of {path}");
        assert_eq!(one.fences, other.fences, "code blocks of {path}");
        assert_eq!(one.rows(), other.rows(), "rows of tables of {path}");
        let (one, other) = (one.literals(), other.literals());
        let missing: Vec<_> = one.difference(&other).collect();
        let more: Vec<_> = other.difference(&one).collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "{path} lacks {missing:?} and has {more:?}"
        );
    }
}

#[test]
fn no_paragraph_is_longer_than_five_lines() {
    let mut faults = Vec::new();
    for path in manuals() {
        let page = Page::read(&path);
        let is_chinese = path.to_string_lossy().ends_with(".zh-CN.md");
        for paragraph in &page.paragraphs {
            let mut lines = paragraph.lines();
            // a break inside of a Chinese sentence shows as a space: there, a paragraph is one line
            if let Some(long) = lines
                .find(|line| width(line) > WIDTH)
                .filter(|_| !is_chinese)
            {
                faults.push(format!(
                    "{}: {} columns: {long}",
                    path.display(),
                    width(long)
                ));
            }
            let lines: usize = paragraph
                .lines()
                .map(|line| width(line).div_ceil(WIDTH))
                .sum();
            if lines > 5 {
                faults.push(format!("{}: {lines} lines: {paragraph}", path.display()));
            }
        }
        for cell in page
            .cells
            .iter()
            .flatten()
            .filter(|cell| width(cell) > CELL)
        {
            faults.push(format!(
                "{}: {} columns: {cell}",
                path.display(),
                width(cell)
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_between_files_lead_somewhere() {
    let mut faults = Vec::new();
    let mut links = 0;
    for path in markdown() {
        let folder = path.parent().unwrap();
        for target in Page::read(&path).links() {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let file = match file {
                "" => path.clone(),
                file => folder.join(file),
            };
            let is_there = file.exists()
                && (fragment.is_empty() || Page::read(&file).anchors().contains(fragment));
            if !is_there {
                faults.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(links > 100, "{links} links");
}

#[test]
fn each_alert_is_in_the_manuals_and_leads_to_a_section() {
    let rules = read("static/prometheus/alerts.yaml");
    assert!(
        rules == read("static/deploy/chart/files/alerts.yaml"),
        "the chart has another copy: run `just docs`"
    );
    let values = |key: &str| -> Vec<String> {
        let values = rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix(key));
        values
            .map(|value| value.trim_matches([' ', '"']).to_owned())
            .collect()
    };
    let names = values("- alert: AnthropicProxy");
    assert!(names.len() > 20, "{names:?}");
    for path in ["docs/observability.md", "docs/observability.zh-CN.md"] {
        let page = Page::read(Path::new(path));
        for name in &names {
            let row = page.cells.iter().find(|row| row[0] == format!("`{name}`"));
            assert!(row.is_some(), "{path}: {name}");
        }
    }
    for key in ["summary:", "description:", "runbook:", "severity:"] {
        assert_eq!(values(key).len(), names.len(), "{key}");
    }
    for runbook in values("runbook:") {
        let (file, fragment) = runbook.split_once('#').unwrap();
        assert!(
            Page::read(Path::new(file)).anchors().contains(fragment),
            "{runbook}"
        );
    }
}

#[test]
fn every_error_of_the_proxy_has_a_row_in_troubleshooting() {
    let labels = labels();
    assert!(labels.len() > 30, "{labels:?}");
    for path in ["docs/troubleshooting.md", "docs/troubleshooting.zh-CN.md"] {
        let page = Page::read(Path::new(path));
        let first_cells: String = page
            .cells
            .iter()
            .map(|row| format!("{}\n", row[0]))
            .collect();
        for label in &labels {
            assert!(
                first_cells.contains(&format!("`{label}`")),
                "{path}: {label}"
            );
        }
    }
}

#[test]
fn a_thing_has_one_name_in_the_manuals() {
    let mut faults = Vec::new();
    for path in manuals() {
        let text = read(&path).to_lowercase();
        for word in RIDDLES.iter().filter(|word| text.contains(**word)) {
            faults.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_reader_of_pages_sees_what_github_shows() {
    let page = Page::of(
        "# A `B`, 100%!\n\none `x`\ntwo [l](a.md#b) ![i](c.png)\n- item\n  more\n\n| `k` | v |\n|---|---|\n\n\
         ```sh\n`no` [n](o)\n```\n\n## A `B`, 100%!\n",
    );
    assert_eq!(page.headings(), [1, 2]);
    assert_eq!(page.fences, ["```sh", "```"]);
    assert_eq!(
        page.paragraphs[1..3],
        ["one `x`\ntwo [l](a.md#b) ![i](c.png)", "- item\n  more"]
    );
    assert_eq!(page.cells, [["`k`", "v"], ["---", "---"]]);
    assert_eq!(page.links(), ["a.md#b", "c.png"]);
    let literals: Vec<_> = page.literals().into_iter().collect();
    assert_eq!(literals, ["B", "k", "x"]);
    assert!(page.anchors().contains("a-b-100") && page.anchors().contains("a-b-100-1"));
    assert_eq!(width("上游 a"), 6);
}

/// A page in Markdown, without the content of its code blocks.
struct Page {
    /// Headings, paragraphs and items of lists, with their line breaks.
    paragraphs: Vec<String>,
    /// Rows of tables.
    cells: Vec<Vec<String>>,
    /// Lines that begin or end a code block.
    fences: Vec<String>,
}

impl Page {
    #[track_caller]
    fn read(path: &Path) -> Self {
        Self::of(&read(path))
    }

    fn of(text: &str) -> Self {
        let mut page = Self {
            paragraphs: Vec::new(),
            cells: Vec::new(),
            fences: Vec::new(),
        };
        let mut is_code = false;
        let mut is_open = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
                page.fences.push(line.to_owned());
            }
            if is_code || line.trim_start().starts_with("```") || line.trim().is_empty() {
                is_open = false;
            } else if line.starts_with('|') {
                let row = line.trim_matches('|').split('|');
                page.cells
                    .push(row.map(|cell| cell.trim().to_owned()).collect());
                is_open = false;
            } else if !is_open || starts_an_item(line) || line.starts_with('#') {
                page.paragraphs.push(line.to_owned());
                is_open = !line.starts_with('#');
            } else if let Some(paragraph) = page.paragraphs.last_mut() {
                paragraph.push('\n');
                paragraph.push_str(line);
            }
        }
        page
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let cells = self.cells.iter().flatten();
        self.paragraphs.iter().chain(cells).map(String::as_str)
    }

    fn titles(&self) -> impl Iterator<Item = &str> {
        let texts = self.paragraphs.iter().map(String::as_str);
        texts.filter(|text| text.starts_with('#') && text.contains("# "))
    }

    /// The level of each heading.
    fn headings(&self) -> Vec<usize> {
        let level = |title: &str| title.len() - title.trim_start_matches('#').len();
        self.titles().map(level).collect()
    }

    /// Columns of each row.
    fn rows(&self) -> Vec<usize> {
        self.cells.iter().map(Vec::len).collect()
    }

    /// What stands in back-quotes.
    fn literals(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for text in self.texts() {
            let literals = text.split('`').skip(1).step_by(2);
            found.extend(literals.map(|literal| literal.replace("\n  ", " ").replace('\n', " ")));
        }
        found
    }

    /// Targets of links and pictures.
    fn links(&self) -> Vec<String> {
        self.texts()
            .flat_map(|text| text.split("](").skip(1))
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target.to_owned())
            .collect()
    }

    /// Fragments of the headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        self.titles()
            .map(|title| {
                let title = title.trim_start_matches('#').trim().to_lowercase();
                let anchor: String = title
                    .chars()
                    .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect();
                let earlier = seen.entry(anchor.clone()).or_default();
                *earlier += 1;
                match *earlier {
                    1 => anchor,
                    more => format!("{anchor}-{}", more - 1),
                }
            })
            .collect()
    }
}

fn starts_an_item(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("- ") || (number.len() < line.len() && number.starts_with(". "))
}

/// Columns of a line: a Chinese character takes two.
fn width(line: &str) -> usize {
    line.chars()
        .map(|c| if c >= '\u{2e80}' { 2 } else { 1 })
        .sum()
}

/// READMEs and the pages below `docs/` that users read, in both languages.
fn manuals() -> Vec<PathBuf> {
    pairs()
        .into_iter()
        .flat_map(|(one, other)| [one, other])
        .collect()
}

/// Each page in English beside the same in Chinese. The contract is for people who change the code.
fn pairs() -> Vec<(PathBuf, PathBuf)> {
    let english = |path: &PathBuf| !path.to_string_lossy().ends_with(".zh-CN.md");
    let mut pages = files_of("docs");
    pages.retain(|path| english(path) && !path.ends_with("contract.md"));
    pages.push("README.md".into());
    assert!(pages.len() > 8, "{pages:?}");
    let pair = |path: PathBuf| (path.clone(), path.with_extension("zh-CN.md"));
    pages.into_iter().map(pair).collect()
}

/// All of the checkout's pages in Markdown.
fn markdown() -> Vec<PathBuf> {
    let roots = [".", "docs", "docs/decisions"];
    roots.into_iter().flat_map(files_of).collect()
}

fn files_of(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

/// The labels in the table of errors.
fn labels() -> BTreeSet<String> {
    let table = read("src/error.rs");
    let (table, _) = table.split_once("#[cfg(test)]").unwrap();
    let labels = read("src/label.rs");
    labels
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\",")?.split_once(" = \""))
        .filter(|(name, _)| table.contains(&format!("Label::{name},")))
        .map(|(_, text)| text.to_owned())
        .collect()
}

#[track_caller]
fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Columns of a line, and of the largest cell of a table.
const WIDTH: usize = 110;
const CELL: usize = 300;

/// Riddles, and other words for dashboard, response and upstream.
const RIDDLES: &[&str] = &[
    "somebody",
    "nobody",
    "whoever",
    "so many",
    "so much",
    "回答",
    "应答",
    "控制台",
    "看板",
    "仪表板",
    "上行",
];
