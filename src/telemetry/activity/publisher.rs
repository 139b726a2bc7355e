//! Publishes the usage and the sessions of this boot for the pages of other replicas.
//!
//! It works on the thread that stores the history, once a second, and takes only what changed. What it writes is
//! absolute since the boot: a write that is repeated changes nothing, and a store that has lost everything gets
//! everything again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use super::{
    dimension::Dimension,
    session_key::SessionKey,
    sessions::SessionTotals,
    state::{ActivityState, DAY, Delta, HOUR, NamedSpan, second},
};
use crate::{
    background::locked,
    state::fleet::{SessionRegister, SumRegister, SumTable, Sums},
};

/// Registers that are written at once.
const ROWS: usize = 1000;
/// Sessions that are written at once.
const SESSIONS: usize = 100;
/// Time between two signs, which also tell that the store has lost everything.
const SIGN: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// Time between two tries to add up what is over.
const MERGE: Duration = Duration::from_secs(600);
/// Hours and days that are over for so long that no replica adds to them.
const OVER: u64 = 2 * 24;

/// The thread's part that publishes.
pub(super) struct Publisher {
    store: Box<dyn Sums>,
    boot: String,
    state: Arc<Mutex<ActivityState>>,
    changed: Changed,
    /// Names of keys as they were written.
    names: BTreeMap<Box<str>, Box<str>>,
    signed: Option<Instant>,
    merged: Instant,
    /// True once the store knows this boot.
    is_known: bool,
    is_failing: bool,
}

/// Names of what changed.
#[derive(Default)]
struct Changed {
    hours: BTreeSet<(u64, Box<str>)>,
    days: BTreeSet<(u64, Box<str>)>,
    hours_by: BTreeSet<NamedSpan>,
    days_by: BTreeSet<NamedSpan>,
    sessions: BTreeSet<SessionKey>,
}

impl Publisher {
    pub(super) fn new(
        store: Box<dyn Sums>,
        boot: String,
        state: Arc<Mutex<ActivityState>>,
    ) -> Self {
        Self {
            store,
            boot,
            state,
            changed: Changed::default(),
            names: BTreeMap::new(),
            signed: None,
            merged: Instant::now(),
            is_known: false,
            is_failing: false,
        }
    }

    /// Notes what changed.
    pub(super) fn note(&mut self, more: &Delta) {
        let changed = &mut self.changed;
        changed.hours.extend(more.hours.keys().cloned());
        changed.days.extend(more.days.keys().cloned());
        changed.hours_by.extend(more.hours_by.keys().cloned());
        changed.days_by.extend(more.days_by.keys().cloned());
        changed.sessions.extend(more.sessions.keys().cloned());
    }

    /// Writes what changed. A store that fails is tried again with the next call.
    pub(super) fn publish(&mut self) {
        let written = self.sign().and_then(|()| self.write());
        match written {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    log::info!("[Activity] usage and sessions are shared again");
                }
            }
            Err(error) => {
                // what was written last may be lost, as with a primary that fails
                self.signed = None;
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::warn!(
                        "[Activity] {error}; other replicas do not show the usage of this one until then"
                    );
                    let now = second(SystemTime::now());
                    self.changed.add_recent(&locked(&self.state), now);
                }
            }
        }
    }

    fn sign(&mut self) -> Result<(), crate::state::StateError> {
        if self.signed.is_some_and(|signed| signed.elapsed() < SIGN) {
            return Ok(());
        }
        let knew = self.store.sign(&self.boot)?;
        if !knew && self.is_known {
            self.names.clear();
            self.changed.add_all(&locked(&self.state));
        }
        self.is_known = true;
        self.signed = Some(Instant::now());
        if self.merged.elapsed() >= MERGE {
            self.merged = Instant::now();
            self.merge()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), crate::state::StateError> {
        loop {
            let rows = self.changed.rows(&locked(&self.state));
            if rows.is_empty() {
                break;
            }
            self.write_names(&rows)?;
            self.store.write_sums(&self.boot, &rows)?;
            self.changed.remove_rows(&rows);
        }
        loop {
            let sessions: Vec<_> = self
                .changed
                .sessions
                .iter()
                .take(SESSIONS)
                .cloned()
                .collect();
            if sessions.is_empty() {
                return Ok(());
            }
            let state = locked(&self.state);
            let found = sessions.iter().filter_map(|key| state.sessions.get(key));
            let found: Vec<_> = found.cloned().collect();
            drop(state);
            let rows = found.iter().filter_map(|session| {
                Some(SessionRegister {
                    session: session.id.shared(),
                    register: register(&self.boot, session.generation),
                    record: serde_json::to_string(&session.totals).ok()?,
                })
            });
            let rows: Vec<_> = rows.collect();
            for crowded in self.store.write_sessions(&rows)? {
                self.store.merge_session(&crowded, &merged)?;
            }
            for key in &sessions {
                self.changed.sessions.remove(key);
            }
        }
    }

    /// Writes the names of the keys in the rows.
    fn write_names(&mut self, rows: &[SumRegister]) -> Result<(), crate::state::StateError> {
        let state = locked(&self.state);
        let mut names = BTreeMap::new();
        for row in rows.iter().filter(|row| is_by_name(row.table)) {
            let key = row.name.strip_prefix(Dimension::Key.label());
            let key = key.and_then(|key| key.strip_prefix('\n'));
            let Some((key, name)) = key.and_then(|key| state.key_names.get_key_value(key)) else {
                continue;
            };
            if self.names.get(key) != Some(name) {
                names.insert(key.clone(), name.clone());
            }
        }
        drop(state);
        let pairs = names.iter();
        let pairs: Vec<_> = pairs
            .map(|(key, name)| (key.to_string(), name.to_string()))
            .collect();
        self.store.write_names(&pairs)?;
        self.names.extend(names);
        Ok(())
    }

    /// Adds up, in the store, the sums of all boots in the hours and days that are over.
    fn merge(&mut self) -> Result<(), crate::state::StateError> {
        if !self.store.take_turn(&self.boot)? {
            return Ok(());
        }
        let now = second(SystemTime::now());
        let (hour, day) = (
            (now / HOUR).saturating_sub(OVER),
            (now / DAY).saturating_sub(2),
        );
        let hours: Vec<u64> = (hour.saturating_sub(6)..hour).collect();
        let days: Vec<u64> = (day.saturating_sub(2)..day).collect();
        for (table, spans) in [
            (SumTable::HoursByModel, &hours),
            (SumTable::HoursByName, &hours),
            (SumTable::DaysByModel, &days),
            (SumTable::DaysByName, &days),
        ] {
            self.store.merge_sums(table, spans)?;
        }
        Ok(())
    }
}

impl Changed {
    /// Marks everything that is known.
    fn add_all(&mut self, state: &ActivityState) {
        self.add_since(state, 0, 0, 0);
    }

    /// Marks what changed lately: this hour and day and those before, and the sessions of the last minutes.
    fn add_recent(&mut self, state: &ActivityState, now: u64) {
        let day = state.zone.day(now);
        let minutes = now.saturating_sub(600).saturating_mul(1000);
        self.add_since(
            state,
            (now / HOUR).saturating_sub(1),
            day.saturating_sub(1),
            minutes,
        );
    }

    fn add_since(&mut self, state: &ActivityState, hour: u64, day: u64, session: u64) {
        let named = |(span, name, _): (u64, &str, _)| (span, name.into());
        self.hours
            .extend(state.hours.between(hour, u64::MAX).map(named));
        self.days
            .extend(state.days.between(day, u64::MAX).map(named));
        for dimension in Dimension::ALL {
            let usage = &state.dimensions[dimension as usize];
            let named = |(span, name, _): (u64, &str, _)| (span, dimension, name.into());
            self.hours_by
                .extend(usage.hours.between(hour, u64::MAX).map(named));
            self.days_by
                .extend(usage.days.between(day, u64::MAX).map(named));
        }
        let sessions = state.sessions.all();
        let lately = sessions.iter().filter(|it| it.last >= session);
        self.sessions.extend(lately.map(|it| it.id.clone()));
    }

    /// The first of the sums that changed, as they are now.
    fn rows(&mut self, state: &ActivityState) -> Vec<SumRegister> {
        let mut rows = Vec::new();
        for (table, names, usage) in [
            (SumTable::HoursByModel, &mut self.hours, &state.hours),
            (SumTable::DaysByModel, &mut self.days, &state.days),
        ] {
            // those that were forgotten meanwhile stay as they were written
            names.retain(|(span, name)| usage.get(*span, name).is_some());
            for (span, name) in names.iter().take(ROWS - rows.len()) {
                rows.extend(usage.get(*span, name).map(|spent| SumRegister {
                    table,
                    span: *span,
                    name: name.to_string(),
                    numbers: (*spent).into(),
                }));
            }
        }
        for (table, names) in [
            (SumTable::HoursByName, &mut self.hours_by),
            (SumTable::DaysByName, &mut self.days_by),
        ] {
            let find = |(span, dimension, name): &NamedSpan| {
                let usage = &state.dimensions[*dimension as usize];
                let usage = match table {
                    SumTable::HoursByName => &usage.hours,
                    _ => &usage.days,
                };
                usage.get(*span, name)
            };
            names.retain(|named| find(named).is_some());
            for named in names.iter().take(ROWS - rows.len()) {
                rows.extend(find(named).map(|spent| SumRegister {
                    table,
                    span: named.0,
                    name: shared_name(named.1, &named.2),
                    numbers: (*spent).into(),
                }));
            }
        }
        rows
    }

    fn remove_rows(&mut self, rows: &[SumRegister]) {
        for row in rows {
            match row.table {
                SumTable::HoursByModel => self.hours.remove(&(row.span, (&*row.name).into())),
                SumTable::DaysByModel => self.days.remove(&(row.span, (&*row.name).into())),
                SumTable::HoursByName | SumTable::DaysByName => {
                    let names = match row.table {
                        SumTable::HoursByName => &mut self.hours_by,
                        _ => &mut self.days_by,
                    };
                    read_name(&row.name)
                        .is_some_and(|(of, name)| names.remove(&(row.span, of, name.into())))
                }
            };
        }
    }
}

fn is_by_name(table: SumTable) -> bool {
    matches!(table, SumTable::HoursByName | SumTable::DaysByName)
}

/// The name of a dimension as it is shared.
fn shared_name(dimension: Dimension, name: &str) -> String {
    format!("{}\n{name}", dimension.label())
}

/// The dimension and the name in it.
pub(super) fn read_name(shared: &str) -> Option<(Dimension, &str)> {
    let (label, name) = shared.split_once('\n')?;
    let dimension = Dimension::ALL.into_iter().find(|it| it.label() == label)?;
    Some((dimension, name))
}

/// The register of a session: one that was forgotten and came back has another one.
pub(super) fn register(boot: &str, generation: u32) -> String {
    match generation {
        0 => boot.to_owned(),
        later => format!("{boot}.{later}"),
    }
}

/// Several registers of a session as one; none if one of them cannot be read.
fn merged(records: &[String]) -> Option<String> {
    let records = records
        .iter()
        .map(|record| serde_json::from_str(record).ok());
    let mut records: Vec<SessionTotals> = records.collect::<Option<_>>()?;
    serde_json::to_string(&SessionTotals::sum(&mut records)).ok()
}
