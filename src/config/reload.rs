//! Publishes a new configuration when the files change or on request, and keeps the last good one.
//!
//! One thread owns the source; it reads, validates and swaps the whole [`Live`] at once, so an
//! exchange sees the old or the new configuration and never a mixture. It looks at the files instead of having
//! itself told of changes, which network and desktop mounts do not tell; it waits until they are still, and
//! refuses one that lost its settings. The thread ends with its [`Watcher`].
//! [`Boot`](super::model::Boot) is never swapped: its changes are named and wait for a restart.

use std::{
    collections::VecDeque,
    io, mem,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use log::{debug, error, info, warn};

use super::{
    env::Applies,
    error::{ConfigError, ConfigErrors},
    loaded::Loaded,
    model::Live,
    origin::{Origin, Setting},
    settle::{Fingerprint, Settled, settle},
    source::ConfigSource,
};
use crate::logging;

/// Counters of reloads, for the metrics.
#[derive(Debug)]
pub struct ReloadCounters {
    /// Configurations that were taken, or confirmed on request.
    pub succeeded: AtomicU64,
    /// Configurations that were refused.
    pub failed: AtomicU64,
    /// The files as they are now are in effect.
    pub last_succeeded: AtomicBool,
}

impl Default for ReloadCounters {
    fn default() -> Self {
        Self {
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_succeeded: AtomicBool::new(true),
        }
    }
}

/// Snapshot of settings and reloads, for the dashboard.
#[derive(Debug, Clone, Default)]
pub struct ConfigStatus {
    /// Every variable with its origin, as it is in effect; in the order of the table.
    pub settings: Vec<Setting>,
    /// The same as it will be after a restart.
    pub next: Vec<Setting>,
    /// Variables whose change waits for a restart.
    pub pending_restart: Vec<&'static str>,
    /// The last reloads that changed or refused something, oldest first.
    pub reloads: VecDeque<Reload>,
}

/// One reload.
#[derive(Debug, Clone)]
pub struct Reload {
    /// Time of the reload.
    pub at: SystemTime,
    /// Errors; empty if the configuration was accepted.
    pub faults: Vec<String>,
    /// Names of changed settings.
    pub changed: Vec<&'static str>,
}

/// Reloads that are remembered.
const REMEMBERED: usize = 100;

/// The owner of the reloading thread: it ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    signals: Arc<ReloadSignals>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Asks for a reload, as SIGHUP does. Returns at once.
    pub fn reload_now(&self) {
        self.signals.set(|pending| pending.asked = true);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.signals.set(|pending| pending.stop = true);
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread, which has been printed already.
            let _ = thread.join();
        }
    }
}

/// Watches the files of `source`, of which `initial` is in effect, and publishes to `live`.
pub fn spawn(
    source: ConfigSource,
    initial: Loaded,
    live: Arc<ArcSwap<Live>>,
    counters: Arc<ReloadCounters>,
    standing: Arc<ArcSwap<ConfigStatus>>,
) -> io::Result<Watcher> {
    standing.store(Arc::new(ConfigStatus {
        settings: initial.settings.clone(),
        next: initial.settings.clone(),
        ..ConfigStatus::default()
    }));
    let reloader = Reloader {
        source,
        in_effect: initial.settings.clone(),
        standing,
        last_good: initial,
        last_faults: None,
        live,
        counters,
    };
    start(reloader, |_| {})
}

fn start(
    mut reloader: Reloader,
    mut observe: impl FnMut(ReloadOutcome) + Send + 'static,
) -> io::Result<Watcher> {
    let signals = Arc::new(ReloadSignals::default());
    let inner = Arc::clone(&signals);
    let thread = thread::Builder::new()
        .name("config-reload".to_owned())
        .spawn(move || {
            // The first round sees what changed since the start.
            let mut trigger = Some(ReloadTrigger::Touched);
            while let Some(why) = trigger {
                let Some((read, files)) = reloader.read(why, |span| inner.pause(span)) else {
                    break;
                };
                observe(reloader.judge(read, why));
                trigger = inner.next(|| files.again() != files);
            }
        })?;
    Ok(Watcher {
        signals,
        thread: Some(thread),
    })
}

/// Reason to read the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReloadTrigger {
    /// A file changed.
    Touched,
    /// Request by SIGHUP or by the dashboard.
    Asked,
}

/// Result of one reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReloadOutcome {
    Swapped,
    Unchanged,
    Refused,
}

struct Reloader {
    source: ConfigSource,
    /// The settings that are in effect.
    in_effect: Vec<Setting>,
    last_good: Loaded,
    /// The faults that were logged last, while they last.
    last_faults: Option<ConfigErrors>,
    live: Arc<ArcSwap<Live>>,
    counters: Arc<ReloadCounters>,
    standing: Arc<ArcSwap<ConfigStatus>>,
}

impl Reloader {
    /// Reads the files once they are still, and gives the state in which they were read; none where it was
    /// broken off.
    fn read(
        &self,
        why: ReloadTrigger,
        pause: impl Fn(Duration) -> bool,
    ) -> Option<(Result<Loaded, ConfigErrors>, Fingerprint)> {
        let mut span = STILL;
        for _ in 0..READS {
            let before = match settle(self.source.files(), span, &pause) {
                Settled::Still(before) => before,
                Settled::Moving(path) => return Some(self.moving(path)),
                Settled::Stopped => return None,
            };
            let read = self.source.load_after(&self.last_good);
            let after = Fingerprint::of(self.source.files());
            if after != before {
                continue;
            }
            // its writer may be in a pause
            if why == ReloadTrigger::Touched && span == STILL && self.may_be_a_part(&read) {
                span = LONG_STILL;
                continue;
            }
            return Some((read, after));
        }
        Some(self.moving(self.last_good.config.boot.env_file.clone()))
    }

    /// Reports that what was read has a fault, or lost a setting: as a file is that is half written.
    fn may_be_a_part(&self, read: &Result<Loaded, ConfigErrors>) -> bool {
        let is_set = |it: &Setting| it.origin != Origin::Default;
        let Ok(loaded) = read else {
            return true;
        };
        let mut pairs = self.last_good.settings.iter().zip(&loaded.settings);
        pairs.any(|(before, now)| is_set(before) && !is_set(now))
    }

    /// A file that is written again and again.
    fn moving(&self, path: PathBuf) -> (Result<Loaded, ConfigErrors>, Fingerprint) {
        let fault = ConfigError::at(
            Origin::File { path, line: None },
            "is written without a pause",
            "a file that is still when it is read",
        );
        let faults = ConfigErrors {
            faults: vec![fault],
            warnings: Vec::new(),
        };
        (Err(faults), Fingerprint::of(self.source.files()))
    }

    fn judge(&mut self, read: Result<Loaded, ConfigErrors>, why: ReloadTrigger) -> ReloadOutcome {
        match read {
            Ok(loaded) => self.take(loaded, why),
            Err(faults) => self.refuse(faults, why),
        }
    }

    fn take(&mut self, mut loaded: Loaded, why: ReloadTrigger) -> ReloadOutcome {
        let mut changed = changes(&self.last_good.settings, &loaded.settings, Applies::Live);
        let fields = |live: &Live| (live.custom_fields.clone(), live.removed_fields.clone());
        if fields(&self.last_good.config.live) != fields(&loaded.config.live) {
            changed.push("custom fields");
        }
        // what listeners speak was settled at the start, and they need a pair for as long as they do
        let before = &self.last_good.config.live.tls;
        let turns_tls = before.is_some() != loaded.config.live.tls.is_some();
        if turns_tls {
            if changed.iter().any(|name| name.starts_with("TLS_")) {
                let (turned, stays) = match before {
                    Some(_) => ("off", "the last certificate stays in use"),
                    None => ("on", "the certificate is not used"),
                };
                warn!(
                    "[Config] TLS_CERT_FILE, TLS_KEY_FILE: restart to turn TLS {turned}; {stays}"
                );
            }
            loaded.config.live.tls = before.clone();
        }
        if *before != loaded.config.live.tls {
            changed.push("certificate");
        }
        if self.last_good.config.live.prices != loaded.config.live.prices {
            changed.push("prices");
        }
        self.in_effect = in_effect(&self.in_effect, &loaded.settings, turns_tls);
        let waiting = waiting(&self.in_effect, &loaded.settings);
        let newly = changes(&self.last_good.settings, &loaded.settings, Applies::Restart);
        for name in newly.iter().filter(|name| waiting.contains(name)) {
            warn!("[Config] {name} has changed: restart to apply it");
        }
        if self.last_good.warnings != loaded.warnings {
            for warning in &loaded.warnings {
                warn!("[Config] {warning}");
            }
        }
        let was_faulty = self.last_faults.take().is_some();
        let outcome = if changed.is_empty() {
            match (why, was_faulty) {
                (_, true) => info!("[Config] valid again; nothing changed"),
                (ReloadTrigger::Asked, false) => {
                    debug!("[Config] reload on request, nothing changed")
                }
                (ReloadTrigger::Touched, false) => {}
            }
            ReloadOutcome::Unchanged
        } else {
            self.live.store(Arc::new(loaded.config.live.clone()));
            logging::set_debug(loaded.config.live.debug);
            info!("[Config] reloaded: changed {}", changed.join(", "));
            ReloadOutcome::Swapped
        };
        let is_told =
            outcome == ReloadOutcome::Swapped || was_faulty || why == ReloadTrigger::Asked;
        if is_told {
            self.counters.succeeded.fetch_add(1, Ordering::Relaxed);
        }
        if is_told || differ(&self.last_good.settings, &loaded.settings) {
            let reload = is_told.then(|| Reload {
                at: SystemTime::now(),
                faults: Vec::new(),
                changed,
            });
            self.publish(reload, Some((&loaded.settings, waiting)));
        }
        self.counters.last_succeeded.store(true, Ordering::Relaxed);
        self.last_good = loaded;
        outcome
    }

    fn refuse(&mut self, faults: ConfigErrors, why: ReloadTrigger) -> ReloadOutcome {
        // Several events may tell of one bad file; it is logged and counted once.
        if why == ReloadTrigger::Touched && self.last_faults.as_ref() == Some(&faults) {
            return ReloadOutcome::Refused;
        }
        error!("[Config] reload refused; the last good configuration stays in effect");
        for fault in &faults.faults {
            error!("[Config] {fault}");
        }
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        self.counters.last_succeeded.store(false, Ordering::Relaxed);
        let reload = Reload {
            at: SystemTime::now(),
            faults: faults.faults.iter().map(ToString::to_string).collect(),
            changed: Vec::new(),
        };
        self.publish(Some(reload), None);
        self.last_faults = Some(faults);
        ReloadOutcome::Refused
    }

    /// Replaces the snapshot of how things stand.
    fn publish(&self, reload: Option<Reload>, taken: Option<(&[Setting], Vec<&'static str>)>) {
        let mut standing = ConfigStatus::clone(&self.standing.load());
        if let Some((next, pending_restart)) = taken {
            standing.settings = self.in_effect.clone();
            standing.next = next.to_vec();
            standing.pending_restart = pending_restart;
        }
        if let Some(reload) = reload {
            if standing.reloads.len() == REMEMBERED {
                standing.reloads.pop_front();
            }
            standing.reloads.push_back(reload);
        }
        self.standing.store(Arc::new(standing));
    }
}

/// Reports that texts or origins of the settings differ.
fn differ(before: &[Setting], after: &[Setting]) -> bool {
    let same =
        |(one, other): (&Setting, &Setting)| one.text == other.text && one.origin == other.origin;
    !before.iter().zip(after).all(same)
}

/// The settings in effect once `new` was taken: what waits for a restart stays as it is.
fn in_effect(now: &[Setting], new: &[Setting], turns_tls: bool) -> Vec<Setting> {
    let waits = |new: &Setting| match new.variable.applies {
        Applies::Restart => true,
        Applies::Live => turns_tls && TLS_PAIR.contains(&new.variable.name),
    };
    now.iter()
        .zip(new)
        .map(|(now, new)| match waits(new) && now.text != new.text {
            true => now.clone(),
            false => new.clone(),
        })
        .collect()
}

/// These turn TLS on and off, which is settled at the start; else they apply at once.
const TLS_PAIR: [&str; 2] = ["TLS_CERT_FILE", "TLS_KEY_FILE"];

/// The names of the variables that a restart would change.
fn waiting(now: &[Setting], next: &[Setting]) -> Vec<&'static str> {
    now.iter()
        .zip(next)
        .filter(|(now, next)| now.text != next.text)
        .map(|(_, next)| next.variable.name)
        .collect()
}

/// The names of the variables whose text differs.
fn changes(before: &[Setting], after: &[Setting], applies: Applies) -> Vec<&'static str> {
    // Both are in the order of the one table.
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| after.variable.applies == applies && before.text != after.text)
        .map(|(_, after)| after.variable.name)
        .collect()
}

/// Triggers that the thread waits for.
#[derive(Debug, Default)]
struct ReloadSignals {
    pending: Mutex<PendingTriggers>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct PendingTriggers {
    stop: bool,
    asked: bool,
}

impl ReloadSignals {
    fn set(&self, change: impl FnOnce(&mut PendingTriggers)) {
        change(&mut self.lock());
        self.arrived.notify_all();
    }

    /// The next reason to read the files, or none to stop. They are looked at every [`POLL`].
    fn next(&self, has_changed: impl Fn() -> bool) -> Option<ReloadTrigger> {
        let idle = |pending: &mut PendingTriggers| !pending.stop && !pending.asked;
        loop {
            let waited = self.arrived.wait_timeout_while(self.lock(), POLL, idle);
            let (mut pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if pending.stop {
                return None;
            }
            if mem::take(&mut pending.asked) {
                return Some(ReloadTrigger::Asked);
            }
            drop(pending);
            if has_changed() {
                return Some(ReloadTrigger::Touched);
            }
        }
    }

    /// Waits for this long, or until the stop; says whether to go on.
    fn pause(&self, span: Duration) -> bool {
        let (pending, _) = self
            .arrived
            .wait_timeout_while(self.lock(), span, |pending| !pending.stop)
            .unwrap_or_else(PoisonError::into_inner);
        !pending.stop
    }

    fn lock(&self) -> MutexGuard<'_, PendingTriggers> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time from one look at the files to the next. Five files take 10 looks a second, which is 0.04 % of a core
/// (docs/decisions/0021), and with [`STILL`] a change is in effect within a second.
const POLL: Duration = Duration::from_millis(500);

/// Longer than a writer takes from one write to the next, or an editor from delete to create.
const STILL: Duration = Duration::from_millis(200);

/// The same for a writer that may be in a pause.
const LONG_STILL: Duration = Duration::from_secs(1);

/// Files that change while they are read, after they were still, are read again this often.
const READS: usize = 4;

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs, path::Path, sync::mpsc, time::Instant};

    use super::super::{Environment, Flags};
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    struct Rig {
        dir: tempfile::TempDir,
        live: Arc<ArcSwap<Live>>,
        counters: Arc<ReloadCounters>,
        outcomes: mpsc::Receiver<ReloadOutcome>,
        watcher: Watcher,
    }

    impl Rig {
        /// A running reloader over a directory that `prepare` has furnished.
        fn new(prepare: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let reloader = reloader(dir.path(), &[]);
            let (live, counters) = (Arc::clone(&reloader.live), Arc::clone(&reloader.counters));
            let (observed, outcomes) = mpsc::channel();
            let watcher = start(reloader, move |outcome| {
                let _ = observed.send(outcome);
            })
            .unwrap();
            // The first round: from here on everything is watched.
            assert_eq!(outcomes.recv_timeout(SOON), Ok(ReloadOutcome::Unchanged));
            Self {
                dir,
                live,
                counters,
                outcomes,
                watcher,
            }
        }

        fn with_env_file(text: &str) -> Self {
            Self::new(|dir| {
                fs::create_dir(dir.join("env")).unwrap();
                fs::write(dir.join("env/.env"), text).unwrap();
            })
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Replaces a file as editors do.
        fn replace(&self, name: &str, text: &str) {
            let new = self.path(&format!("{name}.new"));
            fs::write(&new, text).unwrap();
            fs::rename(new, self.path(name)).unwrap();
        }

        fn await_outcome(&self, expected: ReloadOutcome) {
            let deadline = Instant::now() + SOON;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if self.outcomes.recv_timeout(left).unwrap() == expected {
                    return;
                }
            }
        }

        /// Waits for the upstream of that host: a file that is written in place may be seen half.
        fn await_host(&self, expected: &str) {
            while self.host() != expected {
                self.await_outcome(ReloadOutcome::Swapped);
            }
        }

        fn host(&self) -> String {
            self.live.load().endpoints[0].upstream.host.clone()
        }

        fn counts(&self) -> (u64, u64, bool) {
            let ReloadCounters {
                succeeded,
                failed,
                last_succeeded,
            } = &*self.counters;
            let relaxed = Ordering::Relaxed;
            (
                succeeded.load(relaxed),
                failed.load(relaxed),
                last_succeeded.load(relaxed),
            )
        }
    }

    fn reloader(root: &Path, environment: &[(&str, &str)]) -> Reloader {
        let environment: Environment = environment.iter().copied().collect();
        let source = ConfigSource::new(Flags::default(), environment).rooted(root);
        let initial = source.load().unwrap();
        Reloader {
            source,
            in_effect: initial.settings.clone(),
            live: Arc::new(ArcSwap::from_pointee(initial.config.live.clone())),
            last_good: initial,
            last_faults: None,
            counters: Arc::default(),
            standing: Arc::default(),
        }
    }

    impl Reloader {
        /// A round that waits for nothing.
        fn reload(&mut self, why: ReloadTrigger) -> ReloadOutcome {
            let (read, _) = self.read(why, |_| true).unwrap();
            self.judge(read, why)
        }
    }

    #[test]
    fn a_file_that_is_replaced_is_taken() {
        let rig = Rig::with_env_file("API_BASE_URL=http://one\n");
        rig.replace("env/.env", "API_BASE_URL=http://two\n");
        rig.await_host("two");
        // And again: the watch is on the directory, not on the file that is gone.
        rig.replace("env/.env", "API_BASE_URL=http://three\n");
        rig.await_host("three");
        assert_eq!(rig.counts(), (2, 0, true));
    }

    #[test]
    fn a_file_that_is_written_in_place_is_taken() {
        let rig = Rig::with_env_file("API_BASE_URL=http://one\n");
        fs::write(rig.path("env/.env"), "API_BASE_URL=http://two\n").unwrap();
        rig.await_host("two");
    }

    #[test]
    fn a_bad_file_keeps_the_last_good() {
        let rig = Rig::with_env_file("API_BASE_URL=http://one\n");
        rig.replace("env/.env", "API_BASE_URL=http://two\nPORT=x\n");
        rig.await_outcome(ReloadOutcome::Refused);
        assert_eq!(rig.host(), "one");
        assert_eq!(rig.counts(), (0, 1, false));
        rig.replace("env/.env", "API_BASE_URL=http://three\n");
        rig.await_host("three");
        assert_eq!(rig.counts(), (1, 1, true));
    }

    #[test]
    fn a_file_that_loses_what_it_had_keeps_the_last_good() {
        type Harm = fn(&Path);
        let harms: [Harm; 4] = [
            |file| fs::write(file, "").unwrap(),
            |file| fs::remove_file(file).unwrap(),
            |file| fs::write(file, "API_BASE_URL=http://o").unwrap(),
            |file| fs::write(file, "PORT=8088\n").unwrap(),
        ];
        // side by side: each waits for a refusal, and for the reload after it
        thread::scope(|scope| {
            for harm in harms {
                scope.spawn(move || {
                    let rig = Rig::with_env_file("API_BASE_URL=http://one\n");
                    harm(&rig.path("env/.env"));
                    rig.await_outcome(ReloadOutcome::Refused);
                    assert_eq!(rig.host(), "one");
                    rig.watcher.reload_now();
                    rig.await_outcome(ReloadOutcome::Refused);
                    assert_eq!(rig.counts(), (0, 2, false));
                    rig.replace("env/.env", "API_BASE_URL=http://two\n");
                    rig.await_host("two");
                });
            }
        });
    }

    #[test]
    fn a_writer_that_pauses_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        let write = |text: &str| fs::write(dir.path().join("env/.env"), text).unwrap();
        write("API_BASE_URL=http://one\nPORT=1\n");
        let mut reloader = reloader(dir.path(), &[]);
        // whole lines, and what is missing is none of those that a reload never loses
        for (half, whole) in [
            ("API_BASE_URL=http://half\n", "http://two"),
            ("API_BASE_URL=http://half\nPORT", "http://three"),
        ] {
            write(half);
            let pauses = Cell::new(0);
            let pause = |span| {
                if span == LONG_STILL && pauses.replace(pauses.get() + 1) == 0 {
                    write(&format!("API_BASE_URL={whole}\nPORT=1\n"));
                }
                true
            };
            let (read, _) = reloader.read(ReloadTrigger::Touched, pause).unwrap();
            assert_eq!(pauses.get(), 2);
            let outcome = reloader.judge(read, ReloadTrigger::Touched);
            assert_eq!(outcome, ReloadOutcome::Swapped);
            assert_eq!(
                reloader.live.load().endpoints[0].upstream.to_string(),
                whole
            );
        }
        // but who asks for a reload, or only changes a value, waits no longer
        for (text, why) in [
            ("API_BASE_URL=http://four\n", ReloadTrigger::Asked),
            ("API_BASE_URL=http://five\nPORT=1\n", ReloadTrigger::Touched),
        ] {
            write(text);
            let pause = |span| span == STILL;
            assert!(reloader.read(why, pause).is_some());
        }
    }

    #[test]
    fn the_headers_file_is_watched_too() {
        let rig = Rig::with_env_file("");
        rig.replace("env/.env.headers.json", r#"{"x-a": "1"}"#);
        rig.await_outcome(ReloadOutcome::Swapped);
        assert_eq!(rig.live.load().custom_fields.len(), 1);
        fs::remove_file(rig.path("env/.env.headers.json")).unwrap();
        rig.await_outcome(ReloadOutcome::Refused);
        assert_eq!(rig.live.load().custom_fields.len(), 1);
        rig.replace("env/.env.headers.json", "{}");
        rig.await_outcome(ReloadOutcome::Swapped);
        assert!(rig.live.load().custom_fields.is_empty());
    }

    #[test]
    fn a_headers_file_elsewhere_is_watched_once_it_is_named() {
        let rig = Rig::with_env_file("");
        fs::create_dir(rig.path("other")).unwrap();
        rig.replace("other/h.json", r#"{"x-a": "1"}"#);
        rig.replace("env/.env", "HEADERS_FILE=other/h.json\n");
        rig.await_outcome(ReloadOutcome::Swapped);
        assert_eq!(rig.live.load().custom_fields.len(), 1);
        rig.replace("other/h.json", r#"{"x-a": "1", "x-b": "2"}"#);
        rig.await_outcome(ReloadOutcome::Swapped);
        assert_eq!(rig.live.load().custom_fields.len(), 2);
    }

    #[test]
    fn a_folder_that_appears_later_is_found() {
        let rig = Rig::new(|_| {});
        fs::create_dir(rig.path("env")).unwrap();
        fs::write(rig.path("env/.env"), "API_BASE_URL=http://two\n").unwrap();
        rig.await_host("two");
    }

    #[test]
    fn a_folder_that_is_replaced_is_followed() {
        let rig = Rig::with_env_file("API_BASE_URL=http://one\n");
        fs::create_dir(rig.path("new")).unwrap();
        fs::write(rig.path("new/.env"), "API_BASE_URL=http://two\n").unwrap();
        fs::rename(rig.path("env"), rig.path("old")).unwrap();
        fs::rename(rig.path("new"), rig.path("env")).unwrap();
        rig.await_host("two");
        rig.replace("env/.env", "API_BASE_URL=http://three\n");
        rig.await_host("three");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_is_swapped_as_kubernetes_does_is_followed() {
        use std::os::unix::fs::symlink;
        let rig = Rig::new(|dir| {
            fs::create_dir_all(dir.join("env/..1")).unwrap();
            fs::write(dir.join("env/..1/.env"), "API_BASE_URL=http://one\n").unwrap();
            symlink("..1", dir.join("env/..data")).unwrap();
            symlink("..data/.env", dir.join("env/.env")).unwrap();
        });
        assert_eq!(rig.host(), "one");
        for (n, host) in [(2, "two"), (3, "three")] {
            fs::create_dir(rig.path(&format!("env/..{n}"))).unwrap();
            let text = format!("API_BASE_URL=http://{host}\n");
            fs::write(rig.path(&format!("env/..{n}/.env")), text).unwrap();
            symlink(format!("..{n}"), rig.path("env/..tmp")).unwrap();
            fs::rename(rig.path("env/..tmp"), rig.path("env/..data")).unwrap();
            fs::remove_dir_all(rig.path(&format!("env/..{}", n - 1))).unwrap();
            rig.await_host(host);
        }
    }

    #[test]
    fn a_request_is_answered_though_nothing_changed() {
        let rig = Rig::with_env_file("");
        rig.watcher.reload_now();
        rig.await_outcome(ReloadOutcome::Unchanged);
        assert_eq!(rig.counts(), (1, 0, true));
    }

    #[test]
    fn dropping_the_watcher_ends_the_thread() {
        let Rig {
            watcher, outcomes, ..
        } = Rig::with_env_file("");
        drop(watcher);
        // The thread owned the sender.
        while outcomes.recv().is_ok() {}
    }

    #[test]
    fn a_comment_swaps_nothing_and_an_exchange_keeps_its_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        let write = |text: &str| fs::write(dir.path().join("env/.env"), text).unwrap();
        write("API_BASE_URL=http://one\n");
        let mut reloader = reloader(dir.path(), &[]);
        let before = reloader.live.load_full();
        write("# comment\nAPI_BASE_URL='http://one'\n");
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Unchanged
        );
        assert!(Arc::ptr_eq(&before, &reloader.live.load()));
        write("API_BASE_URL=http://two\n");
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Swapped
        );
        assert_eq!(before.endpoints[0].upstream.host, "one");
        assert_eq!(reloader.live.load().endpoints[0].upstream.host, "two");
    }

    #[test]
    fn the_environment_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        let mut reloader = reloader(dir.path(), &[("API_BASE_URL", "http://said")]);
        fs::write(dir.path().join("env/.env"), "API_BASE_URL=http://two\n").unwrap();
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Unchanged
        );
        assert_eq!(reloader.live.load().endpoints[0].upstream.host, "said");
        // But it is said that the line has no effect.
        assert_eq!(reloader.last_good.warnings.len(), 1);
    }

    #[test]
    fn what_needs_a_restart_is_named_and_not_swapped() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        let mut reloader = reloader(dir.path(), &[]);
        fs::write(dir.path().join("env/.env"), "WORKERS=3\n").unwrap();
        let new = reloader.source.load().unwrap();
        assert_eq!(
            changes(&reloader.in_effect, &new.settings, Applies::Restart),
            ["WORKERS"]
        );
        let shown = |settings: &[Setting]| {
            let workers = settings.iter().find(|it| it.variable.name == "WORKERS");
            workers.map(|it| format!("{it:?}")).unwrap()
        };
        let before = shown(&reloader.in_effect);
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Unchanged
        );
        let standing = reloader.standing.load_full();
        assert_eq!(standing.pending_restart, ["WORKERS"]);
        assert_eq!(shown(&standing.settings), before);
        let next = shown(&standing.next);
        assert!(next.starts_with("WORKERS=3 (") && next.ends_with("env/.env line 1)"));
        // as it was again
        fs::write(dir.path().join("env/.env"), "PORT=8088\n").unwrap();
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Unchanged
        );
        let standing = reloader.standing.load_full();
        assert_eq!(standing.pending_restart, [""; 0]);
        assert_eq!(shown(&standing.settings), before);
        assert_eq!(shown(&standing.next), before);
    }

    #[test]
    fn tls_is_turned_on_and_off_by_a_restart_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        let pair = rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap();
        fs::write(dir.path().join("c.pem"), pair.cert.pem()).unwrap();
        fs::write(dir.path().join("k.pem"), pair.signing_key.serialize_pem()).unwrap();
        let write = |text: &str| fs::write(dir.path().join("env/.env"), text).unwrap();
        let named = "TLS_CERT_FILE=c.pem\nTLS_KEY_FILE=k.pem\n";
        for (at_start, later) in [(named, ""), ("", named)] {
            write(at_start);
            let mut reloader = reloader(dir.path(), &[]);
            let tls = reloader.live.load().tls.clone();
            write(&format!("API_BASE_URL=http://two\n{later}"));
            assert_eq!(
                reloader.reload(ReloadTrigger::Touched),
                ReloadOutcome::Swapped
            );
            assert_eq!(reloader.live.load().endpoints[0].upstream.host, "two");
            assert_eq!(reloader.live.load().tls, tls);
            let standing = reloader.standing.load_full();
            let texts = |settings: &[Setting]| -> Vec<Option<String>> {
                let pair = settings
                    .iter()
                    .filter(|it| TLS_PAIR.contains(&it.variable.name));
                pair.map(Setting::shown).collect()
            };
            let (now, next) = (texts(&standing.settings), texts(&standing.next));
            assert_eq!(
                (now[0].is_some(), next[0].is_some()),
                (tls.is_some(), tls.is_none())
            );
            assert_eq!(standing.pending_restart, TLS_PAIR);
            // and it stays so
            write(&format!("API_BASE_URL=http://three\n{later}"));
            assert_eq!(
                reloader.reload(ReloadTrigger::Touched),
                ReloadOutcome::Swapped
            );
            assert_eq!(reloader.live.load().tls, tls);
        }
    }

    #[test]
    fn one_bad_file_is_counted_once_unless_somebody_asks() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        let mut reloader = reloader(dir.path(), &[]);
        fs::write(dir.path().join("env/.env"), "PORT=x\n").unwrap();
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Refused
        );
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Refused
        );
        assert_eq!(reloader.counters.failed.load(Ordering::Relaxed), 1);
        assert_eq!(
            reloader.reload(ReloadTrigger::Asked),
            ReloadOutcome::Refused
        );
        assert_eq!(reloader.counters.failed.load(Ordering::Relaxed), 2);
        fs::write(dir.path().join("env/.env"), "").unwrap();
        assert_eq!(
            reloader.reload(ReloadTrigger::Touched),
            ReloadOutcome::Unchanged
        );
        assert!(reloader.counters.last_succeeded.load(Ordering::Relaxed));
    }
}
