//! What the edit costs: hold, scan and splice of bodies in chunks as a socket gives them, with what metering
//! asks of them. And what the digests of prompts cost.
//!
//! `cargo bench --bench scanner` (add `-- --quick` for a look). Target: ≥ 1.5 GB/s on escaped
//! prose.

use std::{hint::black_box, time::Duration};

use anthropic_proxy::{
    config::{EditMode, EditTarget},
    edit::{BodyBuffer, Outcome, Unchanged},
    metering::PromptDigester,
};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, edit, digest);
criterion_main!(benches);

fn edit(c: &mut Criterion) {
    let mut group = c.benchmark_group("edit");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let replacement = Bytes::from_static(b"\"You are a careful reviewer.\"");
    for (name, body) in [
        ("claude_code_50k", claude_code(0)),
        ("claude_code_1m", claude_code(950_000)),
        ("prose_1m", string(&prose(1_000_000))),
        ("escapes_1m", string(&"\\n".repeat(500_000))),
        ("unicode_escapes_1m", string(&"\\u4f60".repeat(166_666))),
        ("unusual_escapes_1m", string(&"\\/".repeat(500_000))),
        (
            "short_strings_1m",
            format!("[{}0]", "\"a\",".repeat(250_000)),
        ),
        ("numbers_1m", format!("[{}0]", "12.5e3,".repeat(142_857))),
        ("nesting_1m", "[".repeat(500_000) + &"]".repeat(500_000)),
    ] {
        let body = Bytes::from(body);
        let chunks: Vec<Bytes> = (0..body.len())
            .step_by(CHUNK)
            .map(|at| body.slice(at..body.len().min(at + CHUNK)))
            .collect();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut hold = BodyBuffer::new(EditMode::Replace, EditTarget::Prompt);
                for chunk in black_box(&chunks) {
                    hold.push(chunk.clone());
                }
                black_box(hold.asked());
                let (body, outcome) = hold.finish(&replacement);
                assert_ne!(outcome, Outcome::Unchanged(Unchanged::NotJson));
                body
            });
        });
    }
    group.finish();
}

/// Digests of a prompt, which requests of a session cost while the dashboard is on.
fn digest(c: &mut Criterion) {
    let mut group = c.benchmark_group("digest");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (name, more) in [("claude_code_50k", 0), ("claude_code_1m", 950_000)] {
        let body = claude_code(more).into_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut digester = PromptDigester::new();
                for chunk in black_box(&body).chunks(CHUNK) {
                    digester.push(chunk);
                }
                let digests = digester.finish();
                assert!(digests.is_some(), "the body is JSON");
                digests
            });
        });
    }
    group.finish();
}

/// A body as Claude Code sends it: about 50 kB of system prompt and tools, and messages before
/// them, of which one has `more` octets.
fn claude_code(more: usize) -> String {
    let tools = (0..24)
        .map(|index| {
            let properties = (0..4)
                .map(|property| {
                    format!(
                        r#""property_{property}":{{"description":"{}","type":"string"}}"#,
                        prose(80)
                    )
                })
                .collect::<Vec<_>>()
                .join(",");
            format!(
                r#"{{"name":"Tool{index}","description":"{}","input_schema":{{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{{{properties}}},"required":["property_0","property_1"],"additionalProperties":false}}}}"#,
                prose(1_000)
            )
        })
        .collect::<Vec<_>>()
        .join(",");
    let cache_control = r#""cache_control":{"type":"ephemeral"}"#;
    format!(
        concat!(
            r#"{{"model":"claude-sonnet-4-5-20250929","messages":[{{"role":"user","content":[{{"type":"text","text":"{}"}},"#,
            r#"{{"type":"text","text":"say hi",{}}}]}}],"#,
            r#""system":[{{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330; cc_entrypoint=cli;"}},"#,
            r#"{{"type":"text","text":"You are Claude Code, Anthropic's official CLI for Claude.",{}}},"#,
            r#"{{"type":"text","text":"{}",{}}}],"tools":[{}],"#,
            r#""metadata":{{"user_id":"user_0123456789abcdef_account__session_01234567-89ab-cdef-0123-456789abcdef"}},"#,
            r#""max_tokens":32000,"thinking":{{"budget_tokens":31999,"type":"enabled"}},"stream":true}}"#,
        ),
        prose(1_500 + more),
        cache_control,
        cache_control,
        prose(7_000),
        cache_control,
        tools,
    )
}

fn string(inside: &str) -> String {
    format!("{{\"a\":\"{inside}\"}}")
}

/// About `len` octets of escaped text: words, and an escape every 60 octets or so.
fn prose(len: usize) -> String {
    const WORDS: [&str; 8] = [
        "the ",
        "handler ",
        "returns ",
        "a ",
        "message ",
        "of ",
        "upstream ",
        "naïve ",
    ];
    const ESCAPES: [&str; 4] = ["\\n", "\\\"", "\\n", "\\t"];
    // xorshift64: the same text in every run
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    let (mut text, mut next_escape) = (String::with_capacity(len + 16), 60);
    while text.len() < len {
        text.push_str(WORDS[below(WORDS.len())]);
        if text.len() >= next_escape {
            text.push_str(ESCAPES[below(ESCAPES.len())]);
            next_escape = text.len() + 30 + below(60);
        }
    }
    text
}

/// Octets in a chunk: what actix reads at a time.
const CHUNK: usize = 32 * 1024;
