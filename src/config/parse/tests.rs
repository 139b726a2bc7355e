//! Whole configurations: defaults, faults, secrets.

use std::{fs, time::Duration};

use super::super::{ConfigSource, EditTarget, HttpVersion, LogFormat, Scheme, source::Flags};
use super::*;

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(env_file: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("env")).unwrap();
        fs::write(dir.path().join("env/.env"), env_file).unwrap();
        Self { dir }
    }

    fn headers(self, text: &str) -> Self {
        fs::write(self.dir.path().join("env/.env.headers.json"), text).unwrap();
        self
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        ConfigSource::new(Flags::default(), environment.iter().copied().collect())
            .rooted(self.dir.path())
            .load()
    }
}

fn load(environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    Case::new("").load(environment)
}

#[test]
fn unset_variables_have_the_documented_defaults() {
    let Loaded {
        config: Config { boot, live },
        warnings,
        ..
    } = load(&[]).unwrap();
    // the default upstream is a third party's
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("API_BASE_URL (default): ")
            && warnings[0].contains("https://anyrouter.top"),
        "{warnings:?}"
    );
    for name in ["API_BASE_URL", "API_BASE_URLS"] {
        // also where it is the same one
        assert_eq!(
            load(&[(name, "https://anyrouter.top")]).unwrap().warnings,
            []
        );
    }
    assert_eq!(boot.listen.plain, ["127.0.0.1:8088".parse().unwrap()]);
    assert!(boot.listen.tls.is_empty() && boot.listen.unix.is_none());
    assert_eq!(boot.workers, std::thread::available_parallelism().unwrap());
    assert_eq!(boot.max_connections, 25_000);
    assert_eq!(boot.log_format, LogFormat::Text);
    assert_eq!(boot.log_filter, None);
    assert_eq!(boot.drain_delay, Duration::ZERO);
    assert_eq!(boot.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(boot.edit_memory, 512 << 20);
    let [endpoint] = &live.endpoints[..] else {
        panic!("{:?}", live.endpoints)
    };
    assert_eq!(endpoint.upstream.scheme, Scheme::Https);
    assert_eq!(endpoint.upstream.authority, "anyrouter.top");
    assert_eq!(endpoint.route, OutboundRoute::Direct);
    assert_eq!(endpoint.http, HttpVersion::Http11);
    assert_eq!(endpoint.credential, None);
    assert!(live.tls.is_none() && !live.h2c);
    assert!(live.edit.is_none());
    assert!(live.custom_fields.is_empty());
    assert!(!live.preserve_host && !live.debug);
    assert_eq!(live.max_in_flight, 10_000);
    let seconds = |n| Duration::from_secs(n);
    assert_eq!(
        live.timers,
        Timers {
            request_head: seconds(10),
            request_body: seconds(30),
            write: seconds(60),
            keep_alive: seconds(75),
            upstream_keep_alive: seconds(60),
            upstream_max_age: seconds(600),
            connect: seconds(5),
            response_head: seconds(60),
            generation: seconds(600),
            stream_idle: seconds(360),
            tunnel_idle: seconds(3600),
        }
    );
}

#[test]
fn the_edit_is_what_was_said() {
    assert!(
        load(&[("SYSTEM_PROMPT_REPLACEMENT", "")])
            .unwrap()
            .config
            .live
            .edit
            .is_none()
    );
    let edit = load(&[("SYSTEM_PROMPT_REPLACEMENT", "a \"b\"\n\u{7}é")]).unwrap();
    let edit = edit.config.live.edit.unwrap();
    assert_eq!(edit.replacement, r#""a \"b\"\n\u0007é""#.as_bytes());
    assert_eq!(edit.mode, EditMode::Replace);
    assert_eq!(edit.target, EditTarget::Prompt);
    assert_eq!(edit.max_body, 32 << 20);
    let edit = load(&[
        ("SYSTEM_PROMPT_REPLACEMENT", "x"),
        ("SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST", "Yes"),
        ("SYSTEM_PROMPT_TARGET", "first"),
        ("MAX_EDIT_BODY", "1MiB"),
    ]);
    let edit = edit.unwrap().config.live.edit.unwrap();
    assert_eq!(edit.mode, EditMode::InsertIfAbsent);
    assert_eq!(edit.target, EditTarget::First);
    assert_eq!(edit.max_body, 1 << 20);
}

#[test]
fn a_prompt_of_white_space_alone_is_a_fault() {
    let faults = load(&[("SYSTEM_PROMPT_REPLACEMENT", " \n ")]).unwrap_err();
    let said = faults.to_string();
    assert!(
        said.contains("SYSTEM_PROMPT_REPLACEMENT (environment): (3 octets) is white space alone"),
        "{said}"
    );
    assert!(
        Case::new("SYSTEM_PROMPT_REPLACEMENT=\"\\n\"\n")
            .load(&[])
            .is_err()
    );
}

#[test]
fn metrics_that_the_network_reads_are_warned_of() {
    let warnings = |environment: &[(&str, &str)]| {
        let loaded = load(
            &[
                &[("METRICS_PUBLIC", "true"), ("API_BASE_URL", "http://a")],
                environment,
            ]
            .concat(),
        )
        .unwrap();
        loaded.warnings.len()
    };
    assert_eq!(warnings(&[("HOST", "0.0.0.0")]), 1);
    assert_eq!(warnings(&[("HOST", "::1")]), 0);
    let alone = ("ADMIN_LISTEN", "127.0.0.1:8089");
    assert_eq!(warnings(&[("HOST", "0.0.0.0"), alone]), 0);
}

#[test]
fn hosts_are_addresses_or_names() {
    for (host, expected) in [
        ("0.0.0.0", "0.0.0.0:0"),
        ("::", "[::]:0"),
        ("[::1]", "[::1]:0"),
        ("localhost", "127.0.0.1:0"),
        ("LocalHost", "127.0.0.1:0"),
    ] {
        let loaded = load(&[("HOST", host), ("PORT", "0")]).unwrap();
        assert_eq!(
            loaded.config.boot.listen.plain,
            [expected.parse().unwrap()],
            "{host}"
        );
    }
    for host in ["127.0.0.1:80", "http://localhost", "a b", "1.2.3.4.5:"] {
        assert_eq!(
            load(&[("HOST", host)]).unwrap_err().faults.len(),
            1,
            "{host}"
        );
    }
}

#[test]
fn all_faults_are_reported_together() {
    let case = Case::new(
        "PROT=1\nPORT=80a\nno equals sign\nKEEP_ALIVE=0\nAPI_BASE_URL=https://user:canary@h\n\
         DEBUG_MODE=ture\nHEADERS_FILE=missing.json\n",
    );
    let faults = case.load(&[
        ("WORKERS", "0"),
        ("MAX_EDIT_BODY", "1GiB"),
        ("LOG_FORMAT", "sk-ant-canary"),
        ("UPSTREAM_CA_FILE", "no.pem"),
        ("RUST_LOG", "a=loud"),
    ]);
    let text = faults
        .unwrap_err()
        .to_string()
        .replace(&*case.dir.path().to_string_lossy(), "");
    let expected = "\
the configuration has 11 faults
  /env/.env line 3: has no `=`; expected KEY=VALUE, or a comment that begins with #
  API_BASE_URL (/env/.env line 5): `https://***@h` contains a user or password; expected http:// or https://, a host, optionally a port and a path; no user, query or fragment; put credentials into the headers file (HEADERS_FILE) instead
  HEADERS_FILE (/env/.env line 7): `/missing.json` does not exist; expected a readable JSON file; create it with {}, or unset HEADERS_FILE
  PORT (/env/.env line 2): `80a` is not a port; expected a number from 0 to 65535 (0: the kernel chooses); for example PORT=8088
  WORKERS (environment): `0` is less than 1; expected a whole number from 1 to 1024, or auto; for example WORKERS=auto
  EDIT_MEMORY (default): `512MiB` is less than MAX_EDIT_BODY, so the largest body never fits; expected bytes, or a number with a unit such as 512KiB, 32MiB, 1GiB; raise EDIT_MEMORY or lower MAX_EDIT_BODY
  KEEP_ALIVE (/env/.env line 4): `0` is zero: the timer would fire at once; expected seconds, or a number with a unit such as 500ms, 30s, 2m, 1h; to wait long, set `24h`
  LOG_FORMAT (environment): (13 octets) is not one of the words; expected text or json; for example LOG_FORMAT=text
  DEBUG_MODE (/env/.env line 6): `ture` is not one of the words; expected true, 1, yes, on or false, 0, no, off; did you mean `true`?
  RUST_LOG (environment): `a=loud` has a level that is none of off, error, warn, info, debug, trace; expected a level, or target=level pairs separated by commas; for example RUST_LOG=anthropic_proxy=debug
  UPSTREAM_CA_FILE (environment): `no.pem` does not exist; expected the path of a PEM file with at least one certificate; for example UPSTREAM_CA_FILE=/etc/ssl/private-ca.pem
  PROT (/env/.env line 1): is unknown and has no effect; did you mean PORT? (a warning)";
    assert_eq!(text, expected);
}

#[test]
fn a_fault_makes_no_other_one() {
    for (environment, faulty) in [
        // beside an invalid value, another is not compared with the default that stands in for it
        (
            &[("EDIT_MEMORY", "x"), ("MAX_EDIT_BODY", "1GiB")][..],
            "EDIT_MEMORY",
        ),
        (
            &[("MAX_EDIT_BODY", "x"), ("EDIT_MEMORY", "1MiB")],
            "MAX_EDIT_BODY",
        ),
        (
            &[("API_BASE_URLS", "x"), ("UPSTREAM_API_KEYS", "a,b")],
            "API_BASE_URLS",
        ),
        (
            &[
                ("API_BASE_URL", "x"),
                ("API_BASE_URLS", "http://a"),
                ("UPSTREAM_API_KEYS", "a"),
            ],
            "API_BASE_URL",
        ),
        // several upstreams have one proxy
        (
            &[
                ("API_BASE_URLS", "http://a,http://b"),
                ("HTTP_PROXY", "ftp://p"),
            ],
            "HTTP_PROXY",
        ),
    ] {
        let faults = load(environment).unwrap_err().faults;
        let named: Vec<_> = faults
            .iter()
            .filter_map(|it| it.variable.as_deref())
            .collect();
        assert_eq!(named, [faulty], "{environment:?}");
    }
}

#[test]
fn no_secret_is_in_debug_or_in_what_is_shown() {
    let case = Case::new("SYSTEM_PROMPT_REPLACEMENT=canary-prompt\n")
        .headers(r#"{"x-api-key": "canary-field"}"#);
    let loaded = case
        .load(&[("HTTPS_PROXY", "http://user:canary-proxy@p:1")])
        .unwrap();
    assert!(!format!("{loaded:?}").contains("canary"), "{loaded:?}");
    let shown: Vec<_> = loaded
        .settings
        .iter()
        .filter_map(super::super::Setting::shown)
        .collect();
    assert!(shown.contains(&"(13 octets)".to_owned()));
    assert!(shown.contains(&"http://***@p:1".to_owned()));
    assert!(!shown.concat().contains("canary"));
    assert_eq!(loaded.config.live.custom_fields[0].1, "canary-field");
}

#[test]
fn a_headers_file_that_is_no_object_is_a_fault() {
    let faults = Case::new("").headers("[]").load(&[]).unwrap_err();
    assert!(
        faults.to_string().contains("is not a JSON object"),
        "{faults}"
    );
}

#[test]
fn a_base_url_that_ends_in_v1_is_remarked() {
    let loaded = load(&[("API_BASE_URL", "https://h/v1/")]).unwrap();
    assert!(
        loaded.warnings[0]
            .message
            .contains("https://h/v1/v1/messages")
    );
    let loaded = load(&[("API_BASE_URL", "http://h:9000/a/v1/messages")]).unwrap();
    let warning = &loaded.warnings[0];
    let ends = "requests will go to http://h:9000/a/v1/messages/v1/messages";
    assert!(
        warning.message.starts_with("ends in /v1/messages,"),
        "{warning}"
    );
    assert!(warning.message.ends_with(ends), "{warning}");
    assert_eq!(
        warning.fix.as_deref(),
        Some("leave out /v1/messages: http://h:9000/a")
    );
}

#[test]
fn listen_cares_for_host_and_port_only() {
    let case = Case::new("API_BASE_URL=nonsense\nPORT=9000\n");
    let source = ConfigSource::new(Flags::default(), Default::default()).rooted(case.dir.path());
    assert_eq!(
        source.listen().unwrap().plain,
        ["127.0.0.1:9000".parse().unwrap()]
    );
    assert!(source.load().is_err());
}

#[test]
fn several_upstreams_are_a_list_with_their_keys() {
    let hosts = |environment: &[(&str, &str)]| -> Vec<String> {
        let live = load(environment).unwrap().config.live;
        let hosts = live.endpoints.iter().map(|e| e.upstream.host.clone());
        hosts.collect()
    };
    // the default is no upstream that anybody asked for
    assert_eq!(hosts(&[("API_BASE_URLS", "http://a,http://b")]), ["a", "b"]);
    assert_eq!(
        hosts(&[
            ("API_BASE_URL", "http://c"),
            ("API_BASE_URLS", "http://a,http://b")
        ]),
        ["c", "a", "b"]
    );
    assert_eq!(
        hosts(&[
            ("API_BASE_URL", "http://a"),
            ("API_BASE_URLS", "http://a,http://b")
        ]),
        ["a", "b"]
    );
    let live = load(&[
        ("API_BASE_URLS", "http://a,https://b,http://a"),
        ("UPSTREAM_API_KEYS", "sk-canary,,Bearer canary"),
        ("HTTPS_PROXY", "http://p:1"),
        ("UPSTREAM_HTTP_VERSION", "auto"),
    ])
    .unwrap()
    .config
    .live;
    let [first, second, third] = &live.endpoints[..] else {
        panic!("{:?}", live.endpoints)
    };
    assert_eq!(first.credential.as_ref().unwrap().name, "x-api-key");
    assert_eq!(second.credential, None);
    assert_eq!(third.credential.as_ref().unwrap().value, "Bearer canary");
    assert!(matches!(second.route, OutboundRoute::HttpProxy(_)));
    assert_eq!(
        (&first.route, first.http),
        (&OutboundRoute::Direct, HttpVersion::Auto)
    );
    assert!(!format!("{live:?}").contains("canary"));
}

#[test]
fn faults_of_several_upstreams_name_entry_and_count() {
    for (environment, expected) in [
        (
            &[("API_BASE_URLS", "http://a,gopher://b")][..],
            "API_BASE_URLS (environment): `http://a,gopher://b` is wrong in entry 2, which has a scheme that is neither http nor https",
        ),
        (
            &[
                ("API_BASE_URLS", "http://a,http://b"),
                ("UPSTREAM_API_KEYS", "sk-canary"),
            ],
            "UPSTREAM_API_KEYS (environment): (9 octets) has 1 entry, not 2: one for each upstream",
        ),
        (
            &[("UPSTREAM_API_KEYS", "sk canary")],
            "UPSTREAM_API_KEYS (environment): (9 octets) is wrong in entry 1, which is neither a key",
        ),
        (
            &[("FAILOVER_STATUS", "200")],
            "FAILOVER_STATUS (environment): `200` is wrong in entry 1, which is not a status code from 400 to 599",
        ),
        (
            &[("TLS_PORT", "8443")],
            "TLS_PORT (environment): `8443` is set without a certificate",
        ),
        (
            &[("TLS_KEY_FILE", "key.pem")],
            "TLS_KEY_FILE (environment): `key.pem` is set without TLS_CERT_FILE",
        ),
    ] {
        let faults = load(environment).unwrap_err().to_string();
        assert!(faults.contains(expected), "{faults}");
        assert!(!faults.contains("canary"), "{faults}");
    }
}

#[test]
fn a_certificate_turns_tls_on() {
    let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (ours, other) = (pair("ours"), pair("other"));
    let case = Case::new("TLS_CERT_FILE=cert.pem\nTLS_KEY_FILE=key.pem\nPORT=9000\n");
    let write = |name: &str, text: &str| fs::write(case.dir.path().join(name), text).unwrap();
    write("cert.pem", &ours.cert.pem());
    write("key.pem", &ours.signing_key.serialize_pem());
    let Config { boot, live } = case.load(&[]).unwrap().config;
    let at = |port: &str| vec![format!("127.0.0.1:{port}").parse().unwrap()];
    assert_eq!((boot.listen.plain, boot.listen.tls), (vec![], at("9000")));
    let identity = live.tls.unwrap();
    assert_eq!(identity, case.load(&[]).unwrap().config.live.tls.unwrap());
    let boot = case.load(&[("TLS_PORT", "9001")]).unwrap().config.boot;
    assert_eq!(
        (boot.listen.plain, boot.listen.tls),
        (at("9000"), at("9001"))
    );
    write("key.pem", &other.signing_key.serialize_pem());
    let faults = case.load(&[]).unwrap_err().to_string();
    assert!(
        faults.contains("TLS_KEY_FILE") && faults.contains("is not the key of the certificate"),
        "{faults}"
    );
    write("cert.pem", &other.cert.pem());
    assert_ne!(identity, case.load(&[]).unwrap().config.live.tls.unwrap());
    write("key.pem", "no key");
    assert!(
        case.load(&[])
            .unwrap_err()
            .to_string()
            .contains("no private key in PEM")
    );
}

#[test]
fn what_is_observed_is_a_setting() {
    let Config { boot, live } = load(&[]).unwrap().config;
    assert_eq!(
        (boot.access_log, boot.admin_listen, boot.data_dir),
        (None, None, None)
    );
    assert!(!boot.dashboard && live.metering && !live.metrics_public);
    assert_eq!(*live.prices, Prices::built_in());
    let Config { boot, live } = load(&[
        ("ACCESS_LOG", "stdout"),
        ("ENABLE_DASHBOARD", "1"),
        ("DASHBOARD_API_KEY", "canary-canary-canary"),
    ])
    .unwrap()
    .config;
    assert_eq!(boot.access_log.unwrap().target, AccessLogTarget::Stdout);
    assert!(
        boot.dashboard
            && live
                .dashboard_key
                .as_ref()
                .unwrap()
                .is(b"canary-canary-canary")
    );
    assert!(!format!("{live:?}").contains("canary"));
    let Config { boot, .. } = load(&[("ENABLE_DASHBOARD", "1"), ("ADMIN_LISTEN", "127.0.0.1:0")])
        .unwrap()
        .config;
    assert!(
        !boot.dashboard && boot.admin_listen.is_some(),
        "there, then only there"
    );
    for (name, value) in [
        ("DASHBOARD_API_KEY", "short"),
        ("ADMIN_LISTEN", "localhost"),
        ("PRICES_FILE", "missing.json"),
        ("ACCESS_LOG_KEEP", "0"),
    ] {
        let faults = load(&[(name, value)]).unwrap_err();
        assert_eq!(faults.faults[0].variable.as_deref(), Some(name));
    }
    let case = Case::new("PRICES_FILE=p.json\n");
    fs::write(
        case.dir.path().join("p.json"),
        r#"{"date":"2026-01-02","models":{}}"#,
    )
    .unwrap();
    let prices = case.load(&[]).unwrap().config.live.prices;
    assert_eq!(
        (&*prices.date, prices.of("claude-opus-4-5")),
        ("2026-01-02", None)
    );
}

#[test]
fn a_ca_file_holds_a_certificate() {
    let case = Case::new("UPSTREAM_CA_FILE=ca.pem\n");
    let path = case.dir.path().join("ca.pem");
    fs::write(&path, "-----BEGIN PRIVATE KEY-----").unwrap();
    assert!(case.load(&[]).is_err());
    fs::write(
        &path,
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
    )
    .unwrap();
    assert_eq!(
        case.load(&[]).unwrap().config.boot.upstream_ca_file,
        Some(path)
    );
}
