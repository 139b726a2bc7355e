//! History on disk: a restart, and bounds of it.

use super::*;

#[test]
fn sums_survive_a_restart_and_a_broken_file_does_not_stop_it() {
    let directory = tempfile::tempdir().unwrap();
    let settings = || ActivitySettings {
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
    let settings = || ActivitySettings {
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
fn what_is_to_be_stored_is_bounded_while_it_cannot_be() {
    let mut state = ActivityState::new(at(NOON), DayZone::new(TimeZone::UTC));
    let mut unsaved = Delta::default();
    // longer than minutes are kept, one exchange in each
    for day in 0..12 {
        for i in 0..1440 {
            let second = NOON + day * 86_400 + i * 60;
            let mut exchange = exchange("x", second);
            if let Some(usage) = &mut exchange.usage {
                usage.model = Some(format!("m{}", i % 100).into());
            }
            state.ended(exchange, (None, None), at(second), Some(&mut unsaved));
        }
        unsaved.prune(NOON + (day + 1) * 86_400);
    }
    assert!(unsaved.minutes.len() <= 10_080);
    assert!(unsaved.hours.len() <= 769 * 65 && unsaved.days.len() <= 400 * 65);
    assert!(unsaved.hours_by.len() <= 169 * 640 && unsaved.days_by.len() <= 400 * 640);
    assert_eq!(unsaved.sessions.len(), 1);
    assert!(unsaved.minutes.len() > 5000);
}

/// Views of one moment in all ranges, as an operator sees them.
fn shown(view: &ActivityView, now: SystemTime) -> Vec<serde_json::Value> {
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

#[test]
fn a_restart_changes_nothing_that_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let settings = || ActivitySettings {
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
            ended.edit = Some(Label::Replaced);
            ended.error = failing("x", now, 529, r#"{"error":{"type":"overloaded_error"}}"#).error;
            if let Some(usage) = &mut ended.usage {
                usage.failure = Some(crate::exchange::MeteringFailure::Broken);
                usage.at_least = true;
            }
        } else if i % 10 == 1 {
            ended.termination = Termination {
                source: TerminationSource::Client,
                phase: TerminationPhase::Response,
                label: Some(Label::ClientDisconnected),
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
    let settings = || ActivitySettings {
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
