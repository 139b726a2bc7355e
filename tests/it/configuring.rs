//! Changes of the configuration file: by verbs on the file, by verbs and the API of a running server.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::{Proxy, ProxyBuilder, proxy::Ended, wire::show};

const KEY: &str = "a-key-of-the-tests";
const VIEWER: &str = "a-key-of-a-viewer";
const TEXT: &str =
    "# ours\nAPI_BASE_URL=http://127.0.0.1:9 # nowhere\n\n# Timers.\n#UPSTREAM_TIMEOUT=60\n";

/// A server whose settings are in a file.
fn server(text: &str) -> Proxy {
    ProxyBuilder::new()
        .file("env/.env", text)
        .env("ENABLE_DASHBOARD", "true")
        .env("DASHBOARD_API_KEY", KEY)
        .env("DASHBOARD_VIEWER_KEY", VIEWER)
        .env("DATA_DIR", "data")
        .start()
}

/// Runs a verb in a directory, with something on its standard input.
fn verb(directory: &Path, variables: &[(&str, &str)], input: &str, arguments: &[&str]) -> Ended {
    use std::{io::Write, process::Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_anthropic-proxy"))
        .args(arguments)
        .env_clear()
        .env("USER", "ann")
        .envs(variables.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // a verb that reads nothing may have ended
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn directory_of(proxy: &Proxy) -> std::path::PathBuf {
    proxy.path(".")
}

fn text_of(proxy: &Proxy) -> String {
    fs::read_to_string(proxy.path("env/.env")).unwrap()
}

/// Asks the API: status and content, with the version that the answer names.
fn ask(
    proxy: &Proxy,
    key: &str,
    line: &str,
    version: Option<&str>,
    content: Option<Value>,
) -> (u16, Value, String) {
    let content = content
        .map(|content| content.to_string())
        .unwrap_or_default();
    let version = version
        .map(|version| format!("If-Match: {version}\r\n"))
        .unwrap_or_default();
    let (method, path) = line.split_once(' ').unwrap();
    let response = proxy.send(format!(
        "{method} /admin/api/v1{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n{version}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
        proxy.addr(),
        content.len()
    ));
    let status = response.status();
    let tag = response.head.one("etag").unwrap_or_default().to_owned();
    let content = serde_json::from_slice(response.content())
        .unwrap_or_else(|_| panic!("no JSON: {}", show(response.content())));
    (status, content, tag)
}

#[test]
fn verbs_change_the_file_and_keep_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir(root.join("env")).unwrap();
    let file = root.join("env/.env");
    fs::write(&file, TEXT).unwrap();
    let says = |arguments: &[&str]| {
        let ended = verb(root, &[], "", arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?} {ended:?}");
        ended.stdout
    };
    let said = says(&["config", "set", "UPSTREAM_TIMEOUT=2m", "--reason", "slow"]);
    assert!(
        said.contains("+ UPSTREAM_TIMEOUT=2m\n") && said.contains("change 1"),
        "{said}"
    );
    let after = format!("{TEXT}UPSTREAM_TIMEOUT=2m\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), after);
    assert_eq!(says(&["config", "get", "UPSTREAM_TIMEOUT"]), "2m\n");
    let said = says(&["config", "get"]);
    assert!(
        said.contains("UPSTREAM_TIMEOUT") && !said.contains("WRITE_TIMEOUT"),
        "{said}"
    );

    // a secret comes from standard input, and is shown nowhere
    let ended = verb(
        root,
        &[],
        "sk-canary-0123\n",
        &["config", "set", "UPSTREAM_API_KEYS"],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains("UPSTREAM_API_KEYS=sk-canary-0123\n")
    );
    let shown: String = [
        &["config", "get", "UPSTREAM_API_KEYS"][..],
        &["config", "diff"],
        &["config", "history"],
        &["config", "diff", "1", "--json"],
        &["config", "get", "--json"],
    ]
    .map(says)
    .concat();
    assert!(
        shown.contains("(14 octets)") && !shown.contains("canary"),
        "{shown}"
    );
    assert!(
        shown.contains("cli ann") && shown.contains("slow"),
        "{shown}"
    );

    says(&["config", "unset", "UPSTREAM_API_KEYS"]);
    says(&["config", "rollback", "2"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), after);
    assert_eq!(says(&["config", "history"]).lines().count(), 5);

    let before = fs::read_to_string(&file).unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (
            &["config", "set", "UPSTREM_TIMEOUT=1"],
            2,
            "did you mean UPSTREAM_TIMEOUT?",
        ),
        (&["config", "get", "port"], 2, "did you mean PORT?"),
        (&["config", "set", "PORT=x"], 1, "`x` is not a port"),
        (&["config", "get", "TLS_PORT"], 1, "TLS_PORT is not set"),
        (&["config", "rollback", "99"], 1, "no change 99"),
        (&["config", "set", "PORT"], 2, "it is empty"),
        (&["config", "set"], 2, "NAME[=VALUE]"),
    ];
    for (arguments, code, part) in cases {
        let ended = verb(root, &[], "", arguments);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    says(&["config", "set", "PORT=9090", "--dry-run"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    // what overrides the file is told
    let ended = verb(root, &[("PORT", "7")], "", &["config", "set", "PORT=9090"]);
    assert!(
        ended.stderr.contains("it is overridden (environment)"),
        "{ended:?}"
    );
}

#[test]
fn a_verb_has_the_running_server_take_it_or_changes_nothing() {
    let proxy = server(TEXT);
    let root = directory_of(&proxy);
    let variables = [("DATA_DIR", "data")];
    let run = |arguments: &[&str]| verb(&root, &variables, "", arguments);
    let ended = run(&["config", "set", "UPSTREAM_TIMEOUT=2m", "--reason", "slow"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("change 1: in effect"), "{ended:?}");
    assert!(text_of(&proxy).ends_with("UPSTREAM_TIMEOUT=2m\n"));
    let ended = run(&["config", "get", "UPSTREAM_TIMEOUT"]);
    assert_eq!(ended.stdout, "2m\n", "{ended:?}");
    // what waits for a restart is not in effect
    let ended = run(&["config", "set", "WORKERS=1"]);
    assert!(
        ended.stdout.contains("restart the proxy to apply WORKERS")
            && !ended.stdout.contains("in effect"),
        "{ended:?}"
    );
    assert_eq!(run(&["config", "rollback"]).code, Some(0));
    let ended = run(&["config", "set", "UPSTREAM_TIMEOUT=x"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let ended = run(&["config", "rollback", "1"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(text_of(&proxy), TEXT);
    // a file that is gone is not made anew, and comes back
    fs::remove_file(proxy.path("env/.env")).unwrap();
    let ended = run(&["config", "set", "UPSTREAM_TIMEOUT=3m"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("is gone"), "{ended:?}");
    assert!(!proxy.path("env/.env").exists());
    let ended = run(&["config", "rollback"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(text_of(&proxy), TEXT);
    // an edit by hand stays, unless it is meant
    assert_eq!(run(&["config", "set", "UPSTREAM_TIMEOUT=3m"]).code, Some(0));
    let edited = format!("{}WRITE_TIMEOUT=9m\n", text_of(&proxy));
    fs::write(proxy.path("env/.env"), &edited).unwrap();
    let ended = run(&["config", "rollback"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(
        ended.stderr.contains("changed by hand") && ended.stderr.contains("+ WRITE_TIMEOUT=9m"),
        "{ended:?}"
    );
    assert_eq!(text_of(&proxy), edited);
    let ended = run(&["config", "rollback", "--force"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(text_of(&proxy), TEXT);

    // each is in the audit, refused ones too
    let ended = run(&["audit", "search", "--json"]);
    let lines = ended.stdout.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().unwrap();
    let of = |action: &str, result: &str| {
        let mut lines = lines.iter();
        lines.any(|line| {
            line["action"] == action && line["result"].as_str().unwrap().starts_with(result)
        })
    };
    assert!(
        of("config.set", "done") && of("config.set", "refused: ") && of("config.rollback", "done"),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line["after"]["UPSTREAM_TIMEOUT"] == "2m"),
        "{lines:?}"
    );
}

#[test]
fn the_api_changes_the_version_that_was_seen_and_no_other() {
    let proxy = server(TEXT);
    let (status, seen, tag) = ask(&proxy, KEY, "GET /config", None, None);
    assert_eq!(status, 200);
    assert_eq!(seen["file"]["names"], json!(["API_BASE_URL"]));
    assert_eq!(
        tag,
        format!("\"{}\"", seen["file"]["version"].as_str().unwrap())
    );
    let change = |value: &str| Some(json!({"set": {"UPSTREAM_TIMEOUT": value}, "reason": "why"}));
    let (status, problem, _) = ask(&proxy, KEY, "PATCH /config", None, change("2m"));
    assert_eq!(
        (status, &problem["error"]["code"]),
        (428, &json!("version_required"))
    );
    let (status, problem, _) = ask(&proxy, VIEWER, "PATCH /config", Some(&tag), change("2m"));
    assert_eq!(
        (status, &problem["error"]["code"]),
        (403, &json!("role_forbidden"))
    );
    // shown first
    let dry = Some(json!({"set": {"UPSTREAM_TIMEOUT": "2m"}, "dry_run": true}));
    let (status, shown, _) = ask(&proxy, KEY, "PATCH /config", Some(&tag), dry);
    assert_eq!((status, &shown["applied"]), (200, &json!("shown")));
    assert_eq!(text_of(&proxy), TEXT);
    let (status, made, second) = ask(&proxy, KEY, "PATCH /config", Some(&tag), change("2m"));
    assert_eq!(
        (status, &made["applied"]),
        (200, &json!("in_effect")),
        "{made}"
    );
    assert_ne!(second, tag);
    let (_, now, _) = ask(&proxy, KEY, "GET /config", None, None);
    let row = now["settings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "UPSTREAM_TIMEOUT");
    assert_eq!(row.unwrap()["value"], "2m");

    // another edit was made meanwhile
    let (status, problem, _) = ask(&proxy, KEY, "PATCH /config", Some(&tag), change("3m"));
    assert_eq!(
        (status, &problem["error"]["code"]),
        (412, &json!("stale_version"))
    );
    let diff = problem["error"]["diff"].as_array().unwrap();
    assert!(
        diff.contains(&json!({"kind": "added", "text": "UPSTREAM_TIMEOUT=2m"})),
        "{problem}"
    );
    let faulty = Some(json!({"set": {"UPSTREAM_TIMEOUT": "sk-canary-0123"}}));
    let (status, problem, _) = ask(&proxy, KEY, "PATCH /config", Some(&second), faulty);
    assert_eq!(
        (status, &problem["error"]["code"]),
        (400, &json!("invalid_configuration"))
    );
    assert!(!problem.to_string().contains("canary"), "{problem}");

    let (status, history, _) = ask(&proxy, VIEWER, "GET /config/history", None, None);
    assert_eq!(status, 200);
    assert_eq!(history["items"][0]["reason"], "why");
    let (status, since, _) = ask(&proxy, VIEWER, "GET /config/history/last", None, None);
    assert_eq!((status, &since["entry"]["id"]), (200, &json!(1)));
    assert_eq!(
        ask(&proxy, VIEWER, "GET /config/history/7", None, None).0,
        404
    );
    let back = Some(json!({"to": 1}));
    let (status, made, _) = ask(&proxy, KEY, "POST /config/rollback", Some(&second), back);
    assert_eq!(
        (status, &made["applied"]),
        (200, &json!("in_effect")),
        "{made}"
    );
    assert_eq!(text_of(&proxy), TEXT);
}

#[test]
fn what_a_reload_refuses_is_undone() {
    let proxy = server(&format!("{TEXT}UPSTREAM_API_KEYS=sk-1\n"));
    // the server keeps a key whose line a person took out
    proxy.write("env/.env", TEXT);
    proxy.wait_for_line(|line| line.contains("reload refused"));
    let (_, _, tag) = ask(&proxy, KEY, "GET /config", None, None);
    let change = Some(json!({"set": {"UPSTREAM_TIMEOUT": "2m"}}));
    let (status, problem, _) = ask(&proxy, KEY, "PATCH /config", Some(&tag), change);
    assert_eq!(
        (status, &problem["error"]["code"]),
        (409, &json!("reload_refused")),
        "{problem}"
    );
    let said = problem["error"]["message"].as_str().unwrap();
    assert!(
        said.contains("UPSTREAM_API_KEYS") && said.contains("what it was before"),
        "{said}"
    );
    assert_eq!(text_of(&proxy), TEXT);
}

#[test]
fn a_file_that_cannot_be_changed_here_gives_the_lines_to_write_elsewhere() {
    let proxy = ProxyBuilder::new()
        .arg("--env-file")
        .arg("/dev/null")
        .env("API_BASE_URL", "http://127.0.0.1:9")
        .env("ENABLE_DASHBOARD", "true")
        .env("DASHBOARD_API_KEY", KEY)
        .env("DATA_DIR", "data")
        .start();
    let (status, seen, tag) = ask(&proxy, KEY, "GET /config", None, None);
    assert_eq!(status, 200);
    let why = seen["file"]["read_only"].as_str().unwrap();
    assert!(why.contains("/dev/null cannot be changed"), "{seen}");
    let change = json!({"set": {"UPSTREAM_TIMEOUT": "2m", "UPSTREAM_API_KEYS": "sk-canary"}});
    let (status, problem, _) = ask(&proxy, KEY, "PATCH /config", Some(&tag), Some(change));
    assert_eq!(
        (status, &problem["error"]["code"]),
        (409, &json!("read_only")),
        "{problem}"
    );
    let lines = json!([
        "UPSTREAM_API_KEYS=(the value that you entered)",
        "UPSTREAM_TIMEOUT=2m"
    ]);
    assert_eq!(problem["error"]["lines"], lines);
    assert!(!problem.to_string().contains("canary"), "{problem}");
}

#[test]
fn in_a_wrong_folder_no_settings_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let run = |arguments: &[&str]| verb(root, &[], "", arguments);
    for (arguments, code) in [
        (&["config", "set", "PORT=9090"][..], 2),
        (&["config", "set", "PORT=9090", "--dry-run"], 2),
        (&["config", "unset", "PORT"], 2),
        (&["config", "rollback"], 1),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?} {ended:?}");
        assert_eq!(
            fs::read_dir(root).unwrap().count(),
            0,
            "{arguments:?} made something"
        );
    }
    let said = run(&["config", "set", "PORT=9090"]).stderr;
    let file = fs::canonicalize(root).unwrap().join("env/.env");
    for part in [
        &*file.display().to_string(),
        "--data-dir",
        "--env-file",
        "--create",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let ended = run(&["config", "get", "PORT"]);
    assert!(ended.stderr.contains("does not exist"), "{ended:?}");
    // without an upstream, the default one is named
    let ended = run(&["config", "set", "PORT=9090", "--create"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fs::read_to_string(file).unwrap(), "PORT=9090\n");
    // verbs that watch a server say what they lack
    for arguments in [&["top", "--once"][..], &["verify", "--exchange", "x"]] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.stderr.contains("the running server is not found")
                && ended.stderr.contains("--data-dir"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_value_that_is_in_effect_waits_for_no_restart() {
    let proxy = server(TEXT);
    let directory = directory_of(&proxy);
    let variables = [("DATA_DIR", "data")];
    let set = |pair: &str| {
        let ended = verb(&directory, &variables, "", &["config", "set", pair]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    let said = set("MAX_CONNECTIONS=77");
    assert!(
        said.contains("restart the proxy to apply MAX_CONNECTIONS"),
        "{said}"
    );
    let said = set("MAX_CONNECTIONS=25000");
    assert!(!said.contains("restart"), "{said}");
    assert!(said.contains("in effect"), "{said}");
}
