//! What web pages, and the upstream through them, cannot reach: the dashboard's origin, its session and
//! key, and the operator's credentials.

use std::net::{SocketAddr, TcpStream};

use crate::support::{
    Proxy, Response, Upstream, Wire,
    h2::{self, Client},
    wire::show,
};

const KEY: &str = "a-key-of-the-tests";
const CHROME: (&str, &str) = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/140");

fn send(addr: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: {addr}\r\n");
    }
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    let mut client = Wire::tcp(TcpStream::connect(addr).unwrap());
    client.send(head + "\r\n");
    client.read_response(method)
}

/// The same over HTTP/2: status, label of the error, content.
fn send_h2(
    client: &mut Client,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> (u16, Option<String>, String) {
    let mut request = h2::request(method, target);
    for (name, value) in fields {
        let name: http::HeaderName = name.to_ascii_lowercase().parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let (response, _) = client.send(request, true);
    let answer = client.answer(response);
    let label = answer.all("x-proxy-error").first().map(|it| {
        let label: &[u8] = it;
        show(label).to_string()
    });
    (answer.status(), label, show(&answer.content).to_string())
}

fn label(response: &Response) -> Option<&str> {
    response.head.one("x-proxy-error")
}

/// What browsers load only to run it.
const RUN: [&[(&str, &str)]; 9] = [
    &[
        ("Sec-Fetch-Dest", "document"),
        ("Sec-Fetch-Mode", "navigate"),
    ],
    &[("Sec-Fetch-Dest", "iframe")],
    &[("Sec-Fetch-Dest", "object")],
    &[("Sec-Fetch-Dest", "script")],
    &[("Sec-Fetch-Dest", "worker")],
    &[("Sec-Fetch-Dest", "sharedworker")],
    &[
        ("Sec-Fetch-Dest", "serviceworker"),
        ("Service-Worker", "script"),
    ],
    // they say nothing of the destination in clear to another machine
    &[("Service-Worker", "script")],
    &[CHROME, ("Accept", "text/html,*/*;q=0.8")],
];

#[test]
fn nothing_of_the_upstream_runs_on_the_dashboards_origin() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .env("H2C", true)
        .start();
    let mut h2 = Client::connect(&proxy);
    for fields in RUN {
        for (method, target) in [
            ("GET", "/any/path"),
            ("GET", "/sw.js"),
            ("POST", "/health"),
            ("POST", "/metrics"),
            ("GET", "/v1/models"),
            ("GET", "/adminx"),
        ] {
            let response = send(proxy.addr(), method, target, fields);
            let what = format!("{method} {target} {fields:?}");
            assert_eq!(response.status(), 403, "{what}");
            assert_eq!(label(&response), Some("dashboard_origin"), "{what}");
            let head = &response.head;
            assert_eq!(head.one("content-type"), Some("text/html; charset=utf-8"));
            let policy = head.one("content-security-policy").unwrap();
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors"));
            assert_eq!(head.one("x-content-type-options"), Some("nosniff"));
            let page = show(response.content()).to_string();
            assert!(page.contains("ADMIN_LISTEN"), "{page}");

            let (status, label, content) = send_h2(&mut h2, method, target, fields);
            assert_eq!(status, 403, "{what}");
            assert_eq!(label.as_deref(), Some("dashboard_origin"), "{what}");
            assert!(content.contains("ADMIN_LISTEN"), "{content}");
        }
    }
    // an upgrade is no way around it
    let upgrade = [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-Fetch-Dest", "document"),
    ];
    assert_eq!(send(proxy.addr(), "GET", "/ws", &upgrade).status(), 403);
    upstream.no_more();
    // our own pages are for browsers, and data is for their scripts
    for path in ["/admin", "/admin/requests", "/health"] {
        assert_eq!(send(proxy.addr(), "GET", path, RUN[0]).status(), 200);
    }
    for fields in [
        &[][..],
        &[CHROME, ("Sec-Fetch-Dest", "empty"), ("Accept", "text/html")],
        &[CHROME, ("Sec-Fetch-Dest", "image")],
        &[CHROME, ("Accept", "*/*")],
        &[("Accept", "text/html")],
    ] {
        let response = send(proxy.addr(), "GET", "/any/path", fields);
        assert_eq!(response.status(), 200, "{fields:?}");
        upstream.request();
    }
    proxy.wait_for_line(|line| line.contains("ended=client:dashboard_origin"));
}

#[test]
fn where_the_dashboard_is_not_served_browsers_are_clients_like_others() {
    let upstream = Upstream::ok();
    let off = Proxy::to(upstream.url()).start();
    // another port is another origin, and forwards nothing
    let alone = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .start();
    for proxy in [&off, &alone] {
        for fields in RUN {
            let response = send(proxy.addr(), "GET", "/any/path", fields);
            assert_eq!(response.status(), 200, "{fields:?}");
            upstream.request();
        }
    }
    for fields in RUN {
        let response = send(alone.admin_addr(), "GET", "/any/path", fields);
        assert_eq!(response.status(), 404, "{fields:?}");
    }
    upstream.no_more();
}

#[test]
fn the_icon_that_a_browser_asks_for_is_not_asked_of_the_upstream() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .start();
    for fields in [
        &[("Sec-Fetch-Dest", "image")][..],
        &[CHROME],
        &[
            CHROME,
            ("Sec-Fetch-Dest", "document"),
            ("Accept", "text/html"),
        ],
    ] {
        let response = send(proxy.addr(), "GET", "/favicon.ico", fields);
        assert_eq!(response.status(), 200);
        assert_eq!(response.head.one("content-type"), Some("image/svg+xml"));
        assert!(show(response.content()).to_string().contains("<svg"));
        assert!(response.head.has("content-security-policy"));
    }
    upstream.no_more();
    let other = [("User-Agent", "curl/8.5.0")];
    assert_eq!(
        send(proxy.addr(), "GET", "/favicon.ico", &other).content(),
        b"ok"
    );
    upstream.request();
    let off = Proxy::to(upstream.url()).start();
    assert_eq!(
        send(off.addr(), "GET", "/favicon.ico", &[CHROME]).content(),
        b"ok"
    );
    upstream.request();
}
