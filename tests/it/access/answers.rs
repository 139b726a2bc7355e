//! What a refused client is told: status, type, label and fields of each row of control.md §3, one sentence,
//! and what a client that passes learns of its budget.

use serde_json::Value;

use super::site::{self, Site, json_answer, message};
use crate::support::{Response, Upstream, assert_proxy_error, wire::show};

const SONNET: &str = "claude-sonnet-4-5";

/// The fields of a head that speak of limits, in their order.
fn limits(answer: &Response) -> Vec<String> {
    let fields = answer.head.fields.iter();
    let fields = fields.map(|(name, value)| format!("{}: {}", name.to_lowercase(), show(value)));
    fields
        .filter(|field| field.starts_with("anthropic-ratelimit-"))
        .map(|field| field.replace("anthropic-ratelimit-", ""))
        .collect()
}

fn text(answer: &Response) -> String {
    let content: Value = serde_json::from_slice(answer.content()).unwrap();
    let text = content["error"]["message"].as_str().unwrap().to_owned();
    assert!(text.chars().count() <= 200, "{text}");
    text
}

fn seconds(answer: &Response) -> u64 {
    answer.head.one("retry-after").unwrap().parse().unwrap()
}

#[test]
fn a_spend_limit_is_a_429_that_no_client_retries() {
    // 10,000 × 3 + 2,000 × 15 millionths: 0.06 $
    let upstream = Upstream::answering(|_, _| site::answer(SONNET, 10_000, 2_000).into());
    let site = Site::new();
    let key = site.key(&[
        "--name",
        "first",
        "--team",
        "core",
        "--budget",
        "0.05/month@Europe/Berlin",
    ]);
    let proxy = site
        .proxy(&upstream)
        .env("LIMITS_CONTACT", "in #claude")
        .start();
    assert_eq!(proxy.send(message(&key, SONNET)).status(), 200);
    let answer = proxy.send(message(&key, SONNET));
    assert_proxy_error(&answer, 429, "billing_error", "spend_limit");
    assert_eq!(answer.head.one("x-should-retry"), Some("false"));
    let wait = seconds(&answer);
    assert!((1..=31 * 86_400).contains(&wait), "{wait}");
    let said = text(&answer);
    assert!(
        said.starts_with("Spend limit reached: ") && said.contains("$0.05 a month"),
        "{said}"
    );
    assert!(
        said.contains("Europe/Berlin") && said.ends_with("Ask in #claude."),
        "{said}"
    );
    let told = limits(&answer);
    let value = |name: &str| {
        let field = told.iter().find_map(|field| field.strip_prefix(name));
        field
            .unwrap_or_else(|| panic!("{name}: {told:?}"))
            .to_owned()
    };
    assert_eq!(value("unified-status: "), "rejected");
    assert_eq!(value("unified-reset: "), value("unified-overage-reset: "));
    assert_eq!(value("unified-overage-utilization: "), "1.20");
    assert_eq!(value("unified-overage-surpassed-threshold: "), "1");
    assert_eq!(value("unified-overage-period: "), "monthly");
    assert_eq!(
        value("unified-overage-disabled-reason: "),
        "org_spend_cap_reached"
    );
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let reset: u64 = value("unified-reset: ").parse().unwrap();
    assert!(
        reset.abs_diff(now + wait) < 120,
        "{reset} is not in {wait} s"
    );
    for absent in ["representative-claim", "overage-status"] {
        assert!(!told.iter().any(|it| it.contains(absent)), "{told:?}");
    }
    upstream.request();
    upstream.no_more();
}

#[test]
fn a_success_says_how_much_of_the_budget_is_spent_and_nothing_of_the_shared_account() {
    let usage = serde_json::json!({"input_tokens": 10_000, "output_tokens": 2_000});
    let content =
        serde_json::json!({"type": "message", "model": SONNET, "content": [], "usage": usage});
    let shared = "anthropic-ratelimit-requests-limit: 50\r\nAnthropic-RateLimit-Unified-Status: allowed\r\n\
                  anthropic-organization-id: o\r\n";
    let answer = json_answer(&content, shared);
    let upstream = Upstream::answering(move |_, _| answer.clone().into());
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "0.10/day"]);
    let free = site.key(&["--name", "free"]);
    let proxy = site.proxy(&upstream).start();
    let answer = proxy.send(message(&key, SONNET));
    let told = limits(&answer);
    assert_eq!(
        told[..4],
        [
            "unified-status: allowed",
            "unified-representative-claim: overage",
            "unified-overage-status: allowed",
            "unified-overage-utilization: 0.00",
        ],
        "{told:?}"
    );
    assert_eq!(answer.head.one("anthropic-organization-id"), Some("o"));
    // 60 % are spent
    let told = limits(&proxy.send(message(&key, SONNET)));
    assert_eq!(told[3], "unified-overage-utilization: 0.60", "{told:?}");
    assert!(told[4].starts_with("unified-reset: "), "{told:?}");
    // without a budget there is nothing to say
    assert_eq!(limits(&proxy.send(message(&free, SONNET))), [""; 0]);
}

#[test]
fn usage_is_answered_for_a_key() {
    let upstream = Upstream::answering(|_, _| site::answer(SONNET, 10_000, 2_000).into());
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "0.10/month"]);
    let proxy = site.proxy(&upstream).start();
    assert_eq!(proxy.send(message(&key, SONNET)).status(), 200);
    upstream.request();
    let answer = proxy.send(site::keyed(&key, "GET", "/api/oauth/usage", "", ""));
    assert_eq!(answer.status(), 200);
    let content: Value = serde_json::from_slice(answer.content()).unwrap();
    let extra = &content["extra_usage"];
    assert_eq!(extra["is_enabled"], true, "{content}");
    assert_eq!(extra["monthly_limit"], 10, "{content}");
    assert_eq!(extra["used_credits"], 6, "{content}");
    assert_eq!(extra["currency"], "USD", "{content}");
    assert_eq!(extra["utilization"].as_f64(), Some(60.0), "{content}");
    let limit = &content["limits"][0];
    assert_eq!(limit["kind"], "spend", "{content}");
    assert_eq!(limit["group"], "monthly", "{content}");
    assert_eq!(limit["percent"].as_f64(), Some(60.0), "{content}");
    assert_eq!(limit["is_active"], true, "{content}");
    assert!(
        limit["resets_at"].as_str().unwrap().contains('T'),
        "{content}"
    );
    upstream.no_more();
}

#[test]
fn rates_say_when_to_come_back() {
    let upstream = Upstream::answering(|_, _| site::answer(SONNET, 10, 10).into());
    let site = Site::new();
    let key = site.key(&["--name", "first", "--rpm", "1"]);
    let proxy = site.proxy(&upstream).start();
    assert_eq!(proxy.send(message(&key, SONNET)).status(), 200);
    let answer = proxy.send(message(&key, SONNET));
    assert_proxy_error(&answer, 429, "rate_limit_error", "request_limit");
    assert!((1..=60).contains(&seconds(&answer)));
    assert!(!answer.head.has("x-should-retry"));
    assert!(
        text(&answer).contains("1 requests a minute"),
        "{}",
        text(&answer)
    );
    // what cannot spend counts as a request, too
    let answer = proxy.send(site::keyed(&key, "GET", "/v1/models", "", ""));
    assert_proxy_error(&answer, 429, "rate_limit_error", "request_limit");
}

#[test]
fn tokens_a_minute_are_bounded() {
    let upstream = Upstream::answering(|_, _| site::answer(SONNET, 10, 5_000).into());
    let site = Site::new();
    let key = site.key(&["--name", "first", "--output-tpm", "1000"]);
    let proxy = site.proxy(&upstream).start();
    assert_eq!(proxy.send(message(&key, SONNET)).status(), 200);
    let answer = proxy.send(message(&key, SONNET));
    assert_proxy_error(&answer, 429, "rate_limit_error", "output_token_limit");
    // five times the minute's tokens are owed: longer than a client should sleep
    assert!(seconds(&answer) > 60, "{}", seconds(&answer));
    assert_eq!(answer.head.one("x-should-retry"), Some("false"));
}

#[test]
fn a_model_that_is_not_allowed_names_those_that_are() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&[
        "--name",
        "first",
        "--models",
        "claude-haiku-*,claude-sonnet-4-5",
    ]);
    let proxy = site.proxy(&upstream).start();
    let answer = proxy.send(message(&key, "claude-opus-4-8"));
    assert_proxy_error(&answer, 400, "invalid_request_error", "model_not_allowed");
    let said = text(&answer);
    for part in ["claude-opus-4-8", "claude-haiku-*", "claude-sonnet-4-5"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(proxy.send(message(&key, SONNET)).status(), 200);
    upstream.request();
    upstream.no_more();
}

#[test]
fn a_revoked_key_is_a_401_that_is_not_retried() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.proxy(&upstream).start();
    assert_eq!(proxy.send(message(&key, SONNET)).status(), 200);
    upstream.request();
    site.done(&["keys", "revoke", site::id(&key), "--reason", "left"]);
    let answer = proxy.send(message(&key, SONNET));
    assert_proxy_error(&answer, 401, "authentication_error", "key_revoked");
    assert_eq!(answer.head.one("x-should-retry"), Some("false"));
    upstream.no_more();
}

#[test]
fn refusals_are_counted_by_reason_and_team() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&[
        "--name",
        "first",
        "--team",
        "Core Team",
        "--models",
        "claude-haiku-*",
    ]);
    let proxy = site.proxy(&upstream).env("METRICS_PUBLIC", "true").start();
    for _ in 0..2 {
        proxy.send(message(&key, "claude-opus-4-8"));
    }
    proxy.send(message(&site::wrong(&key), SONNET));
    let metrics = site::metrics(&proxy);
    for series in [
        "anthropic_proxy_access_refusals_total{reason=\"model_not_allowed\",team=\"Core Team\"} 2\n",
        "anthropic_proxy_access_refusals_total{reason=\"key_unknown\",team=\"\"} 1\n",
        "anthropic_proxy_access_waiting_requests 0\n",
    ] {
        assert!(metrics.contains(series), "{series}{metrics}");
    }
    assert!(!metrics.contains(site::id(&key)));
}
