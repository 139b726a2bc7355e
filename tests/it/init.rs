//! `init`: at a terminal, by flags, and with everything that can be in its way.

use std::{
    fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command, thread,
};

use serde_json::Value;

use crate::support::{
    Answering, Identity, Proxy, ProxyBuilder, Upstream, get, proxy::Ended, redis::Redis,
    terminal::Terminal,
};

const MODELS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"data\":[]}";
const WRONG_KEY: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

/// Takes everything with a key that is right, and refuses the rest.
fn with_key(key: &'static str) -> Answering {
    Upstream::answering(move |head, _| {
        let answer = match head.one("x-api-key") == Some(key) {
            true => MODELS,
            false => WRONG_KEY,
        };
        answer.as_bytes().to_vec()
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs `init` without a terminal.
fn by_flags(flags: &[&str]) -> (Ended, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let ended = in_directory(directory.path(), flags, &[]);
    (ended, directory)
}

fn in_directory(directory: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_anthropic-proxy"))
        .arg("init")
        .args(flags)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().count() == 0
}

#[test]
fn a_person_is_asked_and_the_file_starts_a_server() {
    let upstream = with_key("sk-canary-right");
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut terminal = Terminal::start(directory.path(), &[("USER", "ann")], &["init"]);
    // a host that does not answer is told at once, and asked for again
    terminal.answer("URL of the upstream", "http://127.0.0.1:1");
    terminal.expect("refused");
    terminal.answer("Go on with it all the same?", "n");
    terminal.answer("URL of the upstream", &upstream.url());
    terminal.expect("wants a credential");
    terminal.expect("Credential for the upstream");
    terminal.types("\u{1b}[B\r");
    terminal.answer("Key for", "sk-canary-wrong");
    terminal.expect("refuses the credential (status 401)");
    terminal.answer("Go on with it all the same?", "n");
    // the key is asked for again; nothing that is typed is shown
    terminal.answer("Key for", "");
    terminal.expect("Credential for the upstream");
    terminal.types("sk-canary-right");
    terminal.types("\u{1b}[B\r");
    terminal.answer("Key for", "sk-canary-wrong");
    terminal.expect("refuses the credential (status 401)");
    terminal.answer("Go on with it all the same?", "n");
    terminal.answer("Key for", "sk-canary-right");
    terminal.expect("takes the credential");
    terminal.answer("Address to listen on", "");
    terminal.answer("Port", &port.to_string());
    terminal.answer("Give out keys", "y");
    // what few need is one question
    terminal.answer("Anything for several servers", "");
    terminal.answer("Serve the dashboard", "n");
    terminal.answer("Folder of keys", "");
    terminal.answer("Name of the first key", "");
    terminal.answer("Its budget", "5/day");
    terminal.expect("UPSTREAM_API_KEYS=(15 octets)");
    terminal.answer("Write env/.env?", "y");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("canary"), "{screen}");

    let file = directory.path().join("env/.env");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key = screen
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("ap_"));
    let key = key.expect("the key is shown").to_owned();
    assert!(
        screen.contains("check: the configuration is valid"),
        "{screen}"
    );
    let doctor = screen.find("doctor:").expect("the doctor has looked");
    assert!(screen[doctor..].contains("takes connections"), "{screen}");
    assert!(
        screen.contains(&format!(
            "export ANTHROPIC_BASE_URL='http://127.0.0.1:{port}'"
        )),
        "{screen}"
    );
    assert!(
        screen.contains(&format!("set -gx ANTHROPIC_AUTH_TOKEN '{key}'")),
        "{screen}"
    );

    // the next command that it prints
    let server = ProxyBuilder::new()
        .env("PORT", "")
        .arg("--env-file")
        .arg(file.to_str().unwrap())
        .env("DATA_DIR", directory.path().join("data").display())
        .start();
    assert_eq!(server.addr().port(), port);
    assert_eq!(server.send(get("/v1/models")).status(), 401);
    let with_key = format!("GET /v1/models HTTP/1.1\r\nHost: h\r\nx-api-key: {key}\r\n\r\n");
    assert_eq!(server.send(with_key).status(), 200);
}

#[test]
fn a_host_without_a_scheme_is_completed_and_more_is_asked_for_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let flags = [
        "init",
        "--no-test",
        "--no-keys",
        "--no-dashboard",
        "--port",
        &port,
    ];
    let mut terminal = Terminal::start(directory.path(), &[], &flags);
    terminal.answer("URL of the upstream", "api.test,http://b.test");
    terminal.expect("Taken as https://api.test,http://b.test.");
    terminal.answer("Credential for the upstream", "");
    terminal.answer("Address to listen on", "");
    terminal.answer("Anything for several servers", "y");
    terminal.answer("Replicas", "");
    terminal.expect("keeps it running");
    terminal.types("\u{1b}[B\r");
    terminal.answer("Write env/.env?", "y");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    let text = fs::read_to_string(directory.path().join("env/.env")).unwrap();
    let urls = "API_BASE_URLS=https://api.test,http://b.test";
    assert!(text.contains(urls), "{text}");
    assert!(
        directory.path().join("anthropic-proxy.service").exists(),
        "{screen}"
    );
}

#[test]
fn ctrl_c_writes_nothing_at_a_question_and_during_a_test() {
    let directory = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(directory.path(), &[], &["init"]);
    terminal.expect("URL of the upstream");
    terminal.types("\u{3}");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(130), "{screen}");
    assert!(screen.contains("nothing was written"), "{screen}");
    assert!(is_empty(directory.path()));

    let silent = Upstream::bind();
    let flags = ["init", "--upstream", &silent.url()];
    let mut terminal = Terminal::start(directory.path(), &[], &flags);
    let mut wire = silent.accept();
    wire.read_request_head();
    terminal.signal("INT");
    terminal.expect("nothing was written");
    assert_eq!(terminal.end().0, Some(130));
    assert!(is_empty(directory.path()));
}

#[test]
fn without_a_terminal_all_missing_flags_are_listed() {
    let (ended, directory) = by_flags(&["--upstream", "http://127.0.0.1:1"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for flag in [
        "--credential",
        "--host",
        "--port",
        "--keys or --no-keys",
        "--replicas",
        "--dashboard or --no-dashboard",
        "--yes",
    ] {
        assert!(ended.stderr.contains(flag), "{flag}: {ended:?}");
    }
    assert!(!ended.stderr.contains("--upstream"), "{ended:?}");
    assert!(is_empty(directory.path()));
    // a public address needs TLS and keys, or an explicit no, whatever the defaults are
    let (ended, _directory) = by_flags(&["--yes", "--host", "0.0.0.0"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for flag in [
        "--tls-cert PATH and --tls-key PATH, or --no-tls",
        "--keys, or --no-keys",
    ] {
        assert!(ended.stderr.contains(flag), "{flag}: {ended:?}");
    }
}

#[test]
fn defaults_are_enough_and_a_second_run_overwrites_nothing() {
    let upstream = Upstream::always(WRONG_KEY);
    let port = free_port().to_string();
    let flags = ["--yes", "--upstream", &upstream.url(), "--port", &port];
    let (ended, directory) = by_flags(&[&flags[..], &["--dry-run"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains(&format!("+ PORT={port}")),
        "{ended:?}"
    );
    assert!(is_empty(directory.path()), "a dry run wrote something");

    let ended = in_directory(directory.path(), &flags, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let file = directory.path().join("env/.env");
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains(&format!("API_BASE_URL={}\n", upstream.url())),
        "{text}"
    );
    // the same once more is no change
    let again = in_directory(directory.path(), &flags, &[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    let edited = format!("# ours\n{text}UPSTREAM_TIMEOUT=2m\n");
    fs::write(&file, &edited).unwrap();
    let other = [
        "--yes",
        "--no-test",
        "--upstream",
        "http://other.test",
        "--port",
        &port,
    ];
    let refused = in_directory(directory.path(), &other, &[]);
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(
        refused.stderr.contains("+ API_BASE_URL=http://other.test"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), edited);
    let forced = in_directory(directory.path(), &[&other[..], &["--force"]].concat(), &[]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let after = fs::read_to_string(&file).unwrap();
    assert_eq!(after, edited.replace(&upstream.url(), "http://other.test"));
    // what was there is in the history
    let kept = fs::read_to_string(directory.path().join("env/.env.history/000001.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["before"], edited);
}

#[test]
fn each_thing_in_the_way_is_one_clear_sentence_and_nothing_is_written() {
    let refusing = Upstream::always(WRONG_KEY);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    let key = tempfile::NamedTempFile::new().unwrap();
    fs::write(key.path(), "sk-canary-wrong\n").unwrap();
    let key = key.path().to_str().unwrap();
    let free = free_port().to_string();
    let url = refusing.url();
    let with_v1 = format!("{url}/v1");
    let cases: [(&[&str], i32, &str); 10] = [
        (
            &["--upstream", &with_v1],
            1,
            "would go to /v1/v1/messages; leave /v1 out",
        ),
        (
            &["--upstream", "api.test"],
            2,
            "--upstream: the URL has no scheme",
        ),
        (
            &["--upstream", "http://127.0.0.1:1"],
            1,
            "Connection refused",
        ),
        (
            &["--upstream", &url, "--port", &taken],
            1,
            "is taken by another process",
        ),
        (
            &[
                "--upstream",
                &url,
                "--port",
                &free,
                "--credential-file",
                key,
            ],
            1,
            "refuses the credential (status 401)",
        ),
        (
            &["--upstream", &url, "--credential-file", "/no/such"],
            2,
            "--credential-file: /no/such cannot be read",
        ),
        (
            &[
                "--upstream",
                &url,
                "--host",
                "203.0.113.7",
                "--no-tls",
                "--no-keys",
            ],
            1,
            "no address of this machine",
        ),
        (
            &["--no-test", "--env-file", "/proc/env/.env"],
            1,
            "cannot be",
        ),
        (
            &[
                "--upstream",
                &url,
                "--port",
                &free,
                "--replicas",
                "2",
                "--state-url",
                "redis://127.0.0.1:1",
            ],
            1,
            "127.0.0.1:1",
        ),
        (
            &["--upstream", &url, "--replicas", "2"],
            2,
            "--state-url URL",
        ),
    ];
    for (flags, code, part) in cases {
        let (ended, directory) = by_flags(&[&["--yes"][..], flags].concat());
        assert_eq!(ended.code, Some(code), "{flags:?} {ended:?}");
        assert!(ended.stderr.contains(part), "{flags:?} {ended:?}");
        assert!(!ended.stderr.contains("canary"), "{ended:?}");
        assert!(is_empty(directory.path()), "{flags:?} wrote something");
    }
}

#[test]
fn a_key_a_unit_and_a_file_of_compose_are_made_on_request() {
    let flags = [
        "--yes",
        "--no-test",
        "--credential",
        "environment",
        "--keys",
        "--key-name",
        "team",
        "--budget",
        "100/month",
        "--unit",
        "p.service",
        "--compose",
        "c.yaml",
    ];
    let directory = tempfile::tempdir().unwrap();
    let variables = [("UPSTREAM_API_KEYS", "sk-canary"), ("USER", "ann")];
    let ended = in_directory(directory.path(), &flags, &variables);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("The key \"team\", shown this once"),
        "{ended:?}"
    );
    let text = fs::read_to_string(directory.path().join("env/.env")).unwrap();
    assert!(
        text.contains("ACCESS=required\n") && !text.contains("canary"),
        "{text}"
    );
    let unit = fs::read_to_string(directory.path().join("p.service")).unwrap();
    assert!(
        unit.contains("/env/.env\n") && !unit.contains("User=ann\n"),
        "{unit}"
    );
    let compose = fs::read_to_string(directory.path().join("c.yaml")).unwrap();
    assert!(compose.contains("127.0.0.1:8088:8088"), "{compose}");
    // the user is the owner of the settings, not the one that the shell names
    let id = Command::new("id").arg("-un").output().unwrap();
    let user = format!("User={}", String::from_utf8(id.stdout).unwrap());
    assert!(unit.contains(&user), "{user} {unit}");
    // neither is overwritten
    let again = in_directory(directory.path(), &flags, &variables);
    assert_eq!(again.code, Some(5), "{again:?}");
    assert!(again.stderr.contains("p.service exists"), "{again:?}");
    // the unit takes the folder for granted, be there a key in it or not
    let (ended, directory) = by_flags(&["--yes", "--no-test", "--unit", "p.service"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mode = fs::metadata(directory.path().join("data"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_server_of_the_file_is_no_obstacle_to_a_second_run() {
    let upstream = Upstream::always(WRONG_KEY);
    let port = free_port().to_string();
    let (ended, directory) = by_flags(&["--yes", "--upstream", &upstream.url(), "--port", &port]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let file = directory.path().join("env/.env");
    let _server: Proxy = ProxyBuilder::new()
        .env("PORT", "")
        .arg("--env-file")
        .arg(file.to_str().unwrap())
        .start();
    let again = in_directory(directory.path(), &["--yes"], &[]);
    assert_eq!(again.code, Some(0), "{again:?}");
}

#[test]
fn what_this_shell_reaches_the_upstream_by_goes_into_the_file() {
    // an outbound proxy, which gets the URL of an upstream that no name server knows
    let outbound = Upstream::answering(|head, _| {
        let login = head.one("proxy-authorization") == Some("Basic dTpjYW5hcnk=");
        match login && head.line.starts_with("GET http://upstream.test/") {
            true => MODELS.as_bytes().to_vec(),
            false => WRONG_KEY.as_bytes().to_vec(),
        }
    });
    let proxy = outbound.url().replace("//", "//u:canary@");
    let port = free_port().to_string();
    let shell = [
        ("http_proxy", &*proxy),
        ("NO_PROXY", "other.test"),
        // of the server that is elsewhere, this shell says nothing
        ("API_BASE_URL", "http://127.0.0.1:1"),
        ("PORT", "1"),
    ];
    let flags = [
        "--yes",
        "--upstream",
        "http://upstream.test",
        "--port",
        &port,
    ];
    let directory = tempfile::tempdir().unwrap();
    let left = [&flags[..], &["--shell-settings", "leave"]].concat();
    let ended = in_directory(directory.path(), &left, &shell);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("is not written: set it"), "{ended:?}");
    let file = directory.path().join("env/.env");
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("PROXY"), "{text}");

    let ended = in_directory(
        directory.path(),
        &[&flags[..], &["--force"]].concat(),
        &shell,
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains("HTTP_PROXY=http://***@127.0.0.1"), "{said}");
    assert!(!said.contains("canary"), "{said}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("HTTP_PROXY={proxy}\n")), "{text}");
    assert!(text.contains("NO_PROXY=other.test\n"), "{text}");
    // the server starts elsewhere
    let server = ProxyBuilder::new()
        .env("PORT", "0")
        .arg("--env-file")
        .arg(file.to_str().unwrap())
        .start();
    assert_eq!(server.send(get("/v1/models")).status(), 200);

    // a person is asked
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = vec!["init"];
    arguments.extend(flags.iter().filter(|flag| **flag != "--yes"));
    arguments.extend([
        "--credential",
        "clients",
        "--host",
        "127.0.0.1",
        "--no-keys",
    ]);
    arguments.extend(["--replicas", "1", "--no-dashboard", "--compose", "c.yaml"]);
    let mut terminal = Terminal::start(directory.path(), &shell, &arguments);
    terminal.expect("http://***@127.0.0.1");
    terminal.answer("Write that into the file?", "y");
    terminal.answer("Write env/.env?", "n");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(130), "{screen}");
    assert!(!screen.contains("canary"), "{screen}");
}

#[test]
fn behind_a_proxy_clients_get_an_exception_for_this_machine() {
    let flags = ["--yes", "--no-test", "--shell-settings", "leave"];
    let of = |variables: &[(&str, &str)]| {
        let directory = tempfile::tempdir().unwrap();
        in_directory(directory.path(), &flags, variables).stdout
    };
    let proxy = ("HTTPS_PROXY", "http://127.0.0.1:1");
    let shown = of(&[proxy, ("NO_PROXY", "corp.test")]);
    let list = "corp.test,127.0.0.1,localhost";
    for line in [
        format!("export NO_PROXY='{list}'"),
        format!("\"NO_PROXY\": \"{list}\""),
    ] {
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    let shown = of(&[("NO_PROXY", "corp.test")]);
    assert!(!shown.contains("NO_PROXY"), "{shown}");
}

#[test]
fn nothing_of_the_shell_is_said_to_be_written_where_a_test_fails() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = [("HTTP_PROXY", "http://127.0.0.1:1")];
    let flags = ["--yes", "--upstream", "http://api.test"];
    let ended = in_directory(directory.path(), &flags, &proxy);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("nothing was written"), "{ended:?}");
    assert!(!ended.stderr.contains("into the file"), "{ended:?}");
}

/// Plays an upstream with TLS that has models.
fn play_tls(identity: &Identity) -> String {
    let (identity, upstream) = (identity.clone(), Upstream::bind());
    let url = format!("https://localhost:{}", upstream.addr().port());
    thread::spawn(move || {
        while let Some(stream) = upstream.next_stream() {
            let mut wire = identity.accept(stream);
            thread::spawn(move || {
                while wire.try_read_request().is_some() {
                    if wire.try_send(MODELS).is_err() {
                        break;
                    }
                }
            });
        }
    });
    url
}

#[test]
fn an_authority_that_is_not_trusted_is_named_and_its_file_asked_for() {
    let identity = Identity::of(&["localhost"]);
    let url = play_tls(&identity);
    let (ended, directory) = by_flags(&["--yes", "--upstream", &url]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("Authority of localhost"), "{ended:?}");
    assert!(is_empty(directory.path()));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, identity.authority()).unwrap();
    let arguments = [
        "init",
        "--credential",
        "clients",
        "--host",
        "127.0.0.1",
        "--port",
        &free_port().to_string(),
        "--no-keys",
        "--replicas",
        "1",
        "--no-dashboard",
        "--compose",
        "c.yaml",
        "--dry-run",
    ];
    let mut terminal = Terminal::start(directory.path(), &[], &arguments);
    terminal.answer("URL of the upstream", &url);
    terminal.expect("Authority of localhost");
    terminal.answer("authority's certificate", file.to_str().unwrap());
    terminal.expect("answered in");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    let line = format!("UPSTREAM_CA_FILE={}", file.display());
    assert!(screen.replace('\n', "").contains(&line), "{screen}");
}

#[test]
fn a_page_is_not_taken_for_the_api() {
    let port = free_port().to_string();
    let of = |head: &str, content: &str| {
        let length = content.len();
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{content}")
    };
    const HTML: &str = "\r\nContent-Type: text/html";
    let page = "<html><title>Sign in</title>";
    for (answer, part) in [
        (
            of(&format!("200 OK{HTML}"), page),
            "an HTML page titled \"Sign in\" (status 200)",
        ),
        (of(&format!("403 No{HTML}"), page), "(status 403)"),
        (
            of("302 Found\r\nLocation: https://sso.test/?t=canary", ""),
            "a redirect to https://sso.test (status 302)",
        ),
        (of("404 None", ""), "no content (status 404)"),
        (
            of("200 OK", "{\"ok\":true}"),
            "JSON that is none of the API (status 200)",
        ),
    ] {
        let stranger = Upstream::always(answer);
        let flags = ["--yes", "--upstream", &stranger.url(), "--port", &port];
        let (ended, directory) = by_flags(&flags);
        assert_eq!(ended.code, Some(1), "{part} {ended:?}");
        assert!(ended.stderr.contains(part), "{part} {ended:?}");
        assert!(ended.stderr.contains("is not the API"), "{ended:?}");
        assert!(!ended.stderr.contains("canary"), "{ended:?}");
        assert!(is_empty(directory.path()), "{part}");
    }
    // a gateway without a list of models answers a message as the API does
    let error = r#"{"type":"error","error":{"type":"invalid_request_error","message":"m"}}"#;
    let (refused, none) = (of("400 Bad", error), of("404 None", "404 page not found"));
    let gateway = Upstream::answering(move |head, _| {
        let is_message = head.line.starts_with("POST /v1/messages ");
        if is_message {
            refused.clone()
        } else {
            none.clone()
        }
        .into_bytes()
    });
    let (ended, _directory) = by_flags(&["--yes", "--upstream", &gateway.url(), "--port", &port]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("lists no models"), "{ended:?}");
}

#[test]
fn paths_and_commands_work_from_any_folder() {
    let (ended, directory) = by_flags(&["--yes", "--no-test"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let text = fs::read_to_string(directory.path().join("env/.env")).unwrap();
    let root = fs::canonicalize(directory.path()).unwrap();
    let data = root.join("data").display().to_string();
    assert!(text.contains(&format!("\nDATA_DIR={data}\n")), "{text}");
    // the program is not on the PATH
    let program = env!("CARGO_BIN_EXE_anthropic-proxy");
    assert!(
        ended.stdout.contains(&format!("\n  {program}\n")),
        "{ended:?}"
    );
    let status = format!("\"command\": \"{program} statusline --data-dir {data}\"");
    assert!(ended.stdout.contains(&status), "{ended:?}");
    let folder = Path::new(program).parent().unwrap();
    let path = [("PATH", folder.to_str().unwrap())];
    let again = in_directory(directory.path(), &["--yes", "--no-test"], &path);
    assert!(again.stdout.contains("\n  anthropic-proxy\n"), "{again:?}");
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_is_tried_with_its_password() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let port = free_port().to_string();
    let upstream = Upstream::always(WRONG_KEY);
    let url = upstream.url();
    let init = |redis: &str| {
        by_flags(&[
            "--yes",
            "--upstream",
            &url,
            "--port",
            &port,
            "--replicas",
            "2",
            "--keys",
            "--state-url",
            redis,
        ])
    };
    let with = |password: &str| redis.url().replace("//", &format!("//:{password}@"));
    for (state, part) in [
        (with("canary-wrong"), "password"),
        (redis.url(), "password"),
    ] {
        let (ended, directory) = init(&state);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.to_lowercase().contains(part), "{ended:?}");
        assert!(!ended.stderr.contains("canary"), "{ended:?}");
        assert!(is_empty(directory.path()));
    }
    let (ended, directory) = init(&with("right"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("The shared store answers."),
        "{ended:?}"
    );
    let text = fs::read_to_string(directory.path().join("env/.env")).unwrap();
    let pepper = text.lines().any(|line| line.starts_with("ACCESS_PEPPER="));
    assert!(pepper && text.contains("REPLICAS=2\n"), "{text}");
    // the first key is in the Redis: a replica elsewhere knows it
    let key = ended
        .stdout
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("ap_"));
    let file = directory.path().join("env/.env");
    let server = ProxyBuilder::new()
        .env("PORT", "0")
        .env("DATA_DIR", "other")
        .arg("--env-file")
        .arg(file.to_str().unwrap())
        .start();
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nHost: h\r\nx-api-key: {}\r\n\r\n",
        key.unwrap()
    );
    assert_eq!(server.send(get("/v1/models")).status(), 401);
    let answer = server.send(request);
    assert_eq!(answer.head.one("x-proxy-error"), None, "the key is refused");
}
