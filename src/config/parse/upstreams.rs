//! The upstreams with their routes and credentials.

use std::sync::Arc;

use super::reader::Reader;
use crate::config::{
    endpoint::{self, Endpoint},
    env::{self, RawSettings},
    error::{ConfigError, Warning},
    origin::Origin,
    route::{self, OutboundRoute},
    scalar::InvalidValue,
    upstream::{self, Upstream},
};

impl Reader {
    /// Every upstream with its road and its credential.
    pub(super) fn endpoints(&mut self, raw: &RawSettings) -> Option<Arc<[Endpoint]>> {
        let first = self.read("API_BASE_URL", &raw.api_base_url, upstream::parse);
        let list = self.read("API_BASE_URLS", &raw.api_base_urls, endpoint::urls);
        let http = self.read(
            "UPSTREAM_HTTP_VERSION",
            &raw.upstream_http_version,
            endpoint::http_version,
        );
        let is_said = self
            .merged
            .setting("API_BASE_URL")
            .is_some_and(|setting| setting.origin != Origin::Default);
        let has_fault = (raw.api_base_url.is_some() && first.is_none())
            || (raw.api_base_urls.is_some() && list.is_none());
        let mut upstreams = list.unwrap_or_default();
        // the default stands in only where nothing was said; what stands first twice is meant once
        if let Some(first) = first
            && (upstreams.is_empty() || (is_said && upstreams.first() != Some(&first)))
        {
            upstreams.insert(0, first);
        }
        for upstream in &upstreams {
            self.remark_prefix(upstream);
        }
        let routes: Option<Vec<_>> = if upstreams.is_empty() {
            // so that the faults of the proxies' variables are found all the same
            self.route(raw, None).map(|_| Vec::new())
        } else {
            upstreams
                .iter()
                .map(|upstream| self.route(raw, Some(upstream)))
                .collect()
        };
        let count = upstreams.len();
        let credentials = self.read(
            "UPSTREAM_API_KEYS",
            &raw.upstream_api_keys,
            endpoint::credentials,
        );
        let credentials = match (credentials, &raw.upstream_api_keys) {
            (Some(credentials), _) if !has_fault && credentials.len() != count => {
                let bad = InvalidValue::because(format!(
                    "has {}, not {count}: one for each upstream",
                    entries(credentials.len())
                ))
                .hint("an empty entry passes the client's credential on");
                self.fault("UPSTREAM_API_KEYS", bad);
                None
            }
            (Some(credentials), _) => Some(credentials),
            (None, None) => Some(vec![None; count]),
            (None, Some(_)) => None,
        };
        let (routes, credentials, http) = (routes?, credentials?, http?);
        if has_fault {
            return None;
        }
        let names = endpoint::names(&upstreams);
        let endpoints = upstreams.into_iter().zip(routes).zip(credentials);
        Some(
            names
                .into_iter()
                .zip(endpoints)
                .map(|(name, ((upstream, route), credential))| Endpoint {
                    name,
                    upstream,
                    route,
                    http,
                    credential,
                })
                .collect(),
        )
    }

    /// The road to the upstream. A faulty upstream is replaced by the default's, so that the
    /// faults of the proxies' variables are found all the same.
    fn route(&mut self, raw: &RawSettings, upstream: Option<&Upstream>) -> Option<OutboundRoute> {
        let fallback = env::variable("API_BASE_URL")
            .and_then(|variable| upstream::parse(variable.default).ok());
        let upstream = upstream.or(fallback.as_ref())?;
        let lookup = |name: &str| match name {
            "HTTP_PROXY" => raw.http_proxy.clone(),
            "HTTPS_PROXY" => raw.https_proxy.clone(),
            "ALL_PROXY" => raw.all_proxy.clone(),
            "NO_PROXY" => raw.no_proxy.clone(),
            // The settings have chosen between the lower-case and the upper-case names already.
            _ => None,
        };
        match route::resolve(upstream, &lookup) {
            Ok(route) => Some(route),
            Err(bad) => {
                let origin = self.merged.setting(bad.variable).map(|s| s.origin.clone());
                self.merged.faults.push(ConfigError {
                    variable: Some(bad.variable.to_owned()),
                    origin: origin.unwrap_or(Origin::Default),
                    found: None,
                    problem: bad.message,
                    expected: bad.expected.into(),
                    fix: None,
                });
                None
            }
        }
    }

    /// Clients append `/v1/…` themselves.
    fn remark_prefix(&mut self, upstream: &Upstream) {
        if upstream.prefix.ends_with("/v1") || upstream.prefix.ends_with("/v1/messages") {
            let name = match self.merged.text("API_BASE_URLS") {
                Some(_) => "API_BASE_URLS",
                None => "API_BASE_URL",
            };
            let Some(setting) = self.merged.setting(name) else {
                return;
            };
            self.merged.warnings.push(Warning {
                variable: name.to_owned(),
                origin: setting.origin.clone(),
                message: "ends in /v1, and clients append /v1/messages themselves: \
                          requests will go to /v1/v1/messages"
                    .to_owned(),
            });
        }
    }
}

fn entries(count: usize) -> String {
    match count {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
}
