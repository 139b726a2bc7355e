//! docs/contract.md §1.6: whatever is logged at whatever level, no secret, prompt or value of an unknown
//! field is in it.

use std::time::Duration;

use crate::support::{Proxy, Upstream, Wire, get, post, upstream::OK, wire::chunk};

/// Every canary contains this.
const CANARY: &str = "canary";

/// Runs exchanges of every kind, with canaries wherever a secret may be, and returns all output.
fn everything_said(format: &str) -> String {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("RUST_LOG", "trace")
        .env("DEBUG_MODE", "true")
        .env("LOG_FORMAT", format)
        .env("WORKERS", 1)
        .env("SYSTEM_PROMPT_REPLACEMENT", "canary-replacement")
        .env("SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST", "true")
        .env("REQUEST_HEAD_TIMEOUT", "400ms")
        .env("REQUEST_BODY_TIMEOUT", "400ms")
        .env("UPSTREAM_TIMEOUT", "400ms")
        .env("GENERATION_TIMEOUT", "1s")
        .env("STREAM_IDLE_TIMEOUT", "400ms")
        .file(
            "env/.env.headers.json",
            r#"{"x-ours": "canary-custom-field"}"#,
        )
        .start();

    forwarded(&proxy, &upstream);
    malformed(&proxy);
    interrupted(&proxy, &upstream);

    proxy.write("env/.env.headers.json", "{\"x-ours\": \"canary-reloaded\"}");
    proxy.wait_for_line(|line| line.to_lowercase().contains("reload"));
    proxy.write(
        "env/.env.headers.json",
        "{\"x-ours\": \"canary-broken\", \"canary\n",
    );
    proxy.wait_for_line(|line| line.contains(".env.headers.json"));
    proxy.write("env/.env", "HTTP_PROXY=http://user:canary@[x\n");
    proxy.wait_for_line(|line| line.contains("HTTP_PROXY"));
    proxy.write("env/.env", "SYSTEM_PROMPT_REPLACEMENT='canary\ncanary");
    proxy.signal("HUP");
    proxy.signal("TERM");
    let ended = proxy.wait();
    ended.stdout + &ended.stderr
}

const FIELDS: &str = "Host: x\r\nx-api-key: sk-ant-canary-key\r\n\
    Authorization: Bearer canary-token\r\nCookie: session=canary-cookie\r\n\
    Proxy-Authorization: Basic canary-proxy\r\nX-Unknown: canary-unknown\r\n\
    X-Canary-Hop: canary-hop\r\nX-Forwarded-For: 203.0.113.7\r\n\
    User-Agent: canary-agent\r\nContent-Type: application/json\r\n";

const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nSet-Cookie: canary-set-cookie\r\nX-Theirs: canary-theirs\r\n";

/// Exchanges that go well: edited, inserted, untouched, streamed, refused by the upstream.
fn forwarded(proxy: &Proxy, upstream: &Upstream) {
    let mut client = proxy.connect();
    let mut origin = None;
    for (target, content) in [
        (
            "/v1/messages?beta=true&key=canary-query",
            r#"{"system":[{"text":"Claude Code canary-prompt"}],"messages":["canary-message"]}"#,
        ),
        ("/v1/messages", r#"{"system":[{"text":"canary-prompt"}]}"#),
        ("/v1/messages", r#"{"system":"canary-string-prompt"}"#),
        ("/v1/messages", r#"{"canary-broken-json": "#),
        ("/v1/files", "canary-file"),
    ] {
        client.send(format!(
            "POST {target} HTTP/1.1\r\n{FIELDS}Content-Length: {}\r\n\r\n{content}",
            content.len()
        ));
        let origin = origin.get_or_insert_with(|| upstream.accept());
        origin.read_request();
        origin.send(format!("{ANSWER}Content-Length: 13\r\n\r\ncanary-answer"));
        assert_eq!(client.read_response("POST").content(), b"canary-answer");
    }
    let origin = origin.as_mut().unwrap();
    for status in [302, 401, 529] {
        client.send(format!(
            "GET /v1/models?canary-query HTTP/1.1\r\n{FIELDS}\r\n"
        ));
        origin.read_request();
        origin.send(format!(
            "HTTP/1.1 {status} canary-reason\r\nLocation: http://canary-location/\r\n\
             Content-Length: 12\r\n\r\ncanary-error"
        ));
        assert_eq!(client.read_response("GET").status(), status);
    }
    client.send(format!(
        "POST /v1/messages HTTP/1.1\r\n{FIELDS}Transfer-Encoding: chunked\r\n\r\n"
    ));
    client.send_chunk(br#"{"system":[{"text":"canary-"#);
    client.send_chunk(br#"prompt"}]}"#);
    client.send_chunk(b"");
    origin.read_request();
    origin.send(format!("{ANSWER}Transfer-Encoding: chunked\r\n\r\n"));
    origin.send(chunk(b"data: canary-event\n\n"));
    origin.send(chunk(b""));
    client.read_response("POST");
}

/// Requests that are refused, with canaries in what is malformed.
fn malformed(proxy: &Proxy) {
    for octets in [
        format!("GET /canary-path?canary HTTP/1.1\r\n{FIELDS}canary-no-colon\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{FIELDS}X-Bad: canary\0value\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{FIELDS}canary name: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{FIELDS}Content-Length: canary\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{FIELDS}Transfer-Encoding: canary\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{FIELDS}Host: canary\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\n{FIELDS}X: {}\r\n\r\n",
            "canary".repeat(12_000)
        ),
        "canary garbage that is no request\r\n\r\n".to_owned(),
        "GET canary HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("POST /v1/files HTTP/1.1\r\n{FIELDS}Transfer-Encoding: chunked\r\n\r\ncanary\r\n"),
        format!(
            "POST /v1/messages HTTP/1.1\r\n{FIELDS}Transfer-Encoding: chunked\r\n\r\n6\r\ncanaryX\r\n"
        ),
        format!("GET / HTTP/1.1\r\n{FIELDS}X-Unended: canary"),
        format!("POST /v1/messages HTTP/1.1\r\n{FIELDS}Content-Length: 99\r\n\r\n{{\"canary"),
    ] {
        let mut client = proxy.connect();
        let _ = client.try_send(octets);
        client.read_to_end();
    }
}

/// Exchanges that end badly.
fn interrupted(proxy: &Proxy, upstream: &Upstream) {
    // Whatever the malformed ones left open ends here.
    while upstream.accept_soon().is_some() {}
    let begin = |target: &str| -> (Wire, Wire) {
        let (client, origin) = proxy.exchange(
            upstream,
            format!("POST {target} HTTP/1.1\r\n{FIELDS}Content-Length: 2\r\n\r\n{{}}"),
        );
        (client, origin)
    };
    let (mut client, mut origin) = begin("/v1/files?canary-a");
    origin.send("canary this is no HTTP\r\n\r\n");
    assert_eq!(client.read_response("POST").status(), 502);
    let (mut client, origin) = begin("/v1/files?canary-b");
    origin.reset();
    assert_eq!(client.read_response("POST").status(), 502);
    let (mut client, _origin) = begin("/v1/messages?canary-c");
    assert_eq!(client.read_response("POST").status(), 504);
    let (mut client, mut origin) = begin("/v1/messages?canary-d");
    origin.send(format!("{ANSWER}Content-Length: 99\r\n\r\ncanary-cut"));
    drop(origin);
    client.read_response("POST");
    let (mut client, mut origin) = begin("/v1/messages?canary-e");
    origin.send(format!(
        "{ANSWER}Transfer-Encoding: chunked\r\n\r\ncanary-chunk-size\r\n"
    ));
    client.read_response("POST");
    let (mut client, mut origin) = begin("/v1/messages?canary-f");
    origin.send(format!(
        "{ANSWER}Transfer-Encoding: chunked\r\n\r\n6\r\ncanary\r\n"
    ));
    client.read_response("POST");
    let (client, mut origin) = begin("/v1/messages?canary-g");
    drop(client);
    origin.closed_within(Duration::from_secs(1));
}

#[track_caller]
fn assert_no_canary(said: &str) {
    let leaks: Vec<&str> = said
        .lines()
        .filter(|line| line.to_ascii_lowercase().contains(CANARY))
        .collect();
    // A path is no secret; its query may be.
    let leaks: Vec<&str> = leaks
        .into_iter()
        .filter(|line| line.replace("/canary-path", "").contains(CANARY))
        .collect();
    assert!(leaks.is_empty(), "leaked:\n{}", leaks.join("\n"));
}

#[test]
fn text_logs_hold_no_secret_at_trace_level() {
    let said = everything_said("text");
    assert!(said.contains("/v1/messages"), "the log names the path");
    assert_no_canary(&said);
}

#[test]
fn json_logs_hold_no_secret_at_trace_level_and_are_json() {
    let said = everything_said("json");
    assert!(said.contains("/v1/messages"), "the log names the path");
    assert_no_canary(&said);
    for line in said.lines().filter(|line| !line.is_empty()) {
        let value: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(
            value.is_ok_and(|value| value.is_object()),
            "not a JSON object: {line}"
        );
    }
}

#[test]
fn no_secret_of_the_outbound_proxy_is_logged() {
    for url in [
        "http://user:canary-password@127.0.0.1:9",
        "socks5h://canary-user:canary@127.0.0.1:9",
    ] {
        for scheme in ["http", "https"] {
            let proxy = Proxy::to(format!("{scheme}://upstream.invalid"))
                .env("ALL_PROXY", url)
                .env("RUST_LOG", "trace")
                .env("DEBUG_MODE", "1")
                .start();
            assert!(proxy.send(get("/")).status() >= 500);
            let ended = proxy.kill();
            assert_no_canary(&(ended.stdout + &ended.stderr));
        }
    }
}

#[test]
fn a_line_a_request_says_what_happened() {
    let upstream = Upstream::always(OK);
    let proxy = Proxy::to(upstream.url()).start();
    proxy.send(post("/v1/messages?beta=true", "{}"));
    let line = proxy.wait_for_line(|line| line.contains("/v1/messages"));
    for said in [
        "POST",
        "status=200",
        "in=2",
        "out=2",
        "ended=complete",
        "request_id=req_",
    ] {
        assert!(line.contains(said), "{said}: {line}");
    }
    assert!(!line.contains("beta"), "a query in {line}");
}

#[test]
fn each_exchange_is_one_line_however_it_ends() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let begin = |target: &str| -> (Wire, Wire) {
        let (client, origin) = proxy.exchange(&upstream, get(target));
        (client, origin)
    };
    let (client, mut origin) = begin("/left");
    drop(client);
    origin.closed_within(Duration::from_secs(1));
    let (mut client, mut origin) = begin("/cut");
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    drop(origin);
    client.read_response("GET");
    let (mut client, origin) = begin("/died");
    drop(origin);
    assert_eq!(client.read_response("GET").status(), 502);
    let (mut client, mut origin) = begin("/whole");
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    let paths = ["/left", "/cut", "/died", "/whole"];
    for path in paths {
        proxy.wait_for_line(|line| line.contains(path));
    }
    proxy.signal("TERM");
    let said = proxy.wait().stderr;
    for path in paths {
        // A fault may have a line of its own, under `[Stream Error]`.
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| line.contains(path) && !line.contains("[Stream Error]"))
            .collect();
        assert_eq!(lines.len(), 1, "{path}: {said}");
    }
}

#[test]
fn a_request_cannot_forge_a_log_line() {
    let upstream = Upstream::always(OK);
    let proxy = Proxy::to(upstream.url()).start();
    proxy.send(get("/forged%0A[Proxy]\x1b[31m"));
    proxy.send(get("/after"));
    proxy.wait_for_line(|line| line.contains("/after"));
    assert!(!proxy.stderr().contains('\x1b'), "{:?}", proxy.stderr());
}

#[test]
fn our_errors_hold_no_secret() {
    let proxy = Proxy::to("http://127.0.0.1:9/canary-prefix").start();
    let response = proxy.send(format!("GET /x?canary-query HTTP/1.1\r\n{FIELDS}\r\n"));
    assert_eq!(response.status(), 502);
    let octets = [&response.head.octets, response.content()].concat();
    assert!(
        !String::from_utf8_lossy(&octets)
            .to_ascii_lowercase()
            .contains(CANARY)
    );
}
