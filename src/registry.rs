//! Keys and limits as operators change them: validated, audited, stored, then put into effect.
//!
//! Every change goes one way: its intent is written down ([`crate::audit`]), the store takes it
//! ([`crate::state`]), the workers see it ([`crate::access`]), and its result is written down. The API and the
//! command line call [`Registry::answer`]; nothing else changes keys or limits. A thread of its own carries
//! spend to the store: no exchange waits for it.

mod answer;
mod apply;
mod audited;
mod author;
mod call;
mod copied;
mod core;
mod credentials;
mod document;
mod error;
mod health;
mod keys;
mod ledger;
mod limits;
mod lost;
mod migrate;
mod money;
mod pepper;
mod read;
mod shape;
mod shared;
mod sharing;
mod times;
mod transfer;
mod unwritten;
mod uses;
mod view;
mod warnings;

pub use self::{
    audited::verify_without_store,
    author::{Author, Role},
    call::{
        ApplyFile, Call, Change, GrantBudget, ImportKeys, KeyFilter, NewKey, RevokeKey, RotateKey,
        SetLimits, SpendBy,
    },
    core::{CurrentSettings, OpenError, Registry, RegistryKind, RegistrySettings, SettingsSource},
    document::variables,
    error::{FileFault, RegistryError},
    ledger::LedgerThread,
    migrate::{MigrateError, Migrated, Migration},
    money::{budget, show_usd, usd},
    shape::{LimitName, LimitShape},
    sharing::{SharingSample, SharingThread},
    times::{duration, moment, since},
    view::{
        Applied, AppliedChange, AuditFound, AuditVerified, CreatedKey, Exported, FieldChange,
        KeyList, KeyRow, LimitAbove, LimitRow, LimitsChecked, LimitsOf, RegisterDifference, Reply,
        SecretRow, SharedRow, SpendBar, SpendBars, UsedLimit, UsedLimits,
    },
};
