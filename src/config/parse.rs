//! From what was said to what is meant: every value typed, every fault collected.
//!
//! A value is parsed once, here; defaults go through the same parsers as anything else. It reads
//! the headers file and checks the CA file, and opens nothing else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use rustls::pki_types::CertificateDer;

use super::{
    duration,
    endpoint::{self, Credential, Endpoint},
    env::RawSettings,
    error::{ConfigError, ConfigErrors, Warning},
    headers::{self, CustomFields},
    identity,
    loaded::Loaded,
    memory::MemoryLimits,
    merge::MergedSettings,
    model::{AccessLogSettings, AccessLogTarget, Boot, Config, Edit, Listen, Live, Timers},
    options::EditMode,
    origin::Origin,
    origins::{self, AllowedOrigins},
    prices::Prices,
    read,
    route::OutboundRoute,
    scalar::{self, InvalidValue},
    size,
};
use crate::secret::{Secrets, names_credential, shape};

mod budgets;
mod listeners;
mod reader;
mod upstreams;

use self::reader::Reader;

/// The configuration, or every fault of `merged` and of the files it names.
pub(super) fn load(
    merged: MergedSettings,
    root: &Path,
    memory: MemoryLimits,
) -> Result<Loaded, ConfigErrors> {
    let mut reader = Reader { merged };
    let mut config = reader.raw().and_then(|raw| reader.config(&raw, root));
    if let Some(config) = &mut config {
        reader.bound_memory(config, memory);
        reader.remark_metrics(config);
    }
    let MergedSettings {
        env_facts,
        settings,
        faults,
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
        _ => Err(ConfigErrors { faults, warnings }),
    }
}

/// Only where to listen; faults of other variables do not matter.
pub(super) fn listen(merged: &MergedSettings) -> Result<Listen, ConfigErrors> {
    let settings = merged.settings.clone();
    let mut reader = Reader {
        merged: MergedSettings {
            settings,
            ..MergedSettings::default()
        },
    };
    let listen = reader
        .raw()
        .and_then(|raw| reader.listen(&raw, Path::new("")));
    let MergedSettings {
        faults, warnings, ..
    } = reader.merged;
    listen.ok_or(ConfigErrors { faults, warnings })
}

/// Only the server's own certificate; faults of other variables do not matter.
pub(super) fn certificate(
    merged: &MergedSettings,
    root: &Path,
) -> Result<Option<CertificateDer<'static>>, ConfigErrors> {
    let settings = merged.settings.clone();
    let mut reader = Reader {
        merged: MergedSettings {
            settings,
            ..MergedSettings::default()
        },
    };
    let path = merged.text("TLS_CERT_FILE").map(ToOwned::to_owned);
    let chain = reader.read("TLS_CERT_FILE", &path, |path| {
        identity::chain(&root.join(path))
    });
    let MergedSettings {
        faults, warnings, ..
    } = reader.merged;
    match faults.is_empty() {
        true => Ok(chain.and_then(|chain| chain.into_iter().next())),
        false => Err(ConfigErrors { faults, warnings }),
    }
}

impl Reader {
    fn config(&mut self, raw: &RawSettings, root: &Path) -> Option<Config> {
        let endpoints = self.endpoints(raw);
        let failover_status =
            self.read("FAILOVER_STATUS", &raw.failover_status, endpoint::statuses);
        let max_replay_body = self.read("MAX_REPLAY_BODY", &raw.max_replay_body, size::octets);
        let replay_memory = self.read("REPLAY_MEMORY", &raw.replay_memory, size::octets);
        self.compare_sizes(
            ("MAX_REPLAY_BODY", max_replay_body),
            ("REPLAY_MEMORY", replay_memory),
        );
        let preserve_host = self.read("PRESERVE_HOST", &raw.preserve_host, scalar::flag);
        let forwarded = self.read(
            "FORWARDED_HEADERS",
            &raw.forwarded_headers,
            scalar::forwarded_fields,
        );
        let headers_file = root.join(raw.headers_file.as_deref().unwrap_or_default());
        let custom_fields = self.custom_fields(&headers_file);
        let allowed_origins = match &raw.allowed_origins {
            Some(_) => self.read("ALLOWED_ORIGINS", &raw.allowed_origins, origins::parse),
            None => Some(AllowedOrigins::default()),
        };

        let insert = self.read(
            "SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST",
            &raw.system_prompt_block_insert_if_not_exist,
            scalar::flag,
        );
        let target = self.read(
            "SYSTEM_PROMPT_TARGET",
            &raw.system_prompt_target,
            scalar::edit_target,
        );
        let prompt = self.read(
            "SYSTEM_PROMPT_REPLACEMENT",
            &raw.system_prompt_replacement,
            |text| scalar::prompt(text).map(str::to_owned),
        );
        let max_body = self.read("MAX_EDIT_BODY", &raw.max_edit_body, size::octets);
        let edit_memory = self.read("EDIT_MEMORY", &raw.edit_memory, size::octets);
        self.compare_sizes(("MAX_EDIT_BODY", max_body), ("EDIT_MEMORY", edit_memory));

        let listen = self.listen(raw, root);
        let tls = self.identity(raw, root);
        let h2c = self.read("H2C", &raw.h2c, scalar::flag);
        let workers = self.read("WORKERS", &raw.workers, scalar::workers);
        let drain_delay = self.read("DRAIN_DELAY", &raw.drain_delay, duration::any);
        let shutdown = self.read("SHUTDOWN_TIMEOUT", &raw.shutdown_timeout, duration::any);
        let max_connections = self.read("MAX_CONNECTIONS", &raw.max_connections, scalar::count);
        let max_in_flight = self.read("MAX_IN_FLIGHT", &raw.max_in_flight, scalar::count);
        let timers = self.timers(raw);

        let log_format = self.read("LOG_FORMAT", &raw.log_format, scalar::log_format);
        let debug = self.read("DEBUG_MODE", &raw.debug_mode, scalar::flag);
        let log_filter = self.read("RUST_LOG", &raw.rust_log, scalar::log_filter);
        let upstream_ca_file = self.read("UPSTREAM_CA_FILE", &raw.upstream_ca_file, |path| {
            ca_file(&root.join(path))
        });

        let access_log = self.access_log(raw, root);
        let metering = self.read("METERING", &raw.metering, scalar::flag);
        let prices = match &raw.prices_file {
            Some(path) => self.prices(&root.join(path)),
            None => Some(Prices::built_in()),
        };
        let metrics_public = self.read("METRICS_PUBLIC", &raw.metrics_public, scalar::flag);
        let dashboard = self.read("ENABLE_DASHBOARD", &raw.enable_dashboard, scalar::flag);
        let dashboard_key = self.read("DASHBOARD_API_KEY", &raw.dashboard_api_key, scalar::key);
        let admin_listen = self.read("ADMIN_LISTEN", &raw.admin_listen, scalar::socket_address);
        let data_dir = raw.data_dir.as_ref().map(|path| root.join(path));

        let edit = match prompt {
            Some(text) => Some(Edit {
                replacement: json_string(&text),
                mode: if insert? {
                    EditMode::InsertIfAbsent
                } else {
                    EditMode::Replace
                },
                target: target?,
                max_body: max_body?,
            }),
            None => None,
        };
        let CustomFields { set, removed } = custom_fields?;
        Some(Config {
            boot: Boot {
                listen: listen?,
                workers: workers?,
                max_connections: max_connections?.get(),
                log_format: log_format?,
                log_filter,
                upstream_ca_file,
                drain_delay: drain_delay?,
                shutdown_timeout: shutdown?,
                edit_memory: edit_memory?,
                replay_memory: replay_memory?,
                memory_limit: None,
                access_log: access_log?,
                dashboard: dashboard? && admin_listen.is_none(),
                admin_listen,
                data_dir,
                env_file: self.merged.env_file.clone(),
                headers_file,
            },
            live: Live {
                secrets: secrets(endpoints.as_ref()?, &set),
                adds_credential: adds_credential(endpoints.as_ref()?, &set),
                allowed_origins: allowed_origins?,
                endpoints: endpoints?,
                failover_status: failover_status?,
                max_replay_body: max_replay_body?,
                metering: metering?,
                prices: Arc::new(prices?),
                metrics_public: metrics_public?,
                dashboard_key,
                tls,
                h2c: h2c?,
                edit,
                custom_fields: set,
                removed_fields: removed,
                forwarded: forwarded?,
                preserve_host: preserve_host?,
                timers: timers?,
                max_in_flight: max_in_flight?.get(),
                debug: debug?,
            },
        })
    }

    /// The access log, or none where it is off; no value at all where there is a fault.
    fn access_log(&mut self, raw: &RawSettings, root: &Path) -> Option<Option<AccessLogSettings>> {
        let max_size = self.read(
            "ACCESS_LOG_MAX_SIZE",
            &raw.access_log_max_size,
            size::octets,
        );
        let keep = self.read("ACCESS_LOG_KEEP", &raw.access_log_keep, scalar::count);
        let (max_size, keep) = (max_size?, keep?.get());
        let target = match raw.access_log.as_deref()?.trim() {
            "off" => return Some(None),
            "stdout" => AccessLogTarget::Stdout,
            path => AccessLogTarget::File(root.join(path)),
        };
        Some(Some(AccessLogSettings {
            target,
            max_size,
            keep,
        }))
    }

    fn prices(&mut self, path: &Path) -> Option<Prices> {
        let parsed = read::text(path)
            .map_err(|error| InvalidValue::because(error.to_string()))
            .and_then(|text| Prices::parse(&text));
        match parsed {
            Ok(prices) => Some(prices),
            Err(bad) => {
                self.fault("PRICES_FILE", bad);
                None
            }
        }
    }

    fn timers(&mut self, raw: &RawSettings) -> Option<Timers> {
        let mut timer = |name, text| self.read(name, text, duration::timer);
        let request_head = timer("REQUEST_HEAD_TIMEOUT", &raw.request_head_timeout);
        let request_body = timer("REQUEST_BODY_TIMEOUT", &raw.request_body_timeout);
        let write = timer("WRITE_TIMEOUT", &raw.write_timeout);
        let keep_alive = timer("KEEP_ALIVE", &raw.keep_alive);
        let upstream_keep_alive = timer("UPSTREAM_KEEP_ALIVE", &raw.upstream_keep_alive);
        let upstream_max_age = timer("UPSTREAM_MAX_AGE", &raw.upstream_max_age);
        let connect = timer("UPSTREAM_CONNECT_TIMEOUT", &raw.upstream_connect_timeout);
        let response_head = timer("UPSTREAM_TIMEOUT", &raw.upstream_timeout);
        let generation = timer("GENERATION_TIMEOUT", &raw.generation_timeout);
        let stream_idle = timer("STREAM_IDLE_TIMEOUT", &raw.stream_idle_timeout);
        let tunnel_idle = timer("TUNNEL_IDLE_TIMEOUT", &raw.tunnel_idle_timeout);
        Some(Timers {
            request_head: request_head?,
            request_body: request_body?,
            write: write?,
            keep_alive: keep_alive?,
            upstream_keep_alive: upstream_keep_alive?,
            upstream_max_age: upstream_max_age?,
            connect: connect?,
            response_head: response_head?,
            generation: generation?,
            stream_idle: stream_idle?,
            tunnel_idle: tunnel_idle?,
        })
    }

    fn custom_fields(&mut self, path: &Path) -> Option<CustomFields> {
        let setting = self.merged.setting("HEADERS_FILE")?;
        let (origin, named) = (setting.origin.clone(), setting.origin != Origin::Default);
        let text = match read::text(path) {
            Ok(text) => text,
            Err(read::ReadError::Missing) if !named => return Some(CustomFields::default()),
            Err(error) => {
                self.merged.faults.push(ConfigError {
                    variable: Some("HEADERS_FILE".to_owned()),
                    origin,
                    found: Some(format!("`{}`", path.display())),
                    problem: error.to_string(),
                    expected: "a readable JSON file".into(),
                    fix: named.then(|| "create it with {}, or unset HEADERS_FILE".to_owned()),
                });
                return None;
            }
        };
        match headers::parse(&text, path, &mut self.merged.warnings) {
            Ok(fields) => Some(fields),
            Err(faults) => {
                self.merged.faults.extend(faults);
                None
            }
        }
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
        self.merged.warnings.push(Warning {
            variable: "METRICS_PUBLIC".to_owned(),
            origin: setting.origin.clone(),
            message: format!(
                "every client that reaches {public} can read the metrics, with models, upstreams and what they cost; \
                 ADMIN_LISTEN gives them a listener of their own"
            ),
        });
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
    endpoints.iter().any(|endpoint| {
        endpoint.credential.is_some()
                // a key in the path of the upstream's URL
                || shape::hidden(&endpoint.upstream.prefix).next().is_some()
    }) || fields
        .iter()
        .any(|(name, _)| names_credential(name.as_str().as_bytes()))
}

fn ca_file(path: &Path) -> Result<PathBuf, InvalidValue> {
    let text = read::text(path).map_err(|error| InvalidValue::because(error.to_string()))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(InvalidValue::because("contains no certificate in PEM"));
    }
    Ok(path.to_owned())
}

fn json_string(text: &str) -> Bytes {
    // A `Value` of a string always serialises.
    Bytes::from(serde_json::Value::from(text).to_string())
}

#[cfg(test)]
mod tests;
