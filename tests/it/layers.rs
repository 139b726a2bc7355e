//! The house rules on imports: they point down, rooms of one floor do not import each other, and no file
//! imports a file that imports it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    UseTree,
    visit::{self, Visit},
};

use crate::support::sources::{Source, attributes, is_for_tests, sources};

/// Rooms by floor, highest first.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["server"],
    &["control"],
    &["proxy", "registry", "doctor"],
    &["upstream", "downstream", "edit", "access", "revision"],
    &["telemetry", "audit"],
    &["config"],
    &["metering"],
    &["state", "json", "wire"],
    &["limits", "drain", "logging", "exchange", "error", "webhook"],
    &["secret", "memory", "background", "label", "poster"],
];

#[test]
fn imports_point_down() {
    let mut wrong = BTreeSet::new();
    for (from, imported) in &*GRAPH {
        let room = |module: &Module| module.first().cloned();
        let Some(room_from) = room(from) else {
            continue;
        };
        for to in imported {
            let room_to = room(to).expect("only `main` and `lib` are no rooms");
            if room_from != room_to && floor(&room_from) >= floor(&room_to) {
                wrong.insert(format!("{} imports {}", from.join("/"), to.join("/")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_imported_by_what_it_imports() {
    let circles = circles(&GRAPH);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn every_form_of_an_import_is_seen() {
    let text = "use crate::{config::Live, /* why */ error::{ProxyError, a::b}};\n\
                use self::pool::Pool;\n\
                fn f(x: super::drain::Drain) { let _ = crate::upstream::Client::new(); circuit::open(); }\n\
                fn g() { log::warn!(\"{}\", crate::secret::mask()); }\n\
                pub(in crate::upstream) fn x() {}\n\
                #[cfg(test)]\nmod tests { use crate::proxy; }\n";
    let module = |path: &str| -> Module { path.split('/').map(str::to_owned).collect() };
    let files: BTreeSet<Module> = [
        "config",
        "error",
        "upstream",
        "upstream/pool",
        "upstream/circuit",
        "drain",
        "secret",
        "proxy",
    ]
    .map(module)
    .into();
    let items = syn::parse_file(text).unwrap().items;
    let seen = imports(&module("upstream"), &items, &files);
    let expected = [
        "config",
        "error",
        "upstream/pool",
        "upstream/circuit",
        "drain",
        "secret",
    ];
    assert_eq!(seen, expected.map(module).into());
}

#[test]
fn a_circle_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let graph: Graph = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]
        .map(|(from, to)| (module(from), [module(to)].into()))
        .into_iter()
        .fold(
            Graph::new(),
            |mut graph, (from, to): (Module, BTreeSet<Module>)| {
                graph.entry(from).or_default().extend(to);
                graph
            },
        );
    assert_eq!(circles(&graph), [["b", "c"].map(str::to_owned).to_vec()]);
}

type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;

fn floor(room: &str) -> usize {
    FLOORS
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("`{room}` has no floor: add it"))
}

/// All imports: the files are parsed once, which takes seconds.
static GRAPH: LazyLock<Graph> = LazyLock::new(|| graph(&sources()));

/// The files that each file imports from.
fn graph(sources: &[Source]) -> Graph {
    let files: BTreeSet<Module> = sources.iter().map(|source| source.module.clone()).collect();
    sources
        .iter()
        .map(|source| {
            let imported = imports(&source.module, &source.items, &files);
            (source.module.clone(), imported)
        })
        .collect()
}

/// The sets of files that can be reached from each other, in alphabetical order.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = graph
        .keys()
        .map(|from| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
            while let Some(file) = open.pop() {
                for next in graph.get(file).into_iter().flatten() {
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
            (from, seen)
        })
        .collect();
    let mut circles: Vec<Vec<String>> = graph
        .keys()
        .map(|file| {
            let is_back = |other: &&&Module| reached[**other].contains(file);
            reached[file]
                .iter()
                .filter(|other| reached.contains_key(**other))
                .filter(is_back)
                .map(|other| other.join("/"))
                .collect()
        })
        .filter(|circle: &Vec<String>| circle.len() > 1)
        .collect();
    circles.sort();
    circles.dedup();
    circles
}

/// The files that a file imports from, among these.
fn imports(module: &Module, items: &[syn::Item], files: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut reader = Reader {
        module: module.clone(),
        paths: Vec::new(),
    };
    for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
        reader.visit_item(item);
    }
    let file_of = |path: &Module| {
        (1..=path.len())
            .rev()
            .map(|length| path[..length].to_vec())
            .find(|path| files.contains(path))
    };
    let mut imported: BTreeSet<Module> = reader.paths.iter().filter_map(file_of).collect();
    imported.remove(module);
    imported
}

/// Collects the paths of a file, from the crate's root.
struct Reader {
    module: Module,
    paths: Vec<Module>,
}

impl Reader {
    fn add(&mut self, segments: &[String]) {
        let Some((first, rest)) = segments.split_first() else {
            return;
        };
        let (mut path, rest) = match first.as_str() {
            "crate" | "anthropic_proxy" => (Module::new(), rest),
            "self" => (self.module.clone(), rest),
            "super" => {
                let ups = segments
                    .iter()
                    .take_while(|segment| *segment == "super")
                    .count();
                let depth = self.module.len().saturating_sub(ups);
                (self.module[..depth].to_vec(), &segments[ups..])
            }
            // a child, or something that has nothing to do with our files
            _ => (self.module.clone(), segments),
        };
        path.extend(rest.iter().cloned());
        self.paths.push(path);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.add(&with(&name.ident)),
            UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            UseTree::Glob(_) => self.add(prefix),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(prefix, tree);
                }
            }
        }
    }

    /// Paths in the arguments of a macro, which are not parsed.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_rooted(&std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.add_rooted(&std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_rooted(&path);
    }

    fn add_rooted(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.add(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.add_rooted(&segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}
