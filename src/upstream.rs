//! The HTTP client of one worker: its connections to the upstreams, and the sending of requests.
//!
//! Nothing here is shared with another worker. A request goes over a pooled connection that is open
//! and quiet, or over a new one; if that turns out to be dead before a byte of the request left,
//! over another, once. It never sends again a request that may have been received. Where
//! `UPSTREAM_HTTP_VERSION` allows HTTP/2, [`http2`] does the same with streams.
//!
//! # Why the hot path does not go through awc's builder
//!
//! Measured with the rig's cell A (2 KB `POST /v1/messages`, 64 connections, edit on), CPU per request,
//! in turn on one machine: the exchange called directly 22.8 and 23.3 us; the same exchange under awc's
//! builder ([`Client::awc`], feature `awc-hot-path`) 39.1 and 38.6 us: 1.69 times as much, where 1.05
//! was the limit. The difference is two maps of fields each way, a boxed body and a boxed future more,
//! and head and content in separate writes, since the content comes as a stream.

use std::{rc::Rc, sync::Arc};

use arc_swap::ArcSwap;

use crate::{config::Live, telemetry::metrics::Shard};

mod affinity;
mod age;
mod awc_connector;
pub mod balance;
mod body;
mod budget;
pub mod circuit;
mod connections;
pub mod dial;
pub mod exchange;
pub mod first_event;
pub mod http1;
pub mod http2;
pub mod pieces;
pub mod prefetch;
pub mod replay;
pub mod request;

pub use self::body::ResponseBody;

use self::{
    balance::Balance,
    connections::Connections,
    dial::Dialer,
    exchange::{Failed, Response},
    request::Request,
};

/// The HTTP client of one worker.
///
/// Requests of clients call the exchange directly ([`Client::send`]); requests of the proxy's own
/// may use [`Client::awc`], which runs the same exchange under awc's API.
pub struct Client {
    connections: Rc<Connections>,
    awc: awc::Client,
}

impl Client {
    /// A client without connections, for this worker.
    ///
    /// Connects and retries are counted in `shard`.
    pub fn new(
        dialer: Dialer,
        live: &Arc<ArcSwap<Live>>,
        balance: Arc<Balance>,
        shard: Arc<Shard>,
    ) -> Self {
        let connections = Rc::new(Connections::new(dialer, &live.load(), balance, shard));
        let awc = awc_connector::client(Rc::clone(&connections), Arc::clone(live));
        Self { connections, awc }
    }

    /// The awc client over the same connections.
    pub fn awc(&self) -> &awc::Client {
        &self.awc
    }

    /// Sends a request to one of the endpoints and waits for the response head.
    ///
    /// # Errors
    /// [`Failed::Unsent`] gives the request back: nothing of it left. After any other error it may
    /// have been processed.
    pub async fn send(
        &self,
        live: &Live,
        endpoint: usize,
        request: Request,
    ) -> Result<Response<ResponseBody>, Failed> {
        self.connections.send(live, endpoint, request).await
    }
}
