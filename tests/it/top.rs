//! The verb `top`: on a terminal, over a running proxy, and without one.

use serde_json::Value;

use crate::{
    access::site::{Site, Url, keyed},
    support::{Proxy, ProxyBuilder, Upstream, pty::Pty, wire::chunk},
};

const KEY: &str = "a-key-of-the-tests";
const ASK: &str = r#"{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":true,"messages":[]}"#;
const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const START: &str = "event: message_start\n\
data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n";
const DELTA: &str = "event: content_block_delta\n\
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";

fn message() -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Claude-Code-Session-Id: session-7\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{ASK}",
        ASK.len()
    )
}

fn observed(upstream: &impl Url) -> ProxyBuilder {
    Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .env("DASHBOARD_VIEWER_KEY", "a-key-of-a-viewer")
}

#[test]
fn a_stream_is_watched_and_ended_on_a_terminal() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let data_dir = site.path().display().to_string();
    let proxy = observed(&upstream).env("DATA_DIR", &data_dir).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, message());
    origin.send(HEAD);
    origin.send(chunk(START.as_bytes()));
    for _ in 0..4 {
        origin.send(chunk(DELTA.as_bytes()));
    }
    client.read_response_head();
    let mut top = Pty::start(&["top", "--data-dir", &data_dir, "--interval", "0.2"], &[]);
    let screen =
        top.wait_for(|text| text.contains("claude-sonnet-4-5") && text.contains("session-"));
    assert!(top.is_taken_over() && !top.is_cooked());
    for part in ["1 in flight", &upstream.url(), "1 Requests", "q quit"] {
        assert!(screen.contains(part), "{part}:\n{screen}");
    }
    // 4 events, then 2 more: their number is live
    top.wait_for(|text| text.contains("    20      4"));
    for _ in 0..2 {
        origin.send(chunk(DELTA.as_bytes()));
    }
    top.wait_for(|text| text.contains("    20      6"));
    top.press("\r");
    top.wait_for(|text| text.contains("Detail") && text.contains("6 so far of at most 1024"));
    top.press("e");
    top.wait_for(|text| text.contains("End this request?"));
    top.press("y");
    top.wait_for(|text| text.contains("is being ended") || text.contains("0 in flight"));
    // its client sees it
    client.read_to_end();
    top.wait_for(|text| text.contains("0 in flight"));
    top.press("2");
    top.wait_for(|text| text.contains("COST") && text.contains("session-"));
    top.press("3");
    top.wait_for(|text| text.contains("HEALTH"));
    top.press("q");
    assert_eq!(top.ended(), Some(0));
    assert!(
        !top.is_taken_over() && top.is_cooked(),
        "the terminal is as it was"
    );
    let audited = site.done(&["audit", "search", "--json"]);
    assert!(audited.contains("ended in top"), "{audited}");
}

#[test]
fn rates_are_shown_with_what_is_used_of_them_the_fullest_first() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let data_dir = site.path().display().to_string();
    let ci = site.key(&["--name", "ci", "--team", "core", "--rpm", "1000"]);
    site.key(&["--name", "idle", "--output-tpm", "5000"]);
    site.done(&["limits", "set", "team:core", "--rpm", "2", "--streams", "9"]);
    let proxy = observed(&upstream)
        .env("DATA_DIR", &data_dir)
        .env("UPSTREAM_API_KEYS", "sk-ant-of-the-operator")
        .start();
    for _ in 0..2 {
        let answer = proxy.send(keyed(&ci, "GET", "/v1/models", "", ""));
        assert_eq!(answer.status(), 200);
    }
    let mut top = Pty::start(&["top", "--data-dir", &data_dir, "--interval", "0.2"], &[]);
    top.wait_for(|text| text.contains("0 in flight"));
    top.press("5");
    // 30 s until one of the two is back
    let is_full = |line: &str| {
        let cells: Vec<_> = line.split_whitespace().collect();
        let used = cells.get(5).and_then(|it| it.strip_suffix('%'));
        cells.starts_with(&["team:core", "requests/min"])
            && cells.get(3) == Some(&"2")
            && used.is_some_and(|used| used.parse::<u8>().unwrap() >= 50)
    };
    let screen = top.wait_for(|text| text.lines().nth(5).is_some_and(is_full));
    let place = |text: &str| {
        screen
            .find(text)
            .unwrap_or_else(|| panic!("{text}:\n{screen}"))
    };
    assert!(place("key ci") > place("team:core"), "{screen}");
    for part in [
        "5 Limits",
        "by used",
        "at once",
        "key idle",
        "output tokens/min",
        "5.0k",
    ] {
        place(part);
    }
    assert!(screen.lines().all(|line| line.chars().count() <= 80));
    top.press("/core\r");
    top.wait_for(|text| text.contains("filter core") && !text.contains("key idle"));
    top.press("\r");
    top.wait_for(|text| text.contains("Detail") && text.contains("unused again"));
    top.press("qq");
    assert_eq!(top.ended(), Some(0));
    let shown = site.done(&["limits", "show"]);
    let rows: Vec<_> = shown.lines().collect();
    assert!(
        rows[1].starts_with("team:core") && rows[1].contains("2 requests/min"),
        "{shown}"
    );
    assert!(shown.contains(" (idle)"), "{shown}");
}

#[test]
fn control_c_and_a_signal_give_the_terminal_back() {
    let upstream = Upstream::bind();
    let proxy = observed(&upstream).start();
    let url = format!("http://{}", proxy.addr());
    let start = || {
        let arguments = ["top", "--server", &url];
        let top = Pty::start(
            &arguments,
            &[("ANTHROPIC_PROXY_ADMIN_KEY", "a-key-of-a-viewer")],
        );
        top.wait_for(|text| text.contains("0 in flight"));
        assert!(!top.is_cooked());
        top
    };
    let mut top = start();
    top.press("\u{3}");
    assert_eq!(top.ended(), Some(0));
    assert!(top.is_cooked() && !top.is_taken_over());
    let mut top = start();
    top.signal("TERM");
    assert_eq!(top.ended(), Some(0));
    assert!(top.is_cooked() && !top.is_taken_over());
}

#[test]
fn without_a_terminal_it_prints_once_or_says_so() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let data_dir = site.path().display().to_string();
    let top = |arguments: &[&str]| {
        let verb = ProxyBuilder::new()
            .arg("top")
            .arg("--data-dir")
            .arg(&data_dir);
        arguments.iter().fold(verb, |verb, it| verb.arg(it)).run()
    };
    let refused = top(&[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--once or --json"), "{refused:?}");
    let alone = top(&["--once"]);
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(
        alone.stderr.contains("no server runs on DATA_DIR"),
        "{alone:?}"
    );

    site.key(&["--name", "ada", "--budget", "5/day"]);
    let proxy = observed(&upstream)
        .env("DATA_DIR", &data_dir)
        .env("ACCESS", "optional")
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, message());
    origin.send(HEAD);
    client.read_response_head();
    let once = top(&["--once"]);
    assert_eq!(once.code, Some(0), "{once:?}");
    for part in [
        "Requests in flight",
        "claude-sonnet-4-5",
        "Upstreams",
        "Budgets",
        "Limits\nnone",
        "key ada",
        "$5.00",
    ] {
        assert!(once.stdout.contains(part), "{part}: {}", once.stdout);
    }
    let json = top(&["--json"]);
    assert_eq!(json.code, Some(0), "{json:?}");
    let content: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        content["requests"]["items"][0]["model"],
        "claude-sonnet-4-5"
    );
    assert_eq!(content["budgets"][0]["name"], "ada");
    assert!(content["upstreams"][0]["circuit"].is_string(), "{content}");
    assert_eq!(content["limits"], serde_json::json!([]));

    let url = format!("http://{}", proxy.addr());
    let wrong = ProxyBuilder::new()
        .arg("top")
        .arg("--once")
        .arg("--server")
        .arg(&url)
        .env("ANTHROPIC_PROXY_ADMIN_KEY", "not-the-key-of-it")
        .run();
    assert_eq!(wrong.code, Some(4), "{wrong:?}");
}

#[test]
fn a_server_that_records_nothing_is_told() {
    let upstream = Upstream::bind();
    let site = Site::new();
    let data_dir = site.path().display().to_string();
    let _proxy = Proxy::to(upstream.url()).env("DATA_DIR", &data_dir).start();
    let top = ProxyBuilder::new()
        .arg("top")
        .arg("--once")
        .env("DATA_DIR", &data_dir)
        .run();
    assert_eq!(top.code, Some(1), "{top:?}");
    assert!(top.stderr.contains("ENABLE_DASHBOARD=true"), "{top:?}");
}
