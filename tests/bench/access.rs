//! Costs of admission: a key, two limits and a budget.
//!
//! `cargo bench --bench access` (add `-- --quick` for a look). Target: ≤ 2 µs for identification, admission
//! and settlement together.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot set up shall stop"
)]

use std::{hint::black_box, sync::Arc, time::SystemTime};

use anthropic_proxy::{
    access::{
        AccessFilling, Admitted, Asked, FullKey, KeyField, KeyId, KeyRecord, LimitKind, LimitRule,
        Pepper, Period, Shown, SubjectId, SubjectRecord, local::LocalAccess,
    },
    config::Prices,
    exchange::Tokens,
};
use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, admit);
criterion_main!(benches);

fn admit(criterion: &mut Criterion) {
    let pepper = Pepper::new(&[7; 32]).unwrap();
    let id = KeyId::random().unwrap();
    let full = FullKey::generate(id).unwrap();
    let key = KeyRecord {
        id,
        name: "bench".into(),
        user: Some("ann".into()),
        team: Some("core".into()),
        secrets: vec![pepper.record(&full, 0)],
        models: Vec::new(),
        paths: Vec::new(),
        sources: Vec::new(),
        limits: vec![limit(LimitKind::RequestsPerMinute, 1_000_000_000_000)],
        expires: None,
        upstream_key_env: None,
        created: 0,
        revoked: None,
    };
    let spend = LimitKind::Spend {
        period: Period::Month,
        zone: Some("Europe/Berlin".into()),
    };
    let team = SubjectRecord {
        limits: vec![
            limit(LimitKind::OutputTokensPerMinute, 1_000_000_000_000),
            limit(spend, 1_000_000_000_000_000_000),
        ],
        ..SubjectRecord::default()
    };
    let mut filling = AccessFilling::new([], |_| None, SystemTime::now());
    filling.subject(SubjectId::Team("core".into()), team);
    filling.key(&key);
    let access = Arc::new(filling.finish(pepper));
    // as a worker does: it tells a key again without a digest
    let worker = LocalAccess::new(Arc::clone(&access));
    let prices = Prices::built_in();
    let price = prices.of("claude-opus-4-5").unwrap();
    let asked = Asked {
        model: Some("claude-opus-4-5"),
        octets: 60_000,
        max_tokens: Some(128_000),
        session: Some(b"0e8f6a3c-5f0b-4a6c-9a52-7d3a1f1f2b11"),
        is_generation: true,
        price: Some(price),
    };
    let tokens = Tokens {
        input: 10,
        output: 400,
        cache_read: 14_000,
        ..Tokens::default()
    };
    let cost = price.of(&tokens);
    let identify = |now| {
        let mut shown = Shown::default();
        shown.add(KeyField::ApiKey, black_box(full.reveal().as_bytes()));
        access.identify(&shown, None, now).unwrap()
    };
    let identify_again = |now| {
        let mut shown = Shown::default();
        shown.add(KeyField::ApiKey, black_box(full.reveal().as_bytes()));
        worker.identify(&shown, None, now).unwrap()
    };
    let mut group = criterion.benchmark_group("access");
    group.bench_function("identify", |bencher| {
        bencher.iter(|| identify(SystemTime::now()));
    });
    group.bench_function("identify_again", |bencher| {
        bencher.iter(|| identify_again(SystemTime::now()));
    });
    // both cost the same: one HMAC and two comparisons
    for (name, id) in [("wrong", id), ("unknown", KeyId::random().unwrap())] {
        let key = FullKey::generate(id).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut shown = Shown::default();
                shown.add(KeyField::ApiKey, black_box(key.reveal().as_bytes()));
                access
                    .identify(&shown, None, SystemTime::now())
                    .unwrap_err()
            });
        });
    }
    group.bench_function("admit_settle", |bencher| {
        let key = identify(SystemTime::now());
        bencher.iter(|| {
            let Admitted::Granted(mut grant) =
                access.admit(&key, black_box(&asked), SystemTime::now())
            else {
                panic!("refused");
            };
            grant.settle(&tokens, Some(cost));
        });
    });
    for (name, is_known) in [
        ("identify_admit_settle", true),
        ("first_admit_settle", false),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let now = SystemTime::now();
                let key = match is_known {
                    true => Arc::clone(identify_again(now).key()),
                    false => identify(now),
                };
                let Admitted::Granted(mut grant) = worker.admit(&key, black_box(&asked), now)
                else {
                    panic!("refused");
                };
                grant.settle(&tokens, Some(cost));
            });
        });
    }
    group.bench_function("notice", |bencher| {
        let Admitted::Granted(grant) =
            access.admit(&identify(SystemTime::now()), &asked, SystemTime::now())
        else {
            panic!("refused");
        };
        bencher.iter(|| {
            let mut lines = Vec::with_capacity(400);
            let notice = grant.notice().unwrap();
            notice.lines(|part| lines.extend_from_slice(part));
            lines
        });
    });
    group.finish();
}

fn limit(kind: LimitKind, amount: u64) -> LimitRule {
    LimitRule {
        kind,
        amount,
        models: None,
        unreachable: None,
    }
}
