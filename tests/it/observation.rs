//! What operators see: metering, cost, access log and metrics, each held against the truth, and none of
//! it to be felt by an exchange.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    DEADLINE, Proxy, ProxyBuilder, Upstream, get, post,
    upstream::OK,
    wire::{assert_octets, chunk},
};

/// A generation as Anthropic streams it: 20 + 100 + 30 + 5 input tokens by kind, 42 output tokens.
const EVENTS: &str = "event: message_start\n\
data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5-20250929\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":20,\"cache_creation_input_tokens\":35,\"cache_read_input_tokens\":100,\"cache_creation\":{\"ephemeral_5m_input_tokens\":30,\"ephemeral_1h_input_tokens\":5},\"output_tokens\":1}}}\n\n\
event: content_block_start\n\
data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
event: ping\ndata: {\"type\":\"ping\"}\n\n\
event: content_block_delta\n\
data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"canary-answer\"}}\n\n\
event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
event: message_delta\n\
data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":42}}\n\n\
event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// 20 × 3 + 42 × 15 + 100 × 0.3 + 30 × 3.75 + 5 × 6 millionths of a dollar.
const COST: f64 = 862.5e-6;

fn streamed(events: &str) -> Vec<u8> {
    let mut octets = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
        request-id: req_theirs\r\nTransfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for event in events.split_inclusive("\n\n") {
        octets.extend(chunk(event.as_bytes()));
    }
    octets.extend(chunk(b""));
    octets
}

const ASK: &str = r#"{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":true,"messages":[{"role":"user","content":"canary-prompt"}]}"#;

/// A proxy whose access log is read.
fn logging(url: impl ToString) -> ProxyBuilder {
    Proxy::to(url).env("ACCESS_LOG", "access.log")
}

/// The lines of an access log, once there are so many.
#[track_caller]
fn lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    let path = proxy.path("access.log");
    let end = Instant::now() + DEADLINE;
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let found: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if found.len() >= count {
            assert!(!text.contains("canary"), "{text}");
            return found;
        }
        assert!(Instant::now() < end, "only {}: {text}", found.len());
        thread::sleep(Duration::from_millis(10));
    }
}

/// The value of a sample, summed over its label sets that have all of these.
fn sample(exposition: &str, name: &str, labels: &[&str]) -> f64 {
    exposition
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        })
        .map(|line| {
            let value = line.rsplit_once(' ').unwrap().1;
            value.parse::<f64>().unwrap()
        })
        .sum()
}

fn exposition(proxy: &Proxy) -> String {
    let response = proxy.send(get("/metrics"));
    assert_eq!(response.status(), 200);
    String::from_utf8(response.content().to_vec()).unwrap()
}

#[test]
fn a_generation_is_metered_priced_and_logged() {
    let upstream = Upstream::always(streamed(EVENTS));
    let proxy = logging(upstream.url()).start();
    let mut request = b"POST /v1/messages?beta=true&key=canary HTTP/1.1\r\nHost: x\r\n\
        x-api-key: canary-key\r\nX-Claude-Code-Session-Id: session-1\r\nContent-Type: application/json\r\n"
        .to_vec();
    request.extend(format!("Content-Length: {}\r\n\r\n{ASK}", ASK.len()).bytes());
    let response = proxy.send(&request);
    assert_octets(response.content(), EVENTS, "nothing is touched");
    let line = &lines(&proxy, 1)[0];
    let is = |pointer: &str, expected: Value| {
        assert_eq!(
            line.pointer(pointer),
            Some(&expected),
            "{pointer} of {line}"
        );
    };
    is("/method", "POST".into());
    is("/path", "/v1/messages".into());
    is("/status", 200.into());
    is("/model", "claude-sonnet-4-5-20250929".into());
    is("/session", "session-1".into());
    is("/upstream_request_id", "req_theirs".into());
    is("/tokens/input", 20.into());
    is("/tokens/output", 42.into());
    is("/tokens/cache_read", 100.into());
    is("/tokens/cache_write_5m", 30.into());
    is("/tokens/cache_write_1h", 5.into());
    is("/stop_reason", "end_turn".into());
    is("/ended_by", "complete".into());
    let cost = line.pointer("/cost_usd").and_then(Value::as_f64).unwrap();
    assert!((cost - COST).abs() < 1e-9, "{cost}");
    let ttft = line.pointer("/ttft_ms").and_then(Value::as_f64).unwrap();
    let total = line
        .pointer("/duration_ms")
        .and_then(Value::as_f64)
        .unwrap();
    assert!(ttft > 0.0 && ttft <= total, "{ttft} {total}");
}

#[test]
fn metering_that_is_off_reads_nothing() {
    let upstream = Upstream::always(streamed(EVENTS));
    let proxy = logging(upstream.url()).env("METERING", "off").start();
    proxy.send(post("/v1/messages", ASK));
    let line = &lines(&proxy, 1)[0];
    assert_eq!(
        line.pointer("/tokens").unwrap_or(&Value::Null),
        &Value::Null
    );
}

#[test]
fn a_stream_that_is_broken_off_is_metered_as_far_as_it_came() {
    let upstream = Upstream::bind();
    let proxy = logging(upstream.url()).start();
    let events: Vec<&str> = EVENTS.split_inclusive("\n\n").collect();
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (count, by) in [(1, "client"), (2, "upstream")] {
        let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", ASK));
        origin.send(head);
        for event in &events[..4] {
            origin.send(chunk(event.as_bytes()));
        }
        client.read_response_head();
        client.read_chunks(events[..4].concat().len());
        if by == "client" {
            drop(client);
            origin.closed_within(Duration::from_secs(1));
        } else {
            origin.reset();
            client.read_chunked();
        }
        // before the next one begins: two workers write in either order
        let lines = lines(&proxy, count);
        let line = &lines[count - 1];
        assert_eq!(line.pointer("/ended_by"), Some(&by.into()), "{line}");
        assert_eq!(line.pointer("/tokens/input"), Some(&20.into()));
        assert_eq!(line.pointer("/tokens/output"), Some(&1.into()));
    }
}

#[test]
fn json_answers_and_errors_are_metered_too() {
    let answer = r#"{"id":"msg_1","type":"message","model":"some-model","content":[{"type":"text","text":"canary"}],"stop_reason":"max_tokens","usage":{"input_tokens":3,"output_tokens":4}}"#;
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"canary"}}"#;
    let json = |status: u16, content: &str| {
        format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        )
    };
    let upstream = Upstream::bind();
    let proxy = logging(upstream.url()).start();
    let mut client = proxy.connect();
    let mut origin = None;
    for (status, content) in [(200, answer), (529, error)] {
        client.send(post("/v1/messages", r#"{"model":"asked","messages":[]}"#));
        let origin = origin.get_or_insert_with(|| upstream.accept());
        origin.read_request();
        origin.send(json(status, content));
        assert_octets(client.read_response("POST").content(), content, "untouched");
    }
    let lines = lines(&proxy, 2);
    assert_eq!(lines[0].pointer("/model"), Some(&"some-model".into()));
    assert_eq!(lines[0].pointer("/tokens/output"), Some(&4.into()));
    assert_eq!(lines[0].pointer("/cost_usd"), None, "no price is guessed");
    assert_eq!(
        lines[1].pointer("/error_type"),
        Some(&"overloaded_error".into())
    );
    assert_eq!(lines[1].pointer("/model"), Some(&"asked".into()));
}

#[test]
fn prices_are_a_file() {
    let upstream = Upstream::always(streamed(EVENTS));
    let prices = |output: u32| {
        format!(
            r#"{{"date":"2026-01-02","models":{{"claude-sonnet":{{"input":0,"output":{output},"cache_read":0,"cache_write_5m":0,"cache_write_1h":0}}}}}}"#
        )
    };
    let proxy = logging(upstream.url())
        .file("prices.json", prices(1))
        .env("PRICES_FILE", "prices.json")
        .start();
    proxy.send(post("/v1/messages", ASK));
    proxy.write("prices.json", prices(2));
    proxy.wait_for_line(|line| line.contains("reloaded") && line.contains("prices"));
    proxy.send(post("/v1/messages", ASK));
    proxy.write("prices.json", "{");
    proxy.wait_for_line(|line| line.contains("PRICES_FILE"));
    proxy.send(post("/v1/messages", ASK));
    let costs: Vec<f64> = lines(&proxy, 3)
        .iter()
        .map(|line| line.pointer("/cost_usd").and_then(Value::as_f64).unwrap())
        .collect();
    assert_eq!(costs, [42e-6, 84e-6, 84e-6]);
    let ended = ProxyBuilder::new()
        .file("prices.json", "{")
        .env("PRICES_FILE", "prices.json")
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn metrics_say_what_happened() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", "true")
        .env("WORKERS", 2)
        .start();
    let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", ASK));
    origin.send(streamed(EVENTS));
    client.read_response("POST");
    client.send(get("/v1/models"));
    origin.read_request();
    origin.send("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
    client.read_response("GET");
    // the record is written when the connection has written the last of it
    let text = exposition_with(&proxy, |text| {
        sample(text, REQUESTS, &["route=\"models\"", "4xx"]) >= 1.0
    });
    assert_eq!(
        sample(&text, REQUESTS, &["route=\"messages\""]),
        1.0,
        "{text}"
    );
    assert_eq!(sample(&text, REQUESTS, &["route=\"models\""]), 1.0);
    let tokens = text
        .lines()
        .filter(|line| line.starts_with("gen_ai_client_token_usage_sum"))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(tokens.contains("claude-sonnet-4-5-20250929"), "{text}");
    assert!(!text.contains("canary") && !text.contains("msg_1"));
}

#[test]
fn an_answer_in_an_unknown_coding_passes_and_is_a_failure_to_meter() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
        Content-Encoding: compress\r\nContent-Length: 4\r\n\r\n\x1f\x1d\x01\x02";
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", "true")
        .start();
    let response = proxy.send(post("/v1/messages", ASK));
    assert_octets(
        response.content(),
        b"\x1f\x1d\x01\x02",
        "nothing is touched",
    );
    let failures = "anthropic_proxy_metering_failures_total";
    let text = exposition_with(&proxy, |text| sample(text, failures, &[]) >= 1.0);
    assert_eq!(sample(&text, failures, &["reason=\"coding\""]), 1.0);
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", true)
        .start();
    proxy.send(get("/v1/models"));
    let scrape = |accept: &str| {
        let response = proxy.send(format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}Connection: close\r\n\r\n"
        ));
        let text = String::from_utf8(response.content().to_vec()).unwrap();
        (response.head.one("content-type").unwrap().to_owned(), text)
    };
    // as curl asks, and who says nothing
    for accept in ["", "Accept: */*\r\n"] {
        let (content_type, text) = scrape(accept);
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert!(text.contains("# TYPE anthropic_proxy_requests_total counter\n"));
        assert!(
            !text.contains("# EOF") && !text.contains("# UNIT"),
            "{text}"
        );
    }
    let (content_type, text) = scrape(
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n",
    );
    assert_eq!(
        content_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(text.contains("# TYPE anthropic_proxy_requests counter\n"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn metrics_are_told_to_nobody_without_a_word() {
    let upstream = Upstream::ok();
    let silent = Proxy::to(upstream.url()).start();
    // it is a path like any other
    assert_octets(
        silent.send(get("/metrics")).content(),
        "ok",
        "the upstream's",
    );
    let (head, _) = upstream.request();
    assert_eq!(head.target(), "/metrics");
}

/// The exposition, once this holds of it.
#[track_caller]
fn exposition_with(proxy: &Proxy, holds: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let text = exposition(proxy);
        if holds(&text) {
            return text;
        }
        assert!(Instant::now() < end, "{text}");
    }
}

const IN_FLIGHT: &str = "anthropic_proxy_in_flight_requests";
const REQUESTS: &str = "anthropic_proxy_requests_total";

#[test]
fn the_wait_for_a_clients_body_is_no_overhead_of_ours() {
    const WAIT: Duration = Duration::from_secs(1);
    let pad = "x".repeat(3_000);
    let body = format!(r#"{{"system":[{{"text":"a"}}],"messages":"{pad}{pad}"}}"#);
    let (first, second) = body.split_at(3_000);
    for (metering, max_body) in [
        ("on", 10_000),
        ("off", 10_000),
        ("on", 4_000),
        ("off", 4_000),
    ] {
        let upstream = Upstream::ok();
        let proxy = Proxy::to(upstream.url())
            .env("SYSTEM_PROMPT_REPLACEMENT", "Ours")
            .env("METERING", metering)
            .env("MAX_EDIT_BODY", max_body)
            .env("METRICS_PUBLIC", "true")
            .start();
        let mut client = proxy.connect();
        client.send(
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        );
        client.send_chunk(first.as_bytes());
        exposition_with(&proxy, |text| sample(text, IN_FLIGHT, &[]) >= 1.0);
        // the client takes its time: that is what is measured
        thread::sleep(WAIT);
        client.send_chunk(second.as_bytes());
        client.send_chunk(b"");
        assert_eq!(client.read_response("POST").content(), b"ok");
        let (_, sent) = upstream.request();
        let outcome = if max_body == 4_000 {
            assert_octets(sent.content(), &body, "too large to be edited");
            "outcome=\"too_large\""
        } else {
            "outcome=\"replaced\""
        };
        let route = ["route=\"messages\""];
        let text = exposition_with(&proxy, |text| sample(text, REQUESTS, &route) >= 1.0);
        let edits = sample(&text, "anthropic_proxy_edits_total", &[outcome]);
        let overhead = sample(&text, "anthropic_proxy_overhead_seconds_sum", &[]);
        assert_eq!(edits, 1.0, "{text}");
        assert!(
            overhead < WAIT.as_secs_f64() / 2.0,
            "{overhead} s, metering {metering}, {outcome}"
        );
    }
}

#[test]
fn sums_of_five_thousand_concurrent_streams_are_exact() {
    const STREAMS: usize = 5_000;
    // a client, and the upstream's end of it; the proxy has as many, and inherits the limit
    let needed = 2 * STREAMS as u64 + 500;
    let files = rlimit::increase_nofile_limit(needed).unwrap();
    assert!(
        files >= needed,
        "{files} files may be open: raise `ulimit -n` to {needed}"
    );
    let streams = STREAMS;
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", "true")
        .env("RUST_LOG", "warn,anthropic_proxy::server=info")
        .start();
    let mut clients: Vec<TcpStream> = (0..streams)
        .map(|_| {
            let mut client = TcpStream::connect(proxy.addr()).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            client.write_all(&post("/v1/messages", ASK)).unwrap();
            client
        })
        .collect();
    let mut origins: Vec<TcpStream> = (0..streams).map(|_| upstream.accept_stream()).collect();
    // all of them run before any of them goes on
    let octets = streamed(EVENTS);
    let pieces: Vec<&[u8]> = octets.chunks(octets.len().div_ceil(3)).collect();
    for piece in &pieces {
        for origin in &mut origins {
            origin.write_all(piece).unwrap();
        }
    }
    let halves = clients.len() / 2;
    let other: Vec<TcpStream> = clients.split_off(halves);
    let barrier = Arc::new(Barrier::new(2));
    let readers: Vec<_> = [clients, other]
        .into_iter()
        .map(|clients| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                for mut client in clients {
                    let mut answer = Vec::new();
                    let mut buffer = [0; 8192];
                    while !answer.ends_with(b"\r\n0\r\n\r\n") {
                        let count = client.read(&mut buffer).unwrap();
                        assert!(count > 0, "a stream ended early");
                        answer.extend_from_slice(&buffer[..count]);
                    }
                }
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
    // the record is written when the connection has written the last of it
    let text = exposition_with(&proxy, |text| {
        sample(text, REQUESTS, &["route=\"messages\""]) as usize == streams
    });
    let by_kind = |kind: &str| {
        let label = format!("gen_ai_token_type=\"{kind}\"");
        sample(&text, "gen_ai_client_token_usage_sum", &[&label])
    };
    let streams = streams as f64;
    assert_eq!(by_kind("output"), 42.0 * streams, "{text}");
    assert_eq!(by_kind("input"), 20.0 * streams);
    assert_eq!(by_kind("cache_read"), 100.0 * streams);
    drop(origins);
}

#[test]
fn a_full_disk_drops_lines_counts_them_and_stops_no_request() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ACCESS_LOG", "/dev/full")
        .env("METRICS_PUBLIC", "true")
        .start();
    let mut client = proxy.connect();
    for _ in 0..100 {
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    proxy.wait_for_line(|line| line.to_lowercase().contains("access log"));
    let dropped = "anthropic_proxy_log_lines_dropped_total";
    let text = exposition_with(&proxy, |text| {
        sample(text, dropped, &["log=\"access_log\""]) >= 100.0
    });
    assert_eq!(sample(&text, dropped, &["log=\"log\""]), 0.0);
}

#[test]
fn in_flight_falls_to_nothing_after_each_way_of_ending() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", "true")
        .env("UPSTREAM_TIMEOUT", "1s")
        .start();
    let in_flight = |text: &str| sample(text, IN_FLIGHT, &[]);
    let ended = |text: &str, outcome: &str, phase: &str| {
        let labels = [
            format!("outcome=\"{outcome}\""),
            format!("phase=\"{phase}\""),
        ];
        sample(text, REQUESTS, &[&labels[0], &labels[1]])
    };
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let ways = [
        ("complete", "response"),
        ("client", "response"),
        ("client", "request"),
        ("upstream", "response"),
        ("upstream", "request"),
    ];
    for (outcome, phase) in ways {
        let (mut client, mut origin) = proxy.begin_exchange(&upstream, get("/x"));
        exposition_with(&proxy, |text| in_flight(text) == 1.0);
        if phase == "response" {
            origin.send(head);
            origin.send(chunk(b"some"));
            client.read_response_head();
            client.read_chunks(4);
        }
        match (outcome, phase) {
            ("complete", _) => {
                origin.send(chunk(b""));
                client.read_chunked();
                drop(origin);
            }
            ("client", _) => client.reset(),
            ("upstream", "response") => {
                origin.reset();
                client.read_chunked();
            }
            // the upstream says nothing
            _ => assert_eq!(client.read_response("GET").status(), 504),
        }
        let text = exposition_with(&proxy, |text| {
            in_flight(text) == 0.0 && ended(text, outcome, phase) == 1.0
        });
        assert_eq!(ended(&text, outcome, phase), 1.0, "{text}");
    }
}

#[test]
fn an_access_log_is_rotated_by_size_and_the_newest_are_kept() {
    const MAX_SIZE: u64 = 2_000;
    let upstream = Upstream::ok();
    let proxy = logging(upstream.url())
        .env("ACCESS_LOG_MAX_SIZE", MAX_SIZE)
        .env("ACCESS_LOG_KEEP", 2)
        .start();
    let mut client = proxy.connect();
    let rotated = || -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(proxy.path("")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_rotated = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("access.log.")
        };
        let mut rotated: Vec<_> = paths.filter(is_rotated).collect();
        rotated.sort();
        rotated
    };
    let end = Instant::now() + DEADLINE;
    let (mut sent, mut oldest) = (0, None);
    // until the first that was rotated is gone
    loop {
        client.send(get(&format!("/{sent}")));
        client.read_response("GET");
        sent += 1;
        let now = rotated();
        oldest = oldest.or(now.first().cloned());
        if oldest.as_ref().is_some_and(|first| !first.exists()) {
            break;
        }
        assert!(Instant::now() < end, "{sent}: {now:?}");
    }
    // all is written before it ends
    proxy.signal("TERM");
    let directory = proxy.wait_and_keep();
    let mut lines: Vec<Value> = Vec::new();
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("access.log")
        })
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    // `access.log` is the newest
    files.sort();
    files.rotate_left(1);
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.len() as u64 <= MAX_SIZE);
        lines.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
    }
    let first = sent - lines.len();
    for (line, number) in lines.iter().zip(first..) {
        assert_eq!(line["path"], format!("/{number}"), "none is lost nor torn");
    }
}

#[test]
fn sums_survive_a_restart() {
    let upstream = Upstream::always(streamed(EVENTS));
    let data = tempfile::tempdir().unwrap();
    let start = || {
        Proxy::to(upstream.url())
            .env("DATA_DIR", data.path().display())
            .env("ENABLE_DASHBOARD", "true")
            .env("DASHBOARD_API_KEY", "a-key-of-the-tests")
            .start()
    };
    let usage = |proxy: &Proxy| -> Value {
        let ask = "GET /admin/api/v1/usage HTTP/1.1\r\nHost: localhost\r\n\
                   Authorization: Bearer a-key-of-the-tests\r\n\r\n";
        serde_json::from_slice(proxy.send(ask).content()).unwrap()
    };
    for generations in 1..=3 {
        let proxy = start();
        proxy.send(post("/v1/messages", ASK));
        let end = Instant::now() + DEADLINE;
        loop {
            let usage = usage(&proxy);
            let row = &usage["rows"][0];
            if row["requests"] == generations {
                assert_eq!(row["tokens"]["output"], 42 * generations, "{usage}");
                break;
            }
            assert!(Instant::now() < end, "{usage}");
        }
        proxy.signal("TERM");
        assert_eq!(proxy.wait().code, Some(0));
    }
}

#[test]
fn an_access_log_is_opened_anew_on_sigusr1() {
    let upstream = Upstream::always(OK);
    let proxy = logging(upstream.url()).start();
    proxy.send(get("/one"));
    assert_eq!(lines(&proxy, 1).len(), 1);
    std::fs::rename(proxy.path("access.log"), proxy.path("old.log")).unwrap();
    proxy.signal("USR1");
    // whichever comes first, the signal or the next line, the new file has the next line in the end
    let end = Instant::now() + DEADLINE;
    while std::fs::read_to_string(proxy.path("access.log"))
        .unwrap_or_default()
        .is_empty()
    {
        proxy.send(get("/two"));
        assert!(Instant::now() < end);
    }
    let old = std::fs::read_to_string(proxy.path("old.log")).unwrap();
    assert!(old.contains("/one"));
}
