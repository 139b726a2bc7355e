//! Servers of Redis for tests.

use std::{
    fs::File,
    io::Read as _,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::settings::RedisSettings;

/// A server, until it is dropped.
pub(in crate::state) struct TestRedis {
    child: Child,
    directory: TempDir,
    pub(in crate::state) port: u16,
}

impl TestRedis {
    /// Starts a server on a free port.
    pub(in crate::state) fn start(arguments: &[&str]) -> Self {
        for _ in 0..20 {
            let port = free_port();
            if let Some(server) = Self::start_on(port, arguments) {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts a server on a port; none if the port is taken.
    pub(in crate::state) fn start_on(port: u16, arguments: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let child = Command::new("redis-server")
            .args(["--save", "", "--bind", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(directory.path())
            .args(arguments)
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is there");
        let mut server = Self {
            child,
            directory,
            port,
        };
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if let Ok(Some(_)) = server.child.try_wait() {
                return None;
            }
            let mut said = String::new();
            File::open(&log).unwrap().read_to_string(&mut said).unwrap();
            if said.contains("Ready to accept connections") {
                return Some(server);
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("redis-server does not get ready in {:?}", server.directory);
    }

    /// Its settings, with a prefix.
    pub(in crate::state) fn settings(&self) -> Arc<RedisSettings> {
        settings(&format!("redis://127.0.0.1:{}", self.port))
    }

    /// Runs a command by hand.
    pub(in crate::state) fn run(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd(command[0])
            .arg(&command[1..])
            .query(&mut connection)
            .unwrap()
    }

    /// Ends it at once.
    pub(in crate::state) fn kill(mut self) -> u16 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.port
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The settings of a URL.
pub(in crate::state) fn settings(url: &str) -> Arc<RedisSettings> {
    Arc::new(RedisSettings::parse(url).unwrap())
}

/// A port that is free now, and whose bus port is one, too.
pub(in crate::state) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_free = |port| TcpStream::connect(("127.0.0.1", port)).is_err();
        // the bus of a Cluster is 10000 above
        if port < 50_000 && is_free(port + 10_000) {
            return port;
        }
    }
}
