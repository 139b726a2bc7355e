//! The program as a command of the person who called it: lines to copy must work where they are read.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::output::NAME;

/// The program for a command in this folder: by its name where that leads to it, else as it was called.
pub(super) fn here() -> String {
    let called = env::args_os().next().map(PathBuf::from);
    command(called.as_deref(), env::var_os("PATH").as_deref(), &own())
}

/// The program for a command in any folder: by its name where that leads to it, else by its path.
pub(super) fn anywhere() -> String {
    command(None, env::var_os("PATH").as_deref(), &own())
}

fn own() -> PathBuf {
    env::current_exe().unwrap_or_else(|_| PathBuf::from(NAME))
}

/// The command: `called` is the way in which the program was called, `own` its file.
fn command(called: Option<&Path>, path: Option<&OsStr>, own: &Path) -> String {
    let same = |one: &Path| {
        let pair = (fs::canonicalize(one), fs::canonicalize(own));
        matches!(pair, (Ok(one), Ok(own)) if one == own)
    };
    let is_bare = |name: &&Path| name.components().count() == 1 && !name.is_absolute();
    let name = called.filter(is_bare).unwrap_or(Path::new(NAME));
    // the first of this name is the one that a shell runs
    let folders = path.map(env::split_paths).into_iter().flatten();
    let found = folders
        .map(|folder| folder.join(name))
        .find(|it| it.is_file());
    if found.is_some_and(|found| same(&found)) {
        return quoted(&name.display().to_string());
    }
    let called = called.filter(|it| !is_bare(it) && same(it));
    quoted(&called.unwrap_or(own).display().to_string())
}

/// A word as shells read it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%~".contains(c);
    match word.chars().all(is_plain) && !word.is_empty() {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stands_where_it_leads_to_the_program_and_else_its_path() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(NAME), "").unwrap();
            folder
        };
        let (bin, other) = (folder("bin"), folder("other one"));
        let own = bin.join(NAME);
        let on = |folders: &[&PathBuf]| env::join_paths(folders).unwrap();
        let by =
            |called: &Path, folders: &[&PathBuf]| command(Some(called), Some(&on(folders)), &own);
        assert_eq!(by(Path::new(NAME), &[&bin]), NAME);
        assert_eq!(by(&own, &[&bin, &other]), NAME);
        // another program of this name comes first
        assert_eq!(by(&own, &[&other, &bin]), own.display().to_string());
        assert_eq!(by(Path::new(NAME), &[]), own.display().to_string());
        let spaced = other.join(NAME);
        assert_eq!(
            command(Some(&spaced), None, &spaced),
            format!("'{}'", spaced.display())
        );
        assert_eq!(command(None, None, &own), own.display().to_string());
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
