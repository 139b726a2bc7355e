//! A developer's machine: the settings of Claude Code, and the way to the proxy.

use serde_json::json;

use super::{answer, assert_check, check, closed_port, report, upstream};
use crate::support::{ProxyBuilder, Upstream};

fn client() -> ProxyBuilder {
    let builder = ProxyBuilder::new();
    let home = builder.path("home");
    builder
        .env("HOME", home.display())
        .args(["doctor", "--client"])
}

#[test]
fn the_base_url_of_a_settings_file_is_the_one_that_is_asked() {
    let upstream = upstream(|_, _| None);
    let settings = json!({"env": {"ANTHROPIC_BASE_URL": upstream.url()}}).to_string();
    let builder = client()
        .file("home/.claude/settings.json", settings)
        .env(
            "ANTHROPIC_BASE_URL",
            format!("http://127.0.0.1:{}", closed_port()),
        )
        .env("ANTHROPIC_AUTH_TOKEN", "canary-token");
    let (report, ended) = report(builder);
    for id in [
        "base_url",
        "credential",
        "settings_file",
        "models",
        "count_tokens",
        "limits",
    ] {
        assert_check(&report, id, "ok", "");
    }
    assert_eq!(ended.code, Some(0), "{report:#}");
    let (head, _) = upstream.request();
    assert_eq!(head.one("authorization"), Some("Bearer canary-token"));
    // nothing of a server
    let groups: Vec<_> = report["checks"].as_array().unwrap().iter().collect();
    assert!(
        groups.iter().all(|check| check["group"] == "client"),
        "{report:#}"
    );
}

#[test]
fn a_client_without_settings_is_told_what_to_set() {
    let (report, ended) = report(client());
    assert_check(&report, "base_url", "fail", "ANTHROPIC_BASE_URL=");
    assert_check(&report, "credential", "warn", "ANTHROPIC_AUTH_TOKEN");
    assert_eq!(ended.code, Some(1));
}

#[test]
fn a_budget_that_is_used_up_and_a_key_that_is_refused_are_found() {
    let upstream = upstream(|head, _| {
        let limit = json!({"kind": "spend", "group": "monthly", "percent": 100, "resets_at": "x"});
        let is_usage = head.target() == "/api/oauth/usage";
        is_usage.then(|| answer(200, &json!({"limits": [limit]})))
    });
    let (found, ended) = report(
        client()
            .args(["--url", &upstream.url()])
            .env("ANTHROPIC_API_KEY", "canary"),
    );
    assert_check(&found, "limits", "fail", "ask the proxy's operator");
    assert_eq!(ended.code, Some(1));
    let closed = format!("http://127.0.0.1:{}", closed_port());
    let (found, _) = report(client().args(["--url", &closed]));
    assert_check(&found, "tcp", "fail", "ANTHROPIC_BASE_URL");
    assert_eq!(check(&found, "limits")["status"], "skip");
}

#[test]
fn a_proxy_that_catches_requests_to_this_machine_is_found_and_gets_no_credential() {
    let upstream = upstream(|_, _| None);
    let of = |name: &str, exceptions: &str| {
        let outbound = Upstream::ok();
        let builder = client()
            .args(["--url", &upstream.url()])
            .env("ANTHROPIC_AUTH_TOKEN", "canary-token")
            .env(name, outbound.url())
            .env("NO_PROXY", exceptions);
        (report(builder), outbound)
    };
    // Claude Code takes either for http://, too
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        let ((found, ended), outbound) = of(name, "other.test");
        assert_check(
            &found,
            "outbound_proxy",
            "fail",
            "NO_PROXY=127.0.0.1,localhost",
        );
        assert_check(&found, "limits", "skip", "");
        assert_eq!(ended.code, Some(1), "{name}: {found:#}");
        assert!(outbound.try_request().is_none(), "{name}");
    }
    for (name, exceptions) in [("HTTPS_PROXY", "127.0.0.1,localhost"), ("ALL_PROXY", "")] {
        let ((found, ended), _outbound) = of(name, exceptions);
        assert_check(&found, "models", "ok", "");
        assert_check(&found, "limits", "ok", "");
        assert_eq!(ended.code, Some(0), "{name}: {found:#}");
    }
}
