//! The declarations: every variable, and every name of the service we replace.
//!
//! Nothing but data, and all that is known of a variable: the macro makes the table, the texts that envy
//! reads and the typed values of it. Sections are contiguous, and a default is a text that the variable's own
//! reader takes; tests hold both.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use actix_web::http::header::HeaderName;
use serde::Deserialize;

use super::{
    declaration::{Declared, fallback, noted, settings},
    variable::{Applies, Redaction, Section, Text, Variable},
};
use crate::{
    config::{
        duration,
        endpoint::{self, Credential, HttpVersion, Statuses},
        forward_auth::{self, RoleRules, TrustedProxies},
        host,
        options::{AccessMode, AlertForm, EditTarget, ForwardedFields},
        origins::{self, AllowedOrigins},
        otlp::{self, OtlpCompression, TelemetryExporter},
        scalar::{self, InvalidValue},
        size,
        traces::{self, SamplerName},
        upstream::{self, Upstream},
        verify::{self, VerifyRule},
    },
    logging::LogFormat,
    secret::Secret,
    state::RedisSettings,
};

settings! {
    Upstream {
        api_base_url: Upstream = "https://anyrouter.top" {
            name: "API_BASE_URL", applies: Live, read: upstream::parse,
            form: Text::new(
                "http:// or https://, a host, optionally a port and a path; no user, query or fragment",
                "http:// 或 https://，主机，可选端口和路径；不含用户、查询串或片段",
            ),
            en: "Base URL of the upstream. The client's path is appended to the path given here.",
            zh: "上游的基础 URL。客户端的路径接在这里给出的路径之后。",
            shown: Redaction::WithoutUserinfo,
        }

        api_base_urls: Vec<Upstream> {
            name: "API_BASE_URLS", applies: Live, read: endpoint::urls,
            form: Text::new(
                "URLs as for API_BASE_URL, separated by commas, the preferred one first",
                "与 API_BASE_URL 相同的 URL，用逗号分隔，最优先的在前",
            ),
            en: "Several upstreams in order of preference. API_BASE_URL comes before them when it is set, too.",
            zh: "多个上游，越靠前越优先；如果也设置了 API_BASE_URL，它排在最前。",
            shown: Redaction::Urls, example: "https://first.example,https://second.example/prefix",
        }

        upstream_api_keys: Vec<Option<Credential>> {
            name: "UPSTREAM_API_KEYS", applies: Live, read: endpoint::credentials,
            form: Text::new(
                "one entry for each upstream, separated by commas: a key for x-api-key, or Bearer and a token, or nothing",
                "每个上游一项，用逗号分隔：x-api-key 的密钥，或 Bearer 加令牌，或留空",
            ),
            en: "Credentials for the upstreams, in their order. An upstream with a credential of its own never receives the client's.",
            zh: "各上游的凭据，与上游顺序一一对应。有自己凭据的上游不会收到客户端的凭据。",
            shown: Redaction::AsLength, example: "sk-first,Bearer second",
        }

        upstream_http_version: HttpVersion = "1.1" {
            name: "UPSTREAM_HTTP_VERSION", applies: Live, read: endpoint::http_version,
            form: Text::new("1.1, 2 or auto", "1.1、2 或 auto"),
            en: "HTTP version towards the upstreams. auto: negotiated by TLS. 2 without TLS: prior knowledge.",
            zh: "与上游之间的 HTTP 版本。auto：由 TLS 协商。2 且不使用 TLS：直接以 HTTP/2 开始（prior knowledge）。",
        }

        failover_status: Statuses = "502,503,520-523,529" {
            name: "FAILOVER_STATUS", applies: Live, read: endpoint::statuses,
            form: Text::new(
                "status codes and ranges of them from 400 to 599, separated by commas, or none",
                "400 到 599 的状态码或范围，用逗号分隔；或 none",
            ),
            en: "Response statuses that send a request to the next upstream, if there is one and the request body is still held. none: no status does.",
            zh: "响应为这些状态码时，如果还有下一个上游且请求体仍保留着，就把请求转到下一个上游。none：从不。",
        }

        preserve_host: bool = "false" {
            name: "PRESERVE_HOST", applies: Live, read: scalar::flag, form: FLAG,
            en: "Forward the client's Host field instead of sending the upstream's own.",
            zh: "把客户端的 Host 字段转发给上游，而不是发送上游自己的。",
        }

        forwarded_headers: ForwardedFields = "append" {
            name: "FORWARDED_HEADERS", applies: Live, read: scalar::forwarded_fields,
            form: Text::new("append, off or drop", "append、off 或 drop"),
            en: "X-Forwarded-For, -Proto and -Host. append: adds this hop. off: adds nothing. drop: also removes the client's.",
            zh: "X-Forwarded-For、-Proto、-Host。append：加上这一跳。off：什么都不加。drop：客户端带来的也删除。",
        }

        headers_file: PathBuf = "env/.env.headers.json" {
            name: "HEADERS_FILE", applies: Live, read: scalar::path,
            form: Text::new(
                "the path of a JSON object of strings and nulls",
                "JSON 对象文件的路径，值为字符串或 null",
            ),
            en: "File of fields that replace the client's fields of the same name. null removes a field; keys that begin with __ are comments.",
            zh: "自定义头字段文件，其中的字段替换客户端的同名字段；值为 null 时删除该字段；以 __ 开头的键是注释。",
            is_watched: true,
        }

        allowed_origins: AllowedOrigins {
            name: "ALLOWED_ORIGINS", applies: Live, read: origins::parse,
            form: Text::new(
                "origins as browsers write them (scheme://host or scheme://host:port), separated by commas; null; or * for every page",
                "浏览器写法的源（scheme://host 或 scheme://host:port），用逗号分隔；null；或 *（所有网页）",
            ),
            en: "Origins of web pages that may send requests to which the proxy adds a credential (UPSTREAM_API_KEYS, HEADERS_FILE).",
            zh: "网页的源：来自这些网页的请求可以由代理加上凭据（UPSTREAM_API_KEYS、HEADERS_FILE）。",
            example: "https://app.example,http://localhost:3000",
        }
    }
    SystemPrompt {
        system_prompt_replacement: String {
            name: "SYSTEM_PROMPT_REPLACEMENT", applies: Live, read: scalar::prompt,
            form: Text::new(
                "any text; in double quotes it may have \\n and span lines",
                "任意文本；放在双引号里可以含有 \\n，也可以跨行",
            ),
            en: "Text for the first block of the system prompt of POST /v1/messages; with Claude Code, for the line that says who it is. Its instructions, all other blocks and a prompt that is a plain string stay. Unset: nothing is edited. Pages show its length; the file has the text.",
            zh: "替换 POST /v1/messages 系统提示词第一块的文本；对 Claude Code 来说，是说明身份的那一行。它的指令、其他块和纯字符串的提示词都不变。不设置则什么都不改。页面只显示长度，内容请看文件。",
            shown: Redaction::AsLength, example: "You are a helpful assistant.",
        }

        system_prompt_block_insert_if_not_exist: bool = "false" {
            name: "SYSTEM_PROMPT_BLOCK_INSERT_IF_NOT_EXIST", applies: Live, read: scalar::flag, form: FLAG,
            en: "Replace only a prompt that contains \"Claude Code\", and insert a block before any other.",
            zh: "只替换含有“Claude Code”的提示词；其他情况在前面插入一块。",
        }

        system_prompt_target: EditTarget = "prompt" {
            name: "SYSTEM_PROMPT_TARGET", applies: Live, read: scalar::edit_target,
            form: Text::new("prompt or first", "prompt 或 first"),
            en: "Block that is the prompt. prompt: the first one that is not Claude Code's attribution block. first: the very first.",
            zh: "哪一块是提示词。prompt：第一个不是 Claude Code 归属块的块。first：第一块。",
        }

        max_edit_body: u64 = "32MiB" {
            name: "MAX_EDIT_BODY", applies: Live, read: size::octets, form: SIZE,
            en: "Largest request body that is edited. Larger ones pass unchanged.",
            zh: "可以改写的最大请求体；更大的原样通过。",
        }
    }
    Server {
        host: Vec<IpAddr> = "127.0.0.1" {
            name: "HOST", applies: Restart, read: host::addresses,
            form: Text::new("an IP address or a host name of this machine", "IP 地址，或本机的主机名"),
            en: "Address to listen on. 0.0.0.0 or :: opens the proxy to the network.",
            zh: "监听地址。0.0.0.0 或 :: 会把代理向网络开放。",
        }

        port: u16 = "8088" {
            name: "PORT", applies: Restart, read: scalar::port, form: PORT,
            en: "Port to listen on.",
            zh: "监听端口。",
        }

        tls_cert_file: PathBuf {
            name: "TLS_CERT_FILE", applies: Live, read: scalar::path,
            form: Text::new(
                "the path of a PEM file: the certificate, then those that lead to its root",
                "PEM 文件的路径：先是证书，然后是通往根证书的各级证书",
            ),
            en: "Certificate chain for serving TLS. Read again when the file changes; turning TLS on or off needs a restart.",
            zh: "对外提供 TLS 的证书链。文件变化时重新读取；开启或关闭 TLS 需要重启。",
            is_watched: true, example: "/etc/ssl/proxy.pem",
        }

        tls_key_file: PathBuf {
            name: "TLS_KEY_FILE", applies: Live, read: scalar::path,
            form: Text::new(
                "the path of a PEM file with the private key of the certificate",
                "PEM 文件的路径，内含证书的私钥",
            ),
            en: "Private key of the certificate.",
            zh: "证书的私钥。",
            is_watched: true, example: "/etc/ssl/proxy.key",
        }

        tls_port: u16 {
            name: "TLS_PORT", applies: Restart, read: scalar::port, form: PORT,
            en: "Port for TLS beside PORT without TLS. Unset: with a certificate, PORT itself speaks TLS.",
            zh: "在明文的 PORT 之外提供 TLS 的端口。不设置时，有证书则 PORT 本身就是 TLS。",
            example: "8443",
        }

        h2c: bool = "false" {
            name: "H2C", applies: Live, read: scalar::flag, form: FLAG,
            en: "Accept HTTP/2 without TLS from clients that begin with it (prior knowledge).",
            zh: "接受客户端直接以 HTTP/2 开始的明文连接（prior knowledge）。",
        }

        unix_socket: PathBuf {
            name: "UNIX_SOCKET", applies: Restart, read: scalar::path,
            form: Text::new(
                "the path of a socket to create; a stale socket is replaced",
                "要创建的套接字的路径；残留的套接字会被替换",
            ),
            en: "Unix socket to listen on, besides the ports.",
            zh: "除端口外再监听一个 Unix 套接字。",
            example: "/run/anthropic-proxy/proxy.sock",
        }

        workers: NonZeroUsize = "auto" {
            name: "WORKERS", applies: Restart, read: scalar::workers,
            form: Text::new("a whole number from 1 to 1024, or auto", "1 到 1024 的整数，或 auto"),
            en: "Worker threads. auto: one for each core that the process may use.",
            zh: "工作线程数。auto：进程可用的每个核心一个。",
        }

        drain_delay: Duration = "0" {
            name: "DRAIN_DELAY", applies: Restart, read: duration::any, form: TIME,
            en: "Time after SIGTERM in which connections are still accepted while /readyz is 503, so that a load balancer notices.",
            zh: "收到 SIGTERM 后继续接受连接的时间；其间 /readyz 返回 503，让负载均衡器察觉。",
        }

        shutdown_timeout: Duration = "30" {
            name: "SHUTDOWN_TIMEOUT", applies: Restart, read: duration::any, form: TIME,
            en: "Time for running exchanges after DRAIN_DELAY. 0: none.",
            zh: "DRAIN_DELAY 之后，进行中的请求最多还能继续多久。0：不等待。",
        }
    }
    Limits {
        max_connections: NonZeroUsize = "25000" {
            name: "MAX_CONNECTIONS", applies: Restart, read: scalar::count, form: COUNT,
            en: "Client connections of the whole process. Lowered when the file-descriptor limit is lower.",
            zh: "整个进程的客户端连接数。文件描述符上限更低时相应减少。",
        }

        max_in_flight: NonZeroUsize = "10000" {
            name: "MAX_IN_FLIGHT", applies: Live, read: scalar::count, form: COUNT,
            en: "Exchanges at a time. Beyond it, clients get a 503 at once. Lowered when the file-descriptor limit is lower.",
            zh: "同时进行的请求数；超出时立即返回 503。文件描述符上限更低时相应减少。",
        }

        edit_memory: u64 = "512MiB" {
            name: "EDIT_MEMORY", applies: Restart, read: size::octets, form: SIZE,
            en: "Memory for all request bodies that are held for the edit. At least MAX_EDIT_BODY.",
            zh: "为改写而暂存的全部请求体可用的内存。不小于 MAX_EDIT_BODY。",
        }

        max_replay_body: u64 = "1MiB" {
            name: "MAX_REPLAY_BODY", applies: Live, read: size::octets, form: SIZE,
            en: "Largest request body that is kept for the next upstream, in case the first one fails.",
            zh: "为转到下一个上游而保留的最大请求体，以备前一个上游失败。",
        }

        replay_memory: u64 = "256MiB" {
            name: "REPLAY_MEMORY", applies: Restart, read: size::octets, form: SIZE,
            en: "Memory for all request bodies that are kept for the next upstream. Used only with several upstreams.",
            zh: "为转到下一个上游而保留的全部请求体可用的内存。只在有多个上游时使用。",
        }
    }
    Access {
        access: AccessMode {
            name: "ACCESS", applies: Restart, read: scalar::access,
            form: Text::new("off, optional or required", "off、optional 或 required"),
            en: "Keys of the proxy. required: every request needs one. optional: requests without one pass without limits. Unset: required as soon as there is a key, off before.",
            zh: "代理自己的密钥。required：每个请求都要有密钥。optional：没有密钥的请求照常通过，不受限额约束。不设置：有了第一个密钥后即为 required，之前为 off。",
            example: "required",
        }

        access_pepper: Secret {
            name: "ACCESS_PEPPER", applies: Restart, read: scalar::pepper,
            form: Text::new("32 or more printable ASCII characters", "至少 32 个可打印的 ASCII 字符"),
            en: "Secret under which the digests of keys are made. Unset: a generated one, in a file of DATA_DIR. With another one, no key is valid any more.",
            zh: "计算密钥摘要所用的秘密值。不设置时自动生成，保存在 DATA_DIR 的文件里。换掉它，所有密钥都会失效。",
            shown: Redaction::AsLength, example: "a-random-text-of-32-or-more-characters",
        }

        limits_contact: String {
            name: "LIMITS_CONTACT", applies: Restart, read: scalar::contact,
            form: Text::new("a text of at most 60 characters", "最多 60 个字符的文本"),
            en: "Whom to ask for more: named in the answers that refuse a request at a limit.",
            zh: "需要更多额度时找谁：达到限额而拒绝请求时，会写在响应里。",
            example: "#claude",
        }

        limits_webhook: Secret {
            name: "LIMITS_WEBHOOK", applies: Restart, read: scalar::webhook,
            form: Text::new("http:// or https:// URL", "http:// 或 https:// 的 URL"),
            en: "URL that is told when a budget reaches 50, 80, 95 or 100 %, once for each period.",
            zh: "预算用到 50、80、95、100 % 时通知的 URL，每个周期各一次。",
            shown: Redaction::AsLength, example: "https://hooks.example/T0/B0/x",
        }

        state_url: RedisSettings {
            name: "STATE_URL", applies: Restart, read: scalar::state_url,
            form: Text::new(
                "redis://[user:password@]host[:port][/database], redis-sentinel://host,host/primary or redis-cluster://host,host; rediss… with TLS",
                "redis://[user:password@]host[:port][/database]、redis-sentinel://host,host/primary 或 redis-cluster://host,host；使用 TLS 时以 rediss 开头",
            ),
            en: "Redis or Valkey that several replicas share: keys, limits and spend. Unset: a file in DATA_DIR, for one replica.",
            zh: "多个副本共用的 Redis 或 Valkey：保存密钥、限额和花费。不设置时使用 DATA_DIR 中的文件，只适合一个副本。",
            shown: Redaction::WithoutUserinfo, example: "rediss://proxy@redis.example:6379/0",
        }

        state_password_file: PathBuf {
            name: "STATE_PASSWORD_FILE", applies: Restart, read: scalar::path,
            form: Text::new("the path of a file with the password alone", "文件路径，内容只有密码"),
            en: "File with the password for STATE_URL, instead of one in the URL.",
            zh: "STATE_URL 的密码所在的文件，用来代替写在 URL 里的密码。",
            example: "/run/secrets/redis-password",
        }

        state_ca_file: PathBuf {
            name: "STATE_CA_FILE", applies: Restart, read: scalar::path,
            form: Text::new(
                "the path of a PEM file with at least one certificate",
                "PEM 文件的路径，至少含一个证书",
            ),
            en: "Certificate authorities to trust for STATE_URL instead of the system's.",
            zh: "连接 STATE_URL 时信任的 CA 证书，代替系统证书库。",
            example: "/etc/ssl/redis-ca.pem",
        }

        state_cert_file: PathBuf {
            name: "STATE_CERT_FILE", applies: Restart, read: scalar::path,
            form: Text::new(
                "the path of a PEM file: the certificate, then those that lead to its root",
                "PEM 文件的路径：先是证书，然后是通往根证书的各级证书",
            ),
            en: "Client certificate that STATE_URL asks for.",
            zh: "STATE_URL 要求的客户端证书。",
            example: "/etc/ssl/redis-client.pem",
        }

        state_key_file: PathBuf {
            name: "STATE_KEY_FILE", applies: Restart, read: scalar::path,
            form: Text::new(
                "the path of a PEM file with the private key of the certificate",
                "PEM 文件的路径，内含证书的私钥",
            ),
            en: "Private key of the client certificate.",
            zh: "客户端证书的私钥。",
            example: "/etc/ssl/redis-client.key",
        }

        state_prefix: String {
            name: "STATE_PREFIX", applies: Restart, read: scalar::state_prefix,
            form: Text::new(
                "1 to 32 letters, digits, - and _",
                "1 到 32 个字母、数字、- 或 _",
            ),
            en: "First part of all names in STATE_URL. Unset: ap. Proxies with different keys on one Redis need different ones.",
            zh: "STATE_URL 中所有名称的前缀，不设置时为 ap。使用不同密钥的代理共用一个 Redis 时，前缀必须不同。",
            example: "ap",
        }

        replicas: NonZeroUsize = "1" {
            name: "REPLICAS", applies: Restart, read: scalar::count, form: COUNT,
            en: "Replicas that share STATE_URL: what each takes of a limit before the first answer, and while STATE_URL is unreachable.",
            zh: "共用 STATE_URL 的副本数：在得到第一次响应之前，以及 STATE_URL 不可用期间，据此分配每个副本的份额。",
        }
    }
    Timers {
        request_head_timeout: Duration = "10" {
            name: "REQUEST_HEAD_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Longest time for a client to send a request head.",
            zh: "客户端发送请求头的时限。",
        }

        request_body_timeout: Duration = "30" {
            name: "REQUEST_BODY_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Request-body idle timeout: longest pause while a client sends a body.",
            zh: "请求体空闲超时：客户端发送请求体时最长的停顿。",
        }

        write_timeout: Duration = "60" {
            name: "WRITE_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Write timeout towards the client: longest time in which it reads nothing of its response.",
            zh: "向客户端写入的超时：客户端最长多久不读取响应。",
        }

        keep_alive: Duration = "75" {
            name: "KEEP_ALIVE", applies: Live, read: duration::timer, form: TIME,
            en: "Idle timeout of client connections.",
            zh: "客户端连接的空闲超时。",
        }

        upstream_keep_alive: Duration = "60" {
            name: "UPSTREAM_KEEP_ALIVE", applies: Live, read: duration::timer, form: TIME,
            en: "Idle timeout of upstream connections.",
            zh: "上游连接的空闲超时。",
        }

        upstream_max_age: Duration = "10m" {
            name: "UPSTREAM_MAX_AGE", applies: Live, read: duration::timer, form: TIME,
            en: "Age (up to a fifth less) beyond which an upstream connection takes no new request, so that a busy pool follows DNS.",
            zh: "上游连接超过这个时长（最多短五分之一）后不再接新请求，繁忙的连接池因此也能跟上 DNS 的变化。",
        }

        upstream_connect_timeout: Duration = "5" {
            name: "UPSTREAM_CONNECT_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Longest time for connecting to the upstream (DNS and TCP), and the same again for TLS.",
            zh: "连接上游（DNS 与 TCP）的时限；TLS 另有同样的时限。",
        }

        upstream_timeout: Duration = "60" {
            name: "UPSTREAM_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Longest wait for the upstream to begin its response.",
            zh: "等待上游开始响应的时限。",
        }

        generation_timeout: Duration = "600" {
            name: "GENERATION_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Longest wait for the upstream to begin its response on paths that generate (…/messages, …/complete, …/chat/completions, …/responses, :rawPredict, :streamRawPredict, …/invoke…), where a response without streaming begins only when it is complete.",
            zh: "在生成类路径（…/messages、…/complete、…/chat/completions、…/responses、:rawPredict、:streamRawPredict、…/invoke…）上等待上游开始响应的时限：非流式响应要全部生成后才开始。",
        }

        stream_idle_timeout: Duration = "360" {
            name: "STREAM_IDLE_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Longest silence of the upstream inside a response.",
            zh: "上游在响应中途最长的静默时间。",
        }

        tunnel_idle_timeout: Duration = "1h" {
            name: "TUNNEL_IDLE_TIMEOUT", applies: Live, read: duration::timer, form: TIME,
            en: "Longest silence in both directions of a tunnel (WebSocket and other upgrades).",
            zh: "隧道（WebSocket 等协议升级）双向都没有数据的最长时间。",
        }
    }
    Logs {
        log_format: LogFormat = "text" {
            name: "LOG_FORMAT", applies: Restart, read: scalar::log_format,
            form: Text::new("text or json", "text 或 json"),
            en: "Format of log lines.",
            zh: "日志的格式。",
        }

        debug_mode: bool = "false" {
            name: "DEBUG_MODE", applies: Live, read: scalar::flag, form: FLAG,
            en: "Log sizes, spans and decisions of each exchange. Content is never logged.",
            zh: "记录每个请求的大小、位置和判断。绝不记录内容。",
        }

        verify: VerifyRule = "off" {
            name: "VERIFY", applies: Live, read: verify::parse,
            form: Text::new(
                "off, all, sample: and a share such as 0.01, or session: and the id of a Claude Code session",
                "off、all、sample: 加比例（如 0.01），或 session: 加 Claude Code 会话的 id",
            ),
            en: "Requests whose content is compared, by SHA-256, as it came and as it left. A difference outside of the edit is an error in the log.",
            zh: "对哪些请求用 SHA-256 比较进出的内容；改写之外的任何差异都会作为错误写入日志。",
            example: "sample:0.01",
        }

        rust_log: String {
            name: "RUST_LOG", applies: Restart, read: scalar::log_filter,
            form: Text::new(
                "a level, or target=level pairs separated by commas",
                "级别，或用逗号分隔的 target=level",
            ),
            en: "Log filter. Overrides the levels that DEBUG_MODE sets.",
            zh: "日志过滤规则。优先于 DEBUG_MODE 决定的级别。",
            example: "anthropic_proxy=debug",
        }

        access_log: String = "off" {
            name: "ACCESS_LOG", applies: Restart, read: scalar::text,
            form: Text::new("off, stdout or the path of a file", "off、stdout 或文件路径"),
            en: "Access log: one line of JSON for each exchange. SIGUSR1 opens the file anew.",
            zh: "访问日志：每个请求一行 JSON。收到 SIGUSR1 时重新打开文件。",
            example: "access.log",
        }

        access_log_max_size: u64 = "100MiB" {
            name: "ACCESS_LOG_MAX_SIZE", applies: Restart, read: size::octets, form: SIZE,
            en: "Size at which the access log's file is rotated. It is also rotated at midnight UTC.",
            zh: "访问日志文件达到这个大小时轮转；每天零点（UTC）也轮转。",
        }

        access_log_keep: NonZeroUsize = "7" {
            name: "ACCESS_LOG_KEEP", applies: Restart, read: scalar::count, form: COUNT,
            en: "Number of rotated access log files that are kept.",
            zh: "保留的已轮转访问日志文件个数。",
        }
    }
    Observation {
        metering: bool = "true" {
            name: "METERING", applies: Live, read: scalar::flag, form: FLAG,
            en: "Read model and token usage from a copy of the responses to POST /v1/messages.",
            zh: "从 POST /v1/messages 响应的副本中读取模型和 token 用量。",
        }

        prices_file: PathBuf {
            name: "PRICES_FILE", applies: Live, read: scalar::path,
            form: Text::new(
                "the path of a JSON file in the form of static/prices.json",
                "JSON 文件的路径，格式与 static/prices.json 相同",
            ),
            en: "Prices of models, in place of the built-in ones (static/prices.json).",
            zh: "模型价格文件，代替内置的价格（static/prices.json）。",
            is_watched: true, example: "env/prices.json",
        }

        metrics_public: bool = "false" {
            name: "METRICS_PUBLIC", applies: Live, read: scalar::flag, form: FLAG,
            en: "Serve GET /metrics on the main ports, without a key.",
            zh: "在主端口上提供 GET /metrics，无需密钥。",
        }

        enable_dashboard: bool = "false" {
            name: "ENABLE_DASHBOARD", applies: Restart, read: scalar::flag, form: FLAG,
            en: "Serve the dashboard at /admin on the main ports, unless ADMIN_LISTEN is set.",
            zh: "在主端口的 /admin 提供仪表盘，除非设置了 ADMIN_LISTEN。",
        }

        dashboard_api_key: Secret {
            name: "DASHBOARD_API_KEY", applies: Live, read: scalar::key,
            form: Text::new("16 or more printable ASCII characters", "至少 16 个可打印的 ASCII 字符"),
            en: "Key of the dashboard. Unset: a generated key, in the sign-in URL that the log shows at the start.",
            zh: "仪表盘的密钥。不设置时自动生成，启动日志会给出含密钥的登录网址。",
            shown: Redaction::AsLength, example: "a-long-random-text",
        }

        dashboard_operator_key: Secret {
            name: "DASHBOARD_OPERATOR_KEY", applies: Live, read: scalar::key,
            form: Text::new("16 or more printable ASCII characters", "至少 16 个可打印的 ASCII 字符"),
            en: "Key of the dashboard for operators, who also end requests, revoke keys and add to budgets.",
            zh: "操作员使用的仪表盘密钥：除查看外，还能终止请求、吊销密钥、追加预算。",
            shown: Redaction::AsLength, example: "another-long-random-text",
        }

        dashboard_viewer_key: Secret {
            name: "DASHBOARD_VIEWER_KEY", applies: Live, read: scalar::key,
            form: Text::new("16 or more printable ASCII characters", "至少 16 个可打印的 ASCII 字符"),
            en: "Key of the dashboard for viewers, who change nothing.",
            zh: "只读用户使用的仪表盘密钥。",
            shown: Redaction::AsLength, example: "a-third-long-random-text",
        }

        admin_trusted_proxies: TrustedProxies {
            name: "ADMIN_TRUSTED_PROXIES", applies: Live, read: forward_auth::proxies,
            form: Text::new(
                "networks and addresses separated by commas; unix for clients of UNIX_SOCKET",
                "网段和地址，用逗号分隔；unix 表示 UNIX_SOCKET 的客户端",
            ),
            en: "Proxies in front of the dashboard that sign people in (forward-auth). From other addresses, ADMIN_USER_HEADER is ignored.",
            zh: "仪表盘前面负责登录的代理（forward-auth）。来自其他地址的 ADMIN_USER_HEADER 不起作用。",
            example: "10.0.0.0/8,fd00::/8",
        }

        admin_user_header: HeaderName = "remote-user" {
            name: "ADMIN_USER_HEADER", applies: Live, read: forward_auth::field,
            form: Text::new("the name of a field", "头字段名"),
            en: "Field in which a trusted proxy names the user.",
            zh: "受信任的代理用来给出用户名的头字段。",
        }

        admin_groups_header: HeaderName = "remote-groups" {
            name: "ADMIN_GROUPS_HEADER", applies: Live, read: forward_auth::field,
            form: Text::new("the name of a field", "头字段名"),
            en: "Field in which a trusted proxy names the user's groups, separated by commas or vertical bars.",
            zh: "受信任的代理用来给出用户所属组的头字段，组名用逗号或竖线分隔。",
        }

        admin_roles: RoleRules = "*=viewer" {
            name: "ADMIN_ROLES", applies: Live, read: forward_auth::roles,
            form: Text::new(
                "group:NAME=ROLE, user:NAME=ROLE or *=ROLE, separated by commas; roles are viewer, operator, admin",
                "group:NAME=ROLE、user:NAME=ROLE 或 *=ROLE，用逗号分隔；ROLE 为 viewer、operator、admin",
            ),
            en: "Roles of people whom a trusted proxy names. The highest counts; without one they see nothing.",
            zh: "受信任的代理所登录的人的角色，取最高的一个；没有角色就什么都看不到。",
        }

        admin_listen: SocketAddr {
            name: "ADMIN_LISTEN", applies: Restart, read: scalar::socket_address,
            form: Text::new("an IP address and a port", "IP 地址和端口"),
            en: "Separate listener for the dashboard and the metrics. Disables them on the main ports.",
            zh: "仪表盘和指标专用的监听地址；设置后主端口上不再提供它们。",
            example: "127.0.0.1:8089",
        }

        cache_break_webhook: Secret {
            name: "CACHE_BREAK_WEBHOOK", applies: Restart, read: scalar::webhook,
            form: Text::new("http:// or https:// URL", "http:// 或 https:// 的 URL"),
            en: "URL that is told when more requests than CACHE_BREAK_RATE break the prompt cache, with the cause.",
            zh: "提示缓存失效的请求达到 CACHE_BREAK_RATE 时通知的 URL，并说明原因。",
            shown: Redaction::AsLength, example: "https://hooks.example/T0/B0/x",
        }

        cache_break_rate: u8 = "20%" {
            name: "CACHE_BREAK_RATE", applies: Restart, read: scalar::percent,
            form: Text::new("a percentage from 1 to 100", "1 到 100 的百分数"),
            en: "Share of the requests of ten minutes, by cause, from which on CACHE_BREAK_WEBHOOK is told.",
            zh: "十分钟内因同一原因失效的请求占比达到此值时通知 CACHE_BREAK_WEBHOOK。",
        }

        alert_webhook: Secret {
            name: "ALERT_WEBHOOK", applies: Restart, read: scalar::webhook,
            form: Text::new("http:// or https:// URL", "http:// 或 https:// 的 URL"),
            en: "URL that is told when something is wrong, and when it is over: errors, circuits, slow tokens, cost and more.",
            zh: "出现问题以及问题结束时通知的 URL：错误、熔断、首个 token 过慢、费用等。",
            shown: Redaction::AsLength, example: "https://hooks.example/T0/B0/x",
        }

        alert_webhook_form: AlertForm {
            name: "ALERT_WEBHOOK_FORM", applies: Restart, read: scalar::alert_form,
            form: Text::new("json or slack", "json 或 slack"),
            en: "Form of these posts. Unset: slack for a host of slack.com, else json.",
            zh: "这些通知的格式。不设置时，主机属于 slack.com 用 slack，否则用 json。",
            example: "slack",
        }

        alert_interval: Duration = "15s" {
            name: "ALERT_INTERVAL", applies: Restart, read: duration::timer, form: TIME,
            en: "Time between two looks. Most conditions are of the last 20 looks, and hold for 1 to 8 of them before they are told.",
            zh: "两次检查的间隔。多数条件看最近 20 次检查，持续 1 到 8 次后才通知。",
        }

        alert_error_rate: u8 = "5%" {
            name: "ALERT_ERROR_RATE", applies: Restart, read: scalar::percent,
            form: Text::new("a percentage from 1 to 100", "1 到 100 的百分数"),
            en: "Share of the requests above which ALERT_WEBHOOK is told of errors. A status of 4xx is none here.",
            zh: "失败请求的占比超过此值时通知 ALERT_WEBHOOK。4xx 状态在这里不算失败。",
        }

        alert_first_token: Duration = "20s" {
            name: "ALERT_FIRST_TOKEN", applies: Restart, read: duration::timer, form: TIME,
            en: "Wait for the first token above which ALERT_WEBHOOK is told, if 5 % of a model's generations wait longer.",
            zh: "某个模型 5 % 的生成请求等待首个 token 超过此时间时通知 ALERT_WEBHOOK。",
        }

        alert_cost_per_hour: u64 = "100" {
            name: "ALERT_COST_PER_HOUR", applies: Restart, read: scalar::dollars,
            form: Text::new("US dollars, such as 100 or 12.50", "美元金额，例如 100 或 12.50"),
            en: "Cost of an hour above which ALERT_WEBHOOK is told.",
            zh: "一小时的费用超过此值时通知 ALERT_WEBHOOK。",
        }

        tz: String {
            name: "TZ", applies: Restart, read: scalar::text,
            form: Text::new("an IANA time zone", "IANA 时区"),
            en: "Time zone of the proxy: of the days of usage, and of the dashboard's times where its reader chooses so. Unset: UTC.",
            zh: "代理的时区：用量的日期按它划分，仪表盘的时间也可选择按它显示。不设置时为 UTC。",
            example: "Europe/Berlin",
        }

        data_dir: PathBuf {
            name: "DATA_DIR", applies: Restart, read: scalar::path,
            form: Text::new("the path of a directory", "目录的路径"),
            en: "Directory that keeps the history of the dashboard and its generated key over a restart. Unset: in memory only.",
            zh: "保存仪表盘历史数据和自动生成的密钥的目录，重启后仍在。不设置时只在内存里。",
            example: "/var/lib/anthropic-proxy",
        }
    }
    Otlp {
        otel_exporter_otlp_endpoint: Secret {
            name: "OTEL_EXPORTER_OTLP_ENDPOINT", applies: Restart, read: scalar::webhook, form: RECEIVER,
            en: "Receiver of traces, and of metrics if they are asked for (OTLP over HTTP); /v1/traces and /v1/metrics are appended. Unset: no traces.",
            zh: "接收链路追踪的地址（OTLP over HTTP），启用时也接收指标；后面会接上 /v1/traces 和 /v1/metrics。不设置时不发送链路追踪。",
            shown: Redaction::AsLength, example: "http://127.0.0.1:4318",
        }

        otel_exporter_otlp_traces_endpoint: Secret {
            name: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", applies: Restart, read: scalar::webhook, form: RECEIVER,
            en: "Receiver of traces with its whole path, in place of OTEL_EXPORTER_OTLP_ENDPOINT.",
            zh: "接收链路追踪的完整地址（含路径），代替 OTEL_EXPORTER_OTLP_ENDPOINT。",
            shown: Redaction::AsLength, example: "http://127.0.0.1:4318/v1/traces",
        }

        otel_exporter_otlp_metrics_endpoint: Secret {
            name: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", applies: Restart, read: scalar::webhook, form: RECEIVER,
            en: "Receiver of metrics with its whole path, in place of OTEL_EXPORTER_OTLP_ENDPOINT. Set, it asks for metrics.",
            zh: "接收指标的完整地址（含路径），代替 OTEL_EXPORTER_OTLP_ENDPOINT。设置后即发送指标。",
            shown: Redaction::AsLength, example: "http://127.0.0.1:9090/api/v1/otlp/v1/metrics",
        }

        otel_traces_exporter: TelemetryExporter = "otlp" {
            name: "OTEL_TRACES_EXPORTER", applies: Restart, read: otlp::exporter, form: EXPORTER,
            en: "none: send no traces, even if there is a receiver.",
            zh: "none：即使有接收端，也不发送链路追踪。",
        }

        otel_metrics_exporter: TelemetryExporter {
            name: "OTEL_METRICS_EXPORTER", applies: Restart, read: otlp::exporter, form: EXPORTER,
            en: "otlp: send the metrics of /metrics, to http://localhost:4318 if no receiver is named. Unset: only if OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is set.",
            zh: "otlp：发送 /metrics 中的指标，没有设置接收端时发往 http://localhost:4318。不设置时，只有设置了 OTEL_EXPORTER_OTLP_METRICS_ENDPOINT 才发送。",
            example: "otlp",
        }

        otel_metric_export_interval: Duration = "60000" {
            name: "OTEL_METRIC_EXPORT_INTERVAL", applies: Restart, read: otlp::millis, form: MILLIS,
            en: "Time between two requests with metrics.",
            zh: "两次发送指标之间的间隔。",
        }

        otel_exporter_otlp_headers: Vec<(String, Secret)> {
            name: "OTEL_EXPORTER_OTLP_HEADERS", applies: Restart, read: otlp::fields, form: PAIRS,
            en: "Fields of the requests for the receiver, such as a key.",
            zh: "发给接收端的请求所带的头字段，例如密钥。",
            shown: Redaction::AsLength, example: "api-key=secret",
        }

        otel_exporter_otlp_traces_headers: Vec<(String, Secret)> {
            name: "OTEL_EXPORTER_OTLP_TRACES_HEADERS", applies: Restart, read: otlp::fields, form: PAIRS,
            en: "Fields of the requests with traces, in place of OTEL_EXPORTER_OTLP_HEADERS.",
            zh: "发送链路追踪的请求所带的头字段，代替 OTEL_EXPORTER_OTLP_HEADERS。",
            shown: Redaction::AsLength, example: "api-key=secret",
        }

        otel_exporter_otlp_metrics_headers: Vec<(String, Secret)> {
            name: "OTEL_EXPORTER_OTLP_METRICS_HEADERS", applies: Restart, read: otlp::fields, form: PAIRS,
            en: "Fields of the requests with metrics, in place of OTEL_EXPORTER_OTLP_HEADERS.",
            zh: "发送指标的请求所带的头字段，代替 OTEL_EXPORTER_OTLP_HEADERS。",
            shown: Redaction::AsLength, example: "api-key=secret",
        }

        otel_exporter_otlp_timeout: Duration = "10000" {
            name: "OTEL_EXPORTER_OTLP_TIMEOUT", applies: Restart, read: otlp::millis, form: MILLIS,
            en: "Longest request for the receiver.",
            zh: "发给接收端的一个请求最长的时间。",
        }

        otel_exporter_otlp_traces_timeout: Duration {
            name: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", applies: Restart, read: otlp::millis, form: MILLIS,
            en: "Longest request with traces, in place of OTEL_EXPORTER_OTLP_TIMEOUT.",
            zh: "发送链路追踪的一个请求最长的时间，代替 OTEL_EXPORTER_OTLP_TIMEOUT。",
            example: "10000",
        }

        otel_exporter_otlp_metrics_timeout: Duration {
            name: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", applies: Restart, read: otlp::millis, form: MILLIS,
            en: "Longest request with metrics, in place of OTEL_EXPORTER_OTLP_TIMEOUT.",
            zh: "发送指标的一个请求最长的时间，代替 OTEL_EXPORTER_OTLP_TIMEOUT。",
            example: "10000",
        }

        otel_exporter_otlp_compression: OtlpCompression = "none" {
            name: "OTEL_EXPORTER_OTLP_COMPRESSION", applies: Restart, read: otlp::compression, form: CODING,
            en: "Coding of the requests for the receiver: gzip makes them smaller, and takes some CPU.",
            zh: "发给接收端的请求的压缩方式：gzip 使其更小，会用一些 CPU。",
        }

        otel_exporter_otlp_traces_compression: OtlpCompression {
            name: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", applies: Restart, read: otlp::compression, form: CODING,
            en: "Coding of the requests with traces, in place of OTEL_EXPORTER_OTLP_COMPRESSION.",
            zh: "发送链路追踪的请求的压缩方式，代替 OTEL_EXPORTER_OTLP_COMPRESSION。",
            example: "gzip",
        }

        otel_exporter_otlp_metrics_compression: OtlpCompression {
            name: "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", applies: Restart, read: otlp::compression, form: CODING,
            en: "Coding of the requests with metrics, in place of OTEL_EXPORTER_OTLP_COMPRESSION.",
            zh: "发送指标的请求的压缩方式，代替 OTEL_EXPORTER_OTLP_COMPRESSION。",
            example: "gzip",
        }

        #[expect(dead_code, reason = "one protocol is spoken, so that reading it checks it")]
        otel_exporter_otlp_protocol: () = "http/protobuf" {
            name: "OTEL_EXPORTER_OTLP_PROTOCOL", applies: Restart, read: otlp::protocol,
            form: Text::new("http/protobuf alone", "只能是 http/protobuf"),
            en: "Protocol of the receiver. Only this one is spoken: no grpc, no http/json.",
            zh: "接收端的协议，只支持这一种，不支持 grpc 和 http/json。",
        }

        otel_service_name: String {
            name: "OTEL_SERVICE_NAME", applies: Restart, read: scalar::text,
            form: Text::new("a name", "名称"),
            en: "Name of this program in traces and metrics. Unset: anthropic-proxy.",
            zh: "本程序在链路追踪和指标中的名称。不设置时为 anthropic-proxy。",
            example: "anthropic-proxy-eu",
        }

        otel_resource_attributes: Vec<(String, String)> {
            name: "OTEL_RESOURCE_ATTRIBUTES", applies: Restart, read: otlp::pairs, form: PAIRS,
            en: "Further attributes of this program in traces and metrics.",
            zh: "本程序在链路追踪和指标中的其他属性。",
            example: "deployment.environment.name=production",
        }

        otel_traces_sampler: SamplerName = "parentbased_always_on" {
            name: "OTEL_TRACES_SAMPLER", applies: Restart, read: traces::sampler,
            form: Text::new(
                "always_on, always_off or traceidratio, each also as parentbased_…",
                "always_on、always_off 或 traceidratio，也可写作 parentbased_…",
            ),
            en: "Requests that are traced. parentbased_…: a traceparent of the client decides where there is one.",
            zh: "追踪哪些请求。parentbased_…：客户端带有 traceparent 时由它决定。",
        }

        otel_traces_sampler_arg: f64 = "1" {
            name: "OTEL_TRACES_SAMPLER_ARG", applies: Restart, read: traces::ratio,
            form: Text::new("a number from 0 to 1", "0 到 1 的数"),
            en: "Share of the requests that traceidratio traces.",
            zh: "traceidratio 追踪的请求占比。",
        }

        otel_sdk_disabled: bool = "false" {
            name: "OTEL_SDK_DISABLED", applies: Restart, read: scalar::flag, form: FLAG,
            en: "Send no traces and no metrics, whatever the other variables say.",
            zh: "无论其他变量如何设置，都不发送链路追踪和指标。",
        }
    }
    Proxies {
        http_proxy: String {
            name: "HTTP_PROXY", applies: Live, read: scalar::text, form: PROXY,
            en: "Outbound proxy for an http:// upstream. Lower case works, too.",
            zh: "http:// 上游使用的出站代理。小写也可以。",
            shown: Redaction::WithoutUserinfo, example: "http://127.0.0.1:3128",
        }

        https_proxy: String {
            name: "HTTPS_PROXY", applies: Live, read: scalar::text, form: PROXY,
            en: "Outbound proxy for an https:// upstream. Lower case works, too.",
            zh: "https:// 上游使用的出站代理。小写也可以。",
            shown: Redaction::WithoutUserinfo, example: "http://127.0.0.1:3128",
        }

        all_proxy: String {
            name: "ALL_PROXY", applies: Live, read: scalar::text, form: PROXY,
            en: "Outbound proxy when none is set for the scheme of the upstream. Lower case works, too.",
            zh: "没有为上游的协议设置出站代理时使用。小写也可以。",
            shown: Redaction::WithoutUserinfo, example: "socks5h://127.0.0.1:1080",
        }

        no_proxy: String {
            name: "NO_PROXY", applies: Live, read: scalar::text,
            form: Text::new(
                "hosts, .suffixes, host:port, addresses, networks or *, separated by commas",
                "主机名、后缀（.suffix）、host:port、地址、网段或 *，用逗号分隔",
            ),
            en: "Upstreams that are connected to directly. Lower case works, too.",
            zh: "不经代理、直接连接的上游。小写也可以。",
            example: "localhost,.internal.example,10.0.0.0/8",
        }
    }
    Trust {
        upstream_ca_file: PathBuf {
            name: "UPSTREAM_CA_FILE", applies: Restart, read: scalar::path,
            form: Text::new(
                "the path of a PEM file with at least one certificate",
                "PEM 文件的路径，至少含一个证书",
            ),
            en: "Additional certificate authorities to trust for the upstream.",
            zh: "额外信任的上游 CA 证书。",
            example: "/etc/ssl/private-ca.pem",
        }

        #[expect(dead_code, reason = "rustls-native-certs reads it by itself")]
        ssl_cert_file: String {
            name: "SSL_CERT_FILE", applies: Restart, read: scalar::text,
            form: Text::new("the path of a PEM file", "PEM 文件的路径"),
            en: "Certificate authorities to trust instead of the system's. Read from the environment only.",
            zh: "代替系统证书库的 CA 证书。只从环境变量读取。",
            example: "/etc/ssl/certs/ca-certificates.crt",
        }

        #[expect(dead_code, reason = "rustls-native-certs reads it by itself")]
        ssl_cert_dir: String {
            name: "SSL_CERT_DIR", applies: Restart, read: scalar::text,
            form: Text::new("the path of a directory of PEM files", "PEM 文件所在目录的路径"),
            en: "Directory of certificate authorities to trust instead of the system's. Read from the environment only.",
            zh: "代替系统证书库的 CA 证书目录。只从环境变量读取。",
            example: "/etc/ssl/certs",
        }
    }
}

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

/// Forms that several variables share.
pub(super) const FLAG: Text = Text::new(
    "true, 1, yes, on or false, 0, no, off",
    "true、1、yes、on 或 false、0、no、off",
);
pub(super) const TIME: Text = Text::new(
    "seconds, or a number with a unit such as 500ms, 30s, 2m, 1h",
    "秒数，或带单位的数，例如 500ms、30s、2m、1h",
);
pub(super) const SIZE: Text = Text::new(
    "bytes, or a number with a unit such as 512KiB, 32MiB, 1GiB",
    "字节数，或带单位的数，例如 512KiB、32MiB、1GiB",
);
pub(super) const COUNT: Text = Text::new("a whole number from 1 up", "不小于 1 的整数");
const RECEIVER: Text = Text::new("http:// or https:// URL", "http:// 或 https:// 的 URL");
const CODING: Text = Text::new("gzip or none", "gzip 或 none");
const EXPORTER: Text = Text::new("otlp or none", "otlp 或 none");
const MILLIS: Text = Text::new("whole milliseconds, at most a day", "整数毫秒，最多一天");
const PAIRS: Text = Text::new(
    "name=value, separated by commas; values may be percent-encoded",
    "name=value，用逗号分隔；值可以使用百分号编码",
);
const PORT: Text = Text::new(
    "a number from 0 to 65535 (0: the kernel chooses)",
    "0 到 65535 的数（0：由内核选择）",
);
const PROXY: Text = Text::new(
    "http://[user:password@]host:port, socks5://… or socks5h://…",
    "http://[user:password@]host:port、socks5://… 或 socks5h://…",
);
