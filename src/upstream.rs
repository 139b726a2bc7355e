//! The HTTP client of one worker: its connections to the upstreams, and the sending of requests.
//!
//! Nothing here is shared with another worker. A request goes over a pooled connection that is open
//! and quiet, or over a new one; if that turns out to be dead before a byte of the request left,
//! over another, once. It never sends again a request that may have been received. Where
//! `UPSTREAM_HTTP_VERSION` allows HTTP/2, [`http2`] does the same with streams.
//!
//! The door to them is the worker's awc client (`awc_connector`): each request goes through it, and
//! nothing of it is translated to awc's types.

use std::{future::Future, rc::Rc, sync::Arc};

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
mod session_hash;
mod upload;

pub use self::body::ResponseBody;

use self::{
    awc_connector::AwcClient,
    balance::Balance,
    connections::Connections,
    dial::Dialer,
    exchange::{Failed, Response},
    request::Request,
};

/// The HTTP client of one worker.
pub struct Client {
    connections: Rc<Connections>,
    awc: AwcClient,
}

impl Client {
    /// A client without connections, for this worker.
    ///
    /// Connects and retries are counted in `shard`.
    pub fn new(dialer: Dialer, live: &Live, balance: Arc<Balance>, shard: Arc<Shard>) -> Self {
        let connections = Rc::new(Connections::new(dialer, live, balance, shard));
        let awc = AwcClient::new(Rc::clone(&connections));
        Self { connections, awc }
    }

    /// Sends a request to one of the endpoints and waits for the response head. Dropping the future
    /// ends the exchange.
    ///
    /// # Errors
    /// [`Failed::Unsent`] gives the request back: nothing of it left. After any other error it may
    /// have been processed.
    pub fn send(
        &self,
        live: &Live,
        endpoint: usize,
        request: Request,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Failed>> {
        self.awc
            .send(self.connections.route(live, endpoint, request))
    }
}
