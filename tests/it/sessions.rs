//! Sessions of Claude Code and the health of their prompt caches, as the API tells them.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Answering, Body, DEADLINE, Proxy, ProxyBuilder, Upstream};

const KEY: &str = "a-key-of-the-tests";

/// An upstream that reports the usage that a request's `metadata` names: input, cache read, cache write.
fn upstream() -> Answering {
    Upstream::answering(|_, body| {
        let (Body::Length(octets) | Body::Chunked(octets)) = body else {
            panic!("{body:?}")
        };
        let body: Value = serde_json::from_slice(octets).unwrap();
        let usage = &body["metadata"]["usage"];
        let content = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": [], "stop_reason": "end_turn",
            "usage": {
                "input_tokens": usage[0], "output_tokens": 7,
                "cache_read_input_tokens": usage[1], "cache_creation_input_tokens": usage[2],
            },
        })
        .to_string();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        )
        .into_bytes()
    })
}

fn watched(upstream: &Answering, data: &Path) -> ProxyBuilder {
    Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", "true")
        .env("DASHBOARD_API_KEY", KEY)
        .env("METRICS_PUBLIC", "true")
        .env("DATA_DIR", data.display())
}

/// Fields of a request: the session, the subagent and its parent.
fn fields(session: &str, agent: Option<&str>, parent: Option<&str>) -> String {
    let agent = agent.map(|it| format!("x-claude-code-agent-id: {it}\r\n"));
    let parent = parent.map(|it| format!("x-claude-code-parent-agent-id: {it}\r\n"));
    format!(
        "X-Claude-Code-Session-Id: {session}\r\n{}{}",
        agent.unwrap_or_default(),
        parent.unwrap_or_default()
    )
}

/// Sends a message, in pieces, and waits for its response.
fn say(proxy: &Proxy, fields: &str, body: &Value) {
    let body = body.to_string();
    let mut wire = proxy.connect();
    wire.send(format!(
        "POST /v1/messages HTTP/1.1\r\nHost: proxy.test\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{fields}\r\n",
        body.len()
    ));
    for piece in body.as_bytes().chunks(50) {
        wire.send(piece);
    }
    assert_eq!(wire.read_response("POST").status(), 200);
}

fn turn(system: &str, messages: &[&str], usage: [u64; 3]) -> Value {
    let messages: Vec<_> = messages
        .iter()
        .map(|text| json!({"role": "user", "content": text}))
        .collect();
    json!({
        "model": "claude-sonnet-4-5", "max_tokens": 16, "messages": messages,
        "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
        "metadata": {"usage": usage},
    })
}

/// What the API says, once this holds of it.
#[track_caller]
fn api(proxy: &Proxy, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let ask = format!(
            "GET /admin/api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        );
        let value: Value = serde_json::from_slice(proxy.send(ask).content()).unwrap();
        if holds(&value) {
            return value;
        }
        assert!(Instant::now() < end, "{path}: {value}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sessions_and_their_subagents_are_told_and_survive_a_restart() {
    let upstream = upstream();
    let data = tempfile::tempdir().unwrap();
    let proxy = watched(&upstream, data.path()).start();
    let main = fields("session-one", None, None);
    say(&proxy, &main, &turn("s", &["a"], [100, 0, 3000]));
    say(&proxy, &main, &turn("s", &["a", "b"], [100, 3000, 200]));
    let child = fields("session-one", Some("aaaa"), None);
    say(&proxy, &child, &turn("t", &["c"], [50, 0, 0]));
    let nested = fields("session-one", Some("bbbb"), Some("aaaa"));
    say(&proxy, &nested, &turn("t", &["d"], [50, 0, 0]));
    say(
        &proxy,
        &fields("session-two", None, None),
        &turn("s", &["a"], [10, 0, 0]),
    );
    say(&proxy, "", &turn("s", &["a"], [10, 0, 0]));

    let list = api(&proxy, "sessions?sort=tokens", |it| {
        it["items"][0]["requests"] == 4 && it["total"] == 2
    });
    let first = &list["items"][0];
    assert_eq!(first["id"], "session-one");
    assert_eq!(first["agents"], 3);
    assert_eq!(first["errors"], 0);
    assert_eq!(
        first["tokens"],
        json!({"input": 300, "output": 28, "cache_read": 3000, "cache_write_5m": 3200, "cache_write_1h": 0})
    );
    assert_eq!(first["models"], json!(["claude-sonnet-4-5"]));
    assert!(first["cost_usd"].as_f64().unwrap() > 0.0);
    assert_eq!(list["items"][1]["id"], "session-two");

    let told = |proxy: &Proxy| {
        let one = api(proxy, "sessions/session-one", |it| it["requests"] == 4);
        let tree = one["tree"].as_array().unwrap().iter();
        let tree: Vec<_> = tree
            .map(|it| {
                (
                    it["id"].as_str(),
                    it["parent"].as_str(),
                    it["depth"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            tree,
            [
                (None, None, 0),
                (Some("aaaa"), None, 1),
                (Some("bbbb"), Some("aaaa"), 2)
            ]
        );
        assert_eq!(one["tree"][0]["tokens"]["cache_read"], 3000);
        assert_eq!(one["cache_breaks"], 0);
        let requests = one["last_requests"].as_array().unwrap();
        assert_eq!(requests.len(), 4);
        assert_eq!(requests[0]["agent"], "bbbb", "the newest is first");
    };
    told(&proxy);
    for (query, total) in [
        ("q=SESSION-TW", 1),
        ("session=one", 1),
        ("q=sonnet", 2),
        ("q=bbbb", 1),
        ("user=anna", 0),
        ("until=1", 0),
        ("since=1&limit=1&offset=1", 2),
    ] {
        let page = api(&proxy, &format!("sessions?{query}"), |_| true);
        assert_eq!(page["total"], total, "{query}: {page}");
    }
    let page = api(&proxy, "sessions?limit=1", |_| true);
    assert_eq!(
        (
            page["items"].as_array().unwrap().len(),
            &page["next_offset"]
        ),
        (1, &json!(1))
    );
    let missing = api(&proxy, "sessions/none", |_| true);
    assert_eq!(missing["error"]["code"], "not_found");
    let none = api(&proxy, "usage?since=2000&until=1000", |_| true);
    assert_eq!(none["rows"], json!([]));
    let all = api(&proxy, "usage?since=0&by=team", |_| true);
    assert_eq!(all["rows"][0]["requests"], 6, "{all}");
    for bad in [
        "sessions?sort=",
        "sessions?offset=1000001",
        "sessions?sort=best",
        "sessions?limit=0",
        "sessions?order=up",
        "sessions?x=1",
    ] {
        assert!(api(&proxy, bad, |_| true)["error"].is_object(), "{bad}");
    }

    let by = api(&proxy, "usage?by=session", |_| true);
    let rows: Vec<_> = by["rows"].as_array().unwrap().iter().collect();
    let requests = |key: &str| {
        let row = rows.iter().find(|row| row["key"] == key);
        row.map(|row| row["requests"].as_u64().unwrap())
    };
    assert_eq!(
        (
            requests("session-one"),
            requests("session-two"),
            requests("")
        ),
        (Some(4), Some(1), Some(1))
    );
    let series = api(&proxy, "usage/series?by=session&range=6h", |_| true);
    assert_eq!(series["t"].as_array().unwrap().len(), 6);
    let sum = |line: &Value| {
        let steps = line["requests"].as_array().unwrap();
        steps.iter().map(|it| it.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(
        series["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(sum)
            .sum::<u64>(),
        6
    );

    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
    let proxy = watched(&upstream, data.path()).start();
    told(&proxy);
    say(
        &proxy,
        &main,
        &turn("s", &["a", "b", "c"], [100, 3200, 200]),
    );
    let one = api(&proxy, "sessions/session-one", |it| it["requests"] == 5);
    assert_eq!(one["tokens"]["input"], 400);
}

#[test]
fn a_cache_break_is_found_named_and_counted() {
    let upstream = upstream();
    for edits in [false, true] {
        let data = tempfile::tempdir().unwrap();
        // of two workers, ends of the same moment may be counted in another order
        let mut proxy = watched(&upstream, data.path()).env("WORKERS", 1);
        if edits {
            proxy = proxy.env("SYSTEM_PROMPT_REPLACEMENT", "be kind");
        }
        let proxy = proxy.start();
        let main = fields("canary-session", None, None);
        let say = |system: &str, messages: &[&str], usage: [u64; 3]| {
            say(&proxy, &main, &turn(system, messages, usage));
        };
        say("canary one", &["a"], [10, 0, 20_000]);
        say("canary one", &["a", "b"], [10, 20_000, 500]);
        say("canary two", &["a", "b", "c"], [10, 0, 21_000]);
        say("canary two", &["a", "B", "c", "d"], [10, 0, 22_000]);
        say("canary two", &["a", "B", "c", "d", "e"], [10, 22_000, 100]);
        let one = api(&proxy, "sessions/canary-session", |it| it["requests"] == 5);
        assert_eq!(one["cache_breaks"], 2, "{one}");
        let breaks = one["breaks"].as_array().unwrap();
        let told: Vec<_> = breaks
            .iter()
            .map(|it| {
                (
                    it["cause"].as_str().unwrap(),
                    it["message"].as_u64(),
                    it["expected"].as_u64(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("message_changed", Some(2), Some(21_000)),
                ("system_changed", None, Some(20_500)),
            ]
        );
        assert!(breaks[0]["request"].as_str().unwrap().starts_with("req_"));
        let response = proxy.send(crate::support::get("/metrics"));
        let text = String::from_utf8(response.content().to_vec()).unwrap();
        for line in [
            "anthropic_proxy_cache_breaks_total{cause=\"system_changed\"} 1",
            "anthropic_proxy_cache_breaks_total{cause=\"message_changed\"} 1",
            "anthropic_proxy_cache_breaks_total{cause=\"tools_changed\"} 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("canary"), "{text}");
        proxy.signal("TERM");
        assert_eq!(proxy.wait().code, Some(0));
        // digests and content stay in memory
        let stored = std::fs::read(data.path().join("activity.sqlite")).unwrap();
        let has = |text: &str| stored.windows(text.len()).any(|it| it == text.as_bytes());
        assert!(has("canary-session") && !has("canary one") && !has("canary two"));
    }
}

#[test]
fn a_webhook_is_told_once_of_a_cause_that_breaks_too_many_caches() {
    let upstream = upstream();
    for has_pages in [true, false] {
        let receiver = Upstream::always("HTTP/1.1 204 No Content\r\n\r\n");
        let proxy = Proxy::to(upstream.url())
            .env("ENABLE_DASHBOARD", has_pages)
            .env("DASHBOARD_API_KEY", KEY)
            .env("CACHE_BREAK_WEBHOOK", format!("{}/hook", receiver.url()))
            .env("CACHE_BREAK_RATE", "25%")
            // of two workers, ends of the same moment may be counted in another order
            .env("WORKERS", 1)
            .start();
        let main = fields("canary-session", None, None);
        let say = |system: &str, usage| say(&proxy, &main, &turn(system, &["canary"], usage));
        say("s0", [10, 0, 20_000]);
        // 15 watched requests that read the prefix, and then six that do not: five of 20 are the rate
        for _ in 0..15 {
            say("s0", [10, 20_000, 0]);
        }
        for turn in 1..=6 {
            say(&format!("s{turn}"), [10, 0, 20_000]);
        }
        let (head, body) = receiver.request();
        let (Body::Length(octets) | Body::Chunked(octets)) = body else {
            panic!("{body:?}")
        };
        assert_eq!(head.target(), "/hook");
        let text = String::from_utf8(octets).unwrap();
        for secret in ["canary", KEY] {
            assert!(!text.contains(secret), "{text}");
        }
        let post: Value = serde_json::from_str(&text).unwrap();
        for (name, expected) in [
            ("event", json!("cache_breaks")),
            ("cause", json!("system_changed")),
            ("breaks", json!(5)),
            ("requests", json!(20)),
            ("sessions", json!(1)),
            ("model", json!("claude-sonnet-4-5")),
            ("extra_tokens", json!(100_000)),
            ("extra_cost_usd", json!(0.345)),
        ] {
            assert_eq!(post[name], expected, "{name}: {text}");
        }
        let url = post["url"].as_str();
        assert_eq!(url.is_some(), has_pages, "{text}");
        let is_page = |url: &str| url.ends_with("/admin/sessions?sort=cache_breaks");
        assert!(url.is_none_or(is_page), "{text}");
        proxy.signal("TERM");
        let ended = proxy.wait();
        assert_eq!(ended.code, Some(0));
        assert!(receiver.try_request().is_none(), "told once");
        assert!(!ended.stderr.contains("/hook"), "{}", ended.stderr);
    }
}
