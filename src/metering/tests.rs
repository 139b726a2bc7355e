//! Tests of the usage reader as a whole: recorded responses in every split and coding, and garbage.

use std::io::Write as _;

use bytes::Bytes;
use proptest::prelude::{
    Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use self::inspector::look;
use super::*;
use crate::exchange::Terms;

mod inspector;

/// A stream as the API sends it: thinking, a server's tool, text, a client's tool, pings; its texts
/// quote events.
const STREAM: &str = include_str!("../../tests/it/data/message.sse");

/// The same generation, not streamed.
const ANSWER: &str = r#"{"model":"claude-sonnet-4-5-20250929","id":"msg_01","type":"message","role":"assistant",
    "content":[{"type":"text","text":"\"usage\":{\"output_tokens\":5}","usage":{"output_tokens":7}},
    {"type":"tool_use","id":"toolu_01","name":"Bash","input":{"model":"no","stop_reason":"no","error":{"type":"no"}}}],
    "stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":10682,"cache_creation_input_tokens":1500,
    "cache_read_input_tokens":31872,"cache_creation":{"ephemeral_5m_input_tokens":1100,"ephemeral_1h_input_tokens":400},
    "output_tokens":510,"server_tool_use":{"web_search_requests":2,"web_fetch_requests":1},"service_tier":"standard"}}"#;

const CODINGS: [&str; 6] = ["", "gzip", "br", "zstd", "deflate", "raw"];

fn truth(is_stream: bool) -> Usage {
    Usage {
        model: Some("claude-sonnet-4-5-20250929".into()),
        is_stream,
        max_tokens: None,
        tokens: Tokens {
            input: 10_682,
            output: 510,
            cache_read: 31_872,
            cache_write_5m: 1_100,
            cache_write_1h: 400,
        },
        server_tools: 3,
        web_searches: 2,
        terms: Terms {
            service_tier: Some("standard".into()),
            ..Terms::default()
        },
        stop_reason: Some("tool_use".into()),
        ..Usage::default()
    }
}

fn tap(is_stream: bool, coding: &str) -> Box<UsageReader> {
    let coding = if coding == "raw" { "deflate" } else { coding };
    let media_type: &[u8] = if is_stream {
        b"text/event-stream; charset=utf-8"
    } else {
        b"application/json"
    };
    UsageReader::new(Some(media_type), Some(coding.as_bytes())).unwrap()
}

/// The usage, and the numbers of the chunks with which a first token came.
fn meter<'a>(
    mut tap: Box<UsageReader>,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Usage, Vec<usize>) {
    let firsts = chunks
        .enumerate()
        .filter(|(_, chunk)| tap.push(&Bytes::copy_from_slice(chunk)))
        .map(|(number, _)| number)
        .collect();
    (tap.finish().0, firsts)
}

/// The usage of an answer that has ended, as its framing says.
fn ended<'a>(mut tap: Box<UsageReader>, chunks: impl Iterator<Item = &'a [u8]>) -> (Usage, String) {
    for chunk in chunks {
        tap.push(&Bytes::copy_from_slice(chunk));
    }
    tap.end();
    let (usage, words) = tap.finish();
    (usage, String::from_utf8(words).unwrap())
}

fn stream(text: &str) -> Usage {
    let whole = meter(tap(true, ""), [text.as_bytes()].into_iter());
    for size in 1..5 {
        let cut = meter(tap(true, ""), text.as_bytes().chunks(size));
        assert_eq!(cut.0, whole.0, "{text}");
        assert_eq!(cut.1.len(), whole.1.len(), "{text}");
    }
    whole.0
}

fn is_broken(usage: &Usage) -> bool {
    usage.failure == Some(MeteringFailure::Broken)
}

fn answer(text: &str) -> Usage {
    meter(tap(false, ""), [text.as_bytes()].into_iter()).0
}

/// The parts in a coding, each of them flushed.
fn encode(coding: &str, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    fn each<W: std::io::Write>(
        mut encoder: W,
        parts: &[&[u8]],
        taken: impl Fn(&mut W) -> &mut Vec<u8>,
        finish: impl FnOnce(W) -> Vec<u8>,
    ) -> Vec<Vec<u8>> {
        let mut encoded = Vec::new();
        for part in parts {
            encoder.write_all(part).unwrap();
            encoder.flush().unwrap();
            encoded.push(std::mem::take(taken(&mut encoder)));
        }
        encoded.push(finish(encoder));
        encoded
    }
    let level = flate2::Compression::default();
    match coding {
        "" => parts.iter().map(|part| part.to_vec()).collect(),
        "gzip" => each(
            flate2::write::GzEncoder::new(Vec::new(), level),
            parts,
            |encoder| encoder.get_mut(),
            |encoder| encoder.finish().unwrap(),
        ),
        "deflate" => each(
            flate2::write::ZlibEncoder::new(Vec::new(), level),
            parts,
            |encoder| encoder.get_mut(),
            |encoder| encoder.finish().unwrap(),
        ),
        "raw" => each(
            flate2::write::DeflateEncoder::new(Vec::new(), level),
            parts,
            |encoder| encoder.get_mut(),
            |encoder| encoder.finish().unwrap(),
        ),
        "br" => each(
            brotli::CompressorWriter::new(Vec::new(), 4096, 4, 20),
            parts,
            |encoder| encoder.get_mut(),
            brotli::CompressorWriter::into_inner,
        ),
        "zstd" => each(
            zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap(),
            parts,
            |encoder| encoder.get_mut(),
            |encoder| encoder.finish().unwrap(),
        ),
        _ => panic!("{coding}"),
    }
}

fn events() -> Vec<&'static [u8]> {
    STREAM.split_inclusive("\n\n").map(str::as_bytes).collect()
}

#[test]
fn only_streams_of_events_and_json_in_known_codings_are_metered() {
    for (content_type, coding, is_metered) in [
        (Some("text/event-stream"), None, true),
        (
            Some(" Text/Event-Stream;charset=utf-8"),
            Some("identity"),
            true,
        ),
        (Some("application/json"), Some(""), true),
        (Some("application/problem+json; x"), Some("GZIP"), true),
        (Some("application/json"), Some("identity, br"), true),
        (Some("application/json"), Some("zstd"), true),
        (Some("application/json"), Some("deflate"), true),
        (Some("application/json"), Some("x-gzip"), true),
        (Some("application/json"), Some("gzip, br"), true),
        (Some("application/json"), Some("gzip,br , zstd"), false),
        (Some("application/json"), Some("gzip, compress"), false),
        (Some("application/json"), Some("compress"), false),
        (Some("text/html"), None, false),
        (Some(""), None, false),
        (Some(";"), None, false),
        (None, None, false),
    ] {
        let tap = UsageReader::new(content_type.map(str::as_bytes), coding.map(str::as_bytes));
        assert_eq!(tap.is_some(), is_metered, "{content_type:?} {coding:?}");
    }
}

#[test]
fn what_an_answer_costs_is_read_alike_without_its_stop_reason() {
    let json = Some(&b"application/json"[..]);
    for text in [
        r#"{"model":"m","stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":7,
            "service_tier":"standard","cache_creation":{"ephemeral_1h_input_tokens":3}}}"#,
        r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
        r#"{"model":"m","stop_reason":"end_turn"}"#,
        r#"{"model":"m","usage":{"output_tokens":"x"}"#,
    ] {
        let read = |tap: Option<Box<UsageReader>>| {
            let mut tap = tap.unwrap();
            tap.push(&Bytes::copy_from_slice(text.as_bytes()));
            tap.end();
            tap.finish()
        };
        let (mut all, words) = read(UsageReader::of(200, json, None));
        all.stop_reason = None;
        assert_eq!(
            read(UsageReader::of_cost(200, json, None)),
            (all, words),
            "{text}"
        );
    }
}

#[test]
fn a_success_that_cannot_be_metered_is_a_failure_to_meter() {
    let failure = |status, content_type: Option<&str>, coding: Option<&str>| {
        let content_type = content_type.map(str::as_bytes);
        let tap = UsageReader::of(status, content_type, coding.map(str::as_bytes));
        tap.map(|mut tap| {
            assert!(!tap.push(&Bytes::from_static(b"event: content_block_delta\n")));
            tap.finish().0.failure
        })
    };
    let stream = Some("text/event-stream");
    for (content_type, coding) in [
        (stream, Some("compress")),
        (stream, Some("gzip, br, zstd")),
        (Some("text/html"), None),
        (None, None),
    ] {
        let coded = Some(Some(MeteringFailure::Coding));
        assert_eq!(failure(200, content_type, coding), coded);
        // responses with other statuses are not expected to have usage
        for status in [204, 304, 404, 502] {
            assert_eq!(failure(status, content_type, coding), None);
        }
    }
    assert_eq!(failure(200, stream, Some("")), Some(None));
    assert_eq!(failure(529, stream, None), Some(None));
}

#[test]
fn two_codings_are_undone_in_turn() {
    for (inner, outer) in [("gzip", "br"), ("zstd", "gzip"), ("br", "deflate")] {
        let once = encode(inner, &events());
        let parts: Vec<&[u8]> = once.iter().map(Vec::as_slice).collect();
        let twice = encode(outer, &parts).concat();
        let codings = format!("{inner},identity, {outer}");
        for size in [1, 100, 1 << 20] {
            let (usage, firsts) = meter(tap(true, &codings), twice.chunks(size));
            assert_eq!((usage, firsts.len()), (truth(true), 1), "{codings}");
        }
        // the inner one is broken
        let broken = encode(outer, &[&once[0], &[0xFF; 2000]]).concat();
        let (usage, _) = meter(tap(true, &codings), broken.chunks(100));
        assert!(is_broken(&usage), "{codings}");
    }
}

/// Events of this many bytes that hardly compress.
fn pings(octets: usize) -> String {
    let (mut text, mut random) = (String::with_capacity(octets), 0x9E37_79B9_7F4A_7C15_u64);
    while text.len() < octets {
        text.push_str("event: ping\ndata: ");
        for _ in 0..10 {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            text.push_str(&format!("{random:x} "));
        }
        text.push_str("\n\n");
    }
    text
}

/// Taps of answers in this coding that are shown all but the end of it, until there is no memory for
/// one more: how many, and what that one says.
fn taps_within(budget: &'static Budget, coding: &str, parts: &[Vec<u8>]) -> (usize, Usage) {
    let chunks = parts.iter().flat_map(|part| part.chunks(16 * 1024));
    let chunks: Vec<Bytes> = chunks.map(Bytes::copy_from_slice).collect();
    let mut taps = Vec::new();
    loop {
        let tap = UsageReader::within(budget, Some(b"text/event-stream"), Some(coding.as_bytes()));
        let mut tap = tap.unwrap();
        for chunk in &chunks {
            tap.push(chunk);
        }
        // but for the tables of br
        assert!(budget.taken() <= (4 << 20) + (64 << 10));
        if tap.failure.is_some() {
            break (taps.len(), tap.finish().0);
        }
        taps.push(tap);
        assert!(taps.len() < 1_000, "there is no bound");
    }
}

#[test]
fn decoders_share_one_budget_and_give_it_back() {
    for (coding, least, most) in [("gzip", 80, 85), ("br", 3, 4), ("zstd", 2, 3)] {
        let budget: &'static Budget = Box::leak(Box::new(Budget::new(4 << 20)));
        let begun = STREAM.split_once("event: message_delta\ndata").unwrap().0;
        let filler = pings(1 << 20);
        let content = encode(coding, &[begun.as_bytes(), filler.as_bytes()]);
        let (count, usage) = taps_within(budget, coding, &content[..2]);
        assert!((least..=most).contains(&count), "{coding}: {count}");
        assert_eq!(usage.failure, Some(MeteringFailure::Memory), "{coding}");
        // as far as it came: gzip is refused as it begins, the others as they grow
        let tokens = if coding == "gzip" { 0 } else { 3 };
        assert_eq!(usage.tokens.output, tokens, "{coding}");
        assert_eq!(budget.taken(), 0, "{coding}");
    }
}

#[test]
fn what_a_decoder_is_charged_is_what_it_takes() {
    let events = pings(5 << 19);
    // the largest window that a frame names, by level: RFC 8878 §3.1.1.1.2
    for (level, window) in [(1, 512 << 10), (3, 2 << 20)] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
        encoder.write_all(events.as_bytes()).unwrap();
        let frame = encoder.finish().unwrap();
        let mut context = zstd::zstd_safe::DCtx::create();
        let mut output = vec![0; 1 << 16];
        let mut input = zstd::zstd_safe::InBuffer::around(&frame);
        while input.pos() < frame.len() {
            let mut output = zstd::zstd_safe::OutBuffer::around(&mut output[..]);
            context.decompress_stream(&mut output, &mut input).unwrap();
        }
        let budget: &'static Budget = Box::leak(Box::new(Budget::new(usize::MAX)));
        let tap = UsageReader::within(budget, Some(b"text/event-stream"), Some(b"zstd"));
        let mut tap = tap.unwrap();
        for chunk in frame.chunks(1_000) {
            tap.push(&Bytes::copy_from_slice(chunk));
        }
        let taken = budget.taken();
        assert!(context.sizeof() <= taken, "{taken} < {}", context.sizeof());
        assert!(taken <= window + (580 << 10), "{taken} of {window}");
    }
}

#[test]
fn usage_is_the_truth_for_every_split_in_two_in_every_coding() {
    for coding in CODINGS {
        for (is_stream, parts) in [(true, events()), (false, vec![ANSWER.as_bytes()])] {
            let content = encode(coding, &parts).concat();
            for at in 0..=content.len() {
                let (head, tail) = content.split_at(at);
                let (usage, firsts) = meter(tap(is_stream, coding), [head, tail].into_iter());
                assert_eq!(usage, truth(is_stream), "{coding} at {at}");
                assert_eq!(firsts.len(), usize::from(is_stream), "{coding} at {at}");
            }
        }
    }
}

#[test]
fn the_first_token_is_told_with_the_event_that_brings_it() {
    let events = events();
    let first = events
        .iter()
        .position(|event| event.starts_with(b"event: content_block_delta"))
        .unwrap();
    for coding in CODINGS {
        let parts = encode(coding, &events);
        let (usage, firsts) = meter(tap(true, coding), parts.iter().map(Vec::as_slice));
        assert_eq!((usage, firsts), (truth(true), vec![first]), "{coding}");
    }
}

#[test]
fn what_is_cut_off_is_metered_as_far_as_it_came() {
    for coding in CODINGS {
        for (is_stream, parts) in [(true, events()), (false, vec![ANSWER.as_bytes()])] {
            let content = encode(coding, &parts).concat();
            let (most, mut before) = (truth(is_stream), Tokens::default());
            for end in 0..content.len() {
                let (usage, _) = meter(tap(is_stream, coding), [&content[..end]].into_iter());
                let tokens = usage.tokens;
                for (count, before, most) in [
                    (tokens.input, before.input, most.tokens.input),
                    (tokens.output, before.output, most.tokens.output),
                    (tokens.cache_read, before.cache_read, most.tokens.cache_read),
                    (
                        tokens.cache_write_1h,
                        before.cache_write_1h,
                        most.tokens.cache_write_1h,
                    ),
                ] {
                    assert!(before <= count && count <= most, "{coding} to {end}");
                }
                let written = tokens.cache_write_5m + tokens.cache_write_1h;
                assert!(
                    written <= 1_500 && usage.failure.is_none(),
                    "{coding} to {end}"
                );
                before = tokens;
            }
        }
    }
}

#[test]
fn line_ends_comments_marks_and_unknown_fields_make_no_difference() {
    for end in ["\r\n", "\r"] {
        assert_eq!(stream(&STREAM.replace('\n', end)), truth(true));
    }
    assert_eq!(stream(&format!("\u{feff}{STREAM}")), truth(true));
    let noise = ": a comment\nid: 7\nretry: 10\nevents: x\ndat\nevent: vertex_event\ndata: nothing\n\ndata\n\n\n";
    assert_eq!(
        stream(&STREAM.replace("\n\n", &format!("\n\n{noise}"))),
        truth(true)
    );
    assert_eq!(stream(&STREAM.replace(": ", ":")), {
        // the text of a delta changes, too, which is of no interest
        truth(true)
    });
    // data over lines, and before the name
    let lines = STREAM.replace(",\"usage\":", "\ndata: ,\ndata:\"usage\":");
    assert_eq!(stream(&lines), truth(true));
    let turned: String = STREAM
        .split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            format!("{data}\n{name}\n\n")
        })
        .collect();
    assert_eq!(stream(&turned), truth(true));
}

#[test]
fn events_without_a_name_are_told_by_their_type() {
    for name in ["", "event:\n", "event\n", "event: message\n"] {
        let text: String = STREAM
            .split_inclusive('\n')
            .map(|line| {
                if line.starts_with("event") {
                    name
                } else {
                    line
                }
            })
            .collect();
        assert_eq!(
            stream(&format!("{text}data: [DONE]\n\n")),
            truth(true),
            "{name:?}"
        );
    }
    let late =
        r#"{"usage":{"output_tokens":4},"delta":{"stop_reason":"x"},"type":"message_delta"}"#;
    assert_eq!(stream(&format!("data: {late}\n\n")).tokens.output, 4);
    assert_eq!(stream(&format!("data: {late}\n")).tokens.output, 0);
}

#[test]
fn larger_counts_stand_for_earlier_ones() {
    let event = |name: &str, data: &str| format!("event: {name}\ndata: {data}\n\n");
    let start = |usage: &str| {
        event(
            "message_start",
            &format!(r#"{{"message":{{"usage":{usage}}}}}"#),
        )
    };
    let delta = |usage: &str| event("message_delta", &format!(r#"{{"usage":{usage}}}"#));
    let cache = |text: &str| {
        let tokens = stream(text).tokens;
        (tokens.cache_write_5m, tokens.cache_write_1h)
    };
    assert_eq!(
        cache(&start(r#"{"cache_creation_input_tokens":9}"#)),
        (9, 0)
    );
    let split = start(
        r#"{"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":9}}"#,
    );
    assert_eq!(cache(&split), (0, 9));
    let repeated = split.clone() + &delta(r#"{"cache_creation_input_tokens":9}"#);
    assert_eq!(cache(&repeated), (0, 9));
    let more = split + &delta(r#"{"cache_creation_input_tokens":12}"#);
    assert_eq!(cache(&more), (3, 9));

    let text = start(r#"{"input_tokens":5,"output_tokens":1}"#)
        + &delta(r#"{"output_tokens":7,"input_tokens":null,"server_tool_use":{"a":1}}"#)
        + &delta(r#"{"output_tokens":9,"server_tool_use":{"a":2,"b":3,"c":"x"}}"#);
    let usage = stream(&text);
    assert_eq!((usage.tokens.input, usage.tokens.output), (5, 9));
    assert_eq!(usage.server_tools, 5);
    let absurd = stream(&delta(r#"{"output_tokens":18446744073709551615}"#));
    assert_eq!(absurd.tokens.output, 0);
    assert_eq!(absurd.failure, Some(MeteringFailure::Value));
    // a last event of zeros takes nothing away
    let whole = start(
        r#"{"input_tokens":1500,"cache_read_input_tokens":30000,"cache_creation_input_tokens":2000}"#,
    );
    let zeros = delta(
        r#"{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":10}"#,
    );
    let last = delta(r#"{"input_tokens":0,"output_tokens":0}"#);
    let usage = stream(&(whole + &zeros + &last));
    let expected = Tokens {
        input: 1_500,
        output: 10,
        cache_read: 30_000,
        cache_write_5m: 2_000,
        cache_write_1h: 0,
    };
    assert_eq!((usage.tokens, usage.failure), (expected, None));
}

#[test]
fn counts_are_read_in_every_spelling_and_what_is_none_is_a_failure() {
    let usage = |input: &str| {
        let text =
            format!(r#"{{"model":"m","usage":{{"input_tokens":{input},"output_tokens":2}}}}"#);
        let whole = ended(tap(false, ""), [text.as_bytes()].into_iter()).0;
        for size in 1..4 {
            let cut = ended(tap(false, ""), text.as_bytes().chunks(size)).0;
            assert_eq!(cut, whole, "{input}");
        }
        assert_eq!(whole.at_least, whole.failure.is_some(), "{input}");
        (whole.tokens.input, whole.failure)
    };
    for input in ["10", "10.0", "1e1", "\"10\"", "\"10.0\"", "\" 10 \""] {
        assert_eq!(usage(input), (10, None), "{input}");
    }
    assert_eq!(usage("null"), (0, None));
    for input in [
        "10.5", "-1", "\"\"", "\"ten\"", "\"-1\"", "\"nan\"", "\"inf\"", "true", "[10]", "{}",
        "1e300",
    ] {
        assert_eq!(usage(input), (0, Some(MeteringFailure::Value)), "{input}");
    }
    let named = |model: &str| answer(&format!(r#"{{"model":{model},"usage":{{}}}}"#)).model;
    assert_eq!(named("\"\""), None, "an empty name is none");
    assert_eq!(named("\" \""), None);
    assert_eq!(named("\"m\"").as_deref(), Some("m"));
}

#[test]
fn iterations_count_what_is_not_in_the_message() {
    let tokens = |input, output| Tokens {
        input,
        output,
        ..Tokens::default()
    };
    let compaction = r#"{"input_tokens":23000,"output_tokens":1000,"iterations":[
        {"type":"compaction","input_tokens":180000,"output_tokens":3500,"cache_creation":{"ephemeral_1h_input_tokens":7}},
        {"type":"message","input_tokens":23000,"output_tokens":1000}],"inference_geo":"us","speed":"fast"}"#;
    let advisor = r#"{"iterations":[{"type":"message","input_tokens":1,"output_tokens":45},
        {"model":"other","type":"advisor_message","input_tokens":159419,"output_tokens":7805,"cache_read_input_tokens":0},
        {"type":"fallback_message","model":"no","input_tokens":1,"output_tokens":446},1,[{"type":"compaction","input_tokens":9}]],
        "output_tokens":491,"input_tokens":2}"#;
    let both = |usage: &str| {
        let text = format!(r#"{{"model":"m","usage":{usage}}}"#);
        let plain = ended(tap(false, ""), text.as_bytes().chunks(7)).0;
        let delta = format!(
            "event: message_delta\ndata: {{\"usage\":{}}}\n\n",
            usage.replace('\n', " ")
        );
        // the events repeat what came before
        let stream = stream(&format!("{delta}{delta}"));
        assert_eq!(plain.tokens, stream.tokens);
        assert_eq!(plain.compactions, stream.compactions);
        assert_eq!(plain.others, stream.others);
        assert_eq!(plain.failure, stream.failure);
        plain
    };
    let usage = both(compaction);
    let mut compacted = tokens(180_000, 3_500);
    compacted.cache_write_1h = 7;
    assert_eq!(usage.tokens, tokens(23_000, 1_000));
    assert_eq!(usage.compactions, [compacted]);
    assert_eq!((usage.model.as_deref(), usage.failure), (Some("m"), None));
    assert_eq!(usage.terms.inference_geo.as_deref(), Some("us"));
    assert_eq!(usage.terms.speed.as_deref(), Some("fast"));
    let usage = both(advisor);
    assert_eq!(
        usage.tokens,
        tokens(2, 491),
        "what follows the array is the message's"
    );
    let other = crate::exchange::OtherModel {
        model: "other".into(),
        tokens: tokens(159_419, 7_805),
        cost: None,
    };
    assert_eq!((usage.others, usage.compactions), (vec![other], vec![]));
    assert_eq!((usage.model.as_deref(), usage.failure), (Some("m"), None));
    for unread in [
        r#"{"input_tokens":1,"iterations":[{"type":"new_kind","input_tokens":5}]}"#,
        r#"{"input_tokens":1,"iterations":[{"input_tokens":5}]}"#,
        // without a name
        r#"{"input_tokens":1,"iterations":[{"type":"advisor_message","input_tokens":5}]}"#,
        r#"{"input_tokens":1,"iterations":[{"type":"compaction","input_tokens":"x"}]}"#,
    ] {
        assert_eq!(
            both(unread).failure,
            Some(MeteringFailure::Value),
            "{unread}"
        );
    }
    for nothing in ["null", "[]", "{}", "\"x\"", "[[],{\"type\":\"message\"}]"] {
        let usage = both(&format!(r#"{{"input_tokens":1,"iterations":{nothing}}}"#));
        assert_eq!((usage.tokens.input, usage.failure), (1, None), "{nothing}");
    }
}

#[test]
fn an_error_inside_of_a_success_is_one_whatever_it_looks_like() {
    for (text, error, words) in [
        (
            "event: error\ndata: {\"error\":{\"message\":\"quota\"}}\n\n",
            "error",
            "quota",
        ),
        (
            "event: error\ndata: upstream timeout\n\n",
            "error",
            "upstream timeout",
        ),
        ("event: error\ndata: a\ndata: b\n\n", "error", "a\nb"),
        (
            "data: {\"error\":{\"message\":\"quota\",\"type\":\"new_api_error\"}}\n\ndata: [DONE]\n\n",
            "new_api_error",
            "quota",
        ),
        ("data: {\"error\":\"quota\",\"x\":{}}\n\n", "error", "quota"),
        (
            "data: {\"type\":\"odd\",\"error\":{\"code\":\"no_quota\"}}\n\n",
            "no_quota",
            "odd",
        ),
        (
            "event: odd\ndata: {\"error\":{\"type\":\"x\"}}\n\n",
            "x",
            "type",
        ),
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            "overloaded_error",
            "overloaded",
        ),
    ] {
        let (usage, said) = ended(tap(true, ""), [text.as_bytes()].into_iter());
        assert_eq!(usage.error_type.as_deref(), Some(error), "{text}");
        assert_eq!((usage.failure, usage.at_least), (None, false), "{text}");
        assert!(said.contains(words), "{text}: {said}");
        assert_eq!(stream(text).error_type.as_deref(), Some(error), "{text}");
    }
    for (text, error) in [
        (
            r#"{"error":{"message":"quota exceeded","code":"insufficient_quota"}}"#,
            "insufficient_quota",
        ),
        (
            r#"{"error":{"message":"quota exceeded","code":7,"type":null}}"#,
            "error",
        ),
        (r#"{"error":"quota exceeded"}"#, "error"),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"quota exceeded"}}"#,
            "overloaded_error",
        ),
    ] {
        for coding in CODINGS {
            let content = encode(coding, &[text.as_bytes()]).concat();
            let (usage, said) = ended(tap(false, coding), [&content[..]].into_iter());
            assert_eq!(usage.error_type.as_deref(), Some(error), "{text}");
            assert_eq!((usage.failure, said.as_str()), (None, text), "{text}");
        }
    }
    // none is none, and what is elsewhere is none
    for text in [
        r#"{"error":null,"usage":{"output_tokens":1}}"#,
        r#"{"error":false,"usage":{"output_tokens":1,"error":{}}}"#,
        r#"{"content":[{"error":{"type":"x"}}],"usage":{"output_tokens":1}}"#,
    ] {
        let (usage, said) = ended(tap(false, ""), [text.as_bytes()].into_iter());
        assert_eq!((usage.error_type, said.as_str()), (None, ""), "{text}");
    }
    let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(100_000));
    let (_, said) = ended(tap(false, ""), long.as_bytes().chunks(1_000));
    assert_eq!(said, long[..2_000]);
}

#[test]
fn what_ends_early_inside_of_whole_framing_is_a_failure() {
    let truncated = Some(MeteringFailure::Truncated);
    let mut none = 0;
    for coding in CODINGS {
        for (is_stream, parts) in [(true, events()), (false, vec![ANSWER.as_bytes()])] {
            let content = encode(coding, &parts).concat();
            let (whole, _) = ended(tap(is_stream, coding), [&content[..]].into_iter());
            assert_eq!(whole, truth(is_stream), "{coding}");
            for end in 1..content.len() {
                let (usage, _) = ended(tap(is_stream, coding), [&content[..end]].into_iter());
                let is_between =
                    coding.is_empty() && is_stream && content[..end].ends_with(b"\n\n");
                if is_between {
                    none += 1;
                    continue;
                }
                assert_eq!(usage.failure, truncated, "{coding} to {end}");
                assert!(usage.at_least, "{coding} to {end}");
            }
        }
    }
    assert_eq!(none, events().len() - 1, "the ends of events");
    // what follows the end of the content, or is no event, is no part of it
    for after in ["data: [DONE]\n", ": comment", "\n"] {
        let text = format!("{STREAM}{after}");
        let (usage, _) = ended(tap(true, ""), [text.as_bytes()].into_iter());
        assert_eq!(usage, truth(true), "{after}");
    }
    // an answer that says nothing of usage
    for (is_stream, text) in [
        (true, ""),
        (true, ": nothing\n\n"),
        (false, "{}"),
        (false, r#"{"code":401,"message":"invalid token"}"#),
    ] {
        let (usage, _) = ended(tap(is_stream, ""), [text.as_bytes()].into_iter());
        let failure = usage.failure;
        assert_eq!(failure, Some(MeteringFailure::Missing), "{text}");
        assert_eq!(
            meter(tap(is_stream, ""), [text.as_bytes()].into_iter())
                .0
                .failure,
            None
        );
    }
    let (usage, _) = ended(tap(false, ""), [&b""[..]].into_iter());
    assert_eq!(usage.failure, truncated, "nothing is no JSON");
}

#[test]
fn a_stream_that_is_broken_off_is_a_floor_with_an_estimate() {
    let events = events();
    let stop = events
        .iter()
        .position(|event| event.starts_with(b"event: message_delta"));
    let stop = stop.unwrap();
    let (mut deltas, mut before) = (0, 0);
    for end in 1..=events.len() {
        deltas += u64::from(events[end - 1].starts_with(b"event: content_block_delta"));
        for size in [7, 1 << 20] {
            let content = events[..end].concat();
            let (usage, _) = meter(tap(true, ""), content.chunks(size));
            assert_eq!(usage.at_least, end <= stop, "{end}");
            let estimate = usage.estimate.map(|estimate| estimate.output);
            assert_eq!(estimate.is_some(), end <= stop && deltas > 0, "{end}");
            if let Some(output) = estimate {
                assert!(output >= deltas.max(before), "{end}: {output}");
                before = output;
            }
        }
    }
    assert!(before >= deltas && deltas > 5, "{before} {deltas}");
    // 400 bytes in ten deltas are about 100 tokens
    let delta = |text: &str| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    };
    let begun = "event: message_start\ndata: {\"message\":{\"model\":\"m\",\"usage\":{\"output_tokens\":1}}}\n\n";
    let text = begun.to_owned() + &delta(&"word ".repeat(8)).repeat(10);
    let output = stream(&text).estimate.unwrap().output;
    assert!((90..=110).contains(&output), "{output}");
    // and an answer that is no stream has none
    let (usage, _) = meter(tap(false, ""), [&ANSWER.as_bytes()[..300]].into_iter());
    assert_eq!((usage.at_least, usage.estimate), (true, None));
}

#[test]
fn a_block_that_has_not_ended_is_charged() {
    let budget: &'static Budget = Box::leak(Box::new(Budget::new(usize::MAX)));
    let tap = UsageReader::within(budget, Some(b"text/event-stream"), Some(b"zstd"));
    let mut tap = tap.unwrap();
    // a frame with a window of 8 MiB, and a raw block of 128 KiB of which the last byte does not come
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 13 << 3];
    let header: u32 = (128 << 10) << 3 | 1;
    frame.extend(&header.to_le_bytes()[..3]);
    frame.resize(frame.len() + (128 << 10) - 1, b':');
    for chunk in frame.chunks(16 << 10) {
        tap.push(&Bytes::copy_from_slice(chunk));
    }
    assert_eq!(tap.failure, None);
    // its context, and what waits
    assert!(budget.taken() >= (96 + 127) << 10, "{}", budget.taken());
    drop(tap);
    assert_eq!(budget.taken(), 0);
}

#[test]
fn errors_give_their_type() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#;
    let usage = answer(error);
    assert_eq!(usage.error_type.as_deref(), Some("overloaded_error"));
    assert_eq!((usage.tokens, usage.failure), (Tokens::default(), None));
    let begun = STREAM.split_once("event: message_delta\ndata").unwrap().0;
    let usage = stream(&format!("{begun}event: error\ndata: {error}\n\n"));
    assert_eq!(usage.error_type.as_deref(), Some("overloaded_error"));
    assert_eq!((usage.tokens.output, usage.failure), (3, None));
}

#[test]
fn what_cannot_be_read_is_broken_and_what_was_read_stays() {
    let usage = answer(r#"{"usage":{"output_tokens":4},"model":"m",]"#);
    assert!(is_broken(&usage) && usage.model.is_some() && usage.tokens.output == 4);
    assert!(is_broken(&answer("<html>")));
    let broken = STREAM.replace(
        r#""usage":{"input_tokens":10682"#,
        r#""usage":{"input_tokens":!"#,
    );
    let usage = stream(&broken);
    assert!(is_broken(&usage) && usage.tokens.input == 2_679);
    let whole = STREAM.replace("event: ping\ndata: {", "event: ping\ndata: !");
    assert_eq!(stream(&whole), truth(true));

    for coding in &CODINGS[1..] {
        let mut content = encode(coding, &events());
        content.insert(16, vec![0xFF; 2000]);
        let (usage, _) = meter(tap(true, coding), content.iter().map(Vec::as_slice));
        assert!(is_broken(&usage) && usage.tokens.input == 2_679, "{coding}");
    }
}

#[test]
fn members_of_gzip_and_frames_of_zstd_follow_one_another() {
    for coding in ["gzip", "zstd"] {
        let content: Vec<u8> = events()
            .iter()
            .flat_map(|event| encode(coding, &[event]).concat())
            .collect();
        for size in [1, 7, 1 << 20] {
            let (usage, _) = meter(tap(true, coding), content.chunks(size));
            assert_eq!(usage, truth(true), "{coding}");
        }
    }
    let mut trailing = encode("gzip", &events()).concat();
    trailing.extend(b"\0\0\0");
    assert_eq!(meter(tap(true, "gzip"), trailing.chunks(9)).0, truth(true));
}

#[test]
fn a_bomb_is_given_up() {
    let begun = STREAM.split_once("event: message_delta\ndata").unwrap().0;
    let zeros = vec![b'0'; 16 << 20];
    for coding in &CODINGS[1..] {
        let content = encode(coding, &[begun.as_bytes(), &zeros, b"\n\n"]);
        let bombs = content.iter().flat_map(|part| part.chunks(16 * 1024));
        let (usage, _) = meter(tap(true, coding), bombs);
        assert!(is_broken(&usage) && usage.tokens.output == 3, "{coding}");
    }
    // RFC 9659 §3: no window above 8 MiB
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(STREAM.as_bytes()).unwrap();
    let content = encoder.finish().unwrap();
    let (usage, _) = meter(tap(true, "zstd"), [&content[..]].into_iter());
    assert!(is_broken(&usage));
}

#[test]
fn a_large_answer_is_read_without_being_kept() {
    let text = "word \\n".repeat(1 << 19);
    let large = ANSWER.replace(
        "\"content\":[",
        &format!("\"content\":[{{\"text\":\"{text}\"}},"),
    );
    assert!(large.len() > 3 << 20);
    assert_eq!(
        meter(tap(false, ""), large.as_bytes().chunks(16_384)).0,
        truth(false)
    );
    let deep = ANSWER.replace(
        "\"content\":[",
        &format!(
            "\"content\":[{}{},",
            "[".repeat(100_000),
            "]".repeat(100_000)
        ),
    );
    assert_eq!(answer(&deep), truth(false));
}

/// Bytes that are nearly a stream or an answer.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "event: message_start\n",
        "event: message_delta\r\n",
        "event:error\r",
        "data: ",
        "data:",
        "\n",
        "\r",
        "event: content_block_delta\n",
        "{\"type\":\"message_delta\"",
        "{\"message\":{",
        "\"usage\":{",
        "}",
        "{",
        "]",
        "\"output_tokens\":1",
        ",",
        "\"model\":\"m\"",
        "\u{feff}",
        ": c",
        "\"error\":{\"type\":\"x\"}",
    ];
    prop::collection::vec(
        prop_oneof![
            6 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..40),
            1 => Just(STREAM.as_bytes()[..900].to_vec()),
        ],
        0..40,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn usage_is_the_truth_for_random_splits(
        coding in prop::sample::select(&CODINGS[..]),
        is_stream in any::<bool>(),
        sizes in prop::collection::vec(0usize..400, 1..60),
    ) {
        let parts = if is_stream { events() } else { vec![ANSWER.as_bytes()] };
        let content = encode(coding, &parts).concat();
        let mut tap = tap(is_stream, coding);
        let (mut rest, mut firsts) = (&content[..], 0);
        for size in sizes {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            firsts += usize::from(tap.push(&Bytes::copy_from_slice(chunk)));
            rest = after;
        }
        firsts += usize::from(tap.push(&Bytes::copy_from_slice(rest)));
        prop_assert_eq!(firsts, usize::from(is_stream));
        prop_assert_eq!(tap.finish().0, truth(is_stream));
    }

    #[test]
    fn no_octets_make_it_panic_and_no_split_makes_a_difference(
        octets in garbage(),
        size in 1usize..50,
        coding in prop::sample::select(&CODINGS[..]),
        is_stream in any::<bool>(),
    ) {
        let whole = meter(tap(is_stream, ""), [&octets[..]].into_iter());
        let cut = meter(tap(is_stream, ""), octets.chunks(size));
        prop_assert_eq!(&whole.0, &cut.0);
        prop_assert_eq!(whole.1.len(), cut.1.len());
        meter(tap(is_stream, coding), octets.chunks(size));
        let encoded = encode(coding, &[&octets]).concat();
        prop_assert_eq!(meter(tap(is_stream, coding), encoded.chunks(size)).0, whole.0);
        prop_assert!(whole.1.len() <= 1);
        look(octets.chunks(size).map(<[u8]>::to_vec));
        // as the end of a long body
        let mut long = RequestInspector::new();
        long.push(&[b' '; 65 << 10]);
        octets.chunks(size).for_each(|chunk| {
            long.push(chunk);
        });
        long.end();
        long.finish();
    }
}
