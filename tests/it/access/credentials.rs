//! Which credential counts, and what reaches the upstream in its place.

use super::site::{self, Site, UPSTREAM_KEY, shown};
use crate::support::{
    Body, Head, ProxyBuilder, Upstream, assert_proxy_error, contains, on_a_busy_machine,
    wire::{chunk, show},
};

const BODY: &str = r#"{"model":"claude-haiku-4-5","max_tokens":1,"messages":[]}"#;

#[test]
fn the_key_ends_here_and_the_upstream_gets_its_own_credential() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.proxy(&upstream).start();
    for fields in [
        format!("x-api-key: {key}\r\n"),
        format!("Authorization: Bearer {key}\r\n"),
        format!("authorization: bearer {key}\r\n"),
        format!("x-api-key: {key}\r\nAuthorization: Bearer {key}\r\n"),
        format!("x-api-key: sk-ant-other\r\nAuthorization: Bearer {key}\r\n"),
        format!("x-api-key: {key}\r\nAuthorization: Bearer other-token\r\n"),
        format!("X-Proxy-Key: {key}\r\n"),
        format!("X-Proxy-Key: {key}\r\nConnection: x-proxy-key\r\nx-trace: a {key} b\r\n"),
    ] {
        let answer = proxy.send(shown(&fields, "POST", "/v1/messages", BODY));
        assert_eq!(answer.status(), 200, "{fields}");
        let (head, body) = upstream.request();
        let octets = show(&head.octets);
        assert!(!octets.contains("ap_"), "{octets}");
        assert_eq!(head.all("x-api-key"), [UPSTREAM_KEY.as_bytes()], "{octets}");
        assert!(
            !head.has("authorization") && !head.has("x-proxy-key"),
            "{octets}"
        );
        assert_eq!(show(body.content()), BODY);
    }
}

#[test]
fn a_client_may_bring_its_own_credential() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let key = site.key(&["--name", "first"]);
    let proxy = site.proxy(&upstream).start();
    let fields = format!("x-proxy-key: {key}\r\nAuthorization: Bearer own-token\r\n");
    assert_eq!(
        proxy
            .send(shown(&fields, "POST", "/v1/messages", BODY))
            .status(),
        200
    );
    let (head, _) = upstream.request();
    assert_eq!(head.one("authorization"), Some("Bearer own-token"));
    assert!(!head.has("x-api-key") && !head.has("x-proxy-key"));
    // without one, the operator's
    let fields = format!("x-proxy-key: {key}\r\n");
    assert_eq!(
        proxy
            .send(shown(&fields, "POST", "/v1/messages", BODY))
            .status(),
        200
    );
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-api-key"), Some(UPSTREAM_KEY));
}

#[test]
fn a_key_has_a_credential_of_its_own_or_of_its_team() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let own = site.key(&["--name", "own", "--upstream-key-env", "OF_THE_KEY"]);
    let plain = site.key(&["--name", "plain"]);
    let proxy = site
        .proxy(&upstream)
        .env("OF_THE_KEY", "sk-ant-of-the-key")
        .start();
    for (key, credential) in [(&own, "sk-ant-of-the-key"), (&plain, UPSTREAM_KEY)] {
        let ask = site::keyed(key, "POST", "/v1/messages", "", BODY);
        assert_eq!(proxy.send(ask).status(), 200);
        let (head, _) = upstream.request();
        assert_eq!(head.all("x-api-key"), [credential.as_bytes()]);
    }
}

#[test]
fn two_different_keys_in_one_request_are_refused() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let (one, other) = (site.key(&["--name", "one"]), site.key(&["--name", "other"]));
    let proxy = site.proxy(&upstream).start();
    for fields in [
        format!("x-api-key: {one}\r\nAuthorization: Bearer {other}\r\n"),
        format!("x-proxy-key: {one}\r\nx-api-key: {other}\r\n"),
        format!("x-api-key: {one}\r\nx-api-key: {other}\r\n"),
    ] {
        let answer = proxy.send(shown(&fields, "POST", "/v1/messages", BODY));
        assert_proxy_error(&answer, 401, "authentication_error", "keys_contradictory");
        assert_eq!(answer.head.one("x-should-retry"), Some("false"));
    }
    upstream.no_more();
}

#[test]
fn unknown_and_wrong_keys_get_the_same_text() {
    let upstream = Upstream::ok();
    let (site, other) = (Site::new(), Site::new());
    let key = site.key(&["--name", "first"]);
    // of another proxy: its checksum is right
    let unknown = other.key(&["--name", "first"]);
    let wrong = site::wrong(&key);
    let proxy = site.proxy(&upstream).start();
    let said = |key: &str, label: &str| {
        let answer = proxy.send(site::keyed(key, "GET", "/v1/models", "", ""));
        assert_proxy_error(&answer, 401, "authentication_error", label);
        assert_eq!(answer.head.one("x-should-retry"), Some("false"));
        let content: serde_json::Value = serde_json::from_slice(answer.content()).unwrap();
        content["error"]["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(said(&unknown, "key_unknown"), said(&wrong, "key_unknown"));
    for mistyped in ["ap_", "ap_x", &key[..key.len() - 1], &format!("{key}0")] {
        said(mistyped, "key_mistyped");
    }
    upstream.no_more();
}

#[test]
fn a_rotated_key_has_two_secrets_until_the_overlap_ends() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let old = site.key(&["--name", "first"]);
    let rotate = |overlap: &str| {
        let verb = [
            "keys",
            "rotate",
            site::id(&old),
            "--overlap",
            overlap,
            "--quiet",
        ];
        site.done(&verb).trim().to_owned()
    };
    let new = rotate("24h");
    assert_eq!(site::id(&new), site::id(&old));
    let proxy = site.proxy(&upstream).start();
    let status = |key: &str| {
        let ask = site::keyed(key, "POST", "/v1/messages", "", BODY);
        proxy.send(ask).status()
    };
    assert_eq!((status(&old), status(&new)), (200, 200));
    // while the server runs
    let newest = rotate("0s");
    assert_eq!((status(&new), status(&newest)), (401, 200));
}

#[test]
fn sources_bound_where_a_key_may_come_from() {
    let upstream = Upstream::ok();
    let site = Site::new();
    let near = site.key(&["--name", "near", "--sources", "127.0.0.0/8,::1/128"]);
    let far = site.key(&["--name", "far", "--sources", "10.0.0.0/8"]);
    let proxy = site.proxy(&upstream).start();
    let ask = |key: &str| proxy.send(site::keyed(key, "GET", "/v1/models", "", ""));
    assert_eq!(ask(&near).status(), 200);
    upstream.request();
    assert_proxy_error(&ask(&far), 403, "permission_error", "source_not_allowed");
    upstream.no_more();
}

#[test]
fn no_output_holds_a_key_or_the_credential_of_one() {
    let upstream = Upstream::answering(|_, _| site::answer("claude-haiku-4-5", 10, 10).into());
    let site = Site::new();
    let key = site.key(&[
        "--name",
        "first",
        "--team",
        "core",
        "--upstream-key-env",
        "OF_THE_KEY",
    ]);
    let proxy = site
        .proxy(&upstream)
        .env("OF_THE_KEY", "sk-ant-canary-of-the-key")
        .env("ENABLE_DASHBOARD", "true")
        .env("DASHBOARD_API_KEY", "a-key-of-the-tests")
        .env("METRICS_PUBLIC", "true")
        .env("ACCESS_LOG", "access.log")
        .env("DEBUG_MODE", "true")
        .env("RUST_LOG", "trace")
        .start();
    let secret = &key[14..];
    for ask in [
        shown(
            &format!("x-api-key: {key}\r\n"),
            "POST",
            "/v1/messages",
            BODY,
        ),
        shown(
            &format!(
                "x-proxy-key: {key}\r\nUser-Agent: a {key}\r\nx-claude-code-session-id: {key}\r\n"
            ),
            "POST",
            "/v1/messages",
            BODY,
        ),
        shown(
            &format!("authorization: Bearer {key}\r\n"),
            "GET",
            &format!("/{key}?key={key}"),
            "",
        ),
        shown(
            &format!("x-api-key: {}\r\n", site::wrong(&key)),
            "GET",
            "/v1/models",
            "",
        ),
        shown(
            &format!("x-api-key: {key}\r\nTransfer-Encoding: chunked\r\n"),
            "POST",
            "/v1/messages",
            "",
        ) + &String::from_utf8(chunk(BODY.as_bytes())).unwrap()
            + &format!("0\r\nx-proxy-key: {key}\r\n\r\n"),
    ] {
        proxy.send(ask);
    }
    let mut seen = Vec::new();
    while let Some((head, body)) =
        upstream.request_within(on_a_busy_machine(super::super::support::QUIET))
    {
        seen.extend(head.octets);
        seen.extend(body.content());
    }
    assert!(!contains(&seen, secret.as_bytes()), "{}", show(&seen));
    let api = |path: &str| {
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-key-of-the-tests\r\n\r\n"
        );
        proxy.send(ask)
    };
    let rows: serde_json::Value =
        serde_json::from_slice(api("/admin/api/v1/requests").content()).unwrap();
    let mut outputs = rows.to_string();
    for row in rows["requests"].as_array().into_iter().flatten() {
        let path = format!(
            "/admin/api/v1/requests/{}",
            row["id"].as_str().unwrap_or_default()
        );
        outputs += &show(api(&path).content());
    }
    for path in [
        "/metrics",
        "/admin/api/v1/overview",
        "/admin/api/v1/usage",
        "/admin/api/v1/keys",
        "/admin/api/v1/sessions",
        "/admin/api/v1/audit",
        "/admin/api/v1/config",
    ] {
        outputs += &show(api(path).content());
    }
    outputs += &std::fs::read_to_string(proxy.path("access.log")).unwrap_or_default();
    outputs += &proxy.stderr();
    for canary in [secret, "sk-ant-canary-of-the-key", UPSTREAM_KEY] {
        let at = outputs.find(canary);
        let around = at.map(|at| &outputs[at.saturating_sub(200)..at]);
        assert_eq!(around, None, "{canary}");
    }
    for entry in walk(&site.path()) {
        let octets = std::fs::read(&entry).unwrap_or_default();
        assert!(!contains(&octets, secret.as_bytes()), "{}", entry.display());
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn keys_whose_requests_would_have_no_credential_are_told_when_they_are_made_and_at_the_start() {
    let site = Site::new();
    let create = |name: &str, arguments: &[&str], variables: &[(&str, &str)]| {
        let begun = ProxyBuilder::new().env("DATA_DIR", site.path().display());
        let begun = variables
            .iter()
            .fold(begun, |begun, (name, value)| begun.env(name, value));
        let verb = [&["keys", "create", "--quiet", "--name", name], arguments].concat();
        let ended = verb
            .iter()
            .fold(begun, |begun, argument| begun.arg(argument))
            .run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stderr
    };
    let named = ["--upstream-key-env", "KEY_OF_CI"];
    for (name, arguments, variables, expected) in [
        ("none", &[][..], &[][..], "set UPSTREAM_API_KEYS"),
        ("all", &[], &[("UPSTREAM_API_KEYS", "sk-ant-x")], ""),
        ("unset", &named, &[], "KEY_OF_CI, the credential"),
        ("own", &named, &[("KEY_OF_CI", "sk-ant-y")], ""),
    ] {
        let said = create(name, arguments, variables);
        match expected {
            "" => assert!(!said.contains("warning"), "{name}: {said}"),
            _ => assert!(
                said.contains("warning") && said.contains(expected),
                "{said}"
            ),
        }
    }
    let upstream = Upstream::answering(|_: &Head, _: &Body| site::answer("m", 1, 1).into());
    let (none, unset) = ("no credential for the upstream", "KEY_OF_CI is not set");
    let proxy = site.bare_proxy(&upstream).start();
    proxy.wait_for_line(|line| {
        line.contains(none) && line.contains("2 keys (") && line.contains("401")
    });
    proxy.wait_for_line(|line| line.contains(unset) && line.contains("2 keys ("));
    // by the running server, which has none either
    let said = create("later", &[], &[("UPSTREAM_API_KEYS", "sk-ant-x")]);
    assert!(said.contains("on the proxy"), "{said}");
    drop(proxy);
    let proxy = site.proxy(&upstream).env("KEY_OF_CI", "sk-ant-y").start();
    let said = proxy.stderr();
    assert!(!said.contains(none) && !said.contains(unset), "{said}");
}
