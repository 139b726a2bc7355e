//! Sign-in, sessions and keys of the dashboard.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    API, COOKIE, KEY, RIGHT, ask, assert_problem, cookie, dashboard, generated_key, json, request,
    send, tick, with_key,
};
use crate::support::{Body, DEADLINE, Proxy, Response, Upstream, Wire, get, wire::show};

#[track_caller]
fn log_in(proxy: &Proxy, key: &str) -> Response {
    let content = format!("{{\"key\":\"{key}\"}}");
    let fields = [
        ("Origin", "http://localhost"),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    let octets = request("POST", &format!("{API}/session"), &fields, &content);
    send(proxy.addr(), "POST", octets)
}

fn status_with(proxy: &Proxy, cookie: &str) -> u16 {
    let cookies = format!("theme=dark; {cookie}");
    ask(
        proxy,
        "GET",
        &format!("{API}/config"),
        &[("Cookie", &cookies)],
    )
    .status()
}

#[test]
fn a_key_is_exchanged_for_a_session_that_ends() {
    let proxy = with_key().start();
    let session =
        |fields: &[(&str, &str)]| json(&ask(&proxy, "GET", &format!("{API}/session"), fields));
    assert_eq!(session(&[])["authenticated"], false);
    assert_problem(&log_in(&proxy, "another"), 401, "unauthorized");
    let one = cookie(&log_in(&proxy, KEY));
    let other = cookie(&log_in(&proxy, KEY));
    assert_ne!(one, other);
    assert_eq!(status_with(&proxy, &one), 200);
    assert_eq!(session(&[("Cookie", &one)])["authenticated"], true);
    assert_eq!(
        status_with(&proxy, &format!("{COOKIE}{}", "0".repeat(64))),
        401
    );

    let out = ask(
        &proxy,
        "DELETE",
        &format!("{API}/session"),
        &[("Cookie", &one)],
    );
    assert_eq!(out.status(), 204);
    assert!(out.head.one("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(status_with(&proxy, &one), 401);
    assert_eq!(status_with(&proxy, &other), 200);
}

#[test]
fn cookies_of_other_ports_and_paths_lock_nobody_out() {
    let proxy = with_key().start();
    let ours = cookie(&log_in(&proxy, KEY));
    let foreign = |id: &str| format!("{COOKIE}{id}; ").repeat(8);
    for others in [
        foreign("x"),
        foreign(""),
        foreign(&"0".repeat(64)),
        foreign(&"0".repeat(64)).repeat(80),
    ] {
        assert_eq!(status_with(&proxy, &format!("{others}{ours}")), 200);
    }
    let one_each: Vec<_> = (0..9).map(|at| format!("{COOKIE}{at:064}")).collect();
    let mut fields: Vec<(&str, &str)> = one_each.iter().map(|it| ("Cookie", &**it)).collect();
    fields.push(("Cookie", &ours));
    let target = format!("{API}/config");
    assert_eq!(ask(&proxy, "GET", &target, &fields).status(), 200);
    let out = ask(&proxy, "DELETE", &format!("{API}/session"), &fields);
    assert_eq!(out.status(), 204);
    assert_eq!(ask(&proxy, "GET", &target, &fields).status(), 401);
}

#[test]
fn who_changes_the_host_in_front_of_us_keeps_nobody_out() {
    let proxy = with_key().start();
    let content = format!("{{\"key\":\"{KEY}\"}}");
    let log_in = |site: Option<&str>| {
        let mut fields = vec![("Host", "127.0.0.1:8088"), ("Origin", "https://proxy.test")];
        fields.extend(site.map(|site| ("Sec-Fetch-Site", site)));
        let octets = request("POST", &format!("{API}/session"), &fields, &content);
        send(proxy.addr(), "POST", octets)
    };
    let response = log_in(Some("same-origin"));
    assert_eq!(response.status(), 204, "{}", show(&response.head.octets));
    let cookie = response.head.one("set-cookie").unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    // nobody vouches for it, or it is another page
    for site in [None, Some("same-site"), Some("cross-site"), Some("x")] {
        assert_problem(&log_in(site), 403, "forbidden");
    }
}

/// Opens the stream of events with a session.
fn listening(proxy: &Proxy, session: &str) -> Wire {
    let mut events = proxy.connect();
    let target = format!("{API}/events");
    events.send(request("GET", &target, &[("Cookie", session)], ""));
    assert_eq!(events.read_response_head().status(), 200);
    events
}

#[test]
fn a_session_that_ends_ends_its_events() {
    let proxy = with_key().start();
    let one = cookie(&log_in(&proxy, KEY));
    let other = cookie(&log_in(&proxy, KEY));
    let (mut ends, mut goes_on) = (listening(&proxy, &one), listening(&proxy, &other));
    let fields = [("Cookie", one.as_str())];
    let out = ask(&proxy, "DELETE", &format!("{API}/session"), &fields);
    assert_eq!(out.status(), 204);
    // the last chunk is empty; before it come those of at most a few seconds
    let ended = (0..5).any(|_| ends.read_chunk().is_empty());
    assert!(ended, "the events go on");
    assert_eq!(goes_on.read_chunk(), b"retry: 2000\n\n");
    for _ in 0..2 {
        assert!(tick(|| goes_on.read_chunk())["now"].is_u64());
    }
}

#[test]
fn sessions_end_when_the_key_changes() {
    let file = |key: &str| format!("DASHBOARD_API_KEY={key}\n");
    let proxy = dashboard().file("env/.env", file(KEY)).start();
    let session = cookie(&log_in(&proxy, KEY));
    let mut events = listening(&proxy, &session);
    proxy.write("env/.env", file("another-key-of-the-tests"));
    let end = Instant::now() + DEADLINE;
    while status_with(&proxy, &session) != 401 {
        assert!(Instant::now() < end, "the session goes on");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(matches!(events.read_chunked(), Body::Chunked(_)));
    assert_problem(&log_in(&proxy, KEY), 401, "unauthorized");
    cookie(&log_in(&proxy, "another-key-of-the-tests"));
}

#[test]
fn keys_are_tried_ten_times_at_once() {
    let proxy = with_key().start();
    for _ in 0..10 {
        assert_problem(&log_in(&proxy, "another"), 401, "unauthorized");
    }
    let response = log_in(&proxy, KEY);
    assert_problem(&response, 429, "too_many_attempts");
    let seconds: u64 = response.head.one("retry-after").unwrap().parse().unwrap();
    assert!((1..=7).contains(&seconds), "{seconds}");
    let bearer = ask(&proxy, "GET", &format!("{API}/config"), &RIGHT);
    assert_problem(&bearer, 429, "too_many_attempts");
}

#[test]
fn keys_that_are_refused_fill_no_log() {
    let proxy = with_key().start();
    for _ in 0..50 {
        assert!(matches!(log_in(&proxy, "another").status(), 401 | 429));
    }
    proxy.wait_for_line(|line| line.contains("[Admin] wrong key from 127.0.0.1"));
    let said = proxy.stderr();
    let lines = said.lines().filter(|line| line.contains("key"));
    assert_eq!(lines.count(), 1, "{said}");
}

#[test]
fn a_key_that_was_shown_is_not_tried_again() {
    let proxy = with_key().start();
    for _ in 0..30 {
        let response = ask(&proxy, "GET", &format!("{API}/config"), &RIGHT);
        assert_eq!(response.status(), 200);
    }
}

#[test]
fn a_login_is_read_strictly_and_within_bounds() {
    let proxy = with_key().start();
    let target = format!("{API}/session");
    let huge = format!("{{\"key\":\"{}\"}}", "x".repeat(70_000));
    for content in [
        "{}",
        "[]",
        "{\"key\":1}",
        "{\"key\":\"a\",\"b\":1}",
        "key=a",
        &huge,
    ] {
        let response = send(proxy.addr(), "POST", request("POST", &target, &[], content));
        assert_problem(&response, 400, "bad_request");
    }
    let form = "POST /admin/api/v1/session HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: text/plain\r\nContent-Length: 28\r\n\r\n{\"key\":\"a-key-of-the-tests\"}";
    assert_problem(&send(proxy.addr(), "POST", form), 400, "bad_request");
    // chunked, in pieces
    let mut client = proxy.connect();
    client.send(
        "POST /admin/api/v1/session HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    client.send_chunk(b"{\"key\":\"a-key-");
    client.send_chunk(b"of-the-tests\"}");
    client.send_chunk(b"");
    cookie(&client.read_response("POST"));
    // the connection goes on
    client.send(get("/livez"));
    assert_eq!(client.read_response("GET").status(), 200);
}

/// The status of a key as a bearer token.
fn status_of(proxy: &Proxy, key: &str) -> u16 {
    let token = format!("Bearer {key}");
    let fields = [("Authorization", &*token)];
    ask(proxy, "GET", &format!("{API}/config"), &fields).status()
}

#[test]
fn without_a_key_the_start_line_has_one_that_signs_in() {
    let proxy = dashboard().env("WORKERS", 2).start();
    let line = proxy.wait_for_line(|line| line.contains("[Admin]"));
    let url = format!("sign in at http://{}/admin#key=", proxy.addr());
    assert!(line.contains("DASHBOARD_API_KEY is not set"), "{line}");
    assert!(line.contains(&url), "{line}");
    let key = generated_key(&proxy);
    // each worker has it; without it, this machine has nothing
    for _ in 0..8 {
        assert_eq!(status_of(&proxy, &key), 200);
    }
    assert_eq!(status_with(&proxy, &cookie(&log_in(&proxy, &key))), 200);
    assert_problem(&log_in(&proxy, KEY), 401, "unauthorized");
    let closed = ask(&proxy, "GET", &format!("{API}/config"), &[]);
    assert_problem(&closed, 401, "unauthorized");
    let message = json(&closed)["error"]["message"].to_string();
    assert!(message.contains("DASHBOARD_API_KEY"), "{message}");
    // without DATA_DIR each start makes another one
    assert_ne!(generated_key(&dashboard().start()), key);
}

#[test]
fn a_generated_key_is_in_the_start_line_alone() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("METRICS_PUBLIC", true)
        .env("ACCESS_LOG", "access.log")
        .env("DATA_DIR", "data")
        .env("DEBUG_MODE", true)
        .start();
    let key = generated_key(&proxy);
    let session = cookie(&log_in(&proxy, &key));
    assert_eq!(status_of(&proxy, &key), 200);
    // what a client does by mistake
    let token = format!("Bearer {key}");
    for (target, field) in [
        (format!("/v1/models?key={key}"), ("X-Other", &*key)),
        (format!("/v1/models/{key}"), ("X-Api-Key", &*key)),
        ("/v1/models".to_owned(), ("Authorization", &*token)),
    ] {
        assert_eq!(ask(&proxy, "GET", &target, &[field]).status(), 200);
    }
    let fields = [("Authorization", &*token)];
    let get = |target: &str| {
        let response = ask(&proxy, "GET", target, &fields);
        assert_eq!(response.status(), 200, "{target}");
        String::from_utf8(response.content().to_vec()).unwrap()
    };
    let end = Instant::now() + DEADLINE;
    let log = loop {
        let log = std::fs::read_to_string(proxy.path("access.log")).unwrap_or_default();
        let page: serde_json::Value =
            serde_json::from_str(&get(&format!("{API}/requests"))).unwrap();
        if log.lines().count() == 3 && page["items"].as_array().unwrap().len() == 3 {
            let ids = page["items"].as_array().unwrap().iter();
            let ids = ids.map(|row| row["id"].as_str().unwrap());
            break log
                + &ids
                    .map(|id| get(&format!("{API}/requests/{id}")))
                    .collect::<String>();
        }
        assert!(Instant::now() < end, "not in time: {log}");
        thread::sleep(Duration::from_millis(20));
    };
    let shown = [
        "requests",
        "errors",
        "overview",
        "upstreams",
        "config",
        "session",
    ]
    .map(|name| get(&format!("{API}/{name}")))
    .concat();
    let setting = "\"name\":\"DASHBOARD_API_KEY\",\"value\":null";
    assert!(shown.contains(setting), "{shown}");
    let metrics = get("/metrics");
    let said = proxy.stderr();
    let (start, others): (Vec<_>, Vec<_>) = said.lines().partition(|it| it.contains("#key="));
    assert_eq!(start.len(), 1, "{said}");
    let all = format!("{log}{shown}{metrics}{}", others.join("\n"));
    for secret in [&*key, session.trim_start_matches(COOKIE)] {
        assert!(!all.contains(secret), "{all}");
    }
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_anthropic-proxy"))
        .arg("check")
        .env_clear()
        .envs([("ENABLE_DASHBOARD", "1"), ("DATA_DIR", "data")])
        .current_dir(proxy.path(""))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert!(!format!("{checked:?}").contains(&key));
}

#[cfg(unix)]
#[test]
fn a_generated_key_is_kept_in_a_private_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("dashboard.key");
    let builder = || dashboard().env("DATA_DIR", data.path().display());
    let one = builder().start();
    let key = generated_key(&one);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other = builder().start();
    assert_eq!(generated_key(&other), key);
    drop((one, other));

    let refused = |expected: &str| {
        let ended = builder().run();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let checked = builder().arg("check").run();
        assert_eq!(checked.code, Some(2), "{checked:?}");
        for said in [&ended.stderr, &checked.stderr] {
            assert!(said.contains(&*path.to_string_lossy()), "{said}");
            assert!(said.contains(expected), "{said}");
            assert!(said.contains("set DASHBOARD_API_KEY"), "{said}");
            assert!(!said.contains(&key), "{said}");
        }
    };
    let mode =
        |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    refused("is open to other users (mode 0644); chmod 600");
    mode(0o600);
    std::fs::write(&path, &key[..40]).unwrap();
    refused("does not hold a key of 64 hexadecimal digits; delete it");
    // a configured key needs no file
    let configured = builder().env("DASHBOARD_API_KEY", KEY).start();
    assert_eq!(status_of(&configured, KEY), 200);
    assert!(!configured.stderr().contains("#key="));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), key[..40]);
}

#[test]
fn a_reload_sets_a_key_in_place_of_the_generated_one_and_back() {
    let proxy = dashboard().file("env/.env", "WORKERS=2\n").start();
    let key = generated_key(&proxy);
    let session = cookie(&log_in(&proxy, &key));
    let mut events = listening(&proxy, &session);
    let reloaded = |times: usize| {
        let end = Instant::now() + DEADLINE;
        while proxy.stderr().matches("reloaded: changed").count() < times {
            assert!(
                Instant::now() < end,
                "no reload {times}: {}",
                proxy.stderr()
            );
            thread::sleep(Duration::from_millis(20));
        }
    };
    proxy.write("env/.env", format!("WORKERS=2\nDASHBOARD_API_KEY={KEY}\n"));
    reloaded(1);
    assert_eq!(status_of(&proxy, KEY), 200);
    assert_eq!(status_of(&proxy, &key), 401);
    assert_eq!(status_with(&proxy, &session), 401);
    assert!(matches!(events.read_chunked(), Body::Chunked(_)));
    proxy.write("env/.env", "WORKERS=2\nDASHBOARD_API_KEY=\n");
    reloaded(2);
    assert_eq!(status_of(&proxy, &key), 200);
    assert_eq!(status_of(&proxy, KEY), 401);
}

#[test]
fn a_key_that_a_reload_unsets_is_followed_by_a_generated_one() {
    let file = format!("WORKERS=2\nDASHBOARD_API_KEY={KEY}\n");
    let proxy = dashboard().file("env/.env", file).start();
    assert_eq!(status_of(&proxy, KEY), 200);
    assert!(!proxy.stderr().contains("#key="));
    proxy.write("env/.env", "WORKERS=2\nDASHBOARD_API_KEY=\n");
    let key = generated_key(&proxy);
    assert_eq!(status_of(&proxy, &key), 200);
    assert_eq!(status_of(&proxy, KEY), 401);
}
