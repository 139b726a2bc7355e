//! Tests of answers, at once: does the upstream answer, with this credential; is the port free; is the shared
//! store there. Nothing that costs money is sent.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::http::Method;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use smallvec::smallvec;

use crate::{
    config::{ConfigSource, Credential, Endpoint, OutboundRoute, Scheme},
    doctor::{Reply, outbound_remedy, tls_fault},
    error::{ProxyError, UpstreamError, plain_text},
    server,
    telemetry::metrics::Metrics,
    upstream::{
        Client,
        balance::Balance,
        dial::{self, Dialer},
        exchange::Failed,
        request::{Body, BodyCoding, BufferedBody, Request},
    },
    wire::{head::Fields, origin::is_loopback_host},
};

/// Time for the answer of an upstream, after it is connected to.
const PATIENCE: Duration = Duration::from_secs(15);

/// Octets of an answer that are looked at.
const LARGEST: usize = 256 << 10;

/// Answer of an upstream.
#[derive(Debug, Clone)]
pub(super) struct ProbeAnswer {
    pub(super) status: u16,
    pub(super) took: Duration,
    /// It lists models.
    pub(super) is_listed: bool,
    /// Answers of a server that is not the API, in words.
    pub(super) stranger: Option<String>,
    /// The server says that its port speaks TLS.
    pub(super) speaks_tls: bool,
}

/// Asks each upstream of a source for its models, by the way that requests will take, with the credentials of the
/// source. One that gives no list as the API has it is asked for a message with a fault, which costs nothing: its
/// error tells a gateway without a list from a web server.
///
/// # Errors
/// The configuration has faults, or an upstream gives no answer: a sentence with a remedy.
pub(super) fn upstreams(source: &ConfigSource) -> Result<Vec<(String, ProbeAnswer)>, ProbeFault> {
    let loaded = source.load().map_err(|faults| faults.to_string())?;
    let trust = server::trust(&loaded.config).map_err(|fault| fault.to_string())?;
    let ca_file = loaded.config.boot.upstream_ca_file.clone();
    let live = loaded.config.live;
    let balance = Arc::new(Balance::new(&live.endpoints));
    actix_rt::System::new().block_on(async {
        let client = Client::new(Dialer::new(trust), &live, balance, Metrics::new().shard());
        let mut answers = Vec::new();
        for (at, endpoint) in live.endpoints.iter().enumerate() {
            let begun = Instant::now();
            let ask = async |target, content| {
                let request = request(endpoint, target, content);
                let answer = client.send(&live, at, request).await;
                let mut response = match answer {
                    Ok(response) => response,
                    Err(failed) => return Err(said(endpoint, ca_file.clone(), failed).await),
                };
                let mut content = Vec::new();
                let pieces = stream::poll_fn(|cx| response.body.poll_content(cx));
                let mut pieces = std::pin::pin!(pieces);
                // what is cut short or goes on for ever is judged by its beginning
                let read = async {
                    while let Some(Ok(piece)) = pieces.next().await {
                        content.extend_from_slice(&piece);
                        if content.len() > LARGEST {
                            break;
                        }
                    }
                };
                let _ = actix_rt::time::timeout(PATIENCE, read).await;
                Ok::<_, ProbeFault>(ProbeReply {
                    status: response.head.status.as_u16(),
                    fields: response.head.fields,
                    content,
                })
            };
            let listed = ask(MODELS, None).await?;
            let took = begun.elapsed();
            let mut answer = ProbeAnswer {
                status: listed.status,
                took,
                is_listed: listed.judged().is_listed(),
                stranger: None,
                speaks_tls: listed.judged().wants_tls(),
            };
            if !listed.judged().is_of_api() {
                let refused = ask(MESSAGES, Some(FAULTY)).await?;
                match refused.judged().is_of_api() {
                    true => answer.status = refused.status,
                    false => {
                        answer.stranger = Some(format!(
                            "GET {MODELS} got {}, POST {MESSAGES} got {}",
                            listed.judged().told(),
                            refused.judged().told()
                        ));
                    }
                }
            }
            answers.push((endpoint.name.to_string(), answer));
        }
        Ok(answers)
    })
}

const MODELS: &str = "/v1/models";
const MESSAGES: &str = "/v1/messages";
/// A message that no server of the API takes.
const FAULTY: &[u8] = br#"{"model":"claude-haiku-4-5","max_tokens":1,"messages":[]}"#;

/// An answer, as far as it was read.
struct ProbeReply {
    status: u16,
    fields: Fields,
    content: Vec<u8>,
}

impl ProbeReply {
    fn judged(&self) -> Reply<'_> {
        Reply {
            status: self.status,
            fields: &self.fields,
            content: &self.content,
        }
    }
}

fn request(endpoint: &Endpoint, target: &str, content: Option<&'static [u8]>) -> Request {
    let upstream = &endpoint.upstream;
    let is_absolute =
        upstream.scheme == Scheme::Http && matches!(endpoint.route, OutboundRoute::HttpProxy(_));
    let origin = match is_absolute {
        true => format!("http://{}", upstream.authority),
        false => String::new(),
    };
    let (method, query) = match content {
        Some(_) => (Method::POST, ""),
        None => (Method::GET, "?limit=1"),
    };
    let mut head = format!(
        "{method} {origin}{}{target}{query} HTTP/1.1\r\nhost: {}\r\nanthropic-version: 2023-06-01\r\n\
         user-agent: anthropic-proxy/{}\r\naccept: application/json\r\n",
        upstream.prefix,
        upstream.authority,
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes();
    let mut field = |name: &str, value: &[u8]| {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    };
    if let Some(Credential { name, value }) = &endpoint.credential {
        field(name.as_str(), value.as_bytes());
    }
    if upstream.scheme == Scheme::Http
        && let Some(value) = dial::proxy_authorization(&endpoint.route)
    {
        field("proxy-authorization", value.as_bytes());
    }
    if let Some(content) = content {
        field("content-type", b"application/json");
        field("content-length", content.len().to_string().as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    let held = |content| {
        Body::Held(BufferedBody {
            content: smallvec![Bytes::from_static(content)],
            coding: BodyCoding::Length,
            trailers: None,
        })
    };
    Request {
        head: head.into(),
        method,
        body: content.map_or(Body::None, held),
        patience: PATIENCE,
        keep: None,
        is_watched: false,
        edges: None,
    }
}

/// Failure of a test.
#[derive(Debug)]
pub(super) struct ProbeFault {
    /// A sentence with a remedy.
    pub(super) text: String,
    /// A setting that may be the remedy.
    pub(super) lack: Option<ProbeLack>,
}

/// Setting that a test may fail for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeLack {
    /// The authority of the certificate.
    CaFile,
    /// An outbound proxy.
    Proxy,
}

impl From<String> for ProbeFault {
    fn from(text: String) -> Self {
        Self { text, lack: None }
    }
}

/// The failure and its remedy, with the cause below it.
async fn said(endpoint: &Endpoint, ca_file: Option<PathBuf>, failed: Failed) -> ProbeFault {
    let error = match failed {
        Failed::Unsent(_, error) => ProxyError::from(error),
        Failed::Sent(error) => error,
    };
    let name = &endpoint.name;
    if let ProxyError::Upstream(
        UpstreamError::TlsCertificateError(_) | UpstreamError::TlsProtocolError(_),
    ) = &error
        && let Some((found, fix)) = tls_fault(endpoint, ca_file).await
    {
        let is_distrusted = matches!(
            &error,
            ProxyError::Upstream(UpstreamError::TlsCertificateError(_))
        );
        return ProbeFault {
            text: format!("{name}: {found}; {fix}"),
            lack: is_distrusted.then_some(ProbeLack::CaFile),
        };
    }
    let mut causes = String::new();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        causes = format!(" ({})", plain_text(error));
        cause = error.source();
    }
    let remedy = match &error {
        ProxyError::Upstream(error) => outbound_remedy(error, endpoint),
        _ => None,
    };
    if let Some(remedy) = remedy {
        let text = format!("{name}: {error}{causes}; {remedy}");
        return text.into();
    }
    let mut text = format!("{name}: {}{causes}", error.answer().message);
    if let ProxyError::Upstream(
        UpstreamError::ConnectionTerminated(_) | UpstreamError::HttpProtocolError,
    ) = &error
        && endpoint.upstream.scheme == Scheme::Http
    {
        text += " If that port speaks TLS, write https:// in its URL.";
    }
    let is_unreached = matches!(
        &error,
        ProxyError::Upstream(
            UpstreamError::DnsError(_)
                | UpstreamError::DnsTimeout
                | UpstreamError::ConnectionTimeout
                | UpstreamError::ConnectionRefused(_)
                | UpstreamError::ConnectionFailed(_)
        )
    );
    // a proxy does not lead to this machine
    let may_lack = is_unreached && !is_loopback_host(&endpoint.upstream.authority);
    ProbeFault {
        text,
        lack: may_lack.then_some(ProbeLack::Proxy),
    }
}

/// Checks that a port can be listened on. Port 0 always can.
///
/// # Errors
/// A sentence with a remedy.
pub(super) fn port(host: &str, port: u16) -> Result<(), String> {
    let addresses = addresses(host, port)?;
    for address in addresses {
        if let Err(error) = TcpListener::bind(address) {
            return Err(match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "port {port} of {} is taken by another process; choose another port, or stop that process",
                    address.ip()
                ),
                io::ErrorKind::AddrNotAvailable => {
                    format!("{} is no address of this machine", address.ip())
                }
                io::ErrorKind::PermissionDenied => {
                    format!("this user may not listen on port {port}; choose one from 1024 on")
                }
                _ => format!("{address} cannot be listened on: {error}"),
            });
        }
    }
    Ok(())
}

/// The next port that is free.
pub(super) fn free_port(host: &str, after: u16) -> Option<u16> {
    (after.saturating_add(1)..=after.saturating_add(50)).find(|it| port(host, *it).is_ok())
}

/// The addresses of a host.
///
/// # Errors
/// It has none.
pub(super) fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match (bare, port).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!("{host} is no address of this machine: {error}")),
    }
}
