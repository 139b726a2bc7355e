//! One request to an upstream through the HTTP client of a worker, and the times at which its answer came.

use std::{
    future::poll_fn,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use actix_http::BoxedPayloadStream;
use actix_web::{
    dev::Payload,
    error::PayloadError,
    http::{Method, header::HeaderName},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::Value;
use smallvec::smallvec;

use super::{outbound::outbound_remedy, reply::Reply, run::told};
use crate::{
    config::{Credential, Endpoint, Live, OutboundRoute, Scheme},
    error::{ProxyError, UpstreamError},
    secret::names_credential,
    upstream::{
        Client,
        dial::proxy_authorization,
        exchange::Failed,
        pieces::Pieces,
        request::{Body, BodyCoding, BufferedBody, Continue, Request, StreamedBody},
    },
    wire::head::Fields,
};

/// Octets of a body that are kept.
const LARGEST: usize = 1 << 20;

/// Owner of the HTTP client of a worker.
pub trait Door {
    /// The client.
    fn client(&self) -> &Client;
}

impl Door for Client {
    fn client(&self) -> &Client {
        self
    }
}

/// The way of requests to one upstream.
#[derive(Clone, Copy)]
pub(super) struct Inquiry<'a> {
    pub(super) door: &'a dyn Door,
    pub(super) live: &'a Live,
    pub(super) endpoint: usize,
    /// Credential for an upstream that gets none of the configuration.
    pub(super) credential: Option<&'a Credential>,
}

/// A request.
#[derive(Default)]
pub(super) struct Question<'a> {
    pub(super) target: &'a str,
    pub(super) fields: &'a [(&'a str, &'a str)],
    /// Content in JSON; a GET without.
    pub(super) content: Option<Value>,
    /// Silence in the middle of the content.
    pub(super) silence: Option<Duration>,
}

/// An answer.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) content: Vec<u8>,
    /// Times at which pieces of content came, since the request, and their lengths.
    pub(super) pieces: Vec<(Duration, usize)>,
    /// Failure within the body.
    pub(super) cut: Option<String>,
    /// Time until the head.
    pub(super) head_after: Duration,
    /// This machine's clock when the head was here.
    pub(super) at: SystemTime,
}

/// Reason for which there is no answer, and the remedy.
pub(super) struct NoAnswer {
    pub(super) why: String,
    pub(super) fix: String,
}

impl NoAnswer {
    /// An answer that did not come in time.
    pub(super) fn late(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            fix: TRY_AGAIN.to_owned(),
        }
    }

    fn of(error: &UpstreamError, endpoint: &Endpoint) -> Self {
        let is_clear = endpoint.upstream.scheme == Scheme::Http;
        let fix = match error {
            UpstreamError::ConnectionTerminated(_) | UpstreamError::HttpProtocolError
                if is_clear =>
            {
                "try https:// in API_BASE_URL: a port that speaks TLS answers so to http://; otherwise look at the \
                 upstream's status page"
                    .to_owned()
            }
            error => outbound_remedy(error, endpoint).unwrap_or_else(|| TRY_AGAIN.to_owned()),
        };
        Self {
            why: of_upstream(error),
            fix,
        }
    }
}

const TRY_AGAIN: &str = "look at the upstream's status page, and try again";

impl Answered {
    /// The answer for a judgement of its kind.
    pub(super) fn reply(&self) -> Reply<'_> {
        Reply {
            status: self.status,
            fields: &self.fields,
            content: &self.content,
        }
    }

    /// The content as JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.content).unwrap_or(Value::Null)
    }

    /// A field as text.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let value = self.fields.value(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// True if the content is in HTML.
    pub(super) fn is_html(&self) -> bool {
        let kind = self.field("content-type").unwrap_or_default();
        let begins = self.content.trim_ascii_start();
        kind.to_ascii_lowercase().contains("html") || begins.starts_with(b"<")
    }

    /// Type and message of an error in Anthropic's shape.
    pub(super) fn error(&self) -> Option<(String, String)> {
        let json = self.json();
        let text = |name: &str| json["error"][name].as_str().map(str::to_owned);
        let is_error = json["type"] == "error";
        is_error.then(|| Some((text("type")?, text("message")?)))?
    }
}

impl Inquiry<'_> {
    /// True if requests get a credential, of the configuration or this one.
    pub(super) fn has_credential(&self) -> bool {
        let endpoint = &self.live.endpoints[self.endpoint];
        endpoint.has_credential() || self.has_credential_field() || self.credential.is_some()
    }

    fn has_credential_field(&self) -> bool {
        let mut fields = self.live.custom_fields.iter();
        fields.any(|(name, _)| names_credential(name.as_str().as_bytes()))
    }

    /// Sends a request, and reads the whole answer.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Answered, NoAnswer> {
        let content = question
            .content
            .as_ref()
            .map(|it| it.to_string().into_bytes());
        let method = match content {
            Some(_) => Method::POST,
            None => Method::GET,
        };
        let patience = super::run::PATIENCE + question.silence.unwrap_or_default();
        let request = Request {
            head: self.head(question, &method, content.as_ref().map(Vec::len)),
            method,
            body: body(content, question.silence),
            patience,
            keep: None,
            is_watched: false,
            edges: None,
        };
        let began = Instant::now();
        let sent = self.door.client().send(self.live, self.endpoint, request);
        let endpoint = &self.live.endpoints[self.endpoint];
        let response = sent.await.map_err(|failed| match failed {
            Failed::Unsent(_, error) => NoAnswer::of(&error, endpoint),
            Failed::Sent(ProxyError::Upstream(error)) => NoAnswer::of(&error, endpoint),
            Failed::Sent(error) => NoAnswer::late(&told(&error)),
        })?;
        let mut answered = Answered {
            status: response.head.status.as_u16(),
            fields: response.head.fields,
            content: Vec::new(),
            pieces: Vec::new(),
            cut: None,
            head_after: began.elapsed(),
            at: SystemTime::now(),
        };
        let mut body = response.body;
        while let Some(piece) = poll_fn(|cx| body.poll_content(cx)).await {
            match piece {
                Ok(piece) => {
                    answered.pieces.push((began.elapsed(), piece.len()));
                    answered.content.extend_from_slice(&piece);
                }
                Err(error) => {
                    answered.cut = Some(told(&error));
                    break;
                }
            }
            if answered.content.len() > LARGEST {
                answered.cut = Some("the content is longer than 1 MiB".to_owned());
                break;
            }
        }
        Ok(answered)
    }

    /// The head, with the fields of the configuration, as requests of clients have them.
    fn head(&self, question: &Question<'_>, method: &Method, length: Option<usize>) -> Bytes {
        let endpoint = &self.live.endpoints[self.endpoint];
        let upstream = &endpoint.upstream;
        let mut octets = BytesMut::with_capacity(1024);
        let mut put = |text: &[u8]| octets.put_slice(text);
        put(method.as_str().as_bytes());
        put(b" ");
        let is_absolute = upstream.scheme == Scheme::Http
            && matches!(endpoint.route, OutboundRoute::HttpProxy(_));
        if is_absolute {
            put(b"http://");
            put(upstream.authority.as_bytes());
        }
        put(upstream.prefix.as_bytes());
        put(question.target.as_bytes());
        put(b" HTTP/1.1\r\n");
        let mut field = |name: &str, value: &[u8]| {
            put(name.as_bytes());
            put(b": ");
            put(value);
            put(b"\r\n");
        };
        field("host", upstream.authority.as_bytes());
        let own = [
            ("user-agent", AGENT),
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("anthropic-version", "2023-06-01"),
        ];
        let custom = &self.live.custom_fields;
        let is_custom = |name: &str| custom.iter().any(|(custom, _)| custom.as_str() == name);
        for (name, value) in own.iter().chain(question.fields) {
            if !is_custom(name) {
                field(name, value.as_bytes());
            }
        }
        for (name, value) in custom {
            // as for requests of clients: an upstream's own credential is the one that leaves
            let is_other =
                endpoint.credential.is_some() && names_credential(name.as_str().as_bytes());
            if !is_other && !is_framing(name) {
                field(name.as_str(), value.as_bytes());
            }
        }
        let given = self.credential.filter(|_| !self.has_credential_field());
        if let Some(credential) = endpoint.credential.as_ref().or(given) {
            field(credential.name.as_str(), credential.value.as_bytes());
        }
        if is_absolute && let Some(value) = proxy_authorization(&endpoint.route) {
            field("proxy-authorization", value.as_bytes());
        }
        if let Some(length) = length {
            field("content-type", b"application/json");
            field("content-length", length.to_string().as_bytes());
        }
        put(b"\r\n");
        octets.freeze()
    }
}

fn is_framing(name: &HeaderName) -> bool {
    ["host", "content-length", "transfer-encoding", "connection"].contains(&name.as_str())
}

fn body(content: Option<Vec<u8>>, silence: Option<Duration>) -> Body {
    let Some(content) = content.map(Bytes::from) else {
        return Body::None;
    };
    let Some(silence) = silence else {
        return Body::Held(BufferedBody {
            content: smallvec![content],
            coding: BodyCoding::Length,
            trailers: None,
        });
    };
    let (first, rest) = (
        content.slice(..content.len() / 2),
        content.slice(content.len() / 2..),
    );
    let late = futures_util::stream::once(async move {
        tokio::time::sleep(silence).await;
        Ok::<_, PayloadError>(rest)
    });
    let payload: BoxedPayloadStream = Box::pin(late);
    Body::Streamed(StreamedBody {
        first: Pieces::from_iter([first]),
        payload: Payload::Stream { payload },
        coding: BodyCoding::Length,
        go_ahead: Continue::NotExpected,
        notes: Rc::default(),
    })
}

/// A failure of an upstream, with its causes.
pub(super) fn of_upstream(error: &UpstreamError) -> String {
    told(error)
}

const AGENT: &str = concat!("anthropic-proxy/", env!("CARGO_PKG_VERSION"), " (doctor)");
