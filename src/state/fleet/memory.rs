//! A store of replicas in memory, for tests of those that use one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Fleet, SUM_NUMBERS, SessionRegister, StoredBeat, StoredMoves, StoredSession, StoredSum,
    SumRegister, SumTable, Sums,
};
use crate::state::store::StateError;

/// The store; its clones are one.
#[derive(Clone, Default)]
pub(crate) struct MemoryFleet(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    is_down: bool,
    clock: u64,
    beats: BTreeMap<String, String>,
    common: Option<String>,
    moves: Vec<String>,
    boots: BTreeSet<String>,
    sums: BTreeMap<(SumTable, u64, String, String), [u64; SUM_NUMBERS]>,
    sessions: BTreeMap<String, (u64, BTreeMap<String, String>)>,
    names: BTreeMap<String, String>,
    writes: usize,
}

impl MemoryFleet {
    /// Has all that follows fail, or not.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.locked().is_down = is_down;
    }

    /// Forgets everything.
    pub(crate) fn flush(&self) {
        *self.locked() = Content::default();
    }

    /// Number of registers that were written.
    pub(crate) fn writes(&self) -> usize {
        self.locked().writes
    }

    fn locked(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self) -> Result<MutexGuard<'_, Content>, StateError> {
        let mut content = self.locked();
        content.clock += 1;
        match content.is_down {
            true => Err(StateError::Io("memory".into(), io::Error::other("down"))),
            false => Ok(content),
        }
    }
}

impl Fleet for MemoryFleet {
    fn beat(&mut self, boot: &str, text: &str) -> Result<Vec<StoredBeat>, StateError> {
        let mut content = self.content()?;
        content.beats.insert(boot.to_owned(), text.to_owned());
        let beats = content.beats.iter().map(|(boot, text)| StoredBeat {
            boot: boot.clone(),
            age: Duration::ZERO,
            text: text.clone(),
        });
        Ok(beats.collect())
    }

    fn leave(&mut self, boot: &str) -> Result<(), StateError> {
        self.content()?.beats.remove(boot);
        Ok(())
    }

    fn common_text(&mut self, proposed: &str) -> Result<String, StateError> {
        let mut content = self.content()?;
        let common = content.common.get_or_insert_with(|| proposed.to_owned());
        Ok(common.clone())
    }

    fn moves(&mut self, own: &[String], after: &str) -> Result<StoredMoves, StateError> {
        let mut content = self.content()?;
        content.moves.extend_from_slice(own);
        let after = after.parse().unwrap_or(0).min(content.moves.len());
        let moves = content.moves[after..].iter();
        Ok(StoredMoves {
            moves: moves.map(|text| (Duration::ZERO, text.clone())).collect(),
            position: content.moves.len().to_string(),
        })
    }
}

impl Sums for MemoryFleet {
    fn sign(&mut self, boot: &str) -> Result<bool, StateError> {
        Ok(!self.content()?.boots.insert(boot.to_owned()))
    }

    fn write_sums(&mut self, boot: &str, rows: &[SumRegister]) -> Result<(), StateError> {
        let mut content = self.content()?;
        content.writes += rows.len();
        for row in rows {
            let key = (row.table, row.span, boot.to_owned(), row.name.clone());
            content.sums.insert(key, row.numbers);
        }
        Ok(())
    }

    fn sums(
        &mut self,
        table: SumTable,
        spans: &[u64],
        except: &str,
    ) -> Result<Vec<StoredSum>, StateError> {
        let content = self.content()?;
        let mut sums: BTreeMap<(u64, String), [u64; SUM_NUMBERS]> = BTreeMap::new();
        for ((of, span, boot, name), numbers) in &content.sums {
            if *of == table && spans.contains(span) && boot != except {
                let sum = sums.entry((*span, name.clone())).or_default();
                for (sum, number) in sum.iter_mut().zip(numbers) {
                    *sum += number;
                }
            }
        }
        let sums = sums.into_iter().map(|((span, name), numbers)| StoredSum {
            span,
            name,
            numbers,
        });
        Ok(sums.collect())
    }

    fn merge_sums(&mut self, _: SumTable, _: &[u64]) -> Result<(), StateError> {
        self.content().map(drop)
    }

    fn take_turn(&mut self, _: &str) -> Result<bool, StateError> {
        self.content().map(|_| true)
    }

    fn write_sessions(&mut self, rows: &[SessionRegister]) -> Result<Vec<String>, StateError> {
        let mut content = self.content()?;
        content.writes += rows.len();
        let clock = content.clock;
        for row in rows {
            let session = content.sessions.entry(row.session.clone()).or_default();
            session.0 = clock;
            session.1.insert(row.register.clone(), row.record.clone());
        }
        Ok(Vec::new())
    }

    fn sessions(&mut self, after: u64) -> Result<(u64, Vec<StoredSession>), StateError> {
        let content = self.content()?;
        let sessions = content.sessions.iter().filter(|(_, (at, _))| *at >= after);
        let read = sessions.map(|(session, (_, registers))| StoredSession {
            session: session.clone(),
            registers: registers.clone().into_iter().collect(),
        });
        Ok((content.clock, read.collect()))
    }

    fn merge_session(
        &mut self,
        _: &str,
        _: &dyn Fn(&[String]) -> Option<String>,
    ) -> Result<(), StateError> {
        self.content().map(drop)
    }

    fn write_names(&mut self, names: &[(String, String)]) -> Result<(), StateError> {
        self.content()?.names.extend(names.iter().cloned());
        Ok(())
    }

    fn names(&mut self) -> Result<Vec<(String, String)>, StateError> {
        Ok(self.content()?.names.clone().into_iter().collect())
    }
}
