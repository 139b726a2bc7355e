//! The worker's awc client: the one door to the upstream, with our exchange under it instead of awc's own.
//!
//! awc calls its connector inside of `send_body`, and polls the connector's future inside of its own.
//! So a request of ours lies in a slot when the connector is called, and its outcome lies in another
//! when awc's future is ready: nothing is translated to awc's types, and awc's request is the same
//! frozen one each time. One slot of each is enough for a worker, since nothing else runs between.
//!
//! awc's connector is never called, and nothing of awc reaches the wire: docs/decisions/0019-awc-is-the-door.md.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::body;
use actix_service::Service;
use awc::{
    ClientResponse, ConnectRequest, ConnectResponse, FrozenClientRequest, SendClientRequest,
    error::{InvalidUrl, SendRequestError},
    middleware::Transform,
    test::TestResponse,
};
use bytes::Bytes;

use super::{
    connections::{Connections, ExchangeResult, RoutedRequest},
    exchange::Failed,
};
use crate::error::UpstreamError;

/// The awc client of one worker.
pub(super) struct AwcClient {
    /// `None` if awc did not take its constant URL.
    frozen: Option<FrozenClientRequest>,
    handover: Rc<Handover>,
}

/// The slots that client and connector share.
#[derive(Default)]
struct Handover {
    /// A request, until the connector takes it.
    request: Cell<Option<RoutedRequest>>,
    /// The outcome of an exchange, until the client takes it.
    outcome: Cell<Option<ExchangeResult>>,
    /// The response that awc sees, the same each time: its map of fields is an allocation.
    shell: Cell<Option<ClientResponse>>,
}

impl AwcClient {
    /// A client over these connections.
    pub(super) fn new(connections: Rc<Connections>) -> Self {
        let handover = Rc::new(Handover::default());
        let client = awc::Client::builder()
            .no_default_headers()
            .disable_timeout()
            .disable_redirects()
            .wrap(AwcConnector {
                exchange: move |routed| Rc::clone(&connections).exchange(routed),
                spare: Rc::default(),
                handover: Rc::clone(&handover),
            })
            .finish();
        Self {
            frozen: client.get(URL).freeze().ok(),
            handover,
        }
    }

    /// Sends a request. Dropping the future ends the exchange.
    pub(super) fn send(&self, routed: RoutedRequest) -> AwcExchange<'_> {
        self.handover.request.set(Some(routed));
        let sending = match &self.frozen {
            Some(frozen) => frozen.send_body(body::None::new()),
            None => SendRequestError::Url(InvalidUrl::MissingHost).into(),
        };
        AwcExchange {
            sending,
            handover: &self.handover,
        }
    }
}

/// An exchange that runs under awc's future.
pub(super) struct AwcExchange<'a> {
    sending: SendClientRequest,
    handover: &'a Handover,
}

impl Future for AwcExchange<'_> {
    type Output = ExchangeResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ExchangeResult> {
        let sent = ready!(Pin::new(&mut self.sending).poll(cx));
        let Handover {
            request,
            outcome,
            shell,
        } = self.handover;
        let fault = match sent {
            Ok(response) => {
                shell.set(Some(response));
                None
            }
            Err(fault) => Some(fault),
        };
        Poll::Ready(outcome.take().unwrap_or_else(|| {
            let fault = fault.map(|fault| io::Error::other(fault.to_string()));
            let cause = UpstreamError::ConnectionTerminated(fault);
            Err(match request.take() {
                Some(routed) => Failed::Unsent(Box::new(routed.request), cause),
                None => Failed::Sent(cause.into()),
            })
        }))
    }
}

/// The middleware that replaces awc's connector by our exchange, a future of the type `F`.
struct AwcConnector<R, F> {
    exchange: R,
    spare: Rc<SpareBoxes<F>>,
    handover: Rc<Handover>,
}

impl<S, R, F> Transform<S, ConnectRequest> for AwcConnector<R, F>
where
    Self: Service<ConnectRequest>,
{
    type Transform = Self;

    fn new_transform(self, _connector: S) -> Self {
        self
    }
}

impl<R, F> Service<ConnectRequest> for AwcConnector<R, F>
where
    R: Fn(RoutedRequest) -> F,
    F: Future<Output = ExchangeResult> + 'static,
{
    type Response = ConnectResponse;
    type Error = SendRequestError;
    type Future = HandedExchange<F>;

    actix_service::always_ready!();

    fn call(&self, _request: ConnectRequest) -> HandedExchange<F> {
        let routed = self.handover.request.take();
        HandedExchange {
            running: routed.map(|routed| self.spare.fill((self.exchange)(routed))),
            spare: Rc::clone(&self.spare),
            handover: Rc::clone(&self.handover),
        }
    }
}

/// The future of the connector, which awc boxes: small, with the exchange in a box that is used again.
struct HandedExchange<F> {
    running: Option<ExchangeBox<F>>,
    spare: Rc<SpareBoxes<F>>,
    handover: Rc<Handover>,
}

type ExchangeBox<F> = Pin<Box<Option<F>>>;

impl<F: Future<Output = ExchangeResult>> Future for HandedExchange<F> {
    type Output = Result<ConnectResponse, SendRequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let running = self.running.as_mut().map(Pin::as_mut);
        let Some(exchange) = running.and_then(Option::as_pin_mut) else {
            return Poll::Ready(Err(SendRequestError::TunnelNotSupported));
        };
        let outcome = ready!(exchange.poll(cx));
        self.handover.outcome.set(Some(outcome));
        let shell = self.handover.shell.take().unwrap_or_else(shell);
        Poll::Ready(Ok(ConnectResponse::Client(shell)))
    }
}

impl<F> Drop for HandedExchange<F> {
    fn drop(&mut self) {
        if let Some(ended) = self.running.take() {
            self.spare.keep(ended);
        }
    }
}

/// Boxes of exchanges that ended. An exchange is larger than what the allocator gives cheaply.
struct SpareBoxes<F>(RefCell<Vec<ExchangeBox<F>>>);

impl<F> Default for SpareBoxes<F> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<F> SpareBoxes<F> {
    fn fill(&self, exchange: F) -> ExchangeBox<F> {
        let spare = self.0.borrow_mut().pop();
        let mut place = spare.unwrap_or_else(|| Box::pin(None));
        place.set(Some(exchange));
        place
    }

    fn keep(&self, mut ended: ExchangeBox<F>) {
        // first: what is dropped here may end another exchange
        ended.set(None);
        let mut spare = self.0.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.push(ended);
        }
    }
}

fn shell() -> ClientResponse {
    TestResponse::default().set_payload(Bytes::new()).finish()
}

/// awc wants a URL with scheme and host. The destination is configuration.
const URL: &str = "http://upstream";
/// Boxes that a worker keeps: together about 100 KiB.
const MAX_SPARE: usize = 64;
