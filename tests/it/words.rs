//! The house rules on words (`CONTRIBUTING.md`): one name means one thing, comments open with a noun or a
//! verb, and texts for users name who does what.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use syn::{
    Item, LitStr,
    visit::{self, Visit},
};

use crate::support::sources::{Source, attributes, is_for_tests, sources};

/// Most type names in percent that may stand for two things.
const MOST_HOMONYMS: f64 = 8.0;

/// Words that a doc comment may not open with: they make the reader wait for the subject.
const RIDDLES: &[&str] = &[
    "how", "of", "that", "what", "when", "where", "whether", "which", "who", "whoever", "whom",
    "whose", "why",
];

/// Words that hide who does something, or how much of it there is.
const VAGUE: &[&str] = &["somebody", "nobody", "whoever", "so many", "so much"];

#[test]
fn one_name_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &*FILES {
        for name in &file.types {
            let places = places.entry(name.clone()).or_default();
            places.push(file.name.clone());
        }
    }
    let all: usize = places.values().map(Vec::len).sum();
    let homonyms: Vec<_> = places
        .iter()
        .filter(|(_, places)| places.len() > 1)
        .collect();
    let double: usize = homonyms.iter().map(|(_, places)| places.len()).sum();
    let share = double as f64 * 100.0 / all as f64;
    assert!(
        share <= MOST_HOMONYMS,
        "{double} of {all} types ({share:.1} %) share a name: {homonyms:#?}"
    );
}

/// Of two schemas with one name, the description of the API has the last one alone.
#[test]
fn one_schema_name_means_one_type() {
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &*FILES {
        for (name, ident) in &file.schemas {
            let place = format!("{} in {}", ident, file.name);
            types.entry(name.clone()).or_default().push(place);
        }
    }
    assert!(
        types.contains_key("Overview") && types.len() > 40,
        "{types:?}"
    );
    types.retain(|_, places| places.len() > 1);
    assert!(types.is_empty(), "{types:#?}");
}

#[test]
fn doc_comments_open_with_a_noun_or_a_verb() {
    let mut wrong = Vec::new();
    for file in &*FILES {
        for (number, opening) in openings(&file.text) {
            if is_riddle(opening) {
                wrong.push(format!("{}:{number}: {opening}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} doc comments: {wrong:#?}", wrong.len());
}

#[test]
fn texts_for_users_name_who_does_what() {
    let mut wrong = BTreeSet::new();
    for file in &*FILES {
        for text in &file.texts {
            if let Some(word) = vague(text) {
                wrong.insert(format!("{}: `{word}` in {text:?}", file.path.display()));
            }
        }
    }
    for path in texts_for_users() {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = vague(line) {
                wrong.insert(format!("{}:{}: `{word}`", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_the_rules_look_for_is_found() {
    assert!(is_riddle("What is known of a request."));
    assert!(is_riddle("whether it is **whole**"));
    assert!(!is_riddle("Whatsoever"));
    assert!(!is_riddle("`what`, the label of a metric"));
    assert_eq!(vague("There is Nobody here"), Some("nobody"));
    assert_eq!(vague("not so  many"), None);
    assert_eq!(vague("after so many tries"), Some("so many"));
    let text = "//! One.\n//! Two.\n\n/// Three.\n/// Four.\nfn f() {}\n    /// Five.\n\
                #[cfg(test)]\nmod tests {\n    /// Six.\n}\n";
    let found: Vec<_> = openings(text).collect();
    assert_eq!(found, [(1, "One."), (4, "Three."), (7, "Five.")]);
}

/// A file of `src`, as far as the rules look at it. Syntax trees belong to one thread; this does not.
struct File {
    name: String,
    path: PathBuf,
    text: String,
    /// Names of its types.
    types: Vec<String>,
    /// Names of its schemas in the description of the API, with those of their types.
    schemas: Vec<(String, String)>,
    /// Its string literals.
    texts: Vec<String>,
}

/// All files, parsed once, which takes seconds.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| sources().into_iter().map(file).collect());

fn file(source: Source) -> File {
    let (mut names, mut texts) = (Names::default(), Texts::default());
    for item in &source.items {
        names.visit_item(item);
        texts.visit_item(item);
    }
    File {
        name: source.name(),
        types: names.0,
        schemas: source.items.iter().filter_map(schema).collect(),
        texts: texts.0,
        path: source.path,
        text: source.text,
    }
}

/// The schema that an item derives: `#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = …))]`.
fn schema(item: &Item) -> Option<(String, String)> {
    let (attributes, ident) = match item {
        Item::Struct(item) => (&item.attrs, &item.ident),
        Item::Enum(item) => (&item.attrs, &item.ident),
        _ => return None,
    };
    let lists = attributes
        .iter()
        .filter(|it| it.path().is_ident("cfg_attr"));
    let described: String = lists
        .filter_map(|it| Some(it.meta.require_list().ok()?.tokens.to_string()))
        .collect();
    if !described.contains("ToSchema") {
        return None;
    }
    let renamed = described.split("as = ").nth(1);
    let renamed = renamed.and_then(|it| it.split([',', ' ', ')']).next());
    let name = renamed.map_or_else(|| ident.to_string(), str::to_owned);
    Some((name, ident.to_string()))
}

/// The first line of each doc comment before the tests, with its number.
fn openings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let mut before = None;
    code.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim_start();
        let doc = ["///", "//!"]
            .into_iter()
            .find_map(|mark| Some((mark, line.strip_prefix(mark)?)));
        let mark = doc.map(|(mark, _)| mark);
        let is_first = mark != before;
        before = mark;
        doc.filter(|_| is_first)
            .map(|(_, text)| (index + 1, text.trim()))
    })
}

fn is_riddle(opening: &str) -> bool {
    let word = opening
        .trim_start_matches('*')
        .split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or_default();
    RIDDLES.contains(&word.to_lowercase().as_str())
}

fn vague(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    let is_word = |at: usize, word: &str| {
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_letter(text[..at].chars().next_back())
            && !is_letter(text[at + word.len()..].chars().next())
    };
    VAGUE
        .iter()
        .copied()
        .find(|word| text.match_indices(word).any(|(at, _)| is_word(at, word)))
}

/// The manuals, and the texts of the pages.
fn texts_for_users() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        ".env.example",
    ]
    .map(PathBuf::from)
    .into();
    collect(Path::new("docs"), &["md"], &mut paths);
    collect(Path::new("static/assets"), &["js"], &mut paths);
    paths.retain(|path| path.is_file());
    assert!(paths.len() > 10, "{paths:?}");
    paths
}

fn collect(directory: &Path, extensions: &[&str], paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "vendor") {
                collect(&path, extensions, paths);
            }
        } else if path
            .extension()
            .is_some_and(|has| extensions.iter().any(|extension| has == *extension))
        {
            paths.push(path);
        }
    }
}

/// The names of structs, enums, unions and traits.
#[derive(Default)]
struct Names(Vec<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        match item {
            Item::Struct(item) => self.0.push(item.ident.to_string()),
            Item::Enum(item) => self.0.push(item.ident.to_string()),
            Item::Union(item) => self.0.push(item.ident.to_string()),
            Item::Trait(item) => self.0.push(item.ident.to_string()),
            _ => {}
        }
        visit::visit_item(self, item);
    }
}

/// String literals, those in macros too; doc comments are none.
#[derive(Default)]
struct Texts(Vec<String>);

impl Texts {
    fn add_tokens(&mut self, tokens: proc_macro2::TokenStream) {
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Group(group) => self.add_tokens(group.stream()),
                proc_macro2::TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.0.push(text.value());
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        // `#[error("…")]` and the like, but no comments
        if let syn::Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
        }
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.0.push(text.value());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
    }
}
