//! Alerts from inside (`ALERT_WEBHOOK`): one post when a condition holds, one when it has ended.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Answering, Body, DEADLINE, Proxy, ProxyBuilder, Upstream, post};

/// A proxy that looks often.
fn watched(upstream: &Answering, receiver: &Answering) -> ProxyBuilder {
    Proxy::to(upstream.url())
        .env("ALERT_WEBHOOK", format!("{}/hook-canary", receiver.url()))
        .env("ALERT_INTERVAL", "10ms")
}

fn receiver() -> Answering {
    Upstream::always("HTTP/1.1 204 No Content\r\n\r\n")
}

/// An upstream whose answer has a model and usage.
fn upstream(model: &str) -> Answering {
    let content = json!({
        "type": "message", "model": model, "content": [{"type": "text", "text": "canary"}],
        "usage": {"input_tokens": 10, "output_tokens": 5},
    });
    let content = content.to_string();
    Upstream::always(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    ))
}

fn told(receiver: &Answering) -> Value {
    let (head, body) = receiver.request();
    assert_eq!(head.target(), "/hook-canary");
    content(body)
}

fn content(body: Body) -> Value {
    let (Body::Length(octets) | Body::Chunked(octets)) = body else {
        panic!("{body:?}")
    };
    serde_json::from_slice(&octets).unwrap()
}

#[test]
fn a_condition_is_told_when_it_begins_and_when_it_ends() {
    for has_pages in [true, false] {
        let (upstream, receiver) = (upstream("unheard-of"), receiver());
        let proxy = watched(&upstream, &receiver)
            .env("ENABLE_DASHBOARD", has_pages)
            .start();
        proxy.send(post("/v1/messages", r#"{"model":"asked","messages":[]}"#));
        let begun = told(&receiver);
        for (name, expected) in [
            ("event", json!("alert")),
            ("alert", json!("unpriced")),
            ("status", json!("firing")),
            ("severity", json!("info")),
            ("subject", json!("unheard-of")),
            ("summary", json!("unheard-of has no price (1 request).")),
            ("value", json!(1.0)),
        ] {
            assert_eq!(begun[name], expected, "{name}: {begun}");
        }
        let url = begun["url"].as_str();
        assert_eq!(url.is_some(), has_pages, "{begun}");
        assert!(
            url.is_none_or(|url| url.ends_with("/admin/usage")),
            "{begun}"
        );
        assert!(
            begun["text"].as_str().unwrap().contains("PRICES_FILE"),
            "{begun}"
        );
        // once 60 looks have passed without such a request
        let ended = told(&receiver);
        assert_eq!(
            (&ended["alert"], &ended["status"], &ended["since"]),
            (&json!("unpriced"), &json!("resolved"), &begun["since"])
        );
        assert!(ended["lasted_seconds"].is_u64(), "{ended}");
        proxy.signal("TERM");
        let ended = proxy.wait();
        assert_eq!(ended.code, Some(0));
        assert!(receiver.try_request().is_none(), "each is told once");
        assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    }
}

#[test]
fn errors_are_told_in_the_form_of_slack() {
    let upstream = Upstream::always("HTTP/1.1 500 Failed\r\nContent-Length: 0\r\n\r\n");
    let receiver = receiver();
    let proxy = watched(&upstream, &receiver)
        .env("ALERT_WEBHOOK_FORM", "slack")
        .env("ALERT_INTERVAL", "100ms")
        .start();
    let end = Instant::now() + DEADLINE;
    // a share is of 20 requests of 20 looks
    let (_, body) = loop {
        proxy.send(post("/v1/messages", "{}"));
        if let Some(request) = receiver.request_within(Duration::from_millis(5)) {
            break request;
        }
        assert!(Instant::now() < end, "no post");
    };
    let slack = content(body);
    let text = slack["text"].as_str().unwrap();
    assert!(text.starts_with("[critical] anthropic-proxy at "), "{text}");
    assert!(text.contains(": 100% of the requests fail ("), "{text}");
    let attachment = &slack["attachments"][0];
    assert_eq!(
        (&attachment["title"], &attachment["color"]),
        (&json!("errors"), &json!("danger"))
    );
}

#[test]
fn settings_that_cannot_be_read_are_told_until_they_can_be() {
    let (upstream, receiver) = (upstream("claude-sonnet-4-5"), receiver());
    let proxy = watched(&upstream, &receiver).file("env/.env", "").start();
    proxy.write("env/.env", "MAX_IN_FLIGHT=many\n");
    proxy.signal("HUP");
    let begun = told(&receiver);
    assert_eq!(
        (&begun["alert"], &begun["status"]),
        (&json!("reload_failed"), &json!("firing"))
    );
    proxy.write("env/.env", "MAX_IN_FLIGHT=7\n");
    proxy.signal("HUP");
    let ended = told(&receiver);
    assert_eq!(
        (&ended["alert"], &ended["status"]),
        (&json!("reload_failed"), &json!("resolved"))
    );
}

#[test]
#[cfg(target_os = "linux")]
fn there_is_a_thread_for_alerts_only_where_they_are_on() {
    let (upstream, receiver) = (upstream("claude-sonnet-4-5"), receiver());
    for is_on in [true, false] {
        let proxy = match is_on {
            true => watched(&upstream, &receiver).start(),
            false => Proxy::to(upstream.url()).start(),
        };
        let threads = fs::read_dir(format!("/proc/{}/task", proxy.id())).unwrap();
        let mut names = threads
            .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
        assert_eq!(names.any(|name| name.trim() == "alerts"), is_on);
    }
}

#[test]
fn what_cannot_be_an_alert_is_refused() {
    for (name, value) in [
        ("ALERT_WEBHOOK", "hooks.example/x"),
        ("ALERT_WEBHOOK_FORM", "teams"),
        ("ALERT_INTERVAL", "0"),
        ("ALERT_ERROR_RATE", "101"),
        ("ALERT_COST_PER_HOUR", "-5"),
    ] {
        let ended = ProxyBuilder::new().env(name, value).arg("check").run();
        assert_eq!(ended.code, Some(2), "{name}");
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
}
