//! Messages of OTLP hold what the exposition holds, under the same names.

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    metrics::v1::{Metric, ScopeMetrics, metric::Data, number_data_point::Value},
};
use prost::Message as _;

use super::*;

#[test]
fn messages_of_otlp_hold_the_samples_of_the_exposition() {
    let metrics = filled();
    let started = SystemTime::now() - Duration::from_secs(60);
    let messages = metrics.messages(&gauges(), started);
    let decoded = ScopeMetrics::decode(&*messages).unwrap();
    let sent = decoded.metrics.iter().flat_map(sent).collect::<Vec<_>>();
    let count = sent.len();
    let sent: BTreeMap<String, f64> = sent.into_iter().collect();
    assert_eq!(sent.len(), count, "a series is there twice");

    let exposed = samples(&metrics.expose(&gauges(), Format::OpenMetrics));
    let exposed: BTreeMap<String, f64> = exposed
        .into_iter()
        .map(|(series, value)| (with_plain_bound(&series), value))
        .collect();
    let names = |samples: &BTreeMap<String, f64>| samples.keys().cloned().collect::<BTreeSet<_>>();
    let (sent_names, exposed_names) = (names(&sent), names(&exposed));
    let differ: Vec<_> = sent_names.symmetric_difference(&exposed_names).collect();
    assert!(differ.is_empty(), "{differ:#?}");
    for (series, value) in exposed {
        // what the system counts goes on
        if !series.starts_with("process_") {
            assert_eq!(sent[&series], value, "{series}");
        }
    }

    let by_name = |name: &str| {
        let mut found = decoded.metrics.iter().filter(|metric| metric.name == name);
        found.next().unwrap_or_else(|| panic!("no {name}"))
    };
    for (name, unit) in [
        ("anthropic_proxy_requests_total", ""),
        ("anthropic_proxy_content_bytes_total", "By"),
        ("anthropic_proxy_cost_usd_total", "{USD}"),
        ("anthropic_proxy_request_duration_seconds", "s"),
        ("gen_ai.client.token.usage", "{token}"),
        ("gen_ai.server.request.duration", "s"),
        ("gen_ai.server.time_to_first_token", "s"),
        ("anthropic_proxy_build_info", ""),
    ] {
        assert_eq!(by_name(name).unit, unit, "{name}");
    }
    assert!(!messages.windows(6).any(|octets| octets == b"canary"));
    // a clock that is set back does not make a sum end before it begins
    let later = SystemTime::now() + Duration::from_secs(3600);
    let messages = metrics.messages(&gauges(), later);
    let decoded = ScopeMetrics::decode(&*messages).unwrap();
    assert!(decoded.metrics.iter().flat_map(self::sent).count() > 0);
}

/// A series whose bound is written as Rust writes numbers.
fn with_plain_bound(series: &str) -> String {
    let Some((before, rest)) = series.split_once("le=\"") else {
        return series.to_owned();
    };
    let (bound, after) = rest.split_once('"').unwrap();
    let bound: f64 = bound.parse().unwrap();
    format!("{before}le=\"{bound:?}\"{after}")
}

/// The samples of a metric, named as Prometheus names them.
fn sent(metric: &Metric) -> Vec<(String, f64)> {
    let name = metric.name.replace('.', "_");
    let is_named = metric.unit != "s" || name.contains("_seconds");
    let name = format!("{name}{}", if is_named { "" } else { "_seconds" });
    assert!(!metric.description.is_empty());
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => {
            let points = gauge.data_points.iter();
            let points = points.map(|point| {
                assert_eq!(point.start_time_unix_nano, 0);
                (series(&name, &point.attributes, &[]), number(point.value))
            });
            points.collect()
        }
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
            let points = sum.data_points.iter().map(|point| {
                assert!(point.start_time_unix_nano > 0);
                assert!(point.time_unix_nano >= point.start_time_unix_nano);
                (series(&name, &point.attributes, &[]), number(point.value))
            });
            points.collect()
        }
        Data::Histogram(histogram) => {
            assert_eq!(histogram.aggregation_temporality, CUMULATIVE);
            let points = histogram.data_points.iter().flat_map(|point| {
                assert!(point.start_time_unix_nano > 0);
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                let own = |suffix: &str| series(&format!("{name}{suffix}"), &point.attributes, &[]);
                let mut samples = vec![
                    (own("_sum"), point.sum.unwrap()),
                    (own("_count"), point.count as f64),
                ];
                let bounds = point.explicit_bounds.iter().copied();
                let mut sum = 0;
                for (count, upper) in point
                    .bucket_counts
                    .iter()
                    .zip(bounds.chain([f64::INFINITY]))
                {
                    sum += count;
                    let le = [("le", format!("{upper:?}"))];
                    let bucket = series(&format!("{name}_bucket"), &point.attributes, &le);
                    samples.push((bucket, sum as f64));
                }
                assert_eq!(sum, point.count);
                samples
            });
            points.collect()
        }
        other => panic!("{other:?}"),
    }
}

fn number(value: Option<Value>) -> f64 {
    match value.unwrap() {
        Value::AsDouble(number) => number,
        Value::AsInt(number) => number as f64,
    }
}

fn series(name: &str, attributes: &[KeyValue], further: &[(&str, String)]) -> String {
    let mut labels: Vec<String> = Vec::new();
    let mut add = |key: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        let value = value.replace('\n', "\\n");
        labels.push(format!("{}=\"{value}\"", key.replace('.', "_")));
    };
    for (key, value) in further {
        add(key, value);
    }
    for KeyValue { key, value, .. } in attributes {
        let Some(any_value::Value::StringValue(value)) = value.clone().unwrap().value else {
            panic!("{key} is no text")
        };
        add(key, &value);
    }
    match labels.is_empty() {
        true => name.to_owned(),
        false => format!("{name}{{{}}}", labels.join(",")),
    }
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i32 = 2;
