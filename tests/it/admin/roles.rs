//! Roles of the dashboard: keys that carry them, and users whom a trusted proxy names.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::{
    API, KEY, ask, assert_problem, cookie, dashboard, json as content, request, send, tick,
};
use crate::support::{Body, DEADLINE, Proxy, ProxyBuilder, Response, Upstream, Wire, wire::show};

const OPERATOR: &str = "an-operator-of-the-tests";
const VIEWER: &str = "a-viewer-of-the-tests";

/// A proxy with a key for each role, and a place for keys and audit.
fn with_roles() -> ProxyBuilder {
    dashboard()
        .env("DATA_DIR", "data")
        .env("DASHBOARD_API_KEY", KEY)
        .env("DASHBOARD_OPERATOR_KEY", OPERATOR)
        .env("DASHBOARD_VIEWER_KEY", VIEWER)
}

/// Calls the API with fields that say who asks.
#[track_caller]
fn call(
    proxy: &Proxy,
    fields: &[(&str, &str)],
    (method, path, body): (&str, &str, &str),
) -> Response {
    let octets = request(method, &format!("{API}{path}"), fields, body);
    send(proxy.addr(), method, octets)
}

/// The lines of the audit, oldest first, once there are as many as these.
fn audit(proxy: &Proxy, query: &str, count: usize) -> Vec<Value> {
    let token = format!("Bearer {KEY}");
    let end = Instant::now() + DEADLINE;
    loop {
        let found = call(
            proxy,
            &[("Authorization", &token)],
            ("GET", &format!("/audit?{query}"), ""),
        );
        let found = content(&found);
        let items = found["items"].as_array().unwrap();
        if items.len() >= count {
            return items.clone();
        }
        assert!(Instant::now() < end, "{found}");
        thread::sleep(Duration::from_millis(10));
    }
}

const CREATE: (&str, &str, &str) = ("POST", "/keys", r#"{"name":"laptop"}"#);
const LIMIT: (&str, &str, &str) = (
    "PUT",
    "/limits/team:core",
    r#"{"limits":[{"kind":"spend","amount_usd":5,"period":"month"}]}"#,
);
const GRANT: (&str, &str, &str) = (
    "POST",
    "/limits/team:core/grant",
    r#"{"amount":"$5","until":"24h","reason":"release"}"#,
);
const REVOKE: (&str, &str, &str) = ("POST", "/keys/laptop/revoke", r#"{"reason":"left"}"#);
const END: (&str, &str, &str) = ("POST", "/requests/req_x/end", "{}");

#[test]
fn each_role_may_what_it_may_and_no_more() {
    let proxy = with_roles().start();
    let [admin, operator, viewer] = [KEY, OPERATOR, VIEWER].map(|key| format!("Bearer {key}"));
    let team = ("POST", "/keys", r#"{"name":"desk","team":"core"}"#);
    let setup = call(&proxy, &[("Authorization", &admin)], team);
    assert_eq!(setup.status(), 200, "{}", show(setup.content()));
    let rotate = ("POST", "/keys/laptop/rotate", "{}");
    let apply = ("POST", "/keys/apply", r#"{"text":"","dry_run":true}"#);
    let import = ("POST", "/keys/import", r#"{"text":"{}"}"#);
    let export = ("GET", "/keys/export", "");
    for (who, role, rank) in [
        (&viewer, "viewer", 0),
        (&operator, "operator", 1),
        (&admin, "admin", 2),
    ] {
        let fields = [("Authorization", &**who)];
        let session = content(&call(&proxy, &fields, ("GET", "/session", "")));
        let expected = json!({
            "authenticated": true, "role": role, "user": null, "method": "bearer", "zone": "UTC"
        });
        assert_eq!(session, expected);
        for path in [
            "/overview",
            "/requests",
            "/usage",
            "/sessions",
            "/config",
            "/keys",
            "/keys/desk",
            "/limits",
            "/limits/team:core",
            "/limits/verify",
            "/spend",
            "/audit",
            "/audit/verify",
        ] {
            let read = call(&proxy, &fields, ("GET", path, ""));
            assert_eq!(read.status(), 200, "{role} {path}");
        }
        // 404: it may, and there is no such thing
        for (least, change, allowed) in [
            (2, CREATE, 200),
            (2, rotate, 200),
            (2, LIMIT, 200),
            (2, apply, 200),
            (2, import, 400),
            (2, export, 200),
            (1, GRANT, if rank == 2 { 200 } else { 400 }),
            (1, REVOKE, if rank == 2 { 200 } else { 404 }),
            (1, END, 404),
        ] {
            let response = call(&proxy, &fields, change);
            if rank >= least {
                let octets = show(response.content());
                assert_eq!(response.status(), allowed, "{role} {change:?} {octets}");
                continue;
            }
            assert_problem(&response, 403, "role_forbidden");
            let needs = ["viewer", "operator", "admin"][least];
            let said = format!("role {role} is not enough; nothing was changed; {needs} is needed");
            assert_eq!(content(&response)["error"]["message"], said.as_str());
        }
    }
    // what is refused is refused before it is read, and written down
    let fields = [("Authorization", &*viewer)];
    let huge = "x".repeat(1 << 20);
    assert_problem(
        &call(&proxy, &fields, ("POST", "/keys", "[")),
        403,
        "role_forbidden",
    );
    assert_problem(
        &call(&proxy, &fields, ("POST", "/keys/apply", &huge)),
        403,
        "role_forbidden",
    );
    let lines = audit(&proxy, "actor=dashboard-viewer&limit=100", 12);
    let refused = |action: &str| {
        lines.iter().any(|line| {
            line["action"] == action
                && line["actor"]["type"] == "key"
                && line["result"]
                    == "refused: role viewer is not enough; nothing was changed; \
                        operator is needed"
        })
    };
    for action in ["key.revoke", "limits.grant", "request.end"] {
        assert!(refused(action), "{action} {lines:#?}");
    }
    let keys = content(&call(&proxy, &fields, ("GET", "/keys", "")));
    assert_eq!(keys["total"], 2, "{keys}");
    let verified = content(&call(&proxy, &fields, ("GET", "/audit/verify", "")));
    assert_eq!(verified["ok"], true, "{verified}");
}

#[test]
fn a_role_holds_in_a_session_and_without_a_place_for_keys() {
    let proxy = dashboard()
        .env("DASHBOARD_API_KEY", KEY)
        .env("DASHBOARD_OPERATOR_KEY", OPERATOR)
        .env("DASHBOARD_VIEWER_KEY", VIEWER)
        .start();
    for (key, role, status, code) in [
        (VIEWER, "viewer", 403, "role_forbidden"),
        (OPERATOR, "operator", 404, "not_found"),
        (KEY, "admin", 404, "not_found"),
    ] {
        let login = format!("{{\"key\":\"{key}\"}}");
        let session = cookie(&call(&proxy, &[], ("POST", "/session", &login)));
        let fields = [("Cookie", &*session)];
        let status_of = content(&call(&proxy, &fields, ("GET", "/session", "")));
        assert_eq!(status_of["role"], role);
        assert_eq!(status_of["method"], "session");
        assert_problem(&call(&proxy, &fields, END), status, code);
        let out = call(&proxy, &fields, ("DELETE", "/session", ""));
        assert_eq!(out.status(), 204);
        let out = call(&proxy, &fields, ("GET", "/config", ""));
        assert_problem(&out, 401, "unauthorized");
    }
    let none = content(&call(&proxy, &[], ("GET", "/session", "")));
    let expected = json!({
        "authenticated": false, "role": null, "user": null, "method": null, "zone": null
    });
    assert_eq!(none, expected);
}

#[test]
fn keys_of_roles_change_while_it_runs_and_are_never_shown() {
    let file = |viewer: &str| {
        format!(
            "DASHBOARD_API_KEY={KEY}\nDASHBOARD_OPERATOR_KEY={OPERATOR}\nDASHBOARD_VIEWER_KEY={viewer}\n"
        )
    };
    let proxy = dashboard().file("env/.env", file(VIEWER)).start();
    let config = |key: &str| {
        let token = format!("Bearer {key}");
        call(&proxy, &[("Authorization", &token)], ("GET", "/config", ""))
    };
    let login = |key: &str| {
        let login = format!("{{\"key\":\"{key}\"}}");
        cookie(&call(&proxy, &[], ("POST", "/session", &login)))
    };
    let (viewer, operator) = (login(VIEWER), login(OPERATOR));
    let mut events = proxy.connect();
    let target = format!("{API}/events");
    events.send(request("GET", &target, &[("Cookie", &viewer)], ""));
    assert_eq!(events.read_response_head().status(), 200);
    let shown = config(VIEWER);
    assert_eq!(shown.status(), 200);
    let text = String::from_utf8_lossy(shown.content()).into_owned();
    for key in [KEY, OPERATOR, VIEWER] {
        assert!(!text.contains(key), "{text}");
        assert!(!proxy.stderr().contains(key));
    }
    let settings = content(&shown)["settings"].clone();
    let setting = |name: &str| {
        let settings = settings.as_array().unwrap();
        settings.iter().find(|it| it["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(setting("DASHBOARD_VIEWER_KEY"), "(21 octets)");
    assert_eq!(setting("DASHBOARD_OPERATOR_KEY"), "(24 octets)");

    proxy.write("env/.env", file("another-viewer-of-the-tests"));
    let end = Instant::now() + DEADLINE;
    let with = |session: &str| call(&proxy, &[("Cookie", session)], ("GET", "/config", ""));
    while with(&viewer).status() != 401 {
        assert!(Instant::now() < end, "the session goes on");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(
        matches!(events.read_chunked(), Body::Chunked(_)),
        "the events end"
    );
    assert_eq!(with(&operator).status(), 200, "the other keys are the same");
    assert_problem(&config(VIEWER), 401, "unauthorized");
    assert_eq!(config("another-viewer-of-the-tests").status(), 200);
    // unset, it is nobody's, and an empty one is none
    proxy.write("env/.env", file(""));
    while config("another-viewer-of-the-tests").status() != 401 {
        assert!(Instant::now() < end, "the key is in effect");
        thread::sleep(Duration::from_millis(500));
    }
    assert_problem(&config(""), 401, "unauthorized");
}

#[test]
fn keys_of_two_roles_differ() {
    let ended = dashboard()
        .env("DASHBOARD_API_KEY", KEY)
        .env("DASHBOARD_VIEWER_KEY", KEY)
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("DASHBOARD_VIEWER_KEY")
            && ended
                .stderr
                .contains("is the same key as DASHBOARD_API_KEY"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains(KEY), "{ended:?}");
}

#[test]
fn a_key_of_a_role_beside_a_path_that_misses_is_not_forwarded() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .env("DASHBOARD_OPERATOR_KEY", OPERATOR)
        .env("DASHBOARD_VIEWER_KEY", VIEWER)
        .start();
    for key in [KEY, OPERATOR, VIEWER] {
        let token = format!("Bearer {key}");
        let fields = [("Authorization", &*token)];
        assert_problem(&ask(&proxy, "GET", "/Admin/x", &fields), 404, "not_found");
    }
    let other = [("Authorization", "Bearer nothing-of-ours")];
    assert_eq!(ask(&proxy, "GET", "/Admin/x", &other).content(), b"ok");
}

/// A request from another address of this machine.
fn send_from(from: &str, to: SocketAddr, octets: String) -> Response {
    let from: IpAddr = from.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut client = Wire::tcp(socket.into());
    client.send(octets);
    client.read_response("GET")
}

fn keys_as(user: &str) -> String {
    request(
        "GET",
        &format!("{API}/session"),
        &[("Remote-User", user)],
        "",
    )
}

#[test]
fn a_proxy_s_word_counts_from_its_address_alone() {
    let v4 = with_roles()
        .env("ADMIN_TRUSTED_PROXIES", "127.0.0.2, fd00::/8")
        .start();
    for (from, is_trusted) in [
        ("127.0.0.2", true),
        ("127.0.0.1", false),
        ("127.0.0.3", false),
    ] {
        let session = content(&send_from(from, v4.addr(), keys_as("ada")));
        assert_eq!(session["authenticated"], is_trusted, "{from}");
        let expected = if is_trusted {
            json!("ada")
        } else {
            Value::Null
        };
        assert_eq!(session["user"], expected, "{from}");
        let read = request("GET", &format!("{API}/keys"), &[("Remote-User", "ada")], "");
        let read = send_from(from, v4.addr(), read);
        assert_eq!(read.status(), if is_trusted { 200 } else { 401 }, "{from}");
    }
    // the word of another client takes nothing from its key, and adds nothing
    let fields = [
        ("Authorization", "Bearer a-viewer-of-the-tests"),
        ("Remote-User", "ada"),
    ];
    let session = request("GET", &format!("{API}/session"), &fields, "");
    let session = content(&send_from("127.0.0.1", v4.addr(), session));
    assert_eq!(
        (&session["role"], &session["user"]),
        (&json!("viewer"), &Value::Null)
    );
    drop(v4);

    if TcpListener::bind("[::1]:0").is_err() {
        return; // no IPv6 on this machine
    }
    for (trusted, over_v6, over_v4) in [
        ("::1", true, false),
        ("127.0.0.0/8", false, true),
        ("fd00::/8,::2", false, false),
    ] {
        let proxy = with_roles()
            .env("HOST", "::")
            .env("ADMIN_TRUSTED_PROXIES", trusted)
            .start();
        let port = proxy.addr().port();
        for (host, is_trusted) in [("::1", over_v6), ("127.0.0.1", over_v4)] {
            let addr = SocketAddr::new(host.parse().unwrap(), port);
            let session = content(&send(addr, "GET", keys_as("ada")));
            assert_eq!(session["authenticated"], is_trusted, "{trusted} {host}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_proxy_on_the_unix_socket_is_trusted_by_name() {
    for (trusted, is_trusted) in [("unix", true), ("127.0.0.1,::1", false)] {
        let builder = with_roles().env("ADMIN_TRUSTED_PROXIES", trusted);
        let path = builder.path("proxy.sock");
        let proxy = builder.env("UNIX_SOCKET", path.display()).start();
        let mut client = Wire::new(std::os::unix::net::UnixStream::connect(&path).unwrap());
        client.send(keys_as("ada"));
        let session = content(&client.read_response("GET"));
        assert_eq!(session["authenticated"], is_trusted, "{trusted}");
        drop(proxy);
    }
}

#[test]
fn a_user_has_the_highest_role_of_its_groups() {
    let proxy = with_roles()
        .env("ADMIN_TRUSTED_PROXIES", "127.0.0.1")
        .env("ADMIN_USER_HEADER", "X-Forwarded-User")
        .env("ADMIN_GROUPS_HEADER", "X-Forwarded-Groups")
        .env(
            "ADMIN_ROLES",
            "group:platform=admin,group:on call=operator,user:bob=viewer",
        )
        .start();
    let role = |fields: &[(&str, &str)]| {
        let session = content(&call(&proxy, fields, ("GET", "/session", "")));
        session["role"].as_str().map(str::to_owned)
    };
    let with = |user: &str, groups: &str| {
        role(&[("X-Forwarded-User", user), ("X-Forwarded-Groups", groups)])
    };
    for (user, groups, expected) in [
        ("ada", "platform", Some("admin")),
        ("ada", "x|platform|y", Some("admin")),
        ("ada", "x, on call", Some("operator")),
        ("bob", "", Some("viewer")),
        ("bob", "on call,platform", Some("admin")),
        ("ada", "x", None),
        ("ada", "Platform", None),
        ("Bob", "", None),
        ("", "platform", None),
        ("   ", "platform", None),
    ] {
        assert_eq!(with(user, groups).as_deref(), expected, "{user} {groups}");
    }
    assert_eq!(role(&[("X-Forwarded-Groups", "platform")]), None);
    assert_eq!(role(&[("Remote-User", "bob")]), None, "another field");
    // who is known and has no role is told so
    let fields = [("X-Forwarded-User", "eve")];
    let session = content(&call(&proxy, &fields, ("GET", "/session", "")));
    let expected = json!({
        "authenticated": false, "role": null, "user": "eve", "method": null, "zone": null
    });
    assert_eq!(session, expected);
    let refused = call(&proxy, &fields, ("GET", "/keys", ""));
    assert_problem(&refused, 403, "no_role");
    let said = content(&refused)["error"]["message"].to_string();
    assert!(
        said.contains("eve") && said.contains("ADMIN_ROLES"),
        "{said}"
    );
    // a key that is shown deliberately signs in beside it
    let login = format!("{{\"key\":\"{OPERATOR}\"}}");
    let session = cookie(&call(&proxy, &fields, ("POST", "/session", &login)));
    let fields = [("X-Forwarded-User", "eve"), ("Cookie", &*session)];
    let session = content(&call(&proxy, &fields, ("GET", "/session", "")));
    let expected = json!({
        "authenticated": true, "role": "operator", "user": "eve", "method": "session", "zone": "UTC"
    });
    assert_eq!(session, expected);
}

#[test]
fn a_user_that_is_not_named_clearly_is_none() {
    let proxy = with_roles()
        .env("ADMIN_TRUSTED_PROXIES", "127.0.0.1")
        .env("ADMIN_ROLES", "*=admin")
        .start();
    let long = "x".repeat(201);
    let groups = "x,".repeat(5000);
    for (fields, says) in [
        (
            vec![("Remote-User", "eve"), ("Remote-User", "ada")],
            "more than once",
        ),
        (
            vec![("Remote-User", "ada"), ("remote-user", "")],
            "more than once",
        ),
        (
            vec![
                ("Remote-User", "ada"),
                ("Remote-Groups", "x"),
                ("Remote-Groups", "y"),
            ],
            "more than once",
        ),
        (vec![("Remote-User", "a\tda")], "not text"),
        (vec![("Remote-User", &*long)], "more than 200 characters"),
        (
            vec![("Remote-User", "ada"), ("Remote-Groups", &*groups)],
            "more than 200 characters",
        ),
    ] {
        let response = call(&proxy, &fields, ("GET", "/keys", ""));
        assert_problem(&response, 403, "forbidden");
        let said = content(&response)["error"]["message"].to_string();
        assert!(said.contains(says), "{said}");
        let session = content(&call(&proxy, &fields, ("GET", "/session", "")));
        assert_eq!(session["authenticated"], false);
    }
    let mut octets =
        request("GET", &format!("{API}/keys"), &[("Remote-User", "?")], "").into_bytes();
    let at = octets.iter().position(|it| *it == b'?').unwrap();
    octets[at] = 0xff;
    assert_problem(&send(proxy.addr(), "GET", octets), 403, "forbidden");
    // no user, and no name in it: the key is asked for
    for fields in [&[][..], &[("Remote-User", "")]] {
        let response = call(&proxy, fields, ("GET", "/keys", ""));
        assert_problem(&response, 401, "unauthorized");
    }
    let named = call(&proxy, &[("Remote-User", "Zoë")], ("GET", "/session", ""));
    assert_eq!(content(&named)["user"], "Zoë");
}

#[test]
fn the_user_is_the_author_of_its_changes() {
    let proxy = with_roles()
        .env("ADMIN_TRUSTED_PROXIES", "127.0.0.1")
        .env("ADMIN_ROLES", "group:platform=admin,*=viewer")
        .start();
    let ada = [
        ("Remote-User", "ada"),
        ("Remote-Groups", "platform"),
        ("X-Forwarded-For", "6.6.6.6, 192.0.2.7"),
    ];
    let created = call(&proxy, &ada, CREATE);
    assert_eq!(created.status(), 200, "{}", show(created.content()));
    let again = call(&proxy, &ada, ("GET", "/keys", ""));
    assert_eq!(again.status(), 200);
    let refused = call(&proxy, &[("Remote-User", "bob")], REVOKE);
    assert_problem(&refused, 403, "role_forbidden");
    let lines = audit(&proxy, "actor=ada&limit=100", 3);
    let done = lines.iter().find(|line| line["action"] == "key.create");
    let actor = &done.unwrap()["actor"];
    assert_eq!(
        (&actor["type"], &actor["id"], &actor["ip"]),
        (&json!("user"), &json!("ada"), &json!("192.0.2.7"))
    );
    let is_sign_in = |line: &&Value| line["action"] == "session.open";
    assert_eq!(lines.iter().filter(is_sign_in).count(), 1, "{lines:#?}");
    let lines = audit(&proxy, "actor=bob&action=key.revoke", 1);
    assert_eq!(lines[0]["target"]["id"], "laptop");
    assert_eq!(lines[0]["actor"]["ip"], "127.0.0.1");
    let result = lines[0]["result"].as_str().unwrap();
    assert!(result.starts_with("refused: role viewer"), "{result}");
}

#[test]
fn a_foreign_page_does_not_act_for_the_user() {
    let proxy = with_roles()
        .env("ADMIN_TRUSTED_PROXIES", "127.0.0.1")
        .env("ADMIN_ROLES", "*=admin")
        .start();
    for field in [
        ("Origin", "https://evil.test"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "null"),
    ] {
        let fields = [("Remote-User", "ada"), field];
        assert_problem(&call(&proxy, &fields, CREATE), 403, "forbidden");
        assert_problem(&call(&proxy, &fields, END), 403, "forbidden");
    }
    // no form can send another type
    let form = format!(
        "POST {API}/keys HTTP/1.1\r\nHost: localhost\r\nRemote-User: ada\r\n\
         Content-Type: text/plain\r\nContent-Length: 15\r\n\r\n{{\"name\":\"form\"}}"
    );
    assert_problem(&send(proxy.addr(), "POST", form), 400, "bad_request");
    let own = [
        ("Remote-User", "ada"),
        ("Host", "proxy.test"),
        ("Origin", "https://proxy.test"),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    assert_eq!(call(&proxy, &own, CREATE).status(), 200);
    let keys = content(&call(&proxy, &own, ("GET", "/keys", "")));
    assert_eq!(keys["total"], 1, "{keys}");
}

#[test]
fn trust_ends_with_its_setting_also_for_events() {
    let file =
        |proxies: &str| format!("DASHBOARD_API_KEY={KEY}\nADMIN_TRUSTED_PROXIES={proxies}\n");
    let proxy = dashboard().file("env/.env", file("127.0.0.1")).start();
    let ada = [("Remote-User", "ada")];
    let mut events = proxy.connect();
    events.send(request("GET", &format!("{API}/events"), &ada, ""));
    assert_eq!(events.read_response_head().status(), 200);
    assert_eq!(events.read_chunk(), b"retry: 2000\n\n");
    assert!(tick(|| events.read_chunk())["now"].is_u64());
    proxy.write("env/.env", file("10.0.0.1"));
    let end = Instant::now() + DEADLINE;
    while call(&proxy, &ada, ("GET", "/config", "")).status() != 401 {
        assert!(Instant::now() < end, "the trust goes on");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(events.read_chunked(), Body::Chunked(_)));
}

#[test]
fn the_user_s_field_passes_to_the_upstream_as_it_is() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .env("ADMIN_TRUSTED_PROXIES", "127.0.0.1")
        .start();
    // the setting is about the dashboard; what is forwarded is forwarded unchanged
    let fields = [("Remote-User", "ada")];
    assert_eq!(ask(&proxy, "GET", "/v1/models", &fields).content(), b"ok");
    let (head, _) = upstream.request();
    assert_eq!(head.one("remote-user"), Some("ada"));
    // and what is the dashboard's never is
    assert_eq!(ask(&proxy, "GET", "/admin/api/v1/x", &fields).status(), 404);
    assert_eq!(
        ask(&proxy, "GET", "/admin/api/v1/config", &fields).status(),
        200
    );
}

#[test]
fn verbs_on_a_server_have_the_role_of_their_key() {
    let proxy = with_roles().start();
    let url = format!("http://{}", proxy.addr());
    let verb = |key: &str, arguments: &[&str]| {
        let builder = ProxyBuilder::new().env("ANTHROPIC_PROXY_ADMIN_KEY", key);
        let all = [arguments, &["--server", &url]].concat();
        all.iter()
            .fold(builder, |it, argument| it.arg(argument))
            .run()
    };
    let ended = verb(OPERATOR, &["keys", "create", "--name", "laptop"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("admin is needed"), "{ended:?}");
    assert_eq!(verb(VIEWER, &["keys", "list"]).code, Some(0));
}

#[test]
fn trust_in_everybody_is_refused_and_roles_without_a_proxy_are_remarked() {
    for (name, value, says) in [
        (
            "ADMIN_TRUSTED_PROXIES",
            "0.0.0.0/0",
            "every client could name itself",
        ),
        (
            "ADMIN_TRUSTED_PROXIES",
            "proxy.test",
            "names are not resolved",
        ),
        ("ADMIN_ROLES", "platform=admin", "group:platform=admin"),
        (
            "ADMIN_ROLES",
            "group:platform=root",
            "viewer, operator or admin",
        ),
        ("ADMIN_USER_HEADER", "Cookie", "holds a credential"),
        ("ADMIN_GROUPS_HEADER", "Remote-User", "ADMIN_USER_HEADER"),
    ] {
        let ended = dashboard().env(name, value).arg("check").run();
        assert_eq!(ended.code, Some(2), "{name}={value} {ended:?}");
        let said = ended.stderr + &ended.stdout;
        assert!(said.contains(name) && said.contains(says), "{said}");
    }
    let ended = dashboard().env("ADMIN_ROLES", "*=admin").arg("check").run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = ended.stderr + &ended.stdout;
    assert!(
        said.contains("no effect without ADMIN_TRUSTED_PROXIES"),
        "{said}"
    );
}
