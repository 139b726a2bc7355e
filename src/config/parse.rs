//! From what was said to what is meant: the values of one load put together, every fault collected.
//!
//! A value is typed once, by its declaration; here it is checked beside others. It reads the headers file,
//! the prices, the certificates and the password of STATE_URL, and opens nothing else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use rustls::pki_types::CertificateDer;

use super::{
    endpoint::{Credential, Endpoint},
    env::{self, Settings},
    error::{ConfigError, ConfigErrors},
    forward_auth::ForwardAuth,
    headers::{self, CustomFields},
    identity,
    loaded::Loaded,
    memory::MemoryLimits,
    merge::MergedSettings,
    model::{
        AccessLogSettings, AccessLogTarget, AccessSettings, Boot, CacheWarningSettings, Config,
        Edit, Listen, Live, Timers, is_credential,
    },
    options::EditMode,
    origin::Origin,
    prices::Prices,
    read,
    route::OutboundRoute,
    scalar::InvalidValue,
};
use crate::secret::{Secrets, shape};

mod access;
mod alerts;
mod budgets;
mod listeners;
mod otlp;
mod reader;
mod sign_in;
mod state;
mod upstreams;
mod zone;

use self::reader::Reader;

/// The configuration, or every fault of `merged` and of the files it names.
pub(super) fn load(
    merged: MergedSettings,
    root: &Path,
    memory: MemoryLimits,
) -> Result<Loaded, ConfigErrors> {
    let mut reader = Reader { merged };
    let settings = reader.settings();
    let mut config = settings.map(|settings| reader.config(settings, root));
    if let Some(config) = config.as_mut().filter(|_| reader.merged.faults.is_empty()) {
        reader.bound_memory(config, memory);
        reader.remark_metrics(config);
    }
    let MergedSettings {
        env_facts,
        settings,
        mut faults,
        warnings,
        ..
    } = reader.merged;
    match config {
        Some(config) if faults.is_empty() => Ok(Loaded {
            config,
            warnings,
            settings,
            env_file: env_facts,
        }),
        _ => {
            faults.sort_by_key(|fault| {
                let of =
                    |variable: &env::Variable| Some(variable.name) == fault.variable.as_deref();
                env::table().iter().position(of)
            });
            Err(ConfigErrors { faults, warnings })
        }
    }
}

/// Only where to listen; faults of other variables do not matter.
pub(super) fn listen(merged: MergedSettings) -> Result<Listen, ConfigErrors> {
    part(merged, &["HOST", "PORT", "TLS_PORT"], |reader, settings| {
        reader.listen(settings, Path::new(""))
    })
}

/// Only the server's own certificate; faults of other variables do not matter.
pub(super) fn certificate(
    merged: MergedSettings,
    root: &Path,
) -> Result<Option<CertificateDer<'static>>, ConfigErrors> {
    part(merged, &["TLS_CERT_FILE"], |reader, settings| {
        let path = settings.tls_cert_file.as_deref();
        let chain = reader.opened("TLS_CERT_FILE", path, root, identity::chain);
        chain.and_then(|chain| chain.into_iter().next())
    })
}

/// Only the directory of keys and their settings; faults of other variables do not matter.
pub(super) fn access(
    merged: MergedSettings,
    root: &Path,
) -> Result<(Option<PathBuf>, AccessSettings), ConfigErrors> {
    part(
        merged,
        &[
            "DATA_DIR",
            "ACCESS",
            "ACCESS_PEPPER",
            "STATE_URL",
            "STATE_PASSWORD_FILE",
            "STATE_CA_FILE",
            "STATE_CERT_FILE",
            "STATE_KEY_FILE",
            "STATE_PREFIX",
        ],
        |reader, settings| {
            let data_dir = settings.data_dir.as_ref().map(|path| root.join(path));
            (data_dir, reader.access(settings, root))
        },
    )
}

/// Only the prices; faults of other variables do not matter.
pub(super) fn prices_alone(merged: MergedSettings, root: &Path) -> Result<Prices, ConfigErrors> {
    part(merged, &["PRICES_FILE"], |reader, settings| {
        let path = settings.prices_file.as_deref();
        reader
            .opened("PRICES_FILE", path, root, prices)
            .unwrap_or_else(Prices::built_in)
    })
}

/// The part of a configuration that these variables alone make.
fn part<T>(
    merged: MergedSettings,
    names: &[&str],
    of: impl FnOnce(&mut Reader, &Settings) -> T,
) -> Result<T, ConfigErrors> {
    let mut reader = Reader {
        merged: MergedSettings {
            settings: merged.settings,
            ..MergedSettings::default()
        },
    };
    let settings = reader.settings();
    let part = settings.map(|settings| of(&mut reader, &settings));
    let MergedSettings {
        mut faults,
        warnings,
        ..
    } = reader.merged;
    faults.retain(|fault| {
        fault
            .variable
            .as_deref()
            .is_none_or(|it| names.contains(&it))
    });
    match part {
        Some(part) if faults.is_empty() => Ok(part),
        _ => Err(ConfigErrors { faults, warnings }),
    }
}

impl Reader {
    /// The configuration; it counts only if no fault was noted.
    fn config(&mut self, settings: Settings, root: &Path) -> Config {
        self.compare_sizes(
            ("MAX_REPLAY_BODY", settings.max_replay_body),
            ("REPLAY_MEMORY", settings.replay_memory),
        );
        self.compare_sizes(
            ("MAX_EDIT_BODY", settings.max_edit_body),
            ("EDIT_MEMORY", settings.edit_memory),
        );
        let listen = self.listen(&settings, root);
        let tls = self.identity(&settings, root);
        let endpoints = self.endpoints(&settings);
        let headers_file = root.join(&settings.headers_file);
        let CustomFields { set, removed } = self.custom_fields(&headers_file);
        let prices = self.opened("PRICES_FILE", settings.prices_file.as_deref(), root, prices);
        let upstream_ca_file = settings.upstream_ca_file.as_deref();
        let upstream_ca_file = self.opened("UPSTREAM_CA_FILE", upstream_ca_file, root, ca_file);
        let access = self.access(&settings, root);
        let cache_warnings = self.cache_warnings(&settings);
        let alerts = self.alerts(&settings);
        let traces = otlp::traces(&settings);
        let sent_metrics = otlp::metrics(&settings);
        self.check_sign_in(&settings);
        let access_log = match settings.access_log.trim() {
            "off" => None,
            "stdout" => Some(AccessLogTarget::Stdout),
            path => Some(AccessLogTarget::File(root.join(path))),
        };
        Config {
            boot: Boot {
                zone: self.zone(&settings),
                listen,
                workers: settings.workers,
                max_connections: settings.max_connections.get(),
                log_format: settings.log_format,
                log_filter: settings.rust_log,
                upstream_ca_file,
                drain_delay: settings.drain_delay,
                shutdown_timeout: settings.shutdown_timeout,
                edit_memory: settings.edit_memory,
                replay_memory: settings.replay_memory,
                memory_limit: None,
                access_log: access_log.map(|target| AccessLogSettings {
                    target,
                    max_size: settings.access_log_max_size,
                    keep: settings.access_log_keep.get(),
                }),
                dashboard: settings.enable_dashboard && settings.admin_listen.is_none(),
                admin_listen: settings.admin_listen,
                data_dir: settings.data_dir.map(|path| root.join(path)),
                access,
                cache_warnings,
                alerts,
                traces,
                sent_metrics,
                env_file: self.merged.env_file.clone(),
                headers_file,
            },
            live: Live {
                secrets: Arc::new(secrets(&endpoints, &set)),
                adds_credential: adds_credential(&endpoints, &set),
                allowed_origins: settings.allowed_origins.unwrap_or_default(),
                endpoints: endpoints.into(),
                failover_status: settings.failover_status,
                max_replay_body: settings.max_replay_body,
                metering: settings.metering,
                prices: Arc::new(prices.unwrap_or_else(Prices::built_in)),
                metrics_public: settings.metrics_public,
                dashboard_key: settings.dashboard_api_key,
                operator_key: settings.dashboard_operator_key,
                viewer_key: settings.dashboard_viewer_key,
                forward_auth: Arc::new(ForwardAuth {
                    proxies: settings.admin_trusted_proxies.unwrap_or_default(),
                    user: settings.admin_user_header,
                    groups: settings.admin_groups_header,
                    roles: settings.admin_roles,
                }),
                tls,
                h2c: settings.h2c,
                edit: settings.system_prompt_replacement.map(|text| Edit {
                    replacement: json_string(&text),
                    mode: match settings.system_prompt_block_insert_if_not_exist {
                        true => EditMode::InsertIfAbsent,
                        false => EditMode::Replace,
                    },
                    target: settings.system_prompt_target,
                    max_body: settings.max_edit_body,
                }),
                max_held_body: settings.max_edit_body,
                custom_fields: set,
                removed_fields: removed,
                forwarded: settings.forwarded_headers,
                preserve_host: settings.preserve_host,
                timers: Timers {
                    request_head: settings.request_head_timeout,
                    request_body: settings.request_body_timeout,
                    write: settings.write_timeout,
                    keep_alive: settings.keep_alive,
                    upstream_keep_alive: settings.upstream_keep_alive,
                    upstream_max_age: settings.upstream_max_age,
                    connect: settings.upstream_connect_timeout,
                    response_head: settings.upstream_timeout,
                    generation: settings.generation_timeout,
                    stream_idle: settings.stream_idle_timeout,
                    tunnel_idle: settings.tunnel_idle_timeout,
                },
                max_in_flight: settings.max_in_flight.get(),
                debug: settings.debug_mode,
                verify: settings.verify,
            },
        }
    }

    fn cache_warnings(&mut self, settings: &Settings) -> Option<CacheWarningSettings> {
        let webhook = settings.cache_break_webhook.clone()?;
        if !settings.metering
            && let Some(setting) = self.merged.setting("CACHE_BREAK_WEBHOOK")
        {
            let origin = setting.origin.clone();
            let message = "is told nothing, since METERING is off and cache reads are not known";
            self.merged
                .warn("CACHE_BREAK_WEBHOOK", origin, message.to_owned());
        }
        Some(CacheWarningSettings {
            webhook,
            rate: settings.cache_break_rate,
        })
    }

    fn custom_fields(&mut self, path: &Path) -> CustomFields {
        let setting = self.merged.setting("HEADERS_FILE");
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        let is_named = origin != Origin::Default;
        let parsed = match read::text(path) {
            Ok(text) => headers::parse(&text, path, &mut self.merged.warnings),
            Err(read::ReadError::Missing) if !is_named => Ok(CustomFields::default()),
            Err(error) => Err(vec![ConfigError {
                variable: Some("HEADERS_FILE".to_owned()),
                found: Some(format!("`{}`", path.display())),
                fix: is_named.then(|| "create it with {}, or unset HEADERS_FILE".to_owned()),
                ..ConfigError::at(origin, error.to_string(), "a readable JSON file")
            }]),
        };
        parsed.unwrap_or_else(|faults| {
            self.merged.faults.extend(faults);
            CustomFields::default()
        })
    }

    /// Warns of metrics that the network can read.
    fn remark_metrics(&mut self, config: &Config) {
        let listen = &config.boot.listen;
        let mut addresses = listen.plain.iter().chain(&listen.tls);
        let Some(public) = addresses.find(|address| !address.ip().is_loopback()) else {
            return;
        };
        if !config.live.metrics_public || config.boot.admin_listen.is_some() {
            return;
        }
        let Some(setting) = self.merged.setting("METRICS_PUBLIC") else {
            return;
        };
        let origin = setting.origin.clone();
        let message = format!(
            "every client that reaches {public} can read the metrics, with models, upstreams and what they cost; \
             ADMIN_LISTEN gives them a listener of their own"
        );
        self.merged.warn("METRICS_PUBLIC", origin, message);
    }
}

/// The credentials that requests are given, and those of the ways to the upstreams.
fn secrets(endpoints: &[Endpoint], fields: &[(HeaderName, HeaderValue)]) -> Secrets {
    let mut secrets = Secrets::default();
    for endpoint in endpoints {
        if let Some(Credential { name, value }) = &endpoint.credential {
            secrets.add_field(name.as_str().as_bytes(), value.as_bytes());
        }
        let (OutboundRoute::HttpProxy(proxy) | OutboundRoute::Socks5 { proxy, .. }) =
            &endpoint.route
        else {
            continue;
        };
        if let Some((user, password)) = &proxy.credentials {
            secrets.add_login(user, password);
        }
    }
    for endpoint in endpoints {
        shape::hidden(&endpoint.upstream.prefix).for_each(|part| secrets.add(part));
    }
    for (name, value) in fields {
        secrets.add_field(name.as_str().as_bytes(), value.as_bytes());
    }
    secrets
}

/// Reports that requests get a credential of the operator's.
fn adds_credential(endpoints: &[Endpoint], fields: &[(HeaderName, HeaderValue)]) -> bool {
    endpoints.iter().any(Endpoint::has_credential) || fields.iter().any(is_credential)
}

fn prices(path: &Path) -> Result<Prices, InvalidValue> {
    Prices::parse(&read::text(path)?)
}

/// Checks that a file holds a certificate.
fn ca_file(path: &Path) -> Result<PathBuf, InvalidValue> {
    match read::pem(path)?.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(path.to_owned()),
        false => Err(InvalidValue::because("contains no certificate in PEM")),
    }
}

fn json_string(text: &str) -> Bytes {
    // A `Value` of a string always serialises.
    Bytes::from(serde_json::Value::from(text).to_string())
}

#[cfg(test)]
mod tests;
