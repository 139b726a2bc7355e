//! Content that ends early or arrives in pieces.

use std::time::Duration;

use super::{CHUNKED, exchange, pause, upload};
use crate::support::{
    Body, End, Proxy, Upstream, assert_aborted, get,
    wire::{assert_octets, show},
};

#[test]
fn a_cut_content_length_is_never_a_clean_end() {
    for reset in [false, true] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it");
        let head = client.read_response_head();
        assert_eq!(client.read_exact(10), b"half of it");
        if reset {
            origin.reset()
        } else {
            drop(origin)
        }
        let body = client.read_to_end();
        assert_eq!(head.one("content-length"), Some("100"));
        assert_eq!(body.0, b"", "octets that the upstream did not send");
    }
}

#[test]
fn a_cut_chunked_answer_is_never_a_clean_end() {
    for (cut, content) in [
        ("", ""),
        ("5", ""),
        ("5\r\n", ""),
        ("5\r\nab", "ab"),
        ("5\r\nabcde", "abcde"),
        ("5\r\nabcde\r", "abcde"),
        ("5\r\nabcde\r\n", "abcde"),
        ("5\r\nabcde\r\n0", "abcde"),
        ("5\r\nabcde\r\n0\r\n", "abcde"),
        ("5\r\nabcde\r\n0\r\n\r", "abcde"),
    ] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!("{CHUNKED}{cut}"));
        drop(origin);
        let response = client.read_response("GET");
        assert_eq!(response.status(), 200, "{cut:?}");
        assert_aborted(&response.head, &response.body, content.as_bytes());
    }
}

#[test]
fn a_reset_inside_a_stream_is_never_a_clean_end() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send(format!("{CHUNKED}5\r\nabcde\r\n"));
    let head = client.read_response_head();
    assert_eq!(client.read_chunks(5), b"abcde");
    origin.reset();
    assert_aborted(&head, &client.read_chunked(), b"");
}

#[test]
fn a_reset_of_a_close_delimited_answer_is_never_a_clean_end() {
    let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
    origin.send("HTTP/1.1 200 OK\r\n\r\nabcde");
    let head = client.read_response_head();
    assert_eq!(head.one("transfer-encoding"), Some("chunked"));
    assert_eq!(client.read_chunks(5), b"abcde");
    origin.reset();
    assert_aborted(&head, &client.read_chunked(), b"");
}

#[test]
fn a_broken_chunk_of_the_upstream_is_never_a_clean_end() {
    for broken in [
        "zz\r\n",
        "0x5\r\nabcde\r\n",
        "\r\n",
        "5\r\nabcdeXX",
        "-1\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let (_proxy, _upstream, mut client, mut origin) = exchange(get("/"));
        origin.send(format!("{CHUNKED}2\r\nok\r\n"));
        let head = client.read_response_head();
        assert_eq!(client.read_chunks(2), b"ok");
        origin.send(broken);
        let body = client.read_chunked();
        assert!(
            matches!(body, Body::Cut(..)),
            "{broken:?}: {}{body:?}",
            show(&head.octets)
        );
        origin.closed_within(Duration::from_secs(2));
    }
}

#[test]
fn a_cut_answer_to_an_http_1_0_client_ends_with_a_reset() {
    for answer in [
        format!("{CHUNKED}5\r\nabcde\r\n"),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcde".to_owned(),
    ] {
        let (_proxy, _upstream, mut client, mut origin) = exchange("GET / HTTP/1.0\r\n\r\n");
        origin.send(&answer);
        let head = client.read_response_head();
        assert_eq!(client.read_exact(5), b"abcde");
        drop(origin);
        let (octets, end) = client.read_to_end();
        assert_eq!(octets, b"");
        assert!(
            end == End::Reset || head.has("content-length"),
            "a clean end of a close-delimited answer: {}",
            show(&head.octets)
        );
    }
}

#[test]
fn a_cut_request_is_never_a_complete_one() {
    for (framing, half) in [
        ("Content-Length: 100", "half"),
        ("Transfer-Encoding: chunked", "a\r\nhalf"),
    ] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url()).start();
        let (mut client, mut origin) = proxy.begin_exchange(&upstream, upload(framing));
        client.send(half);
        drop(client);
        let (octets, _) = origin.closed_within(Duration::from_secs(2));
        assert!(!octets.ends_with(b"0\r\n\r\n"), "{:?}", show(&octets));
        upstream.no_more();
    }
}

#[test]
fn an_answer_means_the_same_however_it_is_split() {
    let answer = "HTTP/1.1 200 OK\r\nX-A: 1\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5;e=1\r\nabcde\r\n10\r\n0123456789abcdef\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = upstream.accept();
    let mut expected = None;
    for at in 0..=answer.len() {
        origin.read_request();
        match at {
            // Every octet alone, then in two parts at each place.
            0 => origin.send_split(answer.as_bytes()),
            at => {
                origin.send(&answer[..at]);
                pause();
                origin.send(&answer[at..]);
            }
        }
        let response = client.read_response("GET");
        assert_eq!(
            response.body,
            Body::Chunked(b"abcde0123456789abcdef".to_vec()),
            "at {at}"
        );
        let head = expected.get_or_insert_with(|| response.head.octets.clone());
        assert_octets(&response.head.octets, head, at);
        client.send(get("/"));
    }
}

#[test]
fn an_answer_with_a_length_means_the_same_however_it_is_split() {
    let answer = "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 12\r\n\r\nhello, world";
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url()).env("WORKERS", 1).start();
    let mut client = proxy.connect();
    client.send(get("/"));
    let mut origin = upstream.accept();
    for at in 1..=answer.len() {
        origin.read_request();
        origin.send(&answer[..at]);
        pause();
        origin.send(&answer[at..]);
        let response = client.read_response("GET");
        assert_eq!(
            response.body,
            Body::Length(b"hello, world".to_vec()),
            "at {at}"
        );
        client.send(get("/"));
    }
}

#[test]
fn a_request_means_the_same_however_it_is_split() {
    let chunked = "POST /v1/files?x HTTP/1.1\r\nHost: proxy.test\r\nX-A: 1\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    let length = "POST /v1/files?x HTTP/1.1\r\nHost: proxy.test\r\nX-A: 1\r\n\
                  Content-Length: 21\r\n\r\nabcde0123456789abcdef";
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url()).start();
    for request in [chunked, length] {
        let mut client = proxy.connect();
        let mut expected = None;
        for at in 0..=request.len() {
            match at {
                0 => client.send_split(request.as_bytes()),
                at => {
                    client.send(&request[..at]);
                    pause();
                    client.send(&request[at..]);
                }
            }
            assert_eq!(client.read_response("POST").content(), b"ok", "at {at}");
            let (head, body) = upstream.request();
            assert_eq!(body.content(), b"abcde0123456789abcdef", "at {at}");
            let octets = expected.get_or_insert_with(|| head.octets.clone());
            assert_octets(&head.octets, octets, at);
        }
    }
}
