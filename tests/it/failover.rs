//! Several upstreams: who is asked, when a request moves on, what stays where it was.

use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use crate::support::{
    Answering, Body, Head, ProxyBuilder, QUIET, Upstream, Wire, assert_proxy_error, get, h2, noise,
    post, upstream::OK, wire::chunk,
};

/// An answer with this status and a content that names it.
fn answer(status: u16, fields: &str, content: &str) -> String {
    format!(
        "HTTP/1.1 {status} Whatever\r\n{fields}Content-Length: {}\r\n\r\n{content}",
        content.len()
    )
}

/// A proxy before these, in this order.
fn before(urls: &[&str]) -> ProxyBuilder {
    ProxyBuilder::new()
        .env("API_BASE_URLS", urls.join(","))
        .env("WORKERS", 1)
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn message(session: &str) -> String {
    let content = r#"{"model":"m"}"#;
    format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Claude-Code-Session-Id: {session}\r\n\
         Content-Length: {}\r\n\r\n{content}",
        content.len()
    )
}

/// How many requests reached an upstream so far; waits for nothing.
fn count(upstream: &Answering) -> usize {
    std::iter::from_fn(|| upstream.try_request()).count()
}

#[test]
fn the_first_upstream_gets_everything_while_it_is_well() {
    let (first, second) = (Upstream::ok(), Upstream::ok());
    let proxy = before(&[&first.url(), &second.url()]).start();
    for n in 0..20 {
        assert_eq!(proxy.send(message(&n.to_string())).status(), 200);
        first.request();
    }
    second.no_more();
}

#[test]
fn an_upstream_that_cannot_be_reached_is_passed_over() {
    let second = Upstream::ok();
    let proxy = before(&[&format!("http://{}", nobody()), &second.url()]).start();
    // one of each kind of body, and more than it takes to open the circuit
    let large = noise(3 << 20);
    for n in 0..8 {
        assert_eq!(proxy.send(get("/v1/models")).status(), 200);
        assert_eq!(second.request().0.target(), "/v1/models");
        assert_eq!(proxy.send(post("/v1/files", &large)).status(), 200);
        assert_eq!(second.request().1, Body::Length(large.clone()), "{n}");
        let mut client = proxy.connect();
        client.send("POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send_chunk(b"one");
        client.send_chunk(b"");
        assert_eq!(client.read_response("POST").status(), 200);
        assert_eq!(second.request().1, Body::Chunked(b"one".to_vec()));
    }
}

#[test]
fn a_name_that_does_not_resolve_and_a_handshake_that_fails_are_passed_over() {
    let plain = Upstream::bind();
    let last = Upstream::ok();
    let https = format!("https://{}", plain.addr());
    let proxy = before(&["http://no-such-host.invalid", &https, &last.url()]).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    // what speaks no TLS answers nonsense
    let mut origin = plain.accept();
    origin.send(OK);
    drop(origin);
    assert_eq!(client.read_response("GET").status(), 200);
    last.request();
}

#[test]
fn a_status_of_the_list_moves_a_request_on_with_its_body() {
    for status in [502, 503, 520, 521, 522, 523, 529] {
        let first = Upstream::always(answer(status, "", "no"));
        let second = Upstream::ok();
        let proxy = before(&[&first.url(), &second.url()]).start();
        for request in [
            message("s").into_bytes(),
            post("/v1/messages", noise(100_000)),
        ] {
            assert_eq!(proxy.send(&request).content(), b"ok");
            assert_eq!(first.request().1, second.request().1);
        }
    }
}

#[test]
fn a_status_of_no_list_is_passed_on() {
    for status in [400, 401, 404, 429, 500, 501, 504, 524, 525, 530] {
        let first = Upstream::always(answer(status, "retry-after: 7\r\n", "no"));
        let second = Upstream::ok();
        let proxy = before(&[&first.url(), &second.url()]).start();
        let response = proxy.send(message("s"));
        assert_eq!(
            (response.status(), response.content()),
            (status, &b"no"[..])
        );
        assert_eq!(response.head.one("retry-after"), Some("7"));
        assert!(!response.head.has("x-proxy-error"));
        second.no_more();
    }
}

#[test]
fn the_list_is_a_setting() {
    let first = Upstream::always(answer(500, "", "no"));
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()])
        .env("FAILOVER_STATUS", "500")
        .start();
    assert_eq!(proxy.send(message("s")).content(), b"ok");
    let first = Upstream::always(answer(529, "", "no"));
    let proxy = before(&[&first.url(), &second.url()])
        .env("FAILOVER_STATUS", "none")
        .start();
    assert_eq!(proxy.send(message("s")).status(), 529);
}

#[test]
fn an_edited_body_and_a_chunked_one_with_trailers_move_on_as_they_were() {
    let first = Upstream::always(answer(529, "", ""));
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()])
        .env("SYSTEM_PROMPT_REPLACEMENT", "ours")
        .start();
    proxy.send(post(
        "/v1/messages",
        r#"{"system":[{"type":"text","text":"theirs"}]}"#,
    ));
    let edited = second.request().1;
    assert_eq!(
        edited.content(),
        br#"{"system":[{"type":"text","text":"ours"}]}"#
    );
    assert_eq!(first.request().1, edited);

    let first = Upstream::bind();
    let second = Upstream::bind();
    let proxy = before(&[&first.url(), &second.url()]).start();
    let mut client = proxy.connect();
    client.send(
        "POST /v1/x HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\none\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    for (upstream, response) in [(&first, answer(503, "", "")), (&second, OK.to_owned())] {
        let mut origin = upstream.accept();
        let head = origin.read_request_head();
        assert_eq!(head.one("transfer-encoding"), Some("chunked"));
        assert_eq!(origin.read_chunk(), b"one");
        assert_eq!(origin.read_trailers(), "X-Sum: 1\r\n");
        origin.send(response);
    }
    assert_eq!(client.read_response("POST").content(), b"ok");
}

#[test]
fn an_upload_that_still_runs_moves_on_whole() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = before(&[&first.url(), &second.url()]).start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &first,
        "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\none",
    );
    origin.read_exact(3);
    origin.send(answer(503, "", "busy"));
    let mut origin = second.accept();
    let head = origin.read_request_head();
    assert_eq!(head.one("content-length"), Some("9"));
    assert_eq!(origin.read_exact(3), b"one");
    client.send("two");
    assert_eq!(origin.read_exact(3), b"two");
    client.send("end");
    assert_eq!(origin.read_exact(3), b"end");
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
}

#[test]
fn a_body_that_is_not_kept_is_not_sent_twice() {
    // too large, or no memory for it
    for (name, value) in [("MAX_REPLAY_BODY", "64KiB"), ("REPLAY_MEMORY", "64KiB")] {
        let first = Upstream::always(answer(529, "", "busy"));
        let second = Upstream::ok();
        let proxy = before(&[&first.url(), &second.url()])
            .env("MAX_REPLAY_BODY", "64KiB")
            .env(name, value)
            .start();
        let response = proxy.send(post("/v1/messages", noise(70_000)));
        assert_eq!((response.status(), response.content()), (529, &b"busy"[..]));
        second.no_more();
        // what fits goes on
        assert_eq!(
            proxy.send(post("/v1/messages", noise(60_000))).status(),
            200
        );
    }
}

#[test]
fn kept_bodies_are_given_up_when_the_answer_begins() {
    let first = Upstream::bind();
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()])
        .env("MAX_REPLAY_BODY", "64KiB")
        .env("REPLAY_MEMORY", "64KiB")
        .start();
    // a stream that began needs its request no more, however long it runs
    let (mut streaming, mut origin) = proxy.exchange(&first, post("/v1/messages", noise(60_000)));
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    origin.send(chunk(b"a"));
    streaming.read_response_head();
    let (mut client, mut other) = proxy.exchange(&first, post("/v1/messages", noise(60_000)));
    other.send(answer(529, "", ""));
    assert_eq!(client.read_response("POST").status(), 200);
    origin.send(chunk(b"b"));
    origin.send(chunk(b""));
    assert_eq!(streaming.read_chunks(2), b"ab");
}

#[test]
fn a_request_that_was_sent_and_not_answered_goes_nowhere() {
    let first = Upstream::bind();
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()])
        .env("GENERATION_TIMEOUT", "300ms")
        .start();
    let (mut client, origin) = proxy.exchange(&first, message("s"));
    drop(origin);
    let response = client.read_response("POST");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    client.send(message("s"));
    let mut origin = first.accept();
    origin.read_request();
    let response = client.read_response("POST");
    assert_proxy_error(&response, 504, "timeout_error", "http_response_timeout");
    second.no_more();
}

#[test]
fn the_answer_of_the_first_stands_where_the_next_does_no_better() {
    let first = Upstream::always(answer(529, "retry-after: 3\r\nx-who: first\r\n", "busy"));
    let proxy = before(&[&first.url(), &format!("http://{}", nobody())]).start();
    let response = proxy.send(message("s"));
    assert_eq!((response.status(), response.content()), (529, &b"busy"[..]));
    assert_eq!(response.head.one("x-who"), Some("first"));
    // and where the next one fails as well, its answer is the last word
    let second = Upstream::always(answer(503, "x-who: second\r\n", "busy"));
    let proxy = before(&[&first.url(), &second.url()]).start();
    let response = proxy.send(message("s"));
    assert_eq!(response.head.one("x-who"), Some("second"));
}

#[test]
fn all_upstreams_out_of_reach_is_an_error_of_ours() {
    let urls = [nobody(), nobody()].map(|address| format!("http://{address}"));
    let proxy = before(&[&urls[0], &urls[1]]).start();
    for _ in 0..12 {
        let response = proxy.send(message("s"));
        assert_proxy_error(&response, 502, "api_error", "connection_refused");
    }
}

#[test]
fn failures_in_a_row_open_the_circuit_and_a_probe_closes_it() {
    let first = Upstream::bind();
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()]).start();
    let mut origin: Option<Wire> = None;
    let last_failure = Cell::new(Instant::now());
    let mut fails = |status: u16| {
        let mut client = proxy.connect();
        client.send(get("/"));
        let origin = origin.get_or_insert_with(|| first.accept());
        origin.read_request();
        last_failure.set(Instant::now());
        origin.send(answer(status, "", ""));
        client.read_response("GET").status()
    };
    // as many move on as the budget has for them, the others are told of the failure; all count
    let moved = (0..5).filter(|_| fails(529) == 200).count();
    assert!(moved >= 3, "{moved}");
    assert_eq!(count(&second), moved);
    proxy.wait_for_line(|line| line.contains("failed repeatedly"));
    // open: the first one is not asked for a second, and then by one request, the probe
    let mut origin = origin.unwrap();
    let mut probe = loop {
        let mut client = proxy.connect();
        client.send(get("/probe"));
        if second.request_within(QUIET).is_none() {
            break client;
        }
        assert_eq!(client.read_response("GET").status(), 200);
    };
    assert!(last_failure.get().elapsed() >= Duration::from_secs(1));
    // while it is under way, others go on to the second
    assert_eq!(proxy.send(get("/meanwhile")).status(), 200);
    assert_eq!(second.request().0.target(), "/meanwhile");
    assert_eq!(origin.read_request().0.target(), "/probe");
    origin.send(OK);
    assert_eq!(probe.read_response("GET").content(), b"ok");
    let mut client = proxy.connect();
    client.send(get("/closed"));
    assert_eq!(origin.read_request().0.target(), "/closed");
    origin.send(OK);
    assert_eq!(client.read_response("GET").status(), 200);
}

#[test]
fn a_session_stays_where_it_was_answered() {
    let first = Upstream::bind();
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()]).start();
    let (mut client, mut origin) = proxy.exchange(&first, message("moved"));
    origin.send(answer(529, "", ""));
    assert_eq!(client.read_response("POST").status(), 200);
    second.request();
    // the session is at the second now, on any connection; another one is not
    for _ in 0..3 {
        assert_eq!(proxy.send(message("moved")).status(), 200);
        second.request();
    }
    client.send(message("other"));
    origin.read_request();
    origin.send(OK);
    assert_eq!(client.read_response("POST").status(), 200);
    // without a session id, the key is what stays together
    let keyed = "GET /v1/models HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\n\r\n";
    client.send(keyed);
    origin.read_request();
    origin.send(answer(503, "", ""));
    assert_eq!(client.read_response("GET").status(), 200);
    second.request();
    client.send(keyed);
    assert_eq!(client.read_response("GET").status(), 200);
    second.request();
}

#[test]
fn who_rests_is_asked_where_nobody_else_can_be_reached() {
    let second = Upstream::always(answer(503, "retry-after: 600\r\nx-who: second\r\n", "busy"));
    let proxy = before(&[&format!("http://{}", nobody()), &second.url()]).start();
    for _ in 0..8 {
        let response = proxy.send(get("/"));
        assert_eq!(response.head.one("x-who"), Some("second"));
    }
}

#[test]
fn who_asks_to_be_left_alone_is() {
    let first = Upstream::always(answer(503, "retry-after: 600\r\n", "busy"));
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()]).start();
    for _ in 0..5 {
        assert_eq!(proxy.send(get("/")).status(), 200);
        second.request();
    }
    assert_eq!(count(&first), 1);
}

#[test]
fn a_429_rests_an_upstream_only_where_the_key_is_ours() {
    for (keys, asked) in [(",", 3), ("sk-ours,sk-other", 1)] {
        let first = Upstream::always(answer(429, "retry-after: 600\r\n", "slow"));
        let second = Upstream::ok();
        let proxy = before(&[&first.url(), &second.url()])
            .env("UPSTREAM_API_KEYS", keys)
            .start();
        // it is passed on as it is, in either case
        assert_eq!(proxy.send(get("/")).status(), 429);
        for _ in 0..2 {
            proxy.send(get("/"));
        }
        assert_eq!(count(&first), asked, "{keys}");
    }
}

#[test]
fn each_upstream_gets_its_own_key_and_no_other() {
    let (first, second) = (Upstream::always(answer(529, "", "")), Upstream::ok());
    let third = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url(), &third.url()])
        .env("UPSTREAM_API_KEYS", "sk-first,Bearer second,")
        .file(
            "env/.env.headers.json",
            r#"{"x-api-key": "sk-of-all", "x-more": "1"}"#,
        )
        .start();
    let request =
        "GET / HTTP/1.1\r\nHost: x\r\nX-Api-Key: sk-theirs\r\nAuthorization: Bearer theirs\r\n\r\n";
    let credentials = |head: &Head| -> Vec<String> {
        let names = ["x-api-key", "authorization"];
        let all = names.iter().flat_map(|name| {
            head.all(name)
                .into_iter()
                .map(move |value| format!("{name}: {}", String::from_utf8_lossy(value)))
        });
        all.collect()
    };
    assert_eq!(proxy.send(request).status(), 200);
    let head = first.request().0;
    assert_eq!(credentials(&head), ["x-api-key: sk-first"]);
    assert_eq!(head.one("x-more"), Some("1"));
    assert_eq!(
        credentials(&second.request().0),
        ["authorization: Bearer second"]
    );
    assert!(!proxy.stderr().contains("sk-"), "{}", proxy.stderr());
}

#[test]
fn host_and_prefix_are_those_of_the_upstream_that_is_asked() {
    let (first, second) = (Upstream::always(answer(503, "", "")), Upstream::ok());
    let proxy = before(&[
        &format!("{}/a", first.url()),
        &format!("{}/b/c", second.url()),
    ])
    .start();
    proxy.send(get("/v1/models?x"));
    let head = first.request().0;
    assert_eq!(head.target(), "/a/v1/models?x");
    assert_eq!(head.one("host"), Some(&*first.addr().to_string()));
    let head = second.request().0;
    assert_eq!(head.target(), "/b/c/v1/models?x");
    assert_eq!(head.one("host"), Some(&*second.addr().to_string()));
}

#[test]
fn the_log_says_who_answered() {
    let (first, second) = (Upstream::always(answer(503, "", "")), Upstream::ok());
    let proxy = before(&[&first.url(), &second.url()]).start();
    proxy.send(get("/v1/models"));
    let by = format!("upstream={}", second.url());
    proxy.wait_for_line(|line| line.contains("status=200") && line.contains(&by));
}

#[test]
fn a_reload_changes_the_upstreams_and_keeps_what_is_known() {
    let (first, second, third) = (
        Upstream::always(answer(503, "retry-after: 600\r\n", "")),
        Upstream::ok(),
        Upstream::ok(),
    );
    let proxy = ProxyBuilder::new()
        .file(
            "env/.env",
            format!("API_BASE_URLS={},{}\n", first.url(), second.url()),
        )
        .start();
    assert_eq!(proxy.send(get("/")).status(), 200);
    first.request();
    second.request();
    proxy.write(
        "env/.env",
        format!("API_BASE_URLS={},{}\n", first.url(), third.url()),
    );
    proxy.wait_for_line(|line| line.contains("reloaded"));
    for _ in 0..4 {
        assert_eq!(proxy.send(get("/")).status(), 200);
        third.request();
    }
    assert_eq!(count(&first), 0, "it still rests");
    assert_eq!(count(&second), 0);
}

#[test]
fn a_client_that_leaves_between_two_upstreams_ends_both() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = before(&[&first.url(), &second.url()]).start();
    let (client, mut one) = proxy.exchange(&first, message("s"));
    one.send("HTTP/1.1 529 Busy\r\nContent-Length: 100\r\n\r\nhalf");
    let mut other = second.accept();
    other.read_request();
    drop(client);
    let second = std::time::Duration::from_secs(1);
    one.closed_within(second);
    other.closed_within(second);
}

#[test]
fn a_session_does_not_stay_where_it_was_turned_away() {
    let first = Upstream::bind();
    let second = Upstream::always(answer(401, "", "who?"));
    let proxy = before(&[&first.url(), &second.url()]).start();
    let (mut client, mut origin) = proxy.exchange(&first, message("s"));
    origin.send(answer(529, "", ""));
    assert_eq!(client.read_response("POST").status(), 401);
    second.request();
    // the first one knows its key, and is well again
    client.send(message("s"));
    origin.read_request();
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
    second.no_more();
}

#[test]
fn an_empty_session_id_is_none() {
    let first = Upstream::bind();
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()]).start();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nX-Claude-Code-Session-Id:\r\nx-api-key: k\r\n\r\n";
    let (mut client, mut origin) = proxy.exchange(&first, request);
    origin.send(answer(529, "", ""));
    for _ in 0..2 {
        assert_eq!(client.read_response("GET").status(), 200);
        second.request();
        client.send(request);
    }
}

#[test]
fn an_answer_about_the_client_opens_no_circuit() {
    let first = Upstream::always(answer(401, "", "who?"));
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()])
        .env("FAILOVER_STATUS", "401,429,529")
        .start();
    for _ in 0..8 {
        proxy.send(get("/"));
    }
    assert_eq!(count(&first), 8);
}

#[test]
fn after_an_answer_that_stands_the_rest_of_the_upload_is_no_request() {
    let first = Upstream::bind();
    let proxy = before(&[&first.url(), &format!("http://{}", nobody())]).start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &first,
        "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\none",
    );
    origin.read_exact(3);
    origin.send(answer(503, "", "busy"));
    let response = client.read_response("POST");
    assert_eq!((response.status(), response.content()), (503, &b"busy"[..]));
    // the body went on to the second and ended there, so the connection ends, too
    assert_eq!(response.head.one("connection"), Some("close"));
    let _ = client.try_send("twoendGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.read_to_end().0, b"");
    first.no_more();
}

#[test]
fn what_the_client_did_wrong_is_told_whatever_an_upstream_said_before() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = before(&[&first.url(), &second.url()]).start();
    let (mut client, mut origin) = proxy.begin_exchange(
        &first,
        "POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
    );
    origin.read_chunk();
    origin.send(answer(503, "", "busy"));
    let mut other = second.accept();
    other.read_request_head();
    other.read_chunk();
    client.send("nonsense\r\n");
    assert_eq!(client.read_response("POST").status(), 400);
}

#[test]
fn a_body_that_waits_for_100_continue_waits_at_the_next_upstream_too() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = before(&[&first.url(), &second.url()]).start();
    let request = "POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\
                   Expect: 100-continue\r\n\r\n";
    let mut client = proxy.connect();
    client.send(request);
    let mut one = first.accept();
    assert!(one.read_request_head().has("expect"));
    one.send(answer(503, "", ""));
    let mut other = second.accept();
    assert!(other.read_request_head().has("expect"));
    other.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.read_response_head().status(), 100);
    client.send("one");
    assert_eq!(other.read_exact(3), b"one");
    other.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
    // a body that the first one asked for is here: the next is sent it at once
    let proxy = before(&[&first.url(), &second.url()]).start();
    let (mut client, mut one) = proxy.begin_exchange(&first, request);
    one.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.read_response_head().status(), 100);
    client.send("one");
    assert_eq!(one.read_exact(3), b"one");
    one.send(answer(503, "", ""));
    let mut other = second.accept();
    assert!(!other.read_request_head().has("expect"));
    assert_eq!(other.read_exact(3), b"one");
    other.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
}

#[test]
fn a_credential_in_the_trailers_goes_nowhere() {
    for name in ["X-Api-Key", "authorization"] {
        let origin = Upstream::bind();
        let proxy = before(&[&origin.url(), &format!("http://{}", nobody())])
            .env("UPSTREAM_API_KEYS", "sk-ours,")
            .start();
        let (mut client, mut origin) = proxy.begin_exchange(&origin, format!(
            "POST /v1/x HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\none\r\n0\r\n{name}: sk-theirs\r\n\r\n"
        ));
        assert_eq!(origin.read_chunk(), b"one");
        assert_eq!(origin.read_trailers(), "");
        origin.send(OK);
        assert_eq!(client.read_response("POST").status(), 200);
    }
}

#[test]
fn a_client_of_http_2_moves_on_as_others_do() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = before(&[&first.url(), &second.url()])
        .env("H2C", "true")
        .env("UPSTREAM_API_KEYS", ",sk-ours")
        .start();
    let mut client = h2::Client::connect(&proxy);
    let mut asked = h2::request("POST", "/v1/files");
    let fields = asked.headers_mut();
    fields.insert("te", "trailers".parse().unwrap());
    fields.insert("x-api-key", "sk-theirs".parse().unwrap());
    let (response, mut stream) = client.send(asked, false);
    stream.send_data("one".into(), false).unwrap();
    let mut origin = first.accept();
    assert_eq!(
        origin.read_request_head().one("x-api-key"),
        Some("sk-theirs")
    );
    assert_eq!(origin.read_chunk(), b"one");
    origin.send(answer(503, "", "busy"));
    let mut origin = second.accept();
    assert_eq!(origin.read_request_head().one("x-api-key"), Some("sk-ours"));
    assert_eq!(origin.read_chunk(), b"one");
    stream.send_data("two".into(), false).unwrap();
    assert_eq!(origin.read_chunk(), b"two");
    // a credential in the trailers goes no further, either
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-api-key", "sk-theirs".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    assert_eq!(origin.read_trailers(), "");
    origin.send(OK);
    assert_eq!(client.answer(response).content, b"ok");
}

#[test]
fn an_answer_that_stands_ends_the_upload_of_http_2() {
    let first = Upstream::bind();
    let proxy = before(&[&first.url(), &format!("http://{}", nobody())])
        .env("H2C", "true")
        .start();
    let mut client = h2::Client::connect(&proxy);
    let (response, mut stream) = client.send(h2::request("POST", "/v1/files"), false);
    stream.send_data("one".into(), false).unwrap();
    let mut origin = first.accept();
    origin.read_request_head();
    origin.read_chunk();
    origin.send(answer(503, "", "busy"));
    let stands = client.answer(response);
    assert_eq!((stands.status(), &stands.content[..]), (503, &b"busy"[..]));
    client
        .wait(std::future::poll_fn(|cx| stream.poll_reset(cx)))
        .unwrap();
    // and the connection goes on
    let response = client.get("/");
    let mut origin = first.accept();
    origin.read_request();
    origin.send(OK);
    assert_eq!(client.answer(response).content, b"ok");
}

#[test]
fn a_reset_between_two_upstreams_ends_both() {
    let (first, second) = (Upstream::bind(), Upstream::bind());
    let proxy = before(&[&first.url(), &second.url()])
        .env("H2C", "true")
        .start();
    let mut client = h2::Client::connect(&proxy);
    let (_response, mut stream) = client.send(h2::request("GET", "/"), true);
    let mut one = first.accept();
    one.read_request();
    one.send("HTTP/1.1 529 Busy\r\nContent-Length: 100\r\n\r\nhalf");
    let mut other = second.accept();
    other.read_request();
    stream.send_reset(::h2::Reason::CANCEL);
    client.wait(async { tokio::task::yield_now().await });
    let second = std::time::Duration::from_secs(1);
    one.closed_within(second);
    other.closed_within(second);
}

/// A stream that begins like this, in one piece a chunk.
fn stream(pieces: &[&[u8]]) -> Vec<u8> {
    let mut octets = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
          Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    pieces.iter().for_each(|piece| octets.extend(chunk(piece)));
    octets.extend(chunk(b""));
    octets
}

const OVERLOADED: &[u8] = b"event: error\ndata: {\"type\":\"error\",\"error\":\
    {\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

#[test]
fn an_overloaded_error_as_the_first_event_moves_a_request_on() {
    let octets: Vec<&[u8]> = OVERLOADED.chunks(1).collect();
    let halves: Vec<&[u8]> = OVERLOADED.chunks(50).collect();
    for pieces in [&[OVERLOADED][..], &octets, &halves] {
        let first = Upstream::always(stream(pieces));
        let second = Upstream::ok();
        let proxy = before(&[&first.url(), &second.url()]).start();
        let request = post("/v1/messages", noise(100_000));
        assert_eq!(proxy.send(&request).content(), b"ok");
        assert_eq!(first.request().1, second.request().1);
    }
}

#[test]
fn overloaded_streams_open_the_circuit() {
    let first = Upstream::always(stream(&[OVERLOADED]));
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()]).start();
    for n in 0..8 {
        let response = proxy.send(message(&n.to_string()));
        // beyond the retry budget the stream itself is the answer
        assert!(matches!(response.content(), b"ok" | OVERLOADED));
    }
    assert_eq!(count(&first), 5);
}

#[test]
fn an_overloaded_stream_stands_where_the_next_does_no_better() {
    let first = Upstream::always(stream(&OVERLOADED.chunks(30).collect::<Vec<_>>()));
    for more in [&[][..], &[("FAILOVER_STATUS", "502,503")]] {
        let other = format!("http://{}", nobody());
        let proxy = before(&[&first.url(), &other]);
        let proxy = more
            .iter()
            .fold(proxy, |proxy, (name, value)| proxy.env(name, value));
        let response = proxy.start().send(message("s"));
        assert_eq!((response.status(), response.content()), (200, OVERLOADED));
        assert!(!response.head.has("x-proxy-error"));
    }
}

#[test]
fn a_stream_that_begins_otherwise_is_not_held() {
    let first = Upstream::bind();
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()]).start();
    let start =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    // `event: m` is enough, and so is an error that is no overload
    for (begins, rest) in [
        (&b"event: m"[..], &b"essage_start\ndata: {}\n\n"[..]),
        (
            b"event: error\ndata: {\"error\":{\"type\":\"api_error\"}}\n\n",
            b"more",
        ),
        (b": comment\n", OVERLOADED),
    ] {
        let (mut client, mut origin) = proxy.exchange(&first, message("s"));
        origin.send(start);
        origin.send(chunk(begins));
        client.read_response_head();
        assert_eq!(client.read_chunk(), begins);
        origin.send(chunk(rest));
        origin.send(chunk(b""));
        assert_eq!(client.read_chunked(), Body::Chunked(rest.to_vec()));
        drop(origin);
    }
    // a head without content is not waited for: it goes out after a while
    let (mut client, mut origin) = proxy.exchange(&first, message("s"));
    origin.send(start);
    assert_eq!(client.read_response_head().status(), 200);
    // then it is too late
    origin.send(chunk(OVERLOADED));
    assert_eq!(client.read_chunk(), OVERLOADED);
    second.no_more();
}

#[test]
fn a_stream_that_is_cut_in_its_first_event_is_cut_for_the_client() {
    let first = Upstream::bind();
    let second = Upstream::ok();
    let proxy = before(&[&first.url(), &second.url()]).start();
    let (mut client, mut origin) = proxy.exchange(&first, message("s"));
    let octets = stream(&[OVERLOADED]);
    origin.send(&octets[..octets.len() - 60]);
    drop(origin);
    let head = client.read_response_head();
    assert_eq!(head.status(), 200);
    assert!(matches!(
        client.read_response_body("POST", &head),
        Body::Cut(..)
    ));
    second.no_more();
}

#[test]
fn with_one_upstream_a_stream_is_not_looked_at() {
    let origin = Upstream::bind();
    let proxy = before(&[&origin.url()]).start();
    let (mut client, mut origin) = proxy.exchange(&origin, message("s"));
    origin.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.read_response_head().status(), 200);
    origin.send(chunk(b"event: err"));
    assert_eq!(client.read_chunk(), b"event: err");
}
