use std::{
    fs, thread,
    time::{Instant, UNIX_EPOCH},
};

use bytes::Bytes;

use super::{
    state::{Additions, DAY},
    view::RowState,
    *,
};
use crate::exchange::{
    Answered, Begun, By, Ended, ErrorContent, Exchange, Phase, Progress, Route, Timings, Tokens,
    Tried, Try, Usage,
};

const NOON: u64 = 1_795_435_200;

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn begun(id: &str, started: SystemTime) -> Begun {
    Begun {
        id: id.into(),
        started,
        client: Some([127, 0, 0, 1].into()),
        version: "1.1",
        method: "POST".into(),
        path: "/v1/messages".into(),
        route: Route::Messages,
        session: Some("session-1".into()),
        user_agent: Some("claude-cli/2.1.330 (external, cli)".into()),
    }
}

/// An exchange that ended well at a second.
fn exchange(id: &str, ended: u64) -> Exchange {
    let total = Duration::from_millis(500);
    Exchange {
        begun: begun(id, at(ended) - total),
        status: Some(200),
        upstream: Some("https://a.example".into()),
        upstream_request_id: Some("req_theirs".into()),
        received: 10,
        sent: 20,
        timings: Timings {
            connected: Some(Duration::from_millis(2)),
            connecting: Some(Duration::from_millis(1)),
            head: Some(Duration::from_millis(102)),
            first_token: Some(Duration::from_millis(200)),
            total,
            overhead: Duration::from_micros(50),
        },
        ended: Ended {
            by: By::Complete,
            phase: Phase::Response,
            label: None,
        },
        edit: None,
        usage: Some(Usage {
            model: Some("claude-x".into()),
            is_stream: true,
            tokens: Tokens {
                input: 1,
                output: 2,
                cache_read: 3,
                cache_write_5m: 4,
                cache_write_1h: 5,
            },
            cost: Some(1_000_000),
            ..Usage::default()
        }),
        error: None,
        rate_limit: Vec::new(),
        tries: Vec::new(),
        request_fields: Default::default(),
        response_fields: Default::default(),
    }
}

fn failing(id: &str, ended: u64, status: u16, content: &str) -> Exchange {
    Exchange {
        status: Some(status),
        usage: None,
        error: Some(ErrorContent {
            octets: Bytes::copy_from_slice(content.as_bytes()),
            coding: None,
            secrets: crate::secret::Secrets::default(),
        }),
        ..exchange(id, ended)
    }
}

/// Settings of an activity that is read.
fn readers() -> Settings {
    Settings {
        has_readers: true,
        ..Settings::default()
    }
}

/// A view of a state that a test fills itself.
fn filled(now: u64, fill: impl FnOnce(&mut State)) -> View {
    let mut state = State::new(at(now));
    fill(&mut state);
    let (_, _, counts) = queue::queue(1, true);
    View {
        state: Arc::new(Mutex::new(state)),
        counts,
        access_log: None,
    }
}

#[test]
fn a_range_gives_sums_rates_and_quantiles() {
    let view = filled(NOON - 3600, |state| {
        for i in 0..300 {
            let now = NOON - 300 + i;
            let mut exchange = exchange(&format!("{i}"), now);
            exchange.timings.total = Duration::from_millis(i + 1);
            exchange.begun.started = at(now) - exchange.timings.total;
            state.ended(exchange, (None, None), at(now), None);
        }
    });
    for range in Range::ALL {
        // the step that has begun counts as one: a second later the oldest step of 5m is out
        let overview = view.overview(range, at(NOON - 1));
        let totals = &overview.totals;
        assert_eq!(totals.requests, 300, "{range:?}");
        assert_eq!(totals.succeeded, 300);
        assert_eq!((totals.bytes_in, totals.bytes_out), (3000, 6000));
        assert_eq!(totals.tokens.cache_write_1h, 1500);
        assert!((totals.cost_usd - 0.3).abs() < 1e-9);
        assert!((totals.cache_hit_share - 3.0 / 13.0).abs() < 1e-9);
        assert!((totals.duration_ms.avg.unwrap() - 150.5).abs() < 1e-6);
        let elapsed = range.seconds().min(3600) as f64;
        assert!((totals.requests_per_second - 300.0 / elapsed).abs() < 1e-9);
        for (found, truth) in [
            (totals.duration_ms.p50, 150.0),
            (totals.duration_ms.p95, 285.0),
            (totals.duration_ms.p99, 297.0),
            (totals.ttft_ms.p50, 200.0),
        ] {
            let found = found.unwrap();
            assert!(
                (found - truth).abs() / truth < 0.0325,
                "{range:?} {found} {truth}"
            );
        }
        let series = &overview.series;
        let steps = (range.seconds() * 1000 / overview.step_ms) as usize;
        assert_eq!(series.t.len(), steps);
        assert_eq!(series.ttft_p99.len(), steps);
        assert_eq!(series.requests.iter().sum::<u64>(), 300);
        assert_eq!(series.tokens_in.iter().sum::<u64>(), 300 * 13);
        let silent = series.requests.iter().position(|count| *count == 0);
        assert!(silent.is_none_or(|at| series.duration_p50[at].is_none()));
        assert_eq!(overview.today.requests, 300);
    }
    assert_eq!(
        view.overview(Range::Minutes5, at(NOON)).totals.requests,
        298
    );
}

#[test]
fn midnight_begins_a_new_day() {
    let midnight = NOON + 12 * 3600;
    let view = filled(NOON, |state| {
        for second in [midnight - 1, midnight, midnight + 1] {
            state.ended(exchange("x", second), (None, None), at(second), None);
        }
    });
    assert_eq!(
        view.overview(Range::Hour, at(midnight + 2)).today.requests,
        2
    );
    let days = view.usage(UsageRange::Days(30), UsageBy::Day, at(midnight + 2));
    let days: Vec<_> = days
        .iter()
        .map(|row| (row.key.as_str(), row.requests))
        .collect();
    assert_eq!(days, [("2026-11-24", 2), ("2026-11-23", 1)]);
    let hours = view.usage(UsageRange::Hours(1), UsageBy::Model, at(midnight + 2));
    assert_eq!((hours[0].key.as_str(), hours[0].requests), ("claude-x", 2));
}

#[test]
fn a_clock_that_goes_back_loses_nothing_that_comes_after() {
    let view = filled(NOON, |state| {
        state.ended(exchange("1", NOON), (None, None), at(NOON), None);
        // an hour back, and an exchange that began before that: it ends now, not in the future
        state.ended(exchange("2", NOON), (None, None), at(NOON - 3600), None);
        state.ended(
            exchange("3", NOON - 3599),
            (None, None),
            at(NOON - 3599),
            None,
        );
    });
    let totals = view.overview(Range::Minutes5, at(NOON - 3599)).totals;
    assert_eq!(totals.requests, 2);
    let totals = view.overview(Range::Week, at(NOON)).totals;
    assert_eq!(totals.requests, 3);
}

#[test]
fn an_exchange_is_listed_in_flight_until_it_ends() {
    let view = filled(NOON, |state| {
        state.begun(begun("a", at(NOON)), Arc::default(), at(NOON));
        state.begun(begun("b", at(NOON)), Arc::default(), at(NOON));
        state.ended(exchange("a", NOON + 1), (None, None), at(NOON + 1), None);
    });
    let page = view.requests(&Filter::default(), at(NOON + 2)).unwrap();
    let rows: Vec<_> = page
        .items
        .iter()
        .map(|row| (row.id.as_str(), row.state, row.seq))
        .collect();
    assert_eq!(
        rows,
        [("b", RowState::Pending, 2), ("a", RowState::Done, 1)]
    );
    assert_eq!((page.total, page.next_before), (2, None));
    assert!((page.items[0].duration_ms - 2000.0).abs() < 1e-9);
    let detail = view.request("b", at(NOON + 2)).unwrap();
    assert_eq!(detail.row.state, RowState::Pending);
    assert_eq!(
        view.request("a", at(NOON + 2)).unwrap().row.state,
        RowState::Done
    );
    assert!(view.request("c", at(NOON + 2)).is_none());
}

#[test]
fn ends_that_were_lost_leave_nothing_in_flight_for_ever() {
    let mut state = State::new(at(NOON));
    for id in ["a", "b", "c"] {
        state.begun(begun(id, at(NOON)), Arc::default(), at(NOON));
    }
    state.recent.forget_in_flight(1);
    assert!(state.recent.listed().in_flight.is_empty());
    assert_eq!(state.recent.in_flight(), 2);
    state.ended(exchange("b", NOON), (None, None), at(NOON), None);
    state.ended(exchange("c", NOON), (None, None), at(NOON), None);
    assert_eq!(state.recent.in_flight(), 0);
}

#[test]
fn pages_follow_each_other_and_show_each_exchange_once() {
    let view = filled(NOON, |state| {
        for i in 0..6000 {
            state.begun(begun(&format!("{i}"), at(NOON)), Arc::default(), at(NOON));
        }
        // they end in another order than they began
        for i in (0..5950).rev() {
            state.ended(
                exchange(&format!("{i}"), NOON),
                (None, None),
                at(NOON),
                None,
            );
        }
    });
    let mut filter = Filter {
        limit: Some(70),
        ..Filter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = view.requests(&filter, at(NOON)).unwrap();
        assert!(page.items.len() <= 70);
        assert_eq!(page.total, 5050);
        let done = page.items.iter().filter(|row| row.state == RowState::Done);
        seen.extend(done.map(|row| row.seq));
        if filter.before.is_none() {
            let pending = page
                .items
                .iter()
                .take_while(|row| row.state == RowState::Pending);
            assert_eq!(pending.count(), 35);
        }
        match page.next_before {
            Some(before) => filter.before = Some(before),
            None => break,
        }
    }
    let expected: Vec<u64> = (1..=5000).rev().collect();
    assert_eq!(seen, expected, "the last 5,000 that ended");

    let mut filter = Filter {
        limit: Some(20),
        status: Some(StatusFilter::Pending),
        ..Filter::default()
    };
    let mut pending = 0;
    loop {
        let page = view.requests(&filter, at(NOON)).unwrap();
        pending += page.items.len();
        match page.next_before {
            Some(before) => filter.before = Some(before),
            None => break,
        }
    }
    assert_eq!(pending, 50);
}

#[test]
fn filters_choose_what_they_say() {
    let view = filled(NOON, |state| {
        state.ended(exchange("req_ok", NOON), (None, None), at(NOON), None);
        let mut other = failing("req_other", NOON, 529, "");
        other.begun.method = "GET".into();
        other.begun.path = "/v1/models".into();
        other.begun.session = None;
        other.begun.user_agent = Some("curl/8.5.0".into());
        other.upstream = Some("https://b.example".into());
        other.begun.client = Some([10, 1, 2, 3].into());
        state.ended(other, (None, None), at(NOON), None);
        let mut gone = exchange("req_gone", NOON);
        gone.ended.by = By::Client;
        gone.ended.label = Some("client_gone");
        if let Some(usage) = &mut gone.usage {
            usage.model = Some("claude-y".into());
            usage.error_type = Some("overloaded_error".into());
        }
        state.ended(gone, (None, None), at(NOON), None);
        state.begun(begun("req_now", at(NOON)), Arc::default(), at(NOON));
    });
    let ids = |filter: Filter| -> String {
        let page = view.requests(&filter, at(NOON)).unwrap();
        assert_eq!(page.total, page.items.len());
        page.items
            .iter()
            .map(|row| row.id[4..].to_owned() + " ")
            .collect()
    };
    let text = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    assert_eq!(ids(none()), "now gone other ok ");
    for (status, expected) in [
        ("2xx", "gone ok "),
        ("5xx", "other "),
        ("4xx", ""),
        ("pending", "now "),
        ("aborted", "gone "),
        ("529", "other "),
        ("200", "gone ok "),
        ("failed", "gone other "),
        ("succeeded", "ok "),
        ("canceled", ""),
    ] {
        let status = StatusFilter::parse(status);
        assert!(status.is_some());
        assert_eq!(ids(Filter { status, ..none() }), expected);
    }
    for bad in ["6xx", "20", "2000", "+20", "Failed", "09x"] {
        assert_eq!(StatusFilter::parse(bad), None, "{bad}");
    }
    let between = |since: u64, until: u64| {
        ids(Filter {
            since: Some(since),
            until: Some(until),
            ..none()
        })
    };
    // those that ended at noon began half a second before
    assert_eq!(between(NOON * 1000, NOON * 1000 + 1), "now ");
    assert_eq!(between(NOON * 1000 - 500, NOON * 1000), "gone other ok ");
    assert_eq!(between(NOON * 1000 - 499, NOON * 1000), "");
    assert_eq!(
        ids(Filter {
            user_agent: text("CURL"),
            ..none()
        }),
        "other "
    );
    assert_eq!(
        ids(Filter {
            method: text("get"),
            ..none()
        }),
        "other "
    );
    assert_eq!(
        ids(Filter {
            path: text("/MESS"),
            ..none()
        }),
        "now gone ok "
    );
    assert_eq!(
        ids(Filter {
            model: text("claude-y"),
            ..none()
        }),
        "gone "
    );
    assert_eq!(
        ids(Filter {
            session: text("session-1"),
            ..none()
        }),
        "now gone ok "
    );
    assert_eq!(
        ids(Filter {
            upstream: text("b.example"),
            ..none()
        }),
        "other "
    );
    for (q, expected) in [
        ("10.1.2", "other "),
        ("REQ_G", "gone "),
        ("overloaded", "gone "),
        ("client_", "gone "),
        ("req_theirs", "gone other ok "),
        ("nothing", ""),
        ("curl/8", "other "),
    ] {
        assert_eq!(
            ids(Filter {
                q: text(q),
                ..none()
            }),
            expected,
            "{q}"
        );
    }
    let long = Some("x".repeat(257));
    let refused = |filter: Filter| view.requests(&filter, at(NOON)).unwrap_err();
    assert_eq!(
        refused(Filter {
            q: long.clone(),
            ..none()
        }),
        BadFilter("q")
    );
    assert_eq!(
        refused(Filter {
            path: long,
            ..none()
        }),
        BadFilter("path")
    );
    assert_eq!(
        refused(Filter {
            limit: Some(0),
            ..none()
        }),
        BadFilter("limit")
    );
    assert_eq!(
        refused(Filter {
            limit: Some(1001),
            ..none()
        }),
        BadFilter("limit")
    );
}

#[test]
fn ticks_bring_each_change_once() {
    let view = filled(NOON, |state| {
        state.begun(begun("before", at(NOON)), Arc::default(), at(NOON));
    });
    let mut cursor = None;
    let tick = view.tick(&mut cursor, at(NOON));
    assert!(
        tick.rows.is_empty(),
        "what was before is in the list of requests"
    );
    let mut state = locked(&view.state);
    for i in 0..10 {
        state.ended(
            exchange(&format!("{i}"), NOON + i % 5),
            (None, None),
            at(NOON + 5),
            None,
        );
    }
    state.begun(begun("now", at(NOON)), Arc::default(), at(NOON));
    drop(state);
    let tick = view.tick(&mut cursor, at(NOON + 5));
    assert_eq!((tick.rows.len(), tick.dropped, tick.in_flight), (11, 0, 2));
    assert!((tick.requests_per_second - 2.0).abs() < 1e-9);
    assert!((tick.tokens_per_second - 4.0).abs() < 1e-9);
    assert!(view.tick(&mut cursor, at(NOON + 6)).rows.is_empty());
    let mut state = locked(&view.state);
    for i in 0..150 {
        state.begun(begun(&format!("p{i}"), at(NOON)), Arc::default(), at(NOON));
    }
    drop(state);
    let tick = view.tick(&mut cursor, at(NOON + 6));
    assert_eq!((tick.rows.len(), tick.dropped), (100, 50));
}

#[test]
fn failures_are_grouped_with_the_upstreams_words() {
    let (activity, recorder) = Activity::start(readers()).unwrap();
    let view = activity.view();
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy, sk-ant-api03-secret1"}}"#;
    let now = second(SystemTime::now());
    for i in 0..3 {
        recorder.ended(failing(&format!("o{i}"), now - 10 + i, 529, overloaded));
    }
    let mut ours = failing("ours", now - 5, 502, "");
    ours.error = None;
    ours.ended = Ended {
        by: By::Upstream,
        phase: Phase::Request,
        label: Some("connection_refused"),
    };
    (ours.timings.connected, ours.timings.head) = (None, None);
    ours.tries = vec![Try {
        upstream: "https://a.example".into(),
        outcome: Tried::Unreachable,
    }];
    recorder.ended(ours);
    recorder.ended(exchange("fine", now));
    drop(activity);
    let errors = view.errors(Range::Minutes5, at(now));
    assert_eq!(errors.items.len(), 4);
    let kinds = errors.items.iter().map(|row| row.error_type.as_deref());
    let kinds: Vec<_> = kinds.flatten().collect();
    assert_eq!(kinds, ["overloaded_error"; 3]);
    assert_eq!(errors.groups.len(), 2);
    let theirs = &errors.groups[0];
    assert_eq!(
        (theirs.status, theirs.count, theirs.ours),
        (Some(529), 3, false)
    );
    assert_eq!(theirs.kind.as_deref(), Some("overloaded_error"));
    assert_eq!(
        (theirs.first_at, theirs.last_at),
        ((now - 10) * 1000, (now - 8) * 1000)
    );
    let sample = theirs.sample.content.as_deref().unwrap();
    assert!(
        sample.contains("busy, sk-…\"") && !sample.contains("secret1"),
        "{sample}"
    );
    assert_eq!(theirs.sample.id, "o2");
    let ours = &errors.groups[1];
    assert_eq!(
        (ours.ours, ours.by, ours.label),
        (true, "upstream", Some("connection_refused"))
    );
    let detail = view.request("o1", at(now)).unwrap();
    assert!(!detail.error.unwrap().truncated);
    assert!(
        view.errors(Range::Minutes5, at(now + 3600))
            .groups
            .is_empty()
    );

    let upstreams = view.upstreams();
    assert_eq!(upstreams.len(), 1);
    let upstream = &upstreams[0];
    assert_eq!(
        (upstream.requests, upstream.errors, upstream.status_529),
        (5, 4, 3)
    );
    assert_eq!((upstream.connects, upstream.connect_failures), (4, 1));
    assert!((upstream.head_ms.p50.unwrap() - 100.0).abs() < 3.2);
}

#[test]
fn rate_limits_are_those_seen_last_and_bounded() {
    let view = filled(NOON, |state| {
        for i in 0..40 {
            let mut exchange = exchange("x", NOON + i);
            let field = |name: String, value: u64| (name.into(), value.to_string().into());
            exchange.rate_limit = vec![
                field("requests-remaining".into(), 100 - i),
                field(format!("x-{i}"), 1),
            ];
            state.ended(exchange, (None, None), at(NOON + i), None);
        }
    });
    let upstream = &view.upstreams()[0];
    assert_eq!(upstream.rate_limit.len(), 16);
    let first = &upstream.rate_limit[0];
    assert_eq!(
        (first.name.as_str(), first.value.as_str()),
        ("requests-remaining", "61")
    );
    assert_eq!(first.at, (NOON + 39) * 1000);
}

/// 100,000 exchanges from four threads: what is counted and what was dropped is what was pushed.
#[test]
fn sums_are_exact_under_load() {
    let (activity, recorder) = Activity::start(readers()).unwrap();
    let view = activity.view();
    let now = second(SystemTime::now());
    thread::scope(|scope| {
        for thread in 0..4 {
            let recorder = recorder.clone();
            scope.spawn(move || {
                for i in 0..25_000 {
                    let mut exchange = exchange(&format!("{thread}-{i}"), now);
                    exchange.sent = i;
                    recorder.begun(&exchange.begun, &Arc::default());
                    recorder.ended(exchange);
                }
            });
        }
    });
    drop(activity);
    // a busy machine may need longer than the end waits
    let deadline = Instant::now() + Duration::from_secs(300);
    let counted = || {
        let overview = view.overview(Range::Hour, SystemTime::now());
        overview.totals.requests + view.dropped()
    };
    while counted() < 100_000 && Instant::now() < deadline {
        thread::yield_now();
    }
    let overview = view.overview(Range::Hour, SystemTime::now());
    assert_eq!(overview.totals.requests + view.dropped(), 100_000);
    if view.dropped() == 0 {
        assert_eq!(overview.totals.bytes_out, 4 * (0..25_000).sum::<u64>());
        assert_eq!(overview.in_flight, 0);
    }
    assert_eq!(overview.totals.tokens.output, 2 * overview.totals.requests);
}

#[test]
fn a_full_queue_drops_and_counts_and_never_blocks() {
    let (recorder, events, counts) = queue::queue(16, true);
    for i in 0..100 {
        recorder.begun(&begun(&format!("{i}"), at(NOON)), &Arc::default());
        recorder.ended(exchange(&format!("{i}"), NOON));
    }
    let taken: Vec<_> = events.try_iter().collect();
    let ended = |event: &&queue::Event| matches!(event, queue::Event::Ended(_));
    let ended = taken.iter().filter(ended).count() as u64;
    assert_eq!((taken.len(), ended + counts.lost()), (16, 100));
    assert!(ended > 8, "ends go before beginnings");
    // contents of errors are bounded in octets, not in number
    let (recorder, events, counts) = queue::queue(10_000, true);
    let content = "x".repeat(50_000);
    for _ in 0..10_000 {
        recorder.ended(failing("x", NOON, 500, &content));
    }
    assert_eq!(counts.lost(), 0);
    let octets: usize = events.try_iter().map(|event| event.octets()).sum();
    assert!(octets < 32 << 20, "{octets}");
}

#[test]
fn sums_survive_a_restart_and_a_broken_file_does_not_stop_it() {
    let directory = tempfile::tempdir().unwrap();
    let settings = || Settings {
        data_dir: Some(directory.path().into()),
        ..readers()
    };
    let now = second(SystemTime::now());
    for round in 1..=3 {
        let (activity, recorder) = Activity::start(settings()).unwrap();
        for i in 0..100 {
            recorder.ended(exchange(&format!("{i}"), now));
        }
        drop(activity);
        let (activity, _) = Activity::start(settings()).unwrap();
        let overview = activity.view().overview(Range::Week, SystemTime::now());
        assert_eq!(overview.totals.requests, 100 * round);
        assert_eq!(overview.totals.tokens.cache_write_1h, 500 * round);
        assert_eq!(overview.totals.duration_ms.avg, Some(500.0));
        let usage = activity
            .view()
            .usage(UsageRange::Days(30), UsageBy::Model, SystemTime::now());
        assert_eq!(usage[0].requests, 100 * round);
    }
    for entry in fs::read_dir(directory.path()).unwrap() {
        fs::write(
            entry.unwrap().path(),
            "no database at all, whatever its name says",
        )
        .unwrap();
    }
    let (activity, recorder) = Activity::start(settings()).unwrap();
    recorder.ended(exchange("x", now));
    let view = activity.view();
    drop(activity);
    assert_eq!(
        view.overview(Range::Week, SystemTime::now())
            .totals
            .requests,
        1
    );
}

#[test]
fn sums_are_stored_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let settings = || Settings {
        data_dir: Some(directory.path().into()),
        ..readers()
    };
    let (_activity, recorder) = Activity::start(settings()).unwrap();
    recorder.ended(exchange("x", second(SystemTime::now())));
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        // another process that looks: it would see what is lost if the first one were killed
        let (_, saved) = store::Store::open(directory.path(), SystemTime::now());
        let minutes = saved.sums.minutes.values();
        let counted: u64 = minutes.map(|slice| slice.sums.requests).sum();
        if counted == 1 && saved.ended.len() == 1 {
            break;
        }
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

#[test]
fn the_access_log_has_a_line_for_each_exchange() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let settings = Settings {
        access_log: Some(config::AccessLog {
            target: config::AccessLogTarget::File(path.clone()),
            max_size: 1 << 30,
            keep: 1,
        }),
        ..readers()
    };
    let (activity, recorder) = Activity::start(settings).unwrap();
    for i in 0..1000 {
        recorder.begun(&begun(&format!("req_{i}"), at(NOON)), &Arc::default());
        recorder.ended(exchange(&format!("req_{i}"), NOON));
    }
    let view = activity.view();
    drop(activity);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1000);
    assert!(
        text.lines()
            .nth(999)
            .unwrap()
            .contains("\"request_id\":\"req_999\"")
    );
    assert_eq!(view.access_log_dropped(), 0);
}

#[test]
fn what_is_to_be_stored_is_bounded_while_it_cannot_be() {
    let mut state = State::new(at(NOON));
    let mut unsaved = Additions::default();
    for day in 0..20 {
        for i in 0..2000 {
            let second = NOON + day * 86_400 + i * 43;
            let mut exchange = exchange("x", second);
            if let Some(usage) = &mut exchange.usage {
                usage.model = Some(format!("m{}", i % 100).into());
            }
            state.ended(exchange, (None, None), at(second), Some(&mut unsaved));
        }
        unsaved.prune(NOON + (day + 1) * 86_400);
    }
    assert!(unsaved.minutes.len() <= 10_080);
    assert!(unsaved.hours.len() <= 169 * 65 && unsaved.days.len() <= 400 * 65);
    assert!(unsaved.minutes.len() > 5000);
}

/// Everything at its bound, in a process of its own, whose memory is measured.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_bounded_in_the_largest_case() {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args([
            "--exact",
            "activity::tests::largest",
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

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by memory_is_bounded_in_the_largest_case, alone in its process"]
fn largest() {
    let resident = || -> usize {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let mut state = State::new(at(NOON));
    let long = |i: u64, length: usize| -> Box<str> { format!("{i:0length$}").into() };
    let value = [b'x'; 200];
    let secrets = crate::secret::Secrets::default();
    let fields = || crate::exchange::ShownFields::of([(&b"accept"[..], &value[..]); 30], &secrets);
    let largest = |i: u64, second: u64| {
        let mut exchange = exchange(&format!("req_{i:024}"), second);
        exchange.begun.path = long(i % 1000, 4096);
        exchange.begun.session = Some(long(i, 128));
        exchange.begun.user_agent = Some(long(i, 256));
        exchange.upstream = Some(format!("{:0500}", i % 100).into());
        exchange.request_fields = fields();
        exchange.response_fields = fields();
        exchange.upstream_request_id = Some(long(i, 128));
        exchange.rate_limit = (0..20).map(|n| (long(n, 200), long(i, 200))).collect();
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
    for second in days.chain(hours).chain(minutes).chain(seconds) {
        for _ in 0..100 / 6 {
            // all models of an hour, whatever the part
            number += 1;
            let text = recent::Text {
                content: "x".repeat(50 * 1024).into(),
                is_cut: true,
            };
            let text = (number % 50 < 2).then_some(text);
            state.ended(largest(number, second), (text, None), at(second), None);
        }
    }
    for i in 0..20_000 {
        let begun = largest(number + i, NOON).begun;
        let answered = Answered {
            id: begun.id.clone(),
            status: 200,
            upstream: None,
            upstream_request_id: Some(long(i, 128)),
            model: Some(long(i, 128)),
            is_stream: Some(true),
            max_tokens: Some(1),
            timings: Timings::default(),
        };
        state.begun(begun, Arc::default(), at(NOON));
        state.answered(answered, at(NOON));
    }
    for i in 0..1000 {
        let text = recent::Text {
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
    assert!(used < 110 << 20, "{used}");
    drop(state);
}

#[test]
fn a_pending_row_says_what_the_response_head_told() {
    let view = filled(NOON, |state| {
        state.begun(begun("a", at(NOON)), Arc::default(), at(NOON));
        state.begun(begun("b", at(NOON)), Arc::default(), at(NOON));
    });
    let mut cursor = None;
    view.tick(&mut cursor, at(NOON));
    locked(&view.state).answered(
        Answered {
            id: "a".into(),
            status: 200,
            upstream: Some("https://a.example".into()),
            upstream_request_id: None,
            model: Some("claude-x".into()),
            is_stream: Some(true),
            max_tokens: Some(7),
            timings: Timings {
                head: Some(Duration::from_millis(3)),
                ..Timings::default()
            },
        },
        at(NOON),
    );
    let tick = view.tick(&mut cursor, at(NOON + 1));
    let [row] = tick.rows.as_slice() else {
        panic!("{:?}", tick.rows)
    };
    assert_eq!(
        (row.id.as_str(), row.status, row.head_ms, row.max_tokens),
        ("a", Some(200), Some(3.0), Some(7))
    );
    assert!(row.state == RowState::Pending && row.ended.is_none());
    let found = |filter: Filter| {
        let page = view.requests(&filter, at(NOON)).unwrap();
        let ids = page.items.into_iter().map(|row| row.id);
        ids.collect::<Vec<_>>()
    };
    let by_model = Filter {
        model: Some("CLAUDE".into()),
        ..Filter::default()
    };
    assert_eq!(found(by_model), ["a"]);
    // what never began, or has ended, is no row
    let mut state = locked(&view.state);
    state.ended(exchange("a", NOON), (None, None), at(NOON), None);
    assert_eq!(state.recent.in_flight(), 1);
}

#[test]
fn what_a_client_left_is_no_failure() {
    let left = |id: &str, status: Option<u16>| {
        let mut left = exchange(id, NOON);
        left.status = status;
        left.ended = Ended {
            by: By::Client,
            phase: Phase::Response,
            label: Some("client_disconnected"),
        };
        left
    };
    let mut error = exchange("error", NOON);
    if let Some(usage) = &mut error.usage {
        usage.error_type = Some("overloaded_error".into());
    }
    let view = filled(NOON, |state| {
        for exchange in [
            exchange("fine", NOON),
            left("left", Some(200)),
            left("earlier", None),
            left("of a failure", Some(529)),
            error,
        ] {
            state.ended(exchange, (None, None), at(NOON), None);
        }
    });
    let overview = view.overview(Range::Minutes5, at(NOON));
    let totals = &overview.totals;
    assert_eq!(
        (
            totals.requests,
            totals.succeeded,
            totals.failed,
            totals.canceled
        ),
        (5, 1, 2, 2)
    );
    let rates = [totals.success_rate, totals.error_rate, totals.canceled_rate];
    assert_eq!(rates, [0.2, 0.4, 0.4], "together one");
    assert_eq!(overview.series.canceled.iter().sum::<u64>(), 2);
    let errors = view.errors(Range::Minutes5, at(NOON));
    let listed: Vec<_> = errors.items.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(listed, ["error", "of a failure"]);
    assert_eq!((errors.kept, errors.since), (1000, NOON * 1000));
}

#[test]
fn every_try_counts_for_its_upstream() {
    let tried = |upstream: &str, outcome| Try {
        upstream: upstream.into(),
        outcome,
    };
    let mut moved = exchange("moved", NOON);
    moved.upstream = Some("c".into());
    moved.tries = vec![
        tried("a", Tried::Unreachable),
        tried("b", Tried::Status(529)),
    ];
    let mut failed = exchange("failed", NOON);
    failed.upstream = Some("a".into());
    failed.status = Some(502);
    failed.timings.head = None;
    failed.ended.by = By::Upstream;
    failed.tries = vec![tried("a", Tried::Unanswered)];
    let mut left = exchange("left", NOON);
    left.upstream = Some("a".into());
    left.status = None;
    left.timings.head = None;
    left.ended.by = By::Client;
    let view = filled(NOON, |state| {
        for exchange in [moved, failed, left] {
            state.ended(exchange, (None, None), at(NOON), None);
        }
    });
    let rows = view.upstreams();
    let counts: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.name.as_str(),
                row.requests,
                row.errors,
                row.connect_failures,
                row.status_529,
            )
        })
        .collect();
    assert_eq!(
        counts,
        [("a", 3, 2, 1, 0), ("b", 1, 1, 0, 1), ("c", 1, 0, 0, 0)]
    );
    // and is an error of it, whoever answered in the end; the last one of `failed` is its own failure
    let errors = view.errors(Range::Day, at(NOON));
    let mut groups: Vec<_> = errors
        .groups
        .iter()
        .map(|it| (it.upstream.as_deref(), it.status, it.label, it.count))
        .collect();
    groups.sort();
    let expected = [
        (Some("a"), None, Some("unreachable"), 1),
        (Some("a"), Some(502), Some("upstream"), 1),
        (Some("b"), Some(529), Some("failed_over"), 1),
    ];
    assert_eq!(groups, expected);
}

#[test]
fn paths_that_are_asked_for_once_do_not_keep_the_others_out() {
    let view = filled(NOON, |state| {
        for i in 0..300 {
            let mut scanned = exchange("x", NOON);
            scanned.begun.path = format!("/scan/{i}").into();
            state.ended(scanned, (None, None), at(NOON), None);
        }
        for _ in 0..3 {
            state.ended(exchange("x", NOON), (None, None), at(NOON), None);
        }
    });
    let paths = view.overview(Range::Minutes5, at(NOON)).paths;
    assert!(paths.len() <= 201);
    assert_eq!(paths.iter().map(|row| row.requests).sum::<u64>(), 303);
    let real = paths.iter().find(|row| row.path == "/v1/messages");
    assert_eq!(real.unwrap().requests, 3);
}

#[test]
fn usage_is_told_by_model_within_a_day() {
    let view = filled(NOON - 7 * DAY, |state| {
        for (id, second, model) in [
            ("1", NOON - DAY, "a"),
            ("2", NOON, "a"),
            ("3", NOON, "b"),
            ("4", NOON, "b"),
        ] {
            let mut exchange = exchange(id, second);
            if let Some(usage) = &mut exchange.usage {
                usage.model = Some(model.into());
            }
            state.ended(exchange, (None, None), at(second), None);
        }
    });
    let rows = |by| view.usage(UsageRange::Hours(168), by, at(NOON));
    let by_both: Vec<_> = rows(UsageBy::ModelDay)
        .into_iter()
        .map(|row| (row.day.unwrap(), row.model.unwrap(), row.requests, row.key))
        .collect();
    let today = "2026-11-23".to_owned();
    assert_eq!(
        by_both,
        [
            (today.clone(), "b".into(), 2, format!("{today} b")),
            (today.clone(), "a".into(), 1, format!("{today} a")),
            (
                "2026-11-22".into(),
                "a".into(),
                1,
                "2026-11-22 a".to_owned()
            ),
        ]
    );
    let by_day: Vec<_> = rows(UsageBy::Day).into_iter().map(|row| row.key).collect();
    assert_eq!(by_day, ["2026-11-23", "2026-11-22"]);
}

#[test]
fn the_access_log_alone_keeps_nothing() {
    let (activity, recorder) = Activity::start(Settings::default()).unwrap();
    let view = activity.view();
    recorder.begun(&begun("x", SystemTime::now()), &Arc::default());
    recorder.ended(failing("x", second(SystemTime::now()), 500, "words"));
    drop(activity);
    let overview = view.overview(Range::Hour, SystemTime::now());
    assert_eq!((overview.totals.requests, overview.in_flight), (0, 0));
    assert!(view.request("x", SystemTime::now()).is_none());
}

#[test]
fn an_exchange_in_flight_shows_its_progress_and_can_be_ended() {
    let progress = Arc::<Progress>::default();
    let view = filled(NOON, |state| {
        state.begun(begun("a", at(NOON)), Arc::clone(&progress), at(NOON));
        state.begun(begun("b", at(NOON)), Arc::default(), at(NOON));
        state.ended(exchange("c", NOON), (None, None), at(NOON), None);
    });
    let mut cursor = None;
    assert_eq!(view.tick(&mut cursor, at(NOON)).running.len(), 2);
    assert!(view.tick(&mut cursor, at(NOON)).running.is_empty());
    let fields = [(&b"accept"[..], &b"text/event-stream"[..])];
    progress.asked_with(&crate::exchange::ShownFields::of(
        fields,
        &crate::secret::Secrets::default(),
    ));
    progress.asks(&"https://b.example".into());
    progress.names("claude-z");
    progress.edited("replaced");
    progress.receives(5);
    progress.sends(6);
    let tokens = Tokens {
        input: 3,
        output: 4,
        ..Tokens::default()
    };
    progress.meters(&tokens, 9, Some(Duration::from_millis(30)));
    let tick = view.tick(&mut cursor, at(NOON + 2));
    let [running] = tick.running.as_slice() else {
        panic!("{:?}", tick.running)
    };
    assert_eq!((running.id.as_str(), running.seq), ("a", 1));
    assert_eq!((running.bytes_in, running.bytes_out), (5, 6));
    assert_eq!((running.ttft_ms, running.duration_ms), (Some(30.0), 2000.0));
    assert_eq!((running.tokens.output, running.output_events), (4, 9));
    assert_eq!(running.upstream.as_deref(), Some("https://b.example"));
    assert!(tick.rows.is_empty() && !running.ending);

    let detail = view.request("a", at(NOON + 2)).unwrap();
    let row = &detail.row;
    assert_eq!(
        (row.bytes_in, row.bytes_out, row.edit),
        (5, 6, Some("replaced"))
    );
    assert_eq!(row.tokens.map(|tokens| tokens.input), Some(3));
    assert_eq!(row.model.as_deref(), Some("claude-z"));
    assert_eq!(detail.request_fields[0].name, "accept");
    let by_upstream = Filter {
        upstream: Some("b.example".into()),
        ..Filter::default()
    };
    assert_eq!(view.requests(&by_upstream, at(NOON)).unwrap().total, 1);

    assert_eq!(view.end("a"), End::Asked);
    assert!(progress.is_ending());
    assert_eq!(view.end("a"), End::TooLate);
    assert_eq!(view.end("c"), End::TooLate);
    assert_eq!(view.end("d"), End::Unknown);
    assert!(view.tick(&mut cursor, at(NOON + 3)).running[0].ending);
}

/// What an operator sees of a moment, in all ranges.
fn shown(view: &View, now: SystemTime) -> Vec<serde_json::Value> {
    let json = |value: serde_json::Result<serde_json::Value>| value.unwrap();
    let mut all = Vec::new();
    for range in Range::ALL {
        let overview = view.overview(range, now);
        all.push(json(serde_json::to_value((
            overview.totals,
            overview.series,
            overview.today,
        ))));
        let errors = view.errors(range, now);
        let groups = errors.groups.into_iter().map(|mut group| {
            // the words of an answer are not stored
            group.sample.content = None;
            group
        });
        all.push(json(serde_json::to_value((
            groups.collect::<Vec<_>>(),
            ids(&errors.items),
        ))));
    }
    let filter = Filter {
        limit: Some(1000),
        ..Filter::default()
    };
    let page = view.requests(&filter, now).unwrap();
    all.push(json(serde_json::to_value((page.total, &page.items))));
    all
}

fn ids(rows: &[view::Row]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn a_restart_changes_nothing_that_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let settings = || Settings {
        data_dir: Some(directory.path().into()),
        ..readers()
    };
    let now = second(SystemTime::now());
    let (activity, recorder) = Activity::start(settings()).unwrap();
    // of the last hours, minutes and seconds, each with a duration of its own
    for (i, age) in (0..250_u64).map(|i| (i, i * i)) {
        let mut ended = exchange(&format!("req_{i}"), now - 3 - age);
        ended.timings.total = Duration::from_millis(100 + 7 * i);
        ended.begun.started = at(now - 3 - age) - ended.timings.total;
        if i % 10 == 0 {
            ended.status = Some(529);
            ended.edit = Some("replaced");
            ended.error = failing("x", now, 529, r#"{"error":{"type":"overloaded_error"}}"#).error;
            if let Some(usage) = &mut ended.usage {
                usage.failure = Some(crate::exchange::MeteringFailure::Broken);
                usage.at_least = true;
            }
        } else if i % 10 == 1 {
            ended.ended = Ended {
                by: By::Client,
                phase: Phase::Response,
                label: Some("client_disconnected"),
            };
        }
        recorder.ended(ended);
    }
    let view = activity.view();
    drop(activity);
    // the same moment for both, whose numbers of a second are those since the start
    let moment = at(now);
    let rates = |values: &mut Vec<serde_json::Value>| {
        for value in values {
            for rate in ["requests_per_second", "tokens_per_second"] {
                if let Some(totals) = value.get_mut(0).filter(|it| it.is_object()) {
                    totals[rate] = serde_json::Value::Null;
                }
            }
            // rows are numbered in the order of their beginning, not of their end
            if let Some(rows) = value.get_mut(1).and_then(|it| it.as_array_mut()) {
                for row in rows.iter_mut().filter(|row| row.is_object()) {
                    row["seq"] = serde_json::Value::Null;
                }
                rows.sort_by_key(|row| row["id"].to_string());
            }
        }
    };
    let mut before = shown(&view, moment);
    let (activity, recorder) = Activity::start(settings()).unwrap();
    let mut after = shown(&activity.view(), moment);
    rates(&mut before);
    rates(&mut after);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    let totals = activity.view().overview(Range::Minutes15, moment).totals;
    assert_eq!(totals.requests, 30, "those of 900 seconds");
    assert!(totals.duration_ms.p99.is_some() && totals.ttft_ms.p50.is_some());
    let errors = activity.view().errors(Range::Week, moment);
    assert_eq!(errors.items.len(), 25);
    let first = &errors.items[0];
    assert_eq!(first.error_type.as_deref(), Some("overloaded_error"));
    assert_eq!((first.edit, first.at_least), (Some("replaced"), true));
    assert!(errors.since < now * 1000 - 17 * 3_600_000);
    // what comes now is newer than what was taken over
    recorder.ended(exchange("new", now));
    let view = activity.view();
    drop(activity);
    let page = view.requests(&Filter::default(), moment).unwrap();
    assert_eq!((page.items[0].id.as_str(), page.items[0].seq), ("new", 251));
}

#[test]
fn exchanges_are_stored_within_bounds_and_without_content() {
    let directory = tempfile::tempdir().unwrap();
    let settings = || Settings {
        data_dir: Some(directory.path().into()),
        ..readers()
    };
    let now = second(SystemTime::now());
    for round in 0..3 {
        let (activity, recorder) = Activity::start(settings()).unwrap();
        for i in 0..3000 {
            let mut ended = exchange(&format!("{round}-{i}"), now);
            if i % 5 == 0 {
                ended = failing(&format!("{round}-{i}"), now, 500, "canary-of-an-error");
            }
            let fields = [(&b"user-agent"[..], &b"canary-of-a-field"[..])];
            ended.request_fields = crate::exchange::ShownFields::of(fields, &Default::default());
            recorder.ended(ended);
        }
        drop(activity);
    }
    let (activity, _) = Activity::start(settings()).unwrap();
    let view = activity.view();
    let page = view.requests(&Filter::default(), at(now)).unwrap();
    assert!(page.total <= recent::KEPT);
    assert!(page.total > recent::KEPT / 2, "{}", page.total);
    let errors = view.errors(Range::Week, at(now));
    let count: u64 = errors.groups.iter().map(|group| group.count).sum();
    assert!(count as usize <= recent::FAILURES && count > 500, "{count}");
    for entry in fs::read_dir(directory.path()).unwrap() {
        let octets = fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&octets).contains("canary"));
    }
}
