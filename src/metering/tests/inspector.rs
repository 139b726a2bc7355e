//! Tests of the request inspector: bodies in every split, from both ends.

use proptest::prelude::{prop, prop_assert_eq, proptest};

use super::super::{ModelWatch, RequestDetails, RequestInspector};

pub(super) fn look(chunks: impl Iterator<Item = Vec<u8>>) -> RequestDetails {
    let mut look = RequestInspector::new();
    for chunk in chunks {
        if !look.push(&chunk) {
            return look.finish();
        }
    }
    look.end();
    look.finish()
}

fn asked(body: &str) -> RequestDetails {
    let whole = look([body.as_bytes().to_vec()].into_iter());
    for size in 1..6 {
        let cut = look(body.as_bytes().chunks(size).map(<[u8]>::to_vec));
        assert_eq!(cut, whole, "{body}");
    }
    whole
}

#[test]
fn a_look_reads_the_top_level_of_a_request() {
    let all = RequestDetails {
        model: Some("m".into()),
        is_stream: Some(true),
        max_tokens: Some(7),
    };
    for body in [
        r#"{"model":"m","stream":true,"max_tokens":7,"messages":[]}"#,
        r#"{"messages":[{"model":"x","stream":false,"max_tokens":1}],"max_tokens":7,"model":"m","system":{"model":"y"},"stream":true}"#,
        r#"{"mod\u0065l":"\u006d","str\u0065am":true,"max\u005ftokens":7}"#,
        r#"{"model":"x","model":"m","max_tokens":1,"max_tokens":7,"stream":true}"#,
        "\u{feff} {\"model\" : \"m\" , \"stream\":true,\"max_tokens\":7}",
    ] {
        assert_eq!(asked(body), all, "{body}");
    }
    for body in [
        r#"{"model":"m","max_tokens":9,"max_tokens":"x","stream":true,"stream":[]}"#,
        r#"{"model":"m","stream":null,"max_tokens":-1}"#,
        r#"{"model":"m" nonsense "max_tokens":7}"#,
        r#"{"model":"m","max_tokens":7"#,
    ] {
        let expected = RequestDetails {
            model: Some("m".into()),
            ..RequestDetails::default()
        };
        assert_eq!(asked(body), expected, "{body}");
    }
    for body in [
        "",
        "[]",
        r#"[{"model":"m"}]"#,
        "model",
        r#"{"a":{"model":"m"}}"#,
        "{}",
    ] {
        assert_eq!(asked(body), RequestDetails::default(), "{body}");
    }
}

#[test]
fn a_look_ends_when_it_has_all_and_sees_no_more_than_64_kib_at_once() {
    let mut whole = RequestInspector::new();
    assert!(whole.push(br#"{"model":"m","stream":true,"#));
    assert!(!whole.push(br#""max_tokens":7,"#));
    assert!(!whole.push(br#""model":"n"}"#));
    assert_eq!(whole.finish().model.as_deref(), Some("m"));

    let behind = |len: usize| format!(r#"{{"a":"{}","model":"m","b":1"#, "x".repeat(len));
    assert!(asked(&behind(65_000)).model.is_some());
    assert!(asked(&behind(65_536)).model.is_none());
    assert!(!RequestInspector::new().push(b"{}") && !RequestInspector::new().push(b"!"));
}

#[test]
fn a_first_turn_of_claude_code_is_within_the_look() {
    // the order of its members, and about as large
    let body = format!(
        r#"{{"model":"claude-opus-4-5","messages":[{{"role":"user","content":"{}"}}],"system":[],"tools":[],"metadata":{{}},"max_tokens":32000,"thinking":{{"budget_tokens":31999}},"stream":true}}"#,
        "x".repeat(50_000)
    );
    let asked = look(body.as_bytes().chunks(4096).map(<[u8]>::to_vec));
    assert_eq!(asked.model.as_deref(), Some("claude-opus-4-5"));
    assert_eq!(
        (asked.is_stream, asked.max_tokens),
        (Some(true), Some(32_000))
    );
}

#[test]
fn a_later_turn_of_claude_code_is_read_from_its_end() {
    // the order of its members
    let body = |content: &str| {
        format!(
            r#"{{"model":"claude-opus-4-5","messages":[{{"role":"user","content":"{content}"}}],"system":[],"tools":[{{"a":"]"}}],"metadata":{{"user_id":"{{\"a\":\"\\\\\"}}"}},"max_tokens":32000,"thinking":{{"type":"enabled","max_tokens":1}},"stream" : true }}
"#
        )
    };
    for len in (63_000..66_500).step_by(7).chain([200_000, 1_000_000]) {
        let body = body(&"x".repeat(len));
        for size in [4_096, 65_536, 1 << 20] {
            let asked = look(body.as_bytes().chunks(size).map(<[u8]>::to_vec));
            assert_eq!(asked.model.as_deref(), Some("claude-opus-4-5"), "{len}");
            let found = (asked.is_stream, asked.max_tokens);
            assert_eq!(found, (Some(true), Some(32_000)), "{len} in {size}");
        }
    }
    let long = body(&"x".repeat(100_000));
    for (end, is_stream) in [
        // the last counts
        (r#","stream":false}"#, Some(false)),
        (r#","stream":null}"#, None),
        (r#","model":"m\"}"}"#, Some(true)),
        // what is in other objects does not
        (r#","a":{"stream":false}}"#, Some(true)),
        (r#","a":[{"stream":false}]}"#, Some(true)),
        (r#","a":"\"stream\":false}"}"#, Some(true)),
        // and what has no end says nothing
        (r#","a":{"stream":false"#, None),
    ] {
        let body = long.replace(" }\n", end);
        for size in [1_000, 1 << 20] {
            let asked = look(body.as_bytes().chunks(size).map(<[u8]>::to_vec));
            assert_eq!(asked.is_stream, is_stream, "{end}");
        }
    }
    // without its end it was not seen whole: what looks like members may be in a string
    let mut broken_off = RequestInspector::new();
    for chunk in long.as_bytes().chunks(1_000) {
        assert!(broken_off.push(chunk));
    }
    assert_eq!(broken_off.finish().is_stream, None);
}

proptest! {
    #[test]
    fn a_watch_tells_what_a_look_at_the_same_body_finds(
        members in prop::collection::vec(
            prop::sample::select(vec![
                r#""stream":true"#, r#""stream":false"#, r#""stream":null"#, r#""stream":[true]"#,
                r#""str\u0065am":true"#, r#""max_tokens":7"#, r#""max_tokens":1e1"#,
                r#""max_tokens":{"max_tokens":1}"#, r#""max_tokens":"x""#, r#""tools":[{"stream":true}]"#,
                r#""messages":[{"model":"x","stream":false,"max_tokens":1}]"#, r#""maximum_":1"#,
            ]), 0..6),
        size in 1_usize..20,
    ) {
        // the model last, so that the look does not end before the last of duplicates
        let members = [&members[..], &[r#""model":"m""#]].concat();
        let body = format!("{{{}}}", members.join(","));
        let (mut watch, mut told) = (ModelWatch::new(), RequestInspector::new());
        for chunk in body.as_bytes().chunks(size) {
            watch.push(chunk);
            watch.tell(told.asked_mut());
        }
        let found = look(body.as_bytes().chunks(size).map(<[u8]>::to_vec));
        prop_assert_eq!(told.finish(), found, "{}", body);
    }
}
