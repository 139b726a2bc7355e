//! The admin plane: who may read what, sessions, files, events, and where it is to be found.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{Proxy, ProxyBuilder, Response, Wire, wire::show};

mod answers;
mod keys;

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
