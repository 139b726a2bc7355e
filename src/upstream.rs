//! The client of one worker: its connections to the upstream and how a request is sent.
//!
//! Nothing here is shared with another worker. A request goes over a pooled connection that is quiet,
//! or a new one; if that turns out to be dead before an octet of the request left, over another, once.
//! It never sends again what may have been received. Where `UPSTREAM_HTTP_VERSION` allows HTTP/2,
//! [`http2`] does the same with streams.
//!
//! # Why the hot path does not go through awc's builder
//!
//! Measured with the rig's cell A (2 KB `POST /v1/messages`, 64 connections, edit on), CPU per request,
//! in turn on one machine: the exchange called directly 22.8 and 23.3 us; the same exchange under awc's
//! builder ([`Client::awc`], feature `awc-hot-path`) 39.1 and 38.6 us: 1.69 times as much, where 1.05
//! was the limit. The difference is two maps of fields each way, a boxed body and a boxed future more,
//! and head and content in separate writes, since the content comes as a stream.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    task::Poll,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures_util::future::LocalBoxFuture;

use crate::{
    config::{Endpoint, HttpVersion, Live, Route, Scheme},
    error::UpstreamError,
    telemetry::metrics::{Moved, Shard},
};

mod affinity;
mod age;
pub mod balance;
mod body;
mod budget;
pub mod circuit;
pub mod dial;
mod door;
pub mod first_event;
pub mod http1;
pub mod http2;
pub mod pool;
pub mod replay;

pub use self::body::ResponseBody;

use self::{
    balance::Balance,
    dial::{Dialer, Stream},
    http1::{Body, Connection, Failed, Request, Response},
    pool::Pool,
};

/// The one door to the upstream, of one worker.
///
/// Requests of the proxy call the exchange directly ([`Client::send`]); requests of our own may use
/// [`Client::awc`], under which the same exchange does the same.
pub struct Client {
    connections: Rc<Connections>,
    awc: awc::Client,
}

impl Client {
    /// A client without connections, for this worker.
    ///
    /// What it does is counted in `shard`.
    pub fn new(
        dialer: Dialer,
        live: &Arc<ArcSwap<Live>>,
        balance: Arc<Balance>,
        shard: Arc<Shard>,
    ) -> Self {
        let connections = Rc::new(Connections::new(dialer, &live.load(), balance, shard));
        let awc = door::client(Rc::clone(&connections), Arc::clone(live));
        Self { connections, awc }
    }

    /// The awc client over the same connections.
    pub fn awc(&self) -> &awc::Client {
        &self.awc
    }

    /// Sends a request to one of the endpoints and waits for the response head.
    ///
    /// # Errors
    /// [`Failed::Unsent`] gives the request back: nothing of it left. Otherwise it may have been
    /// processed.
    pub async fn send(
        &self,
        live: &Live,
        endpoint: usize,
        request: Request,
    ) -> Result<Response, Failed> {
        self.connections.send(live, endpoint, request).await
    }
}

/// How a request got its connection.
#[derive(Debug, Clone, Copy)]
pub struct Road {
    /// When it was had.
    pub had_at: Instant,
    /// How long it took to make it; none for one that was there.
    pub connecting: Option<Duration>,
}

impl Road {
    /// Had now, after so much time for making it.
    fn had(connecting: Option<Duration>) -> Self {
        Self {
            had_at: Instant::now(),
            connecting,
        }
    }
}

/// Connections of one worker, idle and to be made.
struct Connections {
    dialer: Dialer,
    lanes: RefCell<Lanes>,
    balance: Arc<Balance>,
    shard: Arc<Shard>,
}

/// The lanes to the endpoints of the configuration that was last seen, in its order.
struct Lanes {
    endpoints: Arc<[Endpoint]>,
    lanes: Vec<Rc<Lane>>,
}

/// The connections to one endpoint.
struct Lane {
    endpoint: Endpoint,
    pool: Rc<Pool>,
    /// Where HTTP/2 may be spoken.
    http2: Option<Rc<http2::Pool>>,
}

impl Connections {
    fn new(dialer: Dialer, live: &Live, balance: Arc<Balance>, shard: Arc<Shard>) -> Self {
        let none = Lanes {
            endpoints: Arc::new([]),
            lanes: Vec::new(),
        };
        Self {
            dialer,
            lanes: RefCell::new(none.follow(live, &balance)),
            balance,
            shard,
        }
    }

    async fn send(
        &self,
        live: &Live,
        endpoint: usize,
        mut request: Request,
    ) -> Result<Response, Failed> {
        let lane = self.lane(live, endpoint);
        let is_watched = request.is_watched;
        // octets both ways are HTTP/1.1's to carry
        let is_tunnel = matches!(request.body, Body::Tunnel(_));
        if let Some(http2) = &lane.http2
            && !is_tunnel
        {
            // on the heap, as it is larger than the way over HTTP/1.1
            return Box::pin(http2::send(self, live, &lane, http2, request)).await;
        }
        if let Some(connection) = poll_fn(|cx| Poll::Ready(lane.pool.take(cx))).await {
            let road = is_watched.then(|| Road::had(None));
            match http1::exchange(connection, request, &lane.pool).await {
                Err(Failed::Unsent(unsent, _)) => {
                    self.shard.moved(Moved::Stale);
                    request = *unsent;
                }
                outcome => return told(outcome, &lane.endpoint, road),
            }
        }
        let began = Instant::now();
        match self.connect(live, &lane.endpoint).await {
            Ok(connection) => {
                let road = is_watched.then(|| Road::had(Some(began.elapsed())));
                let outcome = http1::exchange(connection, request, &lane.pool).await;
                told(outcome, &lane.endpoint, road)
            }
            Err(cause) => Err(Failed::Unsent(Box::new(request), cause)),
        }
    }

    /// A new connection for HTTP/1.1.
    async fn connect(&self, live: &Live, endpoint: &Endpoint) -> Result<Connection, UpstreamError> {
        let stream = self.dial(live, endpoint, HttpVersion::Http11).await?;
        Ok(Connection::new(stream))
    }

    /// A new connection; a second try if the first could not be made. Where file descriptors ran out,
    /// idle connections are closed before it. On the heap, since an exchange seldom dials, and would be
    /// three times as large with it.
    fn dial<'a>(
        &'a self,
        live: &'a Live,
        endpoint: &'a Endpoint,
        http: HttpVersion,
    ) -> LocalBoxFuture<'a, Result<Stream, UpstreamError>> {
        Box::pin(self.dial_twice(live, endpoint, http))
    }

    async fn dial_twice(
        &self,
        live: &Live,
        endpoint: &Endpoint,
        http: HttpVersion,
    ) -> Result<Stream, UpstreamError> {
        let Endpoint {
            upstream, route, ..
        } = endpoint;
        let dial = async || {
            let began = Instant::now();
            let dialled = self
                .dialer
                .dial_for(http, upstream, route, live.timers.connect);
            let outcome = dialled.await;
            let label = outcome
                .as_ref()
                .map_or_else(|cause| cause.answer().label, |_| "ok");
            self.shard.connected(label, began.elapsed());
            outcome
        };
        match dial().await {
            Err(UpstreamError::ConnectionRefused(_) | UpstreamError::ConnectionFailed(_)) => {
                dial().await
            }
            Err(cause @ UpstreamError::DescriptorsExhausted(_)) => {
                let closed = self.close_idle().await;
                log::warn!(
                    "[Upstream] {cause}: {closed} idle connections to upstreams were closed; raise the limit \
                     (`ulimit -n`, LimitNOFILE=) or lower MAX_CONNECTIONS"
                );
                match closed {
                    0 => Err(cause),
                    _ => dial().await,
                }
            }
            Err(cause @ UpstreamError::LoopDetected(_)) => {
                log::warn!(
                    "[Upstream] {}: {cause}; requests to it are answered with 508; set API_BASE_URL to \
                     another address",
                    upstream.authority
                );
                Err(cause)
            }
            outcome => outcome,
        }
    }

    /// Closes this worker's idle connections to all upstreams. Gives how many there were.
    async fn close_idle(&self) -> usize {
        let lanes = self.lanes.borrow().lanes.clone();
        let close = |lane: &Rc<Lane>| {
            let http2 = lane.http2.as_ref().map_or(0, |http2| http2.close_idle());
            lane.pool.close_idle() + http2
        };
        let closed = lanes.iter().map(close).sum();
        // the driver of an HTTP/2 connection closes its socket in its own task
        for _ in 0..DRIVER_TURNS {
            tokio::task::yield_now().await;
        }
        closed
    }

    /// The lane to an endpoint of this configuration. Lanes to endpoints that it no longer names are
    /// left: what is idle there is closed, what runs runs on.
    fn lane(&self, live: &Live, endpoint: usize) -> Rc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        if !Arc::ptr_eq(&lanes.endpoints, &live.endpoints) {
            *lanes = lanes.follow(live, &self.balance);
        }
        let lane = Rc::clone(&lanes.lanes[endpoint]);
        lane.pool.follow(&live.timers);
        if let Some(http2) = &lane.http2 {
            http2.follow(&live.timers);
        }
        lane
    }
}

/// The outcome of an exchange, as it is told: an outbound proxy that asks for credentials did not pass
/// the request on, and its challenge is for us, not for the client (RFC 9110 §15.5.8).
fn told(
    outcome: Result<Response, Failed>,
    endpoint: &Endpoint,
    road: Option<Road>,
) -> Result<Response, Failed> {
    let response = outcome?;
    let is_by_proxy = matches!(endpoint.route, Route::HttpProxy(_))
        && endpoint.upstream.scheme == Scheme::Http
        && response.head.status == 407;
    if is_by_proxy {
        let cause = io::Error::other("the outbound proxy answered with status 407");
        return Err(Failed::Sent(
            UpstreamError::ProxyConnectionRefused(cause).into(),
        ));
    }
    Ok(Response { road, ..response })
}

/// Turns of the runtime that a driver needs to see its last handle gone, say goodbye, and end.
const DRIVER_TURNS: usize = 4;

impl Lanes {
    /// The lanes of another configuration, with the connections of those that stay.
    fn follow(&self, live: &Live, balance: &Balance) -> Self {
        let idle = balance.idle(&live.endpoints);
        let lane = |(endpoint, idle): (&Endpoint, &Arc<AtomicUsize>)| {
            let same = |lane: &&Rc<Lane>| lane.endpoint == *endpoint;
            self.lanes.iter().find(same).cloned().unwrap_or_else(|| {
                Rc::new(Lane {
                    endpoint: endpoint.clone(),
                    pool: Pool::new(&live.timers, Arc::clone(idle)),
                    http2: http2::Pool::of(endpoint, &live.timers),
                })
            })
        };
        Self {
            endpoints: Arc::clone(&live.endpoints),
            lanes: live.endpoints.iter().zip(&idle).map(lane).collect(),
        }
    }
}
