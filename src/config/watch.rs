//! Watches the directories around the files, so that no change of a file is missed.
//!
//! Editors replace files, Kubernetes swaps a symbolic link beside them, and a file or its folder
//! may not exist yet. So directories are watched, never the file: the file's own, its folder's, that
//! of every symbolic link on the way, and the deepest that exists if the rest is missing. It reads no
//! content and decides nothing: a change is a reason to read the files, and a file that was written
//! and not closed since is a reason to wait.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use log::warn;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};

/// The directories around some files, and who is told when something there changes.
pub(super) struct FileWatcher {
    /// None where the system gives no watcher; then only SIGHUP reloads.
    watcher: Option<RecommendedWatcher>,
    trail: WatchSet,
    /// Shared with the watcher's thread.
    seen: Arc<Mutex<ObservedWrites>>,
    has_warned: bool,
}

impl FileWatcher {
    /// Watches nothing yet; `on_change` is called from a thread of the watcher.
    pub(super) fn new(on_change: impl Fn() + Send + 'static) -> Self {
        let seen = Arc::<Mutex<ObservedWrites>>::default();
        let shared = Arc::clone(&seen);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
            // An error may hide a change: look.
            if event.map_or(true, |event| seen.take(&event)) {
                drop(seen);
                on_change();
            }
        });
        let mut this = Self {
            watcher: None,
            trail: WatchSet::default(),
            seen,
            has_warned: false,
        };
        match watcher {
            Ok(watcher) => this.watcher = Some(watcher),
            Err(error) => this.warn_once(&error),
        }
        this
    }

    /// Watches around these files from now on.
    ///
    /// Every call watches anew, because a directory may have been replaced by another of its name.
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        // What changes between looking and watching would be missed: look until it stands still.
        for _ in 0..ATTEMPTS {
            let trail = WatchSet::of(files);
            self.watch(trail.clone());
            if WatchSet::of(files) == trail {
                return;
            }
        }
    }

    /// Reports that a file was written and not closed since, as far as the system tells.
    pub(super) fn is_being_written(&self) -> bool {
        !self.seen().open.is_empty()
    }

    fn seen(&self) -> MutexGuard<'_, ObservedWrites> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&mut self, trail: WatchSet) {
        self.seen().names.clone_from(&trail.names);
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let mut failure = None;
        for directory in &trail.directories {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                failure = Some(error);
            }
        }
        for left in self.trail.directories.difference(&trail.directories) {
            // It fails where the directory is gone, and its watch with it.
            let _ = watcher.unwatch(left);
        }
        self.trail = trail;
        match failure.as_ref().map(|error| &error.kind) {
            None | Some(notify::ErrorKind::PathNotFound) => {}
            Some(notify::ErrorKind::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Some(_) => failure.iter().for_each(|error| self.warn_once(error)),
        }
    }

    fn warn_once(&mut self, error: &notify::Error) {
        if !self.has_warned {
            self.has_warned = true;
            warn!(
                "[Config] files cannot be watched: {error}; changes may go unnoticed; send SIGHUP to reload"
            );
        }
    }
}

/// State of the watcher's thread.
#[derive(Default)]
struct ObservedWrites {
    /// Names of interest.
    names: BTreeSet<OsString>,
    /// Files that were written or made, and not closed by their writer since.
    open: BTreeSet<PathBuf>,
}

impl ObservedWrites {
    /// Notes an event; says whether it is a reason to look.
    fn take(&mut self, event: &Event) -> bool {
        let matters = matters(event, &self.names);
        if event.need_rescan() {
            // the end of a write may be among what was lost
            self.open.clear();
        } else if matters && TELLS_CLOSING {
            for path in &event.paths {
                match begins_or_ends(event.kind, path) {
                    Some(true) => self.open.insert(path.clone()),
                    Some(false) => self.open.remove(path),
                    None => false,
                };
            }
        }
        matters
    }
}

/// Tells the begin of a write (`true`) from its end (`false`); none for other events.
fn begins_or_ends(kind: EventKind, path: &Path) -> Option<bool> {
    match kind {
        EventKind::Modify(ModifyKind::Data(_)) => Some(true),
        // a link is made and not written
        EventKind::Create(CreateKind::File) => {
            fs::symlink_metadata(path).ok().map(|it| it.is_file())
        }
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => Some(false),
        _ => None,
    }
}

/// The system reports that a writer closes its file, as inotify does.
const TELLS_CLOSING: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Reports that an event may be a change of a watched file. Opening and reading are not: the
/// proxy's own reading would wake it for ever.
fn matters(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let is_reading = match event.kind {
        EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
        _ => false,
    };
    if is_reading {
        return false;
    }
    event.need_rescan()
        || event
            .paths
            .iter()
            .any(|path| path.file_name().is_some_and(|name| names.contains(name)))
}

/// Directories to watch, and the names in them that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct WatchSet {
    directories: BTreeSet<PathBuf>,
    names: BTreeSet<OsString>,
}

impl WatchSet {
    fn of(files: &[PathBuf]) -> Self {
        let mut trail = Self::default();
        for file in files {
            // It fails for an empty path or without a working directory: nothing to watch.
            if let Ok(file) = std::path::absolute(file) {
                trail.walk(&file);
            }
        }
        trail
    }

    /// Walks a path as the kernel resolves it.
    fn walk(&mut self, file: &Path) {
        let mut here = PathBuf::new();
        let mut ahead: Vec<PathBuf> = reversed(file);
        let mut links = 0;
        while let Some(step) = ahead.pop() {
            match step.components().next() {
                Some(Component::Normal(_)) => {}
                Some(Component::ParentDir) => {
                    here.pop();
                    continue;
                }
                Some(Component::RootDir | Component::Prefix(_)) => {
                    here.push(step);
                    continue;
                }
                Some(Component::CurDir) | None => continue,
            }
            let there = here.join(&step);
            let Ok(kind) = fs::symlink_metadata(&there).map(|metadata| metadata.file_type()) else {
                return self.add(here, step);
            };
            if kind.is_symlink() {
                self.add(here.clone(), step);
                links += 1;
                let Ok(target) = fs::read_link(&there) else {
                    return;
                };
                if links > MOST_LINKS {
                    return;
                }
                ahead.extend(reversed(&target));
                continue;
            }
            // The file itself and its folder.
            if ahead.len() <= 1 {
                self.add(here, step);
            }
            here = there;
        }
    }

    fn add(&mut self, directory: PathBuf, name: PathBuf) {
        // A directory that vanishes is told under its own name.
        self.names
            .extend(directory.file_name().map(ToOwned::to_owned));
        self.names.insert(name.into_os_string());
        self.directories.insert(directory);
    }
}

fn reversed(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .map(|component| PathBuf::from(component.as_os_str()))
        .collect()
}

/// As many as Linux follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Further attempts mean that directories are being moved at this very moment.
const ATTEMPTS: usize = 4;

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The trail with paths relative to a temporary directory.
    fn trail(root: &Path, file: &str) -> (Vec<String>, Vec<String>) {
        let trail = WatchSet::of(&[root.join(file)]);
        let directories = trail
            .directories
            .iter()
            .filter_map(|directory| directory.strip_prefix(root).ok())
            .map(|directory| directory.display().to_string())
            .collect();
        let names = trail
            .names
            .iter()
            .map(|name| name.to_string_lossy().into_owned());
        let root = root.file_name().unwrap().to_string_lossy();
        (
            directories,
            names
                .filter(|name| *name != root && !name.is_empty())
                .collect(),
        )
    }

    #[test]
    fn the_file_and_its_folder_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/env")).unwrap();
        fs::write(root.join("a/env/.env"), "").unwrap();
        let (directories, names) = trail(&root, "a/env/.env");
        assert_eq!(directories, ["a", "a/env"]);
        assert_eq!(names, [".env", "a", "env"]);
    }

    #[test]
    fn what_is_missing_is_awaited_where_the_path_ends() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("a")).unwrap();
        assert_eq!(
            trail(&root, "a/b/c/.env"),
            (vec!["a".into()], vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn links_are_followed_and_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("env/..1")).unwrap();
        fs::write(root.join("env/..1/.env"), "").unwrap();
        symlink("..1", root.join("env/..data")).unwrap();
        symlink("..data/.env", root.join("env/.env")).unwrap();
        let (directories, names) = trail(&root, "env/.env");
        assert_eq!(directories, ["", "env", "env/..1"]);
        assert_eq!(names, ["..1", "..data", ".env", "env"]);
    }

    #[test]
    fn a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(!WatchSet::of(&[dir.path().join("a")]).directories.is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_writer_is_open_from_its_first_write_to_its_close() {
        use notify::event::{DataChange, Flag, RemoveKind};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        fs::write(&path, "").unwrap();
        let mut seen = ObservedWrites::default();
        seen.names.insert(OsString::from(".env"));
        let event = |kind| Event::new(kind).add_path(path.clone());
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let create = EventKind::Create(CreateKind::File);
        let remove = EventKind::Remove(RemoveKind::File);
        for (kind, is_open) in [
            (data, true),
            (close, false),
            (create, true),
            (data, true),
            (remove, false),
            (data, true),
        ] {
            assert!(seen.take(&event(kind)));
            assert_eq!(!seen.open.is_empty(), is_open, "{kind:?}");
        }
        seen.take(&Event::new(EventKind::Other).set_flag(Flag::Rescan));
        assert!(seen.open.is_empty());
        fs::remove_file(&path).unwrap();
        symlink("other", &path).unwrap();
        seen.take(&event(create));
        assert!(seen.open.is_empty());
    }

    #[test]
    fn our_own_reading_does_not_matter() {
        let names = BTreeSet::from([OsString::from(".env")]);
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
        assert!(!matters(&event(read, "/env/.env"), &names));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(matters(&event(written, "/env/.env"), &names));
        assert!(!matters(&event(written, "/env/other"), &names));
    }
}
