//! What metering costs: events of a stream, each a chunk of its own, as they come from the API.
//!
//! `cargo bench --bench usage` (add `-- --quick` for a look). Target (docs/contract.md §8.4):
//! ≤ 0.3 µs for an event, 5 % of what the proxy spends on one.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot set up shall stop"
)]

use std::hint::black_box;

use anthropic_proxy::metering::{RequestInspector, UsageReader};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, meter);
criterion_main!(benches);

const STREAM: &str = include_str!("../it/data/message.sse");

fn meter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("usage");
    let data = r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" a few words of the answer, as they come"}}"#;
    let named = Bytes::from(format!("event: content_block_delta\n{data}\n\n"));
    let unnamed = Bytes::from(format!("{data}\n\n"));
    let tap = || UsageReader::new(Some(b"text/event-stream"), None).unwrap();
    for (name, event) in [("delta", &named), ("delta_without_name", &unnamed)] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            let mut tap = tap();
            bencher.iter(|| tap.push(black_box(event)));
        });
    }
    // as read when the upstream is faster than we are
    let many = Bytes::from(named.repeat(200));
    group.throughput(Throughput::Elements(200));
    group.bench_function("delta_200_in_a_chunk", |bencher| {
        let mut tap = tap();
        bencher.iter(|| tap.push(black_box(&many)));
    });
    let chunks: Vec<Bytes> = STREAM
        .split_inclusive("\n\n")
        .map(|event| Bytes::from_static(event.as_bytes()))
        .collect();
    group.throughput(Throughput::Elements(1));
    group.bench_function("whole_stream", |bencher| {
        bencher.iter(|| {
            let mut tap = tap();
            for chunk in &chunks {
                tap.push(black_box(chunk));
            }
            assert_eq!(black_box(tap.finish()).0.tokens.output, 510);
        });
    });
    let answer = Bytes::from(format!(
        r#"{{"model":"m","content":[{{"type":"text","text":"{}"}}],"usage":{{"output_tokens":1}}}}"#,
        "word \\n".repeat(150_000)
    ));
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("answer_1m", |bencher| {
        bencher.iter(|| {
            let mut tap = UsageReader::new(Some(b"application/json"), None).unwrap();
            for at in (0..answer.len()).step_by(16 * 1024) {
                tap.push(&black_box(&answer).slice(at..answer.len().min(at + 16 * 1024)));
            }
            assert_eq!(black_box(tap.finish()).0.tokens.output, 1);
        });
    });
    let body = format!(
        r#"{{"model":"m","messages":[{{"content":"{}"}}],"max_tokens":1,"stream":true}}"#,
        "word \\n".repeat(8_000)
    );
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("look_56k", |bencher| {
        bencher.iter(|| {
            let mut look = RequestInspector::new();
            look.push(black_box(body.as_bytes()));
            assert_eq!(black_box(look.finish()).max_tokens, Some(1));
        });
    });
    // a later turn: the beginning is walked through, and the end read backwards
    let long = body.replace("word \\n", "word \\n ".repeat(16).as_str());
    group.throughput(Throughput::Bytes(long.len() as u64));
    group.bench_function("look_1m", |bencher| {
        bencher.iter(|| {
            let mut look = RequestInspector::new();
            for chunk in black_box(long.as_bytes()).chunks(32 * 1024) {
                look.push(chunk);
            }
            look.end();
            assert_eq!(black_box(look.finish()).max_tokens, Some(1));
        });
    });
    group.finish();
}
