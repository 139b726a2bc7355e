use std::{cell::Cell, fs, path::Path, sync::mpsc, time::Instant};

use super::{changes::TLS_PAIR, *};
use crate::config::{Environment, Flags};

const SOON: Duration = Duration::from_secs(20);

struct Rig {
    dir: tempfile::TempDir,
    live: Arc<ArcSwap<Live>>,
    counters: Arc<ReloadCounters>,
    outcomes: mpsc::Receiver<ReloadOutcome>,
    handle: ReloadHandle,
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
        let handle = ReloadHandle::default();
        let watcher = start(reloader, Arc::clone(&handle.0), move |outcome| {
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
            handle,
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

#[test]
fn who_asks_waits_for_the_outcome_of_what_is_in_the_files_then() {
    let rig = Rig::with_env_file("API_BASE_URL=http://one\n");
    rig.replace("env/.env", "API_BASE_URL=http://two\n");
    assert_eq!(rig.handle.reload(), Ok(()));
    assert_eq!(rig.host(), "two");
    rig.replace("env/.env", "API_BASE_URL=http://two\nPORT=x\n");
    let Err(ReloadFault::Refused(faults)) = rig.handle.reload() else {
        panic!("it was taken");
    };
    assert!(faults.to_string().contains("PORT"), "{faults}");
    rig.replace("env/.env", "API_BASE_URL=http://two\n");
    assert_eq!(rig.handle.reload(), Ok(()));
    let handle = rig.handle.clone();
    drop(rig);
    assert_eq!(handle.reload(), Err(ReloadFault::NoOutcome));
    // no thread at all is not waited for
    assert_eq!(
        ReloadHandle::default().reload(),
        Err(ReloadFault::NoOutcome)
    );
}
