//! The house rule: imports point down, and siblings do not import each other.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Top modules by layer, highest first.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["server"],
    &["control"],
    &["proxy"],
    &["upstream", "downstream", "edit"],
    &["telemetry"],
    &["config"],
    &["metering"],
    &["json", "wire"],
    &["limits", "drain", "logging", "exchange", "error"],
    &["secret"],
];

#[test]
fn imports_point_down() {
    let mut wrong = BTreeSet::new();
    for path in sources(Path::new("src")) {
        let Some(module) = top_module(&path) else {
            continue;
        };
        let from = layer(&module).unwrap_or_else(|| panic!("`{module}` has no layer: add it"));
        let text = std::fs::read_to_string(&path).unwrap();
        for imported in imports(product_code(&text)) {
            let to = layer(&imported)
                .unwrap_or_else(|| panic!("`{imported}` in {} has no layer", path.display()));
            if imported != module && to <= from {
                wrong.insert(format!(
                    "{}: `{module}` imports `{imported}`",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let text = "use crate::{\n    config::Live, // why\n    error::{ProxyError, a::b},\n};\n\
                let x = crate::upstream::Client::new();\npub(crate) use crate::secret;\n\
                pub(in crate::metrics) fn x() {}\n";
    let found: BTreeSet<String> = imports(text).into_iter().collect();
    let expected = ["config", "error", "secret", "upstream"].map(str::to_owned);
    assert_eq!(found, expected.into_iter().collect());
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The module below the crate's root that a file belongs to; `lib.rs` belongs to none.
fn top_module(path: &Path) -> Option<String> {
    let first = path
        .strip_prefix("src")
        .unwrap()
        .components()
        .next()
        .unwrap();
    let name = first.as_os_str().to_str().unwrap().trim_end_matches(".rs");
    (name != "lib").then(|| name.to_owned())
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The part before the tests, which may look anywhere.
fn product_code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

/// The top modules named by paths that begin with `crate::` (in `main`, with the crate's name).
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
        .replace("pub(in crate::", "pub(in ");
    let mut found = Vec::new();
    for root in ["crate::", "anthropic_proxy::"] {
        for (at, _) in code.match_indices(root) {
            found.extend(heads(&code[at + root.len()..]));
        }
    }
    found
}

/// The first name of a path, or of each path in braces.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut depth = 0_usize;
    let mut found = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                found.push(name(group[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}
