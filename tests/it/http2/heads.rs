//! Heads over HTTP/2 that are refused or translated, and the end of a connection.

use std::thread;

use h2::Reason;

use super::{h2c, setup};
use crate::support::{
    End, Proxy, QUIET, Upstream, contains, get,
    h2::{
        ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED,
        PREFACE, PRIORITY_FLAG, RST_STREAM, SETTINGS, block, get_block, raw, request,
    },
    wire::assert_octets,
};

#[test]
fn malformed_requests_are_refused_on_their_stream_only() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut wire = raw(&proxy);
    let method = (":method", "GET");
    let (scheme, authority, path) = ((":scheme", "http"), (":authority", "a"), (":path", "/"));
    let whole = [method, scheme, authority, path];
    let mut cases: Vec<Vec<(&str, &str)>> = vec![
        vec![scheme, authority, path],
        vec![method, authority, path],
        vec![method, scheme, authority],
        vec![method, method, scheme, authority, path],
        vec![method, scheme, authority, path, (":status", "200")],
        vec![method, scheme, authority, ("x", "y"), path],
    ];
    for field in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "5"),
        ("proxy-connection", "x"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("content-length", "1"),
        ("content-length", "x"),
    ] {
        cases.push([&whole[..], &[field]].concat());
    }
    let mut stream = 1;
    for fields in &cases {
        wire.send_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields));
        let reset = wire.read_until(RST_STREAM);
        assert_eq!(
            (reset.stream, reset.reason()),
            (stream, Reason::PROTOCOL_ERROR),
            "{fields:?}"
        );
        stream += 2;
    }
    // content that is not as long as it was said
    let fields = [&whole[..], &[("content-length", "5")]].concat();
    for content in [&b"four"[..], b"sixsix"] {
        wire.send_frame(HEADERS, END_HEADERS, stream, &block(&fields));
        wire.send_frame(DATA, END_STREAM, stream, content);
        let reset = wire.read_until(RST_STREAM);
        assert_eq!(
            (reset.stream, reset.reason()),
            (stream, Reason::PROTOCOL_ERROR)
        );
        stream += 2;
    }
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&whole));
    assert_eq!(wire.read_until(HEADERS).stream, stream);
    let mut client = Client::connect(&proxy);
    for (name, value, label) in [
        ("host", "another.test", "invalid_host"),
        ("x", " y", "malformed_head"),
    ] {
        let mut request = request("GET", "/");
        request.headers_mut().insert(name, value.parse().unwrap());
        let (response, _) = client.send(request, true);
        let answer = client.answer(response);
        answer.assert_proxy_error(400, "invalid_request_error", label);
    }
    let asked = http::Request::builder()
        .method("CONNECT")
        .uri("proxy.test:443");
    let (response, _) = client.send(asked.body(()).unwrap(), false);
    let answer = client.answer(response);
    answer.assert_proxy_error(400, "invalid_request_error", "unsupported_target");
    // a name in upper case costs the connection: h2 takes it for a broken table
    let mut wire = raw(&proxy);
    let fields = [&whole[..], &[("X", "y")]].concat();
    wire.send_frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
    let goaway = loop {
        let frame = wire.read_frame();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(goaway.reason(), Reason::PROTOCOL_ERROR);
}

#[test]
fn a_path_with_a_fragment_is_refused_and_not_cut() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut wire = raw(&proxy);
    let others = |method: u8| {
        let mut octets = vec![method, 0x86];
        octets.extend(b"\x01\x0aproxy.test");
        octets
    };
    let get = |path: &[u8]| [&others(0x82)[..], path].concat();
    let ends = END_HEADERS | END_STREAM;
    let headers = |block: Vec<u8>| vec![(HEADERS, ends, block)];
    let literal = |start: &[u8], path: &[u8]| [start, &[path.len() as u8], path].concat();
    let cut = |at: usize| {
        let block = get(&literal(b"\x04", b"/v1/messages#x"));
        let (start, rest) = block.split_at(at);
        vec![
            (HEADERS, END_STREAM, start.to_vec()),
            (CONTINUATION, END_HEADERS, rest.to_vec()),
        ]
    };
    let end = get(b"").len();
    let padded = |path: &[u8]| {
        // the padding begins like another path
        let padding = b"\x04\x03/#x\0";
        let block = [&[padding.len() as u8], &get(path)[..], padding].concat();
        vec![(HEADERS, ends | PADDED, block)]
    };
    let weighed = |path: &[u8]| {
        let block = [&[0, 0, 0, 0, 15], &get(path)[..]].concat();
        vec![(HEADERS, ends | PRIORITY_FLAG, block)]
    };
    // RFC 7541 appendix B: `/#` and `:path`
    let huffman: &[u8] = &[0x83, 0x63, 0xfe, 0xbf];
    let huffman_name: &[u8] = &[0x84, 0xb9, 0x58, 0xd3, 0x3f];
    let mut stream = 1;
    for (what, frames, target) in [
        (
            "raw",
            headers(get(&literal(b"\x04", b"/v1/messages#x"))),
            None,
        ),
        (
            "its end",
            headers(get(&literal(b"\x04", b"/v1/messages#"))),
            None,
        ),
        (
            "in a query",
            headers(get(&literal(b"\x04", b"/a?b#c"))),
            None,
        ),
        (
            "by name",
            headers(get(&literal(b"\0\x05:path", b"/#"))),
            None,
        ),
        (
            "never indexed",
            headers(get(&literal(b"\x14", b"/#"))),
            None,
        ),
        ("Huffman", headers(get(&[&[0x04], huffman].concat())), None),
        (
            "Huffman in name and value",
            headers(get(&[&[0], huffman_name, huffman].concat())),
            None,
        ),
        ("within the name", cut(end + 1), None),
        ("within the value", cut(end + 14), None),
        ("at the end", cut(end + 16), None),
        ("padded", padded(&literal(b"\x04", b"/#")), None),
        ("padded without", padded(&literal(b"\x04", b"/")), Some("/")),
        ("with a priority", weighed(&literal(b"\x04", b"/#")), None),
        (
            "weighed without",
            weighed(&literal(b"\x04", b"/a")),
            Some("/a"),
        ),
        ("added", headers(get(&literal(b"\x44", b"/added#"))), None),
        ("indexed", headers(get(&[0xbe])), None),
        (
            "the name of an entry",
            headers(get(&literal(b"\x0f\x2f", b"/other#"))),
            None,
        ),
        (
            "the name of an entry without",
            headers(get(&literal(b"\x0f\x2f", b"/other"))),
            Some("/other"),
        ),
        (
            "added without",
            headers(get(&literal(b"\x44", b"/whole"))),
            Some("/whole"),
        ),
        ("indexed without", headers(get(&[0xbe])), Some("/whole")),
        ("indexed before", headers(get(&[0xbf])), None),
        // the table has room for the newer entry only
        (
            "evicted",
            headers([&[0x3f, 0x21], &get(&[0xbe])[..]].concat()),
            Some("/whole"),
        ),
        (
            "another field",
            headers(get(&[&[0x84], &literal(b"\0\x01x", b"/#")[..]].concat())),
            Some("/"),
        ),
        (
            "a POST",
            headers([&others(0x83)[..], &literal(b"\x04", b"/v1/messages#x")].concat()),
            None,
        ),
        ("the end", headers(get(&[0x84])), Some("/")),
    ] {
        for (kind, flags, payload) in &frames {
            wire.send_frame(*kind, *flags, stream, payload);
        }
        let head = wire.read_until(HEADERS);
        assert_eq!(head.stream, stream, "{what}");
        let content = wire.read_until(DATA).payload;
        match target {
            Some(target) => {
                assert_octets(&content, b"ok", what);
                assert_eq!(upstream.request().0.target(), target, "{what}");
            }
            None => {
                assert!(contains(&content, b"invalid_request_error"), "{what}");
                assert!(contains(&content, b"fragment"), "{what}");
                assert!(upstream.try_request().is_none(), "{what}");
            }
        }
        stream += 2;
    }
    upstream.no_more();
}

#[test]
fn paths_with_a_fragment_do_not_change_those_beside_them() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut wire = raw(&proxy);
    let mut octets = Vec::new();
    // more than may run: some are refused, and none of them is taken for another
    for number in 0..120 {
        let target = if number % 2 == 0 { "/kept" } else { "/cut#" };
        let block = get_block(target);
        let stream = 2 * number + 1;
        octets.extend(Frame::octets(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &block,
        ));
    }
    wire.send(octets);
    let (mut kept, mut cut, mut refused) = (0, 0, 0);
    while kept + cut + refused < 120 {
        let frame = wire.read_frame();
        match frame.kind {
            DATA if frame.stream % 4 == 1 => {
                assert_octets(&frame.payload, b"ok", "it is forwarded");
                kept += 1;
            }
            DATA => {
                assert!(contains(&frame.payload, b"fragment"), "{frame:?}");
                cut += 1;
            }
            RST_STREAM => {
                assert_eq!(frame.reason(), Reason::REFUSED_STREAM);
                refused += 1;
            }
            GOAWAY => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert!(kept >= 50 && cut >= 50, "{kept} {cut} {refused}");
    for _ in 0..kept {
        assert_eq!(upstream.request().0.target(), "/kept");
    }
    upstream.no_more();
}

#[test]
fn an_extended_connect_that_is_refused_gets_the_upstreams_answer() {
    let (upstream, proxy) = setup();
    let mut client = Client::connect(&proxy);
    let response = client.get("/health");
    client.answer(response);
    assert!(client.knows_extended_connect());
    let mut asked = request("CONNECT", "/chat");
    asked
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    let (response, _stream) = client.send(asked, false);
    let mut origin = upstream.accept();
    assert_eq!(origin.read_request_head().line, "GET /chat HTTP/1.1");
    origin.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let answer = client.answer(response);
    assert_eq!((answer.status(), &answer.content[..]), (403, &b"no"[..]));
}

#[test]
fn an_extended_connect_to_http_itself_is_refused() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut client = Client::connect(&proxy);
    let response = client.get("/health");
    client.answer(response);
    for protocol in [
        "h2c",
        "H2C",
        "h2c-14",
        "HTTP/2.0",
        "http/1.1",
        "TLS/1.0",
        "tls",
        "websocket, h2c",
        "web socket",
    ] {
        let mut asked = request("CONNECT", "/v1/messages");
        asked
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static(protocol));
        let settings = http::HeaderValue::from_static("AAMAAABkAAQAAP__");
        asked.headers_mut().insert("http2-settings", settings);
        let (response, _stream) = client.send(asked, false);
        let answer = client.answer(response);
        answer.assert_proxy_error(501, "invalid_request_error", "unsupported_protocol");
    }
    upstream.no_more();
    // and the connection serves on
    let response = client.get("/");
    assert_eq!(client.answer(response).content, b"ok");
}

#[test]
fn a_drain_lets_streams_end() {
    let (upstream, proxy) = setup();
    let mut idle = raw(&proxy);
    idle.read_until(SETTINGS);
    idle.send_frame(SETTINGS, ACK, 0, &[]);
    let mut client = Client::connect(&proxy);
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
    let (head, mut body) = client.head(response).into_parts();
    assert_eq!(client.chunk(&mut body), "ha");
    proxy.signal("TERM");
    let goaway = loop {
        let frame = idle.read_frame();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(goaway.reason(), Reason::NO_ERROR);
    drop(idle);
    origin.send("lf");
    let answer = client.rest(head, body);
    assert_eq!(answer.content, b"lf");
    answer.end.unwrap();
    drop(client);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_cut_looks_like_none_of_its_ends() {
    let upstream = Upstream::bind();
    let proxy = h2c(upstream.url()).env("SHUTDOWN_TIMEOUT", "200ms").start();
    let mut client = Client::connect(&proxy);
    let response = client.get("/");
    let mut origin = upstream.accept();
    origin.read_request();
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    let (head, body) = client.head(response).into_parts();
    proxy.signal("TERM");
    let answer = client.rest(head, body);
    assert!(answer.end.is_err(), "{answer:?}");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn without_h2c_the_preface_is_refused() {
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    let mut wire = proxy.connect();
    wire.send(PREFACE);
    let answer = wire.read_response("");
    assert_eq!(
        answer.head.one("x-proxy-error"),
        Some("unsupported_version")
    );
    assert_eq!(answer.status(), 400);
}

#[test]
fn a_preface_may_come_in_pieces_and_http_1_beside_it() {
    let upstream = Upstream::ok();
    let proxy = h2c(upstream.url()).start();
    let mut octets = PREFACE.to_vec();
    octets.extend(Frame::octets(SETTINGS, 0, 0, &[]));
    octets.extend(Frame::octets(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &get_block("/"),
    ));
    for cut in [1, 3, 17, 23, 24, 30, octets.len()] {
        let mut wire = proxy.connect();
        wire.send(&octets[..cut]);
        if cut < octets.len() {
            thread::sleep(QUIET / 10);
        }
        wire.send(&octets[cut..]);
        assert_eq!(wire.read_until(DATA).payload, b"ok", "{cut}");
    }
    let mut wire = proxy.connect();
    wire.send_split(get("/1").as_bytes());
    assert_eq!(wire.read_response("").content(), b"ok");
    // begins as the preface does
    let answer = proxy.send("PRI /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.content(), b"ok");
    let mut wire = proxy.connect();
    wire.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert_eq!(wire.read_response("").status(), 400);
    assert_eq!(wire.read_to_end().1, End::Fin);
}
