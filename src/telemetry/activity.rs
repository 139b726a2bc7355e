//! Activity of the proxy: totals, quantiles, the last exchanges and failures, in bounded memory.
//!
//! A worker lists its exchanges in flight, hands each over at its end ([`EventSender`]) and goes on; one thread
//! takes them, in batches, keeps everything that is kept and has the totals stored once a second. A reader
//! ([`ActivityView`]) looks at the workers' lists of exchanges in flight and takes the ends that wait; it
//! holds the lock only to copy pointers or totals, and composes without it.
//!
//! # Memory
//!
//! Upper bounds in MiB, with every text at its longest and every bound reached:
//!
//! | what | at most |
//! |---|---|
//! | totals: 900 seconds and 10,080 minutes of 136 bytes | 1.5 |
//! | quantiles: two histograms of 1.6 KiB for 900 seconds, 360 minutes and 1,008 spans of 10 minutes | 7 |
//! | usage: 65 models of 128 bytes, for 769 hours and 400 days (75,985 rows of 320 bytes) | 23.5 |
//! | 10,000 exchanges in flight, of 2.8 KiB without their fields, which the exchanges have anyway | 28 |
//! | 5,000 exchanges and 1,000 failures that have left their ring, of 6.8 KiB, 4 of them fields | 40 |
//! | texts of failures | 16 |
//! | 200 paths of 1 KiB, 64 upstreams of 9 KiB | 1 |
//! | usage by key, user, team and session: 640 names of 128 bytes, for 169 hours and 400 days | 115 |
//! | 10,000 sessions with 20,000 agents of 4 models, and 8 breaks each | 45 |
//! | 2,000 conversations of prompt caches, of 1,024 digests | 17 |
//! | together | 295 |
//!
//! Where replicas share usage and sessions, those of the others are kept besides while a page shows them, and for
//! ten minutes after it.
//!
//! In addition, there are events that wait, at most 32 MiB, lines of the access log that wait, at most
//! 16 MiB, and SQLite's cache of 2 MiB. A proxy with ten models and paths of thirty bytes
//! has 12 MiB after a week.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use jiff::tz::TimeZone;

use crate::{
    background::{self, Background, locked},
    config,
    exchange::Reading,
    state::fleet::Sums,
    telemetry::access_log::{self, AccessLog},
};

mod aggregator;
mod cache_health;
mod cache_warnings;
mod compose;
mod day_zone;
mod dimension;
mod ended;
mod filter;
mod histogram;
mod others;
mod persisted;
mod publisher;
mod queue;
mod recent;
mod redact;
mod ring;
mod session_key;
mod session_list;
pub mod session_view;
mod sessions;
mod state;
mod store;
mod top_k;
mod totals;
mod unix_time;
mod usage_by_model;
mod verified_view;
pub mod view;

use self::{
    aggregator::{Aggregator, EVENTS, StoreWriter},
    cache_warnings::CacheWarnings,
    compose::RangeSnapshot,
    day_zone::DayZone,
    ended::EndedExchange,
    others::{OtherRow, Others},
    publisher::Publisher,
    queue::{ActivitySender, WorkerEvents},
    recent::{InFlightExchange, Listed},
    session_key::SessionKey,
    state::{ActivityState, second},
    store::Store,
};
pub use self::{
    cache_health::BreakCause,
    cache_warnings::CacheWarningSources,
    compose::{Range, UsageBy, UsageRange},
    dimension::Dimension,
    filter::{Filter, InvalidFilter, StatusFilter},
    queue::EventSender,
    redact::masked,
    session_list::{SessionFilter, SessionSort},
    store::HISTORY_FILE,
    unix_time::unix_millis,
};

/// Exchanges in flight that are listed; more are counted.
const LISTED: usize = 10_000;
/// Upper bound of requests that are listed with their session.
const REQUESTS_OF_A_SESSION: usize = 100;

/// Settings of the activity.
#[derive(Default)]
pub struct ActivitySettings {
    /// The access log, if there is one.
    pub access_log: Option<config::AccessLogSettings>,
    /// Directory in which the history is stored, if it is.
    pub data_dir: Option<PathBuf>,
    /// True if the dashboard, the API or a warning reads the activity; else only the access log is written, and
    /// nothing is kept.
    pub has_readers: bool,
    /// Warnings of prompt caches that break too often, if they are on.
    pub cache_warnings: Option<CacheWarningSources>,
    /// Time zone of the days of usage; UTC if there is none.
    pub zone: Option<TimeZone>,
    /// The store in which replicas share usage and sessions, if they do.
    pub shared: Option<SharedStore>,
}

/// The store in which replicas share usage and sessions.
pub struct SharedStore {
    /// Name of this boot.
    pub boot: String,
    /// Used by the thread that publishes.
    pub publisher: Box<dyn Sums>,
    /// Used by the threads that compose pages.
    pub reader: Box<dyn Sums>,
}

/// The activity of the process. Dropping it counts, writes and stores what was handed over.
pub struct Activity {
    view: ActivityView,
    _events: Option<Background<WorkerEvents>>,
    _access_log: Option<AccessLog>,
}

/// Read access to the activity.
#[derive(Clone)]
pub struct ActivityView {
    state: Arc<Mutex<ActivityState>>,
    events: Option<background::Handle<WorkerEvents>>,
    access_log: Option<access_log::Handle>,
    /// Usage and sessions of other replicas.
    others: Option<Arc<Others>>,
}

/// Position in a stream of ticks: the changes that were sent.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    change: u64,
    /// Exchanges in flight that were sent or listed before, and whether their response head was here.
    listed: HashMap<u64, bool>,
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
    /// Starts the threads that are needed, with the history of an earlier process.
    ///
    /// # Errors
    /// If the system refuses a thread. The activity also starts without a usable data directory or access
    /// log.
    pub fn start(settings: ActivitySettings) -> io::Result<(Self, EventSender)> {
        let now = SystemTime::now();
        let mut state =
            ActivityState::new(now, DayZone::new(settings.zone.unwrap_or(TimeZone::UTC)));
        let numbers = Arc::clone(&state.recent.numbers);
        let warnings = settings.cache_warnings.map(CacheWarnings::start);
        state.sessions.warnings = warnings.transpose()?;
        let access_log = settings.access_log.map(AccessLog::start).transpose()?;
        let shared = settings.shared.filter(|_| settings.has_readers);
        let store = match &settings.data_dir {
            Some(directory) if settings.has_readers => {
                let (store, saved) = Store::open(directory, now);
                state.load(saved, shared.is_some(), now);
                Some(store)
            }
            _ => None,
        };
        let state = Arc::new(Mutex::new(state));
        let (publisher, others) = shared
            .map(|shared| {
                let SharedStore {
                    boot,
                    publisher,
                    reader,
                } = shared;
                let others = Arc::new(Others::new(reader, boot.clone()));
                (Publisher::new(publisher, boot, Arc::clone(&state)), others)
            })
            .unzip();
        let store = (store.is_some() || publisher.is_some())
            .then(|| StoreWriter::start(store, publisher))
            .transpose()?;
        let aggregator = Aggregator {
            state: Arc::clone(&state),
            store,
        };
        let events = settings
            .has_readers
            .then(|| Background::start("activity", EVENTS, aggregator))
            .transpose()?;
        let sender = EventSender {
            access_log: access_log.as_ref().map(AccessLog::sender),
            activity: events.as_ref().map(|events| ActivitySender {
                events: events.handle().entrance(),
                numbers,
            }),
        };
        let activity = Self {
            view: ActivityView {
                state,
                events: events.as_ref().map(Background::handle),
                access_log: access_log.as_ref().map(AccessLog::handle),
                others,
            },
            _events: events,
            _access_log: access_log,
        };
        Ok((activity, sender))
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

impl ActivityView {
    /// Sums and series of a range.
    pub fn overview(&self, range: Range, now: SystemTime) -> view::ActivityOverview {
        let at = second(now);
        let in_flight = self.in_flight();
        let state = self.state();
        let taken = RangeSnapshot::of(&state, range, at);
        let today = compose::today(&state, at);
        let paths = compose::paths(&state);
        let updated = state.updated;
        drop(state);
        let step_ms = taken.step_ms();
        let (totals, series) = taken.compose();
        view::ActivityOverview {
            now: unix_millis(now),
            range: range.label(),
            step_ms,
            updated_at: unix_millis(updated),
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
        let mut in_flight = self.running();
        let done = self.state().recent.done_all();
        remove_ended(&mut in_flight, &done);
        let found = filter.page(Listed { in_flight, done });
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
        let pending = self.find_running(id);
        if let Some(done) = self.state().recent.find(id) {
            let exchange = &done.done.exchange;
            return Some(view::Detail {
                row: compose::done(&done.done),
                request_fields: compose::fields(&exchange.request_fields),
                response_fields: compose::fields(&exchange.response_fields),
                error: done.text.map(|text| view::ErrorText {
                    content: text.content.to_string(),
                    truncated: text.is_cut,
                }),
                verified: exchange.verified.as_deref().map(Into::into),
            });
        }
        let pending = pending?;
        let fields = |fields: Option<&_>| fields.map(compose::fields).unwrap_or_default();
        Some(view::Detail {
            row: compose::pending(&pending, now),
            request_fields: fields(pending.progress.request_fields()),
            response_fields: fields(pending.progress.response_fields()),
            error: None,
            verified: None,
        })
    }

    /// Ends an exchange in flight: notifies its worker at once.
    pub fn end(&self, id: &str) -> EndOutcome {
        let pending = self.find_running(id);
        if self.state().recent.find(id).is_some() {
            return EndOutcome::TooLate;
        }
        match pending {
            Some(pending) if pending.progress.end() => EndOutcome::Asked,
            Some(_) => EndOutcome::TooLate,
            None => EndOutcome::Unknown,
        }
    }

    /// The kept failures of a range, and the attempts after which another upstream responded.
    pub fn errors(&self, range: Range, now: SystemTime) -> view::Errors {
        let state = self.state();
        let (failures, began) = (state.recent.failures(), state.known_since());
        let attempts = state.recent.failed_attempts();
        drop(state);
        let since = now.checked_sub(Duration::from_secs(range.seconds()));
        compose::errors(&failures, &attempts, since.unwrap_or(now), began)
    }

    /// Usage by model, by time, or by whose it is.
    pub fn usage(&self, range: UsageRange, by: UsageBy, now: SystemTime) -> Vec<view::UsageRow> {
        let (others, names) = (self.others(range, by, now), self.names(by));
        let state = self.state();
        let spent = compose::spent(&state, range, by, second(now), &others);
        let zone = state.zone.clone();
        drop(state);
        compose::usage(spent, by, &names, &zone)
    }

    /// Name of the time zone of days.
    pub fn zone(&self) -> String {
        self.state().zone.name().to_owned()
    }

    /// Usage over time, of the names with the highest cost each, and of the rest.
    pub fn usage_series(
        &self,
        range: UsageRange,
        by: UsageBy,
        now: SystemTime,
    ) -> view::UsageSeries {
        let (range, by) = compose::series_of(&self.state(), range, by);
        let (others, names) = (self.others(range, by, now), self.names(by));
        compose::usage_series(&self.state(), range, by, second(now), (&others, &names))
    }

    /// State of what is shown of other replicas; none where nothing is shared.
    pub fn shared_sums(&self) -> Option<view::SharedSums> {
        self.others.as_ref().map(|others| others.state())
    }

    /// Usage of other replicas that is to be added.
    fn others(&self, range: UsageRange, by: UsageBy, now: SystemTime) -> Vec<OtherRow> {
        let Some(others) = &self.others else {
            return Vec::new();
        };
        let asked = compose::asked(&self.state(), range, by, second(now));
        others.usage(asked.table, asked.dimension, asked.spans)
    }

    /// Names of keys by their ids, where usage is by key.
    fn names(&self, by: UsageBy) -> BTreeMap<Box<str>, Box<str>> {
        if by != UsageBy::Of(Dimension::Key) {
            return BTreeMap::new();
        }
        let mut names = self.state().key_names.clone();
        for (id, name) in self.others.iter().flat_map(|others| others.names()) {
            names.entry(id.into()).or_insert_with(|| name.into());
        }
        names
    }

    /// The sessions, those of other replicas among them.
    fn all_sessions(&self) -> Vec<Arc<sessions::Session>> {
        let own = self.state().sessions.all();
        match &self.others {
            Some(others) => others.sessions(own),
            None => own,
        }
    }

    /// A page of sessions.
    ///
    /// # Errors
    /// If the filter is invalid.
    pub fn sessions(
        &self,
        filter: &SessionFilter,
    ) -> Result<session_view::SessionPage, InvalidFilter> {
        filter.check()?;
        let mut page = filter.page(&self.all_sessions());
        page.shared = self.shared_sums();
        Ok(page)
    }

    /// One session: of several keys that have one of this name, that of this key, else the one used last.
    pub fn session(&self, id: &str, key: Option<&str>) -> Option<session_view::SessionDetail> {
        let (sessions, done) = (self.all_sessions(), self.state().recent.done_all());
        let is_it = |session: &&Arc<sessions::Session>| {
            *session.id.session == *id && key.is_none_or(|key| *session.id.key == *key)
        };
        let found = sessions.iter().filter(is_it).max_by_key(|it| it.last)?;
        let of_it = |done: &&Arc<EndedExchange>| {
            let begun = &done.exchange.begun;
            let key = begun.owner.as_ref().map_or("", |owner| &owner.key);
            begun.session.as_deref() == Some(id) && *key == *found.id.key
        };
        let last = done.iter().rev().filter(of_it).take(REQUESTS_OF_A_SESSION);
        let mut last: Vec<_> = last.collect();
        // ends of different workers may come in another order
        last.sort_unstable_by_key(|done| std::cmp::Reverse(done.seq()));
        Some(session_list::detail(
            found,
            last.into_iter().map(|done| compose::done(done)).collect(),
        ))
    }

    /// Sums of one session of a key, those of other replicas among them.
    pub fn session_sums(&self, id: &str, key: &str) -> Option<session_view::SessionSums> {
        let wanted = SessionKey {
            session: id.into(),
            key: key.into(),
        };
        let found = match &self.others {
            None => self.state().sessions.get(&wanted).map(Arc::clone),
            Some(_) => {
                let mut sessions = self.all_sessions().into_iter();
                sessions.find(|session| session.id == wanted)
            }
        };
        found.map(|session| session_list::sums(&session.totals.agents))
    }

    /// Breaks of the prompt cache since the process began, by cause.
    pub fn cache_breaks(&self) -> [u64; BreakCause::ALL.len()] {
        self.state().sessions.breaks()
    }

    /// Counts of the upstreams that have had requests.
    pub fn upstreams(&self) -> Vec<view::UpstreamRow> {
        compose::upstreams(&self.state())
    }

    /// The changes since the cursor's last tick. A new cursor begins with none.
    pub fn tick(&self, cursor: &mut Option<Cursor>, now: SystemTime) -> view::TickView {
        let in_flight = self.in_flight();
        let mut pending = self.running();
        let state = self.state();
        let seen = cursor.as_ref().map_or(0, |cursor| cursor.change);
        let (mut done, change) = state.recent.ended_since(seen);
        let (requests_per_second, error_rate, tokens_per_second) = compose::rates(&state, now);
        drop(state);
        remove_ended(&mut pending, &done);
        let told = cursor.take();
        let is_new = |seq: u64, is_answered: bool| {
            told.as_ref().is_some_and(|told| {
                let before = told.listed.get(&seq);
                before.is_none_or(|was_answered| is_answered && !was_answered)
            })
        };
        if told.is_none() {
            done.clear();
        }
        let (mut listed, mut changed) = (HashMap::with_capacity(pending.len()), Vec::new());
        for pending in &pending {
            let (seq, is_answered) = (pending.begun.seq, pending.progress.response().is_some());
            if is_new(seq, is_answered) {
                changed.push(pending);
            }
            listed.insert(seq, is_answered);
        }
        let all = changed.len() + done.len();
        // ended ones first: those that began are in the next list of requests anyway
        let done = done.iter().map(|done| compose::done(done));
        let changed = changed.into_iter();
        let changed = changed.map(|pending| compose::pending(pending, now));
        let rows: Vec<_> = done.chain(changed).take(ROWS_OF_A_TICK).collect();

        let mut running = HashMap::new();
        let mut moved = Vec::new();
        for pending in pending.iter().take(RUNNING_OF_A_TICK) {
            let (seq, so_far) = (pending.begun.seq, pending.progress.read());
            let before = told.as_ref().and_then(|told| told.running.get(&seq));
            if before != Some(&so_far) {
                moved.push(compose::running(pending, &so_far, now));
            }
            running.insert(seq, so_far);
        }
        *cursor = Some(Cursor {
            change,
            listed,
            running,
        });
        view::TickView {
            now: unix_millis(now),
            in_flight,
            requests_per_second,
            error_rate,
            tokens_per_second,
            dropped: all - rows.len(),
            rows,
            running: moved,
        }
    }

    /// The state, with the ends that wait.
    fn state(&self) -> MutexGuard<'_, ActivityState> {
        if let Some(events) = &self.events {
            events.work();
        }
        locked(&self.state)
    }

    /// Number of exchanges in flight.
    fn in_flight(&self) -> usize {
        let mut in_flight = 0;
        if let Some(events) = &self.events {
            events.visit(|worker| in_flight += worker.in_flight());
        }
        in_flight
    }

    /// The exchanges in flight, newest first. To be read before the state: what ends in between is in both,
    /// and never in none.
    fn running(&self) -> Vec<InFlightExchange> {
        let mut running = Vec::new();
        if let Some(events) = &self.events {
            events
                .visit(|worker| running.extend(worker.running().filter_map(InFlightExchange::of)));
        }
        running.sort_unstable_by_key(|pending| std::cmp::Reverse(pending.begun.seq));
        running.truncate(LISTED);
        running
    }

    fn find_running(&self, id: &str) -> Option<InFlightExchange> {
        let mut running = self.running().into_iter();
        running.find(|pending| *pending.begun.id == *id)
    }

    /// Exchanges whose end did not fit into the queue: they are missing from the totals.
    pub fn dropped(&self) -> u64 {
        self.events.as_ref().map_or(0, background::Handle::dropped)
    }

    /// Dropped lines of the access log.
    pub fn access_log_dropped(&self) -> u64 {
        self.access_log
            .as_ref()
            .map_or(0, access_log::Handle::dropped)
    }
}

/// Removes from those in flight what has ended meanwhile.
fn remove_ended(in_flight: &mut Vec<InFlightExchange>, done: &[Arc<EndedExchange>]) {
    if let Some(oldest) = in_flight.last().map(|pending| pending.begun.seq) {
        let ended = done.iter().map(|done| done.seq());
        let ended: HashSet<u64> = ended.filter(|seq| *seq >= oldest).collect();
        in_flight.retain(|pending| !ended.contains(&pending.begun.seq));
    }
}

/// Upper bound of rows of a tick.
const ROWS_OF_A_TICK: usize = 100;
/// Upper bound of exchanges in flight in a tick: a page of the list.
const RUNNING_OF_A_TICK: usize = 200;

#[cfg(test)]
mod tests;
