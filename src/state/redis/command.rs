//! Commands, and scripts that the server keeps by their digest.

use std::sync::OnceLock;

use redis::{Cmd, ToRedisArgs};

use super::landing::OpenConnection;

/// A command. It may be sent twice, so it must be one that changes nothing the second time.
pub(in crate::state) struct Command {
    cmd: Cmd,
    key: Option<String>,
    script: Option<&'static LuaScript>,
    /// True if its last arguments tell the server that it goes to.
    names_server: bool,
}

impl Command {
    /// A command whose first argument is a key, which is also what decides on its server in a Cluster.
    pub(in crate::state) fn new(name: &str, key: &str) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(key);
        Self {
            cmd,
            key: Some(key.to_owned()),
            script: None,
            names_server: false,
        }
    }

    /// A command that any server can answer.
    pub(in crate::state) fn keyless(name: &str) -> Self {
        Self {
            cmd: redis::cmd(name),
            key: None,
            script: None,
            names_server: false,
        }
    }

    /// Adds an argument, or several.
    pub(in crate::state) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.cmd.arg(argument);
        self
    }

    /// Adds the server that it goes to, as [`OpenConnection::write_server`] tells it, as its last arguments. The
    /// connection must be one that [names](super::connection::RedisConnection::naming) its servers.
    pub(super) fn with_server(mut self) -> Self {
        self.names_server = true;
        self
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(super) fn script(&self) -> Option<&'static LuaScript> {
        self.script
    }

    /// Writes it, for a connection.
    pub(super) fn write(&self, octets: &mut Vec<u8>, to: &OpenConnection) {
        if self.names_server {
            let mut cmd = self.cmd.clone();
            to.write_server(&mut cmd);
            cmd.write_packed_command(octets);
        } else {
            self.cmd.write_packed_command(octets);
        }
    }
}

/// A script in Lua. A server that does not have it is given it, once.
#[derive(Debug)]
pub(in crate::state) struct LuaScript {
    text: &'static str,
    digest: OnceLock<String>,
}

impl LuaScript {
    /// A script of this text.
    pub(in crate::state) const fn new(text: &'static str) -> Self {
        Self {
            text,
            digest: OnceLock::new(),
        }
    }

    /// A call of it. All of its keys are on one server.
    pub(in crate::state) fn call(&'static self, keys: &[&str]) -> Command {
        let digest = self
            .digest
            .get_or_init(|| redis::Script::new(self.text).get_hash().to_owned());
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(digest).arg(keys.len()).arg(keys);
        Command {
            cmd,
            key: keys.first().map(|key| (*key).to_owned()),
            script: Some(self),
            names_server: false,
        }
    }

    /// Gives the script to a server.
    pub(super) fn write_load(&self, octets: &mut Vec<u8>) {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load.write_packed_command(octets);
    }
}
