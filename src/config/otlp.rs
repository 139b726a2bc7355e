//! Settings of OTLP, by the names of OpenTelemetry: its receiver, and the metrics that are sent to it.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::scalar::{InvalidValue, choice};
use crate::secret::Secret;

/// A receiver of OTLP over HTTP, and what each request for it has.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpReceiver {
    /// URL that takes the requests.
    pub endpoint: Secret,
    /// Fields of the requests for it.
    pub fields: Vec<(String, Secret)>,
    /// Attributes of this program, `service.name` first.
    pub resource: Vec<(String, String)>,
    /// Longest request.
    pub timeout: Duration,
    /// Coding of the requests.
    pub compression: OtlpCompression,
}

/// Coding of requests with telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtlpCompression {
    /// They are sent as they are.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
}

/// Metrics that are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricSettings {
    /// Receiver of them.
    pub receiver: OtlpReceiver,
    /// Time between two requests.
    pub interval: Duration,
}

/// Destination of traces or metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TelemetryExporter {
    /// The receiver of OTLP.
    Otlp,
    /// None.
    None,
}

/// The destinations by their names, separated by commas: those that other programs have are none here.
pub(super) fn exporter(text: &str) -> Result<TelemetryExporter, InvalidValue> {
    let mut found = TelemetryExporter::None;
    for name in text.split(',') {
        let known = [
            ("otlp", TelemetryExporter::Otlp),
            ("none", TelemetryExporter::None),
            ("console", TelemetryExporter::None),
            ("prometheus", TelemetryExporter::None),
        ];
        if choice(name, &known)? == TelemetryExporter::Otlp {
            found = TelemetryExporter::Otlp;
        }
    }
    Ok(found)
}

/// The protocol: one alone is spoken.
pub(super) fn protocol(text: &str) -> Result<(), InvalidValue> {
    match text.trim() {
        "http/protobuf" => Ok(()),
        "grpc" | "http/json" => Err(InvalidValue::because("is not spoken here")
            .hint("set http/protobuf, and the receiver's port for it, which is 4318 as a rule")),
        _ => Err(InvalidValue::because("is no protocol of OTLP")),
    }
}

/// The coding of requests by its name.
pub(super) fn compression(text: &str) -> Result<OtlpCompression, InvalidValue> {
    choice(
        text,
        &[
            ("none", OtlpCompression::None),
            ("gzip", OtlpCompression::Gzip),
        ],
    )
}

/// A duration in milliseconds, as OpenTelemetry writes them.
pub(super) fn millis(text: &str) -> Result<Duration, InvalidValue> {
    match text.trim().parse::<u32>() {
        Ok(millis @ 1..=LONGEST_MILLIS) => Ok(Duration::from_millis(millis.into())),
        Ok(0) => Err(InvalidValue::because("is zero")),
        Ok(_) => Err(InvalidValue::because("is longer than a day")),
        Err(_) => {
            Err(InvalidValue::because("is no whole number of milliseconds").hint("10 s are 10000"))
        }
    }
}

/// A day.
const LONGEST_MILLIS: u32 = 24 * 3600 * 1000;

/// Pairs `name=value`, separated by commas; values may be percent-encoded.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, InvalidValue> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| InvalidValue::because("has a part without `=`"))?;
        let value = percent_decode_str(value.trim()).decode_utf8();
        let value = value.map_err(|_| InvalidValue::because("has a value that is no UTF-8"))?;
        match name.trim() {
            "" => Err(InvalidValue::because("has a part without a name")),
            name => Ok((name.to_owned(), value.into_owned())),
        }
    };
    parts.map(pair).collect()
}

/// Fields of requests: pairs whose values are secrets.
pub(super) fn fields(text: &str) -> Result<Vec<(String, Secret)>, InvalidValue> {
    use actix_web::http::header::{HeaderName, HeaderValue};
    let pairs = pairs(text)?.into_iter().map(|(name, value)| {
        let is_field = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(&value).is_ok();
        match is_field {
            true => Ok((name, Secret::new(&value))),
            false => Err(InvalidValue::because("has a part that is no field")),
        }
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let expected = [("a", "1"), ("b.c", "x y,=")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(pairs(" a=1, b.c=x%20y%2C= ,").unwrap(), expected);
        for text in ["a", "=b", "a=%ff"] {
            assert!(pairs(text).is_err(), "{text}");
        }
        assert!(fields("x y=1").is_err() && fields("x=a%0Ab").is_err());
        assert!(protocol("grpc").is_err() && protocol("http/protobuf").is_ok());
        assert_eq!(compression("gzip"), Ok(OtlpCompression::Gzip));
        assert!(compression("zstd").is_err() && compression("").is_err());
    }

    #[test]
    fn an_environment_for_other_programs_is_understood() {
        for (text, expected) in [
            ("otlp", TelemetryExporter::Otlp),
            ("none", TelemetryExporter::None),
            ("prometheus", TelemetryExporter::None),
            ("console, otlp", TelemetryExporter::Otlp),
        ] {
            assert_eq!(exporter(text).unwrap(), expected, "{text}");
        }
        assert!(exporter("").is_err() && exporter("otpl").is_err());
    }

    #[test]
    fn durations_are_milliseconds() {
        assert_eq!(millis(" 1500 ").unwrap(), Duration::from_millis(1500));
        for text in ["0", "-1", "1.5", "10s", "86400001", "99999999999", ""] {
            assert!(millis(text).is_err(), "{text}");
        }
    }
}
