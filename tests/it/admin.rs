//! The admin plane: who may read what, sessions, files, events, and where it is to be found.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{Proxy, ProxyBuilder, Response, Wire, wire::show};

mod answers;
mod keys;
mod roles;

const KEY: &str = "a-key-of-the-tests";

/// The field that shows [`KEY`].
const RIGHT: [(&str, &str); 1] = [("Authorization", "Bearer a-key-of-the-tests")];

const API: &str = "/admin/api/v1";

const COOKIE: &str = "anthropic_proxy_session=";

const PAGES: [&str; 14] = [
    "/admin",
    "/admin/",
    "/admin/requests",
    "/admin/sessions",
    "/admin/errors",
    "/admin/usage",
    "/admin/spend",
    "/admin/keys",
    "/admin/audit",
    "/admin/upstreams",
    "/admin/doctor",
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

/// The key that the start line has.
fn generated_key(proxy: &Proxy) -> String {
    let line = proxy.wait_for_line(|line| line.contains("#key="));
    let (_, key) = line.rsplit_once("#key=").unwrap();
    assert!(key.len() == 64 && key.bytes().all(|it| it.is_ascii_hexdigit()));
    key.to_owned()
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
            routes.push((
                method.to_uppercase(),
                path.replace("{id}", "req_x").replace("{subject}", "org"),
            ));
        }
    }
    assert!(routes.len() > 25, "{routes:?}");
    routes
}

/// What a route answers to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Who shows no key, on this machine.
    Nobody,
    /// ... through a reverse proxy.
    NobodyForwarded,
    /// Who shows another key.
    Wrong,
    /// Who shows it.
    Right,
    /// ... by another name, which is no other site's.
    RightRebound,
    /// ... for a page of another site.
    RightCrossOrigin,
    /// ... for a page of another port.
    RightSameSite,
}

impl Caller {
    const ALL: [Self; 7] = [
        Self::Nobody,
        Self::NobodyForwarded,
        Self::Wrong,
        Self::Right,
        Self::RightRebound,
        Self::RightCrossOrigin,
        Self::RightSameSite,
    ];

    fn fields(self, right: &str) -> Vec<(&'static str, &str)> {
        let right = ("Authorization", right);
        match self {
            Self::Nobody => vec![],
            Self::NobodyForwarded => vec![("X-Forwarded-For", "127.0.0.1")],
            Self::Wrong => vec![("Authorization", "Bearer a-key-of-others")],
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
        // without content
        let is_end = path == "/admin/api/v1/requests/req_x/end"
            || (path == "/admin/api/v1/doctor" && method == "POST");
        let is_change = path.starts_with("/admin/api/v1/config") && method != "GET";
        // there is no DATA_DIR
        let is_keyed = ["/keys", "/limits", "/spend", "/audit"].iter().any(|it| {
            let rest = path.strip_prefix(API);
            rest.is_some_and(|rest| rest.starts_with(it))
        });
        let is_nothing = matches!(
            path,
            "/admin/grafana/x.json"
                | "/admin/other"
                | "/admin/api/v1"
                | "/admin/api/v1/requests/req_x"
                | "/admin/api/v1/config/history/req_x"
                | "/admin/api/v1/sessions/req_x"
        );
        match self {
            Self::RightCrossOrigin => &[403],
            Self::RightSameSite if is_page => &[200],
            Self::RightSameSite => &[403],
            // they have no data
            _ if is_status || is_page => &[200],
            // it has no content
            _ if is_login => &[400],
            _ if is_logout => &[204],
            Self::Nobody | Self::NobodyForwarded => &[401],
            Self::Wrong => &[401, 429],
            Self::Right | Self::RightRebound if is_end || is_change => &[400],
            Self::Right | Self::RightRebound if is_keyed => &[400, 503],
            Self::Right | Self::RightRebound if is_nothing => &[404],
            Self::Right | Self::RightRebound => &[200],
        }
    }
}

#[test]
fn every_route_is_closed_to_those_who_may_not() {
    let configured = with_key().start();
    let generated = dashboard().start();
    let key = generated_key(&generated);
    for (proxy, key) in [(&configured, KEY), (&generated, &key)] {
        let right = format!("Bearer {key}");
        // this shows the key once: the wrong keys below close nobody out who has shown it
        let routes = routes(proxy, &Caller::Right.fields(&right));
        for caller in Caller::ALL {
            for (method, path) in &routes {
                let expected = caller.expected(method, path);
                let mut client = proxy.connect();
                client.send(request(method, path, &caller.fields(&right), ""));
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
