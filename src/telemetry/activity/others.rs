//! Usage and sessions of other replicas, read when a page is looked at.
//!
//! What was read is kept for a moment, and shown on while the store cannot be read. It is read by the threads
//! that compose pages, never by a worker.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use super::{
    dimension::Dimension,
    publisher::{read_name, register},
    session_key::SessionKey,
    sessions::{SESSIONS, Session, SessionTotals},
    totals::UsageTotals,
    unix_time::unix_millis,
    view,
};
use crate::{
    background::locked,
    state::{
        StateError,
        fleet::{StoredSession, SumTable, Sums},
    },
};

/// Time for which the newest hours and days, and sessions, are taken as read.
const FRESH: Duration = seconds(1);
/// The same for older ones, to which little is added, and for names.
const SETTLED: Duration = seconds(60);
/// Time for which a store that failed is not asked.
const PAUSE: Duration = seconds(3);
/// Time after which what no page asks for is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Hours and days that are read at once.
const AT_ONCE: usize = 100;
/// Milliseconds that are read again, as one replica may write while another one does.
const OVERLAP: u64 = 5000;

/// None in tests, which would wait for it.
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(if cfg!(test) { 0 } else { seconds })
}

/// A row of usage of other replicas: its span, its name, its totals.
pub(super) type OtherRow = (u64, Box<str>, UsageTotals);

/// Usage and sessions of other replicas.
pub(super) struct Others {
    boot: String,
    reader: Mutex<Reader>,
}

struct Reader {
    store: Box<dyn Sums>,
    spans: HashMap<(SumTable, u64), ReadSpan>,
    sessions: HashMap<SessionKey, Arc<Session>>,
    sessions_at: Option<Instant>,
    /// Moment of the store up to which sessions were read.
    sessions_until: u64,
    names: Vec<(String, String)>,
    names_at: Option<Instant>,
    /// Time of the last reading that succeeded.
    read_at: SystemTime,
    failed_at: Option<Instant>,
    is_failing: bool,
}

/// Rows of a span: dimension, name, totals.
struct ReadSpan {
    at: Instant,
    asked: Instant,
    rows: Vec<(Option<Dimension>, Box<str>, UsageTotals)>,
}

impl Others {
    pub(super) fn new(store: Box<dyn Sums>, boot: String) -> Self {
        Self {
            boot,
            reader: Mutex::new(Reader {
                store,
                spans: HashMap::new(),
                sessions: HashMap::new(),
                sessions_at: None,
                sessions_until: 0,
                names: Vec::new(),
                names_at: None,
                read_at: SystemTime::now(),
                failed_at: None,
                is_failing: false,
            }),
        }
    }

    /// Usage of spans, of a dimension or by model.
    pub(super) fn usage(
        &self,
        table: SumTable,
        dimension: Option<Dimension>,
        spans: RangeInclusive<u64>,
    ) -> Vec<OtherRow> {
        let mut reader = locked(&self.reader);
        reader.read_spans(table, &spans, &self.boot);
        let found = spans.filter_map(|span| Some((span, reader.spans.get(&(table, span))?)));
        let rows = found.flat_map(|(span, read)| {
            let rows = read.rows.iter().filter(|(of, ..)| *of == dimension);
            rows.map(move |(_, name, totals)| (span, name.clone(), *totals))
        });
        rows.collect()
    }

    /// The sessions of all replicas: these are those of this one.
    pub(super) fn sessions(&self, own: Vec<Arc<Session>>) -> Vec<Arc<Session>> {
        let mut reader = locked(&self.reader);
        let mut own: HashMap<_, _> = own.into_iter().map(|it| (it.id.clone(), it)).collect();
        reader.read_sessions(&own, &self.boot);
        for (key, other) in &reader.sessions {
            let sum = own.get(key).map(|session| session.with(other));
            own.insert(key.clone(), sum.unwrap_or_else(|| Arc::clone(other)));
        }
        own.into_values().collect()
    }

    /// Names of keys by their ids.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let mut reader = locked(&self.reader);
        if reader.may_read(reader.names_at, SETTLED) {
            let read = reader.store.names();
            if let Some(names) = reader.judge(read) {
                reader.names = names;
                reader.names_at = Some(Instant::now());
            }
        }
        reader.names.clone()
    }

    /// State of what was read last.
    pub(super) fn state(&self) -> view::SharedSums {
        let reader = locked(&self.reader);
        view::SharedSums {
            complete: !reader.is_failing,
            read_at: unix_millis(reader.read_at),
        }
    }
}

impl Reader {
    /// True if what was read at a moment is too old, and the store may be asked.
    fn may_read(&self, at: Option<Instant>, life: Duration) -> bool {
        at.is_none_or(|at| at.elapsed() >= life)
            && self.failed_at.is_none_or(|at| at.elapsed() >= PAUSE)
    }

    fn judge<T>(&mut self, read: Result<T, StateError>) -> Option<T> {
        match read {
            Ok(read) => {
                self.read_at = SystemTime::now();
                self.failed_at = None;
                if std::mem::take(&mut self.is_failing) {
                    log::info!("[Activity] the usage of other replicas is shown again");
                }
                Some(read)
            }
            Err(error) => {
                self.failed_at = Some(Instant::now());
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::warn!(
                        "[Activity] {error}; pages show the usage of other replicas as it was read last"
                    );
                }
                None
            }
        }
    }

    fn read_spans(&mut self, table: SumTable, spans: &RangeInclusive<u64>, boot: &str) {
        let (now, newest) = (Instant::now(), *spans.end());
        self.spans
            .retain(|_, read| now.duration_since(read.asked) < FORGOTTEN);
        let due = |span: &u64| {
            let life = if span + 1 >= newest { FRESH } else { SETTLED };
            let read = self.spans.get(&(table, *span));
            read.is_none_or(|read| read.at.elapsed() >= life)
        };
        let due: Vec<u64> = spans.clone().filter(due).collect();
        for read in spans.clone() {
            if let Some(read) = self.spans.get_mut(&(table, read)) {
                read.asked = now;
            }
        }
        for due in due.chunks(AT_ONCE) {
            if !self.may_read(None, FRESH) {
                return;
            }
            let read = self.store.sums(table, due, boot);
            let Some(sums) = self.judge(read) else { return };
            let empty = |span: &u64| {
                let read = ReadSpan {
                    at: now,
                    asked: now,
                    rows: Vec::new(),
                };
                ((table, *span), read)
            };
            self.spans.extend(due.iter().map(empty));
            for sum in sums {
                let (dimension, name) = match read_name(&sum.name) {
                    Some((dimension, name)) => (Some(dimension), name),
                    None => (None, &*sum.name),
                };
                if let Some(read) = self.spans.get_mut(&(table, sum.span)) {
                    read.rows.push((dimension, name.into(), sum.numbers.into()));
                }
            }
        }
    }

    fn read_sessions(&mut self, own: &HashMap<SessionKey, Arc<Session>>, boot: &str) {
        if !self.may_read(self.sessions_at, FRESH) {
            return;
        }
        let read = self
            .store
            .sessions(self.sessions_until.saturating_sub(OVERLAP));
        let Some((until, sessions)) = self.judge(read) else {
            return;
        };
        self.sessions_at = Some(Instant::now());
        self.sessions_until = until;
        for stored in sessions {
            let Some(key) = SessionKey::of_shared(&stored.session) else {
                continue;
            };
            // what this replica still has itself is newer than what it wrote
            let here = own.get(&key).map(|own| register(boot, own.generation));
            match others(stored, here.as_deref()) {
                Some(totals) => {
                    let session = Session::of(key.clone(), totals);
                    self.sessions.insert(key, Arc::new(session));
                }
                None => {
                    self.sessions.remove(&key);
                }
            }
        }
        if self.sessions.len() > SESSIONS {
            let mut lasts: Vec<u64> = self.sessions.values().map(|it| it.last).collect();
            lasts.sort_unstable();
            let oldest = lasts[lasts.len() - SESSIONS];
            self.sessions.retain(|_, session| session.last >= oldest);
        }
    }
}

/// The sum of a session's registers but one; none if there is no other.
fn others(stored: StoredSession, except: Option<&str>) -> Option<SessionTotals> {
    let registers = stored.registers.iter();
    let others = registers.filter(|(register, _)| Some(&**register) != except);
    let mut totals: Vec<SessionTotals> = others
        .filter_map(|(_, record)| serde_json::from_str(record).ok())
        .collect();
    (!totals.is_empty()).then(|| SessionTotals::sum(&mut totals))
}
