//! The rows: every variable, and every name of the service we replace.
//!
//! Nothing but data. Sections are contiguous, and a default is a text that the variable's own
//! parser takes; tests hold both.

use super::variable::{Applies, Redaction, Section, Variable};

pub(super) static TABLE: &[Variable] = &[
    Variable {
        shown: Redaction::WithoutUserinfo,
        ..live(
            Section::Upstream,
            "API_BASE_URL",
            "https://anyrouter.top",
            "http:// or https://, a host, optionally a port and a path; no user, query or fragment",
            "Base URL of the upstream. The client's path is appended to the path given here.",
        )
    },
    Variable {
        shown: Redaction::Urls,
        example: "https://first.example,https://second.example/prefix",
        ..live(
            Section::Upstream,
            "API_BASE_URLS",
            "",
            "URLs as for API_BASE_URL, separated by commas, the preferred one first",
            "Several upstreams in order of preference. API_BASE_URL comes before them when it is set, too.",
        )
    },
    Variable {
        shown: Redaction::AsLength,
        example: "sk-first,Bearer second",
        ..live(
            Section::Upstream,
            "UPSTREAM_API_KEYS",
            "",
            "one entry for each upstream, separated by commas: a key for x-api-key, or Bearer and a token, or nothing",
            "Credentials for the upstreams, in their order. An upstream with a credential of its own never receives the client's.",
        )
    },
    live(
        Section::Upstream,
        "UPSTREAM_HTTP_VERSION",
        "1.1",
        "1.1, 2 or auto",
        "HTTP version towards the upstreams. auto: negotiated by TLS. 2 without TLS: prior knowledge.",
    ),
    live(
        Section::Upstream,
        "FAILOVER_STATUS",
        "502,503,520-523,529",
        "status codes and ranges of them from 400 to 599, separated by commas, or none",
        "Response statuses that send a request to the next upstream, if there is one and the request body is still held. none: no status does.",
    ),
    live(
        Section::Upstream,
        "PRESERVE_HOST",
        "false",
        FLAG,
        "Forward the client's Host field instead of sending the upstream's own.",
    ),
    live(
        Section::Upstream,
        "FORWARDED_HEADERS",
        "append",
        "append, off or drop",
        "X-Forwarded-For, -Proto and -Host. append: adds this hop. off: adds nothing. drop: also removes the client's.",
    ),
    live(
        Section::Upstream,
        "HEADERS_FILE",
        "env/.env.headers.json",
        "the path of a JSON object of strings and nulls",
        "File of fields that replace the client's fields of the same name. null removes a field; keys that begin with __ are comments.",
    ),
    Variable {
        example: "https://app.example,http://localhost:3000",
        ..live(
            Section::Upstream,
            "ALLOWED_ORIGINS",
            "",
            "origins as browsers write them (scheme://host or scheme://host:port), separated by commas; null; or * for every page",
            "Origins of web pages that may send requests to which the proxy adds a credential (UPSTREAM_API_KEYS, HEADERS_FILE).",
        )
    },
    Variable {
        shown: Redaction::AsLength,
        example: "You are a helpful assistant.",
        ..live(
            Section::SystemPrompt,
            "SYSTEM_PROMPT_REPLACEMENT",
            "",
            "any text; in double quotes it may have \\n and span lines",
            "Text that replaces the system prompt of POST /v1/messages. Unset: nothing is edited.",
        )
    },
    live(
        Section::SystemPrompt,
        "SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST",
        "false",
        FLAG,
        "Replace only a prompt that contains \"Claude Code\", and insert a block before any other.",
    ),
    live(
        Section::SystemPrompt,
        "SYSTEM_PROMPT_TARGET",
        "prompt",
        "prompt or first",
        "Block that is the prompt. prompt: the first one that is not Claude Code's attribution block. first: the very first.",
    ),
    live(
        Section::SystemPrompt,
        "MAX_EDIT_BODY",
        "32MiB",
        SIZE,
        "Largest request body that is edited. Larger ones pass unchanged.",
    ),
    boot(
        Section::Server,
        "HOST",
        "127.0.0.1",
        "an IP address or a host name of this machine",
        "Address to listen on. 0.0.0.0 or :: opens the proxy to the network.",
    ),
    boot(
        Section::Server,
        "PORT",
        "8088",
        "a number from 0 to 65535 (0: the kernel chooses)",
        "Port to listen on.",
    ),
    Variable {
        example: "/etc/ssl/proxy.pem",
        ..live(
            Section::Server,
            "TLS_CERT_FILE",
            "",
            "the path of a PEM file: the certificate, then those that lead to its root",
            "Certificate chain for serving TLS. Read again when the file changes; turning TLS on or off needs a restart.",
        )
    },
    Variable {
        example: "/etc/ssl/proxy.key",
        ..live(
            Section::Server,
            "TLS_KEY_FILE",
            "",
            "the path of a PEM file with the private key of the certificate",
            "Private key of the certificate.",
        )
    },
    Variable {
        example: "8443",
        ..boot(
            Section::Server,
            "TLS_PORT",
            "",
            "a number from 0 to 65535 (0: the kernel chooses)",
            "Port for TLS beside PORT without TLS. Unset: with a certificate, PORT itself speaks TLS.",
        )
    },
    live(
        Section::Server,
        "H2C",
        "false",
        FLAG,
        "Accept HTTP/2 without TLS from clients that begin with it (prior knowledge).",
    ),
    Variable {
        example: "/run/anthropic-proxy/proxy.sock",
        ..boot(
            Section::Server,
            "UNIX_SOCKET",
            "",
            "the path of a socket to create; a stale socket is replaced",
            "Unix socket to listen on, besides the ports.",
        )
    },
    boot(
        Section::Server,
        "WORKERS",
        "auto",
        "a whole number from 1 to 1024, or auto",
        "Worker threads. auto: one for each core that the process may use.",
    ),
    boot(
        Section::Server,
        "DRAIN_DELAY",
        "0",
        TIME,
        "Time after SIGTERM in which connections are still accepted while /readyz is 503, so that a load balancer notices.",
    ),
    boot(
        Section::Server,
        "SHUTDOWN_TIMEOUT",
        "30",
        TIME,
        "Time for running exchanges after DRAIN_DELAY. 0: none.",
    ),
    boot(
        Section::Limits,
        "MAX_CONNECTIONS",
        "25000",
        COUNT,
        "Client connections of the whole process. Lowered when the file-descriptor limit is lower.",
    ),
    live(
        Section::Limits,
        "MAX_IN_FLIGHT",
        "10000",
        COUNT,
        "Exchanges at a time. Beyond it, clients get a 503 at once. Lowered when the file-descriptor limit is lower.",
    ),
    boot(
        Section::Limits,
        "EDIT_MEMORY",
        "512MiB",
        SIZE,
        "Memory for all request bodies that are held for the edit. At least MAX_EDIT_BODY.",
    ),
    live(
        Section::Limits,
        "MAX_REPLAY_BODY",
        "1MiB",
        SIZE,
        "Largest request body that is kept for the next upstream, in case the first one fails.",
    ),
    boot(
        Section::Limits,
        "REPLAY_MEMORY",
        "256MiB",
        SIZE,
        "Memory for all request bodies that are kept for the next upstream. Used only with several upstreams.",
    ),
    live(
        Section::Timers,
        "REQUEST_HEAD_TIMEOUT",
        "10",
        TIME,
        "Longest time for a client to send a request head.",
    ),
    live(
        Section::Timers,
        "REQUEST_BODY_TIMEOUT",
        "30",
        TIME,
        "Request-body idle timeout: longest pause while a client sends a body.",
    ),
    live(
        Section::Timers,
        "WRITE_TIMEOUT",
        "60",
        TIME,
        "Write timeout towards the client: longest time in which it reads nothing of its response.",
    ),
    live(
        Section::Timers,
        "KEEP_ALIVE",
        "75",
        TIME,
        "Idle timeout of client connections.",
    ),
    live(
        Section::Timers,
        "UPSTREAM_KEEP_ALIVE",
        "60",
        TIME,
        "Idle timeout of upstream connections.",
    ),
    live(
        Section::Timers,
        "UPSTREAM_MAX_AGE",
        "10m",
        TIME,
        "Age (up to a fifth less) beyond which an upstream connection takes no new request, so that a busy pool follows DNS.",
    ),
    live(
        Section::Timers,
        "UPSTREAM_CONNECT_TIMEOUT",
        "5",
        TIME,
        "Longest time for connecting to the upstream (DNS and TCP), and the same again for TLS.",
    ),
    live(
        Section::Timers,
        "UPSTREAM_TIMEOUT",
        "60",
        TIME,
        "Longest wait for the upstream to begin its response.",
    ),
    live(
        Section::Timers,
        "GENERATION_TIMEOUT",
        "600",
        TIME,
        "Longest wait for the upstream to begin its response on paths that generate (…/messages, …/complete, …/chat/completions, …/responses, :rawPredict, :streamRawPredict, …/invoke…), where a response without streaming begins only when it is complete.",
    ),
    live(
        Section::Timers,
        "STREAM_IDLE_TIMEOUT",
        "360",
        TIME,
        "Longest silence of the upstream inside a response.",
    ),
    live(
        Section::Timers,
        "TUNNEL_IDLE_TIMEOUT",
        "1h",
        TIME,
        "Longest silence in both directions of a tunnel (WebSocket and other upgrades).",
    ),
    boot(
        Section::Logs,
        "LOG_FORMAT",
        "text",
        "text or json",
        "Format of log lines.",
    ),
    live(
        Section::Logs,
        "DEBUG_MODE",
        "false",
        FLAG,
        "Log sizes, spans and decisions of each exchange. Content is never logged.",
    ),
    Variable {
        example: "anthropic_proxy=debug",
        ..boot(
            Section::Logs,
            "RUST_LOG",
            "",
            "a level, or target=level pairs separated by commas",
            "Log filter. Overrides the levels that DEBUG_MODE sets.",
        )
    },
    Variable {
        example: "access.log",
        ..boot(
            Section::Logs,
            "ACCESS_LOG",
            "off",
            "off, stdout or the path of a file",
            "Access log: one line of JSON for each exchange. SIGUSR1 opens the file anew.",
        )
    },
    boot(
        Section::Logs,
        "ACCESS_LOG_MAX_SIZE",
        "100MiB",
        SIZE,
        "Size at which the access log's file is rotated. It is also rotated at midnight UTC.",
    ),
    boot(
        Section::Logs,
        "ACCESS_LOG_KEEP",
        "7",
        COUNT,
        "Number of rotated access log files that are kept.",
    ),
    live(
        Section::Observation,
        "METERING",
        "true",
        FLAG,
        "Read model and token usage from a copy of the responses to POST /v1/messages.",
    ),
    Variable {
        example: "env/prices.json",
        ..live(
            Section::Observation,
            "PRICES_FILE",
            "",
            "the path of a JSON file in the form of static/prices.json",
            "Prices of models, in place of the built-in ones (static/prices.json).",
        )
    },
    live(
        Section::Observation,
        "METRICS_PUBLIC",
        "false",
        FLAG,
        "Serve GET /metrics on the main ports, without a key.",
    ),
    boot(
        Section::Observation,
        "ENABLE_DASHBOARD",
        "false",
        FLAG,
        "Serve the dashboard at /admin on the main ports, unless ADMIN_LISTEN is set.",
    ),
    Variable {
        shown: Redaction::AsLength,
        example: "a-long-random-text",
        ..live(
            Section::Observation,
            "DASHBOARD_API_KEY",
            "",
            "16 or more printable ASCII characters",
            "Key of the dashboard. Unset: a generated key, in the sign-in URL that the log shows at the start.",
        )
    },
    Variable {
        example: "127.0.0.1:8089",
        ..boot(
            Section::Observation,
            "ADMIN_LISTEN",
            "",
            "an IP address and a port",
            "Separate listener for the dashboard and the metrics. Disables them on the main ports.",
        )
    },
    Variable {
        example: "/var/lib/anthropic-proxy",
        ..boot(
            Section::Observation,
            "DATA_DIR",
            "",
            "the path of a directory",
            "Directory that keeps the history of the dashboard and its generated key over a restart. Unset: in memory only.",
        )
    },
    proxy(
        "HTTP_PROXY",
        "http://127.0.0.1:3128",
        "Outbound proxy for an http:// upstream. Lower case works, too.",
    ),
    proxy(
        "HTTPS_PROXY",
        "http://127.0.0.1:3128",
        "Outbound proxy for an https:// upstream. Lower case works, too.",
    ),
    proxy(
        "ALL_PROXY",
        "socks5h://127.0.0.1:1080",
        "Outbound proxy when none is set for the scheme of the upstream. Lower case works, too.",
    ),
    Variable {
        example: "localhost,.internal.example,10.0.0.0/8",
        ..live(
            Section::Proxies,
            "NO_PROXY",
            "",
            "hosts, .suffixes, host:port, addresses, networks or *, separated by commas",
            "Upstreams that are connected to directly. Lower case works, too.",
        )
    },
    Variable {
        example: "/etc/ssl/private-ca.pem",
        ..boot(
            Section::Trust,
            "UPSTREAM_CA_FILE",
            "",
            "the path of a PEM file with at least one certificate",
            "Additional certificate authorities to trust for the upstream.",
        )
    },
    Variable {
        example: "/etc/ssl/certs/ca-certificates.crt",
        ..boot(
            Section::Trust,
            "SSL_CERT_FILE",
            "",
            "the path of a PEM file",
            "Certificate authorities to trust instead of the system's. Read from the environment only.",
        )
    },
    Variable {
        example: "/etc/ssl/certs",
        ..boot(
            Section::Trust,
            "SSL_CERT_DIR",
            "",
            "the path of a directory of PEM files",
            "Directory of certificate authorities to trust instead of the system's. Read from the environment only.",
        )
    },
];

/// Names of the service we replace.
pub(super) static RETIRED: &[(&str, &str)] = &[
    (
        "LOG_PERSISTENCE_ENABLED",
        "logs go to stderr; keep them with Docker's log driver or journald",
    ),
    (
        "LOG_STORAGE_PATH",
        "logs go to stderr; keep them with Docker's log driver or journald",
    ),
    (
        "LOG_RETENTION_DAYS",
        "logs go to stderr; set retention in Docker's log driver or journald",
    ),
    (
        "LOG_DAILY_LIMIT",
        "logs go to stderr; set limits in Docker's log driver or journald",
    ),
    (
        "FALLBACK_PORT",
        "a busy port is an error here; set PORT, or PORT=0 for any free one",
    ),
    (
        "ENABLE_RELOAD",
        "changes of the files are always picked up, and SIGHUP asks for it",
    ),
];

/// The shape of most rows: live, shown plainly, the default as the example.
const fn live(
    section: Section,
    name: &'static str,
    default: &'static str,
    expected: &'static str,
    doc: &'static str,
) -> Variable {
    Variable {
        name,
        default,
        doc,
        section,
        applies: Applies::Live,
        shown: Redaction::Plainly,
        expected,
        example: default,
    }
}

/// The same for what is read once.
const fn boot(
    section: Section,
    name: &'static str,
    default: &'static str,
    expected: &'static str,
    doc: &'static str,
) -> Variable {
    Variable {
        applies: Applies::Restart,
        ..live(section, name, default, expected, doc)
    }
}

/// A URL of an outbound proxy.
const fn proxy(name: &'static str, example: &'static str, doc: &'static str) -> Variable {
    Variable {
        shown: Redaction::WithoutUserinfo,
        example,
        ..live(Section::Proxies, name, "", PROXY, doc)
    }
}

const FLAG: &str = "true, 1, yes, on or false, 0, no, off";
const TIME: &str = "seconds, or a number with a unit such as 500ms, 30s, 2m, 1h";
const SIZE: &str = "bytes, or a number with a unit such as 512KiB, 32MiB, 1GiB";
const COUNT: &str = "a whole number from 1 up";
const PROXY: &str = "http://[user:password@]host:port, socks5://… or socks5h://…";
