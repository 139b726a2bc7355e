//! The admin plane: who may read what, sessions, files, events, and where it is to be found.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;

use crate::support::{
    Body, DEADLINE, End, Proxy, ProxyBuilder, Response, Upstream, Wire, assert_prompt, get,
    h2::{self, Client},
    tls::Pair,
    wire::show,
};

const KEY: &str = "a-key-of-the-tests";
const API: &str = "/admin/api/v1";
const COOKIE: &str = "anthropic_proxy_session=";
const PAGES: [&str; 9] = [
    "/admin",
    "/admin/",
    "/admin/requests",
    "/admin/errors",
    "/admin/usage",
    "/admin/upstreams",
    "/admin/config",
    "/admin/connect",
    "/admin/docs",
];

fn dashboard() -> ProxyBuilder {
    // nobody is there: what were forwarded would be a 502
    Proxy::to("http://127.0.0.1:9").env("ENABLE_DASHBOARD", true)
}

fn with_key() -> ProxyBuilder {
    dashboard().env("DASHBOARD_API_KEY", KEY)
}

/// A request of this machine, with further fields.
fn request(method: &str, target: &str, fields: &[(&str, &str)], content: &str) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| *name == "Host") {
        head += "Host: localhost\r\n";
    }
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    if !content.is_empty() {
        let length = content.len();
        head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    head + "\r\n" + content
}

fn send(addr: SocketAddr, method: &str, octets: impl AsRef<[u8]>) -> Response {
    let mut client = Wire::tcp(TcpStream::connect(addr).unwrap());
    client.send(octets);
    client.read_response(method)
}

fn ask(proxy: &Proxy, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
    send(proxy.addr(), method, request(method, target, fields, ""))
}

fn json(response: &Response) -> Value {
    let content = response.content();
    serde_json::from_slice(content).unwrap_or_else(|_| panic!("no JSON: {}", show(content)))
}

/// Asserts the shape of the API's errors.
#[track_caller]
fn assert_problem(response: &Response, status: u16, code: &str) {
    let octets = show(&response.head.octets);
    assert_eq!(response.status(), status, "{octets}");
    assert_eq!(response.head.one("content-type"), Some("application/json"));
    let content = json(response);
    assert_eq!(content["error"]["code"], code, "{octets}{content}");
    assert!(content["error"]["message"].as_str().unwrap().len() > 10);
    assert_secure(response);
}

#[track_caller]
fn assert_secure(response: &Response) {
    let head = &response.head;
    assert_eq!(
        head.one("content-security-policy"),
        Some(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; \
             form-action 'self'; frame-ancestors 'none'"
        )
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(head.one(name), Some(value));
    }
    assert!(head.has("cache-control"));
    assert!(!head.has("access-control-allow-origin"));
}

/// Every route: the pages, the metrics, and what the API's own description names.
fn routes(proxy: &Proxy, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let document = json(&ask(proxy, "GET", &format!("{API}/openapi.json"), fields));
    let mut routes: Vec<(String, String)> = PAGES
        .iter()
        .chain(&[
            "/admin/grafana/x.json",
            "/admin/other",
            "/admin/api/v1",
            "/metrics",
        ])
        .map(|path| ("GET".to_owned(), (*path).to_owned()))
        .collect();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            routes.push((method.to_uppercase(), path.replace("{id}", "req_x")));
        }
    }
    assert!(routes.len() > 25, "{routes:?}");
    routes
}

/// What a route answers to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// There is no key: a program of this machine.
    Keyless,
    /// ... that comes by another name.
    KeylessRebound,
    /// ... through a proxy.
    KeylessForwarded,
    /// ... through one that says so otherwise.
    KeylessClosing,
    /// ... for a page of another site.
    KeylessCrossOrigin,
    /// There is a key: who does not show it.
    Nobody,
    /// ... who shows another one.
    Wrong,
    /// ... who shows it.
    Right,
    /// ... who shows it by another name, which is no other site's.
    RightRebound,
    /// ... for a page of another site.
    RightCrossOrigin,
    /// ... for a page of another port.
    RightSameSite,
}

impl Caller {
    const ALL: [Self; 11] = [
        Self::Keyless,
        Self::KeylessRebound,
        Self::KeylessForwarded,
        Self::KeylessClosing,
        Self::KeylessCrossOrigin,
        Self::Nobody,
        Self::Wrong,
        Self::Right,
        Self::RightRebound,
        Self::RightCrossOrigin,
        Self::RightSameSite,
    ];

    fn has_key(self) -> bool {
        !matches!(
            self,
            Self::Keyless
                | Self::KeylessRebound
                | Self::KeylessForwarded
                | Self::KeylessClosing
                | Self::KeylessCrossOrigin
        )
    }

    fn fields(self) -> Vec<(&'static str, &'static str)> {
        let right = ("Authorization", "Bearer a-key-of-the-tests");
        match self {
            Self::Keyless | Self::Nobody => vec![],
            Self::KeylessRebound => vec![("Host", "evil.test")],
            Self::KeylessForwarded => vec![("X-Forwarded-For", "127.0.0.1")],
            Self::KeylessClosing => vec![("Connection", "close")],
            Self::KeylessCrossOrigin => vec![("Origin", "http://evil.test")],
            Self::Wrong => vec![("Authorization", "Bearer a-key-of-somebody")],
            Self::Right => vec![right],
            Self::RightRebound => vec![("Host", "evil.test"), right],
            Self::RightCrossOrigin => vec![right, ("Origin", "http://evil.test")],
            Self::RightSameSite => vec![right, ("Sec-Fetch-Site", "same-site")],
        }
    }

    /// The statuses that are right for a route; the last where nothing is to be had.
    fn expected(self, method: &str, path: &str) -> &'static [u16] {
        let is_page = PAGES.contains(&path);
        let is_session = path == "/admin/api/v1/session";
        let is_status = is_session && method == "GET";
        let is_login = is_session && method == "POST";
        let is_logout = is_session && method == "DELETE";
        let is_end = path == "/admin/api/v1/requests/req_x/end";
        let is_nothing = matches!(
            path,
            "/admin/grafana/x.json"
                | "/admin/other"
                | "/admin/api/v1"
                | "/admin/api/v1/requests/req_x"
        );
        match self {
            Self::KeylessCrossOrigin | Self::RightCrossOrigin => &[403],
            Self::RightSameSite if is_page => &[200],
            Self::RightSameSite => &[403],
            _ if is_status => &[200],
            // they say how to set a key
            _ if is_page => &[200],
            Self::KeylessRebound | Self::KeylessForwarded | Self::KeylessClosing => &[403],
            // the key alone is good for it, and this has no content
            Self::Keyless if is_end => &[403],
            Self::Right | Self::RightRebound if is_end => &[400],
            // it has no content
            _ if is_login => &[400],
            _ if is_logout => &[204],
            Self::Nobody => &[401],
            Self::Wrong => &[401, 429],
            Self::Keyless | Self::Right | Self::RightRebound if is_nothing => &[404],
            Self::Keyless | Self::Right | Self::RightRebound if path == "/metrics" => &[200],
            Self::Keyless | Self::Right | Self::RightRebound => &[200],
        }
    }
}

#[test]
fn every_route_is_closed_to_those_who_may_not() {
    let keyless = dashboard().start();
    let keyed = with_key().start();
    let routes = routes(&keyless, &[]);
    // shown once: the wrong keys below close nobody out who has shown it
    let right = Caller::Right.fields();
    assert_eq!(
        ask(&keyed, "GET", &format!("{API}/config"), &right).status(),
        200
    );
    for caller in Caller::ALL {
        let proxy = if caller.has_key() { &keyed } else { &keyless };
        for (method, path) in &routes {
            let expected = caller.expected(method, path);
            let mut client = proxy.connect();
            client.send(request(method, path, &caller.fields(), ""));
            let head = client.read_response_head();
            let what = format!("{caller:?} {method} {path}: {}", show(&head.octets));
            assert!(expected.contains(&head.status()), "{expected:?}: {what}");
            if path.ends_with("/events") && head.status() == 200 {
                continue;
            }
            let body = client.read_response_body(method, &head);
            let response = Response { head, body };
            assert_secure(&response);
            if matches!(response.status(), 401 | 403 | 404 | 429) {
                let code = json(&response)["error"]["code"].clone();
                assert!(code.is_string(), "{what}");
            }
        }
    }
}

#[test]
fn without_a_key_others_are_told_how_to_set_one() {
    let proxy = dashboard().start();
    let other = [("Host", "proxy.test")];
    let response = ask(&proxy, "GET", &format!("{API}/config"), &other);
    assert_problem(&response, 403, "forbidden");
    let message = json(&response)["error"]["message"].to_string();
    assert!(message.contains("set DASHBOARD_API_KEY"), "{message}");
    // a page says so to a browser: it has no data, and what it asks for tells it that there is no key
    for path in ["/admin", "/admin/icon.svg", "/admin/assets/main.js"] {
        assert_eq!(ask(&proxy, "GET", path, &other).status(), 200, "{path}");
    }
    let session = ask(&proxy, "GET", &format!("{API}/session"), &other);
    assert_eq!(
        json(&session),
        serde_json::json!({"authenticated": false, "key_required": false, "loopback": false})
    );
    for host in ["localhost:8088", "127.0.0.9", "[::1]:1"] {
        let response = ask(&proxy, "GET", &format!("{API}/config"), &[("Host", host)]);
        assert_eq!(response.status(), 200, "{host}");
    }
}

#[test]
fn without_a_key_nothing_that_was_passed_on_is_answered() {
    let proxy = dashboard().start();
    let host = proxy.addr().to_string();
    let chromium = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)");
    let target = format!("{API}/config");
    let with = |fields: &[(&str, &str)]| {
        let mut all = vec![("Host", host.as_str())];
        all.extend_from_slice(fields);
        ask(&proxy, "GET", &target, &all)
    };
    for fields in [
        &[][..],
        &[("User-Agent", "curl/8.5.0"), ("Accept", "*/*")],
        &[chromium, ("Sec-Fetch-Site", "none")],
        &[chromium, ("Sec-Fetch-Site", "same-origin")],
        &[("Connection", "keep-alive")],
    ] {
        assert_eq!(with(fields).status(), 200, "{fields:?}");
    }
    // nginx with HTTP/1.1; one that a browser asked in clear; those that say what they are
    for field in [
        ("Connection", "close"),
        chromium,
        ("Forwarded", "for=192.0.2.1"),
        ("Via", "1.1 x"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Server", "x"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Client-IP", "127.0.0.1"),
        ("CF-Connecting-IP", "127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
    ] {
        assert_problem(&with(&[field]), 403, "forbidden");
    }
    // nginx as it comes
    for version in [
        "1.0\r\nConnection: close",
        "1.0",
        "1.0\r\nConnection: keep-alive",
    ] {
        let octets = format!("GET {target} HTTP/{version}\r\nHost: {host}\r\n\r\n");
        assert_problem(&send(proxy.addr(), "GET", octets), 403, "forbidden");
    }
    let status = |fields: &[(&str, &str)]| {
        json(&ask(&proxy, "GET", &format!("{API}/session"), fields))["loopback"].clone()
    };
    assert_eq!(status(&[]), true);
    assert_eq!(status(&[("Connection", "close")]), false);
}

/// nginx since 1.29.7 passes on what its client says, in HTTP/1.1, on connections that go on: only its
/// account tells it from a user's curl.
#[cfg(target_os = "linux")]
#[test]
fn without_a_key_a_service_s_account_is_not_answered() {
    use std::os::unix::process::CommandExt as _;

    let proxy = dashboard().start();
    let asks = |uid: u32| {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && \
             printf 'GET {API}/config HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && \
             read -r line <&3 && echo \"$line\"",
            port = proxy.addr().port()
        );
        let mut shell = std::process::Command::new("bash");
        shell.arg("-c").arg(script).current_dir("/").uid(uid);
        let output = shell.output().ok()?;
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(line) = asks(33) else {
        eprintln!("not tried: only root may act for other accounts");
        return;
    };
    assert_eq!(line, "HTTP/1.1 403 Forbidden");
    for user in [0, 1000] {
        assert_eq!(asks(user).as_deref(), Some("HTTP/1.1 200 OK"), "{user}");
    }
    // a key is a key, whoever shows it
    let keyed = with_key().start();
    assert_eq!(
        ask(
            &keyed,
            "GET",
            &format!("{API}/config"),
            &Caller::Right.fields()
        )
        .status(),
        200
    );
}

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

/// The `Cookie` of a login.
#[track_caller]
fn cookie(response: &Response) -> String {
    assert_eq!(response.status(), 204, "{}", show(&response.head.octets));
    let cookie = response.head.one("set-cookie").unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(
        attributes,
        "Path=/admin; Max-Age=604800; HttpOnly; SameSite=Strict"
    );
    assert_eq!(pair.len(), COOKIE.len() + 64);
    pair.to_owned()
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

#[test]
fn methods_and_paths_that_are_none_are_refused() {
    let proxy = dashboard().start();
    for (method, path, allowed) in [
        ("POST", "/admin", "GET, HEAD"),
        ("DELETE", "/admin/api/v1/config", "GET, HEAD"),
        ("PUT", "/admin/api/v1/session", "GET, HEAD, POST, DELETE"),
        ("OPTIONS", "/admin/api/v1/overview", "GET, HEAD"),
    ] {
        let response = ask(&proxy, method, path, &[]);
        assert_problem(&response, 405, "method_not_allowed");
        assert_eq!(response.head.one("allow"), Some(allowed));
    }
    for path in [
        "/admin/api/v2",
        "/admin/api/v1/",
        "/admin/x",
        "/admin/assets/",
        "/admin/assets/../prices.json",
        "/admin/prices.json",
        "/admin/assets/%2e%2e/prices.json",
        // no path that can be routed
        "/admin/<>",
        "/admin/api/v1/config\"",
    ] {
        assert_problem(&ask(&proxy, "GET", path, &[]), 404, "not_found");
    }
}

#[test]
fn a_head_is_answered_without_content() {
    let proxy = dashboard().start();
    let mut client = proxy.connect();
    for path in [
        "/admin",
        "/admin/api/v1/config",
        "/admin/api/v1/events",
        "/metrics",
    ] {
        client.send(request("HEAD", path, &[], ""));
        let response = client.read_response("HEAD");
        assert_eq!(response.status(), 200, "{path}");
    }
}

#[test]
fn files_come_compressed_and_only_when_they_changed() {
    let proxy = with_key().start();
    let whole = ask(&proxy, "GET", "/admin", &[]);
    assert_eq!(
        whole.head.one("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(whole.head.one("cache-control"), Some("no-cache"));
    let mut tags = vec![whole.head.one("etag").unwrap().to_owned()];
    for coding in ["br", "gzip"] {
        let accepts = ("Accept-Encoding", coding);
        let coded = ask(&proxy, "GET", "/admin/usage", &[accepts]);
        assert_eq!(coded.head.one("content-encoding"), Some(coding));
        assert_eq!(coded.head.one("vary"), Some("accept-encoding"));
        assert!(coded.content().len() < whole.content().len());
        let tag = coded.head.one("etag").unwrap();
        let again = ask(&proxy, "GET", "/admin", &[accepts, ("If-None-Match", tag)]);
        assert_eq!(again.status(), 304);
        assert_eq!(again.head.one("etag"), Some(tag));
        assert!(again.content().is_empty());
        assert_secure(&again);
        tags.push(tag.to_owned());
    }
    tags.dedup();
    assert_eq!(tags.len(), 3);
}

#[test]
fn a_browser_at_the_root_is_led_to_the_dashboard_and_nobody_else_is() {
    let upstream = Upstream::ok();
    let browser = [("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .start();
    let response = ask(&proxy, "GET", "/", &browser);
    assert_eq!(
        (response.status(), response.head.one("location")),
        (302, Some("/admin"))
    );
    for (method, target, fields) in [
        ("GET", "/", &[("Accept", "*/*")][..]),
        ("GET", "/", &[]),
        ("HEAD", "/", &browser),
        ("POST", "/", &browser),
        ("GET", "/x", &browser),
        ("GET", "/adminx", &browser),
        ("GET", "/%61dmin", &browser),
    ] {
        assert_eq!(ask(&proxy, method, target, fields).status(), 200);
        assert_eq!(upstream.request().0.target(), target);
    }
    let off = Proxy::to(upstream.url()).start();
    for (target, fields) in [("/", &browser[..]), ("/admin", &[]), ("/metrics", &[])] {
        assert_eq!(ask(&off, "GET", target, fields).status(), 200);
        assert_eq!(upstream.request().0.target(), target);
    }
    upstream.no_more();
}

/// Ways to ask for what is closed.
const DISGUISES: [&str; 14] = [
    "/admin/",
    "/admin//",
    "/admin/api/v1/config",
    "/admin/api/v1/config/",
    "/admin//api/v1/config",
    "/admin/api//v1/config",
    "/admin/api/v1/%63onfig",
    "/admin/api%2fv1/config",
    "/admin/./api/v1/config",
    "/admin/assets/../api/v1/config",
    "/admin/%2e%2e/v1/messages",
    "/admin/../v1/messages",
    "/admin?/api/v1/config",
    "/admin/api/v1/session/../config",
];

#[test]
fn no_disguise_opens_what_is_closed_or_goes_upstream() {
    let upstream = Upstream::ok();
    let at = |proxy: Proxy, addr: SocketAddr| (proxy, addr);
    let main = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let alone = Proxy::to(upstream.url())
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let (main_addr, alone_addr) = (main.addr(), alone.admin_addr());
    let proxies = [at(main, main_addr), at(alone, alone_addr)];
    for (_, addr) in &proxies {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "BREW"] {
            for target in DISGUISES {
                for target in [target.to_owned(), format!("http://localhost{target}")] {
                    let response = send(*addr, method, request(method, &target, &[], ""));
                    let what = format!("{method} {target}: {}", show(&response.head.octets));
                    let page = matches!(response.status(), 200 | 304)
                        && response.head.one("content-type") == Some("text/html; charset=utf-8");
                    let closed = matches!(response.status(), 401 | 404 | 405);
                    assert!(page || closed, "{what}");
                    assert_secure(&response);
                }
            }
        }
        let upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")];
        let target = format!("{API}/events");
        let response = send(*addr, "GET", request("GET", &target, &upgrade, ""));
        assert_problem(&response, 401, "unauthorized");
        let health = send(*addr, "GET", request("GET", "/health", &[], ""));
        assert_eq!(health.status(), 200);
    }
    upstream.no_more();
    // where there is no dashboard, all of it is the upstream's, as it came
    let off = Proxy::to(upstream.url()).start();
    for method in ["GET", "OPTIONS", "POST", "BREW"] {
        for target in DISGUISES {
            assert_eq!(ask(&off, method, target, &[]).status(), 200);
            let (head, _) = upstream.request();
            assert_eq!((head.method(), head.target()), (method, target));
        }
    }
}

#[test]
fn the_admin_listener_has_the_admin_plane_alone_and_is_its_only_place() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let admin = proxy.admin_addr();
    let get = |target: &str, fields: &[(&str, &str)]| {
        send(admin, "GET", request("GET", target, fields, ""))
    };
    for path in ["/admin", "/health", "/livez", "/readyz"] {
        assert_eq!(get(path, &[]).status(), 200, "{path}");
    }
    // to anybody here; without metrics there is nothing to tell yet
    assert_eq!(get("/metrics", &[]).status(), 200);
    assert_problem(&get("/admin/api/v1/config", &[]), 401, "unauthorized");
    let config = get("/admin/api/v1/config", &Caller::Right.fields());
    assert_eq!(config.status(), 200);
    assert_eq!(get("/", &[("Accept", "text/html")]).status(), 302);
    for path in ["/", "/v1/models", "/v1/messages", "/adminx", "/a\"b"] {
        assert_problem(&get(path, &[]), 404, "not_found");
    }
    let posted = send(admin, "POST", request("POST", "/health", &[], ""));
    assert_problem(&posted, 405, "method_not_allowed");
    // what is the dashboard's elsewhere is not the upstream's here
    for path in ["/admin", "/admin/", "/admin/api/v1/config", "/admin/<>"] {
        for method in ["GET", "POST"] {
            assert_problem(&ask(&proxy, method, path, &[]), 404, "not_found");
        }
    }
    upstream.no_more();
    for path in ["/metrics", "/adminx", "/v1/admin"] {
        assert_eq!(ask(&proxy, "GET", path, &[]).status(), 200);
        assert_eq!(upstream.request().0.target(), path);
    }
}

#[test]
fn metrics_are_public_only_where_that_is_said() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", true)
        .start();
    let fields = [("Host", "proxy.test")];
    assert_eq!(ask(&proxy, "GET", "/metrics", &fields).status(), 200);
    upstream.no_more();
    assert_eq!(ask(&proxy, "POST", "/metrics", &fields).status(), 200);
    assert_eq!(upstream.request().0.target(), "/metrics");
    let keyed = with_key().start();
    assert_problem(
        &ask(&keyed, "GET", "/metrics", &fields),
        401,
        "unauthorized",
    );
}

#[test]
fn settings_are_shown_with_their_origins_and_secrets_are_not() {
    let proxy = dashboard()
        .env("DASHBOARD_API_KEY", KEY)
        .env("UPSTREAM_API_KEYS", "canary-of-the-tests")
        .file("env/.env", "# a line\nWORKERS=1\nDATA_DIR=data\n")
        .start();
    let config = || {
        json(&ask(
            &proxy,
            "GET",
            &format!("{API}/config"),
            &Caller::Right.fields(),
        ))
    };
    let setting = |config: &Value, name: &str| -> Value {
        let settings = config["settings"].as_array().unwrap();
        settings
            .iter()
            .find(|it| it["name"] == name)
            .unwrap()
            .clone()
    };
    let first = config();
    let workers = setting(&first, "WORKERS");
    assert_eq!(workers["value"], "1");
    assert_eq!(workers["origin"], "env/.env line 2");
    assert_eq!(workers["applies"], "restart");
    assert_eq!(workers["section"], "Server");
    assert_eq!(setting(&first, "HOST")["origin"], "default");
    let before = setting(&first, "DATA_DIR")["value"].clone();
    assert_eq!(before, "data");
    assert_eq!(setting(&first, "ADMIN_LISTEN")["value"], Value::Null);
    let key = setting(&first, "DASHBOARD_API_KEY");
    assert_eq!(
        (&key["value"], &key["secret"]),
        (&"(18 octets)".into(), &true.into())
    );
    assert!(!first.to_string().contains("canary") && !first.to_string().contains(KEY));
    assert_eq!(first["last_reload"], Value::Null);
    assert_eq!(
        first["proxy_urls"],
        serde_json::json!([format!("http://{}", proxy.addr())])
    );
    for setting in first["settings"].as_array().unwrap() {
        assert_eq!(setting["next"], Value::Null, "{setting}");
    }

    proxy.write("env/.env", "WORKERS=2\nDEBUG_MODE=true\n");
    let end = Instant::now() + DEADLINE;
    let second = loop {
        let config = config();
        if config["last_reload"] != Value::Null {
            break config;
        }
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(second["last_reload"]["ok"], true);
    assert_eq!(
        second["pending_restart"],
        serde_json::json!(["WORKERS", "DATA_DIR"])
    );
    let debug = setting(&second, "DEBUG_MODE");
    assert_eq!(debug["origin"], "env/.env line 2");
    assert_eq!(
        (&debug["value"], &debug["next"]),
        (&"true".into(), &Value::Null)
    );
    let workers = setting(&second, "WORKERS");
    // what is in effect, and what waits
    assert_eq!(
        (&workers["value"], &workers["next"]),
        (&"1".into(), &"2".into())
    );
    assert_eq!(workers["origin"], "env/.env line 2");
    let data_dir = setting(&second, "DATA_DIR");
    assert_eq!(
        (&data_dir["value"], &data_dir["next"]),
        (&before, &"".into())
    );

    proxy.write("env/.env", "WORKERS=none\n");
    let end = Instant::now() + DEADLINE;
    let third = loop {
        let config = config();
        if config["last_reload"]["ok"] == false {
            break config;
        }
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(20));
    };
    let fault = third["last_reload"]["faults"][0].as_str().unwrap();
    assert!(fault.starts_with("WORKERS"), "{fault}");
    // what is in effect, and what waits, is what was
    assert_eq!(setting(&third, "WORKERS"), workers);
}

/// Reads events until one is a tick, and gives its data.
fn tick(mut read: impl FnMut() -> Vec<u8>) -> Value {
    let mut text = String::new();
    loop {
        text += &String::from_utf8(read()).unwrap();
        let mut events = text.split("\n\n");
        let tick = events.find_map(|event| event.strip_prefix("event: tick\ndata: "));
        if let Some(tick) = tick.filter(|_| text.ends_with("\n\n")) {
            return serde_json::from_str(tick).unwrap();
        }
    }
}

#[test]
fn events_come_once_a_second_and_end_with_the_drain() {
    let proxy = dashboard().start();
    let mut client = proxy.connect();
    client.send(request("GET", &format!("{API}/events"), &[], ""));
    let head = client.read_response_head();
    assert_eq!(head.one("content-type"), Some("text/event-stream"));
    assert_eq!(head.one("cache-control"), Some("no-store"));
    // at once: how long to wait before the next try
    assert_eq!(client.read_chunk(), b"retry: 2000\n\n");
    let overview = json(&ask(&proxy, "GET", &format!("{API}/overview"), &[]));
    for _ in 0..2 {
        let tick = tick(|| client.read_chunk());
        assert!(tick["now"].is_u64());
        assert_eq!(tick["boot_id"], overview["boot_id"]);
    }
    let began = Instant::now();
    proxy.signal("TERM");
    assert!(matches!(client.read_chunked(), Body::Chunked(_)));
    assert_eq!(client.read_to_end().1, End::Fin);
    assert_eq!(proxy.wait().code, Some(0));
    assert_prompt(began, Duration::from_secs(5));
}

#[test]
fn sixty_four_listen_and_no_more() {
    let proxy = dashboard().env("WORKERS", 1).start();
    let listen = || {
        let mut client = proxy.connect();
        client.send(request("GET", &format!("{API}/events"), &[], ""));
        let head = client.read_response_head();
        (client, head)
    };
    let mut listeners: Vec<_> = (0..64).map(|_| listen()).collect();
    assert!(listeners.iter().all(|(_, head)| head.status() == 200));
    let (mut client, head) = listen();
    let body = client.read_response_body("GET", &head);
    assert_problem(&Response { head, body }, 503, "unavailable");
    // a place becomes free with its connection
    listeners.pop();
    let end = Instant::now() + DEADLINE;
    while listen().1.status() != 200 {
        assert!(Instant::now() < end, "the place is not free");
    }
}

#[test]
fn http2_has_all_of_it() {
    let pair = Pair::new();
    let proxy = pair.served(with_key()).start();
    let mut client = Client::over_tls(&pair, proxy.tls_addr());
    let mut login = h2::request("POST", &format!("{API}/session"));
    let field = |text: &str| http::HeaderValue::from_str(text).unwrap();
    login
        .headers_mut()
        .insert("content-type", field("application/json"));
    let response = client.post(login, format!("{{\"key\":\"{KEY}\"}}").as_bytes());
    let answer = client.answer(response);
    assert_eq!(answer.status(), 204);
    let cookie = String::from_utf8(answer.all("set-cookie")[0].to_vec()).unwrap();
    assert!(
        cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    let session = cookie.split(';').next().unwrap();
    let with_session = |target: &str| {
        let mut request = h2::request("GET", target);
        request.headers_mut().append("cookie", field("theme=dark"));
        request.headers_mut().append("cookie", field(session));
        request
    };
    let (response, _) = client.send(with_session(&format!("{API}/config")), true);
    assert_eq!(client.answer(response).status(), 200);
    let response = client.get(&format!("{API}/config"));
    assert_eq!(client.answer(response).status(), 401);
    let (response, _) = client.send(h2::request("HEAD", "/admin"), true);
    assert_eq!(client.answer(response).status(), 200);

    let (response, _) = client.send(with_session(&format!("{API}/events")), true);
    let mut body = client.head(response).into_body();
    assert_eq!(
        client.chunk(&mut body),
        Bytes::from_static(b"retry: 2000\n\n")
    );
    assert!(tick(|| client.chunk(&mut body).to_vec())["now"].is_u64());
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_dashboard_without_a_key_is_warned_of() {
    let open = dashboard().env("HOST", "0.0.0.0").start();
    open.wait_for_line(|line| line.contains("[Admin] the network reaches the dashboard"));
    let local = dashboard().start();
    local.wait_for_line(|line| line.contains("[Admin] DASHBOARD_API_KEY is not set"));
    assert!(local.stderr().contains("behind a reverse proxy, set one"));
    assert!(!local.stderr().contains("reaches the dashboard"));
    let keyed = with_key().env("HOST", "0.0.0.0").start();
    assert_eq!(ask(&keyed, "GET", "/livez", &[]).status(), 200);
    assert!(!keyed.stderr().contains("reaches the dashboard"));
    assert!(!keyed.stderr().contains("is not set"));
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_nobody_s_without_a_key() {
    let over_unix = |builder: ProxyBuilder, fields: &[(&str, &str)]| {
        let builder = builder.env("PORT", "0");
        let path = builder.path("admin.sock");
        let proxy = builder.env("UNIX_SOCKET", path.display()).start();
        let mut client = Wire::new(std::os::unix::net::UnixStream::connect(&path).unwrap());
        client.send(request("GET", &format!("{API}/config"), fields, ""));
        let response = client.read_response("GET");
        drop(proxy);
        (response, path)
    };
    // what asks there is a reverse proxy more often than not
    assert_problem(&over_unix(dashboard(), &[]).0, 403, "forbidden");
    assert_problem(&over_unix(with_key(), &[]).0, 401, "unauthorized");
    let (response, path) = over_unix(with_key(), &Caller::Right.fields());
    assert_eq!(response.status(), 200);
    let urls = json(&response)["proxy_urls"].clone();
    let unix = format!("unix:{}", path.display());
    assert_eq!(urls[1], unix.as_str(), "{urls}");
}

#[test]
fn data_have_the_shapes_of_the_description() {
    let proxy = dashboard().start();
    let get = |path: &str| json(&ask(&proxy, "GET", &format!("{API}/{path}"), &[]));
    for (path, keys) in [
        (
            "overview?range=5m",
            "boot_id connections in_flight lost now paths prices_date range reloads series started_at \
             step_ms today totals updated_at upstreams uptime_ms version",
        ),
        ("requests?limit=1", "items next_before total"),
        ("errors?range=7d", "groups items kept since"),
        ("usage?range=30d&by=day", "not_priced prices_date rows"),
        ("usage.json", "not_priced prices_date rows"),
        ("upstreams", "items"),
        ("config", "last_reload pending_restart proxy_urls settings"),
    ] {
        let content = get(path);
        let mut found: Vec<_> = content.as_object().unwrap().keys().cloned().collect();
        found.sort();
        assert_eq!(found.join(" "), keys, "{path}");
    }
    let overview = get("overview?range=5m");
    assert_eq!(overview["range"], "5m");
    assert_eq!(overview["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        overview["upstreams"],
        serde_json::json!([{
            "name": "http://127.0.0.1:9", "url": "http://127.0.0.1:9",
            "circuit": "unknown", "failures": 0, "failures_to_open": 5
        }])
    );
    let upstream = &get("upstreams")["items"][0];
    assert_eq!(
        (&upstream["http"], &upstream["own_key"]),
        (&"1.1".into(), &false.into())
    );
    let csv = ask(&proxy, "GET", &format!("{API}/usage.csv?by=day"), &[]);
    assert_eq!(
        csv.head.one("content-type"),
        Some("text/csv; charset=utf-8")
    );
    assert_eq!(
        csv.head.one("content-disposition"),
        Some("attachment; filename=\"usage-24h-by-day.csv\"")
    );
    assert!(csv.content().starts_with(b"key,requests,input,output,"));
}

#[test]
fn the_description_names_events_metrics_and_refusals() {
    let proxy = dashboard().start();
    let document = json(&ask(&proxy, "GET", &format!("{API}/openapi.json"), &[]));
    let events = &document["paths"][&format!("{API}/events")]["get"];
    let name = events["x-events"]["tick"]["$ref"].as_str().unwrap();
    let schema = document.pointer(name.strip_prefix('#').unwrap()).unwrap();
    assert!(schema.to_string().contains("boot_id"), "{schema}");
    let metrics = &document["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
    assert!(metrics["application/openmetrics-text"].is_object());
    assert!(metrics["text/plain"].is_object());
    let mut names = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["responses"]["405"].is_object(), "{method} {path}");
            names.push(operation["operationId"].to_string());
        }
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
    // what is referred to is there
    let mut pending = vec![&document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(name)) = map.get("$ref") {
                    let pointer = name.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{name}");
                }
                pending.extend(map.values());
            }
            Value::Array(values) => pending.extend(values),
            _ => {}
        }
    }
}

#[test]
fn queries_that_cannot_be_meant_are_refused_with_a_code() {
    let proxy = dashboard().start();
    let long = "x".repeat(257);
    for (query, code) in [
        ("overview?range=8d", "bad_range"),
        ("overview?range=5m&range=5m", "bad_request"),
        ("errors?range=", "bad_range"),
        ("usage?range=5m", "bad_range"),
        ("usage.csv?by=key", "bad_filter"),
        ("requests?limit=0", "bad_filter"),
        ("requests?limit=many", "bad_request"),
        ("requests?status=teapot", "bad_filter"),
        ("requests?status=6xx", "bad_filter"),
        (&format!("requests?q={long}"), "bad_filter"),
        ("requests?sort=at", "bad_request"),
        ("requests/req_x?a=b", "bad_request"),
        ("config?x=1", "bad_request"),
        ("events?x=1", "bad_request"),
    ] {
        let response = ask(&proxy, "GET", &format!("{API}/{query}"), &[]);
        assert_problem(&response, 400, code);
    }
}

/// A browser that opens a page which does not exist gets the dashboard, which says so; programs get JSON.
#[test]
fn a_page_that_does_not_exist_is_told_in_the_dashboard() {
    const HTML: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let browser = [
        HTML,
        ("Sec-Fetch-Dest", "document"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "none"),
    ];
    let proxy = with_key().start();
    for path in [
        "/admin/nowhere",
        "/admin/requests/",
        "/admin/requests/req_x",
        "/admin//requests",
        "/admin/apis",
    ] {
        let response = ask(&proxy, "GET", path, &browser);
        let head = &response.head;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(head.one("content-type"), Some("text/html; charset=utf-8"));
        assert!(show(response.content()).contains("<div id=\"app\">"));
        assert_secure(&response);
        // it is no page that the tag of another one could stand for
        assert!(!head.has("etag"), "{path}");
        let response = ask(&proxy, "HEAD", path, &browser);
        assert_eq!((response.status(), response.content().len()), (404, 0));
        // programs do not ask for HTML
        assert_problem(&ask(&proxy, "GET", path, &[]), 401, "unauthorized");
        assert_problem(&ask(&proxy, "POST", path, &browser), 401, "unauthorized");
    }
    // what is no page is none for browsers either
    for path in [
        "/admin/api/v1/nowhere",
        "/admin/api",
        "/admin/grafana/x.json",
    ] {
        assert_problem(&ask(&proxy, "GET", path, &browser), 401, "unauthorized");
    }
    assert_problem(
        &ask(&proxy, "GET", "/admin/assets/nowhere.js", &browser),
        404,
        "not_found",
    );
}
