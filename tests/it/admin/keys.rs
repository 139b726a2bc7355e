//! Sign-in, sessions and keys of the dashboard.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    API, COOKIE, Caller, KEY, ask, assert_problem, cookie, dashboard, json, request, send, tick,
    with_key,
};
use crate::support::{Body, DEADLINE, Proxy, Response, Wire, get, wire::show};

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
    assert_eq!(
        session(&[]),
        serde_json::json!({"authenticated": false, "key_required": true, "loopback": true})
    );
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
    let bearer = ask(
        &proxy,
        "GET",
        &format!("{API}/config"),
        &Caller::Right.fields(),
    );
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
    let right = Caller::Right.fields();
    for _ in 0..30 {
        let response = ask(&proxy, "GET", &format!("{API}/config"), &right);
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
