//! The thread that carries what this replica reports of its limits to the store that replicas share, and brings
//! the answers back.
//!
//! One call is under way at a time. No exchange waits for it: a store that is slow or gone changes how exact limits
//! are, by the bounds of docs/access.md.

use std::{
    io,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::core::Registry;
use crate::{
    access::{Access, SharingStatus, Syncer},
    state::SharedLimits,
};

/// Longest sleep, after which an end is seen.
const NAP: Duration = Duration::from_millis(100);

/// Sleep for what is due so soon that nothing need wake the thread before.
const SHORT: Duration = Duration::from_millis(5);

/// Time between two lines of the log about the same trouble.
const REMINDER: Duration = Duration::from_secs(60);

/// Time for the last reports of a process, after the first try.
const LAST: Duration = Duration::from_secs(1);

/// The thread, until it is ended.
pub struct SharingThread {
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SharingThread {
    /// Shares the limits of a boot with the other replicas from now on, before the first request.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn start(
        access: &Arc<Access>,
        boot: &str,
        replicas: u32,
        store: Box<dyn SharedLimits>,
    ) -> io::Result<Self> {
        let is_ended = Arc::<AtomicBool>::default();
        let worker = SharingLoop {
            syncer: access.share(boot, replicas),
            access: Arc::clone(access),
            store,
            is_ended: Arc::clone(&is_ended),
            told: None,
        };
        let thread = thread::Builder::new()
            .name("limits".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            is_ended,
            thread: Some(thread),
        })
    }

    /// Ends the thread once no exchange runs any more: what this replica held goes back to the others.
    pub fn end(mut self) {
        self.join();
    }

    /// Asks the thread to end, and does not wait for it.
    pub fn ask_end(&self) {
        self.is_ended.store(true, SeqCst);
    }

    fn join(&mut self) {
        self.ask_end();
        if let Some(thread) = self.thread.take() {
            // a thread that panicked has logged it
            let _ = thread.join();
        }
    }
}

impl Drop for SharingThread {
    fn drop(&mut self) {
        self.join();
    }
}

/// State of the sharing of limits at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharingSample {
    /// Calls of the store that were answered.
    pub syncs: u64,
    /// Calls that were not.
    pub failures: u64,
    /// Reports in the calls that were answered.
    pub reports: u64,
    /// Seconds for which the store has not answered, from a start without it since then; 0 while it does.
    pub silent: f64,
    /// Limits whose view is stale.
    pub stale: u64,
    /// Limits for which the store is lost.
    pub lost: u64,
}

impl Registry {
    /// The state of the sharing of limits; none for one replica.
    pub fn sharing(&self) -> Option<SharingSample> {
        let status = self.access.sharing()?;
        let since = status.unanswered_since.load(Relaxed);
        let lost = status.lost.load(Relaxed);
        // it may be that no call was made: then none has told anything yet
        let is_absent = self.access.is_unknown() && status.answered_at.load(Relaxed) == 0;
        let (silent, lost) = match since {
            _ if is_absent => (self.access.steady(), lost.max(self.access.limits())),
            0 => (0, lost),
            since => (self.access.steady().saturating_sub(since), lost),
        };
        Some(SharingSample {
            syncs: status.syncs.load(Relaxed),
            failures: status.failures.load(Relaxed),
            reports: status.reports.load(Relaxed),
            silent: Duration::from_nanos(silent).as_secs_f64(),
            stale: status.stale.load(Relaxed),
            lost,
        })
    }
}

struct SharingLoop {
    access: Arc<Access>,
    syncer: Syncer,
    store: Box<dyn SharedLimits>,
    is_ended: Arc<AtomicBool>,
    /// The last line of the log about a store that does not answer; none while it does.
    told: Option<Instant>,
}

impl SharingLoop {
    fn run(mut self) {
        while !self.is_ended.load(SeqCst) {
            let now = self.access.steady();
            match self.syncer.next_due().map(|due| due.saturating_sub(now)) {
                Some(0) => {}
                Some(left) if Duration::from_nanos(left) <= SHORT => {
                    thread::sleep(Duration::from_nanos(left));
                }
                _ => {
                    self.syncer.wait(now, NAP);
                    continue;
                }
            }
            if self.syncer.collect(self.access.steady()) {
                self.exchange();
            }
        }
        let end = Instant::now() + LAST;
        while self.syncer.collect_last(self.access.steady()) && !self.exchange() {
            if Instant::now() > end {
                log::error!(
                    "[Limits] the last sums did not reach the shared state; what was held counts as spent there, \
                     and slots come back after 10 s"
                );
                return;
            }
            thread::sleep(NAP);
        }
    }

    /// Carries the reports to the store; true if it answered.
    fn exchange(&mut self) -> bool {
        let (origin, reports) = (self.syncer.origin(), self.syncer.reports());
        let answers = self.store.exchange(origin, reports);
        let fault = answers.as_ref().err().map(ToString::to_string);
        self.syncer.answered(self.access.steady(), answers);
        if fault.is_none() && self.store.is_another() {
            self.syncer.tell_again(self.access.steady());
        }
        if self.syncer.take_flush() {
            log::warn!(
                "[Limits] the shared state has lost what it knew of limits; this replica reports its part again"
            );
            self.access.resend();
        }
        self.tell(fault.as_deref());
        fault.is_none()
    }

    /// Logs that the store does not answer, at most once a minute, and that it does again.
    fn tell(&mut self, fault: Option<&str>) {
        let status = Arc::clone(self.syncer.status());
        match (fault, self.told) {
            (None, None) => {}
            (None, Some(_)) => {
                log::info!("[Limits] limits are shared with the other replicas again");
                self.told = None;
            }
            (Some(_), Some(at)) if at.elapsed() < REMINDER => {}
            (Some(fault), _) => {
                let SharingStatus { stale, lost, .. } = &*status;
                log::error!(
                    "[Limits] {fault}; limits are shared by the last answers, and after 30 s each replica has its part \
                     (REPLICAS); {} limits are stale and {} lost; it is tried again all the time",
                    stale.load(Relaxed),
                    lost.load(Relaxed)
                );
                self.told = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::Pepper,
        state::{MemoryLimits, MeterAnswer, MeterReport, ReportOrigin, Unanswered},
    };

    /// A store that does not answer.
    struct Silent;

    impl SharedLimits for Silent {
        fn exchange(
            &mut self,
            _: &ReportOrigin,
            _: &[MeterReport],
        ) -> Result<Vec<Option<MeterAnswer>>, Unanswered> {
            Err(Unanswered("it is away".to_owned()))
        }
    }

    #[test]
    fn the_thread_ends_whether_the_store_answers_or_not() {
        for store in [
            Box::new(MemoryLimits::at(1).replica()) as Box<dyn SharedLimits>,
            Box::new(Silent),
        ] {
            let access = Arc::new(Access::none(Pepper::new(&[7; 32]).unwrap()));
            let thread = SharingThread::start(&access, "b", 3, store).unwrap();
            assert!(access.sharing().is_some());
            thread.end();
        }
    }
}
