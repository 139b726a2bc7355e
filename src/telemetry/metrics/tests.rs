//! The metrics as a scrape sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use super::*;
use crate::exchange::{
    ExchangeStart, MeteringFailure, Owner, Route, Termination, TerminationPhase, TerminationSource,
    Timings, Tokens, Usage,
};

mod consumers;
mod messages;

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
            session: Some("session-canary".into()),
            user_agent: Some("agent-canary".into()),
            agent: None,
            parent_agent: None,
            owner: None,
        },
        status: Some(200),
        upstream: Some("https://api.anthropic.com".into()),
        upstream_request_id: Some("request-canary".into()),
        received: 1_000,
        sent: 20_000,
        timings: Timings {
            connected: Some(Duration::from_millis(1)),
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
                cache_write_1h: 0,
            },
            server_tools: 1,
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

fn refused(label: Label) -> Exchange {
    let mut exchange = exchange("never-seen");
    exchange.status = Some(502);
    exchange.upstream = None;
    exchange.timings = Timings {
        total: Duration::from_millis(2),
        ..Timings::default()
    };
    exchange.termination = Termination {
        source: TerminationSource::Proxy,
        phase: TerminationPhase::Request,
        label: Some(label),
    };
    exchange.edit = None;
    exchange.usage = None;
    exchange
}

/// An exchange whose request showed a key of a team.
fn owned(team: &str) -> Exchange {
    let mut exchange = exchange("claude-sonnet-4-5");
    exchange.begun.owner = Some(Arc::new(Owner {
        key: "canary-key".into(),
        name: "canary-name".into(),
        user: Some("canary-user".into()),
        team: Some(team.into()),
    }));
    exchange.begun.session = Some("canary-session".into());
    exchange
}

#[test]
fn teams_are_labels_and_keys_users_and_sessions_are_not() {
    let metrics = Metrics::new();
    let shard = metrics.shard();
    for team in 0..60 {
        shard.exchange(&owned(&format!("Team {team:02}")));
    }
    shard.exchange(&exchange("claude-sonnet-4-5"));
    let text = metrics.expose(&gauges(), Format::OpenMetrics);
    let samples = samples(&text);
    let requests = |team: &str| {
        let labels = format!(r#"{{team="{team}",result="succeeded"}}"#);
        samples.get(&format!("anthropic_proxy_team_requests_total{labels}"))
    };
    assert_eq!(
        (requests("Team 00"), requests("other")),
        (Some(&1.0), Some(&10.0))
    );
    assert_eq!(requests("Team 59"), None);
    holds(
        &samples,
        &[(
            r#"anthropic_proxy_cache_breaks_total{cause="system_changed"}"#,
            3.0,
        )],
    );
    assert!(!text.contains("canary"), "{text}");
}

fn gauges() -> Gauges {
    let upstream = |circuit| UpstreamGauges {
        url: "https://a.example/\"quoted\\\n".to_owned(),
        circuit,
        idle_connections: 2,
    };
    Gauges {
        state: Some((true, 2)),
        state_copy: Some((4.0, false)),
        sharing: Some(SharingGauges {
            syncs: 3,
            failures: 1,
            ..SharingGauges::default()
        }),
        version: "0.1.0",
        in_flight: 4,
        connections: 5,
        reload_succeeded: 6,
        reload_failed: 1,
        last_reload_successful: true,
        log_lines_dropped: 7,
        access_log_lines_dropped: 8,
        exchanges_dropped: 9,
        traces_dropped: Some(2),
        metric_exports: Some((6, 1)),
        cache_breaks: vec![("system_changed", 3)],
        upstreams: vec![upstream("closed"), upstream("open")],
        prices_date: "2025-11-24".to_owned(),
    }
}

/// Metrics in which every family has a series.
fn filled() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let shard = metrics.shard();
    shard.exchange(&owned("core team"));
    let mut unpriced = exchange("unheard-of");
    let usage = unpriced.usage.as_mut().unwrap();
    (usage.cost, usage.failure) = (None, Some(MeteringFailure::Broken));
    usage.error_type = Some("overloaded_error".into());
    shard.exchange(&unpriced);
    shard.exchange(&refused(Label::ConnectionRefused));
    shard.connected(None, Duration::from_millis(30));
    shard.connected(Some(Label::DnsError), Duration::from_secs(5));
    shard.moved(Moved::Stale);
    shard.refused(Label::SpendLimit, Some("core team"));
    metrics
}

/// Samples by name and labels. Refuses what is there twice.
fn samples(exposition: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let twice = samples.insert(series.to_owned(), value.parse().unwrap());
        assert!(twice.is_none(), "{series} is there twice");
    }
    samples
}

#[track_caller]
fn holds(samples: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        assert_eq!(samples.get(*series), Some(value), "{series}");
    }
}

#[test]
fn shards_are_summed_up_exactly() {
    const EACH: u64 = 2_000;
    let metrics = Metrics::new();
    // one for each thread that counts
    let shards: [_; 4] = std::array::from_fn(|_| metrics.shard());
    thread::scope(|scope| {
        for shard in &shards {
            scope.spawn(move || {
                let exchange = exchange("claude-sonnet-4-5");
                for _ in 0..EACH {
                    shard.exchange(&exchange);
                    shard.connected(None, Duration::from_millis(30));
                    shard.moved(Moved::Status);
                }
            });
        }
    });
    let all = (4 * EACH) as f64;
    let samples = samples(&metrics.expose(&gauges(), Format::OpenMetrics));
    let model = r#"gen_ai_request_model="claude-sonnet-4-5""#;
    let tokens =
        |kind| format!(r#"gen_ai_client_token_usage_sum{{{model},gen_ai_token_type="{kind}"}}"#);
    holds(
        &samples,
        &[
            (
                r#"anthropic_proxy_requests_total{method="POST",route="messages",status="2xx",outcome="complete",phase="response",result="succeeded"}"#,
                all,
            ),
            (r#"anthropic_proxy_edits_total{outcome="replaced"}"#, all),
            (
                r#"anthropic_proxy_content_bytes_total{direction="request",route="messages"}"#,
                all * 1e3,
            ),
            (
                r#"anthropic_proxy_content_bytes_total{direction="response",route="messages"}"#,
                all * 2e4,
            ),
            (
                r#"anthropic_proxy_request_duration_seconds_sum{route="messages"}"#,
                all * 7.0,
            ),
            (
                r#"anthropic_proxy_request_duration_seconds_count{route="messages"}"#,
                all,
            ),
            (
                r#"anthropic_proxy_time_to_head_seconds_sum{route="messages"}"#,
                all * 0.3,
            ),
            ("anthropic_proxy_overhead_seconds_count", all),
            ("anthropic_proxy_overhead_seconds_sum", all * 40.0 / 1e6),
            (
                r#"anthropic_proxy_overhead_seconds_bucket{le="0.000025"}"#,
                0.0,
            ),
            (
                r#"anthropic_proxy_overhead_seconds_bucket{le="0.00005"}"#,
                all,
            ),
            (&tokens("input"), all * 3.0),
            (&tokens("output"), all * 500.0),
            (&tokens("cache_read"), all * 2e4),
            (&tokens("cache_write_5m"), all * 100.0),
            (
                &format!("gen_ai_server_time_to_first_token_seconds_sum{{{model}}}"),
                all * 0.4,
            ),
            (
                &format!("gen_ai_server_request_duration_seconds_count{{{model}}}"),
                all,
            ),
            (
                &format!("anthropic_proxy_cost_usd_total{{{model}}}"),
                all * 0.25,
            ),
            ("anthropic_proxy_server_tool_requests_total", all),
            (
                r#"anthropic_proxy_upstream_connects_total{outcome="ok"}"#,
                all,
            ),
            (
                r#"anthropic_proxy_upstream_connect_duration_seconds_sum{result="ok"}"#,
                all * 0.03,
            ),
            (
                r#"anthropic_proxy_upstream_moves_total{reason="status"}"#,
                all,
            ),
            (
                r#"anthropic_proxy_upstream_moves_total{reason="stale"}"#,
                0.0,
            ),
        ],
    );
    assert_eq!(samples.get(&tokens("cache_write_1h")), None);
}

#[test]
fn what_failed_is_counted_by_side_phase_and_reason() {
    let metrics = filled();
    let mut cut = exchange("claude-sonnet-4-5");
    cut.termination = Termination {
        source: TerminationSource::Client,
        phase: TerminationPhase::Response,
        label: None,
    };
    metrics.shard().exchange(&cut);
    let samples = samples(&metrics.expose(&gauges(), Format::OpenMetrics));
    holds(
        &samples,
        &[
            (
                r#"anthropic_proxy_requests_total{method="POST",route="messages",status="5xx",outcome="proxy",phase="request",result="failed"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_aborts_total{side="proxy",phase="request",reason="connection_refused"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_aborts_total{side="client",phase="response",reason="none"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_upstream_errors_total{error_type="overloaded_error"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_unpriced_requests_total{gen_ai_request_model="unheard-of"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_upstream_connects_total{outcome="dns_error"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_upstream_connect_duration_seconds_count{result="failed"}"#,
                1.0,
            ),
            (
                r#"gen_ai_server_request_duration_seconds_count{gen_ai_request_model="other"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_metering_failures_total{reason="broken"}"#,
                1.0,
            ),
            (
                r#"anthropic_proxy_metering_failures_total{reason="memory"}"#,
                0.0,
            ),
            // an upstream was not asked: its overhead would only be that of an answer of ours
            ("anthropic_proxy_overhead_seconds_count", 3.0),
        ],
    );
}

#[test]
fn the_first_fifty_models_are_labels_and_the_rest_is_other() {
    let metrics = Metrics::new();
    let shards = [metrics.shard(), metrics.shard()];
    for at in 0..60 {
        shards[at % 2].exchange(&exchange(&format!("model-{at}")));
    }
    let samples = samples(&metrics.expose(&gauges(), Format::OpenMetrics));
    let count = |model: &str| {
        let series = format!(
            r#"gen_ai_client_token_usage_count{{gen_ai_request_model="{model}",gen_ai_token_type="output"}}"#
        );
        samples.get(&series).copied()
    };
    assert_eq!(
        (count("model-0"), count("model-49")),
        (Some(1.0), Some(1.0))
    );
    assert_eq!((count("model-50"), count("other")), (None, Some(10.0)));
}

#[test]
fn a_model_that_used_nothing_takes_no_label() {
    let metrics = Metrics::new();
    let shard = metrics.shard();
    let mut refused = exchange("made-up");
    refused.usage.as_mut().unwrap().tokens = Tokens::default();
    for _ in 0..60 {
        shard.exchange(&refused);
    }
    assert!(
        !metrics
            .expose(&gauges(), Format::OpenMetrics)
            .contains("made-up")
    );
}

#[test]
fn the_shard_of_a_worker_that_is_gone_is_used_again() {
    let metrics = Metrics::new();
    let shard = metrics.shard();
    shard.moved(Moved::Stale);
    let first = Arc::as_ptr(&shard);
    drop(shard);
    let (again, other) = (metrics.shard(), metrics.shard());
    assert_eq!(Arc::as_ptr(&again), first);
    assert_ne!(Arc::as_ptr(&other), first);
    let samples = samples(&metrics.expose(&gauges(), Format::OpenMetrics));
    holds(
        &samples,
        &[(
            r#"anthropic_proxy_upstream_moves_total{reason="stale"}"#,
            1.0,
        )],
    );
}

#[test]
fn shards_do_not_share_cache_lines() {
    assert_eq!(align_of::<Shard>(), 128);
    // 1.4 MB on eight cores; most of it is never touched
    assert!(size_of::<Shard>() < 176 * 1024, "{}", size_of::<Shard>());
}

#[test]
fn gauges_are_as_given_and_label_values_escaped() {
    let exposition = Metrics::new().expose(&gauges(), Format::OpenMetrics);
    let samples = samples(&exposition);
    let upstream = r#"upstream="https://a.example/\"quoted\\\n""#;
    holds(
        &samples,
        &[
            (r#"anthropic_proxy_build_info{version="0.1.0"}"#, 1.0),
            (r#"anthropic_proxy_prices_info{date="2025-11-24"}"#, 1.0),
            ("anthropic_proxy_in_flight_requests", 4.0),
            ("anthropic_proxy_connections", 5.0),
            ("anthropic_proxy_config_last_reload_successful", 1.0),
            (r#"anthropic_proxy_config_reloads_total{result="ok"}"#, 6.0),
            (
                r#"anthropic_proxy_config_reloads_total{result="failed"}"#,
                1.0,
            ),
            (r#"anthropic_proxy_log_lines_dropped_total{log="log"}"#, 7.0),
            (
                r#"anthropic_proxy_log_lines_dropped_total{log="access_log"}"#,
                8.0,
            ),
            ("anthropic_proxy_telemetry_dropped_exchanges_total", 9.0),
            ("anthropic_proxy_traces_dropped_total", 2.0),
            (r#"anthropic_proxy_metric_exports_total{result="ok"}"#, 6.0),
            (
                r#"anthropic_proxy_metric_exports_total{result="failed"}"#,
                1.0,
            ),
            // the same URL twice in the configuration is one label
            (
                &format!(r#"anthropic_proxy_upstream_circuits{{{upstream},state="closed"}}"#),
                1.0,
            ),
            (
                &format!(r#"anthropic_proxy_upstream_circuits{{{upstream},state="open"}}"#),
                1.0,
            ),
            (
                &format!(r#"anthropic_proxy_upstream_circuits{{{upstream},state="half_open"}}"#),
                0.0,
            ),
            (
                &format!(r#"anthropic_proxy_upstream_circuits{{{upstream},state="failing"}}"#),
                0.0,
            ),
            (
                &format!(r#"anthropic_proxy_upstream_circuits{{{upstream},state="unknown"}}"#),
                0.0,
            ),
            (
                &format!("anthropic_proxy_upstream_idle_connections{{{upstream}}}"),
                4.0,
            ),
        ],
    );
}

#[test]
fn buckets_add_up_to_the_count() {
    let samples = samples(&filled().expose(&gauges(), Format::OpenMetrics));
    let mut histograms = 0;
    for (series, count) in &samples {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let Some(name) = name.strip_suffix("_count") else {
            continue;
        };
        let buckets: Vec<f64> = samples
            .iter()
            .filter(|(bucket, _)| {
                bucket.starts_with(&format!("{name}_bucket{{le=")) && bucket.ends_with(labels)
            })
            .map(|(_, value)| *value)
            .collect();
        assert!(buckets.iter().all(|bucket| bucket <= count), "{series}");
        let all = format!("{name}_bucket{{le=\"+Inf\"{}", tail(labels));
        assert_eq!(samples.get(&all), Some(count), "{all}");
        histograms += 1;
    }
    assert!(histograms >= 10, "{histograms}");
}

/// Labels behind another one.
fn tail(labels: &str) -> String {
    match labels {
        "" => "}".to_owned(),
        labels => format!(",{labels}"),
    }
}

#[test]
fn nothing_of_one_exchange_is_a_label() {
    let exposition = filled().expose(&gauges(), Format::OpenMetrics);
    assert!(!exposition.contains("canary") && !exposition.contains("req_"));
}

#[test]
fn the_exposition_is_whole() {
    let exposition = filled().expose(&gauges(), Format::OpenMetrics);
    assert!(exposition.ends_with("\n# EOF\n"));
    #[cfg(target_os = "linux")]
    for family in OF_THE_PROCESS {
        assert!(exposition.contains(&format!("\n{family} ")), "{family}");
    }
    let types: Vec<&str> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(types.iter().collect::<BTreeSet<_>>().len(), types.len());
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let of = |family: &&&str| {
            name.strip_prefix(**family)
                .is_some_and(|suffix| SUFFIXES.contains(&suffix))
        };
        assert!(types.iter().any(|family| of(&family)), "{name} has no type");
    }
}

/// For tests/promtool.sh: the same metrics in both formats, and with nothing counted.
#[test]
fn expositions_are_written_for_promtool() {
    let Some(folder) = std::env::var_os("PROMTOOL_FOLDER") else {
        return;
    };
    for (name, metrics) in [("filled", filled()), ("empty", Metrics::new())] {
        let write = |extension, text: &str| {
            let path = Path::new(&folder).join(name).with_extension(extension);
            std::fs::write(path, text).unwrap();
        };
        write(
            "openmetrics",
            &metrics.expose(&gauges(), Format::OpenMetrics),
        );
        write("prometheus", &metrics.expose(&gauges(), Format::Text));
    }
}

const SUFFIXES: &[&str] = &["", "_total", "_info", "_bucket", "_sum", "_count"];

#[cfg(target_os = "linux")]
const OF_THE_PROCESS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_start_time_seconds",
    "process_threads",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
];
