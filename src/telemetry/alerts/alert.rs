//! The alerts: name, severity, patience, and what to do.

/// Kind of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Alert {
    Errors,
    CredentialRefused,
    RateLimited,
    UpstreamOverloaded,
    FirstTokenSlow,
    NoUpstream,
    CircuitOpen,
    ConnectFailures,
    Saturated,
    DescriptorsNearLimit,
    ReloadFailed,
    LogLinesDropped,
    TelemetryDropped,
    MeteringFailures,
    Unpriced,
    CostHigh,
    CacheBreaks,
    StateDown,
    SharedLimitsLost,
    LimitUnreachable,
    SpendLimitReached,
}

/// Importance of an alert, in the words of the rules for Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Critical,
    Warning,
    Info,
}

impl Severity {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Facts of a kind.
pub(super) struct AlertFacts {
    /// Name; in the rules for Prometheus it stands behind `AnthropicProxy`, in camel case.
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    /// Looks in a row at which the condition holds before it is told.
    pub(super) patience: u32,
    /// Meaning, and what to do.
    pub(super) remedy: &'static str,
    /// Page of the dashboard, below its URL.
    pub(super) page: &'static str,
    /// Section of the manual.
    pub(super) runbook: &'static str,
}

impl Alert {
    pub(super) fn facts(self) -> AlertFacts {
        use Severity::{Critical, Info, Warning};
        let facts = |name, severity, patience, remedy, page, runbook| AlertFacts {
            name,
            severity,
            patience,
            remedy,
            page,
            runbook,
        };
        match self {
            Self::Errors => facts(
                "errors",
                Critical,
                4,
                "The page Errors of the dashboard has them in the upstream's own words; x-proxy-error names those of \
                 the proxy.",
                "/errors",
                "docs/troubleshooting.md#errors-of-the-upstream",
            ),
            Self::CredentialRefused => facts(
                "credential_refused",
                Critical,
                4,
                "The key is wrong, revoked or without credit. Check UPSTREAM_API_KEYS, the custom fields, or the key \
                 that clients send.",
                "/errors",
                "docs/troubleshooting.md#the-key-is-refused",
            ),
            Self::RateLimited => facts(
                "rate_limited",
                Warning,
                8,
                "The account's limit is reached. Raise it with the provider, add an upstream with another key and 429 \
                 in FAILOVER_STATUS, or give keys of the proxy a rate.",
                "/errors",
                "docs/operations.md#several-upstreams",
            ),
            Self::UpstreamOverloaded => facts(
                "upstream_overloaded",
                Warning,
                8,
                "The provider has too little capacity. Another upstream in API_BASE_URLS takes over where \
                 FAILOVER_STATUS contains 529.",
                "/errors",
                "docs/operations.md#several-upstreams",
            ),
            Self::FirstTokenSlow => facts(
                "first_token_slow",
                Warning,
                8,
                "The upstream is slow, or prompts are no longer read from its cache.",
                "/sessions",
                "docs/observability.md#sessions-and-prompt-caches",
            ),
            Self::NoUpstream => facts(
                "no_upstream",
                Critical,
                4,
                "Requests are still tried, one after the other upstream, and most fail.",
                "/upstreams",
                "docs/troubleshooting.md#no-connection-to-the-upstream",
            ),
            Self::CircuitOpen => facts(
                "circuit_open",
                Warning,
                8,
                "Its last requests failed, so it is skipped, and tried again after a while. The other upstreams take \
                 its requests, without its prompt cache.",
                "/upstreams",
                "docs/operations.md#several-upstreams",
            ),
            Self::ConnectFailures => facts(
                "connect_failures",
                Warning,
                8,
                "DNS, TCP, TLS or the outbound proxy fails: the log names the cause.",
                "/upstreams",
                "docs/troubleshooting.md#no-connection-to-the-upstream",
            ),
            Self::Saturated => facts(
                "saturated",
                Critical,
                1,
                "A limit of the process is reached, and requests are answered 503. Raise the limit, or add a replica.",
                "",
                "docs/troubleshooting.md#limits-of-the-proxy",
            ),
            Self::DescriptorsNearLimit => facts(
                "descriptors_near_limit",
                Warning,
                8,
                "At the limit, connections and requests are refused. Raise LimitNOFILE or `ulimit -n`, or add a \
                 replica.",
                "",
                "docs/operations.md#limits",
            ),
            Self::ReloadFailed => facts(
                "reload_failed",
                Warning,
                4,
                "The previous settings are in effect, and a restart would fail. The log and `anthropic-proxy check` \
                 name the fault.",
                "/config",
                "docs/operations.md#hot-reload",
            ),
            Self::LogLinesDropped => facts(
                "log_lines_dropped",
                Warning,
                1,
                "Its reader is too slow, or the disk is full. Requests are not delayed; the lines are lost.",
                "",
                "docs/observability.md#access-log",
            ),
            Self::TelemetryDropped => facts(
                "telemetry_dropped",
                Warning,
                1,
                "Their queue was full: the machine has too little CPU for the traffic. Metrics and limits count all \
                 exchanges.",
                "",
                "docs/observability.md#memory-and-restarts",
            ),
            Self::MeteringFailures => facts(
                "metering_failures",
                Warning,
                8,
                "Costs and budgets are too low by that share. Responses pass unmodified.",
                "/usage",
                "docs/observability.md#responses-that-cannot-be-metered",
            ),
            Self::Unpriced => facts(
                "unpriced",
                Info,
                1,
                "Its requests are missing from costs and budgets. Add the model to a file of prices, and name it in \
                 PRICES_FILE.",
                "/usage",
                "docs/observability.md#prices",
            ),
            Self::CostHigh => facts(
                "cost_high",
                Warning,
                1,
                "The page Usage of the dashboard shows by which model, key, user, team or session. Budgets on keys of \
                 the proxy stop it.",
                "/usage",
                "docs/access.md#limits",
            ),
            Self::CacheBreaks => facts(
                "cache_breaks",
                Warning,
                4,
                "The prefix is paid for anew each time. The page Sessions of the dashboard has each break with its \
                 cause.",
                "/sessions?sort=cache_breaks",
                "docs/observability.md#sessions-and-prompt-caches",
            ),
            Self::StateDown => facts(
                "state_down",
                Warning,
                4,
                "Keys and limits in effect stay so; changes are refused. The log names the cause: the disk of \
                 DATA_DIR, or the Redis of STATE_URL.",
                "",
                "docs/access.md#several-replicas",
            ),
            Self::SharedLimitsLost => facts(
                "shared_limits_lost",
                Critical,
                1,
                "Each replica allows its share of rates alone, and budgets that are closed refuse requests once the \
                 rest of their last share is spent. Mend the Redis of STATE_URL.",
                "",
                "docs/access.md#over-several-replicas",
            ),
            Self::LimitUnreachable => facts(
                "limit_unreachable",
                Critical,
                1,
                "Limits that are closed refuse while the Redis of STATE_URL cannot be used. Mend it, or set the \
                 limits to open.",
                "",
                "docs/access.md#over-several-replicas",
            ),
            Self::SpendLimitReached => facts(
                "spend_limit_reached",
                Info,
                1,
                "`anthropic-proxy limits explain` says which budget, and when it resets; `limits grant` adds to it. \
                 LIMITS_WEBHOOK tells of budgets before they are spent.",
                "/spend",
                "docs/access.md#limits",
            ),
        }
    }
}
