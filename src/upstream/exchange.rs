//! The outcome of an exchange with the upstream, and its timers: what both HTTP versions have in common.
//!
//! Generic over the body, so that neither HTTP version knows of the other.

use std::{
    io,
    time::{Duration, Instant},
};

use actix_web::http::Method;

use super::{
    replay::ReplayBuffer,
    request::{Body, Request},
};
use crate::{
    error::{DownstreamError, ProxyError, UpstreamError},
    wire::{body::Framing, head::ResponseHead},
};

/// A response whose head is complete.
#[derive(Debug)]
pub struct Response<B> {
    /// Its head.
    pub head: ResponseHead,
    /// The framing of its body. [`Framing::None`] if it has none, [`Framing::UntilClose`] of a 101.
    pub framing: Framing,
    /// Its body.
    pub body: B,
    /// The request, if it was kept and another upstream may give a better answer than this one: by
    /// its status, or by its first event.
    pub replay: Option<Box<Replay>>,
    /// The connection that the request got, if the caller asked for it.
    pub connect_info: Option<ConnectInfo>,
}

impl<B> Response<B> {
    /// The same response with another body.
    pub fn map_body<C>(self, map: impl FnOnce(B) -> C) -> Response<C> {
        let Self {
            head,
            framing,
            body,
            replay,
            connect_info,
        } = self;
        Response {
            head,
            framing,
            body: map(body),
            replay,
            connect_info,
        }
    }
}

/// Failures before the response head was complete.
#[derive(Debug)]
pub enum Failed {
    /// No byte of the request left, or the upstream said that it did not process it (RFC 9113
    /// §8.7), or it may be sent again in any case (RFC 9110 §9.2.2): the request is given back.
    Unsent(Box<Request>, UpstreamError),
    /// It cannot be sent again.
    Sent(ProxyError),
}

/// Failures inside of a response body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream closed the connection too early.
    #[error("upstream closed inside of the body")]
    Truncated,
    /// The connection failed.
    #[error("upstream connection failed inside of the body")]
    Io(#[source] io::Error),
    /// The chunked coding is broken.
    #[error("malformed chunked response body")]
    Malformed,
    /// The client failed while its upload was still running.
    #[error("request body failed: {0}")]
    Downstream(DownstreamError),
}

/// The time at which a request got its connection, and the cost.
#[derive(Debug, Clone, Copy)]
pub struct ConnectInfo {
    /// The time at which it was available.
    pub had_at: Instant,
    /// The time that it took to connect; `None` for a pooled connection.
    pub connecting: Option<Duration>,
}

impl ConnectInfo {
    /// A connection that is available now; `connecting` is the time that it took to make it.
    pub(super) fn had(connecting: Option<Duration>) -> Self {
        Self {
            had_at: Instant::now(),
            connecting,
        }
    }
}

/// A request that one upstream answered and that may go to another one.
#[derive(Debug)]
pub struct Replay {
    /// Its body, whole.
    pub body: Body,
    /// The buffer that keeps it for one more attempt.
    pub keep: Box<ReplayBuffer>,
}

/// Tells if a request of this method, without content, may be sent again after any failure (RFC
/// 9110 §9.2.2). Other idempotent methods are left to their clients: the proxy cannot judge their
/// effects.
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The timer for the response head: counted from the last byte that left, so that a long upload
/// does not use up the time for the answer.
pub(super) struct Patience {
    limit: Duration,
    since: Instant,
    sent: u64,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            sent: 0,
        }
    }

    pub(super) fn progress(&mut self, sent: u64) {
        // the first write happens at once: the start is good enough for it
        if sent > self.sent {
            if self.sent > 0 {
                self.since = Instant::now();
            }
            self.sent = sent;
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.since + self.limit
    }
}
