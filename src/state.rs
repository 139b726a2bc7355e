//! Keys, limits and spend that outlive the process: the [`Store`] trait, with SQLite and Redis below it.
//!
//! The room knows texts and numbers. A key is a text under a name here, and so is a subject; only those who
//! write them know their meaning. A second replica is another [`Store`]. A file that cannot be read is an error
//! with a remedy: it is never moved aside, since without it every key would be unknown and every budget
//! unspent.

mod copy;
mod examine;
pub mod fleet;
mod lock;
mod owner;
mod redis;
mod schema;
mod shared;
mod spend;
mod sqlite;
mod store;

pub use self::{
    copy::{CopyMark, CopyOrigin, RecordCopy},
    examine::{DatabaseFinding, check_database},
    lock::{LockError, StateLock},
    owner::hand_over,
    redis::{
        InvalidRedisUrl, RedisChanges, RedisFault, RedisFaultKind, RedisFleet, RedisForm,
        RedisIdentity, RedisInspector, RedisLimits, RedisNode, RedisServer, RedisSettings,
        RedisStore, RedisTls, RedisUsage, look,
    },
    shared::memory::{MemoryContent, MemoryLimits, MemoryReplica},
    shared::{
        BudgetAnswer, BudgetReport, LEASE, MeterAnswer, MeterName, MeterReport, RateAnswer,
        RateReport, ReportOrigin, ReportedState, SharedLimits, SlotAnswer, SlotReport, Unanswered,
    },
    sqlite::{STATE_FILE, SqliteStore},
    store::{
        SpendRegister, StateError, Store, StoreChange, StoredCheckpoint, StoredRegister,
        StoredSpend, StoredState, StoredText, StoredUse,
    },
};
