//! The verbs from outside: what they print and how they exit.

use std::net::TcpListener;

use crate::support::{Proxy, ProxyBuilder, Upstream};

#[test]
fn check_prints_the_effective_configuration_with_origins_and_exits_0() {
    let ended = ProxyBuilder::new()
        .env("API_BASE_URL", "https://example.com/api")
        .file(
            "env/.env",
            "UPSTREAM_TIMEOUT=77s\nAPI_BASE_URL=https://loses.example\n",
        )
        .arg("check")
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let line = |name: &str| {
        let line = ended.stdout.lines().find(|line| line.contains(name));
        line.unwrap_or_else(|| panic!("no {name}: {ended:?}"))
    };
    assert!(line("API_BASE_URL").contains("https://example.com/api"));
    assert!(line("API_BASE_URL").contains("environment"));
    assert!(line("UPSTREAM_TIMEOUT").contains("77"));
    assert!(line("UPSTREAM_TIMEOUT").contains(".env"));
    assert!(line("GENERATION_TIMEOUT").contains("600"));
    assert!(line("GENERATION_TIMEOUT").contains("default"));
    assert!(!ended.stdout.contains("loses.example"));
}

#[test]
fn check_masks_secrets() {
    let ended = ProxyBuilder::new()
        .env("SYSTEM_PROMPT_REPLACEMENT", "canary prompt")
        .env("HTTPS_PROXY", "http://canary:canary@proxy.example:3128")
        .file("env/.env.headers.json", r#"{"x-api-key": "canary"}"#)
        .arg("check")
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        !(ended.stdout.clone() + &ended.stderr).contains("canary"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("proxy.example:3128"), "{ended:?}");
}

#[test]
fn check_exits_2_with_every_fault() {
    let ended = ProxyBuilder::new()
        .env("UPSTREAM_TIMEOUT", "soon")
        .env("MAX_IN_FLIGHT", "many")
        .file("env/.env.headers.json", "[]")
        .arg("check")
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for name in ["UPSTREAM_TIMEOUT", "MAX_IN_FLIGHT", ".env.headers.json"] {
        assert!(ended.stderr.contains(name), "{name}: {ended:?}");
    }
}

#[test]
fn bad_paths_fail_at_the_start_and_in_check() {
    for (name, value) in [
        ("ACCESS_LOG", "/etc"),
        ("ACCESS_LOG", "no/such/access.log"),
        ("DATA_DIR", "file"),
        ("UNIX_SOCKET", "no/such/socket"),
    ] {
        for verb in ["check", "serve"] {
            let ended = ProxyBuilder::new()
                .env(name, value)
                .file("file", "")
                .arg(verb)
                .run();
            assert_eq!(ended.code, Some(2), "{ended:?}");
            let says = format!("{name} (environment): `{value}` is");
            assert!(ended.stderr.contains(&says), "{ended:?}");
        }
    }
}

#[test]
fn flags_may_stand_before_the_verb() {
    let run = |arguments: &[&str]| {
        let builder = arguments
            .iter()
            .fold(ProxyBuilder::new(), |it, arg| it.arg(arg));
        let ended = builder.run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    let after = run(&["check", "--port", "4711"]);
    assert!(after.contains("127.0.0.1:4711"), "{after}");
    assert_eq!(run(&["--port", "4711", "check"]), after);
    // the nearer one counts
    assert_eq!(run(&["--port", "1", "check", "--port", "4711"]), after);
}

#[test]
fn healthcheck_exits_0_where_the_server_runs() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let ended = ProxyBuilder::new()
        .env("PORT", proxy.addr().port())
        .arg("healthcheck")
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn healthcheck_exits_1_where_nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ended = ProxyBuilder::new()
        .env("PORT", port)
        .arg("healthcheck")
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn healthcheck_exits_1_where_something_else_answers() {
    let upstream = Upstream::always("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
    let ended = ProxyBuilder::new()
        .env("PORT", upstream.addr().port())
        .arg("healthcheck")
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn healthcheck_ignores_outbound_proxies() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let ended = ProxyBuilder::new()
        .env("PORT", proxy.addr().port())
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .arg("healthcheck")
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn version_is_the_packages() {
    let ended = ProxyBuilder::new().arg("--version").run();
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended.stdout.trim(),
        concat!("anthropic-proxy ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn help_names_the_verbs() {
    let ended = ProxyBuilder::new().arg("--help").run();
    assert_eq!(ended.code, Some(0));
    for verb in ["serve", "check", "healthcheck", "completions", "--env-file"] {
        assert!(ended.stdout.contains(verb), "{verb}: {ended:?}");
    }
}

#[test]
fn manual_pages_are_printed_and_written() {
    let ended = ProxyBuilder::new().arg("man").run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let program = ended.stdout;
    for section in ["NAME", "SYNOPSIS", "ENVIRONMENT", "FILES", "SIGNALS"] {
        assert!(program.contains(&format!(".SH {section}\n")), "{section}");
    }
    for variable in anthropic_proxy::config::env::table() {
        let name = format!("\\fB{}\\fR", variable.name);
        assert!(program.contains(&name), "{name}");
    }
    for hidden in ["env-example", "env\\-example", "docs configuration"] {
        assert!(!program.contains(hidden), "{hidden}");
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_string_lossy();
    let ended = ProxyBuilder::new()
        .arg("man")
        .arg("--output")
        .arg(&path)
        .run();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:?}");
    let written = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(written("anthropic-proxy.1"), program);
    let ended = ProxyBuilder::new();
    let ended = ended.arg("man").arg("keys").arg("create").run();
    assert_eq!(written("anthropic-proxy-keys-create.1"), ended.stdout);
    assert!(ended.stdout.contains("\\-\\-budget"), "{}", ended.stdout);

    let ended = ProxyBuilder::new().arg("man").arg("kyes").run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no verb `kyes`"), "{ended:?}");
    let nowhere = format!("{path}/nowhere");
    let ended = ProxyBuilder::new()
        .arg("man")
        .arg("--output")
        .arg(&nowhere)
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&nowhere), "{ended:?}");
}

#[test]
fn completions_are_printed() {
    let ended = ProxyBuilder::new().arg("completions").arg("bash").run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("complete") && ended.stdout.contains("anthropic-proxy"));
}

#[test]
fn a_wrong_usage_exits_2() {
    for argument in ["--no-such-flag", "no-such-verb"] {
        let ended = ProxyBuilder::new().arg(argument).run();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(argument), "{ended:?}");
    }
}
