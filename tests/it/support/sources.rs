//! The sources of `src`, parsed, for the tests of the house rules.

use std::path::{Path, PathBuf};

use syn::{Attribute, Item, Meta};

/// One file of `src`.
pub(crate) struct Source {
    /// Its path from the repository's root.
    pub(crate) path: PathBuf,
    /// The module that it is, from the crate's root: `["upstream", "pool"]`; none for `lib.rs`.
    pub(crate) module: Vec<String>,
    /// Its items, without those of tests.
    pub(crate) items: Vec<Item>,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// The module as a path: `upstream/pool`.
    pub(crate) fn name(&self) -> String {
        self.module.join("/")
    }
}

/// All files of `src` but those of tests.
pub(crate) fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(Path::new("src"), &mut paths);
    paths.sort();
    paths.into_iter().filter_map(read).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn read(path: PathBuf) -> Option<Source> {
    let below = path.strip_prefix("src").unwrap().with_extension("");
    let mut module: Vec<String> = below
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if module.iter().any(|part| part == "tests") {
        return None;
    }
    if module == ["lib"] {
        module.clear();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let file = syn::parse_file(&text).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    if is_for_tests(&file.attrs) {
        return None;
    }
    let items = file
        .items
        .into_iter()
        .filter(|item| !is_for_tests(attributes(item)))
        .collect();
    Some(Source {
        path,
        module,
        items,
        text,
    })
}

/// Whether an item is compiled for tests only.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
