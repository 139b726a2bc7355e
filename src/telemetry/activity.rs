//! Activity of the proxy: totals, quantiles, the last exchanges and failures, in bounded memory.
//!
//! Workers hand plain records over ([`EventSender`]) and go on; one thread takes them, in batches, keeps
//! everything that is kept, writes the access log's lines and has the totals stored once a second. A reader
//! ([`ActivityView`]) holds its lock only to copy pointers or totals, and composes without it.
//!
//! # Memory
//!
//! Upper bounds in MiB, with every text at its longest and every bound reached:
//!
//! | what | at most |
//! |---|---|
//! | totals: 900 seconds and 10,080 minutes of 136 bytes | 1.5 |
//! | quantiles: two histograms of 1.6 KiB for 900 seconds, 360 minutes and 1,008 spans of 10 minutes | 7 |
//! | usage: 65 models of 128 bytes, for 169 hours and 400 days (36,985 rows of 320 bytes) | 11.5 |
//! | 10,000 exchanges in flight, of 2.8 KiB without their fields, which the exchanges have anyway | 28 |
//! | 5,000 exchanges and 1,000 failures that have left their ring, of 6.8 KiB, 4 of them fields | 40 |
//! | texts of failures | 16 |
//! | 200 paths of 1 KiB, 64 upstreams of 9 KiB | 1 |
//! | together | 105 |
//!
//! In addition, there are events that wait, at most 32 MiB (and 2 MiB of places), lines of the access log
//! that wait, at most 16 MiB, and SQLite's cache of 2 MiB. A proxy with ten models and paths of thirty bytes
//! has 12 MiB after a week.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use crate::{
    config,
    exchange::Reading,
    telemetry::access_log::{self, AccessLog},
};

mod aggregator;
mod compose;
mod ended;
mod filter;
mod histogram;
mod persisted;
mod queue;
mod recent;
mod redact;
mod ring;
mod state;
mod store;
mod top_k;
mod totals;
mod usage_by_model;
pub mod view;

use self::{
    aggregator::{Aggregator, StoreWriter, locked},
    compose::RangeSnapshot,
    queue::QueueCounts,
    recent::FoundExchange,
    state::{ActivityState, second},
};
pub use self::{
    compose::{Range, UsageBy, UsageRange},
    filter::{Filter, InvalidFilter, StatusFilter},
    queue::EventSender,
};

/// Upper bound of events that wait: 300 ms of 100,000 exchanges a second, 16 s of 2,000.
pub const CAPACITY: usize = 65_536;

/// Longest wait for the thread at the end: longer than its own wait for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Settings of the activity.
#[derive(Debug, Clone, Default)]
pub struct ActivitySettings {
    /// The access log, if there is one.
    pub access_log: Option<config::AccessLogSettings>,
    /// Directory in which the history is stored, if it is.
    pub data_dir: Option<PathBuf>,
    /// Upper bound of events that wait; [`CAPACITY`] by default.
    pub capacity: Option<usize>,
    /// True if the dashboard or the API reads the activity; else only the access log is written, and nothing
    /// is kept.
    pub has_readers: bool,
}

/// The activity of the process. Dropping it counts, writes and stores the queued events.
pub struct Activity {
    view: ActivityView,
    is_ended: Arc<AtomicBool>,
    is_done: mpsc::Receiver<()>,
}

/// Read access to the activity.
#[derive(Clone)]
pub struct ActivityView {
    state: Arc<Mutex<ActivityState>>,
    counts: Arc<QueueCounts>,
    access_log: Option<access_log::Handle>,
}

/// Position in a stream of ticks: the changes that were sent.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    change: u64,
    /// Readings sent of exchanges in flight, by their number.
    running: HashMap<u64, Reading>,
}

/// Outcome of a request to end an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOutcome {
    /// The worker was notified.
    Asked,
    /// The exchange has ended, or the end was requested before.
    TooLate,
    /// No exchange of this name is known.
    Unknown,
}

impl Activity {
    /// Starts the thread, with the history of an earlier process.
    ///
    /// # Errors
    /// If the system refuses a thread. The activity also starts without a usable data directory or access
    /// log.
    pub fn start(settings: ActivitySettings) -> io::Result<(Self, EventSender)> {
        let now = SystemTime::now();
        let mut state = ActivityState::new(now);
        let access_log = settings.access_log.map(AccessLog::start).transpose()?;
        let saver = match &settings.data_dir {
            Some(directory) if settings.has_readers => {
                let (saver, saved) = StoreWriter::start(directory)?;
                state.load(saved, now);
                Some(saver)
            }
            _ => None,
        };
        let capacity = settings.capacity.unwrap_or(CAPACITY);
        let (recorder, events, counts) = queue::queue(capacity, settings.has_readers);
        let view = ActivityView {
            state: Arc::new(Mutex::new(state)),
            counts: Arc::clone(&counts),
            access_log: access_log.as_ref().map(AccessLog::handle),
        };
        let is_ended = Arc::new(AtomicBool::new(false));
        let observer = Aggregator {
            events,
            counts: Arc::clone(&counts),
            state: Arc::clone(&view.state),
            access_log,
            saver,
            has_readers: settings.has_readers,
            is_ended: Arc::clone(&is_ended),
        };
        let (done, is_done) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("activity".into())
            .spawn(move || {
                observer.run();
                let _ = done.send(());
            })?;
        counts.observed_by(thread.thread().clone());
        let activity = Self {
            view,
            is_ended,
            is_done,
        };
        Ok((activity, recorder))
    }

    /// Reopens the file of the access log (`SIGUSR1`).
    pub fn reopen(&self) {
        if let Some(log) = &self.view.access_log {
            log.reopen();
        }
    }

    /// Returns read access.
    pub fn view(&self) -> ActivityView {
        self.view.clone()
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.is_ended.store(true, SeqCst);
        self.view.counts.wake();
        let _ = self.is_done.recv_timeout(PATIENCE);
    }
}

impl ActivityView {
    /// Sums and series of a range.
    pub fn overview(&self, range: Range, now: SystemTime) -> view::ActivityOverview {
        let at = second(now);
        let state = locked(&self.state);
        let taken = RangeSnapshot::of(&state, range, at);
        let today = compose::today(&state, at);
        let paths = compose::paths(&state);
        let (updated, in_flight) = (state.updated, state.recent.in_flight());
        drop(state);
        let step_ms = taken.step_ms();
        let (totals, series) = taken.compose();
        view::ActivityOverview {
            now: compose::unix_millis(now),
            range: range.label(),
            step_ms,
            updated_at: compose::unix_millis(updated),
            in_flight,
            lost: self.dropped(),
            totals,
            today,
            series,
            paths,
        }
    }

    /// A page of exchanges.
    ///
    /// # Errors
    /// If the filter is invalid.
    pub fn requests(&self, filter: &Filter, now: SystemTime) -> Result<view::Page, InvalidFilter> {
        filter.check()?;
        let listed = locked(&self.state).recent.listed();
        let found = filter.page(listed);
        let in_flight = found.in_flight.iter();
        let in_flight = in_flight.map(|pending| compose::pending(pending, now));
        let done = found.done.iter().map(|done| compose::done(done));
        Ok(view::Page {
            items: in_flight.chain(done).collect(),
            next_before: found.next_before,
            total: found.total,
        })
    }

    /// One exchange, if it is still known.
    pub fn request(&self, id: &str, now: SystemTime) -> Option<view::Detail> {
        let found = locked(&self.state).recent.find(id)?;
        Some(match found {
            FoundExchange::Pending(pending) => {
                let fields = |fields: Option<&_>| fields.map(compose::fields).unwrap_or_default();
                view::Detail {
                    row: compose::pending(&pending, now),
                    request_fields: fields(pending.progress.request_fields()),
                    response_fields: fields(pending.progress.response_fields()),
                    error: None,
                }
            }
            FoundExchange::Done(failure) => view::Detail {
                row: compose::done(&failure.done),
                request_fields: compose::fields(&failure.done.exchange.request_fields),
                response_fields: compose::fields(&failure.done.exchange.response_fields),
                error: failure.text.map(|text| view::ErrorText {
                    content: text.content.to_string(),
                    truncated: text.is_cut,
                }),
            },
        })
    }

    /// Ends an exchange in flight: notifies its worker at once.
    pub fn end(&self, id: &str) -> EndOutcome {
        let found = locked(&self.state).recent.find(id);
        match found {
            Some(FoundExchange::Pending(pending)) if pending.progress.end() => EndOutcome::Asked,
            Some(_) => EndOutcome::TooLate,
            None => EndOutcome::Unknown,
        }
    }

    /// The kept failures of a range, and the attempts after which another upstream responded.
    pub fn errors(&self, range: Range, now: SystemTime) -> view::Errors {
        let state = locked(&self.state);
        let (failures, began) = (state.recent.failures(), state.known_since());
        let attempts = state.recent.failed_attempts();
        drop(state);
        let since = now.checked_sub(Duration::from_secs(range.seconds()));
        compose::errors(&failures, &attempts, since.unwrap_or(now), began)
    }

    /// Usage by model or by day.
    pub fn usage(&self, range: UsageRange, by: UsageBy, now: SystemTime) -> Vec<view::UsageRow> {
        let spent = compose::spent(&locked(&self.state), range, by, second(now));
        compose::usage(spent, by)
    }

    /// Counts of the upstreams that have had requests.
    pub fn upstreams(&self) -> Vec<view::UpstreamRow> {
        compose::upstreams(&locked(&self.state))
    }

    /// The changes since the cursor's last tick. A new cursor begins with none.
    pub fn tick(&self, cursor: &mut Option<Cursor>, now: SystemTime) -> view::TickView {
        let state = locked(&self.state);
        let seen = cursor.as_ref().map_or(u64::MAX, |cursor| cursor.change);
        let (changed, last) = state.recent.changed_since(seen);
        let (requests_per_second, error_rate, tokens_per_second) = compose::rates(&state, now);
        let in_flight = state.recent.in_flight();
        let newest = state.recent.newest_in_flight(RUNNING_OF_A_TICK);
        drop(state);
        let told = cursor
            .take()
            .map(|cursor| cursor.running)
            .unwrap_or_default();
        let mut running = HashMap::with_capacity(newest.len());
        let mut moved = Vec::new();
        for pending in &newest {
            let so_far = pending.progress.read();
            if told.get(&pending.seq) != Some(&so_far) {
                moved.push(compose::running(pending, &so_far, now));
            }
            running.insert(pending.seq, so_far);
        }
        *cursor = Some(Cursor {
            change: last,
            running,
        });

        let all = changed.in_flight.len() + changed.done.len();
        // ended ones first: those that began are in the next list of requests anyway
        let done = changed.done.iter().map(|done| compose::done(done));
        let pending = changed.in_flight.iter();
        let pending = pending.map(|pending| compose::pending(pending, now));
        let rows: Vec<_> = done.chain(pending).take(ROWS_OF_A_TICK).collect();
        view::TickView {
            now: compose::unix_millis(now),
            in_flight,
            requests_per_second,
            error_rate,
            tokens_per_second,
            dropped: all - rows.len(),
            rows,
            running: moved,
        }
    }

    /// Exchanges whose end did not fit into the queue: they are missing from the totals.
    pub fn dropped(&self) -> u64 {
        self.counts.lost()
    }

    /// Dropped lines of the access log.
    pub fn access_log_dropped(&self) -> u64 {
        self.access_log
            .as_ref()
            .map_or(0, access_log::Handle::dropped)
    }
}

/// Upper bound of rows of a tick.
const ROWS_OF_A_TICK: usize = 100;
/// Upper bound of exchanges in flight in a tick: a page of the list.
const RUNNING_OF_A_TICK: usize = 200;

#[cfg(test)]
mod tests;
