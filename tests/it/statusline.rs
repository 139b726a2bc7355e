//! The verb `statusline`: one line for Claude Code, and never in its way.

use std::{
    net::TcpListener,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    access::site::{self, Site},
    support::{
        DEADLINE, Proxy, ProxyBuilder, Upstream, assert_prompt, assert_proxy_error, get,
        proxy::Ended,
    },
};

const SONNET: &str = "claude-sonnet-4-5";

/// Facts of a session, as Claude Code 2.1.332 gives them.
fn facts(session: &str) -> String {
    json!({
        "session_id": session, "transcript_path": "/home/u/.claude/x.jsonl", "cwd": "/home/u/x",
        "model": {"id": SONNET, "display_name": "Sonnet 4.5"},
        "workspace": {"current_dir": "/home/u/x", "project_dir": "/home/u/x", "added_dirs": []},
        "version": "2.1.332", "output_style": {"name": "default"},
        "cost": {"total_cost_usd": 9.0, "total_duration_ms": 1}, "something_new": [null],
    })
    .to_string()
}

/// The verb, with time for a busy machine.
fn patient(input: &str) -> ProxyBuilder {
    let verb = ProxyBuilder::new()
        .arg("statusline")
        .arg("--timeout")
        .arg("60s");
    verb.env("NO_COLOR", "1").input(input)
}

#[track_caller]
fn line(verb: ProxyBuilder) -> String {
    let ended = verb.run();
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    ended.stdout
}

#[track_caller]
fn silent(ended: &Ended) {
    let said = (ended.code, &*ended.stdout, &*ended.stderr);
    assert_eq!(said, (Some(0), "", ""));
}

/// A request for a message in a session.
fn message(key: &str, session: &str) -> String {
    let body = json!({"model": SONNET, "max_tokens": 10, "messages": []}).to_string();
    let fields = format!("X-Claude-Code-Session-Id: {session}\r\n");
    site::keyed(key, "POST", "/v1/messages", &fields, &body)
}

fn own(proxy: &Proxy, key: &str, target: &str) -> Value {
    let answer = proxy.send(site::keyed(key, "GET", target, "", ""));
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(answer.content()).unwrap()
}

/// Asks for a message in a session, and waits until it is counted.
#[track_caller]
fn counted(proxy: &Proxy, key: &str, session: &str) {
    assert_eq!(proxy.send(message(key, session)).status(), 200);
    let target = format!("/api/proxy/session?id={session}");
    let end = Instant::now() + DEADLINE;
    while own(proxy, key, &target)["session"]["requests"] != 1 {
        assert!(Instant::now() < end, "not counted");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_key_reads_its_own_session_and_no_other() {
    // 10,000 × 3 + 2,000 × 15 millionths: 0.06 $
    let upstream = Upstream::answering(|_, _| site::answer(SONNET, 10_000, 2_000).into());
    let site = Site::new();
    let ada = site.key(&["--name", "ada", "--budget", "10/day"]);
    let bob = site.key(&["--name", "bob"]);
    let proxy = site
        .proxy(&upstream)
        .env("ENABLE_DASHBOARD", "true")
        .start();
    counted(&proxy, &ada, "s-1");
    counted(&proxy, &ada, "s-2");

    let asked = |key: &str, session: &str| {
        let verb = patient(&facts(session));
        verb.env("ANTHROPIC_BASE_URL", format!("http://{}", proxy.addr()))
            .env("ANTHROPIC_AUTH_TOKEN", key)
    };
    let said = line(asked(&ada, "s-1"));
    assert_eq!(
        said,
        "Sonnet 4.5 · $0.06 · cache 0% · $9.88 left of $10/day\n"
    );
    assert_eq!(line(asked(&bob, "s-1")), "Sonnet 4.5 · $0.00\n");
    // a key beside a subscription
    let custom = format!("X-Other: 1\nX-Proxy-Key: {ada}");
    let verb = asked("sk-ant-oat-own", "s-2").env("ANTHROPIC_CUSTOM_HEADERS", custom);
    assert!(line(verb).starts_with("Sonnet 4.5 · $0.06"), "{ada}");
    let coloured = line(asked(&ada, "s-1").env("NO_COLOR", ""));
    assert!(
        coloured.contains("\u{1b}[31mcache 0%\u{1b}[0m"),
        "{coloured:?}"
    );

    let seen = own(&proxy, &ada, "/api/proxy/session?id=s-1");
    assert_eq!(
        seen["session"]["requests"], 1,
        "the question is no request of it"
    );
    assert_eq!(seen["upstreams"], json!({"total": 1, "unavailable": 0}));
    assert_eq!(seen["budget"]["of"], "key");
    let seen = own(&proxy, &bob, "/api/proxy/session?id=s-1");
    assert_eq!(seen["session"]["requests"], 0);
    assert_eq!(seen["session"]["cost_usd"], 0.0);
    assert_eq!(seen["budget"], Value::Null);
    assert_eq!(
        own(&proxy, &ada, "/api/proxy/session")["session"],
        Value::Null
    );
    let answer = proxy.send(get("/api/proxy/session?id=s-1"));
    assert_proxy_error(&answer, 401, "authentication_error", "key_missing");
}

#[test]
fn without_keys_the_path_is_the_upstreams() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    assert_eq!(proxy.send(get("/api/proxy/session?id=s-1")).status(), 200);
    let (head, _) = upstream.request();
    assert_eq!(head.target(), "/api/proxy/session?id=s-1");
}

#[test]
fn the_socket_and_the_url_of_operators_answer_without_a_key_of_the_client() {
    let upstream = Upstream::answering(|_, _| site::answer(SONNET, 10_000, 2_000).into());
    let site = Site::new();
    let key = site.key(&["--name", "ada", "--team", "core", "--budget", "1/month"]);
    let proxy = site
        .proxy(&upstream)
        .env("ENABLE_DASHBOARD", "true")
        .env("DASHBOARD_API_KEY", "a-key-of-the-dashboard")
        .start();
    assert_eq!(proxy.send(message(&key, "s 1/ü")).status(), 200);
    let expected = "Sonnet 4.5 · $0.06 · cache 0% · $0.94 left of $1/month\n";
    let data_dir = site.path().display().to_string();
    let verb = patient(&facts("s 1/ü")).arg("--data-dir").arg(&data_dir);
    assert_eq!(
        line(verb),
        "Sonnet 4.5 · $0.00\n",
        "a name with a blank is none of a session"
    );
    counted(&proxy, &key, "s-1!");
    let verb = patient(&facts("s-1!")).env("DATA_DIR", &data_dir);
    let spent = "$0.88 left of $1/month";
    assert_eq!(
        line(verb),
        expected.replace("$0.94 left of $1/month", spent)
    );
    let verb = patient(&facts("s-1!"))
        .arg("--server")
        .arg(&format!("http://{}", proxy.addr()));
    let verb = verb.env("ANTHROPIC_PROXY_ADMIN_KEY", "a-key-of-the-dashboard");
    assert!(line(verb).contains(spent));
    assert_eq!(
        line(patient(&facts("s-9")).env("DATA_DIR", &data_dir)),
        "Sonnet 4.5 · $0.00\n"
    );
}

#[test]
fn where_there_is_no_answer_it_is_silent() {
    // nothing listens there any more
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let key = Site::new().key(&["--name", "ada"]);
    let asked = |input: &str| {
        let verb = patient(input).env("ANTHROPIC_BASE_URL", format!("http://{gone}"));
        verb.env("ANTHROPIC_API_KEY", &key)
    };
    silent(&asked(&facts("s-1")).run());
    silent(&asked("").run());
    silent(&asked("{").run());
    silent(&asked("[]").run());
    silent(&patient(&facts("s-1")).run());
    silent(&patient(&facts("s-1")).env("DATA_DIR", "/nonexistent").run());
    let verb = patient(&facts("s-1")).env("ANTHROPIC_BASE_URL", "ftp://x");
    silent(&verb.env("ANTHROPIC_API_KEY", &key).run());
    let verb = patient(&facts("s-1"))
        .arg("--server")
        .arg("http://127.0.0.1:1");
    silent(&verb.run());
}

#[test]
fn no_other_credential_is_sent() {
    let upstream = Upstream::ok();
    let verb = patient(&facts("s-1"))
        .env("ANTHROPIC_BASE_URL", upstream.url())
        .env("ANTHROPIC_API_KEY", "sk-ant-own")
        .env("ANTHROPIC_AUTH_TOKEN", "another");
    silent(&verb.run());
    upstream.no_more();
}

#[test]
fn it_ends_at_its_deadline_whatever_does_not_come() {
    let silent_server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent_server.local_addr().unwrap());
    let key = Site::new().key(&["--name", "ada"]);
    let verb = || {
        let verb = ProxyBuilder::new().arg("statusline");
        verb.env("ANTHROPIC_BASE_URL", &url)
            .env("ANTHROPIC_API_KEY", &key)
    };
    // the answer does not come
    let start = Instant::now();
    silent(&verb().input(&facts("s-1")).run());
    assert_prompt(start, Duration::from_secs(1));
    // the input does not end
    let (_kept, input) = UnixStream::pair().unwrap();
    silent(&verb().input_from(std::os::fd::OwnedFd::from(input)).run());
}
