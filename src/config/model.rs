//! The configuration, complete, typed and valid by construction.
//!
//! [`Boot`] needs a restart to change; [`Live`] is one snapshot that a reload replaces as a whole.
//! It holds values and reads nothing.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;

use super::{
    endpoint::{Endpoint, Statuses},
    forward_auth::ForwardAuth,
    identity::TlsIdentity,
    options::{AccessMode, AlertForm, EditMode, EditTarget, ForwardedFields},
    origins::AllowedOrigins,
    otlp::MetricSettings,
    prices::Prices,
    traces::TraceSettings,
    verify::VerifyRule,
};
use crate::{
    logging::LogFormat,
    secret::{Secret, Secrets, names_credential},
    state::RedisSettings,
};

/// Everything the process needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings that need a restart.
    pub boot: Boot,
    /// Settings that a reload replaces.
    pub live: Live,
}

/// Settings that are read once, at start.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Time zone of the days that the dashboard shows (`TZ`).
    pub zone: jiff::tz::TimeZone,
    /// Addresses and sockets of the main listeners.
    pub listen: Listen,
    /// Worker threads (`WORKERS`; default: available cores).
    pub workers: NonZeroUsize,
    /// Connections of the whole process (`MAX_CONNECTIONS`), before the file-descriptor limit.
    pub max_connections: usize,
    /// Format of log lines (`LOG_FORMAT`).
    pub log_format: LogFormat,
    /// The log filter as `RUST_LOG` gives it, if it does.
    pub log_filter: Option<String>,
    /// Extra trusted CAs for the upstream (`UPSTREAM_CA_FILE`), in PEM.
    pub upstream_ca_file: Option<PathBuf>,
    /// Time after SIGTERM in which connections are still accepted (`DRAIN_DELAY`).
    pub drain_delay: Duration,
    /// Time for running streams after that (`SHUTDOWN_TIMEOUT`).
    pub shutdown_timeout: Duration,
    /// Octets of request bodies held for the edit, over all workers (`EDIT_MEMORY`), or what the
    /// memory limit of the process leaves.
    pub edit_memory: u64,
    /// Octets of request bodies kept for the next upstream, over all workers (`REPLAY_MEMORY`).
    pub replay_memory: u64,
    /// The limits of the process that lowered them, in words.
    pub memory_limit: Option<String>,
    /// The access log (`ACCESS_LOG`), if there is one.
    pub access_log: Option<AccessLogSettings>,
    /// Serves the dashboard on the main ports (`ENABLE_DASHBOARD`, without `ADMIN_LISTEN`).
    pub dashboard: bool,
    /// A listener for dashboard and metrics alone (`ADMIN_LISTEN`).
    pub admin_listen: Option<SocketAddr>,
    /// Directory that keeps the dashboard's history and generated key over a restart (`DATA_DIR`).
    pub data_dir: Option<PathBuf>,
    /// Keys of the proxy and their limits.
    pub access: AccessSettings,
    /// Warnings of prompt caches that break too often (`CACHE_BREAK_WEBHOOK`), if they are on.
    pub cache_warnings: Option<CacheWarningSettings>,
    /// Alerts from inside (`ALERT_WEBHOOK`), if they are on.
    pub alerts: Option<AlertSettings>,
    /// Traces (`OTEL_EXPORTER_OTLP_ENDPOINT`), if they are on.
    pub traces: Option<TraceSettings>,
    /// Metrics by OTLP (`OTEL_METRICS_EXPORTER`), if they are on.
    pub sent_metrics: Option<MetricSettings>,
    /// The environment file that was read or looked for.
    pub env_file: PathBuf,
    /// The custom fields file that was read or looked for (`HEADERS_FILE`).
    pub headers_file: PathBuf,
}

impl Boot {
    /// Reports that a listener serves the dashboard.
    pub fn has_pages(&self) -> bool {
        self.dashboard || self.admin_listen.is_some()
    }
}

/// Keys of the proxy and their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessSettings {
    /// Requests that need a key (`ACCESS`).
    pub mode: AccessMode,
    /// Secret of the digests of keys (`ACCESS_PEPPER`); none: a file of `DATA_DIR` has it.
    pub pepper: Option<Secret>,
    /// Person or place that clients ask for more (`LIMITS_CONTACT`).
    pub contact: Option<String>,
    /// URL that is told of budgets that run out (`LIMITS_WEBHOOK`).
    pub webhook: Option<Secret>,
    /// Store that several replicas share (`STATE_URL`); none: a file in `DATA_DIR`.
    pub state: Option<Arc<RedisSettings>>,
    /// Replicas that share it (`REPLICAS`).
    pub replicas: NonZeroUsize,
}

/// Warnings of prompt caches that break too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheWarningSettings {
    /// URL that is told (`CACHE_BREAK_WEBHOOK`).
    pub webhook: Secret,
    /// Percent of the requests from which on it is (`CACHE_BREAK_RATE`).
    pub rate: u8,
}

/// Alerts from inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSettings {
    /// URL that is told (`ALERT_WEBHOOK`).
    pub webhook: Secret,
    /// Form of what it is told (`ALERT_WEBHOOK_FORM`).
    pub form: AlertForm,
    /// Time between two looks (`ALERT_INTERVAL`).
    pub interval: Duration,
    /// Percent of the requests that may fail (`ALERT_ERROR_RATE`).
    pub error_rate: u8,
    /// Longest usual wait for the first token (`ALERT_FIRST_TOKEN`).
    pub first_token: Duration,
    /// Billionths of a US dollar that an hour may cost (`ALERT_COST_PER_HOUR`).
    pub cost_per_hour: u64,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// Destination of the lines.
    pub target: AccessLogTarget,
    /// Octets at which a file is rotated (`ACCESS_LOG_MAX_SIZE`).
    pub max_size: u64,
    /// Rotated files that are kept (`ACCESS_LOG_KEEP`).
    pub keep: usize,
}

/// Destination of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

/// Addresses and sockets to listen on. Port 0 asks the kernel for a free one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// Addresses in clear: `HOST` resolved, with `PORT`.
    pub plain: Vec<SocketAddr>,
    /// Addresses with TLS: with `TLS_PORT`, or with `PORT` where only a certificate is named.
    pub tls: Vec<SocketAddr>,
    /// A Unix socket (`UNIX_SOCKET`).
    pub unix: Option<PathBuf>,
}

/// Settings of which every exchange takes one snapshot.
#[derive(Debug, Clone)]
pub struct Live {
    /// Upstreams in order of preference. Never empty.
    pub endpoints: Arc<[Endpoint]>,
    /// Answers that send a request on to the next endpoint (`FAILOVER_STATUS`).
    pub failover_status: Statuses,
    /// Largest request body that is kept for the next endpoint (`MAX_REPLAY_BODY`).
    pub max_replay_body: u64,
    /// Meters responses (`METERING`).
    pub metering: bool,
    /// Prices of models.
    pub prices: Arc<Prices>,
    /// Serves `/metrics` on the main ports (`METRICS_PUBLIC`).
    pub metrics_public: bool,
    /// The key of the dashboard (`DASHBOARD_API_KEY`).
    pub dashboard_key: Option<Secret>,
    /// The dashboard's key for operators (`DASHBOARD_OPERATOR_KEY`).
    pub operator_key: Option<Secret>,
    /// The dashboard's key for viewers (`DASHBOARD_VIEWER_KEY`).
    pub viewer_key: Option<Secret>,
    /// Sign-in by a proxy in front of the dashboard.
    pub forward_auth: Arc<ForwardAuth>,
    /// Certificate and key of the TLS listeners.
    pub tls: Option<TlsIdentity>,
    /// Accepts HTTP/2 without TLS (`H2C`).
    pub h2c: bool,
    /// The edit of the system prompt, if one is configured.
    pub edit: Option<Edit>,
    /// Largest request body that is held (`MAX_EDIT_BODY`), for the edit or until its model is known.
    pub max_held_body: u64,
    /// Fields that replace the client's fields of the same name, in the order of the file.
    pub custom_fields: Vec<(HeaderName, HeaderValue)>,
    /// Fields of the client that do not travel on (`null` in that file).
    pub removed_fields: Vec<HeaderName>,
    /// Treatment of `X-Forwarded-For` and related fields (`FORWARDED_HEADERS`).
    pub forwarded: ForwardedFields,
    /// Requests get a credential of the operator's, by custom fields or by an endpoint.
    pub adds_credential: bool,
    /// The credentials of the configuration, which are never shown.
    pub secrets: Arc<Secrets>,
    /// Web pages that may use it (`ALLOWED_ORIGINS`).
    pub allowed_origins: AllowedOrigins,
    /// Forwards the client's `Host` (`PRESERVE_HOST`).
    pub preserve_host: bool,
    /// The timers of an exchange.
    pub timers: Timers,
    /// Exchanges at a time, over all workers (`MAX_IN_FLIGHT`).
    pub max_in_flight: usize,
    /// Logs sizes, spans and decisions (`DEBUG_MODE`).
    pub debug: bool,
    /// Exchanges that are verified (`VERIFY`).
    pub verify: VerifyRule,
}

impl Live {
    /// Reports whether requests get a credential of the operator's at each upstream.
    pub fn has_all_credentials(&self) -> bool {
        self.custom_fields.iter().any(is_credential)
            || self.endpoints.iter().all(Endpoint::has_credential)
    }
}

/// Reports whether a field is a credential.
pub(super) fn is_credential((name, _): &(HeaderName, HeaderValue)) -> bool {
    names_credential(name.as_str().as_bytes())
}

/// The one edit.
#[derive(Clone)]
pub struct Edit {
    /// The replacement as a JSON string, quotes included. Never logged.
    pub replacement: Bytes,
    /// Permission to insert a block.
    pub mode: EditMode,
    /// Rule that selects the system prompt block.
    pub target: EditTarget,
    /// Largest request body that is held (`MAX_EDIT_BODY`).
    pub max_body: u64,
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edit")
            .field("replacement_octets", &self.replacement.len())
            .field("mode", &self.mode)
            .field("target", &self.target)
            .field("max_body", &self.max_body)
            .finish()
    }
}

/// Timers, each for one silence of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Client sends a complete head (`REQUEST_HEAD_TIMEOUT`).
    pub request_head: Duration,
    /// Client's body stands still (`REQUEST_BODY_TIMEOUT`).
    pub request_body: Duration,
    /// Client does not read (`WRITE_TIMEOUT`).
    pub write: Duration,
    /// Idle connection of a client (`KEEP_ALIVE`).
    pub keep_alive: Duration,
    /// Idle connection to the upstream (`UPSTREAM_KEEP_ALIVE`).
    pub upstream_keep_alive: Duration,
    /// Age beyond which a connection to the upstream takes no new request (`UPSTREAM_MAX_AGE`).
    pub upstream_max_age: Duration,
    /// DNS and TCP, and then again TLS (`UPSTREAM_CONNECT_TIMEOUT`).
    pub connect: Duration,
    /// Upstream's response head (`UPSTREAM_TIMEOUT`).
    pub response_head: Duration,
    /// The same for paths that generate (`GENERATION_TIMEOUT`).
    pub generation: Duration,
    /// Silence inside a response (`STREAM_IDLE_TIMEOUT`).
    pub stream_idle: Duration,
    /// Silence of a tunnel in both directions (`TUNNEL_IDLE_TIMEOUT`).
    pub tunnel_idle: Duration,
}
