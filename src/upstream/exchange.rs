//! The outcome of an exchange with the upstream, and its timers: what both HTTP versions have in common.
//!
//! Generic over the body, so that neither version knows of the other.

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

/// How long a client that expects `100 Continue` waits at most for the upstream's word
/// (RFC 9110 §10.1.1 asks not to wait for ever; one second is curl's patience).
pub(super) const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// A response whose head is complete.
#[derive(Debug)]
pub struct Response<B> {
    /// Its head.
    pub head: ResponseHead,
    /// How its body is framed. [`Framing::None`] if it has none, [`Framing::UntilClose`] of a 101.
    pub framing: Framing,
    /// Its body.
    pub body: B,
    /// The request, if it was kept and this answer is one that another upstream may better: by its
    /// status, or by its first event.
    pub replay: Option<Box<Replay>>,
    /// How it got its connection, where somebody wants to know.
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

/// Why an exchange failed before its response head was complete.
#[derive(Debug)]
pub enum Failed {
    /// No octet of the request left, or the upstream said that it did not process it (RFC 9113
    /// §8.7), or it may be sent again whatever became of it (RFC 9110 §9.2.2): here it is back.
    Unsent(Box<Request>, UpstreamError),
    /// It cannot be sent again.
    Sent(ProxyError),
}

/// Why a response body ended before its end.
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

/// How a request got its connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectInfo {
    /// When it was had.
    pub had_at: Instant,
    /// How long it took to make it; none for one that was there.
    pub connecting: Option<Duration>,
}

impl ConnectInfo {
    /// Had now, after so much time for making it.
    pub(super) fn had(connecting: Option<Duration>) -> Self {
        Self {
            had_at: Instant::now(),
            connecting,
        }
    }
}

/// A request that an upstream had and that may go to another one.
#[derive(Debug)]
pub struct Replay {
    /// Its body, whole.
    pub body: Body,
    /// What keeps it for one more.
    pub keep: Box<ReplayBuffer>,
}

/// Whether a request of this method, without content, may be sent again once whatever became of it (RFC
/// 9110 §9.2.2). Other idempotent methods are left to their clients: what they change is not ours to
/// judge.
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The timer for the response head: counted from the last octet that left, so that an upload of an
/// hour does not use up the patience for the answer.
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
