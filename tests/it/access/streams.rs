//! Exchanges at once, and keys that are revoked while they run.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::site::{self, Site, message};
use crate::support::{Answering, Body, End, Upstream, Wire, assert_prompt, assert_proxy_error};

const SONNET: &str = "claude-sonnet-4-5";

fn event(name: &str, data: &serde_json::Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// The beginning of a stream that has used 10,000 tokens of input.
fn begun() -> String {
    let usage = serde_json::json!({"input_tokens": 10_000, "output_tokens": 1});
    let message = serde_json::json!({"type": "message", "model": SONNET, "usage": usage});
    event(
        "message_start",
        &serde_json::json!({"type": "message_start", "message": message}),
    )
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Waits until the metrics say that this many requests wait.
fn until_waiting(proxy: &crate::support::Proxy, count: usize) {
    let line = format!("anthropic_proxy_access_waiting_requests {count}\n");
    let end = Instant::now() + crate::support::DEADLINE;
    while !site::metrics(proxy).contains(&line) {
        assert!(Instant::now() < end, "never {line}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An upstream that answers a request for each release, and knows the sessions that it got.
struct Gated {
    upstream: Answering,
    sessions: Arc<Mutex<Vec<String>>>,
    release: Sender<()>,
}

impl Gated {
    fn new() -> Self {
        let sessions = Arc::<Mutex<Vec<String>>>::default();
        let (release, released) = mpsc::channel();
        let (seen, released) = (Arc::clone(&sessions), Mutex::new(released));
        let upstream = Upstream::answering(move |head, _| {
            let session = head.one("x-claude-code-session-id").unwrap_or_default();
            seen.lock().unwrap().push(session.to_owned());
            let _ = released.lock().unwrap().recv();
            site::answer(SONNET, 10, 10).into()
        });
        Self {
            upstream,
            sessions,
            release,
        }
    }

    /// The sessions, once there are this many requests.
    fn got(&self, count: usize) -> Vec<String> {
        let end = Instant::now() + crate::support::DEADLINE;
        loop {
            let sessions = self.sessions.lock().unwrap().clone();
            if sessions.len() >= count {
                return sessions;
            }
            assert!(Instant::now() < end, "only {sessions:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_request_without_a_free_slot_waits_for_one() {
    let gated = Gated::new();
    let site = Site::new();
    let key = site.key(&["--name", "first", "--streams", "1"]);
    let proxy = site
        .proxy(&gated.upstream)
        .env("METRICS_PUBLIC", "true")
        .start();
    let ask = || {
        let mut client = proxy.connect();
        client.send(message(&key, SONNET));
        client
    };
    let mut first = ask();
    gated.got(1);
    let second = ask();
    until_waiting(&proxy, 1);
    let mut third = ask();
    until_waiting(&proxy, 2);
    // the queue has room for twice the slots
    let answer = proxy.send(message(&key, SONNET));
    assert_proxy_error(&answer, 429, "rate_limit_error", "too_many_at_once");
    let wait: u64 = answer.head.one("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    // a client that leaves gives its place up
    drop(second);
    until_waiting(&proxy, 1);
    assert_eq!(gated.got(1).len(), 1, "what waits has not been sent");
    gated.release.send(()).unwrap();
    assert_eq!(first.read_response("POST").status(), 200);
    gated.got(2);
    gated.release.send(()).unwrap();
    assert_eq!(third.read_response("POST").status(), 200);
    until_waiting(&proxy, 0);
    let metrics = site::metrics(&proxy);
    assert!(
        metrics.contains("anthropic_proxy_access_wait_seconds_count 2\n"),
        "{metrics}"
    );
}

#[test]
fn nobody_waits_longer_than_ten_seconds() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let key = site.key(&["--name", "first", "--streams", "1"]);
    let proxy = site.proxy(&upstream).start();
    let mut first = proxy.connect();
    first.send(message(&key, SONNET));
    let mut origin = upstream.accept();
    origin.read_request();
    let start = Instant::now();
    let answer = proxy.send(message(&key, SONNET));
    assert_proxy_error(&answer, 429, "rate_limit_error", "too_many_at_once");
    assert!(
        start.elapsed() >= Duration::from_secs(9),
        "{:?}",
        start.elapsed()
    );
    origin.send(site::answer(SONNET, 10, 10));
    assert_eq!(first.read_response("POST").status(), 200);
}

#[test]
fn a_slot_comes_back_when_a_client_leaves_its_stream() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let key = site.key(&["--name", "first", "--streams", "1"]);
    let proxy = site.proxy(&upstream).start();
    for _ in 0..3 {
        let (mut client, mut origin) = proxy.exchange(&upstream, message(&key, SONNET));
        origin.send(STREAM);
        origin.send_chunk(begun().as_bytes());
        client.read_response_head();
        client.read_chunk();
        client.reset();
        origin.closed_within(Duration::from_secs(1));
    }
}

#[test]
fn sessions_of_a_key_take_turns() {
    let gated = Gated::new();
    let site = Site::new();
    let key = site.key(&["--name", "first", "--streams", "2"]);
    let proxy = site
        .proxy(&gated.upstream)
        .env("METRICS_PUBLIC", "true")
        .start();
    let ask = |session: &str| {
        let body = format!(r#"{{"model":"{SONNET}","max_tokens":8,"messages":[]}}"#);
        let fields = format!("x-claude-code-session-id: {session}\r\n");
        let mut client = proxy.connect();
        client.send(site::keyed(&key, "POST", "/v1/messages", &fields, &body));
        client
    };
    // one session has both slots, and three more wait; then another one comes
    let running = [ask("a"), ask("a")];
    gated.got(2);
    let mut waiting = Vec::new();
    for (count, session) in ["a", "a", "a", "b"].iter().enumerate() {
        waiting.push(ask(session));
        until_waiting(&proxy, count + 1);
    }
    for count in 3..=4 {
        gated.release.send(()).unwrap();
        gated.got(count);
    }
    assert_eq!(
        gated.got(4),
        ["a", "a", "a", "b"],
        "the other session has its turn"
    );
    for _ in 0..4 {
        gated.release.send(()).unwrap();
    }
    drop((running, waiting));
}

#[test]
fn a_revocation_with_cut_ends_what_runs() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let (key, other) = (
        site.key(&["--name", "first"]),
        site.key(&["--name", "other"]),
    );
    let proxy = site.proxy(&upstream).start();
    let mut streams = Vec::new();
    for key in [&key, &key, &other] {
        let (mut client, mut origin) = proxy.exchange(&upstream, message(key, SONNET));
        origin.send(STREAM);
        origin.send_chunk(begun().as_bytes());
        client.read_response_head();
        client.read_chunk();
        streams.push((client, origin));
    }
    // one that has no answer yet
    let (mut early, mut silent) = proxy.exchange(&upstream, message(&key, SONNET));
    site.done(&[
        "keys",
        "revoke",
        site::id(&key),
        "--reason",
        "leaked",
        "--cut",
    ]);
    let start = Instant::now();
    let (mut client, mut origin) = streams.pop().unwrap();
    for (client, origin) in &mut streams {
        let body = client.read_chunked();
        assert!(matches!(body, Body::Cut(..)), "a clean end: {body:?}");
        let (_, end) = origin.read_to_end();
        assert!(matches!(end, End::Fin | End::Reset));
    }
    let answer = early.read_response("POST");
    assert_proxy_error(&answer, 401, "authentication_error", "key_revoked");
    silent.read_to_end();
    assert_prompt(start, Duration::from_secs(1));
    // others run on
    assert!(client.is_open());
    origin
        .send_chunk(event("message_stop", &serde_json::json!({"type": "message_stop"})).as_bytes());
    origin.send(crate::support::wire::chunk(b""));
    assert!(matches!(client.read_chunked(), Body::Chunked(_)));
    proxy.wait_for_line(|line| line.contains("ended=proxy:key_revoked"));
}

#[test]
fn a_revocation_without_cut_lets_streams_end() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.proxy(&upstream).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, message(&key, SONNET));
    origin.send(STREAM);
    origin.send_chunk(begun().as_bytes());
    client.read_response_head();
    client.read_chunk();
    site.done(&["keys", "revoke", site::id(&key), "--reason", "left"]);
    let answer = proxy.send(message(&key, SONNET));
    assert_proxy_error(&answer, 401, "authentication_error", "key_revoked");
    thread::sleep(Duration::from_millis(600));
    assert!(client.is_open());
    origin.send(crate::support::wire::chunk(b""));
    assert!(matches!(client.read_chunked(), Body::Chunked(_)));
}

#[test]
fn a_client_that_leaves_pays_for_what_an_upstream_may_have_worked_on() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "$9/day"]);
    let explained = || {
        let explained = site.done(&[
            "limits",
            "explain",
            &format!("key:{}", site::id(&key)),
            "--json",
        ]);
        let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
        let row = &explained["limits"][0];
        (
            row["held"].as_f64().unwrap(),
            row["spent"].as_f64().unwrap(),
        )
    };
    let proxy = site.proxy(&upstream).env("ENABLE_DASHBOARD", true).start();
    let settled = || {
        let end = Instant::now() + crate::support::DEADLINE;
        loop {
            let (held, spent) = explained();
            if held == 0.0 {
                return spent;
            }
            assert!(Instant::now() < end, "{held} is still held");
        }
    };
    let leave = |request: &str, answer: &dyn Fn(&mut Wire)| {
        let mut client = proxy.connect();
        client.send(request);
        let mut origin = upstream.accept();
        origin.read_request_head();
        answer(&mut origin);
        client.reset();
        origin.closed_within(crate::support::DEADLINE);
        settled()
    };
    // a part of the request: nothing works on that
    let whole = message(&key, SONNET);
    let part = whole.replace("Content-Length: ", "Content-Length: 1");
    assert_eq!(leave(&part, &|_| ()), 0.0);
    // all of it
    let unanswered = leave(&whole, &|_| ());
    assert!(unanswered > 0.0);
    // a head, and nothing yet of its usage
    let begun = leave(&whole, &|origin| origin.send(STREAM));
    assert!(begun > unanswered, "{begun}");
}
