//! The worker's awc client, with our exchange under it instead of awc's own.
//!
//! awc's middleware receives each request as a `ConnectRequest`, after its builder and before its
//! connector: [`AwcConnector`] answers it there, so that requests through awc have the guarantees
//! of [`super::http1`]. awc's connector is never called.
//!
//! Forwarded requests do not go through it: see the figures in [`super`]. It serves requests of the
//! proxy's own, where a convenient API is worth more than microseconds.

use std::{future::Future, io, pin::Pin, rc::Rc, sync::Arc, task::Context};

use actix_http::{
    BoxedPayloadStream, Payload, RequestHead, RequestHeadType,
    body::{BodySize, MessageBody},
    error::PayloadError,
};
use actix_service::Service;
use actix_web::http::header::{HeaderName, HeaderValue};
use arc_swap::ArcSwap;
use awc::{ConnectRequest, ConnectResponse, error::SendRequestError, middleware::Transform};
use bytes::{BufMut, BytesMut};

use super::{
    body::ResponseBody,
    connections::Connections,
    exchange::{Failed, Response},
    pieces::Pieces,
    request::{Body, BodyCoding, Continue, Request, StreamedBody},
};
use crate::{
    config::Live,
    error::ProxyError,
    wire::{head::Field, role::Role},
};

/// The middleware that replaces awc's connector by our exchange.
struct AwcConnector {
    connections: Rc<Connections>,
    live: Arc<ArcSwap<Live>>,
}

/// An awc client over these connections. awc wants a whole URL, of which path and query count: the
/// destination is configuration.
pub(super) fn client(connections: Rc<Connections>, live: Arc<ArcSwap<Live>>) -> awc::Client {
    awc::Client::builder()
        .no_default_headers()
        .disable_timeout()
        .disable_redirects()
        .wrap(AwcConnector { connections, live })
        .finish()
}

impl<S> Transform<S, ConnectRequest> for AwcConnector {
    type Transform = Self;

    fn new_transform(self, _connector: S) -> Self {
        self
    }
}

impl Service<ConnectRequest> for AwcConnector {
    type Response = ConnectResponse;
    type Error = SendRequestError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    actix_service::always_ready!();

    fn call(&self, request: ConnectRequest) -> Self::Future {
        let (connections, live) = (Rc::clone(&self.connections), self.live.load_full());
        Box::pin(async move {
            let ConnectRequest::Client(head, body, _) = request else {
                return Err(SendRequestError::TunnelNotSupported);
            };
            let request = match &head {
                RequestHeadType::Owned(head) => outgoing(head, body, &live),
                RequestHeadType::Rc(head, _) => outgoing(head, body, &live),
            };
            match connections.send(&live, 0, request).await {
                Ok(response) => Ok(incoming(response)),
                Err(Failed::Unsent(_, cause)) => Err(failed(cause.into())),
                Err(Failed::Sent(cause)) => Err(failed(cause)),
            }
        })
    }
}

/// Serializes awc's request.
fn outgoing<B>(head: &RequestHead, body: B, live: &Live) -> Request
where
    B: MessageBody + 'static,
    B::Error: std::fmt::Display,
{
    let mut octets = BytesMut::with_capacity(64 * (head.headers.len() + 2));
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    octets.put_slice(head.method.as_str().as_bytes());
    octets.put_slice(b" ");
    octets.put_slice(live.endpoints[0].upstream.prefix.as_bytes());
    octets.put_slice(target.as_bytes());
    octets.put_slice(b" HTTP/1.1\r\nhost: ");
    octets.put_slice(live.endpoints[0].upstream.authority.as_bytes());
    octets.put_slice(b"\r\n");
    for (name, value) in &head.headers {
        let field = Field {
            name: name.as_str().as_bytes(),
            value: value.as_bytes(),
        };
        if matches!(field.role(), Role::EndToEnd | Role::Te) {
            octets.put_slice(field.name);
            octets.put_slice(b": ");
            octets.put_slice(field.value);
            octets.put_slice(b"\r\n");
        }
    }
    let coding = match body.size() {
        BodySize::Sized(length) => {
            octets.put_slice(b"content-length: ");
            octets.put_slice(itoa::Buffer::new().format(length).as_bytes());
            octets.put_slice(b"\r\n");
            Some(BodyCoding::Length)
        }
        BodySize::Stream => {
            octets.put_slice(b"transfer-encoding: chunked\r\n");
            Some(BodyCoding::Chunked)
        }
        BodySize::None => None,
    };
    octets.put_slice(b"\r\n");
    Request {
        head: octets.freeze(),
        method: head.method.clone(),
        body: coding.map_or(Body::None, |coding| streamed(body, coding)),
        patience: live.timers.response_head,
        keep: None,
        is_watched: false,
    }
}

fn streamed<B>(body: B, coding: BodyCoding) -> Body
where
    B: MessageBody + 'static,
    B::Error: std::fmt::Display,
{
    let mut body = Box::pin(body);
    let stream = futures_util::stream::poll_fn(move |cx: &mut Context<'_>| {
        let content = body.as_mut().poll_next(cx);
        content.map_err(|cause| PayloadError::Io(io::Error::other(cause.to_string())))
    });
    let payload: BoxedPayloadStream = Box::pin(stream);
    Body::Streamed(StreamedBody {
        first: Pieces::new(),
        payload: Payload::Stream { payload },
        coding,
        go_ahead: Continue::NotExpected,
        notes: Rc::default(),
    })
}

/// Gives our response the shape of awc's. It has no public constructor but the one for tests, whose
/// head and body are replaced here.
fn incoming(response: Response<ResponseBody>) -> ConnectResponse {
    let Response { head, mut body, .. } = response;
    let stream = futures_util::stream::poll_fn(move |cx: &mut Context<'_>| {
        body.poll_content(cx)
            .map_err(|cause| PayloadError::Io(io::Error::other(cause)))
    });
    let payload: BoxedPayloadStream = Box::pin(stream);
    let shell = awc::test::TestResponse::default().finish();
    ConnectResponse::Client(shell.map_body(|shape, _| {
        shape.status = head.status;
        for field in head.fields.iter() {
            let name = HeaderName::from_bytes(field.name);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
                shape.headers.append(name, value);
            }
        }
        Payload::Stream { payload }
    }))
}

fn failed(cause: ProxyError) -> SendRequestError {
    SendRequestError::Custom(Box::new(cause), Box::new("exchange with the upstream"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::{
        proxy::tests::live,
        telemetry::metrics::Metrics,
        upstream::{
            Client,
            balance::Balance,
            dial::{Dialer, Trust},
        },
    };

    #[test]
    fn awc_gets_the_guarantees_of_our_exchange() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // an interim answer and a truncated body: awc's own exchange takes both for the end
        let upstream = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let read = socket.read(&mut request).unwrap();
            socket
                .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\ncontent-length: 9\r\n\r\nshort")
                .unwrap();
            request.truncate(read);
            request
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let live = Arc::new(ArcSwap::from_pointee(live(&base)));
            let balance = Arc::new(Balance::new(&live.load().endpoints));
            let client = Client::new(
                Dialer::new(Trust::new(None)),
                &live,
                balance,
                Metrics::new().shard(),
            );
            let mut response = client
                .awc()
                .get(format!("{base}/v1/models"))
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers().get("x").unwrap(), "y");
            let cause = response.body().await.unwrap_err();
            assert!(cause.to_string().contains("inside of the body"), "{cause}");
        });
        let request = upstream.join().unwrap();
        let host = base.trim_start_matches("http://");
        let request = String::from_utf8(request).unwrap();
        assert!(
            request.starts_with(&format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\n")),
            "{request}"
        );
    }
}
