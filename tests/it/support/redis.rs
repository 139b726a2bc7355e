//! A server of Redis, on a port that was free, until the test ends.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::DEADLINE;

/// A server.
pub(crate) struct Redis {
    child: Child,
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a server with further arguments.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        for _ in 0..20 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            if let Some(server) = Self::start_on(port, arguments) {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts a server on a port; none if another one has the port.
    #[track_caller]
    pub(crate) fn start_on(port: u16, arguments: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let child = spawn(port, directory.path(), &arguments)?;
        Some(Self {
            child,
            directory,
            port,
            arguments,
        })
    }

    /// Writes what it has to its directory, and ends at once.
    #[track_caller]
    pub(crate) fn save_and_end(&mut self) {
        assert_eq!(self.run(&["SAVE"]), ["+OK"]);
        self.end();
    }

    /// Ends at once.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it had written.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(child) = spawn(self.port, self.directory.path(), &self.arguments) {
                self.child = child;
                return;
            }
            // another test has the port for a moment
            thread::sleep(Duration::from_millis(20));
        }
        panic!("redis-server does not start again");
    }

    /// Starts it again without what it had written.
    #[track_caller]
    pub(crate) fn start_again_empty(&mut self) {
        let _ = std::fs::remove_file(self.directory.path().join("dump.rdb"));
        self.start_again();
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command, and gives the lines of its answer as they came.
    #[track_caller]
    pub(crate) fn run(&self, command: &[&str]) -> Vec<String> {
        self.run_as(None, command)
    }

    /// Runs a command as a user with a password.
    #[track_caller]
    pub(crate) fn run_as(&self, login: Option<(&str, &str)>, command: &[&str]) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut commands = Vec::new();
        if let Some((user, password)) = login {
            commands.push(vec!["AUTH", user, password]);
        }
        commands.push(command.to_vec());
        commands.push(vec!["QUIT"]);
        for command in &commands {
            write!(stream, "*{}\r\n", command.len()).unwrap();
            for argument in command {
                write!(stream, "${}\r\n{argument}\r\n", argument.len()).unwrap();
            }
        }
        let lines = BufReader::new(stream).lines();
        let mut lines: Vec<String> = lines.map(|line| line.unwrap()).collect();
        // the answer to QUIT, and that to AUTH
        assert_eq!(lines.pop().as_deref(), Some("+OK"));
        if login.is_some() {
            assert_eq!(lines.remove(0), "+OK");
        }
        lines
    }

    /// Stops it, so that it holds its connections and says nothing; or lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a server on a port; none if another one has the port.
#[track_caller]
fn spawn(port: u16, directory: &Path, arguments: &[String]) -> Option<Child> {
    let log = directory.join("log");
    let mut child = Command::new("redis-server")
        .args(["--save", "", "--bind", "127.0.0.1", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(directory)
        .args(arguments)
        .stdout(File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is there");
    let end = Instant::now() + DEADLINE;
    loop {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        let mut said = String::new();
        File::open(&log).unwrap().read_to_string(&mut said).unwrap();
        if said.contains("Ready to accept connections") {
            return Some(child);
        }
        assert!(Instant::now() < end, "redis-server says: {said}");
        thread::sleep(Duration::from_millis(5));
    }
}
