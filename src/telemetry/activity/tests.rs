use std::{
    fs,
    ops::Deref,
    thread,
    time::{Instant, UNIX_EPOCH},
};

use bytes::Bytes;

use super::{
    ended::{EndedRecord, RedactedText},
    state::{DAY, Delta},
    view::RowState,
    *,
};
use crate::{
    background::{Buffer as _, Consumer, Terms},
    exchange::{
        ErrorContent, Exchange, ExchangeResponse, ExchangeStart, Progress, Route, Termination,
        TerminationPhase, TerminationSource, Timings, Tokens, Tried, Try, Usage, VerifiedExchange,
    },
    label::Label,
};

mod listing;
#[cfg(target_os = "linux")]
mod memory;
mod sharing;
mod storage;

const NOON: u64 = 1_795_435_200;

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn begun(id: &str, started: SystemTime) -> ExchangeStart {
    ExchangeStart {
        seq: 0,
        id: id.into(),
        started,
        client: Some([127, 0, 0, 1].into()),
        version: "1.1",
        method: "POST".into(),
        path: "/v1/messages".into(),
        route: Route::Messages,
        session: Some("session-1".into()),
        user_agent: Some("claude-cli/2.1.330 (external, cli)".into()),
        agent: None,
        parent_agent: None,
        owner: None,
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
        termination: Termination {
            source: TerminationSource::Complete,
            phase: TerminationPhase::Response,
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
        tries: Vec::new(),
        request_fields: Default::default(),
        response_fields: Default::default(),
        prompt: None,
        trace: None,
        verified: None,
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
fn readers() -> ActivitySettings {
    ActivitySettings {
        has_readers: true,
        ..ActivitySettings::default()
    }
}

impl ActivityState {
    /// Counts and lists an exchange.
    fn ended(
        &mut self,
        exchange: Exchange,
        text: (Option<RedactedText>, Option<Box<str>>),
        now: SystemTime,
        unsaved: Option<&mut Delta>,
    ) -> EndedRecord {
        self.count([&exchange], now, unsaved);
        self.list(exchange.into(), text, now).0
    }
}

/// A view of a state that a test fills itself.
struct Filled {
    view: ActivityView,
    sender: EventSender,
    running: HashMap<Arc<str>, (ExchangeStart, Arc<Progress>)>,
    _events: Background<WorkerEvents>,
}

impl Deref for Filled {
    type Target = ActivityView;

    fn deref(&self) -> &ActivityView {
        &self.view
    }
}

impl Filled {
    fn begun(&mut self, mut begun: ExchangeStart, progress: Arc<Progress>) {
        self.sender.begun(&mut begun, &progress);
        self.running
            .insert(Arc::clone(&begun.id), (begun, progress));
    }

    fn answered(&self, id: &str, response: ExchangeResponse) {
        let (_, progress) = &self.running[id];
        progress.answered_with(response, &Default::default());
    }

    fn ended(
        &mut self,
        mut exchange: Exchange,
        text: (Option<RedactedText>, Option<Box<str>>),
        now: SystemTime,
        unsaved: Option<&mut Delta>,
    ) {
        let sender = self.sender.activity.as_ref().unwrap();
        if let Some((begun, _)) = self.running.remove(&exchange.begun.id) {
            exchange.begun.seq = begun.seq;
            let end = Box::new(exchange.clone());
            sender.events.change(|events| {
                events.end(end, usize::MAX);
                events.reset();
            });
        }
        locked(&self.view.state).ended(exchange, text, now, unsaved);
    }
}

fn filled(now: u64, fill: impl FnOnce(&mut Filled)) -> Filled {
    filled_in(TimeZone::UTC, now, fill)
}

fn filled_in(zone: TimeZone, now: u64, fill: impl FnOnce(&mut Filled)) -> Filled {
    let state = ActivityState::new(at(now), DayZone::new(zone));
    let numbers = Arc::clone(&state.recent.numbers);
    let state = Arc::new(Mutex::new(state));
    let aggregator = Aggregator {
        state: Arc::clone(&state),
        store: None,
    };
    let events = Background::new(EVENTS, aggregator);
    let mut filled = Filled {
        view: ActivityView {
            state,
            events: Some(events.handle()),
            access_log: None,
            others: None,
        },
        sender: EventSender {
            access_log: None,
            activity: Some(ActivitySender {
                events: events.handle().entrance(),
                numbers,
            }),
        },
        running: HashMap::new(),
        _events: events,
    };
    fill(&mut filled);
    filled
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
fn days_are_those_of_the_proxy_s_zone_also_after_a_month() {
    // midnight in Berlin
    let midnight = NOON + 11 * 3600;
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let view = filled_in(zone, NOON, |state| {
        for second in [midnight - 1, midnight, midnight + 1] {
            state.ended(exchange("x", second), (None, None), at(second), None);
        }
    });
    assert_eq!(view.zone(), "Europe/Berlin");
    let today = view.overview(Range::Hour, at(midnight + 2)).today;
    assert_eq!(today.requests, 2);
    for (range, later) in [
        (UsageRange::Hours(24), 0),
        (UsageRange::Days(30), 0),
        (UsageRange::Days(90), 60 * DAY),
    ] {
        let days = view.usage(range, UsageBy::Day, at(midnight + 2 + later));
        let days: Vec<_> = days
            .iter()
            .map(|row| (row.key.as_str(), row.at, row.requests))
            .collect();
        let begin = |days: u64| Some((midnight - days * DAY) * 1000);
        assert_eq!(
            days,
            [("2026-11-24", begin(0), 2), ("2026-11-23", begin(1), 1)]
        );
    }
    // by key, whose hours are gone after a week
    let (by, now) = (UsageBy::Of(Dimension::Key), at(midnight + 20 * DAY));
    for (from, to, requests) in [
        (midnight, midnight + DAY, 2),
        (midnight - DAY, midnight, 1),
        (midnight - DAY, midnight + DAY, 3),
        (midnight + DAY, midnight + 2 * DAY, 0),
    ] {
        let range = UsageRange::Between(from, to);
        let rows = view.usage(range, by, now);
        let sum: u64 = rows.iter().map(|row| row.requests).sum();
        assert_eq!(sum, requests, "{range:?}");
        let series = view.usage_series(range, by, now);
        assert_eq!(series.t[0], from * 1000);
        let sum: u64 = series.lines.iter().flat_map(|line| &line.requests).sum();
        assert_eq!(sum, requests, "{range:?}");
    }
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
fn rate_limits_are_those_seen_last_and_bounded() {
    let view = filled(NOON, |state| {
        for i in 0..40 {
            let mut exchange = exchange("x", NOON + i);
            let (left, other) = ((100 - i).to_string(), format!("anthropic-ratelimit-x-{i}"));
            exchange.response_fields = crate::exchange::ShownFields::of(
                [
                    (
                        &b"anthropic-ratelimit-requests-remaining"[..],
                        left.as_bytes(),
                    ),
                    (other.as_bytes(), b"1"),
                ],
                &crate::secret::Secrets::default(),
            );
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
                    recorder.begun(&mut exchange.begun, &Arc::default());
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
    /// An aggregator that hangs: nothing is taken.
    struct Counter(Arc<Mutex<usize>>);
    impl Consumer<WorkerEvents> for Counter {
        fn take(&mut self, events: &mut WorkerEvents) -> u64 {
            *locked(&self.0) += events.take().0.count();
            0
        }
    }
    let taken = Arc::<Mutex<usize>>::default();
    let mut worker = WorkerEvents::default();
    let mut fitting = 0;
    for i in 0..100 {
        fitting += usize::from(worker.end(Box::new(exchange(&format!("{i}"), NOON)), 16 * 1024));
    }
    assert!((8..32).contains(&fitting), "{fitting}");
    assert_eq!(worker.take().0.count(), fitting);
    // contents of errors are bounded in bytes, not in number
    let content = "x".repeat(50_000);
    let most = queue::MOST_OCTETS;
    let all = (0..10_000).all(|_| worker.end(failing("x", NOON, 500, &content).into(), most));
    assert!(all, "of those beyond the bound the content is left out");
    let contents: usize = worker
        .take()
        .0
        .filter_map(|exchange| Some(exchange.error?.octets.len()))
        .sum();
    assert!((most / 4..most).contains(&contents), "{contents}");
    // an end that was dropped leaves nothing in flight, and is counted
    let events = Background::new(
        Terms {
            most: 100,
            ..EVENTS
        },
        Counter(Arc::clone(&taken)),
    );
    let sender = EventSender {
        access_log: None,
        activity: Some(ActivitySender {
            events: events.handle().entrance(),
            numbers: Arc::default(),
        }),
    };
    let mut lost = exchange("lost", NOON);
    sender.begun(&mut lost.begun, &Arc::default());
    sender.ended(lost);
    let mut running = 0;
    events
        .handle()
        .visit(|worker| running += worker.in_flight());
    assert_eq!(
        (running, *locked(&taken), events.handle().dropped()),
        (0, 0, 1)
    );
}

#[test]
fn memory_of_exchanges_no_longer_listed_goes_back_to_the_worker() {
    let view = filled(NOON, |_| {});
    let passes = |id: usize| {
        let mut exchange = exchange(&format!("{id}"), NOON);
        let spare = view.sender.begun(&mut exchange.begun, &Arc::default());
        view.sender.ended(exchange);
        usize::from(spare.is_some())
    };
    let given_back: usize = (0..recent::KEPT + 10).map(passes).sum();
    // those of the last two rounds are on their way
    assert_eq!(given_back, 8);
    // one that a reader holds is not given back
    let held = locked(&view.state).recent.done_all();
    let given_back: usize = (0..held.len()).map(passes).sum();
    assert_eq!(given_back, 2);
}

#[test]
fn the_access_log_has_a_line_for_each_exchange() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let settings = ActivitySettings {
        access_log: Some(config::AccessLogSettings {
            target: config::AccessLogTarget::File(path.clone()),
            max_size: 1 << 30,
            keep: 1,
        }),
        ..readers()
    };
    let (activity, recorder) = Activity::start(settings).unwrap();
    for i in 0..1000 {
        let mut exchange = exchange(&format!("req_{i}"), NOON);
        recorder.begun(&mut exchange.begun, &Arc::default());
        recorder.ended(exchange);
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

/// The log is written member by member and the row by a serialiser: one says what the other says.
#[test]
fn a_line_of_the_access_log_and_a_row_of_the_api_agree() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let settings = ActivitySettings {
        access_log: Some(config::AccessLogSettings {
            target: config::AccessLogTarget::File(path.clone()),
            max_size: 1 << 30,
            keep: 1,
        }),
        ..readers()
    };
    let mut exchange = exchange("req_1", NOON);
    exchange.begun.client = Some([192, 0, 2, 1].into());
    exchange.begun.session = Some("s".into());
    exchange.begun.agent = Some("a".into());
    exchange.begun.user_agent = Some("curl/8 \"x\"".into());
    exchange.begun.owner = Some(Arc::new(crate::exchange::Owner {
        key: "0123456789".into(),
        name: "laptop".into(),
        user: Some("anna".into()),
        team: Some("core".into()),
    }));
    exchange.upstream_request_id = Some("req_2".into());
    exchange.edit = Some(Label::Replaced);
    exchange.verified = Some(Box::new(VerifiedExchange {
        request: None,
        response: None,
    }));
    exchange.timings = Timings {
        connected: Some(Duration::from_micros(1501)),
        connecting: Some(Duration::from_micros(1010)),
        head: Some(Duration::from_micros(30_123)),
        first_token: Some(Duration::from_micros(40_100)),
        total: Duration::from_micros(500_999),
        overhead: Duration::from_micros(70),
    };
    exchange.termination.label = Some(Label::ClientDisconnected);
    let usage = exchange.usage.as_mut().unwrap();
    usage.max_tokens = Some(1000);
    usage.server_tools = 2;
    usage.at_least = true;
    usage.estimate = Some(crate::exchange::Estimate {
        output: 9,
        cost: Some(1_234_567),
    });
    usage.others = vec![crate::exchange::OtherModel {
        model: "claude-y".into(),
        tokens: usage.tokens,
        cost: Some(5_000),
    }];
    usage.terms.inference_geo = Some("us".into());
    usage.terms.speed = Some("fast".into());
    usage.terms.service_tier = Some("standard".into());
    usage.failure = Some(crate::exchange::MeteringFailure::Value);
    usage.stop_reason = Some("end_turn".into());
    usage.error_type = Some("overloaded_error".into());
    let ended = ended::EndedExchange {
        change: 0,
        ended: at(NOON),
        exchange: exchange.clone().into(),
    };
    let row = serde_json::to_value(compose::done(&ended)).unwrap();
    let (activity, recorder) = Activity::start(settings).unwrap();
    recorder.ended(exchange);
    drop((recorder, activity));
    let line = fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    // names that differ, where both know the fact
    let others = [
        ("request_id", "/id"),
        ("ended_by", "/ended/by"),
        ("ended_in", "/ended/phase"),
        ("ended_label", "/ended/label"),
        ("output_estimate", "/estimate/output"),
        ("cost_estimate_usd", "/estimate/cost_usd"),
    ];
    for (name, value) in line.as_object().unwrap() {
        let other = others.iter().find(|(other, _)| other == name);
        let found = match other {
            Some((_, pointer)) => row.pointer(pointer),
            None => row.get(name),
        };
        assert!(name == "time" || found == Some(value), "{name}: {found:?}");
    }
    let of_the_row = [
        "seq",
        "id",
        "at",
        "state",
        "key_name",
        "ended_at",
        "ended",
        "ending",
        "output_events",
        "estimate",
    ];
    for (name, value) in row.as_object().unwrap() {
        let is_told = of_the_row.contains(&name.as_str()) || line.get(name) == Some(value);
        assert!(is_told, "{name}: {value}");
    }
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
    failed.termination.source = TerminationSource::Upstream;
    failed.tries = vec![tried("a", Tried::Unanswered)];
    let mut left = exchange("left", NOON);
    left.upstream = Some("a".into());
    left.status = None;
    left.timings.head = None;
    left.termination.source = TerminationSource::Client;
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
    // and is an error of it, whichever upstream responded in the end; the last one of `failed` is its own
    // failure
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
    let (activity, recorder) = Activity::start(ActivitySettings::default()).unwrap();
    let view = activity.view();
    recorder.begun(&mut begun("x", SystemTime::now()), &Arc::default());
    recorder.ended(failing("x", second(SystemTime::now()), 500, "words"));
    drop(activity);
    let overview = view.overview(Range::Hour, SystemTime::now());
    assert_eq!((overview.totals.requests, overview.in_flight), (0, 0));
    assert!(view.request("x", SystemTime::now()).is_none());
}

fn ids(rows: &[view::Row]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}
