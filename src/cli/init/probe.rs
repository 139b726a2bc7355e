//! Tests of answers, at once: does the upstream answer, with this credential; is the port free; is the shared
//! store there. Nothing that costs money is sent.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::http::Method;

use crate::{
    config::{ConfigSource, Credential, Endpoint, OutboundRoute, Scheme},
    error::ProxyError,
    server,
    telemetry::metrics::Metrics,
    upstream::{
        Client,
        balance::Balance,
        dial::{self, Dialer},
        exchange::Failed,
        request::{Body, Request},
    },
};

/// Time for the answer of an upstream, after it is connected to.
const PATIENCE: Duration = Duration::from_secs(15);

/// Answer of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProbeAnswer {
    pub(super) status: u16,
    pub(super) took: Duration,
}

/// Asks each upstream of a source for its models, by the way that requests will take, with the credentials of the
/// source.
///
/// # Errors
/// The configuration has faults, or an upstream gives no answer: a sentence with a remedy.
pub(super) fn upstreams(source: &ConfigSource) -> Result<Vec<(String, ProbeAnswer)>, String> {
    let loaded = source.load().map_err(|faults| faults.to_string())?;
    let trust = server::trust(&loaded.config).map_err(|fault| fault.to_string())?;
    let live = loaded.config.live;
    let balance = Arc::new(Balance::new(&live.endpoints));
    actix_rt::System::new().block_on(async {
        let client = Client::new(Dialer::new(trust), &live, balance, Metrics::new().shard());
        let mut answers = Vec::new();
        for (at, endpoint) in live.endpoints.iter().enumerate() {
            let begun = Instant::now();
            let answer = client.send(&live, at, request(endpoint)).await;
            let response = answer.map_err(|failed| said(endpoint, failed))?;
            answers.push((
                endpoint.name.to_string(),
                ProbeAnswer {
                    status: response.head.status.as_u16(),
                    took: begun.elapsed(),
                },
            ));
        }
        Ok(answers)
    })
}

fn request(endpoint: &Endpoint) -> Request {
    let upstream = &endpoint.upstream;
    let is_absolute =
        upstream.scheme == Scheme::Http && matches!(endpoint.route, OutboundRoute::HttpProxy(_));
    let origin = match is_absolute {
        true => format!("http://{}", upstream.authority),
        false => String::new(),
    };
    let mut head = format!(
        "GET {origin}{}/v1/models?limit=1 HTTP/1.1\r\nhost: {}\r\nanthropic-version: 2023-06-01\r\n\
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
    head.extend_from_slice(b"\r\n");
    Request {
        head: head.into(),
        method: Method::GET,
        body: Body::None,
        patience: PATIENCE,
        keep: None,
        is_watched: false,
        edges: None,
    }
}

/// The failure and its remedy, with the cause below it.
fn said(endpoint: &Endpoint, failed: Failed) -> String {
    let error = match failed {
        Failed::Unsent(_, error) => ProxyError::from(error),
        Failed::Sent(error) => error,
    };
    let mut causes = String::new();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        causes = format!(" ({error})");
        cause = error.source();
    }
    format!("{}: {}{causes}", endpoint.name, error.answer().message)
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
