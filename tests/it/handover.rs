//! Hand-over of the sockets to a new process (SIGUSR2), and the states that systemd is told.

use std::{
    os::unix::net::{UnixDatagram, UnixStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    lifecycle::eventually,
    support::{Body, DEADLINE, End, Proxy, Upstream, Wire, get, post},
};

/// A process that has taken over. Its output goes where that of the first one goes.
struct Successor(u32);

impl Successor {
    /// Has the process of this id hand over, and waits until the new one serves.
    #[track_caller]
    fn of(proxy: &Proxy, id: u32) -> Self {
        let (before, count) = (boot_id(proxy), starts(proxy).len());
        signal(id, "USR2");
        eventually("a start", || starts(proxy).len() > count);
        let this = Self(starts(proxy)[count]);
        let line = format!("process {} takes all new connections", this.0);
        proxy.wait_for_line(|said| said.contains(&line));
        // what the earlier one has accepted until then, it answers
        eventually("a hand-over", || boot_id(proxy) != before);
        this
    }

    /// Ends it in good order.
    #[track_caller]
    fn end(self) {
        signal(self.0, "TERM");
        ended(self.0);
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if is_running(self.0) {
            let _ = Command::new("kill")
                .args(["-KILL", &self.0.to_string()])
                .status();
        }
    }
}

/// Waits for the end of a process; its output may go on.
#[track_caller]
fn ended(id: u32) {
    let end = Instant::now() + DEADLINE;
    while is_running(id) {
        assert!(Instant::now() < end, "process {id} runs on");
        thread::sleep(Duration::from_millis(10));
    }
}

/// True if there is such a process, and it has not ended.
fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.starts_with('Z'));
    state == Some(false)
}

/// Ids of the processes that were started with the sockets.
fn starts(proxy: &Proxy) -> Vec<u32> {
    let said = proxy.stderr();
    let lines = said
        .lines()
        .filter(|line| line.contains("is starting with"));
    let ids = lines.map(|line| line.split("process ").nth(1).unwrap());
    ids.map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

fn signal(id: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), id.to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// The process that answers on a new connection.
#[track_caller]
fn boot_id(proxy: &Proxy) -> String {
    let health = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let health = proxy.send(health);
    let health: serde_json::Value = serde_json::from_slice(health.content()).unwrap();
    health["boot_id"].as_str().unwrap().to_owned()
}

#[test]
fn streams_run_on_and_new_connections_go_to_the_new_process() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", "{}"));
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    origin.send_chunk(b"one");
    assert_eq!(client.read_response_head().status(), 200);
    assert_eq!(client.read_chunks(3), b"one");
    let mut idle = proxy.connect();
    idle.send(get("/health"));
    assert_eq!(idle.read_response("GET").status(), 200);
    let successor = Successor::of(&proxy, proxy.id());
    // the request that was on its way is answered, and is the last one
    idle.send(get("/readyz"));
    let last = idle.read_response("GET");
    assert_eq!((last.status(), last.content()), (200, &b"ready\n"[..]));
    assert_eq!(last.head.one("connection"), Some("close"));
    assert_eq!(idle.read_to_end(), (Vec::new(), End::Fin));
    // a request through the new process
    let (mut other, mut at_origin) = proxy.exchange(&upstream, get("/v1/models"));
    at_origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(other.read_response("GET").content(), b"ok");
    origin.send_chunk(b"two");
    origin.send_chunk(b"");
    assert_eq!(client.read_chunked(), Body::Chunked(b"two".to_vec()));
    // and from there to a third one
    let third = Successor::of(&proxy, successor.0);
    assert_eq!(proxy.send(get("/health")).status(), 200);
    ended(successor.0);
    third.end();
    assert!(std::net::TcpStream::connect(proxy.addr()).is_err());
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_new_process_that_fails_leaves_the_old_one_serving() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("RUST_LOG", "info")
        .file("env/.env", "MAX_IN_FLIGHT=10\n")
        .start();
    let before = boot_id(&proxy);
    proxy.write("env/.env", "MAX_IN_FLIGHT=ten\n");
    proxy.signal("USR2");
    let line = proxy.wait_for_line(|line| line.contains("[Upgrade] the new process ended"));
    assert!(line.contains("exit status: 2"), "{line}");
    assert!(line.contains("this process goes on"), "{line}");
    assert_eq!(boot_id(&proxy), before);
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    proxy.write("env/.env", "MAX_IN_FLIGHT=11\n");
    let successor = Successor::of(&proxy, proxy.id());
    assert_eq!(proxy.send(get("/")).content(), b"ok");
    successor.end();
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn every_listener_goes_along() {
    let upstream = Upstream::ok();
    let builder = Proxy::to(upstream.url())
        .env("UNIX_SOCKET", "s")
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", "0123456789abcdef0123456789abcdef");
    let path = builder.path("s");
    let proxy = builder.start();
    let admin = proxy.admin_addr();
    let ask_admin = || {
        let stream = std::net::TcpStream::connect(admin).unwrap();
        let mut wire = Wire::tcp(stream);
        wire.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = wire.read_response("GET");
        let health: serde_json::Value = serde_json::from_slice(response.content()).unwrap();
        health["boot_id"].as_str().unwrap().to_owned()
    };
    let ask_unix = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut wire = Wire::new(stream);
        wire.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = wire.read_response("GET");
        let health: serde_json::Value = serde_json::from_slice(response.content()).unwrap();
        health["boot_id"].as_str().unwrap().to_owned()
    };
    let successor = Successor::of(&proxy, proxy.id());
    ended(proxy.id());
    assert_eq!(ask_unix(), ask_admin());
    successor.end();
    assert_eq!(proxy.wait().code, Some(0));
    assert!(!path.exists(), "the file goes with the last process");
}

#[test]
fn the_verb_waits_for_the_new_process() {
    let upstream = Upstream::ok();
    let builder = Proxy::to(upstream.url())
        .env("DATA_DIR", "data")
        .file("env/.env", "");
    let data = builder.path("data");
    let proxy = builder.start();
    let run = |data: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_anthropic-proxy"))
            .arg("upgrade")
            .env_clear()
            .env("DATA_DIR", data)
            .output()
            .unwrap();
        let said = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    // one that ends at once is not waited for
    proxy.write("env/.env", "UPSTREAM_TIMEOUT=x\n");
    let (code, said) = run(&data);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the new one ended before it was ready"),
        "{said}"
    );
    proxy.write("env/.env", "");
    let (code, said) = run(&data);
    let ids = starts(&proxy);
    let [_, id] = ids[..] else {
        panic!("{said} {ids:?}")
    };
    let successor = Successor(id);
    let expected = format!("process {id} has taken over from process {}\n", proxy.id());
    assert_eq!((code, said), (Some(0), expected));
    ended(proxy.id());
    successor.end();
    assert_eq!(proxy.wait_and_keep().path().join("data"), data);
    let (code, said) = run(&data);
    assert_eq!(code, Some(1));
    assert!(said.contains("no server listens on"), "{said}");
}

/// A socket to which a process tells its states, and the states.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    /// Waits for a state that begins so, and gives it.
    #[track_caller]
    fn wait_for(&mut self, state: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let at = self.told.iter().position(|told| told.starts_with(state));
            if let Some(at) = at {
                return self.told.remove(at);
            }
            assert!(Instant::now() < end, "{state} is not among {:?}", self.told);
            let mut octets = [0; 4096];
            let count = self.socket.recv(&mut octets).expect("a state");
            let text = String::from_utf8_lossy(&octets[..count]);
            self.told.extend(text.lines().map(str::to_owned));
        }
    }
}

#[test]
fn systemd_is_told_each_state() {
    let upstream = Upstream::ok();
    let builder = Proxy::to(upstream.url()).file("env/.env", "MAX_IN_FLIGHT=10\n");
    let path = builder.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut manager = Manager {
        socket,
        told: Vec::new(),
    };
    let proxy = builder
        .env("NOTIFY_SOCKET", path.display())
        .env("WATCHDOG_USEC", 200_000)
        .start();
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    proxy.signal("HUP");
    manager.wait_for("RELOADING=1");
    manager.wait_for("MONOTONIC_USEC=");
    manager.wait_for("READY=1");
    let successor = Successor::of(&proxy, proxy.id());
    manager.wait_for("READY=1");
    let main = manager.wait_for("MAINPID=");
    assert_eq!(main, format!("MAINPID={}", successor.0));
    ended(proxy.id());
    manager.told.clear();
    manager.wait_for("WATCHDOG=1");
    successor.end();
    manager.wait_for("STOPPING=1");
    assert_eq!(proxy.wait().code, Some(0));
}
