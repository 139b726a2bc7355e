//! The proxy's own listeners, and the address that clients use.

use serde_json::json;

use super::{answer, answer_of, assert_check, check, closed_port, doctor, good, report, upstream};
use crate::support::{Answering, Proxy, ProxyBuilder, Upstream, get, tls::Pair};

/// A running proxy before a good upstream, and the upstream.
fn running() -> (Proxy, Answering) {
    let upstream = upstream(|_, _| None);
    (Proxy::to(upstream.url()).start(), upstream)
}

#[test]
fn the_listener_of_a_running_server_is_asked() {
    let (proxy, upstream) = running();
    let (report, ended) = report(doctor(upstream.url()).env("PORT", proxy.addr().port()));
    assert_check(&report, "round_trip", "ok", "");
    assert_check(&report, "content", "ok", "");
    assert!(
        check(&report, "content")["detail"]
            .as_str()
            .unwrap()
            .contains("whole"),
        "{report:#}"
    );
    assert_eq!(ended.code, Some(0), "{report:#}");
}

#[test]
fn a_request_that_would_be_refused_is_not_counted_as_an_error_of_a_client() {
    let upstream = upstream(|_, _| None);
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", true)
        .start();
    let (report, ended) = report(
        doctor(upstream.url())
            .env("UPSTREAM_API_KEYS", "")
            .env("PORT", proxy.addr().port()),
    );
    assert_check(&report, "round_trip", "ok", "");
    assert_check(&report, "content", "skip", "");
    assert_eq!(ended.code, Some(0), "{report:#}");
    let metrics = proxy.send(get("/metrics"));
    let metrics = String::from_utf8_lossy(metrics.content()).into_owned();
    let sums = metrics.lines().filter(|line| line.contains("count_tokens"));
    assert!(sums.clone().all(|line| line.ends_with(" 0")), "{metrics}");
}

#[test]
fn a_server_that_answers_where_no_settings_are_is_a_warning() {
    let (proxy, upstream) = running();
    // these settings name an upstream, and may be those of the server
    let (named, _) = report(doctor(upstream.url()).env("PORT", proxy.addr().port()));
    let detail = check(&named, "round_trip")["detail"].as_str().unwrap();
    assert!(
        detail.contains("not known if it runs with these settings"),
        "{detail}"
    );
    let bare = ProxyBuilder::new()
        .env("PORT", proxy.addr().port())
        // nothing leaves this machine
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .arg("doctor");
    let (bare, _) = report(bare);
    assert_check(&bare, "round_trip", "warn", "folder of that server");
}

#[test]
fn an_upstream_that_fails_is_no_fault_of_the_listener() {
    let url = format!("http://127.0.0.1:{}", closed_port());
    let proxy = Proxy::to(&url).start();
    let at = |url: &str| report(doctor(url).env("PORT", proxy.addr().port())).0;
    let found = at(&url);
    assert_check(&found, "tcp", "fail", "nothing listens");
    assert_check(&found, "content", "skip", "");
    // where it works for the doctor, the server has other settings
    let upstream = upstream(|_, _| None);
    let found = at(&upstream.url());
    assert_check(&found, "content", "fail", "restart");
}

#[test]
fn another_program_on_the_port_is_found() {
    let (other, upstream) = (Upstream::ok(), upstream(|_, _| None));
    let (report, ended) = report(doctor(upstream.url()).env("PORT", other.addr().port()));
    assert_check(&report, "round_trip", "fail", "another PORT");
    assert_eq!(ended.code, Some(1));
}

/// What stands before a proxy: it says that it is one, and answers the rest by a rule.
fn front(rule: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Answering {
    Upstream::answering(move |head, body| match head.target() {
        "/health" => {
            let version = env!("CARGO_PKG_VERSION");
            answer(
                200,
                &json!({"service": "anthropic-proxy", "version": version}),
            )
        }
        _ => rule(body.content()),
    })
}

#[test]
fn what_stands_before_the_proxy_and_alters_content_is_found() {
    let upstream = upstream(|_, _| None);
    let has_tags = |content: &[u8]| crate::support::contains(content, b"<script>");
    let firewall = front(move |content| match has_tags(content) {
        true => answer_of(403, "Content-Type: text/html", "<h1>Forbidden"),
        false => answer(200, &json!({"input_tokens": 40})),
    });
    let sanitiser = front(move |content| match has_tags(content) {
        true => answer(200, &json!({"input_tokens": 3})),
        false => answer(200, &json!({"input_tokens": 40})),
    });
    for (front, fix) in [
        (firewall, "except /v1/"),
        (sanitiser, "leave content as it is"),
    ] {
        let (report, ended) = report(doctor(upstream.url()).args(["--url", &front.url()]));
        assert_check(&report, "content", "fail", fix);
        assert_eq!(ended.code, Some(1));
    }
    let redirects = Upstream::always(answer_of(301, "Location: https://h/", ""));
    let (report, ended) = report(doctor(upstream.url()).args(["--url", &redirects.url()]));
    assert_check(&report, "round_trip", "fail", "https://");
    assert_eq!(ended.code, Some(1));
}

#[test]
fn another_version_is_a_warning() {
    let upstream = upstream(|_, _| None);
    let front = Upstream::answering(|head, body| match head.target() {
        "/health" => answer(
            200,
            &json!({"service": "anthropic-proxy", "version": "0.0.1"}),
        ),
        _ => good(head, body),
    });
    let (report, ended) = report(doctor(upstream.url()).args(["--url", &front.url(), "--strict"]));
    assert_check(&report, "round_trip", "warn", "anthropic-proxy upgrade");
    assert_eq!(ended.code, Some(3));
}

#[test]
fn the_certificate_of_a_listener_is_that_of_the_file() {
    let upstream = upstream(|_, _| None);
    let (own, other) = (Pair::new(), Pair::new());
    let proxy = own.served(Proxy::to(upstream.url())).start();
    let of = |pair: &Pair| {
        report(
            pair.served(doctor(upstream.url()))
                .env("PORT", proxy.tls_addr().port()),
        )
        .0
    };
    assert_check(&of(&own), "certificate", "ok", "");
    assert_check(&of(&own), "content", "ok", "");
    assert_check(&of(&other), "certificate", "warn", "SIGHUP");
    // asked in clear
    let url = format!("http://127.0.0.1:{}", proxy.tls_addr().port());
    let found = report(doctor(upstream.url()).args(["--url", &url])).0;
    assert_check(&found, "round_trip", "fail", "https:// in place of http://");
}

#[test]
fn the_end_of_a_certificate_of_its_own_is_told_before_it_comes() {
    let upstream = upstream(|_, _| None);
    for (pair, says) in [
        (Pair::ending_in(10), Some("expires on")),
        (Pair::ending_in(-1), Some("expired on")),
        (Pair::ending_in(16), None),
    ] {
        let checked = pair.served(doctor(upstream.url()).env("TLS_PORT", 0));
        let (found, ended) = report(checked);
        assert_eq!(ended.code, Some(0), "{found:#}");
        let settings = found["checks"].as_array().unwrap().iter();
        let told = settings.filter(|check| check["group"] == "configuration");
        let told: Vec<_> = told.filter(|check| check["status"] == "warn").collect();
        assert_eq!(told.len(), usize::from(says.is_some()), "{found:#}");
        let proxy = pair.served(Proxy::to(upstream.url())).start();
        let Some(says) = says else {
            assert!(!proxy.stderr().contains("TLS_CERT_FILE"));
            continue;
        };
        assert!(
            told[0]["detail"].to_string().contains(says),
            "{:#}",
            told[0]
        );
        let log = proxy.stderr();
        let line = log
            .lines()
            .find(|line| line.contains("TLS_CERT_FILE"))
            .unwrap();
        assert!(line.contains("WARN") && line.contains(says), "{line}");
    }
}
