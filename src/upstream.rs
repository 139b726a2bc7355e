//! The client of one worker: its connections to the upstream and how a request is sent.
//!
//! Nothing here is shared with another worker. A request goes over a pooled connection that is quiet,
//! or a new one; if that turns out to be dead before an octet of the request left, over another, once.
//! It never sends again what may have been received.
//!
//! # Why the hot path does not go through awc's builder
//!
//! Measured with the rig's cell A (2 KB `POST /v1/messages`, 64 connections, edit on), CPU per request,
//! in turn on one machine: the exchange called directly 22.8 and 23.3 us; the same exchange under awc's
//! builder ([`Client::awc`], feature `awc-hot-path`) 39.1 and 38.6 us: 1.69 times as much, where 1.05
//! was the limit. The difference is two maps of fields each way, a boxed body and a boxed future more,
//! and head and content in separate writes, since the content comes as a stream.

use std::{cell::RefCell, future::poll_fn, rc::Rc, sync::Arc, task::Poll};

use arc_swap::ArcSwap;

use crate::{
    config::{Live, Route, Upstream},
    error::{ProxyError, UpstreamError},
};

pub mod dial;
mod door;
pub mod http1;
pub mod pool;

use self::{
    dial::Dialer,
    http1::{Connection, Failed, Request, Response},
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
    pub fn new(dialer: Dialer, live: &Arc<ArcSwap<Live>>) -> Self {
        let connections = Rc::new(Connections::new(dialer, &live.load()));
        let awc = door::client(Rc::clone(&connections), Arc::clone(live));
        Self { connections, awc }
    }

    /// The awc client over the same connections.
    pub fn awc(&self) -> &awc::Client {
        &self.awc
    }

    /// Sends a request and waits for the response head.
    ///
    /// # Errors
    /// The cause, by the peer at fault. The request may have been processed unless the cause says
    /// that there was no connection.
    pub async fn send(&self, live: &Live, request: Request) -> Result<Response, ProxyError> {
        self.connections.send(live, request).await
    }
}

/// Connections of one worker, idle and to be made.
struct Connections {
    dialer: Dialer,
    pool: Rc<Pool>,
    /// Where the pooled connections lead.
    target: RefCell<(Upstream, Route)>,
}

impl Connections {
    fn new(dialer: Dialer, live: &Live) -> Self {
        Self {
            dialer,
            pool: Pool::new(live.timers.upstream_keep_alive),
            target: RefCell::new((live.upstream.clone(), live.route.clone())),
        }
    }

    async fn send(&self, live: &Live, mut request: Request) -> Result<Response, ProxyError> {
        let generation = self.follow(live);
        if let Some(connection) = poll_fn(|cx| Poll::Ready(self.pool.take(cx))).await {
            match http1::exchange(connection, request, &self.pool).await {
                Ok(response) => return Ok(response),
                Err(Failed::Sent(cause)) => return Err(cause),
                Err(Failed::Unsent(unsent, _)) => request = *unsent,
            }
        }
        let connection = self.connect(live, generation).await?;
        match http1::exchange(connection, request, &self.pool).await {
            Ok(response) => Ok(response),
            Err(Failed::Sent(cause)) => Err(cause),
            Err(Failed::Unsent(_, cause)) => Err(cause.into()),
        }
    }

    /// A new connection; a second try if the first could not be made.
    async fn connect(&self, live: &Live, generation: u64) -> Result<Connection, UpstreamError> {
        let dial = || {
            self.dialer
                .dial(&live.upstream, &live.route, live.timers.connect)
        };
        let stream = match dial().await {
            Err(UpstreamError::ConnectionRefused(_) | UpstreamError::ConnectionFailed(_)) => {
                dial().await?
            }
            outcome => outcome?,
        };
        Ok(Connection::new(stream, generation))
    }

    /// Leaves the connections to an upstream that the configuration no longer names. Gives the
    /// generation of those that it names.
    fn follow(&self, live: &Live) -> u64 {
        let is_current = {
            let target = self.target.borrow();
            target.0 == live.upstream && target.1 == live.route
        };
        if !is_current {
            self.target
                .replace((live.upstream.clone(), live.route.clone()));
            self.pool.renew();
        }
        self.pool.keep_alive(live.timers.upstream_keep_alive);
        self.pool.generation()
    }
}
