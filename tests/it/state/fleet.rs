//! What replicas tell each other: who runs, sums for the pages of all, sessions that moved to another upstream.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Answering, DEADLINE, Proxy, ProxyBuilder, Upstream, assert_prompt, redis::Redis, upstream::OK,
};

const KEY: &str = "a-key-of-the-tests";

/// An upstream whose every answer is a message with usage.
fn upstream() -> Answering {
    let content = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [], "stop_reason": "end_turn",
        "usage": {"input_tokens": 100, "output_tokens": 7},
    });
    let content = content.to_string();
    Upstream::always(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    ))
}

/// A replica, with a directory of its own.
fn replica(builder: ProxyBuilder, state: &str) -> ProxyBuilder {
    let data = builder.path("data");
    builder
        .env("STATE_URL", state)
        .env("DATA_DIR", data.display())
        .env("ACCESS_PEPPER", "the-pepper-of-all-replicas-of-the-tests")
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
}

fn say(proxy: &Proxy, session: &str) -> u16 {
    let content = r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[]}"#;
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Claude-Code-Session-Id: {session}\r\n\
         Content-Length: {}\r\n\r\n{content}",
        content.len()
    );
    proxy.send(request).status()
}

/// What the API says, once this holds of it.
#[track_caller]
fn api(proxy: &Proxy, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let response = proxy.send(format!(
            "GET /admin/api/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        ));
        assert_eq!(response.status(), 200, "{path}");
        let said: Value = serde_json::from_slice(response.content()).unwrap();
        if holds(&said) {
            return said;
        }
        assert!(Instant::now() < end, "{path}: {said}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn requests(rows: &Value) -> u64 {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["requests"].as_u64().unwrap()).sum()
}

#[test]
#[ignore = "needs redis-server"]
fn each_replica_shows_all_and_the_sums_outlive_them() {
    let (redis, upstream) = (Redis::start(&[]), upstream());
    let start = |timeout: &str| {
        let builder = Proxy::to(upstream.url()).env("GENERATION_TIMEOUT", timeout);
        replica(builder, &redis.url()).start()
    };
    let (one, other) = (start("10m"), start("11m"));
    for (proxy, sessions) in [(&one, ["s", "t"]), (&other, ["s", "u"])] {
        for session in sessions {
            assert_eq!(say(proxy, session), 200);
        }
    }
    for proxy in [&one, &other] {
        let replicas = api(proxy, "/replicas", |it| it["sums"]["requests"] == 4);
        assert_eq!(replicas["shared"], true);
        let items = replicas["items"].as_array().unwrap();
        assert_eq!(items.len(), 2, "{replicas}");
        for item in items {
            assert_eq!(item["version_differs"], false, "{replicas}");
            // of two, the other one's settings differ
            assert_eq!(item["config_differs"], item["own"] == false, "{replicas}");
        }
        for path in [
            "/usage?range=24h",
            "/usage?range=90d&by=session",
            "/usage?range=7d&by=hour",
        ] {
            let usage = api(proxy, path, |it| requests(&it["rows"]) == 4);
            assert_eq!(usage["shared"]["complete"], true, "{usage}");
        }
        let sessions = api(proxy, "/sessions?sort=requests", |it| {
            requests(&it["items"]) == 4
        });
        let first = &sessions["items"][0];
        assert_eq!((&first["id"], &first["requests"]), (&json!("s"), &json!(2)));
        assert_eq!(first["tokens"]["input"], 200);
    }
    // a replica that ends leaves at once, and what it did stays
    other.signal("TERM");
    other.wait();
    api(&one, "/replicas", |it| it["sums"]["replicas"] == 1);
    let later = start("10m");
    api(&later, "/usage?range=24h", |it| requests(&it["rows"]) == 4);
    api(&later, "/sessions", |it| requests(&it["items"]) == 4);
    // a store that has lost everything gets the sums of those that run
    redis.run(&["FLUSHALL"]);
    api(&later, "/usage?range=24h", |it| requests(&it["rows"]) >= 2);
    api(&later, "/replicas", |it| it["sums"]["replicas"] == 2);
}

#[test]
#[ignore = "needs redis-server"]
fn a_session_keeps_its_upstream_at_another_replica_and_after_a_restart() {
    static IS_WELL: AtomicBool = AtomicBool::new(false);
    const OVERLOADED: &str = "HTTP/1.1 529 Overloaded\r\nContent-Length: 0\r\n\r\n";
    let redis = Redis::start(&[]);
    let first = Upstream::answering(|_: &_, _: &_| match IS_WELL.load(SeqCst) {
        true => OK.into(),
        false => OVERLOADED.into(),
    });
    let second = Upstream::ok();
    let start = || {
        let urls = format!("{},{}", first.url(), second.url());
        let builder = ProxyBuilder::new().env("API_BASE_URLS", urls);
        replica(builder, &redis.url()).start()
    };
    let one = start();
    // it has the key that all have in common
    api(&one, "/replicas", |it| {
        it["fault"].is_null() && redis.run(&["EXISTS", "ap:{fleet}:common"]) == [":1"]
    });
    assert_eq!(say(&one, "moved"), 200);
    IS_WELL.store(true, SeqCst);
    let other = start();
    let reaches_second = |proxy: &Proxy| {
        while second.try_request().is_some() {}
        let end = Instant::now() + DEADLINE;
        loop {
            assert_eq!(say(proxy, "moved"), 200);
            if second.try_request().is_some() {
                break;
            }
            assert!(Instant::now() < end, "the session is at the first upstream");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(say(proxy, "another"), 200);
        assert!(
            second.try_request().is_none(),
            "others are at the first one"
        );
    };
    reaches_second(&other);
    // none that knew it runs any more
    for proxy in [one, other] {
        proxy.signal("TERM");
        proxy.wait();
    }
    reaches_second(&start());
}

#[test]
fn a_replica_that_cannot_reach_the_store_serves_and_shows_itself() {
    let upstream = upstream();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // requests without a key pass
    let builder = Proxy::to(upstream.url()).env("ACCESS", "optional");
    let proxy = replica(builder, &format!("redis://{closed}")).start();
    assert_eq!(say(&proxy, "s"), 200);
    let replicas = api(&proxy, "/replicas", |it| !it["fault"].is_null());
    assert_eq!(replicas["items"].as_array().unwrap().len(), 1);
    assert_eq!(replicas["items"][0]["state"], "running");
    let usage = api(&proxy, "/usage?range=24h", |it| requests(&it["rows"]) == 1);
    assert_eq!(usage["shared"]["complete"], false);
    api(&proxy, "/sessions", |it| requests(&it["items"]) == 1);
    // nothing of the traffic waits for it
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(say(&proxy, "s"), 200);
    }
    assert_prompt(begin, Duration::from_secs(2));
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn without_a_shared_store_there_is_one_replica() {
    let upstream = upstream();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    assert_eq!(say(&proxy, "s"), 200);
    let replicas = api(&proxy, "/replicas", |it| it["sums"]["requests"] == 1);
    assert_eq!(replicas["shared"], false);
    assert_eq!(replicas["items"].as_array().unwrap().len(), 1);
    assert_eq!(api(&proxy, "/usage", |_| true)["shared"], Value::Null);
    assert_eq!(api(&proxy, "/overview", |_| true)["shared"], false);
}
