//! docs/contract.md §3, end to end: which octets of a Messages request change, and that no others do.

use std::time::{Duration, Instant};

use crate::support::{
    Body, Proxy, ProxyBuilder, Upstream, Wire, assert_proxy_error, noise, post,
    upstream::Answering,
    wire::{assert_octets, chunk, show},
};

const BILLING: &str = r#"{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330"}"#;
const IDENTITY: &str = r#"{"type":"text","text":"You are Claude Code, Anthropic's CLI."}"#;
const OTHER: &str = r#"{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}"#;
const OURS: &str = r#"{"type":"text","text":"Ours","cache_control":{"type":"ephemeral"}}"#;
const OURS_UNCACHED: &str = r#"{"type":"text","text":"Ours"}"#;

fn replacing(upstream: &Answering) -> ProxyBuilder {
    Proxy::to(upstream.url()).env("SYSTEM_PROMPT_REPLACEMENT", "Ours")
}

fn inserting(upstream: &Answering) -> ProxyBuilder {
    replacing(upstream).env("SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST", "true")
}

fn chunked(target: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut octets = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        octets.extend(chunk(piece));
    }
    octets.extend(chunk(b""));
    octets
}

/// Sends each body in both framings; the upstream must see what stands beside it, in the same
/// framing.
#[track_caller]
fn rows(start: fn(&Answering) -> ProxyBuilder, rows: &[(Vec<u8>, Vec<u8>)]) {
    let upstream = Upstream::ok();
    let proxy = start(&upstream).start();
    let mut client = proxy.connect();
    for (sent, expected) in rows {
        client.send(post("/v1/messages", sent));
        assert_eq!(client.read_response("POST").status(), 200);
        let (head, body) = upstream.request();
        assert_octets(body.content(), expected, format_args!("of {}", show(sent)));
        let length = expected.len().to_string();
        assert_eq!(head.one("content-length"), Some(length.as_str()));

        let (one, two) = sent.split_at(sent.len() / 2);
        client.send(chunked("/v1/messages", &[one, two]));
        assert_eq!(client.read_response("POST").status(), 200);
        let (head, body) = upstream.request();
        assert_octets(
            body.content(),
            expected,
            format_args!("of {} in chunks", show(sent)),
        );
        assert!(matches!(body, Body::Chunked(_)), "{}", show(&head.octets));
    }
}

#[track_caller]
fn changed(start: fn(&Answering) -> ProxyBuilder, table: &[(String, String)]) {
    let owned = |text: &String| text.clone().into_bytes();
    let table: Vec<_> = table
        .iter()
        .map(|(sent, expected)| (owned(sent), owned(expected)))
        .collect();
    rows(start, &table);
}

#[track_caller]
fn unchanged(start: fn(&Answering) -> ProxyBuilder, table: &[&[u8]]) {
    let table: Vec<_> = table
        .iter()
        .map(|sent| (sent.to_vec(), sent.to_vec()))
        .collect();
    rows(start, &table);
}

fn body(blocks: &[&str]) -> String {
    format!(
        r#"{{"model":"m","messages":[],"system":[{}],"stream":true}}"#,
        blocks.join(",")
    )
}

#[test]
fn the_prompt_block_is_replaced() {
    let ours = r#"{"type":"text","text":"Ours"}"#;
    let ours_cached = r#"{"type":"text","text":"Ours","cache_control":{"type":"ephemeral"}}"#;
    changed(
        replacing,
        &[
            (body(&[IDENTITY]), body(&[ours])),
            (body(&[OTHER]), body(&[ours_cached])),
            (body(&[IDENTITY, OTHER]), body(&[ours, OTHER])),
            (
                body(&[BILLING, IDENTITY, OTHER]),
                body(&[BILLING, ours, OTHER]),
            ),
            (body(&[BILLING, OTHER]), body(&[BILLING, ours_cached])),
            (body(&[r#"{"text":""}"#]), body(&[r#"{"text":"Ours"}"#])),
        ],
    );
}

#[test]
fn the_first_block_is_replaced_when_told_so() {
    fn first(upstream: &Answering) -> ProxyBuilder {
        replacing(upstream).env("SYSTEM_PROMPT_TARGET", "first")
    }
    let ours = r#"{"type":"text","text":"Ours"}"#;
    changed(
        first,
        &[
            (body(&[BILLING, IDENTITY]), body(&[ours, IDENTITY])),
            (body(&[IDENTITY, OTHER]), body(&[ours, OTHER])),
        ],
    );
}

#[test]
fn a_block_is_inserted_where_claude_code_is_not() {
    let replaced = r#"{"type":"text","text":"Ours"}"#;
    let shouted = r#"{"type":"text","text":"you are CLAUDE CODE!"}"#;
    let near = r#"{"type":"text","text":"Claude  Code, ClaudeCode"}"#;
    changed(
        inserting,
        &[
            (body(&[IDENTITY]), body(&[replaced])),
            (body(&[shouted, OTHER]), body(&[replaced, OTHER])),
            (body(&[BILLING, IDENTITY]), body(&[BILLING, replaced])),
            (body(&[OTHER]), body(&[OURS, OTHER])),
            (body(&[near]), body(&[OURS, near])),
            (
                body(&[BILLING, OTHER, IDENTITY]),
                body(&[BILLING, OURS, OTHER, IDENTITY]),
            ),
        ],
    );
}

#[test]
fn an_escaped_claude_code_counts() {
    let escaped = r#"{"type":"text","text":"You are Cl\u0061ude\u0020Code"}"#;
    changed(
        inserting,
        &[(
            body(&[escaped]),
            body(&[r#"{"type":"text","text":"Ours"}"#]),
        )],
    );
}

#[test]
fn a_block_is_inserted_at_the_first_place_when_told_so() {
    fn first(upstream: &Answering) -> ProxyBuilder {
        inserting(upstream).env("SYSTEM_PROMPT_TARGET", "first")
    }
    changed(
        first,
        &[(body(&[BILLING, IDENTITY]), body(&[OURS, BILLING, IDENTITY]))],
    );
}

#[test]
fn a_fifth_cache_control_is_never_made() {
    let tools = r#"[{"name":"a","cache_control":{"type":"ephemeral"}},{"name":"b"}]"#;
    let cached = r#"{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}"#;
    let with = |system: &str, messages: usize| {
        let messages = vec![cached; messages].join(",");
        format!(r#"{{"tools":{tools},"system":[{system}],"messages":[{messages}]}}"#)
    };
    let (ours, bare) = (
        format!("{OURS},{OTHER}"),
        format!("{OURS_UNCACHED},{OTHER}"),
    );
    changed(
        inserting,
        &[
            // Three stand: one in tools, one in system, one in messages.
            (with(OTHER, 1), with(&ours, 1)),
            // Four stand.
            (with(OTHER, 2), with(&bare, 2)),
            (with(OTHER, 5), with(&bare, 5)),
        ],
    );
}

#[test]
fn a_cache_control_in_a_text_is_not_one() {
    let quoted = r#"{"type":"text","text":"\"cache_control\":{} cache_control \"cache_control\" cache_control \"cache_control\":1"}"#;
    changed(
        inserting,
        &[(body(&[quoted, quoted]), body(&[OURS, quoted, quoted]))],
    );
}

#[test]
fn what_is_not_for_the_edit_is_unchanged() {
    for start in [replacing as fn(&Answering) -> ProxyBuilder, inserting] {
        unchanged(
            start,
            &[
                b"",
                b"{}",
                b"[]",
                b"null",
                b"42",
                br#""system""#,
                br#"[{"system":[{"text":"x"}]}]"#,
                br#"{"model":"m","messages":[]}"#,
                br#"{"system":"You are Claude Code"}"#,
                br#"{"system":null}"#,
                br#"{"system":{"0":{"text":"x"}}}"#,
                br#"{"system":[]}"#,
                br#"{"system":[ ]}"#,
                br#"{"system":["You are Claude Code"]}"#,
                br#"{"system":[null,{"type":"text","text":"x"}]}"#,
                br#"{"system":[[{"text":"x"}]]}"#,
                br#"{"system":[{}]}"#,
                br#"{"system":[{"type":"text"}]}"#,
                br#"{"system":[{"type":"text","text":null}]}"#,
                br#"{"system":[{"type":"text","text":["x"]}]}"#,
                br#"{"system":[{"nested":{"text":"x"}}]}"#,
                br#"{"outer":{"system":[{"text":"x"}]}}"#,
                br#"{"System":[{"text":"x"}]}"#,
                br#"{"system ":[{"text":"x"}]}"#,
                br#"{"system":[{"Text":"x"}]}"#,
                b"not json at all",
                br#"{"system":[{"type":"text","text":"x"}]"#,
                br#"{"system":[{"type":"text","text":"x"}]}}"#,
                br#"{"system":[{"type":"text","text":"x"}]} trailing"#,
                br#"{"system":[{"type":"text","text":"x"}],}"#,
                br#"{"system":[{"type":"text","text":"x"}],"a":tru}"#,
                br#"{"system":[{"type":"text","text":"x"}],"a":01}"#,
                br#"{"system":[{"type":"text","text":"x"}],"a":"\q"}"#,
                br#"{"system":[{"type":"text","text":"x"}],"a":"unended"#,
                br#"{"system":[{"type":"text","text":"x"}] "a":1}"#,
                b"{\"system\":[{\"type\":\"text\",\"text\":\"x\"}],\"a\":\"raw\nline\"}",
                br#"{"system":[{"type":"text","text":"x"},]}"#,
                br#"{'system':[{'text':'x'}]}"#,
                br#"{"system":[{"type":"text","text":"x""#,
            ],
        );
    }
}

#[test]
fn everything_around_the_edit_is_identical() {
    let around = |text: &str| {
        let mut octets = b"\xef\xbb\xbf \r\n\t{ \"z\" : 1.0e+05 , \"a\":-0.0,\"big\":123456789012345678901234567890,".to_vec();
        octets.extend_from_slice(br#""dup":1,"dup":2,"esc":"\u00e9\/\ud800 \uD83D\uDE00","#);
        octets.extend_from_slice(b"\"raw\":\"\xff\xfe\x80 \xc3\x28\",\n");
        octets.extend_from_slice(
            br#""messages":[{"role":"system","text":"no"},{"system":[{"text":"no"}]}],"#,
        );
        octets.extend_from_slice(
            b" \"system\" :\t[ { \"b\" : [ { \"text\" : \"no\" } ] , \"text\" : ",
        );
        octets.extend_from_slice(text.as_bytes());
        octets.extend_from_slice(
            b" , \"cache_control\" : { \"type\":\"ephemeral\" } } , 7 ] } \r\n ",
        );
        octets
    };
    let sent = around(r#""You are Claude Code \" \\ \ud800 ] } \u0022""#);
    rows(replacing, &[(sent.clone(), around("\"Ours\""))]);
    rows(inserting, &[(sent, around("\"Ours\""))]);
}

#[test]
fn escaped_keys_count() {
    changed(
        replacing,
        &[
            (
                r#"{"sys\u0074em":[{"te\u0078t":"x"}]}"#.into(),
                r#"{"sys\u0074em":[{"te\u0078t":"Ours"}]}"#.into(),
            ),
            (
                r#"{"\u0073\u0079\u0073\u0074\u0065\u006D":[{"text":"x"}]}"#.into(),
                r#"{"\u0073\u0079\u0073\u0074\u0065\u006D":[{"text":"Ours"}]}"#.into(),
            ),
        ],
    );
}

#[test]
fn of_duplicate_keys_the_last_counts() {
    changed(
        replacing,
        &[
            (
                r#"{"system":[{"text":"a"}],"system":[{"text":"b"}]}"#.into(),
                r#"{"system":[{"text":"a"}],"system":[{"text":"Ours"}]}"#.into(),
            ),
            (
                r#"{"system":"a","system":[{"text":"b"}]}"#.into(),
                r#"{"system":"a","system":[{"text":"Ours"}]}"#.into(),
            ),
            (
                r#"{"system":[{"text":"a","text":"b"}]}"#.into(),
                r#"{"system":[{"text":"a","text":"Ours"}]}"#.into(),
            ),
            (
                r#"{"system":[{"text":1,"te\u0078t":"b"}]}"#.into(),
                r#"{"system":[{"text":1,"te\u0078t":"Ours"}]}"#.into(),
            ),
        ],
    );
    unchanged(
        replacing,
        &[
            br#"{"system":[{"text":"a"}],"system":"b"}"#,
            br#"{"system":[{"text":"a"}],"s\u0079stem":null}"#,
            br#"{"system":[{"text":"a","text":null}]}"#,
        ],
    );
}

#[test]
fn the_attribution_block_is_known_by_the_beginning_of_its_text() {
    let later = r#"{"type":"text","text":"see x-anthropic-billing-header: y"}"#;
    let escaped = r#"{"text":"\u0078-anthropic-billing-header: y"}"#;
    let ours = r#"{"type":"text","text":"Ours"}"#;
    changed(
        replacing,
        &[
            (body(&[later, IDENTITY]), body(&[ours, IDENTITY])),
            (body(&[escaped, IDENTITY]), body(&[escaped, ours])),
            // Only the first block can be it.
            (body(&[BILLING, BILLING]), body(&[BILLING, ours])),
        ],
    );
}

#[test]
fn a_body_is_edited_however_it_is_split() {
    let sent = body(&[
        BILLING,
        r#"{"te\u0078t":"You are Cl\u0061ude Code \\\" \ud83d\ude00"}"#,
        OTHER,
    ]);
    let expected = body(&[BILLING, r#"{"te\u0078t":"Ours"}"#, OTHER]);
    let upstream = Upstream::ok();
    let proxy = inserting(&upstream).start();
    let mut client = proxy.connect();
    for at in 0..=sent.len() {
        let (one, two) = sent.as_bytes().split_at(at);
        client.send(chunked("/v1/messages", &[one, two]));
        assert_eq!(client.read_response("POST").status(), 200);
        assert_octets(
            upstream.request().1.content(),
            &expected,
            format_args!("at {at}"),
        );
    }
    let single: Vec<&[u8]> = sent.as_bytes().chunks(1).collect();
    client.send(chunked("/v1/messages", &single));
    assert_eq!(client.read_response("POST").status(), 200);
    assert_octets(upstream.request().1.content(), &expected, "octet by octet");
}

#[test]
fn the_replacement_is_a_json_string_of_what_was_configured() {
    let text = "Say \"hi\" \\ /\n\ttab \u{1} \u{7f} é 😀 </script> \u{2028}";
    let upstream = Upstream::ok();
    let proxy = Proxy::to(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", text)
        .start();
    proxy.send(post("/v1/messages", body(&[IDENTITY])));
    let (_, content) = upstream.request();
    let value: serde_json::Value = serde_json::from_slice(content.content()).unwrap();
    assert_eq!(value["system"][0]["text"], text);
}

#[test]
fn the_path_decides_and_nothing_else_of_the_target() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    let sent = body(&[IDENTITY]);
    let expected = body(&[r#"{"type":"text","text":"Ours"}"#]);
    for target in [
        "/v1/messages",
        "/v1/messages/",
        "/v1/messages?beta=true",
        "/v1/messages/?a",
        "/v1/messages?",
    ] {
        proxy.send(post(target, &sent));
        let (head, body) = upstream.request();
        assert_octets(body.content(), &expected, target);
        assert_eq!(head.target(), target);
    }
    for target in [
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1/messages//",
        "/v1/messages2",
        "//v1/messages",
        "/V1/messages",
        "/v1/complete?/v1/messages",
        "/x/v1/messages",
        "/",
    ] {
        proxy.send(post(target, &sent));
        assert_octets(upstream.request().1.content(), &sent, target);
    }
}

#[test]
fn other_methods_are_untouched() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    let sent = body(&[IDENTITY]);
    for method in ["PUT", "PATCH", "GET", "DELETE", "post"] {
        proxy.send(format!(
            "{method} /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{sent}",
            sent.len()
        ));
        let (head, body) = upstream.request();
        assert_eq!(head.method(), method);
        assert_octets(body.content(), &sent, method);
    }
}

#[test]
fn without_a_replacement_nothing_is_edited_or_held() {
    for replacement in [None, Some("")] {
        let upstream = Upstream::bind();
        let mut proxy =
            Proxy::to(upstream.url()).env("SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST", "true");
        if let Some(replacement) = replacement {
            proxy = proxy.env("SYSTEM_PROMPT_REPLACEMENT", replacement);
        }
        let proxy = proxy.start();
        let sent = body(&[IDENTITY]);
        let request = post("/v1/messages", &sent);
        let (head, tail) = request.split_at(request.len() - 10);
        let (mut client, mut origin) = proxy.begin_exchange(&upstream, head);
        assert_octets(
            origin.read_exact(sent.len() - 10),
            &sent[..sent.len() - 10],
            "the body",
        );
        client.send(tail);
        assert_octets(origin.read_exact(10), &sent[sent.len() - 10..], "the body");
    }
}

#[test]
fn a_charset_does_not_hide_json() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    let sent = body(&[IDENTITY]);
    proxy.send(format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: Application/JSON ; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{sent}",
        sent.len()
    ));
    let expected = body(&[r#"{"type":"text","text":"Ours"}"#]);
    assert_octets(upstream.request().1.content(), &expected, "the body");
}

#[test]
fn an_encoded_body_is_untouched() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body(&[IDENTITY]).as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    // Even what would be JSON: its coding says that it is not.
    for content in [gzip, body(&[IDENTITY]).into_bytes()] {
        let mut request = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            content.len()
        )
        .into_bytes();
        request.extend_from_slice(&content);
        assert_eq!(proxy.send(request).status(), 200);
        assert!(
            upstream.request().1 == Body::Length(content),
            "an encoded body was changed"
        );
    }
}

#[test]
fn a_body_above_32_mib_streams_untouched() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    let padding = "x".repeat(33 << 20);
    let sent = format!(r#"{{"system":[{IDENTITY}],"messages":["{padding}"]}}"#);
    proxy.send(post("/v1/messages", &sent));
    assert_octets(upstream.request().1.content(), &sent, "the body");
    let pieces: Vec<&[u8]> = sent.as_bytes().chunks(1 << 20).collect();
    proxy.send(chunked("/v1/messages", &pieces));
    assert_octets(upstream.request().1.content(), &sent, "the body");
}

#[test]
fn a_body_of_31_mib_is_edited() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    let padding = "x".repeat(31 << 20);
    let with = |block: &str| format!(r#"{{"messages":["{padding}"],"system":[{block}]}}"#);
    let expected = with(r#"{"type":"text","text":"Ours"}"#);
    proxy.send(post("/v1/messages", with(IDENTITY)));
    assert_octets(upstream.request().1.content(), &expected, "the body");
}

#[test]
fn the_bound_of_a_held_body_is_exact() {
    let sent = body(&[IDENTITY]);
    let expected = body(&[r#"{"type":"text","text":"Ours"}"#]);
    for (bound, edited) in [(sent.len(), true), (sent.len() - 1, false)] {
        let upstream = Upstream::ok();
        let proxy = replacing(&upstream).env("MAX_EDIT_BODY", bound).start();
        let expected = if edited { &expected } else { &sent };
        proxy.send(post("/v1/messages", &sent));
        assert_octets(
            upstream.request().1.content(),
            expected,
            format_args!("length, {bound}"),
        );
        let pieces: Vec<&[u8]> = sent.as_bytes().chunks(7).collect();
        proxy.send(chunked("/v1/messages", &pieces));
        assert_octets(
            upstream.request().1.content(),
            expected,
            format_args!("chunked, {bound}"),
        );
    }
}

#[test]
fn a_body_above_the_bound_streams_as_it_arrives() {
    for framing in ["Content-Length: 2000000", "Transfer-Encoding: chunked"] {
        let upstream = Upstream::bind();
        let proxy = Proxy::to(upstream.url())
            .env("SYSTEM_PROMPT_REPLACEMENT", "Ours")
            .env("MAX_EDIT_BODY", 1000)
            .start();
        let mut client = proxy.connect();
        client.send(format!(
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
        ));
        client.send(chunk(&[b' '; 2000]));
        let mut origin = upstream.accept();
        origin.read_request_head();
        assert!(origin.read_exact(2000).contains(&b' '), "{framing}");
    }
}

#[test]
fn any_depth_is_safe() {
    let deep = |open: &str, close: &str, block: &str| {
        let (open, close) = (open.repeat(100_000), close.repeat(100_000));
        format!(r#"{{"messages":{open}1{close},"system":[{block}]}}"#)
    };
    let ours = r#"{"type":"text","text":"Ours"}"#;
    let inside = |block: &str| {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        let deep = format!(r#"{{"deep":{open}{close},"text":"{block}"}}"#);
        format!(r#"{{"system":[{deep}]}}"#)
    };
    changed_large(&[
        (deep("[", "]", IDENTITY), deep("[", "]", ours)),
        (deep(r#"{"a":"#, "}", IDENTITY), deep(r#"{"a":"#, "}", ours)),
        (inside("x"), inside("Ours")),
        // Never closed: not JSON, hence unchanged.
        (
            format!(r#"{{"system":[{IDENTITY}],"a":{}"#, "[".repeat(100_000)),
            format!(r#"{{"system":[{IDENTITY}],"a":{}"#, "[".repeat(100_000)),
        ),
    ]);
}

#[track_caller]
fn changed_large(table: &[(String, String)]) {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    for (sent, expected) in table {
        assert_eq!(proxy.send(post("/v1/messages", sent)).status(), 200);
        let (_, body) = upstream.request();
        assert!(body.content() == expected.as_bytes(), "of {}…", &sent[..60]);
    }
}

#[test]
fn a_client_that_waits_to_send_a_held_body_is_told_to_continue() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    let sent = body(&[IDENTITY]);
    let mut client = proxy.connect();
    client.send(format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        sent.len()
    ));
    assert_eq!(client.read_response_head().status(), 100);
    client.send(&sent);
    let mut response = client.read_response("POST");
    while response.status() < 200 {
        response = client.read_response("POST");
    }
    assert_eq!(response.content(), b"ok");
    let (_, content) = upstream.request();
    assert_octets(
        content.content(),
        body(&[r#"{"type":"text","text":"Ours"}"#]),
        "the body",
    );
}

#[test]
fn an_edited_request_keeps_its_fields() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).start();
    let sent = body(&[IDENTITY]);
    proxy.send(format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         X-Api-Key: k\r\nanthropic-beta: a,b\r\nAnthropic-Beta: c\r\nContent-Length: {}\r\n\r\n{sent}",
        sent.len()
    ));
    let (head, _) = upstream.request();
    assert_eq!(head.one("x-api-key"), Some("k"));
    assert_eq!(head.one("content-type"), Some("application/json"));
    let betas: [&[u8]; 2] = [b"a,b", b"c"];
    assert_eq!(head.all("anthropic-beta"), betas);
}

/// A proxy whose budget for held bodies is as large as one of the bodies sent here.
fn tight(url: String) -> Proxy {
    Proxy::to(url)
        .env("SYSTEM_PROMPT_REPLACEMENT", "Ours")
        .env("MAX_EDIT_BODY", 65536)
        .env("EDIT_MEMORY", 65536)
        .start()
}

fn held() -> String {
    let padding = "x".repeat(48 * 1024);
    format!(r#"{{"system":[{IDENTITY}],"messages":["{padding}"]}}"#)
}

/// A client whose body stands held, all but its last octet.
#[track_caller]
fn hold(proxy: &Proxy, framing: &str) -> Wire {
    let content = held();
    let mut client = proxy.connect();
    client.send(format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         {framing}\r\n\r\n{}",
        &content[..content.len() - 1]
    ));
    client
}

#[test]
fn a_body_waits_for_its_share_of_the_memory() {
    let upstream = Upstream::ok();
    let proxy = tight(upstream.url());
    let framing = format!("Content-Length: {}", held().len());
    let mut one = hold(&proxy, &framing);
    // Both go through the same scheduler: what the first holds, it holds before the second asks.
    assert_eq!(
        proxy
            .send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .status(),
        200
    );
    let mut two = proxy.connect();
    two.send(post("/v1/messages", held()));
    upstream.no_more();
    one.send("}");
    for client in [&mut one, &mut two] {
        assert_eq!(client.read_response("POST").content(), b"ok");
        let (_, body) = upstream.request();
        assert!(
            body.content()
                .starts_with(br#"{"system":[{"type":"text","text":"Ours"}]"#)
        );
    }
}

#[test]
fn a_body_that_waits_in_vain_is_503_after_ten_seconds() {
    let upstream = Upstream::bind();
    let proxy = tight(upstream.url());
    let framing = format!("Content-Length: {}", held().len());
    let _one = hold(&proxy, &framing);
    assert_eq!(
        proxy
            .send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .status(),
        200
    );
    let start = Instant::now();
    let mut two = proxy.connect();
    two.set_deadline(Duration::from_secs(14));
    two.send(post("/v1/messages", held()));
    let response = two.read_response("POST");
    assert_proxy_error(&response, 503, "overloaded_error", "edit_memory_exhausted");
    assert_eq!(response.head.one("retry-after"), Some("1"));
    assert!(
        start.elapsed() > Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    upstream.no_more();
}

#[test]
fn a_client_that_leaves_gives_its_memory_back() {
    let upstream = Upstream::ok();
    let proxy = tight(upstream.url());
    let framing = format!("Content-Length: {}", held().len());
    for _ in 0..5 {
        drop(hold(&proxy, &framing));
    }
    for _ in 0..5 {
        assert_eq!(proxy.send(post("/v1/messages", held())).status(), 200);
        upstream.request();
    }
}

#[test]
fn what_is_not_held_needs_no_memory() {
    let upstream = Upstream::ok();
    let proxy = tight(upstream.url());
    let framing = format!("Content-Length: {}", held().len());
    let _one = hold(&proxy, &framing);
    assert_eq!(
        proxy.send(post("/v1/files", noise(1_000_000))).status(),
        200
    );
}

#[test]
fn what_clients_declare_locks_nobody_out() {
    let upstream = Upstream::ok();
    let proxy = replacing(&upstream).env("WORKERS", 1).start();
    // together they declare all of the default EDIT_MEMORY, and send an octet each
    let idle: Vec<Wire> = (0..17)
        .map(|_| {
            let mut client = proxy.connect();
            client.send(
                "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: 33554432\r\n\r\n{",
            );
            client
        })
        .collect();
    let health = proxy.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(health.status(), 200);
    for content in [body(&[IDENTITY]), held()] {
        assert_eq!(proxy.send(post("/v1/messages", content)).status(), 200);
        upstream.request();
    }
    drop(idle);
}

#[test]
fn a_held_body_that_trickles_is_408() {
    let upstream = Upstream::bind();
    let proxy = Proxy::to(upstream.url())
        .env("SYSTEM_PROMPT_REPLACEMENT", "Ours")
        .env("REQUEST_BODY_TIMEOUT", "500ms")
        .start();
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = proxy.connect();
        client.send(format!(
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
        ));
        let mut writer = client.clone_writer();
        let octet = match framing {
            "Transfer-Encoding: chunked" => "1\r\n{\r\n",
            _ => "{",
        };
        let trickling = std::thread::spawn(move || {
            while writer.try_send(octet).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let response = client.read_response("POST");
        assert_proxy_error(&response, 408, "timeout_error", "request_body_timeout");
        drop(client);
        trickling.join().unwrap();
    }
    upstream.no_more();
}
