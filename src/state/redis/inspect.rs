//! A look at the shared store, for a diagnosis: what its servers are, their clock, and who else is there. It reads,
//! and gives the server a script at most.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    checks::server,
    command::{Command, LuaScript},
    connection::RedisConnection,
    settings::RedisSettings,
};
use crate::state::{fleet::StoredBeat, store::StateError};

static CLOCK: LuaScript = LuaScript::new(include_str!("clock.lua"));

/// A server of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServer {
    /// Its release.
    pub version: String,
    /// Its `maxmemory-policy`.
    pub policy: String,
}

/// The store of several replicas, as a diagnosis looks at it.
pub struct RedisInspector {
    connection: RedisConnection,
}

impl RedisInspector {
    /// Connects at the first question.
    pub fn new(settings: &Arc<RedisSettings>) -> Self {
        Self {
            connection: RedisConnection::new(settings),
        }
    }

    /// The servers, if each of them can be used.
    ///
    /// # Errors
    /// One cannot be reached, is too old, or may forget keys.
    pub fn servers(&mut self) -> Result<Vec<RedisServer>, StateError> {
        server(&mut self.connection)?;
        let answers = self.connection.send_to_all(|| Command::keyless("INFO"))?;
        let mut servers = Vec::new();
        for answer in answers {
            let value = answer.map_err(StateError::Redis)?;
            let info: String = self.connection.converted(value)?;
            let value = |name: &str| {
                let mut lines = info.lines();
                let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                found.unwrap_or("unknown").trim().to_owned()
            };
            servers.push(RedisServer {
                version: value("redis_version"),
                policy: value("maxmemory_policy"),
            });
        }
        Ok(servers)
    }

    /// Time of a round trip of a script, and the distance of this machine's clock from the store's: positive if
    /// this one is ahead. It is known to half of the round trip.
    ///
    /// # Errors
    /// The server runs no scripts.
    pub fn clock(&mut self) -> Result<(Duration, i64), StateError> {
        let key = self.connection.key("fleet", "times");
        // the first call may have to give the script
        let _: u64 = self.connection.query(&CLOCK.call(&[&key]))?;
        let began = Instant::now();
        let there: u64 = self.connection.query(&CLOCK.call(&[&key]))?;
        let trip = began.elapsed();
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let here = here.unwrap_or_default().saturating_sub(trip / 2);
        let millis = |time: u128| i64::try_from(time).unwrap_or(i64::MAX);
        Ok((trip, millis(here.as_millis()) - millis(u128::from(there))))
    }

    /// Heartbeats of the replicas, without one of its own.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn beats(&mut self) -> Result<Vec<StoredBeat>, StateError> {
        let key = self.connection.key("fleet", "beats");
        let found: Vec<(String, String)> = self.connection.query(&Command::new("HGETALL", &key))?;
        let beats = found.into_iter().map(|(boot, text)| StoredBeat {
            boot,
            age: Duration::ZERO,
            text,
        });
        Ok(beats.collect())
    }
}
