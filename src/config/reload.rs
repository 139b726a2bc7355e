//! Publishes a new configuration when the files change or on request, and keeps the last good one.
//!
//! One thread owns the source; it reads, validates and swaps the whole [`Live`] at once, so an
//! exchange sees the old or the new configuration and never a mixture. It looks at the files instead of having
//! itself told of changes, which network and desktop mounts do not tell; it waits until they are still, and
//! refuses one that lost its settings. The thread ends with its [`Watcher`].
//! [`Boot`](super::model::Boot) is never swapped: its changes are named and wait for a restart.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
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

mod changes;
mod status;
mod triggers;

use self::{
    changes::{changes, differ, in_effect, waiting},
    triggers::{ReloadSignals, ReloadTrigger},
};
pub use self::{
    status::{ConfigStatus, Reload, ReloadCounters},
    triggers::ReloadFault,
};

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

/// Asks the reloading thread for reloads, from any thread.
#[derive(Debug, Clone, Default)]
pub struct ReloadHandle(Arc<ReloadSignals>);

impl ReloadHandle {
    /// Has the files read as they are now, and waits until they are in effect or refused.
    ///
    /// # Errors
    /// They were refused, or there is no outcome.
    pub fn reload(&self) -> Result<(), ReloadFault> {
        self.0.ask()
    }

    /// Reports that another value than that of `next` is in effect, and none is known before a thread reads files.
    pub fn is_other(&self, next: &Setting) -> bool {
        let pending = self.0.lock();
        let mut settings = pending.in_effect.iter();
        let now = settings.find(|setting| setting.variable.name == next.variable.name);
        now.is_none_or(|now| now.text != next.text)
    }

    /// The number of settings that the environment file had when it was taken last.
    pub fn settings_of_file(&self) -> usize {
        self.0.lock().settings_of_file
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
    handle: &ReloadHandle,
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
    start(reloader, Arc::clone(&handle.0), |_| {})
}

fn start(
    mut reloader: Reloader,
    signals: Arc<ReloadSignals>,
    mut observe: impl FnMut(ReloadOutcome) + Send + 'static,
) -> io::Result<Watcher> {
    let inner = Arc::clone(&signals);
    let count = reloader.last_good.env_file.settings;
    let now = reloader.in_effect.clone();
    signals.set(|pending| {
        pending.settings_of_file = count;
        pending.in_effect = now;
    });
    let thread = thread::Builder::new()
        .name("config-reload".to_owned())
        .spawn(move || {
            // The first round sees what changed since the start.
            let mut trigger = Some(ReloadTrigger::Touched);
            while let Some(why) = trigger {
                let Some((read, files)) = reloader.read(why, |span| inner.pause(span)) else {
                    break;
                };
                let outcome = reloader.judge(read, why);
                let count = reloader.last_good.env_file.settings;
                let now = reloader.in_effect.clone();
                inner.set(|pending| {
                    pending.settings_of_file = count;
                    pending.in_effect = now;
                });
                inner.serve(match outcome {
                    ReloadOutcome::Refused => reloader.last_faults.clone(),
                    ReloadOutcome::Swapped | ReloadOutcome::Unchanged => None,
                });
                observe(outcome);
                trigger = inner.next(|| files.again() != files);
            }
        })?;
    signals.set(|pending| pending.is_running = true);
    Ok(Watcher {
        signals,
        thread: Some(thread),
    })
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

/// Longer than a writer takes from one write to the next, or an editor from delete to create.
const STILL: Duration = Duration::from_millis(200);

/// The same for a writer that may be in a pause.
const LONG_STILL: Duration = Duration::from_secs(1);

/// Files that change while they are read, after they were still, are read again this often.
const READS: usize = 4;

#[cfg(test)]
mod tests;
