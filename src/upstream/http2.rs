//! HTTP/2 towards the upstream (RFC 9113), where `UPSTREAM_HTTP_VERSION` is `2` or `auto`.
//!
//! The h2 crate implements the protocol; this chooses connections. No stream waits behind the
//! peer's limit of concurrent streams: a request that finds no connection with room has one
//! dialled. That is why awc's HTTP/2 is not used: it has one connection per worker and host, and
//! queues requests beyond the peer's limit without bound.
//!
//! - **`auto`** offers both versions by ALPN and speaks what was negotiated; without TLS it is
//!   HTTP/1.1. **`2`** is HTTP/2 or an error; without TLS by prior knowledge (§3.3).
//! - **Nothing is lost by GOAWAY**: a connection that is told to go away takes no new streams and
//!   drains; a request above its last stream, or that was refused (§8.7), is sent again over another
//!   connection if its body is still here. Never one that may have been processed.
//! - **A slow client holds back its own stream only**: a stream's window is 64 KiB, the connection's
//!   is that of all its streams.
//!
//! # What it costs
//!
//! Beside an HTTP/1.1 exchange, which has no field map and no second task: the request's fields in a
//! map, one allocation for each value and each name that is not a known one, the response's fields in
//! another and from there into bytes again; h2's slots and queue entries, its locks (never contended:
//! one thread), and two changes of task for each direction, since the connection's own task does the
//! reading and writing. A chunk of an answer is a reference into h2's read buffer and not copied.

use std::{
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use h2::client::SendRequest;

use self::{
    connection::StreamPermit,
    driver::open,
    pool::{DialGuard, NegotiatedVersion},
};
use super::{dial::Stream, http1};
use crate::{config::Scheme, error::UpstreamError};

mod connection;
mod driver;
mod errors;
mod exchange;
mod head;
mod monitored_stream;
mod pool;
mod response;
mod state;
mod upload;

pub(super) use self::exchange::exchange;
pub use self::{pool::Http2Pool, response::Http2Body};

/// A connection or stream for one request.
pub(super) enum StreamOrConnection {
    Stream((SendRequest<Bytes>, StreamPermit)),
    Connection(http1::Http1Connection),
}

/// The other ways to the endpoint of a pool: its HTTP/1.1 connections, and new ones.
pub(super) struct PoolDialer<'a> {
    /// Idle connections, where the upstream turned out to speak HTTP/1.1.
    pub(super) http1: &'a http1::Http1Pool,
    /// The scheme of the endpoint.
    pub(super) scheme: Scheme,
    /// Time until the peer allows a stream.
    pub(super) handshake_timeout: Duration,
    /// Makes a new connection.
    pub(super) dial: &'a dyn Fn() -> LocalBoxFuture<'a, Result<Stream, UpstreamError>>,
}

impl Http2Pool {
    /// A stream or a connection for one request: an existing one, the one that another request is
    /// making, or a new one, and the time that it took to make that.
    ///
    /// It waits for another request's connection only if that one should have room for it: the
    /// peer's last limit of streams is the expected one. If it has none, or cannot be made, the
    /// request goes on to another, and in the end to a connection of its own.
    pub(super) async fn way(
        self: &Rc<Self>,
        dialer: &PoolDialer<'_>,
        is_first: bool,
    ) -> Result<(StreamOrConnection, Option<Duration>), UpstreamError> {
        let mut joins_left = JOINS;
        loop {
            if self.speaks.get() == NegotiatedVersion::Http1 {
                joins_left = 0;
                if is_first
                    && let Some(idle) = poll_fn(|cx| Poll::Ready(dialer.http1.take(cx))).await
                {
                    return Ok((StreamOrConnection::Connection(idle), None));
                }
            }
            if let Some(stream) = self.stream().await {
                return Ok((StreamOrConnection::Stream(stream), None));
            }
            let Some(dial) = (joins_left > 0).then(|| self.join()).flatten() else {
                let began = Instant::now();
                let way = self.dial(dialer).await?;
                return Ok((way, Some(began.elapsed())));
            };
            dial.ended.notified().await;
            // one that was given up by its client says nothing of the upstream
            joins_left = if dial.has_failed.get() {
                0
            } else {
                joins_left - 1
            };
        }
    }

    /// A new connection.
    async fn dial(
        self: &Rc<Self>,
        dialer: &PoolDialer<'_>,
    ) -> Result<StreamOrConnection, UpstreamError> {
        let dialling = DialGuard::begin(self);
        let way = self.make(dialer).await;
        dialling.dial.has_failed.set(way.is_err());
        way
    }

    async fn make(
        self: &Rc<Self>,
        dialer: &PoolDialer<'_>,
    ) -> Result<StreamOrConnection, UpstreamError> {
        let stream = (dialer.dial)().await?;
        // in clear, HTTP/2 is known beforehand: `auto` has no pool there
        let is_http2 = stream.negotiated_http2() || dialer.scheme == Scheme::Http;
        if !is_http2 {
            self.speaks.set(NegotiatedVersion::Http1);
            return Ok(StreamOrConnection::Connection(http1::Http1Connection::new(
                stream,
            )));
        }
        self.speaks.set(NegotiatedVersion::Http2);
        let connection = open(stream, self, dialer.handshake_timeout).await?;
        self.usual_limit.set(connection.state.limit());
        let claimed = connection.claim();
        self.connections.borrow_mut().push(connection);
        Ok(StreamOrConnection::Stream(claimed))
    }
}

/// Upper bound of dials of other requests that a request waits for: the first may have been to an
/// upstream whose limit was not known yet.
const JOINS: usize = 2;
