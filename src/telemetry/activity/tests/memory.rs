//! Bound of the memory that the activity takes.

use super::*;

/// Everything at its bound, in a process of its own, whose memory is measured.
#[test]
fn memory_is_bounded_in_the_largest_case() {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args([
            "--exact",
            "telemetry::activity::tests::memory::largest",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
#[ignore = "run by memory_is_bounded_in_the_largest_case, alone in its process"]
fn largest() {
    let resident = || -> usize {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let mut state = ActivityState::new(at(NOON), DayZone::new(TimeZone::UTC));
    let long = |i: u64, length: usize| -> Box<str> {
        let digits = i.to_string();
        ("0".repeat(length - digits.len()) + &digits).into()
    };
    let value = [b'x'; 200];
    let secrets = crate::secret::Secrets::default();
    let fields = crate::exchange::ShownFields::of([(&b"accept"[..], &value[..]); 30], &secrets);
    let largest = |i: u64, second: u64| {
        let mut exchange = exchange(&format!("req_{i:024}"), second);
        exchange.begun.path = long(i % 1000, 4096).into();
        exchange.begun.session = Some(long(i, 128).into());
        exchange.begun.user_agent = Some(long(i, 256).into());
        exchange.begun.agent = Some(long(i % 64, 128).into());
        exchange.begun.owner = Some(std::sync::Arc::new(crate::exchange::Owner {
            key: long(i % 1000, 10).into(),
            name: long(i % 1000, 512),
            user: Some(long(i % 1000, 512)),
            team: Some(long(i % 100, 512)),
        }));
        exchange.upstream = Some(format!("{:0500}", i % 100).into());
        exchange.request_fields = fields.copied();
        exchange.response_fields = fields.copied();
        exchange.upstream_request_id = Some(long(i, 128).into());
        exchange.status = Some(if i.is_multiple_of(2) { 200 } else { 500 });
        if let Some(usage) = &mut exchange.usage {
            usage.model = Some(long(i % 100, 300));
            usage.stop_reason = Some(long(i, 300));
            usage.error_type = i.is_multiple_of(2).then(|| long(i, 300));
        }
        exchange
    };
    let from = NOON - 400 * 86_400;
    // days, hours, ten minutes, minutes, seconds: each ring until it is full
    let days = (0..400).map(|day| from + day * 86_400);
    let hours = (0..1010).map(|part| NOON - 7 * 86_400 + part * 600);
    let minutes = (0..360).map(|minute| NOON - 6 * 3600 + minute * 60);
    let seconds = (0..900).map(|second| NOON - 900 + second);
    let mut number = 0;
    // all models of an hour, whatever the part; minutes and seconds have no models
    let with_models = days.chain(hours).map(|second| (second, 100 / 6));
    let without = minutes.chain(seconds).map(|second| (second, 1));
    for (second, count) in with_models.chain(without) {
        for _ in 0..count {
            number += 1;
            let text = ended::RedactedText {
                content: "x".repeat(50 * 1024).into(),
                is_cut: true,
            };
            let text = (number % 50 < 2).then_some(text);
            state.ended(largest(number, second), (text, None), at(second), None);
        }
    }
    let mut running = Vec::new();
    for i in 0..10_000 {
        let progress = Progress::default();
        // as long as a worker keeps it
        let mut begun = largest(number + i, NOON).begun;
        begun.path = long(i, 1024).into();
        progress.begins(begun);
        let response = ExchangeResponse {
            status: 200,
            upstream: None,
            upstream_request_id: Some(long(i, 128).into()),
            model: Some(long(i, 128).into()),
            is_stream: Some(true),
            max_tokens: Some(1),
            timings: Timings::default(),
        };
        progress.answered_with(response, &Default::default());
        running.push(progress);
    }
    for i in 0..1000 {
        let text = ended::RedactedText {
            content: "x".repeat(50 * 1024).into(),
            is_cut: true,
        };
        state.ended(
            largest(2 * (number + i) + 1, NOON),
            (Some(text), None),
            at(NOON),
            None,
        );
    }
    for i in 0..recent::KEPT as u64 {
        let mut fine = largest(2 * (number + i), NOON);
        if let Some(usage) = &mut fine.usage {
            usage.error_type = None;
        }
        state.ended(fine, (None, None), at(NOON), None);
    }
    assert_eq!(state.recent.failures().len(), recent::FAILURES);
    let used = resident().saturating_sub(before);
    println!("{used} octets");
    assert!(used > 30 << 20, "not the largest case: {used}");
    // the documented bound, and what the allocator keeps of what was let go
    assert!(used < 300 << 20, "{used}");
    drop((state, running));
}
