//! Keys of the proxy, as clients meet them: which credentials count and where they end, what each refusal
//! says, models, paths, limits, and the list of models (docs/access.md).

mod answers;
mod credentials;
mod load;
mod models;
pub(crate) mod site;
mod streams;

use std::{
    thread,
    time::{Duration, Instant},
};

use self::site::Site;
use crate::support::{
    DEADLINE, Upstream, assert_proxy_error, get,
    upstream::OK,
    wire::{assert_octets, show},
};

#[test]
fn without_keys_nothing_changes() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let proxy = site.bare_proxy(&upstream).start();
    let ask = "GET /a/../b HTTP/1.1\r\nHost: c\r\nx-api-key: ap_of-another-proxy\r\nx-proxy-key: x\r\n\r\n";
    let answer = proxy.send(ask);
    assert_octets(answer.content(), "ok", "answer");
    let (head, _) = upstream.request();
    assert_eq!(head.target(), "/a/../b");
    assert_eq!(head.one("x-api-key"), Some("ap_of-another-proxy"));
    assert_eq!(head.one("x-proxy-key"), Some("x"));
}

#[test]
fn the_first_key_makes_keys_required() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.proxy(&upstream).start();
    let answer = proxy.send(get("/v1/models"));
    assert_proxy_error(&answer, 401, "authentication_error", "key_missing");
    upstream.no_more();
    let answer = proxy.send(site::keyed(&key, "GET", "/v1/models", "", ""));
    assert_eq!(show(answer.content()), "ok");
    upstream.request();
}

#[test]
fn the_last_use_of_each_secret_outlives_a_restart() {
    let upstream = Upstream::always(OK);
    let site = Site::new();
    let key = site.key(&["--name", "used"]);
    site.key(&["--name", "unused"]);
    let proxy = site.proxy(&upstream).start();
    assert_eq!(
        proxy
            .send(site::keyed(&key, "GET", "/v1/models", "", ""))
            .status(),
        200
    );
    let last_use = |name: &str| {
        let shown: serde_json::Value =
            serde_json::from_str(&site.done(&["keys", "show", name, "--json"])).unwrap();
        assert_eq!(shown["last_used_at"], shown["secrets"][0]["last_used_at"]);
        shown["last_used_at"].clone()
    };
    let at = last_use("used");
    assert!(at.is_string(), "{at}");
    proxy.signal("TERM");
    proxy.wait();
    // by the verb alone, then by another process
    assert_eq!(last_use("used"), at);
    let _proxy = site.proxy(&upstream).start();
    assert_eq!(last_use("used"), at);
    assert_eq!(last_use("unused"), serde_json::Value::Null);
}

#[test]
fn optional_keys_let_other_credentials_pass_and_refuse_wrong_keys() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&["--name", "first", "--models", "claude-haiku-*"]);
    let proxy = site.bare_proxy(&upstream).env("ACCESS", "optional").start();
    // as today: any path, any credential
    let own = "POST /v1/complete HTTP/1.1\r\nHost: c\r\nx-api-key: sk-ant-own\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(proxy.send(own).status(), 200);
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-api-key"), Some("sk-ant-own"));
    let wrong = site::wrong(&key);
    let answer = proxy.send(site::keyed(&wrong, "GET", "/v1/models", "", ""));
    assert_proxy_error(&answer, 401, "authentication_error", "key_unknown");
    let body = r#"{"model":"claude-opus-4-8","max_tokens":1,"messages":[]}"#;
    let answer = proxy.send(site::keyed(&key, "POST", "/v1/messages", "", body));
    assert_proxy_error(&answer, 400, "invalid_request_error", "model_not_allowed");
    upstream.no_more();
}

#[test]
fn access_that_is_off_ignores_keys() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.bare_proxy(&upstream).env("ACCESS", "off").start();
    let answer = proxy.send(site::keyed(&key, "POST", "/v1/complete", "", "{}"));
    assert_eq!(answer.status(), 200);
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-api-key"), Some(key.as_str()));
}

#[test]
fn access_without_a_place_for_keys_is_a_fault() {
    for mode in ["required", "optional"] {
        let ended = crate::support::ProxyBuilder::new()
            .env("ACCESS", mode)
            .arg("check")
            .run();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let said = ended.stdout + &ended.stderr;
        assert!(
            said.contains("ACCESS") && said.contains("DATA_DIR"),
            "{said}"
        );
    }
    let ended = crate::support::ProxyBuilder::new()
        .env("ACCESS", "always")
        .arg("check")
        .run();
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains("off, optional or required"), "{said}");
}

#[test]
fn telemetry_has_the_details_of_a_body_that_is_read_for_a_limit() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&["--name", "first", "--budget", "5/day"]);
    let proxy = site
        .proxy(&upstream)
        .env("ENABLE_DASHBOARD", "true")
        .env("DASHBOARD_API_KEY", "a-key-of-the-tests")
        .start();
    let body =
        r#"{"max_tokens":7,"messages":[{"stream":false}],"stream":true,"model":"claude-opus-4-5"}"#;
    let answer = proxy.send(site::keyed(&key, "POST", "/v1/messages", "", body));
    assert_eq!(answer.status(), 200);
    let ask = "GET /admin/api/v1/requests HTTP/1.1\r\nHost: localhost\r\n\
               Authorization: Bearer a-key-of-the-tests\r\n\r\n";
    let end = Instant::now() + DEADLINE;
    let row = loop {
        let page: serde_json::Value = serde_json::from_slice(proxy.send(ask).content()).unwrap();
        let row = page["items"][0].clone();
        if !row["ended"].is_null() {
            break row;
        }
        assert!(Instant::now() < end, "{page}");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(row["model"], "claude-opus-4-5", "{row}");
    assert_eq!(row["max_tokens"], 7, "{row}");
}

#[test]
fn paths_that_could_spend_unseen_are_refused() {
    let upstream = Upstream::always(OK);
    let site = Site::new();
    let key = site.key(&["--name", "plain"]);
    let batches = site.key(&["--name", "batches", "--paths", "/v1/messages/batches*"]);
    let proxy = site.proxy(&upstream).start();
    for (method, path) in [
        ("POST", "/v1/complete"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/files/../complete"),
        ("POST", "/v1/files/%2e%2e/complete"),
        ("POST", "//v1/messages"),
        ("GET", "/v1/messages"),
        ("PUT", "/unknown"),
    ] {
        let answer = proxy.send(site::keyed(&key, method, path, "", "{}"));
        assert_proxy_error(&answer, 501, "not_supported", "path_not_allowed");
        assert_eq!(answer.head.one("x-should-retry"), Some("false"), "{path}");
    }
    let tunnel = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n";
    let answer = proxy.send(site::keyed(&key, "GET", "/v1/realtime", tunnel, ""));
    assert_proxy_error(&answer, 501, "not_supported", "path_not_allowed");
    upstream.no_more();
    for (method, path) in [
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/v1/models"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file_1/content"),
        ("HEAD", "/api/hello"),
    ] {
        let answer = proxy.send(site::keyed(&key, method, path, "", "{}"));
        assert_eq!(answer.status(), 200, "{method} {path}");
        assert_eq!(upstream.request().0.target(), path);
    }
    let answer = proxy.send(site::keyed(
        &batches,
        "POST",
        "/v1/messages/batches",
        "",
        "{}",
    ));
    assert_eq!(answer.status(), 200);
    upstream.request();
    let escape = "/v1/messages/batches/../../complete";
    let answer = proxy.send(site::keyed(&batches, "POST", escape, "", "{}"));
    assert_proxy_error(&answer, 501, "not_supported", "path_not_allowed");
    upstream.no_more();
}
