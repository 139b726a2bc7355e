//! A connection that is open, and the server that it has come to: scripts are told, so that one that has taken over
//! is known as such.

use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::{
    dial::ask,
    fault::{RedisFault, RedisFaultKind},
    settings::RedisNode,
};
use crate::state::shared::RETURN;

/// An open connection.
pub(super) struct OpenConnection {
    pub(super) redis: redis::Connection,
    opened: Instant,
    server: Option<Server>,
}

/// A server, as scripts are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    /// Its run: another one after each start.
    run: String,
    /// True if this process had come to others before.
    is_moved: bool,
}

/// Servers that a process has come to.
#[derive(Debug, Default)]
pub(super) struct SeenServers(Vec<String>);

/// Most servers that are known; those before them count as new.
const MOST_SEEN: usize = 64;

impl SeenServers {
    /// Adds a server; true if it is another one than those that were there before it. Until the servers were
    /// looked for anew, it is one of the first.
    fn add(&mut self, run: &str, is_found_anew: bool) -> bool {
        let is_first = self.0.is_empty();
        if self.0.iter().any(|seen| seen == run) {
            return false;
        }
        if self.0.len() == MOST_SEEN {
            self.0.remove(0);
        }
        self.0.push(run.to_owned());
        is_found_anew && !is_first
    }
}

impl From<redis::Connection> for OpenConnection {
    fn from(redis: redis::Connection) -> Self {
        Self {
            redis,
            opened: Instant::now(),
            server: None,
        }
    }
}

impl OpenConnection {
    /// Asks the server for its run, if that is not known yet. One that may not tell it goes by its address.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn name(
        &mut self,
        node: &RedisNode,
        seen: &mut SeenServers,
        is_found_anew: bool,
    ) -> Result<(), RedisFault> {
        if self.server.is_some() {
            return Ok(());
        }
        let mut question = redis::cmd("INFO");
        question.arg("server");
        let run = match ask(&mut self.redis, node, &question) {
            Ok(info) => run_of(&info),
            Err(fault) if fault.kind == RedisFaultKind::NotPermitted => None,
            Err(fault) => return Err(fault),
        };
        let run = run.unwrap_or_else(|| node.to_string());
        let is_moved = seen.add(&run, is_found_anew);
        self.server = Some(Server { run, is_moved });
        Ok(())
    }

    /// Takes it for a connection to a server that may have followed another one, and took over again.
    pub(super) fn renew(&mut self) {
        self.opened = Instant::now();
    }

    /// Adds the server to the arguments of a script: its run, the milliseconds for which other replicas may still
    /// come to it, and 1 if this one came from others.
    pub(super) fn write_server(&self, cmd: &mut Cmd) {
        let fresh = Duration::from_millis(RETURN).saturating_sub(self.opened.elapsed());
        let fresh = u64::try_from(fresh.as_millis()).unwrap_or(RETURN);
        match &self.server {
            Some(server) => cmd
                .arg(&server.run)
                .arg(fresh)
                .arg(u8::from(server.is_moved)),
            None => cmd.arg("").arg(0).arg(0),
        };
    }
}

fn run_of(info: &Value) -> Option<String> {
    let info = redis::from_redis_value::<String>(info.clone()).ok()?;
    let mut lines = info.lines();
    let run = lines.find_map(|line| line.strip_prefix("run_id:"))?.trim();
    (!run.is_empty()).then(|| run.to_owned())
}

#[cfg(test)]
impl OpenConnection {
    /// Has a connection be as one that was opened just now or long ago, from another server or not.
    pub(super) fn landed(&mut self, is_young: bool, is_moved: bool) {
        let hour = Duration::from_secs(3600);
        let now = Instant::now();
        self.opened = if is_young {
            now + hour
        } else {
            now.checked_sub(hour).unwrap()
        };
        if let Some(server) = &mut self.server {
            server.is_moved = is_moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_another_one_after_the_servers_were_looked_for_anew() {
        let mut seen = SeenServers::default();
        // the nodes of a Cluster, each when it is used first
        assert!(!seen.add("one", false));
        assert!(!seen.add("two", false));
        assert!(seen.add("three", true));
        // the same one, over another connection
        assert!(!seen.add("one", true));
        // none was there before the first one
        assert!(!SeenServers::default().add("one", true));
        (0..200).for_each(|run| assert!(seen.add(&run.to_string(), true)));
        assert_eq!(seen.0.len(), MOST_SEEN);
    }

    #[test]
    fn the_run_of_a_server_is_read() {
        let info = |text: &str| run_of(&Value::BulkString(text.as_bytes().to_vec()));
        let run = info("# Server\r\nredis_version:7.0.15\r\nrun_id:5fab\r\ntcp_port:1\r\n");
        assert_eq!(run.as_deref(), Some("5fab"));
        assert_eq!(info("# Server\r\nredis_version:7.0.15\r\n"), None);
        assert_eq!(run_of(&Value::Nil), None);
    }
}
