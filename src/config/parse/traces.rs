//! Traces: one receiver of several variables, or none.

use super::reader::Reader;
use crate::{
    config::{env::Settings, traces::TraceSettings},
    secret::Secret,
};

impl Reader {
    /// The receiver of traces, if one is named and they are not switched off.
    pub(super) fn traces(&mut self, settings: &Settings) -> Option<TraceSettings> {
        let base = settings.otel_exporter_otlp_endpoint.as_ref();
        let endpoint = match (&settings.otel_exporter_otlp_traces_endpoint, base) {
            _ if settings.otel_sdk_disabled => return None,
            (Some(endpoint), _) => endpoint.clone(),
            (None, Some(base)) => {
                let base = base.expose().trim_end_matches('/');
                Secret::new(&format!("{base}/v1/traces"))
            }
            (None, None) => return None,
        };
        let host = host(endpoint.expose()).to_owned();
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
        Some(TraceSettings {
            endpoint,
            host,
            fields: settings
                .otel_exporter_otlp_headers
                .clone()
                .unwrap_or_default(),
            resource,
            sampler: settings
                .otel_traces_sampler
                .with(settings.otel_traces_sampler_arg),
        })
    }
}

const SERVICE: &str = "service.name";

/// The host of a URL, and its port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn the_host_has_no_login() {
        assert_eq!(
            host("https://u:p@otel.test:4318/v1/traces?x"),
            "otel.test:4318"
        );
        assert_eq!(host("http://otel.test"), "otel.test");
    }
}
