//! The bundle: what it has, and what it must not have.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use super::{doctor, upstream};
use crate::support::ProxyBuilder;

/// Every place of the configuration that holds a secret has this in it.
const CANARY: &str = "canary";

fn with_secrets(builder: ProxyBuilder) -> ProxyBuilder {
    builder
        .env(
            "UPSTREAM_API_KEYS",
            "sk-ant-canary-of-the-upstream-0123456789",
        )
        .env("DASHBOARD_API_KEY", "canary-of-the-dashboard-0123456789")
        .env("DASHBOARD_OPERATOR_KEY", "canary-of-operators-0123456789")
        .env("ENABLE_DASHBOARD", true)
        .env(
            "SYSTEM_PROMPT_REPLACEMENT",
            "the canary prompt of the house",
        )
        .env("HTTPS_PROXY", "http://user:canary-password@proxy.test:3128")
        .env("STATE_URL", "redis://proxy:canary-of-redis@127.0.0.1:1/0")
        .env("DATA_DIR", "data")
        .env("ACCESS_PEPPER", "canary-pepper-0123456789-0123456789")
        .env("LIMITS_WEBHOOK", "https://hooks.test/canary/T0/B0/x")
        .env("ACCESS_LOG", "access.log")
        .file(
            "env/.env.headers.json",
            r#"{"x-secret-token": "canary-of-a-field"}"#,
        )
        .file(
            "access.log",
            format!("one\n{{\"path\":\"/x?api_key={CANARY}-of-a-client-0123456789\"}}\n"),
        )
}

#[test]
fn a_bundle_has_a_list_of_its_contents_and_no_secret() {
    let upstream = upstream(|_, _| None);
    let builder = with_secrets(doctor(upstream.url())).args(["--bundle", "bundle.json"]);
    let path = builder.path("bundle.json");
    let kept = tempfile::tempdir().unwrap();
    let copy = kept.path().join("copy.json");
    let ended = builder.run_and(|| {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::copy(&path, &copy).unwrap();
    });
    let text = fs::read_to_string(&copy).unwrap_or_else(|_| panic!("{ended:?}"));
    assert!(text.starts_with("{\n\"contents\": ["), "{text}");
    let bundle: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = bundle["contents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["doctor", "versions", "kernel", "configuration", "log"]
    );
    for name in names {
        assert!(!bundle[name].is_null(), "{name}");
    }
    assert_eq!(bundle["log"][0], "one");
    assert!(!text.contains(CANARY), "{text}");
    assert!(!format!("{ended:?}").contains(CANARY), "{ended:?}");
    // it was told before it was written
    let (list, written) = (
        ended.stdout.find("will contain"),
        ended.stdout.find("written: "),
    );
    assert!(list < written && list.is_some(), "{ended:?}");
}

#[test]
fn a_path_that_exists_is_refused_before_anything_is_checked() {
    let upstream = upstream(|_, _| None);
    let builder = doctor(upstream.url())
        .file("bundle.json", "kept")
        .args(["--bundle", "bundle.json"]);
    let path = builder.path("bundle.json");
    let ended = builder.run_and(|| assert_eq!(fs::read(&path).unwrap(), b"kept"));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("exists"), "{ended:?}");
    assert!(upstream.try_request().is_none());
}
