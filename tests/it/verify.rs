//! `VERIFY`: digests of the content before and after the proxy, for each pair of HTTP versions and framings.

use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::support::{
    Proxy, ProxyBuilder, Upstream, get,
    h2::{Client, request},
    noise, post,
    upstream::Answering,
    wire::{assert_octets, chunk},
};

const KEY: &str = "a-key-of-the-tests";

fn verifying(url: impl ToString, rule: &str) -> ProxyBuilder {
    Proxy::to(url)
        .env("VERIFY", rule)
        .env("H2C", true)
        .env("METRICS_PUBLIC", true)
        .env("ENABLE_DASHBOARD", true)
        .env("DASHBOARD_API_KEY", KEY)
}

fn hex(octets: &[u8]) -> String {
    let digest = digest(&SHA256, octets);
    digest
        .as_ref()
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect()
}

/// The comparison of the exchange whose line of the log says so much.
#[track_caller]
fn verified(proxy: &Proxy, words: &[&str]) -> Value {
    let line = proxy.wait_for_line(|line| words.iter().all(|word| line.contains(word)));
    let (_, id) = line.rsplit_once("request_id=").unwrap();
    let field = format!("Host: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    loop {
        let response = proxy.send(format!(
            "GET /admin/api/v1/requests/{id} HTTP/1.1\r\n{field}"
        ));
        assert_eq!(response.status(), 200);
        let detail: Value = serde_json::from_slice(response.content()).unwrap();
        if detail["state"] == "done" {
            assert_eq!(detail["verify"], detail["verified"]["result"]);
            return detail["verified"].clone();
        }
        std::thread::yield_now();
    }
}

#[track_caller]
fn assert_same(content: &Value, octets: &[u8]) {
    assert_eq!(content["result"], "same");
    for side in ["received", "sent"] {
        assert_eq!(content[side]["octets"], octets.len());
        assert_eq!(content[side]["sha256"], hex(octets), "{side}");
    }
}

/// Answers with this content in pieces, as a stream of the chunked coding or under a length.
fn streaming(content: &'static [u8], is_chunked: bool) -> Answering {
    Upstream::answering(move |_, _| {
        let framing = match is_chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {}", content.len()),
        };
        let mut octets = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").into_bytes();
        for piece in content.chunks(997) {
            match is_chunked {
                true => octets.extend(chunk(piece)),
                false => octets.extend(piece),
            }
        }
        if is_chunked {
            octets.extend(chunk(b""));
        }
        octets
    })
}

#[test]
fn the_digests_are_those_of_the_content_over_every_pair_of_versions() {
    let sent = noise(150_000);
    let answer: &'static [u8] = noise(120_000).leak();
    for is_chunked in [false, true] {
        let upstream = streaming(answer, is_chunked);
        let far = verifying(upstream.url(), "all").start();
        let near = verifying(format!("http://{}", far.addr()), "all")
            .env("UPSTREAM_HTTP_VERSION", 2)
            .start();
        for proxy in [&far, &near] {
            let mut client = proxy.connect();
            let mut octets = match is_chunked {
                false => post("/one", &sent),
                true => {
                    b"POST /one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()
                }
            };
            if is_chunked {
                for piece in sent.chunks(1009) {
                    octets.extend(chunk(piece));
                }
                octets.extend(chunk(b""));
            }
            // the next request waits behind the first
            octets.extend(get("/next").as_bytes());
            let mut writer = client.clone_writer();
            std::thread::scope(|scope| {
                scope.spawn(move || writer.send(octets));
                for _ in 0..2 {
                    let response = client.read_response("POST");
                    assert_octets(response.content(), answer, "of the answer");
                }
            });
            let found = verified(proxy, &["POST /one ", "verify=same"]);
            assert_same(&found["request"], &sent);
            assert_same(&found["response"], answer);
            let found = verified(proxy, &["GET /next ", "verify=same"]);
            assert_same(&found["request"], b"");
            assert_same(&found["response"], answer);

            let mut client = Client::connect(proxy);
            let small = &sent[..50_000];
            let response = client.post(request("POST", "/two"), small);
            let response = client.answer(response);
            assert_octets(&response.content, answer, "of the answer over HTTP/2");
            let found = verified(proxy, &["POST /two ", "verify=same"]);
            assert_same(&found["request"], small);
            assert_same(&found["response"], answer);
        }
        let metrics = near.send(get("/metrics"));
        let metrics = String::from_utf8_lossy(metrics.content()).into_owned();
        for line in [
            "anthropic_proxy_verified_exchanges_total{result=\"same\"} 3",
            "anthropic_proxy_verified_exchanges_total{result=\"differs\"} 0",
        ] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
        assert!(!near.stderr().contains("[Verify]"), "{}", near.stderr());
    }
}

#[test]
fn octets_outside_of_the_edit_are_compared() {
    let upstream = Upstream::ok();
    for version in ["1.1", "2"] {
        let behind = verifying(upstream.url(), "off").start();
        let url = match version {
            "1.1" => upstream.url(),
            _ => format!("http://{}", behind.addr()),
        };
        let proxy = verifying(url, "all")
            .env("UPSTREAM_HTTP_VERSION", version)
            .env("SYSTEM_PROMPT_REPLACEMENT", "Ours, and longer")
            .env("ACCESS_LOG", "access.log")
            .start();
        let before = "{\"model\":\"m\",\"system\":[{\"type\":\"text\",\"text\":";
        let after = "}],\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
        let (sent, expected) = (
            format!("{before}\"Theirs\"{after}"),
            format!("{before}\"Ours, and longer\"{after}"),
        );
        let response = proxy.send(post("/v1/messages", &sent));
        assert_eq!(response.status(), 200);
        assert_octets(
            upstream.request().1.content(),
            expected.as_bytes(),
            "edited",
        );
        let found = verified(&proxy, &["POST /v1/messages ", "verify=same"]);
        let request = &found["request"];
        assert_eq!(request["result"], "same");
        assert_eq!(request["received"]["sha256"], hex(sent.as_bytes()));
        assert_eq!(request["sent"]["sha256"], hex(expected.as_bytes()));
        let span = serde_json::json!({"at": before.len(), "replaced": 8, "inserted": 18});
        assert_eq!(request["edit"], span);
        proxy.signal("TERM");
        let directory = proxy.wait_and_keep();
        let log = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
        assert!(log.contains("\"verify\":\"same\""), "{log}");
    }
}

#[test]
fn an_exchange_that_its_client_leaves_is_incomplete() {
    let upstream = Upstream::bind();
    let proxy = verifying(upstream.url(), "all").start();
    let (client, mut server) = proxy.exchange(&upstream, get("/left"));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123");
    let mut client = client;
    client.read_response_head();
    assert_eq!(client.read_exact(3), b"123");
    client.reset();
    let found = verified(&proxy, &["GET /left ", "ended=client_gone", "verify="]);
    // what had come has left, or the client was gone before
    assert_ne!(found["result"], "differs");
    assert_eq!(found["request"]["result"], "same");
    // a refusal of the proxy's own has nothing to be compared with
    let proxy = verifying("http://127.0.0.1:9", "all").start();
    assert_eq!(proxy.send(get("/refused")).status(), 502);
    let found = verified(&proxy, &["GET /refused ", "verify=incomplete"]);
    assert_eq!(
        (&found["request"], &found["response"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn only_chosen_exchanges_are_verified() {
    let upstream = Upstream::ok();
    let proxy = verifying(upstream.url(), "session:one").start();
    for (target, session) in [("/a", "one"), ("/b", "two")] {
        proxy.send(format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nX-Claude-Code-Session-Id: {session}\r\n\r\n"
        ));
    }
    proxy.send(get("/c"));
    assert!(
        proxy
            .wait_for_line(|line| line.contains("GET /a "))
            .contains(" verify=same ")
    );
    for target in ["GET /b ", "GET /c "] {
        let line = proxy.wait_for_line(|line| line.contains(target));
        assert!(!line.contains("verify="), "{line}");
    }
    let ended = verifying(upstream.url(), "sample:2").run();
    let says = |part: &str| assert!(ended.stderr.contains(part), "{}", ended.stderr);
    says("VERIFY");
    says("sample:0.01");
}
