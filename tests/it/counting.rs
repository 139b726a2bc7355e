//! What an answer says that it used, as the access log, the metrics and the dashboard tell it: every
//! spelling and shape of usage, errors inside of a success, and streams that are broken off.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    DEADLINE, Proxy, Upstream, post,
    wire::{assert_octets, chunk},
};

const ASK: &str = r#"{"model":"asked","max_tokens":1024,"messages":[]}"#;

const KEY: &str = "a-key-of-the-tests";

/// Proxies whose access log and dashboard are read.
fn proxy(upstream: &Upstream) -> Proxy {
    Proxy::to(upstream.url())
        .env("ACCESS_LOG", "access.log")
        .env("ENABLE_DASHBOARD", "true")
        .env("DASHBOARD_API_KEY", KEY)
        .env("METRICS_PUBLIC", "true")
        .start()
}

/// The lines of the access log, once there are this many.
#[track_caller]
fn lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    let end = Instant::now() + DEADLINE;
    loop {
        let text = std::fs::read_to_string(proxy.path("access.log")).unwrap_or_default();
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < end, "only {} lines", lines.len());
        thread::sleep(Duration::from_millis(10));
    }
}

/// What the dashboard's API says, once this holds of it.
#[track_caller]
fn api(proxy: &Proxy, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let ask = format!(
            "GET /admin/api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        );
        let value: Value = serde_json::from_slice(proxy.send(ask).content()).unwrap();
        if holds(&value) {
            return value;
        }
        assert!(Instant::now() < end, "{path}: {value}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn answer(content_type: &str, content: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    )
}

fn message(model: &str, usage: &Value) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [],
           "stop_reason": "end_turn", "usage": usage})
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// Asks once for each answer; gives the lines of the access log.
fn asked(proxy: &Proxy, upstream: &Upstream, answers: &[String]) -> Vec<Value> {
    let (mut client, mut origin) = (proxy.connect(), None);
    for answer in answers {
        client.send(post("/v1/messages", ASK));
        let origin = origin.get_or_insert_with(|| upstream.accept());
        origin.read_request();
        origin.send(answer);
        let (_, content) = answer.split_once("\r\n\r\n").unwrap();
        assert_octets(client.read_response("POST").content(), content, "untouched");
    }
    lines(proxy, answers.len())
}

#[test]
fn what_an_answer_costs_is_what_the_bill_says() {
    let plain =
        |model: &str, usage: Value| answer("application/json", &message(model, &usage).to_string());
    let many = |member: &str, value: &str| json!({"input_tokens": 100_000, "output_tokens": 10_000, member: value});
    let compaction = json!({"input_tokens": 23_000, "output_tokens": 1_000, "iterations": [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000}]});
    let advisor = json!({"input_tokens": 2, "output_tokens": 491, "iterations": [
        {"type": "message", "input_tokens": 1, "output_tokens": 45},
        {"type": "advisor_message", "model": "claude-opus-4-7", "input_tokens": 159_419, "output_tokens": 7_805},
        {"type": "message", "input_tokens": 1, "output_tokens": 446}]});
    let small = || json!({"input_tokens": 1_000, "output_tokens": 100});
    let sonnet = "claude-sonnet-4-5-20250929";
    let streamed = |deltas: &[Value]| {
        let begun = message(
            sonnet,
            &json!({"input_tokens": 1_500, "cache_read_input_tokens": 30_000,
            "cache_creation_input_tokens": 2_000, "output_tokens": 1}),
        );
        let mut events = event(
            "message_start",
            &json!({"type": "message_start", "message": begun}),
        );
        for usage in deltas {
            events += &event(
                "message_delta",
                &json!({"type": "message_delta", "delta": {}, "usage": usage}),
            );
        }
        answer(
            "text/event-stream",
            &(events + &event("message_stop", &json!({"type": "message_stop"}))),
        )
    };
    let zeros = json!({"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 10});
    let cases = [
        (plain("claude-opus-4-6", compaction), 1.1275),
        (plain("claude-sonnet-4-6", advisor), 0.999_591),
        (
            plain("claude-sonnet-4-6", many("inference_geo", "us")),
            0.495,
        ),
        (plain("claude-opus-4-8", many("speed", "fast")), 1.5),
        (
            plain("claude-opus-4-8", many("service_tier", "batch")),
            0.375,
        ),
        (
            plain(
                sonnet,
                json!({"input_tokens": 10, "output_tokens": 10,
            "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 2}}),
            ),
            0.030_18,
        ),
        (
            plain(sonnet, json!({"input_tokens": 10.0, "output_tokens": 20.0})),
            0.000_33,
        ),
        (
            plain(sonnet, json!({"input_tokens": "10", "output_tokens": "20"})),
            0.000_33,
        ),
        (
            plain("us.anthropic.claude-sonnet-4-5-20250929-v1:0", small()),
            0.0045,
        ),
        (plain("anthropic/claude-sonnet-4.5", small()), 0.0045),
        (plain("Claude-Sonnet-4-5", small()), 0.0045),
        (plain("claude-opus-4@20250514", small()), 0.0225),
        // 1,500 × 3 + 10 × 15 + 30,000 × 0.3 + 2,000 × 3.75 millionths
        (streamed(std::slice::from_ref(&zeros)), 0.021_15),
        (
            streamed(&[zeros, json!({"input_tokens": 0, "output_tokens": 0})]),
            0.021_15,
        ),
    ];
    let upstream = Upstream::bind();
    let proxy = proxy(&upstream);
    let answers = cases.each_ref().map(|(answer, _)| answer.clone());
    let lines = asked(&proxy, &upstream, &answers);
    let mut sum = 0.0;
    for ((answer, cost), line) in cases.iter().zip(&lines) {
        let told = line["cost_usd"].as_f64().unwrap();
        assert!((told - cost).abs() < 1e-9, "{cost}: {line} of {answer}");
        assert_eq!(
            (&line["at_least"], &line["metering_failure"]),
            (&Value::Null, &Value::Null),
            "{line}"
        );
        sum += cost;
    }
    assert_eq!(lines[0]["tokens"]["input"], 203_000);
    assert_eq!(lines[1]["tokens"]["input"], 2);
    assert_eq!(lines[1]["other_models"][0]["model"], "claude-opus-4-7");
    assert_eq!(
        lines[9]["model"], "anthropic/claude-sonnet-4.5",
        "as the answer spells it"
    );
    let count = answers.len();
    let overview = api(&proxy, "overview", |it| it["totals"]["requests"] == count);
    let told = overview["totals"]["cost_usd"].as_f64().unwrap();
    assert!((told - sum).abs() < 1e-9, "{told} of {sum}");
    let usage = api(&proxy, "usage", |_| true);
    let row = |model: &str| {
        let rows = usage["rows"].as_array().unwrap();
        rows.iter()
            .find(|row| row["model"] == model)
            .unwrap()
            .clone()
    };
    let advisor = row("claude-opus-4-7");
    assert_eq!(
        (&advisor["requests"], &advisor["tokens"]["input"]),
        (&json!(0), &json!(159_419))
    );
    assert!(
        (advisor["cost_usd"].as_f64().unwrap() - 0.992_22).abs() < 1e-9,
        "{advisor}"
    );
}

#[test]
fn an_empty_model_is_that_of_the_request_and_what_cannot_be_read_is_counted() {
    let cases = [
        (
            message("", &json!({"input_tokens": 1, "output_tokens": 1})),
            Value::Null,
        ),
        (
            message("m", &json!({"input_tokens": "many", "output_tokens": 1})),
            json!("value"),
        ),
        (
            message("m", &json!({"iterations": [{"type": "of_tomorrow"}]})),
            json!("value"),
        ),
        (
            json!({"code": 401, "message": "invalid token"}),
            json!("missing"),
        ),
    ];
    let upstream = Upstream::bind();
    let proxy = proxy(&upstream);
    let answers = cases
        .each_ref()
        .map(|(content, _)| answer("application/json", &content.to_string()));
    let cut = [
        answer(
            "application/json",
            r#"{"model":"m","usage":{"input_tokens":1}"#,
        ),
        answer("text/event-stream", "event: message_stop\ndata: {}\n"),
    ];
    let lines = asked(&proxy, &upstream, &[&answers[..], &cut[..]].concat());
    let expected = cases.iter().map(|(_, failure)| failure.clone());
    for (line, failure) in lines
        .iter()
        .zip(expected.chain([json!("truncated"), json!("truncated")]))
    {
        assert_eq!(line["metering_failure"], failure, "{line}");
        assert_eq!(
            line["at_least"],
            if failure.is_null() {
                Value::Null
            } else {
                true.into()
            },
            "{line}"
        );
    }
    assert_eq!(lines[0]["model"], "asked");
    let text = exposition(&proxy);
    for (reason, count) in [
        ("value", 2),
        ("missing", 1),
        ("truncated", 2),
        ("broken", 0),
    ] {
        let sample =
            format!("anthropic_proxy_metering_failures_total{{reason=\"{reason}\"}} {count}\n");
        assert!(text.contains(&sample), "{sample}{text}");
    }
}

fn exposition(proxy: &Proxy) -> String {
    let response = proxy.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    String::from_utf8_lossy(response.content()).into_owned()
}

#[test]
fn an_error_inside_of_a_success_is_an_error_everywhere() {
    let stream = "text/event-stream";
    let cases = [
        (
            stream,
            "event: error\ndata: {\"error\":{\"message\":\"quota exceeded\"}}\n\n",
            "error",
        ),
        (
            stream,
            "event: error\ndata: quota exceeded upstream\n\n",
            "error",
        ),
        (
            stream,
            "data: {\"error\":{\"message\":\"quota exceeded\",\"type\":\"new_api_error\"}}\n\ndata: [DONE]\n\n",
            "new_api_error",
        ),
        (
            stream,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"quota exceeded\"}}\n\n",
            "overloaded_error",
        ),
        (
            "application/json",
            "{\"error\":{\"message\":\"quota exceeded\",\"code\":\"insufficient_quota\"}}",
            "insufficient_quota",
        ),
        (
            "application/json",
            "{\"error\":\"quota exceeded\"}",
            "error",
        ),
    ];
    let upstream = Upstream::bind();
    let proxy = proxy(&upstream);
    let answers = cases.map(|(content_type, content, _)| answer(content_type, content));
    let lines = asked(&proxy, &upstream, &answers);
    for ((_, _, error), line) in cases.iter().zip(&lines) {
        assert_eq!(
            (&line["status"], &line["error_type"]),
            (&json!(200), &json!(error)),
            "{line}"
        );
        assert_eq!(line["metering_failure"], Value::Null, "{line}");
    }
    let count = cases.len();
    let overview = api(&proxy, "overview", |it| it["totals"]["requests"] == count);
    assert_eq!(overview["totals"]["failed"], count, "{overview}");
    assert_eq!(overview["totals"]["error_rate"], 1.0);
    let errors = api(&proxy, "errors", |_| true);
    let groups = errors["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4, "{errors}");
    for group in groups {
        let words = group["sample"]["content"].as_str().unwrap_or_default();
        assert!(words.contains("quota exceeded"), "{group}");
    }
    let found = api(&proxy, "requests?q=new_api_error", |_| true);
    assert_eq!(found["total"], 1, "{found}");
    assert_eq!(found["items"][0]["error_type"], "new_api_error");
    let text = exposition(&proxy);
    for (error, count) in [
        ("error", 3),
        ("insufficient_quota", 1),
        ("new_api_error", 1),
    ] {
        let sample =
            format!("anthropic_proxy_upstream_errors_total{{error_type=\"{error}\"}} {count}\n");
        assert!(text.contains(&sample), "{sample}{text}");
    }
}

#[test]
fn a_stream_that_is_broken_off_costs_at_least_and_about() {
    let upstream = Upstream::bind();
    let proxy = proxy(&upstream);
    let begun = message(
        "claude-sonnet-4-5",
        &json!({"input_tokens": 1_000, "output_tokens": 1}),
    );
    let mut events = event(
        "message_start",
        &json!({"type": "message_start", "message": begun}),
    );
    for _ in 0..50 {
        // 40 octets: ten tokens
        let delta = json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": "word ".repeat(8)}});
        events += &event("content_block_delta", &delta);
    }
    let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", ASK));
    origin.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    origin.send(chunk(events.as_bytes()));
    client.read_response_head();
    client.read_chunks(events.len());
    origin.reset();
    client.read_chunked();
    let line = &lines(&proxy, 1)[0];
    assert_eq!(line["ended_by"], "upstream", "{line}");
    assert_eq!(
        (&line["at_least"], &line["metering_failure"]),
        (&json!(true), &Value::Null),
        "{line}"
    );
    let floor = line["cost_usd"].as_f64().unwrap();
    assert!((floor - 0.003_015).abs() < 1e-9, "{line}");
    let output = line["output_estimate"].as_u64().unwrap();
    assert!((400..600).contains(&output), "{line}");
    let estimate = line["cost_estimate_usd"].as_f64().unwrap();
    let expected = 0.003 + output as f64 * 15e-6;
    assert!((estimate - expected).abs() < 1e-9, "{line}");
    let page = api(&proxy, "requests", |page| {
        page["items"][0]["state"] == "done"
    });
    let row = &page["items"][0];
    assert_eq!(row["at_least"], true, "{row}");
    assert_eq!(row["estimate"]["output"], output, "{row}");
    let overview = api(&proxy, "overview", |it| it["totals"]["requests"] == 1);
    let totals = &overview["totals"];
    assert_eq!(
        (
            &totals["at_least_requests"],
            &overview["today"]["at_least_requests"]
        ),
        (&json!(1), &json!(1))
    );
    assert!(
        (totals["cost_usd"].as_f64().unwrap() - floor).abs() < 1e-9,
        "{totals}"
    );
    assert!(
        (totals["cost_estimate_usd"].as_f64().unwrap() - estimate).abs() < 1e-9,
        "{totals}"
    );
    let usage = api(&proxy, "usage", |_| true);
    assert_eq!(usage["rows"][0]["at_least"], true, "{usage}");
    let text = exposition(&proxy);
    let sample =
        "anthropic_proxy_at_least_requests_total{gen_ai_request_model=\"claude-sonnet-4-5\"} 1\n";
    assert!(text.contains(sample), "{text}");
}
