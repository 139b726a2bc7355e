//! Tests of answers, at once: does the upstream answer, with this credential; is the port free; is the shared
//! store there. Nothing that costs money is sent.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::http::Method;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use smallvec::smallvec;

use crate::{
    config::{ConfigSource, Credential, Endpoint, OutboundRoute, Scheme},
    doctor::origin,
    error::ProxyError,
    server,
    telemetry::metrics::Metrics,
    upstream::{
        Client,
        balance::Balance,
        dial::{self, Dialer},
        exchange::Failed,
        request::{Body, BodyCoding, BufferedBody, Request},
    },
    wire::head::Fields,
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
}

/// Asks each upstream of a source for its models, by the way that requests will take, with the credentials of the
/// source. One that gives no list as the API has it is asked for a message with a fault, which costs nothing: its
/// error tells a gateway without a list from a web server.
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
            let ask = async |target, content| {
                let request = request(endpoint, target, content);
                let answer = client.send(&live, at, request).await;
                let mut response = answer.map_err(|failed| said(endpoint, failed))?;
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
                Ok::<_, String>(ProbeReply {
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
                is_listed: listed.kind() == ReplyKind::Models,
                stranger: None,
            };
            if !listed.is_of_api() {
                let refused = ask(MESSAGES, Some(FAULTY)).await?;
                match refused.is_of_api() {
                    true => answer.status = refused.status,
                    false => {
                        answer.stranger = Some(format!(
                            "GET {MODELS} got {}, POST {MESSAGES} got {}",
                            listed.told(),
                            refused.told()
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

/// Kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyKind {
    /// A list of models.
    Models,
    /// An error as the API has it.
    Error,
    Json,
    Html,
    Empty,
    Other,
}

impl ProbeReply {
    fn kind(&self) -> ReplyKind {
        let content = self.content.trim_ascii();
        if content.is_empty() {
            return ReplyKind::Empty;
        }
        match serde_json::from_slice::<Value>(content) {
            Ok(json) if json["data"].is_array() => return ReplyKind::Models,
            Ok(json) if json["error"]["message"].is_string() => return ReplyKind::Error,
            Ok(_) => return ReplyKind::Json,
            Err(_) => {}
        }
        let is_html = self.media().to_ascii_lowercase().contains("html");
        match is_html || content.starts_with(b"<") {
            true => ReplyKind::Html,
            false => ReplyKind::Other,
        }
    }

    /// True for an answer as a server of the API gives it: models, an error in its form, or a refusal of the
    /// credential by a gateway before it.
    fn is_of_api(&self) -> bool {
        match (self.status, self.kind()) {
            (200..=299, kind) => kind == ReplyKind::Models,
            (400.., ReplyKind::Error) | (401 | 403, ReplyKind::Empty | ReplyKind::Json) => true,
            _ => false,
        }
    }

    /// The answer in words: its kind and status, its title or its target. Nothing else of it is repeated.
    fn told(&self) -> String {
        let status = self.status;
        let more = match self.kind() {
            _ if (300..400).contains(&status) => {
                let target = self.field("location");
                let target =
                    target.and_then(|it| origin(&it).map(|it| format!(" to {}", shortened(&it))));
                format!("a redirect{}", target.unwrap_or_default())
            }
            ReplyKind::Html => match title(&self.content) {
                Some(title) => format!("an HTML page titled {title:?}"),
                None => "an HTML page".to_owned(),
            },
            ReplyKind::Empty => "no content".to_owned(),
            ReplyKind::Models | ReplyKind::Error | ReplyKind::Json => {
                "JSON that is none of the API".to_owned()
            }
            ReplyKind::Other => match self.media() {
                media if media.is_empty() => "content that is not JSON".to_owned(),
                media => format!("{media}, which is not JSON"),
            },
        };
        format!("{more} (status {status})")
    }

    fn field(&self, name: &str) -> Option<String> {
        let value = self.fields.value(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The media type, without its parameters.
    fn media(&self) -> String {
        let field = self.field("content-type").unwrap_or_default();
        let media = field.split(';').next().unwrap_or_default().trim();
        shortened(media)
    }
}

/// Title of a page.
fn title(page: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(page);
    let begin = page.to_ascii_lowercase().find("<title")?;
    let (_, rest) = page[begin..].split_once('>')?;
    let title = shortened(rest.split('<').next()?.trim());
    (!title.is_empty()).then_some(title)
}

/// A text of a stranger, for one line.
fn shortened(text: &str) -> String {
    let printable = text.chars().filter(|it| !it.is_control());
    printable.take(80).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, media: &str, content: &str) -> ProbeReply {
        with_fields(status, &[("content-type", media)], content)
    }

    fn with_fields(status: u16, fields: &[(&str, &str)], content: &str) -> ProbeReply {
        let pairs = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        ProbeReply {
            status,
            fields: Fields::from_pairs(pairs),
            content: content.into(),
        }
    }

    #[test]
    fn answers_of_the_api_are_told_from_others() {
        const ERROR: &str = r#"{"type":"error","error":{"type":"not_found_error","message":"m"}}"#;
        for (status, content) in [
            (200, r#"{"data":[]}"#),
            (404, ERROR),
            (401, ""),
            (403, r#"{"detail":"no"}"#),
            (400, r#"{"error":{"message":"of a gateway"}}"#),
        ] {
            let reply = reply(status, "application/json", content);
            assert!(reply.is_of_api(), "{status} {content}");
        }
        let page = "<!doctype html><html><head><TITLE lang=en> Sign\n in\u{1b}[1m </TITLE>";
        for (status, media, content, told) in [
            (
                200,
                "text/html",
                page,
                "an HTML page titled \"Sign in[1m\" (status 200)",
            ),
            (403, "", "<p>blocked", "an HTML page (status 403)"),
            (401, "text/html", "no", "an HTML page (status 401)"),
            (
                200,
                "application/json",
                ERROR,
                "JSON that is none of the API (status 200)",
            ),
            (
                404,
                "application/json",
                r#"{"detail":"Not Found"}"#,
                "JSON that is none of the API (status 404)",
            ),
            (
                404,
                "text/plain; charset=utf-8",
                "404 page",
                "text/plain, which is not JSON (status 404)",
            ),
            (200, "text/plain", " ", "no content (status 200)"),
        ] {
            let reply = reply(status, media, content);
            assert!(!reply.is_of_api(), "{status} {content}");
            assert_eq!(reply.told(), told);
        }
        let moved = |to| with_fields(302, &[("location", to)], page).told();
        assert_eq!(moved("/login"), "a redirect (status 302)");
        assert_eq!(
            moved("https://sso.test/login?token=canary"),
            "a redirect to https://sso.test (status 302)"
        );
    }
}
