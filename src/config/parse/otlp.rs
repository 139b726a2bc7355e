//! Traces and metrics by OTLP: for each a receiver of several variables, or none.

use std::time::Duration;

use crate::{
    config::{
        env::Settings,
        otlp::{MetricSettings, OtlpCompression, OtlpReceiver, TelemetryExporter},
        traces::TraceSettings,
    },
    secret::Secret,
};

/// Traces, if a receiver is named and they are not switched off.
pub(super) fn traces(settings: &Settings) -> Option<TraceSettings> {
    let own = OwnSettings {
        endpoint: settings.otel_exporter_otlp_traces_endpoint.as_ref(),
        fields: settings.otel_exporter_otlp_traces_headers.as_ref(),
        timeout: settings.otel_exporter_otlp_traces_timeout,
        compression: settings.otel_exporter_otlp_traces_compression,
    };
    let base = settings.otel_exporter_otlp_endpoint.as_ref();
    if settings.otel_traces_exporter == TelemetryExporter::None {
        return None;
    }
    Some(TraceSettings {
        receiver: receiver(settings, &own, base, "v1/traces")?,
        sampler: settings
            .otel_traces_sampler
            .with(settings.otel_traces_sampler_arg),
    })
}

/// Metrics, if they are asked for and not switched off.
pub(super) fn metrics(settings: &Settings) -> Option<MetricSettings> {
    let own = OwnSettings {
        endpoint: settings.otel_exporter_otlp_metrics_endpoint.as_ref(),
        fields: settings.otel_exporter_otlp_metrics_headers.as_ref(),
        timeout: settings.otel_exporter_otlp_metrics_timeout,
        compression: settings.otel_exporter_otlp_metrics_compression,
    };
    let base = settings.otel_exporter_otlp_endpoint.as_ref();
    let standard = Secret::new(STANDARD);
    let base = match settings.otel_metrics_exporter {
        Some(TelemetryExporter::Otlp) => base.or(Some(&standard)),
        Some(TelemetryExporter::None) => return None,
        // other programs send metrics to a receiver that is named for all; here it may be for traces alone
        None => None,
    };
    Some(MetricSettings {
        receiver: receiver(settings, &own, base, "v1/metrics")?,
        interval: settings.otel_metric_export_interval,
    })
}

/// Settings of one signal alone, each in the place of that of all.
struct OwnSettings<'a> {
    endpoint: Option<&'a Secret>,
    fields: Option<&'a Vec<(String, Secret)>>,
    timeout: Option<Duration>,
    compression: Option<OtlpCompression>,
}

/// The receiver with a URL of its own, else that at a path below the URL of all.
fn receiver(
    settings: &Settings,
    own: &OwnSettings<'_>,
    base: Option<&Secret>,
    path: &str,
) -> Option<OtlpReceiver> {
    if settings.otel_sdk_disabled {
        return None;
    }
    let endpoint = match own.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => Secret::new(&format!("{}/{path}", base?.expose().trim_end_matches('/'))),
    };
    let mut resource = settings
        .otel_resource_attributes
        .clone()
        .unwrap_or_default();
    // its own variable has precedence, and the default has none
    let named = resource.iter().position(|(name, _)| name == SERVICE);
    let named = named.map(|at| resource.remove(at).1);
    let name = settings.otel_service_name.clone().or(named);
    let name = name.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned());
    resource.insert(0, (SERVICE.to_owned(), name));
    Some(OtlpReceiver {
        endpoint,
        fields: own
            .fields
            .or(settings.otel_exporter_otlp_headers.as_ref())
            .cloned()
            .unwrap_or_default(),
        resource,
        timeout: own.timeout.unwrap_or(settings.otel_exporter_otlp_timeout),
        compression: own
            .compression
            .unwrap_or(settings.otel_exporter_otlp_compression),
    })
}

const SERVICE: &str = "service.name";

/// The receiver of a program that is told of none, by OpenTelemetry's rules.
const STANDARD: &str = "http://localhost:4318";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[(&str, &str)]) -> Settings {
        let texts = texts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut faults = Vec::new();
        let settings = Settings::read(texts, &mut |name, bad| faults.push((name, bad.problem)));
        assert!(faults.is_empty(), "{faults:?}");
        settings.unwrap()
    }

    /// URLs for traces and for metrics.
    fn endpoints(texts: &[(&str, &str)]) -> (Option<String>, Option<String>) {
        let settings = read(texts);
        let shown = |it: OtlpReceiver| it.endpoint.expose().to_owned();
        (
            traces(&settings).map(|it| shown(it.receiver)),
            metrics(&settings).map(|it| shown(it.receiver)),
        )
    }

    #[test]
    fn metrics_are_sent_if_asked_for() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a.test/x/");
        const OWN: (&str, &str) = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b.test/m?y");
        const ASKED: (&str, &str) = ("OTEL_METRICS_EXPORTER", "otlp");
        let some = |url: &str| Some(url.to_owned());
        let traced = some("http://a.test/x/v1/traces");
        for (texts, expected) in [
            (vec![], (None, None)),
            (vec![ALL], (traced.clone(), None)),
            (
                vec![ASKED],
                (None, some("http://localhost:4318/v1/metrics")),
            ),
            (
                vec![ALL, ASKED],
                (traced.clone(), some("http://a.test/x/v1/metrics")),
            ),
            (vec![OWN], (None, some("http://b.test/m?y"))),
            (
                vec![ALL, ASKED, OWN],
                (traced.clone(), some("http://b.test/m?y")),
            ),
            (
                vec![ALL, OWN, ("OTEL_METRICS_EXPORTER", "none")],
                (traced, None),
            ),
            (
                vec![ALL, ASKED, ("OTEL_TRACES_EXPORTER", "none")],
                (None, some("http://a.test/x/v1/metrics")),
            ),
            (vec![ALL, OWN, ("OTEL_SDK_DISABLED", "true")], (None, None)),
        ] {
            assert_eq!(endpoints(&texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_signal_has_its_own_settings_in_the_place_of_those_of_all() {
        let settings = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a.test"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=1,x=2"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=3"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "700"),
        ]);
        let (traces, metrics) = (traces(&settings).unwrap(), metrics(&settings).unwrap());
        let fields = |it: &OtlpReceiver| {
            let fields = it.fields.iter();
            let fields = fields.map(|(name, value)| format!("{name}={}", value.expose()));
            fields.collect::<Vec<_>>().join(",")
        };
        let (traces, metrics) = (traces.receiver, metrics.receiver);
        assert_eq!(fields(&traces), "api-key=3");
        assert_eq!(fields(&metrics), "api-key=1,x=2");
        assert_eq!(traces.compression, OtlpCompression::Gzip);
        assert_eq!(metrics.compression, OtlpCompression::None);
        assert_eq!(traces.timeout, Duration::from_secs(10));
        assert_eq!(metrics.timeout, Duration::from_millis(700));
    }
}
