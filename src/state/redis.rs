//! The store of several replicas: Redis or Valkey (`STATE_URL`).
//!
//! It is spoken to by threads of ours, one connection each, and never by a worker: no exchange waits for it.
//! Whatever it answers, it is an error of the store and no panic. The crate `redis` is known to this folder
//! alone; what leaves it are plain values.

mod changes;
mod checks;
mod command;
mod connection;
mod dial;
pub(in crate::state) mod fault;
mod fleet;
mod inspect;
mod landing;
mod limits;
mod probe;
mod route;
mod settings;
mod spends;
mod store;
#[cfg(test)]
mod testing;
mod usage;

pub use self::{
    changes::RedisChanges,
    fault::{RedisFault, RedisFaultKind},
    fleet::RedisFleet,
    inspect::{RedisInspector, RedisServer},
    limits::RedisLimits,
    settings::{InvalidRedisUrl, RedisForm, RedisIdentity, RedisNode, RedisSettings, RedisTls},
    store::{RedisStore, look},
    usage::RedisUsage,
};
