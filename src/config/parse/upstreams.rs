//! The upstreams with their routes and credentials.

use super::reader::Reader;
use crate::config::{
    endpoint::{self, Endpoint},
    env::Settings,
    error::{ConfigError, Warning},
    origin::Origin,
    route::{self, OutboundRoute},
    scalar::InvalidValue,
    upstream::Upstream,
};

impl Reader {
    /// Every upstream with its road and its credential.
    pub(super) fn endpoints(&mut self, settings: &Settings) -> Vec<Endpoint> {
        let first = &settings.api_base_url;
        let is_said = self
            .merged
            .setting("API_BASE_URL")
            .is_some_and(|setting| setting.origin != Origin::Default);
        let mut upstreams = settings.api_base_urls.clone().unwrap_or_default();
        // the default stands in only where nothing was said; what stands first twice is meant once
        if upstreams.is_empty() && !is_said {
            self.remark_default(first);
        }
        if upstreams.is_empty() || (is_said && upstreams.first() != Some(first)) {
            upstreams.insert(0, first.clone());
        }
        let count = upstreams.len();
        let credentials = match &settings.upstream_api_keys {
            Some(credentials) => credentials.clone(),
            None => vec![None; count],
        };
        let names = ["API_BASE_URL", "API_BASE_URLS"];
        if credentials.len() != count && !names.iter().any(|name| self.is_faulty(name)) {
            let bad = InvalidValue::because(format!(
                "has {}, not {count}: one for each upstream",
                entries(credentials.len())
            ))
            .hint("an empty entry passes the client's credential on");
            self.fault("UPSTREAM_API_KEYS", bad);
        }
        let names = endpoint::names(&upstreams);
        let mut endpoints = Vec::with_capacity(count);
        for ((name, upstream), credential) in names.into_iter().zip(upstreams).zip(credentials) {
            self.remark_prefix(&upstream);
            endpoints.extend(self.route(settings, &upstream).map(|route| Endpoint {
                name,
                upstream,
                route,
                http: settings.upstream_http_version,
                credential,
            }));
        }
        endpoints
    }

    /// The road to the upstream, or none with a fault noted.
    fn route(&mut self, settings: &Settings, upstream: &Upstream) -> Option<OutboundRoute> {
        let lookup = |name: &str| match name {
            "HTTP_PROXY" => settings.http_proxy.clone(),
            "HTTPS_PROXY" => settings.https_proxy.clone(),
            "ALL_PROXY" => settings.all_proxy.clone(),
            "NO_PROXY" => settings.no_proxy.clone(),
            // The settings have chosen between the lower-case and the upper-case names already.
            _ => None,
        };
        let route = route::resolve(upstream, &lookup);
        let noted = route.map_err(|bad| {
            let setting = self.merged.setting(bad.variable);
            let fault = ConfigError {
                variable: Some(bad.variable.to_owned()),
                ..ConfigError::at(
                    setting.map_or(Origin::Default, |setting| setting.origin.clone()),
                    bad.message,
                    bad.expected,
                )
            };
            // several upstreams may have one proxy
            if !self.merged.faults.contains(&fault) {
                self.merged.faults.push(fault);
            }
        });
        noted.ok()
    }

    /// The default upstream gets the keys of all clients: a third party runs it.
    fn remark_default(&mut self, upstream: &Upstream) {
        // one that was named and is at fault is told as such
        if ["API_BASE_URL", "API_BASE_URLS"]
            .iter()
            .any(|name| self.is_faulty(name))
        {
            return;
        }
        let message = format!(
            "no upstream is named, so requests go to the default one, {upstream}, with the keys of clients in them; \
             set API_BASE_URL to the upstream that is meant, be it this one"
        );
        self.merged.warn("API_BASE_URL", Origin::Default, message);
    }

    /// Clients append `/v1/…` themselves.
    fn remark_prefix(&mut self, upstream: &Upstream) {
        let ends = ["/v1", "/v1/messages"];
        let end = ends.into_iter().find(|end| upstream.prefix.ends_with(end));
        if let Some(end) = end {
            let name = match self.merged.text("API_BASE_URLS") {
                Some(_) => "API_BASE_URLS",
                None => "API_BASE_URL",
            };
            let Some(setting) = self.merged.setting(name) else {
                return;
            };
            let origin = setting.origin.clone();
            let mut base = upstream.clone();
            base.prefix.truncate(base.prefix.len() - end.len());
            let message = format!(
                "ends in {end}, and clients append /v1/messages themselves: requests will go to {upstream}/v1/messages"
            );
            let warning = Warning::of(name, origin, message);
            let fix = format!("leave out {end}: {base}");
            self.merged.warnings.push(warning.with_fix(fix));
        }
    }
}

fn entries(count: usize) -> String {
    match count {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
}
