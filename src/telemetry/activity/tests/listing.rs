//! Lists of exchanges: in flight, pages, filters, ticks, failures.

use super::*;

#[test]
fn an_exchange_is_listed_in_flight_until_it_ends() {
    let view = filled(NOON, |state| {
        state.begun(begun("a", at(NOON)), Arc::default());
        state.begun(begun("b", at(NOON)), Arc::default());
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
fn an_exchange_is_found_by_the_id_that_its_client_saw() {
    let view = filled(NOON, |state| {
        for (id, theirs) in [("a", "req_1"), ("b", "req_2"), ("c", "a")] {
            let mut ended = exchange(id, NOON + 1);
            ended.upstream_request_id = Some(theirs.into());
            state.begun(begun(id, at(NOON)), Arc::default());
            state.ended(ended, (None, None), at(NOON + 1), None);
        }
    });
    let found = |id: &str| view.request(id, at(NOON + 2)).map(|detail| detail.row.id);
    assert_eq!(found("req_1").as_deref(), Some("a"));
    assert_eq!(found("req_2").as_deref(), Some("b"));
    // its own one first
    assert_eq!(found("a").as_deref(), Some("a"));
    assert_eq!(found("req_3"), None);
}

#[test]
fn pages_follow_each_other_and_show_each_exchange_once() {
    let view = filled(NOON, |state| {
        for i in 0..6000 {
            state.begun(begun(&format!("{i}"), at(NOON)), Arc::default());
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
        gone.termination.source = TerminationSource::Client;
        gone.termination.label = Some(Label::ClientDisconnected);
        if let Some(usage) = &mut gone.usage {
            usage.model = Some("claude-y".into());
            usage.error_type = Some("overloaded_error".into());
        }
        state.ended(gone, (None, None), at(NOON), None);
        state.begun(begun("req_now", at(NOON)), Arc::default());
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
        InvalidFilter("q")
    );
    assert_eq!(
        refused(Filter {
            path: long,
            ..none()
        }),
        InvalidFilter("path")
    );
    assert_eq!(
        refused(Filter {
            limit: Some(0),
            ..none()
        }),
        InvalidFilter("limit")
    );
    assert_eq!(
        refused(Filter {
            limit: Some(1001),
            ..none()
        }),
        InvalidFilter("limit")
    );
}

#[test]
fn ticks_bring_each_change_once() {
    let mut view = filled(NOON, |state| {
        state.begun(begun("before", at(NOON)), Arc::default());
    });
    let mut cursor = None;
    let tick = view.tick(&mut cursor, at(NOON));
    assert!(
        tick.rows.is_empty(),
        "what was before is in the list of requests"
    );
    for i in 0..10 {
        view.ended(
            exchange(&format!("{i}"), NOON + i % 5),
            (None, None),
            at(NOON + 5),
            None,
        );
    }
    view.begun(begun("now", at(NOON)), Arc::default());
    let tick = view.tick(&mut cursor, at(NOON + 5));
    assert_eq!((tick.rows.len(), tick.dropped, tick.in_flight), (11, 0, 2));
    assert!((tick.requests_per_second - 2.0).abs() < 1e-9);
    assert!((tick.tokens_per_second - 4.0).abs() < 1e-9);
    assert!(view.tick(&mut cursor, at(NOON + 6)).rows.is_empty());
    for i in 0..150 {
        view.begun(begun(&format!("p{i}"), at(NOON)), Arc::default());
    }
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
    ours.termination = Termination {
        source: TerminationSource::Upstream,
        phase: TerminationPhase::Request,
        label: Some(Label::ConnectionRefused),
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
fn a_pending_row_says_what_the_response_head_told() {
    let mut view = filled(NOON, |state| {
        state.begun(begun("a", at(NOON)), Arc::default());
        state.begun(begun("b", at(NOON)), Arc::default());
    });
    let mut cursor = None;
    view.tick(&mut cursor, at(NOON));
    view.answered(
        "a",
        ExchangeResponse {
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
    view.ended(exchange("a", NOON), (None, None), at(NOON), None);
    assert_eq!(view.in_flight(), 1);
}

#[test]
fn what_a_client_left_is_no_failure() {
    let left = |id: &str, status: Option<u16>| {
        let mut left = exchange(id, NOON);
        left.status = status;
        left.termination = Termination {
            source: TerminationSource::Client,
            phase: TerminationPhase::Response,
            label: Some(Label::ClientDisconnected),
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
fn an_exchange_in_flight_shows_its_progress_and_can_be_ended() {
    let progress = Arc::<Progress>::default();
    let view = filled(NOON, |state| {
        state.begun(begun("a", at(NOON)), Arc::clone(&progress));
        state.begun(begun("b", at(NOON)), Arc::default());
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
    progress.names("claude-z".into());
    progress.edited(Label::Replaced);
    progress.receives(5);
    progress.sends(6);
    let tokens = Tokens {
        input: 3,
        output: 4,
        ..Tokens::default()
    };
    progress.streams(9);
    progress.meters(&tokens, Some(Duration::from_millis(30)));
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

    assert_eq!(view.end("a"), EndOutcome::Asked);
    assert!(progress.is_ending());
    assert_eq!(view.end("a"), EndOutcome::TooLate);
    assert_eq!(view.end("c"), EndOutcome::TooLate);
    assert_eq!(view.end("d"), EndOutcome::Unknown);
    assert!(view.tick(&mut cursor, at(NOON + 3)).running[0].ending);
}
