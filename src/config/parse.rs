//! From what was said to what is meant: every value typed, every fault collected.
//!
//! A value is parsed once, here; defaults go through the same parsers as anything else. It reads
//! the headers file and checks the CA file, and opens nothing else.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
};

use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use rustls::pki_types::CertificateDer;

use super::{
    duration,
    endpoint::{self, Credential, Endpoint},
    env::{self, RawSettings},
    error::{ConfigError, ConfigErrors, Warning},
    headers::{self, CustomFields},
    identity::{self, TlsIdentity},
    loaded::Loaded,
    mask, memory,
    merge::MergedSettings,
    model::{AccessLogSettings, AccessLogTarget, Boot, Config, Edit, Listen, Live, Timers},
    options::EditMode,
    origin::Origin,
    origins::{self, AllowedOrigins},
    prices::Prices,
    read,
    route::{self, OutboundRoute},
    scalar::{self, InvalidValue},
    size,
    upstream::{self, Upstream},
};
use crate::secret::{Secrets, names_credential, shape};

/// The configuration, or every fault of `merged` and of the files it names.
pub(super) fn load(
    merged: MergedSettings,
    root: &Path,
    memory: memory::MemoryLimits,
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

struct Reader {
    merged: MergedSettings,
}

impl Reader {
    fn raw(&mut self) -> Option<RawSettings> {
        let texts =
            self.merged.settings.iter().filter_map(|setting| {
                Some((setting.variable.name.to_owned(), setting.text.clone()?))
            });
        match envy::from_iter(texts) {
            Ok(raw) => Some(raw),
            // Unreachable while the table and `RawSettings` agree, which a test sees to.
            Err(error) => {
                self.merged.faults.push(ConfigError {
                    variable: None,
                    origin: Origin::Default,
                    found: None,
                    problem: error.to_string(),
                    expected: "the variables of the table".into(),
                    fix: None,
                });
                None
            }
        }
    }

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

    fn listen(&mut self, raw: &RawSettings, root: &Path) -> Option<Listen> {
        let hosts = self.read("HOST", &raw.host, addresses);
        let port = self.read("PORT", &raw.port, scalar::port);
        let tls_port = self.read("TLS_PORT", &raw.tls_port, scalar::port);
        let (hosts, port) = (hosts?, port?);
        let at = |port| hosts.iter().map(move |host| SocketAddr::new(*host, port));
        let has_tls = raw.tls_cert_file.is_some() || raw.tls_key_file.is_some();
        let (plain, tls) = match tls_port {
            Some(tls_port) if tls_port == port && port != 0 => {
                let bad = InvalidValue::because("is the same as PORT")
                    .hint("choose another one, or unset TLS_PORT: then PORT itself speaks TLS");
                self.fault("TLS_PORT", bad);
                return None;
            }
            Some(_) if !has_tls => {
                let bad = InvalidValue::because("is set without a certificate")
                    .hint("set TLS_CERT_FILE and TLS_KEY_FILE, or unset TLS_PORT");
                self.fault("TLS_PORT", bad);
                return None;
            }
            Some(tls_port) => (at(port).collect(), at(tls_port).collect()),
            None if has_tls => (Vec::new(), at(port).collect()),
            None => (at(port).collect(), Vec::new()),
        };
        let unix = raw.unix_socket.as_ref().map(|path| root.join(path));
        Some(Listen { plain, tls, unix })
    }

    /// The pair to serve TLS with, if both files are named.
    fn identity(&mut self, raw: &RawSettings, root: &Path) -> Option<TlsIdentity> {
        for (said, text, missing, other) in [
            (
                "TLS_CERT_FILE",
                &raw.tls_cert_file,
                "TLS_KEY_FILE",
                &raw.tls_key_file,
            ),
            (
                "TLS_KEY_FILE",
                &raw.tls_key_file,
                "TLS_CERT_FILE",
                &raw.tls_cert_file,
            ),
        ] {
            if text.is_some() && other.is_none() {
                let bad = InvalidValue::because(format!("is set without {missing}"))
                    .hint(format!("set {missing}, too, or unset {said}"));
                self.fault(said, bad);
            }
        }
        let chain = self.read("TLS_CERT_FILE", &raw.tls_cert_file, |path| {
            identity::chain(&root.join(path))
        });
        let key = self.read("TLS_KEY_FILE", &raw.tls_key_file, |path| {
            identity::key(&root.join(path))
        });
        match identity::pair(chain?, key?) {
            Ok(identity) => Some(identity),
            Err(bad) => {
                self.fault("TLS_KEY_FILE", bad);
                None
            }
        }
    }

    /// Every upstream with its road and its credential.
    fn endpoints(&mut self, raw: &RawSettings) -> Option<Arc<[Endpoint]>> {
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

    /// The value, or none with a fault noted; none without a fault where nothing was said.
    fn read<T>(
        &mut self,
        name: &'static str,
        text: &Option<String>,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let text = text.as_deref()?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.fault(name, bad);
                None
            }
        }
    }

    fn fault(&mut self, name: &'static str, bad: InvalidValue) {
        let Some(setting) = self.merged.setting(name) else {
            return;
        };
        let variable = setting.variable;
        let fix = bad
            .hint
            .unwrap_or_else(|| format!("for example {name}={}", variable.example));
        self.merged.faults.push(ConfigError {
            variable: Some(name.to_owned()),
            origin: setting.origin.clone(),
            found: setting
                .text
                .as_deref()
                .map(|text| mask::found(variable, text)),
            problem: bad.problem.into_owned(),
            expected: variable.expected.into(),
            fix: Some(fix),
        });
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

    /// One body must fit into the memory for all of them, or it would wait for ever.
    fn compare_sizes(
        &mut self,
        (one, largest): (&'static str, Option<u64>),
        (all, memory): (&'static str, Option<u64>),
    ) {
        let (Some(largest), Some(memory)) = (largest, memory) else {
            return;
        };
        if memory < largest {
            let bad = InvalidValue::because(format!(
                "is less than {one}, so the largest body never fits"
            ))
            .hint(format!("raise {all} or lower {one}"));
            self.fault(all, bad);
        }
    }

    /// Lowers the budgets of held bodies to what the process may have, in proportion, and the largest
    /// body of each kind to its budget, or it would wait for ever.
    fn bound_memory(&mut self, config: &mut Config, limits: memory::MemoryLimits) {
        let (boot, live) = (&mut config.boot, &mut config.live);
        let asked = boot.edit_memory.saturating_add(boot.replay_memory);
        let Some(room) = limits.for_bodies().filter(|room| *room < asked) else {
            return;
        };
        let part = |budget: u64| {
            let part = u128::from(budget) * u128::from(room) / u128::from(asked);
            // a part is less than the whole
            u64::try_from(part).unwrap_or(budget).max(LEAST_BUDGET)
        };
        let mut lower = |name: &'static str, value: &mut u64, to: u64| {
            let setting = self.merged.setting(name);
            let said = setting.filter(|setting| setting.origin != Origin::Default);
            if let Some(setting) = said.filter(|_| to < *value) {
                self.merged.warnings.push(Warning {
                    variable: name.to_owned(),
                    origin: setting.origin.clone(),
                    message: format!(
                        "is more than {limits} leaves: using {} KiB; raise the limit or lower {name}",
                        to >> 10
                    ),
                });
            }
            *value = to.min(*value);
        };
        let (edit, replay) = (part(boot.edit_memory), part(boot.replay_memory));
        lower("EDIT_MEMORY", &mut boot.edit_memory, edit);
        lower("REPLAY_MEMORY", &mut boot.replay_memory, replay);
        if let Some(it) = &mut live.edit {
            lower("MAX_EDIT_BODY", &mut it.max_body, edit);
        }
        lower("MAX_REPLAY_BODY", &mut live.max_replay_body, replay);
        boot.memory_limit = Some(limits.to_string());
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

/// A budget below this holds no conversation at all.
const LEAST_BUDGET: u64 = 1 << 20;

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

/// Whether a credential of the operator's is added to requests.
fn adds_credential(endpoints: &[Endpoint], fields: &[(HeaderName, HeaderValue)]) -> bool {
    endpoints.iter().any(|endpoint| {
        endpoint.credential.is_some()
                // a key in the path of the upstream's URL
                || shape::hidden(&endpoint.upstream.prefix).next().is_some()
    }) || fields
        .iter()
        .any(|(name, _)| names_credential(name.as_str().as_bytes()))
}

/// The addresses of a host of this machine.
///
/// `localhost` is 127.0.0.1 without asking: with PORT=0, two addresses would get two ports.
fn addresses(host: &str) -> Result<Vec<IpAddr>, InvalidValue> {
    let host = host.trim();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    if host.contains([':', '/', '@', ' ']) {
        return Err(
            InvalidValue::because("is not a host").hint("the port has its own variable, PORT")
        );
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in (host, 0)
        .to_socket_addrs()
        .map_err(|_| InvalidValue::because("does not resolve"))?
    {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        Err(InvalidValue::because("does not resolve"))
    } else {
        Ok(addresses)
    }
}

fn entries(count: usize) -> String {
    match count {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
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
mod tests {
    use std::{fs, time::Duration};

    use super::super::{ConfigSource, EditTarget, HttpVersion, LogFormat, Scheme, source::Flags};
    use super::*;

    struct Case {
        dir: tempfile::TempDir,
    }

    impl Case {
        fn new(env_file: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("env")).unwrap();
            fs::write(dir.path().join("env/.env"), env_file).unwrap();
            Self { dir }
        }

        fn headers(self, text: &str) -> Self {
            fs::write(self.dir.path().join("env/.env.headers.json"), text).unwrap();
            self
        }

        fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
            ConfigSource::new(Flags::default(), environment.iter().copied().collect())
                .rooted(self.dir.path())
                .load()
        }
    }

    fn load(environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        Case::new("").load(environment)
    }

    #[test]
    fn unset_variables_have_the_documented_defaults() {
        let Loaded {
            config: Config { boot, live },
            warnings,
            ..
        } = load(&[]).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(boot.listen.plain, ["127.0.0.1:8088".parse().unwrap()]);
        assert!(boot.listen.tls.is_empty() && boot.listen.unix.is_none());
        assert_eq!(boot.workers, std::thread::available_parallelism().unwrap());
        assert_eq!(boot.max_connections, 25_000);
        assert_eq!(boot.log_format, LogFormat::Text);
        assert_eq!(boot.log_filter, None);
        assert_eq!(boot.drain_delay, Duration::ZERO);
        assert_eq!(boot.shutdown_timeout, Duration::from_secs(30));
        assert_eq!(boot.edit_memory, 512 << 20);
        let [endpoint] = &live.endpoints[..] else {
            panic!("{:?}", live.endpoints)
        };
        assert_eq!(endpoint.upstream.scheme, Scheme::Https);
        assert_eq!(endpoint.upstream.authority, "anyrouter.top");
        assert_eq!(endpoint.route, OutboundRoute::Direct);
        assert_eq!(endpoint.http, HttpVersion::Http11);
        assert_eq!(endpoint.credential, None);
        assert!(live.tls.is_none() && !live.h2c);
        assert!(live.edit.is_none());
        assert!(live.custom_fields.is_empty());
        assert!(!live.preserve_host && !live.debug);
        assert_eq!(live.max_in_flight, 10_000);
        let seconds = |n| Duration::from_secs(n);
        assert_eq!(
            live.timers,
            Timers {
                request_head: seconds(10),
                request_body: seconds(30),
                write: seconds(60),
                keep_alive: seconds(75),
                upstream_keep_alive: seconds(60),
                upstream_max_age: seconds(600),
                connect: seconds(5),
                response_head: seconds(60),
                generation: seconds(600),
                stream_idle: seconds(360),
                tunnel_idle: seconds(3600),
            }
        );
    }

    #[test]
    fn the_edit_is_what_was_said() {
        assert!(
            load(&[("SYSTEM_PROMPT_REPLACEMENT", "")])
                .unwrap()
                .config
                .live
                .edit
                .is_none()
        );
        let edit = load(&[("SYSTEM_PROMPT_REPLACEMENT", "a \"b\"\n\u{7}é")]).unwrap();
        let edit = edit.config.live.edit.unwrap();
        assert_eq!(edit.replacement, r#""a \"b\"\n\u0007é""#.as_bytes());
        assert_eq!(edit.mode, EditMode::Replace);
        assert_eq!(edit.target, EditTarget::Prompt);
        assert_eq!(edit.max_body, 32 << 20);
        let edit = load(&[
            ("SYSTEM_PROMPT_REPLACEMENT", "x"),
            ("SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST", "Yes"),
            ("SYSTEM_PROMPT_TARGET", "first"),
            ("MAX_EDIT_BODY", "1MiB"),
        ]);
        let edit = edit.unwrap().config.live.edit.unwrap();
        assert_eq!(edit.mode, EditMode::InsertIfAbsent);
        assert_eq!(edit.target, EditTarget::First);
        assert_eq!(edit.max_body, 1 << 20);
    }

    #[test]
    fn a_prompt_of_white_space_alone_is_a_fault() {
        let faults = load(&[("SYSTEM_PROMPT_REPLACEMENT", " \n ")]).unwrap_err();
        let said = faults.to_string();
        assert!(
            said.contains(
                "SYSTEM_PROMPT_REPLACEMENT (environment): (3 octets) is white space alone"
            ),
            "{said}"
        );
        assert!(
            Case::new("SYSTEM_PROMPT_REPLACEMENT=\"\\n\"\n")
                .load(&[])
                .is_err()
        );
    }

    #[test]
    fn metrics_that_the_network_reads_are_warned_of() {
        let warnings = |environment: &[(&str, &str)]| {
            let loaded = load(&[&[("METRICS_PUBLIC", "true")], environment].concat()).unwrap();
            loaded.warnings.len()
        };
        assert_eq!(warnings(&[("HOST", "0.0.0.0")]), 1);
        assert_eq!(warnings(&[("HOST", "::1")]), 0);
        let alone = ("ADMIN_LISTEN", "127.0.0.1:8089");
        assert_eq!(warnings(&[("HOST", "0.0.0.0"), alone]), 0);
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for (host, expected) in [
            ("0.0.0.0", "0.0.0.0:0"),
            ("::", "[::]:0"),
            ("[::1]", "[::1]:0"),
            ("localhost", "127.0.0.1:0"),
            ("LocalHost", "127.0.0.1:0"),
        ] {
            let loaded = load(&[("HOST", host), ("PORT", "0")]).unwrap();
            assert_eq!(
                loaded.config.boot.listen.plain,
                [expected.parse().unwrap()],
                "{host}"
            );
        }
        for host in ["127.0.0.1:80", "http://localhost", "a b", "1.2.3.4.5:"] {
            assert_eq!(
                load(&[("HOST", host)]).unwrap_err().faults.len(),
                1,
                "{host}"
            );
        }
    }

    #[test]
    fn all_faults_are_reported_together() {
        let case = Case::new(
            "PROT=1\nPORT=80a\nno equals sign\nKEEP_ALIVE=0\nAPI_BASE_URL=https://user:canary@h\n\
             DEBUG_MODE=ture\nHEADERS_FILE=missing.json\n",
        );
        let faults = case.load(&[
            ("WORKERS", "0"),
            ("MAX_EDIT_BODY", "1GiB"),
            ("LOG_FORMAT", "sk-ant-canary"),
            ("UPSTREAM_CA_FILE", "no.pem"),
            ("RUST_LOG", "a=loud"),
        ]);
        let text = faults
            .unwrap_err()
            .to_string()
            .replace(&*case.dir.path().to_string_lossy(), "");
        let expected = "\
the configuration has 11 faults
  /env/.env line 3: has no `=`; expected KEY=VALUE, or a comment that begins with #
  API_BASE_URL (/env/.env line 5): `https://***@h` contains a user or password; expected http:// or https://, a host, optionally a port and a path; no user, query or fragment; put credentials into the headers file (HEADERS_FILE) instead
  HEADERS_FILE (/env/.env line 7): `/missing.json` does not exist; expected a readable JSON file; create it with {}, or unset HEADERS_FILE
  EDIT_MEMORY (default): `512MiB` is less than MAX_EDIT_BODY, so the largest body never fits; expected bytes, or a number with a unit such as 512KiB, 32MiB, 1GiB; raise EDIT_MEMORY or lower MAX_EDIT_BODY
  PORT (/env/.env line 2): `80a` is not a port; expected a number from 0 to 65535 (0: the kernel chooses); for example PORT=8088
  WORKERS (environment): `0` is less than 1; expected a whole number from 1 to 1024, or auto; for example WORKERS=auto
  KEEP_ALIVE (/env/.env line 4): `0` is no time at all: the timer would fire at once; expected seconds, or a number with a unit such as 500ms, 30s, 2m, 1h; to wait long, say `24h`
  LOG_FORMAT (environment): (13 octets) is not one of the words; expected text or json; for example LOG_FORMAT=text
  DEBUG_MODE (/env/.env line 6): `ture` is not one of the words; expected true, 1, yes, on or false, 0, no, off; did you mean `true`?
  RUST_LOG (environment): `a=loud` has a level that is none of off, error, warn, info, debug, trace; expected a level, or target=level pairs separated by commas; for example RUST_LOG=anthropic_proxy=debug
  UPSTREAM_CA_FILE (environment): `no.pem` does not exist; expected the path of a PEM file with at least one certificate; for example UPSTREAM_CA_FILE=/etc/ssl/private-ca.pem
  PROT (/env/.env line 1): is unknown and has no effect; did you mean PORT? (a warning)";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_secret_is_in_debug_or_in_what_is_shown() {
        let case = Case::new("SYSTEM_PROMPT_REPLACEMENT=canary-prompt\n")
            .headers(r#"{"x-api-key": "canary-field"}"#);
        let loaded = case
            .load(&[("HTTPS_PROXY", "http://user:canary-proxy@p:1")])
            .unwrap();
        assert!(!format!("{loaded:?}").contains("canary"), "{loaded:?}");
        let shown: Vec<_> = loaded
            .settings
            .iter()
            .filter_map(super::super::Setting::shown)
            .collect();
        assert!(shown.contains(&"(13 octets)".to_owned()));
        assert!(shown.contains(&"http://***@p:1".to_owned()));
        assert!(!shown.concat().contains("canary"));
        assert_eq!(loaded.config.live.custom_fields[0].1, "canary-field");
    }

    #[test]
    fn a_headers_file_that_is_no_object_is_a_fault() {
        let faults = Case::new("").headers("[]").load(&[]).unwrap_err();
        assert!(
            faults.to_string().contains("is not a JSON object"),
            "{faults}"
        );
    }

    #[test]
    fn a_base_url_that_ends_in_v1_is_remarked() {
        let loaded = load(&[("API_BASE_URL", "https://h/v1/")]).unwrap();
        assert!(loaded.warnings[0].message.contains("/v1/v1/messages"));
    }

    #[test]
    fn listen_cares_for_host_and_port_only() {
        let case = Case::new("API_BASE_URL=nonsense\nPORT=9000\n");
        let source =
            ConfigSource::new(Flags::default(), Default::default()).rooted(case.dir.path());
        assert_eq!(
            source.listen().unwrap().plain,
            ["127.0.0.1:9000".parse().unwrap()]
        );
        assert!(source.load().is_err());
    }

    #[test]
    fn several_upstreams_are_a_list_with_their_keys() {
        let hosts = |environment: &[(&str, &str)]| -> Vec<String> {
            let live = load(environment).unwrap().config.live;
            let hosts = live.endpoints.iter().map(|e| e.upstream.host.clone());
            hosts.collect()
        };
        // the default is no upstream that anybody asked for
        assert_eq!(hosts(&[("API_BASE_URLS", "http://a,http://b")]), ["a", "b"]);
        assert_eq!(
            hosts(&[
                ("API_BASE_URL", "http://c"),
                ("API_BASE_URLS", "http://a,http://b")
            ]),
            ["c", "a", "b"]
        );
        assert_eq!(
            hosts(&[
                ("API_BASE_URL", "http://a"),
                ("API_BASE_URLS", "http://a,http://b")
            ]),
            ["a", "b"]
        );
        let live = load(&[
            ("API_BASE_URLS", "http://a,https://b,http://a"),
            ("UPSTREAM_API_KEYS", "sk-canary,,Bearer canary"),
            ("HTTPS_PROXY", "http://p:1"),
            ("UPSTREAM_HTTP_VERSION", "auto"),
        ])
        .unwrap()
        .config
        .live;
        let [first, second, third] = &live.endpoints[..] else {
            panic!("{:?}", live.endpoints)
        };
        assert_eq!(first.credential.as_ref().unwrap().name, "x-api-key");
        assert_eq!(second.credential, None);
        assert_eq!(third.credential.as_ref().unwrap().value, "Bearer canary");
        assert!(matches!(second.route, OutboundRoute::HttpProxy(_)));
        assert_eq!(
            (&first.route, first.http),
            (&OutboundRoute::Direct, HttpVersion::Auto)
        );
        assert!(!format!("{live:?}").contains("canary"));
    }

    #[test]
    fn faults_of_several_upstreams_name_entry_and_count() {
        for (environment, expected) in [
            (
                &[("API_BASE_URLS", "http://a,gopher://b")][..],
                "API_BASE_URLS (environment): `http://a,gopher://b` is wrong in entry 2, which has a scheme that is neither http nor https",
            ),
            (
                &[
                    ("API_BASE_URLS", "http://a,http://b"),
                    ("UPSTREAM_API_KEYS", "sk-canary"),
                ],
                "UPSTREAM_API_KEYS (environment): (9 octets) has 1 entry, not 2: one for each upstream",
            ),
            (
                &[("UPSTREAM_API_KEYS", "sk canary")],
                "UPSTREAM_API_KEYS (environment): (9 octets) is wrong in entry 1, which is neither a key",
            ),
            (
                &[("FAILOVER_STATUS", "200")],
                "FAILOVER_STATUS (environment): `200` is wrong in entry 1, which is not a status code from 400 to 599",
            ),
            (
                &[("TLS_PORT", "8443")],
                "TLS_PORT (environment): `8443` is set without a certificate",
            ),
            (
                &[("TLS_KEY_FILE", "key.pem")],
                "TLS_KEY_FILE (environment): `key.pem` is set without TLS_CERT_FILE",
            ),
        ] {
            let faults = load(environment).unwrap_err().to_string();
            assert!(faults.contains(expected), "{faults}");
            assert!(!faults.contains("canary"), "{faults}");
        }
    }

    #[test]
    fn a_certificate_turns_tls_on() {
        let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (ours, other) = (pair("ours"), pair("other"));
        let case = Case::new("TLS_CERT_FILE=cert.pem\nTLS_KEY_FILE=key.pem\nPORT=9000\n");
        let write = |name: &str, text: &str| fs::write(case.dir.path().join(name), text).unwrap();
        write("cert.pem", &ours.cert.pem());
        write("key.pem", &ours.signing_key.serialize_pem());
        let Config { boot, live } = case.load(&[]).unwrap().config;
        let at = |port: &str| vec![format!("127.0.0.1:{port}").parse().unwrap()];
        assert_eq!((boot.listen.plain, boot.listen.tls), (vec![], at("9000")));
        let identity = live.tls.unwrap();
        assert_eq!(identity, case.load(&[]).unwrap().config.live.tls.unwrap());
        let boot = case.load(&[("TLS_PORT", "9001")]).unwrap().config.boot;
        assert_eq!(
            (boot.listen.plain, boot.listen.tls),
            (at("9000"), at("9001"))
        );
        write("key.pem", &other.signing_key.serialize_pem());
        let faults = case.load(&[]).unwrap_err().to_string();
        assert!(
            faults.contains("TLS_KEY_FILE") && faults.contains("is not the key of the certificate"),
            "{faults}"
        );
        write("cert.pem", &other.cert.pem());
        assert_ne!(identity, case.load(&[]).unwrap().config.live.tls.unwrap());
        write("key.pem", "no key");
        assert!(
            case.load(&[])
                .unwrap_err()
                .to_string()
                .contains("no private key in PEM")
        );
    }

    #[test]
    fn what_is_observed_is_a_setting() {
        let Config { boot, live } = load(&[]).unwrap().config;
        assert_eq!(
            (boot.access_log, boot.admin_listen, boot.data_dir),
            (None, None, None)
        );
        assert!(!boot.dashboard && live.metering && !live.metrics_public);
        assert_eq!(*live.prices, Prices::built_in());
        let Config { boot, live } = load(&[
            ("ACCESS_LOG", "stdout"),
            ("ENABLE_DASHBOARD", "1"),
            ("DASHBOARD_API_KEY", "canary-canary-canary"),
        ])
        .unwrap()
        .config;
        assert_eq!(boot.access_log.unwrap().target, AccessLogTarget::Stdout);
        assert!(
            boot.dashboard
                && live
                    .dashboard_key
                    .as_ref()
                    .unwrap()
                    .is(b"canary-canary-canary")
        );
        assert!(!format!("{live:?}").contains("canary"));
        let Config { boot, .. } =
            load(&[("ENABLE_DASHBOARD", "1"), ("ADMIN_LISTEN", "127.0.0.1:0")])
                .unwrap()
                .config;
        assert!(
            !boot.dashboard && boot.admin_listen.is_some(),
            "there, then only there"
        );
        for (name, value) in [
            ("DASHBOARD_API_KEY", "short"),
            ("ADMIN_LISTEN", "localhost"),
            ("PRICES_FILE", "missing.json"),
            ("ACCESS_LOG_KEEP", "0"),
        ] {
            let faults = load(&[(name, value)]).unwrap_err();
            assert_eq!(faults.faults[0].variable.as_deref(), Some(name));
        }
        let case = Case::new("PRICES_FILE=p.json\n");
        fs::write(
            case.dir.path().join("p.json"),
            r#"{"date":"2026-01-02","models":{}}"#,
        )
        .unwrap();
        let prices = case.load(&[]).unwrap().config.live.prices;
        assert_eq!(
            (&*prices.date, prices.of("claude-opus-4-5")),
            ("2026-01-02", None)
        );
    }

    #[test]
    fn a_ca_file_holds_a_certificate() {
        let case = Case::new("UPSTREAM_CA_FILE=ca.pem\n");
        let path = case.dir.path().join("ca.pem");
        fs::write(&path, "-----BEGIN PRIVATE KEY-----").unwrap();
        assert!(case.load(&[]).is_err());
        fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
        )
        .unwrap();
        assert_eq!(
            case.load(&[]).unwrap().config.boot.upstream_ca_file,
            Some(path)
        );
    }
}
