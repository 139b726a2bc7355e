//! The process under test: started with an empty environment in a directory of its own, on a port
//! that the kernel chose, and ended with the test.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{DEADLINE, Response, Upstream, Wire};

/// What the process is started with.
pub(crate) struct ProxyBuilder {
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    descriptors: Option<u32>,
    has_names: bool,
    sockets: Vec<OwnedFd>,
    input: Option<OwnedFd>,
    directory: TempDir,
}

/// A running process.
pub(crate) struct Proxy {
    child: Child,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    lines: Arc<Lines>,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<()>>,
    directory: TempDir,
}

/// What a process said until its end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// Standard error so far.
#[derive(Default)]
struct Lines {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Changes what was said; a test that failed meanwhile does not matter.
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl ProxyBuilder {
    /// An empty environment, except for `PORT=0`.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            variables: Vec::new(),
            arguments: Vec::new(),
            descriptors: None,
            has_names: false,
            sockets: Vec::new(),
            input: None,
            directory,
        }
        .env("PORT", "0")
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<const N: usize>(self, arguments: [&str; N]) -> Self {
        arguments.iter().fold(self, |it, argument| it.arg(argument))
    }

    /// Limits the file descriptors of the process.
    pub(crate) fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Passes one or two sockets with these names, as systemd does.
    pub(crate) fn sockets<const N: usize>(self, sockets: [(OwnedFd, &str); N]) -> Self {
        let names = sockets.each_ref().map(|(_, name)| *name).join(":");
        let mut this = self.env("LISTEN_FDS", N).env("LISTEN_FDNAMES", names);
        this.sockets = sockets.map(|(socket, _)| socket).into();
        this
    }

    /// Gives the process this text on standard input.
    pub(crate) fn input(self, text: &str) -> Self {
        let this = self.file("input", text);
        let file = std::fs::File::open(this.path("input")).unwrap();
        this.input_from(file)
    }

    /// Gives the process this standard input.
    pub(crate) fn input_from(mut self, input: impl Into<OwnedFd>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Writes a file below the working directory.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        write(self.directory.path(), path, content.as_ref());
        self
    }

    /// The path of a file below the working directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Puts these in the place of `/etc/hosts` and `/etc/resolv.conf`, in a mount namespace.
    pub(crate) fn names(mut self, hosts: &str, resolv: &str) -> Self {
        self.has_names = true;
        self.file("hosts", hosts).file("resolv.conf", resolv)
    }

    /// Starts the server and waits until it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Proxy {
        let mut child = self.command().spawn().expect("the binary starts");
        let lines = Arc::new(Lines::default());
        let stdout = child.stdout.take().map(collect);
        let stderr = follow(child.stderr.take().unwrap(), lines.clone());
        let mut proxy = Proxy {
            child,
            http: Vec::new(),
            https: Vec::new(),
            lines,
            stdout,
            stderr: Some(stderr),
            directory: self.directory,
        };
        // what comes after the listeners
        proxy.wait_for_line(|line| line.contains("[Proxy] upstream="));
        proxy.http = proxy.listens("http://");
        proxy.https = proxy.listens("https://");
        proxy
    }

    /// Runs the program to its end, and looks at its directory before that goes.
    #[track_caller]
    pub(crate) fn run_and(self, look: impl FnOnce()) -> Ended {
        let ended = self.run_to_end();
        look();
        ended
    }

    /// Runs the program to its end.
    #[track_caller]
    pub(crate) fn run(self) -> Ended {
        self.run_to_end()
    }

    #[track_caller]
    fn run_to_end(&self) -> Ended {
        let mut child = self.command().spawn().expect("the binary starts");
        let stdout = child.stdout.take().map(collect);
        let stderr = collect(child.stderr.take().unwrap());
        let status = wait(&mut child, DEADLINE);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let stdout = stdout.map(|stdout| stdout.join().unwrap());
        let (stdout, stderr) = (stdout.unwrap_or_default(), stderr.join().unwrap());
        let status = status.unwrap_or_else(|| panic!("still running: {stdout}{stderr}"));
        Ended {
            code: status.code(),
            stdout,
            stderr,
        }
    }

    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_anthropic-proxy");
        let script = match (self.descriptors, self.sockets.len()) {
            _ if self.has_names => Some(NAMES.to_owned()),
            (None, 0) => None,
            (Some(limit), _) => Some(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")),
            // they come in as standard input and output, which nobody needs
            (None, 1) => Some(format!("{ACTIVATE} 3<&0 0</dev/null")),
            (None, _) => Some(format!("{ACTIVATE} 3<&0 4<&1 0</dev/null 1>/dev/null")),
        };
        let mut command = Command::new(script.as_ref().map_or(program, |_| "/bin/sh"));
        if let Some(script) = &script {
            command.args(["-c", script, program]);
        }
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(input) = &self.input {
            command.stdin(input.try_clone().unwrap());
        }
        let mut sockets = self
            .sockets
            .iter()
            .map(|socket| socket.try_clone().unwrap());
        if let Some(socket) = sockets.next() {
            command.stdin(socket);
        }
        if let Some(socket) = sockets.next() {
            command.stdout(socket);
        }
        command
    }
}

impl Proxy {
    /// A proxy in front of this upstream.
    pub(crate) fn to(url: impl ToString) -> ProxyBuilder {
        ProxyBuilder::new().env("API_BASE_URL", url)
    }

    /// Where it listens in clear.
    #[track_caller]
    pub(crate) fn addr(&self) -> SocketAddr {
        *self.http.first().expect("it listens in clear")
    }

    /// Where it listens with TLS.
    #[track_caller]
    pub(crate) fn tls_addr(&self) -> SocketAddr {
        *self.https.first().expect("it listens with TLS")
    }

    /// Where the admin plane is alone.
    #[track_caller]
    pub(crate) fn admin_addr(&self) -> SocketAddr {
        let line = self.wait_for_line(|line| line.contains("[Admin] listening on http://"));
        let (_, address) = line.split_once("http://").unwrap();
        let end = address.find(|c: char| !"[].:".contains(c) && !c.is_ascii_hexdigit());
        address[..end.unwrap_or(address.len())].parse().unwrap()
    }

    /// Whether it listens in clear.
    pub(crate) fn has_clear_text(&self) -> bool {
        !self.http.is_empty()
    }

    /// Where the start-up lines say that it listens.
    fn listens(&self, scheme: &str) -> Vec<SocketAddr> {
        let announced = format!("[Proxy] listening on {scheme}");
        let lines = self.lines.lock();
        let rests = lines
            .lines
            .iter()
            .filter_map(|line| line.split_once(&announced));
        rests
            .map(|(_, rest)| {
                let is_of_address = |c: char| c.is_ascii_hexdigit() || "[].:".contains(c);
                let end = rest.find(|c| !is_of_address(c)).unwrap_or(rest.len());
                rest[..end].parse().unwrap()
            })
            .collect()
    }

    /// A new connection to it.
    #[track_caller]
    pub(crate) fn connect(&self) -> Wire {
        Wire::tcp(TcpStream::connect(self.addr()).expect("the proxy accepts"))
    }

    /// A new connection to it that takes few octets which are not read.
    #[track_caller]
    pub(crate) fn connect_with_window(&self, octets: usize) -> Wire {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(self.addr()), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(octets).unwrap();
        socket
            .connect(&self.addr().into())
            .expect("the proxy accepts");
        Wire::tcp(socket.into())
    }

    /// Sends a request on a new connection. Gives that connection and the one to the upstream, which has
    /// read the request.
    #[track_caller]
    pub(crate) fn exchange(&self, upstream: &Upstream, request: impl AsRef<[u8]>) -> (Wire, Wire) {
        let mut client = self.connect();
        client.send(request);
        let mut origin = upstream.accept();
        origin.read_request();
        (client, origin)
    }

    /// Sends the beginning of a request on a new connection. Gives that connection and the one to the
    /// upstream, which has read the head.
    #[track_caller]
    pub(crate) fn begin_exchange(
        &self,
        upstream: &Upstream,
        beginning: impl AsRef<[u8]>,
    ) -> (Wire, Wire) {
        let mut client = self.connect();
        client.send(beginning);
        let mut origin = upstream.accept();
        origin.read_request_head();
        (client, origin)
    }

    /// Sends octets on a new connection and reads the answer.
    #[track_caller]
    pub(crate) fn send(&self, octets: impl AsRef<[u8]>) -> Response {
        let octets = octets.as_ref();
        let mut client = self.connect();
        client.send(octets);
        client.read_response(if octets.starts_with(b"HEAD ") {
            "HEAD"
        } else {
            ""
        })
    }

    /// Writes a file below the working directory, replacing it as editors do.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(self.directory.path(), path, content.as_ref());
    }

    /// The path of a file below the working directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error, said or to be said.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, matches: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        let mut said = self.lines.lock();
        loop {
            if let Some(line) = said.lines.iter().find(|line| matches(line)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !said.ended,
                "no such line in:\n{}",
                said.lines.join("\n")
            );
            said = self
                .lines
                .changed
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.lines.lock().lines.join("\n")
    }

    /// Waits for the end of the process and returns its directory.
    #[track_caller]
    pub(crate) fn wait_and_keep(mut self) -> TempDir {
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        assert_eq!(self.wait().code, Some(0));
        directory
    }

    /// Waits for the end of the process and returns all it said.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let status = wait(&mut self.child, DEADLINE);
        let Some(status) = status else {
            panic!("still running:\n{}", self.stderr())
        };
        self.stderr.take().unwrap().join().unwrap();
        let stdout = self.stdout.take().map(|stdout| stdout.join().unwrap());
        Ended {
            code: status.code(),
            stdout: stdout.unwrap_or_default(),
            stderr: self.stderr(),
        }
    }

    /// Ends the process now and returns all it said.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Ended {
        let _ = self.child.kill();
        self.wait()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the proxy ({ended:?}) said:\n{}\n---", self.stderr());
        }
    }
}

/// Writes beside the target, then renames: what editors do, and what a reader never sees half of.
fn write(directory: &Path, path: &str, content: &[u8]) {
    let path = directory.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    // The standard library has no wait with a deadline; this polls for it.
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut octets = Vec::new();
        let _ = stream.read_to_end(&mut octets);
        String::from_utf8_lossy(&octets).into_owned()
    })
}

fn follow(stream: impl Read + Send + 'static, lines: Arc<Lines>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut octets = Vec::new();
        while stream
            .read_until(b'\n', &mut octets)
            .is_ok_and(|count| count > 0)
        {
            let line = String::from_utf8_lossy(&octets).trim_end().to_owned();
            octets.clear();
            lines.change(|said| said.lines.push(line));
        }
        lines.change(|said| said.ended = true);
    })
}

/// Starts the program as systemd starts one that it passes sockets.
const ACTIVATE: &str = "LISTEN_PID=${LISTEN_PID-$$}; export LISTEN_PID; exec \"$0\" \"$@\"";

/// Mounts the files of [`ProxyBuilder::names`], then becomes the program.
const NAMES: &str = "exec unshare -m /bin/sh -c 'mount --bind hosts /etc/hosts && \
     mount --bind resolv.conf /etc/resolv.conf && exec \"$0\" \"$@\"' \"$0\" \"$@\"";
