//! Alerts on a clock of the tests.

use std::collections::BTreeSet;

use super::*;
use crate::{
    config::AlertForm,
    label::Label,
    secret::Secret,
    telemetry::{
        alerts::post::Facts,
        metrics::{CounterReading, Gauges, Metrics, ModelReading, SharingGauges, UpstreamGauges},
    },
};

/// One more look, 15 s after the one before, with what has changed.
struct Course {
    watch: Watch,
    look: Look,
}

impl Course {
    fn new() -> Self {
        let settings = AlertSettings {
            webhook: Secret::new("http://127.0.0.1:9"),
            form: AlertForm::Json,
            interval: Duration::from_secs(15),
            error_rate: 5,
            first_token: Duration::from_secs(20),
            cost_per_hour: 100_000_000_000,
        };
        let mut course = Self {
            watch: Watch::new(&settings),
            look: Look {
                at: Instant::now(),
                time: SystemTime::UNIX_EPOCH,
                counters: CounterReading {
                    descriptors: Some((10, 1000)),
                    ..Metrics::new().reading()
                },
                gauges: Gauges {
                    last_reload_successful: true,
                    ..Gauges::default()
                },
            },
        };
        assert!(course.goes_on(1, |_| {}).is_empty());
        course
    }

    /// Events that are told during a number of looks.
    fn goes_on(&mut self, looks: u32, mut change: impl FnMut(&mut Look)) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..looks {
            self.look.at += Duration::from_secs(15);
            self.look.time += Duration::from_secs(15);
            change(&mut self.look);
            events.extend(self.watch.look(self.look.clone()));
        }
        events
    }
}

/// Names of the alerts that began, and of those that ended.
fn names(events: &[Event]) -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
    let of = |is_over: bool| {
        let events = events
            .iter()
            .filter(|event| event.lasted.is_some() == is_over);
        events
            .map(|event| event.condition.alert.facts().name)
            .collect()
    };
    (of(false), of(true))
}

fn traffic(look: &mut Look) {
    look.counters.requests += 10;
    look.counters.generations += 10;
    look.counters.connects += 10;
}

fn model(look: &mut Look) -> &mut ModelReading {
    if look.counters.models.len() < 2 {
        let first_token = vec![(10.0, 0), (30.0, 0), (f64::INFINITY, 0)];
        let model = |name: &str| ModelReading {
            name: name.to_owned(),
            first_token: first_token.clone(),
            unpriced: 0,
        };
        look.counters.models = vec![model("m"), model("other")];
    }
    &mut look.counters.models[0]
}

fn upstreams(look: &mut Look, states: &[&'static str]) {
    let upstreams = states
        .iter()
        .enumerate()
        .map(|(at, circuit)| UpstreamGauges {
            url: format!("https://{at}"),
            circuit,
            idle_connections: 0,
        });
    look.gauges.upstreams = upstreams.collect();
}

fn breaks(look: &mut Look, more: u64) {
    let all = look
        .gauges
        .cache_breaks
        .first()
        .map_or(0, |(_, count)| *count);
    look.gauges.cache_breaks = vec![("tools_changed", all + more)];
}

fn silence(look: &mut Look, seconds: f64) {
    look.gauges.sharing = Some(SharingGauges {
        silent: seconds,
        ..SharingGauges::default()
    });
}

type Change = fn(&mut Look);

/// Alerts, what makes them begin, and what is close to that.
const CASES: &[(&[&str], Change, Change)] = &[
    (&["errors"], |it| it.counters.failed += 1, |_| {}),
    (
        &["credential_refused"],
        |it| it.counters.credential_errors += 3,
        |it| it.counters.credential_errors += 2,
    ),
    (
        &["rate_limited"],
        |it| it.counters.rate_limit_errors += 1,
        |_| {},
    ),
    (
        &["upstream_overloaded"],
        |it| it.counters.overloaded_errors += 1,
        |_| {},
    ),
    (
        &["first_token_slow"],
        |it| model(it).first_token[1].1 += 1,
        |it| model(it).first_token[0].1 += 1,
    ),
    (
        &["no_upstream", "circuit_open"],
        |it| upstreams(it, &["open", "half_open"]),
        |it| upstreams(it, &["failing", "unknown"]),
    ),
    (
        &["circuit_open"],
        |it| upstreams(it, &["open", "closed"]),
        |it| upstreams(it, &["closed", "closed"]),
    ),
    (
        &["connect_failures"],
        |it| it.counters.failed_connects += 3,
        |it| it.counters.failed_connects += 2,
    ),
    (
        &["saturated"],
        |it| it.counters.saturations[1].1 += 1,
        |_| {},
    ),
    (
        &["descriptors_near_limit"],
        |it| it.counters.descriptors = Some((801, 1000)),
        |it| it.counters.descriptors = Some((800, 1000)),
    ),
    (
        &["reload_failed"],
        |it| it.gauges.last_reload_successful = false,
        |_| {},
    ),
    (
        &["log_lines_dropped"],
        |it| it.gauges.access_log_lines_dropped += 1,
        |_| {},
    ),
    (
        &["telemetry_dropped"],
        |it| it.gauges.exchanges_dropped += 1,
        |_| {},
    ),
    (
        &["metering_failures"],
        |it| it.counters.metering_failures += 1,
        |_| {},
    ),
    (
        &["unpriced"],
        |it| model(it).unpriced += 1,
        |it| model(it).unpriced = 0,
    ),
    (
        &["cost_high"],
        |it| it.counters.cost += 3_000_000_000,
        // 40 looks are ten minutes
        |it| it.counters.cost += 2_000_000_000,
    ),
    (&["cache_breaks"], |it| breaks(it, 3), |it| breaks(it, 2)),
    (
        &["state_down"],
        |it| it.gauges.state = Some((false, 1)),
        |it| it.gauges.state = Some((true, 1)),
    ),
    (
        &["shared_limits_lost"],
        |it| silence(it, 31.0),
        |it| silence(it, 30.0),
    ),
    (
        &["limit_unreachable"],
        |it| it.counters.unreachable_refusals += 1,
        |_| {},
    ),
    (
        &["spend_limit_reached"],
        |it| it.counters.spend_refusals += 1,
        |_| {},
    ),
];

#[test]
fn each_alert_begins_once_on_its_condition_and_ends_once_after_it() {
    let mut tried = BTreeSet::new();
    for (expected, change, close) in CASES {
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        let mut quiet = Course::new();
        let events = quiet.goes_on(40, |look| {
            traffic(look);
            close(look);
        });
        assert!(events.is_empty(), "{expected:?}: {events:?}");

        let mut course = Course::new();
        let events = course.goes_on(40, |look| {
            traffic(look);
            change(look);
        });
        assert_eq!(names(&events), (expected.clone(), BTreeSet::new()));
        let told = events
            .iter()
            .map(|it| (it.condition.alert, &it.condition.subject));
        assert_eq!(
            told.collect::<BTreeSet<_>>().len(),
            events.len(),
            "{events:?}"
        );
        // an hour and a quarter
        let healthy = Course::new().look;
        let events = course.goes_on(300, |look| {
            traffic(look);
            look.gauges.state = None;
            look.gauges.sharing = None;
            look.gauges.last_reload_successful = true;
            look.counters.descriptors = healthy.counters.descriptors;
            look.gauges.upstreams.clear();
        });
        assert_eq!(names(&events), (BTreeSet::new(), expected.clone()));
        tried.extend(expected);
    }
    // those of the rules that can be told from inside
    let rules = std::fs::read_to_string("static/prometheus/alerts.yaml").unwrap();
    let rules = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: AnthropicProxy"));
    let mut rules: BTreeSet<String> = rules.map(snake).collect();
    for outside in ["down", "restarts", "most_requests_fail"] {
        assert!(rules.remove(outside), "{outside}");
    }
    assert_eq!(
        tried
            .into_iter()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>(),
        rules
    );
}

/// A name in camel case as one in snake case.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[test]
fn a_condition_is_told_after_a_while_and_ends_after_a_minute_without_it() {
    let mut course = Course::new();
    let fails = |look: &mut Look| look.gauges.last_reload_successful = false;
    let mends = |look: &mut Look| look.gauges.last_reload_successful = true;
    // shorter than a minute
    assert!(course.goes_on(3, fails).is_empty());
    assert!(course.goes_on(1, mends).is_empty());
    assert!(course.goes_on(3, fails).is_empty());
    let told = course.goes_on(1, fails);
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].since,
        SystemTime::UNIX_EPOCH + Duration::from_secs(15 * 6)
    );
    // a flap does not end it
    assert!(course.goes_on(3, mends).is_empty());
    assert!(course.goes_on(9, fails).is_empty());
    assert!(course.goes_on(3, mends).is_empty());
    let ended = course.goes_on(5, mends);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].lasted, Some(Duration::from_secs(15 * 19)));
}

#[test]
fn few_requests_have_no_share() {
    let mut course = Course::new();
    let mut left = 19;
    let events = course.goes_on(40, |look| {
        if left > 0 {
            left -= 1;
            look.counters.requests += 1;
            look.counters.failed += 1;
        }
    });
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn cost_is_of_an_hour() {
    let mut course = Course::new();
    // 90 dollars an hour, for three hours
    let spends = |look: &mut Look| look.counters.cost += 375_000_000;
    assert!(course.goes_on(720, spends).is_empty());
    let events = course.goes_on(1, |look| look.counters.cost += 20_000_000_000);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].condition.value > 100.0 && events[0].condition.value < 112.0);
}

#[test]
fn posts_say_where_what_and_what_to_do() {
    let mut course = Course::new();
    let event = course.goes_on(1, |look| {
        look.counters.saturations[0] = (Label::TooManyConnections, 7)
    });
    let facts = Facts::of(&event[0], "<host>", Some("http://127.0.0.1:8088/admin"));
    let json = serde_json::to_value(facts.clone().post()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "text": "[critical] anthropic-proxy at <host>: 7 requests of 15 s were refused: too_many_connections. A \
                     limit of the process is reached, and requests are answered 503. Raise the limit, or add a \
                     replica. http://127.0.0.1:8088/admin",
            "event": "alert", "alert": "saturated", "status": "firing", "severity": "critical",
            "subject": "too_many_connections",
            "summary": "7 requests of 15 s were refused: too_many_connections.",
            "description": "A limit of the process is reached, and requests are answered 503. Raise the limit, or add \
                            a replica.",
            "value": 7.0, "threshold": 0.0, "replica": "<host>", "since": "1970-01-01T00:00:30.000Z",
            "url": "http://127.0.0.1:8088/admin", "runbook": "docs/troubleshooting.md#limits-of-the-proxy",
        })
    );
    let slack = serde_json::to_value(facts.slack()).unwrap();
    assert_eq!(
        slack["text"],
        "[critical] anthropic-proxy at &lt;host&gt;: 7 requests of 15 s were refused: too_many_connections."
    );
    let attachment = &slack["attachments"][0];
    assert_eq!(
        (&attachment["color"], &attachment["title"]),
        (&"danger".into(), &"saturated".into())
    );
    let ended = course.goes_on(60, |_| {});
    let over = serde_json::to_value(Facts::of(&ended[0], "host", None).post()).unwrap();
    assert_eq!(
        over["text"],
        "[resolved] anthropic-proxy at host, after 6 minutes: 7 requests of 5 minutes were refused: \
         too_many_connections."
    );
    assert_eq!(
        (&over["status"], &over["lasted_seconds"]),
        (&"resolved".into(), &345.into())
    );
}
