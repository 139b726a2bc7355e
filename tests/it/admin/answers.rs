//! Answers of the dashboard, its API and its event stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;

use super::{
    API, KEY, RIGHT, ask, assert_problem, assert_secure, dashboard, json, request, send, tick,
    with_key,
};
use crate::support::{
    Body, DEADLINE, End, Proxy, ProxyBuilder, Response, Upstream, Wire, assert_prompt,
    h2::{self, Client},
    tls::Pair,
    wire::show,
};

#[test]
fn methods_and_paths_that_are_none_are_refused() {
    let proxy = with_key().start();
    for (method, path, allowed) in [
        ("POST", "/admin", "GET, HEAD"),
        ("DELETE", "/admin/api/v1/config", "GET, HEAD, PATCH"),
        ("PUT", "/admin/api/v1/session", "GET, HEAD, POST, DELETE"),
        ("OPTIONS", "/admin/api/v1/overview", "GET, HEAD"),
    ] {
        let response = ask(&proxy, method, path, &RIGHT);
        assert_problem(&response, 405, "method_not_allowed");
        assert_eq!(response.head.one("allow"), Some(allowed));
    }
    for path in [
        "/admin/api/v2",
        "/admin/api/v1/",
        "/admin/x",
        "/admin/assets/",
        "/admin/assets/../prices.json",
        "/admin/prices.json",
        "/admin/assets/%2e%2e/prices.json",
        // no path that can be routed
        "/admin/<>",
        "/admin/api/v1/config\"",
    ] {
        assert_problem(&ask(&proxy, "GET", path, &RIGHT), 404, "not_found");
    }
}

#[test]
fn a_head_is_answered_without_content() {
    let proxy = with_key().start();
    let mut client = proxy.connect();
    for path in [
        "/admin",
        "/admin/api/v1/config",
        "/admin/api/v1/events",
        "/metrics",
    ] {
        client.send(request("HEAD", path, &RIGHT, ""));
        let response = client.read_response("HEAD");
        assert_eq!(response.status(), 200, "{path}");
    }
}

#[test]
fn files_come_compressed_and_only_when_they_changed() {
    let proxy = with_key().start();
    let whole = ask(&proxy, "GET", "/admin", &[]);
    assert_eq!(
        whole.head.one("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(whole.head.one("cache-control"), Some("no-cache"));
    let mut tags = vec![whole.head.one("etag").unwrap().to_owned()];
    for coding in ["br", "gzip"] {
        let accepts = ("Accept-Encoding", coding);
        let coded = ask(&proxy, "GET", "/admin/usage", &[accepts]);
        assert_eq!(coded.head.one("content-encoding"), Some(coding));
        assert_eq!(coded.head.one("vary"), Some("accept-encoding"));
        assert!(coded.content().len() < whole.content().len());
        let tag = coded.head.one("etag").unwrap();
        let again = ask(&proxy, "GET", "/admin", &[accepts, ("If-None-Match", tag)]);
        assert_eq!(again.status(), 304);
        assert_eq!(again.head.one("etag"), Some(tag));
        assert!(again.content().is_empty());
        assert_secure(&again);
        tags.push(tag.to_owned());
    }
    tags.dedup();
    assert_eq!(tags.len(), 3);
}

#[test]
fn a_browser_at_the_root_is_led_to_the_dashboard_and_nobody_else_is() {
    let upstream = Upstream::ok();
    let browser = [("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .start();
    let response = ask(&proxy, "GET", "/", &browser);
    assert_eq!(
        (response.status(), response.head.one("location")),
        (302, Some("/admin"))
    );
    for (method, target, fields) in [
        ("GET", "/", &[("Accept", "*/*")][..]),
        ("GET", "/", &[]),
        ("HEAD", "/", &browser),
        ("POST", "/", &browser),
        ("GET", "/x", &browser),
        ("GET", "/adminx", &browser),
        ("GET", "/%61dmin", &browser),
    ] {
        assert_eq!(ask(&proxy, method, target, fields).status(), 200);
        assert_eq!(upstream.request().0.target(), target);
    }
    let off = Proxy::to(upstream.url()).start();
    for (target, fields) in [("/", &browser[..]), ("/admin", &[]), ("/metrics", &[])] {
        assert_eq!(ask(&off, "GET", target, fields).status(), 200);
        assert_eq!(upstream.request().0.target(), target);
    }
    upstream.no_more();
}

/// Ways to ask for what is closed.
const DISGUISES: [&str; 14] = [
    "/admin/",
    "/admin//",
    "/admin/api/v1/config",
    "/admin/api/v1/config/",
    "/admin//api/v1/config",
    "/admin/api//v1/config",
    "/admin/api/v1/%63onfig",
    "/admin/api%2fv1/config",
    "/admin/./api/v1/config",
    "/admin/assets/../api/v1/config",
    "/admin/%2e%2e/v1/messages",
    "/admin/../v1/messages",
    "/admin?/api/v1/config",
    "/admin/api/v1/session/../config",
];

#[test]
fn no_disguise_opens_what_is_closed_or_goes_upstream() {
    let upstream = Upstream::ok();
    let at = |proxy: Proxy, addr: SocketAddr| (proxy, addr);
    let main = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let alone = Proxy::to(upstream.url())
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let (main_addr, alone_addr) = (main.addr(), alone.admin_addr());
    let proxies = [at(main, main_addr), at(alone, alone_addr)];
    for (_, addr) in &proxies {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "BREW"] {
            for target in DISGUISES {
                for target in [target.to_owned(), format!("http://localhost{target}")] {
                    let response = send(*addr, method, request(method, &target, &[], ""));
                    let what = format!("{method} {target}: {}", show(&response.head.octets));
                    let page = matches!(response.status(), 200 | 304)
                        && response.head.one("content-type") == Some("text/html; charset=utf-8");
                    let closed = matches!(response.status(), 401 | 404 | 405);
                    assert!(page || closed, "{what}");
                    assert_secure(&response);
                }
            }
        }
        let upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")];
        let target = format!("{API}/events");
        let response = send(*addr, "GET", request("GET", &target, &upgrade, ""));
        assert_problem(&response, 401, "unauthorized");
        let health = send(*addr, "GET", request("GET", "/health", &[], ""));
        assert_eq!(health.status(), 200);
    }
    upstream.no_more();
    // where there is no dashboard, all of it is the upstream's, as it came
    let off = Proxy::to(upstream.url()).start();
    for method in ["GET", "OPTIONS", "POST", "BREW"] {
        for target in DISGUISES {
            assert_eq!(ask(&off, method, target, &[]).status(), 200);
            let (head, _) = upstream.request();
            assert_eq!((head.method(), head.target()), (method, target));
        }
    }
}

#[test]
fn the_admin_listener_has_the_admin_plane_alone_and_is_its_only_place() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("ENABLE_DASHBOARD", true)
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("DASHBOARD_API_KEY", KEY)
        .start();
    let admin = proxy.admin_addr();
    let get = |target: &str, fields: &[(&str, &str)]| {
        send(admin, "GET", request("GET", target, fields, ""))
    };
    for path in ["/admin", "/health", "/livez", "/readyz"] {
        assert_eq!(get(path, &[]).status(), 200, "{path}");
    }
    // to anybody here; without metrics there is nothing to tell yet
    assert_eq!(get("/metrics", &[]).status(), 200);
    assert_problem(&get("/admin/api/v1/config", &[]), 401, "unauthorized");
    let config = get("/admin/api/v1/config", &RIGHT);
    assert_eq!(config.status(), 200);
    assert_eq!(get("/", &[("Accept", "text/html")]).status(), 302);
    for path in ["/", "/v1/models", "/v1/messages", "/adminx", "/a\"b"] {
        assert_problem(&get(path, &[]), 404, "not_found");
    }
    let posted = send(admin, "POST", request("POST", "/health", &[], ""));
    assert_problem(&posted, 405, "method_not_allowed");
    // what is the dashboard's elsewhere is not the upstream's here
    for path in ["/admin", "/admin/", "/admin/api/v1/config", "/admin/<>"] {
        for method in ["GET", "POST"] {
            assert_problem(&ask(&proxy, method, path, &[]), 404, "not_found");
        }
    }
    upstream.no_more();
    for path in ["/metrics", "/adminx", "/v1/admin"] {
        assert_eq!(ask(&proxy, "GET", path, &[]).status(), 200);
        assert_eq!(upstream.request().0.target(), path);
    }
}

#[test]
fn metrics_are_public_only_where_that_is_said() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("METRICS_PUBLIC", true)
        .start();
    let fields = [("Host", "proxy.test")];
    assert_eq!(ask(&proxy, "GET", "/metrics", &fields).status(), 200);
    upstream.no_more();
    assert_eq!(ask(&proxy, "POST", "/metrics", &fields).status(), 200);
    assert_eq!(upstream.request().0.target(), "/metrics");
    let keyed = with_key().start();
    assert_problem(
        &ask(&keyed, "GET", "/metrics", &fields),
        401,
        "unauthorized",
    );
}

#[test]
fn settings_are_shown_with_their_origins_and_secrets_are_not() {
    let proxy = dashboard()
        .env("DASHBOARD_API_KEY", KEY)
        .env("UPSTREAM_API_KEYS", "canary-of-the-tests")
        .file("env/.env", "# a line\nWORKERS=1\nDATA_DIR=data\n")
        .start();
    let config = || json(&ask(&proxy, "GET", &format!("{API}/config"), &RIGHT));
    let setting = |config: &Value, name: &str| -> Value {
        let settings = config["settings"].as_array().unwrap();
        settings
            .iter()
            .find(|it| it["name"] == name)
            .unwrap()
            .clone()
    };
    let first = config();
    let workers = setting(&first, "WORKERS");
    assert_eq!(workers["value"], "1");
    assert_eq!(workers["origin"], "env/.env line 2");
    assert_eq!(workers["applies"], "restart");
    assert_eq!(workers["section"], "Server");
    assert_eq!(setting(&first, "HOST")["origin"], "default");
    let before = setting(&first, "DATA_DIR")["value"].clone();
    assert_eq!(before, "data");
    assert_eq!(setting(&first, "ADMIN_LISTEN")["value"], Value::Null);
    let key = setting(&first, "DASHBOARD_API_KEY");
    assert_eq!(
        (&key["value"], &key["secret"]),
        (&"(18 octets)".into(), &true.into())
    );
    assert!(!first.to_string().contains("canary") && !first.to_string().contains(KEY));
    assert_eq!(first["last_reload"], Value::Null);
    assert_eq!(
        first["proxy_urls"],
        serde_json::json!([format!("http://{}", proxy.addr())])
    );
    for setting in first["settings"].as_array().unwrap() {
        assert_eq!(setting["next"], Value::Null, "{setting}");
    }

    proxy.write("env/.env", "WORKERS=2\nDEBUG_MODE=true\n");
    let end = Instant::now() + DEADLINE;
    let second = loop {
        let config = config();
        if config["last_reload"] != Value::Null {
            break config;
        }
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(second["last_reload"]["ok"], true);
    assert_eq!(
        second["pending_restart"],
        serde_json::json!(["WORKERS", "DATA_DIR"])
    );
    let debug = setting(&second, "DEBUG_MODE");
    assert_eq!(debug["origin"], "env/.env line 2");
    assert_eq!(
        (&debug["value"], &debug["next"]),
        (&"true".into(), &Value::Null)
    );
    let workers = setting(&second, "WORKERS");
    // what is in effect, and what waits
    assert_eq!(
        (&workers["value"], &workers["next"]),
        (&"1".into(), &"2".into())
    );
    assert_eq!(workers["origin"], "env/.env line 2");
    let data_dir = setting(&second, "DATA_DIR");
    assert_eq!(
        (&data_dir["value"], &data_dir["next"]),
        (&before, &"".into())
    );

    proxy.write("env/.env", "WORKERS=none\n");
    let end = Instant::now() + DEADLINE;
    let third = loop {
        let config = config();
        if config["last_reload"]["ok"] == false {
            break config;
        }
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(20));
    };
    let fault = third["last_reload"]["faults"][0].as_str().unwrap();
    assert!(fault.starts_with("WORKERS"), "{fault}");
    // what is in effect, and what waits, is what was
    assert_eq!(setting(&third, "WORKERS"), workers);
}

#[test]
fn events_come_once_a_second_and_end_with_the_drain() {
    let proxy = with_key().start();
    let mut client = proxy.connect();
    client.send(request("GET", &format!("{API}/events"), &RIGHT, ""));
    let head = client.read_response_head();
    assert_eq!(head.one("content-type"), Some("text/event-stream"));
    assert_eq!(head.one("cache-control"), Some("no-store"));
    // at once: how long to wait before the next try
    assert_eq!(client.read_chunk(), b"retry: 2000\n\n");
    let overview = json(&ask(&proxy, "GET", &format!("{API}/overview"), &RIGHT));
    for _ in 0..2 {
        let tick = tick(|| client.read_chunk());
        assert!(tick["now"].is_u64());
        assert_eq!(tick["boot_id"], overview["boot_id"]);
    }
    let began = Instant::now();
    proxy.signal("TERM");
    assert!(matches!(client.read_chunked(), Body::Chunked(_)));
    assert_eq!(client.read_to_end().1, End::Fin);
    assert_eq!(proxy.wait().code, Some(0));
    assert_prompt(began, Duration::from_secs(5));
}

#[test]
fn sixty_four_listen_and_no_more() {
    let proxy = with_key().env("WORKERS", 1).start();
    let listen = || {
        let mut client = proxy.connect();
        client.send(request("GET", &format!("{API}/events"), &RIGHT, ""));
        let head = client.read_response_head();
        (client, head)
    };
    let mut listeners: Vec<_> = (0..64).map(|_| listen()).collect();
    assert!(listeners.iter().all(|(_, head)| head.status() == 200));
    let (mut client, head) = listen();
    let body = client.read_response_body("GET", &head);
    assert_problem(&Response { head, body }, 503, "unavailable");
    // a place becomes free with its connection
    listeners.pop();
    let end = Instant::now() + DEADLINE;
    while listen().1.status() != 200 {
        assert!(Instant::now() < end, "the place is not free");
    }
}

#[test]
fn http2_has_all_of_it() {
    let pair = Pair::new();
    let proxy = pair.served(with_key()).start();
    let mut client = Client::over_tls(&pair, proxy.tls_addr());
    let mut login = h2::request("POST", &format!("{API}/session"));
    let field = |text: &str| http::HeaderValue::from_str(text).unwrap();
    login
        .headers_mut()
        .insert("content-type", field("application/json"));
    let response = client.post(login, format!("{{\"key\":\"{KEY}\"}}").as_bytes());
    let answer = client.answer(response);
    assert_eq!(answer.status(), 204);
    let cookie = String::from_utf8(answer.all("set-cookie")[0].to_vec()).unwrap();
    assert!(
        cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    let session = cookie.split(';').next().unwrap();
    let with_session = |target: &str| {
        let mut request = h2::request("GET", target);
        request.headers_mut().append("cookie", field("theme=dark"));
        request.headers_mut().append("cookie", field(session));
        request
    };
    let (response, _) = client.send(with_session(&format!("{API}/config")), true);
    assert_eq!(client.answer(response).status(), 200);
    let response = client.get(&format!("{API}/config"));
    assert_eq!(client.answer(response).status(), 401);
    let (response, _) = client.send(h2::request("HEAD", "/admin"), true);
    assert_eq!(client.answer(response).status(), 200);

    let (response, _) = client.send(with_session(&format!("{API}/events")), true);
    let mut body = client.head(response).into_body();
    assert_eq!(
        client.chunk(&mut body),
        Bytes::from_static(b"retry: 2000\n\n")
    );
    assert!(tick(|| client.chunk(&mut body).to_vec())["now"].is_u64());
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn nothing_is_warned_of_where_a_key_is_configured_or_generated() {
    for proxy in [dashboard(), with_key()] {
        let proxy = proxy.env("HOST", "0.0.0.0").start();
        proxy.wait_for_line(|line| line.contains("[Admin]"));
        let said = proxy.stderr();
        let warns = |line: &str| line.contains("[Admin]") && line.contains("WARN");
        assert!(!said.lines().any(warns), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_nobody_s_without_a_key() {
    let over_unix = |builder: ProxyBuilder, fields: &[(&str, &str)]| {
        let builder = builder.env("PORT", "0");
        let path = builder.path("admin.sock");
        let proxy = builder.env("UNIX_SOCKET", path.display()).start();
        let mut client = Wire::new(std::os::unix::net::UnixStream::connect(&path).unwrap());
        client.send(request("GET", &format!("{API}/config"), fields, ""));
        let response = client.read_response("GET");
        drop(proxy);
        (response, path)
    };
    assert_problem(&over_unix(dashboard(), &[]).0, 401, "unauthorized");
    assert_problem(&over_unix(with_key(), &[]).0, 401, "unauthorized");
    let (response, path) = over_unix(with_key(), &RIGHT);
    assert_eq!(response.status(), 200);
    let urls = json(&response)["proxy_urls"].clone();
    let unix = format!("unix:{}", path.display());
    assert_eq!(urls[1], unix.as_str(), "{urls}");
}

#[test]
fn the_proxy_s_zone_is_that_of_tz() {
    for (text, expected) in [(":Asia/Shanghai", "Asia/Shanghai"), ("Mars/Olympus", "UTC")] {
        let proxy = with_key().env("TZ", text).start();
        for path in ["usage?range=90d&by=day", "overview", "session"] {
            let answer = json(&ask(&proxy, "GET", &format!("{API}/{path}"), &RIGHT));
            assert_eq!(answer["zone"], expected, "{text} {path}");
        }
        let closed = json(&ask(&proxy, "GET", &format!("{API}/session"), &[]));
        assert_eq!(closed["zone"], Value::Null, "only a known client is told");
        let is_remarked = proxy.stderr().contains("names no IANA time zone");
        assert_eq!(is_remarked, expected == "UTC", "{text}");
    }
}

#[test]
fn data_have_the_shapes_of_the_description() {
    let proxy = with_key().start();
    let get = |path: &str| json(&ask(&proxy, "GET", &format!("{API}/{path}"), &RIGHT));
    for (path, keys) in [
        (
            "overview?range=5m",
            "boot_id connections in_flight lost now paths prices_date range reloads series shared \
             started_at step_ms today totals updated_at upstreams uptime_ms version zone",
        ),
        ("requests?limit=1", "items next_before total"),
        ("errors?range=7d", "groups items kept since"),
        (
            "usage?range=30d&by=day",
            "not_priced prices_date rows shared zone",
        ),
        ("usage.json", "not_priced prices_date rows shared zone"),
        ("upstreams", "items"),
        ("replicas", "copy fault items read_at shared sums"),
        (
            "config",
            "data_dir file last_reload pending_restart proxy_urls settings",
        ),
        ("config/history", "items"),
    ] {
        let content = get(path);
        let mut found: Vec<_> = content.as_object().unwrap().keys().cloned().collect();
        found.sort();
        assert_eq!(found.join(" "), keys, "{path}");
    }
    let overview = get("overview?range=5m");
    assert_eq!(overview["range"], "5m");
    assert_eq!(overview["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        overview["upstreams"],
        serde_json::json!([{
            "name": "http://127.0.0.1:9", "url": "http://127.0.0.1:9",
            "circuit": "unknown", "failures": 0, "failures_to_open": 5
        }])
    );
    let upstream = &get("upstreams")["items"][0];
    assert_eq!(
        (&upstream["http"], &upstream["own_key"]),
        (&"1.1".into(), &false.into())
    );
    let csv = ask(&proxy, "GET", &format!("{API}/usage.csv?by=day"), &RIGHT);
    assert_eq!(
        csv.head.one("content-type"),
        Some("text/csv; charset=utf-8")
    );
    assert_eq!(
        csv.head.one("content-disposition"),
        Some("attachment; filename=\"usage-24h-by-day.csv\"")
    );
    assert!(csv.content().starts_with(b"key,requests,input,output,"));
}

#[test]
fn the_description_names_events_metrics_and_refusals() {
    let proxy = with_key().start();
    let document = json(&ask(&proxy, "GET", &format!("{API}/openapi.json"), &RIGHT));
    let events = &document["paths"][&format!("{API}/events")]["get"];
    let name = events["x-events"]["tick"]["$ref"].as_str().unwrap();
    let schema = document.pointer(name.strip_prefix('#').unwrap()).unwrap();
    assert!(schema.to_string().contains("boot_id"), "{schema}");
    let metrics = &document["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
    assert!(metrics["application/openmetrics-text"].is_object());
    assert!(metrics["text/plain"].is_object());
    let mut names = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["responses"]["405"].is_object(), "{method} {path}");
            names.push(operation["operationId"].to_string());
        }
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
    // the end of a row and the answer to a request for an end are two schemas
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["Ended"]["required"],
        serde_json::json!(["by", "phase"])
    );
    assert_eq!(
        schemas["EndAccepted"]["required"],
        serde_json::json!(["id", "label"])
    );
    // what is referred to is there
    let mut pending = vec![&document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(name)) = map.get("$ref") {
                    let pointer = name.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{name}");
                }
                pending.extend(map.values());
            }
            Value::Array(values) => pending.extend(values),
            _ => {}
        }
    }
}

/// Chinese texts by the English ones of the description.
fn chinese() -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/static/assets/i18n/zh-api.js");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, object) = text.split_once("export default ").unwrap();
    let object = object.replace(",\n};", "\n}");
    serde_json::from_str(&object).unwrap_or_else(|error| panic!("{path} is no JSON: {error}"))
}

/// The texts of a description, as the page looks for them.
fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if name == "description" || name == "summary" => {
                        found.insert(text.replace('\n', " "));
                    }
                    value => texts(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[test]
fn every_text_of_the_description_has_its_chinese() {
    let proxy = with_key().start();
    let document = json(&ask(&proxy, "GET", &format!("{API}/openapi.json"), &RIGHT));
    let mut english = BTreeSet::new();
    texts(&document, &mut english);
    assert!(english.len() > 250, "{}", english.len());
    let chinese = chinese();
    let missing: Vec<_> = english
        .iter()
        .filter(|it| !chinese.contains_key(*it))
        .collect();
    assert!(
        missing.is_empty(),
        "without Chinese in zh-api.js: {missing:#?}"
    );
    let unused: Vec<_> = chinese.keys().filter(|it| !english.contains(*it)).collect();
    assert!(
        unused.is_empty(),
        "of no text any more, in zh-api.js: {unused:#?}"
    );
    let is_chinese = |text: &str| {
        text.chars()
            .any(|it| ('\u{4e00}'..'\u{9fff}').contains(&it))
    };
    let untranslated: Vec<_> = chinese.values().filter(|it| !is_chinese(it)).collect();
    assert_eq!(untranslated, ["URL。"]);
}

#[test]
fn queries_that_cannot_be_meant_are_refused_with_a_code() {
    let proxy = with_key().start();
    let long = "x".repeat(257);
    for (query, code) in [
        ("overview?range=8d", "bad_range"),
        ("overview?range=5m&range=5m", "bad_request"),
        ("errors?range=", "bad_range"),
        ("usage?range=5m", "bad_range"),
        ("usage.csv?by=keys", "bad_filter"),
        ("requests?limit=0", "bad_filter"),
        ("requests?limit=many", "bad_request"),
        ("requests?status=teapot", "bad_filter"),
        ("requests?status=6xx", "bad_filter"),
        (&format!("requests?q={long}"), "bad_filter"),
        ("requests?sort=at", "bad_request"),
        ("requests/req_x?a=b", "bad_request"),
        ("config?x=1", "bad_request"),
        ("events?x=1", "bad_request"),
    ] {
        let response = ask(&proxy, "GET", &format!("{API}/{query}"), &RIGHT);
        assert_problem(&response, 400, code);
    }
}

/// A browser that opens a page which does not exist gets the dashboard, which says so; programs get JSON.
#[test]
fn a_page_that_does_not_exist_is_told_in_the_dashboard() {
    const HTML: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let browser = [
        HTML,
        ("Sec-Fetch-Dest", "document"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Site", "none"),
    ];
    let proxy = with_key().start();
    for path in [
        "/admin/nowhere",
        "/admin/requests/",
        "/admin/requests/req_x",
        "/admin//requests",
        "/admin/apis",
    ] {
        let response = ask(&proxy, "GET", path, &browser);
        let head = &response.head;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(head.one("content-type"), Some("text/html; charset=utf-8"));
        assert!(show(response.content()).contains("<div id=\"app\">"));
        assert_secure(&response);
        // it is no page that the tag of another one could stand for
        assert!(!head.has("etag"), "{path}");
        let response = ask(&proxy, "HEAD", path, &browser);
        assert_eq!((response.status(), response.content().len()), (404, 0));
        // programs do not ask for HTML
        assert_problem(&ask(&proxy, "GET", path, &[]), 401, "unauthorized");
        assert_problem(&ask(&proxy, "POST", path, &browser), 401, "unauthorized");
    }
    // what is no page is none for browsers either
    for path in [
        "/admin/api/v1/nowhere",
        "/admin/api",
        "/admin/grafana/x.json",
        "/admin/prometheus/x.yaml",
    ] {
        assert_problem(&ask(&proxy, "GET", path, &browser), 401, "unauthorized");
    }
    assert_problem(
        &ask(&proxy, "GET", "/admin/assets/nowhere.js", &browser),
        404,
        "not_found",
    );
}
