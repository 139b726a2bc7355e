//! The running server's own view: through the API, and by `--server`.

use serde_json::Value;

use super::{assert_check, assert_flags_have_their_verb, check, closed_port, report, upstream};
use crate::support::{Proxy, ProxyBuilder, Response, Upstream};

const KEY: &str = "an-admin-of-the-tests";
const VIEWER: &str = "a-viewer-of-the-tests";
const OPERATOR: &str = "an-operator-of-the-tests";

fn server(url: impl ToString) -> Proxy {
    Proxy::to(url)
        .env("UPSTREAM_API_KEYS", "sk-canary-of-the-upstream")
        .env("ENABLE_DASHBOARD", true)
        .env("DATA_DIR", "data")
        .env("DASHBOARD_API_KEY", KEY)
        .env("DASHBOARD_VIEWER_KEY", VIEWER)
        .env("DASHBOARD_OPERATOR_KEY", OPERATOR)
        .start()
}

fn ask(proxy: &Proxy, method: &str, key: &str, content: &str) -> Response {
    let length = content.len();
    proxy.send(format!(
        "{method} /admin/api/v1/doctor HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{content}"
    ))
}

fn json(response: &Response) -> Value {
    serde_json::from_slice(response.content()).unwrap()
}

#[test]
fn an_operator_has_the_server_check_itself_one_run_at_a_time() {
    let upstream = upstream(|_, _| None);
    let proxy = server(upstream.url());
    assert_eq!(ask(&proxy, "POST", VIEWER, "{}").status(), 403);
    assert_eq!(ask(&proxy, "GET", VIEWER, "").status(), 403);
    assert!(upstream.try_request().is_none());
    let none = json(&ask(&proxy, "GET", OPERATOR, ""));
    assert_eq!(
        (&none["running"], &none["report"]),
        (&Value::Bool(false), &Value::Null)
    );
    assert_eq!(
        ask(&proxy, "POST", OPERATOR, "{\"spend\": 1}").status(),
        400
    );
    let response = ask(&proxy, "POST", OPERATOR, "{}");
    let report = json(&response);
    assert_eq!(response.status(), 200, "{report:#}");
    assert!(!report.to_string().contains("canary"), "{report:#}");
    for id in [
        "settings",
        "dns",
        "models",
        "unknown_betas",
        "round_trip",
        "content",
        "audit",
    ] {
        assert_check(&report, id, "ok", "");
    }
    assert_check(&report, "stream", "skip", "");
    assert_flags_have_their_verb(&report);
    let last = json(&ask(&proxy, "GET", OPERATOR, ""));
    assert_eq!(last["report"], report);
    let soon = ask(&proxy, "POST", OPERATOR, "{}");
    assert_eq!(soon.status(), 429);
    assert_eq!(json(&soon)["error"]["code"], "too_soon");
    assert!(soon.head.one("retry-after").is_some());
    // who ran it is written down
    let audit = ProxyBuilder::new()
        .env("DATA_DIR", proxy.path("data").display())
        .args(["audit", "search", "--action", "doctor", "--json"])
        .run();
    assert!(
        audit.stdout.contains("doctor.run") && audit.stdout.contains("refused"),
        "{audit:?}"
    );
}

#[test]
fn a_server_is_asked_to_check_itself() {
    let upstream = upstream(|_, _| None);
    let proxy = server(upstream.url());
    let url = format!("http://{}", proxy.addr());
    let verb = |url: &str, key: &str| {
        ProxyBuilder::new()
            .env("ANTHROPIC_PROXY_ADMIN_KEY", key)
            .args(["doctor", "--server", url])
    };
    let (found, ended) = report(verb(&url, OPERATOR));
    assert_eq!(ended.code, Some(0), "{found:#}");
    assert_eq!(check(&found, "round_trip")["status"], "ok");
    let stranger = Upstream::ok();
    for (url, key, says) in [
        (url, "a-wrong-key", "the server refuses (401)"),
        (stranger.url(), KEY, "it is no anthropic-proxy"),
        (
            format!("http://127.0.0.1:{}", closed_port()),
            KEY,
            "no answer from",
        ),
    ] {
        let ended = verb(&url, key).run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(says), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}

#[test]
fn data_of_a_running_server_and_its_metrics_are_looked_at() {
    let upstream = upstream(|_, _| None);
    let proxy = server(upstream.url());
    let created = ProxyBuilder::new()
        .env("DATA_DIR", proxy.path("data").display())
        .args(["keys", "create", "--name", "one"])
        .run();
    assert_eq!(created.code, Some(0), "{created:?}");
    let builder = ProxyBuilder::new()
        .env("API_BASE_URL", upstream.url())
        .env("DATA_DIR", proxy.path("data").display())
        .env("PORT", proxy.addr().port())
        .args(["doctor", "--bundle", "b.json"]);
    let path = builder.path("b.json");
    let mut text = String::new();
    let ended = builder.run_and(|| text = std::fs::read_to_string(&path).unwrap_or_default());
    let bundle: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_check(&bundle["doctor"], "round_trip", "ok", "");
    assert_check(&bundle["doctor"], "audit", "ok", "");
    assert_eq!(bundle["versions"]["server"], env!("CARGO_PKG_VERSION"));
    assert!(
        bundle["metrics"].to_string().contains("anthropic_proxy_"),
        "{bundle:#}"
    );
}
