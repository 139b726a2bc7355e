//! Heads, content and trailers over HTTP/2 to the upstream.

use std::thread;

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::{Server, channel, http2, next, send_all};
use crate::support::{get, noise, post, wire::assert_octets};

#[test]
fn big_bodies_pass_both_ways_at_once() {
    let server = Server::new(|mut asked| {
        Box::pin(async move {
            let mut out = asked.start(Response::builder(), false);
            let body = asked.request.body_mut();
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                send_all(&mut out, piece, false).await;
            }
            let _ = out.send_data(Bytes::new(), true);
        })
    });
    let proxy = server.proxy().start();
    let content = noise(5_000_000);
    let mut client = proxy.connect();
    let request = post("/v1/files", &content);
    let mut writer = client.clone_writer();
    let sending = thread::spawn(move || writer.send(request));
    let response = client.read_response("POST");
    sending.join().unwrap();
    assert_eq!(response.status(), 200);
    assert_octets(response.content(), &content, "the content");
    assert_eq!(server.connections(), 1);
}

#[test]
fn heads_are_what_http_2_makes_of_them() {
    let (seen, heads) = channel();
    let server = Server::new(move |mut asked| {
        let _ = seen.send((asked.request.uri().clone(), asked.request.headers().clone()));
        Box::pin(async move {
            let value = http::HeaderValue::from_bytes(b"caf\xe9").unwrap();
            let response = Response::builder()
                .status(203)
                .header("set-cookie", "a=1")
                .header("x-odd", value)
                .header("set-cookie", "b=2");
            let mut body = asked.start(response, false);
            let _ = body.send_data("ok".into(), true);
        })
    });
    let proxy = http2(format!("{}/base", server.url())).start();
    let mut client = proxy.connect();
    client.send(b"GET /x//%2f?q= HTTP/1.1\r\nHost: c\r\nX-Api-Key: k\r\nX-Dup: 1\r\nX-Odd: \xff\xe9\r\nx-dup: 2\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\n\r\n");
    let response = client.read_response("GET");
    let (uri, head) = next(&heads);
    assert_eq!(uri.to_string(), format!("{}/base/x//%2f?q=", server.url()));
    let all = |name: &str| -> Vec<Vec<u8>> {
        let values = head.get_all(name).iter();
        values.map(|value| value.as_bytes().to_vec()).collect()
    };
    assert_eq!(all("x-dup"), [b"1", b"2"]);
    assert_eq!(all("x-odd"), [b"\xff\xe9"]);
    assert_eq!(all("x-api-key"), [b"k"]);
    assert_eq!(all("te"), [b"trailers"]);
    assert_eq!(all("x-forwarded-host"), [b"c"]);
    for gone in ["host", "connection", "keep-alive", "x-gone"] {
        assert!(!head.contains_key(gone), "{gone}");
    }
    assert_eq!(response.status(), 203);
    assert_eq!(response.head.all("set-cookie"), [b"a=1", b"b=2"]);
    assert_eq!(response.head.all("x-odd"), [b"caf\xe9"]);
}

#[test]
fn events_pass_one_by_one() {
    let (go, wait) = tokio::sync::mpsc::unbounded_channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let server = Server::new(move |mut asked| {
        let mut wait = wait.lock().unwrap().take().unwrap();
        Box::pin(async move {
            let response = Response::builder().header("content-type", "text/event-stream");
            let mut body = asked.start(response, false);
            while wait.recv().await.is_some() {
                let _ = body.send_data("event: ping\n\n".into(), false);
            }
            let _ = body.send_data(Bytes::new(), true);
        })
    });
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    client.send(post("/v1/messages", "{}"));
    assert_eq!(
        client.read_response_head().one("content-type"),
        Some("text/event-stream")
    );
    for _ in 0..20 {
        go.send(()).unwrap();
        assert_eq!(client.read_chunk(), b"event: ping\n\n");
    }
    drop(go);
    assert_eq!(client.read_chunk(), b"");
}

#[test]
fn trailers_pass_both_ways() {
    let (seen, trailers) = channel();
    let server = Server::new(move |mut asked| {
        let seen = seen.clone();
        Box::pin(async move {
            let (content, trailers) = asked.content().await;
            let _ = seen.send((content, trailers));
            let mut body = asked.start(Response::builder(), false);
            let _ = body.send_data("x".into(), false);
            let mut fields = HeaderMap::new();
            fields.insert("x-sum", "2".parse().unwrap());
            let _ = body.send_trailers(fields);
        })
    });
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: c\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n");
    client.read_response_head();
    assert_eq!(client.read_chunk(), b"x");
    assert_eq!(client.read_trailers(), "x-sum: 2\r\n");
    let (content, trailers) = next(&trailers);
    assert_eq!(content, b"abc");
    assert_eq!(trailers.unwrap()["x-sum"], "1");
}

#[test]
fn answers_without_content_keep_their_length() {
    let server = Server::new(|mut asked| {
        Box::pin(async move {
            match asked.path().as_str() {
                "/head" => {
                    asked.start(Response::builder().header("content-length", 5), true);
                }
                "/204" => {
                    asked.start(Response::builder().status(204), true);
                }
                "/304" => {
                    let response = Response::builder().status(304);
                    asked.start(response.header("content-length", 7), true);
                }
                "/late" => {
                    let response = Response::builder().header("content-length", 0);
                    let mut body = asked.start(response, false);
                    let _ = body.send_data(Bytes::new(), true);
                }
                _ => {
                    asked.start(Response::builder(), true);
                }
            }
        })
    });
    let proxy = server.proxy().start();
    let mut client = proxy.connect();
    for (method, target, status, length) in [
        ("HEAD", "/head", 200, Some("5")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("7")),
        ("GET", "/empty", 200, Some("0")),
        ("GET", "/late", 200, Some("0")),
    ] {
        client.send(get(target).replace("GET", method));
        let head = client.read_response_head();
        assert_eq!(head.status(), status, "{target}");
        assert_eq!(head.one("content-length"), length, "{target}");
    }
    client.quiet();
    assert_eq!(server.connections(), 1);
}

#[test]
fn the_edit_works_over_http_2() {
    let (seen, contents) = channel();
    let server = Server::new(move |mut asked| {
        let seen = seen.clone();
        Box::pin(async move {
            let length = asked.request.headers()["content-length"].clone();
            let _ = seen.send((asked.content().await.0, length));
            asked.answer("ok");
        })
    });
    let proxy = server
        .proxy()
        .env("SYSTEM_PROMPT_REPLACEMENT", "ours")
        .start();
    let tail = "x".repeat(300_000);
    let content = |prompt: &str| {
        format!(r#"{{"system":[{{"type":"text","text":"{prompt}"}}],"x":"{tail}"}}"#)
    };
    let response = proxy.send(post("/v1/messages", content("theirs")));
    assert_eq!(response.content(), b"ok");
    let (edited, length) = next(&contents);
    assert_octets(&edited, content("ours").as_bytes(), "the edit");
    assert_eq!(length.to_str().unwrap(), edited.len().to_string());
}
