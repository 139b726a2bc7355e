//! The format of an exposition, by the `Accept` field of the client.

/// A format in which metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, which every collector reads.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for an `Accept` field (RFC 9110 §12.5.1): OpenMetrics where it is named, and not less
    /// wanted than plain text; a wildcard does not name it.
    pub fn of(accept: &[u8]) -> Self {
        let (mut open_metrics, mut text) = (0, 0);
        for range in accept.split(|&octet| octet == b',') {
            let mut parts = range.split(|&octet| octet == b';').map(<[u8]>::trim_ascii);
            let media_type = parts.next().unwrap_or_default();
            let mut quality = 1000;
            let mut version: &[u8] = b"";
            for (name, value) in parts.filter_map(parameter) {
                if name.eq_ignore_ascii_case(b"q") {
                    quality = thousandths(value);
                } else if name.eq_ignore_ascii_case(b"version") {
                    version = value;
                }
            }
            let (wanted, versions): (_, &[&[u8]]) =
                if media_type.eq_ignore_ascii_case(b"application/openmetrics-text") {
                    (&mut open_metrics, &[b"", b"1.0.0", b"0.0.1"])
                } else if media_type.eq_ignore_ascii_case(b"text/plain") {
                    (&mut text, &[b"", b"0.0.4"])
                } else {
                    continue;
                };
            if versions.contains(&version) {
                *wanted = quality.max(*wanted);
            }
        }
        if open_metrics > 0 && open_metrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

fn parameter(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = part.iter().position(|&octet| octet == b'=')?;
    let value = part[at + 1..].trim_ascii();
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let value = value.strip_suffix(b"\"").unwrap_or(value);
    Some((part[..at].trim_ascii(), value))
}

/// A quality (RFC 9110 §12.4.2) in thousandths; 0 where it cannot be read.
fn thousandths(value: &[u8]) -> u32 {
    let value = std::str::from_utf8(value).ok();
    let value = value.and_then(|value| value.parse::<f32>().ok());
    value.map_or(0, |value| (value.clamp(0.0, 1.0) * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_given_where_it_is_asked_for() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                            version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
                            escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus_2, Format::OpenMetrics),
            (prometheus_3, Format::OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"",
                Format::OpenMetrics,
            ),
            (
                "text/plain, application/openmetrics-text",
                Format::OpenMetrics,
            ),
            ("", Format::Text),
            ("*/*", Format::Text),
            ("application/*", Format::Text),
            ("text/html,application/xml;q=0.9,*/*;q=0.8", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            (
                "application/openmetrics-text;q=0.3,text/plain;q=0.5",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
        ] {
            assert_eq!(Format::of(accept.as_bytes()), expected, "{accept}");
        }
    }
}
