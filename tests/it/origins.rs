//! What web pages, and the upstream through them, cannot reach: the dashboard's origin, its session and
//! key, and the operator's credentials.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    DEADLINE, Proxy, Response, Upstream, Wire,
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

/// Paths that miss one of ours by little, with the methods that are not answered there.
const NEAR_MISSES: [(&str, &str); 9] = [
    ("GET", "/ADMIN"),
    ("GET", "//admin"),
    ("GET", "/%61dmin/api/v1/config"),
    ("GET", "/v1/../admin/api/v1/config"),
    ("GET", "/%2e/admin"),
    ("POST", "/metrics"),
    ("GET", "/metrics/"),
    ("GET", "/Metrics"),
    ("GET", "/metric"),
];

#[test]
fn near_misses_with_our_key_or_session_are_not_forwarded() {
    let upstream = Upstream::ok();
    let with = |name: &str, value: &str| {
        Proxy::to(upstream.url())
            .env(name, value)
            .env("DASHBOARD_API_KEY", KEY)
            .env("H2C", true)
            .start()
    };
    let bearer = format!("Bearer {KEY}");
    let session = format!("theme=dark; anthropic_proxy_session={}", "0".repeat(64));
    let credentials = [
        ("Authorization", bearer.as_str()),
        ("Authorization", KEY),
        ("X-Api-Key", KEY),
        ("Cookie", &session),
    ];
    for proxy in [
        with("ENABLE_DASHBOARD", "true"),
        with("ADMIN_LISTEN", "127.0.0.1:0"),
    ] {
        let mut h2 = Client::connect(&proxy);
        for (method, target) in NEAR_MISSES {
            for field in credentials {
                let response = send(proxy.addr(), method, target, &[field]);
                let what = format!("{method} {target} {field:?}");
                // more keys than may be tried
                assert!(matches!(response.status(), 404 | 429), "{what}");
                assert_eq!(label(&response), None, "{what}");
                assert_eq!(response.head.one("content-type"), Some("application/json"));
                let (status, ..) = send_h2(&mut h2, method, target, &[field]);
                assert!(matches!(status, 404 | 429), "{what}");
            }
        }
        upstream.no_more();
        // with anything else, or nothing, they are the upstream's
        for (method, target) in NEAR_MISSES {
            let response = send(proxy.addr(), method, target, &[("Cookie", "theme=dark")]);
            assert_eq!(response.status(), 200, "{method} {target}");
            assert_eq!(upstream.request().0.target(), target);
        }
    }
    let off = with("ENABLE_DASHBOARD", "false");
    send(off.addr(), "GET", "/ADMIN", &[credentials[0]]);
    upstream.request();
}

#[test]
fn a_near_miss_tells_no_more_of_a_key_than_a_login() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let ask = |key: &str| {
        let bearer = format!("Bearer {key}");
        send(proxy.addr(), "GET", "/ADMIN", &[("Authorization", &bearer)]).status()
    };
    for _ in 0..10 {
        assert_eq!(ask("a-key-of-the-upstream"), 200);
        upstream.request();
    }
    assert_eq!(ask("a-key-of-the-upstream"), 429);
    assert_eq!(ask(KEY), 429);
    upstream.no_more();
    // and it uses up no login
    let config = [("Authorization", "Bearer a-key-of-the-tests")];
    let response = send(proxy.addr(), "GET", "/admin/api/v1/config", &config);
    assert_eq!(response.status(), 200);
}

#[test]
fn our_session_is_taken_out_of_what_is_forwarded_and_nothing_else() {
    let upstream = Upstream::ok();
    let session = format!("anthropic_proxy_session={}", "0".repeat(64));
    for name in ["ENABLE_DASHBOARD", "METRICS_PUBLIC"] {
        let proxy = Proxy::to(upstream.url())
            .env(name, true)
            .env("H2C", true)
            .start();
        for (cookie, expected) in [
            ("a=1; b=\"2 3\";c".to_owned(), Some("a=1; b=\"2 3\";c")),
            (session.clone(), None),
            (format!("a=1;  {session}; b=2"), Some("a=1; b=2")),
            (format!("{session};a=1"), Some("a=1")),
            (format!("{session}; {session}; a"), Some("a")),
        ] {
            let response = send(proxy.addr(), "GET", "/v1/models", &[("Cookie", &cookie)]);
            assert_eq!(response.status(), 200);
            let (head, _) = upstream.request();
            assert_eq!(head.one("cookie"), expected, "{cookie}");
            assert!(!show(&head.octets).to_string().contains(&session));
        }
        let mut h2 = Client::connect(&proxy);
        let crumbs = [
            ("cookie", "a=1"),
            ("cookie", session.as_str()),
            ("cookie", "b=2"),
        ];
        send_h2(&mut h2, "GET", "/v1/models", &crumbs);
        let (head, _) = upstream.request();
        assert!(!show(&head.octets).to_string().contains(&session));
        assert_eq!(head.all("cookie").concat(), b"a=1; b=2");
    }
}

/// A proxy that adds a key of the operator's, by one of the ways.
fn with_key(upstream: &str) -> [Proxy; 2] {
    [
        Proxy::to(upstream).env("UPSTREAM_API_KEYS", "sk-operator"),
        Proxy::to(upstream).file(
            "env/.env.headers.json",
            r#"{"authorization":"Bearer operator"}"#,
        ),
    ]
    .map(|builder| {
        builder
            .env("H2C", true)
            .env(
                "ALLOWED_ORIGINS",
                "https://app.example, http://app.local:3000",
            )
            .start()
    })
}

#[test]
fn no_foreign_page_spends_the_operators_key() {
    let upstream = Upstream::ok();
    let preflight = ("Access-Control-Request-Method", "POST");
    for proxy in with_key(&upstream.url()) {
        let mut h2 = Client::connect(&proxy);
        for fields in [
            &[("Sec-Fetch-Site", "cross-site")][..],
            &[("Sec-Fetch-Site", "same-site")],
            &[("Origin", "https://evil.test")],
            &[("Origin", "null"), ("Sec-Fetch-Site", "cross-site")],
            &[("Origin", "https://app.example.evil.test")],
            &[("Origin", "http://app.example")],
            &[CHROME, ("Host", "evil.test:80")],
            &[
                CHROME,
                ("Host", "evil.test"),
                ("Origin", "http://evil.test"),
            ],
        ] {
            for method in ["POST", "GET", "OPTIONS"] {
                let mut fields = fields.to_vec();
                fields.extend((method == "OPTIONS").then_some(preflight));
                let response = send(proxy.addr(), method, "/v1/messages", &fields);
                let what = format!("{method} {fields:?}");
                assert_eq!(response.status(), 403, "{what}");
                assert_eq!(label(&response), Some("foreign_origin"), "{what}");
                assert!(!response.head.has("access-control-allow-origin"));
                let content = show(response.content()).to_string();
                assert!(
                    content.contains("ALLOWED_ORIGINS") && content.contains("permission_error")
                );
                if fields.iter().any(|(name, _)| *name == "Host") {
                    continue; // it is :authority there
                }
                let (status, label, _) = send_h2(&mut h2, method, "/v1/messages", &fields);
                assert_eq!(
                    (status, label.as_deref()),
                    (403, Some("foreign_origin")),
                    "{what}"
                );
            }
        }
        upstream.no_more();
        let own = format!("http://{}", proxy.addr());
        for fields in [
            &[][..],
            &[("Host", "proxy.example")],
            &[CHROME],
            &[CHROME, ("Origin", own.as_str())],
            &[("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")],
            &[("Sec-Fetch-Site", "none")],
            &[
                ("Origin", "https://app.example"),
                ("Sec-Fetch-Site", "cross-site"),
            ],
            &[("Origin", "http://app.local:3000"), preflight],
            &[
                CHROME,
                ("Host", "app.local:3000"),
                ("Origin", "http://app.local:3000"),
            ],
        ] {
            for method in ["GET", "OPTIONS"] {
                let response = send(proxy.addr(), method, "/v1/messages", fields);
                assert_eq!(response.status(), 200, "{method} {fields:?}");
                upstream.request();
            }
        }
        proxy.wait_for_line(|line| line.contains("ended=client:foreign_origin"));
    }
}

#[test]
fn a_key_in_the_path_of_the_upstream_is_not_spent_by_a_page() {
    let upstream = Upstream::ok();
    let url = format!("{}/k9x2aB7Qz41LmN8rT5vW", upstream.url());
    let proxy = Proxy::to(url).start();
    let foreign = [("Origin", "https://evil.test")];
    assert_eq!(
        send(proxy.addr(), "POST", "/v1/messages", &foreign).status(),
        403
    );
    assert_eq!(send(proxy.addr(), "GET", "/v1/models", &[]).status(), 200);
}

#[test]
fn where_the_client_brings_its_own_key_pages_are_clients_like_others() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .file("env/.env.headers.json", r#"{"user-agent":"claude-cli/2"}"#)
        .start();
    let foreign = [
        ("Origin", "https://evil.test"),
        ("Sec-Fetch-Site", "cross-site"),
    ];
    assert_eq!(
        send(proxy.addr(), "GET", "/v1/models", &foreign).status(),
        200
    );
    let (head, _) = upstream.request();
    assert_eq!(head.one("origin"), Some("https://evil.test"));
    // a reload that adds a key closes it at once, and one that allows the page opens it
    proxy.write("env/.env.headers.json", r#"{"x-api-key":"operator"}"#);
    until(|| send(proxy.addr(), "GET", "/v1/models", &foreign).status() == 403);
    proxy.write("env/.env", "ALLOWED_ORIGINS=*\n");
    until(|| send(proxy.addr(), "GET", "/v1/models", &foreign).status() == 200);
}

fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not in time");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn metrics_on_a_listener_of_this_machine_are_not_for_rebound_names() {
    let proxy = Proxy::to("http://127.0.0.1:9")
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let bearer = ("Authorization", "Bearer a-key-of-the-tests");
    for (fields, status) in [
        (&[][..], 200),
        (&[("Host", "localhost:8089")], 200),
        (&[("Host", "[::1]")], 200),
        (&[("Host", "evil.test")], 401),
        (&[("Host", "evil.test"), CHROME], 401),
        (&[("Host", "proxy.example"), bearer], 200),
        (&[("Origin", "http://evil.test")], 403),
        (&[("Sec-Fetch-Site", "cross-site")], 403),
    ] {
        let response = send(proxy.admin_addr(), "GET", "/metrics", fields);
        assert_eq!(response.status(), status, "{fields:?}");
    }
}

#[test]
fn an_error_is_ours_only_where_we_say_so() {
    let answer = "HTTP/1.1 502 Bad\r\nX-Proxy-Error: dns_error\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url()).env("H2C", true).start();
    let response = send(proxy.addr(), "GET", "/", &[]);
    assert_eq!((response.status(), response.content()), (502, &b"ok"[..]));
    assert_eq!(label(&response), None);
    assert_eq!(
        response.head.one("x-upstream-proxy-error"),
        Some("dns_error")
    );
    let (status, label, content) = send_h2(&mut Client::connect(&proxy), "GET", "/", &[]);
    assert_eq!((status, label, content.as_str()), (502, None, "ok"));
}
