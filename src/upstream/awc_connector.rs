//! The worker's awc client: the one door to the upstream, with our exchange under it instead of awc's own.
//!
//! awc calls its connector inside of `send_body`, and polls the connector's future inside of its own.
//! So a request of ours lies in a slot until the connector's future is polled first, and its result
//! lies in another when awc's future is ready: nothing is translated to awc's types, and awc sees the
//! same request and the same response each time. One slot of each is enough for a worker, since
//! nothing else of it runs between.
//!
//! awc's own connector is never called, and nothing of awc reaches the wire
//! (docs/decisions/0019-awc-is-the-door.md).

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::body;
use actix_service::Service;
use awc::{
    ClientResponse, ConnectRequest, ConnectResponse, FrozenClientRequest,
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
    /// A request, until a lane takes it.
    request: RefCell<Option<RoutedRequest>>,
    /// The result of an exchange, until the client takes it.
    result: RefCell<Option<ExchangeResult>>,
    /// The response that awc sees, the same each time: its map of fields is an allocation.
    response: Cell<Option<ClientResponse>>,
}

impl AwcClient {
    /// A client over these connections.
    pub(super) fn new(connections: Rc<Connections>) -> Self {
        let handover = Rc::new(Handover::default());
        let new_lane = {
            let handover = Rc::clone(&handover);
            move || exchanges(Rc::clone(&connections), Rc::clone(&handover))
        };
        let client = awc::Client::builder()
            .no_default_headers()
            .disable_timeout()
            .disable_redirects()
            .wrap(AwcConnector {
                new_lane,
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
    pub(super) async fn send(&self, routed: RoutedRequest) -> ExchangeResult {
        let Handover {
            request,
            result,
            response,
        } = &*self.handover;
        request.replace(Some(routed));
        // polled at once, and so the request is taken before another one comes
        let sending = match &self.frozen {
            Some(frozen) => frozen.send_body(body::None::new()),
            None => SendRequestError::Url(InvalidUrl::MissingHost).into(),
        };
        let fault = match sending.await {
            Ok(same) => {
                response.set(Some(same));
                None
            }
            Err(fault) => Some(io::Error::other(fault.to_string())),
        };
        if let Some(result) = result.take() {
            return result;
        }
        let cause = UpstreamError::ConnectionTerminated(fault);
        Err(match request.take() {
            Some(routed) => Failed::Unsent(Box::new(routed.request), cause),
            None => Failed::Sent(cause.into()),
        })
    }
}

/// A lane: one exchange after another in one future, whose room is used again. Each begins with the
/// request in the slot, and leaves its result there.
async fn exchanges(connections: Rc<Connections>, handover: Rc<Handover>) -> Infallible {
    loop {
        let routed = poll_fn(|_| match handover.request.take() {
            Some(routed) => Poll::Ready(routed),
            None => Poll::Pending,
        })
        .await;
        let result = connections.exchange(routed).await;
        handover.result.replace(Some(result));
    }
}

/// The middleware that replaces awc's connector by lanes of the type `L`.
struct AwcConnector<N, L> {
    new_lane: N,
    spare: Spare<L>,
    handover: Rc<Handover>,
}

/// Lanes without an exchange.
type Spare<L> = Rc<RefCell<Vec<Pin<Box<L>>>>>;

impl<S, N, L> Transform<S, ConnectRequest> for AwcConnector<N, L>
where
    Self: Service<ConnectRequest>,
{
    type Transform = Self;

    fn new_transform(self, _connector: S) -> Self {
        self
    }
}

impl<N, L> Service<ConnectRequest> for AwcConnector<N, L>
where
    N: Fn() -> L,
    L: Future<Output = Infallible> + 'static,
{
    type Response = ConnectResponse;
    type Error = SendRequestError;
    type Future = AwcExchange<L>;

    actix_service::always_ready!();

    fn call(&self, _request: ConnectRequest) -> AwcExchange<L> {
        let spare = self.spare.borrow_mut().pop();
        AwcExchange {
            lane: Some(spare.unwrap_or_else(|| Box::pin((self.new_lane)()))),
            spare: Rc::clone(&self.spare),
            handover: Rc::clone(&self.handover),
        }
    }
}

/// One exchange: the connector's future, which awc boxes. Dropped before its end, it takes its lane
/// with it.
struct AwcExchange<L> {
    lane: Option<Pin<Box<L>>>,
    spare: Spare<L>,
    handover: Rc<Handover>,
}

impl<L: Future<Output = Infallible>> Future for AwcExchange<L> {
    type Output = Result<ConnectResponse, SendRequestError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(lane) = &mut this.lane {
            // a lane never ends: it waits for the next request when it has left a result
            let Poll::Pending = lane.as_mut().poll(cx);
        }
        if this.handover.result.borrow().is_none() {
            return Poll::Pending;
        }
        let mut spare = this.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.extend(this.lane.take());
        }
        let same = this.handover.response.take();
        let response = same.unwrap_or_else(|| {
            let new = TestResponse::default().set_payload(Bytes::new());
            new.finish()
        });
        Poll::Ready(Ok(ConnectResponse::Client(response)))
    }
}

/// awc wants a URL with scheme and host. The destination is configuration.
const URL: &str = "http://upstream";
/// Lanes that a worker keeps: together less than 200 KiB.
const MAX_SPARE: usize = 64;
