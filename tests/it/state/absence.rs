//! Replicas that start while the Redis is away: with their copy of it, or without.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::replica::{
    PASSES, REVOKED, Replica, UNREACHABLE, answer_of, asks, says_message, until, upstream,
};
use crate::support::{DEADLINE, Proxy, Upstream, assert_prompt, contains, get, redis::Redis};

const KEY: &str = "a-key-of-the-tests";

/// Name of the copy in `DATA_DIR`.
const COPY: &str = "shared-copy.sqlite";

#[track_caller]
fn answers(proxy: &Proxy, key: &str, expected: (u16, &str)) {
    let answer = asks(proxy, key);
    assert_eq!((answer.0, answer.1.as_str()), expected);
}

#[track_caller]
fn eventually(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE);
        thread::sleep(Duration::from_millis(20));
    }
}

fn tells(server: &Proxy, sample: &str) -> bool {
    let metrics = server.send(get("/metrics"));
    contains(metrics.content(), format!("\n{sample}\n").as_bytes())
}

/// The subject that a key is.
fn subject(key: &str) -> String {
    let id = key.strip_prefix("ap_").and_then(|rest| rest.get(..10));
    format!("key:{}", id.unwrap())
}

fn end(server: Proxy) {
    server.signal("TERM");
    server.wait();
}

#[test]
#[ignore = "needs redis-server"]
fn a_replica_that_starts_without_the_redis_goes_by_its_copy_until_it_answers() {
    let upstream = Upstream::always(answer_of(1000, 100));
    let mut redis = Redis::start(&[]);
    let (one, other) = (Replica::of(&redis.url()), Replica::of(&redis.url()));
    let start = || {
        let builder = one.builder(&upstream.url());
        builder.env("DASHBOARD_API_KEY", KEY).start()
    };
    let create = |name: &str, limits: &[&str]| {
        let verb = ["keys", "create", "--name", name, "--quiet"];
        let key = one.says(&[&verb, limits].concat());
        key.trim().to_owned()
    };
    let server = start();
    let closed = ["--unreachable", "closed"];
    let open = ["--unreachable", "open"];
    let plain = create("plain", &[]);
    let lost = create("lost", &[]);
    let rate = create("rate", &["--rpm", "2"]);
    let closed_rate = create("closed rate", &[&["--rpm", "100"][..], &closed].concat());
    let budget = create("budget", &["--budget", "$50/month"]);
    let open_budget = create(
        "open budget",
        &[&["--budget", "$50/month"][..], &open].concat(),
    );
    one.says(&["keys", "revoke", "lost", "--reason", "lost"]);
    until(&server, &open_budget, PASSES);
    until(&server, &lost, REVOKED);
    end(server);
    let late = other.key("late");
    redis.save_and_end();

    let server = start();
    server.wait_for_line(|line| line.contains("the start has its copy of"));
    // before any request
    assert!(tells(
        &server,
        "anthropic_proxy_shared_limits{state=\"lost\"} 4"
    ));
    assert!(!tells(
        &server,
        "anthropic_proxy_shared_limits_silent_seconds 0"
    ));
    let said = one.says(&["limits", "explain", &subject(&budget)]);
    assert!(said.contains("unknown"), "{said}");
    assert!(said.contains("lost since the start (closed)"), "{said}");
    let said = one.says(&["limits", "show", &subject(&budget)]);
    assert!(
        said.contains("$50/month") && said.contains("used: unknown"),
        "{said}"
    );
    let bars = || -> Value {
        let page = server.send(format!(
            "GET /admin/api/v1/spend?by=key HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        ));
        serde_json::from_slice(page.content()).unwrap()
    };
    let told = bars();
    let of_budgets = told["items"].as_array().unwrap();
    assert_eq!(of_budgets.len(), 2, "{told}");
    for bar in of_budgets {
        assert_eq!(bar["shared"]["counts"], "unknown", "{told}");
        assert_eq!(bar["forecast_usd"], Value::Null, "{told}");
    }
    assert_eq!(server.send(get("/readyz")).status(), 200);
    answers(&server, &plain, PASSES);
    answers(&server, &lost, REVOKED);
    // it may be one that the Redis knows by now
    answers(&server, &late, UNREACHABLE);
    let (rest, end_of_plain) = plain.split_at(plain.len() - 10);
    answers(
        &server,
        &format!("{rest}{end_of_plain}x"),
        (401, "key_mistyped"),
    );
    answers(&server, &closed_rate, UNREACHABLE);
    // its part of two a minute
    answers(&server, &rate, PASSES);
    answers(&server, &rate, (429, "request_limit"));
    let unreachable = (UNREACHABLE.0, UNREACHABLE.1.to_owned());
    assert_eq!(says_message(&server, &budget, 1), unreachable);
    assert_eq!(says_message(&server, &open_budget, 1).0, 200);
    assert!(tells(&server, "anthropic_proxy_state_copy_in_use 1"));
    assert!(tells(&server, "anthropic_proxy_state_up 0"));
    let page = server.send(format!(
        "GET /admin/api/v1/replicas HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    ));
    let page: Value = serde_json::from_slice(page.content()).unwrap();
    assert_eq!(page["copy"]["in_use"], true, "{page}");
    assert!(page["copy"]["at"].as_u64().unwrap() > 0, "{page}");

    redis.start_again();
    until(&server, &late, PASSES);
    until(&server, &closed_rate, PASSES);
    answers(&server, &lost, REVOKED);
    eventually(|| says_message(&server, &budget, 1).0 == 200);
    assert!(tells(&server, "anthropic_proxy_state_copy_in_use 0"));
    let told = bars();
    let items = told["items"].as_array().unwrap();
    let is_known = |bar: &Value| bar["shared"]["counts"] == "all";
    assert!(items.iter().any(is_known), "{told}");
    // what was spent without it is reported
    let subject = subject(&open_budget);
    let spent = || !redis.run(&["KEYS", &format!("ap:{{{subject}}}:b:*")])[1..].is_empty();
    eventually(spent);
    let said = other.says(&["limits", "explain", &subject, "--json"]);
    assert!(said.contains("spent"), "{said}");
    // and the copy has what it lacked
    end(server);
    redis.save_and_end();
    let server = start();
    answers(&server, &late, PASSES);
}

#[test]
#[ignore = "needs redis-server"]
fn the_audit_is_checked_and_read_while_the_redis_is_away() {
    let (mut redis, upstream) = (Redis::start(&[]), upstream());
    let one = Replica::of(&redis.url());
    let key = one.key("first");
    let whole = one.says(&["audit", "verify"]);
    assert!(
        whole.contains("whole, lines 1 to") && !whole.contains("unknown"),
        "{whole}"
    );
    redis.save_and_end();

    // without a server
    let checks = |expected: i32| {
        let ended = one.verb(&["audit", "verify"]);
        assert_eq!(ended.code, Some(expected), "{ended:?}");
        let text = ended.stdout;
        assert!(
            text.contains("checkpoints: unknown") && text.contains(&redis.url()[8..]),
            "{text}"
        );
        text
    };
    assert!(checks(3).contains("whole, lines 1 to"));
    let json: Value =
        serde_json::from_str(&one.verb(&["audit", "verify", "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["ok"], json["unanchored"].is_string()),
        (&Value::Bool(true), true),
        "{json}"
    );
    assert!(one.says(&["audit", "tail"]).contains("key.create"));
    assert!(
        one.says(&["audit", "search", "first"])
            .contains("key.create")
    );
    // what needs the store still says so
    let ended = one.verb(&["keys", "list"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");

    // by a server that started with its copy, or without
    let server = one
        .builder(&upstream.url())
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    answers(&server, &key, UNREACHABLE);
    assert!(checks(3).contains("whole, lines 1 to"));
    end(server);

    // a line that was changed is found
    let folder = one.directory.path().join("audit");
    let mut files = fs::read_dir(folder).unwrap().flatten().map(|it| it.path());
    let file = files
        .find(|it| it.is_file() && fs::metadata(it).unwrap().len() > 0)
        .unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("key.create", "key.revoke", 1)).unwrap();
    assert!(checks(1).contains("BROKEN at line 1"));
}

#[test]
#[ignore = "needs redis-server"]
fn a_stop_while_the_redis_says_nothing_takes_no_long_time() {
    let upstream = Upstream::always(answer_of(1000, 100));
    let redis = Redis::start(&[]);
    let one = Replica::of(&redis.url());
    let server = one.builder(&upstream.url()).start();
    let key = one.says(&[
        "keys",
        "create",
        "--name",
        "first",
        "--quiet",
        "--budget",
        "$50/month",
    ]);
    let key = key.trim();
    until(&server, key, PASSES);
    assert_eq!(says_message(&server, key, 1).0, 200);
    redis.signal("STOP");
    assert_eq!(says_message(&server, key, 1).0, 200);
    let start = Instant::now();
    server.signal("TERM");
    let ended = server.wait();
    assert_prompt(start, Duration::from_secs(3));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("the last sums did not reach the shared state"),
        "{ended:?}"
    );
    redis.signal("CONT");
}

#[test]
#[ignore = "needs redis-server"]
fn a_copy_of_another_origin_or_a_damaged_one_is_not_used() {
    let (mut redis, upstream) = (Redis::start(&[]), upstream());
    let one = Replica::of(&redis.url());
    let server = one.builder(&upstream.url()).start();
    let key = one.key("first");
    until(&server, &key, PASSES);
    end(server);
    redis.save_and_end();
    let other_url = redis.url() + "/1";
    for (name, value) in [
        ("STATE_PREFIX", "other"),
        ("STATE_URL", other_url.as_str()),
        (
            "ACCESS_PEPPER",
            "another-pepper-of-these-tests-and-a-long-one",
        ),
    ] {
        let builder = one.builder(&upstream.url()).env(name, value);
        let server = builder.start();
        server.wait_for_line(|line| line.contains("there is no copy of it in DATA_DIR"));
        answers(&server, &key, UNREACHABLE);
        assert!(!tells(&server, "anthropic_proxy_state_copy_in_use 1"));
    }
    let path = one.directory.path().join(COPY);
    for suffix in ["", "-wal"] {
        let file = one.directory.path().join(format!("{COPY}{suffix}"));
        let kept = fs::read(file).unwrap_or_default();
        assert!(
            !contains(&kept, &key.as_bytes()[14..]),
            "it holds no secret"
        );
    }
    // what SQLite wrote and did not move into the file yet would repair it
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(one.directory.path().join(format!("{COPY}{suffix}")));
    }
    fs::write(
        &path,
        "no file of SQLite and long enough to be one".repeat(99),
    )
    .unwrap();
    let server = one.builder(&upstream.url()).start();
    server.wait_for_line(|line| line.contains("its copy in DATA_DIR is not used"));
    assert_eq!(server.send(get("/readyz")).status(), 200);
    answers(&server, &key, UNREACHABLE);
    redis.start_again();
    until(&server, &key, PASSES);
    // a new one is made, and used
    eventually(|| tells(&server, "anthropic_proxy_state_copy_in_use 0"));
    end(server);
    redis.end();
    let server = one.builder(&upstream.url()).start();
    answers(&server, &key, PASSES);
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_comes_back_empty_gets_the_keys_of_a_copy() {
    let (mut redis, upstream) = (Redis::start(&[]), upstream());
    let (one, other) = (Replica::of(&redis.url()), Replica::of(&redis.url()));
    let server = one.builder(&upstream.url()).start();
    let keys = [one.key("first"), one.key("second")];
    one.says(&["keys", "revoke", "second", "--reason", "lost"]);
    until(&server, &keys[1], REVOKED);
    end(server);
    redis.end();
    let server = one.builder(&upstream.url()).start();
    answers(&server, &keys[0], PASSES);
    redis.start_again_empty();
    server.wait_for_line(|line| line.contains("lacked 2 keys"));
    let server = other.builder(&upstream.url()).start();
    answers(&server, &keys[0], PASSES);
    answers(&server, &keys[1], REVOKED);
}

#[test]
#[ignore = "needs redis-server"]
fn a_replica_without_a_copy_knows_its_keys_once_the_redis_is_there() {
    let (mut redis, upstream) = (Redis::start(&[]), upstream());
    let (one, other) = (Replica::of(&redis.url()), Replica::of(&redis.url()));
    let key = one.key("first");
    redis.save_and_end();
    let server = other.builder(&upstream.url()).start();
    assert_eq!(server.send(get("/readyz")).status(), 200);
    answers(&server, &key, UNREACHABLE);
    assert!(tells(&server, "anthropic_proxy_state_up 0"));
    let refused = other.verb(&["keys", "create", "--name", "second"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("cannot be reached"), "{refused:?}");
    redis.start_again();
    eventually(|| asks(&server, &key).0 == 200);
    eventually(|| tells(&server, "anthropic_proxy_state_up 1"));
    other.key("second");
}
