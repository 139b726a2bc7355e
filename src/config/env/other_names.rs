//! Names that other proxies, and clients, give to settings of this one.

/// A name of another program.
pub struct OtherName {
    name: &'static str,
    /// Variable of the table with that meaning.
    pub variable: &'static str,
}

impl OtherName {
    #[cfg(test)]
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The remedy for a line of the environment file with this name.
    pub fn remedy(&self) -> String {
        match self.variable {
            "HEADERS_FILE" => {
                "put the fields as a JSON object into env/.env.headers.json, or the file that \
                               HEADERS_FILE names"
                    .to_owned()
            }
            "RUST_LOG" => "set RUST_LOG, for example RUST_LOG=debug".to_owned(),
            "UPSTREAM_TIMEOUT" => {
                "set UPSTREAM_TIMEOUT, in seconds or with a unit: UPSTREAM_TIMEOUT=60s".to_owned()
            }
            variable => format!("set {variable} in its place"),
        }
    }
}

/// The other program's name that this is, in any case of letters.
pub fn other_name(name: &str) -> Option<&'static OtherName> {
    OTHER_NAMES
        .iter()
        .find(|other| other.name.eq_ignore_ascii_case(name))
}

const fn other(name: &'static str, variable: &'static str) -> OtherName {
    OtherName { name, variable }
}

pub(super) static OTHER_NAMES: &[OtherName] = &[
    other("ANTHROPIC_API_BASE", "API_BASE_URL"),
    other("ANTHROPIC_API_URL", "API_BASE_URL"),
    other("ANTHROPIC_BASE_URL", "API_BASE_URL"),
    other("ANTHROPIC_UPSTREAM", "API_BASE_URL"),
    other("API_BASE", "API_BASE_URL"),
    other("API_URL", "API_BASE_URL"),
    other("BACKEND_URL", "API_BASE_URL"),
    other("BASE_URL", "API_BASE_URL"),
    other("OPENAI_BASE_URL", "API_BASE_URL"),
    other("TARGET_URL", "API_BASE_URL"),
    other("UPSTREAM", "API_BASE_URL"),
    other("UPSTREAM_BASE_URL", "API_BASE_URL"),
    other("UPSTREAM_URL", "API_BASE_URL"),
    other("ANTHROPIC_API_KEY", "UPSTREAM_API_KEYS"),
    other("ANTHROPIC_AUTH_TOKEN", "UPSTREAM_API_KEYS"),
    other("API_KEY", "UPSTREAM_API_KEYS"),
    other("ANTHROPIC_CUSTOM_HEADERS", "HEADERS_FILE"),
    other("CUSTOM_HEADERS", "HEADERS_FILE"),
    other("CUSTOM_HEADERS_FILE", "HEADERS_FILE"),
    other("EXTRA_HEADERS", "HEADERS_FILE"),
    other("HEADERS", "HEADERS_FILE"),
    other("CORS_ORIGINS", "ALLOWED_ORIGINS"),
    other("SYSTEM_PROMPT", "SYSTEM_PROMPT_REPLACEMENT"),
    other("BIND", "HOST"),
    other("BIND_HOST", "HOST"),
    other("LISTEN_HOST", "HOST"),
    other("SERVER_HOST", "HOST"),
    other("LISTEN_PORT", "PORT"),
    other("PROXY_PORT", "PORT"),
    other("SERVER_PORT", "PORT"),
    other("SSL_CERTFILE", "TLS_CERT_FILE"),
    other("SSL_KEYFILE", "TLS_KEY_FILE"),
    other("GUNICORN_WORKERS", "WORKERS"),
    other("NUM_WORKERS", "WORKERS"),
    other("UVICORN_WORKERS", "WORKERS"),
    other("WEB_CONCURRENCY", "WORKERS"),
    other("WORKER_PROCESSES", "WORKERS"),
    other("REDIS_URL", "STATE_URL"),
    other("API_TIMEOUT", "UPSTREAM_TIMEOUT"),
    other("API_TIMEOUT_MS", "UPSTREAM_TIMEOUT"),
    other("PROXY_TIMEOUT", "UPSTREAM_TIMEOUT"),
    other("REQUEST_TIMEOUT", "UPSTREAM_TIMEOUT"),
    other("TIMEOUT", "UPSTREAM_TIMEOUT"),
    other("DEBUG", "DEBUG_MODE"),
    other("LOGLEVEL", "RUST_LOG"),
    other("LOG_LEVEL", "RUST_LOG"),
    other("ADMIN_API_KEY", "DASHBOARD_API_KEY"),
    other("ADMIN_KEY", "DASHBOARD_API_KEY"),
    other("ADMIN_PASSWORD", "DASHBOARD_API_KEY"),
    other("DASHBOARD_PASSWORD", "DASHBOARD_API_KEY"),
    other("NODE_EXTRA_CA_CERTS", "UPSTREAM_CA_FILE"),
    other("REQUESTS_CA_BUNDLE", "UPSTREAM_CA_FILE"),
];
