//! Keys, limits and audit by the command line and the API: with a running server and without.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

mod verbs;

use serde_json::Value;

use crate::support::{DEADLINE, Proxy, ProxyBuilder, contains, proxy::Ended, wire::show};

const KEY: &str = "a-key-of-the-tests";

/// A directory for keys, and verbs on it.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Runs a verb.
    #[track_caller]
    fn verb(&self, arguments: &[&str]) -> Ended {
        self.verb_with(&[], arguments)
    }

    #[track_caller]
    fn verb_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let builder = ProxyBuilder::new()
            .env("DATA_DIR", self.data().display())
            .env("USER", "ann");
        let builder = variables
            .iter()
            .fold(builder, |it, (name, value)| it.env(name, value));
        arguments
            .iter()
            .fold(builder, |it, argument| it.arg(argument))
            .run()
    }

    /// Runs a verb that succeeds, and gives what it printed.
    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let ended = self.verb(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?} {ended:?}");
        ended.stdout
    }

    /// Runs a verb that succeeds, and gives its JSON.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.says(&[arguments, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}"))
    }

    /// Runs a verb that fails with this code, and gives what it complained about.
    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ended = self.verb(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?} {ended:?}");
        ended.stderr
    }

    /// A server of this directory.
    #[track_caller]
    fn server(&self) -> Proxy {
        server(&self.data())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The octets of all files.
    fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        let mut folders = vec![self.data()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    octets.extend(fs::read(path).unwrap());
                }
            }
        }
        octets
    }

    fn audit_file(&self) -> PathBuf {
        self.data().join("audit/000000000001.jsonl")
    }
}

#[track_caller]
fn server(data: &Path) -> Proxy {
    // no request gets further: nothing listens there
    Proxy::to("http://127.0.0.1:9")
        .env("DATA_DIR", data.display())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .start()
}

/// Asks the API with the dashboard's key.
#[track_caller]
fn ask(proxy: &Proxy, method: &str, path: &str, content: &str) -> (u16, Value) {
    let mut request = format!(
        "{method} /admin/api/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    );
    if !content.is_empty() {
        let length = content.len();
        request += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    let response = proxy.send(request + "\r\n" + content);
    let content = response.content();
    let value = serde_json::from_slice(content).unwrap_or_else(|_| panic!("{}", show(content)));
    (response.status(), value)
}

#[test]
fn a_key_is_created_shown_once_listed_rotated_and_revoked() {
    let desk = Desk::new();
    let created = desk.json(&[
        "keys",
        "create",
        "--name",
        "ann-laptop",
        "--user",
        "ann",
        "--team",
        "core",
        "--models",
        "claude-opus-*,claude-sonnet-*",
        "--sources",
        "10.0.0.0/8",
        "--budget",
        "$500/month@Europe/Berlin",
        "--rpm",
        "60",
        "--streams",
        "4",
        "--expires",
        "90d",
    ]);
    let key = created["key"].as_str().unwrap();
    let id = created["id"].as_str().unwrap();
    assert!(key.starts_with(&format!("ap_{id}_")), "{key}");
    assert_eq!((key.len(), id.len()), (52, 10));
    assert_eq!(created["last4"][0], key[48..]);
    let shown = desk.json(&["keys", "show", "ann-laptop"]);
    assert!(shown.get("key").is_none());
    assert_eq!(shown["models"][0], "claude-opus-*");
    assert_eq!(shown["limits"].as_array().unwrap().len(), 3);
    let listed = desk.says(&["keys", "list"]);
    assert!(
        listed.contains("ann-laptop") && listed.contains("$500/month@Europe/Berlin"),
        "{listed}"
    );

    let rotated = desk.says(&["keys", "rotate", id, "--quiet"]);
    let rotated = rotated.trim();
    assert!(rotated.starts_with(&format!("ap_{id}_")) && rotated != key);
    let shown = desk.json(&["keys", "show", id]);
    assert_eq!(shown["secrets"].as_array().unwrap().len(), 2);
    assert_eq!(shown["secrets"][0]["last4"], key[48..]);
    assert!(shown["secrets"][0]["expires_at"].is_string());
    desk.says(&["keys", "rotate", id, "--overlap", "0s", "--quiet"]);
    let shown = desk.json(&["keys", "show", id]);
    assert_eq!(shown["last4"].as_array().unwrap().len(), 1);
    assert_eq!(shown["secrets"][0]["last4"], rotated[48..]);
    let text = desk.says(&["keys", "show", id]);
    assert!(text.contains(", ended "), "{text}");

    desk.says(&["keys", "revoke", "ann-laptop", "--reason", "a lost laptop"]);
    let shown = desk.json(&["keys", "show", id]);
    assert_eq!(shown["state"], "revoked");
    assert_eq!(shown["revoked_reason"], "a lost laptop");
    let said = desk.fails(5, &["keys", "rotate", id]);
    assert!(said.contains("was revoked"), "{said}");

    // the secret is in no file: neither whole nor its part
    let octets = desk.octets();
    for secret in [key, rotated] {
        assert!(!contains(&octets, &secret.as_bytes()[14..46]));
    }
    assert!(contains(&octets, b"ann-laptop"));
}

#[test]
fn a_call_that_is_repeated_changes_nothing() {
    let desk = Desk::new();
    let first = [
        "keys",
        "create",
        "--name",
        "ci",
        "--id",
        "1111111111",
        "--rpm",
        "5",
        "--expires",
        "90d",
    ];
    let key = desk.says(&[&first[..], &["--quiet"]].concat());
    assert!(key.starts_with("ap_1111111111_"), "{key}");
    let again = desk.verb(&[&first[..], &["--quiet"]].concat());
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), ""));
    assert!(again.stderr.contains("exists"), "{again:?}");
    let said = desk.fails(
        5,
        &[
            "keys",
            "create",
            "--name",
            "ci",
            "--id",
            "1111111111",
            "--rpm",
            "6",
        ],
    );
    assert!(said.contains("with other settings"), "{said}");
    let said = desk.fails(5, &["keys", "create", "--name", "ci"]);
    assert!(said.contains("--if-absent"), "{said}");
    let kept = desk.json(&["keys", "create", "--name", "ci", "--if-absent"]);
    assert_eq!(
        (&kept["id"], &kept["key"]),
        (&Value::from("1111111111"), &Value::Null)
    );
    // and it is in the audit once
    let lines = desk.says(&["audit", "search", "--action", "key.create", "--json"]);
    let done = lines
        .lines()
        .filter(|line| line.contains("\"result\":\"done\""));
    assert_eq!(done.count(), 1, "{lines}");
    // a script that is run again gives no new key to a person who left
    desk.says(&["keys", "revoke", "1111111111", "--reason", "left"]);
    let said = desk.fails(5, &["keys", "create", "--name", "ci", "--if-absent"]);
    assert!(said.contains("was revoked"), "{said}");
}

#[test]
fn faults_of_a_new_key_are_told_at_once() {
    let desk = Desk::new();
    let said = desk.fails(
        1,
        &[
            "keys",
            "create",
            "--name",
            " x ",
            "--models",
            "claude opus",
            "--sources",
            "10.0.0.0/99",
            "--expires",
            "soon",
            "--upstream-key-env",
            "sk-ant-canary",
        ],
    );
    for part in [
        "name",
        "models",
        "sources",
        "expires",
        "upstream_key_env",
        "no key was made",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("canary"), "{said}");
    for (budget, part) in [
        ("$-5/day", "negative"),
        ("$5/day@Europe/Bonn", "no time zone"),
        ("$5", "no period"),
    ] {
        let said = desk.fails(2, &["keys", "create", "--name", "x", "--budget", budget]);
        assert!(said.contains(part), "{said}");
    }
    let said = desk.fails(1, &["keys", "show", "nothing"]);
    assert!(said.contains("no key has the id or the name"), "{said}");
    desk.fails(2, &["keys", "create"]);
    desk.fails(2, &["keys", "revoke", "x"]);
    let ended = ProxyBuilder::new().arg("keys").arg("list").run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("DATA_DIR is not set"), "{ended:?}");
    assert_eq!(desk.json(&["keys", "list"])["total"], 0);
}

#[test]
fn a_pattern_without_a_price_is_warned_of() {
    let desk = Desk::new();
    let ended = desk.verb(&["keys", "create", "--name", "a", "--models", "claude-opsu-*"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("warning: claude-opsu-* matches no model"),
        "{ended:?}"
    );
    let ended = desk.verb(&["keys", "create", "--name", "b", "--models", "claude-opus-*"]);
    assert!(!ended.stderr.contains("matches no model"), "{ended:?}");
}

#[test]
fn limits_are_set_shown_explained_and_granted() {
    let desk = Desk::new();
    desk.says(&[
        "keys", "create", "--name", "a", "--user", "ann", "--team", "core",
    ]);
    let said = desk.fails(1, &["limits", "set", "team:cor", "--budget", "$5/day"]);
    assert!(
        said.contains("team:cor is unknown") && said.contains("did you mean team:core?"),
        "{said}"
    );
    let said = desk.fails(1, &["limits", "show", "user:bob"]);
    assert!(said.contains("create a key with --user"), "{said}");
    desk.says(&[
        "limits",
        "set",
        "team:core",
        "--budget",
        "$500/month@Europe/Berlin",
        "--rpm",
        "600",
    ]);
    desk.says(&[
        "limits",
        "set",
        "team:core",
        "--budget",
        "$20/day",
        "--models",
        "claude-opus-*",
    ]);
    desk.says(&[
        "limits",
        "set",
        "team:core",
        "--budget",
        "$50/month",
        "--each-user",
    ]);
    let shown = desk.says(&["limits", "show", "team:core"]);
    for part in [
        "$500/month@Europe/Berlin",
        "600 requests/min",
        "$20/day",
        "of claude-opus-*",
        "each user: $50/month",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    desk.says(&["limits", "set", "team:core", "--rpm", "none"]);
    assert!(
        !desk
            .says(&["limits", "show", "team:core"])
            .contains("requests/min")
    );
    let said = desk.fails(
        1,
        &["limits", "set", "user:ann", "--each-user", "--rpm", "1"],
    );
    assert!(said.contains("for teams"), "{said}");

    let said = desk.fails(
        1,
        &[
            "limits", "grant", "org", "$50", "--until", "24h", "--reason", "r",
        ],
    );
    assert!(said.contains("org has no budget"), "{said}");
    desk.says(&[
        "limits",
        "grant",
        "team:core",
        "+$50",
        "--until",
        "24h",
        "--reason",
        "a release",
    ]);
    let explained = desk.json(&["limits", "explain", "team:core"]);
    let rows = explained["limits"].as_array().unwrap();
    let month = rows.iter().find(|row| row["period"] == "month").unwrap();
    assert_eq!(
        (&month["amount_usd"], &month["bound"]),
        (&Value::from(500.0), &Value::from(550.0))
    );
    assert_eq!(month["left"], 550.0);
    assert!(month["resets_at"].is_string());
    assert_eq!(explained["grants"][0]["reason"], "a release");
    let text = desk.says(&["limits", "explain", "team:core", "org"]);
    assert!(
        text.contains("$550") && text.contains("no limits"),
        "{text}"
    );
    let checked = desk.json(&["limits", "verify"]);
    assert_eq!(checked["differences"], Value::Array(vec![]));
    assert!(checked["compared"].as_u64().unwrap() >= 2, "{checked}");
}

#[test]
fn a_key_file_is_applied_whole_or_not_at_all() {
    let desk = Desk::new();
    let key = desk.says(&[
        "keys",
        "create",
        "--name",
        "old",
        "--id",
        "1111111111",
        "--quiet",
    ]);
    let faulty = desk.file(
        "faulty.toml",
        "[org]\nbudget = \"$-1/day\"\n[[key]]\nname = \"new\"\nkey_env = \"NEW_KEY\"\nrpm = \"many\"\n",
    );
    let said = desk.fails(1, &["keys", "apply", "-f", &faulty]);
    for part in [
        "3 faults; nothing was applied",
        "line 2: ",
        "line 5: ",
        "line 6: ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(desk.json(&["keys", "list"])["total"], 1);

    // a key of another proxy, by the variable that has it
    let other = Desk::new();
    let new = other.says(&[
        "keys",
        "create",
        "--name",
        "n",
        "--id",
        "2222222222",
        "--quiet",
    ]);
    let text = "[org]\nbudget = \"$100/day\"\n\n[[key]]\nname = \"new\"\nkey_env = \"NEW_KEY\"\nteam = \"core\"\n\n\
                [[team]]\nname = \"core\"\nrpm = 60\n";
    let file = desk.file("keys.toml", text);
    let apply = ["keys", "apply", "-f", &file];
    let variables = [("NEW_KEY", new.trim())];
    let run = |more: &[&str]| {
        let ended = desk.verb_with(&variables, &[&apply[..], more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    let said = run(&["--dry-run", "--prune"]);
    for part in [
        "+ create key:2222222222 (new)",
        "~ update org",
        "~ update team:core",
        "- revoke key:1111111111 (old)",
        "4 changes",
        "nothing was changed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(desk.json(&["keys", "list"])["total"], 1, "a dry run");
    assert!(run(&[]).contains("3 changes"), "without --prune");
    assert!(run(&[]).contains("0 changes, 3 unchanged"));
    let said = run(&["--prune"]);
    assert!(said.contains("- revoke key:1111111111"), "{said}");
    assert_eq!(
        desk.json(&["keys", "show", "1111111111"])["state"],
        "revoked"
    );
    assert_eq!(
        desk.json(&["keys", "show", "new"])["last4"][0],
        new.trim()[48..]
    );
    let octets = desk.octets();
    for secret in [&key, &new] {
        assert!(!contains(&octets, &secret.as_bytes()[14..46]));
    }
    let said = desk.fails(2, &["keys", "apply", "-f", "/no/such/file"]);
    assert!(said.contains("cannot be read"), "{said}");
    let revoked = desk.file("revoked.toml", "[[key]]\nname = \"old\"\n");
    let said = desk.fails(1, &["keys", "apply", "-f", &revoked]);
    let fault = "key 1111111111 had the name \"old\" and was revoked";
    assert!(said.contains(fault), "{said}");
}

#[test]
fn an_export_is_imported_where_the_pepper_is_the_same() {
    let desk = Desk::new();
    desk.says(&[
        "keys", "create", "--name", "a", "--team", "core", "--rpm", "5",
    ]);
    desk.says(&["limits", "set", "team:core", "--budget", "$5/day"]);
    let export = desk.says(&["keys", "export"]);
    let file = desk.file("export.json", &export);
    let other = Desk::new();
    let said = other.fails(1, &["keys", "import", &file]);
    assert!(said.contains("another pepper"), "{said}");
    fs::copy(
        desk.data().join("access.pepper"),
        other.data().join("access.pepper"),
    )
    .unwrap();
    let said = other.says(&["keys", "import", &file]);
    assert!(said.contains("2 changes"), "{said}");
    assert!(
        other
            .says(&["keys", "import", &file])
            .contains("0 changes, 2 unchanged")
    );
    let (ours, theirs) = (
        desk.says(&["keys", "export"]),
        other.says(&["keys", "export"]),
    );
    assert_eq!(ours, theirs);
    desk.says(&["keys", "revoke", "a", "--reason", "r"]);
    let said = desk.fails(5, &["keys", "import", &file]);
    assert!(said.contains("exists with other settings"), "{said}");
    assert!(
        other
            .fails(1, &["keys", "import", "-"])
            .contains("no export")
    );
}

#[test]
fn every_change_and_every_refused_one_is_in_the_audit() {
    let desk = Desk::new();
    assert!(desk.says(&["audit", "verify"]).contains("no chain"));
    desk.says(&["keys", "create", "--name", "a", "--team", "core"]);
    desk.fails(5, &["keys", "create", "--name", "a"]);
    desk.says(&["limits", "set", "org", "--rpm", "9", "--reason", "a test"]);
    desk.says(&["keys", "revoke", "a", "--reason", "over"]);
    let text = desk.says(&["audit", "search", "--json"]);
    let lines: Vec<Value> = text
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|it| {
            format!(
                "{} {}",
                it["action"].as_str().unwrap(),
                it["result"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(told[..2], ["key.create intent", "key.create done"]);
    assert!(told[2].starts_with("key.create refused: key "), "{told:?}");
    assert_eq!(
        told[3..],
        [
            "limits.set intent",
            "limits.set done",
            "key.revoke intent",
            "key.revoke done"
        ]
    );
    assert_eq!(lines[0]["actor"]["type"], "cli");
    assert_eq!(lines[0]["actor"]["id"], "ann");
    assert_eq!(lines[0]["after"]["name"], "a");
    assert_eq!(lines[4]["after"]["limits"][0]["amount"], 9);
    assert_eq!(
        (&lines[4]["reason"], &lines[6]["reason"]),
        (&Value::from("a test"), &Value::from("over"))
    );
    assert!(!text.contains("digest"), "{text}");
    assert!(
        desk.says(&["audit", "verify"])
            .contains("whole, lines 1 to 7")
    );
    let count = |text: String| {
        let lines = text.lines().filter(|line| !line.starts_with(' '));
        lines.count()
    };
    assert_eq!(count(desk.says(&["audit", "tail", "-n", "2"])), 2);
    assert_eq!(desk.says(&["audit", "search", "--actor", "bob"]), "");
    let since = ["audit", "search", "--action", "key", "--since", "24h"];
    assert_eq!(count(desk.says(&since)), 5);
    desk.fails(2, &["audit", "search", "--since", "soon"]);

    let whole = fs::read_to_string(desk.audit_file()).unwrap();
    for (changed, seq) in [
        (whole.replacen("\"amount\":9", "\"amount\":90", 1), 4),
        (
            whole.lines().skip(1).map(|it| format!("{it}\n")).collect(),
            1,
        ),
        (
            whole
                .lines()
                .take(5)
                .map(|it| format!("{it}\n"))
                .collect::<String>(),
            6,
        ),
    ] {
        fs::write(desk.audit_file(), changed).unwrap();
        let ended = desk.verb(&["audit", "verify"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stdout.contains(&format!("BROKEN at line {seq}:")),
            "{ended:?}"
        );
    }
}

#[test]
fn a_change_that_cannot_be_audited_is_refused() {
    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "a"]);
    fs::remove_dir_all(desk.data().join("audit")).unwrap();
    fs::write(desk.data().join("audit"), "in its place").unwrap();
    let said = desk.fails(1, &["keys", "create", "--name", "b"]);
    assert!(said.contains("the change is refused"), "{said}");
    assert_eq!(desk.json(&["keys", "list"])["total"], 1);
}

#[test]
fn a_running_server_is_asked_by_its_socket_or_its_url() {
    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "before", "--team", "core"]);
    let proxy = desk.server();
    let socket = desk.data().join("admin.sock");
    assert!(socket.exists());
    let created = desk.json(&["keys", "create", "--name", "while", "--user", "bob"]);
    let id = created["id"].as_str().unwrap();
    let (status, row) = ask(&proxy, "GET", &format!("/keys/{id}"), "");
    assert_eq!((status, &row["name"]), (200, &Value::from("while")));
    let (_, lines) = ask(&proxy, "GET", "/audit?action=key.create&limit=1", "");
    assert_eq!(lines["items"][0]["actor"]["type"], "socket");
    assert_eq!(lines["items"][0]["actor"]["id"], "ann");
    assert_eq!(desk.json(&["keys", "list"])["total"], 2);
    desk.says(&["limits", "set", "team:core", "--budget", "$5/day"]);
    let said = desk.fails(1, &["limits", "set", "team:cor", "--budget", "$5/day"]);
    assert!(said.contains("did you mean team:core?"), "{said}");
    assert!(desk.says(&["audit", "verify"]).contains("whole"));

    let url = format!("http://{}", proxy.addr());
    let remote = |key: &str, arguments: &[&str]| {
        let builder = ProxyBuilder::new().env("ANTHROPIC_PROXY_ADMIN_KEY", key);
        let all = [arguments, &["--server", &url]].concat();
        all.iter()
            .fold(builder, |it, argument| it.arg(argument))
            .run()
    };
    let ended = remote(
        KEY,
        &["keys", "revoke", "while", "--reason", "over", "--json"],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let revoked: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(revoked["state"], "revoked");
    let ended = remote("a wrong key", &["keys", "list"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(remote("", &["keys", "list"]).code, Some(2));
    assert_eq!(remote(KEY, &["keys", "show", "nothing"]).code, Some(1));
    assert_eq!(
        remote(KEY, &["keys", "create", "--name", "before"]).code,
        Some(5)
    );
    let (_, lines) = ask(&proxy, "GET", "/audit?action=session", "");
    let told = lines["items"].to_string();
    assert!(
        told.contains("refused: a wrong key") && told.contains("\"anonymous\""),
        "{told}"
    );

    // without its socket, the store of a running server is left alone
    fs::remove_file(&socket).unwrap();
    let said = desk.fails(5, &["keys", "list"]);
    assert!(said.contains("is locked"), "{said}");
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
    assert_eq!(desk.json(&["keys", "list"])["total"], 2);
}

#[test]
fn the_socket_is_for_its_owner_alone_has_no_page_and_goes_with_the_server() {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixStream};

    use crate::support::Wire;

    let desk = Desk::new();
    let proxy = desk.server();
    let path = desk.data().join("admin.sock");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (target, expected) in [
        ("/admin/api/v1/keys", 200),
        ("/admin/api/v1/overview", 200),
        ("/admin/api/v1/nothing", 404),
        ("/admin", 404),
        ("/metrics", 200),
        ("/v1/messages", 404),
    ] {
        let mut client = Wire::new(UnixStream::connect(&path).unwrap());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.read_response("GET").status(), expected, "{target}");
    }
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
    assert!(!path.exists());
}

#[test]
fn a_second_server_leaves_the_socket_until_the_first_has_ended() {
    use std::os::unix::net::UnixStream;

    let desk = Desk::new();
    let path = desk.data().join("admin.sock");
    let listener = || {
        let socket = UnixStream::connect(&path).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).unwrap();
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    };
    let first = desk.server();
    let second = desk.server();
    second.wait_for_line(|line| line.contains("another server works with DATA_DIR"));
    assert_eq!(listener(), Some(first.id()));
    // one that ends meanwhile takes nothing away
    let third = desk.server();
    third.signal("TERM");
    assert_eq!(third.wait().code, Some(0));
    assert_eq!(listener(), Some(first.id()));
    first.signal("TERM");
    assert_eq!(first.wait().code, Some(0));
    second.wait_for_line(|line| line.contains("verbs on this machine reach this one now"));
    assert_eq!(listener(), Some(second.id()));
    assert_eq!(desk.json(&["keys", "list"])["total"], 0);
    second.signal("TERM");
    assert_eq!(second.wait().code, Some(0));
    assert!(!path.exists());
}

#[test]
fn a_socket_without_permission_is_not_taken_for_none() {
    use std::os::unix::fs::PermissionsExt as _;

    let program = env!("CARGO_BIN_EXE_anthropic-proxy");
    let desk = Desk::new();
    let _proxy = desk.server();
    // another user: root may do everything, so it has to become one
    let is_root = rustix::process::geteuid().is_root();
    let socket = desk.data().join("admin.sock");
    let command = |arguments: &[&str]| {
        let mut command = std::process::Command::new(if is_root { "setpriv" } else { program });
        if is_root {
            command.args(["--reuid=65534", "--clear-groups", program]);
        }
        command.args(arguments).env("DATA_DIR", desk.data());
        command.current_dir(desk.data()).output().unwrap()
    };
    // the program and the folders above are for everybody here
    let closed = match is_root {
        true => desk.directory.path().to_owned(),
        false => socket,
    };
    fs::set_permissions(closed, fs::Permissions::from_mode(0o0)).unwrap();
    for arguments in [
        &["keys", "list"][..],
        &["top", "--once"],
        &["config", "get"],
        &["upgrade"],
    ] {
        let ended = command(arguments);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            said.contains("this user may not use"),
            "{arguments:?} {said}"
        );
        assert!(
            arguments[0] == "upgrade" || said.contains("sudo -u "),
            "{arguments:?} {said}"
        );
    }
    let ended = command(&["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == "admin_socket");
    let check = check.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(check["status"], "fail", "{check}");
    let fix = check["fix"].as_str().unwrap();
    assert!(
        fix.contains("sudo -u ") && fix.contains("--server"),
        "{fix}"
    );
    assert!(!report.to_string().contains("no server runs"), "{report}");
}

#[test]
fn changes_of_another_process_are_seen_within_a_second() {
    let desk = Desk::new();
    let first = desk.server();
    let second = desk.server();
    let (status, created) = ask(&second, "POST", "/keys", r#"{"name": "a", "team": "core"}"#);
    assert_eq!(status, 200, "{created}");
    let id = created["id"].as_str().unwrap();
    let began = Instant::now();
    let mut seen = 0;
    while seen != 200 {
        assert!(began.elapsed() < DEADLINE, "not seen");
        seen = ask(&first, "GET", &format!("/keys/{id}"), "").0;
    }
    // a busy machine may take longer than the second
    assert!(began.elapsed() < Duration::from_secs(30));
    let (status, _) = ask(
        &first,
        "PUT",
        "/limits/team:core",
        r#"{"limits": [{"kind": "at_once", "amount": 3}]}"#,
    );
    assert_eq!(status, 200);
    let (status, set) = ask(
        &second,
        "PUT",
        "/limits/team:core",
        r#"{"limits": [{"kind": "requests_per_minute", "amount": 5}], "merge": true}"#,
    );
    assert_eq!(status, 200);
    assert_eq!(
        set["limits"].as_array().unwrap().len(),
        2,
        "it saw the other's: {set}"
    );
    let (_, verified) = ask(&first, "GET", "/audit/verify", "");
    assert_eq!(verified["ok"], true, "{verified}");
}

#[test]
fn calls_of_the_api_that_cannot_be_are_problems() {
    let desk = Desk::new();
    let proxy = desk.server();
    for (method, path, content, status, code) in [
        ("POST", "/keys", r#"{"name": ""}"#, 400, "invalid"),
        ("POST", "/keys", r#"{"names": "a"}"#, 400, "bad_request"),
        ("GET", "/keys/nothing", "", 404, "not_found"),
        ("GET", "/keys?state=x", "", 400, "invalid"),
        ("GET", "/keys?limit=0", "", 400, "invalid"),
        ("GET", "/keys?x=1", "", 400, "bad_request"),
        (
            "POST",
            "/keys/nothing/revoke",
            r#"{"reason": "r"}"#,
            404,
            "not_found",
        ),
        (
            "POST",
            "/keys/nothing/revoke",
            r#"{"reason": " "}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/keys/apply",
            r#"{"text": "[x]"}"#,
            400,
            "file_faults",
        ),
        ("GET", "/limits/team:x", "", 404, "not_found"),
        ("GET", "/limits/nothing", "", 400, "invalid"),
        (
            "PUT",
            "/limits/org",
            r#"{"limits": [{"kind": "spend", "amount_usd": -1, "period": "day"}]}"#,
            400,
            "invalid",
        ),
        (
            "PUT",
            "/limits/org",
            r#"{"limits": [{"kind": "spend", "amount_usd": 1, "period": "day", "zone": "X/Y"}]}"#,
            400,
            "invalid",
        ),
        ("GET", "/spend?by=x", "", 400, "bad_filter"),
        ("GET", "/audit?since=soon", "", 400, "bad_filter"),
        ("GET", "/audit?limit=0", "", 400, "bad_filter"),
        ("DELETE", "/keys", "", 405, "method_not_allowed"),
    ] {
        let (found, problem) = ask(&proxy, method, path, content);
        assert_eq!(
            (found, &problem["error"]["code"]),
            (status, &Value::from(code)),
            "{method} {path} {problem}"
        );
    }
    let (_, problem) = ask(&proxy, "POST", "/keys/apply", r#"{"text": "[x]\n[y]"}"#);
    let faults = problem["error"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2);
    assert_eq!(
        (&faults[1]["line"], faults[1]["fix"].is_string()),
        (&Value::from(2), true)
    );
    let bare = Proxy::to("http://127.0.0.1:9")
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let (status, problem) = ask(&bare, "GET", "/keys", "");
    assert_eq!(status, 503);
    assert!(
        problem["error"]["message"]
            .as_str()
            .unwrap()
            .contains("DATA_DIR"),
        "{problem}"
    );
}

#[test]
fn a_store_that_cannot_be_used_ends_the_start_unless_keys_are_optional() {
    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "a"]);
    let path = desk.data().join("state.sqlite");
    fs::write(&path, "no database").unwrap();
    for mode in ["", "required"] {
        let ended = ProxyBuilder::new()
            .env("API_BASE_URL", "http://127.0.0.1:9")
            .env("DATA_DIR", desk.data().display())
            .env("ACCESS", mode)
            .run();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("restore it from a backup"),
            "{ended:?}"
        );
    }
    let proxy = Proxy::to("http://127.0.0.1:9")
        .env("DATA_DIR", desk.data().display())
        .env("ACCESS", "optional")
        .start();
    proxy.wait_for_line(|line| line.contains("requests with a key are refused"));
    assert_eq!(fs::read(&path).unwrap(), b"no database");
    let said = desk.fails(1, &["keys", "list"]);
    assert!(said.contains("left as it is"), "{said}");

    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "a"]);
    fs::remove_file(desk.data().join("access.pepper")).unwrap();
    let said = desk.fails(1, &["keys", "list"]);
    assert!(said.contains("is missing, and there are keys"), "{said}");
}

#[test]
fn a_whole_key_names_its_key_and_its_secret_is_written_nowhere() {
    let desk = Desk::new();
    let create = |name: &str| desk.says(&["keys", "create", "--quiet", "--name", name]);
    let (key, other) = (create("leaked"), create("other"));
    let (key, other) = (key.trim(), other.trim());
    let shown = desk.json(&["keys", "show", key]);
    assert_eq!(shown["name"], "leaked");
    let subject = format!("key:{key}");
    desk.says(&["limits", "set", &subject, "--rpm", "10", "--reason", key]);
    desk.says(&[
        "keys",
        "revoke",
        key,
        "--reason",
        &format!("{key} is in a log"),
    ]);
    assert_eq!(desk.json(&["keys", "show", "other"])["state"], "active");
    // of no key here
    let unknown = format!("ap_0000000000{}", &other["ap_0000000000".len()..]);
    let said = desk.fails(1, &["keys", "revoke", &unknown, "--reason", "leaked"]);
    assert!(said.contains("ap_0000000000_…"), "{said}");
    let named = format!("the one with {unknown}");
    for (option, value) in [
        ("--name", &*named),
        ("--team", other),
        ("--user", "sk-ant-api03-x"),
    ] {
        let mut arguments = vec!["keys", "create", option, value];
        if option != "--name" {
            arguments.extend(["--name", "fine"]);
        }
        let said = desk.fails(1, &arguments);
        assert!(said.contains("and no key"), "{said}");
    }
    let octets = desk.octets();
    for text in [key, other] {
        let secret = text.rsplit('_').next().unwrap();
        assert!(!contains(&octets, secret.as_bytes()), "{text}");
    }
}

#[test]
fn a_store_that_is_gone_ends_the_start_while_the_audit_knows_of_keys() {
    let desk = Desk::new();
    desk.says(&["keys", "create", "--name", "first"]);
    for file in fs::read_dir(desk.data()).unwrap() {
        let path = file.unwrap().path();
        if show(path.file_name().unwrap().as_encoded_bytes()).starts_with("state.sqlite") {
            fs::remove_file(path).unwrap();
        }
    }
    let start = || {
        Proxy::to("http://127.0.0.1:9")
            .env("DATA_DIR", desk.data().display())
            .run()
    };
    let ended = start();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("state.sqlite is missing"),
        "{ended:?}"
    );
    let said = desk.fails(1, &["keys", "create", "--name", "second"]);
    assert!(said.contains("state.sqlite is missing"), "{said}");
    fs::rename(desk.data().join("audit"), desk.data().join("audit.old")).unwrap();
    server(&desk.data());
}

#[test]
fn a_mistyped_directory_is_not_made() {
    let desk = Desk::new();
    let missing = desk.directory.path().join("mistyped/data");
    let ended = ProxyBuilder::new()
        .env("DATA_DIR", missing.display())
        .arg("keys")
        .arg("list")
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("does not exist"), "{ended:?}");
    assert!(!desk.directory.path().join("mistyped").exists());
}
