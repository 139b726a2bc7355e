//! How an exchange ends is told as it was: by whom, when, why, and which upstream was asked.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{DEADLINE, Proxy, Upstream, get, post, upstream::OK};

const LIMIT: Duration = Duration::from_secs(2);

/// The first line of the access log, once there is one.
#[track_caller]
fn line(proxy: &Proxy) -> Value {
    lines(proxy, 1).swap_remove(0)
}

#[track_caller]
fn lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    let end = Instant::now() + DEADLINE;
    loop {
        let text = std::fs::read_to_string(proxy.path("access.log")).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        // the last may not be whole yet
        let lines: Vec<Value> = lines.filter_map(Result::ok).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < end, "{text}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn ending(line: &Value) -> (&str, &str, &str) {
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    (text("ended_by"), text("ended_in"), text("ended_label"))
}

fn to(url: impl ToString) -> crate::support::ProxyBuilder {
    Proxy::to(url)
        .env("ACCESS_LOG", "access.log")
        .env("METRICS_PUBLIC", "true")
}

/// Waits until a sample of the metrics has a value.
#[track_caller]
fn wait_for(proxy: &Proxy, sample: &str) {
    let end = Instant::now() + DEADLINE;
    loop {
        let response = proxy.send(get("/metrics"));
        let text = String::from_utf8_lossy(response.content()).into_owned();
        if text.lines().any(|line| line == sample) {
            return;
        }
        assert!(Instant::now() < end, "{sample} is not in\n{text}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_client_that_leaves_its_upload_is_the_client_s_doing() {
    for edits in [false, true] {
        let upstream = Upstream::bind();
        let mut proxy = to(upstream.url());
        if edits {
            proxy = proxy.env("SYSTEM_PROMPT_REPLACEMENT", "x");
        }
        let proxy = proxy.start();
        let mut client = proxy.connect();
        client.send("POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"a");
        if !edits {
            // it streams: the upstream has its part
            let mut origin = upstream.accept();
            origin.read_request_head();
            drop(client);
            origin.closed_within(LIMIT);
        } else {
            drop(client);
        }
        let line = line(&proxy);
        assert_eq!(
            ending(&line),
            ("client", "request", "client_disconnected"),
            "{line}"
        );
        assert!(line.get("status").is_none(), "nobody was answered: {line}");
        wait_for(
            &proxy,
            "anthropic_proxy_requests_total{method=\"POST\",route=\"messages\",status=\"none\",\
             outcome=\"client\",phase=\"request\",result=\"canceled\"} 1",
        );
        wait_for(&proxy, "anthropic_proxy_in_flight_requests 0");
    }
}

#[test]
fn a_client_that_leaves_an_answer_is_the_client_s_doing() {
    let upstream = Upstream::bind();
    let proxy = to(upstream.url()).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    client.read_response_head();
    drop(client);
    origin.closed_within(LIMIT);
    let line = line(&proxy);
    assert_eq!(
        ending(&line),
        ("client", "response", "client_disconnected"),
        "{line}"
    );
    assert_eq!(line["status"], 200);
}

#[test]
fn an_upstream_that_cannot_be_reached_is_named() {
    let url = nobody();
    let proxy = to(&url).start();
    assert_eq!(proxy.send(get("/")).status(), 502);
    let line = line(&proxy);
    assert_eq!(
        ending(&line),
        ("upstream", "request", "connection_refused"),
        "{line}"
    );
    assert_eq!(line["upstream"], url.as_str());
    assert_eq!(line["status"], 502);
    // two tries, each a connect
    wait_for(
        &proxy,
        "anthropic_proxy_upstream_connects_total{outcome=\"connection_refused\"} 2",
    );
    wait_for(
        &proxy,
        "anthropic_proxy_aborts_total{side=\"upstream\",phase=\"request\",reason=\"connection_refused\"} 1",
    );
}

#[test]
fn an_upstream_that_breaks_its_answer_is_named() {
    let upstream = Upstream::bind();
    let proxy = to(upstream.url()).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    client.read_response_head();
    drop(origin);
    client.read_to_end();
    let line = line(&proxy);
    assert_eq!(
        ending(&line),
        ("upstream", "response", "connection_terminated"),
        "{line}"
    );
}

#[test]
fn a_refusal_of_ours_is_ours() {
    let upstream = Upstream::bind();
    let proxy = to(upstream.url())
        .env("MAX_IN_FLIGHT", 1)
        .env("WORKERS", 1)
        .start();
    let (mut first, mut origin) = proxy.exchange(&upstream, get("/"));
    assert_eq!(proxy.send(get("/")).status(), 503);
    let line = line(&proxy);
    assert_eq!(
        ending(&line),
        ("proxy", "request", "too_many_in_flight"),
        "{line}"
    );
    assert!(line.get("upstream").is_none(), "none was asked: {line}");
    origin.send(OK);
    first.read_response("GET");
}

#[test]
fn what_is_refused_at_the_connection_is_counted_and_logged() {
    let proxy = to(nobody()).start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.read_response("GET").status(), 400);
    let line = line(&proxy);
    assert_eq!(
        ending(&line),
        ("client", "request", "ambiguous_framing"),
        "{line}"
    );
    assert_eq!(line["status"], 400);
    wait_for(
        &proxy,
        "anthropic_proxy_aborts_total{side=\"client\",phase=\"request\",reason=\"ambiguous_framing\"} 1",
    );
}

#[test]
fn a_connection_too_many_is_counted() {
    let proxy = to(Upstream::ok().url())
        .env("MAX_CONNECTIONS", 1)
        .env("WORKERS", 1)
        .start();
    let mut first = proxy.connect();
    first.send(get("/"));
    first.read_response("GET");
    let mut second = proxy.connect();
    second.send(get("/"));
    assert_eq!(second.read_response("GET").status(), 503);
    let lines = lines(&proxy, 2);
    let refused = lines.iter().find(|line| line["status"] == 503).unwrap();
    assert_eq!(
        ending(refused),
        ("proxy", "request", "too_many_connections")
    );
}

#[test]
fn what_the_end_of_the_process_cuts_is_the_proxy_s_doing() {
    let upstream = Upstream::bind();
    let proxy = to(upstream.url()).env("SHUTDOWN_TIMEOUT", "100ms").start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    client.read_response_head();
    proxy.signal("TERM");
    let directory = proxy.wait_and_keep();
    let text = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(ending(&line), ("proxy", "response", "shutdown"), "{line}");
}

#[test]
fn a_client_that_does_not_read_is_told_from_one_that_left() {
    let upstream = Upstream::bind();
    let proxy = to(upstream.url()).env("WRITE_TIMEOUT", "200ms").start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.read_response_head();
    let block = crate::support::wire::chunk(&[b'x'; 64 * 1024]);
    while origin.try_send(&block).is_ok() {}
    let line = line(&proxy);
    assert_eq!(
        ending(&line),
        ("client", "response", "write_timeout"),
        "{line}"
    );
}

#[test]
fn every_upstream_that_was_tried_counts() {
    let first = nobody();
    let second = Upstream::always("HTTP/1.1 529 Overloaded\r\nContent-Length: 0\r\n\r\n");
    let third = Upstream::ok();
    let others = [second.url(), third.url()].join(",");
    let proxy = Proxy::to(first)
        .env("API_BASE_URLS", others)
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    assert_eq!(
        proxy
            .send(post("/v1/messages", r#"{"model":"m"}"#))
            .status(),
        200
    );
    let end = Instant::now() + DEADLINE;
    loop {
        let counts = upstreams(&proxy);
        let expected = [(1, 1, 1, 0), (1, 1, 0, 1), (1, 0, 0, 0)];
        if counts == expected {
            break;
        }
        assert!(Instant::now() < end, "{counts:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

const KEY: &str = "a-key-of-the-tests";

/// Requests, errors, failed connects and 529s by upstream.
fn upstreams(proxy: &Proxy) -> Vec<(u64, u64, u64, u64)> {
    let answer = admin(proxy, "/admin/api/v1/upstreams");
    let items = answer["items"].as_array().unwrap();
    let number = |item: &Value, name: &str| item[name].as_u64().unwrap();
    items
        .iter()
        .map(|item| {
            (
                number(item, "requests"),
                number(item, "errors"),
                number(item, "connect_failures"),
                number(item, "status_529"),
            )
        })
        .collect()
}

/// An answer of the admin API.
#[track_caller]
fn admin(proxy: &Proxy, target: &str) -> Value {
    let socket = std::net::TcpStream::connect(proxy.admin_addr()).unwrap();
    let mut client = crate::support::Wire::tcp(socket);
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\n\r\n",
        proxy.admin_addr()
    ));
    let response = client.read_response("GET");
    assert_eq!(response.status(), 200, "{target}");
    serde_json::from_slice(response.content()).unwrap()
}

#[test]
fn a_row_has_the_fields_that_may_be_shown_and_no_secret() {
    let upstream = Upstream::always(
        "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n\
         Set-Cookie: canary-cookie\r\nx-secret: canary-field\r\nContent-Length: 33\r\n\r\n\
         {\"error\":\"no such key canary-k1y\"}",
    );
    let proxy = Proxy::to(upstream.url())
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let response = proxy.send(
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nx-api-key: canary-k1y\r\n\
         Authorization: Bearer canary-t0ken\r\nUser-Agent: claude-cli/2\r\n\
         anthropic-version: 2023-06-01\r\nX-Custom: canary-custom\r\n\r\n",
    );
    let id = {
        let end = Instant::now() + DEADLINE;
        loop {
            let page = admin(&proxy, "/admin/api/v1/requests?status=4xx");
            if let Some(row) = page["items"].as_array().unwrap().first() {
                break row["id"].as_str().unwrap().to_owned();
            }
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(10));
        }
    };
    assert_eq!(response.status(), 401);
    let detail = admin(&proxy, &format!("/admin/api/v1/requests/{id}"));
    let of = |side: &str| -> Vec<(String, Option<String>)> {
        let fields = detail[side].as_array().unwrap().iter();
        fields
            .map(|field| {
                let name = field["name"].as_str().unwrap().to_owned();
                (name, field["value"].as_str().map(str::to_owned))
            })
            .collect()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        of("request_fields"),
        [
            ("host".into(), some("x")),
            ("x-api-key".into(), None),
            ("authorization".into(), None),
            ("user-agent".into(), some("claude-cli/2")),
            ("anthropic-version".into(), some("2023-06-01")),
            ("x-custom".into(), None),
        ]
    );
    assert_eq!(
        of("response_fields"),
        [
            ("content-type".into(), some("application/json")),
            ("set-cookie".into(), None),
            ("x-secret".into(), None),
            ("content-length".into(), some("33")),
        ]
    );
    // what the upstream repeats of a credential is another part's to hide
    let mut shown = detail.clone();
    shown["error"] = Value::Null;
    assert!(!shown.to_string().contains("canary"), "{shown}");
}

#[test]
fn a_row_in_flight_says_what_is_known_of_it() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let (mut client, mut origin) = proxy.exchange(
        &upstream,
        post(
            "/v1/messages",
            r#"{"model":"claude-x","max_tokens":7,"stream":true,"messages":[]}"#,
        ),
    );
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.read_response_head();
    let end = Instant::now() + DEADLINE;
    // the row is there from the request on; status and what was asked for follow, one by one
    let row = loop {
        let page = admin(&proxy, "/admin/api/v1/requests?status=pending&model=claude");
        let row = page["items"].as_array().unwrap().first();
        if let Some(row) = row.filter(|row| row["status"] == 200 && row["max_tokens"] == 7) {
            break row.clone();
        }
        assert!(Instant::now() < end, "{page}");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(row["model"], "claude-x");
    assert_eq!(row["upstream"], upstream.url());
    assert!(row["head_ms"].as_f64().is_some() && row["ended"].is_null());
    origin.send_chunk(b"");
    client.read_chunked();
}

#[test]
fn metrics_that_become_public_by_a_reload_count_from_then_on() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .file("env/.env", "METRICS_PUBLIC=false\n")
        .start();
    // while nobody looks, the path is the upstream's
    assert_eq!(proxy.send(get("/metrics")).content(), b"ok");
    proxy.write("env/.env", "METRICS_PUBLIC=true\n");
    proxy.wait_for_line(|line| line.contains("METRICS_PUBLIC") && line.contains("[Config]"));
    proxy.send(get("/v1/models"));
    wait_for(
        &proxy,
        "anthropic_proxy_requests_total{method=\"GET\",route=\"models\",status=\"2xx\",\
         outcome=\"complete\",phase=\"response\",result=\"succeeded\"} 1",
    );
}
