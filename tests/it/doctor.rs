//! The doctor: each check fails for its reason, and says how to mend it.

use std::{net::TcpListener, time::SystemTime};

use serde_json::{Value, json};

use crate::support::{Answering, Body, Head, ProxyBuilder, Upstream, proxy::Ended};

mod bundle;
mod client;
mod listeners;
mod paths;
mod server;
mod state;

/// An answer in JSON, as Anthropic's API gives it.
fn answer(status: u16, content: &Value) -> Vec<u8> {
    let date = httpdate(SystemTime::now());
    answer_of(
        status,
        &format!("Date: {date}\r\nrequest-id: req_1\r\nContent-Type: application/json"),
        &content.to_string(),
    )
}

/// An answer with these fields.
fn answer_of(status: u16, fields: &str, content: &str) -> Vec<u8> {
    let length = content.len();
    format!("HTTP/1.1 {status} X\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{content}")
        .into_bytes()
}

fn httpdate(time: SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(time)
        .unwrap()
        .to_zoned(jiff::tz::TimeZone::UTC);
    zoned.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn refusal(message: &str) -> Vec<u8> {
    let error = json!({"type": "invalid_request_error", "message": message});
    answer(400, &json!({"type": "error", "error": error}))
}

/// Events of a stream, whole.
fn events() -> Vec<String> {
    let event = |name: &str, mut data: Value| {
        data["type"] = name.into();
        format!("event: {name}\ndata: {data}\n\n")
    };
    let usage = json!({"usage": {"input_tokens": 25, "output_tokens": 1}});
    vec![
        event("message_start", json!({"message": usage})),
        event("content_block_start", json!({"index": 0})),
        event("content_block_delta", json!({"index": 0})),
        event("content_block_delta", json!({"index": 0})),
        event("content_block_stop", json!({"index": 0})),
        event("message_delta", json!({"usage": {"output_tokens": 40}})),
        event("message_stop", json!({})),
    ]
}

/// What an upstream that keeps the contract answers.
fn good(head: &Head, body: &Body) -> Vec<u8> {
    let content: Value = serde_json::from_slice(body.content()).unwrap_or(Value::Null);
    let path = head.target().split('?').next().unwrap();
    match (head.method(), path) {
        ("GET", "/v1/models") => {
            let models = ["claude-opus-4-5", "claude-haiku-4-5"].map(|id| json!({"id": id}));
            answer(200, &json!({"data": models}))
        }
        ("GET", "/api/oauth/usage") => answer(200, &json!({"limits": []})),
        ("POST", "/v1/messages/count_tokens") => {
            let beta = head.one("anthropic-beta").unwrap_or_default();
            if beta.contains("doctor") {
                return refusal(&format!(
                    "Unexpected value `{beta}` for the anthropic-beta header"
                ));
            }
            if !content["x_proxy_doctor"].is_null() {
                return refusal("x_proxy_doctor: Extra inputs are not permitted");
            }
            let text = content["messages"][0]["content"]
                .as_str()
                .unwrap_or_default();
            answer(200, &json!({"input_tokens": text.len() / 4}))
        }
        ("POST", "/v1/messages") if content["stream"] == true => {
            answer_of(200, "Content-Type: text/event-stream", &events().concat())
        }
        ("POST", "/v1/messages") => refusal("messages: at least one message is required"),
        _ => answer(404, &json!({})),
    }
}

/// An upstream that keeps the contract but for one answer.
fn upstream(change: impl Fn(&Head, &Body) -> Option<Vec<u8>> + Send + Sync + 'static) -> Answering {
    Upstream::answering(move |head, body| change(head, body).unwrap_or_else(|| good(head, body)))
}

fn doctor(url: impl ToString) -> ProxyBuilder {
    ProxyBuilder::new()
        .env("API_BASE_URL", url)
        .env("UPSTREAM_API_KEYS", "sk-canary-of-the-upstream")
        .arg("doctor")
}

/// The result in JSON, and how it ended.
#[track_caller]
fn report(builder: ProxyBuilder) -> (Value, Ended) {
    let ended = builder.arg("--json").run();
    assert!(!format!("{ended:?}").contains("canary"), "{ended:?}");
    let report = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_flags_have_their_verb(&report);
    (report, ended)
}

/// Asserts that a finding names a flag within a command, since the page, which has no flags, shows it, too.
#[track_caller]
fn assert_flags_have_their_verb(report: &Value) {
    for check in report["checks"].as_array().unwrap() {
        for text in ["detail", "fix"].map(|part| check[part].as_str().unwrap_or_default()) {
            for (at, _) in text.match_indices("--") {
                let command = text[..at].rsplit('`').next().unwrap();
                assert!(command.starts_with("doctor "), "{text}");
            }
        }
    }
}

/// The one check of a name, or the worst of several.
#[track_caller]
fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let of = |check: &&Value| check["id"] == id;
    let checks = || report["checks"].as_array().unwrap().iter().filter(of);
    let by = |status: &str| checks().find(|check| check["status"] == status);
    let found = ["fail", "warn", "ok", "skip"].into_iter().find_map(by);
    found.unwrap_or_else(|| panic!("no {id}: {report:#}"))
}

/// Asserts the outcome of a check, and a word of its remedy.
#[track_caller]
fn assert_check(report: &Value, id: &str, status: &str, fix: &str) {
    let check = check(report, id);
    assert_eq!(check["status"], status, "{check:#}");
    let remedy = check["fix"].as_str().unwrap_or_default();
    assert!(remedy.contains(fix), "{fix}: {check:#}");
    assert_eq!(
        remedy.is_empty(),
        status == "ok" || status == "skip",
        "{check:#}"
    );
}

/// A port on which nothing listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn an_upstream_that_keeps_the_contract_is_fine() {
    let upstream = upstream(|_, _| None);
    let (report, ended) = report(doctor(upstream.url()).arg("--strict"));
    assert_eq!(ended.code, Some(0), "{report:#}");
    for id in [
        "settings",
        "dns",
        "tcp",
        "clock",
        "models",
        "error_shape",
        "request_id",
        "count_tokens",
        "unknown_fields",
        "unknown_betas",
    ] {
        assert_check(&report, id, "ok", "");
    }
    // what costs money or takes long is not tried, and neither is what there is not
    for id in ["stream", "silence", "round_trip", "directory"] {
        assert_check(&report, id, "skip", "");
    }
    assert_eq!(report["counts"]["fail"], 0);
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-api-key"), Some("sk-canary-of-the-upstream"));
}

/// A change of an answer, and the check that it changes.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Head, &Body) -> Option<Vec<u8>>,
);

const CASES: &[Case] = &[
    ("models", "fail", "UPSTREAM_API_KEYS", |head, _| {
        let error =
            json!({"type": "error", "error": {"type": "authentication_error", "message": "no"}});
        (head.method() == "GET").then(|| answer(401, &error))
    }),
    ("models", "fail", "https://moved.test", |head, _| {
        let to = "Location: https://moved.test/v1/models?key=canary";
        (head.method() == "GET").then(|| answer_of(302, to, ""))
    }),
    ("models", "fail", "API_BASE_URL", |head, _| {
        (head.method() == "GET").then(|| answer_of(200, "Content-Type: text/html", "<html>"))
    }),
    ("models", "warn", "without /v1", |head, _| {
        (head.method() == "GET").then(|| answer(404, &json!({})))
    }),
    ("clock", "fail", "chrony", |head, _| {
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json";
        (head.method() == "GET").then(|| answer_of(200, date, "{\"data\":[]}"))
    }),
    ("error_shape", "fail", "{\"type\":\"error\"", |head, _| {
        let fields = "Content-Type: text/html\r\nrequest-id: r";
        (head.target() == "/v1/messages").then(|| answer_of(400, fields, "<p>bad request"))
    }),
    ("request_id", "warn", "pass request-id on", |head, _| {
        let error = "{\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"y\"}}";
        (head.target() == "/v1/messages")
            .then(|| answer_of(400, "Content-Type: application/json", error))
    }),
    ("count_tokens", "fail", "SQL, scripts, HTML", |_, body| {
        let has_xml = crate::support::contains(body.content(), b"<script>");
        has_xml.then(|| answer_of(403, "Content-Type: text/html", "<h1>Blocked"))
    }),
    ("count_tokens", "fail", "sanitiser of HTML", |head, body| {
        // the tags are gone, and nothing tells of it
        let content: Value = serde_json::from_slice(body.content()).ok()?;
        let text = content["messages"][0]["content"].as_str()?;
        let words = text
            .split('<')
            .map(|part| part.rsplit('>').next().unwrap().len());
        let tokens = words.sum::<usize>() / 4 + 1;
        (head.target() == "/v1/messages/count_tokens")
            .then(|| answer(200, &json!({"input_tokens": tokens})))
    }),
    (
        "count_tokens",
        "fail",
        "use a credential that may",
        |_, _| Some(answer_of(403, "Content-Type: text/plain", "Forbidden")),
    ),
    ("unknown_fields", "skip", "", |_, _| {
        Some(answer_of(200, "Content-Type: text/html", "<html>sign in"))
    }),
    ("unknown_betas", "skip", "", |_, _| {
        Some(answer_of(200, "Content-Type: text/html", "<html>sign in"))
    }),
    ("count_tokens", "warn", "estimates", |head, _| {
        (head.target() == "/v1/messages/count_tokens").then(|| answer(404, &json!({})))
    }),
    ("unknown_fields", "warn", "pass members", |_, body| {
        let has_member = crate::support::contains(body.content(), b"x_proxy_doctor");
        has_member.then(|| refusal("schema violation"))
    }),
    ("unknown_betas", "warn", "pass betas", |head, _| {
        head.has("anthropic-beta")
            .then(|| refusal("unsupported header"))
    }),
];

#[test]
fn each_breach_of_the_contract_is_found_with_its_remedy() {
    for (id, status, fix, change) in CASES {
        let upstream = upstream(*change);
        let (report, ended) = report(doctor(upstream.url()).arg("--strict"));
        assert_check(&report, id, status, fix);
        // one that is not tried is told beside the fault for which it is not
        let code = if *status == "warn" { 3 } else { 1 };
        assert_eq!(ended.code, Some(code), "{id}: {report:#}");
    }
}

#[test]
fn a_base_url_that_ends_too_late_fails_with_the_one_to_set() {
    let upstream = upstream(|head, _| {
        let error = json!({"type": "error", "error": {"type": "not_found_error", "message": "no such path"}});
        (!head.target().starts_with("/v1/messages?") && head.target() != "/v1/messages")
            .then(|| answer(404, &error))
    });
    let url = upstream.url();
    for path in ["/v1/messages", "/v1"] {
        let (result, ended) = report(doctor(format!("{url}{path}")));
        assert_check(&result, "messages", "fail", &format!("set it to {url}"));
        let check = check(&result, "messages");
        let fix = check["fix"].as_str().unwrap();
        assert!(fix.ends_with(&url.to_string()), "{check:#}");
        let detail = check["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&format!("POST {url}{path}/v1/messages answers 404")),
            "{check:#}"
        );
        assert_eq!(ended.code, Some(1), "{result:#}");
        let setting = result["checks"].as_array().unwrap().iter();
        let mut warned = setting.filter(|check| check["id"] == "setting");
        let warned = warned.next().unwrap()["detail"].as_str().unwrap();
        assert!(
            warned.ends_with(&format!("requests will go to {url}{path}/v1/messages")),
            "{warned}"
        );
    }
    // a model that is not known is another fault than the path
    let other = upstream_without_the_model();
    let (result, _) = report(doctor(other.url()));
    assert_check(&result, "error_shape", "ok", "");
}

/// An upstream that has neither a list nor a count, and knows no model.
fn upstream_without_the_model() -> Answering {
    upstream(|head, body| {
        let content: Value = serde_json::from_slice(body.content()).unwrap_or(Value::Null);
        let message = match head.target() {
            "/v1/messages" => format!("model: {}", content["model"].as_str()?),
            _ => "Not Found".to_owned(),
        };
        let error = json!({"type": "not_found_error", "message": message});
        Some(answer(404, &json!({"type": "error", "error": error})))
    })
}

#[test]
fn without_a_credential_clients_bring_theirs() {
    let upstream = upstream(|head, _| {
        let has_key = head.has("x-api-key") || head.has("authorization");
        let error =
            json!({"type": "error", "error": {"type": "authentication_error", "message": "no"}});
        (!has_key).then(|| answer(401, &error))
    });
    let bare = || doctor(upstream.url()).env("UPSTREAM_API_KEYS", "");
    let (report_, ended) = report(bare());
    assert_eq!(ended.code, Some(0), "{report_:#}");
    assert_check(&report_, "models", "ok", "");
    assert_check(&report_, "count_tokens", "skip", "");
    // one of this machine may be named
    let named = bare()
        .env("MY_KEY", "Bearer canary-token")
        .arg("--key-env")
        .arg("MY_KEY");
    let (report_, _) = report(named);
    assert_check(&report_, "count_tokens", "ok", "");
    let ended = bare().arg("--key-env").arg("NO_KEY").run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("NO_KEY"), "{ended:?}");
}

#[test]
fn a_stream_is_tried_where_money_may_be_spent() {
    let (ok, spend) = (upstream(|_, _| None), "--spend");
    // it comes in one piece
    let (report_, ended) = report(doctor(ok.url()).arg(spend));
    assert_check(&report_, "stream", "warn", "proxy_buffering off");
    assert_eq!(ended.code, Some(0), "{report_:#}");
    let evidence = check(&report_, "stream")["evidence"].to_string();
    assert!(
        evidence.contains("25 tokens of input, 40 of output, $0.000225"),
        "{evidence}"
    );
    for (fix, fields, content) in [
        (
            "fail at such streams",
            "Content-Type: text/event-stream",
            events()[..6].concat(),
        ),
        (
            "stream: true",
            "Content-Type: application/json",
            "{}".to_owned(),
        ),
    ] {
        let broken = upstream(move |_, body| {
            let is_stream = crate::support::contains(body.content(), b"\"stream\":true");
            is_stream.then(|| answer_of(200, fields, &content))
        });
        let (report_, ended) = report(doctor(broken.url()).arg(spend));
        assert_check(&report_, "stream", "fail", fix);
        assert_eq!(ended.code, Some(1), "{report_:#}");
    }
}

#[test]
fn a_configuration_with_faults_is_told_and_what_can_be_checked_is() {
    let ended = ProxyBuilder::new()
        .env("UPSTREAM_TIMEOUT", "soon")
        .arg("doctor")
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for text in [
        "Configuration",
        "FAIL",
        "UPSTREAM_TIMEOUT",
        "fix: ",
        "Data",
        "1 failed",
    ] {
        assert!(ended.stdout.contains(text), "{text}: {ended:?}");
    }
    // no colour where nothing shows it
    assert!(!ended.stdout.contains('\u{1b}'), "{ended:?}");
}

#[test]
fn a_wrong_usage_exits_2() {
    for arguments in [
        &["doctor", "--slow", "0"][..],
        &["doctor", "--url", "nonsense"],
        &["doctor", "--no-such-flag"],
        &["doctor", "--server", "http://127.0.0.1:9", "--bundle", "x"],
        &["doctor", "--server", "http://127.0.0.1:9"],
        &["doctor", "--bundle", "no/such/bundle.json"],
    ] {
        let builder = arguments
            .iter()
            .fold(ProxyBuilder::new(), |it, arg| it.arg(arg));
        let ended = builder.run();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
}
