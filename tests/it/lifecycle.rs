//! docs/contract.md §6, §7: health, the end of the process, reload, and what is refused when it is full.

use std::{
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Body, DEADLINE, End, Proxy, ProxyBuilder, Response, Upstream, Wire, assert_prompt,
    assert_proxy_error, get,
    h2::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, get_block, raw},
    post,
    upstream::OK,
    wire::{assert_octets, show},
};

const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A stream that runs: its client and its upstream.
#[track_caller]
fn stream(proxy: &Proxy, upstream: &Upstream) -> (Wire, Wire) {
    let (mut client, mut origin) = proxy.exchange(upstream, post("/v1/messages", "{}"));
    origin.send(STREAM);
    origin.send_chunk(b"one");
    assert_eq!(client.read_response_head().status(), 200);
    assert_eq!(client.read_chunks(3), b"one");
    (client, origin)
}

/// Ends such a stream in good order.
#[track_caller]
fn finish(mut client: Wire, mut origin: Wire) {
    origin.send_chunk(b"two");
    origin.send_chunk(b"");
    assert_eq!(client.read_chunked(), Body::Chunked(b"two".to_vec()));
}

/// Waits until the listener is gone.
#[track_caller]
fn refuses_connections(proxy: &Proxy) {
    let end = Instant::now() + DEADLINE;
    while TcpStream::connect(proxy.addr()).is_ok() {
        assert!(Instant::now() < end, "new connections are still accepted");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks again until the answer is as wanted: a reload has no other sign that all may see.
#[track_caller]
pub(crate) fn eventually(what: &str, wanted: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !wanted() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

fn named(name: &'static str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    )
    .into_bytes()
}

#[test]
fn health_says_who_and_since_when() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let one = proxy.send(get("/health"));
    assert_eq!(one.status(), 200);
    assert_eq!(one.head.one("content-type"), Some("application/json"));
    assert_eq!(one.head.one("cache-control"), Some("no-store"));
    let value = json(&one);
    assert_eq!(value["status"], "healthy");
    assert_eq!(value["service"], "anthropic-proxy");
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert!(!value["boot_id"].as_str().unwrap().is_empty());
    assert!(!value["started_at"].is_null());
    let two = json(&proxy.send(get("/health?x=y")));
    assert_eq!(
        (&value["boot_id"], &value["started_at"]),
        (&two["boot_id"], &two["started_at"])
    );
    let other = Proxy::to(upstream.url()).start();
    assert_ne!(
        json(&other.send(get("/health")))["boot_id"],
        value["boot_id"]
    );
    upstream.no_more();
}

#[test]
fn live_and_ready_answer_without_the_upstream() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    for path in ["/livez", "/readyz"] {
        let response = proxy.send(get(path));
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(
            response.head.one("cache-control"),
            Some("no-store"),
            "{path}"
        );
    }
    upstream.no_more();
}

#[test]
fn another_spelling_of_a_local_path_is_forwarded() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for target in ["/%68ealth", "/live%7A"] {
        proxy.send(get(target));
        assert_eq!(upstream.request().0.target(), target);
    }
}

#[test]
fn a_head_request_for_health_has_no_body() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.read_response("HEAD").status(), 200);
    }
    upstream.no_more();
}

#[test]
fn sigterm_lets_a_stream_end_and_exits_0() {
    for signal in ["TERM", "INT"] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let (client, origin) = stream(&proxy, &upstream);
        proxy.signal(signal);
        refuses_connections(&proxy);
        finish(client, origin);
        assert_eq!(proxy.wait().code, Some(0), "{signal}");
    }
}

#[test]
fn sigterm_lets_an_unanswered_request_end() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) = proxy.exchange(&upstream, post("/v1/messages", "{}"));
    proxy.signal("TERM");
    refuses_connections(&proxy);
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
    assert_eq!(
        client.closed_within(Duration::from_secs(2)),
        (Vec::new(), End::Fin)
    );
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn sigterm_lets_an_upload_end() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &upstream,
        "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf",
    );
    proxy.signal("TERM");
    refuses_connections(&proxy);
    client.send("rest");
    assert_eq!(origin.read_exact(8), b"halfrest");
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn sigterm_closes_idle_connections_at_once() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut silent = proxy.connect();
    let mut idle = proxy.connect();
    idle.send(get("/health"));
    idle.read_response("GET");
    let (client, origin) = stream(&proxy, &upstream);
    proxy.signal("TERM");
    assert_eq!(idle.closed_within(Duration::from_secs(2)).0, b"");
    silent.closed_within(Duration::from_secs(2));
    finish(client, origin);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn sigterm_without_exchanges_exits_at_once() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut idle = proxy.connect();
    idle.send(get("/"));
    idle.read_response("GET");
    let start = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
    assert_prompt(start, Duration::from_secs(3));
}

#[test]
fn readiness_fails_while_draining() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (client, origin) = stream(&proxy, &upstream);
    // A connection that is not idle, since its request has begun.
    let mut probe = proxy.connect();
    probe.send("GET /readyz HTTP/1.1\r\n");
    assert_eq!(proxy.send(get("/readyz")).status(), 200);
    proxy.signal("TERM");
    refuses_connections(&proxy);
    // It is answered with 503, or was closed; it is never told that all is well.
    if probe.try_send("Host: x\r\n\r\n").is_ok() {
        let (octets, _) = probe.read_to_end();
        assert!(
            octets.is_empty() || octets.starts_with(b"HTTP/1.1 503 "),
            "{}",
            show(&octets)
        );
    }
    finish(client, origin);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn shutdown_timeout_cuts_what_still_runs() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("SHUTDOWN_TIMEOUT", "300ms")
        .start();
    let (mut client, mut origin) = stream(&proxy, &upstream);
    let start = Instant::now();
    proxy.signal("TERM");
    let body = client.read_chunked();
    assert!(
        matches!(body, Body::Cut(..)),
        "a clean end of a stream that was cut"
    );
    assert_prompt(start, Duration::from_secs(3));
    origin.closed_within(Duration::from_secs(2));
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let (mut client, _origin) = stream(&proxy, &upstream);
    proxy.signal("TERM");
    refuses_connections(&proxy);
    let start = Instant::now();
    proxy.signal("TERM");
    assert!(matches!(client.read_chunked(), Body::Cut(..)));
    proxy.wait();
    assert_prompt(start, Duration::from_secs(3));
}

#[test]
fn a_connection_that_was_silent_until_the_drain_gets_its_first_answer() {
    // the grace is a second: a try counts only if the requests left well before its end
    let tried = (0..50).any(|_| silent_until_the_drain(Duration::from_millis(500)));
    assert!(tried, "no try was quick enough to be judged");
}

/// Gives false if the clients were not in time.
fn silent_until_the_drain(in_time: Duration) -> bool {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).env("H2C", "true").start();
    let mut silent: Vec<Wire> = (0..20).map(|_| proxy.connect()).collect();
    let mut begun = proxy.connect();
    begun.send(b"GET / HTT");
    let mut http2 = proxy.connect();
    // connections are accepted in their order: what the kernel still holds is lost with the listener
    assert_eq!(proxy.send(get("/health")).status(), 200);
    let started = Instant::now();
    proxy.signal("TERM");
    proxy.wait_for_line(|line| line.contains("draining"));
    refuses_connections(&proxy);
    if started.elapsed() > in_time {
        return false;
    }
    for client in &mut silent {
        if client.try_send(get("/")).is_err() {
            assert!(started.elapsed() > in_time, "reset within its grace");
            return false;
        }
    }
    http2.send(PREFACE);
    http2.send_frame(SETTINGS, 0, 0, &[]);
    http2.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_block("/"));
    if started.elapsed() > in_time {
        return false;
    }
    for client in &mut silent {
        let response = client.read_response("GET");
        assert_eq!(response.content(), b"ok");
        assert_eq!(response.head.one("connection"), Some("close"));
    }
    while http2.read_frame().kind != DATA {}
    begun.send(b"P/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(begun.read_response("GET").content(), b"ok");
    assert_eq!(proxy.wait().code, Some(0));
    true
}

#[test]
fn a_stream_of_http2_that_ends_during_a_drain_is_complete() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("H2C", "true")
        .env("RUST_LOG", "info")
        .start();
    let mut client = raw(&proxy);
    client.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_block("/"));
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send(STREAM);
    origin.send_chunk(b"one");
    while client.read_frame().kind != DATA {}
    proxy.signal("TERM");
    refuses_connections(&proxy);
    origin.send_chunk(b"two");
    origin.send_chunk(b"");
    client.read_to_end();
    let line = proxy.wait_for_line(|line| line.contains("[Proxy] GET / "));
    assert!(
        line.contains("out=6") && line.contains("ended=complete"),
        "{line}"
    );
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_connection_that_stays_silent_does_not_hold_up_a_drain() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("REQUEST_HEAD_TIMEOUT", "1h")
        .env("SHUTDOWN_TIMEOUT", "1h")
        .env("KEEP_ALIVE", "1h")
        .env("H2C", "true")
        .start();
    let mut silent = proxy.connect();
    let mut http2 = proxy.connect();
    http2.send(PREFACE);
    let mut idle = proxy.connect();
    idle.send(get("/"));
    idle.read_response("GET");
    // no request: an empty line may follow content (RFC 9112 §2.2)
    idle.send("\r\n");
    proxy.signal("TERM");
    assert_eq!(silent.read_to_end(), (Vec::new(), End::Fin));
    assert_eq!(idle.read_to_end().0, b"");
    http2.read_to_end();
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn readiness_fails_while_connections_are_still_accepted() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).env("DRAIN_DELAY", "1h").start();
    assert_eq!(proxy.send(get("/readyz")).status(), 200);
    let mut kept = proxy.connect();
    kept.send(get("/"));
    kept.read_response("GET");
    proxy.signal("TERM");
    eventually("the end of readiness", || {
        proxy.send(get("/readyz")).status() == 503
    });
    for path in ["/livez", "/health"] {
        assert_eq!(proxy.send(get(path)).status(), 200, "{path}");
    }
    let response = proxy.send(get("/"));
    assert_eq!(response.content(), b"ok");
    // the client is asked to take its next request elsewhere
    assert_eq!(response.head.one("connection"), Some("close"));
    kept.send(get("/"));
    assert_eq!(kept.read_response("GET").content(), b"ok");
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn the_drain_follows_its_delay() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("DRAIN_DELAY", "200ms")
        .start();
    let (client, origin) = stream(&proxy, &upstream);
    let start = Instant::now();
    proxy.signal("TERM");
    refuses_connections(&proxy);
    assert!(start.elapsed() >= Duration::from_millis(200));
    finish(client, origin);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn health_is_answered_on_the_admin_listener_until_the_end() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .start();
    let admin = proxy.admin_addr();
    let ask = |path: &str| {
        let mut client = Wire::tcp(TcpStream::connect(admin).expect("it still listens"));
        client.send(get(path));
        client.read_response("GET").status()
    };
    assert_eq!(ask("/readyz"), 200);
    let (client, origin) = stream(&proxy, &upstream);
    // a page that is looked at does not hold up the end
    let _page = TcpStream::connect(admin).unwrap();
    proxy.signal("TERM");
    refuses_connections(&proxy);
    for (path, status) in [("/readyz", 503), ("/livez", 200), ("/health", 200)] {
        assert_eq!(ask(path), status, "{path}");
    }
    finish(client, origin);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn the_log_says_who_cut_what_a_drain_cuts() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("SHUTDOWN_TIMEOUT", "0")
        .start();
    let (mut client, _origin) = stream(&proxy, &upstream);
    proxy.signal("TERM");
    assert!(matches!(client.read_chunked(), Body::Cut(..)));
    let ended = proxy.wait();
    assert!(
        ended.stderr.contains("ended=proxy:shutdown"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("client_gone"), "{}", ended.stderr);
}

#[test]
fn a_changed_env_file_is_used_by_the_next_exchange() {
    let (one, two) = (
        Upstream::always(named("one")),
        Upstream::always(named("two")),
    );
    let proxy = ProxyBuilder::new()
        .file("env/.env", format!("API_BASE_URL={}\n", one.url()))
        .start();
    let mut kept = proxy.connect();
    kept.send(get("/"));
    assert_eq!(kept.read_response("GET").content(), b"one");
    proxy.write("env/.env", format!("API_BASE_URL={}\n", two.url()));
    eventually("the reload", || proxy.send(get("/")).content() == b"two");
    // All workers and kept connections have it.
    kept.send(get("/"));
    assert_eq!(kept.read_response("GET").content(), b"two");
    for _ in 0..20 {
        assert_eq!(proxy.send(get("/")).content(), b"two");
    }
}

#[test]
fn an_env_file_that_appears_is_used() {
    let (one, two) = (Upstream::always(named("one")), Upstream::ok());
    let proxy = Proxy::to(one.url()).file("env/other", "").start();
    assert_eq!(proxy.send(get("/")).content(), b"one");
    proxy.write(
        "env/.env",
        format!("API_BASE_URL={}\nPRESERVE_HOST=true\n", two.url()),
    );
    // The environment still wins over the file.
    eventually("the reload", || {
        proxy.send(get("/"));
        one.request().0.one("host") == Some("proxy.test")
    });
}

#[test]
fn a_changed_headers_file_is_used_by_the_next_exchange() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .file("env/.env.headers.json", r#"{"x-ours": "one"}"#)
        .start();
    proxy.send(get("/"));
    assert_eq!(upstream.request().0.one("x-ours"), Some("one"));
    proxy.write("env/.env.headers.json", r#"{"x-ours": "two"}"#);
    eventually("the reload", || {
        proxy.send(get("/"));
        upstream.request().0.one("x-ours") == Some("two")
    });
}

#[test]
fn sighup_reloads() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("HEADERS_FILE", "link/headers.json")
        .file("link/headers.json", r#"{"x-ours": "one"}"#)
        .start();
    proxy.write("link/headers.json", r#"{"x-ours": "two"}"#);
    proxy.signal("HUP");
    eventually("the reload", || {
        proxy.send(get("/"));
        upstream.request().0.one("x-ours") == Some("two")
    });
}

#[test]
fn an_exchange_in_flight_keeps_its_snapshot() {
    let (one, two) = (Upstream::bind(), Upstream::always(named("two")));
    let proxy = ProxyBuilder::new()
        .file(
            "env/.env",
            format!(
                "API_BASE_URL={}\nSYSTEM_PROMPT_REPLACEMENT=One\n",
                one.url()
            ),
        )
        .start();
    let (client, origin) = stream(&proxy, &one);
    // Held for the edit while the configuration changes.
    let content = r#"{"system":[{"text":"x"}]}"#;
    let mut held = proxy.connect();
    held.send(format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{{",
        content.len()
    ));
    assert_eq!(proxy.send(get("/health")).status(), 200);
    proxy.write(
        "env/.env",
        format!(
            "API_BASE_URL={}\nSYSTEM_PROMPT_REPLACEMENT=Two\n",
            two.url()
        ),
    );
    eventually("the reload", || {
        let mut client = proxy.connect();
        client.send(get("/"));
        // Until then it is one's, who does not answer.
        if let Some(mut origin) = one.accept_soon() {
            origin.read_request();
            return false;
        }
        client.read_response("GET").content() == b"two"
    });
    held.send(&content[1..]);
    let mut late = one.accept();
    let (_, body) = late.read_request();
    assert_octets(
        body.content(),
        r#"{"system":[{"text":"One"}]}"#,
        "the edit of before",
    );
    late.send(OK);
    assert_eq!(held.read_response("POST").content(), b"ok");
    finish(client, origin);
    proxy.send(post("/v1/messages", content));
    loop {
        let (head, body) = two.request();
        if head.method() == "POST" {
            assert_octets(
                body.content(),
                r#"{"system":[{"text":"Two"}]}"#,
                "the edit of after",
            );
            break;
        }
    }
}

#[test]
fn an_invalid_file_keeps_the_last_good_configuration() {
    let upstream = Upstream::always(named("good"));
    let url = upstream.url();
    let proxy = ProxyBuilder::new()
        .file("env/.env", format!("API_BASE_URL={url}\n"))
        .start();
    assert_eq!(proxy.send(get("/")).content(), b"good");
    proxy.write(
        "env/.env",
        "API_BASE_URL=ftp://nowhere\nUPSTREAM_TIMEOUT=soon\nMAX_IN_FLIGHT=-1\n",
    );
    for name in ["API_BASE_URL", "UPSTREAM_TIMEOUT", "MAX_IN_FLIGHT"] {
        proxy.wait_for_line(|line| line.contains(name));
    }
    assert_eq!(proxy.send(get("/")).content(), b"good");
    proxy.write("env/.env", format!("API_BASE_URL={url}/later\n"));
    eventually("the next reload", || {
        proxy.send(get("/"));
        upstream.request().0.target() == "/later/"
    });
}

#[test]
fn an_invalid_headers_file_keeps_the_last_good_configuration() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .file("env/.env.headers.json", r#"{"x-ours": "one"}"#)
        .start();
    proxy.write("env/.env.headers.json", r#"["x-ours", "two"]"#);
    proxy.wait_for_line(|line| line.contains(".env.headers.json"));
    for _ in 0..3 {
        proxy.send(get("/"));
        assert_eq!(upstream.request().0.one("x-ours"), Some("one"));
    }
}

#[test]
fn a_busy_port_is_a_clear_message() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ended = ProxyBuilder::new().env("PORT", port).run();
    assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
    assert!(
        ended.stderr.contains("PORT") && ended.stderr.contains(&port.to_string()),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn all_faults_are_reported_together_with_exit_code_2() {
    let ended = ProxyBuilder::new()
        .env("API_BASE_URL", "not a url")
        .env("UPSTREAM_TIMEOUT", "soon")
        .env("SYSTEM_PROMPT_TARGET", "last")
        .env("LOG_FORMAT", "xml")
        .env("PORT", "99999")
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for name in [
        "API_BASE_URL",
        "UPSTREAM_TIMEOUT",
        "SYSTEM_PROMPT_TARGET",
        "LOG_FORMAT",
        "PORT",
    ] {
        assert!(ended.stderr.contains(name), "{name}: {ended:?}");
    }
}

#[test]
fn a_fault_names_its_origin() {
    let ended = ProxyBuilder::new()
        .file("env/.env", "\nUPSTREAM_TIMEOUT=soon\n")
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("env/.env"), "{ended:?}");
    let ended = ProxyBuilder::new().env("UPSTREAM_TIMEOUT", "soon").run();
    assert!(ended.stderr.contains("environment"), "{ended:?}");
}

#[test]
fn an_unknown_variable_in_the_file_is_a_warning_with_a_hint() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("API_BASE_URI", "nobody's business")
        .file(
            "env/.env",
            "UPSTREM_TIMEOUT=5\nLOG_PERSISTENCE_ENABLED=true\n",
        )
        .start();
    proxy.wait_for_line(|line| {
        line.contains("UPSTREM_TIMEOUT") && line.contains("UPSTREAM_TIMEOUT")
    });
    proxy.wait_for_line(|line| line.contains("LOG_PERSISTENCE_ENABLED"));
    assert!(
        !proxy.stderr().contains("API_BASE_URI"),
        "{}",
        proxy.stderr()
    );
}

#[test]
fn empty_means_unset() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("UPSTREAM_TIMEOUT", "")
        .env("HOST", "")
        .env("HTTP_PROXY", "")
        .env("PRESERVE_HOST", "")
        .env("UPSTREAM_CA_FILE", "")
        .file("env/.env", "WORKERS=\n")
        .start();
    assert_eq!(proxy.send(get("/")).status(), 200);
}

#[test]
fn a_missing_env_file_that_was_named_is_exit_code_2() {
    let ended = ProxyBuilder::new()
        .arg("--env-file")
        .arg("no/such.env")
        .run();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no/such.env"), "{ended:?}");
}

#[test]
fn an_env_file_that_was_named_is_read() {
    let upstream = Upstream::ok();
    let proxy = ProxyBuilder::new()
        .file("my.env", format!("API_BASE_URL={}\n", upstream.url()))
        .arg("--env-file")
        .arg("my.env")
        .start();
    assert_eq!(proxy.send(get("/")).status(), 200);
}

#[test]
fn a_headers_file_that_is_not_an_object_is_exit_code_2() {
    for content in [
        "[]",
        "\"x\"",
        "not json",
        r#"{"x": 1}"#,
        r#"{"bad name": "x"}"#,
        r#"{"x":"a\nb"}"#,
    ] {
        let ended = ProxyBuilder::new()
            .file("env/.env.headers.json", content)
            .run();
        assert_eq!(ended.code, Some(2), "{content}: {ended:?}");
        assert!(ended.stderr.contains(".env.headers.json"), "{ended:?}");
    }
}

#[test]
fn the_start_line_says_how_to_open_it() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    proxy.wait_for_line(|line| line.contains("HOST=0.0.0.0"));
}

#[test]
fn connections_beyond_the_limit_are_503() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("MAX_CONNECTIONS", 2)
        .env("WORKERS", 2)
        .start();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect();
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
        held.push(client);
    }
    upstream.request();
    upstream.request();
    let mut beyond = proxy.connect();
    beyond.send(get("/"));
    let response = beyond.read_response("GET");
    refused(&response, "too_many_connections");
    upstream.no_more();
    drop(held);
    eventually("room", || proxy.send(get("/")).status() == 200);
}

#[test]
fn a_refused_head_request_gets_no_content() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).env("MAX_CONNECTIONS", 1).start();
    let mut held = proxy.connect();
    held.send(get("/"));
    held.read_response("GET");
    let mut beyond = proxy.connect();
    beyond.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(beyond.read_response_head().status(), 503);
    assert_eq!(show(&beyond.read_to_end().0), "");
}

#[test]
fn health_answers_beyond_the_limit_of_connections() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).env("MAX_CONNECTIONS", 1).start();
    let mut held = proxy.connect();
    held.send(get("/"));
    held.read_response("GET");
    assert_eq!(proxy.send(get("/health")).status(), 200);
}

#[test]
fn exchanges_beyond_the_limit_are_503_and_health_still_answers() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("MAX_IN_FLIGHT", 1)
        .env("WORKERS", 2)
        .start();
    let (client, origin) = stream(&proxy, &upstream);
    for _ in 0..3 {
        let mut other = proxy.connect();
        other.send(get("/v1/models"));
        refused(&other.read_response("GET"), "too_many_in_flight");
        // What is refused whole is refused in order: the connection may be used again.
        other.send(get("/health"));
        assert_eq!(other.read_response("GET").status(), 200);
        refused(
            &proxy.send(post("/v1/messages", "{}")),
            "too_many_in_flight",
        );
    }
    upstream.no_more();
    finish(client, origin);
    eventually("room", || {
        let mut client = proxy.connect();
        client.send(get("/"));
        let Some(mut origin) = upstream.accept_soon() else {
            return false;
        };
        origin.read_request();
        origin.send(OK);
        client.read_response("GET").status() == 200
    });
}

#[test]
fn an_exchange_that_was_left_makes_room() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("MAX_IN_FLIGHT", 1)
        .env("WORKERS", 2)
        .start();
    for _ in 0..5 {
        // The place is given back a moment after the upstream was closed.
        eventually("room", || {
            let mut client = proxy.connect();
            client.send(get("/"));
            let Some(mut origin) = upstream.accept_soon() else {
                return false;
            };
            origin.read_request();
            drop(client);
            origin.closed_within(Duration::from_secs(1));
            true
        });
    }
}

#[test]
fn fewer_file_descriptors_mean_fewer_connections_and_a_warning() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).descriptors(256).start();
    proxy.wait_for_line(|line| line.contains("MAX_CONNECTIONS"));
    assert_eq!(proxy.send(get("/")).content(), b"ok");
}

#[test]
fn a_crowd_beyond_the_file_descriptors_is_survived() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).descriptors(128).start();
    let crowd: Vec<Wire> = (0..400).map(|_| proxy.connect()).collect();
    assert_eq!(proxy.send(get("/health")).status(), 200);
    let before = processor_ticks(&proxy);
    // Nothing is asked for: whoever is busy now is spinning.
    thread::sleep(Duration::from_secs(1));
    let spent = processor_ticks(&proxy) - before;
    assert!(
        spent < 50,
        "{spent} ticks of 10 ms in one second of nothing"
    );
    drop(crowd);
    eventually("room", || proxy.send(get("/")).status() == 200);
}

#[test]
fn silent_connections_cost_seated_ones_nothing() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("WORKERS", 1)
        .env("REQUEST_HEAD_TIMEOUT", "1h")
        .descriptors(256)
        .start();
    let mut seated: Vec<Wire> = (0..4).map(|_| proxy.connect()).collect();
    for client in &mut seated {
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
    }
    let mut silent: Vec<Wire> = (0..300).map(|_| proxy.connect()).collect();
    for client in &mut seated {
        client.send(get("/"));
        assert_eq!(client.read_response("GET").content(), b"ok");
        assert_eq!(proxy.send(get("/health")).status(), 200);
    }
    refused(&proxy.send(get("/")), "too_many_connections");
    // those that had to go are closed, the oldest without a seat first
    let open = silent.iter_mut().filter(|client| client.is_open()).count();
    assert!((1..200).contains(&open), "{open} are open");
}

#[test]
fn exchanges_are_bounded_by_file_descriptors() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("WORKERS", 1)
        .env("H2C", "true")
        .descriptors(256)
        .start();
    let line = proxy.wait_for_line(|line| line.contains("MAX_IN_FLIGHT"));
    assert!(
        line.contains("the limit of open files is 256: using "),
        "{line}"
    );
    let mut clients: Vec<Wire> = (0..3).map(|_| raw(&proxy)).collect();
    for client in &mut clients {
        for number in 0..100 {
            let flags = END_HEADERS | END_STREAM;
            client.send_frame(HEADERS, flags, 2 * number + 1, &get_block("/"));
        }
    }
    // one that is refused was not sent; every other one has its connection
    let mut origins = Vec::new();
    while let Some(mut origin) = upstream.accept_soon() {
        origin.read_request();
        origins.push(origin);
        assert_eq!(proxy.send(get("/health")).status(), 200);
    }
    assert!((50..=152).contains(&origins.len()), "{}", origins.len());
    for origin in &mut origins {
        origin.send(OK);
    }
    let mut answered = 0;
    for client in &mut clients {
        let mut ended = 0;
        while ended < 100 {
            let frame = client.read_frame();
            ended += u32::from(frame.kind <= HEADERS && frame.flags & END_STREAM != 0);
            answered += usize::from(frame.kind == DATA && frame.payload == b"ok");
        }
    }
    assert_eq!(answered, origins.len());
    assert!(!proxy.stderr().contains("connection_failed"));
}

/// A client that vanishes while its upstream is silent is noticed by probes (RFC 1122 §4.2.3.6).
#[cfg(target_os = "linux")]
#[test]
fn silent_clients_are_probed() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let _origin = upstream.accept();
    let ports = [
        proxy.addr().port(),
        client
            .socket()
            .local_addr()
            .unwrap()
            .as_socket()
            .unwrap()
            .port(),
    ];
    let [local, remote] = ports.map(|port| format!("0100007F:{port:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let timer = table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns[1] == local && columns[2] == remote).then(|| columns[5].to_owned())
    });
    // 02: the timer of keep-alive probes
    assert!(
        timer.as_ref().is_some_and(|timer| timer.starts_with("02:")),
        "{timer:?}"
    );
}

#[track_caller]
fn refused(response: &Response, label: &str) {
    assert_proxy_error(response, 503, "overloaded_error", label);
    assert_eq!(response.head.one("retry-after"), Some("1"));
}

fn json(response: &Response) -> serde_json::Value {
    serde_json::from_slice(response.content()).unwrap()
}

/// Processor time of the process, in ticks; 0 where the system does not tell.
fn processor_ticks(proxy: &Proxy) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.id())).unwrap_or_default();
    // utime and stime are the 14th and 15th field; the second may hold spaces, and ends with `)`.
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum()
}
