//! docs/contract.md §2: targets, fields and answers pass as they came; what is hop-by-hop does not.

use crate::support::{
    Head, Proxy, Response, Upstream, assert_proxy_error, get, noise, upstream::OK, wire::show,
};

/// The head that the upstream sees of a request, and the answer to it.
#[track_caller]
fn forward(request: impl AsRef<[u8]>) -> (Head, Response) {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let response = proxy.send(request);
    (upstream.request().0, response)
}

/// The answer that a client sees of one by the upstream.
#[track_caller]
fn relay(answer: impl Into<Vec<u8>>) -> Response {
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url()).start();
    let response = proxy.send(get("/"));
    upstream.request();
    upstream.no_more();
    response
}

fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: proxy.test\r\n{fields}\r\n")
}

#[test]
fn targets_pass_verbatim() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for target in [
        "/",
        "/v1/models",
        "/v1/messages?beta=true",
        "/%7Euser/%2F%2f%20",
        "//",
        "//double//slash//",
        "/a/../b/./c/..",
        "/..",
        "/?",
        "/path?",
        "/path?a=b&&c=%26&a=b",
        "/path?q=a/../b//c?d",
        "/%",
        "/%zz",
        "/;p=1/:@!$&'()*+,=",
        "/path#fragment?no=query",
        "/?a#b",
        "/[brackets]{braces}|pipe",
        "/health/",
        "/livez2",
        "/a\"b",
        "/é?ü=ß",
    ] {
        let response = proxy.send(get(target));
        assert_eq!(response.status(), 200, "{target}");
        assert_eq!(upstream.request().0.target(), target);
    }
}

#[test]
fn a_prefix_of_the_base_url_goes_before_the_target() {
    for (suffix, target, expected) in [
        ("/", "/v1/models", "/v1/models"),
        (
            "/api/anthropic",
            "/v1/models?x=1",
            "/api/anthropic/v1/models?x=1",
        ),
        ("/api/anthropic/", "/v1/models", "/api/anthropic/v1/models"),
        ("/api", "//x/../y?", "/api//x/../y?"),
        ("/a%20b", "/", "/a%20b/"),
    ] {
        let upstream = Upstream::ok();
        let proxy = Proxy::to(upstream.url() + suffix).start();
        proxy.send(get(target));
        assert_eq!(
            upstream.request().0.target(),
            expected,
            "{suffix} + {target}"
        );
    }
}

#[test]
fn a_long_target_passes() {
    let target = format!("/{}?{}", "p".repeat(8_000), "q".repeat(24_000));
    assert_eq!(forward(get(&target)).0.target(), target);
}

#[test]
fn an_absolute_form_target_is_forwarded_in_origin_form() {
    let (head, _) = forward("GET http://proxy.test/x?y HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
    assert_eq!(head.target(), "/x?y");
}

#[test]
fn an_asterisk_form_target_passes_without_the_prefix() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url() + "/prefix").start();
    proxy.send("OPTIONS * HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
    assert_eq!(upstream.request().0.target(), "*");
}

#[test]
fn unknown_methods_pass() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for method in [
        "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW", "M-SEARCH",
    ] {
        let request = format!("{method} /x HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
        assert_eq!(proxy.send(request).status(), 200, "{method}");
        assert_eq!(upstream.request().0.method(), method);
    }
}

#[test]
fn a_request_gains_nothing_but_host_and_forwarded_fields() {
    let (head, _) = forward(get("/"));
    let names = [
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];
    assert_eq!(head.names(), names, "{}", show(&head.octets));
    assert_eq!(head.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.one("x-forwarded-host"), Some("proxy.test"));
    assert_eq!(head.one("x-forwarded-proto"), Some("http"));
}

#[test]
fn a_post_gains_no_content_type() {
    let request = "POST /x HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: 2\r\n\r\n{}";
    let (head, _) = forward(request);
    for name in [
        "content-type",
        "date",
        "via",
        "user-agent",
        "accept-encoding",
        "accept",
    ] {
        assert!(!head.has(name), "{name}: {}", show(&head.octets));
    }
}

#[test]
fn host_becomes_the_upstreams_authority() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    proxy.send(get("/"));
    let authority = upstream.addr().to_string();
    assert_eq!(upstream.request().0.one("host"), Some(authority.as_str()));
}

#[test]
fn host_is_the_clients_with_preserve_host() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("PRESERVE_HOST", "true")
        .start();
    proxy.send("GET / HTTP/1.1\r\nHost: Client.Example:8443\r\n\r\n");
    assert_eq!(
        upstream.request().0.one("host"),
        Some("Client.Example:8443")
    );
}

#[test]
fn forwarded_for_is_appended() {
    let (head, _) = forward(with("X-Forwarded-For: 203.0.113.7, 10.0.0.1\r\n"));
    assert_eq!(
        list(&head, "x-forwarded-for"),
        "203.0.113.7, 10.0.0.1, 127.0.0.1"
    );
}

#[test]
fn forwarded_for_is_appended_after_the_last_of_several_fields() {
    let (head, _) = forward(with(
        "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 10.0.0.1\r\n",
    ));
    assert_eq!(
        list(&head, "x-forwarded-for"),
        "203.0.113.7, 10.0.0.1, 127.0.0.1"
    );
}

#[test]
fn forwarded_proto_and_host_of_the_client_stay() {
    let (head, _) = forward(with(
        "X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer.example\r\n",
    ));
    assert_eq!(head.one("x-forwarded-proto"), Some("https"));
    assert_eq!(head.one("x-forwarded-host"), Some("outer.example"));
}

#[test]
fn hop_by_hop_fields_of_a_request_are_removed() {
    let (head, response) = forward(with(
        "Connection: keep-alive, X-Hop , x-other-hop\r\nKeep-Alive: timeout=5\r\n\
         X-Hop: 1\r\nx-other-hop: 2\r\nX-End: 3\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic eDp5\r\nProxy-Authenticate: x\r\nProxy-Unknown: x\r\n\
         TE: gzip\r\n",
    ));
    assert_eq!(response.status(), 200);
    for name in [
        "keep-alive",
        "x-hop",
        "x-other-hop",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "proxy-unknown",
        "te",
        "upgrade",
    ] {
        assert!(!head.has(name), "{name}: {}", show(&head.octets));
    }
    assert_eq!(head.one("x-end"), Some("3"));
}

#[test]
fn several_connection_fields_count_together() {
    let (head, _) = forward(with(
        "Connection: x-a\r\nX-A: 1\r\nX-B: 2\r\nConnection: ,,x-b,\r\nX-C: 3\r\n",
    ));
    assert!(
        !head.has("x-a") && !head.has("x-b"),
        "{}",
        show(&head.octets)
    );
    assert_eq!(head.one("x-c"), Some("3"));
}

#[test]
fn te_trailers_is_kept() {
    assert_eq!(
        forward(with("TE: trailers\r\n")).0.one("te"),
        Some("trailers")
    );
    let (head, _) = forward(with("Connection: TE\r\nTE: gzip;q=0.5, trailers\r\n"));
    assert_eq!(head.one("te"), Some("trailers"));
}

#[test]
fn connection_cannot_remove_what_the_exchange_depends_on() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let response = proxy.send(
        "POST /x HTTP/1.1\r\nHost: proxy.test\r\n\
         Connection: content-length, authorization, x-api-key, host\r\n\
         Connection: x-forwarded-for, anthropic-version, anthropic-beta, content-type\r\n\
         Content-Length: 2\r\nAuthorization: Bearer t\r\nX-Api-Key: k\r\n\
         X-Forwarded-For: 203.0.113.7\r\nAnthropic-Version: 2023-06-01\r\n\
         Anthropic-Beta: b\r\nContent-Type: application/json\r\n\r\n{}",
    );
    assert_eq!(response.status(), 200);
    let (head, body) = upstream.request();
    assert_eq!(body.content(), b"{}");
    let authority = upstream.addr().to_string();
    for (name, value) in [
        ("content-length", "2"),
        ("authorization", "Bearer t"),
        ("x-api-key", "k"),
        ("host", authority.as_str()),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "b"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(head.one(name), Some(value), "{}", show(&head.octets));
    }
    assert_eq!(list(&head, "x-forwarded-for"), "203.0.113.7, 127.0.0.1");
}

#[test]
fn duplicate_request_fields_keep_their_order() {
    let (head, _) = forward(with(
        "anthropic-beta: one\r\nX-Between: 1\r\nAnthropic-Beta: two,three\r\n\
         anthropic-beta: \r\nanthropic-beta: one\r\n",
    ));
    let values: [&[u8]; 4] = [b"one", b"two,three", b"", b"one"];
    assert_eq!(head.all("anthropic-beta"), values);
}

#[test]
fn request_values_pass_octet_for_octet() {
    let mut request = b"GET / HTTP/1.1\r\nHost: proxy.test\r\nX-Empty:\r\nX-Text: ".to_vec();
    request.extend((0x80..=0xff).chain(b"\ta \" b'".iter().copied()));
    request.extend_from_slice(b"\r\nX-Empty-Too:   \r\n\r\n");
    let (head, _) = forward(request);
    assert_eq!(head.all("x-empty"), [b""]);
    assert_eq!(head.all("x-empty-too"), [b""]);
    let text: Vec<u8> = (0x80..=0xff).chain(b"\ta \" b'".iter().copied()).collect();
    assert_eq!(head.all("x-text"), [text]);
}

#[test]
fn unusual_field_names_pass() {
    let (head, _) = forward(with(
        "X!#$%&'*+-.^_`|~9: 1\r\nx_under_score: 2\r\nCookie: a=1; b=2\r\n",
    ));
    assert_eq!(head.one("x!#$%&'*+-.^_`|~9"), Some("1"));
    assert_eq!(head.one("x_under_score"), Some("2"));
    assert_eq!(head.one("cookie"), Some("a=1; b=2"));
}

#[test]
fn both_keys_of_a_client_pass() {
    let (head, _) = forward(with(
        "x-api-key: sk-ant-1\r\nAuthorization: Bearer tok\r\nAccept-Encoding: gzip, br, zstd\r\n",
    ));
    assert_eq!(head.one("x-api-key"), Some("sk-ant-1"));
    assert_eq!(head.one("authorization"), Some("Bearer tok"));
    assert_eq!(head.one("accept-encoding"), Some("gzip, br, zstd"));
}

#[test]
fn ninety_fields_of_a_client_pass() {
    let fields: String = (0..89).map(|at| format!("X-{at}: {at}\r\n")).collect();
    let (head, response) = forward(with(&fields));
    assert_eq!(response.status(), 200);
    for at in 0..89 {
        assert_eq!(head.one(&format!("x-{at}")), Some(at.to_string().as_str()));
    }
}

#[test]
fn more_fields_pass_whole_or_are_431() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for count in [95, 96, 97, 100, 200, 256] {
        let fields: String = (1..count).map(|at| format!("X-{at}: {at}\r\n")).collect();
        let response = proxy.send(with(&fields));
        if response.status() == 200 {
            let (head, _) = upstream.request();
            let passed = head.names().iter().filter(|name| name.len() < 6).count();
            assert_eq!(passed, count, "`x-*` and `host`: {}", show(&head.octets));
        } else {
            assert_proxy_error(&response, 431, "invalid_request_error", "head_too_large");
            upstream.no_more();
        }
    }
}

#[test]
fn more_than_256_fields_of_a_client_are_431() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let fields: String = (0..256).map(|at| format!("X-{at}: {at}\r\n")).collect();
    let response = proxy.send(with(&fields));
    assert_proxy_error(&response, 431, "invalid_request_error", "head_too_large");
    upstream.no_more();
}

#[test]
fn a_request_head_of_60_kib_passes() {
    let value = "v".repeat(60 * 1024);
    let (head, _) = forward(with(&format!("X-Large: {value}\r\n")));
    assert_eq!(head.one("x-large"), Some(value.as_str()));
}

#[test]
fn a_request_head_above_64_kib_is_431_and_closed() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    // The proxy may close before it has read all of this.
    let _ = client.try_send(with(&format!("X-Large: {}\r\n", "v".repeat(66 * 1024))));
    let response = client.read_response("GET");
    assert_proxy_error(&response, 431, "invalid_request_error", "head_too_large");
    assert_eq!(client.read_to_end().0, b"");
    upstream.no_more();
}

#[test]
fn a_request_target_above_64_kib_is_431_and_closed() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    let _ = client.try_send(get(&format!("/{}", "p".repeat(70 * 1024))));
    let response = client.read_response("GET");
    assert_proxy_error(&response, 431, "invalid_request_error", "head_too_large");
    upstream.no_more();
}

#[test]
fn custom_fields_replace_the_clients() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .file(
            "env/.env.headers.json",
            r#"{"__comment": "not a field", "X-Api-Key": "ours", "__x": 1, "X-New": "héllo"}"#,
        )
        .start();
    proxy.send(with(
        "x-api-key: theirs\r\nX-API-KEY: theirs too\r\nX-Kept: 1\r\n",
    ));
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-api-key"), Some("ours"));
    assert_eq!(head.one("x-new"), Some("héllo"));
    assert_eq!(head.one("x-kept"), Some("1"));
    assert!(
        !head.names().iter().any(|name| name.starts_with("__")),
        "{}",
        show(&head.octets)
    );
}

#[test]
fn the_headers_file_may_be_elsewhere() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("HEADERS_FILE", "elsewhere.json")
        .file("elsewhere.json", r#"{"x-here": "1"}"#)
        .start();
    proxy.send(get("/"));
    assert_eq!(upstream.request().0.one("x-here"), Some("1"));
}

#[test]
fn a_response_gains_nothing() {
    let response = relay(OK);
    assert_eq!(
        response.head.names(),
        ["content-length"],
        "{}",
        show(&response.head.octets)
    );
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let response = relay(chunked);
    assert_eq!(
        response.head.names(),
        ["transfer-encoding"],
        "{}",
        show(&response.head.octets)
    );
    let response = relay("HTTP/1.1 204 No Content\r\n\r\n");
    assert!(
        response.head.fields.is_empty(),
        "{}",
        show(&response.head.octets)
    );
}

#[test]
fn hop_by_hop_fields_of_a_response_are_removed() {
    let response = relay(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive, content-length\r\n\
         Keep-Alive: timeout=5\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-End: 1\r\nContent-Length: 2\r\n\r\nok",
    );
    let names = ["content-length", "x-end"];
    assert_eq!(
        response.head.names(),
        names,
        "{}",
        show(&response.head.octets)
    );
}

#[test]
fn response_fields_pass_octet_for_octet_and_in_order() {
    let response = relay(
        b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: cloudflare\r\n\
          Set-Cookie: a=1; Path=/\r\nX-Between:\r\nSet-Cookie: b=2\r\nset-cookie: a=1; Path=/\r\n\
          X-Text: \x80\xff caf\xe9\r\nrequest-id: req_upstream\r\nVia: 1.1 google\r\n\
          anthropic-ratelimit-tokens-remaining: 1\r\nContent-Length: 0\r\n\r\n",
    );
    let head = &response.head;
    let cookies: [&[u8]; 3] = [b"a=1; Path=/", b"b=2", b"a=1; Path=/"];
    assert_eq!(head.all("set-cookie"), cookies);
    assert_eq!(head.all("x-between"), [b""]);
    assert_eq!(head.all("x-text"), [b"\x80\xff caf\xe9"]);
    assert_eq!(head.one("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    assert_eq!(head.one("server"), Some("cloudflare"));
    assert_eq!(head.one("request-id"), Some("req_upstream"));
    assert_eq!(head.one("via"), Some("1.1 google"));
    assert_eq!(head.one("anthropic-ratelimit-tokens-remaining"), Some("1"));
    assert_eq!(head.fields.len(), 11, "{}", show(&head.octets));
}

#[test]
fn a_response_of_256_fields_passes() {
    let fields: String = (0..255).map(|at| format!("X-{at}: {at}\r\n")).collect();
    let response = relay(format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"
    ));
    assert_eq!(response.status(), 200, "{}", show(&response.head.octets));
    assert_eq!(response.content(), b"ok");
    for at in 0..255 {
        assert_eq!(
            response.head.one(&format!("x-{at}")),
            Some(at.to_string().as_str())
        );
    }
}

#[test]
fn a_response_of_257_fields_is_502() {
    let fields: String = (0..256).map(|at| format!("X-{at}: {at}\r\n")).collect();
    let response = relay(format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"
    ));
    assert_proxy_error(
        &response,
        502,
        "api_error",
        "http_response_header_section_size",
    );
}

#[test]
fn a_response_head_of_60_kib_passes() {
    let value = "v".repeat(60 * 1024);
    let response = relay(format!(
        "HTTP/1.1 200 OK\r\nX-Large: {value}\r\nContent-Length: 2\r\n\r\nok"
    ));
    assert_eq!(response.head.one("x-large"), Some(value.as_str()));
    assert_eq!(response.content(), b"ok");
}

#[test]
fn a_response_head_above_64_kib_is_502() {
    let value = "v".repeat(70 * 1024);
    let response = relay(format!(
        "HTTP/1.1 200 OK\r\nX-Large: {value}\r\nContent-Length: 2\r\n\r\nok"
    ));
    assert_proxy_error(
        &response,
        502,
        "api_error",
        "http_response_header_section_size",
    );
}

#[test]
fn redirects_are_relayed_and_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let response = relay(format!(
            "HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:9/else\r\nContent-Length: 2\r\n\r\nok"
        ));
        assert_eq!(response.status(), status);
        assert_eq!(
            response.head.one("location"),
            Some("http://127.0.0.1:9/else")
        );
        assert_eq!(response.content(), b"ok");
    }
}

#[test]
fn errors_of_the_upstream_pass_verbatim() {
    for status in [
        400, 401, 403, 404, 413, 429, 500, 502, 504, 520, 524, 529, 599,
    ] {
        let content =
            format!(r#"{{"type":"error","error":{{"type":"x","message":"{status} …"}}}}"#);
        let response = relay(format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json; charset=utf-8\r\n\
             request-id: req_theirs\r\nretry-after: 7\r\nX-Should-Retry: true\r\n\
             Content-Length: {}\r\n\r\n{content}",
            content.len()
        ));
        assert_eq!(response.status(), status);
        assert_eq!(response.content(), content.as_bytes());
        let head = &response.head;
        assert_eq!(
            head.one("content-type"),
            Some("application/json; charset=utf-8")
        );
        assert_eq!(head.one("request-id"), Some("req_theirs"));
        assert_eq!(head.one("retry-after"), Some("7"));
        assert_eq!(head.one("x-should-retry"), Some("true"));
        assert_eq!(head.fields.len(), 5, "{}", show(&head.octets));
    }
}

#[test]
fn encoded_bodies_pass_untouched() {
    let content = gzip(&noise(50_000));
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    answer.extend_from_slice(&content);
    let upstream = Upstream::always(answer);
    let proxy = Proxy::to(upstream.url()).start();
    let mut request = format!(
        "POST /v1/files HTTP/1.1\r\nHost: proxy.test\r\nContent-Encoding: gzip\r\n\
         Accept-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    request.extend_from_slice(&content);
    let response = proxy.send(request);
    assert!(response.content() == content, "the answer's gzip differs");
    assert_eq!(response.head.one("content-encoding"), Some("gzip"));
    let (head, body) = upstream.request();
    assert!(body.content() == content, "the request's gzip differs");
    assert_eq!(head.one("content-encoding"), Some("gzip"));
    assert_eq!(head.one("accept-encoding"), Some("gzip"));
}

fn list(head: &Head, name: &str) -> String {
    let values = head.all(name).join(&b", "[..]);
    String::from_utf8(values).unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn fields_are_removed_and_forwarded_ones_dropped_when_asked() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("FORWARDED_HEADERS", "drop")
        .file(
            "env/.env.headers.json",
            r#"{"cf-connecting-ip": null, "CDN-Loop": null, "x-ours": "1"}"#,
        )
        .start();
    proxy.send(
        "GET / HTTP/1.1\r\nHost: x\r\nCF-Connecting-IP: 1.1.1.1\r\ncdn-loop: a\r\n\
         X-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nx-kept: 2\r\n\r\n",
    );
    let (head, _) = upstream.request();
    let names: Vec<&str> = head.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["host", "x-kept", "x-ours"]);
}
