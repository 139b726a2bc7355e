//! The connections of one worker to all endpoints, over either HTTP version: selection of a
//! connection for each request, and the retry over another one.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;

use super::{
    balance::Balance,
    body::ResponseBody,
    dial::{self, Dialer, Stream},
    exchange::{ConnectInfo, Failed, Response},
    http1,
    http2::{self, PoolDialer, StreamOrConnection},
    request::{Body, Request},
};
use crate::{
    config::{Endpoint, HttpVersion, Live, OutboundRoute, Scheme},
    error::UpstreamError,
    telemetry::metrics::{Moved, Shard},
};

/// The connections of one worker, idle and new.
pub(super) struct Connections {
    dialer: Dialer,
    endpoint_pools: RefCell<EndpointPools>,
    balance: Arc<Balance>,
    shard: Arc<Shard>,
}

/// A request, and all that its exchange needs of the configuration.
pub(super) struct RoutedRequest {
    pub(super) request: Request,
    endpoint_pool: Rc<EndpointPool>,
    connect_timeout: Duration,
}

/// The outcome of an exchange, up to its response head.
pub(super) type ExchangeResult = Result<Response<ResponseBody>, Failed>;

/// The pools of the endpoints of the configuration that was last seen, in its order.
struct EndpointPools {
    endpoints: Arc<[Endpoint]>,
    pools: Vec<Rc<EndpointPool>>,
}

/// The connections to one endpoint.
struct EndpointPool {
    endpoint: Endpoint,
    pool: Rc<http1::Http1Pool>,
    /// The HTTP/2 connections, if the configuration allows HTTP/2 there.
    http2: Option<Rc<http2::Http2Pool>>,
}

impl Connections {
    pub(super) fn new(
        dialer: Dialer,
        live: &Live,
        balance: Arc<Balance>,
        shard: Arc<Shard>,
    ) -> Self {
        let none = EndpointPools {
            endpoints: Arc::new([]),
            pools: Vec::new(),
        };
        Self {
            dialer,
            endpoint_pools: RefCell::new(none.follow(live, &balance)),
            balance,
            shard,
        }
    }

    /// The request with all that its exchange needs of the configuration.
    pub(super) fn route(&self, live: &Live, endpoint: usize, request: Request) -> RoutedRequest {
        RoutedRequest {
            request,
            endpoint_pool: self.endpoint_pool(live, endpoint),
            connect_timeout: live.timers.connect,
        }
    }

    /// Sends a request and waits for the response head.
    pub(super) async fn exchange(&self, routed: RoutedRequest) -> ExchangeResult {
        let RoutedRequest {
            mut request,
            endpoint_pool,
            connect_timeout,
        } = routed;
        let is_watched = request.is_watched;
        // octets both ways are HTTP/1.1's to carry
        let is_tunnel = matches!(request.body, Body::Tunnel(_));
        if let Some(http2) = &endpoint_pool.http2
            && !is_tunnel
        {
            // on the heap, as it is larger than the way over HTTP/1.1
            let sent = send_http2(self, connect_timeout, &endpoint_pool, http2, request);
            return Box::pin(sent).await;
        }
        if let Some(connection) = poll_fn(|cx| Poll::Ready(endpoint_pool.pool.take(cx))).await {
            let connect_info = is_watched.then(|| ConnectInfo::had(None));
            match http1::exchange(connection, request, &endpoint_pool.pool).await {
                Err(Failed::Unsent(unsent, _)) => {
                    self.shard.moved(Moved::Stale);
                    request = *unsent;
                }
                outcome => return told(in_http1(outcome), &endpoint_pool.endpoint, connect_info),
            }
        }
        let began = Instant::now();
        match self.connect(connect_timeout, &endpoint_pool.endpoint).await {
            Ok(connection) => {
                let connect_info = is_watched.then(|| ConnectInfo::had(Some(began.elapsed())));
                let outcome = http1::exchange(connection, request, &endpoint_pool.pool).await;
                told(in_http1(outcome), &endpoint_pool.endpoint, connect_info)
            }
            Err(cause) => Err(Failed::Unsent(Box::new(request), cause)),
        }
    }

    /// A new connection for HTTP/1.1.
    async fn connect(
        &self,
        timeout: Duration,
        endpoint: &Endpoint,
    ) -> Result<http1::Http1Connection, UpstreamError> {
        let stream = self.dial(timeout, endpoint, HttpVersion::Http11).await?;
        Ok(http1::Http1Connection::new(stream))
    }

    /// A new connection; a second try if the first could not be made. Where file descriptors ran
    /// out, idle connections are closed before it. Boxed, since an exchange seldom dials, and its
    /// future would be three times as large.
    fn dial<'a>(
        &'a self,
        timeout: Duration,
        endpoint: &'a Endpoint,
        http: HttpVersion,
    ) -> LocalBoxFuture<'a, Result<Stream, UpstreamError>> {
        Box::pin(self.dial_twice(timeout, endpoint, http))
    }

    async fn dial_twice(
        &self,
        timeout: Duration,
        endpoint: &Endpoint,
        http: HttpVersion,
    ) -> Result<Stream, UpstreamError> {
        let Endpoint {
            upstream, route, ..
        } = endpoint;
        let dial = async || {
            let began = Instant::now();
            let outcome = self.dialer.dial_for(http, upstream, route, timeout).await;
            let failed = outcome.as_ref().err().map(|cause| cause.answer().label);
            self.shard.connected(failed, began.elapsed());
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

    /// Closes this worker's idle connections to all upstreams. Returns their number.
    async fn close_idle(&self) -> usize {
        let endpoint_pools = self.endpoint_pools.borrow().pools.clone();
        let close = |endpoint_pool: &Rc<EndpointPool>| {
            let http2 = endpoint_pool
                .http2
                .as_ref()
                .map_or(0, |http2| http2.close_idle());
            endpoint_pool.pool.close_idle() + http2
        };
        let closed = endpoint_pools.iter().map(close).sum();
        // the driver of an HTTP/2 connection closes its socket in its own task
        for _ in 0..DRIVER_TURNS {
            tokio::task::yield_now().await;
        }
        closed
    }

    /// The pools of an endpoint of this configuration. Pools of endpoints that it no longer names
    /// are dropped: idle connections are closed, running exchanges go on.
    fn endpoint_pool(&self, live: &Live, endpoint: usize) -> Rc<EndpointPool> {
        let mut endpoint_pools = self.endpoint_pools.borrow_mut();
        if !Arc::ptr_eq(&endpoint_pools.endpoints, &live.endpoints) {
            *endpoint_pools = endpoint_pools.follow(live, &self.balance);
        }
        let endpoint_pool = Rc::clone(&endpoint_pools.pools[endpoint]);
        endpoint_pool.pool.follow(&live.timers);
        if let Some(http2) = &endpoint_pool.http2 {
            http2.follow(&live.timers);
        }
        endpoint_pool
    }
}

/// The outcome of an exchange as its caller gets it. An outbound proxy that asks for credentials
/// did not pass the request on, and its challenge is for this proxy, not for the client (RFC 9110
/// §15.5.8).
fn told(
    mut outcome: ExchangeResult,
    endpoint: &Endpoint,
    connect_info: Option<ConnectInfo>,
) -> ExchangeResult {
    if let Ok(response) = &mut outcome {
        let is_by_proxy = matches!(endpoint.route, OutboundRoute::HttpProxy(_))
            && endpoint.upstream.scheme == Scheme::Http
            && response.head.status == 407;
        if is_by_proxy {
            let fields = response.head.fields.iter();
            let challenges = fields.filter(|field| field.is("proxy-authenticate"));
            let refusal = dial::proxy_challenge(challenges.map(|field| field.value));
            return Err(Failed::Sent(refusal.into()));
        }
        response.connect_info = connect_info;
    }
    outcome
}

/// Sends a request over HTTP/2, or over HTTP/1.1 if the upstream negotiated that.
///
/// # Errors
/// [`Failed::Unsent`] if it was not processed and every try to send it failed.
async fn send_http2(
    connections: &Connections,
    connect_timeout: Duration,
    endpoint_pool: &EndpointPool,
    pool: &Rc<http2::Http2Pool>,
    mut request: Request,
) -> ExchangeResult {
    let dial = || {
        let endpoint = &endpoint_pool.endpoint;
        connections.dial(connect_timeout, endpoint, endpoint.http)
    };
    let dialer = PoolDialer {
        http1: &endpoint_pool.pool,
        scheme: endpoint_pool.endpoint.upstream.scheme,
        handshake_timeout: connect_timeout,
        dial: &dial,
    };
    for tries_left in (0..TRIES).rev() {
        let is_first = tries_left + 1 == TRIES;
        let (way, connecting) = match pool.way(&dialer, is_first).await {
            Ok(had) => had,
            Err(cause) => return Err(Failed::Unsent(Box::new(request), cause)),
        };
        let connect_info = request.is_watched.then(|| ConnectInfo::had(connecting));
        // once: a second connection that is lost in the same way is no chance any more
        let may_repeat = is_first && connecting.is_none();
        let (outcome, unsent_since) = match way {
            StreamOrConnection::Stream(stream) => {
                let upstream = &endpoint_pool.endpoint.upstream;
                let outcome = http2::exchange(stream, request, upstream, may_repeat);
                let outcome = outcome.await;
                (in_http2(outcome), Moved::Unprocessed)
            }
            StreamOrConnection::Connection(connection) => {
                let outcome = http1::exchange(connection, request, &endpoint_pool.pool);
                (in_http1(outcome.await), Moved::Stale)
            }
        };
        match outcome {
            Err(Failed::Unsent(unsent, _)) if tries_left > 0 => {
                connections.shard.moved(unsent_since);
                request = *unsent;
            }
            outcome => {
                return outcome.map(|response| Response {
                    connect_info,
                    ..response
                });
            }
        }
    }
    Err(Failed::Unsent(
        Box::new(request),
        UpstreamError::ConnectionTerminated(None),
    ))
}

/// Wraps the body of an outcome over HTTP/1.1.
fn in_http1(outcome: Result<Response<http1::Http1Body>, Failed>) -> ExchangeResult {
    outcome.map(|response| response.map_body(ResponseBody::Http1))
}

/// Wraps the body of an outcome over HTTP/2.
fn in_http2(outcome: Result<Response<http2::Http2Body>, Failed>) -> ExchangeResult {
    outcome.map(|response| response.map_body(ResponseBody::Http2))
}

/// Upper bound of sendings of one request: a second because a connection went away, a third because
/// the next one did, too.
const TRIES: usize = 3;
/// Turns of the runtime that a driver needs to notice that its last handle was dropped, to send
/// GOAWAY, and to end.
const DRIVER_TURNS: usize = 4;

impl EndpointPools {
    /// The pools of another configuration, with the connections of the endpoints that stay.
    fn follow(&self, live: &Live, balance: &Balance) -> Self {
        let idle = balance.idle(&live.endpoints);
        let endpoint_pool = |(endpoint, idle): (&Endpoint, &Arc<AtomicUsize>)| {
            let same = |endpoint_pool: &&Rc<EndpointPool>| endpoint_pool.endpoint == *endpoint;
            self.pools.iter().find(same).cloned().unwrap_or_else(|| {
                Rc::new(EndpointPool {
                    endpoint: endpoint.clone(),
                    pool: http1::Http1Pool::new(&live.timers, Arc::clone(idle)),
                    http2: http2::Http2Pool::of(endpoint, &live.timers),
                })
            })
        };
        Self {
            endpoints: Arc::clone(&live.endpoints),
            pools: live
                .endpoints
                .iter()
                .zip(&idle)
                .map(endpoint_pool)
                .collect(),
        }
    }
}
