//! No credential of an exchange is in anything that is shown or logged of it, however it is encoded.

use std::{
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose};

use crate::support::{Body, DEADLINE, Head, Proxy, ProxyBuilder, Upstream, wire::show};

/// Keys of many makers, and one that is short.
const KEYS: [&str; 14] = [
    "sk-ant-api03-AbCdEfGh12345678-IjKlMnOp_QrStUvWx-yz0123AA",
    "sk-proj-1a2b3c4d5e6f7g8h9i0j",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_MNOPQRST",
    "xoxb-123456789012-abcdefGHIJKL",
    "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "glpat-AbCdEfGhIjKlMnOpQrSt",
    "gsk_a1B2c3D4e5F6g7H8i9J0",
    "d41d8cd98f00b204e9800998ecf8427e",
    "123e4567-e89b-12d3-a456-426614174000",
    "0123abcd4567.ZyXwVuTs98",
    "k9x2y7",
];

/// A key as it is, and encoded for a URL, for HTML, in JSON, and in base64.
fn spellings(key: &str) -> Vec<String> {
    let all = |each: fn(u8) -> String| key.bytes().map(each).collect::<String>();
    let mut spellings = vec![
        key.to_owned(),
        all(|octet| format!("%{octet:02x}")),
        all(|octet| format!("&#{octet};")),
        all(|octet| format!("\\u{octet:04x}")),
    ];
    // shorter ones are too likely to be something else
    if key.len() >= 12 {
        for login in [key.to_owned(), format!("u:{key}"), format!("user:{key}")] {
            spellings.push(general_purpose::STANDARD.encode(&login));
            spellings.push(general_purpose::URL_SAFE_NO_PAD.encode(&login));
        }
    }
    spellings
}

/// Repeats the key of the request wherever an answer has something that may be shown.
fn echo(head: &Head, _: &Body) -> Vec<u8> {
    let key = head.one("x-the-key").unwrap();
    let spelt = spellings(key).join(" ");
    let fields = format!(
        "request-id: {key}\r\nanthropic-ratelimit-requests-remaining: {key}\r\nserver: x/{key}\r\n\
         via: 1.1 {}\r\n",
        spellings(key)[1]
    );
    let (status, content) = if head.one("x-scenario") == Some("error") {
        let message = serde_json::to_string(&spelt).unwrap();
        let content = format!(
            r#"{{"type":"error","error":{{"type":"{key}","message":{message}}},"key":"{key}"}}"#
        );
        ("401 Unauthorized", content)
    } else {
        let content = format!(
            r#"{{"type":"message","model":"{key}","stop_reason":"{key}","usage":{{"input_tokens":1,"output_tokens":1,"service_tier":"{key}"}}}}"#
        );
        ("200 OK", content)
    };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n{content}",
        content.len()
    )
    .into_bytes()
}

const DASHBOARD_KEY: &str = "a-key-of-the-tests";

fn observed(url: &str) -> ProxyBuilder {
    watched(Proxy::to(url))
}

fn watched(proxy: ProxyBuilder) -> ProxyBuilder {
    proxy
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", DASHBOARD_KEY)
        .env("ACCESS_LOG", "access.log")
        .env("RUST_LOG", "debug")
        .env("DEBUG_MODE", true)
}

/// What is logged and shown once these exchanges have ended.
fn everything(proxy: &Proxy, exchanges: usize) -> String {
    let get = |path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {DASHBOARD_KEY}\r\n\r\n"
        );
        let response = proxy.send(request);
        assert_eq!(response.status(), 200, "{path}");
        String::from_utf8(response.content().to_vec()).unwrap()
    };
    let end = Instant::now() + DEADLINE;
    let log = loop {
        let log = std::fs::read_to_string(proxy.path("access.log")).unwrap_or_default();
        let page: serde_json::Value =
            serde_json::from_str(&get("/admin/api/v1/requests?limit=100")).unwrap();
        let rows = page["items"].as_array().unwrap().clone();
        let is_done = rows.iter().all(|row| row["state"] == "done");
        if log.lines().count() == exchanges && rows.len() == exchanges && is_done {
            let ids = rows.iter().map(|row| row["id"].as_str().unwrap());
            let details = ids.map(|id| get(&format!("/admin/api/v1/requests/{id}")));
            break log + &details.collect::<String>();
        }
        assert!(Instant::now() < end, "not in time: {log}");
        thread::sleep(Duration::from_millis(20));
    };
    let shown: String = [
        "/admin/api/v1/requests?limit=100",
        "/admin/api/v1/errors",
        "/admin/api/v1/overview",
        "/admin/api/v1/usage",
        "/admin/api/v1/usage.csv",
        "/admin/api/v1/upstreams",
        "/admin/api/v1/config",
        "/metrics",
    ]
    .map(get)
    .concat();
    assert!(
        shown.contains("input_tokens") || shown.contains("\"input\":"),
        "{shown}"
    );
    log + &shown + &proxy.stderr()
}

#[track_caller]
fn assert_hidden(said: &str, key: &str, what: &str) {
    for spelling in spellings(key) {
        // as it is, or in a string of JSON
        for spelling in [spelling.replace('\\', "\\\\"), spelling] {
            let found = said.find(&spelling).map(|at| {
                let from = (0..=at.saturating_sub(120))
                    .rev()
                    .find(|it| said.is_char_boundary(*it));
                &said[from.unwrap_or_default()..at + spelling.len()]
            });
            assert_eq!(found, None, "{what}: {spelling}");
        }
    }
}

fn message(target: &str, scenario: &str, key: &str, fields: &str) -> String {
    let content = format!(r#"{{"model":"{key}","max_tokens":1}}"#);
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nx-the-key: {key}\r\nx-scenario: {scenario}\r\n\
         x-claude-code-session-id: {key}\r\nuser-agent: curl {key}\r\n{fields}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{content}",
        content.len()
    )
}

#[test]
fn a_key_of_the_request_is_hidden_wherever_it_stands() {
    let upstream = Upstream::answering(echo);
    let proxy = observed(&upstream.url()).start();
    let mut sent = 0;
    for (at, key) in KEYS.into_iter().enumerate() {
        let basic = general_purpose::STANDARD.encode(format!("user:{key}"));
        let field = match at % 6 {
            0 => format!(
                "authorization: Bearer {key}\r\nx-api-key: other-key\r\nx-api-key: {key}\r\n"
            ),
            1 => format!("api-key: {key}\r\n"),
            2 => format!("x-goog-api-key: {key}\r\n"),
            3 => format!("cookie: theme=dark; session={key}xxxx{key}\r\nx-api-key: {key}\r\n"),
            4 => format!("authorization: Basic {basic}\r\n"),
            _ => format!("X-Custom-Token: {key}\r\n"),
        };
        for (target, scenario) in [
            ("/v1/messages".to_owned(), "success"),
            (format!("/v1/messages?key={key}"), "error"),
            (format!("/gw/{key}/v1/x"), "error"),
        ] {
            proxy.send(message(&target, scenario, key, &field));
            let (head, _) = upstream.request();
            assert_eq!(head.target(), target);
            sent += 1;
        }
    }
    let said = everything(&proxy, sent);
    for key in KEYS {
        assert_hidden(&said, key, "of the request");
    }
    assert!(said.contains("/gw/…/v1/x"), "the path is masked, not gone");
}

#[test]
fn a_key_that_we_add_is_hidden_wherever_it_stands() {
    let upstream = Upstream::answering(echo);
    for (at, key) in KEYS.into_iter().enumerate() {
        let proxy = match at % 3 {
            0 => observed(&upstream.url()).env("UPSTREAM_API_KEYS", key),
            1 => observed(&upstream.url()).file(
                "env/.env.headers.json",
                format!(r#"{{"x-gateway-secret":"{key}"}}"#),
            ),
            _ => observed(&format!("{}/gw/{key}/v1", upstream.url())),
        };
        let proxy = proxy.start();
        for scenario in ["success", "error"] {
            proxy.send(message("/v1/messages", scenario, key, ""));
            let (head, _) = upstream.request();
            assert!(head.target().ends_with("/v1/messages"));
            assert!(show(&head.octets).contains(key));
        }
        assert_hidden(&everything(&proxy, 2), key, "of ours");
    }
}

#[test]
fn a_key_in_the_path_of_the_upstream_is_hidden_everywhere() {
    // a port where nobody listens: what could not be connected to is logged, too
    let url = |key: &&str| format!("http://127.0.0.1:9/gw/{key}/v1");
    let all: Vec<String> = KEYS.iter().map(url).collect();
    for (name, value) in [
        ("API_BASE_URL", url(&KEYS[13])),
        ("API_BASE_URLS", all.join(",")),
    ] {
        let checked = ProxyBuilder::new().env(name, &value).arg("check").run();
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        let proxy = watched(ProxyBuilder::new().env(name, &value)).start();
        proxy.send(message("/v1/messages", "error", "x", ""));
        let shown = everything(&proxy, 1);
        for said in [checked.stdout + &checked.stderr, shown] {
            assert!(said.contains("http://127.0.0.1:9/gw/***/v1"), "{said}");
            for key in KEYS {
                assert_hidden(&said, key, name);
            }
        }
    }
}

#[test]
fn the_text_log_masks_keys_without_anybody_who_looks() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for key in KEYS {
        let request =
            |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n\r\n");
        let target = format!("/gw/{key}/v1");
        proxy.send(request(&target));
        assert_eq!(upstream.request().0.target(), target);
    }
    proxy.send("GET /v1/messages/batches/msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d/results HTTP/1.1\r\nHost: x\r\n\r\n");
    // ids are no keys
    proxy.wait_for_line(|line| line.contains("/msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d/results"));
    let said = proxy.stderr();
    assert!(said.contains("GET /gw/…/v1 status=200"), "{said}");
    for key in KEYS {
        assert_hidden(&said, key, "text log");
    }
}
