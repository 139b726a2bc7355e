//! Connections that are kept, shared out and replaced.

use std::time::Duration;

use super::{CHUNKED, exchange, upload};
use crate::support::{
    Body, Proxy, Upstream, assert_proxy_error, get, post, upstream::OK, wire::show,
};

#[test]
fn pipelined_requests_are_answered_in_order_with_one_upstream_request_each() {
    let upstream = Upstream::answering(|head, body| {
        let content = format!("{} {}", head.target(), show(body.content()));
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        )
        .into_bytes()
    });
    let proxy = Proxy::to(upstream.url()).start();
    let mut client = proxy.connect();
    let mut octets = get("/1").into_bytes();
    octets.extend(post("/2", "two"));
    octets.extend((upload("Transfer-Encoding: chunked") + "5\r\nthree\r\n0\r\n\r\n").bytes());
    octets.extend(get("/4").bytes());
    client.send(octets);
    for expected in ["/1 ", "/2 two", "/v1/files three", "/4 "] {
        let response = client.read_response("GET");
        assert_eq!(show(response.content()), expected);
    }
    for _ in 0..4 {
        upstream.request();
    }
    upstream.no_more();
}

#[test]
fn connections_are_kept_alive_on_both_sides() {
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    for (answer, content) in [
        (format!("{CHUNKED}2\r\nok\r\n0\r\n\r\n"), &b"ok"[..]),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), b""),
        (
            "HTTP/1.1 500 X\r\nContent-Length: 1\r\n\r\nx".to_owned(),
            b"x",
        ),
        (OK.to_owned(), b"ok"),
    ] {
        client.send(post("/v1/files", "{}"));
        origin.read_request();
        origin.send(answer);
        assert_eq!(client.read_response("POST").content(), content);
    }
    upstream.no_more();
}

#[test]
fn another_client_may_use_a_pooled_connection() {
    let (proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(OK);
    client.read_response("GET");
    let mut other = proxy.connect();
    other.send(get("/2"));
    assert_eq!(origin.read_request().0.target(), "/2");
    origin.send(OK);
    assert_eq!(other.read_response("GET").content(), b"ok");
    upstream.no_more();
}

#[test]
fn a_busy_connection_is_not_shared() {
    let (proxy, upstream, _client, _origin) = exchange(get("/1"));
    let mut other = proxy.connect();
    other.send(get("/2"));
    assert_eq!(upstream.accept().read_request().0.target(), "/2");
}

#[test]
fn a_connection_that_the_upstream_will_close_is_not_reused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
        origin.send(answer);
        assert_eq!(client.read_response("GET").content(), b"ok");
        // The client's connection lives on: `close` was for the hop behind us.
        client.send(get("/2"));
        let mut fresh = upstream.accept();
        assert_eq!(fresh.read_request().0.target(), "/2");
        fresh.send(OK);
        assert_eq!(client.read_response("GET").content(), b"ok");
        origin.closed_within(Duration::from_secs(2));
    }
}

#[test]
fn octets_after_an_answer_never_reach_the_next_exchange() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(format!("{OK}{smuggled}"));
    assert_eq!(client.read_response("GET").content(), b"ok");
    client.send(get("/2"));
    let mut fresh = upstream.accept();
    fresh.read_request();
    fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh");
    assert_eq!(client.read_response("GET").content(), b"fresh");
}

#[test]
fn content_where_none_may_be_never_reaches_the_next_exchange() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
    ] {
        let request = format!("{method} /1 HTTP/1.1\r\nHost: proxy.test\r\n\r\n");
        let (_proxy, upstream, mut client, mut origin) = exchange(request);
        origin.send(format!("{head}smuggled"));
        client.read_response(method);
        client.send(get("/2"));
        let mut fresh = upstream.accept();
        fresh.read_request();
        fresh.send(OK);
        assert_eq!(client.read_response("GET").content(), b"ok", "{method}");
    }
}

#[test]
fn a_connection_with_an_unfinished_upload_is_not_reused() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let (mut client, mut origin) =
        proxy.begin_exchange(&upstream, upload("Content-Length: 100") + "half");
    origin.send(OK);
    assert_eq!(client.read_response("POST").content(), b"ok");
    let mut other = proxy.connect();
    other.send(get("/2"));
    assert_eq!(upstream.accept().read_request().0.target(), "/2");
    origin.closed_within(Duration::from_secs(2));
}

#[test]
fn endless_chunk_extensions_and_trailers_of_the_upstream_are_bounded() {
    for endless in ["5;", "0\r\nX: "] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!("{CHUNKED}{endless}"));
        let block = "a".repeat(64 * 1024);
        let taken = (0..1024)
            .take_while(|_| origin.try_send(&block).is_ok())
            .count();
        assert!(taken < 1024, "64 MiB of {endless:?} were taken");
        let response = client.read_response("GET");
        assert!(
            matches!(response.body, Body::Cut(..)),
            "{:?}",
            response.body
        );
    }
}

#[test]
fn octets_on_an_idle_connection_never_reach_the_next_exchange() {
    let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
    origin.send(OK);
    assert_eq!(client.read_response("GET").content(), b"ok");
    origin.send("HTTP/1.1 408 Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate");
    client.send(get("/2"));
    let mut fresh = upstream.accept();
    fresh.read_request();
    fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh");
    assert_eq!(client.read_response("GET").content(), b"fresh");
}

#[test]
fn a_connection_closed_while_idle_is_replaced_once() {
    for reset in [false, true] {
        let (_proxy, upstream, mut client, mut origin) = exchange(get("/1"));
        origin.send(OK);
        assert_eq!(client.read_response("GET").content(), b"ok");
        if reset {
            origin.reset()
        } else {
            drop(origin)
        }
        client.send(post("/v1/files", "{}"));
        let mut fresh = upstream.accept();
        assert_eq!(fresh.read_request().1, Body::Length(b"{}".to_vec()));
        fresh.send(OK);
        assert_eq!(client.read_response("POST").content(), b"ok");
        upstream.no_more();
    }
}

#[test]
fn a_post_whose_octets_left_is_never_sent_twice() {
    for (pooled, reset) in [(false, false), (false, true), (true, false), (true, true)] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
        let (mut client, mut origin) = proxy.exchange(
            &upstream,
            if pooled {
                get("/").into_bytes()
            } else {
                post("/v1/files", "{}")
            },
        );
        if pooled {
            origin.send(OK);
            client.read_response("GET");
            client.send(post("/v1/files", "{}"));
            origin.read_request();
        }
        if reset {
            origin.reset()
        } else {
            drop(origin)
        }
        let response = client.read_response("POST");
        assert_proxy_error(&response, 502, "api_error", "connection_terminated");
        upstream.no_more();
    }
}

#[test]
fn a_connection_that_dies_inside_the_answers_head_is_502() {
    let (_proxy, upstream, mut client, mut origin) = exchange(post("/v1/files", "{}"));
    origin.send("HTTP/1.1 200 OK\r\nContent-Le");
    drop(origin);
    let response = client.read_response("POST");
    assert_proxy_error(&response, 502, "api_error", "connection_terminated");
    upstream.no_more();
}
