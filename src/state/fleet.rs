//! Messages of replicas to each other through a shared store: signs of life, sessions that changed their upstream,
//! and sums for the pages of all.
//!
//! All of it is advice and display: a replica that hears nothing works on with what it knows. Everything expires,
//! and what is written is absolute, so that it may be written again. The room knows texts and numbers; only those
//! who write them know their meaning.

use std::time::Duration;

use super::store::StateError;

#[cfg(test)]
pub(crate) mod memory;

/// Numbers of a sum.
pub const SUM_NUMBERS: usize = 10;

/// Time after its last heartbeat for which a replica counts as one that runs.
pub const BEAT_LIFE: Duration = Duration::from_secs(10);

/// A heartbeat of a replica that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBeat {
    /// The boot.
    pub boot: String,
    /// Time since it was written, by the store's clock.
    pub age: Duration,
    /// Its content.
    pub text: String,
}

/// Sessions that changed their upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredMoves {
    /// The changes with their age, oldest first.
    pub moves: Vec<(Duration, String)>,
    /// Position after the last one.
    pub position: String,
}

/// Signs of life, and hints, of replicas.
pub trait Fleet: Send {
    /// Writes a heartbeat in the place of the boot's last one, and reads those of all replicas that run.
    ///
    /// # Errors
    /// The store cannot be used.
    fn beat(&mut self, boot: &str, text: &str) -> Result<Vec<StoredBeat>, StateError>;

    /// Removes the heartbeat of a boot that ends.
    ///
    /// # Errors
    /// The store cannot be written.
    fn leave(&mut self, boot: &str) -> Result<(), StateError>;

    /// Gives the random text that all replicas have in common: the proposed one, if there is none.
    ///
    /// # Errors
    /// The store cannot be used.
    fn common_text(&mut self, proposed: &str) -> Result<String, StateError>;

    /// Adds changes, and reads those after a position (empty for the first one).
    ///
    /// # Errors
    /// The store cannot be used.
    fn moves(&mut self, own: &[String], after: &str) -> Result<StoredMoves, StateError>;
}

/// Table of sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SumTable {
    /// By hour and model.
    HoursByModel,
    /// By day and model.
    DaysByModel,
    /// By hour and another name.
    HoursByName,
    /// By day and another name.
    DaysByName,
}

/// A sum of this boot: absolute since the boot, so that it may be written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumRegister {
    /// The table.
    pub table: SumTable,
    /// The hour or the day.
    pub span: u64,
    /// The name in it.
    pub name: String,
    /// The numbers.
    pub numbers: [u64; SUM_NUMBERS],
}

/// A sum over boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSum {
    /// The hour or the day.
    pub span: u64,
    /// The name in it.
    pub name: String,
    /// The numbers.
    pub numbers: [u64; SUM_NUMBERS],
}

/// A boot's knowledge of a session: absolute since the boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRegister {
    /// The session.
    pub session: String,
    /// The register: the boot, or a part of it.
    pub register: String,
    /// The content.
    pub record: String,
}

/// A session as all boots know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The session.
    pub session: String,
    /// Registers and their contents.
    pub registers: Vec<(String, String)>,
}

/// Sums for the pages of all replicas.
pub trait Sums: Send {
    /// Notes that a boot writes. Returns false if the store had no note of it: then it has nothing of the boot.
    ///
    /// # Errors
    /// The store cannot be used.
    fn sign(&mut self, boot: &str) -> Result<bool, StateError>;

    /// Writes sums of a boot.
    ///
    /// # Errors
    /// The store cannot be written.
    fn write_sums(&mut self, boot: &str, rows: &[SumRegister]) -> Result<(), StateError>;

    /// Reads sums over all boots but this one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn sums(
        &mut self,
        table: SumTable,
        spans: &[u64],
        except: &str,
    ) -> Result<Vec<StoredSum>, StateError>;

    /// Adds up the registers of all boots in spans that are over, in the store.
    ///
    /// # Errors
    /// The store cannot be written.
    fn merge_sums(&mut self, table: SumTable, spans: &[u64]) -> Result<(), StateError>;

    /// Takes the turn to add up, which one replica has at a time. Returns false if another one has it.
    ///
    /// # Errors
    /// The store cannot be used.
    fn take_turn(&mut self, boot: &str) -> Result<bool, StateError>;

    /// Writes registers of sessions. Returns the sessions that have many.
    ///
    /// # Errors
    /// The store cannot be written.
    fn write_sessions(&mut self, rows: &[SessionRegister]) -> Result<Vec<String>, StateError>;

    /// Reads the sessions that were written after a moment of the store's clock (0: all); gives the moment of the
    /// last one.
    ///
    /// # Errors
    /// The store cannot be read.
    fn sessions(&mut self, after: u64) -> Result<(u64, Vec<StoredSession>), StateError>;

    /// Replaces the registers of a session whose boots have not written for a day by one.
    ///
    /// # Errors
    /// The store cannot be used.
    fn merge_session(
        &mut self,
        session: &str,
        merge: &dyn Fn(&[String]) -> Option<String>,
    ) -> Result<(), StateError>;

    /// Writes names of keys by their ids.
    ///
    /// # Errors
    /// The store cannot be written.
    fn write_names(&mut self, names: &[(String, String)]) -> Result<(), StateError>;

    /// Reads the names of keys by their ids.
    ///
    /// # Errors
    /// The store cannot be read.
    fn names(&mut self) -> Result<Vec<(String, String)>, StateError>;
}
