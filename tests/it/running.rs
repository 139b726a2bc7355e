//! Exchanges in flight: their progress is shown while they run, and an operator can end them.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Body, DEADLINE, Proxy, ProxyBuilder, Response, Upstream, Wire, assert_proxy_error, get,
    h2::Client, wire::chunk,
};

const KEY: &str = "a-key-of-the-tests";
const API: &str = "/admin/api/v1";

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
     Transfer-Encoding: chunked\r\n\r\n";
const START: &str = "event: message_start\n\
data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n";
const DELTA: &str = "event: content_block_delta\n\
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";
const ASK: &str = r#"{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":true,"messages":[]}"#;

fn observed(upstream: &Upstream) -> ProxyBuilder {
    Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .env("ACCESS_LOG", "access.log")
}

/// A message whose client says what it is.
fn message() -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nUser-Agent: claude-cli/2.1.330\r\n\
         X-Claude-Code-Session-Id: session-7\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{ASK}",
        ASK.len()
    )
}

fn call(proxy: &Proxy, method: &str, path: &str, content: &str) -> Response {
    let mut client = proxy.connect();
    let length = content.len();
    client.send(format!(
        "{method} {API}/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{content}"
    ));
    client.read_response(method)
}

fn json(response: &Response) -> Value {
    serde_json::from_slice(response.content()).unwrap()
}

/// The only exchange in flight, once it is as it should be. Its parts come one by one, each from where
/// it is known: what a test is to find at once belongs into the condition.
#[track_caller]
fn pending(proxy: &Proxy, is_right: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + 6 * DEADLINE;
    loop {
        let page = json(&call(proxy, "GET", "requests?status=pending", ""));
        let items = page["items"].as_array().unwrap();
        if let [row] = items.as_slice()
            && is_right(row)
        {
            return row.clone();
        }
        assert!(Instant::now() < end, "{page}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends an exchange; its record says so, and the log who did it and why.
#[track_caller]
fn end(proxy: &Proxy, id: &str) {
    let ended = call(
        proxy,
        "POST",
        &format!("requests/{id}/end"),
        r#"{"reason":"runs away\n"}"#,
    );
    let content = json(&ended);
    assert_eq!(ended.status(), 202, "{content}");
    assert_eq!(
        (&content["id"], &content["label"]),
        (&id.into(), &"ended_by_operator".into())
    );
    let said = format!(
        "[Admin] request ended by an operator request_id={id} client=127.0.0.1 by=key author=\"dashboard\" reason=\"runs away\\n\""
    );
    proxy.wait_for_line(|line| line.contains(&said));
}

/// The record of an exchange that an operator ended.
#[track_caller]
fn assert_record(proxy: &Proxy, id: &str, phase: &str) {
    let until = Instant::now() + 6 * DEADLINE;
    let line = loop {
        let text = std::fs::read_to_string(proxy.path("access.log")).unwrap_or_default();
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) = lines.find(|line| line["request_id"] == id) {
            break line;
        }
        assert!(Instant::now() < until, "{text}");
        thread::sleep(Duration::from_millis(10));
    };
    let said = ["result", "ended_by", "ended_in", "ended_label"].map(|name| line[name].as_str());
    assert_eq!(
        said,
        [
            Some("failed"),
            Some("proxy"),
            Some(phase),
            Some("ended_by_operator")
        ],
        "{line}"
    );
    proxy.wait_for_line(|line| {
        line.contains("ended=proxy:ended_by_operator") && line.contains(&format!("request_id={id}"))
    });
    // the thread that lists it is another one
    let row = loop {
        let row = json(&call(proxy, "GET", &format!("requests/{id}"), ""));
        if !row["ended"].is_null() {
            break row;
        }
        assert!(Instant::now() < until, "{row}");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(row["ended"]["label"], "ended_by_operator", "{row}");
    // what is over cannot be ended
    let again = call(proxy, "POST", &format!("requests/{id}/end"), "{}");
    assert_eq!(
        (again.status(), &json(&again)["error"]["code"]),
        (409, &"too_late".into())
    );
}

/// The end of the upstream's side, which must come at once.
#[track_caller]
fn assert_closed(mut origin: Wire) {
    origin.set_deadline(6 * DEADLINE);
    origin.read_to_end();
}

#[test]
fn a_stream_shows_its_progress_and_is_ended() {
    let upstream = Upstream::bind();
    let proxy = observed(&upstream).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, message());
    // before the answer: who asks for what of which upstream
    let row = pending(&proxy, |row| {
        row["upstream"] == upstream.url() && row["bytes_in"] == ASK.len()
    });
    let id = row["id"].as_str().unwrap();
    assert_eq!(row["session"], "session-7");
    assert_eq!(row["user_agent"], "claude-cli/2.1.330");
    assert_eq!(
        (&row["status"], &row["tokens"]),
        (&Value::Null, &Value::Null)
    );
    let detail = json(&call(&proxy, "GET", &format!("requests/{id}"), ""));
    let fields = detail["request_fields"].to_string();
    assert!(fields.contains("x-claude-code-session-id"), "{fields}");

    let mut events = proxy.connect();
    events.send(format!(
        "GET {API}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    ));
    events.read_response_head();
    origin.send(HEAD);
    origin.send_chunk(START.as_bytes());
    origin.send_chunk(DELTA.as_bytes());
    origin.send_chunk(DELTA.as_bytes());
    let content = START.len() + 2 * DELTA.len();
    let row = pending(&proxy, |row| {
        row["bytes_out"] == content && row["output_events"] == 2 && row["status"] == 200
    });
    assert_eq!(row["tokens"]["input"], 20, "{row}");
    assert!(row["ttft_ms"].as_f64().unwrap() > 0.0, "{row}");
    assert_eq!(row["model"], "claude-sonnet-4-5");
    // and once a second to those who listen, while it moves
    let until = Instant::now() + 6 * DEADLINE;
    loop {
        let text = String::from_utf8(events.read_chunk()).unwrap();
        let tick = text.lines().find_map(|line| line.strip_prefix("data: "));
        let tick: Value = serde_json::from_str(tick.unwrap_or("{}")).unwrap();
        let running = &tick["running"][0];
        if running["bytes_out"] == content && running["output_events"] == 2 {
            break;
        }
        assert!(Instant::now() < until, "{tick}");
    }

    end(&proxy, id);
    assert_closed(origin);
    client.read_response_head();
    let body = client.read_chunked();
    assert!(matches!(body, Body::Cut(..)), "no clean end: {body:?}");
    assert_record(&proxy, id, "response");
}

#[test]
fn an_exchange_without_an_answer_is_ended_by_one_of_ours() {
    let upstream = Upstream::bind();
    let proxy = observed(&upstream).start();
    // its upload has not ended
    let (mut client, origin) = proxy.begin_exchange(
        &upstream,
        "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
    );
    let row = pending(&proxy, |row| row["bytes_in"] == 4);
    let id = row["id"].as_str().unwrap();
    end(&proxy, id);
    assert_closed(origin);
    let answer = client.read_response("POST");
    assert_proxy_error(&answer, 403, "permission_error", "ended_by_operator");
    assert_record(&proxy, id, "request");
}

#[test]
fn a_client_that_does_not_read_is_cut_off_at_once() {
    let upstream = Upstream::bind();
    // it would be given up after an hour
    let proxy = observed(&upstream).env("WRITE_TIMEOUT", "1h").start();
    let mut client = proxy.connect();
    client.socket().set_recv_buffer_size(64 * 1024).unwrap();
    client.send(get("/large"));
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let limit = Some(Duration::from_millis(500));
    origin.socket().set_write_timeout(limit).unwrap();
    // until nothing moves any more
    while origin.try_send([0; 65_536]).is_ok() {}
    let row = pending(&proxy, |row| row["bytes_out"].as_u64() > Some(0));
    let id = row["id"].as_str().unwrap();
    end(&proxy, id);
    assert_closed(origin);
    assert_record(&proxy, id, "response");
    client.set_deadline(6 * DEADLINE);
    let (octets, _) = client.read_to_end();
    assert!(octets.len() < 1_000_000_000);
}

#[test]
fn a_stream_of_http_2_is_reset_and_the_others_go_on() {
    let upstream = Upstream::bind();
    let proxy = observed(&upstream).env("H2C", true).start();
    let mut client = Client::connect(&proxy);
    let ended = client.get("/ended");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send(HEAD);
    origin.send_chunk(b"begun");
    let (head, mut body) = client.head(ended).into_parts();
    assert_eq!(client.chunk(&mut body), "begun");
    let row = pending(&proxy, |row| row["bytes_out"] == 5);
    let other = client.get("/other");
    let mut origin_of_other = upstream.accept();
    origin_of_other.read_request();
    let id = row["id"].as_str().unwrap();
    end(&proxy, id);
    assert_closed(origin);
    assert!(client.rest(head, body).end.is_err(), "no clean end");
    assert_record(&proxy, id, "response");
    origin_of_other.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.answer(other).content, b"ok");
}

#[test]
fn a_client_of_http_2_that_does_not_read_is_cut_off_at_once() {
    let upstream = Upstream::bind();
    let proxy = observed(&upstream)
        .env("H2C", true)
        .env("WRITE_TIMEOUT", "1h")
        .start();
    let mut client = Client::connect(&proxy);
    let ended = client.get("/large");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send(HEAD);
    let (head, body) = client.head(ended).into_parts();
    // its window is not opened again
    let limit = Some(Duration::from_millis(500));
    origin.socket().set_write_timeout(limit).unwrap();
    while origin.try_send(chunk(&[0; 65_536])).is_ok() {}
    let row = pending(&proxy, |row| row["bytes_out"].as_u64() > Some(0));
    let id = row["id"].as_str().unwrap();
    end(&proxy, id);
    assert_closed(origin);
    assert_record(&proxy, id, "response");
    assert!(client.rest(head, body).end.is_err(), "no clean end");
}

#[test]
fn a_tunnel_is_ended() {
    let upstream = Upstream::bind();
    let proxy = observed(&upstream).start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &upstream,
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    origin.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello",
    );
    assert_eq!(client.read_response_head().status(), 101);
    assert_eq!(client.read_exact(5), b"hello");
    let row = pending(&proxy, |row| row["bytes_out"] == 5);
    let id = row["id"].as_str().unwrap();
    end(&proxy, id);
    assert_closed(origin);
    client.set_deadline(6 * DEADLINE);
    client.read_to_end();
    assert_record(&proxy, id, "response");
}

#[test]
fn only_the_key_ends_an_exchange() {
    let upstream = Upstream::bind();
    let proxy = observed(&upstream).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, get("/"));
    let row = pending(&proxy, |_| true);
    let id = row["id"].as_str().unwrap();
    let refused = proxy.send(format!(
        "POST {API}/requests/{id}/end HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    ));
    assert_eq!(refused.status(), 401, "{}", json(&refused));
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.read_response("GET").content(), b"ok");

    for (path, content, status, code) in [
        ("requests/req_x/end", "{}", 404, "not_found"),
        ("requests/req_x/end", r#"["why"]"#, 400, "bad_request"),
        ("requests/req_x/end", "{\"why\":1}", 400, "bad_request"),
        ("requests/req_x/end?a=b", "{}", 400, "bad_request"),
        (
            "requests/req_x/end",
            &format!("{{\"reason\":\"{}\"}}", "x".repeat(201)),
            400,
            "bad_request",
        ),
    ] {
        let refused = call(&proxy, "POST", path, content);
        let problem = json(&refused);
        assert_eq!(
            (refused.status(), &problem["error"]["code"]),
            (status, &code.into()),
            "{path} {content} {problem}"
        );
    }
}
