//! The thread that carries spend to the store, and sees what other processes changed.
//!
//! Once a second, or at once when a reserve runs short. A store that fails is logged once and tried again;
//! the registers are absolute, so that nothing is lost or counted twice by that. No exchange waits for it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant, SystemTime},
};

use super::{core::Registry, error::RegistryError, warnings::BudgetWarnings};
use crate::{
    access::SpendRow,
    secret::Secret,
    state::{RedisChanges, StateError},
    webhook::Webhook,
};

/// Time between two writes; also that within which a change of another process is seen.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time between two writes that were urgent.
const FLOOR: Duration = Duration::from_millis(5);

/// Time after which the limits have written a register, as a rule.
const SETTLED: Duration = Duration::from_millis(500);

/// Time after which a fault that lasts is logged once more.
const REMINDER: Duration = Duration::from_secs(60);

/// The thread, until it is ended.
pub struct LedgerThread {
    registry: Arc<Registry>,
    /// Tells of changes of other replicas.
    _changes: Option<RedisChanges>,
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LedgerThread {
    /// Starts the thread. The webhook is told of budgets that run out (`LIMITS_WEBHOOK`).
    ///
    /// # Errors
    /// The system refuses it.
    pub fn start(registry: &Arc<Registry>, webhook: Option<&Secret>) -> io::Result<Self> {
        let webhook = webhook
            .map(|url| Webhook::start(url.expose()))
            .transpose()?;
        let (is_ended, is_urgent) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let worker = LedgerLoop {
            registry: Arc::clone(registry),
            is_ended: Arc::clone(&is_ended),
            is_urgent: Arc::clone(&is_urgent),
            warnings: webhook.map(BudgetWarnings::new),
            fault: None,
            warned: None,
            uncopied: None,
            later: Vec::new(),
            later_since: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || worker.run())?;
        let woken: Thread = thread.thread().clone();
        let wake = move || {
            is_urgent.store(true, SeqCst);
            woken.unpark();
        };
        let changes = registry
            .shared_state()
            .map(|state| RedisChanges::start(state, wake.clone()))
            .transpose()?;
        registry.access().on_urgent(wake);
        Ok(Self {
            registry: Arc::clone(registry),
            _changes: changes,
            is_ended,
            thread: Some(thread),
        })
    }

    /// Ends the thread once no exchange runs any more: the exact sums are written.
    pub fn end(mut self) {
        self.join();
        self.registry.close();
    }

    /// Asks the thread to end, and does not wait for it.
    pub fn ask_end(&self) {
        self.is_ended.store(true, SeqCst);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn join(&mut self) {
        self.ask_end();
        if let Some(thread) = self.thread.take() {
            // a thread that panicked has logged it
            let _ = thread.join();
        }
    }
}

impl Drop for LedgerThread {
    fn drop(&mut self) {
        self.join();
    }
}

struct LedgerLoop {
    registry: Arc<Registry>,
    is_ended: Arc<AtomicBool>,
    is_urgent: Arc<AtomicBool>,
    warnings: Option<BudgetWarnings>,
    /// The fault that the log has, and since when.
    fault: Option<(String, Instant)>,
    /// Rows of the last round, where replicas share the store.
    later: Vec<SpendRow>,
    later_since: Instant,
    /// The warning that the log has, and since when.
    warned: Option<(String, Instant)>,
    /// The fault of the copy that the log has, and since when.
    uncopied: Option<(String, Instant)>,
}

impl LedgerLoop {
    /// The rows to write. A row of a shared store is a note that other replicas shall look: it follows the register,
    /// which the limits write.
    fn noted(&mut self, rows: Vec<SpendRow>) -> Vec<SpendRow> {
        if self.registry.shared_state().is_none() {
            return rows;
        }
        if self.later.is_empty() {
            self.later_since = Instant::now();
        } else if self.later_since.elapsed() >= SETTLED {
            self.later_since = Instant::now();
            return std::mem::replace(&mut self.later, rows);
        }
        self.later.extend(rows);
        Vec::new()
    }

    fn run(mut self) {
        while !self.is_ended.load(SeqCst) {
            let began = Instant::now();
            self.is_urgent.store(false, SeqCst);
            let rows = self.registry.access.take_dirty();
            self.warn(&rows);
            let rows = self.noted(rows);
            let flushed = self.registry.flush(rows);
            let followed = flushed.and_then(|()| self.registry.follow());
            let outcome = followed.map(|others| self.warn(&others));
            let is_followed = outcome.is_ok();
            self.report(outcome);
            if is_followed {
                let kept = self.registry.keep_copy();
                self.report_copy(kept);
            }
            while !self.is_ended.load(SeqCst) {
                let wait = match self.is_urgent.load(SeqCst) {
                    true => FLOOR,
                    false => INTERVAL,
                };
                let Some(left) = wait.checked_sub(began.elapsed()).filter(|it| !it.is_zero())
                else {
                    break;
                };
                thread::park_timeout(left);
            }
        }
    }

    /// Tells the webhook of budgets that run out.
    fn warn(&mut self, rows: &[SpendRow]) {
        if let Some(warnings) = &mut self.warnings {
            let registry = &self.registry;
            warnings.look(&registry.access, rows, SystemTime::now(), |claim| {
                let claimed = registry.book().store.claim(&claim.names, claim.life);
                claimed.unwrap_or(true)
            });
        }
    }

    /// Logs that the copy of the shared store cannot be written, again each minute while it cannot.
    fn report_copy(&mut self, kept: Result<(), StateError>) {
        match kept {
            Ok(()) => self.uncopied = None,
            // of the store: the next look tells
            Err(StateError::Redis(_)) => {}
            Err(error) => {
                let error = error.to_string();
                if is_news(&mut self.uncopied, &error) {
                    log::warn!(
                        "[Access] {error}; the copy of the shared store is of earlier, and a start without the store \
                         knows no later change; it is tried again each second"
                    );
                }
            }
        }
    }

    /// Logs a fault, again each minute while it lasts, and its end.
    fn report(&mut self, outcome: Result<(), RegistryError>) {
        self.registry.health.note(outcome.is_ok());
        match (outcome, &self.fault) {
            (Ok(()), Some(_)) => {
                log::info!("[Access] the store is used again");
                self.fault = None;
            }
            (Ok(()), None) => {}
            (Err(error), _) => {
                let error = error.to_string();
                if is_news(&mut self.fault, &error) {
                    log::error!(
                        "[Access] {error}; traffic goes on with the keys and limits in effect; it is tried again \
                         each second"
                    );
                }
            }
        }
        match self.registry.book().store.warning() {
            Some(warning) => {
                let warning = warning.to_string();
                if is_news(&mut self.warned, &warning) {
                    log::warn!("[Access] {warning}");
                }
            }
            None => self.warned = None,
        }
    }
}

/// Notes a text; true if it is another one, or was last logged long ago.
fn is_news(logged: &mut Option<(String, Instant)>, text: &str) -> bool {
    match logged {
        Some((before, at)) if before == text && at.elapsed() < REMINDER => false,
        _ => {
            *logged = Some((text.to_owned(), Instant::now()));
            true
        }
    }
}

impl Registry {
    /// Writes the registers that changed.
    pub(super) fn flush(&self, rows: Vec<SpendRow>) -> Result<(), RegistryError> {
        if self.boot.is_empty() {
            // a verb spends nothing
            return Ok(());
        }
        let mut book = self.book();
        let written = self
            .unwritten
            .write(rows, |rows| book.store.write_spends(&self.boot, rows));
        Ok(written?)
    }

    /// Puts into effect what another process changed and spent, and anchors the audit when it is due. Gives the
    /// cells in which others have spent.
    pub(super) fn follow(&self) -> Result<Vec<SpendRow>, RegistryError> {
        let mut book = self.book();
        self.refresh(&mut book)?;
        let mut others = Vec::new();
        if !self.boot.is_empty() {
            others = self.follow_spends(&mut book)?;
            self.follow_uses(&mut book)?;
        }
        if self.audit.is_checkpoint_due() {
            self.anchor(&mut book);
        }
        Ok(others)
    }

    /// Writes the exact sums at the end of the process.
    pub(super) fn close(&self) {
        let rows = self.access.close();
        let mut book = self.book();
        let boot = &self.boot;
        let written = self
            .unwritten
            .write(rows, |rows| book.store.write_spends(boot, rows))
            .and_then(|()| book.store.end_boot(boot));
        if let Err(error) = self.write_uses(&mut book) {
            log::warn!("[Access] the last uses of keys could not be written: {error}");
        }
        if let Err(error) = written {
            log::error!(
                "[Access] the last sums could not be written: {error}; what was reserved counts as spent at the \
                 next start"
            );
        }
    }
}
