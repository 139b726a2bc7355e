//! What counting an exchange costs a worker, and what a scrape costs.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot set up shall stop"
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anthropic_proxy::{
    exchange::{
        Exchange, ExchangeStart, Route, Termination, TerminationPhase, TerminationSource, Timings,
        Tokens, Usage,
    },
    label::Label,
    telemetry::metrics::{Format, Gauges, Metrics, Shard},
};
use criterion::{Criterion, criterion_group, criterion_main};

fn exchange(model: &str) -> Exchange {
    Exchange {
        begun: ExchangeStart {
            seq: 0,
            id: "req_000000000000000000000000".into(),
            started: SystemTime::UNIX_EPOCH,
            client: None,
            version: "1.1",
            method: "POST".into(),
            path: "/v1/messages".into(),
            route: Route::Messages,
            session: None,
            user_agent: None,
            agent: None,
            parent_agent: None,
            owner: None,
        },
        status: Some(200),
        upstream: None,
        upstream_request_id: None,
        received: 49_220,
        sent: 20_000,
        timings: Timings {
            connected: Some(Duration::from_micros(30)),
            connecting: None,
            head: Some(Duration::from_millis(300)),
            first_token: Some(Duration::from_millis(400)),
            total: Duration::from_secs(7),
            overhead: Duration::from_micros(40),
        },
        termination: Termination {
            source: TerminationSource::Complete,
            phase: TerminationPhase::Response,
            label: None,
        },
        edit: Some(Label::Replaced),
        usage: Some(Usage {
            model: Some(model.into()),
            is_stream: true,
            tokens: Tokens {
                input: 3,
                output: 500,
                cache_read: 20_000,
                cache_write_5m: 100,
                cache_write_1h: 10,
            },
            cost: Some(250_000_000),
            ..Usage::default()
        }),
        error: None,
        tries: Vec::new(),
        request_fields: Default::default(),
        response_fields: Default::default(),
        prompt: None,
        trace: None,
        verified: None,
    }
}

fn count(shard: &Shard, exchange: &Exchange, times: u64) -> Duration {
    let started = Instant::now();
    for _ in 0..times {
        shard.exchange(black_box(exchange));
    }
    started.elapsed()
}

fn metrics(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let shard = metrics.shard();
    let mut group = criterion.benchmark_group("metrics");
    let first = exchange("claude-sonnet-4-5-20250929");
    group.bench_function("exchange", |bencher| {
        bencher.iter(|| shard.exchange(black_box(&first)));
    });
    let mut unmetered = exchange("");
    unmetered.usage = None;
    group.bench_function("exchange, METERING=off", |bencher| {
        bencher.iter(|| shard.exchange(black_box(&unmetered)));
    });
    let two = [metrics.shard(), metrics.shard()];
    group.bench_function("exchange, two workers", |bencher| {
        bencher.iter_custom(|times| both(&two, &first, times));
    });
    for at in 0..60 {
        shard.exchange(&exchange(&format!("claude-model-20250929-{at}")));
    }
    let beyond = exchange("claude-model-20250929-59");
    group.bench_function("exchange, 51st model", |bencher| {
        bencher.iter(|| shard.exchange(black_box(&beyond)));
    });
    let now = Gauges::default();
    group.bench_function("expose, 51 models", |bencher| {
        bencher.iter(|| metrics.expose(black_box(&now), Format::OpenMetrics));
    });
    group.finish();
}

/// The longer of two threads.
fn both(shards: &[Arc<Shard>; 2], exchange: &Exchange, times: u64) -> Duration {
    std::thread::scope(|scope| {
        let threads = shards
            .each_ref()
            .map(|shard| scope.spawn(move || count(shard, exchange, times)));
        threads.map(|thread| thread.join().unwrap())
    })
    .into_iter()
    .max()
    .unwrap()
}

criterion_group!(benches, metrics);
criterion_main!(benches);
