//! Metrics by OTLP: the metrics of `/metrics` as a collector of OpenTelemetry reads them, the last ones at the end,
//! and a process that does not feel a collector that is slow or unwilling.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data, number_data_point},
};
use prost::Message as _;

use crate::{
    access::site,
    support::{Answering, Body, DEADLINE, Proxy, Upstream, get},
};

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, &str> {
    let pairs = attributes.iter().map(|it| {
        let Some(Value::StringValue(text)) = &it.value.as_ref().unwrap().value else {
            panic!("{it:?}")
        };
        (&*it.key, &**text)
    });
    pairs.collect()
}

#[track_caller]
fn decoded(body: &Body) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest::decode(body.content()).unwrap()
}

/// Sum of a counter's points.
fn total(metrics: &[Metric], name: &str) -> i64 {
    let Some(metric) = metrics.iter().find(|metric| metric.name == name) else {
        return 0;
    };
    let Some(Data::Sum(sum)) = &metric.data else {
        panic!("{metric:?}")
    };
    let points = sum.data_points.iter().map(|point| match point.value {
        Some(number_data_point::Value::AsInt(number)) => number,
        other => panic!("{other:?}"),
    });
    points.sum()
}

/// The first request in which a counter has a value.
#[track_caller]
fn request_with(
    collector: &Answering,
    name: &str,
    value: i64,
) -> (ExportMetricsServiceRequest, Body) {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let (_, body) = collector.request();
        let request = decoded(&body);
        if total(&request.resource_metrics[0].scope_metrics[0].metrics, name) == value {
            return (request, body);
        }
    }
    panic!("{name} is never {value}")
}

#[test]
fn metrics_are_sent_at_an_interval_to_the_receiver_of_all() {
    let (upstream, collector) = (Upstream::ok(), Upstream::ok());
    let begun = SystemTime::now();
    let proxy = Proxy::to(upstream.url())
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "40")
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("{}/x/", collector.url()),
        )
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary%20key")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=a")
        .start();
    let (head, _) = collector.request();
    assert_eq!(head.line, "POST /x/v1/metrics HTTP/1.1");
    assert_eq!(head.one("content-type"), Some("application/x-protobuf"));
    assert_eq!(head.one("api-key"), Some("canary key"));

    assert_eq!(proxy.send(get("/v1/models?canary-query")).status(), 200);
    let (request, body) = request_with(&collector, "anthropic_proxy_requests_total", 1);
    assert!(!crate::support::contains(body.content(), b"canary"));
    let [resource] = &request.resource_metrics[..] else {
        panic!("{request:#?}")
    };
    let of_program = texts(&resource.resource.as_ref().unwrap().attributes);
    assert_eq!(of_program["service.name"], "anthropic-proxy");
    assert_eq!(of_program["deployment.environment.name"], "a");
    assert!(of_program.contains_key("service.instance.id"));
    let [scope] = &resource.scope_metrics[..] else {
        panic!("{request:#?}")
    };
    assert_eq!(scope.scope.as_ref().unwrap().name, "anthropic-proxy");
    let metric = |name: &str| {
        let mut found = scope.metrics.iter().filter(|metric| metric.name == name);
        found.next().unwrap_or_else(|| panic!("no {name}"))
    };
    let Some(Data::Sum(sum)) = &metric("anthropic_proxy_requests_total").data else {
        panic!("{:?}", metric("anthropic_proxy_requests_total"))
    };
    assert!(sum.is_monotonic);
    let point = &sum.data_points[0];
    let labels = texts(&point.attributes);
    assert_eq!((labels["method"], labels["route"]), ("GET", "models"));
    let begun = begun.duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
    assert!(
        u128::from(start) >= begun && time > start,
        "{begun} {start} {time}"
    );
    let Some(Data::Histogram(histogram)) = &metric("anthropic_proxy_request_duration_seconds").data
    else {
        panic!("no histogram")
    };
    assert_eq!(histogram.data_points[0].count, 1);
    // what was taken is counted, in the next ones
    request_with(&collector, "anthropic_proxy_requests_total", 1);
    assert!(total(&scope.metrics, "anthropic_proxy_metric_exports_total") > 0);
}

#[test]
fn the_last_metrics_are_sent_at_the_end() {
    let (upstream, collector) = (Upstream::ok(), Upstream::ok());
    let proxy = Proxy::to(upstream.url())
        .env(
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            format!("{}/own?x=1", collector.url()),
        )
        .start();
    assert_eq!(proxy.send(get("/1")).status(), 200);
    assert_eq!(proxy.send(get("/2")).status(), 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
    let (head, body) = collector.request();
    assert_eq!(head.line, "POST /own?x=1 HTTP/1.1");
    let request = decoded(&body);
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(total(metrics, "anthropic_proxy_requests_total"), 2);
    assert!(collector.try_request().is_none());
}

#[test]
fn a_collector_that_refuses_metrics_is_counted_and_told_once() {
    let upstream = Upstream::ok();
    let collector = Upstream::always("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::to(upstream.url())
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "10")
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("{}/canary-path", collector.url()),
        )
        .env("METRICS_PUBLIC", "true")
        .start();
    let line = proxy.wait_for_line(|line| line.contains("[Metrics]"));
    assert!(
        line.contains("status 400") && !line.contains("canary"),
        "{line}"
    );
    let failed = |text: &str| -> u64 {
        let prefix = "anthropic_proxy_metric_exports_total{result=\"failed\"} ";
        let value = text.lines().find_map(|line| line.strip_prefix(prefix));
        value.unwrap().parse().unwrap()
    };
    let end = Instant::now() + DEADLINE;
    while failed(&site::metrics(&proxy)) < 3 {
        assert!(Instant::now() < end, "{}", site::metrics(&proxy));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(proxy.send(get("/1")).status(), 200);
    proxy.signal("TERM");
    let ended = proxy.wait();
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended.stderr.matches("[Metrics]").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn metrics_that_a_collector_rejects_in_part_count_as_failed() {
    let upstream = Upstream::ok();
    let answer = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 2,
            error_message: "no delta".to_owned(),
        }),
    };
    let answer = answer.encode_to_vec();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let collector = Upstream::always([head.into_bytes(), answer].concat());
    let proxy = Proxy::to(upstream.url())
        .env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "10")
        .env("METRICS_PUBLIC", "true")
        .start();
    assert_eq!(collector.request().0.one("content-encoding"), Some("gzip"));
    let line = proxy.wait_for_line(|line| line.contains("[Metrics]"));
    assert!(
        line.contains("rejected 2 data points") && line.contains("no delta"),
        "{line}"
    );
    let end = Instant::now() + DEADLINE;
    let ok = "anthropic_proxy_metric_exports_total{result=\"ok\"} 0\n";
    let failed = "anthropic_proxy_metric_exports_total{result=\"failed\"} ";
    loop {
        let metrics = site::metrics(&proxy);
        let count = metrics.lines().find_map(|line| line.strip_prefix(failed));
        if metrics.contains(ok) && count.is_some_and(|count| count != "0") {
            break;
        }
        assert!(Instant::now() < end, "{metrics}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_end_of_metrics() {
    let (upstream, collector) = (Upstream::ok(), Upstream::bind());
    let proxy = Proxy::to(upstream.url())
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "10")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "50")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_TRACES_EXPORTER", "none")
        .start();
    let _kept = collector.accept();
    for _ in 0..10 {
        assert_eq!(proxy.send(get("/2")).status(), 200);
    }
    // the time of a request is that of the setting, not 10 s
    proxy.wait_for_line(|line| line.contains("[Metrics]") && line.contains("timeout"));
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code, Some(0));
}
